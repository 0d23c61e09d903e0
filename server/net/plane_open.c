/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plane_open: what the workers' side of the server opens when it starts (the ZeroMQ context, ZAP,
 * the ports of answers and join), and what it may take.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <zmq.h>

#include "server/net/plane_internal.h"

/* Socket, two listeners, both ends of the monitor; the worker's connections to lane, answers, join.
 */
#define LANE_DESCRIPTORS  8u
#define DESCRIPTORS_SPARE 64u /* join, answers, store, log, libzmq's own */
#define LANE_SOCKETS      3u  /* the lane, both ends of the monitor */
#define SOCKETS_SPARE     50u
#define JOIN_MAX_MESSAGE  (8 << 20) /* held lists of 300,000 tasks */
/* A worker dials anew for each try, and hangs up when it has its lane. */
#define JOIN_CONNECTION_BYTES (2 * (uint64_t)JOIN_MAX_MESSAGE)
#define JOIN_CONNECTION_MS    30000u
/* A thousand workers that come back hold half of it. Empty parts, 2 bytes each, take 2 GiB then. */
#define JOIN_ALL_BYTES (8 * (uint64_t)JOIN_MAX_MESSAGE)

/* ------------------------------------------------------------------------------ limits */

__attribute__((format(printf, 2, 3))) static bool fail(char **error, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    *error = strdup(line);
    return false;
}

uint32_t plane_strangers(const struct plane_config *c)
{
    return c->strangers ? c->strangers : PLANE_STRANGERS;
}

uint64_t plane_descriptors(const struct plane_config *c)
{
    return LANE_DESCRIPTORS * (uint64_t)c->max_lanes + 3 * (uint64_t)plane_strangers(c) +
           DESCRIPTORS_SPARE;
}

/* ------------------------------------------------------------------------------- sockets */

static bool bind_failed(char **error, const char *listen, uint16_t port, const char *option)
{
    int why = errno;
    if (why == EADDRINUSE)
        return fail(error,
            "port %u is taken: is a pushrod-server running already? Stop what listens there, or "
            "choose another port with %s",
            port, option);
    if (why == EACCES)
        return fail(error, "port %u is not allowed for this user: choose one above 1023 with %s",
            port, option);
    if (why == ENODEV || why == EADDRNOTAVAIL || why == EINVAL)
        return fail(error,
            "'%s' is no address of this machine: --worker-listen takes one as a number, or an "
            "interface; names are not looked up",
            listen);
    return fail(error, "cannot listen on %s port %u: %s", listen, port, zmq_strerror(why));
}

struct gate_plan {
    int type;
    struct socket_options options;
    uint16_t port;
    const char *what;
    const char *option;
    const char *unix_base; /* NULL: TCP only */
    watch_fn *ready;
    struct crowd_limits crowd;
};

static bool gate_open(
    struct plane *plane, struct gate *gate, const struct gate_plan *plan, char **error)
{
    gate->socket = socket_make(plane->context, plan->type, &plan->options);
    if (!gate->socket || !monitor_start(&gate->monitor, plane->loop, plane->context, gate->socket,
                             plan->what, &plane->stats.strangers))
        return fail(error, "cannot make the %s socket: %s", plan->what, zmq_strerror(errno));
    gate->port = socket_bind(gate->socket, plane->config.listen, plan->port);
    if (!gate->port)
        return bind_failed(error, plane->config.listen, plan->port, plan->option);
    socket_bound(gate->socket, gate->host);
    socket_bind_unix(gate->socket, plan->unix_base, plan->what, gate->unix_name);
    monitor_bound(&gate->monitor, &plan->crowd, gate->port, gate->unix_name);
    if (!watch_start(&gate->watch, plane->loop, gate->socket, plan->ready, plane))
        return fail(error, "cannot watch the %s socket: out of memory", plan->what);
    return true;
}

void gate_close(struct gate *gate)
{
    watch_stop(&gate->watch);
    monitor_stop(&gate->monitor);
    if (gate->socket)
        zmq_close(gate->socket);
    gate->socket = NULL;
}

static bool plane_open_join(struct plane *plane, char **error)
{
    struct gate_plan plan = {
        .type = ZMQ_ROUTER,
        /* A stranger that sends and never reads is worth a few messages, no more. */
        .options = {.domain = ZAP_DOMAIN_JOIN,
            .send_mark = 8,
            .receive_mark = 4,
            .max_message = JOIN_MAX_MESSAGE,
            .backlog = 1024},
        .port = plane->config.join_port,
        .what = "join",
        .option = "--join-port",
        .ready = join_ready,
        .crowd = {.most = plane->config.max_lanes + plane->config.strangers,
            .keep_newest = true,
            .max_bytes = JOIN_CONNECTION_BYTES,
            .all_bytes = JOIN_ALL_BYTES,
            .max_ms = JOIN_CONNECTION_MS},
    };
    int on = 1;
    if (!gate_open(plane, &plane->join, &plan, error))
        return false;
    /* Whoever is gone is an error that we see, not a message that waits. */
    zmq_setsockopt(plane->join.socket, ZMQ_ROUTER_MANDATORY, &on, sizeof on);
    return true;
}

static bool plane_open_answers(struct plane *plane, char **error)
{
    struct gate_plan plan = {
        .type = ZMQ_PULL,
        /* No mark: what may be on its way is bounded by credit. A PULL at its mark stops reading.
         */
        .options = {.domain = ZAP_DOMAIN_ANSWERS,
            .plain = true,
            .backlog = 1024,
            .max_message = (int64_t)plane->config.max_message},
        .port = plane->config.answers_port,
        .what = "answers",
        .option = "--answers-port",
        .unix_base = plane->config.unix_base,
        .ready = answers_ready,
        .crowd = {.most = plane->config.max_lanes + plane->config.strangers},
    };
    return gate_open(plane, &plane->answers, &plan, error);
}

static bool plane_open_context(struct plane *plane, char **error)
{
    const struct plane_config *c = &plane->config;
    plane->context = zmq_ctx_new();
    if (!plane->context)
        return fail(error, "cannot make a ZeroMQ context: %s", zmq_strerror(errno));
    int sockets = (int)(LANE_SOCKETS * c->max_lanes + SOCKETS_SPARE);
    if (zmq_ctx_set(plane->context, ZMQ_MAX_SOCKETS, sockets) != 0)
        return fail(error, "%u workers are more than ZeroMQ has sockets for: lower --max-workers",
            c->max_lanes);
    zmq_ctx_set(plane->context, ZMQ_IO_THREADS, (int)c->io_threads);
    plane->zap = zap_new(plane->context);
    if (!plane->zap)
        return fail(error, "cannot start the ZAP thread: %s", zmq_strerror(errno));
    if (!lane_room_open(plane))
        return fail(error, "cannot watch the lanes: %s", strerror(errno));
    return true;
}

bool plane_open(struct plane *plane, char **error)
{
    return plane_open_context(plane, error) && plane_open_answers(plane, error) &&
           plane_open_join(plane, error);
}
