/* SPDX-License-Identifier: Apache-2.0 */
/*
 * state: all that the core remembers, in one picture; verbs.h says what can be done with it.
 * Private to server/core.
 *
 *   ledger  ──slot──▶ task ──▶ queue ◀── link ──▶ group ◀── worker
 *                      │                                      │ outstanding, settling
 *                      └── followers ──▶ conn                 └──▶ task
 *
 * Who may change what: a task's state changes only in task_move() (task.c), a worker's only in
 * worker_move() (worker.c); both check a table of allowed transitions. Actions are appended only
 * by the out_...() functions (out.c).
 */
#ifndef SERVER_CORE_STATE_H
#define SERVER_CORE_STATE_H

#include "common/heap.h"
#include "common/idindex.h"
#include "common/list.h"
#include "common/map.h"
#include "common/slab.h"
#include "proto/codec.h"
#include "server/core/core.h"

#define PRIORITIES 10u
#define MS         UINT64_C(1000000) /* ns in a millisecond */
#define NEVER      UINT64_MAX

#define FILL_NS        (1 * MS)     /* prefetch: work for about this long waits at a worker */
#define AHEAD_NS       (10 * MS)    /* one more for each slot: what runs and it take no longer */
#define PACK_NS        (MS / 25)    /* work for less wakes no other worker: that costs as much */
#define STUCK_NS       (1 * MS)     /* a lane without an answer for so long: WITHDRAW from it */
#define OVERDUE_NS     (8 * MS)     /* the same, of what is ahead by AHEAD_NS, if no slot is idle */
#define LARGE_PART     4u           /* a large payload is more than one part of lane_bytes */
#define ACK_BYTES      (256u << 10) /* results of so many bytes are acknowledged at once */
#define TICK_EXPIRIES  10000u       /* timers that fire in one tick, of each heap: some ms */
#define CANCEL_WAIT    (5000 * MS)  /* for the worker's answer to CANCEL */
#define BACKOFF_CAP_MS 3600000u
#define LIST_TICK      20000u /* rows in one tick, or of the store: then no list is begun */
#define FAR_MS         (UINT64_C(1) << 40) /* 35 years: in ns it does not wrap. Longer is as long */

/* The most urgent first: priority 9 has rank 0. */
static inline struct order_key order_key(uint8_t priority, uint64_t id)
{
    return (struct order_key){(uint8_t)(PRIORITIES - 1 - priority), id};
}

static inline uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* ---- growable arrays of actions ---- */
struct vec {
    void *items;
    size_t count;
    size_t capacity;
};

/* A body that lives until the next core_begin(), whatever becomes of its task. */
struct lent {
    struct lent *next;
    struct body *body;
};

/* Bytes that live as long. */
struct arena_block {
    struct arena_block *next;
    size_t used;
    size_t size;
    _Alignas(16) uint8_t bytes[];
};

/* ---- ledger: every task in memory, by slot and by id ---- */
struct ledger_slot {
    struct task *task;   /* NULL: nobody has the slot */
    uint16_t generation; /* of the last lease of those that had it */
    uint32_t next_free;  /* of a free one: slot + 1; 0: none */
};

struct ledger {
    struct ledger_slot *slots;
    uint32_t used; /* slots that were ever in use */
    uint32_t capacity;
    uint32_t first_free;  /* slot + 1 */
    uint64_t boot;        /* 1 to 32767: leases stay below 2^63, as numbers on the wire must */
    struct idindex by_id; /* slot + 1 */
};

/* ---- pool: memory of tasks and followers ---- */
#define POOL_CLASSES 48u
struct pool {
    struct slab_memory memory;
    struct slab_cache tasks[POOL_CLASSES];
    struct slab_cache followers;
};

/* ---- queue ---- */
#define SERVICE_BUCKETS 40u
struct service { /* how long recent attempts took: powers of two of ns */
    uint32_t buckets[SERVICE_BUCKETS];
    uint32_t seen;   /* sum of the buckets, halved at 1024 */
    uint32_t fresh;  /* since p95_ns was computed */
    uint64_t p95_ns; /* 0: none was seen */
    uint64_t p99_ns;
};

struct queue {
    struct slice name;
    enum durability durability;
    bool bypass; /* no store operation at all */
    bool paused;
    bool stopped;     /* the store cannot take what its tasks would give */
    bool active;      /* in the rings of its groups */
    bool suspected;   /* ... and in their lists of queues with suspects that may run */
    uint64_t touched; /* core.round in which all of them were; 0: not since */
    bool backlog;     /* something lies behind the edge, in the store */
    bool fetching;
    bool fetch_void;          /* what comes is out of date */
    bool fetch_refused;       /* asked again with what else the store refused */
    struct order_key edge;    /* if backlog: what comes after it is in the store only */
    struct order_key unseen;  /* the most urgent that was announced during a fetch; id 0: none */
    struct list low_node;     /* in core.low: a fetch may be due */
    uint64_t due_purged;      /* number of the DUE during which it was purged */
    uint32_t targeted;        /* READY, for one worker by name */
    uint64_t targeted_here;   /* that wait, too: those, and all others in memory */
    uint64_t targeted_stored; /* in the store only, but for what a former life left there */
    uint64_t max_tasks;
    uint16_t filled;                             /* bit r: fifo[r] is not empty */
    struct list fifo[PRIORITIES];                /* by rank: those that came in order of id */
    struct heap requeued;                        /* the others: key rank, tie id */
    struct heap suspects;                        /* READY, to run alone */
    struct list links;                           /* to the groups that serve it */
    struct list targets;                         /* tasks for one worker by name */
    uint32_t counts[TASK_STATE_COUNT];           /* of tasks in memory */
    uint64_t bytes;                              /* of ready payloads that the window counts */
    uint64_t stored_ready, stored_delayed, dead; /* in the store only; dead letters */
    uint64_t submitted, finished, failed, redelivered;
    uint64_t recovered, recovery_ns,
        recovery_max_ns; /* tasks of lost workers, until others had them */
    struct service service;
    struct queue *next; /* all queues */
};

/* ---- workers ---- */
#define WORKER_STATES(W)                                                                           \
    W(JOINING, "joining") /* WELCOME sent, READY awaited */                                        \
    W(READY, "ready")                                                                              \
    W(DRAINING, "draining") /* finishes what it has, gets nothing more */                          \
    W(OVER, "over")         /* freed when this tick's actions are out, and its answers are in */

enum worker_state {
#define W(NAME, name) WORKER_##NAME,
    WORKER_STATES(W)
#undef W
        WORKER_STATE_COUNT
};

/* What a worker has room for (worker.c); in this order. */
enum room { ROOM_EMPTY, ROOM_IDLE, ROOM_FILLING, ROOM_NONE, ROOM_COUNT };

/* Workers with the same patterns: what one may run, each may. */
struct group {
    struct slice *patterns;
    size_t pattern_count;
    uint16_t number; /* from 1; task.reserved_by */
    struct list links;
    struct list ring;              /* links whose queue has ready tasks; the first is next */
    struct list suspected;         /* links whose queue has suspects */
    struct service newcomers;      /* the first attempts of each of its queues */
    struct list rooms[ROOM_COUNT]; /* its workers */
    uint32_t workers;              /* READY */
    uint32_t members;              /* in any state */
    uint64_t slots;
    uint32_t reserved; /* WITHDRAWs on the way for idle slots of this group */
    uint64_t idle_slots;
    struct worker *alone;   /* is being emptied for a suspect; NULL: none */
    struct list dirty_node; /* core.dirty_groups: something happened that sched.c has to look at */
};

/* A queue and a group that serves it. */
struct link {
    struct queue *queue;
    struct group *group;
    struct list in_queue;
    struct list in_group;
    struct list in_ring;      /* of the group, while the queue is active */
    struct list in_suspected; /* the same, while it is suspected */
};

/* Workers of one name, and the ready tasks that only they may run. */
struct named {
    struct slice name;
    struct list workers;
    struct list targets;    /* one for each queue */
    uint32_t waiting;       /* ready tasks of those */
    struct list dirty_node; /* core.dirty_named: sched.c has to look at it */
};

struct target {
    struct named *named;
    struct queue *queue;
    struct heap ready;
    struct list in_queue;
    struct list in_named;
};

/*
 * Payloads that a worker may not have read yet. What is large leaves in pieces, and what is small
 * passes it, so each kind has its own.
 */
enum credit_kind { CREDIT_SMALL, CREDIT_LARGE, CREDITS };

struct credit {
    uint64_t bytes;
    uint64_t ghosts;  /* part of those: of ghosts, until none is left */
    uint64_t filling; /* core.round in which it was half empty, and is filled up */
};

struct worker {
    uint64_t id;
    uint64_t session;
    uint64_t peer;
    uint8_t instance[INSTANCE_SIZE];
    struct slice name;
    struct slice host;
    uint64_t pid;
    uint64_t joined_ms;
    uint32_t slots;
    uint32_t max_prefetch;
    uint8_t state;   /* enum worker_state */
    uint8_t room;    /* enum room: in which list of its group */
    bool alone;      /* runs a suspect: gets nothing else */
    bool recording;  /* the store is being told that it may hold tasks: until then it gets none */
    bool unrecorded; /* the store could not; asked again when it is up */
    bool quiet;      /* told to say HEARTBEAT only when it is PINGed */
    uint32_t idle;   /* slots counted in group.idle_slots */
    struct group *group;
    struct named *named;
    struct list in_named;
    struct list in_room;
    struct list in_core;
    struct list ack_node;    /* core.acks: an ACK is due */
    struct list deep_node;   /* core.deep: has more than it can run, by time of last progress */
    struct list outstanding; /* tasks, in the order of hand-over: the first `slots` are running */
    uint32_t outstanding_count;
    struct idmap ghosts;  /* lease -> id: fenced here, and not answered yet; each takes a slot */
    struct idmap claims;  /* the same: answers that it held at JOIN, of what it does not run */
    struct idmap parting; /* lease -> struct pieces: of results, until the end of the attempt */
    struct credit credits[CREDITS];
    uint64_t expected_ns; /* sum of the estimates of what it has */
    uint64_t progress_ns; /* when it last started or ended something */
    uint64_t received;    /* sequence of the last answer taken */
    uint64_t acked;
    uint64_t ack_due_ns; /* in core.acks: when it goes, alone if need be */
    uint64_t ack_bytes;  /* of results since the last ACK: its window is what the worker may keep */
    struct list settling; /* FINISHING and MOVING tasks, by sequence of their answers */
    uint64_t heard_ns;
    uint64_t bulk_ns; /* when a piece of a large result, or as large a one of a stream, came */
    uint64_t spoken_ns;
    struct heap_node timer;
    uint64_t deadline_ns; /* JOINING: READY by then; DRAINING: gone by then; OVER: freed then */
    uint64_t done, failed;
};

/* What is taken from a worker whose session ends. */
struct lost {
    bool cut;          /* its connection went down: what ran there is suspect */
    bool alone;        /* only one attempt ran there */
    uint64_t since_ns; /* monotonic, of the loss; 0: it left in order */
    uint64_t *ids;     /* of all its tasks, the suspects first; NULL: nobody asked */
    size_t count;      /* of the ids */
    size_t suspects;
};

/* What ran on a worker that was lost. Another one may have it by the time its death is heard of. */
struct suspect {
    uint64_t id;
    uint16_t attempt; /* that ran there */
};

/* A worker that was lost, until it is clear whether its process died. */
struct loss {
    struct loss *next;
    uint8_t instance[INSTANCE_SIZE];
    const char *name;       /* behind the suspects */
    struct heap_node timer; /* mono: not back by then, it is taken for dead */
    bool lost;              /* false: the obituary came first */
    bool cut;               /* its connection went down; false: fenced, no death without obituary */
    struct msg_obituary obituary;
    bool known; /* the obituary is there */
    bool alone; /* one attempt ran there, and nothing beside it */
    size_t count;
    struct suspect suspects[];
};

/* ---- followers ---- */
struct follower {
    struct follower *next; /* of the same task */
    struct conn *conn;     /* NULL: of CONN_SELF */
    struct list in_conn;   /* conn.following, then conn.told */
    union {
        struct task *task;   /* NULL: of none yet, or any more */
        struct queue *queue; /* absent: its task's */
    };
    union {
        uint64_t number; /* FINISHED: its number on the connection */
        uint64_t id;     /* absent: its task's */
    };
    uint64_t request;
    uint8_t level;  /* enum follow */
    bool absent;    /* its task is in the store only */
    bool attached;  /* cancel the task when the connection closes */
    bool submitter; /* is to be told ACCEPTED */
    bool patient;   /* ... and in no hurry */
};

_Static_assert(sizeof(struct follower) <= 64, "a cache line: each is touched once in a while");

struct conn {
    uint64_t id;
    struct list following;
    struct list told; /* finishes that are not acknowledged, by number */
    uint64_t told_count;
    uint64_t watch_request;
    struct list watch_node; /* in core.watchers, or alone */
};

/* What a node of the time heaps belongs to: the low bits of its tie. */
enum timer_kind { TIMER_DELAY, TIMER_RARE, TIMER_UNIQUE, TIMER_LOSS };

/* A unique key of a queue that bypasses the store. */
struct unique {
    struct task *task; /* NULL: it ended, the window of the key has not */
    uint64_t id;
    struct heap_node timer; /* wall; only if it holds beyond the task */
    struct slice key;       /* queue, NUL, key */
    uint8_t bytes[];
};

/* A request that waits for the store. */
enum request_kind {
    REQUEST_WAIT,
    REQUEST_CANCEL,
    REQUEST_STATUS,
    REQUEST_DEAD,
    REQUEST_SUBMITTED,
    REQUEST_REPLAY,
    REQUEST_DROP,
    REQUEST_PAUSE, /* or resume */
    REQUEST_PURGE,
    REQUEST_PURGED,
    REQUEST_HELD,
    REQUEST_DONE
};

struct request {
    enum request_kind kind;
    uint64_t conn;
    uint64_t request;
    uint64_t id;
    uint64_t count; /* PURGE: of tasks that were in memory */
    uint64_t ready; /* PURGE: that the store had, and has again if it refuses; the same of ... */
    uint64_t delayed, targeted;
    enum follow follow;
    struct queue *queue;     /* PURGE */
    struct joining *joining; /* HELD */
    struct msg_list *list;   /* DEAD: a copy, with its filter behind it; or NULL */
    uint32_t slot;           /* HELD: its place among those */
    bool again;              /* the store is asked once more */
    bool refused;            /* ... after a pause */
    bool bare;               /* SUBMITTED: without the payload */
    bool stale;              /* CANCEL, HELD, DONE, REPLAY: a purge was asked since */
    struct body *result;     /* DONE */
    uint64_t run_ns;         /* DONE */
    struct list in_core;
};

struct core {
    struct core_config config;
    struct queue_setting *settings;
    size_t setting_count;
    struct now now;
    uint64_t wake_ns;    /* that was promised last */
    uint64_t resumed_ns; /* of the last long pause of the server itself: silence counts from here */
    uint64_t random;
    struct core_stats stats;
    bool bypass; /* the store keeps nothing */

    struct ledger ledger;
    struct pool pool;
    struct list gone;               /* tasks to recycle at the next begin */
    uint64_t next_id, last_id;      /* what is left of the ids that are leased to us */
    uint64_t spare_id, spare_count; /* the block after those */
    uint64_t first_id;              /* what has this id or a later one came in this life */
    bool ids_asked;

    struct strmap queues;
    struct queue *first_queue; /* in the order in which they were made */
    struct queue **queues_end;
    struct queue *last_queue; /* that was looked up: most come in runs */
    struct strmap uniques;
    struct heap by_wall; /* due, expiry, unique keys */
    struct heap by_mono; /* backoff, fences, lost workers */
    struct list holding; /* FINISHED tasks that stay for hold_ms, in the order in which they go */
    struct list keeping; /* FINISHED tasks that stay longer, the oldest first */
    struct heap kept;    /* the same (rare.timer): key is when they go */
    size_t kept_count;   /* of both */
    size_t kept_bytes;
    uint64_t bypass_bytes;   /* payloads of unfinished tasks without a store behind them */
    uint64_t unstored_bytes; /* the same of those that the store has refused (task.unstored) */

    struct group **groups; /* by number - 1 */
    size_t group_count;
    struct list dirty_groups;
    uint64_t round; /* of the scheduler, from 1: each leaves no group dirty */
    struct strmap named;
    struct list dirty_named;
    struct list workers;
    uint32_t worker_count;
    struct idmap worker_by_id;
    struct heap worker_timers;
    struct list workers_over; /* in this tick */
    struct list departed;     /* over, with answers on their way; by deadline_ns */
    size_t departed_ghosts;   /* of those */
    struct list deep;
    struct list acks;
    uint64_t flight_bytes; /* prefetched ahead of idle slots */
    uint64_t next_worker;
    struct loss *losses;

    struct idmap conns;
    struct idmap absent; /* id -> followers of a task that is not in memory */
    struct list watchers;

    size_t listed;     /* rows of LISTs in this tick */
    uint64_t scanning; /* rows of LISTs that the store was asked for */
    bool ticking;      /* between core_begin() and core_end() */
    bool failed;       /* actions.failed */
    bool draining;
    bool drained;
    bool store_down;
    int store_code;
    uint64_t drain_limit_ms;
    uint64_t unsettled_results; /* bytes of results on their way to the store */
    int refusal;           /* enum pushrod_error: why the last submission was refused at once */
    uint64_t refused_ns;   /* when to ask again what the store refused; NEVER: nothing */
    uint32_t refused_slot; /* of the ledger: where to begin then, if the store is full ... */
    uint32_t refused_most; /* ... and for how many tasks */
    bool paused;           /* clients are told not to send */
    bool stopped;          /* queues that the store keeps dispatch nothing */
    uint64_t next_due_ms;  /* of the store's agenda; 0: nothing */
    uint64_t due_until_ms; /* of the DUE that is under way; 0: none */
    uint64_t due_number;   /* of DUEs */
    struct list held;      /* tasks that a worker may run: since a restart, or says its JOIN */
    uint8_t (*missing)[INSTANCE_SIZE]; /* workers on record that have not rejoined */
    size_t missing_count;
    uint64_t rejoin_ns;  /* until then; NEVER: all is clear */
    struct list joining; /* JOINs that wait for look-ups: what they claim is held for them */
    struct list requests;
    struct list low;      /* queues whose window may need a fetch */
    struct queue nowhere; /* of finishes that were looked up: they do not say */

    struct arena_block *arena;
    struct lent *lent; /* bodies that actions of this tick point into */
    struct vec lane, join, store, out, notices;
    struct lane_action lost_lane; /* what there is no memory for is written here */
    struct conn_action lost_conn;
    struct actions actions;
};

#endif
