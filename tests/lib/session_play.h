/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session_play: a session without a world: a clock that is set by hand, a server that is played by
 * the test, and a record of what was said.
 */
#ifndef TESTS_SESSION_PLAY_H
#define TESTS_SESSION_PLAY_H

#include "tests/unit/unit.h"
#include <pushrod/error.h>
#include "proto/codec.h"
#include "worker/session.h"

#define PLAY_SAID   4096u
#define PLAY_RUNS   4096u
#define PLAY_WORKER 7u

/* One message of an answers frame. */
struct said_message {
    uint64_t sequence;
    unsigned kind;
    uint64_t id;
    uint64_t lease;
    uint64_t code;
    size_t size; /* of the bytes that it carries */
};

struct play {
    struct session *session;
    const struct session_actions *actions; /* of the last tick */
    uint64_t ms;                           /* the clock */
    uint64_t number;                       /* of the session */
    uint64_t heartbeat_ms;                 /* what WELCOME says; 0: 1000 */
    struct said_message said[PLAY_SAID];   /* since play_clear() */
    size_t said_count;
    struct {
        enum run_kind kind;
        uint64_t lease;
    } runs[PLAY_RUNS];
    size_t run_count;
    unsigned joins, connects, disconnects;
    uint8_t nonce[16];    /* of the last JOIN */
    uint32_t queue_count; /* likewise */
    struct buf held;      /* likewise */
    uint32_t held_count;
    struct msg_held holds[64];
};

void play_start(struct play *r, struct session_config config);
void play_stop(struct play *r);
void play_clear(struct play *r); /* forgets what was said and run */
void play_begin(struct play *r);
void play_end(struct play *r);
void play_tick(struct play *r);                   /* begin and end, now */
void play_advance(struct play *r, uint64_t ms);   /* and then a tick */
void play_run_until(struct play *r, uint64_t ms); /* obeys wake_ns up to then */

void play_welcome(struct play *r, const uint8_t *verdicts); /* one for each held; NULL: none */
void play_hello(struct play *r);
void play_up(struct play *r); /* joins, is welcomed, has HELLO; READY was said */
void play_tasks(struct play *r, uint64_t first, size_t count); /* lease = id + 1000; in one tick */
void play_task_of(struct play *r, const char *queue, uint64_t id); /* within a tick */
void play_done(struct play *r, uint64_t lease, size_t size);       /* within a tick */

size_t play_said_of(const struct play *r, unsigned kind);
const struct said_message *play_first_said(const struct play *r, unsigned kind);
size_t play_run_of(const struct play *r, enum run_kind kind);

#endif
