/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slab: blocks of a few sizes that come and go a million times a second, in bursts.
 *
 * As in Bonwick, "The Slab Allocator" (USENIX 1994): blocks of one size fill a slab of 64 KiB, and
 * an empty slab is anybody's again. Slabs lie in regions of 2 MiB, the size of a huge page. So what
 * is in use lies close together, however many blocks there were before: a heap of malloc() that has
 * seen a million tasks scatters the next thousand over as many pages, and keeps them all.
 *
 * Not thread-safe: one owner, one thread.
 */
#ifndef COMMON_SLAB_H
#define COMMON_SLAB_H

#include <stddef.h>
#include "common/list.h"

struct slab_memory {
    struct list open; /* regions with a free slab; one that is empty is the last */
    size_t regions;
    bool spare; /* one of them is empty */
};

/* Blocks of one size. */
struct slab_cache {
    struct slab_memory *memory;
    struct list partial; /* slabs with a free block; the first gives the next */
    size_t size;         /* bytes of a block */
    size_t live;         /* blocks in use */
};

void slab_memory_init(struct slab_memory *m);
void slab_memory_free(struct slab_memory *m); /* no block is in use */

/* Up to SLAB_MOST bytes a block, aligned as `size` is: to 64 bytes at the most. Takes no memory. */
#define SLAB_MOST ((size_t)16 << 10)
void slab_cache_init(struct slab_cache *c, struct slab_memory *m, size_t size);

void *slab_take(struct slab_cache *c); /* unset; NULL: no memory */
void slab_give(struct slab_cache *c, void *block);

#endif
