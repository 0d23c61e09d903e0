/* SPDX-License-Identifier: Apache-2.0 */
/*
 * monitor: counts the strangers on a socket: connections that ended without being admitted.
 *
 * An unread monitor stalls libzmq's I/O thread after some 670 connects, so it is read in the loop
 * like any socket. Whether the admitted peer of a lane is there is not asked here (an event names
 * a descriptor, and those are reused); the lane's own socket knows (lane.c).
 */
#ifndef SERVER_NET_MONITOR_H
#define SERVER_NET_MONITOR_H

#include <stdint.h>
#include "server/net/crowd.h"
#include "server/net/watch.h"

struct monitor {
    void *socket; /* that is watched; borrowed; NULL: not started */
    void *pair;   /* where its events arrive */
    struct watch watch;
    const char *what;    /* for the log: "lane", "join" */
    uint64_t *strangers; /* a counter that is somebody else's */
    struct crowd crowd;  /* who is connected, if that is bounded: see monitor_bound() */
};

bool monitor_start(struct monitor *m, struct loop *loop, void *context, void *socket,
    const char *what, uint64_t *strangers);
/* No more connections than that to the port it is bound to; before events are read. */
void monitor_bound(
    struct monitor *m, const struct crowd_limits *limits, uint16_t port, const char *unix_name);
void monitor_stop(struct monitor *m); /* before the socket is closed; twice is harmless */
void monitor_read(struct monitor *m);

#endif
