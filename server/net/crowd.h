/* SPDX-License-Identifier: Apache-2.0 */
/*
 * crowd: the connections of a ZeroMQ socket that anybody may open, and how many of them there are.
 *
 * libzmq accepts without a limit, and counts only whole messages: strangers could take all
 * descriptors (plane_descriptors() says how many are theirs), and one that sends parts without end
 * all memory. What the monitor says of accepted and ended connections is kept here; those that are
 * too many, too old or too talkative are shut down, which libzmq sees as their end. By the time a
 * descriptor is shut it may be another's: its port or name is compared before, and should it be the
 * wrong one after all, that one comes again.
 *
 * The loop's thread.
 */
#ifndef SERVER_NET_CROWD_H
#define SERVER_NET_CROWD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "server/net/loop.h"

/* Places that several crowds share, for all but the first of each: that one is the worker's. */
struct crowd_places {
    size_t taken, most;
};

struct crowd_limits {
    size_t most;                 /* connections; 0: the crowd is not watched */
    struct crowd_places *places; /* borrowed; NULL: it shares none */
    bool keep_newest;            /* above it the oldest goes; else whoever comes */
    uint64_t max_bytes;          /* received by one connection; 0: any */
    uint64_t all_bytes;          /* by all that are there, if max_bytes is set; 0: any */
    unsigned max_ms;             /* of its life; 0: any */
};

struct visitor {
    int fd; /* libzmq's */
    uint64_t since_ns;
};

struct crowd {
    struct loop *loop; /* borrowed: its time */
    struct crowd_limits limits;
    uint16_t port;            /* of the socket */
    const char *unix_name;    /* borrowed; "": none */
    struct visitor *visitors; /* the oldest first */
    size_t count, capacity;
    struct loop_timer look; /* set while there are visitors and something to be looked at */
    unsigned heavy;         /* one was shut for its bytes: how often memory is yet to go back */
    uint64_t give_back_ns;  /* when that memory may go back to the kernel */
    uint64_t *shut;         /* a counter that is somebody else's */
};

void crowd_start(struct crowd *c, struct loop *loop, const struct crowd_limits *limits,
    uint16_t port, const char *unix_name, uint64_t *shut);
void crowd_stop(struct crowd *c); /* twice is harmless */
void crowd_came(struct crowd *c, int fd);
void crowd_left(struct crowd *c, int fd);

#endif
