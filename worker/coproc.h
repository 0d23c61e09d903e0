/* SPDX-License-Identifier: Apache-2.0 */
/*
 * coproc: a process that stays, from its beginning to its end, and the pipes to it.
 *
 * Knows processes; what they say, and what that means for a task, is run_coproc.c's business.
 */
#ifndef WORKER_COPROC_H
#define WORKER_COPROC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/buf.h"
#include "worker/said.h"
#include "worker/spawn.h"

#define COPROC_READ 65536u
/* A slot keeps buffers up to this size: the rest of a message, and room for a read. */
#define COPROC_KEEP ((size_t)2 * COPROC_READ)

/* One process; the state of a slot and a handler. */
struct coproc {
    struct child child; /* pid 0: none right now */
    struct buf in;      /* to be written */
    size_t written;
    struct buf out; /* read, not yet understood */
    struct said said;
    bool used;  /* it was given a task */
    bool deaf;  /* it has closed its input: it is good for no other task */
    bool heard; /* it has said something since it got the last one */
};

struct coproc *coproc_new(void); /* NULL: no memory */

/* There is one that can be given a task. 0, or errno: no process is to be had. */
int coproc_ready(struct coproc *p, const char *command);

void coproc_feed(struct coproc *p); /* writes what its input takes */

bool coproc_left_well(struct coproc *p, int exit_ms);
int coproc_end(struct coproc *p); /* kills it; the wait status, 0: there was none */

/* handler_ops.slot_leave and slot_close */
void coproc_leave(void *state);
void coproc_close(void *state, uint64_t until_ns);

#endif
