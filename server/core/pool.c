/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Allocations of tasks, by size class. Tasks come and go a million times a second; the block that
 * was freed last is taken first, for it is still in the cache.
 */
#include <assert.h>
#include <stdlib.h>
#include "server/core/verbs.h"

#define POOL_NO_CLASS 255u
#define POOL_AHEAD    256u /* bytes of a block that are fetched into the cache beforehand */
#define POOL_KEEP     ((size_t)1 << 20) /* bytes of free blocks kept for each class */

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

void *pool_take(struct pool *p, size_t size, uint8_t *size_class)
{
    unsigned k = pool_class(size);
    *size_class = (uint8_t)k;
    if (k == POOL_NO_CLASS)
        return malloc(size);
    struct pool_free *list = &p->classes[k];
    void *block = list->first;
    if (!block)
        return malloc(pool_size(k));
    assert(list->count > 0);
    memcpy(&list->first, block, sizeof list->first);
    list->count--;
    /* The next one is asked for soon. */
    for (size_t at = 0; at < POOL_AHEAD; at += 64)
        __builtin_prefetch((const void *)((uintptr_t)list->first + at), 1); /* may be NULL */
    return block;
}

/* Up to a megabyte of each class stays for the next one; a burst's memory goes back. */
void pool_give(struct pool *p, void *block, uint8_t size_class)
{
    if (size_class == POOL_NO_CLASS) {
        free(block);
        return;
    }
    assert(size_class < POOL_CLASSES);
    struct pool_free *list = &p->classes[size_class];
    if ((list->count + 1) * pool_size(size_class) > POOL_KEEP) {
        free(block);
        return;
    }
    memcpy(block, &list->first, sizeof list->first);
    list->first = block;
    list->count++;
}

void pool_free(struct pool *p)
{
    for (unsigned k = 0; k < POOL_CLASSES; k++) {
        for (void *block = p->classes[k].first, *next; block; block = next) {
            memcpy(&next, block, sizeof next);
            free(block);
            p->classes[k].count--;
        }
        assert(p->classes[k].count == 0);
        p->classes[k].first = NULL;
    }
}
