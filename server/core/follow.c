/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is told about a task: connections, and the embedding program (CONN_SELF, whose follower has
 * no conn). A follower belongs to one task, in memory (task.followers) or in the store only
 * (core.absent), and to its connection, in one of two lists: `following` until the finish is told,
 * then `told` until the connection acknowledges it.
 */
#include <assert.h>
#include <stdlib.h>
#include "server/core/verbs.h"

/* ---- connections: made when they first follow or watch something ---- */

static struct conn *conn_find(const struct core *c, uint64_t id)
{
    struct conn *conn = idmap_pointer(&c->conns, id);
    assert(!conn || conn->id == id);
    return conn;
}

struct conn *conn_get(struct core *c, uint64_t id)
{
    assert(id != 0);
    struct conn *conn = conn_find(c, id);
    if (conn)
        return conn;
    conn = calloc(1, sizeof *conn);
    if (!conn)
        return NULL;
    conn->id = id;
    list_init(&conn->following);
    list_init(&conn->told);
    list_init(&conn->watch_node);
    if (!idmap_put(&c->conns, id, (uintptr_t)conn)) {
        free(conn);
        return NULL;
    }
    return conn;
}

/* A request that waits for the store makes its connection known first: so it tells. */
bool conn_is_open(const struct core *c, uint64_t id)
{
    assert(id != 0);
    return id == CONN_SELF || conn_find(c, id);
}

/* ---- followers ---- */

struct follower *follower_new(struct core *c, uint64_t conn, uint64_t request, uint8_t level)
{
    struct conn *of = conn == CONN_SELF ? NULL : conn_get(c, conn);
    if (conn != CONN_SELF && !of)
        return NULL;
    struct follower *f = pool_follower(&c->pool);
    if (!f)
        return NULL;
    assert(level <= FOLLOW_ALL);
    *f = (struct follower){.conn = of, .request = request, .level = level};
    list_init(&f->in_conn);
    if (of)
        list_push_back(&of->following, &f->in_conn);
    return f;
}

void follower_free(struct core *c, struct follower *f)
{
    assert(!f->absent && !f->task);
    list_remove(&f->in_conn);
    pool_follower_free(&c->pool, f);
}

void follower_attach(struct task *t, struct follower *f)
{
    assert(t->state != TASK_GONE);
    f->absent = false;
    f->task = t;
    f->next = t->followers;
    t->followers = f;
    if (f->level != FOLLOW_NONE)
        t->record.followed = true;
}

static void chain_remove(struct follower **chain, struct follower *f)
{
    while (*chain != f) {
        assert(*chain);
        chain = &(*chain)->next;
    }
    *chain = f->next;
}

void follower_detach(struct task *t, struct follower *f)
{
    assert(!f->absent && f->task == t);
    chain_remove(&t->followers, f);
    f->task = NULL;
}

void followers_drop(struct core *c, struct task *t)
{
    for (struct follower *f; (f = t->followers);) {
        follower_detach(t, f);
        follower_free(c, f);
    }
}

/* Only a hint: its followers are told soon. */
void follow_expect(const struct task *t)
{
    assert(!t || t->state != TASK_GONE);
    if (t)
        __builtin_prefetch(t->followers, 1);
}

/* ---- of tasks that are in the store only ---- */

static void not_absent(struct follower *f)
{
    assert(f->absent);
    f->absent = false;
    f->task = NULL;
}

/* No memory to remember who waits: nobody could be told, and that must not be. */
static void follow_lost(struct core *c, struct follower *chain)
{
    assert(chain);
    c->failed = true;
    for (struct follower *next; chain; chain = next) {
        next = chain->next;
        not_absent(chain);
        follower_free(c, chain);
    }
}

void follow_absent(struct core *c, struct queue *q, uint64_t id, struct follower *chain)
{
    assert(chain && !ledger_find(&c->ledger, id));
    struct follower *first = idmap_pointer(&c->absent, id);
    for (struct follower *f = chain, *next; f; f = next) {
        next = f->next;
        f->absent = true;
        f->queue = q;
        f->id = id;
        f->next = first;
        first = f;
    }
    if (!idmap_put(&c->absent, id, (uintptr_t)first))
        follow_lost(c, first);
}

/* They follow the task again that has come into memory. */
void follow_claim(struct core *c, struct task *t)
{
    struct follower *first = idmap_pointer(&c->absent, t->record.id);
    assert(t->state != TASK_GONE);
    if (first)
        idmap_remove(&c->absent, t->record.id);
    for (struct follower *f = first, *next; f; f = next) {
        next = f->next;
        not_absent(f);
        follower_attach(t, f);
    }
}

static void absent_remove(struct core *c, struct follower *f)
{
    struct follower *chain = idmap_pointer(&c->absent, f->id);
    assert(f->absent && chain);
    chain_remove(&chain, f);
    if (chain)
        idmap_put(&c->absent, f->id, (uintptr_t)chain);
    else
        idmap_remove(&c->absent, f->id);
    not_absent(f);
}

/* ---- what followers are told on the way ---- */

void follow_tell(struct core *c, const struct task *t, uint16_t kind, const void *row, size_t size)
{
    assert(row);
    for (const struct follower *f = t->followers; f; f = f->next)
        if (f->level == FOLLOW_ALL)
            out_row(c, follower_conn(f), f->request, kind, row, size);
}

/* It has taken so many finishes since it connected: those need not be kept for it. */
void core_received(struct core *c, uint64_t id, uint64_t count)
{
    struct conn *conn = conn_find(c, id);
    if (!conn)
        return;
    list_foreach(it, next, &conn->told)
    {
        struct follower *f = container_of(it, struct follower, in_conn);
        if (f->number > count)
            return;
        struct task *t = f->task;
        assert(t && t->state == TASK_FINISHED);
        ledger_expect_after(&c->ledger, t->record.id);
        __builtin_prefetch(next->next, 1); /* it is here when it is the next one's turn */
        follower_detach(t, f);
        follower_free(c, f);
        finish_release(c, t);
    }
}

/* ---- watchers ---- */

void core_watch(struct core *c, uint64_t id, uint64_t request, bool on)
{
    struct conn *conn = conn_get(c, id);
    if (!conn) {
        out_reject(c, id, request, PUSHROD_E_NO_MEMORY, NULL);
        return;
    }
    assert(conn->id == id);
    list_remove(&conn->watch_node);
    if (on)
        list_push_back(&c->watchers, &conn->watch_node);
    conn->watch_request = request;
    out_ok(c, id, request, 1);
}

void watch_event(struct core *c, const char *kind, uint64_t id, struct slice worker,
    struct slice queue, const char *text)
{
    assert(kind);
    if (list_empty(&c->watchers))
        return;
    struct msg_event row = {.at_ms = c->now.wall_ms,
        .kind = slice_str(kind),
        .id = id,
        .worker = arena_slice(c, worker),
        .queue = arena_slice(c, queue),
        .text = arena_slice(c, slice_str(text))};
    list_foreach(it, next, &c->watchers)
    {
        const struct conn *conn = container_of(it, struct conn, watch_node);
        row.request = conn->watch_request;
        out_row(c, conn->id, conn->watch_request, MSG_EVENT, &row, sizeof row);
    }
}

/* ---- the end of a connection ---- */

/* "A client that vanishes cancels its tasks" if they were attached to it. */
static void unfollow(struct core *c, struct follower *f)
{
    struct task *t = f->absent ? NULL : f->task;
    bool attached = f->attached;
    uint64_t id = t ? t->record.id : f->id;
    assert(t || f->absent);
    if (t)
        follower_detach(t, f);
    else
        absent_remove(c, f);
    follower_free(c, f);
    if (attached && !(t && task_ended(t)))
        core_cancel(c, 0, 0, id);
}

/* Finishes that it did not acknowledge stay: the client may come back and ask for them by id. */
void core_conn_closed(struct core *c, uint64_t id)
{
    struct conn *conn = conn_find(c, id);
    if (!conn)
        return;
    assert(conn->id == id);
    /* The newest first, for it is the first of those that follow its task. */
    while (!list_empty(&conn->following))
        unfollow(c, container_of(conn->following.prev, struct follower, in_conn));
    while (!list_empty(&conn->told)) {
        struct follower *f = container_of(conn->told.next, struct follower, in_conn);
        struct task *t = f->task;
        unfollow(c, f);
        if (!t->followers && !task_only_here(t))
            finish_drop(c, t);
    }
    list_remove(&conn->watch_node);
    idmap_remove(&c->conns, id);
    free(conn);
}

void follow_free(struct core *c)
{
    struct idmap_cell cell;
    for (size_t place = 0; idmap_next(&c->absent, &place, &cell);) {
        struct follower *f = (struct follower *)(uintptr_t)cell.value, *next;
        for (; f; f = next) {
            next = f->next;
            pool_follower_free(&c->pool, f);
        }
    }
    idmap_free(&c->absent);
    for (size_t place = 0; idmap_next(&c->conns, &place, &cell);)
        free((void *)(uintptr_t)cell.value);
    idmap_free(&c->conns);
    assert(c->conns.count == 0);
}
