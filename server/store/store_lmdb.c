/* SPDX-License-Identifier: Apache-2.0 */
/* The LMDB store as its caller sees it: opening, handing operations over, events, closing. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>
#include "common/bell.h"
#include "common/clock.h"
#include "server/store/lmdb.h"

#define DEFAULT_BYTES ((uint64_t)16 << 30)
#define INDEX_BOUND   ((uint64_t)14 << 20)

/* ---- handing over ---- */

static size_t row_size(const struct store_op *op)
{
    switch (op->kind) {
    case STORE_APPEND:
    case STORE_RESCHEDULE:
        return sizeof(struct row) + record_packed_size(op->record);
    case STORE_FINISH:
        return sizeof(struct row) + finish_packed_size(op->finish);
    case STORE_FORGET:
        return sizeof(struct row) + sizeof(op->id);
    default:
        return 0;
    }
}

static bool needs_own_rows(enum store_op_kind kind)
{
    return kind == STORE_DUE || kind == STORE_PURGE || kind == STORE_REVIVE;
}

static struct chunk *batch_chunk(struct batch *b, size_t capacity)
{
    struct chunk *c = chunk_new(capacity);
    if (b->last_chunk)
        b->last_chunk->next = c;
    else
        b->chunks = c;
    b->last_chunk = c;
    return c;
}

/*
 * Bytes of the operations from `ops` on that go into one chunk: one operation at the least. A chunk
 * is as large as what it holds, for a single task that stays keeps all of it in memory.
 */
static size_t chunk_fill(const struct store_op *ops, size_t count)
{
    size_t size = row_size(&ops[0]);
    for (size_t i = 1; i < count && !needs_own_rows(ops[i].kind); i++) {
        size_t more = row_size(&ops[i]);
        if (size + more > LMDB_CHUNK)
            break;
        size += more;
    }
    return size;
}

static void pack_row(const struct lmdb *l, struct item *item, const struct store_op *op)
{
    size_t size = row_size(op) - sizeof(struct row);
    struct packed_state state = {.boot = (uint8_t)l->boot};
    struct chunk *c = item->chunk;
    if (op->kind == STORE_APPEND || op->kind == STORE_RESCHEDULE) {
        enum row_kind kind = op->kind == STORE_APPEND ? ROW_APPEND : ROW_RESCHEDULE;
        record_pack(chunk_add(c, kind, size, &item->offset), op->record, state);
        item->id = op->record->id;
        item->body = body_ref(op->record->body);
    } else if (op->kind == STORE_FINISH) {
        finish_pack(chunk_add(c, ROW_FINISH, size, &item->offset), op->finish);
        item->id = op->finish->id;
        item->body = body_ref(op->finish->body);
    } else {
        memcpy(chunk_add(c, ROW_FORGET, size, &item->offset), &op->id, sizeof(op->id));
    }
}

static void copy_rare(struct batch *b, struct item *item, const struct store_op *op)
{
    struct arena *a = &b->arena;
    struct store_op *copy = arena_copy(a, op, sizeof(*op));
    copy->queue.data = op->queue.data ? arena_copy(a, op->queue.data, op->queue.size) : NULL;
    copy->instance.data = arena_copy(a, op->instance.data, op->instance.size);
    copy->keep = arena_copy(a, op->keep, op->keep_count * sizeof(*op->keep));
    item->op = copy;
}

static void pack_item(const struct lmdb *l, struct batch *b, struct item *item,
    const struct store_op *op, size_t rest)
{
    *item = (struct item){.kind = op->kind, .token = op->token, .id = op->id};
    size_t size = row_size(op);
    if (size == 0) {
        copy_rare(b, item, op);
        if (needs_own_rows(op->kind)) /* they are made later, but in this place */
            item->chunk = batch_chunk(b, 0);
        return;
    }
    item->async = op->async || op->kind == STORE_FORGET;
    item->chunk = b->last_chunk;
    if (!item->chunk || item->chunk->capacity - item->chunk->size < size)
        item->chunk = batch_chunk(b, chunk_fill(op, rest));
    pack_row(l, item, op);
    b->bytes += size + (item->body ? item->body->size : 0);
}

static struct batch *batch_pack(
    const struct lmdb *l, const struct store_op *ops, size_t count, uint64_t now_ms)
{
    struct batch *b = store_alloc(sizeof(*b));
    b->items = store_alloc(count * sizeof(*b->items));
    b->count = count;
    b->now_ms = now_ms;
    for (size_t i = 0; i < count; i++)
        pack_item(l, b, &b->items[i], &ops[i], count - i);
    return b;
}

static void lmdb_submit(struct store *s, const struct store_op *ops, size_t count, uint64_t now_ms)
{
    struct lmdb *l = (struct lmdb *)s;
    if (count == 0)
        return;
    struct batch *b = batch_pack(l, ops, count, now_ms);
    atomic_fetch_add(&l->unsettled, b->bytes);
    pthread_mutex_lock(&l->lock);
    if (l->incoming_last)
        l->incoming_last->next = b;
    else
        l->incoming = b;
    l->incoming_last = b;
    pthread_cond_signal(&l->wake);
    pthread_mutex_unlock(&l->lock);
}

static size_t lmdb_poll(struct store *s, const struct store_event **events, size_t limit)
{
    struct lmdb *l = (struct lmdb *)s;
    store_arena_free(&l->opened);
    pthread_mutex_lock(&l->lock);
    size_t count = reply_poll(&l->replies, events, limit);
    bool empty = !l->replies.first;
    /* Read under the lock: a wake-up for what comes next cannot get lost. */
    if (empty)
        bell_quiet(l->event_fd);
    pthread_mutex_unlock(&l->lock);
    return count;
}

static int lmdb_event_fd(const struct store *s)
{
    return ((const struct lmdb *)s)->event_fd;
}

static struct store_usage lmdb_usage(const struct store *s)
{
    struct lmdb *l = (struct lmdb *)(uintptr_t)s;
    return (struct store_usage){.unsettled = atomic_load(&l->unsettled),
        .used = atomic_load(&l->used),
        .max = l->max_bytes};
}

static struct store_capabilities lmdb_capabilities(const struct store *s)
{
    (void)s;
    return (struct store_capabilities){.bypass = false};
}

/* ---- opening and closing ---- */

static struct lmdb *lmdb_new(const struct store_config *config)
{
    struct lmdb *l = store_alloc(sizeof(*l));
    pthread_condattr_t attributes;
    l->ops = &store_lmdb;
    l->path = store_text(config->path);
    l->max_bytes = (config->max_bytes ? config->max_bytes : DEFAULT_BYTES) & ~(uint64_t)4095;
    l->settle_ns = (config->settle_ms ? config->settle_ms : 1000) * UINT64_C(1000000);
    l->spare = UINT64_MAX; /* until the first look */
    l->misfit = UINT64_MAX;
    l->index_bound = l->max_bytes / 32 < INDEX_BOUND ? l->max_bytes / 32 : INDEX_BOUND;
    l->id_block = config->id_block ? config->id_block : STORE_ID_BLOCK;
    l->now_ms = config->now_ms;
    if (getrandom(&l->queue_names.seed, sizeof(l->queue_names.seed), 0) < 0)
        l->queue_names.seed = clock_mono_ns();
    l->heard_ns = clock_mono_ns();
    l->lock_fd = l->event_fd = -1;
    l->index.fresh_since_ns = LMDB_NEVER;
    l->late = reply_new();
    l->early = reply_new();
    pthread_mutex_init(&l->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&l->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    return l;
}

static void lmdb_free(struct lmdb *l)
{
    lmdb_unload(l);
    lmdb_directory_release(l);
    if (l->event_fd >= 0)
        close(l->event_fd);
    reply_queue_free(&l->replies);
    reply_free(l->late);
    reply_free(l->early);
    store_arena_free(&l->opened);
    store_arena_free(&l->life);
    pthread_cond_destroy(&l->wake);
    pthread_mutex_destroy(&l->lock);
    free(l->path);
    free(l);
}

/* This life's number and ids are on disk before anything is done with them. */
static char *lmdb_begin_life(struct lmdb *l, struct store_opened *opened)
{
    char *error = NULL;
    l->boot = meta_get(l, "boot", 0) + 1;
    meta_put(l, "format", LMDB_FORMAT);
    meta_put(l, "boot", l->boot);
    lmdb_tell_opened(l, opened);
    queues_save(l);
    if (!l->error) {
        l->error = mdb_txn_commit(l->txn);
        l->txn = NULL;
    }
    if (l->error) {
        lmdb_text_errno(l, "cannot write to the store", l->error);
        error = store_text(l->text);
    }
    return error;
}

static char *lmdb_start(struct lmdb *l, struct store_opened *opened)
{
    char *error = lmdb_directory_take(l);
    if (!error)
        error = lmdb_load(l);
    if (!error)
        error = lmdb_begin_life(l, opened);
    if (error)
        return error;
    lmdb_measure(l);
    l->event_fd = bell_new();
    int rc = l->event_fd < 0 ? -1 : pthread_create(&l->thread, NULL, lmdb_thread, l);
    return rc == 0 ? NULL : store_text("cannot start the store's thread");
}

static struct store *lmdb_open(
    const struct store_config *config, struct store_opened *opened, char **error)
{
    struct lmdb *l = lmdb_new(config);
    *error = lmdb_start(l, opened);
    if (!*error)
        return (struct store *)l;
    lmdb_free(l);
    return NULL;
}

static void lmdb_close(struct store *s)
{
    struct lmdb *l = (struct lmdb *)s;
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_cond_signal(&l->wake);
    pthread_mutex_unlock(&l->lock);
    pthread_join(l->thread, NULL);
    while (l->pending) {
        struct batch *b = l->pending;
        l->pending = b->next;
        batch_free(l, b);
    }
    lmdb_free(l);
}

const struct store_ops store_lmdb = {
    .name = "lmdb",
    .open = lmdb_open,
    .capabilities = lmdb_capabilities,
    .submit = lmdb_submit,
    .poll = lmdb_poll,
    .event_fd = lmdb_event_fd,
    .usage = lmdb_usage,
    .close = lmdb_close,
};
