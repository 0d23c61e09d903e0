/* SPDX-License-Identifier: Apache-2.0 */
/*
 * obituary: tells a server how a worker process died, from a process of its own, because the
 * supervisor must never have a ZeroMQ object.
 */
#ifndef WORKER_OBITUARY_H
#define WORKER_OBITUARY_H

#include <signal.h>
#include <stdint.h>

struct obituary {
    uint8_t instance[16];
    uint64_t pid;
    uint64_t signal; /* 0: it exited */
    uint64_t exit_code;
    uint64_t peak_kib;
};

/*
 * Forks, and returns at once; the child gives up after 2 s. `join`: "host:port", or several with
 * commas between them: which of them the dead had joined nobody knows, and to the others it is
 * nothing. `mask`: the child's signal mask.
 */
void obituary_post(const char *join, const struct obituary *o, const sigset_t *mask);

#endif
