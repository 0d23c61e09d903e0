/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdlib.h>
#include "server/core/verbs.h"

#define SLOT_BITS       24u
#define GENERATION_MASK 0xffffffu
#define SLOT_MASK       0xffffffu
#define LEDGER_FREE     0x80000000u /* in a generation: nobody has the slot */
#define LEDGER_FIRST    1024u

static bool ledger_grow(struct ledger *l)
{
    uint32_t capacity = l->capacity ? l->capacity * 2 : LEDGER_FIRST;
    if (capacity > SLOT_MASK + 1)
        return false;
    struct ledger_slot *slots = realloc(l->slots, capacity * sizeof *slots);
    if (!slots)
        return false;
    l->slots = slots;
    uint32_t *generations = realloc(l->generations, capacity * sizeof *generations);
    if (!generations)
        return false;
    l->generations = generations;
    l->capacity = capacity;
    return true;
}

/* The slot freed last is taken first: it is still in the cache. */
static bool ledger_slot(struct ledger *l, uint32_t *slot)
{
    if (l->first_free) {
        *slot = (uint32_t)(l->first_free - 1);
        l->first_free = l->slots[*slot].next_free;
        return true;
    }
    if (l->used == l->capacity && !ledger_grow(l))
        return false;
    *slot = l->used++;
    l->generations[*slot] = LEDGER_FREE;
    return true;
}

static void ledger_give_back(struct ledger *l, uint32_t slot)
{
    assert(slot < l->used);
    l->generations[slot] |= LEDGER_FREE;
    l->slots[slot].next_free = l->first_free;
    l->first_free = (uint64_t)slot + 1;
}

bool ledger_add(struct ledger *l, struct task *t)
{
    uint32_t slot;
    assert(t->record.id != 0 && !ledger_find(l, t->record.id));
    if (!ledger_slot(l, &slot))
        return false;
    if (!idmap_put(&l->by_id, t->record.id, slot)) {
        ledger_give_back(l, slot);
        return false;
    }
    l->generations[slot] &= GENERATION_MASK;
    l->slots[slot].task = t;
    t->slot = slot;
    l->count++;
    return true;
}

void ledger_remove(struct ledger *l, struct task *t)
{
    assert(ledger_at(l, t->slot) == t);
    idmap_remove(&l->by_id, t->record.id);
    ledger_give_back(l, t->slot);
    l->count--;
}

uint64_t ledger_lease(struct ledger *l, const struct task *t)
{
    assert(ledger_at(l, t->slot) == t && l->boot > 0 && l->boot < 0x8000);
    uint32_t generation = (l->generations[t->slot] + 1) & GENERATION_MASK;
    l->generations[t->slot] = generation;
    return l->boot << (2 * SLOT_BITS) | (uint64_t)generation << SLOT_BITS | t->slot;
}

struct task *ledger_at(const struct ledger *l, uint64_t slot)
{
    if (slot >= l->used || l->generations[slot] & LEDGER_FREE)
        return NULL;
    assert(l->slots[slot].task->slot == slot);
    return l->slots[slot].task;
}

struct task *ledger_find(const struct ledger *l, uint64_t id)
{
    uint64_t slot;
    if (!idmap_get(&l->by_id, id, &slot))
        return NULL;
    assert(ledger_at(l, slot));
    return ledger_at(l, slot);
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

void ledger_free(struct ledger *l)
{
    assert(l->count == 0);
    free(l->slots);
    free(l->generations);
    idmap_free(&l->by_id);
}
