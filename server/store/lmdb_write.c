/* SPDX-License-Identifier: Apache-2.0 */
/* The operations that change tasks: APPEND, FINISH, RESCHEDULE, FORGET. */
#include <pushrod/error.h>
#include "server/store/lmdb.h"

static struct row row_at(const struct item *item)
{
    struct row row;
    memcpy(&row, item->chunk->data + item->offset, sizeof(row));
    return row;
}

static const uint8_t *row_data(const struct item *item)
{
    return item->chunk->data + item->offset + sizeof(struct row);
}

/* Its row does not get into the journal: a replay takes each row as something that was done. */
static void refuse(const struct item *item, struct store_event *e, enum store_outcome outcome)
{
    chunk_turn(item->chunk, item->offset, ROW_VOID);
    e->outcome = outcome;
}

/* *entry: what is left of an earlier task of that id, or NULL. */
static bool id_taken(struct lmdb *l, uint64_t id, struct entry **entry)
{
    struct found f;
    *entry = NULL;
    if (id > l->max_id) { /* no APPEND has had it, and no look-up is needed */
        l->max_id = id;
        return false;
    }
    *entry = index_get(l, id);
    return task_find(l, id, &f);
}

/* What did not fit once is not tried again while no more is left: each try opens the store anew. */
static bool misfits(struct lmdb *l, const struct item *item, struct store_event *e)
{
    uint64_t size = item->body ? item->body->size : 0;
    if (size && l->group_bodies + size >= l->misfit) {
        refuse(item, e, OUTCOME_REFUSED);
        e->code = PUSHROD_E_STORE_FULL;
        return true;
    }
    l->group_bodies += size;
    return false;
}

void op_append(struct lmdb *l, struct item *item, struct reply *reply, struct store_event *e)
{
    struct record r;
    record_load(row_data(item), row_at(item).size, &r, NULL);
    e->id = item->id;
    /* What was answered before its commit failed is owed, whatever the disk is like by now. */
    if (!l->down && l->unlooked_bytes > l->spare)
        group_announce(l, PUSHROD_E_STORE_FULL);
    if (l->down && !item->answered) {
        refuse(item, e, OUTCOME_REFUSED);
        e->code = l->down;
        e->text = arena_copy(&reply->arena, l->text, sizeof(l->text));
        return;
    }
    struct entry *entry;
    struct lmdb_queue *q = lmdb_queue_get(l, r.queue);
    if ((r.unique.data && unique_holder(l, q, &r, &e->id)) || id_taken(l, r.id, &entry)) {
        refuse(item, e, OUTCOME_HELD);
        return;
    }
    if (misfits(l, item, e))
        return;
    if (r.unique.data && (r.unique_ms == 0 || r.unique_ms > l->now_ms))
        unique_take(l, q, &r);
    if (item->body)
        parts_put(l, TABLE_PARTS, r.id, 0, item->body);
    if (!entry)
        entry = index_add(l, r.id, q, false);
    index_record(l, entry, item->chunk, item->offset + sizeof(struct row), row_at(item).size);
}

/* No finish to keep. Appended and finished within one group: the journal need not know of it. */
static void vanish(struct lmdb *l, const struct item *item, struct entry *e)
{
    if (!e->in_tables && e->group == l->group) {
        chunk_turn(e->chunk, e->offset - sizeof(struct row), ROW_VOID);
        chunk_turn(item->chunk, item->offset, ROW_VOID);
    }
    index_forget(l, e);
}

/* A large result goes to its table with this commit: the row in the journal has only its size. */
static void end_task(
    struct lmdb *l, const struct item *item, struct found *found, const struct finish *f)
{
    bool large = item->body != NULL;
    struct slice packed = slice_of(row_data(item), row_at(item).size);
    lmdb_unique_release(l, found->queue, &found->record);
    if (f->dead)
        dead_put(l, found, f, item->body);
    else if (slice_detached(found->record.payload))
        parts_delete(l, TABLE_PARTS, f->id, 0, found->record.payload.size);
    if (f->keep_until_ms && large)
        result_put(l, f, packed, item->body);
    if (!found->entry)
        found->entry = index_add(l, f->id, found->queue, true);
    if (f->keep_until_ms && !large)
        index_ended(
            l, found->entry, item->chunk, item->offset + sizeof(struct row), row_at(item).size);
    else
        vanish(l, item, found->entry);
}

void op_finish(struct lmdb *l, struct item *item, struct store_event *e)
{
    struct finish f;
    struct found found;
    finish_load(row_data(item), row_at(item).size, &f);
    e->id = f.id;
    if (!task_find(l, f.id, &found)) {
        refuse(item, e, OUTCOME_GONE);
        return;
    }
    if ((f.keep_until_ms || f.dead) && misfits(l, item, e))
        return;
    end_task(l, item, &found, &f);
}

void op_reschedule(struct lmdb *l, struct item *item, struct store_event *e)
{
    struct record change;
    struct found found;
    record_load(row_data(item), row_at(item).size, &change, NULL);
    e->id = change.id;
    if (!task_find(l, change.id, &found)) {
        refuse(item, e, OUTCOME_GONE);
        return;
    }
    record_reschedule(&found.record, &change);
    found.state.boot = (uint8_t)l->boot;
    task_change(l, &found);
}

void op_forget(struct lmdb *l, struct item *item, struct store_event *e)
{
    struct entry *entry = index_get(l, item->id);
    /* In its table by now, or there from the start: it goes with this commit, without a row. */
    if (!entry || entry->state != ENTRY_ENDED || !entry->chunk) {
        bool there = result_delete(l, item->id);
        refuse(item, e, there ? OUTCOME_STORED : OUTCOME_GONE);
        return;
    }
    struct finish f;
    finish_load(entry->chunk->data + entry->offset, entry->size, &f);
    if (f.keep_until_ms <= l->now_ms)
        e->outcome = OUTCOME_GONE;
    index_forget(l, entry);
}
