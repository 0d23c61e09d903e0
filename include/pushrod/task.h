/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the server, worker and client libraries say about tasks in the same words:
 * limits, options, and how a task finishes.
 */
#ifndef PUSHROD_TASK_H
#define PUSHROD_TASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <pushrod/error.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PUSHROD_MAX_PAYLOAD    (16u << 20) /* bytes, unless the server says otherwise */
#define PUSHROD_MAX_QUEUE_NAME 128u        /* bytes */
#define PUSHROD_MAX_TAG        256u        /* bytes */
#define PUSHROD_MAX_UNIQUE_KEY 256u        /* bytes */
#define PUSHROD_MAX_HEADERS    (8u << 10)  /* bytes, encoded, all together */
#define PUSHROD_MAX_ERROR_TEXT (4u << 10)  /* bytes */
#define PUSHROD_MAX_PRIORITY   9u

#define PUSHROD_DEFAULT_PRIORITY     4u
#define PUSHROD_DEFAULT_MAX_ATTEMPTS 3u
#define PUSHROD_DEFAULT_BACKOFF_MS   1000u

/* How a task finished. The numbers are on the wire and in the store. */
enum pushrod_status {
    PUSHROD_DONE = 1,      /* a handler returned success */
    PUSHROD_FAILED = 2,    /* no attempts left, failed for good, or poison: it is a dead letter */
    PUSHROD_CANCELLED = 3, /* cancelled by a client */
    PUSHROD_EXPIRED = 4,   /* not started before `expires` */
    PUSHROD_REFUSED = 5    /* embedded server only: the store failed after the id was returned */
};

/* "done", "failed", "cancelled", "expired", "refused"; "unknown" for anything else. */
const char *pushrod_status_name(int status);

/* One header: both are NUL-terminated UTF-8; names are [A-Za-z0-9_-]{1,64}. */
struct pushrod_header {
    const char *name;
    const char *value;
};

/*
 * Options of a task. All zero means the defaults, so `= {0}` is a valid value;
 * fields whose zero would be a useful value say how it is written.
 * Everything that is pointed to is borrowed until the call that takes it returns.
 */
struct pushrod_options {
    unsigned priority_plus_1; /* 0: the default (4); else the priority 0-9 plus one, 9 runs first */
    uint64_t delay_ms;        /* not before this long from now */
    uint64_t eta_ms;          /* not before this Unix time in ms; 0: none; wins over delay_ms */
    uint64_t timeout_ms;      /* of one attempt; 0: the worker's own default */
    uint64_t expires_ms;   /* not started within this long from now: not started at all; 0: never */
    unsigned max_attempts; /* 0: the default (3) */
    uint64_t backoff_ms;   /* first retry delay, doubled each time, cap 1 h, full jitter; 0: 1 s */
    const char *unique_key; /* NULL: none; a second task with the key is refused as DUPLICATE */
    /* How long the key holds after submission; 0: until the task ends, and the next one with the
     * key may be the same, sent again after a lost connection: see client.h. */
    uint64_t unique_ms;
    const char *worker; /* only this worker, by name; NULL: any */
    uint64_t keep_ms;   /* keep the finish and its result this long; 0: only for who waits */
    const void *tag;    /* stored with the task, given back with its finish */
    size_t tag_size;
    const struct pushrod_header *headers; /* carried untouched to the handler */
    size_t header_count;
};

/*
 * The finish of a task as its callback or `wait` sees it.
 * All pointers are borrowed until the callback returns (or as the function that gives it says).
 */
struct pushrod_finish {
    uint64_t id;
    enum pushrod_status status;
    int error;          /* enum pushrod_error, 0 with PUSHROD_DONE */
    unsigned attempts;  /* hand-overs to a worker, this one included */
    const void *result; /* what the handler returned; NULL with size 0 if nothing */
    size_t result_size;
    const char *error_text; /* "" if there is none; NUL-terminated */
    const void *tag;
    size_t tag_size;
    uint64_t run_ns; /* time in the handler, of the attempt that ended it */
};

#ifdef __cplusplus
}
#endif
#endif
