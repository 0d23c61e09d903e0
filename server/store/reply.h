/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reply: the events of some operations and the memory that they point to, freed together.
 *
 * A queue of replies is what poll() reads. It keeps the last one given until the next poll, as
 * the contract of store.h says. Not thread-safe: whoever shares one puts a lock around it.
 */
#ifndef SERVER_STORE_REPLY_H
#define SERVER_STORE_REPLY_H

#include "server/store/arena.h"
#include "server/store/packed.h"
#include "server/store/store.h"

struct reply {
    struct reply *next;
    struct arena arena;
    struct store_event *events;
    size_t count;
    size_t capacity;
    size_t given;
    size_t records; /* of all events */
};

struct reply_queue {
    struct reply *first;
    struct reply *last;
    struct reply *read;      /* given to the end; freed at the next poll */
    struct store_event part; /* of an event that is too large */
};

struct reply *reply_new(void);
void reply_free(struct reply *r);
/* A new event of `op` in r: OUTCOME_STORED unless changed. Valid until the next reply_event(). */
struct store_event *reply_event(
    struct reply *r, enum store_op_kind kind, uint64_t token, uint64_t id);

/* A growing list of records, with a copy of their bytes in the reply's arena. */
struct reply_records {
    struct reply *reply;
    struct record *records;
    size_t count;
    size_t capacity;
    size_t bytes; /* of payloads */
};

/* `body` may be NULL; the list takes a reference of its own. */
struct record *reply_record(
    struct reply_records *l, const uint8_t *packed, size_t size, struct body *body);
struct finish *reply_finish(struct reply *r, const uint8_t *packed, size_t size, struct body *body);
void reply_set_records(struct reply_records *l, struct store_event *event);

void reply_push(struct reply_queue *q, struct reply *r);
size_t reply_poll(struct reply_queue *q, const struct store_event **events, size_t limit);
void reply_queue_free(struct reply_queue *q);

#endif
