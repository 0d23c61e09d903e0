/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the aging generation to the tables, in the order of the ids, a step with each commit.
 * meta "applied" says how far it got; then the generation's journal rows go, in steps as well.
 */
#include <assert.h>
#include <stdlib.h>
#include "server/store/lmdb.h"

#define FAR  12u /* entries ahead: the entry is fetched */
#define NEAR 6u  /* its bytes are */

#define MAPPED           32u /* journal rows, of 64 KiB at the most, whose pages stay mapped */
#define ALL_APPLIED      UINT64_MAX /* meta "applied": only rows are left of the generation */
#define ENTRIES_OF_A_ROW 16u        /* to delete one takes as long as to apply so many that ended */

/* A step goes through the ids in order, so the next rows are mostly beside the last ones. */
struct step {
    MDB_cursor *tasks;
    MDB_cursor *ready;
};

/* What other tables know of a row of `tasks`. */
struct traits {
    struct lmdb_queue *queue; /* NULL: purged, not counted */
    uint64_t due_ms;
    uint64_t expiry_ms; /* 0: none, or it was told */
    uint8_t key[13];    /* in `ready` */
};

static struct traits traits_of(
    uint32_t number, struct lmdb_queue *q, const struct record *r, struct packed_state state)
{
    struct traits t = {
        .queue = q, .due_ms = r->due_ms, .expiry_ms = state.expiry_told ? 0 : r->expires_ms};
    ready_key_of(t.key, number, r);
    return t;
}

/* What the tables say of a task, before it is replaced or deleted; the cursor is on it then. */
static bool old_read(struct lmdb *l, const struct step *s, uint64_t id, struct traits *old)
{
    struct slice row, packed;
    struct record r;
    struct packed_state state;
    uint32_t number;
    if (!cursor_seek(l, s->tasks, &id, sizeof(id), &row) ||
        !task_row_split(row, &number, &packed) ||
        !record_unpack(packed.data, packed.size, &r, &state))
        return false;
    *old = traits_of(number, queue_numbered(l, number), &r, state);
    return true;
}

static void count(struct lmdb *l, const struct traits *t, bool add)
{
    if (!t->queue)
        return;
    uint64_t *number = t->due_ms ? &t->queue->delayed : &t->queue->ready;
    *number = add ? *number + 1 : *number - 1;
    lmdb_queue_touch(l, t->queue);
}

static void ready_delete(struct lmdb *l, const struct step *s, const struct traits *t)
{
    struct slice nothing;
    if (cursor_seek(l, s->ready, t->key, sizeof(t->key), &nothing))
        cursor_delete(l, s->ready);
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

static void apply_ended(struct lmdb *l, const struct step *s, const struct entry *e)
{
    struct traits old;
    if (e->chunk)
        result_put_entry(l, e);
    if (!e->in_tables || !old_read(l, s, e->id, &old))
        return;
    cursor_delete(l, s->tasks);
    ready_delete(l, s, &old);
    agenda_set(l, e->id, AGENDA_DUE, old.due_ms, 0);
    agenda_set(l, e->id, AGENDA_EXPIRE, old.expiry_ms, 0);
    count(l, &old, false);
}

/* Ids mostly rise, and then pages are filled to the end instead of being split in halves. */
static uint8_t *task_reserve(struct lmdb *l, const struct step *s, uint64_t id, size_t size)
{
    MDB_val key = {sizeof(id), &id};
    MDB_val value = {size, NULL};
    unsigned flags = MDB_RESERVE | (id > l->max_table_id ? MDB_APPEND : 0u);
    if (l->error)
        return NULL;
    l->dirty = true;
    int rc = mdb_cursor_put(s->tasks, &key, &value, flags);
    if (rc == 0 && id > l->max_table_id)
        l->max_table_id = id;
    if (rc == 0)
        return value.mv_data;
    l->error = rc;
    return NULL;
}

static void ready_put(struct lmdb *l, const struct step *s, const struct traits *t)
{
    MDB_val key = {sizeof(t->key), (void *)(uintptr_t)t->key};
    MDB_val nothing = {0, NULL};
    l->dirty = true;
    if (!l->error)
        l->error = mdb_cursor_put(s->ready, &key, &nothing, 0);
}

static void apply_record(struct lmdb *l, const struct step *s, const struct entry *e)
{
    struct traits old = {0};
    struct record r;
    struct packed_state state;
    bool was = e->in_tables && old_read(l, s, e->id, &old);
    index_load(e, &r, &state);
    uint32_t number = e->queue->number;
    struct traits new = traits_of(number, e->queue, &r, state);
    bool moves = !was || memcmp(new.key, old.key, sizeof(new.key)) != 0;
    if (was && moves)
        ready_delete(l, s, &old);
    if (moves)
        ready_put(l, s, &new);
    agenda_set(l, e->id, AGENDA_DUE, old.due_ms, new.due_ms);
    agenda_set(l, e->id, AGENDA_EXPIRE, old.expiry_ms, new.expiry_ms);
    count(l, &old, false);
    count(l, &new, true);
    uint8_t *to = task_reserve(l, s, e->id, sizeof(number) + e->size);
    if (to) {
        memcpy(to, &number, sizeof(number));
        memcpy(to + sizeof(number), e->chunk->data + e->offset, e->size);
    }
}

static bool aging_row(struct lmdb *l, MDB_cursor *c)
{
    struct slice key, value;
    uint64_t sequence = UINT64_MAX;
    if (cursor_get(l, c, &key, &value, MDB_FIRST))
        memcpy(&sequence, key.data, sizeof(sequence));
    return sequence <= l->index.aging_seq;
}

/*
 * Deletes so many rows of the aging generation. False: none is left. Of a row only the head is
 * read, but the kernel maps what is around it, too: all of the row.
 */
static bool journal_trim(struct lmdb *l, size_t rows)
{
    MDB_cursor *c = table_cursor(l, TABLE_JOURNAL);
    bool left = aging_row(l, c);
    for (; left && rows > 0 && cursor_delete(l, c); rows--) {
        if (++l->trimmed % MAPPED == 0)
            lmdb_release_pages(l);
        left = aging_row(l, c);
    }
    cursor_close(c);
    return left;
}

static void aging_ends(struct lmdb *l)
{
    struct index *x = &l->index;
    meta_put(l, "aging", 0);
    meta_put(l, "applied", 0);
    x->applying = false;
    free(x->aging);
    x->aging = NULL;
    x->aging_count = 0;
}

static void apply_entry(struct lmdb *l, const struct step *s, struct entry *e)
{
    if (e->state == ENTRY_ENDED)
        apply_ended(l, s, e);
    else
        apply_record(l, s, e);
    if (!l->error)
        index_remove(l, e);
}

/* Places lie in order, what they lead to does not: it comes into the cache while others are done.
 */
static void expect(const struct index *x, size_t next)
{
    if (next + FAR < x->aging_count) {
        __builtin_prefetch(x->aging[next + FAR].entry);
        idmap_expect(&x->entries, x->aging[next + FAR].id);
    }
    if (next + NEAR < x->aging_count) {
        const struct entry *e = x->aging[next + NEAR].entry;
        if (e->chunk)
            __builtin_prefetch(e->chunk->data + e->offset);
    }
}

/* Applies up to that many entries; gives the number that is left, and the last id. */
static size_t apply_some(struct lmdb *l, size_t entries, uint64_t *last)
{
    struct index *x = &l->index;
    struct step s = {table_cursor(l, TABLE_TASKS), table_cursor(l, TABLE_READY)};
    while (entries && x->aging_next < x->aging_count && !l->error) {
        expect(x, x->aging_next);
        struct place place = x->aging[x->aging_next++];
        *last = place.id;
        if (place.entry->id != place.id || place.entry->generation == x->generation)
            continue;
        apply_entry(l, &s, place.entry);
        entries--;
    }
    cursor_close(s.tasks);
    cursor_close(s.ready);
    return entries;
}

/*
 * All is in the tables: the rows go, in steps, or the next group would wait for thousands of them;
 * but faster than they come, or each generation would be larger than the one before. What says that
 * the generation ages goes with the last of them: of an empty journal the numbers begin anew.
 */
static void trim_step(struct lmdb *l, size_t rows)
{
    if (journal_trim(l, rows)) {
        meta_put(l, "aging", l->index.aging_seq);
        meta_put(l, "applied", ALL_APPLIED);
    } else if (!l->error) {
        aging_ends(l);
    }
}

void apply_step(struct lmdb *l, size_t entries)
{
    struct index *x = &l->index;
    uint64_t id = 0;
    if (!x->applying)
        return;
    if (x->aging_next == 0)
        places_sort(x->aging, x->aging_count);
    if (entries)
        entries = apply_some(l, entries, &id);
    if (entries && !l->error) {
        trim_step(l, 1 + entries / ENTRIES_OF_A_ROW + 2 * l->group_rows);
    } else if (id) {
        meta_put(l, "aging", x->aging_seq);
        meta_put(l, "applied", id);
    }
}
