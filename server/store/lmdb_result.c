/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kept finishes of the LMDB store: 16 tables by the time of their expiry, each dropped whole.
 *
 * Four classes of retention with four tables each: a finish goes to the first class whose three
 * spans reach its expiry (and whose table is not ahead of the clock), into the table of the span in
 * which it expires. So a table never holds two spans at once, and is empty again before its turn
 * comes round.
 */
#include <stdio.h>
#include "server/store/lmdb.h"

static const uint64_t class_span_ms[4] = {UINT64_C(4) * 60 * 1000, UINT64_C(60) * 60 * 1000,
    UINT64_C(16) * 3600 * 1000, UINT64_C(30) * 24 * 3600 * 1000};

static uint64_t span_of(unsigned table)
{
    return class_span_ms[table / 4];
}

static void period_name(char name[16], unsigned table)
{
    snprintf(name, 16, "results%02u", table);
}

void results_load(struct lmdb *l)
{
    char name[16];
    for (unsigned i = 0; i < LMDB_RESULT_TABLES; i++) {
        period_name(name, i);
        l->result_period[i] = meta_get(l, name, 0);
    }
}

static void table_empty(struct lmdb *l, unsigned table)
{
    char name[16];
    period_name(name, table);
    int rc = l->error ? l->error : mdb_drop(l->txn, l->tables[TABLE_RESULTS + table], 0);
    if (rc) {
        l->error = rc;
        return;
    }
    l->result_period[table] = 0;
    meta_put(l, name, 0);
}

static unsigned table_of(unsigned class, uint64_t period)
{
    return class * 4 + (unsigned)(period % 4);
}

/*
 * A clock that was set back leaves tables whose turn is far ahead. A longer class keeps longer than
 * it must, but drops nothing; the longest one empties such a table, after a step of months.
 */
static unsigned class_for(const struct lmdb *l, uint64_t now_ms, uint64_t until_ms)
{
    for (unsigned class = 0; class < 3; class ++) {
        uint64_t period = until_ms / class_span_ms[class];
        bool ahead = l->result_period[table_of(class, period)] > period + 4;
        if (until_ms <= now_ms + 3 * class_span_ms[class] && !ahead)
            return class;
    }
    return 3;
}

/* The table for an expiry; retentions beyond 90 days end there. */
static unsigned table_for(struct lmdb *l, uint64_t now_ms, uint64_t until_ms)
{
    unsigned class = class_for(l, now_ms, until_ms);
    uint64_t latest = now_ms + 3 * class_span_ms[class];
    uint64_t period = (until_ms < latest ? until_ms : latest) / class_span_ms[class];
    unsigned table = table_of(class, period);
    char name[16];
    /* After a small step back the table's next turn has begun: it goes with those. */
    if (l->result_period[table] != period && l->result_period[table] != period + 4) {
        if (l->result_period[table])
            table_empty(l, table);
        l->result_period[table] = period;
        period_name(name, table);
        meta_put(l, name, period);
    }
    return table;
}

/* The finish stands before the parts of its result. */
static void result_key(uint8_t key[12], uint64_t id)
{
    part_key(key, id, 0);
}

void result_put(struct lmdb *l, const struct finish *f, struct slice packed, const struct body *b)
{
    uint8_t key[12];
    uint64_t now_ms = f->finished_ms > l->now_ms ? f->finished_ms : l->now_ms;
    if (f->keep_until_ms <= now_ms)
        return;
    enum table t = (enum table)(TABLE_RESULTS + table_for(l, now_ms, f->keep_until_ms));
    result_key(key, f->id);
    table_put(l, t, key, sizeof(key), packed);
    if (b)
        parts_put(l, t, f->id, 1, b);
}

void result_put_entry(struct lmdb *l, const struct entry *e)
{
    struct finish f;
    struct slice packed = slice_of(e->chunk->data + e->offset, e->size);
    if (finish_unpack(packed.data, packed.size, &f))
        result_put(l, &f, packed, NULL);
}

bool result_get(struct lmdb *l, uint64_t id, struct slice *packed, enum table *table)
{
    uint8_t key[12];
    result_key(key, id);
    for (unsigned i = 0; i < LMDB_RESULT_TABLES; i++) {
        *table = (enum table)(TABLE_RESULTS + i);
        if (l->result_period[i] && table_copy(l, *table, key, sizeof(key), packed))
            return true;
    }
    return false;
}

bool result_delete(struct lmdb *l, uint64_t id)
{
    struct slice packed;
    struct finish f;
    enum table table;
    uint8_t key[12];
    if (!result_get(l, id, &packed, &table) || !finish_unpack(packed.data, packed.size, &f))
        return false;
    result_key(key, id);
    table_delete(l, table, key, sizeof(key));
    if (slice_detached(f.result))
        parts_delete(l, table, id, 1, f.result.size);
    return f.keep_until_ms > l->now_ms;
}

void results_sweep(struct lmdb *l, uint64_t now_ms)
{
    for (unsigned i = 0; i < LMDB_RESULT_TABLES; i++)
        if (l->result_period[i] && (l->result_period[i] + 1) * span_of(i) <= now_ms)
            table_empty(l, i);
}
