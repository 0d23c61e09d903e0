/* SPDX-License-Identifier: Apache-2.0 */
/* DUE: what the agenda has for a moment, out of the index's heap and the table. */
#include "common/list.h"
#include "server/store/lmdb.h"

#define STALE_ROWS 1000 /* looked at, at the most, for the next moment; deleted with one DUE */
#define DUE_BYTES  ((size_t)16 << 20) /* of payloads that one DUE gives, and one more */

struct moment {
    uint64_t when_ms;
    enum agenda_kind kind;
    uint64_t id;
};

static bool earlier(const struct moment *a, const struct moment *b)
{
    if (a->when_ms != b->when_ms)
        return a->when_ms < b->when_ms;
    return a->kind != b->kind ? a->kind < b->kind : a->id < b->id;
}

static bool heap_moment(const struct lmdb *l, struct moment *m)
{
    const struct heap_node *n = heap_top(&l->index.agenda);
    if (n)
        *m = (struct moment){agenda_ms(n->key), agenda_kind(n->key), n->tie};
    return n != NULL;
}

static struct moment row_moment(struct slice key)
{
    return (struct moment){
        key_read(key.data, 8), (enum agenda_kind)key.data[8], key_read(key.data + 9, 8)};
}

/* The index knows the task better than the row does, or the row is of a life that was purged. */
static bool row_stale(struct lmdb *l, const struct moment *m, struct slice unique)
{
    struct slice row, packed;
    struct record r;
    uint32_t number;
    if (m->kind == AGENDA_UNIQUE)
        return unique.size < 4 || !queue_numbered(l, (uint32_t)key_read(unique.data, 4));
    if (index_get(l, m->id) || !table_get(l, TABLE_TASKS, &m->id, sizeof(m->id), &row))
        return true;
    if (!task_row_split(row, &number, &packed) || !queue_numbered(l, number) ||
        !record_unpack(packed.data, packed.size, &r, NULL))
        return true;
    return m->when_ms != (m->kind == AGENDA_DUE ? r.due_ms : r.expires_ms);
}

/* What is left of the bounds of one DUE. */
struct due_left {
    uint32_t entries;
    uint32_t stale; /* a purge may have left millions of rows that were due */
};

/* The first row that means something; those before it, up to the moment, are deleted. */
static bool row_next(struct lmdb *l, MDB_cursor *c, uint64_t until_ms, struct due_left *left,
    struct moment *m, struct slice *unique)
{
    struct slice key = {0};
    while (cursor_get(l, c, &key, unique, MDB_FIRST)) {
        *m = row_moment(key);
        if (m->when_ms > until_ms)
            return false;
        if (!row_stale(l, m, *unique))
            return true;
        if (!left->stale || !cursor_delete(l, c))
            return false;
        left->stale--;
    }
    return false;
}

uint64_t agenda_next(struct lmdb *l)
{
    MDB_cursor *c = table_cursor(l, TABLE_AGENDA);
    struct slice key = {0};
    struct slice value;
    struct moment m;
    uint64_t next = heap_moment(l, &m) ? m.when_ms : 0;
    bool more = cursor_get(l, c, &key, &value, MDB_FIRST);
    for (int i = 0; more && i < STALE_ROWS; i++) {
        m = row_moment(key);
        if ((next && m.when_ms >= next) || !row_stale(l, &m, value))
            break;
        more = cursor_get(l, c, &key, &value, MDB_NEXT);
    }
    cursor_close(c);
    return more && (!next || m.when_ms < next) ? m.when_ms : next;
}

/* So that after a crash the task is ready and known as windowed, as its event says. */
static void journal_promotion(struct lmdb *l, struct item *item, const struct found *f)
{
    struct record change = {.id = f->record.id,
        .attempts = f->record.attempts,
        .deaths = f->record.deaths,
        .suspect = f->record.suspect,
        .windowed = true};
    struct chunk *chunk;
    size_t offset;
    uint8_t *to =
        journal_own(l, item, ROW_RESCHEDULE, record_packed_size(&change), &chunk, &offset);
    record_pack(to, &change, f->state);
}

static void promote(struct lmdb *l, struct item *item, struct found *f, struct reply_records *list)
{
    bool maybe_running = task_maybe_running(l, f);
    uint64_t due_ms = f->record.due_ms;
    f->record.due_ms = 0;
    f->record.windowed = true;
    f->state.boot = (uint8_t)l->boot;
    f->state.expiry_told |= f->record.expires_ms && f->record.expires_ms <= item->op->until_ms;
    task_change(l, f);
    journal_promotion(l, item, f);
    task_give(l, list, f);
    list->records[list->count - 1].maybe_running = maybe_running;
    list->records[list->count - 1].due_ms = due_ms;
}

/* One entry of the agenda; false: nothing more is due, or a bound is reached. */
static bool due_step(struct lmdb *l, struct item *item, MDB_cursor *c, struct reply_records *list,
    struct due_left *left)
{
    struct moment heap = {0};
    struct moment row = {0};
    struct slice unique;
    struct found f;
    uint64_t until_ms = item->op->until_ms;
    bool from_heap = heap_moment(l, &heap) && heap.when_ms <= until_ms;
    bool from_row = row_next(l, c, until_ms, left, &row, &unique);
    if (!left->entries || !left->stale || list->bytes >= DUE_BYTES)
        return false;
    if (!from_heap && !from_row)
        return false;
    bool use_row = from_row && (!from_heap || earlier(&row, &heap));
    bool key_ends = use_row && row.kind == AGENDA_UNIQUE;
    bool found = !key_ends && task_find(l, use_row ? row.id : heap.id, &f);
    if (key_ends)
        unique_ended(l, unique, row.id, row.when_ms);
    if (use_row && !cursor_delete(l, c))
        return false;
    if (found)
        promote(l, item, &f, list);
    left->entries -= found || key_ends;
    return true;
}

void op_due(struct lmdb *l, struct item *item, struct reply *reply, struct store_event *e)
{
    struct reply_records list = {.reply = reply};
    MDB_cursor *c = table_cursor(l, TABLE_AGENDA);
    struct due_left left = {.entries = item->op->limit, .stale = STALE_ROWS};
    while (c && due_step(l, item, c, &list, &left))
        ;
    cursor_close(c);
    e->next_ms = agenda_next(l);
    e->exhausted = !e->next_ms || e->next_ms > item->op->until_ms;
    reply_set_records(&list, e);
}
