/* SPDX-License-Identifier: Apache-2.0 */
/* native_output: the core's actions as messages, one write for each connection and tick. */
#include <stdio.h>
#include <string.h>
#include <pushrod/error.h>
#include "proto/codec.h"
#include "proto/frame.h"
#include "server/net/native.h"

#define FRAME_TARGET (64u << 10) /* bytes after which a frame is ended and the next one begun */
#define SEND_TARGET  (1u << 20)  /* bytes after which the socket is written to */
#define AHEAD        6u          /* actions: whose tasks are fetched into the cache meanwhile */
#define BY_REFERENCE (16u << 10) /* bytes of a value from which on it is not copied */

/* What is being written to one connection: finished frames, and one that is open. */
struct writer {
    struct conn *c;
    struct buf *out; /* shared by all connections, empty between them */
    size_t begin;    /* of the open frame */
    bool patient;    /* nobody is in a hurry for what it holds */
};

static void writer_open(struct writer *w)
{
    w->begin = frame_begin(w->out);
}

/* Ends the frame; one that holds nothing is taken back. */
static void writer_close(struct writer *w)
{
    if (w->out->size == w->begin + FRAME_HEAD)
        w->out->size = w->begin;
    else
        frame_end(w->out, w->begin);
}

static void writer_send(struct writer *w)
{
    if (w->out->failed)
        conn_kill(w->c, PUSHROD_E_NO_MEMORY);
    else if (w->patient)
        conn_send_later(w->c, w->out->data, w->out->size);
    else
        conn_send(w->c, w->out->data, w->out->size);
    buf_clear(w->out);
}

static void writer_next(struct writer *w)
{
    if (w->out->size - w->begin < FRAME_TARGET)
        return;
    writer_close(w);
    if (w->out->size >= SEND_TARGET)
        writer_send(w);
    writer_open(w);
}

/* ------------------------------------------------------------------------------ large values */

/*
 * A large value leaves from where it lies. Its message is written by hand around it, in a frame of
 * its own that follows those that are ended. Returns where that begins.
 */
static size_t large_begin(struct writer *w, uint32_t fields)
{
    writer_close(w);
    size_t begin = frame_begin(w->out);
    enc_array(w->out, fields);
    return begin;
}

/* Its head, bin32. Returns where it belongs. */
static size_t large_head(struct writer *w, const struct body *body)
{
    uint8_t bin[5] = {0xc6};
    frame_head(bin + 1, (uint32_t)body->size);
    buf_append(w->out, bin, sizeof bin);
    return w->out->size;
}

static void large_end(struct writer *w, size_t begin, size_t before, struct body *body)
{
    if (w->out->failed) {
        conn_kill(w->c, PUSHROD_E_NO_MEMORY);
    } else {
        frame_head(
            w->out->data + begin, (uint32_t)(w->out->size - begin - FRAME_HEAD + body->size));
        conn_write(w->c, w->out->data, before);
        conn_write_body(w->c, body);
        conn_write(w->c, w->out->data + before, w->out->size - before);
    }
    buf_clear(w->out);
    writer_open(w);
}

/* -------------------------------------------------------------------------------- finishes */

static struct msg_finished finished_of(const struct task *t)
{
    return (struct msg_finished){
        .id = t->record.id,
        .status = t->status,
        .code = t->code,
        .attempts = t->hand_overs,
        .run_ns = t->run_ns,
        .result = task_result(t),
        .text = slice_str(t->text),
        .tag = task_tag(t),
    };
}

/*
 * FINISHED by hand around a large result:
 * [64, id, status, code, attempts, run_ns, bin32 ...body... , text, tag].
 */
static void put_finished_large(struct writer *w, const struct task *t)
{
    struct msg_finished m = finished_of(t);
    size_t begin = large_begin(w, 9);
    const uint64_t numbers[] = {MSG_FINISHED, m.id, m.status, m.code, m.attempts, m.run_ns};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        enc_u64(w->out, numbers[i]);
    size_t before = large_head(w, t->result);
    enc_text(w->out, m.text);
    enc_bytes(w->out, m.tag);
    large_end(w, begin, before, t->result);
}

static void put_finished(struct writer *w, const struct task *t)
{
    if (t->result && t->result->size >= BY_REFERENCE) {
        put_finished_large(w, t);
        return;
    }
    struct msg_finished m = finished_of(t);
    msg_finished_encode(w->out, &m);
}

/* [75, request, id, queue, bin32 ...body... , options] */
static void put_submitted(struct writer *w, const struct submitted *s)
{
    const struct msg_submitted *m = &s->row;
    if (!s->body || s->body->size < BY_REFERENCE) {
        msg_submitted_encode(w->out, m);
        return;
    }
    size_t begin = large_begin(w, 6);
    enc_u64(w->out, MSG_SUBMITTED);
    enc_u64(w->out, m->request);
    enc_u64(w->out, m->id);
    enc_text(w->out, m->queue);
    size_t before = large_head(w, s->body);
    enc_raw(w->out, m->options);
    large_end(w, begin, before, s->body);
}

/* --------------------------------------------------------------------------------- actions */

static void put_rejected(struct writer *w, const struct conn_action *a)
{
    const char *text = a->text ? a->text : pushrod_strerror((int)a->code);
    struct msg_rejected m = {a->request, a->code, slice_str(text), a->id};
    msg_rejected_encode(w->out, &m);
}

/* Rows are told as the core made them: their encoder is found by kind. */
static bool put_row(struct buf *out, const struct conn_action *a)
{
    switch (a->kind) {
#define ROW(NAME, name)                                                                            \
    case MSG_##NAME:                                                                               \
        msg_##name##_encode(out, a->row);                                                          \
        return true;
        ROW(TASK_PROGRESS, task_progress)
        ROW(TASK_DATA, task_data)
        ROW(ATTEMPT, attempt)
        ROW(QUEUE_ROW, queue_row)
        ROW(WORKER_ROW, worker_row)
        ROW(TASK_ROW, task_row)
        ROW(STAT_ROW, stat_row)
        ROW(EVENT, event)
        ROW(END, end)
#undef ROW
    default:
        return false;
    }
}

static void put_action(struct writer *w, const struct conn_action *a)
{
    switch (a->kind) {
    case MSG_ACCEPTED:
        msg_accepted_encode(w->out, &(struct msg_accepted){a->request, a->id});
        break;
    case MSG_FINISHED:
        put_finished(w, a->task);
        break;
    case MSG_SUBMITTED:
        put_submitted(w, a->row);
        break;
    case MSG_REJECTED:
        put_rejected(w, a);
        break;
    case MSG_OK:
        msg_ok_encode(w->out, &(struct msg_ok){a->request, a->number});
        break;
    default:
        put_row(w->out, a);
        break;
    }
}

/* The tick that said this has touched thousands of tasks since. */
static void expect(const struct conn_action *action)
{
    if (action->kind == MSG_FINISHED)
        __builtin_prefetch(&action->task->result);
}

void native_actions(struct native *native, const struct conn_action *actions, size_t count)
{
    struct conn *c = conn_find(native_conns(native), actions[0].conn);
    if (!c || c->ops != &native_ops)
        return;
    struct writer w = {.c = c, .out = native_output(native), .patient = true};
    writer_open(&w);
    for (size_t i = 0; i < count && c->state == CONN_OPEN; i++) {
        if (i + AHEAD < count)
            expect(&actions[i + AHEAD]);
        w.patient = w.patient && actions[i].patient;
        put_action(&w, &actions[i]);
        writer_next(&w);
    }
    writer_close(&w);
    writer_send(&w);
}

/* ----------------------------------------------------------- what the protocol says itself */

/* One message in a frame of its own; on the stack of whoever has not greeted yet, too. */
#define SAY(c, name, message)                                                                      \
    do {                                                                                           \
        struct buf out = BUF_EMPTY;                                                                \
        size_t begin = frame_begin(&out);                                                          \
        msg_##name##_encode(&out, message);                                                        \
        frame_end(&out, begin);                                                                    \
        if (out.failed)                                                                            \
            conn_kill(c, PUSHROD_E_NO_MEMORY);                                                     \
        else                                                                                       \
            conn_write(c, out.data, out.size);                                                     \
        buf_free(&out);                                                                            \
    } while (0)

void native_fail(struct conn *c, int code, const char *text)
{
    struct msg_error m = {(uint64_t)code, slice_str(text)};
    SAY(c, error, &m);
    conn_close(c, code);
}

void native_say_greeting(
    struct conn *c, uint64_t max_payload, const char *unix_name, uint64_t now_ms)
{
    struct msg_greeting m = {
        .version = PROTOCOL_VERSION,
        .software = slice_str("pushrod-server " PUSHROD_VERSION),
        .max_payload = max_payload,
        .max_frame = max_payload + NATIVE_FRAME_SPARE,
        .now_ms = now_ms,
        .unix_name = slice_str(unix_name),
    };
    SAY(c, greeting, &m);
}

void native_say_rejected(struct conn *c, uint64_t request, int code, const char *text)
{
    struct msg_rejected m = {request, (uint64_t)code, slice_str(text), 0};
    SAY(c, rejected, &m);
}

void native_say_ok(struct conn *c, uint64_t request, uint64_t count)
{
    struct msg_ok m = {request, count};
    SAY(c, ok, &m);
}
