/* SPDX-License-Identifier: Apache-2.0 */
/* json: what is listed, as JSON objects of one line. Names are those of include/pushrod/client.h.
 */
#include <stdlib.h>
#include <string.h>

#include "client/command.h"

json_t *json_id(uint64_t id)
{
    return json_sprintf("%llu", (unsigned long long)id);
}

static json_t *json_number(uint64_t number)
{
    return json_integer((json_int_t)number);
}

/* RFC 4648; only for what is not UTF-8, so that text stays readable. */
static json_t *json_base64(const uint8_t *data, size_t size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    struct buf text = BUF_EMPTY;
    for (size_t i = 0; i < size; i += 3) {
        size_t left = size - i;
        uint32_t three = (uint32_t)data[i] << 16 | (left > 1 ? (uint32_t)data[i + 1] << 8 : 0) |
                         (left > 2 ? data[i + 2] : 0);
        char four[4] = {digits[three >> 18], digits[three >> 12 & 63],
            left > 1 ? digits[three >> 6 & 63] : '=', left > 2 ? digits[three & 63] : '='};
        buf_append(&text, four, sizeof four);
    }
    json_t *value =
        json_pack("{s:s#}", "base64", text.data ? (char *)text.data : "", (int)text.size);
    buf_free(&text);
    return value;
}

json_t *json_bytes(const void *data, size_t size)
{
    json_t *text = json_stringn(data ? data : "", size); /* NULL if it is not UTF-8 */
    return text ? text : json_base64(data, size);
}

/* A text that may hold anything, as errors of handlers do. */
static json_t *json_text(const char *text)
{
    return json_bytes(text, strlen(text));
}

static void set(json_t *object, const char *name, json_t *value)
{
    json_object_set_new(object, name, value);
}

static json_t *json_error(int error)
{
    return error ? json_string(pushrod_error_name(error)) : json_null();
}

static json_t *json_death(const struct pushrod_death *d)
{
    json_t *o = json_object();
    set(o, "attempt", json_number(d->attempt));
    set(o, "at_ms", json_number(d->at_ms));
    set(o, "error", json_error(d->error));
    set(o, "worker", json_text(d->worker));
    set(o, "signal", json_number(d->signal));
    set(o, "exit_code", json_number(d->exit_code));
    set(o, "peak_kib", json_number(d->peak_kib));
    set(o, "text", json_text(d->text));
    return o;
}

json_t *json_task(const struct pushrod_task_info *t)
{
    json_t *o = json_object(), *history = json_array();
    for (size_t i = 0; i < t->history_count; i++)
        json_array_append_new(history, json_death(&t->history[i]));
    set(o, "id", json_id(t->id));
    set(o, "queue", json_text(t->queue));
    set(o, "state", json_text(t->state));
    set(o, "priority", json_number(t->priority));
    set(o, "attempts", json_number(t->attempts));
    set(o, "deaths", json_number(t->deaths));
    set(o, "submitted_ms", json_number(t->submitted_ms));
    set(o, "due_ms", json_number(t->due_ms));
    set(o, "size", json_number(t->size));
    set(o, "head", t->head ? json_bytes(t->head, t->head_size) : json_null());
    set(o, "worker", *t->worker ? json_text(t->worker) : json_null());
    set(o, "error", json_error(t->error));
    set(o, "text", json_text(t->text));
    set(o, "history", history);
    return o;
}

json_t *json_queue(const struct pushrod_queue_info *q)
{
    json_t *o = json_object();
    set(o, "name", json_text(q->name));
    set(o, "durability", json_text(q->durability));
    set(o, "paused", json_boolean(q->paused));
    set(o, "ready", json_number(q->ready));
    set(o, "delayed", json_number(q->delayed));
    set(o, "leased", json_number(q->leased));
    set(o, "dead", json_number(q->dead));
    set(o, "workers", json_number(q->workers));
    set(o, "slots", json_number(q->slots));
    set(o, "submitted", json_number(q->submitted));
    set(o, "finished", json_number(q->finished));
    set(o, "failed", json_number(q->failed));
    set(o, "redelivered", json_number(q->redelivered));
    set(o, "oldest_ms", json_number(q->oldest_ms));
    set(o, "service_ns", json_number(q->service_ns));
    return o;
}

json_t *json_worker(const struct pushrod_worker_info *w)
{
    json_t *o = json_object();
    set(o, "id", json_id(w->id));
    set(o, "name", json_text(w->name));
    set(o, "host", json_text(w->host));
    set(o, "pid", json_number(w->pid));
    set(o, "state", json_text(w->state));
    set(o, "slots", json_number(w->slots));
    set(o, "outstanding", json_number(w->outstanding));
    set(o, "started", json_number(w->started));
    set(o, "queues", json_text(w->queues));
    set(o, "done", json_number(w->done));
    set(o, "failed", json_number(w->failed));
    set(o, "silent_ms", json_number(w->silent_ms));
    set(o, "joined_ms", json_number(w->joined_ms));
    return o;
}

/* status is null if the server can no longer tell it. */
json_t *json_finish(const struct pushrod_finish *f)
{
    json_t *o = json_object();
    set(o, "id", json_id(f->id));
    set(o, "status", f->status ? json_string(pushrod_status_name((int)f->status)) : json_null());
    set(o, "error", json_error(f->error));
    set(o, "text", json_text(f->error_text));
    set(o, "attempts", json_number(f->attempts));
    set(o, "run_ns", json_number(f->run_ns));
    set(o, "result", f->result ? json_bytes(f->result, f->result_size) : json_null());
    set(o, "tag", f->tag ? json_bytes(f->tag, f->tag_size) : json_null());
    return o;
}

/* One line each: what reads them needs no parser for streams. */
void json_print(json_t *value)
{
    json_dumpf(value, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(value);
}
