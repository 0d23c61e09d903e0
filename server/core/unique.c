/* SPDX-License-Identifier: Apache-2.0 */
/* Unique keys of queues that bypass the store. A key is scoped to its queue. */
#include <assert.h>
#include <stdlib.h>
#include "server/core/verbs.h"

#define KEY_MAX (PUSHROD_MAX_QUEUE_NAME + 1 + PUSHROD_MAX_UNIQUE_KEY)

/* queue, NUL, key: a NUL is in no queue name. */
static struct slice unique_key(uint8_t *to, const struct queue *q, struct slice key)
{
    assert(key.data && q->name.size + 1 + key.size <= KEY_MAX);
    memcpy(to, q->name.data, q->name.size);
    to[q->name.size] = 0;
    if (key.size)
        memcpy(to + q->name.size + 1, key.data, key.size);
    return slice_of(to, q->name.size + 1 + key.size);
}

static void unique_free(struct core *c, struct unique *u)
{
    assert(!u->task);
    strmap_remove(&c->uniques, u->key);
    free(u);
}

struct unique *unique_find(struct core *c, const struct queue *q, struct slice key)
{
    uint8_t bytes[KEY_MAX];
    assert(q->bypass);
    struct unique *u = strmap_get(&c->uniques, unique_key(bytes, q, key));
    if (u && !u->task && u->timer.key <= c->now.wall_ms) {
        heap_remove(&c->by_wall, &u->timer); /* timers run at the end of the tick */
        unique_free(c, u);
        return NULL;
    }
    if (!u || !u->task || !u->task->rare->unique_ms || u->task->rare->unique_ms > c->now.wall_ms)
        return u;
    /* The window of the key is over before its task. */
    u->task->rare->holds = NULL;
    u->task = NULL;
    unique_free(c, u);
    return NULL;
}

bool unique_hold(struct core *c, struct task *t)
{
    struct slice key = t->rare->unique;
    assert(!unique_find(c, t->queue, key));
    struct unique *u = calloc(1, sizeof *u + t->queue->name.size + 1 + key.size);
    if (!u)
        return false;
    u->key = unique_key(u->bytes, t->queue, key);
    u->task = t;
    u->id = t->record.id;
    if (!strmap_put(&c->uniques, u->key, u)) {
        free(u);
        return false;
    }
    t->rare->holds = u;
    return true;
}

/* The task has ended; the window of its key may last longer. */
void unique_release(struct core *c, struct task *t)
{
    struct unique *u = t->rare->holds;
    assert(u && u->task == t);
    t->rare->holds = NULL;
    u->task = NULL;
    bool lasts = t->rare->unique_ms > c->now.wall_ms;
    if (!lasts || !timer_unique(c, u, t->rare->unique_ms))
        unique_free(c, u);
}

void unique_expire(struct core *c, struct unique *u)
{
    assert(!u->task);
    unique_free(c, u);
}

/* Of a purged queue: the map must not change while it is gone over. */
void unique_purge(struct core *c, const struct queue *q)
{
    struct unique **over = arena_alloc(c, (c->uniques.count + 1) * sizeof(struct unique *));
    struct strmap_cell cell;
    size_t count = 0, name = q->name.size;
    assert(q->bypass);
    for (size_t place = 0; over && strmap_next(&c->uniques, &place, &cell);) {
        struct unique *u = cell.value;
        if (!u->task && u->key.size > name && !u->bytes[name] &&
            memcmp(u->bytes, q->name.data, name) == 0)
            over[count++] = u;
    }
    for (size_t i = 0; i < count; i++) {
        heap_remove(&c->by_wall, &over[i]->timer);
        unique_free(c, over[i]);
    }
}

void unique_free_all(struct core *c)
{
    struct strmap_cell cell;
    for (size_t place = 0; strmap_next(&c->uniques, &place, &cell);)
        free(cell.value);
    strmap_free(&c->uniques);
    assert(c->uniques.count == 0);
}
