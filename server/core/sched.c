/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who gets what. Only at the end of a tick, so that all its submissions and answers meet. First
 * what only one worker may run, then suspects, then idle slots, then prefetch. Only groups that
 * something happened to are visited.
 */
#include <assert.h>
#include "server/core/verbs.h"

#define FILL_QUEUES 64 /* queues in turn that have nothing to put ahead */
#define FILL_TRIES  4  /* workers looked at for one task to prefetch */

/*
 * A lane carries lane_bytes, or one task: of what is small, and of what is large beside it. But an
 * idle slot always takes what is large, for nothing there has to wait until that has come.
 */
bool sched_fits(const struct core *c, const struct worker *w, const struct task *t)
{
    enum credit_kind kind = task_credit(c, t);
    uint64_t bytes = w->credits[kind].bytes;
    assert(t->state == TASK_READY);
    return bytes == 0 || bytes + t->record.payload.size <= c->config.lane_bytes ||
           (kind == CREDIT_LARGE && w->idle > 0);
}

void sched_hand_over(struct core *c, struct worker *w, struct task *t)
{
    assert(w->state == WORKER_READY && !w->recording && !w->alone);
    if (w->quiet)
        worker_rouse(c, w);
    ledger_expect_after(&c->ledger, t->record.id);
    task_move(c, t, TASK_LEASED);
    t->lease = ledger_lease(&c->ledger, t);
    t->hand_overs = hand_overs_of(t->hand_overs + 1u);
    worker_give(c, w, t);
    timer_attempt(c, t);
    c->stats.dispatched++;
    out_lane_task(c, w, LANE_TASK, t)->task = t;
}

/* ---- suspects: alone on a worker, so that what they do harms nobody else ---- */

/* t: NULL for any. */
static bool suspect_may_run(const struct worker *w, const struct task *t)
{
    assert(!t || t->record.suspect);
    return !t || !task_target(t).data || slice_equal(task_target(t), w->name);
}

typedef struct worker *suspect_fn(const struct group *, const struct task *);

/* Who can run it now. */
static struct worker *suspect_empty(const struct group *g, const struct task *t)
{
    struct worker *w = g->alone;
    if (w && worker_load(w) == 0 && !w->recording && suspect_may_run(w, t))
        return w;
    list_foreach(it, next, &g->rooms[ROOM_EMPTY])
    {
        w = container_of(it, struct worker, in_room);
        assert(w->group == g);
        if (suspect_may_run(w, t))
            return w;
    }
    return NULL;
}

/*
 * Who can be emptied for it; NULL: its target is away, or all run suspects, and fall empty anyway.
 */
static struct worker *suspect_emptied(const struct group *g, const struct task *t)
{
    static const enum room order[] = {ROOM_IDLE, ROOM_FILLING, ROOM_NONE};
    assert(!g->alone || g->alone->group == g);
    if (g->alone && suspect_may_run(g->alone, t))
        return g->alone;
    for (unsigned i = 0; i < 3; i++) {
        list_foreach(it, next, &g->rooms[order[i]])
        {
            struct worker *w = container_of(it, struct worker, in_room);
            if (w->state == WORKER_READY && !w->recording && !w->alone && suspect_may_run(w, t))
                return w;
        }
    }
    return NULL;
}

/* From now on it gets nothing more; NULL: none is emptied any more. */
static void suspect_reserve(struct core *c, struct group *g, struct worker *w)
{
    struct worker *before = g->alone;
    assert(!w || w->group == g);
    if (w == before)
        return;
    g->alone = w;
    if (before)
        worker_room(c, before);
    if (w)
        worker_room(c, w);
}

/* The most urgent one of the queue that has such a worker, if it is more urgent than `best`. */
static struct task *suspect_of(
    const struct group *g, const struct queue *q, struct task *best, suspect_fn *find)
{
    assert(q->suspected && !queue_halted(q));
    for (size_t i = 0; i < q->suspects.count; i++) {
        struct task *t = container_of(q->suspects.nodes[i], struct task, place);
        assert(t->state == TASK_READY);
        bool sooner = !best || key_before(task_key(t), task_key(best));
        if (sooner && find(g, t))
            best = t;
        /* The first one comes before all others: only if its worker is away are they looked at. */
        if (i == 0 && (!sooner || best == t))
            break;
    }
    return best;
}

/* They may be many, and workers too: with none for any of them, none is looked at. */
static struct task *suspect_next(const struct group *g, suspect_fn *find)
{
    struct task *best = NULL;
    assert(g->number > 0);
    if (list_empty(&g->suspected) || !find(g, NULL))
        return NULL;
    list_foreach(it, next, &g->suspected) best =
        suspect_of(g, container_of(it, struct link, in_suspected)->queue, best, find);
    return best;
}

static void suspects_run(struct core *c, struct group *g)
{
    assert(g->number > 0);
    for (struct task *t; (t = suspect_next(g, suspect_empty));) {
        struct worker *w = suspect_empty(g, t);
        if (g->alone == w)
            suspect_reserve(c, g, NULL);
        sched_hand_over(c, w, t);
    }
}

/* No worker is empty for the most urgent one of the rest: one gets nothing more until it is. */
static void suspects_wait(struct core *c, struct group *g)
{
    const struct task *t = suspect_next(g, suspect_emptied);
    assert(!t || t->record.suspect);
    suspect_reserve(c, g, t ? suspect_emptied(g, t) : NULL);
}

/*
 * All groups run what they can before any of them empties a worker for the rest: of two that serve
 * a queue one would keep a slot free for what the other one has got. A slot that is no longer kept
 * may be what a task for that worker waited for.
 */
static void sched_suspects(struct core *c)
{
    bool any = false;
    for (struct list *it = c->dirty_groups.next; it != &c->dirty_groups; it = it->next) {
        struct group *g = container_of(it, struct group, dirty_node);
        if (list_empty(&g->suspected) && !g->alone)
            continue;
        any = true;
        suspects_run(c, g);
    }
    if (!any)
        return;
    for (struct list *it = c->dirty_groups.next; it != &c->dirty_groups; it = it->next) {
        struct group *g = container_of(it, struct group, dirty_node);
        assert(!g->alone || g->alone->group == g);
        suspects_wait(c, g);
    }
    target_dispatch(c);
}

/* ---- queues take turns ---- */

/* A queue that gives a task goes to the end of the ring; one that cannot keeps its place. */
static void queue_gives(struct core *c, struct link *link, struct task *t, struct worker *w)
{
    assert(link->group == w->group && link->queue == t->queue);
    list_remove(&link->in_ring);
    list_push_back(&link->group->ring, &link->in_ring);
    sched_hand_over(c, w, t);
}

/* When what runs there began, as far as anybody can know. */
static uint64_t running_since(const struct worker *w)
{
    const struct list *it = list_first(&w->outstanding);
    uint64_t leased = it ? container_of(it, struct task, node)->leased_ns : 0;
    assert(!it || leased > 0);
    return later(leased, w->progress_ns);
}

/* What is put behind another task there would only be asked back. */
static bool worker_stuck(const struct core *c, const struct worker *w)
{
    assert(w->state == WORKER_READY);
    return worker_load(w) > 0 && c->now.mono_ns - running_since(w) >= STUCK_NS;
}

/*
 * Who had something last is awake, and warm. What is so short that it ends there before another
 * worker would have woken up goes there, too: a batch for one, not a crumb for each.
 */
static struct worker *warm_worker(const struct core *c, struct group *g, const struct task *t)
{
    static const enum room order[] = {ROOM_IDLE, ROOM_FILLING, ROOM_EMPTY};
    if (!service_short(&t->queue->service) ||
        c->flight_bytes + t->record.payload.size > c->config.flight_bytes)
        return NULL;
    uint32_t estimate = service_estimate(g, t->queue);
    assert(estimate <= PACK_NS);
    for (unsigned i = 0; i < 3; i++) {
        struct list *last = list_last(&g->rooms[order[i]]);
        struct worker *w = last ? container_of(last, struct worker, in_room) : NULL;
        if (w && w->expected_ns + estimate <= w->slots * PACK_NS && sched_fits(c, w, t) &&
            !worker_stuck(c, w))
            return w;
    }
    return NULL;
}

static struct worker *idle_worker(const struct core *c, struct group *g, const struct task *t)
{
    struct worker *warm = warm_worker(c, g, t);
    if (warm)
        return warm;
    struct list *first = list_first(&g->rooms[ROOM_EMPTY]);
    if (first)
        return container_of(first, struct worker, in_room);
    list_foreach(it, next, &g->rooms[ROOM_IDLE])
    {
        struct worker *w = container_of(it, struct worker, in_room);
        assert(w->idle > 0);
        if (sched_fits(c, w, t))
            return w;
    }
    return NULL;
}

/* True: a slot is idle, and what waits does not fit into its lane's credit. */
static bool sched_idle(struct core *c, struct group *g)
{
    struct list *missed = &g->ring; /* the last queue that gave nothing */
    while (g->idle_slots && missed->next != &g->ring) {
        struct link *link = container_of(missed->next, struct link, in_ring);
        struct task *t = queue_head(link->queue);
        struct worker *w = idle_worker(c, g, t);
        if (w)
            queue_gives(c, link, t, w);
        else
            missed = missed->next;
    }
    return missed != &g->ring;
}

/* ---- prefetch: what fills about a millisecond, and never behind something slow ---- */

/*
 * A slot that ends a task of a millisecond would wait a third of one for the next, so each slot
 * may have one more, of queues that are nearly as fast; but not behind a task that already takes
 * longer than most.
 */
static bool worker_fills(const struct core *c, const struct worker *w, uint32_t estimate)
{
    assert(w->room == ROOM_FILLING);
    if (w->expected_ns + estimate <= w->slots * FILL_NS)
        return true;
    return worker_load(w) < 2 * w->slots && w->expected_ns + estimate <= w->slots * AHEAD_NS &&
           c->now.mono_ns - running_since(w) < estimate;
}

/*
 * Each message wakes three threads there, however large it is: so large payloads go in batches, to
 * a lane that is half empty, until it is full.
 */
static bool lane_fills(const struct core *c, struct worker *w, const struct task *t)
{
    struct credit *credit = &w->credits[task_credit(c, t)];
    assert(c->round > 0);
    if (credit->bytes <= c->config.lane_bytes / 2)
        credit->filling = c->round;
    return credit->filling == c->round;
}

bool sched_ahead(const struct core *c, struct worker *w, const struct task *t)
{
    assert(t->state == TASK_READY);
    return c->flight_bytes + t->record.payload.size <= c->config.flight_bytes &&
           lane_fills(c, w, t) && worker_fills(c, w, service_estimate(w->group, t->queue)) &&
           sched_fits(c, w, t);
}

/* With a task for each slot it matters little which one has it ahead; else an idle one might. */
static bool queue_fills(const struct group *g, const struct queue *q)
{
    uint32_t estimate = service_estimate(g, q);
    assert(q->active);
    return estimate <= FILL_NS || (estimate <= AHEAD_NS && q->counts[TASK_READY] >= g->slots);
}

static struct worker *filling_worker(const struct core *c, struct group *g, const struct task *t)
{
    for (int i = 0; i < FILL_TRIES; i++) {
        struct list *first = list_first(&g->rooms[ROOM_FILLING]);
        if (!first)
            return NULL;
        struct worker *w = container_of(first, struct worker, in_room);
        assert(w->state == WORKER_READY);
        if (sched_ahead(c, w, t))
            return w;
        list_remove(first);
        list_push_back(&g->rooms[ROOM_FILLING], first);
    }
    return NULL;
}

/* Of any number of queues only the next few are asked: a slot that falls idle asks all of them. */
static void sched_fill(struct core *c, struct group *g)
{
    struct list *missed = &g->ring;
    unsigned tries = 0;
    while (
        tries < FILL_QUEUES && missed->next != &g->ring && !list_empty(&g->rooms[ROOM_FILLING])) {
        struct link *link = container_of(missed->next, struct link, in_ring);
        struct task *t = queue_head(link->queue);
        bool fills = queue_fills(g, link->queue);
        struct worker *w = fills ? filling_worker(c, g, t) : NULL;
        if (w) {
            queue_gives(c, link, t, w);
        } else {
            missed = missed->next;
            tries++;
        }
    }
}

/*
 * A slot that is idle only because the head of a queue has too many bytes for its lane can run
 * what comes after that head, once the head has gone to another worker: that touched its group.
 */
static void sched_behind_large(struct core *c)
{
    uint64_t before;
    do {
        before = c->stats.dispatched;
        for (struct list *it = c->dirty_groups.next; it != &c->dirty_groups; it = it->next) {
            struct group *g = container_of(it, struct group, dirty_node);
            assert(g->number > 0);
            if (g->idle_slots && !list_empty(&g->ring))
                sched_idle(c, g);
        }
    } while (c->stats.dispatched != before);
}

/*
 * True: another round may find more. One is enough, unless bytes are in the way: then a group that
 * was visited may fit what became the first of its queue when another group took the one before it.
 */
static bool sched_slots(struct core *c)
{
    uint64_t before = c->stats.dispatched;
    bool missed = false;
    /* Groups that are touched meanwhile come to the end of the list, and are visited, too. */
    for (struct list *it = c->dirty_groups.next; it != &c->dirty_groups; it = it->next) {
        struct group *g = container_of(it, struct group, dirty_node);
        assert(g->number > 0);
        missed = sched_idle(c, g) || missed;
    }
    return missed && c->stats.dispatched != before;
}

void sched_run(struct core *c)
{
    uint64_t before = c->stats.dispatched;
    assert(list_empty(&c->dirty_groups) || c->group_count > 0);
    target_dispatch(c);
    sched_suspects(c);
    while (sched_slots(c))
        ;
    for (struct list *it = c->dirty_groups.next; it != &c->dirty_groups; it = it->next)
        sched_fill(c, container_of(it, struct group, dirty_node));
    if (c->stats.dispatched != before)
        sched_behind_large(c);
    for (struct list *it; (it = list_first(&c->dirty_groups));)
        list_remove(it);
    c->round++;
}
