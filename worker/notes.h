/* SPDX-License-Identifier: Apache-2.0 */
/*
 * notes: the lines that a command writes to its descriptor 3.
 *
 *     progress DONE TOTAL [TEXT]     told to followers
 *     retry-after SECONDS            if the attempt fails: not before
 *     fail TEXT                      the attempt fails for good, however the command exits
 */
#ifndef WORKER_NOTES_H
#define WORKER_NOTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pushrod_task;

#define NOTES_STRANGE 10u /* lines of one task that are none of these and are logged */

struct notes {
    struct pushrod_task *task;
    char line[1024]; /* a longer one is cut */
    size_t size;
    uint64_t retry_ms; /* 0: nothing said */
    bool failed;
    unsigned strange; /* lines that are none of these */
    char text[1024];
};

void notes_begin(struct notes *n, struct pushrod_task *task);
void notes_take(struct notes *n, const char *data, size_t size);
void notes_end(struct notes *n); /* the last line may lack its end */

#endif
