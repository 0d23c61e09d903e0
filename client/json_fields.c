/* SPDX-License-Identifier: Apache-2.0 */
/* json_fields: the fields of each kind of object, and the section of the manual page made of them.
 */
#include <stddef.h>
#include <string.h>

#include "client/command.h"

/* The type is that of the member, unless the field says what is special about it. */
#define FIELD_TYPE(struct_, member_)                                                               \
    _Generic(((struct struct_ *)0)->member_,                                                       \
        const char *: FIELD_TEXT,                                                                  \
        uint64_t: FIELD_NUMBER,                                                                    \
        int64_t: FIELD_SIGNED,                                                                     \
        unsigned: FIELD_SMALL,                                                                     \
        bool: FIELD_BOOL,                                                                          \
        double: FIELD_RATE,                                                                        \
        json_t *: FIELD_JSON,                                                                      \
        int: FIELD_ERROR)
#define F(name_, struct_, member_, meaning_)                                                       \
    {                                                                                              \
        .name = (name_), .meaning = (meaning_), .type = FIELD_TYPE(struct_, member_),              \
        .at = offsetof(struct struct_, member_)                                                    \
    }
#define FIELD_AS(type_, name_, struct_, member_, meaning_)                                         \
    {                                                                                              \
        .name = (name_), .meaning = (meaning_), .type = FIELD_##type_,                             \
        .at = offsetof(struct struct_, member_)                                                    \
    }
/* The member, and the size in MEMBER_size. */
#define BYTES(name_, struct_, member_, meaning_)                                                   \
    {                                                                                              \
        .name = (name_), .meaning = (meaning_), .type = FIELD_BYTES,                               \
        .at = offsetof(struct struct_, member_),                                                   \
        .size_at = offsetof(struct struct_, member_##_size)                                        \
    }
#define MADE(name_, make_, meaning_)                                                               \
    {                                                                                              \
        .name = (name_), .meaning = (meaning_), .type = FIELD_MADE, .make = (make_)                \
    }

/* ---------------------------------------------------------------------------------- tasks */

static json_t *state_of(const struct pushrod_finish *f)
{
    return f->status ? json_string(pushrod_status_name((int)f->status)) : json_null();
}

/* One that is done may have an empty result; one that failed has none, unless it gave some. */
static json_t *result_of(const struct pushrod_finish *f)
{
    bool any = f->status == PUSHROD_DONE || f->result_size;
    return any ? json_bytes(f->result, f->result_size) : json_null();
}

static json_t *finish_state(const void *row)
{
    const struct json_finish *f = row;
    return f->state ? json_string(text_state(f->state)) : state_of(&f->finish);
}

static json_t *finish_result(const void *row)
{
    return result_of(&((const struct json_finish *)row)->finish);
}

static json_t *job_state(const void *row)
{
    return state_of(&((const struct json_job *)row)->finish);
}

static json_t *job_result(const void *row)
{
    return result_of(&((const struct json_job *)row)->finish);
}

static json_t *task_state(const void *row)
{
    const char *state = ((const struct pushrod_task_info *)row)->state;
    return *state ? json_string(text_state(state)) : json_null();
}

static json_t *task_due(const void *row)
{
    uint64_t ms = task_due_ms(row);
    return ms ? json_integer((json_int_t)ms) : json_null();
}

static json_t *task_ended(const void *row)
{
    uint64_t ms = task_ended_ms(row);
    return ms ? json_integer((json_int_t)ms) : json_null();
}

static json_t *task_history(const void *row)
{
    const struct pushrod_task_info *t = row;
    json_t *history = json_array();
    for (size_t i = 0; i < t->history_count; i++)
        json_array_append_new(history, json_object_of(JSON_ATTEMPT, &t->history[i]));
    return history;
}

#define STATE_FINISHED "done, failed, cancelled, expired or refused"

static const struct json_field receipt_fields[] = {
    FIELD_AS(ID, "id", json_receipt, id,
        "of the task; if it was refused as a DUPLICATE, of the one that holds the unique key"),
    F("queue", json_receipt, queue, "that it was submitted to"),
    F("error", json_receipt, error, "why it was refused, as in the table of PROTOCOL.md"),
    F("text", json_receipt, text, "the same in words"),
};

static const struct json_field finish_fields[] = {
    FIELD_AS(ID, "id", json_finish, finish.id, "of the task"),
    MADE("state", finish_state,
        STATE_FINISHED "; where it is if the wait ended before (then error is TIMED_OUT); null if "
                       "the server cannot tell it"),
    F("error", json_finish, finish.error, "why it is not done"),
    F("text", json_finish, finish.error_text, "the same in the words of whoever found it"),
    F("attempts", json_finish, finish.attempts, "hand-overs to a worker"),
    F("run_ns", json_finish, finish.run_ns, "how long the last attempt ran"),
    MADE("result", finish_result, "what the handler returned"),
    BYTES("tag", json_finish, finish.tag, "what --tag gave it"),
};

static const struct json_field job_fields[] = {
    F("seq", json_job, seq, "number of the input, from 1, as in the joblog"),
    BYTES("input", json_job, input, "the input"),
    FIELD_AS(ID, "id", json_job, finish.id, "of the task"),
    MADE("state", job_state, STATE_FINISHED "; null if it never became a task"),
    F("error", json_job, finish.error, "why it is not done"),
    F("text", json_job, finish.error_text, "the same in words"),
    F("elapsed_ns", json_job, took_ns, "from the submission to the finish"),
    F("run_ns", json_job, finish.run_ns, "how long the last attempt ran"),
    MADE("result", job_result, "what the handler returned"),
};

static const struct json_field task_fields[] = {
    FIELD_AS(ID, "id", pushrod_task_info, id, "of the task"),
    F("queue", pushrod_task_info, queue, "its queue"),
    MADE("state", task_state,
        "storing, delayed, ready, running, held (until its worker is back), " STATE_FINISHED
        "; null if it cannot be told, and then error says why"),
    F("priority", pushrod_task_info, priority, "0 to 9"),
    F("attempts", pushrod_task_info, attempts, "hand-overs to a worker"),
    F("deaths", pushrod_task_info, deaths, "workers that died while they ran it alone"),
    FIELD_AS(TIME, "submitted_ms", pushrod_task_info, submitted_ms, "Unix time"),
    MADE("due_ms", task_due, "Unix time of the next attempt, if it is delayed"),
    MADE("ended_ms", task_ended, "Unix time of its end, if that is known"),
    FIELD_AS(TIME, "since_ms", pushrod_task_info, since_ms,
        "Unix time from which on its worker has it, if one has"),
    F("size", pushrod_task_info, size, "of the payload, in bytes"),
    BYTES("head", pushrod_task_info, head,
        "the first 1,024 bytes of the payload, if they are at hand"),
    BYTES("tag", pushrod_task_info, tag, "what --tag gave it"),
    F("worker", pushrod_task_info, worker, "that has it, or the only one that may"),
    F("progress_done", pushrod_task_info, done, "how far it is, as its handler has said last"),
    F("progress_total", pushrod_task_info, total, "of so many; 0: it did not say"),
    F("progress", pushrod_task_info, progress, "the same in words"),
    F("error", pushrod_task_info, error, "of the last attempt"),
    F("text", pushrod_task_info, text, "the same in the words of whoever found it"),
    MADE("history", task_history, "an object for each attempt of a dead task"),
};

static const struct json_field attempt_fields[] = {
    F("attempt", pushrod_death, attempt, "its number, from 1"),
    FIELD_AS(TIME, "at_ms", pushrod_death, at_ms, "Unix time of its end"),
    F("error", pushrod_death, error, "how it ended"),
    F("worker", pushrod_death, worker, "that ran it"),
    F("signal", pushrod_death, signal, "that killed the worker's process; 0: none"),
    F("exit_code", pushrod_death, exit_code, "of the worker's process"),
    F("peak_kib", pushrod_death, peak_kib, "its peak memory; 0: not known"),
    F("text", pushrod_death, text, "the error in words"),
};

static json_t *submitted_priority(const void *row)
{
    const struct json_submitted *s = row;
    return json_integer(s->options.priority_plus_1 ? s->options.priority_plus_1 - 1 : 0);
}

static json_t *submitted_headers(const void *row)
{
    const struct pushrod_options *o = &((const struct json_submitted *)row)->options;
    json_t *headers = json_object();
    for (size_t i = 0; i < o->header_count; i++)
        json_object_set_new(headers, o->headers[i].name,
            json_bytes(o->headers[i].value, strlen(o->headers[i].value)));
    return headers;
}

static json_t *submitted_payload(const void *row)
{
    const struct json_submitted *s = row;
    return s->task.data ? json_bytes(s->task.data, s->task.size) : json_null();
}

/* As they were given to submit; nothing of a task that cannot be told. */
static const struct json_field submitted_fields[] = {
    FIELD_AS(ID, "id", json_submitted, id, "of the task"),
    F("queue", json_submitted, task.queue, "its queue"),
    MADE("payload", submitted_payload, "all of it"),
    MADE("priority", submitted_priority, "0 to 9"),
    FIELD_AS(TIME, "eta_ms", json_submitted, options.eta_ms,
        "Unix time until which it waits for its first attempt"),
    F("timeout_ms", json_submitted, options.timeout_ms, "of one attempt; 0: the worker's own"),
    F("expires_ms", json_submitted, options.expires_ms, "from its submission; 0: never"),
    F("max_attempts", json_submitted, options.max_attempts, "until it is dead"),
    F("backoff_ms", json_submitted, options.backoff_ms, "before the first retry"),
    F("unique", json_submitted, options.unique_key, "its unique key"),
    F("unique_ms", json_submitted, options.unique_ms, "how long that holds; 0: until it ends"),
    F("worker", json_submitted, options.worker, "the only one that may run it"),
    F("keep_ms", json_submitted, options.keep_ms, "for how long its result is kept"),
    BYTES("tag", json_submitted, options.tag, "what --tag gave it"),
    MADE("headers", submitted_headers, "an object"),
    F("error", json_submitted, error, "why it cannot be told"),
    F("text", json_submitted, text, "the same in words"),
};

/* ---------------------------------------------------------------------------------- lists */

static const struct json_field queue_fields[] = {
    F("queue", pushrod_queue_info, name, "its name"),
    F("durability", pushrod_queue_info, durability, "sync, async or memory"),
    F("paused", pushrod_queue_info, paused, "whether an operator has paused it"),
    F("ready", pushrod_queue_info, ready, "tasks that wait for a worker"),
    F("delayed", pushrod_queue_info, delayed, "tasks that wait for their time"),
    F("running", pushrod_queue_info, leased, "tasks that workers have"),
    F("dead", pushrod_queue_info, dead, "tasks that failed for good, and are kept"),
    F("workers", pushrod_queue_info, workers, "that serve it"),
    F("slots", pushrod_queue_info, slots, "of these workers"),
    F("submitted", pushrod_queue_info, submitted, "tasks, since the server started"),
    F("done", pushrod_queue_info, finished, "tasks, likewise"),
    F("failed", pushrod_queue_info, failed, "attempts, likewise"),
    F("redelivered", pushrod_queue_info, redelivered, "tasks handed over once more, likewise"),
    F("oldest_ms", pushrod_queue_info, oldest_ms, "age of the most urgent ready task"),
    F("p95_ns", pushrod_queue_info, service_ns,
        "95 % of recent attempts took less; 0: not known yet"),
};

/* On the wire they are one text; scripts want one name at a time. */
static json_t *worker_queues(const void *row)
{
    json_t *queues = json_array();
    for (const char *at = ((const struct pushrod_worker_info *)row)->queues; *at;) {
        size_t size = strcspn(at, ",");
        json_array_append_new(queues, json_bytes(at, size));
        at += size + (at[size] == ',');
    }
    return queues;
}

static const struct json_field worker_fields[] = {
    F("worker", pushrod_worker_info, name, "its name"),
    FIELD_AS(ID, "worker_id", pushrod_worker_info, id, "another one each time it joins"),
    F("host", pushrod_worker_info, host, "where it runs"),
    F("pid", pushrod_worker_info, pid, "there"),
    F("state", pushrod_worker_info, state, "joining, ready or draining"),
    F("slots", pushrod_worker_info, slots, "tasks that it runs at the same time"),
    F("tasks", pushrod_worker_info, outstanding, "that it has"),
    F("started", pushrod_worker_info, started, "of these, the ones that run"),
    MADE("queues", worker_queues,
        "an array of names and patterns; ! before one: its handler is broken there"),
    F("done", pushrod_worker_info, done, "tasks, since it joined"),
    F("failed", pushrod_worker_info, failed, "attempts, likewise"),
    F("silent_ms", pushrod_worker_info, silent_ms, "since it was heard of"),
    FIELD_AS(TIME, "joined_ms", pushrod_worker_info, joined_ms, "Unix time"),
};

static const struct json_field look_fields[] = {
    FIELD_AS(TIME, "at_ms", json_look, at_ms, "Unix time of the look"),
    F("server", json_look, server, "its address, as it was dialled"),
    F("software", json_look, software, "of the server, with its version"),
    F("per_second", json_look, per_second, "tasks done, since the look before"),
    F("queues", json_look, queues, "objects as of pushrod queues, each with its own per_second"),
    F("workers", json_look, workers, "objects as of pushrod workers"),
};

static const struct json_field event_fields[] = {
    FIELD_AS(TIME, "at_ms", pushrod_event, at_ms, "Unix time"),
    F("kind", pushrod_event, kind, "what happened, such as worker-join, worker-lost, task-dead"),
    FIELD_AS(ID, "id", pushrod_event, id, "of the task that it is about"),
    F("worker", pushrod_event, worker, "that it is about"),
    F("queue", pushrod_event, queue, "that it is about"),
    F("text", pushrod_event, text, "more about it"),
};

/* ---------------------------------------------------------------------------------- answers */

static const struct json_field act_fields[] = {
    F("action", json_act, action, "cancel, pause, resume, purge, drain, replay or drop"),
    F("queue", json_act, queue, "that was operated on; of replay and drop only with --all"),
    F("worker", json_act, worker, "the same"),
    FIELD_AS(ID, "id", json_act, id, "of the task, likewise"),
    FIELD_AS(ID, "new_id", json_act, as,
        "of the task that replay --to or --payload has made of it; with --all an object for each "
        "comes before that of all"),
    F("tasks", json_act, tasks, "that were cancelled, replayed or dropped"),
    F("error", json_act, error, "why it could not be"),
    F("text", json_act, text, "the same in words"),
};

static const struct json_field ping_fields[] = {
    F("server", json_ping, server, "its address, as it was dialled"),
    F("software", json_ping, software, "of the server, with its version"),
    F("round_trip_ns", json_ping, round_trip_ns, "how long the answer took"),
    F("clock_ahead_ms", json_ping, clock_ahead_ms, "the server's clock minus the one here"),
};

static const struct json_field phase_fields[] = {
    F("phase", json_phase, phase, "throughput or round trip"),
    F("tasks", json_phase, tasks, "that came back"),
    F("failed", json_phase, failed, "of these"),
    F("elapsed_ns", json_phase, elapsed_ns, "of the phase"),
    F("per_second", json_phase, per_second, "tasks"),
    F("p50_ns", json_phase, p50_ns, "50 % came back within this time"),
    F("p90_ns", json_phase, p90_ns, "90 %"),
    F("p99_ns", json_phase, p99_ns, "99 %"),
    F("p999_ns", json_phase, p999_ns, "99.9 %"),
    F("max_ns", json_phase, max_ns, "all"),
};

static const struct json_field version_fields[] = {
    F("version", json_version, version, "of this program"),
};

#define TABLE(commands_, fields_)                                                                  \
    {                                                                                              \
        commands_, fields_, sizeof fields_ / sizeof fields_[0]                                     \
    }

const struct json_table json_tables[JSON_KINDS] = {
    [JSON_RECEIPT] = TABLE("submit; with --wait only of what was refused", receipt_fields),
    [JSON_FINISH] = TABLE("wait, submit --wait", finish_fields),
    [JSON_JOB] = TABLE("map", job_fields),
    [JSON_TASK] = TABLE("status, running, dead ls, dead show", task_fields),
    [JSON_SUBMITTED] = TABLE("payload", submitted_fields),
    [JSON_ATTEMPT] = TABLE("the history of a dead task", attempt_fields),
    [JSON_QUEUE] = TABLE("queues", queue_fields),
    [JSON_WORKER] = TABLE("workers", worker_fields),
    [JSON_LOOK] = TABLE("top", look_fields),
    [JSON_EVENT] = TABLE("events", event_fields),
    [JSON_ACT] = TABLE("cancel, pause, resume, purge, drain, dead replay, dead drop", act_fields),
    [JSON_PING] = TABLE("ping", ping_fields),
    [JSON_PHASE] = TABLE("bench", phase_fields),
    [JSON_VERSION] = TABLE("version", version_fields),
};

/* ---------------------------------------------------------------------------------- manual */

void json_man(struct buf *out)
{
    buf_printf(out,
        ".SH JSON\nWith\n.B \\-\\-json\neach thing that is listed or answered is an "
        "object on a line of its own.\nIds are strings, since they do not fit a "
        "double. A text that is not UTF\\-8 is an object with the\nfield base64. A text, "
        "an id or a moment that is not known, or does not apply, is null; a number is "
        "0. A name\nthat ends in _ms or _ns is a time in that unit; of operands that "
        "fail, the object says why.\n");
    for (size_t kind = 0; kind < JSON_KINDS; kind++) {
        const struct json_table *table = &json_tables[kind];
        buf_printf(out, ".SS \"");
        roff_text(out, table->commands);
        buf_printf(out, "\"\n");
        for (size_t i = 0; i < table->count; i++) {
            buf_printf(out, ".TP\n.B %s\n", table->fields[i].name);
            roff_text(out, table->fields[i].meaning);
            buf_printf(out, "\n");
        }
    }
}
