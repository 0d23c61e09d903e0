/* SPDX-License-Identifier: Apache-2.0 */
/*
 * core: what the server decides, without the world that it decides about.
 *
 * Events go in between core_begin() and core_end(); core_end() gives the actions that they call
 * for. The core has no clock, no descriptor, no socket, no log, no random source and no global:
 * time comes with core_begin(), randomness from a seed, storage through the operations that it
 * asks for and the events that answer them. The build fails if it links to anything else. So the
 * life of a million tasks, with workers that die and stores that fail, runs from a seed in one
 * process (tests/sim).
 *
 * Memory: every input is borrowed until the call returns, except a body, of which the core takes
 * a reference of its own. Actions, and all that they point to, are valid until the next
 * core_begin(). When an allocation fails the core refuses the input (REJECTED NO_MEMORY) and stays
 * as it was; but what it has to say it cannot take back. When there is no memory for the actions
 * of a tick, core_end() gives none and says `failed`: whoever drives the core then ends the process
 * as a crash would, and what was accepted is in the store.
 *
 * One thread. Connections and workers are 64-bit ids that are never used twice.
 */
#ifndef SERVER_CORE_CORE_H
#define SERVER_CORE_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <pushrod/task.h>
#include "common/clock.h"
#include "proto/messages.h"
#include "server/core/task.h"
#include "server/store/store.h"

struct core;

/* Zero means the default that stands behind each. */
struct core_config {
    uint64_t seed;         /* of the core's random numbers */
    uint64_t heartbeat_ms; /* 1000: a worker that has tasks says something at least this often */
    uint32_t missed_heartbeats; /* 3: after these it is fenced */
    uint64_t ping_ms;        /* 5000: the server says something to a worker at least this often */
    uint64_t ack_ms;         /* 0: an ACK waits so long for something else to go the same way */
    uint64_t ready_wait_ms;  /* 5000: from WELCOME to READY */
    uint64_t rejoin_wait_ms; /* 3000: after a restart, for workers on record */
    uint32_t window_tasks;   /* 50000: of a queue with a store behind it, in memory */
    size_t window_bytes;     /* 64 MiB: payloads of that window */
    uint64_t max_tasks;      /* 0: no bound. Unfinished tasks of a queue; above: QUEUE_FULL */
    uint32_t max_queues;     /* 100000 names, none is ever forgotten; above: TOO_MANY */
    uint64_t max_bytes;      /* 1 GiB: payloads of unfinished tasks without a store behind them */
    uint64_t max_unsettled;  /* 16 MiB: submissions waiting for their commit; above: paused */
    uint32_t max_prefetch;   /* tasks beyond the slots of one worker; 0: none */
    size_t lane_bytes;       /* 1 MiB outstanding on one lane, or one task */
    size_t flight_bytes;     /* 4 MiB outstanding on all lanes, ahead of idle slots */
    uint32_t max_workers;    /* 1024 */
    uint32_t poison_limit;   /* 3 deaths alone */
    size_t max_payload;      /* PUSHROD_MAX_PAYLOAD */
    size_t max_result;       /* PUSHROD_MAX_PAYLOAD */
    uint64_t drain_ms;       /* 25000: for a worker that an operator drains */
    uint64_t hold_ms;        /* 600000: unacknowledged finishes */
    uint32_t hold_count;     /* 100000 of them at the most */
    size_t hold_bytes;       /* 256 MiB of their results at the most */
    enum durability durability; /* of queues that are not named otherwise */
    struct store_capabilities store;
};

/* A queue pattern with settings of its own; the most specific one wins. */
struct queue_setting {
    struct slice pattern;
    enum durability durability;
    uint64_t max_tasks; /* 0: as configured for all */
};

/* Borrowed until return. `opened` comes from the store's open(). NULL: no memory. */
struct core *core_new(const struct core_config *, const struct queue_setting *, size_t settings,
    const struct store_opened *opened);
void core_free(struct core *);

/* ---- what goes in ---- */

/* True: late by more than a heartbeat, so that what was said meanwhile has not been read yet. */
bool core_begin(struct core *, struct now);

/* The embedding program itself, as a connection that is always there. */
#define CONN_SELF UINT64_C(1)

enum follow { FOLLOW_NONE = 0, FOLLOW_FINISH = 1, FOLLOW_ALL = 2 };

struct submit {
    uint64_t request; /* given back with ACCEPTED or REJECTED, and to CONN_SELF with FINISHED */
    struct slice queue;
    struct slice payload;
    struct body *body; /* or this, if it is larger than TASK_INLINE_PAYLOAD; NULL: none */
    const struct msg_options *options; /* NULL: defaults */
    enum follow follow;
    bool patient; /* ACCEPTED may leave later: see struct conn_action */
};

/*
 * Each is answered by ACCEPTED or REJECTED. *ids, if not NULL, gets the id that the task will have
 * when accepted, or 0 if it was refused at once: an embedded server returns it before the commit.
 */
void core_submit(struct core *, uint64_t conn, const struct submit *, size_t count, uint64_t *ids);
/* enum pushrod_error: why core_submit() gave an id of 0 last. */
int core_refusal(const struct core *);

void core_wait(struct core *, uint64_t conn, uint64_t request, uint64_t id, enum follow);
void core_received(struct core *, uint64_t conn, uint64_t count); /* FINISHED taken so far */
void core_cancel(struct core *, uint64_t conn, uint64_t request, uint64_t id);
void core_status(struct core *, uint64_t conn, uint64_t request, uint64_t id);
void core_list(struct core *, uint64_t conn, const struct msg_list *);
void core_control(struct core *, uint64_t conn, const struct msg_control *);
void core_watch(struct core *, uint64_t conn, uint64_t request, bool on);
void core_conn_closed(struct core *, uint64_t conn); /* unfollows; cancels what was attached */

/* Worker plane. `peer` is the caller's own handle of who asks, given back with WELCOME or REFUSED.
 */
struct held {
    uint64_t id;
    uint64_t lease;
    bool answered;
    bool started;
};

#define INSTANCE_SIZE    16u   /* bytes that name the process of a worker */
#define WORKER_SLOTS_MAX 4096u /* tasks that one runs at a time; at least one */

struct join {
    uint64_t peer;
    uint8_t instance[INSTANCE_SIZE];
    struct slice name;
    struct slice host;
    uint64_t pid;
    uint32_t slots; /* 1 to WORKER_SLOTS_MAX */
    uint32_t max_prefetch;
    const struct slice *queues; /* names and patterns, valid ones */
    size_t queue_count;         /* 0: it is refused */
    const struct held *held;
    size_t held_count;
};

void core_join(struct core *, const struct join *);

/* The lane that WELCOME asked for could not be made: forget the worker. */
void core_lane_failed(struct core *, uint64_t worker);
/* The worker's connection is gone: it is given nothing more. What it has said may still come. */
void core_worker_cut(struct core *, uint64_t worker);
/* ... and of this attempt not all had left, so it never began there: it goes to others at once. */
void core_unsent(struct core *, uint64_t worker, uint64_t id, uint64_t lease);
/* That was all of it, or its answers are nonsense; its tasks go to others. Since when,
 * by the monotonic clock, is for the figures only. */
void core_worker_lost(struct core *, uint64_t worker, int code, uint64_t since_ns);
void core_obituary(struct core *, const struct msg_obituary *);

/* One message of the answers plane; in the order of their sequence numbers. A HEARTBEAT has none,
 * comes alone, and is not acknowledged: an idle worker costs what it takes to note that it lives.
 */
struct answer {
    uint16_t kind;     /* enum msg: READY STARTED PROGRESS DATA PART TASK_DONE TASK_FAILED RETURNED
                          HEARTBEAT BYE */
    bool permanent;    /* TASK_FAILED */
    uint32_t code;     /* TASK_FAILED, RETURNED */
    uint64_t sequence; /* in the session, from 1; HEARTBEAT: 0 */
    uint64_t id;
    uint64_t lease;
    uint64_t run_ns;   /* TASK_DONE, TASK_FAILED */
    uint64_t number;   /* PROGRESS: done; PART: total; TASK_FAILED: retry_ms */
    uint64_t total;    /* PROGRESS */
    struct slice data; /* DATA, PART, TASK_DONE: bytes; PROGRESS, TASK_FAILED: text */
};

/* Those of a session that is over are counted and dropped, but for the first DONE of a task that it
 * had been given. */
void core_answers(struct core *, uint64_t worker, uint64_t session, const struct answer *, size_t);

void core_stored(struct core *, const struct store_event *, size_t count);
int core_store_code(const struct core *); /* why the store takes no tasks; 0: it does */

/* Other bounds, with the meaning of core_config; what was accepted stays. */
void core_configure(struct core *, uint64_t max_tasks, uint64_t max_bytes, uint64_t drain_ms);

/* Stop: no submission is taken any more; workers are told to drain. */
void core_drain(struct core *, uint64_t limit_ms);

/* ---- what comes out ---- */

enum lane_kind {
    LANE_TASK,
    LANE_CANCEL,
    LANE_WITHDRAW,
    LANE_ACK,
    LANE_PING,
    LANE_DRAIN,
    LANE_FENCED
};

/* Put on the worker's lane, in this order; all of a tick leave in one message. */
struct lane_action {
    uint64_t worker;
    enum lane_kind kind;
    const struct task *task; /* TASK: record, lease, hand_overs */
    uint64_t id;             /* CANCEL, WITHDRAW */
    uint64_t lease;          /* CANCEL, WITHDRAW */
    uint64_t number;         /* ACK, PING: sequence; DRAIN: limit_ms; FENCED: enum pushrod_error */
    bool again;              /* DRAIN: it is we who stop, and the worker is to join our successor */
    bool beat;               /* PING: say HEARTBEAT unasked; goes ahead, in a message of its own */
    uint64_t next_ms;        /* PING: something is said again within this time */
};

/* WELCOME: make a lane, tell the peer. REFUSE: tell the peer. CLOSE: destroy the lane of `worker`.
 */
enum join_kind { JOIN_WELCOME, JOIN_REFUSE, JOIN_CLOSE };

struct join_action {
    enum join_kind kind;
    uint64_t peer;           /* WELCOME, REFUSE; CLOSE: of the worker's JOIN */
    uint64_t worker;         /* WELCOME, CLOSE */
    uint64_t session;        /* WELCOME */
    int code;                /* REFUSE; CLOSE: why (LANE_UNREACHABLE: tell the peer); 0: it left */
    bool retry;              /* REFUSE */
    const struct held *held; /* WELCOME: as it was given ... */
    const uint8_t *verdicts; /* ... and an enum verdict for each */
    size_t held_count;
    const char *text; /* REFUSE: for people; CLOSE: the worker's name */
};

/*
 * To a connection. `kind` is an enum msg of the CLIENT_DOWN plane:
 *   ACCEPTED request, id        REJECTED request, code, text, id     OK request, number
 *   FINISHED task, request (that of the SUBMIT or WAIT)
 *   TASK_PROGRESS, TASK_DATA, ATTEMPT, *_ROW, EVENT, END: row is the struct msg_... of that kind
 *   SUBMITTED: row is a struct submitted
 */
struct conn_action {
    uint64_t conn;
    uint64_t request;
    uint16_t kind;
    bool patient; /* ACCEPTED: may wait for what is told next, for a millisecond */
    uint32_t code;
    uint64_t id;
    union {
        uint64_t number;
        const struct task *task;
        const void *row;
        const char *text; /* NULL: pushrod_strerror(code) says it */
    };
};

struct submitted {
    struct msg_submitted row;
    struct body *body; /* NULL, or the row's payload lies in it; borrowed as the row is */
};

/* For the embedding program's events and the log. */
enum notice_kind {
    NOTICE_WORKER_JOIN,
    NOTICE_WORKER_READY,
    NOTICE_WORKER_LOST,
    NOTICE_WORKER_BYE,
    NOTICE_WORKER_UNREADY /* it was welcomed, and never got ready */,
    NOTICE_WORKER_BROKEN /* text: the queue that it does not serve any more */,
    NOTICE_TASK_DEAD,
    NOTICE_STORE_DOWN,
    NOTICE_STORE_UP,
    NOTICE_DRAINED,
    NOTICE_ORPHAN_FINISH /* a finish that no follower of this process's life waits for: task */
};

struct notice {
    enum notice_kind kind;
    uint64_t worker;  /* 0: none */
    const char *name; /* of the worker; "" if none */
    int code;
    const struct task *task; /* TASK_DEAD, ORPHAN_FINISH */
    const uint64_t *ids;     /* WORKER_LOST, _UNREADY: the tasks that it had */
    size_t count;
    const char *text;
};

struct actions {
    const struct lane_action *lane;
    size_t lane_count;
    const struct join_action *join;
    size_t join_count;
    const struct store_op *store;
    size_t store_count;
    const struct conn_action *conn;
    size_t conn_count;
    const struct notice *notices;
    size_t notice_count;
    uint64_t wake_ns; /* monotonic: call core_begin/end by then; UINT64_MAX: no need */
    bool failed;      /* no memory for actions: carry out none of them, and end as a crash would */
    bool pause_clients; /* do not read clients: too much waits for its commit */
};

const struct actions *core_end(struct core *);

/* ---- to look at, at any time ---- */

/* S(name, kind, text): kind is counter or gauge. /metrics, `pushrod top` and docs come from here.
 */
#define CORE_STATS(S)                                                                              \
    S(submitted, counter, "tasks accepted")                                                        \
    S(rejected, counter, "submissions refused")                                                    \
    S(dispatched, counter, "tasks handed to a worker")                                             \
    S(done, counter, "tasks done")                                                                 \
    S(failed, counter, "tasks that failed for good")                                               \
    S(cancelled, counter, "tasks cancelled")                                                       \
    S(expired, counter, "tasks expired")                                                           \
    S(attempts_failed, counter, "attempts that failed")                                            \
    S(redelivered, counter, "tasks taken from lost workers")                                       \
    S(returned, counter, "tasks given back unstarted")                                             \
    S(withdrawn, counter, "WITHDRAW messages sent")                                                \
    S(stale_answers, counter, "answers of attempts that were over")                                \
    S(workers_lost, counter, "workers lost")                                                       \
    S(workers_silent, counter, "of those, workers that nothing was heard of any more")             \
    S(workers, gauge, "workers that are joined")                                                   \
    S(slots, gauge, "slots of those workers")                                                      \
    S(ready, gauge, "tasks that wait for a worker, in memory")                                     \
    S(backlog, gauge, "tasks that wait behind the windows, in the store")                          \
    S(delayed, gauge, "tasks that wait for their time")                                            \
    S(running, gauge, "tasks that workers have")                                                   \
    S(dead, gauge, "dead letters")                                                                 \
    S(queues, gauge, "queues that there are")                                                      \
    S(unserved, gauge, "tasks that wait in queues which no worker serves")                         \
    S(ledger, gauge, "tasks in memory")                                                            \
    S(ledger_bytes, gauge, "payload bytes of tasks in memory")                                     \
    S(unsettled_bytes, gauge, "bytes of submissions that wait for their commit")

struct core_stats {
#define S(name, kind, text) uint64_t name;
    CORE_STATS(S)
#undef S
};

const struct core_stats *core_stats(struct core *); /* the gauges are summed now */

/* The same of one queue. `recovered` is for "how long did it take to recover?": from the moment in
 * which a worker was lost, or last heard of if it fell silent, until another has the task. */
#define CORE_QUEUE_STATS(S)                                                                        \
    S(ready, gauge, "tasks that wait for a worker, in memory or not")                              \
    S(delayed, gauge, "tasks that wait for their time")                                            \
    S(running, gauge, "tasks that workers have")                                                   \
    S(dead, gauge, "dead letters")                                                                 \
    S(workers, gauge, "workers that serve it")                                                     \
    S(slots, gauge, "slots of those workers")                                                      \
    S(paused, gauge, "1: nothing is handed out")                                                   \
    S(oldest_ms, gauge, "age of the most urgent waiting task")                                     \
    S(p95_us, gauge, "95 % of recent attempts took less")                                          \
    S(submitted, counter, "tasks accepted")                                                        \
    S(done, counter, "tasks done")                                                                 \
    S(attempts_failed, counter, "attempts that failed")                                            \
    S(redelivered, counter, "tasks taken from lost workers")                                       \
    S(recovered, counter, "tasks of lost workers that others were given")                          \
    S(recovery_us, counter, "time from the loss until then, of all together")                      \
    S(recovery_max_us, gauge, "the longest of these times")

struct core_queue_stats {
    struct slice name; /* the core's: a queue is never forgotten */
    bool stored;       /* its tasks outlive this process */
#define S(name, kind, text) uint64_t name;
    CORE_QUEUE_STATS(S)
#undef S
};

struct queue;

/* The queue behind `*at` (NULL: the first), in the order in which they came. False: there is none.
 */
bool core_queue_next(const struct core *, const struct queue **at, struct core_queue_stats *stats);

/* Checks every invariant there is; for the simulation and debug builds. Aborts on a violation. */
void core_check(const struct core *);

#endif
