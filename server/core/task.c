/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The task: where it may go, and its memory. task_move() is the only place where a state changes,
 * and so the only one that counts tasks by state: leaving a state takes the task out of what that
 * state put it into (task_leave()), so that nobody who moves it has to know where it was.
 */
#include <assert.h>
#include <stdlib.h>
#include "server/core/verbs.h"

#define TO(NAME) (1u << TASK_##NAME)
#define ENDS     (TO(FINISHING) | TO(FINISHED)) /* with a store behind its queue, or without */

/* Where a task may go from each state; everything else is a bug. GONE before its
 * end: it is in the store only, or was refused. */
static const uint16_t task_allowed[TASK_STATE_COUNT] = {
    [TASK_STORING] = TO(DELAYED) | TO(HELD) | TO(FINISHED) | TO(GONE),
    [TASK_DELAYED] = TO(READY) | TO(LEASED) | ENDS,
    [TASK_HELD] = TO(READY) | TO(LEASED) | ENDS | TO(GONE),
    [TASK_READY] = TO(HELD) | TO(LEASED) | ENDS | TO(GONE),
    [TASK_LEASED] = TO(READY) | TO(DELAYED) | TO(MOVING) | ENDS,
    [TASK_MOVING] = TO(READY) | TO(DELAYED) | TO(LEASED) | TO(FINISHING) | TO(GONE),
    [TASK_FINISHING] = TO(FINISHED),
    [TASK_FINISHED] = TO(GONE),
    [TASK_GONE] = 0,
};

const char *task_state_name(enum task_state state)
{
#define T(NAME, name) [TASK_##NAME] = name,
    static const char *const names[] = {TASK_STATES(T)};
#undef T
    assert(state < TASK_STATE_COUNT);
    return names[state];
}

struct order_key task_key(const struct task *t)
{
    assert(t->record.priority < PRIORITIES);
    return order_key(t->record.priority, t->record.id);
}

_Static_assert(offsetof(struct queue, name) == 0, "task_queue() reads the name there");

/* ---- transitions ---- */

/* Out of what the state had put it into. */
static void task_leave(struct core *c, struct task *t)
{
    switch ((enum task_state)t->state) {
    case TASK_READY:
        queue_take(c, t);
        break;
    case TASK_DELAYED:
        timer_undelay(c, t);
        break;
    case TASK_LEASED:
        worker_drop(c, t);
        if (t->rare && t->rare->progress)
            progress_drop(t->rare);
        break;
    case TASK_FINISHED:
        finish_let_go(c, t);
        break;
    default:
        assert(t->state != TASK_GONE);
        list_remove(&t->node);
        if (t->worker) /* an answer waited for this: worker_settle() */
            worker_ack_later(c, t->worker);
        break;
    }
}

/* Payloads of unfinished tasks that no store has are bounded; here they stop counting. */
static void task_lighten(struct core *c, struct task *t)
{
    if (task_only_here(t)) {
        uint64_t *bytes = t->unstored ? &c->unstored_bytes : &c->bypass_bytes;
        assert(*bytes >= t->record.payload.size);
        *bytes -= t->record.payload.size;
    }
    if (t->rare && t->rare->holds)
        unique_release(c, t);
}

void task_move(struct core *c, struct task *t, enum task_state to)
{
    enum task_state from = t->state;
    assert(task_allowed[from] & 1u << to);
    task_leave(c, t);
    if (from < TASK_FINISHING && to >= TASK_FINISHING)
        task_lighten(c, t);
    if (t->rare && heap_holds(&t->rare->timer))
        timer_stop(c, t);
    if (task_target(t).data)
        target_move(t, from, to);
    t->queue->counts[from]--;
    t->queue->counts[to]++;
    t->state = (uint8_t)to;
    t->refused = false; /* what the store refused of its last state need not be asked again */
    t->worker = NULL;
    if (to == TASK_DELAYED)
        t->place = (struct heap_node){0};
    else
        list_init(&t->node);
    if (to == TASK_READY)
        queue_put(c, t);
}

/* Its bytes stay until the next tick: the actions of this one may point to them. */
void task_drop(struct core *c, struct task *t)
{
    assert(t->operations == 0 && !t->followers);
    task_move(c, t, TASK_GONE);
    c->stats.ledger_bytes -= t->record.payload.size;
    ledger_remove(&c->ledger, t);
    list_push_back(&c->gone, &t->node);
}

/* ---- memory ---- */

static uint8_t *put_slice(uint8_t *at, struct slice *to, struct slice from)
{
    *to = (struct slice){0};
    if (!from.data)
        return at;
    if (from.size)
        memcpy(at, from.data, from.size);
    *to = slice_of(at, from.size);
    return at + from.size;
}

/* Most tasks have nothing rare. A timeout counts, because its fence needs a timer. */
static bool record_is_rare(const struct record *r)
{
    return r->headers.data || r->tag.data || r->unique.data || r->target.data || r->history.data ||
           r->expires_ms || r->keep_ms || r->timeout_ms;
}

static void rare_fill(struct task *t, const struct record *r, uint8_t *at)
{
    struct rare *rare = t->rare;
    *rare = (struct rare){
        .task = t, .expires_ms = r->expires_ms, .unique_ms = r->unique_ms, .keep_ms = r->keep_ms};
    at = put_slice(at, &rare->headers, r->headers);
    at = put_slice(at, &rare->tag, r->tag);
    at = put_slice(at, &rare->unique, r->unique);
    put_slice(at, &rare->target, r->target);
    assert(!rare->added);
}

static void record_fill(struct task *t, const struct record *r)
{
    t->record = (struct task_record){.id = r->id,
        .payload = r->payload,
        .body = body_ref(r->body),
        .submitted_ms = r->submitted_ms,
        .due_ms = r->due_ms,
        .timeout_ms = r->timeout_ms,
        .backoff_ms = (uint32_t)(r->backoff_ms > UINT32_MAX ? UINT32_MAX : r->backoff_ms),
        .attempts = (uint16_t)r->attempts,
        .max_attempts = (uint16_t)r->max_attempts,
        .deaths = r->deaths,
        .priority = r->priority,
        .followed = r->followed,
        .suspect = r->suspect,
        .windowed = r->windowed};
    assert(r->attempts <= UINT16_MAX && r->max_attempts <= UINT16_MAX);
}

static struct task *task_allocate(struct core *c, const struct record *r)
{
    size_t size = sizeof(struct task) + (r->body ? 0 : r->payload.size);
    bool rare = record_is_rare(r);
    if (rare)
        size +=
            sizeof(struct rare) + r->headers.size + r->tag.size + r->unique.size + r->target.size;
    uint8_t size_class;
    struct task *t = pool_task(&c->pool, size, &size_class);
    if (!t)
        return NULL;
    assert(((uintptr_t)t & 7) == 0);
    *t = (struct task){.size_class = size_class, .state = TASK_STORING};
    if (rare)
        t->rare = (struct rare *)(t + 1);
    return t;
}

/* The history comes as an array of DEATH; what is kept is the messages without the array's head. */
static bool history_fill(struct task *t, struct slice history)
{
    struct dec d = dec_of(history);
    t->rare->history_count = dec_array(&d);
    assert(!dec_failed(&d));
    buf_append(&t->rare->history, d.at, (size_t)(d.end - d.at));
    return !t->rare->history.failed;
}

/* Behind the struct in one block: what is rare, then the payload, headers, tag, key, target. */
struct task *task_make(struct core *c, struct queue *q, const struct record *r)
{
    struct task *t = task_allocate(c, r);
    if (!t)
        return NULL;
    record_fill(t, r);
    t->queue = q;
    t->hand_overs = hand_overs_of(r->attempts); /* what is known of those before it left memory */
    list_init(&t->node);
    uint8_t *at = (uint8_t *)(t + 1);
    if (t->rare) {
        at += sizeof(struct rare);
        rare_fill(t, r, at + (r->body ? 0 : r->payload.size));
    }
    if (!r->body)
        put_slice(at, &t->record.payload, r->payload);
    if (r->history.data && !history_fill(t, r->history)) {
        task_free(c, t);
        return NULL;
    }
    return t;
}

bool task_add(struct core *c, struct task *t)
{
    struct queue *q = t->queue;
    assert(t->state == TASK_STORING);
    if (!ledger_add(&c->ledger, t))
        return false;
    q->counts[TASK_STORING]++;
    q->targeted_here += task_target(t).data != NULL;
    if (q->bypass)
        c->bypass_bytes += t->record.payload.size;
    c->stats.ledger_bytes += t->record.payload.size;
    return true;
}

struct task *task_new(struct core *c, struct queue *q, const struct record *r)
{
    struct task *t = task_make(c, q, r);
    assert(!t || t->queue == q);
    if (!t || task_add(c, t))
        return t;
    task_free(c, t);
    return NULL;
}

static void rare_free(struct rare *rare)
{
    assert(!rare->holds && !heap_holds(&rare->timer));
    buf_free(&rare->history);
    progress_drop(rare);
    if (rare->added)
        free(rare);
}

/* Only a hint, and so without a look at it. */
void task_expect(const struct task *t)
{
    uintptr_t at = (uintptr_t)t;
    for (size_t line = 0; line < sizeof *t; line += 64)
        __builtin_prefetch((const void *)(at + line), 1);
}

/*
 * A short result takes the place of an inline payload: nobody reads that any more once a worker is
 * done with the task, for its lane has sent it and the store has it. Not while the task is on its
 * way elsewhere, when the actions of this tick may still point to it.
 */
bool task_set_result(struct task *t, struct slice result)
{
    assert(!t->result && t->result_size == 0 && result.size > 0);
    if (t->state == TASK_LEASED && !t->record.body && result.size <= t->record.payload.size) {
        memcpy((void *)(uintptr_t)t->record.payload.data, result.data, result.size);
        t->result_size = (uint16_t)result.size;
        return true;
    }
    t->result = body_copy(result.data, result.size);
    return t->result != NULL;
}

void task_free(struct core *c, struct task *t)
{
    assert(!t->followers);
    if (t->rare)
        rare_free(t->rare);
    if (t->result)
        body_unref(t->result);
    if (t->record.body)
        body_unref(t->record.body);
    free(t->text);
    pool_task_free(&c->pool, t);
}

/* For a task that got a history, a fence or pieces of a result after it was made. */
struct rare *task_rare(struct task *t)
{
    if (t->rare)
        return t->rare;
    struct rare *rare = calloc(1, sizeof *rare);
    if (!rare)
        return NULL;
    rare->task = t;
    rare->added = true;
    t->rare = rare;
    assert(t->rare->task == t);
    return rare;
}

void task_record(const struct task *t, struct record *r)
{
    const struct task_record *from = &t->record;
    assert(from->id != 0);
    *r = (struct record){.id = from->id,
        .queue = t->queue->name,
        .payload = from->payload,
        .body = from->body,
        .submitted_ms = from->submitted_ms,
        .due_ms = from->due_ms,
        .timeout_ms = from->timeout_ms,
        .backoff_ms = from->backoff_ms,
        .attempts = from->attempts,
        .max_attempts = from->max_attempts,
        .deaths = from->deaths,
        .priority = from->priority,
        .followed = from->followed,
        .suspect = from->suspect,
        .windowed = from->windowed};
    if (!t->rare)
        return;
    r->headers = t->rare->headers;
    r->tag = t->rare->tag;
    r->unique = t->rare->unique;
    r->target = t->rare->target;
    r->expires_ms = t->rare->expires_ms;
    r->unique_ms = t->rare->unique_ms;
    r->keep_ms = t->rare->keep_ms;
}
