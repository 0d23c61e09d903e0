/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim: the whole system in one process, from one seed.
 *
 * One core, some worker sessions, clients, a simulated disk, a fake network and a fake clock. All
 * that happens is an event in the agenda, so a seed gives the same run each time. The core and the
 * session are the real ones; messages between them go through proto/codec; the rest is a model.
 *
 *   agenda.c  time, events, links, the trace
 *   plan.c    what a seed switches on (swarm: a random subset, each with its own rate)
 *   disk.c    the store that commits late, fails, and forgets what was not settled in a crash
 *   server.c  the core and a model of the worker plane    (server_out.c: its actions; load.c)
 *   node.c    a session and a model of the runner
 *   runner.c  handlers
 *   client.c  who submits, follows, cancels, vanishes and comes back
 *   result.c  what handlers give back
 *   liar.c    workers that say what is not true
 *   odd.c     requests at odd times
 *   keys.c    who may hold a unique key
 *   truth.c   what really happened, and the checks against it
 *   faults.c  what breaks, when, and how it is mended
 *
 * A broken check prints the seed, the step and the last events, and aborts.
 */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/buf.h"
#include "common/map.h"
#include "server/core/core.h"
#include "tests/sim/disk.h"
#include "worker/session.h"

#define SIM_MAX_WORKERS 6
#define SIM_MAX_CLIENTS 4
#define SIM_QUEUES      4
#define SIM_MAX_SUBS    400
#define MS              UINT64_C(1000000) /* nanoseconds */
#define US              UINT64_C(1000)

struct sim;
struct event;

/* ---- agenda.c ---- */

enum { NODE_WORLD = -2, NODE_SERVER = -1 }; /* else the number of a worker */

/* A connection in one direction: keeps order; a cut drops what is under way. */
struct link {
    uint64_t epoch; /* what was sent in an earlier one never arrives */
    uint64_t last;  /* ns: arrival of the last message that was sent */
    bool silent;    /* swallows everything, tells nobody (host unreachable) */
};

typedef void apply_fn(struct sim *, struct event *);

struct event {
    uint64_t at; /* ns */
    uint64_t tie;
    int node;      /* who it happens to */
    uint64_t life; /* of that node: its process of that time */
    struct link *link;
    uint64_t epoch;
    apply_fn *apply;
    uint64_t a, b;
    uint8_t *frame; /* owned */
    size_t frame_size;
    void *more; /* owned by whoever made the event; apply frees it; lost with a dropped event */
    void (*drop)(void *more);
};

uint64_t sim_random(struct sim *);
uint64_t sim_below(struct sim *, uint64_t bound); /* 0 .. bound-1; 0 for 0 */
bool sim_chance(struct sim *, unsigned percent);
uint64_t sim_between(struct sim *, uint64_t low, uint64_t high);

/* Happens to the world itself, `delay` ns from now. */
struct event *sim_after(struct sim *, uint64_t delay, apply_fn *, uint64_t a, uint64_t b);
/* Arrives at a node's process of this time; over a link in order. */
struct event *sim_send(struct sim *, int node, struct link *, uint64_t delay, apply_fn *);
void event_frame(struct event *, const struct buf *); /* copies the bytes */
void link_cut(struct link *);
/* What is under way arrives from now on, each up to `gap` ns behind the one before. */
void link_hurry(struct sim *, struct link *, uint64_t gap);
void link_leave(struct sim *, struct link *); /* cut, but what is under way still arrives */
bool sim_run_next(struct sim *);              /* false: nothing is left */
void agenda_free(struct sim *);
void event_free(struct event *);

void sim_trace(struct sim *, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A check failed: says all that helps, and aborts. */
void sim_fail(struct sim *, const char *format, ...)
    __attribute__((format(printf, 2, 3), noreturn));
void sim_report(struct sim *); /* seed, step, last events; also from the abort handler */

#define SIM_CHECK(sim, condition, ...)                                                             \
    do {                                                                                           \
        if (!(condition))                                                                          \
            sim_fail((sim), __VA_ARGS__);                                                          \
    } while (0)

/* ---- plan.c ---- */

/* X(name): faults; each is off (0) or a rate in percent of the fault draws. */
/* clang-format off */
#define SIM_FAULTS(X)                                                                              \
    X(death) X(pause) X(silence) X(lane_cut) X(answers_cut) X(restart) X(server_pause)             \
    X(store_full) X(store_down) X(store_doubt) X(client_cut) X(cancel) X(purge) X(drain)         \
    X(queue_pause) X(replay) X(look) X(clock) X(stall) X(drop) X(odd) X(store_slow)

/* X(name): chances in percent, of each message, task or attempt. */
#define SIM_CHANCES(X)                                                                             \
    X(join_lost) X(join_repeated) X(no_obituary) X(fails) X(permanent) X(hangs) X(broken)          \
    X(poison) X(priority) X(delay) X(unique) X(timeout) X(expires) X(target) X(big) X(keep)        \
    X(attached) X(unfollowed) X(talks) X(pieces) X(torn) X(endless) X(lies)
/* clang-format on */

struct plan {
#define X(name) unsigned name;
    SIM_FAULTS(X)
    SIM_CHANCES(X)
#undef X
    unsigned workers, clients, subs;
    unsigned fault_every_ms; /* mean distance of two faults; 0: none */
    unsigned active_ms;      /* how long clients submit and things break */
    uint64_t delay_ns;       /* of a message, at the most */
    uint64_t commit_ns;      /* of the disk, at the most */
    uint64_t run_ns;         /* of a handler, usually */
    uint64_t slow_ns;        /* of answers with pieces in them, at the most, beside delay_ns */
    uint32_t window;         /* tasks of a queue in memory */
    size_t lane_bytes;
    size_t part_bytes; /* of a result in pieces; 0: as usual */
    uint32_t max_prefetch;
    enum durability durability[SIM_QUEUES];
    bool raw;    /* the plane hands on answers that came before, or after a gap */
    bool calm;   /* no fault and no failing handler at all: strict checks hold */
    bool strict; /* nothing that would justify a second execution */
};

void plan_draw(struct sim *);
void plan_print(const struct sim *);

/* ---- truth.c: one record for each submission ---- */

struct sub {
    uint64_t request;
    uint64_t id; /* 0: not known */
    int client;
    unsigned queue;
    uint64_t conn; /* that submitted it */
    struct msg_options options;
    char target[8], key[12], tag[24];
    uint32_t size; /* of the payload */
    enum follow follow;
    uint64_t plan; /* seed of its handler's behaviour */
    bool poison;
    bool cancelled;              /* somebody asked for it, or its connection was attached */
    uint64_t eta_ms;             /* Unix time; not before */
    uint64_t sent_ms, sent_ns;   /* when the server got it */
    uint64_t ended_ms, ended_ns; /* when its finish was told first */
    uint64_t life;               /* of the server that got it */
    uint64_t cancel_life;        /* of the server that said that it is cancelled; 0: none */
    uint64_t accepted_ns;
    bool sent, accepted, rejected;
    bool known;                      /* its client has the id */
    bool received;                   /* its client has the finish */
    bool excused;                    /* may be lost: volatile, and the server died */
    bool purging;                    /* its queue was purged since it was sent */
    bool replaying, dropping;        /* that was asked for, if it was dead */
    bool revived;                    /* it was replayed */
    bool may_repeat;                 /* a fault justifies another execution */
    bool suspected;                  /* it may have run on a worker that was lost */
    bool lied;                       /* a liar had it, or said so: its result may be any */
    uint64_t piece_of, piece_before; /* workers that sent pieces of its result last */
    uint32_t status;                 /* that was told; 0: none yet */
    unsigned running;                /* executions right now */
    unsigned executions, retries, done;
    int doer;             /* node whose process did it, and keeps the answer until it is stored; */
    uint64_t doer_life;   /* 0: nobody has done it */
    uint64_t first_lease; /* of its first hand-over: FIFO check */
};

struct lane;
struct sub *truth_sub(struct sim *, struct slice payload);
struct sub *truth_by_id(struct sim *, uint64_t id);
void truth_name(struct sim *, struct sub *, uint64_t id);
void truth_accepted(struct sim *, const struct conn_action *);
void truth_rejected(struct sim *, const struct conn_action *);
void truth_finished(struct sim *, const struct conn_action *);
void truth_asked(struct sub *, const char *verb); /* replay, drop */
void truth_revived(struct sim *, struct sub *);
bool truth_gone(const struct sim *, const struct sub *); /* nobody need know it any more */
bool truth_was_purged(const struct sim *, const struct sub *);
bool truth_wanted(const struct sub *); /* its client still waits for its finish */
void truth_dispatch(struct sim *, const struct lane_action *);
void truth_verdict(struct sim *, bool liar, const struct held *, enum verdict);
void truth_lost(struct sim *, const struct lane *); /* its connection went down */
void truth_run(struct sim *, struct sub *, uint64_t id);
void truth_server_died(struct sim *);
void truth_worker_faulty(struct sim *, int node); /* what it has may be run again */
void truth_unstored(struct sim *, const struct store_op *);
void truth_purged(struct sim *, struct slice queue);
void truth_cancelled(struct sim *, struct sub *);
bool truth_settled(struct sim *);               /* everything accepted has ended, and was told */
void truth_idle(struct sim *);                  /* no idle slot beside a task that waits */
void truth_unknown(struct sim *, struct sub *); /* STATUS did not find it */
void truth_final(struct sim *);
const char *truth_queue(unsigned queue);

/* ---- result.c ---- */

struct body *result_new(struct sim *, uint64_t id, uint64_t lease);
void result_check(struct sim *, const struct sub *, struct slice result);

/* ---- keys.c: who may hold a unique key ---- */

void keys_accepted(struct sim *, const struct sub *);
void keys_refused(struct sim *, const struct sub *, uint64_t holder);

/* ---- server.c, server_out.c ---- */

struct held_task {
    uint64_t id, lease;
    size_t bytes;
    bool suspect;
    bool begun; /* its worker said so */
};

/* The server's end of a worker: the model of the plane. */
struct lane {
    uint64_t worker, session, port;
    int node;
    uint64_t life; /* of the node that joined */
    bool open, admitted, ready;
    bool cut;   /* nothing reaches its worker any more */
    bool quiet; /* its worker was told to say HEARTBEAT only when PINGed */
    uint64_t ready_ns;
    uint32_t slots, max_prefetch;
    uint64_t expected; /* sequence number of the next answer */
    uint64_t acked;
    uint64_t said;  /* of a liar: number of the last answer, lies and all */
    uint64_t *lies; /* numbers of what its session did not say */
    size_t lie_count, lie_room;
    struct buf out;          /* this tick's message */
    struct held_task *tasks; /* in the order of hand-over */
    size_t task_count, task_room;
    struct load *loads; /* payloads of which more is to be sent */
    size_t load_count, load_room;
    struct {
        uint64_t sequence, id;
        bool failed, stored; /* its task was in the store only when it came */
    } * dones;               /* DONE and FAILED that are not acknowledged yet */
    size_t done_count, done_room;
};

/* Who asked to join. */
struct peer {
    int node;
    uint64_t life;
    uint8_t nonce[16];
    uint32_t slots, max_prefetch;
    size_t held_count; /* without lies */
    struct buf reply;  /* the same nonce gets the same WELCOME */
};

struct server {
    struct core *core;
    bool up;
    uint64_t life;
    uint64_t paused_until; /* ns; 0: runs */
    uint64_t tick_at;      /* ns; of the event that counts; UINT64_MAX: none */
    struct event **inbox;
    size_t inbox_count, inbox_room;
    struct lane *lanes;
    size_t lane_count, lane_room;
    struct peer *peers;
    size_t peer_count, peer_room;
    bool pause_clients;
};

void server_start(struct sim *);
void server_kill(struct sim *); /* with no warning; settled state stays */
void server_free(struct sim *);
const char *server_left(struct sim *);          /* what has not ended there; NULL: nothing */
void server_take(struct sim *, struct event *); /* into the inbox; wakes it */
void server_wake(struct sim *, uint64_t at_ns);
void server_out(struct sim *, const struct actions *);
struct lane *server_lane(struct sim *, uint64_t worker);
/* Now; `body`: a part behind it, or NULL. */
void lane_send(struct sim *, struct lane *, const struct buf *frame, struct body *body);

/* ---- load.c ---- */
void load_put(struct sim *, struct lane *, const struct task *);
void load_unsent(struct sim *, struct lane *); /* the core is told of those that are not whole */
void load_end(struct lane *, uint64_t lease);  /* no more of it is sent */
void load_free(struct lane *);
void lane_remove(struct lane *, uint64_t id, uint64_t lease); /* it does not have it any more */
void server_note(struct sim *, struct lane *, const struct answer *); /* one that the core takes */
apply_fn server_on_status, server_on_list, server_on_join, server_on_obituary, server_on_answers,
    server_on_lane_connect, server_on_lane_cut, server_on_lane_lost, server_on_submit,
    server_on_wait, server_on_received, server_on_cancel, server_on_control, server_on_conn_closed,
    server_on_stored;

/* ---- node.c ---- */

struct run {
    uint64_t lease, id, timeout_ms;
    struct sub *sub;
    uint64_t begun_ns; /* 0: waits for a slot in the runner */
    bool cancelled;
    bool endless; /* only CANCEL ends it, if that */
};

struct node {
    struct session *session; /* NULL: not running */
    uint64_t life;
    uint8_t instance[16];
    char name[8];
    const char *queues[2];
    size_t queue_count;
    uint32_t slots, ahead, max_prefetch;
    uint64_t paused_until;
    uint64_t tick_at;
    struct event **inbox;
    size_t inbox_count, inbox_room;
    struct link join, lane, answers_up;
    uint64_t port, worker; /* of the lane that it is connected to; 0: none */
    bool liar;
    bool lame;           /* it stopped serving a queue */
    bool crash;          /* a handler kills it at the end of this tick */
    uint64_t changed_ns; /* when something last began or ended */
    struct run *runs;    /* in the order in which they were handed over */
    size_t run_count, run_room;
};

void node_start(struct sim *, int node);
void node_kill(struct sim *, int node); /* -9 */
void node_free(struct sim *, int node);
void node_take(struct sim *, struct event *);
void node_wake(struct sim *, int node, uint64_t at_ns);
void node_lane_down(struct sim *, int node); /* both ends lose the lane */
apply_fn node_on_restart, node_on_welcome, node_on_lane_frame, node_on_lane_down,
    node_on_answers_renewed, node_on_drain;

/* ---- runner.c ---- */

void runner_take(struct sim *, int node, const struct run_action *);
void runner_begin(struct sim *, int node); /* what waits, while slots are free */
apply_fn runner_on_event, runner_on_revoke;

/* ---- liar.c ---- */

bool liar_lies(const struct sim *, const struct lane *);
void liar_had(struct sim *, uint64_t id); /* what becomes of it is up to a liar */
/* Of its session, in order; and more. */
void liar_says(struct sim *, struct lane *, const struct answer *, size_t count);
uint64_t liar_number(const struct lane *, uint64_t number);
size_t liar_holds(struct sim *, int node, struct held *, size_t count, size_t room);

/* ---- odd.c ---- */

void odd_burst(struct sim *);
size_t odd_dead(struct sim *); /* number of a submission */
void odd_ok(struct sim *, const struct conn_action *);
void odd_finished(struct sim *, const struct conn_action *);
uint64_t odd_waits(const struct sim *);
apply_fn server_on_odd;

/* ---- client.c ---- */

/* Requests that are no submissions carry what they are about. */
enum { ASK_WAIT = 1, ASK_CANCEL, ASK_CONTROL, ASK_STATUS, ASK_LIST, ASK_PEEK, ASK_REPLAY };

struct client {
    uint64_t conn; /* 0: not connected */
    struct link up, down;
    uint64_t received; /* FINISHED on this connection */
};

void client_start(struct sim *, int client);
void client_cut(struct sim *, int client); /* the connection breaks; it comes back */
void client_tell(struct sim *, const struct conn_action *);
void client_submitted(struct sim *, const struct conn_action *);
uint64_t client_ask(struct sim *, unsigned kind, size_t number); /* a new request */
struct event *client_up(struct sim *, int client, apply_fn *);
int client_of(const struct sim *, uint64_t conn); /* -1: that connection is gone */
void client_cancel_some(struct sim *);
void client_look(struct sim *); /* STATUS, LIST */
/* From any client that is connected. */
void client_control(struct sim *, const char *verb, const char *name, uint64_t id);
apply_fn client_on_act;

/* ---- faults.c ---- */

void faults_start(struct sim *);
void faults_torn(struct sim *, int node); /* between two pieces of a result that it sends */
void faults_end(struct sim *);            /* mends everything; time goes on */

/* ---- all of it ---- */

struct totals {
    uint64_t steps, ticks, accepted, executed, repeated, told, restarts, deaths, seeds, calm;
    uint64_t pieced, torn, met; /* results in pieces: whole, cut, and crossed by another's */
    uint64_t lies, endless;
};

struct sim {
    uint64_t seed, random;
    int aim;            /* the node that the next fault is for, + 1; 0: any */
    bool verbose, over; /* over: faults are off, all should end */
    uint64_t step;
    struct now now;
    int64_t wall_offset; /* ms: the wall clock jumps */
    uint64_t wall_most;  /* the latest time that it has ever shown */
    struct event **heap;
    size_t heap_count, heap_room;
    uint64_t tie;
    char ring[50][200];
    uint64_t ring_at;
    struct plan plan;
    struct disk disk;
    struct link store_link; /* its events come in order */
    struct server server;
    struct node nodes[SIM_MAX_WORKERS];
    struct client clients[SIM_MAX_CLIENTS];
    struct sub subs[SIM_MAX_SUBS];
    size_t sub_count;
    struct idmap by_id;
    struct idmap waits, told; /* requests: WAITs that were granted; FINISHED */
    uint64_t next_number;     /* connections, requests, ports: never used twice */
    struct totals totals;
};

#endif
