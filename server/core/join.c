/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker joins: verdicts for what it holds, then WELCOME. What it holds and is not in memory is
 * looked up in the store first, so that nothing else can be done with it meanwhile. If that fails
 * for one of them the worker keeps all, and asks again.
 */
#include <assert.h>
#include <stdlib.h>
#include "server/core/verbs.h"

#define OPERATIONS_MOST 100u /* of one task, on the way: they are counted in 8 bits */

/* A JOIN that waits for look-ups; all that it points to is behind it. */
struct joining {
    struct list in_core; /* core.joining, until all is answered */
    struct join join;
    size_t waiting; /* requests that hold it */
    int code;       /* enum pushrod_error: why not all could be looked up; 0: all could */
    bool outdated;  /* its process has sent another JOIN since */
    bool *ended;    /* for each that it holds: the store has it no more */
    struct held held[];
};

/* ---- refusals ---- */

static void refuse(struct core *c, const struct join *j, int code, bool retry, const char *text)
{
    assert(code > 0);
    out_join(c, (struct join_action){.kind = JOIN_REFUSE,
                    .peer = j->peer,
                    .code = code,
                    .retry = retry,
                    .text = text ? text : pushrod_strerror(code)});
}

static bool join_check(struct core *c, const struct join *j)
{
    /* Whoever hands it in has looked at what a stranger may send. */
    assert(j->slots > 0 && j->slots <= WORKER_SLOTS_MAX);
    if (c->draining) {
        refuse(c, j, PUSHROD_E_DRAINING, true,
            "the server is stopping: it will be back, or give another address");
        return false;
    }
    if (j->queue_count == 0) {
        refuse(c, j, PUSHROD_E_BAD_QUEUE, false,
            "the worker serves no queue: name one with --exec, --coproc or --plugin");
        return false;
    }
    if (c->worker_count >= c->config.max_workers && !worker_by_instance(c, j->instance)) {
        refuse(c, j, PUSHROD_E_TOO_MANY, true,
            arena_text(c, "there are %u workers already: raise max_workers of the server",
                c->worker_count));
        return false;
    }
    return true;
}

/* ---- the worker ---- */

static uint8_t *put(uint8_t *at, struct slice *to, struct slice from)
{
    if (from.size)
        memcpy(at, from.data, from.size);
    at[from.size] = '\0';
    *to = slice_of(at, from.size);
    return at + from.size + 1;
}

static struct worker *worker_allocate(const struct join *j)
{
    size_t size = sizeof(struct worker) + j->name.size + j->host.size + 2;
    struct worker *w = calloc(1, size);
    if (!w)
        return NULL;
    memcpy(w->instance, j->instance, sizeof w->instance);
    uint8_t *at = put((uint8_t *)(w + 1), &w->name, j->name);
    put(at, &w->host, j->host);
    w->peer = j->peer;
    w->pid = j->pid;
    w->slots = j->slots;
    w->max_prefetch = j->max_prefetch;
    w->room = ROOM_NONE;
    struct list *lists[] = {&w->in_named, &w->in_room, &w->in_core, &w->ack_node, &w->deep_node,
        &w->outstanding, &w->settling};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        list_init(lists[i]);
    assert(w->state == WORKER_JOINING);
    return w;
}

static bool worker_enter(struct core *c, struct worker *w, const struct join *j)
{
    w->group = group_get(c, j->queues, j->queue_count);
    assert(w->id == 0);
    w->id = c->next_worker;
    w->session = 1 + core_random(c, UINT64_C(1) << 62);
    w->joined_ms = c->now.wall_ms;
    w->heard_ns = w->spoken_ns = w->progress_ns = c->now.mono_ns;
    w->deadline_ns = c->now.mono_ns + c->config.ready_wait_ms * MS;
    if (w->max_prefetch > c->config.max_prefetch)
        w->max_prefetch = c->config.max_prefetch;
    if (!w->group || !idmap_put(&c->worker_by_id, w->id, (uintptr_t)w))
        return false;
    if (!heap_push(&c->worker_timers, &w->timer, w->deadline_ns, w->id) || !target_join(c, w)) {
        heap_remove(&c->worker_timers, &w->timer);
        idmap_remove(&c->worker_by_id, w->id);
        return false;
    }
    c->next_worker++;
    w->group->members++;
    list_push_back(&c->workers, &w->in_core);
    c->worker_count++;
    return true;
}

static struct worker *worker_new(struct core *c, const struct join *j)
{
    struct worker *w = worker_allocate(j);
    if (!w)
        return NULL;
    assert(list_empty(&w->outstanding));
    if (worker_enter(c, w, j))
        return w;
    if (w->group)
        group_release(c, w->group);
    worker_free(w);
    return NULL;
}

/* ---- verdicts ---- */

/*
 * Who says what is not true would get what nobody has been handed. What was submitted in this life
 * has no lease of a former one; and what was in memory ever since has those that the ledger knows.
 * Of all else a worker may have a lease that nobody remembers here.
 */
static bool may_hold(const struct core *c, const struct task *t, const struct held *held)
{
    assert(!t || t->record.id == held->id);
    if (!ledger_gave(&c->ledger, held->lease))
        return held->id < c->first_id;
    return !t || !t->fresh || ledger_gave_to(&c->ledger, t, held->lease);
}

/* It was to wait for its time, and does not: the store's agenda has it no more. */
static void keep_now(struct core *c, struct task *t)
{
    assert(t->state == TASK_LEASED);
    t->record.due_ms = 0;
    if (!task_only_here(t))
        task_reschedule(c, t, true);
}

/* The attempt goes on, or its answer is on the way: the task is this worker's, with its lease. */
static void keep(struct core *c, struct worker *w, struct task *t, const struct held *held)
{
    assert(t->state != TASK_LEASED && !task_ended(t));
    task_move(c, t, TASK_LEASED);
    t->lease = held->lease;
    t->record.suspect = false; /* the process lives, and runs it beside others */
    if (t->record.due_ms)
        keep_now(c, t);
    if (t->recovering)
        task_ran(t, 0); /* it was not lost */
    worker_give(c, w, t);
    worker_arrived(c, t);
    t->started = held->started || held->answered;
    /* What runs since before a restart was handed over by another server than this one. */
    if (t->hand_overs <= t->record.attempts)
        t->hand_overs = hand_overs_of(t->record.attempts + 1);
    timer_attempt(c, t);
}

static enum verdict verdict_running(
    struct core *c, struct worker *w, struct task *t, const struct held *held)
{
    if (!t || task_ended(t) || t->cancelling)
        return VERDICT_CANCEL;
    /* It fails and is kept, again and again, while the store says nothing. */
    if (t->operations > OPERATIONS_MOST)
        return VERDICT_CANCEL;
    if (t->state == TASK_LEASED) {
        if (t->worker == w && t->lease == held->lease)
            return VERDICT_KEEP; /* named twice */
        /* Another has it: it stays there if it runs there, else it goes on here. */
        if (t->worker == w || t->started)
            return VERDICT_CANCEL;
        attempt_fence(c, t);
        task_move(c, t, TASK_READY);
    }
    keep(c, w, t, held);
    return VERDICT_KEEP;
}

static enum verdict verdict_answered(
    struct core *c, struct worker *w, struct task *t, const struct held *held)
{
    assert(held->answered);
    if (!t || (task_ended(t) && t->state != TASK_FINISHING))
        return VERDICT_FORGET;
    /*
     * Nobody else gets it, for its answer is on the way. Unless that is a failure that was stored
     * before: then it says nothing new, and another may run the next attempt.
     */
    bool waits = t->state == TASK_READY || t->state == TASK_HELD ||
                 (t->state == TASK_DELAYED && !t->backing_off);
    if (waits && !lease_counted(t, held->lease))
        keep(c, w, t, held);
    else
        idmap_put(&w->claims, held->lease, held->id); /* no memory: it will count for nothing */
    return VERDICT_SEND;
}

static enum verdict verdict_of(
    struct core *c, struct worker *w, struct task *t, const struct held *held)
{
    assert(!t || t->record.id == held->id);
    return held->answered ? verdict_answered(c, w, t, held) : verdict_running(c, w, t, held);
}

/* "A JOIN of a known instance fences its old session in the same step." */
static void welcome(struct core *c, const struct join *j)
{
    struct worker *old = worker_by_instance(c, j->instance);
    if (old)
        worker_supersede(c, old);
    loss_rejoined(c, j->instance);
    struct worker *w = worker_new(c, j);
    uint8_t *verdicts = arena_alloc(c, j->held_count + 1);
    struct held *held = arena_alloc(c, (j->held_count + 1) * sizeof *held);
    if (!w || !verdicts || !held) {
        refuse(c, j, PUSHROD_E_NO_MEMORY, true, NULL);
        if (w)
            worker_remove(c, w, PUSHROD_E_NO_MEMORY, false);
        return;
    }
    for (size_t i = 0; i < j->held_count; i++) {
        struct task *t = ledger_find_lease(&c->ledger, j->held[i].lease, j->held[i].id);
        held[i] = j->held[i];
        verdicts[i] = (uint8_t)verdict_of(c, w, may_hold(c, t, &held[i]) ? t : NULL, &held[i]);
    }
    worker_record(c, w);
    restart_rejoined(c, j->instance);
    out_join(c, (struct join_action){.kind = JOIN_WELCOME,
                    .peer = j->peer,
                    .worker = w->id,
                    .session = w->session,
                    .held = held,
                    .verdicts = verdicts,
                    .held_count = j->held_count});
    out_worker_notice(c, NOTICE_WORKER_JOIN, w, 0, NULL);
}

/* ---- look-ups first ---- */

static size_t joining_size(const struct join *j)
{
    size_t each = sizeof *j->held + sizeof(bool);
    size_t size = sizeof(struct joining) + j->held_count * each + j->name.size + j->host.size + 2;
    for (size_t i = 0; i < j->queue_count; i++)
        size += sizeof j->queues[i] + j->queues[i].size + 1;
    assert(j->held_count > 0);
    return size;
}

static struct joining *joining_new(const struct join *j)
{
    struct joining *joining = malloc(joining_size(j));
    if (!joining)
        return NULL;
    *joining = (struct joining){.join = *j};
    list_init(&joining->in_core);
    memcpy(joining->held, j->held, j->held_count * sizeof *j->held);
    struct slice *queues = (struct slice *)(joining->held + j->held_count);
    joining->ended = (bool *)(queues + j->queue_count);
    memset(joining->ended, false, j->held_count * sizeof *joining->ended);
    uint8_t *at = (uint8_t *)(joining->ended + j->held_count);
    for (size_t i = 0; i < j->queue_count; i++)
        at = put(at, &queues[i], j->queues[i]);
    at = put(at, &joining->join.name, j->name);
    at = put(at, &joining->join.host, j->host);
    assert(at == (uint8_t *)joining + joining_size(j));
    joining->join.queues = queues;
    joining->join.held = joining->held;
    return joining;
}

/* The store may have it: else its verdict is clear. */
static bool may_be_stored(const struct core *c, const struct held *held)
{
    assert(held);
    return !ledger_find_lease(&c->ledger, held->lease, held->id) && may_hold(c, NULL, held);
}

static bool all_in_memory(const struct core *c, const struct join *j)
{
    assert(j->held_count == 0 || j->held);
    for (size_t i = 0; i < j->held_count; i++)
        if (may_be_stored(c, &j->held[i]))
            return false;
    return true;
}

static void hold_ready(struct core *c, const struct join *j)
{
    assert(j->held_count > 0);
    for (size_t i = 0; i < j->held_count; i++) {
        struct task *t = ledger_find_lease(&c->ledger, j->held[i].lease, j->held[i].id);
        if (t && t->state == TASK_READY && may_hold(c, t, &j->held[i]))
            restart_hold(c, t);
    }
}

void join_hold(struct core *c)
{
    assert(c->ticking);
    list_foreach(it, next, &c->joining)
        hold_ready(c, &container_of(it, struct joining, in_core)->join);
}

/*
 * Once more when all is answered: what was in memory before may have gone to the store meanwhile,
 * and lives. What a look-up brought stays. False: none was asked for.
 */
static bool look_up(struct core *c, struct joining *joining)
{
    const struct join *j = &joining->join;
    size_t waiting = joining->waiting;
    assert(waiting <= 1 && !joining->code);
    for (size_t i = 0; i < j->held_count; i++) {
        if (joining->ended[i] || !may_be_stored(c, &j->held[i]))
            continue;
        if (!request_ask(c, STORE_LOOKUP, j->held[i].id,
                (struct request){.kind = REQUEST_HELD, .joining = joining, .slot = (uint32_t)i})) {
            joining->code = PUSHROD_E_NO_MEMORY;
            break;
        }
        joining->waiting++;
    }
    return joining->waiting > waiting;
}

/* Why the core does not know what became of the task, and so has no verdict; 0: it does. */
static int unknown_code(const struct task *t, const struct store_event *e)
{
    assert(e->outcome != OUTCOME_LATER);
    if (t || e->outcome == OUTCOME_GONE)
        return 0;
    if (e->outcome != OUTCOME_STORED)
        return stored_code(e);
    return e->record_count ? PUSHROD_E_NO_MEMORY : 0;
}

/* A task that the store has comes into memory; READY or HELD is decided by the verdict. */
void join_looked_up(struct core *c, struct request *r, const struct store_event *e)
{
    struct joining *joining = r->joining;
    assert(joining && joining->waiting > 0);
    struct task *t = request_adopt(c, r, e);
    int code = unknown_code(t, e);
    assert(r->slot < joining->join.held_count);
    joining->ended[r->slot] = !t && !code;
    if (!joining->code)
        joining->code = code;
    if (joining->waiting > 1)
        return;
    if (!joining->code && !joining->outdated && look_up(c, joining))
        return;
    list_remove(&joining->in_core);
    if (joining->code && !joining->outdated)
        refuse(c, &joining->join, joining->code, true, NULL);
    else if (!joining->outdated && join_check(c, &joining->join))
        welcome(c, &joining->join);
}

/* The same process has asked anew: what its older JOIN waits for would end the newer session. */
static void outdate(struct core *c, const uint8_t instance[INSTANCE_SIZE])
{
    assert(instance);
    list_foreach(it, next, &c->joining)
    {
        struct joining *joining = container_of(it, struct joining, in_core);
        joining->outdated |= memcmp(joining->join.instance, instance, INSTANCE_SIZE) == 0;
    }
}

void core_join(struct core *c, const struct join *j)
{
    if (!join_check(c, j))
        return;
    outdate(c, j->instance);
    assert(j->held_count == 0 || j->held);
    if (c->bypass || all_in_memory(c, j)) {
        welcome(c, j);
        return;
    }
    struct joining *joining = joining_new(j);
    if (joining && look_up(c, joining)) {
        list_push_back(&c->joining, &joining->in_core);
        return;
    }
    free(joining);
    refuse(c, j, PUSHROD_E_NO_MEMORY, true, NULL);
}

void joining_release(struct joining *joining)
{
    assert(joining->waiting > 0);
    if (--joining->waiting)
        return;
    list_remove(&joining->in_core);
    free(joining);
}
