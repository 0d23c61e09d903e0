/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem: the insides of the memory store, shared by its files and nobody else.
 *
 * Knows the whole semantics of store.h in the plainest form: it is what the other backends are
 * tested against. Every operation is done within submit(); its event waits for the next poll().
 */
#ifndef SERVER_STORE_MEM_H
#define SERVER_STORE_MEM_H

#include "common/map.h"
#include "server/store/arena.h"
#include "server/store/packed.h"
#include "server/store/reply.h"
#include "server/store/store.h"
#include "server/store/tree.h"

struct mem_queue {
    struct slice name; /* owned */
    struct tree ready; /* (9 - priority, id) */
    struct tree delayed;
    uint64_t dead;
    struct order_key edge;         /* the farthest key that FETCH has given */
    struct order_key edge_at_open; /* the same, when this life of the store began */
    enum durability durability;
    bool paused;
};

/* A task: in the ledger of live ones, or as a dead letter. */
struct mem_item {
    uint8_t *bytes; /* packed record, owned */
    size_t size;
    struct record record; /* borrows from bytes and body */
    struct packed_state state;
    struct body *body; /* one reference, or NULL */
    struct mem_queue *queue;
    struct tree_node place;    /* in queue->ready, queue->delayed or mem->dead */
    struct tree_node due;      /* in mem->agenda */
    struct tree_node expiry;   /* in mem->agenda */
    struct mem_finish *finish; /* of a dead letter */
};

struct mem_finish {
    uint8_t *bytes;
    size_t size;
    struct finish finish;
    struct body *body;
    struct tree_node expiry; /* in mem->kept, by keep_until_ms */
};

struct mem_unique {
    struct slice key;     /* queue name, a NUL, the key; owned */
    uint64_t id;          /* the holder */
    uint64_t until_ms;    /* 0: until the holder ends */
    struct tree_node end; /* in mem->agenda */
};

struct mem {
    const struct store_ops *ops; /* first, as store.h asks */
    uint64_t max_bytes;          /* 0: no bound */
    uint64_t bytes;              /* of records and kept finishes */
    uint64_t boot;
    uint64_t next_id;
    uint32_t id_block;
    struct idmap items;    /* id -> struct mem_item, live ones */
    struct idmap finishes; /* id -> struct mem_finish, kept ones */
    struct tree kept;
    struct tree dead; /* (0, id) */
    struct tree agenda;
    struct strmap queues;
    struct strmap uniques;
    uint8_t (*worker_ids)[16]; /* instances that may hold tasks */
    size_t worker_count;
    size_t worker_capacity;
    struct reply_queue replies;
    struct arena opened; /* what open() told */
};

/* The record moves: into the agenda or into ready, as its due_ms says. */
void mem_item_place(struct mem *m, struct mem_item *item);
void mem_item_leave(struct mem *m, struct mem_item *item); /* queue and agenda */
void mem_item_free(struct mem *m, struct mem_item *item);
/* Packs `r` anew into the item; `r` may borrow from the item's own bytes. */
void mem_item_pack(struct mem *m, struct mem_item *item, const struct record *r);
struct mem_item *mem_item_get(const struct mem *m, uint64_t id);
struct mem_item *mem_dead_get(const struct mem *m, uint64_t id);
bool mem_maybe_running(const struct mem *m, const struct mem_item *item);

struct mem_queue *mem_queue_get(struct mem *m, struct slice name); /* made if it is not there */

struct mem_unique *mem_unique_get(struct mem *m, struct slice queue, struct slice key);
void mem_unique_take(struct mem *m, const struct record *r);
void mem_unique_release(struct mem *m, const struct record *r);
void mem_unique_drop(struct mem *m, struct mem_unique *u);
void mem_unique_purge(struct mem *m, struct mem_queue *queue);

void mem_finish_keep(struct mem *m, const struct finish *f);
void mem_finish_drop(struct mem *m, uint64_t id); /* nothing if none is kept */
void mem_finish_expire(struct mem *m, uint64_t now_ms);
struct mem_finish *mem_finish_new(struct mem *m, const struct finish *f);
void mem_finish_free(struct mem *m, struct mem_finish *f);

/* One for each operation, in mem_write.c and mem_read.c. */
void mem_append(struct mem *, const struct store_op *, struct store_event *, uint64_t now_ms);
void mem_finish_task(struct mem *, const struct store_op *, struct store_event *);
void mem_reschedule(struct mem *, const struct store_op *, struct store_event *);
void mem_forget(struct mem *, const struct store_op *, struct store_event *);
void mem_revive(
    struct mem *, const struct store_op *, struct store_event *, struct reply *, uint64_t);
void mem_drop(struct mem *, const struct store_op *, struct store_event *, struct reply *);
void mem_purge(struct mem *, const struct store_op *, struct store_event *);
void mem_fetch(struct mem *, const struct store_op *, struct store_event *, struct reply *);
void mem_due(struct mem *, const struct store_op *, struct store_event *, struct reply *);
void mem_lookup(
    struct mem *, const struct store_op *, struct store_event *, struct reply *, uint64_t);
void mem_scan(struct mem *, const struct store_op *, struct store_event *, struct reply *);
uint64_t mem_agenda_next(const struct mem *m); /* Unix time; 0: the agenda is empty */

#endif
