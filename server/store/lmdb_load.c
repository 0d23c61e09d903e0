/* SPDX-License-Identifier: Apache-2.0 */
/* From the directory to a store that can work: tables, journal, and what open() tells. */
#include <stdlib.h>
#include "server/store/lmdb.h"

static uint64_t last_task(struct lmdb *l)
{
    MDB_cursor *c = table_cursor(l, TABLE_TASKS);
    struct slice key = {0};
    struct slice value;
    uint64_t id = 0;
    if (cursor_get(l, c, &key, &value, MDB_LAST))
        memcpy(&id, key.data, sizeof(id));
    cursor_close(c);
    return id;
}

char *lmdb_load(struct lmdb *l)
{
    char *error = lmdb_env_open(l);
    if (error)
        return error;
    l->error = 0;
    l->sequence = 0;
    l->group = 0;
    l->id_ceiling = meta_get(l, "ids", 1);
    l->max_table_id = last_task(l);
    queues_load(l);
    results_load(l);
    journal_replay(l);
    store_arena_free(&l->scratch);
    l->group = 1;
    if (!l->error)
        return NULL;
    error = lmdb_open_failed(l, l->error);
    lmdb_unload(l);
    return error;
}

void lmdb_unload(struct lmdb *l)
{
    index_clear(l);
    queues_free(l);
    lmdb_env_close(l);
    store_arena_free(&l->scratch);
}

/* ---- what open() tells ---- */

/* What the index knows changes what the tables count. */
static void count_entry(struct lmdb *l, const struct entry *e, struct store_queue *q)
{
    struct slice row, packed;
    struct record r;
    uint32_t number;
    if (e->in_tables && table_get(l, TABLE_TASKS, &e->id, sizeof(e->id), &row) &&
        task_row_split(row, &number, &packed) &&
        record_unpack(packed.data, packed.size, &r, NULL)) {
        q->ready -= r.due_ms == 0;
        q->delayed -= r.due_ms != 0;
    }
    q->ready += e->state == ENTRY_READY;
    q->delayed += e->state == ENTRY_DELAYED;
}

static void tell_queues(struct lmdb *l, struct store_opened *opened)
{
    struct store_queue *told =
        store_arena_alloc(&l->opened, (l->queue_count + 1) * sizeof(struct store_queue));
    struct idmap places = {0};
    size_t place = 0;
    struct idmap_cell cell;
    for (size_t i = 0; i < l->queue_count; i++) {
        const struct lmdb_queue *q = l->queues[i];
        struct slice name =
            slice_of(arena_copy(&l->opened, q->name.data, q->name.size), q->name.size);
        told[i] =
            (struct store_queue){name, q->durability, q->paused, q->ready, q->delayed, q->dead};
        idmap_put(&places, (uintptr_t)q, i);
    }
    while (idmap_next(&l->index.entries, &place, &cell)) {
        const struct entry *e = (const struct entry *)(uintptr_t)cell.value;
        uint64_t i = 0;
        idmap_get(&places, (uintptr_t)e->queue, &i);
        count_entry(l, e, &told[i]);
    }
    idmap_free(&places);
    opened->queues = told;
    opened->queue_count = l->queue_count;
}

/* Nothing is left that an edge could be about. */
static void reset_edges(struct lmdb *l, const struct store_opened *opened)
{
    for (size_t i = 0; i < l->queue_count; i++) {
        struct lmdb_queue *q = l->queues[i];
        if (opened->queues[i].ready + opened->queues[i].delayed || !q->edge.id)
            continue;
        q->edge = q->edge_at_open = (struct order_key){0};
        lmdb_queue_touch(l, q);
    }
}

static void tell_workers(struct lmdb *l, struct store_opened *opened)
{
    MDB_cursor *c = table_cursor(l, TABLE_WORKERS);
    struct slice key = {0};
    struct slice value;
    uint8_t(*workers)[16] = NULL;
    size_t capacity = 0;
    size_t count = 0;
    for (bool more = cursor_get(l, c, &key, &value, MDB_FIRST); more;
         more = cursor_get(l, c, &key, &value, MDB_NEXT)) {
        if (count == capacity)
            workers = store_grow(workers, &capacity, sizeof(*workers));
        if (key.size == sizeof(*workers))
            memcpy(workers[count++], key.data, key.size);
    }
    cursor_close(c);
    opened->workers = arena_copy(&l->opened, workers, count * sizeof(*workers));
    opened->worker_count = count;
    free(workers);
}

void lmdb_tell_opened(struct lmdb *l, struct store_opened *opened)
{
    *opened = (struct store_opened){.boot = l->boot};
    tell_queues(l, opened);
    reset_edges(l, opened);
    queues_keep_edges(l);
    tell_workers(l, opened);
    opened->next_due_ms = agenda_next(l);
    opened->first_id = l->id_ceiling;
    opened->id_count = l->id_block;
    l->max_id = l->id_ceiling - 1;
    l->id_ceiling += l->id_block;
    meta_put(l, "ids", l->id_ceiling);
}
