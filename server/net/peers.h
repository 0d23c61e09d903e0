/* SPDX-License-Identifier: Apache-2.0 */
/*
 * peers: who asked to join, and how to reach it on the ROUTER.
 *
 * A peer is a JOIN that waits for its answer, or one that was welcomed and whose lane lives. A
 * worker that asks again with the same nonce, from the same or from a fresh socket, is the same
 * peer and gets the same answer. Strangers cost a bounded amount: the oldest that still waits goes
 * when there are too many.
 */
#ifndef SERVER_NET_PEERS_H
#define SERVER_NET_PEERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/buf.h"
#include "common/list.h"
#include "common/map.h"
#include "common/slice.h"
#include "server/core/core.h"

#define NONCE_SIZE 16u
#define ROUTE_SIZE 255u

struct peer {
    uint64_t handle;
    uint8_t nonce[NONCE_SIZE]; /* key in the map */
    uint8_t instance[INSTANCE_SIZE];
    uint8_t route[ROUTE_SIZE]; /* ROUTER's name of the connection that asked last */
    uint8_t route_size;
    struct buf welcome; /* encoded; empty while it waits */
    struct list node;   /* in `waiting`, or alone */
};

struct peers {
    struct idmap by_handle;
    struct strmap by_nonce;
    struct list waiting; /* the oldest first */
    size_t waiting_count;
    size_t waiting_most;
    uint64_t last_handle;
};

void peers_init(struct peers *p, size_t waiting_most, uint64_t seed);
void peers_free(struct peers *p);
struct peer *peers_get(const struct peers *p, uint64_t handle); /* NULL: gone */
struct peer *peers_by_nonce(const struct peers *p, struct slice nonce);
/* A new one that waits; nonce and instance have their right size. NULL: no memory. */
struct peer *peers_add(struct peers *p, struct slice nonce, struct slice instance);
void peer_welcomed(struct peers *p, struct peer *peer); /* waits no more */
void peer_drop(struct peers *p, struct peer *peer);
void peer_route(struct peer *peer, struct slice route); /* 1 to ROUTE_SIZE bytes */

#endif
