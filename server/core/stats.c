/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is counted, and what is summed up when somebody looks, and how long a lost worker's tasks
 * were with nobody: no decision depends on any of it.
 */
#include <assert.h>
#include "server/core/verbs.h"

/* ---- recovery: how long a lost worker's tasks were with nobody ---- */

void task_lost(struct task *t, uint64_t since_ns)
{
    assert(!task_ended(t) && since_ns > 0);
    t->recovering = true;
    t->lost_ns = since_ns;
}

void task_ran(struct task *t, uint64_t run_ns)
{
    assert(t->state != TASK_GONE);
    t->recovering = false;
    t->run_ns = run_ns;
}

void stats_recovered(struct core *c, struct task *t)
{
    struct queue *q = t->queue;
    assert(t->recovering && t->lost_ns <= c->now.mono_ns);
    uint64_t took_ns = c->now.mono_ns - t->lost_ns;
    q->recovered++;
    q->recovery_ns += took_ns;
    if (q->recovery_max_ns < took_ns)
        q->recovery_max_ns = took_ns;
    task_ran(t, 0);
}

/* ---- one queue ---- */

static uint64_t waiting(const struct queue *q)
{
    assert(q->name.size > 0);
    return q->counts[TASK_READY] + q->counts[TASK_HELD] + q->stored_ready;
}

static uint64_t delayed(const struct queue *q)
{
    assert(q->name.size > 0);
    return q->counts[TASK_DELAYED] + q->counts[TASK_MOVING] + q->stored_delayed;
}

static uint64_t age_ms(const struct core *c, const struct task *t)
{
    assert(t->state == TASK_READY);
    return t->record.submitted_ms < c->now.wall_ms ? c->now.wall_ms - t->record.submitted_ms : 0;
}

static uint64_t top_age_ms(const struct core *c, const struct heap *heap)
{
    const struct heap_node *top = heap_top(heap);
    assert(!top == !heap->count);
    return top ? age_ms(c, container_of(top, struct task, place)) : 0;
}

/* Of the most urgent ones, whatever they wait for: that their queue goes on, a worker by name, ...
 */
static uint64_t oldest_ms(const struct core *c, const struct queue *q)
{
    uint64_t oldest = later(top_age_ms(c, &q->requeued), top_age_ms(c, &q->suspects));
    assert(q->name.size > 0);
    if (q->filled) {
        const struct list *first = q->fifo[__builtin_ctz(q->filled)].next;
        oldest = later(oldest, age_ms(c, container_of(first, struct task, node)));
    }
    list_foreach(it, next, &q->targets)
    {
        const struct target *target = container_of(it, struct target, in_queue);
        oldest = later(oldest, top_age_ms(c, &target->ready));
    }
    return oldest;
}

static void count_workers(const struct queue *q, uint64_t *workers, uint64_t *slots)
{
    assert(workers && slots);
    *workers = *slots = 0;
    list_foreach(it, next, &q->links)
    {
        const struct group *g = container_of(it, struct link, in_queue)->group;
        *workers += g->workers;
        *slots += g->slots;
    }
}

void queue_stats(const struct core *c, const struct queue *q, struct core_queue_stats *s)
{
    assert(q->name.size > 0);
    *s = (struct core_queue_stats){.name = q->name,
        .stored = !q->bypass,
        .ready = waiting(q),
        .delayed = delayed(q),
        .running = q->counts[TASK_LEASED],
        .dead = q->dead,
        .paused = q->paused,
        .oldest_ms = oldest_ms(c, q),
        .p95_us = q->service.p95_ns / 1000,
        .submitted = q->submitted,
        .done = q->finished,
        .attempts_failed = q->failed,
        .redelivered = q->redelivered,
        .recovered = q->recovered,
        .recovery_us = q->recovery_ns / 1000,
        .recovery_max_us = q->recovery_max_ns / 1000};
    count_workers(q, &s->workers, &s->slots);
}

bool core_queue_next(const struct core *c, const struct queue **at, struct core_queue_stats *stats)
{
    assert(c && stats);
    *at = *at ? (*at)->next : c->first_queue;
    if (*at)
        queue_stats(c, *at, stats);
    return *at != NULL;
}

/* ---- all ---- */

static bool is_served(const struct queue *q)
{
    uint64_t workers, slots;
    assert(q->name.size > 0);
    count_workers(q, &workers, &slots);
    return workers > 0;
}

const struct core_stats *core_stats(struct core *c)
{
    struct core_stats *s = &c->stats;
    assert(c->worker_count <= UINT32_MAX);
    s->workers = c->worker_count;
    s->ledger = c->ledger.by_id.count;
    s->queues = c->queues.count;
    s->ready = s->backlog = s->delayed = s->running = s->dead = s->unserved = 0;
    for (const struct queue *q = c->first_queue; q; q = q->next) {
        assert(q->name.size > 0);
        s->ready += q->counts[TASK_READY] + q->counts[TASK_HELD];
        s->backlog += q->stored_ready;
        s->delayed += delayed(q);
        s->running += q->counts[TASK_LEASED];
        s->dead += q->dead;
        if (waiting(q) && !is_served(q))
            s->unserved += waiting(q);
    }
    return s;
}
