/* SPDX-License-Identifier: Apache-2.0 */
/*
 * map: two hash tables with open addressing.
 *
 * idmap: u64 key (never 0) -> u64 value (a slot, or a pointer as uintptr_t). Ids are handed out in
 * sequence, so four neighbours share a cache line; the groups of four are scattered. Removal shifts
 * back, there are no tombstones.
 *
 * strmap: bytes -> pointer; the key is borrowed, usually from the value it leads to, and must stay
 * unchanged while it is in the map. Seeded SipHash, since names come from strangers.
 */
#ifndef COMMON_MAP_H
#define COMMON_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/slice.h"

struct idmap_cell {
    uint64_t key;
    uint64_t value;
};

struct idmap {
    struct idmap_cell *cells;
    size_t mask; /* cells - 1; 0: none allocated */
    size_t count;
};

void idmap_free(struct idmap *m);
/* Replaces, which cannot fail; false: no memory. */
bool idmap_put(struct idmap *m, uint64_t key, uint64_t value);
bool idmap_get(const struct idmap *m, uint64_t key, uint64_t *value); /* value may be NULL */
void idmap_expect(const struct idmap *m, uint64_t key); /* asked for soon: into the cache with it */
bool idmap_remove(struct idmap *m, uint64_t key);       /* false: it was not there */
/* Iterate: start with *place = 0; false at the end. The map must not change meanwhile. */
bool idmap_next(const struct idmap *m, size_t *place, struct idmap_cell *cell);

/* Of a map whose values are pointers; NULL: not there. */
static inline void *idmap_pointer(const struct idmap *m, uint64_t key)
{
    uint64_t value;
    return idmap_get(m, key, &value) ? (void *)(uintptr_t)value : NULL;
}

struct strmap_cell {
    struct slice key;
    void *value; /* NULL: the cell is free */
    uint32_t hash;
};

struct strmap {
    struct strmap_cell *cells;
    size_t mask;
    size_t count;
    uint64_t seed; /* set before the first put; any value is correct, a random one is safe */
};

void strmap_free(struct strmap *m);
bool strmap_put(struct strmap *m, struct slice key, void *value); /* replaces; value is not NULL */
void *strmap_get(const struct strmap *m, struct slice key);       /* NULL: not there */
void *strmap_remove(struct strmap *m, struct slice key);          /* the value, or NULL */
bool strmap_next(const struct strmap *m, size_t *place, struct strmap_cell *cell);

#endif
