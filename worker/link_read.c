/* SPDX-License-Identifier: Apache-2.0 */
/* Frames from the server: decoded, and handed to the session one message after the other. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "common/body.h"
#include "common/list.h"
#include "common/log.h"
#include "common/retry.h"
#include "proto/codec.h"
#include "worker/link_impl.h"

/* Messages of one tick, so that answers leave in between. */
#define READ_BUDGET 256

static void complain(const char *what, const struct dec *in)
{
    static struct log_limit limit;
    char more[LOG_MORE];
    if (log_allowed(&limit, more))
        log_warning("a message from the server (%s) cannot be read: %s%s", what, in->error, more);
}

/* -------------------------------------------------------------------------- join */

static void take_join_frame(struct link *l, struct slice frame)
{
    struct dec in = dec_of(frame);
    struct msg_welcome welcome;
    struct msg_refused refused;
    switch (dec_message(&in)) {
    case MSG_WELCOME:
        if (msg_welcome_decode(&in, &welcome)) {
            l->end->text[0] = '\0'; /* of a REFUSED before it */
            session_welcome(l->session, &welcome);
        }
        break;
    case MSG_REFUSED:
        if (msg_refused_decode(&in, &refused)) {
            snprintf(l->end->text, sizeof l->end->text, "%.*s", (int)refused.text.size,
                (const char *)refused.text.data);
            session_refused(l->session, &refused);
        }
        break;
    default:
        dec_fail(&in, "neither WELCOME nor REFUSED");
        break;
    }
    if (dec_failed(&in))
        complain("join", &in);
    l->contact_ns = l->now.mono_ns;
    l->complain_pause_ms = 0;
}

static void read_join(struct link *l)
{
    zmq_msg_t m;
    zmq_msg_init(&m);
    while (l->join && RETRY(zmq_msg_recv(&m, l->join, ZMQ_DONTWAIT)) >= 0)
        take_join_frame(l, slice_of(zmq_msg_data(&m), zmq_msg_size(&m)));
    zmq_msg_close(&m);
}

/* -------------------------------------------------------------------------- lane */

/* A large payload stays in libzmq's message until its task has ended: copying a MiB would cost as
 * much as all else that a worker does with it. */
struct message_body {
    struct body body;
    zmq_msg_t message;
};

static void message_release(struct body *body)
{
    struct message_body *b = container_of(body, struct message_body, body);
    zmq_msg_close(&b->message);
    free(b);
}

/* A payload that is a part of its own: those of a frame follow it, in the order of their records.
 */
static struct body *read_body(struct link *l)
{
    int more = 0;
    size_t size = sizeof more;
    zmq_getsockopt(l->lane, ZMQ_RCVMORE, &more, &size);
    if (!more)
        return NULL;
    struct message_body *b = malloc(sizeof *b);
    if (!b)
        return NULL;
    zmq_msg_init(&b->message);
    bool there = RETRY(zmq_msg_recv(&b->message, l->lane, ZMQ_DONTWAIT)) >= 0;
    body_init(&b->body, zmq_msg_data(&b->message), zmq_msg_size(&b->message), message_release);
    if (there)
        return &b->body;
    body_unref(&b->body);
    return NULL;
}

/* *body: the part, to be released; NULL if the record has the bytes. */
static bool take_part(struct link *l, struct dec *in, struct slice bytes, struct body **body)
{
    *body = bytes.data ? NULL : read_body(l);
    if (!bytes.data && !*body)
        dec_fail(in, "a payload is missing");
    return bytes.data || *body;
}

static bool take_task(struct link *l, struct dec *in)
{
    struct msg_task m;
    struct body *body;
    if (!msg_task_decode(in, &m) || !take_part(l, in, m.payload, &body))
        return false;
    session_task(l->session, &m, body);
    body_unref(body);
    return true;
}

static bool take_payload(struct link *l, struct dec *in)
{
    struct msg_payload m;
    struct body *body;
    if (!msg_payload_decode(in, &m) || !take_part(l, in, m.data, &body))
        return false;
    session_payload(l->session, m.lease, body ? body_slice(body) : m.data);
    body_unref(body);
    return true;
}

#define TAKE(name, call)                                                                           \
    {                                                                                              \
        struct msg_##name m;                                                                       \
        if (!msg_##name##_decode(in, &m))                                                          \
            return false;                                                                          \
        call;                                                                                      \
        return true;                                                                               \
    }

static bool take_lane_message(struct link *l, unsigned number, struct dec *in)
{
    struct session *s = l->session;
    switch (number) {
    case MSG_TASK:
        return take_task(l, in);
    case MSG_PAYLOAD:
        return take_payload(l, in);
    case MSG_ACK:
        TAKE(ack, session_ack(s, m.sequence));
    case MSG_PING:
        TAKE(ping, session_ping(s, m.sequence, m.beat, m.next_ms));
    case MSG_LANE_HELLO:
        TAKE(lane_hello, session_lane_hello(s, &m));
    case MSG_CANCEL_TASK:
        TAKE(cancel_task, session_cancel(s, &m));
    case MSG_WITHDRAW:
        TAKE(withdraw, session_withdraw(s, &m));
    case MSG_DRAIN:
        TAKE(drain, session_told_to_drain(s, &m));
    case MSG_FENCED:
        TAKE(fenced, session_fenced(s, m.code));
    default:
        dec_fail(in, "not a message of the lane");
        return false;
    }
}

static void take_lane_frame(struct link *l, struct slice frame)
{
    struct dec in = dec_of(frame);
    while (dec_more(&in) && take_lane_message(l, dec_message(&in), &in))
        ;
    if (dec_failed(&in))
        complain("lane", &in);
}

/* Parts that nobody asked for: the rest of a message whose first part could not be read. */
static void skip_parts(struct link *l)
{
    int more = 1;
    size_t size = sizeof more;
    while (zmq_getsockopt(l->lane, ZMQ_RCVMORE, &more, &size) == 0 && more) {
        char nothing[1];
        if (RETRY(zmq_recv(l->lane, nothing, sizeof nothing, ZMQ_DONTWAIT)) < 0)
            return;
    }
}

static void read_lane(struct link *l)
{
    zmq_msg_t m;
    zmq_msg_init(&m);
    for (int i = 0; i < READ_BUDGET && l->lane; i++) {
        if (RETRY(zmq_msg_recv(&m, l->lane, ZMQ_DONTWAIT)) < 0) {
            l->unread &= ~(1u << SOURCE_LANE);
            break;
        }
        take_lane_frame(l, slice_of(zmq_msg_data(&m), zmq_msg_size(&m)));
        skip_parts(l);
        l->contact_ns = l->now.mono_ns;
    }
    zmq_msg_close(&m);
}

/* ---------------------------------------------------------------------- monitors */

/* Is it to be said? One may be of a server that has just ended; behind the second one, that was
 * there to welcome us, each time that they are twice as many. */
static bool misses_another(struct link *l)
{
    unsigned missed = ++l->lanes_missed;
    return missed > 1 && (missed & (missed - 1)) == 0;
}

/* After the lane was read: what the server said last counts, before its end does. */
static void read_monitors(struct link *l)
{
    uint16_t event;
    bool down = false;
    while ((event = link_next_event(l->lane_monitor))) {
        if (event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED)
            l->lane_up = true;
        else
            down = true;
    }
    if (l->lane_up)
        l->lanes_missed = 0;
    if (down && !l->lane_up && misses_another(l) && !l->stops)
        log_warning(
            "cannot reach lane port %llu of %s: open the ports of the server's --lane-ports",
            (unsigned long long)l->lane_port, l->address);
    if (down)
        session_lane_down(l->session);
    while ((event = link_next_event(l->answers_monitor))) {
        if (event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED && l->greetings++)
            session_answers_renewed(l->session);
    }
}

/* After what came through it. */
static void read_join_monitor(struct link *l)
{
    uint16_t event;
    while ((event = link_next_event(l->join_monitor))) {
        if (event == ZMQ_EVENT_CONNECTED)
            session_join_up(l->session);
        else
            session_join_down(l->session);
    }
}

void link_read(struct link *l)
{
    if (l->unread & 1u << SOURCE_JOIN) {
        l->unread &= ~(1u << SOURCE_JOIN);
        read_join(l);
    }
    if (l->unread & 1u << SOURCE_JOIN_MONITOR) {
        l->unread &= ~(1u << SOURCE_JOIN_MONITOR);
        read_join_monitor(l);
    }
    if (l->unread & LINK_SESSION)
        read_lane(l);
    if (l->unread & LINK_MONITORS) {
        l->unread &= ~LINK_MONITORS;
        read_monitors(l);
    }
}
