/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A task that waits behind a slow one is asked back when a slot is idle that could run it. The
 * worker decides: STARTED, RETURNED and DONE are all valid answers. Such a WITHDRAW has an idle
 * slot reserved (counted in its group) while it is on its way. What was put ahead of a slot
 * although its queue is not that fast is asked back without one, so that the next slot that falls
 * idle finds it in its place in the queue. A task is asked back once at a time.
 */
#include <assert.h>
#include "server/core/verbs.h"

static bool withdrawable(const struct task *t)
{
    assert(t->state == TASK_LEASED);
    return !t->started && !t->asked_back && !t->cancelling && !t->alone && !task_target(t).data;
}

/* A group with an idle slot that nothing is reserved for, and that serves the queue. */
static struct group *withdraw_for(const struct queue *q)
{
    list_foreach(it, next, &q->links)
    {
        struct group *g = container_of(it, struct link, in_queue)->group;
        assert(g->number > 0);
        if (g->idle_slots > g->reserved)
            return g;
    }
    return NULL;
}

/* g: NULL, if no slot is reserved for it. */
static void withdraw(struct core *c, struct worker *w, struct task *t, struct group *g)
{
    assert(t->worker == w && !t->asked_back);
    t->asked_back = true;
    c->stats.withdrawn++;
    if (g) {
        assert(g->idle_slots > g->reserved);
        t->reserved_by = g->number;
        g->reserved++;
    }
    out_lane_task(c, w, LANE_WITHDRAW, t);
}

/* From the end: what was handed over last waits longest. The first ones are running. */
static void withdraw_from(struct core *c, struct worker *w)
{
    uint32_t running = worker_running(w);
    uint32_t behind = w->outstanding_count > running ? w->outstanding_count - running : 0;
    struct list *it = w->outstanding.prev;
    assert(w->state == WORKER_READY);
    for (; behind > 0; behind--, it = it->prev) {
        struct task *t = container_of(it, struct task, node);
        bool overdue = t->estimate_ns > FILL_NS && w->progress_ns + OVERDUE_NS <= c->now.mono_ns;
        struct group *g = withdrawable(t) ? withdraw_for(t->queue) : NULL;
        if (g || (overdue && withdrawable(t)))
            withdraw(c, w, t, g);
    }
}

static bool slots_are_idle(const struct core *c)
{
    for (size_t i = 0; i < c->group_count; i++) {
        const struct group *g = c->groups[i];
        assert(!g || g->number == i + 1);
        if (g && g->idle_slots > g->reserved)
            return true;
    }
    return false;
}

uint64_t withdraw_run(struct core *c)
{
    if (list_empty(&c->deep))
        return NEVER;
    uint64_t patience = slots_are_idle(c) ? STUCK_NS : OVERDUE_NS, wake = NEVER;
    list_foreach(it, next, &c->deep)
    {
        struct worker *w = container_of(it, struct worker, deep_node);
        assert(w->state == WORKER_READY);
        if (w->progress_ns + patience > c->now.mono_ns)
            return earlier(wake, w->progress_ns + patience);
        withdraw_from(c, w);
        if (w->progress_ns + OVERDUE_NS > c->now.mono_ns)
            wake = earlier(wake, w->progress_ns + OVERDUE_NS);
    }
    return wake;
}
