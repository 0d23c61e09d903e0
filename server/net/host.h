/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host: the core's place in the world.
 *
 * Knows the loop, the core, the worker plane and the store, and carries what one says to the
 * others: events become calls of the core within a tick; at its end the actions go to the store
 * (one batch), the lanes (one message each) and the connections (one write each). Decides nothing,
 * and does not know what a connection is: those actions go to the two receivers of host_events.
 *
 * One thread, that of the loop.
 */
#ifndef SERVER_NET_HOST_H
#define SERVER_NET_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "server/core/core.h"
#include "server/net/loop.h"
#include "server/net/plane.h"
#include "server/store/store.h"

struct host;

struct host_config {
    struct core_config core; /* `store` and `seed` are filled in here */
    const struct queue_setting *queues;
    size_t queue_count;
    const struct store_ops *store;
    struct store_config store_config;
    struct plane_config plane;
};

/*
 * What the core has to say to others. Called at the end of a tick; all is borrowed until return,
 * and the core must not be called from here: see loop_defer().
 */
struct host_events {
    void (*self)(void *arg, const struct conn_action *action); /* of CONN_SELF */
    void (*clients)(
        void *arg, const struct conn_action *actions, size_t count); /* of one connection */
    void (*notice)(void *arg, const struct notice *notice);
    void (*pause)(void *arg, bool paused); /* core: do not read clients; each tick */
    void (*flush)(void *arg);              /* the last call of each tick */
};

/* Becomes the hook of the loop. NULL: *error is a text for people that the caller frees. */
struct host *host_new(struct loop *loop, const struct host_config *config,
    const struct host_events *events, void *arg, char **error);
void host_free(struct host *host); /* waits for the store to settle what it was given */

/* Begins the tick, if need be, and gives the core for it. */
struct core *host_core(struct host *host);
/*
 * A connection of the core's has ended. The core hears of it in the next round: many end while its
 * actions are carried out, by what is written to them.
 */
void host_conn_closed(struct host *host, uint64_t conn);
bool host_set_token(struct host *host, const char *token); /* as plane_set_token() */
/* To look at, whether in a tick or not. */
const struct core_stats *host_stats(struct host *host);
/* As core_queue_next(). */
bool host_queue_next(
    const struct host *host, const struct queue **at, struct core_queue_stats *stats);
const struct plane *host_plane(const struct host *host);
struct store_usage host_store_usage(const struct host *host);
bool host_store_down(const struct host *host);
uint64_t host_late_ticks(const struct host *host);

#endif
