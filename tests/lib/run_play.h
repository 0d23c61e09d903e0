/* SPDX-License-Identifier: Apache-2.0 */
/* run_play: a runner without a session: attempts go in, outcomes come out. */
#ifndef TESTS_RUN_PLAY_H
#define TESTS_RUN_PLAY_H

#include "tests/unit/unit.h"
#include "worker/run.h"

#define RUN_PLAY_MAX 4096u

struct outcome {
    bool ended;
    enum report_kind kind;
    uint32_t code;
    bool permanent;
    uint64_t retry_ms;
    uint64_t run_ns;
    struct buf result; /* with a NUL behind it */
    char text[4200];
    unsigned progress; /* reports of this kind */
    uint64_t done, total;
    struct buf data;
};

struct run_play {
    struct run *run;
    struct handler handler;
    struct run_config config;
    struct attempt attempts[RUN_PLAY_MAX]; /* by lease - 1 */
    struct outcome outcomes[RUN_PLAY_MAX];
    size_t given;
    size_t ended;
};

/* One handler, for every queue. `config`: slots, timeouts and limits; 0: 1 slot, 1 MiB of result.
 */
void run_play_start(struct run_play *p, struct handler handler, struct run_config config);
void run_play_stop(struct run_play *p);

/* Hands an attempt in; gives its lease. */
uint64_t run_play_give(struct run_play *p, const void *payload, size_t size);
uint64_t run_play_give_like(struct run_play *p, struct attempt attempt);
/* Takes reports until that one has ended; aborts after 20 s. */
struct outcome *run_play_wait(struct run_play *p, uint64_t lease);
void run_play_wait_all(struct run_play *p);
/* Takes reports until it is true. */
void run_play_until(struct run_play *p, bool (*condition)(void *arg), void *arg);
/* Hands one in, and waits. */
struct outcome *run_play_do(struct run_play *p, const char *payload);

/* From now on pidfd_open() fails in this process, as before Linux 5.3. False: it did anyway. */
bool run_play_forbid_pidfd(void);

struct handler run_play_command(const struct handler_ops *ops, const char *command);

#endif
