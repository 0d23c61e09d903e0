/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ledger: every task in memory, by slot and by id. It owns the places, not the tasks. A slot is
 * given again at once; the generation in the lease tells its tasks apart. An answer finds its task
 * by the lease without a hash: 20 ns with 10,000 in the window, a quarter of what the hash takes.
 */
#include <assert.h>
#include <stdlib.h>
#include "server/core/verbs.h"

/* A lease: boot (15 bits), attempts that counted before it (8), generation (16), slot (24). */
#define SLOT_BITS       24u
#define SLOT_MASK       0xffffffu
#define GENERATION_MASK 0xffffu
#define ATTEMPTS_SHIFT  40u
#define ATTEMPTS_MASK   0xffu /* as many, or more */
#define BOOT_SHIFT      48u
#define LEDGER_FIRST    1024u

static bool ledger_grow(struct ledger *l)
{
    uint32_t capacity = l->capacity ? l->capacity * 2 : LEDGER_FIRST;
    assert(l->used == l->capacity);
    if (capacity > SLOT_MASK + 1)
        return false;
    struct ledger_slot *slots = realloc(l->slots, capacity * sizeof *slots);
    if (!slots)
        return false;
    l->slots = slots;
    l->capacity = capacity;
    return true;
}

/* The slot freed last is taken first: it is still in the cache. */
static bool ledger_slot(struct ledger *l, uint32_t *slot)
{
    if (l->first_free) {
        *slot = l->first_free - 1;
        l->first_free = l->slots[*slot].next_free;
        return true;
    }
    if (l->used == l->capacity && !ledger_grow(l))
        return false;
    *slot = l->used++;
    l->slots[*slot] = (struct ledger_slot){0};
    return true;
}

static void ledger_give_back(struct ledger *l, uint32_t slot)
{
    assert(slot < l->used);
    l->slots[slot].task = NULL;
    l->slots[slot].next_free = l->first_free;
    l->first_free = slot + 1;
}

/* ---- by id ---- */

/* As in an idmap: four ids in sequence share a cache line, and such groups are scattered. */
static uint32_t index_home(const struct ledger *l, uint32_t id)
{
    uint32_t group = (id >> 2) * UINT32_C(0x9e3779b1);
    return (group >> 7 << 2 | (id & 3)) & l->mask;
}

/* The cell that holds the id, or the free one where it would go. */
static uint32_t index_find(const struct ledger *l, uint64_t id)
{
    uint32_t i = index_home(l, (uint32_t)id);
    assert(l->mask > 0);
    for (; l->cells[i].slot; i = (i + 1) & l->mask)
        if (l->cells[i].id == (uint32_t)id && l->slots[l->cells[i].slot - 1].task->record.id == id)
            break;
    return i;
}

static void index_put(struct ledger *l, struct ledger_cell cell)
{
    uint32_t i = index_home(l, cell.id);
    assert(cell.slot != 0);
    while (l->cells[i].slot)
        i = (i + 1) & l->mask;
    l->cells[i] = cell;
}

static bool index_resize(struct ledger *l, uint32_t cells)
{
    struct ledger_cell *old = l->cells, *resized = calloc(cells, sizeof *resized);
    if (!resized)
        return false;
    uint32_t before = l->mask ? l->mask + 1 : 0;
    assert(l->count < cells);
    l->cells = resized;
    l->mask = cells - 1;
    for (uint32_t i = 0; i < before; i++)
        if (old[i].slot)
            index_put(l, old[i]);
    free(old);
    return true;
}

/* At most two thirds full. */
static bool index_grow(struct ledger *l)
{
    if (!l->mask)
        return index_resize(l, LEDGER_FIRST);
    uint64_t cells = l->mask + UINT64_C(1);
    assert(l->count < cells);
    return (l->count + 1) * UINT64_C(3) <= cells * 2 || index_resize(l, (uint32_t)cells * 2);
}

/* After a burst: the ids that are left would lie a cache line each apart. */
static void index_shrink(struct ledger *l)
{
    uint64_t cells = l->mask + UINT64_C(1);
    assert(l->count < cells);
    if (cells > LEDGER_FIRST && l->count * UINT64_C(8) < cells)
        index_resize(l, (uint32_t)(cells / 2));
}

/* What comes after the hole moves up, unless its home lies behind the hole: no tombstones. */
static void index_remove(struct ledger *l, uint64_t id)
{
    uint32_t hole = index_find(l, id);
    assert(l->cells[hole].slot);
    for (uint32_t i = (hole + 1) & l->mask; l->cells[i].slot; i = (i + 1) & l->mask) {
        uint32_t home = index_home(l, l->cells[i].id);
        if (((i - home) & l->mask) < ((i - hole) & l->mask))
            continue;
        l->cells[hole] = l->cells[i];
        hole = i;
    }
    l->cells[hole].slot = 0;
}

/* ---- tasks ---- */

bool ledger_add(struct ledger *l, struct task *t)
{
    uint32_t slot;
    assert(t->record.id != 0 && !ledger_find(l, t->record.id));
    if (!index_grow(l) || !ledger_slot(l, &slot))
        return false;
    index_put(l, (struct ledger_cell){(uint32_t)t->record.id, slot + 1});
    l->slots[slot].task = t;
    t->slot = slot;
    l->count++;
    return true;
}

void ledger_remove(struct ledger *l, struct task *t)
{
    assert(ledger_at(l, t->slot) == t);
    index_remove(l, t->record.id);
    ledger_give_back(l, t->slot);
    l->count--;
    index_shrink(l);
}

static uint64_t lease_attempts(const struct task *t)
{
    assert(t->record.attempts <= t->record.max_attempts);
    return t->record.attempts < ATTEMPTS_MASK ? t->record.attempts : ATTEMPTS_MASK;
}

uint64_t ledger_lease(struct ledger *l, const struct task *t)
{
    assert(ledger_at(l, t->slot) == t && l->boot > 0 && l->boot < 0x8000);
    uint64_t generation = ++l->slots[t->slot].generation & GENERATION_MASK;
    return l->boot << BOOT_SHIFT | lease_attempts(t) << ATTEMPTS_SHIFT | generation << SLOT_BITS |
           t->slot;
}

bool ledger_gave(const struct ledger *l, uint64_t lease)
{
    assert(l->boot > 0);
    return lease >> BOOT_SHIFT == l->boot;
}

/* That attempt was counted since, in this life of the server or another: it has failed. */
bool lease_counted(const struct task *t, uint64_t lease)
{
    assert(t->record.id != 0);
    return (lease >> ATTEMPTS_SHIFT & ATTEMPTS_MASK) < lease_attempts(t);
}

struct task *ledger_at(const struct ledger *l, uint64_t slot)
{
    struct task *t = slot < l->used ? l->slots[slot].task : NULL;
    assert(!t || t->slot == slot);
    return t;
}

struct task *ledger_find(const struct ledger *l, uint64_t id)
{
    if (l->count == 0)
        return NULL;
    uint32_t slot = l->cells[index_find(l, id)].slot;
    assert(!slot || ledger_at(l, slot - 1));
    return slot ? l->slots[slot - 1].task : NULL;
}

/*
 * The slot in the lease finds the task without a hash. It may have another one by now: the lease is
 * from before a restart, or the task left memory and came back. Then the id finds it.
 */
struct task *ledger_find_lease(const struct ledger *l, uint64_t lease, uint64_t id)
{
    struct task *t = ledger_at(l, lease & SLOT_MASK);
    assert(!t || t->record.id != 0);
    return t && t->record.id == id ? t : ledger_find(l, id);
}

/*
 * Only a hint, and so without a look at who has the slot. The tasks of a tick are more than the
 * first caches hold: waiting for their memory was most of what a finish cost.
 */
void ledger_expect(const struct ledger *l, uint64_t lease, uint64_t id)
{
    uint64_t slot = lease & SLOT_MASK;
    if (slot >= l->used)
        return;
    task_expect(l->slots[slot].task);
    __builtin_prefetch(&l->cells[index_home(l, (uint32_t)id)], 1);
}

void ledger_free(struct ledger *l)
{
    assert(l->count == 0);
    free(l->slots);
    free(l->cells);
}
