/* SPDX-License-Identifier: Apache-2.0 */
#include "server/store/reply.h"

#include <assert.h>
#include <stdlib.h>

struct reply *reply_new(void)
{
    return store_alloc(sizeof(struct reply));
}

void reply_free(struct reply *r)
{
    if (!r)
        return;
    store_arena_free(&r->arena);
    free(r->events);
    free(r);
}

struct store_event *reply_event(
    struct reply *r, enum store_op_kind kind, uint64_t token, uint64_t id)
{
    if (r->count == r->capacity)
        r->events = store_grow(r->events, &r->capacity, sizeof(*r->events));
    struct store_event *event = &r->events[r->count++];
    *event = (struct store_event){
        .event = EVENT_OP, .kind = kind, .outcome = OUTCOME_STORED, .token = token, .id = id};
    return event;
}

struct record *reply_record(
    struct reply_records *l, const uint8_t *packed, size_t size, struct body *body)
{
    if (l->count == l->capacity)
        l->records = store_grow(l->records, &l->capacity, sizeof(*l->records));
    struct record *r = &l->records[l->count++];
    record_load(arena_copy(&l->reply->arena, packed, size), size, r, NULL);
    if (slice_detached(r->payload) && body) {
        r->body = arena_body(&l->reply->arena, body_ref(body));
        r->payload = body_slice(body);
    }
    l->bytes += r->payload.size;
    return r;
}

struct finish *reply_finish(struct reply *r, const uint8_t *packed, size_t size, struct body *body)
{
    struct finish *f = store_arena_alloc(&r->arena, sizeof(*f));
    finish_load(arena_copy(&r->arena, packed, size), size, f);
    if (slice_detached(f->result) && body) {
        f->body = arena_body(&r->arena, body_ref(body));
        f->result = body_slice(body);
    }
    return f;
}

void reply_set_records(struct reply_records *l, struct store_event *event)
{
    event->records = arena_copy(&l->reply->arena, l->records, l->count * sizeof(*l->records));
    event->record_count = l->count;
    l->reply->records += l->count;
    free(l->records);
    l->records = NULL;
    l->count = l->capacity = 0;
}

void reply_push(struct reply_queue *q, struct reply *r)
{
    if (r->count == 0) {
        reply_free(r);
        return;
    }
    if (q->last)
        q->last->next = r;
    else
        q->first = r;
    q->last = r;
}

/* The first records of an event that has too many; it keeps the others. */
static const struct store_event *part_take(struct reply_queue *q, struct store_event *event)
{
    assert(!event->finishes && event->record_count > STORE_PART);
    q->part = *event;
    q->part.record_count = STORE_PART;
    q->part.more = true;
    event->records += STORE_PART;
    event->record_count -= STORE_PART;
    return &q->part;
}

/* How many of the next events a tick can take: none, if the first of them is too large. */
static size_t poll_count(const struct reply *r, size_t limit)
{
    size_t left = r->count - r->given;
    size_t count = 0;
    size_t records = 0;
    if (left > limit)
        left = limit;
    if (r->records == 0)
        return left;
    while (count < left && records < STORE_PART) {
        records += r->events[r->given + count].record_count;
        if (records > STORE_PART)
            break;
        count++;
    }
    return count;
}

size_t reply_poll(struct reply_queue *q, const struct store_event **events, size_t limit)
{
    reply_free(q->read);
    q->read = NULL;
    struct reply *r = q->first;
    *events = NULL;
    if (!r || limit == 0)
        return 0;
    struct store_event *next = &r->events[r->given];
    size_t count = poll_count(r, limit);
    *events = count ? next : part_take(q, next);
    if (!count)
        return 1;
    r->given += count;
    if (r->given == r->count) {
        q->first = r->next;
        if (!q->first)
            q->last = NULL;
        q->read = r;
    }
    return count;
}

void reply_queue_free(struct reply_queue *q)
{
    for (struct reply *r = q->first, *next; r; r = next) {
        next = r->next;
        reply_free(r);
    }
    reply_free(q->read);
    *q = (struct reply_queue){0};
}
