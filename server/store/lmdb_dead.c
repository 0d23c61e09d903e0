/* SPDX-License-Identifier: Apache-2.0 */
/* Dead letters of the LMDB store: rows at once, with the commit of their operation. */
#include <stdlib.h>
#include "common/list.h"
#include "common/name.h"
#include "server/store/lmdb.h"

#define BURIED_KEY 140                 /* bytes, at the most: a queue's name has 128 */
#define RESULT_BIT (UINT64_C(1) << 63) /* parts of a dead letter's result, beside its payload's */

static size_t buried_key(uint8_t key[BURIED_KEY], struct slice queue, uint64_t id)
{
    memcpy(key, queue.data, queue.size);
    key[queue.size] = 0;
    key_u64(key + queue.size + 1, id);
    return queue.size + 9;
}

void dead_put(
    struct lmdb *l, struct found *found, const struct finish *f, const struct body *result)
{
    struct record r = found->record;
    struct finish whole = *f;
    uint8_t key[8];
    uint8_t buried[BURIED_KEY];
    if (f->history.data)
        r.history = f->history;
    whole.body = (struct body *)(uintptr_t)result; /* packed as its size only */
    if (result)
        parts_put(l, TABLE_PARTS, f->id | RESULT_BIT, 0, result);
    uint32_t record_size = (uint32_t)record_packed_size(&r);
    size_t head = sizeof(record_size) + record_size;
    key_u64(key, f->id);
    uint8_t *to = table_reserve(l, TABLE_DEAD, key, sizeof(key), head + finish_packed_size(&whole));
    if (to) {
        memcpy(to, &record_size, sizeof(record_size));
        record_pack(to + sizeof(record_size), &r, found->state);
        finish_pack(to + head, &whole);
    }
    size_t size = buried_key(buried, r.queue, f->id);
    table_put(l, TABLE_BURIED, buried, size, (struct slice){0});
    found->queue->dead++;
    lmdb_queue_touch(l, found->queue);
}

bool dead_get(struct lmdb *l, uint64_t id, struct slice *record, struct slice *finish)
{
    struct slice row;
    uint32_t size;
    uint8_t key[8];
    key_u64(key, id);
    if (!table_copy(l, TABLE_DEAD, key, sizeof(key), &row) || row.size < sizeof(size))
        return false;
    memcpy(&size, row.data, sizeof(size));
    if (size > row.size - sizeof(size))
        return false;
    *record = slice_of(row.data + sizeof(size), size);
    *finish = slice_of(record->data + size, row.size - sizeof(size) - size);
    return true;
}

struct finish *dead_finish(
    struct lmdb *l, uint64_t id, struct slice packed, struct reply *reply, bool bare)
{
    struct finish f;
    struct body *body = NULL;
    if (!bare && finish_unpack(packed.data, packed.size, &f) && slice_detached(f.result))
        body = parts_get(l, TABLE_PARTS, id | RESULT_BIT, 0, f.result.size);
    l->group_looked += body ? body->size : 0;
    struct finish *given = reply_finish(reply, packed.data, packed.size, body);
    body_unref(body);
    return given;
}

/* Its row, its place in the queue's list and its result's parts; the payload's stay. */
static void dead_remove(
    struct lmdb *l, uint64_t id, const struct record *r, struct slice packed_finish)
{
    uint8_t key[8];
    uint8_t buried[BURIED_KEY];
    struct finish f;
    struct lmdb_queue *q = lmdb_queue_get(l, r->queue);
    key_u64(key, id);
    table_delete(l, TABLE_DEAD, key, sizeof(key));
    size_t size = buried_key(buried, r->queue, id);
    table_delete(l, TABLE_BURIED, buried, size);
    if (finish_unpack(packed_finish.data, packed_finish.size, &f) && slice_detached(f.result))
        parts_delete(l, TABLE_PARTS, id | RESULT_BIT, 0, f.result.size);
    q->dead--;
    lmdb_queue_touch(l, q);
}

/* It is a dead letter no more: the record as it lay there. False: it was none. */
static bool dead_take(
    struct lmdb *l, uint64_t id, struct slice *packed, struct record *r, struct store_event *e)
{
    struct slice finish;
    if (!dead_get(l, id, packed, &finish) || !record_unpack(packed->data, packed->size, r, NULL)) {
        e->outcome = OUTCOME_GONE;
        return false;
    }
    dead_remove(l, id, r, finish);
    return true;
}

void op_drop(struct lmdb *l, struct item *item, struct reply *reply, struct store_event *e)
{
    struct reply_records list = {.reply = reply};
    struct slice record;
    struct record r;
    if (!dead_take(l, item->op->id, &record, &r, e))
        return;
    if (slice_detached(r.payload))
        parts_delete(l, TABLE_PARTS, r.id, 0, r.payload.size);
    reply_record(&list, record.data, record.size, NULL);
    reply_set_records(&list, e);
}

/* As an APPEND of the store's own, so that the journal has it. */
static void revive(struct lmdb *l, struct item *item, struct record *r)
{
    struct packed_state state = {.boot = (uint8_t)l->boot};
    struct lmdb_queue *q = lmdb_queue_get(l, r->queue);
    struct chunk *chunk;
    size_t offset;
    uint64_t holder;
    record_revive(r);
    if (r->unique.data && unique_holder(l, q, r, &holder))
        r->unique = (struct slice){0};
    size_t size = record_packed_size(r);
    record_pack(journal_own(l, item, ROW_APPEND, size, &chunk, &offset), r, state);
    if (r->unique.data)
        unique_take(l, q, r);
    result_delete(l, r->id);
    struct entry *entry = index_get(l, r->id);
    if (!entry)
        entry = index_add(l, r->id, q, false);
    index_record(l, entry, chunk, offset + sizeof(struct row), size);
}

void op_revive(struct lmdb *l, struct item *item, struct reply *reply, struct store_event *e)
{
    struct slice record;
    struct record r;
    struct found f;
    if (!dead_take(l, item->op->id, &record, &r, e))
        return;
    revive(l, item, &r);
    if (task_find(l, r.id, &f)) {
        struct reply_records list = {.reply = reply};
        task_give(l, &list, &f);
        list.records[0].maybe_running = false;
        reply_set_records(&list, e);
    }
}

/* ---- SCAN ---- */

/* A queue of those that are asked for, and the next of its dead letters. */
struct graves {
    struct heap_node next; /* key: id */
    const struct lmdb_queue *queue;
};

/* Its first id above `after` takes its place among those of the others; none: it is left out. */
static void graves_next(
    struct lmdb *l, MDB_cursor *c, struct heap *heap, struct graves *g, uint64_t after)
{
    uint8_t from[BURIED_KEY];
    size_t size = buried_key(from, g->queue->name, after + 1);
    struct slice key = slice_of(from, size);
    struct slice value;
    if (!cursor_get(l, c, &key, &value, MDB_SET_RANGE) || key.size != size ||
        memcmp(key.data, from, size - 8) != 0)
        return;
    if (!heap_push(heap, &g->next, key_read(key.data + size - 8, 8), 0))
        abort();
}

/* Bodies are left out: a list of a thousand would otherwise read gigabytes that nobody looks at. */
static void scan_one(
    struct lmdb *l, uint64_t id, struct reply_records *list, struct finish *finishes)
{
    struct slice record;
    struct slice finish;
    if (!dead_get(l, id, &record, &finish))
        return;
    finishes[list->count] = *reply_finish(list->reply, finish.data, finish.size, NULL);
    reply_record(list, record.data, record.size, NULL);
}

/*
 * The queues are merged: a thousand of them with a thousand dead letters each would otherwise be
 * read as a whole for every page of a list, while all that is to be committed waits.
 */
void op_scan(struct lmdb *l, struct item *item, struct reply *reply, struct store_event *e)
{
    const struct store_op *op = item->op;
    struct reply_records list = {.reply = reply};
    struct finish *finishes = store_arena_alloc(&reply->arena, op->limit * sizeof(*finishes));
    struct graves *graves = store_alloc(l->queue_count * sizeof(*graves));
    struct heap heap = {0};
    MDB_cursor *c = table_cursor(l, TABLE_BURIED);
    for (size_t i = 0; i < l->queue_count && op->id < UINT64_MAX; i++) {
        graves[i].queue = l->queues[i];
        if (l->queues[i]->dead && (!op->queue.data || name_matches(op->queue, l->queues[i]->name)))
            graves_next(l, c, &heap, &graves[i], op->id);
    }
    for (struct heap_node *first; (first = heap_top(&heap)) && list.count < op->limit;) {
        uint64_t id = first->key;
        heap_remove(&heap, first);
        scan_one(l, id, &list, finishes);
        graves_next(l, c, &heap, container_of(first, struct graves, next), id);
    }
    cursor_close(c);
    e->exhausted = heap.count == 0;
    e->finishes = finishes;
    heap_free(&heap);
    free(graves);
    reply_set_records(&list, e);
}
