/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a core, and its tick: what happens between core_begin() and core_end(), in which
 * order. Decides nothing by itself.
 */
#include <assert.h>
#include <stdlib.h>
#include "server/core/verbs.h"

/* ---- a core begins ---- */

#define DEFAULT(field, value)                                                                      \
    if (!c->config.field)                                                                          \
    c->config.field = (value)

static void config_fill(struct core *c)
{
    DEFAULT(heartbeat_ms, 1000);
    DEFAULT(missed_heartbeats, 3);
    DEFAULT(ping_ms, 5000);
    DEFAULT(ready_wait_ms, 5000);
    DEFAULT(rejoin_wait_ms, 3000);
    DEFAULT(window_tasks, 50000);
    DEFAULT(window_bytes, (size_t)64 << 20);
    DEFAULT(max_queues, 100000);
    DEFAULT(max_bytes, UINT64_C(1) << 30);
    DEFAULT(max_unsettled, 16 << 20);
    DEFAULT(lane_bytes, 1 << 20);
    DEFAULT(flight_bytes, 4 << 20);
    DEFAULT(max_workers, 1024);
    DEFAULT(poison_limit, 3);
    DEFAULT(max_payload, PUSHROD_MAX_PAYLOAD);
    DEFAULT(max_result, PUSHROD_MAX_PAYLOAD);
    DEFAULT(hold_ms, 600000);
    DEFAULT(hold_count, 100000);
    DEFAULT(hold_bytes, (size_t)256 << 20);
    DEFAULT(drain_ms, 25000);
    assert(c->config.window_tasks > 0);
}

static bool settings_copy(struct core *c, const struct queue_setting *settings, size_t count)
{
    size_t size = count * sizeof *settings;
    for (size_t i = 0; i < count; i++)
        size += settings[i].pattern.size;
    c->settings = NULL;
    c->setting_count = count;
    if (count == 0)
        return true;
    c->settings = malloc(size);
    if (!c->settings)
        return false;
    uint8_t *at = (uint8_t *)(c->settings + count);
    for (size_t i = 0; i < count; i++) {
        c->settings[i] = settings[i];
        c->settings[i].pattern = slice_of(at, settings[i].pattern.size);
        memcpy(at, settings[i].pattern.data, settings[i].pattern.size);
        at += settings[i].pattern.size;
    }
    assert(at == (uint8_t *)c->settings + size);
    return true;
}

static void lists_init(struct core *c)
{
    struct list *lists[] = {&c->gone, &c->dirty_groups, &c->dirty_named, &c->workers,
        &c->workers_over, &c->departed, &c->deep, &c->acks, &c->watchers, &c->held, &c->holding,
        &c->keeping, &c->requests, &c->joining, &c->low};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        list_init(lists[i]);
    queue_init(&c->nowhere, (struct slice){0}); /* rows do not say which */
    assert(list_empty(&c->gone));
    c->queues_end = &c->first_queue;
}

struct core *core_new(const struct core_config *config, const struct queue_setting *settings,
    size_t count, const struct store_opened *opened)
{
    struct core *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    assert(config && opened);
    c->config = *config;
    config_fill(c);
    lists_init(c);
    pool_init(&c->pool);
    c->bypass = config->store.bypass;
    c->random = config->seed;
    c->queues.seed = core_random(c, UINT64_MAX);
    c->uniques.seed = core_random(c, UINT64_MAX);
    c->named.seed = core_random(c, UINT64_MAX);
    c->next_worker = 1 + (opened->boot << 32 & INT64_MAX);
    c->rejoin_ns = c->refused_ns = c->wake_ns = NEVER;
    c->round = 1;
    if (!settings_copy(c, settings, count) || !restart_begin(c, opened)) {
        core_free(c);
        return NULL;
    }
    return c;
}

/* ---- and ends ---- */

static void free_tasks(struct core *c)
{
    uint32_t slot = 0;
    for (struct task *t; (t = ledger_next(&c->ledger, &slot));) {
        followers_drop(c, t);
        if (t->rare) {
            t->rare->holds = NULL;
            t->rare->timer.place = 0;
        }
        ledger_remove(&c->ledger, t);
        task_free(c, t);
    }
    assert(c->ledger.by_id.count == 0);
}

static void free_workers(struct core *c)
{
    struct list *lists[] = {&c->workers, &c->workers_over, &c->departed};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        list_foreach(it, next, lists[i]) worker_free(container_of(it, struct worker, in_core));
    for (size_t i = 0; i < c->group_count; i++)
        if (c->groups[i])
            group_free(c->groups[i]);
    free(c->groups);
    idmap_free(&c->worker_by_id);
    heap_free(&c->worker_timers);
    assert(c->worker_by_id.count == 0);
}

/* What the actions of the last tick pointed to may go now. */
static void recycle(struct core *c)
{
    list_foreach(it, next, &c->gone)
    {
        assert(container_of(it, struct task, node)->state == TASK_GONE);
        task_expect(container_of(next->next, struct task, node));
        task_free(c, container_of(it, struct task, node));
    }
    list_init(&c->gone);
    list_foreach(it, next, &c->workers_over)
        worker_depart(c, container_of(it, struct worker, in_core));
}

void core_free(struct core *c)
{
    if (!c)
        return;
    recycle(c);
    loss_free(c); /* out of the heap, while the tasks in it are there */
    free_tasks(c);
    unique_free_all(c);
    free_workers(c);
    for (struct queue *q = c->first_queue, *next; q; q = next) {
        next = q->next;
        queue_free(q);
    }
    target_free_all(c);
    strmap_free(&c->queues);
    list_foreach(it, next, &c->requests) request_free(container_of(it, struct request, in_core));
    follow_free(c);
    heap_free(&c->by_wall);
    heap_free(&c->by_mono);
    heap_free(&c->kept);
    assert(c->ledger.by_id.count == 0);
    ledger_free(&c->ledger);
    pool_free(&c->pool);
    out_free(c);
    free(c->settings);
    free(c->missing);
    free(c);
}

/* ---- a tick ---- */

bool core_begin(struct core *c, struct now now)
{
    c->ticking = true;
    recycle(c);
    out_clear(c);
    /* Late by more than a heartbeat: it was us who were away, so silence counts from now. */
    bool away = c->wake_ns != NEVER && now.mono_ns > c->wake_ns + c->config.heartbeat_ms * MS;
    assert(now.mono_ns >= c->now.mono_ns);
    if (away)
        c->resumed_ns = now.mono_ns;
    c->now = now;
    c->listed = 0;
    return away;
}

/* Deadlines are judged after what was said in this tick, which may have met them. */
static void tick(struct core *c)
{
    assert(c->ticking);
    timers_run(c);
    restart_run(c);
    stored_run(c);
    stored_stop(c);
    window_due_ask(c);
    worker_forget(c);
    join_hold(c);
}

/* The earliest moment at which something changes by itself. A store that is down answers later. */
static uint64_t next_wake(const struct core *c, uint64_t withdraw)
{
    uint64_t wake = earlier(timers_next(c), withdraw);
    assert(withdraw > 0);
    wake = earlier(wake, c->rejoin_ns);
    if (c->store_down)
        return later(wake, c->now.mono_ns);
    wake = earlier(wake, c->refused_ns);
    if (c->next_due_ms && !c->due_until_ms)
        wake = earlier(wake, wall_to_mono(c, c->next_due_ms));
    return later(wake, c->now.mono_ns);
}

/* "Above 16 MiB of submissions that wait for their commit, clients are not read until it is below
 * 8": the gap keeps it from flapping with each commit. */
static bool pause_clients(struct core *c)
{
    uint64_t bound = c->paused ? c->config.max_unsettled / 2 : c->config.max_unsettled;
    assert(bound > 0);
    c->paused = c->stats.unsettled_bytes > bound;
    return c->paused;
}

/* The order matters: what is due by the clock first, so that it can be handed out in this tick;
 * ACKs last, so that one goes along with a task. */
const struct actions *core_end(struct core *c)
{
    tick(c);
    sched_run(c);
    uint64_t withdraw = withdraw_run(c);
    window_fetch_all(c);
    worker_acks(c);
    drain_check(c);
    c->wake_ns = next_wake(c, withdraw);
    c->ticking = false;
    if (c->failed) {
        c->actions = (struct actions){.failed = true, .wake_ns = c->now.mono_ns};
        return &c->actions;
    }
    c->actions = (struct actions){.lane = c->lane.items,
        .lane_count = c->lane.count,
        .join = c->join.items,
        .join_count = c->join.count,
        .store = c->store.items,
        .store_count = c->store.count,
        .conn = c->out.items,
        .conn_count = c->out.count,
        .notices = c->notices.items,
        .notice_count = c->notices.count,
        .wake_ns = c->wake_ns,
        .pause_clients = pause_clients(c)};
    assert(c->actions.wake_ns > 0);
    return &c->actions;
}
