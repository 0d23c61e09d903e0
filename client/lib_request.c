/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lib_request: requests of which one at a time is under way, and waited for.
 *
 * All of them are safe to repeat, so a lost connection only means asking again; a list of which
 * rows were delivered already is the exception.
 */
#include <string.h>

#include "client/lib.h"

/* The message is kept: a reconnect sends the same bytes again. */
static void call_send(struct pushrod_client *c, struct call *call)
{
    buf_append(stream_out(c), call->message.data, call->message.size);
    if (stream_added(c))
        return;
    call->done = true;
    call->error = client_no_memory(c);
}

void call_restart(struct pushrod_client *c)
{
    struct call *call = c->call;
    if (!call || call->done)
        return;
    if (!call->rows) {
        call_send(c, call);
        return;
    }
    call->done = true;
    call->error = client_fail(
        c, PUSHROD_E_CLOSED, "the connection was lost in the middle of a list: ask again");
}

/* An answer that comes after this finds no call, and is ignored. */
static int call_late(struct pushrod_client *c)
{
    return client_fail(c, PUSHROD_E_TIMED_OUT, "server %s has not answered for %llu ms",
        c->info.address, (unsigned long long)c->answer_ms);
}

static uint64_t call_until(const struct pushrod_client *c)
{
    return c->answer_ms ? client_deadline((int64_t)c->answer_ms) : UINT64_MAX;
}

static int call_up(struct pushrod_client *c, uint64_t until)
{
    int error = client_up(c, until);
    return error == -PUSHROD_E_TIMED_OUT ? call_late(c) : error;
}

static int call_wait(struct pushrod_client *c, struct call *call)
{
    uint64_t until = call_until(c);
    int error = call_up(c, until);
    if (error)
        return error;
    if (call->message.failed)
        return client_no_memory(c);
    c->call = call;
    call_send(c, call);
    while (!call->done && !error)
        error = clock_mono_ns() < until ? client_turn(c, until) : call_late(c);
    c->call = NULL;
    return call->done ? call->error : error;
}

/* Sends the message and waits for its answer. Gives the count of OK or END, or a negative error. */
int64_t call_run(struct pushrod_client *c, struct call *call)
{
    int error = call_wait(c, call);
    buf_free(&call->message);
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
int64_t pushrod_client_control(
    struct pushrod_client *c, const char *verb, const char *name, uint64_t id)
{
    struct call call = {.request = ++c->calls};
    struct msg_control m = {
        .request = call.request, .verb = slice_str(verb), .name = slice_str(name), .id = id};
    msg_control_encode(&call.message, &m);
    return call_run(c, &call);
}

int pushrod_client_watch(struct pushrod_client *c, bool on)
{
    c->watching = on;
    if (c->state != CLIENT_UP)
        return 0; /* said when it is */
    struct msg_watch m = {.request = REQUEST_WATCH, .on = on};
    msg_watch_encode(stream_out(c), &m);
    return stream_added(c) ? 0 : client_no_memory(c);
}

int pushrod_client_ping(struct pushrod_client *c, uint64_t *round_trip_ns)
{
    int error = call_up(c, call_until(c));
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
