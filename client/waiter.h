/* SPDX-License-Identifier: Apache-2.0 */
/* waiter: waits for tasks by id, says why it waits, and prints their results in order. */
#ifndef CLIENT_WAITER_H
#define CLIENT_WAITER_H

#include "client/command.h"

struct waiter {
    struct cli *cli;
    const uint64_t *ids;
    size_t count;
    const char *queue; /* of all; NULL: asked for when it is needed */
    uint64_t limit_ms; /* of the whole wait; 0: none */
    bool json;
    bool attached; /* the tasks end with this command */
};

int waiter_check(struct cli *cli); /* options that cannot go together: said; an exit code */
/* To be called before the tasks are submitted or followed. */
void waiter_begin(struct cli *cli);
int waiter_run(struct waiter *w); /* an exit code */

#endif
