/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that wait for the store, and what becomes of them when it answers. */
#include <assert.h>
#include <stdlib.h>
#include "server/core/verbs.h"

static void request_drop(const struct request *r)
{
    assert(r->kind <= REQUEST_DONE);
    body_unref(r->result);
    free(r->list);
}

void request_free(struct request *r)
{
    assert(r);
    list_remove(&r->in_core);
    if (r->joining)
        joining_release(r->joining);
    request_drop(r);
    free(r);
}

/* Of large values only what is told of them. */
static void ask_for(struct store_op *op, const struct request *r)
{
    assert(r->kind != REQUEST_STATUS || op->kind == STORE_LOOKUP);
    op->id = r->id;
    op->bare = r->kind == REQUEST_STATUS || r->bare;
    op->payload = r->kind == REQUEST_SUBMITTED && !r->bare;
}

struct store_op *request_ask(
    struct core *c, enum store_op_kind kind, uint64_t id, struct request request)
{
    struct request *r = malloc(sizeof *r);
    struct store_op *op = r ? out_store(c, kind, (uintptr_t)r) : NULL;
    assert(request.id == 0);
    if (!op) {
        request_drop(&request);
        free(r);
        return NULL;
    }
    *r = request;
    r->id = id;
    ask_for(op, r);
    list_push_back(&c->requests, &r->in_core);
    return op;
}

/* The store is asked once more, by the same request, which then is not over. */
static void request_again(struct core *c, struct request *r)
{
    struct store_op *op = out_store(c, STORE_LOOKUP, (uintptr_t)r);
    assert(r->id != 0);
    r->again = true;
    r->refused = false;
    r->stale = false; /* this time behind the purge */
    if (!op)
        return;
    ask_for(op, r);
}

void request_reject(struct core *c, const struct request *r, const struct store_event *e)
{
    assert(r->kind <= REQUEST_DONE);
    bool dead = r->kind == REQUEST_REPLAY || r->kind == REQUEST_DROP;
    const struct task *t = dead ? ledger_find(&c->ledger, r->id) : NULL;
    if (e->outcome == OUTCOME_GONE && t && t->refused)
        out_reject(c, r->conn, r->request, c->store_code ? c->store_code : PUSHROD_E_STORE_FAILED,
            "its end is not stored yet");
    else if (e->outcome == OUTCOME_GONE || e->outcome == OUTCOME_STORED)
        out_reject(c, r->conn, r->request, PUSHROD_E_UNKNOWN_TASK,
            dead ? not_dead_text(c, r->id) : unknown_text(c, r->id));
    else
        out_reject(
            c, r->conn, r->request, stored_code(e), e->text ? arena_text(c, "%s", e->text) : NULL);
}

/*
 * A finish that the store kept comes into memory to be told (finish_told()). keep_ms: whether its
 * submitter asked for it to be kept is not known any more, so an acknowledgement does not end its
 * keeping.
 */
static struct task *finish_adopt(struct core *c, const struct finish *f)
{
    struct record record = {
        .id = f->id, .tag = f->tag, .keep_ms = 1, .max_attempts = 1, .followed = true};
    struct task *t = task_new(c, &c->nowhere, &record);
    if (!t)
        return NULL;
    assert(t->rare);
    t->status = (uint8_t)f->status;
    t->code = (uint16_t)f->code;
    t->hand_overs = hand_overs_of(f->attempts);
    task_ran(t, f->run_ns);
    t->record.due_ms = f->finished_ms;
    t->result = f->body          ? body_ref(f->body)
                : f->result.size ? body_copy(f->result.data, f->result.size)
                                 : NULL;
    task_set_text(t, f->text);
    if (t->result || (!f->body && !f->result.size))
        return t;
    task_drop(c, t); /* not told without its result */
    return NULL;
}

static void wait_finished(struct core *c, struct request *r, const struct finish *finish)
{
    struct task *t = finish_adopt(c, finish);
    struct follower *f = t ? follower_new(c, r->conn, r->request, FOLLOW_FINISH) : NULL;
    assert(!t || t->queue == &c->nowhere);
    if (f) {
        follower_attach(t, f);
        out_ok(c, r->conn, r->request, 1);
        finish_told(c, t);
        return;
    }
    out_reject(c, r->conn, r->request, PUSHROD_E_NO_MEMORY, NULL);
    if (t)
        task_drop(c, t);
}

static void wait_absent(struct core *c, struct request *r, struct slice queue)
{
    assert(r->id != 0);
    if (r->follow == FOLLOW_NONE) {
        out_reject(c, r->conn, r->request, PUSHROD_E_WRONG_STATE, "it has not finished yet");
        return;
    }
    struct queue *q = queue_get(c, queue);
    struct follower *f = q ? follower_new(c, r->conn, r->request, (uint8_t)r->follow) : NULL;
    if (!f) {
        out_reject(c, r->conn, r->request, PUSHROD_E_NO_MEMORY, NULL);
        return;
    }
    follow_absent(c, q, r->id, f);
    out_ok(c, r->conn, r->request, 1);
}

/* Its finish is on the way to the store, behind the look-up: the task is gone by the next one. */
static void wait_again(struct core *c, struct request *r, const struct task *t)
{
    assert(t->released);
    if (t->refused)
        out_reject(c, r->conn, r->request, PUSHROD_E_STORE_FAILED, NULL);
    else
        request_again(c, r);
}

static void waited(struct core *c, struct request *r, const struct store_event *e)
{
    struct task *t = ledger_find(&c->ledger, r->id);
    assert(r->kind == REQUEST_WAIT);
    if (!conn_is_open(c, r->conn))
        return;
    if (t && !t->released)
        core_wait(c, r->conn, r->request, r->id, r->follow);
    else if (e->outcome != OUTCOME_STORED || (!e->record_count && !e->finishes))
        request_reject(c, r, e);
    else if (t)
        wait_again(c, r, t);
    else if (e->record_count)
        wait_absent(c, r, e->records[0].queue);
    else
        wait_finished(c, r, &e->finishes[0]);
}

struct task *request_adopt(struct core *c, const struct request *r, const struct store_event *e)
{
    struct task *t = ledger_find(&c->ledger, r->id);
    assert(r->id != 0);
    if (t || e->outcome != OUTCOME_STORED || !e->record_count)
        return t;
    t = window_adopt(c, &e->records[0], e->records[0].due_ms ? STORED_DELAYED : STORED_READY);
    if (t)
        restart_hold(c, t);
    return t;
}

static void cancelled(struct core *c, struct request *r, const struct store_event *e)
{
    struct task *t = request_adopt(c, r, e);
    assert(r->kind == REQUEST_CANCEL);
    if (t)
        core_cancel(c, r->conn, r->request, r->id);
    else if (e->outcome == OUTCOME_STORED && e->finishes)
        out_ok(c, r->conn, r->request, 0);
    else if (e->outcome == OUTCOME_STORED && e->record_count)
        out_reject(c, r->conn, r->request, PUSHROD_E_NO_MEMORY, NULL);
    else
        request_reject(c, r, e);
}

static void status_told(struct core *c, struct request *r, const struct store_event *e)
{
    struct task *t = ledger_find(&c->ledger, r->id);
    assert(r->kind == REQUEST_STATUS);
    if (t && !t->released)
        row_task(c, r->conn, r->request, t);
    else if (e->outcome == OUTCOME_STORED && (e->record_count || e->finishes))
        row_record(c, r, e->records, e->finishes); /* of a dead letter both */
    else
        request_reject(c, r, e);
}

static void scanned(struct core *c, struct request *r, const struct store_event *e)
{
    assert(r->kind == REQUEST_DEAD && c->scanning >= r->list->limit);
    c->scanning -= r->list->limit;
    if (e->outcome == OUTCOME_STORED)
        row_end(c, r->conn, r->request,
            rows_dead(c, r, r->list, e->records, e->finishes, e->record_count));
    else
        request_reject(c, r, e);
}

/* The store made it ready again, with its attempts forgotten. */
static void replayed(struct core *c, struct request *r, const struct store_event *e)
{
    struct task *t = ledger_find(&c->ledger, r->id);
    assert(r->kind == REQUEST_REPLAY);
    if (e->outcome != OUTCOME_STORED || !e->record_count) {
        request_reject(c, r, e);
        return;
    }
    /* Its finish may wait here to be acknowledged: the second life does not. */
    if (t && t->state == TASK_FINISHED)
        finish_drop(c, t);
    assert(!ledger_find(&c->ledger, r->id));
    t = r->stale ? NULL : window_adopt(c, &e->records[0], STORED_DEAD);
    if (t)
        window_enter(c, t);
    else
        window_missed(c, &e->records[0], STORED_DEAD);
    out_ok(c, r->conn, r->request, 1);
}

static void dropped(struct core *c, struct request *r, const struct store_event *e)
{
    assert(r->kind == REQUEST_DROP);
    if (e->outcome == OUTCOME_STORED) {
        struct queue *q = e->record_count ? queue_find(c, e->records[0].queue) : NULL;
        if (q && q->dead)
            q->dead--;
        out_ok(c, r->conn, r->request, 1);
    } else {
        request_reject(c, r, e);
    }
}

static void paused(struct core *c, struct request *r, const struct store_event *e)
{
    assert(r->kind == REQUEST_PAUSE);
    if (e->outcome == OUTCOME_STORED)
        out_ok(c, r->conn, r->request, 1);
    else
        out_reject(c, r->conn, r->request, stored_code(e),
            "it holds until the server stops, for it could not be stored: ask again later");
}

/* Followers of what was purged in the store: the finish is looked for, and not found. */
static void purged(struct core *c, struct request *r, const struct store_event *e)
{
    struct idmap_cell cell;
    assert(r->kind == REQUEST_PURGE);
    if (e->outcome != OUTCOME_STORED) {
        r->queue->stored_ready += r->ready;
        r->queue->stored_delayed += r->delayed;
        r->queue->targeted_stored += r->targeted;
        request_reject(c, r, e);
        return;
    }
    out_ok(c, r->conn, r->request, r->count + e->count);
    c->stats.cancelled += e->count;
    for (size_t place = 0; idmap_next(&c->absent, &place, &cell);) {
        const struct follower *f = (const struct follower *)(uintptr_t)cell.value;
        if (f->queue == r->queue &&
            !request_ask(c, STORE_LOOKUP, cell.key, (struct request){.kind = REQUEST_PURGED}))
            c->failed = true; /* who waits for it would never be told */
    }
}

static void purge_told(struct core *c, struct request *r, const struct store_event *e)
{
    assert(r->kind == REQUEST_PURGED);
    bool here = ledger_find(&c->ledger, r->id);
    if (e->outcome != OUTCOME_GONE || here || !idmap_get(&c->absent, r->id, NULL))
        return;
    struct finish finish = {
        .id = r->id, .status = PUSHROD_CANCELLED, .code = PUSHROD_E_TASK_CANCELLED};
    struct task *t = finish_adopt(c, &finish);
    if (!t) {
        c->failed = true; /* likewise */
        return;
    }
    follow_claim(c, t);
    finish_told(c, t);
}

typedef void request_fn(struct core *, struct request *, const struct store_event *);

static request_fn *const request_table[] = {
    [REQUEST_WAIT] = waited,
    [REQUEST_CANCEL] = cancelled,
    [REQUEST_STATUS] = status_told,
    [REQUEST_DEAD] = scanned,
    [REQUEST_SUBMITTED] = submitted_stored,
    [REQUEST_REPLAY] = replayed,
    [REQUEST_DROP] = dropped,
    [REQUEST_PAUSE] = paused,
    [REQUEST_PURGE] = purged,
    [REQUEST_PURGED] = purge_told,
    [REQUEST_HELD] = join_looked_up,
    [REQUEST_DONE] = answer_looked_up,
};

/*
 * Behind the purge that was asked meanwhile: what was replayed is for a fetch to find. Or because
 * the store had too much to give at once: whoever has gone by now need not wait for it.
 */
static bool looks_again(const struct core *c, const struct request *r, const struct store_event *e)
{
    bool stale = r->stale && r->kind != REQUEST_REPLAY;
    bool waits = r->kind == REQUEST_WAIT || r->kind == REQUEST_SUBMITTED;
    bool left = waits && !conn_is_open(c, r->conn);
    assert(r->id != 0 || e->outcome != OUTCOME_LATER);
    return !left && (stale || e->outcome == OUTCOME_LATER);
}

/* It was refused, and there is nobody who would hear of that, and ask again. */
static bool looks_later(const struct request *r, const struct store_event *e)
{
    bool unasked = r->kind == REQUEST_PURGED || (r->kind == REQUEST_CANCEL && r->conn == 0);
    assert(r->kind <= REQUEST_DONE);
    return unasked && e->outcome == OUTCOME_REFUSED;
}

void requests_run(struct core *c)
{
    assert(c->ticking);
    list_foreach(it, next, &c->requests)
    {
        struct request *r = container_of(it, struct request, in_core);
        if (r->refused)
            request_again(c, r);
    }
}

void request_stored(struct core *c, struct request *r, const struct store_event *e)
{
    assert(request_table[r->kind]);
    r->again = r->refused = looks_later(r, e);
    if (r->refused)
        stored_wait(c);
    else if (looks_again(c, r, e))
        request_again(c, r);
    else
        request_table[r->kind](c, r, e);
    if (!r->again)
        request_free(r);
}
