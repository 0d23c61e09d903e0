/* SPDX-License-Identifier: Apache-2.0 */
#include "server/net/host.h"

#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include "common/log.h"
#include "common/buf.h"

#define ACTIONS_AHEAD 4u   /* whose tasks are fetched into the cache meanwhile */
#define STORE_POLL    4096 /* events of the store in one tick, at the most; records: STORE_PART */

/* What came of the core's actions while they were carried out. */
struct effect {
    enum { EFFECT_LANE_FAILED, EFFECT_CONN_CLOSED } kind;
    uint64_t id; /* of the worker or connection */
};

struct host {
    struct loop *loop;
    struct core *core;
    struct plane *plane;
    const struct store_ops *ops;
    struct store *store;
    struct event *store_event; /* NULL: the store has no descriptor and is polled */
    struct deferral store_poll;
    struct deferral effects_tell;
    struct buf effects;     /* struct effect */
    struct loop_timer wake; /* when the core wants to be called next */
    const struct host_events *events;
    void *arg;
    uint64_t late_ticks;
};

struct core *host_core(struct host *h)
{
    loop_enter(h->loop);
    return h->core;
}

/* ------------------------------------------------------------------------------- the store */

/* Reads what the store has done; if more is there than a tick should take, comes again. */
static void store_ready(void *arg)
{
    struct host *h = arg;
    loop_enter(h->loop);
    const struct store_event *events;
    size_t count = h->ops->poll(h->store, &events, STORE_POLL);
    if (count == 0)
        return;
    core_stored(h->core, events, count);
    if (count == STORE_POLL || events[count - 1].more)
        loop_defer(h->loop, &h->store_poll);
}

static void store_readable(int fd, short what, void *arg)
{
    (void)fd, (void)what;
    store_ready(arg);
}

static void store_submit(struct host *h, const struct actions *a)
{
    if (a->store_count == 0)
        return;
    h->ops->submit(h->store, a->store, a->store_count, loop_now(h->loop).wall_ms);
    /* Without a descriptor its events are there at once: in the next round. */
    if (!h->store_event)
        loop_defer(h->loop, &h->store_poll);
}

/* ---------------------------------------------------------------------------- worker plane */

static void on_join(void *arg, const struct join *join)
{
    core_join(host_core(arg), join);
}

static void on_obituary(void *arg, const struct msg_obituary *obituary)
{
    core_obituary(host_core(arg), obituary);
}

static void on_answers(
    void *arg, uint64_t worker, uint64_t session, const struct answer *answers, size_t count)
{
    core_answers(host_core(arg), worker, session, answers, count);
}

static void on_lane_cut(void *arg, uint64_t worker)
{
    core_worker_cut(host_core(arg), worker);
}

static void on_lane_unsent(void *arg, uint64_t worker, uint64_t id, uint64_t lease)
{
    core_unsent(host_core(arg), worker, id, lease);
}

static void on_lane_down(void *arg, uint64_t worker, int code, uint64_t since_ns)
{
    core_worker_lost(host_core(arg), worker, code, since_ns);
}

static const struct plane_events plane_events = {
    .join = on_join,
    .obituary = on_obituary,
    .answers = on_answers,
    .lane_cut = on_lane_cut,
    .lane_unsent = on_lane_unsent,
    .lane_down = on_lane_down,
};

/* ------------------------------------------------- what comes of carrying the actions out */

/* What the core asks for then, a task's cancelling, would be in nobody's tick before. */
static void effects_tell(void *arg)
{
    struct host *h = arg;
    const struct effect *e = (const struct effect *)(const void *)h->effects.data;
    for (size_t i = 0; i < h->effects.size / sizeof *e; i++) {
        if (e[i].kind == EFFECT_LANE_FAILED)
            core_lane_failed(h->core, e[i].id);
        else
            core_conn_closed(h->core, e[i].id);
    }
    buf_clear(&h->effects);
}

static void effect_note(struct host *h, struct effect effect)
{
    buf_append(&h->effects, &effect, sizeof effect);
    if (h->effects.failed)
        abort(); /* as without memory for actions: what was accepted is in the store */
    loop_defer(h->loop, &h->effects_tell);
}

void host_conn_closed(struct host *h, uint64_t conn)
{
    effect_note(h, (struct effect){EFFECT_CONN_CLOSED, conn});
}

/* ------------------------------------------------------------------------------ the actions */

static void join_welcome(struct host *h, const struct join_action *action)
{
    if (plane_welcome(h->plane, action) != 0)
        effect_note(h, (struct effect){EFFECT_LANE_FAILED, action->worker});
}

/* In the core's order: a worker that comes back to a full server takes the place it had. */
static void dispatch_joins(struct host *h, const struct actions *a)
{
    for (size_t i = 0; i < a->join_count; i++) {
        const struct join_action *action = &a->join[i];
        if (action->kind == JOIN_WELCOME)
            join_welcome(h, action);
        else if (action->kind == JOIN_REFUSE)
            plane_refuse(h->plane, action);
        else
            plane_close(h->plane, action);
    }
}

/* Only a hint, and harmless if the action has no task: a tick's tasks do not fit the first cache.
 */
static void task_expect(const struct task *task)
{
    uintptr_t at = (uintptr_t)task;
    __builtin_prefetch((const void *)at);
    __builtin_prefetch((const void *)(at + 128));
    __builtin_prefetch((const void *)(at + 192));
}

/* To workers from `first` up to `end`, which is left out. */
static void dispatch_lanes(struct host *h, const struct actions *a, uint64_t first, uint64_t end)
{
    for (size_t i = 0; i < a->lane_count; i++) {
        if (i + ACTIONS_AHEAD < a->lane_count)
            task_expect(a->lane[i + ACTIONS_AHEAD].task);
        if (a->lane[i].worker >= first && a->lane[i].worker < end)
            plane_put(h->plane, &a->lane[i]);
    }
    if (a->lane_count)
        plane_flush(h->plane);
}

/* Ids of workers rise: from this one on they are welcomed in this tick. */
static uint64_t first_welcomed(const struct actions *a)
{
    for (size_t i = 0; i < a->join_count; i++)
        if (a->join[i].kind == JOIN_WELCOME)
            return a->join[i].worker;
    return UINT64_MAX;
}

/* Lanes that end get their last words, FENCED and the last ACK, before they are closed. */
static void dispatch_workers(struct host *h, const struct actions *a)
{
    uint64_t first_new = first_welcomed(a);
    dispatch_lanes(h, a, 0, first_new);
    dispatch_joins(h, a);
    if (first_new != UINT64_MAX)
        dispatch_lanes(h, a, first_new, UINT64_MAX);
}

static void dispatch_conns(struct host *h, const struct actions *a)
{
    size_t i = 0;
    while (i < a->conn_count) {
        if (i + ACTIONS_AHEAD < a->conn_count)
            task_expect(a->conn[i + ACTIONS_AHEAD].task);
        if (a->conn[i].conn == CONN_SELF) {
            h->events->self(h->arg, &a->conn[i++]);
            continue;
        }
        size_t first = i;
        while (i < a->conn_count && a->conn[i].conn == a->conn[first].conn)
            i++;
        h->events->clients(h->arg, a->conn + first, i - first);
    }
}

/* -------------------------------------------------------------------------------- the tick */

/* Read what came while this process did not run, before the core judges deadlines. */
static void tick_begin(void *arg, struct now now)
{
    struct host *h = arg;
    if (!core_begin(h->core, now))
        return;
    h->late_ticks++;
    plane_drain_input(h->plane);
}

static void tick_wake(struct host *h, uint64_t wake_ns)
{
    if (wake_ns == UINT64_MAX)
        loop_timer_clear(h->loop, &h->wake);
    else if (!heap_holds(&h->wake.node) || h->wake.node.key != wake_ns)
        loop_timer_set(h->loop, &h->wake, wake_ns);
}

static void tick_end(void *arg)
{
    struct host *h = arg;
    const struct actions *a = core_end(h->core);
    if (a->failed) {
        log_error(
            "out of memory: the server ends as a crash would; what was accepted is in the store");
        abort();
    }
    store_submit(h, a);
    dispatch_workers(h, a);
    for (size_t i = 0; i < a->notice_count; i++)
        h->events->notice(h->arg, &a->notices[i]);
    dispatch_conns(h, a);
    h->events->pause(h->arg, a->pause_clients);
    tick_wake(h, a->wake_ns);
    h->events->flush(h->arg);
}

static const struct loop_hooks tick_hooks = {tick_begin, tick_end};

static void woken(void *arg)
{
    (void)arg; /* the tick that the timer began is all that the core wants */
}

/* -------------------------------------------------------------------------------- lifetime */

static bool host_open_store(
    struct host *h, const struct host_config *config, struct store_opened *opened, char **error)
{
    struct store_config store = config->store_config;
    store.now_ms = loop_now(h->loop).wall_ms;
    h->ops = config->store;
    h->store = h->ops->open(&store, opened, error);
    if (!h->store)
        return false;
    if (store.path && opened->boot == 1) /* who mistyped it would not miss anything else */
        log_info("the store in %s is new", store.path);
    int fd = h->ops->event_fd(h->store);
    if (fd < 0)
        return true;
    h->store_event = event_new(loop_base(h->loop), fd, EV_READ | EV_PERSIST, store_readable, h);
    return h->store_event && event_add(h->store_event, NULL) == 0;
}

static bool host_open(struct host *h, const struct host_config *config, char **error)
{
    struct store_opened opened = {0};
    if (!host_open_store(h, config, &opened, error))
        return false;
    struct core_config core = config->core;
    core.store = h->ops->capabilities(h->store);
    if (getrandom(&core.seed, sizeof core.seed, 0) != (ssize_t)sizeof core.seed)
        core.seed = loop_now(h->loop).mono_ns;
    h->core = core_new(&core, config->queues, config->queue_count, &opened);
    if (!h->core)
        return false;
    h->plane = plane_new(h->loop, &config->plane, &plane_events, h, error);
    return h->plane != NULL;
}

struct host *host_new(struct loop *loop, const struct host_config *config,
    const struct host_events *events, void *arg, char **error)
{
    *error = NULL;
    struct host *h = calloc(1, sizeof *h);
    if (!h)
        return NULL;
    h->loop = loop;
    h->events = events;
    h->arg = arg;
    h->wake.fn = woken;
    deferral_init(&h->store_poll, store_ready, h);
    deferral_init(&h->effects_tell, effects_tell, h);
    if (!host_open(h, config, error)) {
        host_free(h);
        if (!*error)
            *error = strdup("out of memory or descriptors");
        return NULL;
    }
    loop_hook(loop, &tick_hooks, h);
    /* The first tick: the core asks for what a restart left, and says when to wake it. */
    loop_enter(loop);
    return h;
}

void host_free(struct host *h)
{
    if (!h)
        return;
    loop_hook(h->loop, NULL, NULL);
    loop_timer_clear(h->loop, &h->wake);
    loop_undefer(&h->store_poll);
    loop_undefer(&h->effects_tell);
    buf_free(&h->effects);
    if (h->plane)
        plane_free(h->plane);
    if (h->store_event)
        event_free(h->store_event);
    if (h->store)
        h->ops->close(h->store);
    if (h->core)
        core_free(h->core);
    free(h);
}

const struct core_stats *host_stats(struct host *h)
{
    return core_stats(h->core);
}

bool host_queue_next(const struct host *h, const struct queue **at, struct core_queue_stats *stats)
{
    return core_queue_next(h->core, at, stats);
}

bool host_set_token(struct host *h, const char *token)
{
    return plane_set_token(h->plane, token);
}

const struct plane *host_plane(const struct host *h)
{
    return h->plane;
}

struct store_usage host_store_usage(const struct host *h)
{
    return h->ops->usage(h->store);
}

bool host_store_down(const struct host *h)
{
    return core_store_code(h->core) != 0;
}

uint64_t host_late_ticks(const struct host *h)
{
    return h->late_ticks;
}
