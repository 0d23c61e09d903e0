/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lib_request: requests that are waited for: one at a time, or many of a kind.
 *
 * All of them are safe to repeat, so a lost connection only means asking again; a list of which
 * rows were delivered already is the exception.
 */
#include <string.h>

#include "client/lib.h"

#define CALLS_MOST 256u /* requests that are under way at the same time */

struct call *call_find(struct pushrod_client *c, uint64_t request)
{
    if (!c->call_count || request - c->call->request >= c->call_count)
        return NULL;
    struct call *call = &c->call[request - c->call->request];
    return call->done ? NULL : call;
}

/* The message is kept: a reconnect sends the same bytes again. */
static void call_send(struct pushrod_client *c, struct call *call)
{
    if (!call->message.failed) {
        buf_append(stream_out(c), call->message.data, call->message.size);
        if (stream_added(c))
            return;
    }
    call->done = true;
    call->error = client_no_memory(c);
}

static void call_restart(struct pushrod_client *c, struct call *call)
{
    if (call->done)
        return;
    if (!call->rows) {
        call_send(c, call);
        return;
    }
    call->done = true;
    call->error = client_fail(
        c, PUSHROD_E_CLOSED, "the connection was lost in the middle of a list: ask again");
}

void calls_restart(struct pushrod_client *c)
{
    for (size_t i = 0; i < c->call_count; i++)
        call_restart(c, &c->call[i]);
}

/* An answer that comes after this finds no call, and is ignored. */
static int call_late(struct pushrod_client *c)
{
    return client_fail(c, PUSHROD_E_TIMED_OUT, "server %s has not answered for %llu ms",
        c->info.address, (unsigned long long)c->answer_ms);
}

static int call_up(struct pushrod_client *c, uint64_t until)
{
    int error = client_up(c, until);
    return error == -PUSHROD_E_TIMED_OUT ? call_late(c) : error;
}

/* Sends them, and waits until each is answered; their numbers follow one another. */
static int calls_wait(struct pushrod_client *c, struct call *calls, size_t count)
{
    uint64_t until = client_answer_deadline(c);
    int error = call_up(c, until);
    if (error)
        return error;
    c->call = calls;
    c->call_count = count;
    for (size_t i = 0; i < count; i++)
        call_send(c, &calls[i]);
    for (size_t i = 0; !error && i < count;) {
        if (calls[i].done)
            i++;
        else
            error = client_turn_before(c, until);
    }
    c->call_count = 0;
    return error == -PUSHROD_E_TIMED_OUT ? call_late(c) : error;
}

/* Sends the message and waits for its answer. Gives the count of OK or END, or a negative error. */
int64_t call_run(struct pushrod_client *c, struct call *call)
{
    int error = calls_wait(c, call, 1);
    buf_free(&call->message);
    error = call->done ? call->error : error;
    return error ? error : (int64_t)call->count;
}

int pushrod_client_cancel(struct pushrod_client *c, uint64_t id)
{
    struct call call = {.request = ++c->calls};
    struct msg_cancel m = {.request = call.request, .id = id};
    msg_cancel_encode(&call.message, &m);
    int64_t count = call_run(c, &call);
    if (count == 0)
        return client_fail(
            c, PUSHROD_E_WRONG_STATE, "task %llu has ended already", (unsigned long long)id);
    return count < 0 ? (int)count : 0;
}

int pushrod_client_cancel_async(struct pushrod_client *c, uint64_t id)
{
    struct msg_cancel m = {.request = REQUEST_IGNORED, .id = id};
    msg_cancel_encode(stream_out(c), &m);
    return stream_added(c) ? 0 : client_no_memory(c);
}

/* Each verb may be repeated without harm, which is why call_restart() may do so. */
static struct call control_call(
    struct pushrod_client *c, const char *verb, const char *name, uint64_t id)
{
    struct call call = {.request = ++c->calls};
    struct msg_control m = {
        .request = call.request, .verb = slice_str(verb), .name = slice_str(name), .id = id};
    msg_control_encode(&call.message, &m);
    return call;
}

int64_t pushrod_client_control(
    struct pushrod_client *c, const char *verb, const char *name, uint64_t id)
{
    struct call call = control_call(c, verb, name, id);
    return call_run(c, &call);
}

/* As many as may be under way. */
static int control_some(
    struct pushrod_client *c, const char *verb, const uint64_t *ids, size_t count, int64_t *counts)
{
    struct call calls[CALLS_MOST];
    for (size_t i = 0; i < count; i++)
        calls[i] = control_call(c, verb, NULL, ids[i]);
    int error = calls_wait(c, calls, count);
    for (size_t i = 0; i < count; i++) {
        buf_free(&calls[i].message);
        if (calls[i].done)
            counts[i] = calls[i].error ? calls[i].error : (int64_t)calls[i].count;
    }
    return error;
}

int64_t pushrod_client_control_many(
    struct pushrod_client *c, const char *verb, const uint64_t *ids, size_t count, int64_t *counts)
{
    int error = 0;
    int64_t touched = 0;
    for (size_t i = 0; i < count; i++)
        counts[i] = -PUSHROD_E_CLOSED;
    for (size_t at = 0; !error && at < count; at += CALLS_MOST) {
        size_t some = count - at < CALLS_MOST ? count - at : CALLS_MOST;
        error = control_some(c, verb, ids + at, some, counts + at);
    }
    for (size_t i = 0; i < count; i++)
        touched += counts[i] > 0 ? counts[i] : 0;
    return error ? error : touched;
}

int pushrod_client_watch(struct pushrod_client *c, bool on)
{
    c->watching = on;
    if (c->state != CLIENT_UP)
        return 0; /* said when it is */
    struct msg_watch m = {.request = REQUEST_IGNORED, .on = on};
    msg_watch_encode(stream_out(c), &m);
    return stream_added(c) ? 0 : client_no_memory(c);
}

int pushrod_client_ping(struct pushrod_client *c, uint64_t *round_trip_ns)
{
    int error = call_up(c, client_answer_deadline(c));
    if (error)
        return error;
    struct call call = {.request = ++c->calls};
    struct msg_echo m = {.request = call.request};
    msg_echo_encode(&call.message, &m);
    uint64_t begin = clock_mono_ns();
    int64_t answer = call_run(c, &call);
    if (round_trip_ns)
        *round_trip_ns = clock_mono_ns() - begin;
    return answer < 0 ? (int)answer : 0;
}
