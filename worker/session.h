/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session: what a worker decides, without the world that it decides about.
 *
 * Knows the tasks that it was given, what runs, which answers are not acknowledged, and when to
 * join, beat, resend, drain and give up. Knows no socket, no clock, no process, no thread. Built as
 * an archive of its own and checked like the core; tests/sim drives both against each other.
 *
 * Events go in between session_begin() and session_end(); session_end() gives the actions. Inputs
 * are borrowed until the call returns; actions until the next session_begin().
 */
#ifndef WORKER_SESSION_H
#define WORKER_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/body.h"
#include "common/clock.h"
#include "proto/messages.h"

struct session;

/* How long a BYE may take to be acknowledged before we leave anyway. */
#define SESSION_BYE_WAIT_MS 1000u

/* Zero means the default that stands behind each. */
struct session_config {
    uint64_t seed; /* jitter */
    uint8_t instance[16];
    struct slice name;
    struct slice host;
    struct slice token; /* what the server asks of workers; absent: none */
    uint64_t pid;
    uint32_t slots;        /* 1 */
    uint32_t max_prefetch; /* tasks beyond the slots; 0: none */
    uint32_t ahead;        /* 0: START up to `slots`; else so many more, which the runner begins in
                              order when a slot is free, and gives back when told to REVOKE */
    const struct slice *queues;
    size_t queue_count;
    uint64_t drain_ms;   /* 25000 */
    bool signals;        /* SIGTERM drains, and leaves the second time: the log says so */
    uint64_t max_tasks;  /* 0: no bound; else drain after so many */
    size_t keep_bytes;   /* 64 MiB of answers not acknowledged: start nothing above it */
    size_t part_bytes;   /* 64 KiB of a result in one frame to another host; the window follows */
    uint64_t resend_ms;  /* 1000 without progress of ACK: send something again, doubled */
    uint64_t backoff_ms; /* 50: first wait before joining again, jittered, doubled ... */
    uint64_t backoff_cap_ms; /* 1000: ... up to this */
};

struct session *session_new(const struct session_config *); /* NULL: no memory */
void session_free(struct session *);

void session_begin(struct session *, struct now);

/* ---- what goes in ---- */
void session_welcome(struct session *, const struct msg_welcome *);
void session_refused(struct session *, const struct msg_refused *);
void session_join_up(struct session *); /* somebody is at the other end: the answer may take long */
void session_join_down(struct session *); /* ... or not any more: there will be none */
/* Lane and answers are Unix sockets, or not: no frame is slow there, however large. Any time. */
void session_near(struct session *, bool near);
/* What was sent of large results has left, or not yet: then no more of them is, for what is small
 * would come behind it. True until it is told. */
void session_room(struct session *, bool room);
void session_lane_hello(struct session *, const struct msg_lane_hello *);
/* `body`: the payload, if it came as a part of its own (the session takes a reference), or NULL. */
void session_task(struct session *, const struct msg_task *, struct body *body);
/* The next bytes of a payload whose TASK came without all of them. */
void session_payload(struct session *, uint64_t lease, struct slice data);
void session_cancel(struct session *, const struct msg_cancel_task *);
void session_withdraw(struct session *, const struct msg_withdraw *);
void session_ack(struct session *, uint64_t sequence);
void session_ping(struct session *, uint64_t sequence, bool beat, uint64_t next_ms);
void session_told_to_drain(struct session *, const struct msg_drain *);
void session_drain(struct session *, uint64_t limit_ms); /* from the lane, or SIGTERM */
/* The same, for another process to take its place. False: it leaves already, as it was told. */
bool session_recycle(struct session *, uint64_t limit_ms);
void session_quit(struct session *); /* the second SIGTERM: return, leave now */
void session_fenced(struct session *, uint64_t code);
void session_lane_down(struct session *);       /* the lane's connection is gone: join again */
void session_answers_renewed(struct session *); /* the answers connection was made anew: resend */

/* Answer to RUN_REVOKE: true: it had not begun, and the runner has forgotten it; false: it has. */
void session_revoked(struct session *, uint64_t lease, bool given_back);

/* What the runner says of an attempt that it was told to START. Of progress that comes faster than
 * people look, the last word is told. */
void session_progress(
    struct session *, uint64_t lease, uint64_t done, uint64_t total, struct slice text);
void session_data(struct session *, uint64_t lease, struct slice data);
void session_done(struct session *, uint64_t lease, uint64_t run_ns, struct slice result);
struct attempt_failure {
    uint32_t code; /* enum pushrod_error */
    bool permanent;
    uint64_t retry_ms;
    struct slice text;
};
void session_failed(
    struct session *, uint64_t lease, uint64_t run_ns, const struct attempt_failure *);
/* The handler does not return, and may use its attempt for ever: it stays valid until
 * session_free(), and what the handler may yet answer is ignored. */
void session_abandoned(
    struct session *, uint64_t lease, uint64_t run_ns, const struct attempt_failure *);
/* The handler cannot run at all: give it back, serve the queue (pattern) no more. */
void session_broken(struct session *, uint64_t lease, struct slice text);

/* ---- what comes out ---- */

/* A task that the runner is to run; valid until the runner has answered for its lease. */
struct attempt {
    uint64_t id;
    uint64_t lease;
    uint64_t number;     /* attempt, from 1 */
    uint64_t timeout_ms; /* 0: the worker's default */
    struct slice queue;
    struct slice headers;
    struct slice payload;
};

/*
 * START: run it when a slot is free, in the order of the actions. CANCEL: make it end early, it is
 * answered like any other. REVOKE: give it back if it has not begun; answered by session_revoked().
 */
enum run_kind { RUN_START, RUN_CANCEL, RUN_REVOKE };

struct run_action {
    enum run_kind kind;
    const struct attempt *attempt;
};

enum session_state {
    SESSION_IDLE,
    SESSION_JOINING,
    SESSION_CONNECTING,
    SESSION_ACTIVE,
    SESSION_DRAINING,
    SESSION_OVER
};

struct session_actions {
    const struct msg_join *join;       /* NULL, or: on a fresh DEALER, send this */
    const struct msg_welcome *connect; /* NULL, or: connect lane and answers as it says */
    bool disconnect;                   /* close lane and answers */
    const struct run_action *run;
    size_t run_count;
    struct slice answers; /* messages to send as one frame, FROM first; size 0: none */
    uint64_t wake_ns;     /* monotonic: come again by then; UINT64_MAX: no need */
    enum session_state state;
    int code;         /* OVER: why; 0: drained */
    const char *text; /* for the log, when something happened that people should know */
    bool warning;     /* the text is of something that is wrong */
    size_t done;      /* attempts that ended so far */
    size_t running;   /* attempts that run now */
    bool settled;     /* the server has acknowledged something in this session: both
                         connections work, and the join socket may close */
    bool recycle;     /* OVER: because of max_tasks, or session_recycle() */
    bool full;        /* much waits to be sent: take no more from the runner for now */
    size_t emitted;   /* bytes of DATA that wait aside: whoever emits more waits for them */
};

const struct session_actions *session_end(struct session *);

bool session_leaves(const struct session *); /* it drains, and does not join again */

#endif
