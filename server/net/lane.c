/* SPDX-License-Identifier: Apache-2.0 */
#include "server/net/lane.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/retry.h"
#include "server/net/plane_internal.h"

#define LANE_GRACE_MS    5u   /* after the last answer of a lost worker */
#define LANE_GRACE_MOST  20u  /* ms, after the loss */
#define LANE_FAREWELL_MS 500u /* for the words that end a session to be read */
#define LANE_CROWD       16u  /* connections; one is the worker's, and the others have 10 s */

/* Payloads above this leave as parts of their own, uncopied. */
#define LANE_INLINE_PAYLOAD (16u << 10)
/* Records of one tick beyond this leave early, so that buffers stay small ... */
#define LANE_SEND_BYTES (96u << 10)
/* ... and so do payloads in parts, for a worker sees none of them before the last is there. */
#define LANE_SEND_BODIES (512u << 10)
static_assert(LANE_BODIES * LANE_INLINE_PAYLOAD >= LANE_SEND_BODIES, "there is a place for each");
/* ... and a buffer that became larger anyway is given back. */
#define LANE_KEEP_BYTES (128u << 10)

struct lane *lane_find(const struct plane *plane, uint64_t worker)
{
    return idmap_pointer(&plane->lanes, worker);
}

static uint64_t lane_now(const struct lane *lane)
{
    return loop_now(lane->plane->loop).mono_ns;
}

/* ------------------------------------------------------------------------------- its end */

/* Without memory for a timer the core fences the worker for its silence. */
static void lane_grace_set(struct lane *lane, unsigned ms)
{
    loop_timer_set(lane->plane->loop, &lane->grace, lane_now(lane) + ms * NS_PER_MS);
}

/* Called from the loop: what the core is told then belongs to a tick. */
static void lane_tell_cut(struct lane *lane)
{
    if (lane->cut)
        return;
    lane->cut = true;
    lane->plane->events.lane_cut(lane->plane->arg, lane->worker);
    lane_tell_unsent(lane);
}

/* The grace is over, unless answers were waiting to be read: then lane_heard() put it off. */
static void lane_grace_over(void *arg)
{
    struct lane *lane = arg;
    struct plane *plane = lane->plane;
    lane_tell_cut(lane);
    uint64_t worker = lane->worker, session = lane->session, heard = lane->heard;
    bool late = lane_now(lane) >= lane->grace_end_ns;
    answers_poll(plane);
    lane = lane_find(plane, worker);
    if (!lane || lane->session != session || lane->told)
        return;
    if (lane->heard != heard && !late)
        return;
    loop_timer_clear(plane->loop, &lane->grace);
    lane->told = true;
    plane->events.lane_down(plane->arg, worker, lane->code, lane->lost_ns);
}

static void bodies_drop(struct lane *lane)
{
    for (unsigned i = 0; i < lane->body_count; i++)
        body_unref(lane->bodies[i]);
    lane->body_count = 0;
    lane->body_bytes = 0;
}

/* Always told from the loop, never from within the caller's own actions. */
static void lane_lose(struct lane *lane, int code, unsigned grace_ms)
{
    if (lane->state == LANE_LOST)
        return;
    lane->state = LANE_LOST;
    lane->code = code;
    buf_free(&lane->out);
    bodies_drop(lane);
    lane->lost_ns = lane_now(lane);
    lane->grace_end_ns = lane->lost_ns + (grace_ms ? LANE_GRACE_MOST * NS_PER_MS : 0);
    lane_grace_set(lane, grace_ms);
}

void lane_cut(struct lane *lane, int code)
{
    lane_lose(lane, code, 0);
}

void lane_heard(struct lane *lane)
{
    lane->heard++;
    if (lane->state == LANE_LOST && !lane->told && lane_now(lane) < lane->grace_end_ns)
        lane_grace_set(lane, LANE_GRACE_MS);
}

void lane_look(struct lane *lane)
{
    bool writable = socket_events(lane->socket) & ZMQ_POLLOUT;
    if (lane->state == LANE_WAITING && writable) {
        lane->state = LANE_UP;
        lane_flush(lane);
    } else if (lane->state == LANE_UP && !writable) {
        lane_lose(lane, PUSHROD_E_CLOSED, LANE_GRACE_MS);
    }
}

static bool lane_ready(void *arg)
{
    struct lane *lane = arg;
    lane_look(lane);
    if (lane->state == LANE_LOST)
        lane_tell_cut(lane);
    return false;
}

/* -------------------------------------------------------------------------------- output */

static void body_release(void *data, void *hint)
{
    (void)data;
    body_unref(hint);
}

/* Takes the message in any case. The lane is found lost afterwards if it could not be sent. */
static void lane_send(struct lane *lane, zmq_msg_t *message, int more)
{
    size_t size = zmq_msg_size(message);
    if (RETRY(zmq_msg_send(message, lane->socket, ZMQ_DONTWAIT | more)) < 0) {
        zmq_msg_close(message);
        return;
    }
    lane->plane->stats.lane_messages += more == 0;
    lane->plane->stats.lane_bytes += size;
}

/* Sends the records that were put, as one part. */
static void lane_send_out(struct lane *lane, int more)
{
    zmq_msg_t message;
    if (lane->out.failed || zmq_msg_init_size(&message, lane->out.size) != 0) {
        lane_cut(lane, PUSHROD_E_NO_MEMORY);
        return;
    }
    memcpy(zmq_msg_data(&message), lane->out.data, lane->out.size);
    lane_send(lane, &message, more);
    /* A thousand lanes must not keep what one burst needed. */
    buf_recycle(&lane->out, LANE_KEEP_BYTES);
}

/* The payloads that are the parts behind the records, in their order. */
static void lane_send_bodies(struct lane *lane)
{
    for (unsigned i = 0; i < lane->body_count; i++) {
        zmq_msg_t message;
        struct body *body = lane->bodies[i];
        if (zmq_msg_init_data(&message, body->data, body->size, body_release, body_ref(body)) !=
            0) {
            body_unref(body);
            lane_cut(lane, PUSHROD_E_NO_MEMORY);
            return;
        }
        lane_send(lane, &message, i + 1 < lane->body_count ? ZMQ_SNDMORE : 0);
    }
    bodies_drop(lane);
}

void lane_flush(struct lane *lane)
{
    list_remove(&lane->dirty);
    if (lane->state != LANE_UP || (lane->out.size == 0 && !lane->out.failed))
        return;
    lane_send_out(lane, lane->body_count ? ZMQ_SNDMORE : 0);
    lane_send_bodies(lane);
    lane_look(lane);
}

static void lane_put_task(
    struct lane *lane, const struct task *task, struct slice payload, size_t rest)
{
    const struct task_record *r = &task->record;
    struct msg_task m = {
        .id = r->id,
        .lease = task->lease,
        .queue = task_queue(task),
        .attempt = task->hand_overs,
        .timeout_ms = r->timeout_ms,
        .headers = task_headers(task),
        .payload = payload,
        .rest = rest,
    };
    msg_task_encode(&lane->out, &m);
}

/*
 * A large payload leaves uncopied, as a part behind the records. Only on a lane that is up: a part
 * that is refused in the middle of a message would leave the lane in an unknown state.
 */
bool lane_attach(struct lane *lane, struct body *body)
{
    /* What is small must not wait until this one has arrived. */
    if (lane->body_bytes + body->size > LANE_SEND_BODIES)
        lane_flush(lane);
    if (lane->state != LANE_UP)
        return false;
    assert(lane->body_count < LANE_BODIES);
    lane->bodies[lane->body_count++] = body_ref(body);
    lane->body_bytes += body->size;
    return true;
}

/* Absent would mean that the payload is a part. */
static const struct slice nothing = {(const uint8_t *)"", 0};

static void lane_put_load(struct lane *lane, const struct task *task)
{
    struct body *body = task->record.body;
    lane_put_task(lane, task, nothing, body->size);
    if (lane_load(lane, task))
        lane_pump(lane);
    else
        lane_cut(lane, PUSHROD_E_NO_MEMORY);
}

static void lane_task(struct lane *lane, const struct task *task)
{
    struct body *body = task->record.body;
    struct slice payload = body ? body_slice(body) : task->record.payload;
    if (!body || body->size <= LANE_INLINE_PAYLOAD || lane->state != LANE_UP)
        lane_put_task(lane, task, payload.data ? payload : nothing, 0);
    else if (body->size > lane_piece(lane))
        lane_put_load(lane, task);
    else if (lane_attach(lane, body))
        lane_put_task(lane, task, (struct slice){0}, 0);
}

static void lane_encode(struct lane *lane, const struct lane_action *a)
{
    struct buf *out = &lane->out;
    switch (a->kind) {
    case LANE_TASK:
        lane_task(lane, a->task);
        break;
    case LANE_CANCEL:
        lane_unload(lane, a->lease);
        msg_cancel_task_encode(out, &(struct msg_cancel_task){a->id, a->lease});
        break;
    case LANE_WITHDRAW:
        /* Without all of its payload it has not started there, and comes back. */
        lane_unload(lane, a->lease);
        msg_withdraw_encode(out, &(struct msg_withdraw){a->id, a->lease});
        break;
    case LANE_ACK:
        msg_ack_encode(out, &(struct msg_ack){a->number});
        break;
    case LANE_PING:
        msg_ping_encode(out, &(struct msg_ping){a->number, a->beat, a->next_ms});
        break;
    case LANE_DRAIN:
        msg_drain_encode(out, &(struct msg_drain){a->number, a->again});
        break;
    case LANE_FENCED:
        msg_fenced_encode(out, &(struct msg_fenced){a->number});
        /* Without these words the worker would join again, and fence the one that replaced it. */
        lane->farewell = a->number == PUSHROD_E_SUPERSEDED;
        break;
    }
}

/* A PING that rouses is there long before a large payload behind it has come whole. */
static bool lane_leaves(const struct lane *lane, const struct lane_action *last)
{
    return lane->out.size >= LANE_SEND_BYTES || lane->body_bytes >= LANE_SEND_BODIES ||
           (last->kind == LANE_PING && last->beat);
}

void lane_put(struct lane *lane, const struct lane_action *action)
{
    if (lane->state == LANE_LOST)
        return;
    lane_encode(lane, action);
    if (lane_leaves(lane, action))
        lane_flush(lane);
    else if (list_empty(&lane->dirty))
        list_push_back(&lane->plane->dirty, &lane->dirty);
}

/* --------------------------------------------------------------------------- its beginning */

/* False with errno: this port cannot be had (EADDRINUSE), or none can. */
static bool lane_bind_range(struct lane *lane)
{
    struct plane *plane = lane->plane;
    uint64_t now_ns = lane_now(lane);
    static struct log_limit limit;
    char more[LOG_MORE];
    for (uint16_t port; (port = ports_take(&plane->ports, now_ns));) {
        lane->port = socket_bind(lane->socket, plane->config.listen, port);
        if (lane->port)
            return true;
        /* Somebody else's, or our own that is not closed yet: it is tried again later. */
        int why = errno;
        ports_give(&plane->ports, port, now_ns);
        if (log_allowed(&limit, more))
            log_warning("lane port %u: %s%s", port, zmq_strerror(why), more);
        errno = why;
        if (why != EADDRINUSE && why != EACCES)
            return false;
    }
    errno = EADDRINUSE;
    return false;
}

static bool lane_bind(struct lane *lane)
{
    if (lane->plane->ports.size)
        return lane_bind_range(lane);
    lane->port = socket_bind(lane->socket, lane->plane->config.listen, 0);
    return lane->port != 0;
}

/* The order matters: whoever connects finds the ZAP entry, the monitor and the watch in place. */
static bool lane_start(struct lane *lane, char token[ZAP_TOKEN_SIZE])
{
    struct plane *plane = lane->plane;
    char domain[ZAP_NAME_SIZE];
    snprintf(domain, sizeof domain, "lane-%" PRIu64, ++plane->last_lane);
    struct socket_options options = {
        .domain = domain,
        .plain = true,
        /* A worker has nothing to say here; what it says anyway costs next to nothing. */
        .receive_mark = 1,
        .max_message = 1024,
        .backlog = 128,
        .keepalive = {clock_seconds(plane->config.ping_ms),
            clock_seconds(plane->config.heartbeat_ms), 3},
    };
    lane->socket = socket_make(plane->context, ZMQ_PUSH, &options);
    if (!lane->socket || !zap_admit(plane->zap, lane->speaker->user, domain, token) ||
        !monitor_start(&lane->monitor, plane->loop, plane->context, lane->socket, "lane",
            &plane->stats.strangers) ||
        !lane_bind(lane))
        return false;
    socket_bind_unix(lane->socket, plane->config.unix_base, domain, lane->unix_name);
    monitor_bound(&lane->monitor,
        &(struct crowd_limits){.most = LANE_CROWD, .places = &plane->lane_places}, lane->port,
        lane->unix_name);
    return watch_start(&lane->watch, plane->loop, lane->socket, lane_ready, lane);
}

static void lane_free(struct lane *lane)
{
    list_remove(&lane->dirty);
    watch_stop(&lane->watch);
    monitor_stop(&lane->monitor);
    if (lane->socket)
        zmq_close(lane->socket);
    if (lane->port)
        ports_give(&lane->plane->ports, lane->port, lane_now(lane));
    loop_timer_clear(lane->plane->loop, &lane->grace);
    buf_free(&lane->out);
    bodies_drop(lane);
    lane_unload_all(lane);
    free(lane);
}

static struct lane *lane_new(struct plane *plane, const struct join_action *action)
{
    struct lane *lane = calloc(1, sizeof *lane);
    if (!lane)
        return NULL;
    lane->plane = plane;
    lane->worker = action->worker;
    lane->session = action->session;
    lane->peer = action->peer;
    lane->grace = (struct loop_timer){.fn = lane_grace_over, .arg = lane};
    list_init(&lane->dirty);
    list_init(&lane->loads);
    list_init(&lane->loaded);
    lane->speaker = speaker_add(plane, lane->worker, lane->session);
    if (lane->speaker)
        return lane;
    free(lane);
    return NULL;
}

static void lane_explain(int error, const char **why, int *code)
{
    bool ports = error == EADDRINUSE;
    *code = ports ? PUSHROD_E_TOO_MANY : error == ENOMEM ? PUSHROD_E_NO_MEMORY : PUSHROD_E_SYSTEM;
    *why = ports ? "every lane port of the server is in use: give it a larger range"
                 : zmq_strerror(error);
}

struct lane *lane_open(struct plane *plane, const struct join_action *action,
    char token[ZAP_TOKEN_SIZE], const char **why, int *code)
{
    lane_explain(ENOMEM, why, code);
    struct lane *lane = lane_new(plane, action);
    if (!lane)
        return NULL;
    if (lane_start(lane, token) && idmap_put(&plane->lanes, lane->worker, (uintptr_t)lane)) {
        lane->speaker->lane = lane;
        msg_lane_hello_encode(&lane->out, &(struct msg_lane_hello){lane->worker, lane->session});
        plane->stats.lanes++;
        return lane;
    }
    lane_explain(errno, why, code);
    zap_forget(plane->zap, lane->speaker->user);
    speaker_drop(plane, lane->speaker);
    lane_free(lane);
    return NULL;
}

/* ----------------------------------------------------------------------------- farewell */

static void lane_gone(void *arg)
{
    struct lane *lane = arg;
    list_remove(&lane->dirty);
    lane->plane->parting_count--;
    lane_free(lane);
}

static bool lane_parting(void *arg)
{
    struct lane *lane = arg;
    if (!(socket_events(lane->socket) & ZMQ_POLLOUT))
        lane_gone(lane);
    return false;
}

/*
 * The words that end a session are lost if the connection ends right behind them: a PULL that
 * does not reconnect drops what it has not read. So the worker may close first, for a while.
 */
static bool lane_part(struct lane *lane)
{
    struct plane *plane = lane->plane;
    lane_flush(lane);
    if (lane->state != LANE_UP)
        return false;
    monitor_stop(&lane->monitor);
    lane->watch.call = lane_parting;
    lane->grace.fn = lane_gone;
    lane_grace_set(lane, LANE_FAREWELL_MS);
    list_push_back(&plane->parting, &lane->dirty);
    plane->parting_count++;
    return true;
}

void lane_part_now(struct plane *plane)
{
    lane_gone(container_of(list_first(&plane->parting), struct lane, dirty));
}

void lane_close(struct lane *lane)
{
    struct plane *plane = lane->plane;
    idmap_remove(&plane->lanes, lane->worker);
    plane->stats.lanes--;
    speaker_retire(plane, lane->speaker);
    lane->speaker = NULL;
    lane_unload_all(lane);
    if (!lane->farewell || !lane_part(lane))
        lane_free(lane);
}
