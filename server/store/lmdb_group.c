/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A group: the operations that one commit covers, and what becomes of them when it fails.
 *
 * A sync operation is answered when the commit is on disk, and an async one at once, if no other
 * waits before it. Did the pages of a failed commit reach the file all the same, as the number of
 * the last transaction there says, then all of the group is STORED. Else nothing of it is there:
 * what was not answered is REFUSED. Then the environment is closed, opened and the index read
 * again, and what had been answered (async) runs again; so does a FORGET, for nobody asks for that
 * a second time.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <pushrod/error.h>
#include "common/bell.h"
#include "common/clock.h"
#include "server/store/lmdb.h"

#define GARBAGE_ROWS 2000
#define EXPECTED     8u /* operations ahead: their place in the index is fetched meanwhile */

static void give(struct lmdb *l, struct reply *r)
{
    if (r->count == 0) {
        reply_free(r);
        return;
    }
    pthread_mutex_lock(&l->lock);
    reply_push(&l->replies, r);
    pthread_mutex_unlock(&l->lock);
    bell_ring(l->event_fd);
}

void group_announce(struct lmdb *l, uint32_t code)
{
    if (l->down == code)
        return;
    l->down = code;
    struct reply *r = reply_new();
    struct store_event *e = reply_event(r, STORE_APPEND, 0, 0);
    e->event = code ? EVENT_STORE_DOWN : EVENT_STORE_UP;
    e->code = code;
    e->text = code ? arena_copy(&r->arena, l->text, sizeof(l->text)) : NULL;
    give(l, r);
}

bool group_waits(const struct lmdb *l)
{
    return l->pending != NULL;
}

/* ---- running ---- */

/*
 * Events come in order: behind one that waits for the commit, the others wait, too. What is large
 * may not fit, and must not be owed then.
 */
static void run_item(struct lmdb *l, struct item *item)
{
    bool early = item->async && !item->body && l->late->count == 0;
    struct reply *r = early ? l->early : l->late;
    op_run(l, item, r);
    if (l->error) {
        r->count--; /* group_fail() answers it */
        return;
    }
    l->pending_sync |= !item->async;
    item->told = early;
    item->answered = early && r->events[r->count - 1].outcome == OUTCOME_STORED;
}

static void pending_add(struct lmdb *l, struct batch *b)
{
    b->next = NULL;
    if (l->pending_last) {
        l->pending_last->next = b;
    } else {
        l->pending = b;
        l->pending_since_ns = clock_mono_ns();
    }
    l->pending_last = b;
    l->group_ops += b->count;
    l->group_bytes += b->bytes;
    l->unlooked_bytes += b->bytes;
}

static void run_batch(struct lmdb *l, struct batch *b)
{
    l->now_ms = b->now_ms;
    for (const struct chunk *c = b->chunks; c; c = c->next)
        l->index.bytes += c->capacity;
    pending_add(l, b);
    for (size_t i = 0; i < b->count && !l->error; i++) {
        if (i + EXPECTED < b->count)
            idmap_expect(&l->index.entries, b->items[i + EXPECTED].id);
        run_item(l, &b->items[i]);
    }
}

void group_run(struct lmdb *l, struct batch *taken)
{
    lmdb_begin(l);
    for (struct batch *b = taken, *next; b; b = next) {
        next = b->next;
        run_batch(l, b);
    }
    if (l->early->count) {
        give(l, l->early);
        l->early = reply_new();
    }
    l->heard_ns = clock_mono_ns();
}

/* ---- failure ---- */

static bool is_owed(const struct item *item)
{
    return item->answered || (item->kind == STORE_FORGET && !item->told);
}

static void refuse_rest(struct lmdb *l, uint32_t code)
{
    struct reply *r = reply_new();
    const char *text = arena_copy(&r->arena, l->text, sizeof(l->text));
    for (struct batch *b = l->pending; b; b = b->next) {
        for (size_t i = 0; i < b->count; i++) {
            struct item *item = &b->items[i];
            if (item->told || is_owed(item))
                continue;
            item->told = true;
            struct store_event *e = reply_event(r, item->kind, item->token, item->id);
            e->outcome = OUTCOME_REFUSED;
            e->code = code;
            e->text = text;
        }
    }
    give(l, r);
}

/* Only what is owed is left of the batch: true if that is anything. */
static bool batch_reduce(struct batch *b)
{
    size_t left = 0;
    for (struct chunk *c = b->chunks; c; c = c->next) {
        for (size_t at = 0; at < c->size;) {
            struct row row;
            memcpy(&row, c->data + at, sizeof(row));
            chunk_turn(c, at, ROW_VOID);
            at += sizeof(row) + row.size;
        }
    }
    for (size_t i = 0; i < b->count; i++)
        left += is_owed(&b->items[i]);
    return left > 0;
}

static enum row_kind row_kind_of(enum store_op_kind kind)
{
    static const uint8_t kinds[STORE_WORKER + 1] = {[STORE_APPEND] = ROW_APPEND,
        [STORE_FINISH] = ROW_FINISH,
        [STORE_RESCHEDULE] = ROW_RESCHEDULE,
        [STORE_FORGET] = ROW_FORGET};
    return (enum row_kind)kinds[kind];
}

static void run_again(struct lmdb *l, struct batch *b)
{
    struct reply *nobody = reply_new();
    l->now_ms = b->now_ms;
    for (size_t i = 0; i < b->count && !l->error; i++) {
        struct item *item = &b->items[i];
        if (!is_owed(item))
            continue;
        chunk_turn(item->chunk, item->offset, row_kind_of(item->kind));
        struct reply *r = item->answered ? nobody : l->late;
        op_run(l, item, r);
        if (l->error)
            r->count--;
    }
    reply_free(nobody);
}

static void pending_reduce(struct lmdb *l)
{
    struct batch **place = &l->pending;
    l->pending_last = NULL;
    while (*place) {
        struct batch *b = *place;
        if (batch_reduce(b)) {
            l->pending_last = b;
            place = &b->next;
            continue;
        }
        *place = b->next;
        atomic_fetch_sub(&l->unsettled, b->bytes);
        batch_free(l, b);
    }
    l->pending_sync = false;
}

static void group_end(struct lmdb *l)
{
    for (struct batch *b = l->pending, *next; b; b = next) {
        next = b->next;
        atomic_fetch_sub(&l->unsettled, b->bytes);
        batch_free(l, b);
    }
    if (l->late->count) {
        give(l, l->late);
        l->late = reply_new();
    }
    l->pending = l->pending_last = NULL;
    l->pending_sync = false;
    l->group_ops = l->group_bytes = l->group_bodies = l->group_looked = 0;
    l->group += l->group == UINT32_MAX ? 2 : 1; /* 0 means none */
}

/* Nothing of the group is in the file. */
static void group_refuse(struct lmdb *l, uint32_t code)
{
    reply_free(l->late);
    l->late = reply_new();
    refuse_rest(l, code);
    pending_reduce(l);
    l->group_ops = l->group_bytes = l->group_bodies = l->group_looked = 0;
}

bool group_reopen(struct lmdb *l)
{
    lmdb_unload(l);
    char *error = lmdb_load(l);
    if (error)
        snprintf(l->text, sizeof(l->text), "%s", error);
    free(error);
    for (struct batch *b = l->pending; b && l->env; b = b->next)
        run_again(l, b);
    return l->env && !l->error;
}

/* A full disk may come as EIO; then nothing was written, and there is no doubt about it. */
static bool is_full(struct lmdb *l, int error)
{
    if (error == ENOSPC || error == EDQUOT || error == MDB_MAP_FULL || error == MDB_TXN_FULL)
        return true;
    return error == EIO && lmdb_begin(l) && !lmdb_room(l);
}

static void tell_failed(struct lmdb *l, bool full, int error)
{
    char what[128] = "a write failed";
    if (full && l->group_bodies)
        snprintf(what, sizeof(what),
            "it has no room for a payload or result of %llu KiB, or several together",
            (unsigned long long)(l->group_bodies + 1023) / 1024);
    else if (full)
        snprintf(what, sizeof(what), "it is full");
    lmdb_text_errno(l, what, error);
}

/* Are the pages of that transaction in the file? The map shows it as it is now. */
static bool is_written(const struct lmdb *l, size_t txn)
{
    MDB_envinfo info;
    return txn && mdb_env_info(l->env, &info) == 0 && info.me_last_txnid >= txn;
}

/* txn: of the commit that failed while pages were written; 0: it failed before. */
static void group_fail(struct lmdb *l, size_t txn)
{
    int error = l->error;
    if (l->txn)
        mdb_txn_abort(l->txn);
    l->txn = NULL;
    l->error = 0;
    bool full = is_full(l, error);
    uint64_t bodies = full ? l->group_bodies : 0;
    if (l->env) /* else l->text says why it could not be opened again */
        tell_failed(l, full, error);
    /* Before the answers: who gets them should know why, and not ask at once again. */
    group_announce(l, full ? PUSHROD_E_STORE_FULL : PUSHROD_E_STORE_FAILED);
    if (is_written(l, txn))
        group_end(l);
    else
        group_refuse(l, l->down);
    group_reopen(l);
    if (bodies && l->env) {
        l->misfit = bodies;
        l->misfit_left = lmdb_left(l);
    }
    l->unlooked_bytes = 0; /* what failed took no room: no reason to look sooner */
    l->room_ns = l->failed_ns = clock_mono_ns();
}

/* ---- commit ---- */

void group_commit(struct lmdb *l, uint64_t now_ns, size_t apply)
{
    l->commit_ns = now_ns;
    /* A group that could not begin has not run: to begin it now would be to leave it unanswered. */
    bool failed = group_waits(l) && l->error;
    if (failed || !lmdb_begin(l)) {
        group_fail(l, 0);
        return;
    }
    journal_write(l);
    if (apply)
        apply_step(l, apply);
    queue_garbage_step(l, GARBAGE_ROWS);
    queues_save(l);
    size_t txn = l->error ? 0 : mdb_txn_id(l->txn);
    if (txn) {
        l->error = mdb_txn_commit(l->txn);
        l->txn = NULL;
    }
    store_arena_free(&l->scratch);
    if (l->error) {
        group_fail(l, txn);
        return;
    }
    l->commits++;
    group_end(l);
}
