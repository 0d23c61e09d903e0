/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unique keys of the LMDB store. They are rows at once, with the commit of their operation, and
 * so need no index; the queue's number before the key frees them all when the queue is purged.
 */
#include "server/store/lmdb.h"

#define UNIQUE_KEY_MAX (4 + 256 + 8)

struct holder {
    uint64_t id;
    uint64_t until_ms; /* 0: until the task ends */
};

static size_t unique_key(uint8_t key[UNIQUE_KEY_MAX], uint32_t number, struct slice unique)
{
    size_t size = unique.size < 256 ? unique.size : 256;
    key_u32(key, number);
    if (size)
        memcpy(key + 4, unique.data, size);
    return 4 + size;
}

static bool holder_get(struct lmdb *l, const void *key, size_t size, struct holder *h)
{
    struct slice value;
    if (!table_get(l, TABLE_UNIQUE, key, size, &value) || value.size != sizeof(*h))
        return false;
    memcpy(h, value.data, sizeof(*h));
    return true;
}

static void holder_delete(struct lmdb *l, const void *key, size_t size, const struct holder *h)
{
    uint8_t moment[17];
    table_delete(l, TABLE_UNIQUE, key, size);
    agenda_key(moment, h->until_ms, AGENDA_UNIQUE, h->id);
    if (h->until_ms)
        table_delete(l, TABLE_AGENDA, moment, sizeof(moment));
}

bool unique_holder(struct lmdb *l, struct lmdb_queue *q, const struct record *r, uint64_t *id)
{
    uint8_t key[UNIQUE_KEY_MAX];
    struct holder h;
    size_t size = unique_key(key, q->number, r->unique);
    if (!holder_get(l, key, size, &h))
        return false;
    if (h.until_ms && h.until_ms <= l->now_ms) {
        holder_delete(l, key, size, &h);
        return false;
    }
    *id = h.id;
    return true;
}

static void holder_put(struct lmdb *l, const void *key, size_t size, const struct holder *h)
{
    uint8_t moment[17];
    table_put(l, TABLE_UNIQUE, key, size, slice_of(h, sizeof(*h)));
    agenda_key(moment, h->until_ms, AGENDA_UNIQUE, h->id);
    if (h->until_ms)
        table_put(l, TABLE_AGENDA, moment, sizeof(moment), slice_of(key, size));
}

void unique_take(struct lmdb *l, struct lmdb_queue *q, const struct record *r)
{
    uint8_t key[UNIQUE_KEY_MAX];
    struct holder h = {r->id, r->unique_ms};
    size_t size = unique_key(key, q->number, r->unique);
    holder_put(l, key, size, &h);
}

void lmdb_unique_release(struct lmdb *l, struct lmdb_queue *q, const struct record *r)
{
    uint8_t key[UNIQUE_KEY_MAX];
    struct holder h;
    if (!r->unique.data)
        return;
    size_t size = unique_key(key, q->number, r->unique);
    if (holder_get(l, key, size, &h) && h.id == r->id && h.until_ms == 0)
        table_delete(l, TABLE_UNIQUE, key, size);
}

void unique_move(struct lmdb *l, uint32_t from, uint32_t to, const struct record *r)
{
    uint8_t key[UNIQUE_KEY_MAX];
    struct holder h;
    if (!r->unique.data)
        return;
    size_t size = unique_key(key, from, r->unique);
    if (!holder_get(l, key, size, &h) || h.id != r->id)
        return;
    holder_delete(l, key, size, &h);
    key_u32(key, to);
    holder_put(l, key, size, &h);
}

void unique_ended(struct lmdb *l, struct slice key, uint64_t id, uint64_t when_ms)
{
    struct holder h;
    if (holder_get(l, key.data, key.size, &h) && h.id == id && h.until_ms == when_ms)
        table_delete(l, TABLE_UNIQUE, key.data, key.size);
}
