/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ports: which port the next lane is bound to, and which one a socket has.
 *
 * The free ports of the range stand in a queue: the one that was freed longest ago is taken first,
 * and none within PORTS_QUARANTINE_NS of its freeing, so that a peer of the old lane, slow to
 * notice, does not knock at the new one. The queue knows no sockets.
 */
#ifndef SERVER_NET_PORTS_H
#define SERVER_NET_PORTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PORTS_QUARANTINE_NS UINT64_C(100000000)

struct port_free {
    uint64_t since_ns; /* monotonic; 0: never used */
    uint16_t port;
};

struct ports {
    struct port_free *queue; /* a ring */
    size_t size;             /* ports in the range; 0: any free port will do */
    size_t head;
    size_t count;
};

bool ports_init(struct ports *p, uint16_t first, uint16_t last); /* false: no memory */
void ports_free(struct ports *p);
/* 0: every port is in use or in quarantine. */
uint16_t ports_take(struct ports *p, uint64_t now_ns);
void ports_give(struct ports *p, uint16_t port, uint64_t now_ns);

/* The TCP port that a descriptor is bound to, or was accepted at; 0: none. */
uint16_t ports_bound(int fd);

#endif
