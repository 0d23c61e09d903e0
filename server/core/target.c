/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tasks for one worker by name (option `worker`), in a heap for each pair of queue and name. They
 * are handed out before all others, because nobody else can run them. What lies behind an edge
 * comes into memory with the fetch that moves the edge past it, and stays: submit.c bounds how many
 * may wait.
 */
#include <assert.h>
#include <stdlib.h>
#include "server/core/verbs.h"

static struct named *named_get(struct core *c, struct slice name)
{
    struct named *n = strmap_get(&c->named, name);
    if (n)
        return n;
    n = calloc(1, sizeof *n + name.size + 1);
    if (!n)
        return NULL;
    if (name.size)
        memcpy(n + 1, name.data, name.size);
    n->name = slice_of(n + 1, name.size);
    list_init(&n->workers);
    list_init(&n->targets);
    list_init(&n->dirty_node);
    if (!strmap_put(&c->named, n->name, n)) {
        free(n);
        return NULL;
    }
    assert(strmap_get(&c->named, name) == n);
    return n;
}

/* Worker names come and go with their processes: what nobody uses is freed. */
static void named_release(struct core *c, struct named *n)
{
    if (!list_empty(&n->workers) || n->waiting)
        return;
    list_foreach(it, next, &n->targets)
    {
        struct target *target = container_of(it, struct target, in_named);
        assert(target->ready.count == 0);
        target_free(target);
    }
    list_remove(&n->dirty_node);
    strmap_remove(&c->named, n->name);
    free(n);
}

void target_free(struct target *t)
{
    assert(t->named);
    list_remove(&t->in_queue);
    list_remove(&t->in_named);
    heap_free(&t->ready);
    free(t);
}

void target_free_all(struct core *c)
{
    struct strmap_cell cell;
    for (size_t place = 0; strmap_next(&c->named, &place, &cell);) {
        struct named *n = cell.value;
        assert(list_empty(&n->workers));
        list_foreach(it, next, &n->targets) target_free(container_of(it, struct target, in_named));
        free(n);
    }
    strmap_free(&c->named);
}

/* By the name: a queue may have tasks for thousands of workers, a worker those of few queues. */
static struct target *target_find(const struct named *n, const struct queue *q)
{
    assert(n && q);
    for (const struct list *it = n->targets.next; it != &n->targets; it = it->next) {
        struct target *target = container_of(it, struct target, in_named);
        if (target->queue == q)
            return target;
    }
    return NULL;
}

static struct target *target_get(struct core *c, struct queue *q, struct slice name)
{
    struct named *n = named_get(c, name);
    struct target *target = n ? target_find(n, q) : NULL;
    if (target)
        return target;
    target = n ? calloc(1, sizeof *target) : NULL;
    if (!target)
        return NULL;
    assert(n->name.size == name.size);
    target->named = n;
    target->queue = q;
    list_push_back(&q->targets, &target->in_queue);
    list_push_back(&n->targets, &target->in_named);
    return target;
}

/* Without memory it stays among the others, and must not be handed out with them. */
bool target_put(struct core *c, struct task *t)
{
    struct target *target = target_get(c, t->queue, t->rare->target);
    if (!target || !queue_push(&target->ready, t)) {
        c->failed = true;
        return false;
    }
    assert(t->state == TASK_READY);
    t->rare->awaits = target;
    target->named->waiting++;
    t->queue->targeted++;
    target_touch(c, target->named);
    return true;
}

/* Does it wait for its worker, or for its time, in this state? */
static bool target_waits(enum task_state state)
{
    return state < TASK_FINISHING && state != TASK_LEASED;
}

void target_move(const struct task *t, enum task_state from, enum task_state to)
{
    assert(t->rare->target.data);
    t->queue->targeted_here += target_waits(to);
    t->queue->targeted_here -= target_waits(from);
}

void target_take(struct core *c, struct task *t)
{
    struct target *target = t->rare->awaits;
    assert(target->queue == t->queue && target->named->waiting > 0);
    t->rare->awaits = NULL;
    heap_remove(&target->ready, &t->place);
    target->named->waiting--;
    t->queue->targeted--;
    named_release(c, target->named);
}

/* A worker of that name got room, or a task for it came: sched_run() looks at it. */
void target_touch(struct core *c, struct named *n)
{
    assert(n);
    if (n->waiting && list_empty(&n->dirty_node))
        list_push_back(&c->dirty_named, &n->dirty_node);
}

bool target_join(struct core *c, struct worker *w)
{
    assert(!w->named);
    w->named = named_get(c, w->name);
    if (!w->named)
        return false;
    list_push_back(&w->named->workers, &w->in_named);
    return true;
}

void target_leave(struct core *c, struct worker *w)
{
    struct named *n = w->named;
    assert(n);
    list_remove(&w->in_named);
    w->named = NULL;
    named_release(c, n);
}

/* The most urgent task for the worker, of the queues that it serves. */
static struct task *target_pick(const struct worker *w)
{
    struct task *best = NULL;
    assert(w->named);
    list_foreach(it, next, &w->named->targets)
    {
        struct target *target = container_of(it, struct target, in_named);
        struct queue *q = target->queue;
        if (!target->ready.count || queue_halted(q) || !group_serves(w->group, q))
            continue;
        struct task *t = container_of(heap_top(&target->ready), struct task, place);
        if (!best || key_before(task_key(t), task_key(best)))
            best = t;
    }
    return best;
}

/* A slot is idle, or what runs there is short, and so is this: nobody else could run it sooner. */
static bool target_fits(const struct core *c, struct worker *w, const struct task *t)
{
    assert(t->rare->awaits->named == w->named);
    return w->room <= ROOM_IDLE ? sched_fits(c, w, t) : sched_ahead(c, w, t);
}

/* Only names that something happened to. */
void target_dispatch(struct core *c)
{
    struct list *it;
    while ((it = list_first(&c->dirty_named))) {
        struct named *n = container_of(it, struct named, dirty_node);
        list_remove(&n->dirty_node);
        for (struct list *at = n->workers.next; at != &n->workers && n->waiting; at = at->next) {
            struct worker *w = container_of(at, struct worker, in_named);
            assert(w->named == n);
            for (struct task *t;
                 w->room <= ROOM_FILLING && (t = target_pick(w)) && target_fits(c, w, t);)
                sched_hand_over(c, w, t);
        }
    }
}
