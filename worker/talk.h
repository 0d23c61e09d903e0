/* SPDX-License-Identifier: Apache-2.0 */
/*
 * talk: the protocol of coprocesses, without the processes. Any language with JSON can speak it.
 *
 * To the handler, for each task: one line of JSON, then `size` bytes of payload:
 *     {"id":"123","queue":"thumb","attempt":1,"headers":{"k":"v"},"size":5}\nhello
 *
 * From it: any number of
 *     {"type":"progress","done":1,"total":2,"text":"..."}\n
 *     {"type":"data","size":3}\nabc
 * then one of these, each with `size` bytes behind it (0 if it is left out):
 *     {"type":"done","size":6}\nresult
 *     {"type":"fail","size":10}\nnot a JPEG             it fails for good
 *     {"type":"retry","size":4,"after":2.5}\nbusy       again, 2.5 s from now at the earliest
 * A failure without bytes may have its "text" in the line.
 *
 * Each of them may repeat the task's "id"; then an answer to an earlier task is never mistaken for
 * one to this. Its standard error goes to the log. It ends when its standard input does.
 */
#ifndef WORKER_TALK_H
#define WORKER_TALK_H

#include <pushrod/task.h>
#include "common/buf.h"
#include "worker/session.h"

#define TALK_LINE 65536u /* bytes of a line from the handler */

enum talk_type { TALK_PROGRESS, TALK_DATA, TALK_DONE, TALK_FAIL, TALK_RETRY };

struct talk_message {
    enum talk_type type;
    uint64_t id; /* 0: not said */
    size_t head; /* bytes of the line, with its end */
    size_t size; /* bytes behind it */
    uint64_t done;
    uint64_t total;
    uint64_t after_ms;
    const char *wrong;                     /* -1: what of it, a literal; "": all of it */
    char text[PUSHROD_MAX_ERROR_TEXT + 1]; /* PROGRESS; FAIL and RETRY without bytes */
};

/* The line and the payload. False: no memory. */
bool talk_request(struct buf *out, const struct attempt *attempt);

/* The message at the front of `bytes`. 1: *m is set (its bytes may not be there yet); 0: more
 * must come first; -1: this is not the protocol. */
int talk_parse(struct slice bytes, struct talk_message *m);

#endif
