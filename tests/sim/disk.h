/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk: a model of a store, plain enough to be believed, with the faults of a real one.
 *
 * Operations wait for a commit, which comes late. They then are in `seen` (what reads see) and are
 * answered; `kept` is what a crash leaves, and follows at once, or up to 50 ms later if all that
 * was written was async. Knows nothing of the core but store.h.
 */
#ifndef TESTS_SIM_DISK_H
#define TESTS_SIM_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/map.h"
#include "server/store/store.h"

struct sim;

enum entry_state { ENTRY_LIVE, ENTRY_DEAD, ENTRY_KEPT };

/* What is stored under one id. */
struct entry {
    enum entry_state state;
    struct record record; /* LIVE, DEAD */
    struct finish finish; /* DEAD, KEPT */
    bool delayed;         /* LIVE: waits for due_ms */
    bool expiring;        /* LIVE: expires_ms is in the agenda */
    bool may_run;         /* it had been in a window when the server started */
};

struct disk_queue {
    struct slice name;
    enum durability durability;
    bool paused;
    struct order_key edge; /* the furthest that was fetched */
};

struct unique_key {
    struct slice queue, key;
    uint64_t id, until_ms; /* 0: until the task ends */
};

struct disk_state {
    struct entry **entries; /* in order of id */
    size_t count, room;
    struct idmap by_id;
    struct idmap ended;  /* id -> status, for the checks: also of what was not kept */
    struct idmap purged; /* ids, for the checks */
    struct disk_queue *queues;
    size_t queue_count;
    struct unique_key *keys;
    size_t key_count;
    uint8_t (*workers)[16];
    size_t worker_count;
    uint64_t next_id, boot;
};

struct disk_op; /* a copy of a struct store_op, and what it points to */

enum disk_trouble {
    DISK_FINE,
    DISK_FULL,  /* submissions are refused, finishes have a reserve */
    DISK_ERROR, /* nothing can be written */
    DISK_DOUBT  /* the next commit fails after the fact; then as ERROR */
};

struct disk {
    struct disk_state seen, kept;
    struct disk_op **waiting; /* asked, not committed */
    size_t waiting_count, waiting_room;
    struct disk_op **tail; /* in seen, not in kept */
    size_t tail_count, tail_room;
    enum disk_trouble trouble;
    bool committing;     /* a commit is in the agenda */
    uint64_t slow_until; /* ns: commits take long */
    struct store_opened opened;
    struct store_queue *opened_queues;
};

/* Events of one commit, with what they point to. */
struct disk_events {
    struct store_event *events;
    size_t count, room;
    struct entry **copies; /* whatever the events point to */
    size_t copy_count, copy_room;
    struct record **records;
    struct finish **finishes;
    size_t list_count;
};

void disk_init(struct sim *);
void disk_free(struct sim *);
const struct store_opened *disk_open(struct sim *);
void disk_submit(struct sim *, const struct store_op *, size_t);
void disk_crash(
    struct sim *); /* the process died: some of what waits is settled, the rest is not */
void disk_trouble(struct sim *, enum disk_trouble);
void disk_events_free(void *);

/* What a crash would leave of an id. */
bool disk_keeps(const struct disk *, uint64_t id);       /* it is live */
uint32_t disk_ended(const struct disk *, uint64_t id);   /* status it ended with; 0: it did not */
bool disk_purged(const struct disk *, uint64_t id);      /* by a PURGE */
uint32_t disk_saw_end(const struct disk *, uint64_t id); /* a crash may undo it */

/* disk_state.c: the tables themselves. */
void state_free(struct disk_state *);
void state_copy(struct disk_state *to, const struct disk_state *from);
void state_opened(struct disk_state *); /* a new boot: marks what may be running */
struct entry *state_find(const struct disk_state *, uint64_t id);
/* Applies one operation; `out` gets its event if not NULL. Deterministic. */
void state_apply(struct disk_state *, const struct disk_op *, struct disk_events *out);

/* disk_copy.c: copies that own all they point to. */
struct disk_op {
    struct store_op op; /* its record and finish point below */
    struct record record;
    struct finish finish;
    uint64_t now_ms;
};

struct disk_op *op_copy(const struct store_op *, uint64_t now_ms);
void op_free(struct disk_op *);
struct entry *entry_copy(const struct entry *);
void entry_free(struct entry *);
void record_copy(struct record *to, const struct record *from);
void record_free(struct record *);
void finish_copy(struct finish *to, const struct finish *from);
void finish_free(struct finish *);
struct slice slice_copy(struct slice);
void slice_free(struct slice);
bool op_writes(const struct store_op *);

/* Appends to a growing array of pointers or structs. */
void *array_add(void **array, size_t *count, size_t *room, size_t size);

#endif
