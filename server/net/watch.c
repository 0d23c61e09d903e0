/* SPDX-License-Identifier: Apache-2.0 */
#include "server/net/watch.h"
#include "common/retry.h"

#include <event2/event.h>
#include <stddef.h>
#include <zmq.h>

int socket_events(void *socket)
{
    int events = 0;
    size_t size = sizeof events;
    return RETRY(zmq_getsockopt(socket, ZMQ_EVENTS, &events, &size)) == 0 ? events : 0;
}

/* Deferred, and not event_active(): that would run before any other descriptor is looked at. */
void watch_again(struct watch *w)
{
    loop_defer(w->loop, &w->again);
}

static void watch_fire(void *arg)
{
    struct watch *w = arg;
    socket_events(w->socket); /* the signal is taken */
    /* Once it says that nothing is left, the watch may be gone. */
    if (w->call(w->arg))
        watch_again(w);
}

static void watch_readable(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    watch_fire(arg);
}

bool watch_start(struct watch *w, struct loop *loop, void *socket, watch_fn *call, void *arg)
{
    int fd = -1;
    size_t size = sizeof fd;
    if (zmq_getsockopt(socket, ZMQ_FD, &fd, &size) != 0)
        return false;
    *w = (struct watch){.socket = socket, .call = call, .arg = arg, .loop = loop};
    deferral_init(&w->again, watch_fire, w);
    w->readable = event_new(loop_base(loop), fd, EV_READ | EV_PERSIST, watch_readable, w);
    if (!w->readable || event_add(w->readable, NULL) != 0) {
        watch_stop(w);
        return false;
    }
    /* What happened before the descriptor was watched gives no signal any more. */
    watch_again(w);
    return true;
}

void watch_stop(struct watch *w)
{
    if (!w->socket)
        return;
    if (w->readable)
        event_free(w->readable);
    loop_undefer(&w->again);
    *w = (struct watch){0};
}

void watch_sent(struct watch *w)
{
    if (socket_events(w->socket) & ZMQ_POLLIN)
        watch_again(w);
}
