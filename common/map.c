/* SPDX-License-Identifier: Apache-2.0 */
#include "common/map.h"

#include <assert.h>
#include <stdlib.h>

#define MAP_FIRST 16u /* cells of the first allocation; a power of two */

/* Both tables are at most two thirds full: beyond that linear probing gets long. */
static bool map_is_full(size_t count, size_t mask)
{
    return mask == 0 || (count + 1) * 3 > (mask + 1) * 2;
}

/*
 * May the entry whose home is `home`, now at `at`, move back to the hole at `hole`? Only if its
 * home does not lie in (hole, at], or a search from its home would stop before finding it.
 */
static bool map_may_shift(size_t home, size_t hole, size_t at, size_t mask)
{
    return ((at - home) & mask) >= ((at - hole) & mask);
}

/* ---------------------------------------------------------------------------------- idmap */

/*
 * Where a search for the key starts. Groups of four consecutive keys share a cache line, and the
 * groups are scattered (Fibonacci hashing): were they kept in sequence, too, then a long run of old
 * ids in the way of new ones would cost a walk over all of it.
 */
static size_t idmap_home(const struct idmap *m, uint64_t key)
{
    uint64_t group = (key >> 2) * UINT64_C(0x9e3779b97f4a7c15);
    return ((size_t)(group >> 32) << 2 | (size_t)(key & 3)) & m->mask;
}

/* The cell that holds the key, or the free one where it would go. */
static size_t idmap_find(const struct idmap *m, uint64_t key)
{
    size_t i = idmap_home(m, key);
    while (m->cells[i].key != 0 && m->cells[i].key != key)
        i = (i + 1) & m->mask;
    return i;
}

void idmap_free(struct idmap *m)
{
    free(m->cells);
    *m = (struct idmap){0};
}

static bool idmap_grow(struct idmap *m)
{
    size_t cells = m->mask ? (m->mask + 1) * 2 : MAP_FIRST;
    struct idmap larger = {.mask = cells - 1, .count = m->count};
    larger.cells = calloc(cells, sizeof *larger.cells);
    if (!larger.cells)
        return false;
    for (size_t i = 0; m->mask && i <= m->mask; i++)
        if (m->cells[i].key != 0)
            larger.cells[idmap_find(&larger, m->cells[i].key)] = m->cells[i];
    free(m->cells);
    *m = larger;
    return true;
}

bool idmap_put(struct idmap *m, uint64_t key, uint64_t value)
{
    assert(key != 0);
    /* What replaces needs no room, and cannot fail. */
    if (map_is_full(m->count, m->mask) && !idmap_get(m, key, NULL) && !idmap_grow(m))
        return false;
    struct idmap_cell *cell = &m->cells[idmap_find(m, key)];
    if (cell->key == 0)
        m->count++;
    *cell = (struct idmap_cell){key, value};
    return true;
}

bool idmap_get(const struct idmap *m, uint64_t key, uint64_t *value)
{
    if (m->count == 0 || key == 0)
        return false;
    const struct idmap_cell *cell = &m->cells[idmap_find(m, key)];
    if (cell->key == 0)
        return false;
    if (value)
        *value = cell->value;
    return true;
}

void idmap_expect(const struct idmap *m, uint64_t key)
{
    if (m->mask)
        __builtin_prefetch(&m->cells[idmap_home(m, key)]);
}

bool idmap_remove(struct idmap *m, uint64_t key)
{
    if (m->count == 0 || key == 0)
        return false;
    size_t hole = idmap_find(m, key);
    if (m->cells[hole].key == 0)
        return false;
    for (size_t i = (hole + 1) & m->mask; m->cells[i].key != 0; i = (i + 1) & m->mask) {
        if (map_may_shift(idmap_home(m, m->cells[i].key), hole, i, m->mask)) {
            m->cells[hole] = m->cells[i];
            hole = i;
        }
    }
    m->cells[hole] = (struct idmap_cell){0, 0};
    m->count--;
    return true;
}

bool idmap_next(const struct idmap *m, size_t *place, struct idmap_cell *cell)
{
    for (; m->mask && *place <= m->mask; ++*place) {
        if (m->cells[*place].key != 0) {
            *cell = m->cells[(*place)++];
            return true;
        }
    }
    return false;
}

/* --------------------------------------------------------------------------------- strmap */

struct sip {
    uint64_t v0, v1, v2, v3;
};

static uint64_t rotate(uint64_t x, unsigned bits)
{
    return x << bits | x >> (64 - bits);
}

static void sip_round(struct sip *s)
{
    s->v0 += s->v1;
    s->v1 = rotate(s->v1, 13) ^ s->v0;
    s->v0 = rotate(s->v0, 32);
    s->v2 += s->v3;
    s->v3 = rotate(s->v3, 16) ^ s->v2;
    s->v0 += s->v3;
    s->v3 = rotate(s->v3, 21) ^ s->v0;
    s->v2 += s->v1;
    s->v1 = rotate(s->v1, 17) ^ s->v2;
    s->v2 = rotate(s->v2, 32);
}

static void sip_word(struct sip *s, uint64_t word)
{
    s->v3 ^= word;
    sip_round(s);
    s->v0 ^= word;
}

/* SipHash-1-3 with both halves of its key made of the seed: nobody outside can aim at one cell. */
static uint32_t strmap_hash(uint64_t seed, struct slice key)
{
    struct sip s = {seed ^ UINT64_C(0x736f6d6570736575), ~seed ^ UINT64_C(0x646f72616e646f6d),
        seed ^ UINT64_C(0x6c7967656e657261), ~seed ^ UINT64_C(0x7465646279746573)};
    size_t whole = key.size & ~(size_t)7;
    uint64_t word;
    for (size_t i = 0; i < whole; i += 8) {
        memcpy(&word, key.data + i, 8);
        sip_word(&s, word);
    }
    word = (uint64_t)key.size << 56;
    for (size_t i = whole; i < key.size; i++)
        word |= (uint64_t)key.data[i] << (8 * (i - whole));
    sip_word(&s, word);
    s.v2 ^= 0xff;
    for (int i = 0; i < 3; i++)
        sip_round(&s);
    return (uint32_t)(s.v0 ^ s.v1 ^ s.v2 ^ s.v3);
}

static size_t strmap_find(const struct strmap *m, struct slice key, uint32_t hash)
{
    size_t i = hash & m->mask;
    while (m->cells[i].value && !(m->cells[i].hash == hash && slice_equal(m->cells[i].key, key)))
        i = (i + 1) & m->mask;
    return i;
}

void strmap_free(struct strmap *m)
{
    free(m->cells);
    *m = (struct strmap){.seed = m->seed};
}

static bool strmap_grow(struct strmap *m)
{
    size_t cells = m->mask ? (m->mask + 1) * 2 : MAP_FIRST;
    struct strmap larger = {.mask = cells - 1, .count = m->count, .seed = m->seed};
    larger.cells = calloc(cells, sizeof *larger.cells);
    if (!larger.cells)
        return false;
    for (size_t i = 0; m->mask && i <= m->mask; i++) {
        const struct strmap_cell *cell = &m->cells[i];
        if (cell->value)
            larger.cells[strmap_find(&larger, cell->key, cell->hash)] = *cell;
    }
    free(m->cells);
    *m = larger;
    return true;
}

bool strmap_put(struct strmap *m, struct slice key, void *value)
{
    assert(value);
    if (map_is_full(m->count, m->mask) && !strmap_get(m, key) && !strmap_grow(m))
        return false;
    uint32_t hash = strmap_hash(m->seed, key);
    struct strmap_cell *cell = &m->cells[strmap_find(m, key, hash)];
    if (!cell->value)
        m->count++;
    /* The old key may lie in the value that is replaced, so it goes, too. */
    *cell = (struct strmap_cell){key, value, hash};
    return true;
}

void *strmap_get(const struct strmap *m, struct slice key)
{
    if (m->count == 0)
        return NULL;
    return m->cells[strmap_find(m, key, strmap_hash(m->seed, key))].value;
}

void *strmap_remove(struct strmap *m, struct slice key)
{
    if (m->count == 0)
        return NULL;
    size_t hole = strmap_find(m, key, strmap_hash(m->seed, key));
    void *value = m->cells[hole].value;
    if (!value)
        return NULL;
    for (size_t i = (hole + 1) & m->mask; m->cells[i].value; i = (i + 1) & m->mask) {
        if (map_may_shift(m->cells[i].hash & m->mask, hole, i, m->mask)) {
            m->cells[hole] = m->cells[i];
            hole = i;
        }
    }
    m->cells[hole] = (struct strmap_cell){0};
    m->count--;
    return value;
}

bool strmap_next(const struct strmap *m, size_t *place, struct strmap_cell *cell)
{
    for (; m->mask && *place <= m->mask; ++*place) {
        if (m->cells[*place].value) {
            *cell = m->cells[(*place)++];
            return true;
        }
    }
    return false;
}
