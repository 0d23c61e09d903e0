/* SPDX-License-Identifier: Apache-2.0 */
/* Queues of the LMDB store: settings, counts of the tables, edges, and numbers that were purged. */
#include <stdlib.h>
#include "server/store/lmdb.h"

struct queue_row {
    uint64_t ready;
    uint64_t delayed;
    uint64_t dead;
    uint64_t edge_id;
    uint8_t edge_rank;
    uint8_t durability;
    uint8_t paused;
    uint8_t garbage; /* purged: no name, only rows that are still to be deleted */
    uint32_t spare;
};

static struct lmdb_queue *queue_add(struct lmdb *l, uint32_t number, struct slice name)
{
    struct lmdb_queue *q = store_alloc(sizeof(*q));
    uint8_t *copy = store_alloc(name.size);
    memcpy(copy, name.data, name.size);
    q->name = slice_of(copy, name.size);
    q->number = number;
    if (l->queue_count == l->queue_capacity)
        l->queues = store_grow(l->queues, &l->queue_capacity, sizeof(struct lmdb_queue *));
    l->queues[l->queue_count++] = q;
    if (!strmap_put(&l->queue_names, q->name, q) ||
        !idmap_put(&l->queue_numbers, number, (uintptr_t)q))
        abort();
    return q;
}

static void garbage_add(struct lmdb *l, uint32_t number)
{
    if (l->garbage_count == l->garbage_capacity)
        l->garbage = store_grow(l->garbage, &l->garbage_capacity, sizeof(*l->garbage));
    l->garbage[l->garbage_count++] = number;
}

static void queue_load(struct lmdb *l, uint32_t number, struct slice value)
{
    struct queue_row row;
    if (value.size < sizeof(row))
        return;
    memcpy(&row, value.data, sizeof(row));
    if (number >= l->next_queue)
        l->next_queue = number + 1;
    if (row.garbage) {
        garbage_add(l, number);
        return;
    }
    struct lmdb_queue *q =
        queue_add(l, number, slice_of(value.data + sizeof(row), value.size - sizeof(row)));
    q->durability = (enum durability)row.durability;
    q->paused = row.paused != 0;
    q->ready = row.ready;
    q->delayed = row.delayed;
    q->dead = row.dead;
    q->edge = q->edge_at_open = (struct order_key){row.edge_rank, row.edge_id};
}

/*
 * What may have been running when this life began. A store that is opened again in between has
 * newer edges, which say nothing of that; it may take several tries, so they are kept apart.
 */
struct lmdb_edge {
    struct slice name;
    struct order_key edge;
};

void queues_keep_edges(struct lmdb *l)
{
    struct arena *a = &l->life;
    l->edges = store_arena_alloc(a, (l->queue_count + 1) * sizeof(*l->edges));
    l->edge_count = l->queue_count;
    for (size_t i = 0; i < l->queue_count; i++) {
        const struct lmdb_queue *q = l->queues[i];
        l->edges[i].name = slice_of(arena_copy(a, q->name.data, q->name.size), q->name.size);
        l->edges[i].edge = q->edge_at_open;
    }
}

static void edges_restore(struct lmdb *l)
{
    for (size_t i = 0; i < l->queue_count; i++)
        l->queues[i]->edge_at_open = (struct order_key){0};
    for (size_t i = 0; i < l->edge_count; i++) {
        struct lmdb_queue *q = lmdb_queue_find(l, l->edges[i].name);
        if (q)
            q->edge_at_open = l->edges[i].edge;
    }
}

void queues_load(struct lmdb *l)
{
    MDB_cursor *c = table_cursor(l, TABLE_QUEUES);
    struct slice key = {0};
    struct slice value;
    l->next_queue = 1;
    for (bool more = cursor_get(l, c, &key, &value, MDB_FIRST); more;
         more = cursor_get(l, c, &key, &value, MDB_NEXT))
        queue_load(l, (uint32_t)key_read(key.data, 4), value);
    cursor_close(c);
    if (l->edges)
        edges_restore(l);
}

static void row_put(struct lmdb *l, uint32_t number, const struct queue_row *row, struct slice name)
{
    uint8_t key[4];
    key_u32(key, number);
    uint8_t *to = table_reserve(l, TABLE_QUEUES, key, sizeof(key), sizeof(*row) + name.size);
    if (!to)
        return;
    memcpy(to, row, sizeof(*row));
    if (name.size)
        memcpy(to + sizeof(*row), name.data, name.size);
}

static void queue_save(struct lmdb *l, struct lmdb_queue *q)
{
    struct queue_row row = {.ready = q->ready,
        .delayed = q->delayed,
        .dead = q->dead,
        .edge_id = q->edge.id,
        .edge_rank = q->edge.rank,
        .durability = (uint8_t)q->durability,
        .paused = q->paused};
    row_put(l, q->number, &row, q->name);
    q->changed = false;
}

void lmdb_queue_touch(struct lmdb *l, struct lmdb_queue *q)
{
    if (q->changed)
        return;
    q->changed = true;
    q->next_changed = l->changed;
    l->changed = q;
}

void queues_save(struct lmdb *l)
{
    for (; l->changed; l->changed = l->changed->next_changed)
        queue_save(l, l->changed);
}

void queues_free(struct lmdb *l)
{
    for (size_t i = 0; i < l->queue_count; i++) {
        struct lmdb_queue *q = l->queues[i];
        for (unsigned rank = 0; rank < LMDB_RANKS; rank++)
            free(q->ranks[rank].places);
        free((void *)(uintptr_t)q->name.data);
        free(q);
    }
    free(l->queues);
    free(l->garbage);
    strmap_free(&l->queue_names);
    idmap_free(&l->queue_numbers);
    l->queues = NULL;
    l->changed = NULL;
    l->garbage = NULL;
    l->queue_count = l->queue_capacity = l->garbage_count = l->garbage_capacity = 0;
}

struct lmdb_queue *lmdb_queue_find(struct lmdb *l, struct slice name)
{
    return strmap_get(&l->queue_names, name);
}

struct lmdb_queue *lmdb_queue_get(struct lmdb *l, struct slice name)
{
    struct lmdb_queue *q = lmdb_queue_find(l, name);
    if (!q) {
        q = queue_add(l, l->next_queue++, name);
        lmdb_queue_touch(l, q);
    }
    return q;
}

struct lmdb_queue *queue_numbered(struct lmdb *l, uint32_t number)
{
    return idmap_pointer(&l->queue_numbers, number);
}

/* ---- purged rows ---- */

void queue_renumber(struct lmdb *l, struct lmdb_queue *q)
{
    struct queue_row row = {.garbage = 1};
    row_put(l, q->number, &row, (struct slice){0});
    garbage_add(l, q->number);
    idmap_remove(&l->queue_numbers, q->number);
    q->number = l->next_queue++;
    if (!idmap_put(&l->queue_numbers, q->number, (uintptr_t)q))
        abort();
    q->ready = q->delayed = 0;
    lmdb_queue_touch(l, q);
}

/* Only while it has that number: a purge may have kept the task, or it was revived since. */
static void purged_task_delete(struct lmdb *l, uint32_t number, uint64_t id)
{
    struct slice row, packed, finish;
    struct record r;
    uint8_t key[17];
    uint32_t owner;
    if (!table_copy(l, TABLE_TASKS, &id, sizeof(id), &row) ||
        !task_row_split(row, &owner, &packed) || owner != number ||
        !record_unpack(packed.data, packed.size, &r, NULL))
        return;
    table_delete(l, TABLE_TASKS, &id, sizeof(id));
    agenda_key(key, r.due_ms, AGENDA_DUE, id);
    if (r.due_ms)
        table_delete(l, TABLE_AGENDA, key, sizeof(key));
    agenda_key(key, r.expires_ms, AGENDA_EXPIRE, id);
    if (r.expires_ms)
        table_delete(l, TABLE_AGENDA, key, sizeof(key));
    /* A dead letter, or a task that was revived from one, still needs them. */
    if (slice_detached(r.payload) && !index_get(l, id) && !dead_get(l, id, &finish, &finish))
        parts_delete(l, TABLE_PARTS, id, 0, r.payload.size);
}

/* Deletes rows that begin with the number; false: there are none left. */
static bool garbage_rows(struct lmdb *l, enum table t, uint32_t number, uint32_t rows)
{
    uint8_t prefix[4];
    key_u32(prefix, number);
    MDB_cursor *c = table_cursor(l, t);
    bool more = true;
    while (more && rows--) {
        struct slice key = slice_of(prefix, sizeof(prefix));
        struct slice value;
        more = cursor_get(l, c, &key, &value, MDB_SET_RANGE) && key.size >= sizeof(prefix) &&
               memcmp(key.data, prefix, sizeof(prefix)) == 0;
        if (!more)
            break;
        uint64_t id = t == TABLE_READY ? key_read(key.data + 5, 8) : 0;
        if (cursor_delete(l, c) && id)
            purged_task_delete(l, number, id);
    }
    cursor_close(c);
    return more && !l->error;
}

/* A few rows with each commit: to delete those of millions would hold up every queue for seconds.
 */
void queue_garbage_step(struct lmdb *l, uint32_t rows)
{
    uint8_t key[4];
    if (l->garbage_count == 0)
        return;
    uint32_t number = l->garbage[l->garbage_count - 1];
    if (garbage_rows(l, TABLE_READY, number, rows) || garbage_rows(l, TABLE_UNIQUE, number, rows))
        return;
    if (l->error)
        return;
    key_u32(key, number);
    table_delete(l, TABLE_QUEUES, key, sizeof(key));
    l->garbage_count--;
}
