/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store owns the backlog, the core a window: the most urgent tasks of each queue. What comes
 * after the edge is in the store only. Operations run, and are answered, in the order asked: a
 * fetch sees every APPEND that was asked before it, so what is told to be in the store is never
 * forgotten; and what it found and has ended since is still in memory when the fetch is answered.
 */
#include <assert.h>
#include "server/core/verbs.h"

#define DUE_LIMIT 1000u /* tasks promoted at a time */

_Static_assert(DUE_LIMIT <= STORE_PART, "only a FETCH comes in parts");

bool window_open(const struct queue *q, struct order_key key)
{
    assert(key.rank < PRIORITIES);
    return !q->backlog || !key_before(q->edge, key);
}

static struct order_key record_key(const struct record *r)
{
    assert(r->priority < PRIORITIES);
    return order_key(r->priority, r->id);
}

/* What comes from this key on is in the store only. A fetch that is under way does not know. */
static void window_close(struct core *c, struct queue *q, struct order_key key)
{
    assert(!q->bypass && key.id > 0);
    if (!window_open(q, key))
        return;
    q->backlog = true;
    q->edge = (struct order_key){key.rank, key.id - 1};
    q->fetch_void = q->fetching;
    queue_touch(c, q);
}

/* Ready tasks that the window counts: suspects and those for one worker stay in any case. */
static uint32_t window_count(const struct queue *q)
{
    uint32_t others = q->targeted + (uint32_t)q->suspects.count;
    assert(q->counts[TASK_READY] >= others);
    return q->counts[TASK_READY] - others;
}

static bool window_over(const struct core *c, const struct queue *q)
{
    uint32_t count = window_count(q);
    assert(c->config.window_tasks > 0);
    return count > c->config.window_tasks || (count > 1 && q->bytes > c->config.window_bytes);
}

/* Of what is submitted now: not behind the edge, and not the first to leave a full window. */
bool window_takes(const struct core *c, const struct queue *q, struct order_key key)
{
    bool full = window_count(q) >= c->config.window_tasks || q->bytes > c->config.window_bytes;
    const struct task *last = full ? queue_tail(q) : NULL;
    assert(!last || last->queue == q);
    return window_open(q, key) && (!last || key_before(key, task_key(last)));
}

void window_low(struct core *c, struct queue *q)
{
    assert(!q->bypass || !q->backlog);
    if (q->backlog && !q->fetching && !q->fetch_refused && list_empty(&q->low_node))
        list_push_back(&c->low, &q->low_node);
}

/* ---- leaving ---- */

/* The store's agenda has something at this time. */
static void window_due_at(struct core *c, uint64_t at_ms)
{
    assert(at_ms > 0);
    if (!c->next_due_ms || at_ms < c->next_due_ms)
        c->next_due_ms = at_ms;
}

/*
 * Out of memory; the store keeps it, and its followers wait for its return. It may expire there: by
 * then it need not have come to the front.
 */
static void window_leave(struct core *c, struct task *t)
{
    struct queue *q = t->queue;
    struct follower *chain = t->followers;
    assert(!q->bypass && t->operations == 0);
    if (t->record.due_ms)
        q->stored_delayed++;
    else
        q->stored_ready++;
    if (t->rare && t->rare->expires_ms)
        window_due_at(c, t->rare->expires_ms);
    t->followers = NULL;
    uint64_t id = t->record.id;
    bool targeted = task_target(t).data;
    task_drop(c, t);
    q->targeted_stored += targeted;
    if (chain)
        follow_absent(c, q, id, chain);
}

/* It has its time in the store's agenda: there until it is due. */
void window_delay(struct core *c, struct task *t)
{
    assert(t->record.due_ms > 0);
    window_due_at(c, t->record.due_ms);
    window_leave(c, t);
}

static void window_behind(struct core *c, struct task *t)
{
    struct queue *q = t->queue;
    assert(q->backlog);
    /* The store has not answered for it yet: that event brings it here again. */
    if (t->operations)
        return;
    window_leave(c, t);
    window_low(c, q);
}

/*
 * The store was not told that it may run (record.windowed), so it does not before a fetch has moved
 * the edge behind it: after a crash it would be given to another beside the worker that has it.
 */
void window_skip(struct core *c, struct task *t)
{
    assert(t->state == TASK_STORING && !t->record.windowed);
    window_close(c, t->queue, task_key(t));
    window_behind(c, t);
}

/*
 * Accepted, and not yet in the store: nothing that comes after it may pass it by meanwhile. A fetch
 * that is under way does not see it, and must not open the window that far.
 */
void window_announce(struct core *c, const struct task *t)
{
    struct queue *q = t->queue;
    struct order_key key = task_key(t);
    assert(t->state == TASK_STORING && !t->record.windowed);
    window_close(c, q, key);
    if (q->fetching && (!q->unseen.id || key_before(key, q->unseen)))
        q->unseen = key;
}

/*
 * The least urgent leaves, and the edge comes to the place just before it. Were those that came out
 * of order to stay while more urgent ones leave, they would fill the window behind the edge.
 */
static bool window_evict(struct core *c, struct queue *q)
{
    if (q->requeued.count > window_count(q) / 2)
        queue_settle(q);
    struct task *last = queue_tail(q);
    if (!last || last->operations || task_only_here(last))
        return false;
    struct order_key key = task_key(last);
    assert(last->queue == q);
    window_leave(c, last);
    /* A requeued task may lie behind the edge already: then the edge stays. */
    window_close(c, q, key);
    return true;
}

/* What the store alone had is one less: a ready record, a delayed one, or a dead letter. */
static void stored_less(struct queue *q, enum stored_as as)
{
    uint64_t *counts[] = {&q->stored_ready, &q->stored_delayed, &q->dead};
    assert(as <= STORED_DEAD);
    if (*counts[as])
        --*counts[as];
}

/*
 * There is no memory for what has come from the store, or it was purged meanwhile: the edge comes
 * before it, and what is still there is fetched.
 */
void window_missed(struct core *c, const struct record *r, enum stored_as as)
{
    struct queue *q = queue_find(c, r->queue);
    if (!q) {
        c->failed = true;
        return;
    }
    assert(!q->bypass);
    stored_less(q, as);
    q->stored_ready++;
    window_close(c, q, record_key(r));
    window_low(c, q);
}

/* ---- entering ---- */

void window_enter(struct core *c, struct task *t)
{
    struct queue *q = t->queue;
    assert(t->state == TASK_STORING || t->state == TASK_MOVING || t->state == TASK_HELD);
    bool stays = t->record.suspect || t->cancelling || task_only_here(t);
    if (!stays && !window_open(q, task_key(t))) {
        window_behind(c, t);
        return;
    }
    task_requeue(c, t);
    if (q->bypass)
        return;
    while (window_over(c, q) && window_evict(c, q))
        ;
}

struct task *window_adopt(struct core *c, const struct record *r, enum stored_as as)
{
    assert(!ledger_find(&c->ledger, r->id));
    struct queue *q = queue_get(c, r->queue);
    struct task *t = q ? task_new(c, q, r) : NULL;
    if (!t)
        return NULL;
    stored_less(q, as);
    if (r->target.data && q->targeted_stored && as != STORED_DEAD)
        q->targeted_stored--;
    follow_claim(c, t);
    return t;
}

/* ---- fetching ---- */

static void window_fetch(struct core *c, struct queue *q)
{
    uint32_t count = window_count(q);
    /* What was requeued behind the edge fills the window, and waits for what lies before it. */
    bool waits = !queue_head(q) && !queue_halted(q);
    bool low = count <= c->config.window_tasks / 2 && q->bytes <= c->config.window_bytes / 2;
    if (!q->backlog || q->fetching || c->store_down || (!low && !waits))
        return;
    struct store_op *op = out_store(c, STORE_FETCH, (uintptr_t)q);
    if (!op)
        return;
    assert(!q->bypass);
    op->queue = q->name;
    op->after = q->edge;
    op->limit = count < c->config.window_tasks ? c->config.window_tasks - count : 1;
    /* One task comes in any case. */
    op->limit_bytes = q->bytes < c->config.window_bytes ? c->config.window_bytes - q->bytes : 1;
    q->fetching = true;
    q->fetch_void = false;
    q->unseen = (struct order_key){0};
}

void window_fetch_all(struct core *c)
{
    for (struct list *it; (it = list_first(&c->low));) {
        struct queue *q = container_of(it, struct queue, low_node);
        assert(!q->bypass);
        list_remove(it);
        window_fetch(c, q);
    }
}

/* False: no memory. It stays behind the edge, and with it what comes after. */
static bool window_take(struct core *c, struct queue *q, const struct record *r)
{
    struct order_key key = record_key(r);
    assert(q->fetching && !q->fetch_void);
    bool here = ledger_find(&c->ledger, r->id);
    struct task *t = here ? NULL : window_adopt(c, r, STORED_READY);
    if (!here && !t)
        return false;
    if (key_before(q->edge, key))
        q->edge = key;
    if (here)
        return true;
    if (r->maybe_running && restart_waits(c))
        restart_hold(c, t);
    else
        task_requeue(c, t);
    return true;
}

/* In parts: what makes the rest void between two of them leaves the edge where it belongs. */
void window_fetched(struct core *c, struct queue *q, const struct store_event *e)
{
    assert(q->fetching);
    for (size_t i = 0; i < e->record_count && !q->fetch_void; i++)
        q->fetch_void = !window_take(c, q, &e->records[i]);
    if (!e->more) {
        q->fetching = false;
        q->fetch_refused = e->outcome != OUTCOME_STORED;
        if (q->fetch_refused)
            stored_wait(c);
        if (e->outcome == OUTCOME_STORED && e->exhausted && !q->fetch_void) {
            q->backlog = false;
            q->stored_ready = 0;
            if (!q->stored_delayed)
                q->targeted_stored = 0;
        }
        if (q->unseen.id)
            window_close(c, q, q->unseen);
        window_low(c, q);
    }
    queue_touch(c, q);
}

/* ---- the agenda ---- */

void window_due_ask(struct core *c)
{
    if (c->due_until_ms || c->store_down || !c->next_due_ms || c->next_due_ms > c->now.wall_ms)
        return;
    struct store_op *op = out_store(c, STORE_DUE, 0);
    if (!op)
        return;
    assert(!c->bypass);
    op->until_ms = c->due_until_ms = c->now.wall_ms;
    c->due_number++;
    op->limit = DUE_LIMIT;
    c->next_due_ms = 0;
}

/* Looked up for a JOIN meanwhile, which may not have kept it. */
static void window_due_here(struct core *c, struct task *t)
{
    if (t->state != TASK_HELD)
        return;
    if (t->operations) {
        /* A death of its worker is being stored, with the time that it had: DUE comes once more. */
        window_due_at(c, c->now.wall_ms);
        return;
    }
    t->record.due_ms = 0;
    list_remove(&t->node);
    list_push_back(&c->held, &t->node);
    assert(!task_ended(t));
}

static void window_due_one(struct core *c, const struct record *r)
{
    struct task *here = ledger_find(&c->ledger, r->id);
    if (here) {
        window_due_here(c, here);
        return;
    }
    /* By the clock that DUE was asked with: set back since, it would make a task early. */
    bool expired =
        r->expires_ms && (r->expires_ms <= c->due_until_ms || r->expires_ms <= c->now.wall_ms);
    const struct queue *q = queue_find(c, r->queue);
    /* A ready one that expired while it was not in memory lay behind the edge; a delayed one may
     * have, and after a failed commit only that can be told. */
    bool behind = q && !window_open(q, record_key(r));
    enum stored_as as = expired && behind && !r->due_ms ? STORED_READY : STORED_DELAYED;
    bool purged = q && q->due_purged == c->due_number; /* since; a fetch sees what is left */
    struct task *t = purged ? NULL : window_adopt(c, r, as);
    if (!t) {
        window_missed(c, r, as);
        return;
    }
    assert(t->state == TASK_STORING);
    t->record.due_ms = 0;
    if (expired)
        task_expire(c, t);
    else if (r->maybe_running && restart_waits(c))
        restart_hold(c, t);
    else
        window_enter(c, t);
}

void window_due(struct core *c, const struct store_event *e)
{
    assert(c->due_until_ms);
    if (e->outcome == OUTCOME_STORED)
        for (size_t i = 0; i < e->record_count; i++)
            window_due_one(c, &e->records[i]);
    c->due_until_ms = 0;
    uint64_t next = e->outcome == OUTCOME_STORED ? e->next_ms : c->now.wall_ms + 1000;
    if (next)
        window_due_at(c, next);
}
