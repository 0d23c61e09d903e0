/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What comes and goes with each task, in slabs: tasks by size class, and followers. Larger tasks
 * are malloc()'s.
 */
#include <assert.h>
#include <stdlib.h>
#include "server/core/verbs.h"

#define POOL_NO_CLASS 255u

/* Eight sizes for each doubling: 256, 288, 320 ... 480, 512, 576 ... */
static size_t pool_size(unsigned size_class)
{
    return (size_t)(8 + size_class % 8) << (5 + size_class / 8);
}

static unsigned pool_class(size_t size)
{
    unsigned doubling = 0;
    while (doubling < POOL_CLASSES / 8 && size > (size_t)15 << (5 + doubling))
        doubling++;
    if (doubling == POOL_CLASSES / 8)
        return POOL_NO_CLASS;
    size_t step = (size + ((size_t)1 << (5 + doubling)) - 1) >> (5 + doubling);
    unsigned size_class = doubling * 8 + (unsigned)(step > 8 ? step - 8 : 0);
    assert(pool_size(size_class) >= size);
    return size_class;
}

void pool_init(struct pool *p)
{
    slab_memory_init(&p->memory);
    for (unsigned k = 0; k < POOL_CLASSES; k++)
        slab_cache_init(&p->tasks[k], &p->memory, pool_size(k));
    slab_cache_init(&p->followers, &p->memory, sizeof(struct follower));
    assert(p->memory.regions == 0);
}

struct task *pool_task(struct pool *p, size_t size, uint8_t *size_class)
{
    unsigned k = pool_class(size);
    *size_class = (uint8_t)k;
    assert(size >= sizeof(struct task));
    return k == POOL_NO_CLASS ? malloc(size) : slab_take(&p->tasks[k]);
}

void pool_task_free(struct pool *p, struct task *t)
{
    assert(t->size_class < POOL_CLASSES || t->size_class == POOL_NO_CLASS);
    if (t->size_class == POOL_NO_CLASS)
        free(t);
    else
        slab_give(&p->tasks[t->size_class], t);
}

struct follower *pool_follower(struct pool *p)
{
    return slab_take(&p->followers);
}

void pool_follower_free(struct pool *p, struct follower *f)
{
    slab_give(&p->followers, f);
}

void pool_free(struct pool *p)
{
    assert(p->followers.live == 0);
    for (unsigned k = 0; k < POOL_CLASSES; k++)
        assert(p->tasks[k].live == 0);
    slab_memory_free(&p->memory);
}
