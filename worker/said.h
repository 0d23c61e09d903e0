/* SPDX-License-Identifier: Apache-2.0 */
/*
 * said: what a command writes to its standard error: line by line to our log, with the task's id,
 * and the last 4 KiB kept as the text of an error.
 */
#ifndef WORKER_SAID_H
#define WORKER_SAID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <pushrod/task.h>
#include "common/slice.h"

#define SAID_LINE  480u  /* bytes; a longer line is logged in pieces */
#define SAID_LINES 200u  /* of one task; the rest is counted */
#define SAID_PART  2048u /* of said_tail(): beside other words of an error its end is there, too */

struct said {
    uint64_t id; /* of the task; 0: none right now */
    char tail[2 * PUSHROD_MAX_ERROR_TEXT];
    size_t tail_size;
    char line[SAID_LINE];
    size_t line_size;
    unsigned lines;
};

void said_begin(struct said *s, uint64_t id);
void said_take(struct said *s, const void *data, size_t size);
/* Reads some of what is there, and closes it (-1) at its end. False: nothing more right now. */
bool said_read(struct said *s, int *fd);
/* All that is there by now: others may hold the other end, and go on. */
void said_read_rest(struct said *s, int *fd);
/* Logs an unfinished line, and how many lines were left out. */
void said_end(struct said *s);
/* The last `most` bytes, 4 KiB at the most, as text, without white space around them; valid until
 * the next said_take(). */
struct slice said_tail(struct said *s, size_t most);

#endif
