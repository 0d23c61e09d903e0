/* SPDX-License-Identifier: Apache-2.0 */
/*
 * link_impl: what the files of the link share. Private to worker/link*.c.
 *
 *   link.c         the loop
 *   link_act.c     the session's actions, the runner's reports
 *   link_net.c     sockets and monitors
 *   link_read.c    frames that come in
 */
#ifndef WORKER_LINK_IMPL_H
#define WORKER_LINK_IMPL_H

#include <stdatomic.h>
#include "worker/address.h"
#include "worker/link.h"

#define LINK_MONITORS (1u << SOURCE_LANE_MONITOR | 1u << SOURCE_ANSWERS_MONITOR)
#define LINK_SESSION  (LINK_MONITORS | 1u << SOURCE_LANE)

struct revoked {
    uint64_t lease;
    bool given_back;
};

/* What poll() looks at, in this order; and bits of link.unread. */
enum link_source {
    SOURCE_REPORTS,
    SOURCE_STOPS,
    SOURCE_ROOM,
    SOURCE_LANE,
    SOURCE_JOIN,
    SOURCE_JOIN_MONITOR,
    SOURCE_LANE_MONITOR,
    SOURCE_ANSWERS_MONITOR,
    SOURCE_COUNT
};

struct link {
    const struct link_config *config;
    struct session *session;
    struct run *run;
    struct link_end *end;
    void *context;
    void *join;            /* DEALER; NULL: closed; so the others */
    void *join_monitor;    /* PAIR */
    void *lane;            /* PULL */
    void *lane_monitor;    /* PAIR */
    void *answers;         /* PUSH */
    void *answers_monitor; /* PAIR */
    struct now now;
    uint64_t wake_ns; /* when the session wants to be called next */
    bool over;        /* its last step is done */
    unsigned stops;   /* that were acted on */
    unsigned unread;  /* bit of each source that may have something: it is read until it has not */

    /* where the server is */
    char host[256];             /* as it was given */
    char address[ADDRESS_TEXT]; /* reached, numeric; "" at first */
    uint16_t port;
    uint64_t lane_port;
    size_t tries;         /* rotates through the addresses of a name */
    uint64_t contact_ns;  /* last sign of it */
    uint64_t complain_ns; /* when to say again that it cannot be reached */
    uint64_t complain_pause_ms;
    unsigned monitors;     /* made so far */
    unsigned greetings;    /* handshakes of the answers connection */
    bool lane_up;          /* its handshake succeeded */
    unsigned lanes_missed; /* lanes in a row that never came up */
    bool near;             /* lane and answers are Unix sockets */
    atomic_uint afloat;    /* large frames that are libzmq's: the kernel has not taken them */
    int room_fd;           /* rings when it has taken one; -1: none */
    bool told_ready;
    bool full;      /* the session has enough to send: the runner waits */
    size_t emitted; /* bytes that it holds back, as the runner knows */

    /* batches of one tick; memory is kept */
    const struct attempt **starts;
    size_t start_capacity;
    struct revoked *revoked; /* for the next tick */
    size_t revoked_count;
    size_t revoked_capacity;

    uint64_t memory_ns; /* when to look at the memory again */
    bool hung;          /* a handler that hangs was given up */
};

/* link_net.c */
bool link_open(struct link *l);
void link_close(struct link *l);
int link_dial_join(struct link *l); /* a fresh DEALER; 0, or a negative error */
int link_connect(struct link *l, const struct msg_welcome *m);
void link_disconnect(struct link *l);
void link_close_join(struct link *l);
/* The next event of a monitor; 0: none. */
uint16_t link_next_event(void *monitor);
void link_complain(struct link *l); /* when there was no contact for a while */

/* link_read.c */
void link_read(struct link *l); /* everything that is there */

/* link_act.c */
void link_take_reports(struct link *l);
void link_act(struct link *l, const struct session_actions *a);

#endif
