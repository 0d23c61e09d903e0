/* SPDX-License-Identifier: Apache-2.0 */
/* Every invariant that can be checked by walking; for the simulation and the unit tests. */
#undef NDEBUG /* whoever calls core_check() wants it, in every build */
#include <assert.h>
#include "common/name.h"
#include "server/core/verbs.h"

#define CHECK assert

static size_t list_length(const struct list *head)
{
    size_t count = 0;
    for (const struct list *it = head->next; it != head; it = it->next, count++)
        CHECK(it->next->prev == it);
    return count;
}

static void check_heap(const struct heap *heap)
{
    for (size_t i = 0; i < heap->count; i++) {
        CHECK(heap->nodes[i]->place == i + 1);
        CHECK(i == 0 || heap->nodes[(i - 1) / 2]->key <= heap->nodes[i]->key);
    }
}

/* ---- tasks ---- */

static void check_state(const struct core *c, const struct task *t)
{
    CHECK(!t->recovering || (!task_ended(t) && t->state != TASK_LEASED));
    switch ((enum task_state)t->state) {
    case TASK_STORING:
        CHECK(t->operations > 0);
        break;
    case TASK_DELAYED:
    case TASK_READY:
        CHECK(!t->worker);
        break;
    case TASK_LEASED:
        CHECK(t->worker && t->worker->state != WORKER_OVER && t->lease);
        CHECK(!t->fresh || ledger_gave_to(&c->ledger, t, t->lease));
        CHECK(!t->reserved_by ||
              (c->groups[t->reserved_by - 1] && c->groups[t->reserved_by - 1]->reserved));
        break;
    case TASK_MOVING:
    case TASK_FINISHING:
        CHECK(!t->queue->bypass && (t->operations || t->refused));
        break;
    case TASK_FINISHED:
        CHECK(!list_empty(&t->node) || t->released);
        break;
    default:
        CHECK(t->state == TASK_HELD);
        break;
    }
}

static void check_followers(const struct task *t)
{
    for (const struct follower *f = t->followers; f; f = f->next) {
        CHECK(!f->absent && f->task == t);
        CHECK(t->state != TASK_FINISHED || f->conn);
    }
}

/* Those for a worker by name that wait in memory; those that queues count. */
static bool is_targeted(const struct task *t)
{
    return task_target(t).data && !task_ended(t) && t->state != TASK_LEASED;
}

static uint64_t targeted_in_memory(const struct core *c)
{
    uint64_t count = 0;
    for (const struct queue *q = c->first_queue; q; q = q->next) {
        CHECK(q->targeted <= q->targeted_here);
        count += q->targeted_here;
    }
    return count;
}

/* Takes from the tasks that there are in each state those that the queue counts. */
static void check_counts(const struct queue *q, int64_t counts[TASK_STATE_COUNT])
{
    for (unsigned state = 0; state < TASK_GONE; state++)
        counts[state] -= q->counts[state];
}

static void check_tasks(const struct core *c)
{
    uint64_t bypass = 0, bytes = 0, flight = 0, reserved = 0, targeted = 0, unstored = 0,
             refused = 0;
    int64_t counts[TASK_STATE_COUNT] = {0};
    uint32_t found = 0, slot = 0;
    for (const struct task *t; (t = ledger_next(&c->ledger, &slot));) {
        found++;
        CHECK(ledger_find(&c->ledger, t->record.id) == t);
        counts[t->state]++;
        if (t->queue->bypass && !task_ended(t))
            bypass += t->record.payload.size;
        if (t->unstored && !task_ended(t))
            refused += t->record.payload.size;
        bytes += t->record.payload.size;
        flight += t->in_flight && t->ahead ? t->record.payload.size : 0;
        reserved += t->reserved_by != 0;
        targeted += is_targeted(t);
        unstored += task_ended(t) && (t->operations || t->refused) ? task_result(t).size : 0;
        check_state(c, t);
        check_followers(t);
    }
    CHECK(found == c->ledger.by_id.count);
    for (size_t i = 0; i < c->group_count; i++)
        reserved -= c->groups[i] ? c->groups[i]->reserved : 0;
    CHECK(bypass == c->bypass_bytes && bytes == c->stats.ledger_bytes &&
          unstored == c->unsettled_results);
    CHECK(refused == c->unstored_bytes);
    CHECK(flight == c->flight_bytes && reserved == 0 && targeted == targeted_in_memory(c));
    for (const struct queue *q = c->first_queue; q; q = q->next)
        check_counts(q, counts);
    check_counts(&c->nowhere, counts);
    for (unsigned state = 0; state < TASK_GONE; state++)
        CHECK(counts[state] == 0);
}

/* ---- queues ---- */

static uint64_t check_fifo(const struct queue *q, uint64_t *bytes)
{
    uint64_t count = 0;
    for (unsigned rank = 0; rank < PRIORITIES; rank++) {
        uint64_t before = 0;
        CHECK(list_empty(&q->fifo[rank]) == !(q->filled & 1u << rank));
        for (const struct list *it = q->fifo[rank].next; it != &q->fifo[rank]; it = it->next) {
            const struct task *t = container_of(it, struct task, node);
            CHECK(t->state == TASK_READY && t->queue == q && task_key(t).rank == rank);
            CHECK(t->record.id > before);
            before = t->record.id;
            *bytes += t->record.payload.size;
            count++;
        }
    }
    return count;
}

static void check_queue(const struct queue *q)
{
    uint64_t bytes = 0, ready = check_fifo(q, &bytes) + q->requeued.count;
    for (size_t i = 0; i < q->requeued.count; i++)
        bytes += container_of(q->requeued.nodes[i], struct task, place)->record.payload.size;
    CHECK(bytes == q->bytes);
    CHECK(ready + q->suspects.count + q->targeted == q->counts[TASK_READY]);
    CHECK(q->active == (queue_head(q) != NULL));
    CHECK(q->suspected == (q->suspects.count && !queue_halted(q)));
    CHECK(!q->bypass || !q->backlog);
    check_heap(&q->requeued);
    check_heap(&q->suspects);
    for (const struct list *it = q->links.next; it != &q->links; it = it->next) {
        const struct link *link = container_of(it, struct link, in_queue);
        CHECK(q->active == !list_empty(&link->in_ring));
        CHECK(q->suspected == !list_empty(&link->in_suspected));
    }
}

/* ---- workers ---- */

static void check_worker(const struct core *c, const struct worker *w)
{
    uint64_t expected = 0;
    uint64_t bytes[CREDITS] = {0};
    uint32_t count = 0;
    for (const struct list *it = w->outstanding.next; it != &w->outstanding; it = it->next) {
        const struct task *t = container_of(it, struct task, node);
        CHECK(t->state == TASK_LEASED && t->worker == w);
        bytes[task_credit(c, t)] += t->in_flight ? t->record.payload.size : 0;
        expected += t->estimate_ns;
        count++;
    }
    CHECK(count == w->outstanding_count && expected == w->expected_ns);
    for (int kind = 0; kind < CREDITS; kind++) {
        const struct credit *credit = &w->credits[kind];
        CHECK(bytes[kind] + credit->ghosts == credit->bytes);
        CHECK(w->ghosts.count || !credit->ghosts);
    }
    CHECK(bytes[CREDIT_SMALL] <= c->config.lane_bytes); /* of what is large: one for each slot */
    CHECK(w->id && worker_find(c, w->id) == w && heap_holds(&w->timer));
    CHECK(!w->alone || count <= 1);
    CHECK(w->parting.count <= count + w->ghosts.count + w->claims.count);
    uint64_t sequence = 0;
    for (const struct list *it = w->settling.next; it != &w->settling; it = it->next) {
        const struct task *t = container_of(it, struct task, node);
        CHECK(t->worker == w && t->sequence > sequence && t->sequence <= w->received);
        sequence = t->sequence;
    }
    CHECK(!sequence || w->acked < sequence);
}

static void check_group(const struct group *g)
{
    uint64_t idle = 0;
    for (unsigned room = 0; room < ROOM_COUNT; room++) {
        for (const struct list *it = g->rooms[room].next; it != &g->rooms[room]; it = it->next) {
            const struct worker *w = container_of(it, struct worker, in_room);
            CHECK(w->group == g && w->room == room);
            idle += w->idle;
        }
    }
    CHECK(idle == g->idle_slots);
    CHECK(g->members || g->reserved); /* else it is freed */
    CHECK(!g->alone || (g->alone->group == g && g->alone->state == WORKER_READY));
    CHECK(list_length(&g->ring) <= list_length(&g->links));
}

/* ---- at rest ---- */

/*
 * At the end of a tick no task that may run waits beside an idle slot that may run it. This goes by
 * what tasks and workers are, not by the lists that the scheduler keeps of them. These do wait:
 *   - all tasks of a queue that is paused or stopped;
 *   - those behind the first of a queue, which keeps its order: also if that one is too large for
 *     what the lanes of the idle slots have left;
 *   - one that came back from a worker behind the edge: a fetch brings what lies before it;
 *   - those for one worker by name behind the most urgent one for it, if that is too large;
 *   - a suspect, for a worker that has nothing; one is emptied for it meanwhile;
 *   - all, for a worker that is being recorded, leaves, runs a suspect, or is emptied for one.
 */
static bool may_take(const struct worker *w)
{
    return w->state == WORKER_READY && !w->recording && !w->alone && worker_load(w) < w->slots;
}

static bool slot_is_idle(const struct worker *w)
{
    return may_take(w) && w->group->alone != w;
}

static bool worker_serves(const struct worker *w, struct slice name)
{
    bool serves = false;
    for (size_t i = 0; i < w->group->pattern_count; i++) {
        struct slice p = w->group->patterns[i];
        if (p.data[0] == '!' && slice_equal(slice_of(p.data + 1, p.size - 1), name))
            return false;
        serves = serves || name_matches(p, name);
    }
    return serves;
}

static bool is_for(const struct task *t, const struct worker *w)
{
    return (!task_target(t).data || slice_equal(task_target(t), w->name)) &&
           worker_serves(w, t->queue->name);
}

static const struct worker *worker_at(const struct list *it)
{
    return container_of(it, const struct worker, in_core);
}

static void check_first(const struct core *c, const struct task *t)
{
    for (const struct list *it = c->workers.next; it != &c->workers; it = it->next)
        CHECK(!slot_is_idle(worker_at(it)) || !is_for(t, worker_at(it)) ||
              !sched_fits(c, worker_at(it), t));
}

static void check_suspect(const struct core *c, const struct task *t)
{
    for (const struct list *it = c->workers.next; it != &c->workers; it = it->next) {
        const struct worker *w = worker_at(it);
        if (may_take(w) && is_for(t, w))
            CHECK(worker_load(w) && w->group->alone);
    }
}

/* Also the most urgent one of all queues that it serves does not fit. */
static void check_named(const struct core *c, const struct worker *w)
{
    const struct task *first = NULL;
    for (const struct list *it = w->named->targets.next; it != &w->named->targets; it = it->next) {
        const struct target *target = container_of(it, struct target, in_named);
        if (!target->ready.count || queue_halted(target->queue) ||
            !worker_serves(w, target->queue->name))
            continue;
        const struct task *t = container_of(heap_top(&target->ready), struct task, place);
        if (!first || key_before(task_key(t), task_key(first)))
            first = t;
    }
    CHECK(!first || !slot_is_idle(w) || !sched_fits(c, w, first));
}

static void check_ready(const struct core *c, const struct task *t)
{
    const struct queue *q = t->queue;
    if (t->record.suspect) {
        if (!queue_halted(q))
            check_suspect(c, t);
        return;
    }
    if (task_target(t).data) { /* check_named() */
        CHECK(t->rare->awaits->queue == q);
        CHECK(slice_equal(t->rare->awaits->named->name, t->rare->target));
        return;
    }
    const struct task *first = queue_head(q);
    if (first == t || queue_halted(q))
        return;
    if (window_open(q, task_key(t)))
        CHECK(first && !key_before(task_key(t), task_key(first)));
    else
        CHECK(first || q->fetching || q->fetch_refused || c->store_down);
}

/* Whoever is emptied is emptied for somebody. */
static void check_alone(const struct group *g)
{
    for (const struct list *it = g->links.next; g->alone && it != &g->links; it = it->next) {
        const struct queue *q = container_of(it, struct link, in_group)->queue;
        for (size_t i = 0; !queue_halted(q) && i < q->suspects.count; i++)
            if (is_for(container_of(q->suspects.nodes[i], struct task, place), g->alone))
                return;
    }
    CHECK(!g->alone);
}

/* What waits behind a slow one is asked back for each idle slot. */
static void check_withdrawn(const struct core *c, const struct worker *w)
{
    uint32_t place = 0;
    CHECK((w->state == WORKER_READY && worker_load(w) > w->slots) == !list_empty(&w->deep_node));
    if (list_empty(&w->deep_node) || w->progress_ns + STUCK_NS > c->now.mono_ns)
        return;
    for (const struct list *it = w->outstanding.next; it != &w->outstanding; it = it->next) {
        const struct task *t = container_of(it, struct task, node);
        bool runs = place++ < worker_running(w) || t->started || t->alone || t->cancelling;
        if (runs || t->asked_back || task_target(t).data)
            continue;
        for (const struct list *at = t->queue->links.next; at != &t->queue->links; at = at->next) {
            const struct group *g = container_of(at, struct link, in_queue)->group;
            CHECK(g->idle_slots <= g->reserved);
        }
    }
}

/* Behind an edge, with little before it or nothing that may run, a fetch is on its way. */
static void check_window(const struct core *c, const struct queue *q)
{
    uint32_t count = q->counts[TASK_READY] - q->targeted - (uint32_t)q->suspects.count;
    bool low = count <= c->config.window_tasks / 2 && q->bytes <= c->config.window_bytes / 2;
    bool waits = low || (!queue_halted(q) && !queue_head(q));
    CHECK(!q->backlog || q->fetching || q->fetch_refused || c->store_down || !waits);
}

static void check_rest(const struct core *c)
{
    CHECK(list_empty(&c->dirty_groups));
    uint32_t slot = 0;
    for (const struct task *t; (t = ledger_next(&c->ledger, &slot));)
        if (t->state == TASK_READY)
            check_ready(c, t);
    for (const struct queue *q = c->first_queue; q; q = q->next) {
        check_window(c, q);
        if (queue_head(q))
            check_first(c, queue_head(q));
    }
    for (const struct list *it = c->workers.next; it != &c->workers; it = it->next) {
        check_named(c, worker_at(it));
        check_withdrawn(c, worker_at(it));
    }
    for (size_t i = 0; i < c->group_count; i++)
        if (c->groups[i])
            check_alone(c->groups[i]);
}

void core_check(const struct core *c)
{
    check_tasks(c);
    check_heap(&c->by_mono);
    check_heap(&c->by_wall);
    check_heap(&c->kept);
    check_heap(&c->worker_timers);
    for (const struct queue *q = c->first_queue; q; q = q->next)
        check_queue(q);
    for (const struct list *it = c->workers.next; it != &c->workers; it = it->next)
        check_worker(c, container_of(it, struct worker, in_core));
    for (size_t i = 0; i < c->group_count; i++)
        if (c->groups[i])
            check_group(c->groups[i]);
    CHECK(list_length(&c->workers) == c->worker_count);
    if (!c->ticking && !c->failed)
        check_rest(c);
}
