/* SPDX-License-Identifier: Apache-2.0 */
/* A task of the LMDB store as it is now: the index first, then the tables. */
#include "server/store/lmdb.h"

bool task_row_split(struct slice row, uint32_t *queue_number, struct slice *packed)
{
    size_t head = sizeof(*queue_number);
    if (row.size < head)
        return false;
    memcpy(queue_number, row.data, head);
    *packed = slice_of(row.data + head, row.size - head);
    return true;
}

/* Of a purged queue they are not there. */
static bool row_load(struct lmdb *l, struct slice row, struct found *f)
{
    uint32_t number;
    f->entry = NULL;
    if (!task_row_split(row, &number, &f->packed))
        return false;
    f->queue = queue_numbered(l, number);
    return f->queue && record_unpack(f->packed.data, f->packed.size, &f->record, &f->state);
}

bool task_of_row(struct lmdb *l, MDB_cursor *tasks, uint64_t id, struct found *f)
{
    struct slice row;
    return cursor_seek(l, tasks, &id, sizeof(id), &row) && row_load(l, row, f);
}

bool task_in_tables(struct lmdb *l, uint64_t id)
{
    struct slice row;
    struct found f;
    return id <= l->max_table_id && table_get(l, TABLE_TASKS, &id, sizeof(id), &row) &&
           row_load(l, row, &f);
}

static void load(struct found *f)
{
    f->packed = slice_of(f->entry->chunk->data + f->entry->offset, f->entry->size);
    index_load(f->entry, &f->record, &f->state);
}

void task_of_entry(struct entry *e, struct found *f)
{
    f->entry = e;
    f->queue = e->queue;
    load(f);
}

/* Those that end together mostly lie together: the cursor need not come from the root each time. */
static bool row_find(struct lmdb *l, uint64_t id, struct found *f)
{
    struct slice row;
    if (!l->finder)
        l->finder = table_cursor(l, TABLE_TASKS);
    if (!cursor_seek(l, l->finder, &id, sizeof(id), &row))
        return false;
    row.data = arena_copy(&l->scratch, row.data, row.size); /* others may be written meanwhile */
    return row_load(l, row, f);
}

bool task_find(struct lmdb *l, uint64_t id, struct found *f)
{
    struct entry *e = index_get(l, id);
    if (!e)
        return row_find(l, id, f);
    if (e->state == ENTRY_ENDED)
        return false;
    task_of_entry(e, f);
    return true;
}

void task_change(struct lmdb *l, struct found *f)
{
    size_t size = record_packed_size(&f->record);
    struct chunk *chunk = chunk_new(size);
    l->index.bytes += chunk->capacity;
    record_pack(chunk->data, &f->record, f->state);
    chunk->size = size;
    if (!f->entry)
        f->entry = index_add(l, f->record.id, f->queue, true);
    index_record(l, f->entry, chunk, 0, size);
    f->entry->group = 0;
    load(f); /* borrow from the new bytes */
    chunk_unref(l, chunk);
}

bool task_maybe_running(const struct lmdb *l, const struct found *f)
{
    return record_maybe_running(&f->record, f->state, l->boot, f->queue->edge_at_open);
}

void task_give(struct lmdb *l, struct reply_records *list, const struct found *f)
{
    struct body *body = NULL;
    if (slice_detached(f->record.payload))
        body = parts_get(l, TABLE_PARTS, f->record.id, 0, f->record.payload.size);
    bool maybe_running = task_maybe_running(l, f);
    reply_record(list, f->packed.data, f->packed.size, body)->maybe_running = maybe_running;
    body_unref(body);
}
