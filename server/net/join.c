/* SPDX-License-Identifier: Apache-2.0 */
/*
 * join: the ROUTER to which anybody may speak.
 *
 * Everything that arrives here comes from a stranger: it is decoded strictly, answered shortly,
 * and costs a bounded amount of memory. Nobody is waited for: an answer that cannot be sent is
 * dropped, and the worker asks again.
 */
#include <inttypes.h>
#include <stdio.h>
#include <zmq.h>

#include "common/log.h"
#include "common/retry.h"
#include "server/net/join_parse.h"
#include "server/net/lane.h"
#include "server/net/plane_internal.h"

#define JOIN_BUDGET 256u /* messages and parts for one wake-up, before others have their turn */
#define JOIN_COST   (32u << 10) /* bytes that count as one more: a full lane's JOIN has as many */
#define JOIN_FRAME  64u /* messages of one frame: an honest one has few, a stranger's 200,000 */

static void join_garbage(struct plane *plane, const char *address, const char *why)
{
    static struct log_limit limit;
    char more[LOG_MORE];
    plane->stats.garbage++;
    if (log_allowed(&limit, more))
        log_warning(
            "join port: garbage from %s: %s%s", address ? address : "a stranger", why, more);
}

/* The ROUTER says so when nobody is at the other end. */
static bool join_send(struct plane *plane, struct slice route, const struct buf *frame)
{
    if (frame->failed)
        return false;
    void *socket = plane->join.socket;
    bool sent = RETRY(zmq_send(socket, route.data, route.size, ZMQ_SNDMORE | ZMQ_DONTWAIT)) >= 0 &&
                RETRY(zmq_send(socket, frame->data, frame->size, ZMQ_DONTWAIT)) >= 0;
    watch_sent(&plane->join.watch);
    return sent;
}

static bool send_refused(struct plane *plane, struct slice route, const struct msg_refused *m)
{
    struct buf frame = BUF_EMPTY;
    msg_refused_encode(&frame, m);
    bool sent = join_send(plane, route, &frame);
    buf_free(&frame);
    return sent;
}

/* Of a JOIN that is nobody's yet. */
static void refuse_stranger(
    struct plane *plane, struct slice route, struct slice nonce, int code, const char *text)
{
    struct msg_refused m = {
        .nonce = nonce,
        .code = (uint64_t)code,
        .text = slice_str(text),
        .retry = code == PUSHROD_E_NO_MEMORY,
    };
    send_refused(plane, route, &m);
}

static struct slice peer_address(const struct peer *peer)
{
    return slice_of(peer->route, peer->route_size);
}

bool join_refuse(struct plane *plane, struct peer *peer, int code, const char *text, bool retry)
{
    struct msg_refused m = {
        .nonce = slice_of(peer->nonce, NONCE_SIZE),
        .code = (uint64_t)code,
        .text = slice_str(text ? text : pushrod_strerror(code)),
        .retry = retry,
    };
    bool sent = send_refused(plane, peer_address(peer), &m);
    peer_drop(&plane->peers, peer);
    return sent;
}

static void put_verdicts(struct buf *out, const struct join_action *a)
{
    enc_array(out, (uint32_t)a->held_count);
    for (size_t i = 0; i < a->held_count; i++)
        msg_verdict_encode(
            out, &(struct msg_verdict){a->held[i].id, a->held[i].lease, a->verdicts[i]});
}

static struct slice unix_name(const char *name)
{
    return slice_str(name[0] ? name : NULL);
}

void join_welcome(struct plane *plane, struct peer *peer, const struct lane *lane,
    const char *token, const struct join_action *action)
{
    const struct plane_config *config = &plane->config;
    struct buf verdicts = BUF_EMPTY;
    if (action->held_count)
        put_verdicts(&verdicts, action);
    struct msg_welcome m = {
        .nonce = slice_of(peer->nonce, NONCE_SIZE),
        .worker = lane->worker,
        .session = lane->session,
        .host = slice_str(config->advertise),
        .lane_port = lane->port,
        .answers_port = plane->answers.port,
        .user = slice_str(lane->speaker->user),
        .token = slice_str(token),
        .heartbeat_ms = config->heartbeat_ms,
        .ping_ms = config->ping_ms,
        .max_result = config->max_result,
        .verdicts = buf_slice(&verdicts),
        .unix_lane = unix_name(lane->unix_name),
        .unix_answers = unix_name(plane->answers.unix_name),
    };
    peer_welcomed(&plane->peers, peer);
    msg_welcome_encode(&peer->welcome, &m);
    /* Half an answer would be a wrong one: without it the worker asks again. */
    peer->welcome.failed |= verdicts.failed;
    buf_free(&verdicts);
    join_send(plane, peer_address(peer), &peer->welcome);
}

/* The same nonce: the answer was lost on its way, or is not there yet. */
static bool join_again(struct plane *plane, const struct join_request *r, struct slice route)
{
    struct peer *peer = peers_by_nonce(&plane->peers, r->message.nonce);
    if (!peer || !slice_equal(r->message.instance, slice_of(peer->instance, INSTANCE_SIZE)))
        return false;
    peer_route(peer, route);
    if (peer->welcome.size)
        join_send(plane, route, &peer->welcome);
    return true;
}

static void join_take(struct plane *plane, struct join_request *r, struct slice route)
{
    if (join_again(plane, r, route))
        return;
    struct peer *peer = NULL;
    if (!peers_by_nonce(&plane->peers, r->message.nonce))
        peer = peers_add(&plane->peers, r->message.nonce, r->message.instance);
    if (!peer) {
        refuse_stranger(plane, route, r->message.nonce, PUSHROD_E_NO_MEMORY,
            pushrod_strerror(PUSHROD_E_NO_MEMORY));
        return;
    }
    peer_route(peer, route);
    r->join.peer = peer->handle;
    plane->stats.joins++;
    plane->events.join(plane->arg, &r->join);
}

/* What is wrong with a JOIN that could be read: whoever does not know the secret learns no more. */
static int join_token(struct plane *plane, struct join_request *r)
{
    const char *token = plane->config.token;
    if (!token[0] || slice_equal_secret(r->message.token, slice_str(token)))
        return 0;
    plane->stats.bad_tokens++;
    snprintf(r->text, sizeof r->text,
        "%s: give the worker the server's, with --token-file or PUSHROD_TOKEN",
        r->message.token.data ? "the token is wrong" : "the server asks for a token");
    return PUSHROD_E_BAD_TOKEN;
}

static bool join_message(struct plane *plane, struct dec *d, struct slice route)
{
    struct join_request r;
    int code = join_request_read(&r, d);
    if (code == 0 || code == PUSHROD_E_NO_MEMORY)
        code = join_token(plane, &r) ? PUSHROD_E_BAD_TOKEN : code;
    if (code == 0)
        join_take(plane, &r, route);
    else
        refuse_stranger(plane, route, r.message.nonce, code, r.text);
    join_parsed_free(&r);
    return code == 0;
}

static bool join_obituary(struct plane *plane, struct dec *d)
{
    struct msg_obituary m;
    if (!msg_obituary_decode(d, &m))
        return false;
    if (m.instance.size != INSTANCE_SIZE) {
        dec_fail(d, "instance is 16 bytes");
        return false;
    }
    plane->events.obituary(plane->arg, &m);
    return true;
}

/* One message of a frame. False: the rest is not worth reading. */
static bool join_one(struct plane *plane, struct dec *d, struct slice route)
{
    uint64_t version;
    struct slice nonce;
    char text[JOIN_MAX_TEXT];
    if (join_peek(d, &version, &nonce) && version != PROTOCOL_VERSION) {
        join_version_text(text, version);
        refuse_stranger(plane, route, nonce, PUSHROD_E_BAD_VERSION, text);
        dec_fail(d, "another version of the protocol");
        return false;
    }
    switch (dec_message(d)) {
    case MSG_JOIN:
        return join_message(plane, d, route);
    case MSG_OBITUARY:
        return join_obituary(plane, d);
    default:
        dec_fail(d, "neither JOIN nor OBITUARY");
        return false;
    }
}

/* Gives how many messages it had. */
static unsigned join_frame(struct plane *plane, zmq_msg_t *frame, struct slice route)
{
    struct dec d = dec_of(slice_of(zmq_msg_data(frame), zmq_msg_size(frame)));
    unsigned messages = 0;
    if (!dec_more(&d))
        dec_fail(&d, "an empty frame");
    while (dec_more(&d) && messages < JOIN_FRAME && join_one(plane, &d, route))
        messages++;
    if (dec_more(&d) && !dec_failed(&d))
        dec_fail(&d, "a frame has too many messages");
    if (dec_failed(&d))
        join_garbage(plane, zmq_msg_gets(frame, "Peer-Address"), d.error);
    return messages;
}

static bool join_receive(struct plane *plane, zmq_msg_t *part)
{
    return RETRY(zmq_msg_recv(part, plane->join.socket, ZMQ_DONTWAIT)) >= 0;
}

/*
 * A frame has exactly one part after the route: with more the message is dropped, part by part, for
 * a stranger may send millions. Gives what it cost.
 */
static unsigned join_parts(struct plane *plane, zmq_msg_t *route)
{
    zmq_msg_t frame;
    unsigned cost = 1;
    zmq_msg_init(&frame);
    bool there = zmq_msg_more(route) && join_receive(plane, &frame);
    plane->join_rest = there && zmq_msg_more(&frame);
    if (there && !plane->join_rest)
        cost += join_frame(plane, &frame, slice_of(zmq_msg_data(route), zmq_msg_size(route))) +
                (unsigned)(zmq_msg_size(&frame) / JOIN_COST);
    else
        join_garbage(plane, zmq_msg_gets(&frame, "Peer-Address"), "a message of several parts");
    zmq_msg_close(&frame);
    return cost;
}

bool join_ready(void *arg)
{
    struct plane *plane = arg;
    for (unsigned used = 0; used < JOIN_BUDGET;) {
        zmq_msg_t part;
        zmq_msg_init(&part);
        if (!join_receive(plane, &part))
            return false;
        if (!plane->join_rest) {
            used += join_parts(plane, &part);
        } else {
            plane->join_rest = zmq_msg_more(&part);
            used++;
        }
        zmq_msg_close(&part);
    }
    return true;
}
