/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Results that come in pieces (PART), the last of which is in their DONE. They are collected with
 * the session that sends them, each attempt's for itself: pieces of several attempts at one task
 * may meet, a worker sends all of them again in its next session, and the task may have gone to the
 * store meanwhile. They are kept until the attempt ends, or nothing is heard of its session any
 * more.
 */
#include <assert.h>
#include <stdlib.h>
#include "server/core/verbs.h"

struct pieces {
    struct body *body; /* of the whole result; NULL: it will not be one */
    int code;          /* enum pushrod_error: why not */
    size_t size;       /* bytes that have come */
};

static struct pieces *pieces_find(const struct worker *w, uint64_t lease)
{
    return w->parting.count ? idmap_pointer(&w->parting, lease) : NULL;
}

static void pieces_tear(struct pieces *p)
{
    p->code = PUSHROD_E_RESULT_TOO_BIG;
    assert(p->size <= (p->body ? p->body->size : p->size));
    body_unref(p->body);
    p->body = NULL;
}

static void pieces_free(struct pieces *p)
{
    assert(p);
    pieces_tear(p);
    free(p);
}

/* Without a body, because it is too large or there is no memory, its DONE finds no result. */
static struct pieces *pieces_new(struct worker *w, uint64_t lease, uint64_t total, size_t most)
{
    struct pieces *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    assert(!pieces_find(w, lease));
    p->body = total <= most ? body_new(total) : NULL;
    p->code = total <= most ? PUSHROD_E_NO_MEMORY : PUSHROD_E_RESULT_TOO_BIG;
    if (idmap_put(&w->parting, lease, (uintptr_t)p))
        return p;
    pieces_free(p);
    return NULL;
}

/* Puts these bytes behind the others. False: that is more than was announced. */
static bool pieces_fill(struct pieces *p, struct slice data)
{
    assert(p->body && p->size <= p->body->size);
    if (data.size > p->body->size - p->size)
        return false;
    if (data.size)
        memcpy(p->body->data + p->size, data.data, data.size);
    p->size += data.size;
    return true;
}

void pieces_add(struct core *c, struct worker *w, const struct answer *a, bool wanted)
{
    struct pieces *p = pieces_find(w, a->lease);
    assert(a->kind == MSG_PART);
    if (!p)
        p = pieces_new(w, a->lease, a->number, wanted ? c->config.max_result : 0);
    if (!p)
        c->failed = true; /* its DONE would count as the whole */
    else if (p->body && (!wanted || !pieces_fill(p, a->data)))
        pieces_tear(p);
}

int pieces_take(struct worker *w, uint64_t lease, struct slice last, struct body **whole)
{
    struct pieces *p = pieces_find(w, lease);
    assert(p);
    if (!p->body)
        return p->code;
    if (!pieces_fill(p, last) || p->size != p->body->size)
        return PUSHROD_E_RESULT_TOO_BIG;
    *whole = p->body;
    p->body = NULL;
    return 0;
}

void pieces_end(struct worker *w, uint64_t lease)
{
    struct pieces *p = pieces_find(w, lease);
    if (!p)
        return;
    assert(w->parting.count > 0);
    idmap_remove(&w->parting, lease);
    pieces_free(p);
}

void pieces_drop(struct worker *w)
{
    struct idmap_cell cell;
    for (size_t place = 0; idmap_next(&w->parting, &place, &cell);)
        pieces_free((struct pieces *)(uintptr_t)cell.value);
    idmap_free(&w->parting);
    assert(w->parting.count == 0);
}
