/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the aging generation to the tables, in the order of the ids, a step with each commit.
 * meta "applied" says how far it got; with the last step the generation's journal rows go.
 */
#include <assert.h>
#include <stdlib.h>
#include "server/store/lmdb.h"

/* What the tables say of a task, before it is replaced or deleted. */
struct old_row {
    uint32_t number;
    struct lmdb_queue *queue; /* NULL: purged, not counted */
    struct record record;
    struct packed_state state;
};

static bool old_read(struct lmdb *l, uint64_t id, struct old_row *old)
{
    struct slice row;
    if (!table_copy(l, TABLE_TASKS, &id, sizeof(id), &row) || row.size < sizeof(old->number))
        return false;
    memcpy(&old->number, row.data, sizeof(old->number));
    old->queue = queue_numbered(l, old->number);
    return record_unpack(
        row.data + sizeof(old->number), row.size - sizeof(old->number), &old->record, &old->state);
}

static uint8_t ready_rank(const struct record *r)
{
    return (uint8_t)((9 - r->priority) | (r->due_ms ? LMDB_DELAYED : 0));
}

static void count(struct lmdb_queue *q, const struct record *r, bool add)
{
    uint64_t *number = r->due_ms ? &q->delayed : &q->ready;
    *number = add ? *number + 1 : *number - 1;
    q->changed = true;
}

static uint64_t expiry_of(const struct record *r, struct packed_state state)
{
    return state.expiry_told ? 0 : r->expires_ms;
}

/* Puts the row even if it should be there: DUE deletes those that it has passed. */
static void agenda_set(
    struct lmdb *l, uint64_t id, enum agenda_kind kind, uint64_t old_ms, uint64_t new_ms)
{
    uint8_t key[17];
    agenda_key(key, old_ms, kind, id);
    if (old_ms && old_ms != new_ms)
        table_delete(l, TABLE_AGENDA, key, sizeof(key));
    agenda_key(key, new_ms, kind, id);
    if (new_ms)
        table_put(l, TABLE_AGENDA, key, sizeof(key), (struct slice){0});
}

static void apply_ended(struct lmdb *l, const struct entry *e)
{
    struct old_row old;
    uint8_t key[13];
    if (e->chunk) {
        struct finish f;
        struct slice packed = slice_of(e->chunk->data + e->offset, e->size);
        if (finish_unpack(packed.data, packed.size, &f))
            result_put(l, &f, packed, NULL);
    }
    if (!e->in_tables || !old_read(l, e->id, &old))
        return;
    ready_key(key, old.number, ready_rank(&old.record), e->id);
    table_delete(l, TABLE_READY, key, sizeof(key));
    agenda_set(l, e->id, AGENDA_DUE, old.record.due_ms, 0);
    agenda_set(l, e->id, AGENDA_EXPIRE, expiry_of(&old.record, old.state), 0);
    table_delete(l, TABLE_TASKS, &e->id, sizeof(e->id));
    if (old.queue)
        count(old.queue, &old.record, false);
}

/* Ids mostly rise, and then pages are filled to the end instead of being split in halves. */
static uint8_t *task_reserve(struct lmdb *l, uint64_t id, size_t size)
{
    MDB_val key = {sizeof(id), &id};
    MDB_val value = {size, NULL};
    unsigned flags = MDB_RESERVE | (id > l->max_table_id ? MDB_APPEND : 0u);
    if (l->error)
        return NULL;
    l->dirty = true;
    int rc = mdb_put(l->txn, l->tables[TABLE_TASKS], &key, &value, flags);
    if (rc == 0 && id > l->max_table_id)
        l->max_table_id = id;
    if (rc == 0)
        return value.mv_data;
    l->error = rc;
    return NULL;
}

static void apply_record(struct lmdb *l, const struct entry *e)
{
    struct old_row old = {0};
    struct record r;
    struct packed_state state;
    uint8_t key[13];
    uint8_t old_key[13] = {0};
    bool was = e->in_tables && old_read(l, e->id, &old);
    index_load(e, &r, &state);
    ready_key(key, e->queue->number, ready_rank(&r), e->id);
    if (was)
        ready_key(old_key, old.number, ready_rank(&old.record), e->id);
    if (was && memcmp(key, old_key, sizeof(key)) != 0)
        table_delete(l, TABLE_READY, old_key, sizeof(old_key));
    if (!was || memcmp(key, old_key, sizeof(key)) != 0)
        table_put(l, TABLE_READY, key, sizeof(key), (struct slice){0});
    agenda_set(l, e->id, AGENDA_DUE, was ? old.record.due_ms : 0, r.due_ms);
    agenda_set(
        l, e->id, AGENDA_EXPIRE, was ? expiry_of(&old.record, old.state) : 0, expiry_of(&r, state));
    if (was && old.queue)
        count(old.queue, &old.record, false);
    count(e->queue, &r, true);
    uint32_t number = e->queue->number;
    uint8_t *to = task_reserve(l, e->id, sizeof(number) + e->size);
    if (to) {
        memcpy(to, &number, sizeof(number));
        memcpy(to + sizeof(number), e->chunk->data + e->offset, e->size);
    }
}

static void journal_trim(struct lmdb *l, uint64_t last)
{
    MDB_cursor *c = table_cursor(l, TABLE_JOURNAL);
    struct slice key = {0};
    struct slice value;
    while (cursor_get(l, c, &key, &value, MDB_FIRST)) {
        uint64_t sequence;
        memcpy(&sequence, key.data, sizeof(sequence));
        if (sequence > last)
            break;
        int rc = mdb_cursor_del(c, 0);
        if (rc) {
            l->error = rc;
            break;
        }
        l->dirty = true;
    }
    if (c)
        mdb_cursor_close(c);
}

static void aging_ends(struct lmdb *l)
{
    struct index *x = &l->index;
    journal_trim(l, x->aging_seq);
    meta_put(l, "aging", 0);
    meta_put(l, "applied", 0);
    x->applying = false;
    free(x->aging);
    x->aging = NULL;
    x->aging_count = 0;
}

static int compare_ids(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void aging_sort(struct index *x)
{
    for (size_t i = 1; i < x->aging_count; i++) {
        if (x->aging[i - 1] > x->aging[i]) {
            qsort(x->aging, x->aging_count, sizeof(*x->aging), compare_ids);
            return;
        }
    }
}

static void apply_entry(struct lmdb *l, struct entry *e)
{
    if (e->state == ENTRY_ENDED)
        apply_ended(l, e);
    else
        apply_record(l, e);
    if (!l->error)
        index_remove(l, e);
}

void apply_step(struct lmdb *l, size_t entries)
{
    struct index *x = &l->index;
    uint64_t id = 0;
    if (!x->applying)
        return;
    if (x->aging_next == 0)
        aging_sort(x);
    while (entries && x->aging_next < x->aging_count && !l->error) {
        id = x->aging[x->aging_next++];
        struct entry *e = index_get(l, id);
        if (!e || e->generation == x->generation)
            continue;
        apply_entry(l, e);
        entries--;
    }
    if (entries && !l->error) {
        aging_ends(l);
    } else if (id) {
        meta_put(l, "aging", x->aging_seq);
        meta_put(l, "applied", id);
    }
}
