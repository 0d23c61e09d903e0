/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The index of what the tables do not know yet: by id, by queue and rank, by time.
 */
#include <stdlib.h>
#include "common/list.h"
#include "server/store/lmdb.h"

#define SLAB       ((size_t)256)   /* entries */
#define REST_CELLS ((size_t)65536) /* of the map: below, nothing is worth giving back */

/* With its share of the map, which is half empty, and of the lists of its generation and rank. */
#define ENTRY_BYTES                                                                                \
    (sizeof(struct entry) + 2 * sizeof(struct idmap_cell) + 2 * sizeof(struct place))

struct entry *index_get(const struct lmdb *l, uint64_t id)
{
    return idmap_pointer(&l->index.entries, id);
}

static struct entry *entry_alloc(struct index *x)
{
    if (!x->free) {
        struct entry *slab = store_arena_alloc(&x->slabs, SLAB * sizeof(*slab));
        for (size_t i = 0; i < SLAB; i++) {
            slab[i].next_free = x->free;
            x->free = &slab[i];
        }
    }
    struct entry *e = x->free;
    x->free = e->next_free;
    return e;
}

/* Tasks that ended within their group leave no journal row, so no generation would take theirs. */
static void fresh_sweep(struct index *x)
{
    size_t kept = 0;
    for (size_t i = 0; i < x->fresh_count; i++)
        if (x->fresh[i].entry->id == x->fresh[i].id)
            x->fresh[kept++] = x->fresh[i];
    x->fresh_count = kept;
}

static void fresh_add(struct index *x, struct entry *e)
{
    if (x->fresh_count == x->fresh_capacity) {
        fresh_sweep(x);
        if (x->fresh_count >= x->fresh_capacity / 2)
            x->fresh = store_grow(x->fresh, &x->fresh_capacity, sizeof(*x->fresh));
    }
    x->fresh[x->fresh_count++] = (struct place){e->id, e};
}

struct entry *index_add(struct lmdb *l, uint64_t id, struct lmdb_queue *q, bool in_tables)
{
    struct index *x = &l->index;
    struct entry *e = entry_alloc(x);
    *e = (struct entry){.id = id,
        .queue = q,
        .generation = x->generation,
        .group = l->group,
        .state = ENTRY_ENDED,
        .in_tables = in_tables};
    if (!idmap_put(&x->entries, id, (uintptr_t)e))
        abort();
    fresh_add(x, e);
    x->bytes += ENTRY_BYTES;
    return e;
}

/* ---- places ---- */

static void agenda_leave(struct lmdb *l, struct entry *e)
{
    if (!e->agenda)
        return;
    heap_remove(&l->index.agenda, &e->agenda->due);
    heap_remove(&l->index.agenda, &e->agenda->expiry);
    free(e->agenda);
    e->agenda = NULL;
}

static void agenda_enter(struct lmdb *l, struct entry *e, uint64_t due_ms, uint64_t expires_ms)
{
    if (!due_ms && !expires_ms)
        return;
    struct heap *heap = &l->index.agenda;
    struct entry_agenda *a = store_alloc(sizeof(*a));
    a->entry = e;
    e->agenda = a;
    if (due_ms && !heap_push(heap, &a->due, agenda_moment(due_ms, AGENDA_DUE), e->id))
        abort();
    if (expires_ms && !heap_push(heap, &a->expiry, agenda_moment(expires_ms, AGENDA_EXPIRE), e->id))
        abort();
}

static void rank_sweep(struct lmdb_queue *q, uint8_t rank);

static void rank_enter(struct entry *e)
{
    struct rank_places *r = &e->queue->ranks[e->rank];
    if (e->listed)
        return;
    if (r->count == r->capacity) {
        rank_sweep(e->queue, e->rank); /* most have passed already */
        if (r->count >= r->capacity / 2)
            r->places = store_grow(r->places, &r->capacity, sizeof(*r->places));
    }
    if (r->count && r->places[r->count - 1].id >= e->id)
        r->unsorted = true;
    r->places[r->count++] = (struct place){e->id, e};
    e->listed = true;
}

static void bytes_set(
    struct lmdb *l, struct entry *e, struct chunk *chunk, size_t offset, size_t size)
{
    struct chunk *old = e->chunk;
    if (chunk)
        chunk->references++;
    e->chunk = chunk;
    e->offset = (uint32_t)offset;
    e->size = (uint32_t)size;
    if (old)
        chunk_unref(l, old);
}

void index_load(const struct entry *e, struct record *r, struct packed_state *state)
{
    record_load(e->chunk->data + e->offset, e->size, r, state);
}

void index_record(struct lmdb *l, struct entry *e, struct chunk *chunk, size_t offset, size_t size)
{
    struct record r;
    struct packed_state state;
    agenda_leave(l, e);
    bytes_set(l, e, chunk, offset, size);
    index_load(e, &r, &state);
    e->rank = (uint8_t)(9 - r.priority);
    e->state = r.due_ms ? ENTRY_DELAYED : ENTRY_READY;
    if (e->state == ENTRY_READY)
        rank_enter(e);
    agenda_enter(l, e, r.due_ms, state.expiry_told ? 0 : r.expires_ms);
}

void index_ended(struct lmdb *l, struct entry *e, struct chunk *chunk, size_t offset, size_t size)
{
    agenda_leave(l, e);
    bytes_set(l, e, chunk, offset, size);
    e->state = ENTRY_ENDED;
    e->group = 0; /* the journal has this end: it must know what becomes of a later life, too */
}

void index_forget(struct lmdb *l, struct entry *e)
{
    if (e->in_tables)
        index_ended(l, e, NULL, 0, 0);
    else
        index_remove(l, e);
}

void index_remove(struct lmdb *l, struct entry *e)
{
    struct index *x = &l->index;
    index_ended(l, e, NULL, 0, 0);
    idmap_remove(&x->entries, e->id);
    e->id = 0;
    x->bytes -= ENTRY_BYTES;
    e->next_free = x->free;
    x->free = e;
}

void index_clear(struct lmdb *l)
{
    struct index *x = &l->index;
    size_t place = 0;
    struct idmap_cell cell;
    while (idmap_next(&x->entries, &place, &cell)) {
        index_ended(l, (struct entry *)(uintptr_t)cell.value, NULL, 0, 0);
        x->bytes -= ENTRY_BYTES;
    }
    idmap_free(&x->entries);
    heap_free(&x->agenda);
    store_arena_free(&x->slabs);
    free(x->fresh);
    free(x->aging);
    uint64_t bytes = x->bytes; /* of chunks that others hold, too */
    *x = (struct index){.fresh_since_ns = LMDB_NEVER, .bytes = bytes};
}

/*
 * All is in the tables: what a burst of submissions needed is given back as a whole. Places of
 * queues point into the slabs, so they go, too.
 */
void index_rest(struct lmdb *l)
{
    struct index *x = &l->index;
    uint32_t generation = x->generation;
    if (x->entries.count || x->entries.mask < REST_CELLS)
        return;
    for (size_t i = 0; i < l->queue_count; i++) {
        for (unsigned rank = 0; rank < LMDB_RANKS; rank++) {
            free(l->queues[i]->ranks[rank].places);
            l->queues[i]->ranks[rank] = (struct rank_places){0};
        }
    }
    index_clear(l);
    x->generation = generation;
}

/* ---- the order of one queue and rank ---- */

/* Where the ascending run that begins at `at` ends. */
static size_t run_end(const struct place *places, size_t at, size_t count)
{
    while (++at < count && places[at - 1].id <= places[at].id)
        ;
    return at < count ? at : count;
}

/* Two runs beside each other, [0, middle) and [middle, count), become one. */
static void runs_merge(const struct place *from, size_t middle, size_t count, struct place *to)
{
    size_t a = 0;
    size_t b = middle;
    while (a < middle && b < count)
        *to++ = from[b].id < from[a].id ? from[b++] : from[a++];
    memcpy(to, from + a, (middle - a) * sizeof(*to));
    memcpy(to + (middle - a), from + b, (count - b) * sizeof(*to));
}

/* Ids come in long runs, those that are appended and those that end in turn. */
void places_sort(struct place *places, size_t count)
{
    if (run_end(places, 0, count) == count)
        return;
    struct place *spare = store_alloc(count * sizeof(*spare));
    struct place *from = places;
    struct place *to = spare;
    for (size_t runs = 2; runs > 1;) {
        runs = 0;
        for (size_t at = 0, end; at < count; at = end, runs++) {
            size_t middle = run_end(from, at, count);
            end = middle < count ? run_end(from, middle, count) : count;
            runs_merge(from + at, middle - at, end - at, to + at);
        }
        struct place *sorted = to;
        to = from;
        from = sorted;
    }
    if (from != places)
        memcpy(places, from, count * sizeof(*places));
    free(spare);
}

/* A task may be listed twice, or in vain, once its entry went or moved on: only this one counts. */
static struct entry *rank_entry(const struct lmdb_queue *q, uint8_t rank, struct place place)
{
    struct entry *e = place.entry;
    return e->id == place.id && e->listed && e->queue == q && e->rank == rank ? e : NULL;
}

/* Drops the places without an entry, so that the array does not grow with what has passed. */
static void rank_sweep(struct lmdb_queue *q, uint8_t rank)
{
    struct rank_places *r = &q->ranks[rank];
    size_t kept = 0;
    if (r->unsorted)
        places_sort(r->places + r->first, r->count - r->first);
    r->unsorted = false;
    for (size_t i = r->first; i < r->count; i++)
        if ((!kept || r->places[kept - 1].id != r->places[i].id) &&
            rank_entry(q, rank, r->places[i]))
            r->places[kept++] = r->places[i];
    r->first = 0;
    r->count = kept;
}

size_t index_rank_seek(struct lmdb_queue *q, uint8_t rank, uint64_t after)
{
    struct rank_places *r = &q->ranks[rank];
    if (r->unsorted)
        rank_sweep(q, rank);
    while (r->first < r->count && !rank_entry(q, rank, r->places[r->first]))
        r->first++;
    size_t low = r->first;
    for (size_t high = r->count; low < high;) {
        size_t middle = low + (high - low) / 2;
        if (r->places[middle].id <= after)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct entry *index_rank_next(const struct lmdb_queue *q, uint8_t rank, size_t *place)
{
    const struct rank_places *r = &q->ranks[rank];
    for (; *place < r->count; ++*place) {
        struct entry *e = rank_entry(q, rank, r->places[*place]);
        if (e && e->state == ENTRY_READY)
            return e;
    }
    return NULL;
}
