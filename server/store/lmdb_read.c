/* SPDX-License-Identifier: Apache-2.0 */
/* FETCH, LOOKUP: the order of a queue and single tasks, out of the index and the tables. */
#include "server/store/lmdb.h"

#define LOOKED_BYTES ((uint64_t)32 << 20) /* given by the LOOKUPs of a group, and one more */

/* What the tables have next in the order, passing over what the index knows better. */
struct table_stream {
    MDB_cursor *cursor;
    uint32_t queue;
    bool there;
    struct order_key key;
};

static void stream_read(struct lmdb *l, struct table_stream *s, struct slice key, MDB_cursor_op op)
{
    struct slice value;
    s->there = false;
    for (; cursor_get(l, s->cursor, &key, &value, op); op = MDB_NEXT) {
        if (key_read(key.data, 4) != s->queue || key.data[4] >= LMDB_DELAYED)
            return;
        s->key = (struct order_key){key.data[4], key_read(key.data + 5, 8)};
        if (index_get(l, s->key.id))
            continue;
        s->there = true;
        return;
    }
}

static void stream_open(
    struct lmdb *l, struct table_stream *s, const struct lmdb_queue *q, struct order_key after)
{
    uint8_t key[13];
    ready_key(key, q->number, after.rank, after.id + 1);
    *s = (struct table_stream){.cursor = table_cursor(l, TABLE_READY), .queue = q->number};
    stream_read(l, s, slice_of(key, sizeof(key)), MDB_SET_RANGE);
}

struct merge {
    struct lmdb_queue *queue;
    struct table_stream tables;
    MDB_cursor *tasks; /* the rows that `tables` leads to */
    uint8_t rank;      /* of the index */
    size_t place;
    struct entry *mine; /* the index's next; looked up once for each step of its own */
};

static void merge_index(struct merge *m)
{
    m->mine = NULL;
    while (m->rank < LMDB_RANKS) {
        m->mine = index_rank_next(m->queue, m->rank, &m->place);
        if (m->mine)
            return;
        if (++m->rank < LMDB_RANKS)
            m->place = index_rank_seek(m->queue, m->rank, 0);
    }
}

static void merge_open(
    struct lmdb *l, struct merge *m, struct lmdb_queue *q, struct order_key after)
{
    m->queue = q;
    m->tasks = table_cursor(l, TABLE_TASKS);
    m->rank = after.rank;
    m->place = after.rank < LMDB_RANKS ? index_rank_seek(q, after.rank, after.id) : 0;
    merge_index(m);
    stream_open(l, &m->tables, q, after);
}

/* The next one in the order; merge_pass() goes behind it. */
static bool merge_peek(const struct merge *m, struct order_key *key)
{
    const struct entry *e = m->mine;
    struct order_key mine = e ? (struct order_key){e->rank, e->id} : (struct order_key){0};
    if (!e && !m->tables.there)
        return false;
    *key = e && (!m->tables.there || order_key_less(mine, m->tables.key)) ? mine : m->tables.key;
    return true;
}

static bool merge_take(struct lmdb *l, const struct merge *m, struct order_key key, struct found *f)
{
    if (m->tables.there && m->tables.key.id == key.id)
        return task_of_row(l, m->tasks, key.id, f);
    task_of_entry(m->mine, f);
    return true;
}

static void merge_close(const struct merge *m)
{
    cursor_close(m->tables.cursor);
    cursor_close(m->tasks);
}

static void merge_pass(struct lmdb *l, struct merge *m, struct order_key key)
{
    if (m->tables.there && m->tables.key.id == key.id) {
        stream_read(l, &m->tables, (struct slice){0}, MDB_NEXT);
    } else {
        m->place++;
        merge_index(m);
    }
}

static void edge_reached(struct lmdb *l, struct lmdb_queue *q, struct order_key key)
{
    if (!order_key_less(q->edge, key))
        return;
    q->edge = key;
    lmdb_queue_touch(l, q);
}

void op_fetch(struct lmdb *l, struct item *item, struct reply *reply, struct store_event *e)
{
    const struct store_op *op = item->op;
    struct reply_records list = {.reply = reply};
    struct lmdb_queue *q = lmdb_queue_find(l, op->queue);
    struct merge m;
    struct order_key key;
    struct found f;
    e->exhausted = true;
    if (q)
        merge_open(l, &m, q, op->after);
    while (q && merge_peek(&m, &key)) {
        e->exhausted = false;
        if (list.count == op->limit)
            break;
        if (merge_take(l, &m, key, &f)) {
            bool fits = list.bytes + f.record.payload.size <= op->limit_bytes;
            if (list.count && op->limit_bytes && !fits)
                break;
            task_give(l, &list, &f);
            edge_reached(l, q, key);
        }
        merge_pass(l, &m, key);
        e->exhausted = true;
    }
    if (q)
        merge_close(&m);
    reply_set_records(&list, e);
}

/* ---- by id ---- */

/* Who asks for a payload has no use for a result. */
static bool finish_bare(const struct store_op *op)
{
    return op->bare || op->payload;
}

static bool kept_finish(struct lmdb *l, struct item *item, struct reply *reply, struct finish **out)
{
    const struct entry *entry = index_get(l, item->op->id);
    struct slice packed;
    enum table table;
    struct finish f;
    struct body *body = NULL;
    if (entry && entry->chunk)
        packed = slice_of(entry->chunk->data + entry->offset, entry->size);
    else if (!result_get(l, item->op->id, &packed, &table))
        return false;
    if (!finish_unpack(packed.data, packed.size, &f) || f.keep_until_ms <= l->now_ms)
        return false;
    if (!finish_bare(item->op) && slice_detached(f.result))
        body = parts_get(l, table, f.id, 1, f.result.size);
    l->group_looked += packed.size + (body ? body->size : 0);
    *out = reply_finish(reply, packed.data, packed.size, body);
    body_unref(body);
    return true;
}

static struct body *dead_payload(struct lmdb *l, const struct store_op *op, struct slice packed)
{
    struct record r;
    if (!op->payload || !record_unpack(packed.data, packed.size, &r, NULL) ||
        !slice_detached(r.payload))
        return NULL;
    struct body *body = parts_get(l, TABLE_PARTS, op->id, 0, r.payload.size);
    l->group_looked += body ? body->size : 0;
    return body;
}

/* Of a dead letter the record as well; a large payload is left out for who does not ask for it. */
static void dead_beside(
    struct lmdb *l, const struct store_op *op, struct reply *reply, struct store_event *e)
{
    struct slice record;
    struct slice packed;
    struct reply_records list = {.reply = reply};
    if (!dead_get(l, op->id, &record, &packed))
        return;
    if (!e->finishes)
        e->finishes = dead_finish(l, op->id, packed, reply, finish_bare(op));
    l->group_looked += record.size + packed.size;
    struct body *body = dead_payload(l, op, record);
    reply_record(&list, record.data, record.size, body);
    body_unref(body);
    reply_set_records(&list, e);
    e->record_count = 0; /* it does not live */
}

static void found_give(
    struct lmdb *l, const struct found *f, bool bare, struct reply *reply, struct store_event *e)
{
    struct reply_records list = {.reply = reply};
    if (bare)
        reply_record(&list, f->packed.data, f->packed.size, NULL)->maybe_running =
            task_maybe_running(l, f);
    else
        task_give(l, &list, f);
    l->group_looked += f->packed.size + (bare ? 0 : list.bytes);
    reply_set_records(&list, e);
}

/* What they give is kept until it is polled: a client may ask for the same result 20,000 times. */
void op_lookup(struct lmdb *l, struct item *item, struct reply *reply, struct store_event *e)
{
    struct found f;
    struct finish *finish;
    if (l->group_looked >= LOOKED_BYTES) {
        e->outcome = OUTCOME_LATER;
        return;
    }
    if (task_find(l, item->op->id, &f)) {
        found_give(l, &f, item->op->bare, reply, e);
        return;
    }
    if (kept_finish(l, item, reply, &finish))
        e->finishes = finish;
    dead_beside(l, item->op, reply, e);
    if (!e->finishes)
        e->outcome = OUTCOME_GONE;
}
