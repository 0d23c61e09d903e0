/* SPDX-License-Identifier: Apache-2.0 */
/* lib_receive: what each message of the server does. One small function for each kind, and a table.
 */
#include <stdio.h>

#include "client/lib.h"

/* Each decodes its message; what it finds wrong with it is the decoder's sticky error. */
typedef void receiver(struct pushrod_client *c, struct dec *in);

static void receive_greeting(struct pushrod_client *c, struct dec *in)
{
    struct msg_greeting m;
    if (!msg_greeting_decode(in, &m))
        return;
    if (c->state != CLIENT_GREETING) {
        dec_fail(in, "a second greeting");
        return;
    }
    if (m.version == PROTOCOL_VERSION) {
        client_greeted(c, &m);
        return;
    }
    client_lost(c, PUSHROD_E_BAD_VERSION,
        "%s speaks version %llu of the protocol, this program version %u: use those of one release",
        c->info.address, (unsigned long long)m.version, PROTOCOL_VERSION);
}

/* pending_settle() finds what the request was; an answer that nobody waits for is ignored. */
static void receive_accepted(struct pushrod_client *c, struct dec *in)
{
    struct msg_accepted m;
    if (msg_accepted_decode(in, &m))
        pending_settle(c, m.request, m.id, 0, "");
}

static void call_answered(
    struct pushrod_client *c, struct call *call, uint64_t count, int error, const char *text)
{
    call->done = true;
    call->count = count;
    if (error)
        call->error = client_fail(c, error, "%s", text);
}

static void receive_rejected(struct pushrod_client *c, struct dec *in)
{
    struct msg_rejected m;
    if (!msg_rejected_decode(in, &m))
        return;
    text_begin(c, m.text.size + 1);
    const char *text = m.text.size ? text_of(c, m.text) : pushrod_strerror((int)m.code);
    const struct pending *p = pending_get(c, m.request);
    struct call *call = call_find(c, m.request);
    if (call) {
        call_answered(c, call, 0, (int)m.code, text);
    } else if (p && p->kind == PENDING_WAIT) {
        uint64_t id = p->id;
        pending_remove(c, m.request);
        followed_unknown(c, id, (int)m.code, text);
        followed_answered(c);
    } else if (p) {
        pending_settle(c, m.request, m.id, (int)m.code, text);
    }
}

/* Of a call, or of a WAIT: that FINISHED will come. An OK to something else asks for nothing. */
static void receive_ok(struct pushrod_client *c, struct dec *in)
{
    struct msg_ok m;
    if (!msg_ok_decode(in, &m))
        return;
    const struct pending *p = pending_get(c, m.request);
    struct call *call = call_find(c, m.request);
    if (call) {
        call_answered(c, call, m.count, 0, NULL);
    } else if (p && p->kind == PENDING_WAIT) {
        pending_remove(c, m.request);
        followed_answered(c);
    }
}

static void receive_end(struct pushrod_client *c, struct dec *in)
{
    struct msg_end m;
    if (!msg_end_decode(in, &m))
        return;
    struct call *call = call_find(c, m.request);
    if (call)
        call_answered(c, call, m.rows, 0, NULL);
}

static void receive_finished(struct pushrod_client *c, struct dec *in)
{
    struct msg_finished m;
    if (msg_finished_decode(in, &m))
        followed_finished(c, &m);
}

/* ---------------------------------------------------------------------------------- pushed */

/* The argument is that of the task; a task that is not followed any more is not news. */
static void receive_progress(struct pushrod_client *c, struct dec *in)
{
    struct msg_task_progress m;
    if (!msg_task_progress_decode(in, &m))
        return;
    const struct task_record *r = followed_find(c, m.id);
    if (!r || !c->events.progress)
        return;
    text_begin(c, m.text.size + 1);
    struct pushrod_progress progress = {m.id, m.done, m.total, text_of(c, m.text)};
    c->events.progress(c, &progress, r->arg);
}

static void receive_data(struct pushrod_client *c, struct dec *in)
{
    struct msg_task_data m;
    if (!msg_task_data_decode(in, &m))
        return;
    const struct task_record *r = followed_find(c, m.id);
    if (!r || !c->events.data)
        return;
    c->events.data(c, m.id, m.data.data, m.data.size, r->arg);
}

static void receive_attempt(struct pushrod_client *c, struct dec *in)
{
    struct msg_attempt m;
    if (!msg_attempt_decode(in, &m))
        return;
    const struct task_record *r = followed_find(c, m.id);
    if (!r || !c->events.attempt)
        return;
    text_begin(c, m.text.size + m.worker.size + 2);
    struct pushrod_attempt attempt = {
        m.id, m.attempt, (int)m.code, text_of(c, m.text), text_of(c, m.worker), m.retry_ms};
    c->events.attempt(c, &attempt, r->arg);
}

static void receive_event(struct pushrod_client *c, struct dec *in)
{
    struct msg_event m;
    if (!msg_event_decode(in, &m) || !c->events.event)
        return;
    text_begin(c, m.kind.size + m.worker.size + m.queue.size + m.text.size + 4);
    struct pushrod_event event = {m.at_ms, text_of(c, m.kind), m.id, text_of(c, m.worker),
        text_of(c, m.queue), text_of(c, m.text)};
    c->events.event(c, &event);
}

/* The server ends the connection and says why; the close itself follows, and is not news. */
static void receive_error(struct pushrod_client *c, struct dec *in)
{
    struct msg_error m;
    if (!msg_error_decode(in, &m))
        return;
    const char *why = pushrod_strerror((int)m.code);
    client_lost(c, (int)m.code, "server %s: %.*s", c->info.address,
        m.text.size ? (int)m.text.size : (int)strlen(why),
        m.text.size ? (const char *)m.text.data : why);
}

static receiver *const receivers[] = {
    [MSG_GREETING] = receive_greeting,
    [MSG_ACCEPTED] = receive_accepted,
    [MSG_REJECTED] = receive_rejected,
    [MSG_OK] = receive_ok,
    [MSG_FINISHED] = receive_finished,
    [MSG_TASK_PROGRESS] = receive_progress,
    [MSG_TASK_DATA] = receive_data,
    [MSG_ATTEMPT] = receive_attempt,
    [MSG_EVENT] = receive_event,
    [MSG_END] = receive_end,
    [MSG_ERROR] = receive_error,
};

/* ---------------------------------------------------------------------------------- frames */

/*
 * A row belongs to the call that waits. Rows of a call that was given up (a timeout) still come:
 * they are skipped, which the request number in their first field tells.
 */
static void receive_row(struct pushrod_client *c, unsigned number, struct dec *in)
{
    struct dec ahead = *in;
    struct call *call = call_find(c, dec_u64(&ahead));
    if (!call || call->row_kind != number) {
        dec_skip_message(in, number);
        return;
    }
    call->rows++;
    call->row(c, in, call);
}

static void receive_message(struct pushrod_client *c, unsigned number, struct dec *in)
{
    enum msg_plane plane;
    if (!msg_known(number, &plane) || plane != PLANE_CLIENT_DOWN)
        dec_fail(in, "a message that servers do not send");
    else if (number == MSG_QUEUE_ROW || number == MSG_WORKER_ROW || number == MSG_TASK_ROW ||
             number == MSG_STAT_ROW || number == MSG_SUBMITTED)
        receive_row(c, number, in);
    else if (c->state != CLIENT_UP && number != MSG_GREETING && number != MSG_ERROR)
        dec_fail(in, "a message before the greeting");
    else
        receivers[number](c, in);
}

/*
 * A callback may lose the connection, and with it the bytes of the frame; a message may change it
 * for another, for which the rest is not: looked at before each message.
 */
void receive_frame(struct pushrod_client *c, struct slice frame)
{
    struct dec in = dec_of(frame);
    int fd = c->fd;
    while (c->fd == fd && dec_more(&in)) {
        unsigned number = dec_message(&in);
        if (number)
            receive_message(c, number, &in);
    }
    if (c->fd == fd && dec_failed(&in))
        client_lost(c, PUSHROD_E_BAD_MESSAGE,
            "%s is not a Pushrod client port, or sends nonsense: %s", c->info.address, in.error);
}
