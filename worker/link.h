/* SPDX-License-Identifier: Apache-2.0 */
/*
 * link: the sockets of a worker process, and the loop that turns what comes in into events for the
 * session, and its actions into messages and runs.
 *
 * The only place in a worker that knows ZeroMQ (but for obituary.c) and reads the clock. One
 * thread at a time, the caller's or, with one slot, the slot's while its handlers are short
 * (run_lead.c); no handler can block it for longer than a millisecond.
 */
#ifndef WORKER_LINK_H
#define WORKER_LINK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "worker/run.h"
#include "worker/session.h"

/* At the end, handlers that were cancelled have this long to return: run_config.grace_ms, and some
 * time to see what SIGKILL did. */
#define LINK_END_WAIT_MS 2500u

struct link_config {
    const char *join;              /* as for address_resolve() */
    struct session_config session; /* borrowed until link_run() returns */
    struct run_config run;         /* likewise */
    unsigned io_threads;
    size_t max_memory;        /* bytes resident; above: drain and be replaced; 0: no bound */
    int stop_fd;              /* a bell, rung when *stops has changed */
    const atomic_uint *stops; /* 1: drain; more: leave now */
    int ready_fd;             /* told when tasks may come; -1: nobody */
};

struct link_end {
    int code;       /* enum pushrod_error; 0: drained. TASK_TIMEOUT: a handler hangs, see `stuck` */
    bool recycle;   /* because of max_tasks, max_memory, or a handler that hangs */
    bool stuck;     /* a handler did not return: what it uses was not freed, the process must go */
    char text[600]; /* of the error */
};

/* Runs a worker to its end. */
void link_run(const struct link_config *config, struct link_end *end);

#endif
