/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Queues by name, and the order of their ready tasks: by rank (9 - priority), then by id. Nearly
 * all come in that order, and are in a list for each rank, which costs nothing; those that were
 * given back are in a heap beside it. Suspects and tasks for one worker by name are in heaps of
 * their own, because the first of them must not hide what comes after. A queue is never forgotten:
 * its counters are what an operator looks at.
 */
#include <assert.h>
#include <stdlib.h>
#include "common/name.h"
#include "server/core/verbs.h"

bool key_before(struct order_key a, struct order_key b)
{
    return a.rank != b.rank ? a.rank < b.rank : a.id < b.id;
}

/* ---- queues by name ---- */

/* "The most specific wins." */
static const struct queue_setting *setting_for(const struct core *c, struct slice name)
{
    const struct queue_setting *best = NULL;
    unsigned most = 0;
    assert(name.size > 0);
    for (size_t i = 0; i < c->setting_count; i++) {
        const struct queue_setting *s = &c->settings[i];
        unsigned specificity = name_specificity(s->pattern);
        if (name_matches(s->pattern, name) && (!best || specificity > most)) {
            best = s;
            most = specificity;
        }
    }
    return best;
}

static uint64_t queue_bound(const struct core *c, const struct queue_setting *setting)
{
    return setting && setting->max_tasks ? setting->max_tasks : c->config.max_tasks;
}

void queue_init(struct queue *q, struct slice name)
{
    q->name = name;
    for (unsigned rank = 0; rank < PRIORITIES; rank++)
        list_init(&q->fifo[rank]);
    list_init(&q->links);
    list_init(&q->targets);
    list_init(&q->low_node);
    assert(!q->active && q->filled == 0);
}

static void queue_set(const struct core *c, struct queue *q)
{
    const struct queue_setting *setting = setting_for(c, q->name);
    q->durability = setting ? setting->durability : c->config.durability;
    q->bypass = c->bypass || q->durability == DURABILITY_MEMORY;
    q->stopped = c->stopped && !q->bypass;
    q->max_tasks = queue_bound(c, setting);
    assert(!q->stopped || !q->bypass);
}

void core_configure(struct core *c, uint64_t max_tasks, uint64_t max_bytes, uint64_t drain_ms)
{
    c->config.max_tasks = max_tasks;
    if (max_bytes)
        c->config.max_bytes = max_bytes;
    if (drain_ms)
        c->config.drain_ms = drain_ms;
    for (struct queue *q = c->first_queue; q; q = q->next)
        q->max_tasks = queue_bound(c, setting_for(c, q->name));
    assert(c->config.max_bytes > 0);
}

struct queue *queue_find(struct core *c, struct slice name)
{
    if (c->last_queue && slice_equal(c->last_queue->name, name))
        return c->last_queue;
    struct queue *q = strmap_get(&c->queues, name);
    assert(!q || slice_equal(q->name, name));
    if (q)
        c->last_queue = q;
    return q;
}

struct queue *queue_get(struct core *c, struct slice name)
{
    struct queue *q = queue_find(c, name);
    if (q)
        return q;
    assert(name_valid(name));
    q = calloc(1, sizeof *q + name.size + 1);
    if (!q)
        return NULL;
    memcpy(q + 1, name.data, name.size);
    queue_init(q, slice_of(q + 1, name.size));
    queue_set(c, q);
    bool linked = group_link_queue(c, q);
    if (!linked || !strmap_put(&c->queues, q->name, q)) {
        group_unlink_queue(q);
        free(q);
        return NULL;
    }
    *c->queues_end = q;
    c->queues_end = &q->next;
    watch_event(c, "queue-new", 0, (struct slice){0}, q->name, NULL);
    return q;
}

struct queue *queue_open(struct core *c, struct slice name, int *code, const char **text)
{
    struct queue *q = name.data ? queue_find(c, name) : NULL;
    assert(!q || q->name.size > 0);
    *code = PUSHROD_E_BAD_QUEUE;
    *text = NULL;
    if (q || !name_valid(name))
        return q;
    /* Only names that strangers make up are bounded: what the store has must come back. */
    *code = PUSHROD_E_TOO_MANY;
    if (c->queues.count >= c->config.max_queues) {
        *text = arena_text(c,
            "there are %zu queues already: use one of those, or raise max-queues of the server",
            c->queues.count);
        return NULL;
    }
    *code = PUSHROD_E_NO_MEMORY;
    return queue_get(c, name);
}

void queue_free(struct queue *q)
{
    assert(q);
    group_unlink_queue(q);
    list_foreach(it, next, &q->targets) target_free(container_of(it, struct target, in_queue));
    heap_free(&q->requeued);
    heap_free(&q->suspects);
    free(q);
}

uint64_t queue_unfinished(const struct queue *q)
{
    uint64_t count = q->stored_ready + q->stored_delayed;
    for (unsigned state = 0; state < TASK_FINISHING; state++)
        count += q->counts[state];
    assert(count >= q->counts[TASK_READY]);
    return count;
}

/* ---- ready tasks ---- */

/* False: no memory, and it is in no list either. */
bool queue_push(struct heap *heap, struct task *t)
{
    assert(t->state == TASK_READY);
    t->place = (struct heap_node){0};
    if (heap_push(heap, &t->place, task_key(t).rank, t->record.id))
        return true;
    list_init(&t->node);
    return false;
}

/* What stands at this place of the list was submitted after it. */
static bool is_later(const struct list *at, const struct list *fifo, const struct task *t)
{
    return at != fifo && container_of(at, struct task, node)->record.id > t->record.id;
}

/* In its list if it comes after all that are there, as most do; else in the heap. */
static void queue_place(struct queue *q, struct task *t)
{
    unsigned rank = task_key(t).rank;
    struct list *fifo = &q->fifo[rank], *at = fifo->prev;
    q->bytes += t->record.payload.size;
    if (is_later(at, fifo, t)) {
        t->out_of_order = queue_push(&q->requeued, t);
        if (t->out_of_order)
            return;
        /* With no memory for the heap its place in the list is looked for. */
        while (is_later(at, fifo, t))
            at = at->prev;
    }
    list_push_front(at, &t->node);
    q->filled |= (uint16_t)(1u << rank);
    assert(!list_empty(fifo));
}

static void queue_unplace(struct queue *q, struct task *t)
{
    q->bytes -= t->record.payload.size;
    if (t->out_of_order) {
        heap_remove(&q->requeued, &t->place);
        t->out_of_order = false;
        return;
    }
    unsigned rank = task_key(t).rank;
    list_remove(&t->node);
    if (list_empty(&q->fifo[rank]))
        q->filled &= (uint16_t) ~(1u << rank);
}

/* Where it stays depends on what may run it: alone, on one worker, or as any other. */
void queue_put(struct core *c, struct task *t)
{
    struct queue *q = t->queue;
    assert(t->state == TASK_READY);
    if (t->rare && t->rare->expires_ms)
        timer_expiry(c, t);
    if (t->record.suspect && !queue_push(&q->suspects, t))
        t->record.suspect = false; /* no memory: run it as the others */
    if (!t->record.suspect && !(task_target(t).data && target_put(c, t)))
        queue_place(q, t);
    queue_touch(c, q);
}

void queue_take(struct core *c, struct task *t)
{
    struct queue *q = t->queue;
    assert(t->state == TASK_READY);
    if (t->record.suspect)
        heap_remove(&q->suspects, &t->place);
    else if (t->rare && t->rare->awaits)
        target_take(c, t);
    else
        queue_unplace(q, t);
    if (q->backlog)
        window_low(c, q);
    /* What is first now may fit where the other did not. */
    if (q->active || q->suspected)
        queue_touch(c, q);
}

static struct task *queue_first(const struct queue *q)
{
    struct task *first = NULL;
    if (q->filled)
        first = container_of(q->fifo[__builtin_ctz(q->filled)].next, struct task, node);
    const struct heap_node *top = heap_top(&q->requeued);
    if (!top)
        return first;
    struct task *other = container_of(top, struct task, place);
    assert(other->state == TASK_READY);
    return !first || key_before(task_key(other), task_key(first)) ? other : first;
}

bool queue_halted(const struct queue *q)
{
    assert(!q->stopped || !q->bypass);
    return q->paused || q->stopped;
}

/* A requeued task may lie behind the edge, and what is in the store before it: then it waits. */
struct task *queue_head(const struct queue *q)
{
    struct task *first = queue_halted(q) ? NULL : queue_first(q);
    assert(!first || first->queue == q);
    return first && window_open(q, task_key(first)) ? first : NULL;
}

/* What came out of order goes to its place in the lists: only there the least urgent is found. */
void queue_settle(struct queue *q)
{
    struct list *at[PRIORITIES];
    for (unsigned rank = 0; rank < PRIORITIES; rank++)
        at[rank] = &q->fifo[rank];
    for (struct heap_node *top; (top = heap_top(&q->requeued));) {
        struct task *t = container_of(top, struct task, place);
        unsigned rank = task_key(t).rank;
        heap_remove(&q->requeued, top);
        t->out_of_order = false;
        while (at[rank]->next != &q->fifo[rank] && !is_later(at[rank]->next, &q->fifo[rank], t))
            at[rank] = at[rank]->next;
        list_push_front(at[rank], &t->node);
        at[rank] = &t->node;
        q->filled |= (uint16_t)(1u << rank);
    }
    assert(q->requeued.count == 0);
}

struct task *queue_tail(const struct queue *q)
{
    if (!q->filled)
        return NULL;
    unsigned rank = 31u - (unsigned)__builtin_clz(q->filled);
    assert(rank < PRIORITIES && !list_empty(&q->fifo[rank]));
    return container_of(q->fifo[rank].prev, struct task, node);
}

static void link_place(struct list *list, struct list *node, bool in)
{
    assert(list && node);
    if (!in)
        list_remove(node);
    else if (list_empty(node))
        list_push_back(list, node);
}

static void touch_groups(struct core *c, struct queue *q, bool active, bool suspected)
{
    bool runs = active || suspected;
    assert(runs || q->active || q->suspected);
    list_foreach(it, next, &q->links)
    {
        struct link *link = container_of(it, struct link, in_queue);
        link_place(&link->group->ring, &link->in_ring, active);
        link_place(&link->group->suspected, &link->in_suspected, suspected);
        if (runs || q->suspected)
            group_touch(c, link->group);
    }
    q->active = active;
    q->suspected = suspected;
    q->touched = runs ? c->round : 0;
}

/*
 * In the lists of its groups exactly while it has something to dispatch. Of a thousand tasks that
 * come in a tick the first touches the groups, which stay touched until all are handed out.
 */
void queue_touch(struct core *c, struct queue *q)
{
    bool active = queue_head(q) != NULL;
    bool suspected = q->suspects.count && !queue_halted(q);
    assert(!active || !queue_halted(q));
    if (active != q->active || suspected != q->suspected ||
        ((active || suspected) && q->touched != c->round))
        touch_groups(c, q, active, suspected);
    if (q->backlog && !active)
        window_low(c, q);
}

/* Halted, or no longer: that holds for all that it has, for one worker or for any. */
void queue_halt(struct core *c, struct queue *q, bool paused, bool stopped)
{
    assert(!stopped || !q->bypass);
    q->paused = paused;
    q->stopped = stopped;
    queue_touch(c, q);
    list_foreach(it, next, &q->targets)
        target_touch(c, container_of(it, struct target, in_queue)->named);
}
