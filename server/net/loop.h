/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop: the event loop, cut into ticks.
 *
 * Knows libevent, the clock (it is the only reader of it in the server), timers and how to be
 * woken. Knows nothing of tasks, connections or workers.
 *
 * A tick is: wait for events; the first callback that calls loop_enter() begins it, with the time
 * of that moment; every other callback of the same round belongs to it; then it ends. So whatever
 * was there at once is answered at once. An idle loop sleeps: there is no periodic wake-up.
 *
 * One thread, but for loop_wake() and loop_post().
 */
#ifndef SERVER_NET_LOOP_H
#define SERVER_NET_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include "common/clock.h"
#include "common/heap.h"
#include "common/list.h"

struct event_base;
struct loop;

typedef void loop_fn(void *arg);

/* Called by loop_enter() and at the end of a round in which it was called. */
struct loop_hooks {
    void (*begin)(void *arg, struct now now);
    void (*end)(void *arg);
};

/*
 * A deadline on the monotonic clock. Owned by whoever embeds it; all zero is unset. The server has
 * no other timers: those of libevent would not make loop_fd() readable.
 */
struct loop_timer {
    struct heap_node node;
    loop_fn *fn; /* called within a tick, the timer already cleared */
    void *arg;
};

/*
 * Something to call at the start of the next round, or, if it is postponed, of the first one in
 * which it is its turn. Owned by whoever embeds it; see deferral_init().
 */
struct deferral {
    struct list node;
    loop_fn *fn;
    void *arg;
};

/* What another thread wants called on this one. The loop's from loop_post() until it is called. */
struct post {
    struct list node;
    loop_fn *fn;
    void *arg;
};

struct loop *loop_new(void);       /* NULL: no memory or no descriptors, errno says */
void loop_free(struct loop *loop); /* nothing is posted any more */
void loop_hook(struct loop *loop, const struct loop_hooks *hooks, void *arg);
struct event_base *loop_base(struct loop *loop);
/* The tick's time; outside of ticks the clock's. Begins none. */
struct now loop_now(const struct loop *loop);

/* Begins the tick if no callback of this round has; gives its time. */
struct now loop_enter(struct loop *loop);
/* One round: waits for events unless `wait` is false or something is deferred, then ends the tick.
 */
void loop_turn(struct loop *loop, bool wait);
/*
 * A descriptor that becomes readable when a turn is due, for somebody else's loop: then call
 * loop_turn(loop, false). Owned by the loop. -1: the system does not tell.
 */
int loop_fd(struct loop *loop);

/* Sets or moves; false: no memory, the timer is cleared. */
bool loop_timer_set(struct loop *loop, struct loop_timer *timer, uint64_t at_ns);
void loop_timer_clear(struct loop *loop, struct loop_timer *timer);

void deferral_init(struct deferral *deferral, loop_fn *fn, void *arg);
void loop_defer(
    struct loop *loop, struct deferral *deferral); /* nothing if it is deferred already */
/*
 * The same for what others should not have to wait for: one of them is called in each round, before
 * what has happened meanwhile is looked at. They begin no tick by themselves.
 */
void loop_postpone(struct loop *loop, struct deferral *deferral);
void loop_undefer(struct deferral *deferral); /* deferred or postponed */

/* Makes loop_turn() return. Any thread, and signal handlers. */
void loop_wake(struct loop *loop);
/* Has it called in a tick on the loop's thread, in order. Any thread. */
void loop_post(struct loop *loop, struct post *post);
/* Calls what is posted by now, which a turn may not come to. */
void loop_run_posts(struct loop *loop);

#endif
