/* SPDX-License-Identifier: Apache-2.0 */
#include "server/net/watch.h"

#include <event2/event.h>
#include <stddef.h>
#include <zmq.h>

static const struct timeval watch_at_once = {0, 0};

int socket_events(void *socket)
{
    int events = 0;
    size_t size = sizeof events;
    if (zmq_getsockopt(socket, ZMQ_EVENTS, &events, &size) != 0)
        return 0;
    return events;
}

/* A timer, and not event_active(): that would run before any other descriptor is looked at. */
void watch_again(struct watch *w)
{
    evtimer_add(w->again, &watch_at_once);
}

static void watch_fire(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct watch *w = arg;
    if (w->call(w->arg, socket_events(w->socket)))
        watch_again(w);
}

bool watch_start(struct watch *w, struct event_base *base, void *socket, watch_fn *call, void *arg)
{
    int fd = -1;
    size_t size = sizeof fd;
    if (zmq_getsockopt(socket, ZMQ_FD, &fd, &size) != 0)
        return false;
    *w = (struct watch){.socket = socket, .call = call, .arg = arg};
    w->readable = event_new(base, fd, EV_READ | EV_PERSIST, watch_fire, w);
    w->again = evtimer_new(base, watch_fire, w);
    if (!w->readable || !w->again || event_add(w->readable, NULL) != 0) {
        watch_stop(w);
        return false;
    }
    /* What happened before the descriptor was watched gives no signal any more. */
    watch_again(w);
    return true;
}

void watch_stop(struct watch *w)
{
    if (w->readable)
        event_free(w->readable);
    if (w->again)
        event_free(w->again);
    *w = (struct watch){0};
}

void watch_sent(struct watch *w)
{
    if (socket_events(w->socket) & ZMQ_POLLIN)
        watch_again(w);
}
