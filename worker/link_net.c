/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets. What libzmq needs to be told, and why:
 * - RCVHWM 0 on the lane: a PULL at its high-water mark stops reading; the server's credit bounds
 * it.
 * - A lane that went down stays down, for the port may be another's next: its RECONNECT_IVL is a
 *   day, and it is closed long before. With -1 libzmq drops what was not read yet, and asserts if
 *   that is amid a message of several parts (docs/decisions.md).
 * - No ZMTP heartbeats: ours replace them.
 * - Monitors are raw PAIRs that we drain each tick, stopped before they are closed.
 * - Unix sockets where the server is on this host: two thirds of the price of TCP
 * (docs/decisions.md).
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "common/bell.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/retry.h"
#include "common/sockopt.h"
#include "common/unixsock.h"
#include "worker/link_impl.h"

/* A thousand workers whose server is away must not keep their host busy with looking for it. */
#define RECONNECT_MAX_MS  1000
#define RECONNECT_NEVER   (24 * 3600 * 1000)
#define COMPLAIN_AFTER_MS 1000u
#define COMPLAIN_CAP_MS   60000u

bool link_open(struct link *l)
{
    l->room_fd = bell_new();
    l->context = l->room_fd < 0 ? NULL : zmq_ctx_new();
    if (!l->context)
        return false;
    zmq_ctx_set(
        l->context, ZMQ_IO_THREADS, (int)(l->config->io_threads ? l->config->io_threads : 1));
    return true;
}

static void set_int(void *socket, int option, int value)
{
    zmq_setsockopt(socket, option, &value, sizeof value);
}

static void *socket_new(struct link *l, int type)
{
    void *socket = zmq_socket(l->context, type);
    if (!socket)
        return NULL;
    set_int(socket, ZMQ_LINGER, 0);
    set_int(socket, ZMQ_SNDHWM, 0);
    set_int(socket, ZMQ_RCVHWM, 0);
    set_int(socket, ZMQ_IPV6, 1);
    return socket;
}

/* The server's host may vanish while it has nothing to say to us: the kernel asks for it. */
static void set_keepalive(void *socket, const struct msg_welcome *m)
{
    set_int(socket, ZMQ_TCP_KEEPALIVE, 1);
    set_int(socket, ZMQ_TCP_KEEPALIVE_IDLE, clock_seconds(m->ping_ms));
    set_int(socket, ZMQ_TCP_KEEPALIVE_INTVL, clock_seconds(m->heartbeat_ms));
    set_int(socket, ZMQ_TCP_KEEPALIVE_CNT, 3);
}

static void socket_close(void **socket, void **monitor)
{
    if (*socket && monitor && *monitor)
        RETRY(zmq_socket_monitor(*socket, NULL, 0));
    if (monitor && *monitor)
        zmq_close(*monitor);
    if (*socket)
        zmq_close(*socket);
    *socket = NULL;
    if (monitor)
        *monitor = NULL;
}

void link_close_join(struct link *l)
{
    socket_close(&l->join, &l->join_monitor);
}

void link_disconnect(struct link *l)
{
    socket_close(&l->lane, &l->lane_monitor);
    socket_close(&l->answers, &l->answers_monitor);
    l->unread &= ~LINK_SESSION;
}

void link_close(struct link *l)
{
    link_disconnect(l);
    link_close_join(l);
    if (l->context)
        RETRY(zmq_ctx_term(l->context));
    if (l->room_fd >= 0)
        close(l->room_fd);
}

/* A name of its own each time: libzmq frees the last one only when its reaper gets to it. */
static void *monitor_new(struct link *l, void *socket, int events)
{
    char endpoint[64];
    snprintf(endpoint, sizeof endpoint, "inproc://monitor-%u", l->monitors++);
    if (RETRY(zmq_socket_monitor(socket, endpoint, events)) != 0)
        return NULL;
    void *pair = zmq_socket(l->context, ZMQ_PAIR);
    if (pair && RETRY(zmq_connect(pair, endpoint)) != 0)
        socket_close(&pair, NULL);
    return pair;
}

/* A monitor's message: 2 bytes event, 4 bytes value; then a part with the endpoint. */
uint16_t link_next_event(void *monitor)
{
    uint8_t head[6];
    uint16_t event = 0;
    int32_t value;
    if (!monitor || RETRY(zmq_recv(monitor, head, sizeof head, ZMQ_DONTWAIT)) != (int)sizeof head)
        return 0;
    memcpy(&event, head, sizeof event);
    memcpy(&value, head + sizeof event, sizeof value);
    if (event == ZMQ_EVENT_CONNECTED) {
        unixsock_widen(value);
        sockopt_unsent(value);
    }
    char endpoint[256];
    RETRY(zmq_recv(monitor, endpoint, sizeof endpoint, ZMQ_DONTWAIT));
    return event;
}

/* -------------------------------------------------------------------------- join */

/* The name is resolved for each try: the server may have moved. What is reached is pinned. */
static int find_server(struct link *l)
{
    struct address_list list;
    int error = address_resolve(&list, l->config->join, l->tries);
    snprintf(l->host, sizeof l->host, "%s", list.host);
    l->port = list.port;
    if (error)
        return error;
    snprintf(l->address, sizeof l->address, "%s", address_reachable(&list, l->tries));
    return 0;
}

int link_dial_join(struct link *l)
{
    char endpoint[ADDRESS_ENDPOINT];
    link_close_join(l);
    int error = find_server(l);
    l->tries++;
    if (error)
        return error;
    address_endpoint(l->address, l->port, endpoint);
    l->join = socket_new(l, ZMQ_DEALER);
    if (!l->join)
        return -PUSHROD_E_SYSTEM;
    set_int(l->join, ZMQ_RECONNECT_IVL, 50);
    set_int(l->join, ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS);
    l->join_monitor = monitor_new(l, l->join, ZMQ_EVENT_CONNECTED | ZMQ_EVENT_DISCONNECTED);
    l->unread |= 1u << SOURCE_JOIN_MONITOR;
    return l->join_monitor && RETRY(zmq_connect(l->join, endpoint)) == 0 ? 0 : -PUSHROD_E_SYSTEM;
}

/* Once a second at first, then ever more seldom; with what stands there instead, if it can be told.
 */
void link_complain(struct link *l)
{
    uint64_t now_ns = l->now.mono_ns;
    if (l->stops)
        return; /* the server may be stopping as well, and it is no trouble of ours any more */
    if (now_ns - l->contact_ns < COMPLAIN_AFTER_MS * NS_PER_MS || now_ns < l->complain_ns)
        return;
    char why[600]; /* with room for a semicolon */
    bool known = l->address[0] && address_diagnose(l->address, l->port, why, sizeof why - 1);
    log_warning("cannot reach server %s:%u: %s retrying", l->host, l->port,
        known           ? strcat(why, ";")
        : l->address[0] ? "is it running?"
                        : "there is no such host;");
    l->complain_pause_ms = l->complain_pause_ms ? l->complain_pause_ms * 2 : 5000;
    if (l->complain_pause_ms > COMPLAIN_CAP_MS)
        l->complain_pause_ms = COMPLAIN_CAP_MS;
    l->complain_ns = now_ns + l->complain_pause_ms * NS_PER_MS;
}

/* --------------------------------------------------------------- lane and answers */

static void set_text(void *socket, int option, struct slice text)
{
    if (text.data)
        zmq_setsockopt(socket, option, text.data, text.size);
}

/* An advertised host, or the address that was reached. */
static void tcp_endpoint(const struct link *l, const struct msg_welcome *m, uint64_t port,
    char endpoint[ADDRESS_ENDPOINT])
{
    char host[256];
    snprintf(host, sizeof host, "%.*s", (int)m->host.size, (const char *)m->host.data);
    address_endpoint(m->host.size ? host : l->address, port, endpoint);
}

static void unix_endpoint(struct slice name, char endpoint[ADDRESS_ENDPOINT])
{
    snprintf(endpoint, ADDRESS_ENDPOINT, "ipc://@%.*s", (int)name.size, (const char *)name.data);
}

/*
 * To connect only to see would count as a stranger. The lane's name is ours alone. It may be there
 * and yet not for us (a sandbox): when lanes were missed the next one is had over TCP.
 */
static bool is_near(const struct link *l, const struct msg_welcome *m)
{
    return m->unix_answers.size && l->lanes_missed < 2 && address_near(l->address) &&
           unixsock_taken(m->unix_lane);
}

static bool dial(void *socket, const struct msg_welcome *m, const char *endpoint)
{
    set_text(socket, ZMQ_PLAIN_USERNAME, m->user);
    set_text(socket, ZMQ_PLAIN_PASSWORD, m->token);
    if (RETRY(zmq_connect(socket, endpoint)) == 0)
        return true;
    log_error("cannot connect to %s: %s", endpoint, zmq_strerror(zmq_errno()));
    return false;
}

static bool connect_lane(struct link *l, const struct msg_welcome *m, const char *endpoint)
{
    l->lane = socket_new(l, ZMQ_PULL);
    if (!l->lane)
        return false;
    set_int(l->lane, ZMQ_RECONNECT_IVL, RECONNECT_NEVER);
    set_keepalive(l->lane, m);
    l->lane_monitor = monitor_new(l, l->lane,
        ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_CLOSED |
            ZMQ_EVENT_HANDSHAKE_FAILED_AUTH);
    return l->lane_monitor && dial(l->lane, m, endpoint);
}

static bool connect_answers(struct link *l, const struct msg_welcome *m, const char *endpoint)
{
    l->answers = socket_new(l, ZMQ_PUSH);
    if (!l->answers)
        return false;
    set_int(l->answers, ZMQ_RECONNECT_IVL, 20);
    set_int(l->answers, ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS);
    l->answers_monitor =
        monitor_new(l, l->answers, ZMQ_EVENT_CONNECTED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED);
    return l->answers_monitor && dial(l->answers, m, endpoint);
}

int link_connect(struct link *l, const struct msg_welcome *m)
{
    char lane[ADDRESS_ENDPOINT], answers[ADDRESS_ENDPOINT];
    l->near = is_near(l, m);
    if (l->near) {
        unix_endpoint(m->unix_lane, lane);
        unix_endpoint(m->unix_answers, answers);
    } else {
        tcp_endpoint(l, m, m->lane_port, lane);
        tcp_endpoint(l, m, m->answers_port, answers);
    }
    l->lane_port = m->lane_port;
    l->lane_up = false;
    l->greetings = 0;
    l->unread |= LINK_SESSION; /* what was signalled before the descriptors are looked at */
    return connect_lane(l, m, lane) && connect_answers(l, m, answers) ? 0 : -PUSHROD_E_SYSTEM;
}
