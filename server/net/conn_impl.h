/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of conn, shared by listen.c (coming), conn.c (reading, going) and conn_output.c. */
#ifndef SERVER_NET_CONN_IMPL_H
#define SERVER_NET_CONN_IMPL_H

#include "common/map.h"
#include "server/net/conn.h"
#include "server/net/inbuf.h"

struct conns {
    struct loop *loop;
    struct conns_config config;
    struct conn_stats stats;
    struct idmap by_id; /* those that are not freed */
    uint64_t last_id;
    bool paused;
    size_t busy;              /* connections with bytes in `out` */
    struct list paused_conns; /* those that had something to say meanwhile */
    struct list dirty;        /* written to in this tick */
    struct list later;        /* written to, in no hurry */
    struct loop_timer later_timer;
    struct list dead;   /* freed at the end of the tick */
    struct list silent; /* who has not greeted, the oldest first */
    struct list listeners;
    struct inbuf input; /* what was left over, one read, room for a payload to go on in */
};

/* A descriptor that was accepted from `peer` becomes a connection; closed if there is no memory. */
void conn_accept(struct conns *set, int fd, const struct conn_ops *ops, void *arg,
    const struct sockaddr_storage *peer);
uint64_t conn_after_ms(struct conn *c, uint64_t ms); /* monotonic ns */
void conn_read_stop(struct conn *c);
void conn_read_start(struct conn *c);
void conn_write_stop(struct conn *c);
void conn_flushed(struct conn *c); /* CLOSING: all is sent */
void conn_timed_out(void *conn);   /* a loop_fn: it ends, unless its socket drains */
void conn_free(struct conn *c);
void conns_hurry(void *set);                       /* a loop_fn: what could wait has waited */
void conn_writable(int fd, short what, void *arg); /* of libevent */

#endif
