/* SPDX-License-Identifier: Apache-2.0 */
/* An allocator that fails at the Nth allocation. The linker puts it in the place of the true one:
 * the program needs --wrap for malloc, calloc, realloc, free, slab_take and slab_give. */
#ifndef TESTS_BAD_MEMORY_H
#define TESTS_BAD_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include "common/slab.h"

static _Thread_local bool armed; /* where the test wants it, and in its thread only */
static long good_left;           /* allocations until one fails; below 0: none does */
static bool for_good;            /* and all after it, too */
static size_t failures;
static _Atomic size_t living; /* blocks that were not freed */

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *block, size_t size);
void __real_free(void *block);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *block, size_t size);
void __wrap_free(void *block);
void *__real_slab_take(struct slab_cache *c);
void __real_slab_give(struct slab_cache *c, void *block);
void *__wrap_slab_take(struct slab_cache *c);
void __wrap_slab_give(struct slab_cache *c, void *block);

static bool fails(void)
{
    if (!armed || good_left < 0)
        return false;
    if (good_left > 0) {
        good_left--;
        return false;
    }
    if (!for_good)
        good_left = -1;
    failures++;
    return true;
}

void *__wrap_malloc(size_t size)
{
    void *block = fails() ? NULL : __real_malloc(size);
    living += block != NULL;
    return block;
}

void *__wrap_calloc(size_t count, size_t size)
{
    void *block = fails() ? NULL : __real_calloc(count, size);
    living += block != NULL;
    return block;
}

void *__wrap_realloc(void *block, size_t size)
{
    void *larger = fails() ? NULL : __real_realloc(block, size);
    living += larger && !block;
    return larger;
}

void __wrap_free(void *block)
{
    living -= block != NULL;
    __real_free(block);
}

/* Any block may be the one that needs another region. */
void *__wrap_slab_take(struct slab_cache *c)
{
    void *block = fails() ? NULL : __real_slab_take(c);
    living += block != NULL;
    return block;
}

void __wrap_slab_give(struct slab_cache *c, void *block)
{
    living--;
    __real_slab_give(c, block);
}

#endif
