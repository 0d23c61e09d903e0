/* SPDX-License-Identifier: Apache-2.0 */
/*
 * json: what is printed with --json: objects of one line, each with the fields of a table.
 *
 * The tables (json_fields.c) are all that says which fields there are: json_object_of() goes by
 * them, and so does the section of the manual page. A thing has one name in all of them, and in the
 * columns that people see: `queue` and `worker` are names, `id` is a task's. A time has its unit
 * behind it. A text, an id or a moment that is not known, or does not apply, is null; a number is
 * 0.
 */
#ifndef CLIENT_JSON_H
#define CLIENT_JSON_H

#include <jansson.h>
#include <pushrod/client.h>
#include "common/buf.h"

enum json_kind {
    JSON_RECEIPT,
    JSON_FINISH,
    JSON_JOB,
    JSON_TASK,
    JSON_ATTEMPT, /* within a task */
    JSON_SUBMITTED,
    JSON_QUEUE,
    JSON_WORKER,
    JSON_LOOK,
    JSON_EVENT,
    JSON_ACT,
    JSON_PING,
    JSON_PHASE,
    JSON_VERSION,
    JSON_KINDS
};

/* Rows that are no struct of the library's. Texts may be NULL. */
struct json_receipt {
    const char *queue;
    uint64_t id;
    int error;
    const char *text;
};

struct json_finish { /* of wait */
    struct pushrod_finish finish;
    const char *state; /* of a task that has not finished; NULL: it has, or it is not known */
};

struct json_job { /* of map */
    uint64_t seq;
    const char *input;
    size_t input_size;
    struct pushrod_finish finish; /* status 0: it never ran */
    uint64_t took_ns;
};

struct json_submitted {
    uint64_t id;
    struct pushrod_submission task;
    struct pushrod_options options;
    int error;
    const char *text;
};

struct json_act {
    const char *action, *queue, *worker;
    uint64_t id;
    uint64_t as;    /* the task that has its place; 0: none */
    uint64_t tasks; /* how many were touched */
    int error;
    const char *text;
};

struct json_ping {
    const char *server, *software;
    uint64_t round_trip_ns;
    int64_t clock_ahead_ms;
};

struct json_look {
    uint64_t at_ms;
    const char *server, *software;
    double per_second;        /* < 0: not known yet */
    json_t *queues, *workers; /* the object takes a reference of its own */
};

struct json_phase {
    const char *phase;
    uint64_t tasks, failed, elapsed_ns;
    double per_second;
    uint64_t p50_ns, p90_ns, p99_ns, p999_ns, max_ns;
};

struct json_version {
    const char *version;
};

json_t *json_bytes(const void *data, size_t size); /* text if it is UTF-8, else {"base64": ...} */
json_t *json_rate(double per_second);              /* negative: null */

/* The object of a row, which is the struct of its kind: struct pushrod_queue_info for JSON_QUEUE.
 */
json_t *json_object_of(enum json_kind kind, const void *row);
void json_print_row(enum json_kind kind, const void *row); /* a line on standard output */

/* Roff: the section JSON of the manual page. */
void json_man(struct buf *out);

/* ---- between json.c and json_fields.c ---- */

enum json_type {
    FIELD_TEXT,   /* const char *; NULL or "": null */
    FIELD_ID,     /* uint64_t; 0: null */
    FIELD_TIME,   /* uint64_t, Unix time; 0: null */
    FIELD_NUMBER, /* uint64_t */
    FIELD_SIGNED, /* int64_t */
    FIELD_SMALL,  /* unsigned */
    FIELD_BOOL,
    FIELD_RATE,  /* double */
    FIELD_ERROR, /* int, an enum pushrod_error with either sign; 0: null */
    FIELD_BYTES, /* const void *, with a size_t for its size; NULL: null */
    FIELD_JSON,  /* json_t *, of which a reference is taken */
    FIELD_MADE   /* by a function, of the whole row */
};

struct json_field {
    const char *name;
    const char *meaning;
    enum json_type type;
    size_t at;
    size_t size_at; /* BYTES: where the size is */
    json_t *(*make)(const void *row);
};

struct json_table {
    const char *commands; /* that print it */
    const struct json_field *fields;
    size_t count;
};

extern const struct json_table json_tables[JSON_KINDS];

#endif
