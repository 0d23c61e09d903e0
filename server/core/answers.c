/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What workers say of their attempts. Only the current attempt may change its task, but for a DONE:
 * "the first DONE of any attempt wins; a late FAILED or RETURNED changes nothing; both are
 * counted." Any attempt that the worker was given, or said at JOIN that it holds: from others, and
 * with other leases, a DONE counts for nothing. Each answer of a session is taken once, in the
 * order of the sequence numbers, and acknowledged when what it brought about is stored
 * (worker_settle()).
 */
#include <assert.h>
#include "server/core/verbs.h"

#define SLOTS_AHEAD   12u /* whose places in the ledger are fetched into the cache meanwhile */
#define ANSWERS_AHEAD 6u  /* ... and their tasks */
#define FOLLOWS_AHEAD 3u  /* ... and who follows those */
#define BULK_BYTES    (16u << 10)

/* The task that this answer is about, if the attempt is the current one, and at this worker. */
static struct task *answer_current(struct task *t, const struct worker *w, const struct answer *a)
{
    assert(!t || t->record.id == a->id);
    return t && t->state == TASK_LEASED && t->worker == w && t->lease == a->lease ? t : NULL;
}

/* It, or an earlier one that this worker had: their results count. */
static bool answer_given(struct task *t, const struct worker *w, const struct answer *a)
{
    return answer_current(t, w, a) || worker_owes(w, a->lease, a->id);
}

static void worker_progress(struct core *c, struct worker *w)
{
    assert(w->state != WORKER_OVER);
    w->progress_ns = c->now.mono_ns;
    if (list_empty(&w->deep_node))
        return;
    list_remove(&w->deep_node);
    list_push_back(&c->deep, &w->deep_node);
}

/* The end of an attempt that is not the current one. */
static void stale(struct core *c, struct worker *w, const struct answer *a)
{
    c->stats.stale_answers++;
    assert(a->kind != MSG_STARTED && a->kind != MSG_PART);
    if (w->state != WORKER_OVER)
        worker_answered(c, w, a->lease, a->id);
}

/* ---- a running attempt ---- */

/* Whatever it says of the attempt: it has begun, and its bytes are no longer on the lane. */
static void mark_started(struct core *c, struct task *t)
{
    assert(t->state == TASK_LEASED);
    worker_arrived(c, t);
    worker_unreserve(c, t);
    if (t->started)
        return;
    t->started = true;
    t->leased_ns = c->now.mono_ns;
    worker_progress(c, t->worker);
    if (!t->cancelling)
        timer_attempt(c, t);
}

static void answer_started(struct core *c, struct worker *w, struct task *t, const struct answer *a)
{
    assert(a->kind == MSG_STARTED);
    if (answer_current(t, w, a))
        mark_started(c, t);
}

static void answer_progress(
    struct core *c, struct worker *w, struct task *t, const struct answer *a)
{
    assert(a->kind == MSG_PROGRESS);
    if (!answer_current(t, w, a))
        return;
    mark_started(c, t);
    progress_keep(t, a);
    if (!t->followers)
        return;
    struct msg_task_progress row = {
        .id = a->id, .done = a->number, .total = a->total, .text = arena_slice(c, a->data)};
    follow_tell(c, t, MSG_TASK_PROGRESS, &row, sizeof row);
}

static void answer_data(struct core *c, struct worker *w, struct task *t, const struct answer *a)
{
    assert(a->kind == MSG_DATA);
    if (!answer_current(t, w, a))
        return;
    mark_started(c, t);
    if (!t->followers)
        return;
    struct msg_task_data row = {.id = a->id, .data = arena_slice(c, a->data)};
    follow_tell(c, t, MSG_TASK_DATA, &row, sizeof row);
}

/* ---- results ---- */

/*
 * A piece of a large result. Those of a task that is not in memory are of use, too, if a store has
 * it: worker_done_late().
 */
static void answer_part(struct core *c, struct worker *w, struct task *t, const struct answer *a)
{
    bool current = answer_current(t, w, a);
    if (!current && !worker_owes(w, a->lease, a->id))
        return;
    if (current)
        mark_started(c, t);
    pieces_add(c, w, a, t ? !task_ended(t) : !c->bypass);
}

/* "A result goes to whoever waits, and is kept if that was asked for": else nobody needs it. */
static bool result_is_wanted(const struct task *t)
{
    assert(t->state < TASK_FINISHING);
    return t->followers || t->record.followed || (t->rare && t->rare->keep_ms);
}

/* DONE has the last piece. */
static int pieces_result(struct task *t, struct worker *w, const struct answer *a)
{
    struct body *whole;
    int error = pieces_take(w, a->lease, a->data, &whole);
    assert(!t->result);
    if (error)
        return error;
    if (result_is_wanted(t))
        t->result = whole;
    else
        body_unref(whole);
    t->unkept = !t->result;
    return 0;
}

/* Puts the result into the task. 0, or why it cannot be. */
static int result_take(struct core *c, struct task *t, struct worker *w, const struct answer *a)
{
    assert(!t->result);
    if (pieces_came(w, a->lease))
        return pieces_result(t, w, a);
    if (a->data.size > c->config.max_result)
        return PUSHROD_E_RESULT_TOO_BIG;
    t->unkept = a->data.size && !result_is_wanted(t);
    if (a->data.size == 0 || t->unkept)
        return 0;
    return task_set_result(t, a->data) ? 0 : PUSHROD_E_NO_MEMORY;
}

/* ---- the end of an attempt ---- */

/* What the end of a task or an attempt waits for in the store is not acknowledged until then. */
static void settle_later(struct worker *w, struct task *t, const struct answer *a)
{
    assert(!t->worker); /* the answer has moved it */
    if (w->state != WORKER_OVER && (t->state == TASK_FINISHING || t->state == TASK_MOVING))
        worker_settle(w, t, a->sequence);
}

/* Another worker has it, too: that one is told to stop, and its slot counts until it answers. */
void attempt_fence(struct core *c, struct task *t)
{
    struct worker *w = t->worker;
    assert(t->state == TASK_LEASED && w);
    worker_ghost(c, w, t);
    out_lane_task(c, w, LANE_CANCEL, t);
}

static void done_wins(struct core *c, struct worker *w, struct task *t, const struct answer *a)
{
    bool current = answer_current(t, w, a);
    int error = result_take(c, t, w, a);
    assert(!task_ended(t));
    if (!current)
        stale(c, w, a);
    if (error && !current)
        return;
    if (!current && t->state == TASK_LEASED)
        attempt_fence(c, t);
    service_add(w->group, t->queue, a->run_ns);
    task_ran(t, a->run_ns);
    w->done++;
    bool for_good = error != PUSHROD_E_NO_MEMORY;
    if (error)
        attempt_over(c, t, (uint32_t)error, slice_str(pushrod_strerror(error)), for_good, 0);
    else
        task_finish(c, t, PUSHROD_DONE, 0);
    settle_later(w, t, a);
}

/* The first DONE of any attempt wins. */
static void answer_done(struct core *c, struct worker *w, struct task *t, const struct answer *a)
{
    bool given = t && answer_given(t, w, a);
    assert(a->kind == MSG_TASK_DONE);
    if (w->state != WORKER_OVER)
        worker_progress(c, w);
    if (given && !task_ended(t)) {
        done_wins(c, w, t, a);
        return;
    }
    if (!t && worker_owes(w, a->lease, a->id))
        worker_done_late(c, w, a);
    stale(c, w, a);
    /* Sent again in a new session: acknowledged when its finish is stored, as the first one. */
    if (given && w->state != WORKER_OVER && t->state == TASK_FINISHING && !t->worker)
        worker_settle(w, t, a->sequence);
}

/* Its task was in the store, and waited there for another attempt, or for room in the window. */
void answer_looked_up(struct core *c, struct request *r, const struct store_event *e)
{
    struct task *t = request_adopt(c, r, e);
    assert(r->kind == REQUEST_DONE);
    if (!t || task_ended(t))
        return;
    assert(!t->result && t->result_size == 0);
    if (result_is_wanted(t))
        t->result = body_ref(r->result);
    t->unkept = r->result && !t->result;
    if (t->state == TASK_LEASED)
        attempt_fence(c, t);
    task_ran(t, r->run_ns);
    task_finish(c, t, PUSHROD_DONE, 0);
}

/* Counts only if it is the current attempt's: another one may yet succeed. */
static void answer_failed(struct core *c, struct worker *w, struct task *t, const struct answer *a)
{
    assert(a->kind == MSG_TASK_FAILED);
    worker_progress(c, w);
    if (!answer_current(t, w, a)) {
        stale(c, w, a);
        return;
    }
    service_add(w->group, t->queue, a->run_ns);
    task_ran(t, a->run_ns);
    if (t->cancelling) {
        task_finish(c, t, PUSHROD_CANCELLED, PUSHROD_E_TASK_CANCELLED);
    } else {
        w->failed++;
        attempt_over(c, t, a->code, a->data, a->permanent, a->number);
    }
    settle_later(w, t, a);
}

/* It was not started, or its worker cannot run it: no attempt is counted. */
static void answer_returned(
    struct core *c, struct worker *w, struct task *t, const struct answer *a)
{
    assert(a->kind == MSG_RETURNED); /* no progress: what it waited behind still runs */
    if (!answer_current(t, w, a)) {
        stale(c, w, a);
        return;
    }
    c->stats.returned++;
    struct queue *q = t->queue;
    task_requeue(c, t);
    settle_later(w, t, a);
    if (a->code == PUSHROD_E_HANDLER_BROKEN)
        worker_stop_serving(c, w, q);
    else if (a->code == PUSHROD_E_DRAINING && w->state == WORKER_READY)
        worker_move(c, w, WORKER_DRAINING); /* of its own accord: it gives back what it gets */
}

/* ---- the worker itself ---- */

static void answer_ready(struct core *c, struct worker *w, struct task *t, const struct answer *a)
{
    assert(a->kind == MSG_READY && !t);
    if (w->state != WORKER_JOINING)
        return;
    w->deadline_ns = 0;
    worker_move(c, w, WORKER_READY);
    worker_timer(c, w);
    out_worker_notice(c, NOTICE_WORKER_READY, w, 0, NULL);
    watch_event(c, "worker-join", 0, w->name, (struct slice){0}, NULL);
    if (c->draining)
        worker_drain(c, w, c->drain_limit_ms);
}

static void answer_bye(struct core *c, struct worker *w, struct task *t, const struct answer *a)
{
    assert(a->kind == MSG_BYE && !t);
    worker_bye(c, w);
}

typedef void answer_fn(struct core *, struct worker *, struct task *, const struct answer *);

static answer_fn *const answer_table[] = {
    [MSG_READY] = answer_ready,
    [MSG_STARTED] = answer_started,
    [MSG_PROGRESS] = answer_progress,
    [MSG_DATA] = answer_data,
    [MSG_PART] = answer_part,
    [MSG_TASK_DONE] = answer_done,
    [MSG_TASK_FAILED] = answer_failed,
    [MSG_RETURNED] = answer_returned,
    [MSG_BYE] = answer_bye,
};

/* No more pieces come of this attempt. */
static void attempt_end(struct worker *w, const struct answer *a)
{
    assert(w && a);
    if (a->kind == MSG_TASK_DONE || a->kind == MSG_TASK_FAILED || a->kind == MSG_RETURNED)
        pieces_end(w, a->lease);
}

/* Of a session that is over: only a result is of use to anybody. */
static void answer_late(struct core *c, struct worker *w, struct task *t, const struct answer *a)
{
    assert(w->state == WORKER_OVER);
    if (a->kind == MSG_PART)
        answer_part(c, w, t, a);
    else if (a->kind == MSG_TASK_DONE)
        answer_done(c, w, t, a);
    else
        c->stats.stale_answers++;
}

static void answer_take(struct core *c, struct worker *w, const struct answer *a)
{
    /* Sent again, or something before it was lost and will be sent again. */
    if (a->sequence != w->received + 1)
        return;
    assert(a->kind < sizeof answer_table / sizeof *answer_table && answer_table[a->kind]);
    w->received = a->sequence;
    w->ack_bytes += a->data.size;
    if (a->kind == MSG_PART || a->data.size >= BULK_BYTES)
        w->bulk_ns = c->now.mono_ns;
    struct task *t = a->id ? ledger_find_lease(&c->ledger, a->lease, a->id) : NULL;
    if (w->state == WORKER_OVER)
        answer_late(c, w, t, a);
    else
        answer_table[a->kind](c, w, t, a);
    if (w->parting.count)
        attempt_end(w, a);
}

void core_answers(
    struct core *c, uint64_t worker, uint64_t session, const struct answer *a, size_t count)
{
    struct worker *w = worker_find(c, worker);
    bool live = w && w->session == session;
    assert(count == 0 || a);
    if (live)
        w->heard_ns = c->now.mono_ns;
    else
        w = worker_departed(c, worker, session);
    /* Has no number and is not acknowledged. It comes alone: that of an idle worker is the many. */
    if (count == 1 && a->kind == MSG_HEARTBEAT)
        return;
    for (size_t i = 0; i < count; i++) {
        if (i + SLOTS_AHEAD < count)
            ledger_expect_slot(&c->ledger, a[i + SLOTS_AHEAD].lease);
        if (i + ANSWERS_AHEAD < count)
            ledger_expect(&c->ledger, a[i + ANSWERS_AHEAD].lease);
        if (i + FOLLOWS_AHEAD < count)
            follow_expect(ledger_hint(&c->ledger, a[i + FOLLOWS_AHEAD].lease));
        if (w)
            answer_take(c, w, &a[i]);
        else
            c->stats.stale_answers++; /* of a session that is forgotten */
    }
    if (live)
        worker_ack_later(c, w);
}
