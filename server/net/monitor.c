/* SPDX-License-Identifier: Apache-2.0 */
#include "server/net/monitor.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <zmq.h>

#include "common/log.h"
#include "common/retry.h"
#include "common/sockopt.h"
#include "common/unixsock.h"
#include "server/net/loop.h"

#define MONITOR_EVENTS                                                                             \
    (ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |                  \
        ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED)
#define MONITOR_STRANGERS (MONITOR_EVENTS & ~(ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED))

static void stranger_count(struct monitor *m)
{
    static struct log_limit limit;
    char more[LOG_MORE];
    ++*m->strangers;
    if (log_allowed(&limit, more))
        log_info("a connection to the %s port was not admitted%s", m->what, more);
}

/* One event: its number and value in the first part, the address in the second. */
static bool event_read(struct monitor *m)
{
    uint8_t head[6];
    char address[256];
    if (RETRY(zmq_recv(m->pair, head, sizeof head, ZMQ_DONTWAIT)) < 0)
        return false;
    RETRY(zmq_recv(m->pair, address, sizeof address, ZMQ_DONTWAIT));
    uint16_t event;
    int32_t value;
    memcpy(&event, head, sizeof event);
    memcpy(&value, head + sizeof event, sizeof value);
    if (event == ZMQ_EVENT_ACCEPTED) {
        unixsock_widen(value);
        sockopt_unsent(value);
        crowd_came(&m->crowd, value);
    } else if (event == ZMQ_EVENT_DISCONNECTED) {
        crowd_left(&m->crowd, value);
    } else if (event & MONITOR_STRANGERS) {
        stranger_count(m);
    }
    return true;
}

void monitor_read(struct monitor *m)
{
    while (event_read(m))
        ;
}

static bool monitor_ready(void *arg)
{
    monitor_read(arg);
    return false;
}

/*
 * A name that no monitor of the process had before. It must not come from an address: the name of
 * a monitor that was stopped stays taken for a moment, and memory is used again at once.
 */
static void monitor_name(char *name, size_t size)
{
    static atomic_uint_fast64_t last;
    snprintf(name, size, "inproc://monitor-%" PRIuFAST64, atomic_fetch_add(&last, 1) + 1);
}

bool monitor_start(struct monitor *m, struct loop *loop, void *context, void *socket,
    const char *what, uint64_t *strangers)
{
    char name[64];
    *m = (struct monitor){.socket = socket, .what = what, .strangers = strangers};
    monitor_name(name, sizeof name);
    m->pair = zmq_socket(context, ZMQ_PAIR);
    int linger = 0;
    if (m->pair && zmq_setsockopt(m->pair, ZMQ_LINGER, &linger, sizeof linger) == 0 &&
        RETRY(zmq_socket_monitor(socket, name, MONITOR_EVENTS)) == 0 &&
        RETRY(zmq_connect(m->pair, name)) == 0 &&
        watch_start(&m->watch, loop, m->pair, monitor_ready, m))
        return true;
    monitor_stop(m);
    return false;
}

void monitor_bound(
    struct monitor *m, const struct crowd_limits *limits, uint16_t port, const char *unix_name)
{
    crowd_start(&m->crowd, m->watch.loop, limits, port, unix_name, m->strangers);
}

void monitor_stop(struct monitor *m)
{
    crowd_stop(&m->crowd);
    watch_stop(&m->watch);
    /* First the sender, then the reader: an I/O thread must not block on a reader that is gone. */
    if (m->socket)
        zmq_socket_monitor(m->socket, NULL, 0);
    if (m->pair)
        zmq_close(m->pair);
    *m = (struct monitor){0};
}
