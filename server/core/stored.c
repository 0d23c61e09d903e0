/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the store answers. An operation of a task carries the task's slot as its token (the task
 * stays in memory until the answer is there), a FETCH its queue, a WORKER the worker; what a client
 * asked for, and each LOOKUP, its request.
 */
#include <assert.h>
#include "server/core/verbs.h"

#define REFUSED_WAIT   (200 * MS) /* until what the store refused is asked again */
#define FULL_UNSETTLED 4u         /* times max_unsettled, while the store is full */
#define STORED_AHEAD   8u         /* events: whose tasks are fetched into the cache meanwhile */
#define FOLLOWS_AHEAD  4u         /* the same for who follows those, once the task is there */

/* ---- operations of tasks ---- */

/* Why it was not done; a store that does not say why has failed. */
int stored_code(const struct store_event *e)
{
    assert(e->outcome != OUTCOME_STORED || e->kind != STORE_APPEND);
    if (e->outcome == OUTCOME_HELD)
        return PUSHROD_E_DUPLICATE;
    return e->code ? (int)e->code : PUSHROD_E_STORE_FAILED;
}

static void appended(struct core *c, struct task *t, const struct store_event *e)
{
    uint64_t bytes = t->record.payload.size + sizeof *t;
    assert(c->stats.unsettled_bytes >= bytes);
    c->stats.unsettled_bytes -= bytes;
    bool told = !submit_waits(t);
    assert(told || t->state == TASK_STORING);
    t->unstored = told && e->outcome != OUTCOME_STORED;
    if (t->unstored && !task_ended(t))
        c->unstored_bytes += t->record.payload.size;
    if (e->outcome == OUTCOME_STORED && !told)
        submit_accepted(c, t);
    else if (!told)
        submit_refused(c, t, stored_code(e), e->text ? arena_text(c, "%s", e->text) : NULL,
            e->outcome == OUTCOME_HELD ? e->id : 0);
    else if (t->state == TASK_STORING)
        submit_settled(c, t);
    else if (t->unstored && t->state == TASK_FINISHED)
        finish_unstored(c, t);
}

static void moved(struct core *c, struct task *t, bool gone)
{
    if (t->state != TASK_MOVING || t->operations || t->refused)
        return;
    assert(!t->queue->bypass);
    if (gone && !task_only_here(t)) {
        /* Purged while it ran: a purge that did not see it here yet has taken it there. */
        task_finish(c, t, PUSHROD_CANCELLED, PUSHROD_E_TASK_CANCELLED);
    } else if (t->cancelling || t->record.due_ms == 0) {
        t->record.due_ms = 0;
        window_enter(c, t);
    } else if (task_only_here(t)) {
        task_delay(c, t, 0); /* its APPEND was refused while this was on the way */
    } else {
        /* Due by now or not: DUE tells the store that it may run. */
        window_delay(c, t);
    }
}

void stored_wait(struct core *c)
{
    assert(c->refused_ns > 0);
    c->refused_most = 1;
    if (c->refused_ns == NEVER)
        c->refused_ns = c->now.mono_ns + REFUSED_WAIT;
}

/* Not written: the task stays as it is, and is asked for again. */
static void refused(struct core *c, struct task *t)
{
    assert(t->operations == 0 || t->state != TASK_GONE);
    t->refused = true;
    stored_wait(c);
}

/* It takes what it is asked for: twice as much the next time, and soon. */
static void taken(struct core *c)
{
    assert(c->refused_most > 0 || c->refused_ns == NEVER);
    if (c->refused_ns == NEVER)
        return;
    c->refused_ns = c->now.mono_ns;
    c->refused_most += c->refused_most < UINT32_MAX;
}

static void stored_task(struct core *c, struct task *t, const struct store_event *e)
{
    assert(t->operations > 0);
    t->operations--;
    bool done = e->outcome == OUTCOME_STORED || e->outcome == OUTCOME_GONE;
    /* An async finish was told before; it has to be written all the same, or it would run again. */
    bool again = e->kind == STORE_FINISH || t->state == TASK_MOVING;
    if (done && e->kind != STORE_APPEND)
        taken(c);
    if (e->kind == STORE_APPEND)
        appended(c, t, e);
    else if (!done && again)
        refused(c, t);
    else if (e->kind == STORE_RESCHEDULE)
        moved(c, t, e->outcome == OUTCOME_GONE);
    else
        finish_stored(c, t);
    if (t->state == TASK_FINISHED && t->released && !t->operations && !t->refused)
        finish_drop(c, t);
}

/* ---- a store that fails, and recovers ---- */

static void ask_again(struct core *c, struct task *t)
{
    assert(t->state >= TASK_MOVING && t->state <= TASK_FINISHED);
    t->refused = false;
    if (task_ended(t))
        finish_ask(c, t);
    else
        task_reschedule(c, t, t->record.windowed);
}

/*
 * Of a full store a few at a time, from where the last ones were on: each end makes room, but all
 * at once may not fit, and would not the next time either.
 */
void stored_run(struct core *c)
{
    if (c->refused_ns > c->now.mono_ns || c->store_down)
        return;
    uint32_t left = c->store_code ? c->refused_most : UINT32_MAX;
    uint32_t used = c->ledger.used, slot = c->refused_slot < used ? c->refused_slot : 0;
    assert(left > 0);
    for (unsigned round = 0; round < 2 && left; round++) {
        for (struct task *t; left && (t = ledger_next(&c->ledger, &slot));) {
            if (!t->refused)
                continue;
            ask_again(c, t);
            left--;
        }
        slot = left ? 0 : slot;
    }
    c->refused_slot = slot;
    c->refused_ns = left ? NEVER : c->now.mono_ns + REFUSED_WAIT;
    for (struct queue *q = c->first_queue; q; q = q->next) {
        q->fetch_refused = false;
        window_low(c, q);
    }
    requests_run(c);
}

/*
 * Results that wait for the store are bounded, too: above, nothing that makes more is started. Some
 * may be too large for a full store, and only what ends makes room in it.
 */
void stored_stop(struct core *c)
{
    uint64_t most = c->config.max_unsettled;
    bool full = c->store_code || c->refused_ns != NEVER;
    uint64_t bound = full ? FULL_UNSETTLED * most : c->stopped ? most / 2 : most;
    bool stop = c->store_down || c->unsettled_results > bound;
    assert(bound > 0);
    if (stop == c->stopped)
        return;
    c->stopped = stop;
    for (struct queue *q = c->first_queue; q; q = q->next)
        queue_halt(c, q, q->paused, stop && !q->bypass);
}

int core_store_code(const struct core *c)
{
    assert(c->store_code || !c->store_down);
    return c->store_code;
}

static void store_changed(struct core *c, const struct store_event *e)
{
    bool down = e->event == EVENT_STORE_DOWN;
    const char *text = e->text ? arena_text(c, "%s", e->text) : pushrod_strerror((int)e->code);
    assert(down || e->event == EVENT_STORE_UP);
    /* A full store takes finishes, and only they make room: nothing but submissions stops. */
    c->store_down = down && e->code != PUSHROD_E_STORE_FULL;
    c->store_code = !down ? 0 : e->code ? (int)e->code : PUSHROD_E_STORE_FAILED;
    out_notice(c, (struct notice){.kind = down ? NOTICE_STORE_DOWN : NOTICE_STORE_UP,
                      .code = (int)e->code,
                      .text = down ? text : NULL});
    watch_event(c, down ? "store-failed" : "store-ok", 0, (struct slice){0}, (struct slice){0},
        down ? text : NULL);
    if (down)
        return;
    if (c->refused_ns != NEVER)
        c->refused_ns = c->now.mono_ns;
    for (struct queue *q = c->first_queue; q; q = q->next)
        window_low(c, q);
    list_foreach(it, next, &c->workers)
    {
        struct worker *w = container_of(it, struct worker, in_core);
        if (w->unrecorded)
            worker_record(c, w);
    }
}

static void stored_one(struct core *c, const struct store_event *e)
{
    assert(e->kind <= STORE_WORKER);
    switch (e->kind) {
    case STORE_APPEND:
    case STORE_FINISH:
    case STORE_RESCHEDULE:
        stored_task(c, ledger_at(&c->ledger, e->token), e);
        break;
    case STORE_FETCH:
        window_fetched(c, (struct queue *)(uintptr_t)e->token, e);
        break;
    case STORE_DUE:
        window_due(c, e);
        break;
    case STORE_IDS:
        ids_stored(c, e);
        break;
    case STORE_WORKER:
        worker_recorded(c, e->token, e->outcome == OUTCOME_STORED);
        break;
    default:
        if (e->token)
            request_stored(c, (struct request *)(uintptr_t)e->token, e);
        break;
    }
}

/* A task was last touched when its operation was asked, a commit ago. */
static void stored_expect(const struct core *c, const struct store_event *e, bool near)
{
    assert(e);
    if (e->event != EVENT_OP || e->kind > STORE_RESCHEDULE)
        return;
    if (near)
        follow_expect(ledger_at(&c->ledger, e->token));
    else
        ledger_expect(&c->ledger, e->token);
}

void core_stored(struct core *c, const struct store_event *events, size_t count)
{
    assert(count == 0 || events);
    for (size_t i = 0; i < count; i++) {
        if (i + STORED_AHEAD < count)
            stored_expect(c, &events[i + STORED_AHEAD], false);
        if (i + FOLLOWS_AHEAD < count)
            stored_expect(c, &events[i + FOLLOWS_AHEAD], true);
        if (events[i].event == EVENT_OP)
            stored_one(c, &events[i]);
        else
            store_changed(c, &events[i]);
    }
}
