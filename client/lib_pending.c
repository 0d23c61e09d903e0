/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lib_pending: submissions and waits without an answer, in a ring by request number.
 *
 * Answers come nearly in order, so the ring stays as large as what is under way; it grows when
 * an early one (a slow store) holds the rest.
 */
#include <assert.h>
#include <stdlib.h>

#include "client/lib.h"
#include "proto/frame.h"

#define RING_FIRST 256u

static struct pending *ring_cell(const struct pending_ring *r, uint64_t request)
{
    return &r->cells[request & r->mask];
}

/* The cells move, so nobody may keep a pointer over pending_add(). */
static bool ring_grow(struct pending_ring *r)
{
    size_t size = r->mask ? (r->mask + 1) * 2 : RING_FIRST;
    struct pending *cells = calloc(size, sizeof *cells);
    if (!cells)
        return false;
    struct pending_ring bigger = *r;
    bigger.cells = cells;
    bigger.mask = size - 1;
    for (uint64_t i = r->base; i < r->next; i++)
        *ring_cell(&bigger, i) = *ring_cell(r, i);
    free(r->cells);
    *r = bigger;
    return true;
}

struct pending *pending_add(struct pushrod_client *c, uint64_t *request)
{
    struct pending_ring *r = &c->pending;
    if ((!r->mask || r->next - r->base > r->mask) && !ring_grow(r))
        return NULL;
    *request = r->next++;
    struct pending *p = ring_cell(r, *request);
    *p = (struct pending){0};
    return p;
}

struct pending *pending_get(struct pushrod_client *c, uint64_t request)
{
    struct pending_ring *r = &c->pending;
    if (request < r->base || request >= r->next)
        return NULL;
    struct pending *p = ring_cell(r, request);
    return p->kind == PENDING_FREE ? NULL : p;
}

static void copy_free(struct pending *p)
{
    if (!p->copy)
        return;
    buf_free(p->copy);
    free(p->copy);
    p->copy = NULL;
}

void pending_remove(struct pushrod_client *c, uint64_t request)
{
    struct pending_ring *r = &c->pending;
    struct pending *p = ring_cell(r, request);
    assert(request >= r->base && request < r->next);
    if (p->kind == PENDING_SUBMIT)
        r->count--;
    else if (p->kind == PENDING_WAIT)
        c->tasks.waits--;
    copy_free(p);
    p->kind = PENDING_FREE;
    while (r->base < r->next && ring_cell(r, r->base)->kind == PENDING_FREE)
        r->base++;
}

/* Resent and refused as a duplicate: the first copy had arrived. Its finish is asked for anew. */
static bool was_ours(const struct pending *p, uint64_t id, int error)
{
    return p->resent && error == PUSHROD_E_DUPLICATE && id != 0;
}

/* The finish may lie right behind ACCEPTED, before call() comes to wait for it. */
static bool settle_follow(struct pushrod_client *c, const struct pending *was, uint64_t id)
{
    struct task_record *r = followed_add(c, id, was->follow, was->arg);
    if (r)
        r->waited |= was->waited;
    return r != NULL;
}

void pending_settle(
    struct pushrod_client *c, uint64_t request, uint64_t id, int error, const char *text)
{
    struct pending *p = pending_get(c, request);
    if (!p || p->kind != PENDING_SUBMIT)
        return;
    bool ours = was_ours(p, id, error);
    struct pending was = *p;
    pending_remove(c, request);
    if (ours)
        error = 0;
    if (!error && was.follow && !settle_follow(c, &was, id))
        error = PUSHROD_E_NO_MEMORY;
    if (ours && was.follow)
        followed_ask(c, id);
    if (was.receipt) {
        *was.receipt = (struct pushrod_receipt){id, -error};
        if (error)
            client_fail(c, error, "%s", text);
    } else if (c->events.accepted) {
        c->events.accepted(c, id, -error, text ? text : "", was.arg);
    }
}

/* Each SUBMIT that is not in the ring's kept bytes is sent again if that is safe. */
static bool send_again(struct pushrod_client *c, struct pending *p)
{
    if (p->unsent) {
        p->unsent = false;
        return true;
    }
    if (!p->copy)
        return false;
    p->resent = true;
    buf_append(stream_out(c), p->copy->data, p->copy->size);
    return stream_added(c);
}

void pending_reconnect(struct pushrod_client *c)
{
    static const char text[] = "the connection was lost before the answer came: it is not known "
                               "whether the task was accepted (a unique key makes it safe to ask)";
    uint64_t end = c->pending.next;
    for (uint64_t i = c->pending.base; i < end; i++) {
        struct pending *p = pending_get(c, i);
        if (!p)
            continue;
        if (p->kind == PENDING_WAIT)
            pending_remove(c, i); /* the record of its task asks again */
        else if (!send_again(c, p))
            pending_settle(c, i, 0, PUSHROD_E_CLOSED, text);
    }
}

/* Callbacks may submit anew while this runs: only what was there at the beginning is answered. */
void pending_give_up(struct pushrod_client *c, int error, const char *text)
{
    uint64_t end = c->pending.next;
    for (uint64_t i = c->pending.base; i < end; i++) {
        struct pending *p = pending_get(c, i);
        if (p && p->kind == PENDING_WAIT)
            pending_remove(c, i);
        else if (p)
            pending_settle(c, i, 0, error, text);
    }
}

/* The answers that still come find no cell, and are ignored. */
void pending_forget_receipts(struct pushrod_client *c)
{
    for (uint64_t i = c->pending.base; i < c->pending.next; i++) {
        struct pending *p = pending_get(c, i);
        if (p && p->receipt)
            pending_remove(c, i);
    }
}

void pending_free(struct pushrod_client *c)
{
    for (uint64_t i = c->pending.base; i < c->pending.next; i++)
        copy_free(ring_cell(&c->pending, i));
    free(c->pending.cells);
    c->pending = (struct pending_ring){0};
}
