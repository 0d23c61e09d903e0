/* SPDX-License-Identifier: Apache-2.0 */
/* Chunks of operations, their rows in the journal, and how they are read again after a crash. */
#include <assert.h>
#include <stdlib.h>
#include "common/clock.h"
#include "server/store/lmdb.h"

struct chunk *chunk_new(size_t capacity)
{
    struct chunk *c = store_alloc(sizeof(*c) + capacity);
    c->capacity = capacity;
    c->references = 1;
    return c;
}

void chunk_unref(struct lmdb *l, struct chunk *c)
{
    if (--c->references)
        return;
    l->index.bytes -= c->capacity;
    free(c);
}

uint8_t *chunk_add(struct chunk *c, enum row_kind kind, size_t size, size_t *offset)
{
    struct row row = {.size = (uint32_t)size, .kind = (uint8_t)kind};
    assert(c->capacity - c->size >= sizeof(row) + size);
    *offset = c->size;
    memcpy(c->data + c->size, &row, sizeof(row));
    c->size += sizeof(row) + size;
    c->live += sizeof(row) + size;
    return c->data + *offset + sizeof(row);
}

void chunk_turn(struct chunk *c, size_t offset, enum row_kind kind)
{
    struct row row;
    memcpy(&row, c->data + offset, sizeof(row));
    size_t whole = sizeof(row) + row.size;
    if (row.kind == ROW_VOID && kind != ROW_VOID)
        c->live += whole;
    else if (row.kind != ROW_VOID && kind == ROW_VOID)
        c->live -= whole;
    row.kind = (uint8_t)kind;
    memcpy(c->data + offset, &row, sizeof(row));
}

uint8_t *journal_own(struct lmdb *l, struct item *item, enum row_kind kind, size_t size,
    struct chunk **chunk, size_t *offset)
{
    struct chunk *c = item->chunk;
    size_t need = sizeof(struct row) + size;
    if (c->capacity - c->size < need) {
        /* Behind the full one, before what the caller asked for later. */
        struct chunk *more = chunk_new(need > LMDB_CHUNK / 8 ? need : LMDB_CHUNK / 8);
        l->index.bytes += more->capacity;
        more->next = c->next;
        c->next = more;
        item->chunk = c = more;
    }
    *chunk = c;
    return chunk_add(c, kind, size, offset);
}

void batch_free(struct lmdb *l, struct batch *b)
{
    for (size_t i = 0; i < b->count; i++)
        body_unref(b->items[i].body);
    for (struct chunk *c = b->chunks, *next; c; c = next) {
        next = c->next;
        chunk_unref(l, c);
    }
    store_arena_free(&b->arena);
    free(b->items);
    free(b);
}

/* ---- writing ---- */

/* Where in the pending batches; chunk NULL: behind the last of them. */
struct writer {
    const struct batch *batch;
    const struct chunk *chunk;
};

static void writer_skip(struct writer *w)
{
    while (!w->chunk && w->batch) {
        w->batch = w->batch->next;
        w->chunk = w->batch ? w->batch->chunks : NULL;
    }
}

static void writer_next(struct writer *w)
{
    w->chunk = w->chunk->next;
    writer_skip(w);
}

/* The bytes of the next row, which ends before `end` then: at least one chunk, even a large one. */
static size_t row_measure(struct writer w, struct writer *end)
{
    size_t size = 0;
    while (w.chunk && (size == 0 || size + w.chunk->live <= LMDB_CHUNK)) {
        size += w.chunk->live;
        writer_next(&w);
    }
    *end = w;
    return size;
}

static uint8_t *copy_live(const struct chunk *c, uint8_t *to)
{
    for (size_t at = 0; at < c->size;) {
        struct row row;
        memcpy(&row, c->data + at, sizeof(row));
        size_t whole = sizeof(row) + row.size;
        if (row.kind != ROW_VOID) {
            memcpy(to, c->data + at, whole);
            to += whole;
        }
        at += whole;
    }
    return to;
}

/* A row has what many batches brought: it is the number of rows that it takes time to delete. */
void journal_write(struct lmdb *l)
{
    struct writer w = {l->pending, l->pending ? l->pending->chunks : NULL};
    struct writer end;
    writer_skip(&w);
    l->group_rows = 0;
    for (size_t size; (size = row_measure(w, &end)) > 0; w = end) {
        uint64_t sequence = l->sequence + 1;
        uint8_t *to = table_reserve(l, TABLE_JOURNAL, &sequence, sizeof(sequence), size);
        if (!to)
            return;
        for (; w.chunk != end.chunk; writer_next(&w))
            to = copy_live(w.chunk, to);
        l->sequence = sequence;
        l->group_rows++;
        if (l->index.fresh_since_ns == LMDB_NEVER)
            l->index.fresh_since_ns = clock_mono_ns();
    }
}

void journal_rotate(struct lmdb *l)
{
    struct index *x = &l->index;
    assert(!x->applying);
    free(x->aging);
    x->aging = x->fresh;
    x->aging_count = x->fresh_count;
    x->aging_next = 0;
    x->fresh = NULL;
    x->fresh_count = x->fresh_capacity = 0;
    x->fresh_since_ns = LMDB_NEVER;
    x->aging_seq = l->sequence;
    x->applying = true;
    x->generation++;
}

/* ---- reading again ---- */

struct replay {
    uint64_t aging_seq;  /* rows up to here are of the aging generation ... */
    uint64_t applied_id; /* ... of which the tables have all ids up to here */
    bool aging;
};

/* A dead letter may be revived, and applied so, while its earlier life was still to be applied. */
static void replay_append(struct lmdb *l, struct chunk *c, size_t offset, size_t size)
{
    struct record r;
    if (!record_unpack(c->data + offset, size, &r, NULL))
        return;
    struct entry *e = index_get(l, r.id);
    if (!e)
        e = index_add(l, r.id, lmdb_queue_get(l, r.queue), task_in_tables(l, r.id));
    index_record(l, e, c, offset, size);
}

/* Of a task that is not there: it was applied with an older generation, to which the task belongs.
 */
static void replay_finish(struct lmdb *l, struct chunk *c, size_t offset, size_t size)
{
    struct finish f;
    struct found found;
    if (!finish_unpack(c->data + offset, size, &f) || !task_find(l, f.id, &found))
        return;
    bool keep = f.keep_until_ms && !slice_detached(f.result);
    if (!found.entry)
        found.entry = index_add(l, f.id, found.queue, true);
    if (keep)
        index_ended(l, found.entry, c, offset, size);
    else
        index_forget(l, found.entry);
}

/* May be in the tables, as above: laid over it once more, it changes nothing. */
static void replay_reschedule(struct lmdb *l, struct chunk *c, size_t offset, size_t size)
{
    struct record change;
    struct packed_state state;
    struct found found;
    if (!record_unpack(c->data + offset, size, &change, &state) || !task_find(l, change.id, &found))
        return;
    record_reschedule(&found.record, &change);
    found.state.boot = state.boot;
    found.state.expiry_told |= state.expiry_told;
    task_change(l, &found);
}

static void replay_forget(struct lmdb *l, const struct chunk *c, size_t offset)
{
    uint64_t id;
    memcpy(&id, c->data + offset, sizeof(id));
    struct entry *e = index_get(l, id);
    if (e && e->state == ENTRY_ENDED)
        index_forget(l, e);
}

/* Keep-count, ids, queue name. */
static void replay_purge(struct lmdb *l, const struct chunk *c, size_t offset, size_t size)
{
    uint64_t count;
    memcpy(&count, c->data + offset, sizeof(count));
    size_t ids = count * sizeof(uint64_t);
    if (size < sizeof(count) + ids)
        return;
    uint64_t *keep = arena_copy(&l->scratch, c->data + offset + sizeof(count), ids);
    size_t name = sizeof(count) + ids;
    struct lmdb_queue *q = lmdb_queue_find(l, slice_of(c->data + offset + name, size - name));
    if (q)
        purge_index(l, q, keep, count);
}

static void replay_row(
    struct lmdb *l, const struct replay *p, struct chunk *c, size_t offset, const struct row *row)
{
    uint64_t id = 0;
    if (row->kind != ROW_PURGE && row->size >= sizeof(id))
        memcpy(&id, c->data + offset, sizeof(id)); /* each of them begins with it */
    if (p->aging && id && id <= p->applied_id)
        return;
    if (row->kind == ROW_APPEND)
        replay_append(l, c, offset, row->size);
    else if (row->kind == ROW_FINISH)
        replay_finish(l, c, offset, row->size);
    else if (row->kind == ROW_RESCHEDULE)
        replay_reschedule(l, c, offset, row->size);
    else if (row->kind == ROW_FORGET)
        replay_forget(l, c, offset);
    else if (row->kind == ROW_PURGE)
        replay_purge(l, c, offset, row->size);
}

static void replay_chunk(struct lmdb *l, const struct replay *p, struct slice value)
{
    struct chunk *c = chunk_new(value.size);
    l->index.bytes += c->capacity;
    memcpy(c->data, value.data, value.size);
    c->size = value.size;
    for (size_t at = 0; at + sizeof(struct row) <= c->size;) {
        struct row row;
        memcpy(&row, c->data + at, sizeof(row));
        if (row.size > c->size - at - sizeof(row))
            break;
        replay_row(l, p, c, at + sizeof(row), &row);
        at += sizeof(row) + row.size;
    }
    chunk_unref(l, c);
}

static void aging_begins(struct lmdb *l, const struct replay *p)
{
    journal_rotate(l);
    l->index.aging_seq = p->aging_seq;
    if (l->sequence < p->aging_seq)
        l->sequence = p->aging_seq; /* no row of this number comes again */
    apply_step(l, 0);               /* sorts */
}

void journal_replay(struct lmdb *l)
{
    struct replay p = {
        .aging_seq = meta_get(l, "aging", 0), .applied_id = meta_get(l, "applied", 0)};
    MDB_cursor *c = table_cursor(l, TABLE_JOURNAL);
    struct slice key = {0};
    struct slice value;
    l->replaying = true;
    l->index.generation = 1;
    p.aging = p.aging_seq != 0;
    for (bool more = cursor_get(l, c, &key, &value, MDB_FIRST); more;
         more = cursor_get(l, c, &key, &value, MDB_NEXT)) {
        uint64_t sequence;
        memcpy(&sequence, key.data, sizeof(sequence));
        if (p.aging && sequence > p.aging_seq) {
            aging_begins(l, &p);
            p.aging = false;
        }
        l->sequence = sequence;
        replay_chunk(l, &p, value);
    }
    cursor_close(c);
    if (p.aging)
        aging_begins(l, &p);
    if (l->sequence && l->index.fresh_since_ns == LMDB_NEVER && !p.aging)
        l->index.fresh_since_ns = clock_mono_ns();
    l->replaying = false;
}
