/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verbs: what each file of server/core offers to the others; by file. Private to server/core.
 */
#ifndef SERVER_CORE_VERBS_H
#define SERVER_CORE_VERBS_H

#include "server/core/state.h"

/* out.c: actions of this tick, and memory that lives as long as they do */
void *arena_alloc(struct core *c, size_t size); /* zeroed; NULL: no memory */
char *arena_text(struct core *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
struct slice arena_slice(struct core *c, struct slice bytes);
/* out_lane(), out_conn(): to be filled in; without memory it is lost with the tick (core.failed) */
struct lane_action *out_lane(struct core *c, struct worker *w, enum lane_kind kind);
struct lane_action *out_lane_task(
    struct core *c, struct worker *w, enum lane_kind kind, const struct task *t);
void out_join(struct core *c, struct join_action action);
struct store_op *out_store(struct core *c, enum store_op_kind kind, uint64_t token);
struct conn_action *out_conn(struct core *c, uint64_t conn, uint64_t request, uint16_t kind);
void out_ok(struct core *c, uint64_t conn, uint64_t request, uint64_t count);
struct conn_action *out_reject(
    struct core *c, uint64_t conn, uint64_t request, int code, const char *text);
void out_row(
    struct core *c, uint64_t conn, uint64_t request, uint16_t kind, const void *row, size_t size);
void out_notice(struct core *c, struct notice notice);
void out_worker_notice(
    struct core *c, enum notice_kind kind, const struct worker *w, int code, const char *text);
bool out_lend(struct core *c, struct body *body); /* false: no memory */
bool out_reserve(struct core *c, size_t more);    /* room in each array */
void out_clear(struct core *c);
void out_free(struct core *c);
uint64_t core_random(struct core *c, uint64_t below);

/* pool.c */
void pool_init(struct pool *p);
struct task *pool_task(
    struct pool *p, size_t size, uint8_t *size_class); /* unset; NULL: no memory */
void pool_task_free(struct pool *p, struct task *t);
struct follower *pool_follower(struct pool *p); /* unset; NULL: no memory */
void pool_follower_free(struct pool *p, struct follower *f);
void pool_free(struct pool *p); /* all are given back */

/* ledger.c */
bool ledger_add(struct ledger *l, struct task *t); /* sets t->slot; false: full, or no memory */
void ledger_remove(struct ledger *l, struct task *t);
uint64_t ledger_lease(const struct ledger *l, struct task *t); /* a new one */
struct task *ledger_find(const struct ledger *l, uint64_t id);
struct task *ledger_find_lease(const struct ledger *l, uint64_t lease, uint64_t id);
struct task *ledger_at(const struct ledger *l, uint64_t slot); /* NULL: nobody */
/* Iterate: start with *slot = 0; NULL at the end. Tasks may come and go meanwhile. */
struct task *ledger_next(const struct ledger *l, uint32_t *slot);
bool ledger_gave(const struct ledger *l, uint64_t lease); /* in this life of the server */
/* To this task, since it came into memory. */
bool ledger_gave_to(const struct ledger *l, const struct task *t, uint64_t lease);
bool lease_counted(const struct task *t, uint64_t lease);      /* its attempt failed, and counts */
void ledger_expect(const struct ledger *l, uint64_t lease);    /* to be found soon */
void ledger_expect_after(const struct ledger *l, uint64_t id); /* those behind it, too */
void ledger_expect_slot(const struct ledger *l, uint64_t lease);        /* before the others */
const struct task *ledger_hint(const struct ledger *l, uint64_t lease); /* who may have it */
void ledger_free(struct ledger *l);

/* task.c */
struct task *task_new(struct core *c, struct queue *q, const struct record *r); /* STORING */
/* The same in two steps: a copy that is not known yet, and its entry. False: no memory, which is
 * there if a task was dropped just before. */
struct task *task_make(struct core *c, struct queue *q, const struct record *r);
bool task_add(struct core *c, struct task *t);
void task_move(struct core *c, struct task *t, enum task_state to);
void task_drop(struct core *c, struct task *t); /* GONE: out of memory, whatever the store has */
void task_free(struct core *c, struct task *t);
struct rare *task_rare(struct task *t); /* made if it was not there; NULL: no memory */
void task_record(const struct task *t, struct record *r);
struct order_key task_key(const struct task *t);
bool task_set_result(struct task *t, struct slice result); /* false: no memory */
void task_expect(const struct task *t);                    /* it is read soon */
static inline bool task_ended(const struct task *t)
{
    return t->state >= TASK_FINISHING;
}
static inline bool task_only_here(const struct task *t) /* no store has it */
{
    return t->queue->bypass || t->unstored;
}

/* queue.c */
void queue_init(struct queue *q, struct slice name);        /* in its place: one that is zero */
struct queue *queue_get(struct core *c, struct slice name); /* made if it was not there */
/* The same for who may not have made it up: NULL, with what is wrong, if it cannot be had. */
struct queue *queue_open(struct core *c, struct slice name, int *code, const char **text);
struct queue *queue_find(struct core *c, struct slice name);
void queue_put(struct core *c, struct task *t); /* READY */
void queue_take(struct core *c, struct task *t);
bool queue_push(struct heap *heap, struct task *t); /* by urgency; false: no memory */
struct task *queue_head(const struct queue *q);     /* NULL: nothing may be dispatched */
struct task *queue_tail(const struct queue *q); /* the least urgent that came in order, or NULL */
void queue_settle(struct queue *q); /* all are in order: takes as long as they are many */
void queue_touch(struct core *c, struct queue *q); /* something changed what may be dispatched */
bool queue_halted(const struct queue *q);          /* dispatches nothing */
void queue_halt(struct core *c, struct queue *q, bool paused, bool stopped);
uint64_t queue_unfinished(const struct queue *q);
void queue_free(struct queue *q);
bool key_before(struct order_key a, struct order_key b);

/* service.c */
void service_add(struct group *g, struct queue *q, uint64_t run_ns); /* g: NULL: unknown */
uint32_t service_estimate(const struct group *g, const struct queue *q);
bool service_short(const struct service *s); /* not worth waking up another worker for */

/* progress.c */
void progress_keep(struct task *t, const struct answer *a);
void progress_drop(struct rare *rare);
void progress_show(struct core *c, const struct task *t, struct msg_task_row *row);
void progress_tell(struct core *c, const struct task *t, const struct follower *f);

/* group.c */
struct group *group_get(struct core *c, const struct slice *patterns, size_t count);
bool group_link_queue(struct core *c, struct queue *q); /* false: no memory */
void group_unlink_queue(struct queue *q);
bool group_serves(const struct group *g, const struct queue *q);
void group_touch(struct core *c, struct group *g);
void group_release(struct core *c, struct group *g); /* frees it if nobody needs it any more */
void group_free(struct group *g);

/* worker.c */
struct worker *worker_find(const struct core *c, uint64_t id);
struct worker *worker_by_instance(const struct core *c, const uint8_t instance[INSTANCE_SIZE]);
void worker_move(struct core *c, struct worker *w, enum worker_state to);
void worker_room(struct core *c, struct worker *w); /* which list of its group is it in now? */
void worker_give(struct core *c, struct worker *w, struct task *t); /* LEASED; the lease is set */
void worker_drop(struct core *c, struct task *t);    /* the opposite; for task_move() */
void worker_arrived(struct core *c, struct task *t); /* its bytes are there */
/* In which its payload counts on a lane. */
static inline enum credit_kind task_credit(const struct core *c, const struct task *t)
{
    return t->record.payload.size > c->config.lane_bytes / LARGE_PART ? CREDIT_LARGE : CREDIT_SMALL;
}
void worker_unreserve(struct core *c, struct task *t);
void worker_remove(struct core *c, struct worker *w, int code, bool tell_lane);
void worker_free(struct worker *w);
void worker_settle(struct worker *w, struct task *t, uint64_t sequence);
void worker_stop_serving(struct core *c, struct worker *w, struct queue *q);
void worker_record(struct core *c, struct worker *w);
void worker_recorded(struct core *c, uint64_t id, bool stored);
void worker_off_record(struct core *c, const uint8_t instance[INSTANCE_SIZE]);
void worker_ack_later(struct core *c, struct worker *w);
void worker_acks(struct core *c);
uint64_t worker_acks_next(const struct core *c); /* when one goes alone; NEVER: none waits */

/* Attempts that run or wait there, fenced ones included. */
static inline uint32_t worker_load(const struct worker *w)
{
    return w->outstanding_count + (uint32_t)w->ghosts.count;
}

/* Slots that its own tasks may run in: ghosts have the others. */
static inline uint32_t worker_running(const struct worker *w)
{
    return w->ghosts.count < w->slots ? w->slots - (uint32_t)w->ghosts.count : 0;
}

/*
 * Does it run, as far as anybody can know? The worker starts them in the order of hand-over: those
 * in the first places, as many as worker_running().
 */
static inline bool task_may_run(const struct task *t, uint32_t place, uint32_t running)
{
    return t->started || place < running;
}

/* ghost.c: attempts that were taken from a worker, or whose answer it held */
/* Its attempt is fenced there. */
void worker_ghost(const struct core *c, struct worker *w, const struct task *t);
/* It was given this attempt, and has not answered it; false, too, of the current ones. */
bool worker_owes(const struct worker *w, uint64_t lease, uint64_t id);
void worker_answered(
    struct core *c, struct worker *w, uint64_t lease, uint64_t id); /* such a one */
void worker_depart(struct core *c, struct worker *w); /* OVER: freed now, or once it owes nothing */
struct worker *worker_departed(const struct core *c, uint64_t id, uint64_t session);
void worker_done_late(struct core *c, struct worker *w, const struct answer *a);
void worker_forget(struct core *c); /* whose answers must be in by now */

/* leave.c */
void worker_drain(struct core *c, struct worker *w, uint64_t limit_ms);
void worker_bye(struct core *c, struct worker *w);
void worker_supersede(struct core *c, struct worker *w);
void drain_check(struct core *c);

/* target.c: tasks for workers of one name */
bool target_put(struct core *c, struct task *t); /* false: no memory */
void target_move(const struct task *t, enum task_state from, enum task_state to); /* counts it */
void target_take(struct core *c, struct task *t);
void target_touch(struct core *c, struct named *n);
void target_dispatch(struct core *c);
bool target_join(struct core *c, struct worker *w); /* sets w->named; false: no memory */
void target_leave(struct core *c, struct worker *w);
void target_free(struct target *t);
void target_free_all(struct core *c);

/* sched.c */
void sched_run(struct core *c);
void sched_hand_over(struct core *c, struct worker *w, struct task *t);
bool sched_fits(const struct core *c, const struct worker *w, const struct task *t);
bool sched_ahead(const struct core *c, struct worker *w, const struct task *t); /* of its slots */

/* withdraw.c */
uint64_t withdraw_run(struct core *c); /* when to look again; NEVER: no need */

/* answers.c */
void answer_looked_up(struct core *c, struct request *r, const struct store_event *e);
void attempt_fence(struct core *c, struct task *t); /* its worker is to stop it */

/* pieces.c: results in pieces */
void pieces_add(struct core *c, struct worker *w, const struct answer *a, bool wanted);
static inline bool pieces_came(const struct worker *w, uint64_t lease) /* no end of it did */
{
    return w->parting.count && idmap_get(&w->parting, lease, NULL);
}
/* 0, and the whole with its last piece: the caller's reference; or why that cannot be had. */
int pieces_take(struct worker *w, uint64_t lease, struct slice last, struct body **whole);
void pieces_end(struct worker *w, uint64_t lease);
void pieces_drop(struct worker *w); /* all */

/* retry.c */
struct slice history_array(struct core *c, const struct task *t);
void task_reschedule(struct core *c, struct task *t, bool windowed);
void attempt_over(struct core *c, struct task *t, uint32_t code, struct slice text, bool permanent,
    uint64_t retry_ms); /* counts an attempt; tries again later, or the task is dead */
void task_requeue(struct core *c, struct task *t); /* READY, at no cost */
void task_expire(struct core *c, struct task *t);
void history_add(struct core *c, struct task *t, const struct msg_death *death);
void task_set_text(struct task *t, struct slice text);

/* finish.c */
void task_finish(struct core *c, struct task *t, enum pushrod_status status, int code);
void finish_stored(struct core *c, struct task *t);
void finish_ask(struct core *c, struct task *t);
void finish_tell(struct core *c, struct task *t, struct follower *f);
void finish_told(struct core *c, struct task *t);     /* to all; it is kept for them, or gone */
void finish_unstored(struct core *c, struct task *t); /* its APPEND was refused behind its end */
void finish_release(struct core *c, struct task *t);  /* the last follower has acknowledged */
void finish_drop(struct core *c, struct task *t);
bool finish_is_dead_letter(const struct task *t);
void finish_let_go(struct core *c, struct task *t);
void finish_expire(struct core *c);
uint64_t finish_next(
    const struct core *c); /* monotonic ns: when to expire; NEVER: nothing is kept */

/* follow.c */
struct conn *conn_get(struct core *c, uint64_t id); /* made if it was not there; NULL: no memory */
bool conn_is_open(const struct core *c, uint64_t id); /* of one that conn_get() made known */
static inline uint64_t follower_conn(const struct follower *f)
{
    return f->conn ? f->conn->id : CONN_SELF;
}
struct follower *follower_new(struct core *c, uint64_t conn, uint64_t request, uint8_t level);
void follower_free(struct core *c, struct follower *f);
void follower_attach(struct task *t, struct follower *f);
void follower_detach(struct task *t, struct follower *f);
void followers_drop(struct core *c, struct task *t); /* nobody follows it any more */
void follow_absent(struct core *c, struct queue *q, uint64_t id, struct follower *chain);
void follow_claim(struct core *c, struct task *t); /* those of its id: it is in memory now */
void follow_tell(struct core *c, const struct task *t, uint16_t kind, const void *row, size_t size);
void follow_expect(const struct task *t); /* they are told soon; NULL: nobody */
void follow_free(struct core *c);
void watch_event(struct core *c, const char *kind, uint64_t id, struct slice worker,
    struct slice queue, const char *text);

/* timers.c */
void task_delay(struct core *c, struct task *t, uint64_t mono_ns); /* 0: by record.due_ms */
void timer_undelay(struct core *c, struct task *t);
void timer_expiry(struct core *c, struct task *t);
void timer_fence(struct core *c, struct task *t, uint64_t mono_ns);
void timer_timeout(struct core *c, struct task *t); /* the fence of the attempt that begins */
static inline void timer_attempt(struct core *c, struct task *t)
{
    if (t->record.timeout_ms)
        timer_timeout(c, t);
}
void timer_stop(struct core *c, struct task *t);
void timers_run(struct core *c);
uint64_t timers_next(const struct core *c);
uint64_t wall_to_mono(const struct core *c, uint64_t wall_ms);
void worker_timer(struct core *c, struct worker *w);
void worker_rouse(struct core *c, struct worker *w);
bool timer_loss(struct core *c, struct loss *loss, uint64_t mono_ns); /* false: no memory */
bool timer_unique(struct core *c, struct unique *u, uint64_t wall_ms);

/* unique.c */
struct unique *unique_find(struct core *c, const struct queue *q, struct slice key);
bool unique_hold(struct core *c, struct task *t);
void unique_release(struct core *c, struct task *t);
void unique_expire(struct core *c, struct unique *u);
void unique_purge(struct core *c, const struct queue *q); /* keys whose tasks have ended */
void unique_free_all(struct core *c);                     /* at the end, when no task is left */

/* loss.c */
void loss_add(struct core *c, const struct worker *w, const struct lost *lost);
void loss_rejoined(struct core *c, const uint8_t instance[INSTANCE_SIZE]);
void loss_expire(struct core *c, struct loss *loss);
void loss_free(struct core *c);

/* lookup.c */
/* Asks the store. The request is copied, and what it owns (result, list) is taken in any case.
 * NULL: no memory. The operation may be filled in until the next one. */
struct store_op *request_ask(
    struct core *c, enum store_op_kind kind, uint64_t id, struct request request);
void request_free(struct request *r);
void request_stored(struct core *c, struct request *r, const struct store_event *e);
void requests_run(struct core *c); /* asks again what the store refused, and nobody else would */
/* The task that a LOOKUP asked for: if it was not in memory, it is now, HELD. NULL: it has ended,
 * or no memory. */
struct task *request_adopt(struct core *c, const struct request *r, const struct store_event *e);
/* Says why the store has not given what was asked for. */
void request_reject(struct core *c, const struct request *r, const struct store_event *e);

/* requests.c */
const char *unknown_text(struct core *c, uint64_t id);
const char *not_dead_text(struct core *c, uint64_t id); /* likewise, of a dead task */

/* rows.c */
void row_task(struct core *c, uint64_t conn, uint64_t request, const struct task *t);
void row_end(struct core *c, uint64_t conn, uint64_t request, uint64_t rows);
void row_record(struct core *c, const struct request *r, const struct record *record,
    const struct finish *finish);
/* Stored ones, and those of queues without a store; gives the number of rows. */
size_t rows_dead(struct core *c, const struct request *r, const struct msg_list *m,
    const struct record *records, const struct finish *finishes, size_t count);
void list_refuse(struct core *c, uint64_t conn, uint64_t request);

/* submitted.c */
void list_submitted(struct core *c, uint64_t conn, const struct msg_list *m);
void list_options(struct core *c, uint64_t conn, const struct msg_list *m);
void submitted_stored(struct core *c, struct request *r, const struct store_event *e);

/* stats.c */
void task_lost(struct task *t, uint64_t since_ns); /* monotonic: its worker was; nobody has it */
void task_ran(struct task *t, uint64_t run_ns);
void stats_recovered(struct core *c, struct task *t); /* a worker is given it again */
void queue_stats(const struct core *c, const struct queue *q, struct core_queue_stats *stats);

/* window.c: which tasks of a queue are in memory */
bool window_open(const struct queue *q, struct order_key key);
bool window_takes(const struct core *c, const struct queue *q, struct order_key key);
void window_low(struct core *c, struct queue *q);           /* look at it at the end of the tick */
void window_enter(struct core *c, struct task *t);          /* READY, or behind the edge */
void window_announce(struct core *c, const struct task *t); /* that will skip it: `async` */
void window_skip(struct core *c, struct task *t);           /* appended, and not into the window */
void window_delay(struct core *c, struct task *t);          /* to the store only, until it is due */
void window_fetch_all(struct core *c);
void window_fetched(struct core *c, struct queue *q, const struct store_event *e);
void window_due_ask(struct core *c);
void window_due(struct core *c, const struct store_event *e);
enum stored_as { STORED_READY, STORED_DELAYED, STORED_DEAD };
/* STORING; NULL: no memory */
struct task *window_adopt(struct core *c, const struct record *r, enum stored_as as);
void window_missed(struct core *c, const struct record *r, enum stored_as as);

/* restart.c */
bool restart_begin(struct core *c, const struct store_opened *opened);
void restart_rejoined(struct core *c, const uint8_t instance[INSTANCE_SIZE]);
void restart_run(struct core *c);
bool restart_waits(const struct core *c);
void restart_hold(struct core *c, struct task *t); /* HELD until then, or until a JOIN is done */

/* stored.c */
int stored_code(const struct store_event *e); /* enum pushrod_error of what was refused */
void stored_wait(struct core *c);             /* the store refused something: it is asked ... */
void stored_run(struct core *c);              /* ... again */
void stored_stop(struct core *c); /* stops and starts queues, as the store can take more */

/* join.c */
/* What is ready, and claimed by a JOIN that waits: it stays in memory, and nobody else gets it. */
void join_hold(struct core *c);
void joining_release(struct joining *joining); /* by one of its requests */
void join_looked_up(struct core *c, struct request *r, const struct store_event *e);

/* submit.c */
void ids_begin(struct core *c, const struct store_opened *opened);
void ids_stored(struct core *c, const struct store_event *e);
bool ids_unissued(const struct core *c, uint64_t id);
void submit_settled(struct core *c, struct task *t);
bool submit_waits(const struct task *t);
void submit_accepted(struct core *c, struct task *t);
void submit_refused(struct core *c, struct task *t, int code, const char *text, uint64_t holder);

#endif
