/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a tick has to say: arrays of actions, and an arena for what they point to. Both live until
 * the next core_begin(). An action that cannot be remembered cannot be taken back: then the tick
 * has failed (core.failed), and whoever drives the core ends the process.
 */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include "server/core/verbs.h"

#define ARENA_BLOCK ((size_t)64 << 10)
#define RESERVED    1024u /* bytes of it for what one submission asks of the store */

/* ---- memory of a tick ---- */

static struct arena_block *arena_grow(struct core *c, size_t size)
{
    size_t room = size > ARENA_BLOCK ? size : ARENA_BLOCK;
    assert(size > 0);
    struct arena_block *block = malloc(sizeof *block + room);
    if (!block)
        return NULL;
    block->next = c->arena;
    block->used = 0;
    block->size = room;
    c->arena = block;
    return block;
}

void *arena_alloc(struct core *c, size_t size)
{
    size = (size + 15) & ~(size_t)15;
    struct arena_block *block = c->arena;
    if (!block || block->size - block->used < size)
        block = arena_grow(c, size);
    if (!block) {
        c->failed = true;
        return NULL;
    }
    assert(block->used + size <= block->size);
    void *memory = block->bytes + block->used;
    block->used += size;
    memset(memory, 0, size);
    return memory;
}

char *arena_text(struct core *c, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    int size = vsnprintf(NULL, 0, format, list);
    va_end(list);
    assert(size >= 0);
    char *text = arena_alloc(c, (size_t)size + 1);
    if (!text)
        return NULL;
    va_start(list, format);
    vsnprintf(text, (size_t)size + 1, format, list);
    va_end(list);
    return text;
}

struct slice arena_slice(struct core *c, struct slice bytes)
{
    assert(bytes.data || bytes.size == 0);
    uint8_t *copy = bytes.data ? arena_alloc(c, bytes.size + 1) : NULL;
    if (!copy)
        return (struct slice){0};
    if (bytes.size)
        memcpy(copy, bytes.data, bytes.size);
    return slice_of(copy, bytes.size);
}

/* Keeps the newest block, so that a steady stream of ticks allocates nothing. */
static void arena_reset(struct core *c)
{
    struct arena_block *keep = c->arena;
    if (!keep)
        return;
    for (struct arena_block *block = keep->next, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    keep->next = NULL;
    keep->used = 0;
    if (keep->size > ARENA_BLOCK) {
        free(keep);
        c->arena = NULL;
    }
}

static void arena_free(struct core *c)
{
    arena_reset(c);
    free(c->arena);
    c->arena = NULL;
}

bool out_lend(struct core *c, struct body *body)
{
    struct lent *l = arena_alloc(c, sizeof *l);
    assert(body);
    if (!l)
        return false;
    *l = (struct lent){c->lent, body_ref(body)};
    c->lent = l;
    return true;
}

static void lent_reset(struct core *c)
{
    for (; c->lent; c->lent = c->lent->next) {
        assert(c->lent->body);
        body_unref(c->lent->body);
    }
}

/* ---- arrays of actions ---- */

static bool vec_reserve(struct vec *v, size_t more, size_t size)
{
    assert(v->count <= v->capacity);
    if (v->capacity - v->count >= more)
        return true;
    size_t capacity = v->capacity ? v->capacity * 2 : 64;
    while (capacity - v->count < more)
        capacity *= 2;
    void *items = realloc(v->items, capacity * size);
    if (!items)
        return false;
    v->items = items;
    v->capacity = capacity;
    return true;
}

/*
 * An item at the end, unset; NULL: no memory, and with the action the tick is lost. Between ticks
 * there is none that it could leave with: it would be gone with the next core_begin().
 */
static inline void *vec_add(struct core *c, struct vec *v, size_t size)
{
    assert(c->ticking);
    if (v->count == v->capacity && !vec_reserve(v, 1, size)) {
        c->failed = true;
        return NULL;
    }
    return (char *)v->items + size * v->count++;
}

/* For what has to be refused as a whole, or not at all. */
bool out_reserve(struct core *c, size_t more)
{
    assert(more > 0);
    struct arena_block *block = c->arena;
    if ((!block || block->size - block->used < RESERVED) && !arena_grow(c, RESERVED))
        return false;
    return vec_reserve(&c->lane, more, sizeof(struct lane_action)) &&
           vec_reserve(&c->out, more, sizeof(struct conn_action)) &&
           vec_reserve(&c->store, more, sizeof(struct store_op)) &&
           vec_reserve(&c->notices, more, sizeof(struct notice));
}

struct lane_action *out_lane(struct core *c, struct worker *w, enum lane_kind kind)
{
    assert(w->state != WORKER_OVER || kind == LANE_FENCED);
    struct lane_action *a = vec_add(c, &c->lane, sizeof *a);
    if (!a)
        a = &c->lost_lane;
    *a = (struct lane_action){.worker = w->id, .kind = kind};
    w->spoken_ns = c->now.mono_ns;
    return a;
}

struct lane_action *out_lane_task(
    struct core *c, struct worker *w, enum lane_kind kind, const struct task *t)
{
    assert(t->lease);
    struct lane_action *a = out_lane(c, w, kind);
    a->id = t->record.id;
    a->lease = t->lease;
    return a;
}

void out_join(struct core *c, struct join_action action)
{
    assert(action.kind != JOIN_CLOSE || action.worker != 0);
    struct join_action *a = vec_add(c, &c->join, sizeof *a);
    if (a)
        *a = action;
}

struct store_op *out_store(struct core *c, enum store_op_kind kind, uint64_t token)
{
    assert(kind <= STORE_WORKER);
    struct store_op *op = vec_add(c, &c->store, sizeof *op);
    if (op)
        *op = (struct store_op){.kind = kind, .token = token};
    return op;
}

struct conn_action *out_conn(struct core *c, uint64_t conn, uint64_t request, uint16_t kind)
{
    assert(kind != 0);
    /* Connection 0 is the core itself, which needs no answer. */
    struct conn_action *a = conn ? vec_add(c, &c->out, sizeof *a) : NULL;
    if (!a)
        a = &c->lost_conn;
    *a = (struct conn_action){.conn = conn, .request = request, .kind = kind};
    return a;
}

void out_ok(struct core *c, uint64_t conn, uint64_t request, uint64_t count)
{
    out_conn(c, conn, request, MSG_OK)->number = count;
}

struct conn_action *out_reject(
    struct core *c, uint64_t conn, uint64_t request, int code, const char *text)
{
    assert(code > 0);
    struct conn_action *a = out_conn(c, conn, request, MSG_REJECTED);
    a->code = (uint32_t)code;
    a->text = text;
    return a;
}

void out_row(
    struct core *c, uint64_t conn, uint64_t request, uint16_t kind, const void *row, size_t size)
{
    assert(row && size > 0);
    void *copy = arena_alloc(c, size);
    if (!copy)
        return;
    memcpy(copy, row, size);
    out_conn(c, conn, request, kind)->row = copy;
}

void out_notice(struct core *c, struct notice notice)
{
    struct notice *n = vec_add(c, &c->notices, sizeof *n);
    if (!n)
        return;
    *n = notice;
    if (!n->name)
        n->name = "";
    assert(n->name);
}

void out_worker_notice(
    struct core *c, enum notice_kind kind, const struct worker *w, int code, const char *text)
{
    assert(w);
    out_notice(c, (struct notice){.kind = kind,
                      .worker = w->id,
                      .code = code,
                      .text = text,
                      .name = (const char *)w->name.data});
}

void out_clear(struct core *c)
{
    c->lane.count = c->join.count = c->store.count = c->out.count = c->notices.count = 0;
    lent_reset(c);
    arena_reset(c);
}

void out_free(struct core *c)
{
    free(c->lane.items);
    free(c->join.items);
    free(c->store.items);
    free(c->out.items);
    free(c->notices.items);
    lent_reset(c);
    arena_free(c);
}

/* splitmix64: all randomness of the core. */
uint64_t core_random(struct core *c, uint64_t below)
{
    assert(below > 0);
    uint64_t z = c->random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return (z ^ z >> 31) % below;
}
