/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worker: its state, the room that it has, what it has, and what it was told is stored.
 *
 * Its load is what it has outstanding and its ghosts. By that it is in one of the rooms of its
 * group: EMPTY and IDLE have an idle slot, FILLING takes prefetch, NONE nothing. worker_room() is
 * called after whatever may change that, and tells the scheduler of what got better.
 */
#include <assert.h>
#include <stdlib.h>
#include "server/core/verbs.h"

#define TO(NAME) (1u << WORKER_##NAME)

static const uint8_t worker_allowed[WORKER_STATE_COUNT] = {
    [WORKER_JOINING] = TO(READY) | TO(OVER),
    [WORKER_READY] = TO(DRAINING) | TO(OVER),
    [WORKER_DRAINING] = TO(OVER),
    [WORKER_OVER] = 0,
};

struct worker *worker_find(const struct core *c, uint64_t id)
{
    struct worker *w = idmap_pointer(&c->worker_by_id, id);
    assert(!w || w->id == id);
    return w;
}

struct worker *worker_by_instance(const struct core *c, const uint8_t instance[INSTANCE_SIZE])
{
    list_foreach(it, next, &c->workers)
    {
        struct worker *w = container_of(it, struct worker, in_core);
        assert(w->state != WORKER_OVER);
        if (memcmp(w->instance, instance, INSTANCE_SIZE) == 0)
            return w;
    }
    return NULL;
}

/* Who may hold tasks, and is waited for after a restart. It gets none before the store has it. */
void worker_record(struct core *c, struct worker *w)
{
    struct store_op *op = c->bypass ? NULL : out_store(c, STORE_WORKER, w->id);
    assert(!w->recording);
    w->unrecorded = false;
    w->recording = op != NULL;
    if (op)
        op->instance = arena_slice(c, slice_of(w->instance, INSTANCE_SIZE));
    worker_room(c, w);
}

/* Nothing but queues without a store goes on when the store cannot, and those need no record. */
void worker_recorded(struct core *c, uint64_t id, bool stored)
{
    struct worker *w = worker_find(c, id);
    if (!w)
        return;
    assert(w->recording && w->state != WORKER_OVER);
    w->recording = false;
    w->unrecorded = !stored;
    worker_room(c, w);
}

void worker_off_record(struct core *c, const uint8_t instance[INSTANCE_SIZE])
{
    struct store_op *op = c->bypass ? NULL : out_store(c, STORE_WORKER, 0);
    assert(instance);
    if (!op)
        return;
    op->instance = arena_slice(c, slice_of(instance, INSTANCE_SIZE));
    op->gone = true;
}

/* It is not to be empty for a suspect any more: that one needs another worker. */
static void not_alone(struct core *c, struct worker *w)
{
    struct group *g = w->group;
    assert(g);
    if (g->alone != w)
        return;
    g->alone = NULL;
    group_touch(c, g);
}

void worker_move(struct core *c, struct worker *w, enum worker_state to)
{
    assert(worker_allowed[w->state] & 1u << to);
    if (to == WORKER_READY) {
        w->group->workers++;
        w->group->slots += w->slots;
        c->stats.slots += w->slots;
    } else if (w->state == WORKER_READY) {
        w->group->workers--;
        w->group->slots -= w->slots;
        c->stats.slots -= w->slots;
        not_alone(c, w);
    }
    w->state = (uint8_t)to;
    worker_room(c, w);
    if (to == WORKER_READY)
        target_touch(c, w->named);
}

/* ---- what it has room for ---- */

/* Prefetch: as many as fill about a millisecond, or one for each slot; up to its own limit. */
static enum room worker_room_now(const struct worker *w, uint32_t load)
{
    if (w->state != WORKER_READY || w->recording || w->alone || w->group->alone == w)
        return ROOM_NONE;
    if (load < w->slots)
        return load ? ROOM_IDLE : ROOM_EMPTY;
    if (w->ghosts.count >= w->slots) /* nobody knows for how long */
        return ROOM_NONE;
    bool one_more = load < 2 * w->slots && w->expected_ns < w->slots * AHEAD_NS;
    bool filling = w->expected_ns < w->slots * FILL_NS || one_more;
    return filling && load < w->slots + w->max_prefetch ? ROOM_FILLING : ROOM_NONE;
}

/* Lanes with more than their worker can run, the longest without progress first. */
static void worker_depth(struct core *c, struct worker *w, uint32_t load)
{
    bool deep = w->state == WORKER_READY && load > w->slots;
    bool was = !list_empty(&w->deep_node);
    assert(load == worker_load(w));
    if (deep && !was) {
        w->progress_ns = c->now.mono_ns;
        list_push_back(&c->deep, &w->deep_node);
    } else if (!deep && was) {
        list_remove(&w->deep_node);
    }
}

void worker_room(struct core *c, struct worker *w)
{
    struct group *g = w->group;
    uint32_t load = worker_load(w);
    enum room room = worker_room_now(w, load);
    uint32_t idle = room <= ROOM_IDLE ? w->slots - load : 0;
    assert(g->idle_slots >= w->idle);
    g->idle_slots = g->idle_slots - w->idle + idle;
    bool more = idle > w->idle || room < w->room;
    w->idle = idle;
    worker_depth(c, w, load);
    if (room != w->room || (room != ROOM_NONE && list_last(&g->rooms[room]) != &w->in_room)) {
        list_remove(&w->in_room);
        list_push_back(&g->rooms[room], &w->in_room);
        w->room = (uint8_t)room;
    }
    if (more || room == ROOM_FILLING || (g->alone == w && load == 0))
        group_touch(c, g);
    if (more || room == ROOM_FILLING)
        target_touch(c, w->named);
}

/* ---- what it has ---- */

/* Its bytes count in the lane's credit until it says anything about the task. */
void worker_give(struct core *c, struct worker *w, struct task *t)
{
    assert(t->state == TASK_LEASED && !t->worker && t->lease);
    if (t->recovering)
        stats_recovered(c, t);
    t->worker = w;
    t->leased_ns = c->now.mono_ns;
    t->estimate_ns = service_estimate(w->group, t->queue);
    t->ahead = worker_load(w) >= w->slots;
    t->in_flight = true;
    t->alone = t->record.suspect;
    w->credits[task_credit(c, t)].bytes += t->record.payload.size;
    if (t->ahead)
        c->flight_bytes += t->record.payload.size;
    w->expected_ns += t->estimate_ns;
    w->outstanding_count++;
    list_push_back(&w->outstanding, &t->node);
    if (t->alone)
        w->alone = true;
    worker_room(c, w);
}

void worker_arrived(struct core *c, struct task *t)
{
    if (!t->in_flight)
        return;
    struct credit *credit = &t->worker->credits[task_credit(c, t)];
    assert(credit->bytes >= t->record.payload.size);
    t->in_flight = false;
    credit->bytes -= t->record.payload.size;
    if (t->ahead)
        c->flight_bytes -= t->record.payload.size;
    if (t->worker->room == ROOM_NONE)
        return;
    group_touch(c, t->worker->group);
    if (t->worker->named->waiting)
        target_touch(c, t->worker->named);
}

/* The WITHDRAW was answered, by whatever: the idle slot that it had reserved is free again. */
void worker_unreserve(struct core *c, struct task *t)
{
    if (!t->reserved_by)
        return;
    struct group *g = c->groups[t->reserved_by - 1];
    assert(g && g->reserved > 0);
    g->reserved--;
    t->reserved_by = 0;
    group_release(c, g);
}

void worker_drop(struct core *c, struct task *t)
{
    struct worker *w = t->worker;
    assert(w && w->outstanding_count > 0 && w->expected_ns >= t->estimate_ns);
    list_remove(&t->node);
    w->outstanding_count--;
    w->expected_ns -= t->estimate_ns;
    worker_arrived(c, t);
    worker_unreserve(c, t);
    /* Fenced, a suspect still runs there: nothing else does until it is answered. */
    if (t->alone)
        w->alone = w->ghosts.count > 0;
    t->started = t->alone = t->ahead = t->asked_back = false;
    worker_room(c, w);
}

/* ---- acknowledgements ---- */

/* The answer is acknowledged when the store has the task's new state, and those before it too. */
void worker_settle(struct worker *w, struct task *t, uint64_t sequence)
{
    assert(t->state == TASK_FINISHING || t->state == TASK_MOVING);
    t->worker = w;
    t->sequence = sequence;
    list_push_back(&w->settling, &t->node);
}

/* The last answer below which all are settled. */
static uint64_t worker_settled(const struct worker *w)
{
    const struct list *first = list_first(&w->settling);
    uint64_t settled = first ? container_of(first, struct task, node)->sequence - 1 : w->received;
    assert(settled >= w->acked);
    return settled;
}

/*
 * An ACK alone is a message of its own, with a wake-up of its own at the other end; the next task
 * or tick mostly takes it along. Who leaves waits for it, and what is large must not be kept long.
 */
static bool worker_ack_waits(const struct core *c, const struct worker *w)
{
    assert(!list_empty(&w->ack_node));
    return w->state == WORKER_READY && w->spoken_ns != c->now.mono_ns && w->ack_bytes < ACK_BYTES &&
           c->now.mono_ns < w->ack_due_ns;
}

void worker_acks(struct core *c)
{
    list_foreach(it, next, &c->acks)
    {
        struct worker *w = container_of(it, struct worker, ack_node);
        assert(w->state != WORKER_OVER && w->acked <= w->received);
        uint64_t settled = worker_settled(w);
        bool news = settled != w->acked;
        if (news && worker_ack_waits(c, w))
            continue;
        list_remove(&w->ack_node);
        if (!news)
            continue;
        w->acked = settled;
        w->ack_bytes = 0;
        out_lane(c, w, LANE_ACK)->number = settled;
    }
}

/* They became due in the order in which they are in the list. */
uint64_t worker_acks_next(const struct core *c)
{
    const struct list *first = list_first(&c->acks);
    assert(!first || container_of(first, struct worker, ack_node)->state != WORKER_OVER);
    return first ? container_of(first, struct worker, ack_node)->ack_due_ns : NEVER;
}

void worker_ack_later(struct core *c, struct worker *w)
{
    assert(w->state <= WORKER_OVER);
    if (!list_empty(&w->ack_node) || w->state == WORKER_OVER)
        return;
    w->ack_due_ns = c->now.mono_ns + c->config.ack_ms * MS;
    list_push_back(&c->acks, &w->ack_node);
}

/* ---- the end ---- */

static void group_leave(struct core *c, struct worker *w)
{
    struct group *g = w->group;
    assert(g->members > 0);
    g->members--;
    w->group = NULL;
    group_release(c, g);
}

/* Everything that a group counts of this worker goes to the other one. */
static void worker_regroup(struct core *c, struct worker *w, struct group *to)
{
    struct group *from = w->group;
    assert(to != from && from->idle_slots >= w->idle);
    bool ready = w->state == WORKER_READY;
    from->idle_slots -= w->idle;
    from->workers -= ready;
    from->slots -= ready ? w->slots : 0;
    list_remove(&w->in_room);
    not_alone(c, w);
    group_leave(c, w);
    w->group = to;
    w->idle = 0;
    w->room = ROOM_NONE;
    to->members++;
    to->workers += ready;
    to->slots += ready ? w->slots : 0;
    worker_room(c, w);
}

/* It moves to a group that has the queue as an exception: a pattern that begins with '!'. */
void worker_stop_serving(struct core *c, struct worker *w, struct queue *q)
{
    struct group *from = w->group;
    assert(w->state != WORKER_OVER);
    if (!group_serves(from, q))
        return;
    size_t count = from->pattern_count;
    struct slice *patterns = arena_alloc(c, (count + 1) * sizeof *patterns);
    const char *except = arena_text(c, "!%.*s", (int)q->name.size, (const char *)q->name.data);
    if (!patterns || !except)
        return;
    memcpy(patterns, from->patterns, count * sizeof *patterns);
    patterns[count] = slice_str(except);
    struct group *to = group_get(c, patterns, count + 1);
    if (!to)
        return;
    assert(to != from);
    worker_regroup(c, w, to);
    char *queue = arena_text(c, "%.*s", (int)q->name.size, (const char *)q->name.data);
    out_worker_notice(c, NOTICE_WORKER_BROKEN, w, PUSHROD_E_HANDLER_BROKEN, queue ? queue : "");
    watch_event(
        c, "worker-broken", 0, w->name, q->name, pushrod_strerror(PUSHROD_E_HANDLER_BROKEN));
}

/* Its tasks have gone elsewhere before, and left their leases among the ghosts. */
void worker_remove(struct core *c, struct worker *w, int code, bool tell_lane)
{
    assert(w->outstanding_count == 0);
    if (tell_lane)
        out_lane(c, w, LANE_FENCED)->number = (uint64_t)code;
    out_join(c, (struct join_action){.kind = JOIN_CLOSE,
                    .peer = w->peer,
                    .worker = w->id,
                    .code = code,
                    .text = (const char *)w->name.data});
    worker_move(c, w, WORKER_OVER);
    list_foreach(it, next, &w->settling)
    {
        container_of(it, struct task, node)->worker = NULL;
        list_remove(it);
    }
    idmap_remove(&c->worker_by_id, w->id);
    heap_remove(&c->worker_timers, &w->timer);
    list_remove(&w->in_room);
    list_remove(&w->ack_node);
    target_leave(c, w);
    list_remove(&w->in_core);
    list_push_back(&c->workers_over, &w->in_core);
    c->worker_count--;
    group_leave(c, w);
}

void worker_free(struct worker *w)
{
    assert(w);
    list_remove(&w->in_named);
    idmap_free(&w->ghosts);
    idmap_free(&w->claims);
    pieces_drop(w);
    free(w);
}
