/* SPDX-License-Identifier: Apache-2.0 */
/*
 * environment: what a command finds in its environment: ours, without our secrets, and
 * PUSHROD_TASK_ID, _ATTEMPT, _QUEUE and PUSHROD_HEADER_NAME for each header.
 */
#ifndef WORKER_ENVIRONMENT_H
#define WORKER_ENVIRONMENT_H

#include "common/buf.h"
#include "worker/session.h"

struct environment {
    char **variables; /* NULL at the end; borrows from text and from our own environment */
    struct buf text;
};

/* `attempt` NULL: only ours. False: no memory. */
bool environment_make(struct environment *e, const struct attempt *attempt);
void environment_free(struct environment *e);

#endif
