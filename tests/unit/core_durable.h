/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A core with a store behind it: the memory store without its bypass, which the core must use as
 * if it were a disk. What the core asks is put to the store by durable_end(), and answered when
 * the test says so, or in its place by the test.
 */
#ifndef TESTS_CORE_DURABLE_H
#define TESTS_CORE_DURABLE_H

#include "server/store/store_mem.h"
#include "tests/unit/core_fixture.h"

struct durable {
    struct fix f;
    struct core_config config;
    struct store *store;
    struct store_opened opened;
};

static inline void durable_core(struct durable *d)
{
    d->config.store = store_mem_plain.capabilities(d->store);
    d->f.core = core_new(&d->config, NULL, 0, &d->opened);
    assert_non_null(d->f.core);
    core_begin(d->f.core, d->f.now);
}

/* A window of `window` tasks; 0: the default. Leaves the first tick open. */
static inline void durable_new(struct durable *d, uint32_t window, enum durability durability)
{
    char *error = NULL;
    *d = (struct durable){.f.now = {1000 * MSEC, 1000000},
        .config = {.seed = 1, .window_tasks = window, .durability = durability}};
    struct store_config config = {.max_bytes = 1 << 30, .now_ms = d->f.now.wall_ms};
    d->store = store_mem_plain.open(&config, &d->opened, &error);
    assert_non_null(d->store);
    durable_core(d);
}

/* As if the process had been killed: only what the store has is left. */
static inline void durable_restart(struct durable *d)
{
    struct fix old = d->f;
    core_free(old.core);
    d->f = (struct fix){.now = old.now};
    d->f.now.mono_ns += MSEC;
    d->f.now.wall_ms += 1;
    store_mem_restart(d->store, d->f.now.wall_ms, &d->opened);
    durable_core(d);
}

static inline void durable_ask(struct durable *d)
{
    store_mem_plain.submit(d->store, d->f.acts->store, d->f.acts->store_count, d->f.now.wall_ms);
}

/* Ends the tick, and puts to the store what it asks for. */
static inline const struct actions *durable_end(struct durable *d)
{
    fix_end(&d->f);
    durable_ask(d);
    return d->f.acts;
}

/* Begins the next tick with what the store answers. */
static inline size_t durable_stored(struct durable *d, uint64_t ms)
{
    const struct store_event *events;
    size_t all = 0;
    fix_later(&d->f, ms);
    for (size_t count; (count = store_mem_plain.poll(d->store, &events, 64)); all += count)
        core_stored(d->f.core, events, count);
    return all;
}

/* Ticks until nothing is asked any more; the next tick is open, and what they did is lost. */
static inline void durable_settle(struct durable *d)
{
    do
        durable_end(d);
    while (durable_stored(d, 1));
}

/* The nth operation of this kind that was asked in the last tick. */
static inline const struct store_op *durable_op(
    const struct durable *d, enum store_op_kind kind, size_t nth)
{
    for (size_t i = 0; i < d->f.acts->store_count; i++)
        if (d->f.acts->store[i].kind == kind && !nth--)
            return &d->f.acts->store[i];
    return NULL;
}

/* Begins the next tick with an answer that the test makes up; `op` is one of the last tick. */
static inline void durable_say(struct durable *d, const struct store_op *op,
    enum store_outcome outcome, enum pushrod_error code)
{
    assert_non_null(op);
    struct store_event e = {
        .kind = op->kind, .token = op->token, .outcome = outcome, .code = (uint32_t)code};
    fix_later(&d->f, 1);
    core_stored(d->f.core, &e, 1);
}

static inline void durable_state(struct durable *d, enum store_event_kind kind, int code)
{
    struct store_event e = {.event = kind, .code = (uint32_t)code};
    core_stored(d->f.core, &e, 1);
}

static inline uint64_t durable_lease(const struct durable *d, unsigned worker, uint64_t id)
{
    const struct lane_action *l;
    for (size_t i = 0; (l = fix_lane(&d->f, worker, LANE_TASK, i)); i++)
        if (l->id == id)
            return l->lease;
    return 0;
}

/* With a worker of one slot for all queues, which is ready; the tick is open. */
static inline void durable_begin(struct durable *d, enum durability durability)
{
    durable_new(d, 0, durability);
    assert_int_not_equal(fix_join_held(&d->f, 0, "*", 1, NULL, 0), 0);
    durable_ask(d);
    durable_stored(d, 1);
    fix_answer(&d->f, 0, (struct answer){.kind = MSG_READY});
    durable_settle(d);
}

/* Submits, and goes on until worker 0 has it; the tick is over. */
static inline uint64_t durable_leased(
    struct durable *d, uint64_t *lease, const struct msg_options *options)
{
    uint64_t id = fix_submit(&d->f, 5, "q", "payload", options, FOLLOW_FINISH);
    durable_end(d);
    durable_stored(d, 1);
    durable_end(d);
    *lease = durable_lease(d, 0, id);
    assert_int_not_equal(*lease, 0);
    return id;
}

static inline void durable_free(struct durable *d)
{
    fix_free(&d->f);
    store_mem_plain.close(d->store);
}

#endif
