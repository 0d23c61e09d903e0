/* SPDX-License-Identifier: Apache-2.0 */
/* What clients and operators ask for. What is not in memory is asked of the store (lookup.c). */
#include <assert.h>
#include <stdlib.h>
#include "common/name.h"
#include "server/core/verbs.h"

const char *unknown_text(struct core *c, uint64_t id)
{
    if (ids_unissued(c, id))
        return "no such task: this id was never issued by this server";
    if (id < c->first_id) /* what a former life left of its ids is not known */
        return "no such task: it finished, and its result was not kept (see --keep), or this id "
               "was never issued";
    return "no such task: it finished, and its result was not kept (see --keep)";
}

const char *not_dead_text(struct core *c, uint64_t id)
{
    return ids_unissued(c, id)
               ? unknown_text(c, id)
               : "no dead task has this id: `pushrod status` says what became of it";
}

/* ---- wait, status ---- */

static void wait_here(
    struct core *c, uint64_t conn, uint64_t request, struct task *t, enum follow follow)
{
    bool finished = t->state == TASK_FINISHED;
    assert(t->state != TASK_GONE);
    if (follow == FOLLOW_NONE && !finished) {
        out_reject(c, conn, request, PUSHROD_E_WRONG_STATE, "it has not finished yet");
        return;
    }
    if (t->unkept) {
        out_reject(c, conn, request, PUSHROD_E_RESULT_GONE, NULL);
        return;
    }
    struct follower *f =
        follower_new(c, conn, request, (uint8_t)(follow == FOLLOW_NONE ? FOLLOW_FINISH : follow));
    if (!f) {
        out_reject(c, conn, request, PUSHROD_E_NO_MEMORY, NULL);
        return;
    }
    follower_attach(t, f);
    out_ok(c, conn, request, 1);
    if (!finished) {
        progress_tell(c, t, f);
        return;
    }
    finish_tell(c, t, f);
    if (f->conn)
        return;
    follower_detach(t, f);
    follower_free(c, f);
}

static bool ask(struct core *c, enum request_kind kind, uint64_t conn, uint64_t request,
    uint64_t id, enum follow follow)
{
    assert(!c->bypass);
    /* Whoever is to follow the task may be gone when the store has answered. */
    if (kind == REQUEST_WAIT && conn != CONN_SELF && !conn_get(c, conn))
        return false;
    return request_ask(c, STORE_LOOKUP, id,
        (struct request){.kind = kind, .conn = conn, .request = request, .follow = follow});
}

/* Nothing in memory: the store knows, or nobody does. */
static void ask_or_unknown(struct core *c, enum request_kind kind, uint64_t conn, uint64_t request,
    uint64_t id, enum follow follow)
{
    if (c->bypass || ids_unissued(c, id))
        out_reject(c, conn, request, PUSHROD_E_UNKNOWN_TASK, unknown_text(c, id));
    else if (!ask(c, kind, conn, request, id, follow))
        out_reject(c, conn, request, PUSHROD_E_NO_MEMORY, NULL);
    assert(kind <= REQUEST_STATUS);
}

/* What is on its way out is in the store only, if it is anywhere. */
static struct task *known(struct core *c, uint64_t id)
{
    struct task *t = ledger_find(&c->ledger, id);
    assert(!t || t->record.id == id);
    return t && !t->released ? t : NULL;
}

void core_wait(struct core *c, uint64_t conn, uint64_t request, uint64_t id, enum follow follow)
{
    struct task *t = known(c, id);
    assert(conn != 0);
    if (t)
        wait_here(c, conn, request, t, follow);
    else
        ask_or_unknown(c, REQUEST_WAIT, conn, request, id, follow);
}

void core_status(struct core *c, uint64_t conn, uint64_t request, uint64_t id)
{
    struct task *t = known(c, id);
    assert(conn != 0);
    if (t)
        row_task(c, conn, request, t);
    else
        ask_or_unknown(c, REQUEST_STATUS, conn, request, id, FOLLOW_NONE);
}

/* ---- cancel ---- */

static void cancel_leased(struct core *c, struct task *t)
{
    assert(t->state == TASK_LEASED);
    out_lane_task(c, t->worker, LANE_CANCEL, t);
    t->cancelling = true;
    timer_fence(c, t, c->now.mono_ns + CANCEL_WAIT);
}

/* A result that is on its way may win yet. */
static void task_cancel(struct core *c, struct task *t)
{
    assert(!task_ended(t));
    if (t->cancelling)
        return;
    if (t->state == TASK_LEASED)
        cancel_leased(c, t);
    else if (t->state == TASK_STORING || t->state == TASK_MOVING)
        t->cancelling = true;
    else
        task_finish(c, t, PUSHROD_CANCELLED, PUSHROD_E_TASK_CANCELLED);
}

void core_cancel(struct core *c, uint64_t conn, uint64_t request, uint64_t id)
{
    struct task *t = known(c, id);
    if (!t) {
        ask_or_unknown(c, REQUEST_CANCEL, conn, request, id, FOLLOW_NONE);
        return;
    }
    bool lives = !task_ended(t);
    if (lives)
        task_cancel(c, t);
    assert(!lives || t->cancelling || task_ended(t));
    out_ok(c, conn, request, lives);
}

/* ---- the operator's verbs ---- */

typedef void control_fn(struct core *, uint64_t conn, const struct msg_control *);

static struct queue *control_queue(struct core *c, uint64_t conn, const struct msg_control *m)
{
    struct queue *q = m->name.data ? queue_find(c, m->name) : NULL;
    assert(m->verb.data);
    if (!q)
        out_reject(c, conn, m->request, PUSHROD_E_UNKNOWN_QUEUE, NULL);
    return q;
}

/* It holds from now on; OK is told when it also holds for the next start of the server. Without
 * memory to ask for that it does not hold at all. */
static void queue_pause(
    struct core *c, uint64_t conn, const struct msg_control *m, struct queue *q, bool paused)
{
    const struct request r = {.kind = REQUEST_PAUSE, .conn = conn, .request = m->request};
    struct store_op *op = q->bypass ? NULL : request_ask(c, STORE_QUEUE, 0, r);
    assert(q->name.size > 0);
    if (!op && !q->bypass) {
        out_reject(c, conn, m->request, PUSHROD_E_NO_MEMORY, NULL);
        return;
    }
    queue_halt(c, q, paused, q->stopped);
    if (q->bypass) {
        out_ok(c, conn, m->request, 1);
        return;
    }
    op->queue = q->name;
    op->paused = paused;
    op->durability = q->durability;
}

/* Also before its first task: who wants to see everything before it runs has no other moment. */
static void control_pause(struct core *c, uint64_t conn, const struct msg_control *m)
{
    int code;
    const char *text;
    struct queue *q = queue_open(c, m->name, &code, &text);
    if (q)
        queue_pause(c, conn, m, q, true);
    else
        out_reject(c, conn, m->request, code, text);
}

static void control_resume(struct core *c, uint64_t conn, const struct msg_control *m)
{
    struct queue *q = control_queue(c, conn, m);
    if (q)
        queue_pause(c, conn, m, q, false);
}

/* A worker has it, or the store is being asked about it: also about how it ended. */
static bool purge_spares(const struct task *t)
{
    assert(t->state != TASK_GONE || !t->operations);
    if (task_ended(t))
        return t->operations || t->refused;
    return t->state == TASK_LEASED || t->state == TASK_STORING || t->state == TASK_MOVING;
}

/*
 * What nobody has is cancelled; the rest goes on. The store keeps both, for it is asked for each
 * end by itself, and again if it refuses that: the purge would count it, too.
 */
static size_t purge_memory(struct core *c, struct queue *q, uint64_t *keep, size_t *kept)
{
    size_t count = 0;
    uint32_t slot = 0;
    *kept = 0;
    for (struct task *t; (t = ledger_next(&c->ledger, &slot));) {
        if (t->queue != q)
            continue;
        assert(t->record.id != 0);
        if (!task_ended(t) && !purge_spares(t)) {
            task_finish(c, t, PUSHROD_CANCELLED, PUSHROD_E_TASK_CANCELLED);
            count++;
        }
        if (purge_spares(t))
            keep[(*kept)++] = t->record.id;
    }
    return count;
}

static int compare_ids(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    assert(x != 0 && y != 0);
    return x < y ? -1 : x > y;
}

/* What was asked for before would come into memory after the purge, and nothing would end it. */
static void purge_lookups(struct core *c)
{
    list_foreach(it, next, &c->requests)
    {
        struct request *r = container_of(it, struct request, in_core);
        assert(!r->stale || r->id != 0);
        r->stale |= r->kind == REQUEST_CANCEL || r->kind == REQUEST_HELD ||
                    r->kind == REQUEST_DONE || r->kind == REQUEST_REPLAY;
    }
}

static void purge_store(struct core *c, uint64_t conn, const struct msg_control *m, struct queue *q,
    uint64_t *keep, size_t kept, size_t count)
{
    assert(!q->bypass);
    struct store_op *op = request_ask(c, STORE_PURGE, 0,
        (struct request){.kind = REQUEST_PURGE,
            .conn = conn,
            .request = m->request,
            .queue = q,
            .count = count,
            .ready = q->stored_ready,
            .delayed = q->stored_delayed,
            .targeted = q->targeted_stored});
    if (!op) {
        out_reject(c, conn, m->request, PUSHROD_E_NO_MEMORY, NULL);
        return;
    }
    /* Now, for what the store has from here on was asked after the purge, or is kept by it. */
    q->stored_ready = q->stored_delayed = q->targeted_stored = 0;
    op->queue = q->name;
    op->keep = keep;
    op->keep_count = kept;
    q->fetch_void = q->fetching;
    q->due_purged = c->due_until_ms ? c->due_number : 0;
    purge_lookups(c);
}

static void control_purge(struct core *c, uint64_t conn, const struct msg_control *m)
{
    struct queue *q = control_queue(c, conn, m);
    if (!q)
        return;
    size_t most = 1;
    for (unsigned state = 0; state < TASK_GONE; state++)
        most += q->counts[state];
    assert(most <= c->ledger.by_id.count + 1);
    uint64_t *keep = arena_alloc(c, most * sizeof *keep);
    if (!keep) {
        out_reject(c, conn, m->request, PUSHROD_E_NO_MEMORY, NULL);
        return;
    }
    size_t kept, count = purge_memory(c, q, keep, &kept);
    qsort(keep, kept, sizeof *keep, compare_ids);
    if (!q->bypass) {
        purge_store(c, conn, m, q, keep, kept, count);
        return;
    }
    unique_purge(c, q);
    out_ok(c, conn, m->request, count);
}

static void control_drain(struct core *c, uint64_t conn, const struct msg_control *m)
{
    uint64_t count = 0;
    list_foreach(it, next, &c->workers)
    {
        struct worker *w = container_of(it, struct worker, in_core);
        assert(w->named);
        if (w->state != WORKER_READY || (m->name.data && !slice_equal(w->name, m->name)))
            continue;
        worker_drain(c, w, c->config.drain_ms);
        count++;
    }
    if (count)
        out_ok(c, conn, m->request, count);
    else
        out_reject(c, conn, m->request, PUSHROD_E_UNKNOWN_WORKER, NULL);
}

/* A dead letter is in memory if no store has it. */
static void control_dead(struct core *c, uint64_t conn, const struct msg_control *m,
    bool (*here)(struct core *, struct task *), enum request_kind kind, enum store_op_kind ask)
{
    struct task *t = known(c, m->id);
    assert(kind == REQUEST_REPLAY || kind == REQUEST_DROP);
    if (t && finish_is_dead_letter(t) && !t->operations && !t->refused) {
        if (here(c, t))
            out_ok(c, conn, m->request, 1);
        else
            out_reject(c, conn, m->request, PUSHROD_E_NO_MEMORY, NULL);
    } else if (t && !task_ended(t)) {
        out_reject(c, conn, m->request, PUSHROD_E_WRONG_STATE,
            arena_text(c, "the task is not dead, but %s",
                t->state == TASK_LEASED ? "running" : task_state_name(t->state)));
    } else if (c->bypass || ids_unissued(c, m->id)) {
        out_reject(c, conn, m->request, PUSHROD_E_UNKNOWN_TASK, not_dead_text(c, m->id));
    } else if (!request_ask(c, ask, m->id,
                   (struct request){.kind = kind, .conn = conn, .request = m->request})) {
        out_reject(c, conn, m->request, PUSHROD_E_NO_MEMORY, NULL);
    }
}

/* The same task, with its attempts and deaths forgotten; its key is taken again until it ends, if
 * it is free. */
static bool dead_replay(struct core *c, struct task *t)
{
    struct record record;
    struct queue *q = t->queue;
    assert(finish_is_dead_letter(t));
    task_record(t, &record);
    record.attempts = 0;
    record.deaths = 0;
    record.suspect = false;
    record.due_ms = record.expires_ms = record.unique_ms = 0;
    struct task *again = task_make(c, q, &record);
    if (!again)
        return false;
    finish_drop(c, t);
    bool added = task_add(c, again); /* in its place */
    assert(added);
    (void)added;
    again->unstored = t->unstored;
    c->unstored_bytes += again->unstored ? again->record.payload.size : 0;
    if (record.unique.data && !unique_find(c, q, record.unique))
        unique_hold(c, again);
    task_requeue(c, again);
    return true;
}

static void control_replay(struct core *c, uint64_t conn, const struct msg_control *m)
{
    assert(m->verb.data);
    control_dead(c, conn, m, dead_replay, REQUEST_REPLAY, STORE_REVIVE);
}

static bool dead_drop(struct core *c, struct task *t)
{
    assert(finish_is_dead_letter(t));
    finish_drop(c, t);
    return true;
}

static void control_drop(struct core *c, uint64_t conn, const struct msg_control *m)
{
    assert(m->verb.data);
    control_dead(c, conn, m, dead_drop, REQUEST_DROP, STORE_DROP);
}

static const struct {
    const char *verb;
    control_fn *run;
} control_table[] = {
    {"pause", control_pause},
    {"resume", control_resume},
    {"purge", control_purge},
    {"drain", control_drain},
    {"replay", control_replay},
    {"drop", control_drop},
};

/* A name that is none may be any bytes, and megabytes of them: nobody who watches wants those. */
static void control_tell(struct core *c, const struct msg_control *m, const char *verb, bool drain)
{
    struct slice none = {0}, name = name_valid(m->name) ? m->name : none;
    assert(slice_equal(m->verb, slice_str(verb)));
    watch_event(c, "control", m->id, drain ? name : none, drain ? none : name, verb);
}

void core_control(struct core *c, uint64_t conn, const struct msg_control *m)
{
    assert(conn != 0);
    for (size_t i = 0; i < sizeof control_table / sizeof *control_table; i++) {
        if (slice_equal(m->verb, slice_str(control_table[i].verb))) {
            control_tell(c, m, control_table[i].verb, control_table[i].run == control_drain);
            control_table[i].run(c, conn, m);
            return;
        }
    }
    out_reject(c, conn, m->request, PUSHROD_E_INVALID,
        "the verbs are pause, resume, purge, drain, replay and drop");
}
