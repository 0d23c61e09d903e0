/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store: what the core asks of whatever keeps the tasks, as one table of operations.
 *
 * Knows records (the lasting part of a task), finishes and queues. Knows no worker session, no
 * lease, no connection. Asynchronous by contract: submit() takes operations and returns at once,
 * poll() gives their events. Operations take effect in the order in which they were asked, so a
 * FETCH sees an APPEND that was asked before it.
 *
 * Memory: submit() copies everything it is given (of a body it takes a reference), so nothing is
 * borrowed after it returns. What an event points to is valid until the next poll().
 *
 * Durability: an APPEND, FINISH or RESCHEDULE event means that the operation is on disk, or, for
 * an operation marked `async`, that it will be within 50 ms. An outcome is one of
 *   STORED   done
 *   REFUSED  not done, rolled back, nothing changed (disk full, write error); `code` says why.
 *            Of a commit that failed the store looks whether it is there all the same
 *   GONE     FINISH, RESCHEDULE or LOOKUP of an id that is not there (any more)
 *   HELD     APPEND whose unique key is taken, or whose id is there already; `id` is the holder
 *   LATER    LOOKUP of something large, beside others that were: ask again. It costs a few bytes to
 *            ask for what takes a payload's or a result's room until it is told
 *
 * What the backends agree on, beyond what stands beside each operation:
 *   - events come in the order in which their operations were asked. So one that is async, or a
 *     FORGET, waits for a commit only behind another that does: what a FETCH or LOOKUP found is
 *     never told after what was asked later changed it.
 *   - due_ms != 0 means delayed, until a DUE with until_ms >= due_ms or a RESCHEDULE.
 *   - DUE counts every entry of the agenda against its limit, ends of unique windows included.
 *     An expired record comes once, ready; the core finishes it (or lets it run on, if started).
 *     Its due_ms is what it was until then, 0 of one that was ready.
 *     What DUE and REVIVE give counts as windowed.
 *   - FORGET is not refused: nobody asks a second time, so it runs again until it is stored.
 *   - a key with unique_ms holds until then, whether its task has ended or not. REVIVE takes the
 *     key again (until the task ends) if it is free, and does without it otherwise.
 *   - PURGE frees every unique key of the queue but those of the records that stay.
 *   - an edge only moves outwards while the queue has records: it says what may be running.
 */
#ifndef SERVER_STORE_STORE_H
#define SERVER_STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/body.h"
#include "common/slice.h"

/* How a queue's tasks are kept. */
enum durability { DURABILITY_SYNC = 0, DURABILITY_ASYNC = 1, DURABILITY_MEMORY = 2 };

/*
 * The lasting part of a task. Order within a queue is (9 - priority, id), smallest first.
 * Times that end in _ms are Unix time where they name a moment, durations where they say so.
 * No moment is behind STORE_LATEST_MS: an agenda has them times four, with the kind in between.
 */
#define STORE_LATEST_MS (UINT64_MAX >> 2)

struct record {
    uint64_t id;
    struct slice queue;
    struct slice payload; /* or, if large, in body (then payload borrows from it) */
    struct body *body;    /* NULL: payload is inline */
    struct slice headers; /* encoded msgpack map, or absent */
    struct slice tag;
    struct slice unique;  /* unique key, scoped to the queue; absent: none */
    struct slice target;  /* worker name, or absent */
    struct slice history; /* encoded array of DEATH messages, or absent; newest last */
    uint64_t submitted_ms;
    uint64_t due_ms;     /* 0: ready; else not before */
    uint64_t expires_ms; /* 0: never; else not started by then, not at all */
    uint64_t unique_ms;  /* 0: the key holds until the task ends; else until this moment */
    uint64_t keep_ms;    /* duration for which the finish is to be kept; 0: only for who waits */
    uint64_t timeout_ms; /* duration of one attempt; 0: the worker's default */
    uint64_t backoff_ms; /* duration before the first retry */
    uint32_t attempts;   /* hand-overs that count */
    uint32_t max_attempts;
    uint16_t deaths;    /* workers that died while they ran it alone */
    uint8_t priority;   /* 0 to 9, 9 first */
    bool followed;      /* somebody waits: the finish is kept until acknowledged or 10 min */
    bool suspect;       /* ran when a worker died: runs alone next time */
    bool maybe_running; /* events only: may have been handed out before the server restarted */
    bool windowed;      /* APPEND, RESCHEDULE: it goes straight to the window (sets the bit) */
};

/* How a task ended, as it is kept. status: enum pushrod_status; code: enum pushrod_error. */
struct finish {
    uint64_t id;
    uint32_t status;
    uint32_t code;
    uint32_t attempts;
    uint64_t run_ns;
    uint64_t finished_ms;
    uint64_t keep_until_ms; /* 0: nobody wants it, nothing is kept */
    struct slice result;    /* or in body */
    struct body *body;
    struct slice text;
    struct slice tag;
    bool dead;            /* status FAILED: keep record and history as a dead letter */
    struct slice history; /* for the dead letter */
};

enum store_op_kind {
    STORE_APPEND,     /* record */
    STORE_FINISH,     /* finish; the record goes, or becomes a dead letter */
    STORE_RESCHEDULE, /* record's id, due_ms (0: ready now), attempts, deaths, suspect, history,
                         windowed */
    STORE_FETCH,      /* queue, after (exclusive key), limit, limit_bytes: persists the new edge */
    STORE_DUE,        /* until_ms, limit: what is due or expired by then, moved to ready */
    STORE_LOOKUP,     /* id: a record, or a finish, or GONE */
    STORE_FORGET,     /* id: the kept finish may go */
    STORE_SCAN,   /* dead letters, by id: queue (or pattern; absent: all), id (exclusive), limit;
                     what lies in a body stays there, as for LOOKUP of one */
    STORE_REVIVE, /* id of a dead letter: ready again, attempts and deaths 0 */
    STORE_DROP,   /* id of a dead letter: gone */
    STORE_PURGE,  /* queue, keep: every record of the queue but the ids in `keep` goes */
    STORE_IDS,    /* a block of ids: id..id+limit-1 */
    STORE_QUEUE,  /* queue, paused, durability: its settings */
    STORE_WORKER  /* instance, gone: who may hold tasks */
};

/* Place in a queue's order; compared as (rank, id). */
struct order_key {
    uint8_t rank; /* 9 - priority */
    uint64_t id;
};

struct store_op {
    enum store_op_kind kind;
    bool async;                  /* APPEND, FINISH, RESCHEDULE: queue's durability is async */
    uint64_t token;              /* the asker's; given back with the event */
    const struct record *record; /* APPEND, RESCHEDULE */
    const struct finish *finish; /* FINISH */
    struct slice queue;          /* FETCH, SCAN, PURGE, QUEUE */
    struct slice instance;       /* WORKER: 16 bytes */
    uint64_t id;                 /* LOOKUP, FORGET, SCAN, REVIVE, DROP */
    uint64_t until_ms;           /* DUE */
    const uint64_t *keep;        /* PURGE: ids that the core goes on with, sorted */
    size_t keep_count;
    struct order_key after;     /* FETCH */
    uint32_t limit;             /* FETCH, DUE, SCAN, IDS: how many at the most */
    size_t limit_bytes;         /* FETCH: payload bytes, but one task at the least */
    bool paused;                /* QUEUE */
    bool gone;                  /* WORKER: off the record */
    bool bare;                  /* LOOKUP: what lies in a body stays there, as for SCAN */
    bool payload;               /* LOOKUP: that of a dead letter too; but of no result its body */
    enum durability durability; /* QUEUE */
};

enum store_outcome { OUTCOME_STORED, OUTCOME_REFUSED, OUTCOME_GONE, OUTCOME_HELD, OUTCOME_LATER };

/*
 * One for each operation, in order. Who asks for many records gets them in parts, so that a tick
 * need not take them all: all events of a FETCH but the last say `more`.
 * UP and DOWN come unasked: the store refuses writes from now on, or takes them again. DOWN with
 * the code STORE_FULL is about APPEND only: finishes make room. DOWN may come again, with another
 * code.
 */
#define STORE_PART 4096u /* records in one event, at the most */
enum store_event_kind { EVENT_OP, EVENT_STORE_DOWN, EVENT_STORE_UP };

struct store_event {
    enum store_event_kind event;
    enum store_op_kind kind;
    enum store_outcome outcome;
    uint32_t code; /* enum pushrod_error, for REFUSED and DOWN */
    uint64_t token;
    uint64_t id;    /* HELD: the holder; IDS: first of the block */
    uint64_t count; /* IDS: size of the block; PURGE: tasks removed */
    const struct record
        *records; /* FETCH, DUE, SCAN, LOOKUP, REVIVE, DROP; a body is the receiver's to ref */
    const struct finish *finishes; /* LOOKUP: of a finished task (record_count 0, but `records`
                                      shows the record of a dead letter, without a large payload
                                      unless op.payload); SCAN: beside each record */
    size_t record_count;
    bool more;        /* other events of the same operation follow */
    bool exhausted;   /* FETCH: nothing lies behind; DUE: nothing more is due */
    uint64_t next_ms; /* DUE: Unix time of the next entry of the agenda; 0: none */
    const char *text; /* REFUSED, DOWN: for people; NULL: none */
};

/*
 * Ids in a block: as many as tasks have places in memory (leases have 24 bits for them), so that a
 * program that submits without end in one tick is told that memory is full, not that ids are.
 */
#define STORE_ID_BLOCK (UINT32_C(1) << 24)

struct store_queue {
    struct slice name;
    enum durability durability;
    bool paused;
    uint64_t ready; /* records that are not delayed, what was in a window included */
    uint64_t delayed;
    uint64_t dead;
};

/* What open() found; valid until the first poll(). */
struct store_opened {
    uint64_t boot;     /* 1 at the first opening, one more each time, persisted */
    uint64_t first_id; /* a block of ids to start with */
    uint64_t id_count;
    const struct store_queue *queues;
    size_t queue_count;
    const uint8_t (*workers)[16]; /* instances on record: they may hold tasks */
    size_t worker_count;
    uint64_t next_due_ms; /* of the agenda; 0: empty */
};

struct store_capabilities {
    bool bypass; /* keeps nothing that the core does not: the core need not ask (volatile queues) */
};

struct store_config {
    const char *path;   /* directory; NULL for backends without one */
    uint64_t max_bytes; /* of the disk, or of memory */
    uint64_t now_ms;    /* Unix time at open */
    uint32_t id_block;  /* ids to lease at a time; 0: STORE_ID_BLOCK */
    uint32_t settle_ms; /* lmdb: age at which the journal goes to the tables; 0: 1000 */
};

struct store;

/* Bytes. */
struct store_usage {
    uint64_t unsettled; /* of operations that wait for their commit */
    uint64_t used;      /* on disk, about a second ago; what is free again is none of it */
    uint64_t max;       /* of these; 0: it is not on disk */
};

struct store_ops {
    const char *name;
    /* NULL: failed, *error is a text for people that the caller frees. */
    struct store *(*open)(const struct store_config *, struct store_opened *, char **error);
    struct store_capabilities (*capabilities)(const struct store *);
    void (*submit)(struct store *, const struct store_op *, size_t count, uint64_t now_ms);
    /* Events that are there, at most `limit`, with STORE_PART records or a few more; never blocks.
     * Returns how many. */
    size_t (*poll)(struct store *, const struct store_event **events, size_t limit);
    int (*event_fd)(const struct store *); /* readable when poll() has something; -1: always poll */
    struct store_usage (*usage)(const struct store *);
    /* Waits until everything that was submitted is settled, then closes and frees. */
    void (*close)(struct store *);
};

/* The backends. A store starts with `const struct store_ops *ops`, so that store_*() can find it.
 */
extern const struct store_ops store_mem;  /* memory; the oracle of the tests */
extern const struct store_ops store_lmdb; /* one directory, no server */

#endif
