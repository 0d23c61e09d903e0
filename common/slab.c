/* SPDX-License-Identifier: Apache-2.0 */
#include "common/slab.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ /* clang; gcc defines it itself */
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/lsan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, size)     ((void)(at), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(at, size)   ((void)(at), (void)(size))
#define __lsan_register_root_region(at, size)   ((void)(at), (void)(size))
#define __lsan_unregister_root_region(at, size) ((void)(at), (void)(size))
#endif

#define REGION_BYTES ((size_t)2 << 20)
#define SLAB_BYTES   ((size_t)64 << 10)
#define SLABS        (REGION_BYTES / SLAB_BYTES)
#define AHEAD_BYTES  ((size_t)256) /* fetched into the cache beforehand */

/*
 * Heads of slabs are not in the slabs: 64 KiB apart they would all be in one set of a cache.
 * A slab's blocks are taken in order while it has some that nobody had yet.
 */
struct slab {
    struct list node; /* in cache.partial; alone: full, or nobody's */
    void *given;      /* blocks that were given back, linked through their first word */
    uint32_t live;    /* blocks in use */
    uint32_t size;    /* bytes of a block */
    uint8_t *fresh;   /* the first block that nobody had yet ... */
    uint8_t *end;     /* ... and behind the last */
};

/* At a multiple of its size, so that a block's address tells its region. */
struct region {
    struct list node; /* in memory.open; alone: full */
    uint32_t free;    /* bit i: slabs[i] is nobody's */
    _Alignas(64) struct slab slabs[SLABS];
};

_Static_assert(SLABS == 32, "a bit for each in region.free");

/* ---- regions ---- */

/*
 * The first is in small pages, since a server with little to do shall stay small. Where there are
 * more, a huge page for each saves the look-up of 512 (transparent_hugepage: madvise or always).
 */
static struct region *region_map(bool huge)
{
    uint8_t *at = mmap(NULL, 2 * REGION_BYTES, PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return NULL;
    size_t before = -(uintptr_t)at & (REGION_BYTES - 1);
    if (before)
        munmap(at, before);
    munmap(at + before + REGION_BYTES, REGION_BYTES - before);
    if (huge)
        madvise(at + before, REGION_BYTES, MADV_HUGEPAGE);
    return (struct region *)(at + before);
}

static struct region *region_of(const void *at)
{
    return (struct region *)((uintptr_t)at & ~(REGION_BYTES - 1));
}

static bool region_open(struct slab_memory *m)
{
    struct region *r = region_map(m->regions > 0);
    if (!r)
        return false;
    __lsan_register_root_region(r, REGION_BYTES);
    r->free = UINT32_MAX;
    for (size_t i = 0; i < SLABS; i++)
        list_init(&r->slabs[i].node);
    list_push_back(&m->open, &r->node);
    m->regions++;
    m->spare = true;
    return true;
}

static void region_close(struct slab_memory *m, struct region *r)
{
    assert(r->free == UINT32_MAX && m->regions > 0);
    list_remove(&r->node);
    m->regions--;
    ASAN_UNPOISON_MEMORY_REGION(r, REGION_BYTES);
    __lsan_unregister_root_region(r, REGION_BYTES);
    munmap(r, REGION_BYTES);
}

void slab_memory_init(struct slab_memory *m)
{
    *m = (struct slab_memory){0};
    list_init(&m->open);
}

void slab_memory_free(struct slab_memory *m)
{
    list_foreach(it, next, &m->open) region_close(m, container_of(it, struct region, node));
    assert(m->regions == 0);
}

/* ---- slabs ---- */

static struct slab *slab_open(struct slab_cache *c)
{
    struct slab_memory *m = c->memory;
    if (list_empty(&m->open) && !region_open(m))
        return NULL;
    struct region *r = container_of(m->open.next, struct region, node);
    if (r->free == UINT32_MAX)
        m->spare = false;
    size_t i = (size_t)__builtin_ctz(r->free);
    r->free &= r->free - 1;
    if (!r->free)
        list_remove(&r->node);
    struct slab *s = &r->slabs[i];
    uint8_t *begin = (uint8_t *)r + i * SLAB_BYTES, *end = begin + SLAB_BYTES;
    if (i == 0)
        begin += sizeof *r;
    s->size = (uint32_t)c->size;
    s->given = NULL;
    s->fresh = begin;
    s->end = begin + (size_t)(end - begin) / c->size * c->size;
    ASAN_POISON_MEMORY_REGION(begin, (size_t)(end - begin));
    assert(s->live == 0 && list_empty(&s->node));
    list_push_back(&c->partial, &s->node);
    return s;
}

/*
 * The first open region gives the next slab until it is full, so that the others become empty. One
 * that is empty stays, behind all others: the next burst begins there.
 */
static void slab_close(struct slab_memory *m, struct region *r, struct slab *s)
{
    assert(s->live == 0);
    list_remove(&s->node);
    r->free |= 1u << (s - r->slabs);
    if (r->free == UINT32_MAX)
        list_remove(&r->node);
    if (list_empty(&r->node))
        list_push_back(m->spare ? list_last(&m->open) : &m->open, &r->node);
    if (r->free != UINT32_MAX)
        return;
    if (m->spare)
        region_close(m, r);
    m->spare = true;
}

/* ---- blocks ---- */

void slab_cache_init(struct slab_cache *c, struct slab_memory *m, size_t size)
{
    assert(size >= sizeof(void *) && size <= SLAB_MOST);
    *c = (struct slab_cache){.memory = m, .size = size};
    list_init(&c->partial);
}

static bool slab_full(const struct slab *s)
{
    return !s->given && s->fresh == s->end;
}

void *slab_take(struct slab_cache *c)
{
    struct list *first = list_first(&c->partial);
    struct slab *s = first ? container_of(first, struct slab, node) : slab_open(c);
    if (!s)
        return NULL;
    assert(s->size == c->size && !slab_full(s));
    uint8_t *block = s->given ? s->given : s->fresh;
    ASAN_UNPOISON_MEMORY_REGION(block, c->size);
    if (s->given)
        memcpy(&s->given, block, sizeof s->given);
    else
        s->fresh += c->size;
    s->live++;
    c->live++;
    if (slab_full(s))
        list_remove(&s->node);
    /* The next one is asked for soon. */
    const uint8_t *next = s->given ? s->given : s->fresh;
    for (size_t at = 0; at < AHEAD_BYTES; at += 64)
        __builtin_prefetch(next + at, 1);
    return block;
}

void slab_give(struct slab_cache *c, void *block)
{
    struct region *r = region_of(block);
    struct slab *s = &r->slabs[(size_t)((uint8_t *)block - (uint8_t *)r) / SLAB_BYTES];
    assert(s->live > 0 && s->size == c->size);
    if (slab_full(s))
        list_push_back(&c->partial, &s->node);
    memcpy(block, &s->given, sizeof s->given);
    s->given = block;
    ASAN_POISON_MEMORY_REGION(block, s->size);
    c->live--;
    if (--s->live == 0)
        slab_close(c->memory, r, s);
}
