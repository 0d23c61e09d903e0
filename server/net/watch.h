/* SPDX-License-Identifier: Apache-2.0 */
/*
 * watch: a ZeroMQ socket in the event loop; the one place that knows how ZMQ_FD behaves.
 *
 * ZMQ_FD is edge-triggered: it says that something changed, not what, and says it once. So after
 * each wake-up ZMQ_EVENTS is read; a reader reads until nothing is left, or, when its budget ends
 * early, is called again by hand in the next round of the loop; and whoever sends on a socket that
 * is watched calls watch_sent(), for a send may swallow the signal.
 *
 * Whatever may look for commands of libzmq is called with RETRY(); see common/retry.h.
 */
#ifndef SERVER_NET_WATCH_H
#define SERVER_NET_WATCH_H

#include <stdbool.h>
#include "server/net/loop.h"

struct event;

/* A reader reads until EAGAIN and returns false, or returns true to be called again. */
typedef bool watch_fn(void *arg);

struct watch {
    void *socket; /* borrowed; NULL: not started */
    watch_fn *call;
    void *arg;
    struct event *readable; /* on ZMQ_FD */
    struct loop *loop;      /* borrowed */
    struct deferral again;  /* called by hand in the next round */
};

bool watch_start(struct watch *w, struct loop *loop, void *socket, watch_fn *call, void *arg);
void watch_stop(struct watch *w); /* before the socket is closed; twice is harmless */
void watch_sent(struct watch *w);
void watch_again(struct watch *w); /* calls, as if the reader had returned true */

int socket_events(void *socket); /* ZMQ_EVENTS; 0 if the socket is ending */

#endif
