/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PURGE of the LMDB store: the queue goes on under a new number, with the tasks that are kept;
 * the rows under the old one are deleted bit by bit, with later commits.
 */
#include <stdlib.h>
#include "server/store/lmdb.h"

/*
 * A kept finish goes to its table at once: the row of its task is garbage now, so after a restart
 * the journal's FINISH would be of a task that nobody knows.
 */
static void purge_entry(struct lmdb *l, struct entry *e)
{
    struct record r;
    if (e->state == ENTRY_ENDED) {
        if (e->chunk && !l->replaying)
            result_put_entry(l, e);
    } else if (!e->in_tables && !l->replaying) {
        index_load(e, &r, NULL);
        if (slice_detached(r.payload))
            parts_delete(l, TABLE_PARTS, e->id, 0, r.payload.size);
    }
    index_remove(l, e);
}

/* All entries of the queue go, but the live ones to keep. */
void purge_index(struct lmdb *l, struct lmdb_queue *q, const uint64_t *keep, size_t count)
{
    struct index *x = &l->index;
    struct entry **gone = store_alloc((x->entries.count + 1) * sizeof(struct entry *));
    size_t gone_count = 0;
    size_t place = 0;
    struct idmap_cell cell;
    while (idmap_next(&x->entries, &place, &cell)) {
        struct entry *e = (struct entry *)(uintptr_t)cell.value;
        if (e->queue == q && !purge_keeps(keep, count, e->id))
            gone[gone_count++] = e;
    }
    for (size_t i = 0; i < gone_count; i++)
        purge_entry(l, gone[i]);
    free(gone);
}

/* Live tasks of the queue: those in the tables, corrected by what the index knows of them. */
static uint64_t live_count(struct lmdb *l, const struct lmdb_queue *q)
{
    uint64_t live = q->ready + q->delayed;
    size_t place = 0;
    struct idmap_cell cell;
    while (idmap_next(&l->index.entries, &place, &cell)) {
        const struct entry *e = (const struct entry *)(uintptr_t)cell.value;
        if (e->queue != q)
            continue;
        live += e->state != ENTRY_ENDED && !e->in_tables;
        live -= e->state == ENTRY_ENDED && e->in_tables;
    }
    return live;
}

/* A row that stays goes over to the queue's new number. */
static void row_move(struct lmdb *l, struct lmdb_queue *q, uint32_t from, uint64_t id)
{
    struct slice row, packed;
    struct record r;
    uint32_t number;
    uint8_t key[13];
    if (!table_copy(l, TABLE_TASKS, &id, sizeof(id), &row) ||
        !task_row_split(row, &number, &packed) || number != from ||
        !record_unpack(packed.data, packed.size, &r, NULL))
        return;
    ready_key_of(key, from, &r);
    table_delete(l, TABLE_READY, key, sizeof(key));
    ready_key_of(key, q->number, &r);
    table_put(l, TABLE_READY, key, sizeof(key), (struct slice){0});
    memcpy((uint8_t *)(uintptr_t)row.data, &q->number, sizeof(number)); /* a copy of ours */
    table_put(l, TABLE_TASKS, &id, sizeof(id), row);
    q->ready += r.due_ms == 0;
    q->delayed += r.due_ms != 0;
}

static void journal_purge(struct lmdb *l, struct item *item)
{
    const struct store_op *op = item->op;
    uint64_t count = op->keep_count;
    size_t ids = count * sizeof(uint64_t);
    struct chunk *chunk;
    size_t offset;
    uint8_t *to =
        journal_own(l, item, ROW_PURGE, sizeof(count) + ids + op->queue.size, &chunk, &offset);
    memcpy(to, &count, sizeof(count));
    if (ids)
        memcpy(to + sizeof(count), op->keep, ids);
    memcpy(to + sizeof(count) + ids, op->queue.data, op->queue.size);
}

void op_purge(struct lmdb *l, struct item *item, struct store_event *e)
{
    const struct store_op *op = item->op;
    struct lmdb_queue *q = lmdb_queue_find(l, op->queue);
    struct found f;
    uint64_t kept = 0;
    if (!q)
        return;
    uint32_t from = q->number;
    e->count = live_count(l, q);
    queue_renumber(l, q);
    for (size_t i = 0; i < op->keep_count; i++) {
        row_move(l, q, from, op->keep[i]);
        if (!task_find(l, op->keep[i], &f) || f.queue != q)
            continue;
        kept++;
        unique_move(l, from, q->number, &f.record);
    }
    e->count -= kept;
    purge_index(l, q, op->keep, op->keep_count);
    journal_purge(l, item);
}
