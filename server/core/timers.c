/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two heaps, by the monotonic clock (backoff, fences, lost workers) and by the wall clock (due,
 * expiry, unique keys), and one of workers. A heap, and not a wheel: it is exact, so an idle server
 * wakes up for nothing, and tasks without timeout, delay or expiry, the many, are in none.
 */
#include <assert.h>
#include "server/core/verbs.h"

#define TIMEOUT_EXTRA (2000 * MS)  /* the worker's own enforcement comes first */
#define TIMEOUT_RATE  (128u << 10) /* bytes of its payload that come in a second: 1 Mbit/s */
#define QUIET_PINGS   4u           /* periods of PING until a worker without work gets its next */
#define BULKY_PINGS   2u           /* ... that one amid a large result may be silent longer */

/* ---- tasks ---- */

static uint64_t timer_tie(uint64_t id, enum timer_kind kind)
{
    assert(id < UINT64_C(1) << 62);
    return id << 2 | (uint64_t)kind;
}

/* No memory for the timer: rather too early than never. */
void task_delay(struct core *c, struct task *t, uint64_t mono_ns)
{
    assert(mono_ns || t->record.due_ms);
    task_move(c, t, TASK_DELAYED);
    t->backing_off = mono_ns != 0;
    struct heap *heap = mono_ns ? &c->by_mono : &c->by_wall;
    uint64_t key = mono_ns ? mono_ns : t->record.due_ms;
    if (!heap_push(heap, &t->place, key, timer_tie(t->record.id, TIMER_DELAY)))
        task_requeue(c, t);
}

void timer_undelay(struct core *c, struct task *t)
{
    assert(t->state == TASK_DELAYED);
    heap_remove(t->backing_off ? &c->by_mono : &c->by_wall, &t->place);
    t->backing_off = false;
}

void timer_expiry(struct core *c, struct task *t)
{
    struct rare *rare = t->rare;
    assert(rare && rare->expires_ms);
    timer_stop(c, t);
    rare->by_wall = true;
    heap_push(&c->by_wall, &rare->timer, rare->expires_ms, timer_tie(t->record.id, TIMER_RARE));
}

/* No memory: then the server does not fence it, and only the worker ends it in time. */
void timer_fence(struct core *c, struct task *t, uint64_t mono_ns)
{
    struct rare *rare = task_rare(t);
    assert(t->state == TASK_LEASED);
    if (!rare)
        return;
    timer_stop(c, t);
    rare->by_wall = false;
    heap_push(&c->by_mono, &rare->timer, mono_ns, timer_tie(t->record.id, TIMER_RARE));
}

/*
 * "The worker enforces it; the server fences the attempt 2 s later." Its time begins there when all
 * of its payload has come.
 */
void timer_timeout(struct core *c, struct task *t)
{
    assert(t->record.timeout_ms > 0 && t->record.timeout_ms <= FAR_MS);
    uint64_t way_ms = t->record.payload.size * 1000 / TIMEOUT_RATE;
    timer_fence(c, t, c->now.mono_ns + (t->record.timeout_ms + way_ms) * MS + TIMEOUT_EXTRA);
}

void timer_stop(struct core *c, struct task *t)
{
    assert(t->rare);
    heap_remove(t->rare->by_wall ? &c->by_wall : &c->by_mono, &t->rare->timer);
}

static bool is_running(const struct task *t)
{
    uint32_t running = worker_running(t->worker), place = 0;
    const struct list *it = t->worker->outstanding.next;
    assert(t->state == TASK_LEASED);
    for (; it != &t->node && place < running; it = it->next)
        place++;
    return task_may_run(t, place, running);
}

/* Over a slow link what its worker says comes behind large results: it may have ended in time. */
static bool is_behind(const struct core *c, const struct worker *w)
{
    assert(w->bulk_ns <= c->now.mono_ns);
    return w->bulk_ns && c->now.mono_ns - w->bulk_ns < TIMEOUT_EXTRA;
}

/* The worker did not end it in time: the attempt is over here, whatever it says later. */
static void fence(struct core *c, struct task *t)
{
    assert(t->state == TASK_LEASED);
    if (!t->cancelling && !is_running(t)) {
        timer_attempt(c, t);
        return;
    }
    if (!t->cancelling && is_behind(c, t->worker)) {
        timer_fence(c, t, t->worker->bulk_ns + TIMEOUT_EXTRA);
        return;
    }
    attempt_fence(c, t);
    if (t->cancelling)
        task_finish(c, t, PUSHROD_CANCELLED, PUSHROD_E_TASK_CANCELLED);
    else
        attempt_over(c, t, PUSHROD_E_TASK_TIMEOUT,
            slice_str(pushrod_strerror(PUSHROD_E_TASK_TIMEOUT)), false, 0);
}

static void rare_fired(struct core *c, struct rare *rare)
{
    struct task *t = rare->task;
    /* Each move of a task stops its timer, and only these two states set one. */
    assert(t->state == TASK_LEASED || t->state == TASK_READY);
    if (t->state == TASK_LEASED)
        fence(c, t);
    else
        task_finish(c, t, PUSHROD_EXPIRED, PUSHROD_E_TASK_EXPIRED);
}

/* What is left then is the next tick's: its time is over, so that comes at once. */
static void heap_run(struct core *c, struct heap *heap, uint64_t now)
{
    struct heap_node *top;
    for (unsigned i = 0; i < TICK_EXPIRIES && (top = heap_top(heap)) && top->key <= now; i++) {
        enum timer_kind kind = top->tie & 3;
        if (kind == TIMER_DELAY) {
            task_requeue(c, container_of(top, struct task, place));
            continue;
        }
        heap_remove(heap, top);
        if (kind == TIMER_RARE)
            rare_fired(c, container_of(top, struct rare, timer));
        else if (kind == TIMER_UNIQUE)
            unique_expire(c, container_of(top, struct unique, timer));
        else
            loss_expire(c, container_of(top, struct loss, timer));
    }
}

bool timer_loss(struct core *c, struct loss *loss, uint64_t mono_ns)
{
    assert(mono_ns > c->now.mono_ns);
    return heap_push(&c->by_mono, &loss->timer, mono_ns, TIMER_LOSS);
}

bool timer_unique(struct core *c, struct unique *u, uint64_t wall_ms)
{
    assert(u->id != 0);
    return heap_push(&c->by_wall, &u->timer, wall_ms, timer_tie(u->id, TIMER_UNIQUE));
}

/* ---- workers ---- */

static uint64_t heard_ns(const struct core *c, const struct worker *w)
{
    assert(w->heard_ns <= c->now.mono_ns);
    return later(w->heard_ns, c->resumed_ns);
}

/* A quiet worker has nothing to lose, and the kernel asks for its host (TCP keepalive). */
static uint64_t ping_ms(const struct core *c, const struct worker *w)
{
    assert(c->config.ping_ms > 0);
    return c->config.ping_ms * (w->quiet ? QUIET_PINGS : 1);
}

static uint64_t ping_ns(const struct core *c, const struct worker *w)
{
    assert(w->spoken_ns <= c->now.mono_ns);
    return w->spoken_ns + ping_ms(c, w) * MS;
}

/* The last that was heard of it was of something large: over a slow link the next piece may take
 * its time, and a HEARTBEAT comes behind all of them. */
static bool is_bulky(const struct core *c, const struct worker *w)
{
    assert(w->bulk_ns <= c->now.mono_ns);
    return w->bulk_ns && w->heard_ns < w->bulk_ns + c->config.heartbeat_ms * MS;
}

/* A quiet worker has something to say only after its next PING. */
static uint64_t silence_ns(const struct core *c, const struct worker *w)
{
    assert(c->config.missed_heartbeats > 0);
    uint64_t ms = c->config.heartbeat_ms * c->config.missed_heartbeats;
    ms += w->quiet ? ping_ms(c, w) : 0;
    ms += is_bulky(c, w) ? BULKY_PINGS * c->config.ping_ms : 0;
    return ms * MS;
}

static uint64_t worker_next(const struct core *c, const struct worker *w)
{
    assert(w->state != WORKER_OVER);
    if (w->state == WORKER_JOINING)
        return w->deadline_ns > c->resumed_ns ? w->deadline_ns
                                              : c->resumed_ns + c->config.ready_wait_ms * MS;
    uint64_t silent = heard_ns(c, w) + silence_ns(c, w);
    uint64_t next = earlier(silent, ping_ns(c, w));
    return w->deadline_ns ? earlier(next, w->deadline_ns) : next;
}

/* Only looked at when it fires: what a worker says moves no timer. */
void worker_timer(struct core *c, struct worker *w)
{
    heap_remove(&c->worker_timers, &w->timer);
    bool pushed = heap_push(&c->worker_timers, &w->timer, worker_next(c, w), w->id);
    assert(pushed); /* the heap was grown when it joined */
    (void)pushed;
}

static void say_ping(struct core *c, struct worker *w, bool quiet)
{
    assert(w->state != WORKER_JOINING && w->state != WORKER_OVER);
    w->quiet = quiet;
    struct lane_action *ping = out_lane(c, w, LANE_PING);
    ping->number = w->acked;
    ping->beat = !quiet;
    ping->next_ms = ping_ms(c, w);
}

/* One that has nothing to do is quiet from now on: its heartbeats would wake us up for nothing. */
static void worker_ping(struct core *c, struct worker *w)
{
    assert(w->state != WORKER_JOINING && w->state != WORKER_OVER);
    say_ping(c, w, w->state == WORKER_READY && worker_load(w) == 0);
}

/* Told ahead of its task: while it receives a large one it does not know yet that it has any. */
void worker_rouse(struct core *c, struct worker *w)
{
    assert(w->quiet && w->state == WORKER_READY);
    w->heard_ns = c->now.mono_ns;
    say_ping(c, w, false);
    worker_timer(c, w);
}

/* True: there was a PING to be said. */
static bool worker_fired(struct core *c, struct worker *w)
{
    uint64_t now = c->now.mono_ns;
    assert(w->state != WORKER_OVER);
    if (worker_next(c, w) > now) {
        worker_timer(c, w);
        return false;
    }
    if (w->state == WORKER_JOINING) {
        core_worker_lost(c, w->id, PUSHROD_E_LANE_UNREACHABLE, now);
        return false;
    }
    bool late = w->deadline_ns && w->deadline_ns <= now;
    bool silent = heard_ns(c, w) + silence_ns(c, w) <= now;
    if (late || silent) {
        c->stats.workers_silent += silent;
        core_worker_lost(c, w->id, PUSHROD_E_TIMED_OUT, silent ? heard_ns(c, w) : now);
        return false;
    }
    bool due = ping_ns(c, w) <= now;
    if (due)
        worker_ping(c, w);
    worker_timer(c, w);
    return due;
}

/*
 * Idle workers wake nobody up: while the core is awake for something else, the timers that would
 * soon fire for nothing are moved, and who is to get a PING soon gets it with another one's.
 */
static void workers_run(struct core *c)
{
    uint64_t now = c->now.mono_ns;
    bool pinged = false;
    for (struct heap_node *top; (top = heap_top(&c->worker_timers));) {
        struct worker *w = container_of(top, struct worker, timer);
        assert(w->state != WORKER_OVER);
        if (top->key <= now) {
            pinged |= worker_fired(c, w);
        } else if (top->key > now + c->config.heartbeat_ms * MS) {
            break;
        } else if (worker_next(c, w) > top->key) {
            worker_timer(c, w);
        } else if (pinged && w->state != WORKER_JOINING && top->key == ping_ns(c, w) &&
                   top->key <= now + c->config.ping_ms * MS / 10) {
            worker_ping(c, w);
            worker_timer(c, w);
        } else {
            break;
        }
    }
}

/* ---- all ---- */

uint64_t wall_to_mono(const struct core *c, uint64_t wall_ms)
{
    assert(c->now.mono_ns > 0);
    if (wall_ms <= c->now.wall_ms)
        return c->now.mono_ns;
    uint64_t ahead = wall_ms - c->now.wall_ms;
    return ahead > FAR_MS ? NEVER : c->now.mono_ns + ahead * MS;
}

void timers_run(struct core *c)
{
    assert(c->now.mono_ns > 0);
    heap_run(c, &c->by_mono, c->now.mono_ns);
    heap_run(c, &c->by_wall, c->now.wall_ms);
    workers_run(c);
    finish_expire(c);
}

uint64_t timers_next(const struct core *c)
{
    uint64_t next = NEVER;
    assert(c->wake_ns > 0);
    if (heap_top(&c->by_mono))
        next = earlier(next, heap_top(&c->by_mono)->key);
    if (heap_top(&c->by_wall))
        next = earlier(next, wall_to_mono(c, heap_top(&c->by_wall)->key));
    next = earlier(next, finish_next(c));
    if (heap_top(&c->worker_timers))
        next = earlier(next, heap_top(&c->worker_timers)->key);
    return earlier(next, worker_acks_next(c));
}
