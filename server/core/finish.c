/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A finish is committed once, told to each follower until that one acknowledges it, and can be
 * asked for while it is kept: in memory for queues without a store behind them, else in the store.
 */
#include <assert.h>
#include <stdlib.h>
#include "server/core/verbs.h"

#define DEAD_KEEP_MS (7 * 24 * UINT64_C(3600000)) /* dead letters without a store behind them */

static void finish_count(struct core *c, struct task *t)
{
    assert(t->status >= PUSHROD_DONE && t->status <= PUSHROD_EXPIRED);
    t->record.due_ms = c->now.wall_ms; /* from here on it says when it ended */
    switch ((enum pushrod_status)t->status) {
    case PUSHROD_DONE:
        c->stats.done++;
        t->queue->finished++;
        break;
    case PUSHROD_FAILED:
        c->stats.failed++;
        t->queue->dead++;
        out_notice(c, (struct notice){.kind = NOTICE_TASK_DEAD, .code = t->code, .task = t});
        watch_event(c, "task-dead", t->record.id, (struct slice){0}, t->queue->name, t->text);
        break;
    case PUSHROD_CANCELLED:
        c->stats.cancelled++;
        break;
    default:
        c->stats.expired++;
        break;
    }
}

/* That no store has: kept here, to be listed and replayed. */
bool finish_is_dead_letter(const struct task *t)
{
    assert(t->state != TASK_GONE);
    return t->state == TASK_FINISHED && t->status == PUSHROD_FAILED && task_only_here(t) &&
           !t->released;
}

/* Somebody other than the embedding program itself waits, or waited. */
static bool finish_is_wanted(const struct task *t)
{
    bool self = false;
    assert(t->status != 0);
    for (const struct follower *f = t->followers; f; f = f->next) {
        if (f->conn && f->level != FOLLOW_NONE)
            return true;
        self |= !f->conn;
    }
    return t->record.followed && !self;
}

static uint64_t keep_ms(const struct core *c, const struct task *t)
{
    uint64_t keep = t->rare ? t->rare->keep_ms : 0;
    assert(c->config.hold_ms > 0);
    if (finish_is_wanted(t) && keep < c->config.hold_ms)
        keep = c->config.hold_ms;
    if (task_only_here(t) && t->status == PUSHROD_FAILED && keep < DEAD_KEEP_MS)
        keep = DEAD_KEEP_MS;
    return keep;
}

/* ---- telling ---- */

void finish_tell(struct core *c, struct task *t, struct follower *f)
{
    assert(t->state == TASK_FINISHED && f->level != FOLLOW_NONE);
    uint64_t conn = CONN_SELF;
    if (f->conn) {
        conn = f->conn->id;
        f->number = ++f->conn->told_count;
        list_remove(&f->in_conn);
        list_push_back(&f->conn->told, &f->in_conn);
    }
    struct conn_action *a = out_conn(c, conn, f->request, MSG_FINISHED);
    a->code = t->code;
    a->id = t->record.id;
    a->task = t;
}

/*
 * The embedding program has its finish with the callback; the others acknowledge theirs, and stay
 * in their order: who is told first, and acknowledges first, is found first.
 */
static void finish_tell_all(struct core *c, struct task *t)
{
    struct follower **at = &t->followers;
    bool followed = t->followers;
    assert(t->state == TASK_FINISHED);
    for (struct follower *f; (f = *at);) {
        if (f->level != FOLLOW_NONE)
            finish_tell(c, t, f);
        if (f->conn && f->level != FOLLOW_NONE) {
            at = &f->next;
            continue;
        }
        *at = f->next;
        f->task = NULL;
        follower_free(c, f);
    }
    if (t->record.followed && !followed)
        out_notice(c, (struct notice){.kind = NOTICE_ORPHAN_FINISH, .task = t});
}

static size_t kept_size(const struct task *t)
{
    assert(t->state == TASK_FINISHED);
    return task_result(t).size + t->record.payload.size + sizeof *t;
}

/* It is not kept any more, if it was. */
void finish_let_go(struct core *c, struct task *t)
{
    assert(t->state == TASK_FINISHED);
    if (list_empty(&t->node))
        return;
    c->kept_count--;
    c->kept_bytes -= kept_size(t);
    list_remove(&t->node);
    if (t->rare)
        heap_remove(&c->kept, &t->rare->timer);
}

/* Out of memory: nobody needs it here any more. Not while the store still answers for it. */
void finish_drop(struct core *c, struct task *t)
{
    assert(t->state == TASK_FINISHED);
    if (t->followers)
        followers_drop(c, t);
    finish_let_go(c, t);
    if (finish_is_dead_letter(t))
        t->queue->dead--;
    t->released = true;
    if (t->operations == 0 && !t->refused)
        task_drop(c, t);
}

static void keep_in(struct core *c, struct list *list, struct task *t)
{
    assert(t->state == TASK_FINISHED && list_empty(&t->node));
    t->kept_ns = c->now.mono_ns;
    list_push_back(list, &t->node);
    c->kept_count++;
    c->kept_bytes += kept_size(t);
}

static void finish_keep(struct core *c, struct task *t, uint64_t until_ns)
{
    struct rare *rare = task_rare(t);
    assert(!rare || !heap_holds(&rare->timer));
    if (rare && heap_push(&c->kept, &rare->timer, until_ns, t->record.id))
        keep_in(c, &c->keeping, t);
    else
        finish_drop(c, t);
}

/* It is kept, or goes. Nearly all are kept for hold_ms: these go in the order they came in. */
static void finish_hold(struct core *c, struct task *t, uint64_t keep)
{
    bool here = t->followers || task_only_here(t);
    assert(t->state == TASK_FINISHED);
    if (!keep || !here)
        finish_drop(c, t);
    else if (keep == c->config.hold_ms && !finish_is_dead_letter(t)) /* those are in the heap */
        keep_in(c, &c->holding, t);
    else
        finish_keep(c, t, c->now.mono_ns + keep * MS);
}

void finish_told(struct core *c, struct task *t)
{
    task_move(c, t, TASK_FINISHED);
    uint64_t keep = keep_ms(c, t);
    if (t->queue != &c->nowhere) /* what was looked up was counted when it ended */
        finish_count(c, t);
    finish_tell_all(c, t);
    finish_hold(c, t, keep);
}

/* The store has nothing of it, as is heard when it has ended: it is kept here, if it went or not.
 */
void finish_unstored(struct core *c, struct task *t)
{
    assert(t->state == TASK_FINISHED && t->unstored);
    finish_let_go(c, t);
    t->released = false;
    finish_hold(c, t, keep_ms(c, t));
}

/* ---- the store ---- */

void finish_ask(struct core *c, struct task *t)
{
    assert(t->state == TASK_FINISHING || t->state == TASK_FINISHED);
    struct finish *f = arena_alloc(c, sizeof *f);
    struct store_op *op = f ? out_store(c, STORE_FINISH, t->slot) : NULL;
    if (!op)
        return;
    uint64_t keep = keep_ms(c, t);
    *f = (struct finish){.id = t->record.id,
        .status = t->status,
        .code = t->code,
        .attempts = t->hand_overs,
        .run_ns = t->run_ns,
        .finished_ms = c->now.wall_ms,
        .keep_until_ms = keep ? c->now.wall_ms + keep : 0,
        .result = task_result(t),
        .body = t->result && t->result->size > TASK_INLINE_PAYLOAD ? t->result : NULL,
        .text = slice_str(t->text),
        .tag = task_tag(t),
        .dead = t->status == PUSHROD_FAILED};
    if (f->dead)
        f->history = history_array(c, t);
    op->finish = f;
    op->async = t->queue->durability == DURABILITY_ASYNC;
    t->operations++;
}

void task_finish(struct core *c, struct task *t, enum pushrod_status status, int code)
{
    assert(!task_ended(t) && t->state != TASK_STORING);
    if (t->recovering)
        task_ran(t, 0); /* for all that is known */
    t->status = (uint8_t)status;
    t->code = (uint16_t)code;
    if (t->queue->bypass) {
        finish_told(c, t);
        return;
    }
    task_move(c, t, TASK_FINISHING);
    c->unsettled_results += task_result(t).size; /* until the store has it: finish_stored() */
    finish_ask(c, t);
    if (t->queue->durability == DURABILITY_ASYNC)
        finish_told(c, t);
}

/* The FINISH is stored: told now, unless it was before. */
void finish_stored(struct core *c, struct task *t)
{
    assert(task_ended(t) && c->unsettled_results >= task_result(t).size);
    c->unsettled_results -= task_result(t).size;
    if (t->state == TASK_FINISHING)
        finish_told(c, t);
}

/* ---- the end of its keeping ---- */

void finish_release(struct core *c, struct task *t)
{
    assert(t->state == TASK_FINISHED);
    bool keep = t->rare && t->rare->keep_ms;
    if (t->followers || t->released || finish_is_dead_letter(t) || (task_only_here(t) && keep))
        return;
    t->record.followed = false; /* its finish may have to be stored once more: not to be kept */
    if (!task_only_here(t) && !keep) {
        struct store_op *op = out_store(c, STORE_FORGET, 0);
        if (op)
            op->id = t->record.id;
    }
    finish_drop(c, t);
}

static struct task *oldest_of(const struct list *list)
{
    const struct list *first = list_first(list);
    struct task *t = first ? container_of(first, struct task, node) : NULL;
    assert(!t || t->state == TASK_FINISHED);
    return t;
}

/* The one that goes first, and when; NULL: nothing is kept. */
static struct task *kept_first(const struct core *c, uint64_t *until_ns)
{
    const struct heap_node *top = heap_top(&c->kept);
    struct task *t = oldest_of(&c->holding);
    assert(c->config.hold_ms > 0);
    *until_ns = t ? t->kept_ns + c->config.hold_ms * MS : NEVER;
    if (!top || *until_ns <= top->key)
        return t;
    *until_ns = top->key;
    return container_of(top, struct rare, timer)->task;
}

uint64_t finish_next(const struct core *c)
{
    uint64_t until_ns;
    const struct task *t = kept_first(c, &until_ns);
    assert(!t || t->state == TASK_FINISHED);
    return until_ns;
}

/* Not the one whose time is over first: dead letters would take all places from results. */
static struct task *kept_oldest(const struct core *c)
{
    struct task *held = oldest_of(&c->holding), *kept = oldest_of(&c->keeping);
    assert(held || kept);
    return !kept || (held && held->kept_ns < kept->kept_ns) ? held : kept;
}

/* What was kept long enough goes, and the oldest when there is too much. */
void finish_expire(struct core *c)
{
    uint64_t until_ns;
    assert(c->config.hold_count > 0 && c->config.hold_bytes > 0);
    while (c->kept_count > c->config.hold_count || c->kept_bytes > c->config.hold_bytes)
        finish_drop(c, kept_oldest(c));
    struct task *t;
    for (unsigned i = 0; i < TICK_EXPIRIES && (t = kept_first(c, &until_ns)); i++) {
        if (until_ns > c->now.mono_ns)
            break;
        finish_drop(c, t);
    }
}
