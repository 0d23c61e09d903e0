/* SPDX-License-Identifier: Apache-2.0 */
#include "server/net/peers.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

void peers_init(struct peers *p, size_t waiting_most, uint64_t seed)
{
    *p = (struct peers){.waiting_most = waiting_most, .by_nonce.seed = seed};
    list_init(&p->waiting);
}

void peers_free(struct peers *p)
{
    struct idmap_cell cell;
    for (size_t place = 0; idmap_next(&p->by_handle, &place, &cell);) {
        struct peer *peer = (struct peer *)(uintptr_t)cell.value;
        buf_free(&peer->welcome);
        free(peer);
    }
    idmap_free(&p->by_handle);
    strmap_free(&p->by_nonce);
}

struct peer *peers_get(const struct peers *p, uint64_t handle)
{
    return idmap_pointer(&p->by_handle, handle);
}

struct peer *peers_by_nonce(const struct peers *p, struct slice nonce)
{
    return strmap_get(&p->by_nonce, nonce);
}

static bool peers_index(struct peers *p, struct peer *peer)
{
    if (!idmap_put(&p->by_handle, peer->handle, (uintptr_t)peer))
        return false;
    if (strmap_put(&p->by_nonce, slice_of(peer->nonce, NONCE_SIZE), peer))
        return true;
    idmap_remove(&p->by_handle, peer->handle);
    return false;
}

struct peer *peers_add(struct peers *p, struct slice nonce, struct slice instance)
{
    assert(nonce.size == NONCE_SIZE && instance.size == INSTANCE_SIZE);
    if (p->waiting_count == p->waiting_most)
        peer_drop(p, container_of(list_first(&p->waiting), struct peer, node));
    struct peer *peer = calloc(1, sizeof *peer);
    if (!peer)
        return NULL;
    peer->handle = ++p->last_handle;
    memcpy(peer->nonce, nonce.data, NONCE_SIZE);
    memcpy(peer->instance, instance.data, INSTANCE_SIZE);
    if (!peers_index(p, peer)) {
        free(peer);
        return NULL;
    }
    list_push_back(&p->waiting, &peer->node);
    p->waiting_count++;
    return peer;
}

void peer_welcomed(struct peers *p, struct peer *peer)
{
    if (list_empty(&peer->node))
        return;
    list_remove(&peer->node);
    p->waiting_count--;
}

void peer_drop(struct peers *p, struct peer *peer)
{
    peer_welcomed(p, peer);
    idmap_remove(&p->by_handle, peer->handle);
    strmap_remove(&p->by_nonce, slice_of(peer->nonce, NONCE_SIZE));
    buf_free(&peer->welcome);
    free(peer);
}

void peer_route(struct peer *peer, struct slice route)
{
    assert(route.size >= 1 && route.size <= ROUTE_SIZE);
    memcpy(peer->route, route.data, route.size);
    peer->route_size = (uint8_t)route.size;
}
