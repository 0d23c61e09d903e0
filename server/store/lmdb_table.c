/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of the LMDB store. The first error of a group sticks, and makes all that follows a no-op. */
#include <string.h>
#include "server/store/lmdb.h"

static MDB_val as_val(const void *data, size_t size)
{
    return (MDB_val){size, (void *)(uintptr_t)data};
}

static bool failed(struct lmdb *l, int rc)
{
    if (rc == 0)
        return false;
    if (rc != MDB_NOTFOUND && !l->error)
        l->error = rc;
    return true;
}

bool table_get(struct lmdb *l, enum table t, const void *key, size_t size, struct slice *value)
{
    MDB_val k = as_val(key, size);
    MDB_val v;
    if (l->error || failed(l, mdb_get(l->txn, l->tables[t], &k, &v)))
        return false;
    *value = slice_of(v.mv_data, v.mv_size);
    return true;
}

bool table_copy(struct lmdb *l, enum table t, const void *key, size_t size, struct slice *value)
{
    if (!table_get(l, t, key, size, value))
        return false;
    value->data = arena_copy(&l->scratch, value->data, value->size);
    return true;
}

void table_put(struct lmdb *l, enum table t, const void *key, size_t size, struct slice value)
{
    MDB_val k = as_val(key, size);
    MDB_val v = as_val(value.data, value.size);
    l->dirty = true;
    if (!l->error)
        failed(l, mdb_put(l->txn, l->tables[t], &k, &v, 0));
}

uint8_t *table_reserve(struct lmdb *l, enum table t, const void *key, size_t size, size_t bytes)
{
    MDB_val k = as_val(key, size);
    MDB_val v = as_val(NULL, bytes);
    l->dirty = true;
    if (l->error || failed(l, mdb_put(l->txn, l->tables[t], &k, &v, MDB_RESERVE)))
        return NULL;
    return v.mv_data;
}

bool table_delete(struct lmdb *l, enum table t, const void *key, size_t size)
{
    MDB_val k = as_val(key, size);
    if (l->error || failed(l, mdb_del(l->txn, l->tables[t], &k, NULL)))
        return false;
    l->dirty = true;
    return true;
}

MDB_cursor *table_cursor(struct lmdb *l, enum table t)
{
    MDB_cursor *c = NULL;
    if (l->error || failed(l, mdb_cursor_open(l->txn, l->tables[t], &c)))
        return NULL;
    return c;
}

bool cursor_get(
    struct lmdb *l, MDB_cursor *c, struct slice *key, struct slice *value, MDB_cursor_op op)
{
    MDB_val k = as_val(key->data, key->size);
    MDB_val v;
    if (!c || l->error || failed(l, mdb_cursor_get(c, &k, &v, op)))
        return false;
    *key = slice_of(k.mv_data, k.mv_size);
    *value = slice_of(v.mv_data, v.mv_size);
    return true;
}

/* Much cheaper than table_get() when the row is near the last one. */
bool cursor_seek(struct lmdb *l, MDB_cursor *c, const void *key, size_t size, struct slice *value)
{
    struct slice k = slice_of(key, size);
    return cursor_get(l, c, &k, value, MDB_SET);
}

bool cursor_delete(struct lmdb *l, MDB_cursor *c)
{
    if (l->error || failed(l, mdb_cursor_del(c, 0)))
        return false;
    l->dirty = true;
    return true;
}

void cursor_close(MDB_cursor *c)
{
    if (c)
        mdb_cursor_close(c);
}

/* ---- meta ---- */

uint64_t meta_get(struct lmdb *l, const char *name, uint64_t otherwise)
{
    struct slice value;
    uint64_t number;
    if (!table_get(l, TABLE_META, name, strlen(name), &value) || value.size != sizeof(number))
        return otherwise;
    memcpy(&number, value.data, sizeof(number));
    return number;
}

void meta_put(struct lmdb *l, const char *name, uint64_t value)
{
    table_put(l, TABLE_META, name, strlen(name), slice_of(&value, sizeof(value)));
}

/* ---- keys ---- */

void key_u32(uint8_t *to, uint32_t value)
{
    value = __builtin_bswap32(value);
    memcpy(to, &value, sizeof(value));
}

void key_u64(uint8_t *to, uint64_t value)
{
    value = __builtin_bswap64(value);
    memcpy(to, &value, sizeof(value));
}

uint64_t key_read(const uint8_t *from, size_t bytes)
{
    uint64_t value = 0;
    while (bytes--)
        value = value << 8 | *from++;
    return value;
}

void ready_key(uint8_t key[13], uint32_t queue, uint8_t rank, uint64_t id)
{
    key_u32(key, queue);
    key[4] = rank;
    key_u64(key + 5, id);
}

void ready_key_of(uint8_t key[13], uint32_t queue, const struct record *r)
{
    uint8_t rank = (uint8_t)(9 - r->priority);
    ready_key(key, queue, r->due_ms ? rank | LMDB_DELAYED : rank, r->id);
}

void agenda_key(uint8_t key[17], uint64_t when_ms, enum agenda_kind kind, uint64_t id)
{
    key_u64(key, when_ms);
    key[8] = (uint8_t)kind;
    key_u64(key + 9, id);
}

/* ---- parts: large values in pieces, for a fragmented file has no room for one in a row ---- */

void part_key(uint8_t key[12], uint64_t id, uint32_t number)
{
    key_u64(key, id);
    key_u32(key + 8, number);
}

void parts_put(struct lmdb *l, enum table t, uint64_t id, uint32_t first, const struct body *b)
{
    uint8_t key[12];
    for (size_t at = 0; at < b->size; at += LMDB_CHUNK, first++) {
        size_t size = b->size - at < LMDB_CHUNK ? b->size - at : LMDB_CHUNK;
        part_key(key, id, first);
        table_put(l, t, key, sizeof(key), slice_of(b->data + at, size));
    }
}

struct body *parts_get(struct lmdb *l, enum table t, uint64_t id, uint32_t first, size_t size)
{
    struct body *b = store_body(size);
    uint8_t key[12];
    for (size_t at = 0; at < size; first++) {
        struct slice part;
        part_key(key, id, first);
        if (!table_get(l, t, key, sizeof(key), &part) || part.size > size - at || !part.size) {
            body_unref(b);
            return NULL;
        }
        memcpy(b->data + at, part.data, part.size);
        at += part.size;
    }
    return b;
}

void parts_delete(struct lmdb *l, enum table t, uint64_t id, uint32_t first, size_t size)
{
    uint8_t key[12];
    for (size_t at = 0; at < size; at += LMDB_CHUNK, first++) {
        part_key(key, id, first);
        table_delete(l, t, key, sizeof(key));
    }
}
