/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the store answers meets what was asked meanwhile: a purge beside other operations, a fetch
 * that comes in parts, and what was accepted before the store had it (async).
 */
#include "tests/unit/core_durable.h"

static struct durable d;

static uint64_t submit(void)
{
    return fix_submit(&d.f, 5, "q", "payload", NULL, FOLLOW_FINISH);
}

static void worker(uint32_t slots)
{
    assert_int_not_equal(fix_join_held(&d.f, 0, "q", slots, NULL, 0), 0);
    durable_ask(&d);
    durable_stored(&d, 1);
    fix_answer(&d.f, 0, (struct answer){.kind = MSG_READY});
}

static void purge(void)
{
    struct msg_control m = {.request = 8, .verb = S("purge"), .name = S("q")};
    core_control(d.f.core, 5, &m);
}

static const struct core_stats *stats(void)
{
    return core_stats(d.f.core);
}

/* ---- a purge ---- */

/* The retry was asked before, and is stored: the purge leaves it, and it is counted. */
static void a_retry_beside_a_purge_is_counted(void **state)
{
    (void)state;
    durable_new(&d, 0, DURABILITY_SYNC);
    uint64_t id = submit();
    durable_settle(&d);
    worker(1);
    durable_end(&d);
    uint64_t lease = durable_lease(&d, 0, id);
    fix_later(&d.f, 1);
    fix_answer(&d.f, 0, fix_failed(id, lease, "no"));
    durable_end(&d);
    fix_later(&d.f, 1);
    purge();
    durable_end(&d);
    assert_int_equal(stats()->delayed, 1);
    durable_stored(&d, 1);
    durable_end(&d);
    assert_int_equal(fix_conn(&d.f, 5, MSG_OK, 0)->number, 0);
    assert_int_equal(stats()->delayed, 1);
    durable_free(&d);
}

/* It was asked for before the purge, and its record comes after: nothing would end it here. */
static void what_is_looked_up_beside_a_purge_goes_with_it(void **state)
{
    (void)state;
    durable_new(&d, 0, DURABILITY_SYNC);
    uint64_t id = submit();
    durable_settle(&d);
    worker(1);
    durable_end(&d);
    uint64_t lease = durable_lease(&d, 0, id);
    fix_later(&d.f, 1);
    struct answer failed = fix_failed(id, lease, "later");
    failed.number = 60000;
    fix_answer(&d.f, 0, failed);
    durable_settle(&d);
    assert_int_equal(stats()->ledger, 0);
    struct held held = {.id = id, .lease = lease, .answered = true};
    fix_join_held(&d.f, 0, "q", 1, &held, 1);
    durable_ask(&d);
    fix_later(&d.f, 1);
    purge();
    durable_end(&d);
    const struct conn_action *told = NULL;
    while (!told) {
        assert_true(durable_stored(&d, 1));
        durable_end(&d);
        told = fix_conn(&d.f, 5, MSG_FINISHED, 0);
    }
    assert_int_equal(told->code, PUSHROD_E_TASK_CANCELLED);
    durable_free(&d);
}

/* One in memory, two behind the edge. */
static void three(void)
{
    durable_new(&d, 1, DURABILITY_SYNC);
    for (unsigned i = 0; i < 3; i++)
        submit();
    durable_settle(&d);
    assert_int_equal(stats()->backlog, 2);
}

/* "Not started by then, not started at all": told then, not when it has come to the front. */
static void it_expires_behind_the_edge(void **state)
{
    (void)state;
    durable_new(&d, 1, DURABILITY_SYNC);
    submit();
    submit();
    struct msg_options o = fix_options();
    o.expires_ms = 1000;
    fix_submit(&d.f, 5, "q", "x", &o, FOLLOW_FINISH);
    durable_settle(&d);
    assert_int_equal(stats()->backlog, 2);
    fix_later(&d.f, 1001);
    durable_end(&d);
    assert_non_null(durable_op(&d, STORE_DUE, 0));
    fix_later(&d.f, 1);
    durable_settle(&d);
    assert_int_equal(stats()->expired, 1);
    assert_int_equal(stats()->backlog, 1);
    durable_free(&d);
}

/* The store says that its time is over; the clock is set back before it has said so. */
static void a_clock_that_is_set_back_makes_no_task_early(void **state)
{
    (void)state;
    struct msg_options o = fix_options();
    durable_new(&d, 0, DURABILITY_SYNC);
    worker(1);
    o.delay_ms = 5000;
    o.expires_ms = 1000;
    uint64_t id = fix_submit(&d.f, 5, "q", "", &o, FOLLOW_FINISH);
    durable_settle(&d);
    fix_later(&d.f, 1000);
    durable_end(&d);
    assert_non_null(durable_op(&d, STORE_DUE, 0));
    d.f.now.wall_ms -= 500;
    durable_stored(&d, 1);
    durable_end(&d);
    assert_int_equal(durable_lease(&d, 0, id), 0);
    durable_stored(&d, 1);
    durable_settle(&d);
    assert_int_equal(stats()->expired, 1);
    durable_free(&d);
}

static void a_purge_that_was_refused_takes_nothing(void **state)
{
    (void)state;
    three();
    purge();
    fix_end(&d.f);
    durable_say(&d, durable_op(&d, STORE_PURGE, 0), OUTCOME_REFUSED, PUSHROD_E_STORE_FAILED);
    fix_end(&d.f);
    assert_non_null(fix_conn(&d.f, 5, MSG_REJECTED, 0));
    assert_int_equal(stats()->backlog, 2);
    durable_free(&d);
}

/* What comes to lie behind the edge after the purge was asked stays there. */
static void what_comes_after_a_purge_is_counted(void **state)
{
    (void)state;
    three();
    purge();
    durable_end(&d);
    fix_later(&d.f, 1);
    submit();
    durable_settle(&d);
    assert_int_equal(stats()->ready + stats()->backlog, 1);
    durable_free(&d);
}

/* ---- a retry ---- */

/* Nothing may be lost by where its queue's edge is. */
static void a_retry_behind_the_edge_is_cancelled(void **state)
{
    (void)state;
    durable_new(&d, 1, DURABILITY_SYNC);
    uint64_t id = submit();
    durable_settle(&d);
    worker(1);
    durable_end(&d);
    uint64_t lease = durable_lease(&d, 0, id);
    fix_later(&d.f, 1);
    struct msg_options urgent = fix_options();
    urgent.priority = 9;
    for (unsigned i = 0; i < 2; i++)
        fix_submit(&d.f, 5, "q", "", &urgent, FOLLOW_NONE);
    durable_settle(&d);
    assert_int_equal(stats()->backlog, 1);
    fix_answer(&d.f, 0, fix_failed(id, lease, "no"));
    durable_end(&d);
    fix_later(&d.f, 1);
    core_cancel(d.f.core, 5, 9, id);
    durable_end(&d);
    assert_int_equal(fix_conn(&d.f, 5, MSG_OK, 0)->number, 1);
    durable_stored(&d, 1);
    durable_end(&d);
    durable_stored(&d, 1);
    durable_end(&d);
    const struct conn_action *told = fix_conn(&d.f, 5, MSG_FINISHED, 0);
    assert_non_null(told);
    assert_int_equal(told->task->status, PUSHROD_CANCELLED);
    durable_free(&d);
}

/* ---- a fetch ---- */

/* Else it would run a second time after a restart, beside the worker that has it. */
static void what_runs_is_known_to_the_store_to_run(void **state)
{
    (void)state;
    durable_new(&d, 2, DURABILITY_SYNC);
    for (unsigned i = 0; i < 3; i++)
        submit();
    durable_settle(&d);
    worker(4);
    durable_end(&d); /* two run, and the third is fetched */
    assert_non_null(durable_op(&d, STORE_FETCH, 0));
    fix_later(&d.f, 1);
    submit();
    durable_settle(&d);
    while (stats()->running < 4)
        durable_settle(&d);
    durable_end(&d);
    durable_restart(&d);
    assert_int_not_equal(fix_join_held(&d.f, 1, "q", 4, NULL, 0), 0);
    durable_ask(&d);
    durable_stored(&d, 1);
    fix_answer(&d.f, 1, (struct answer){.kind = MSG_READY});
    durable_settle(&d);
    assert_int_equal(stats()->running, 0); /* the other is waited for */
    durable_free(&d);
}

/* ---- async ---- */

static void an_async_backlog_lies_in_the_store(void **state)
{
    (void)state;
    durable_new(&d, 4, DURABILITY_ASYNC);
    for (unsigned i = 0; i < 40; i++) {
        submit();
        if (i % 2)
            durable_settle(&d);
    }
    assert_true(stats()->ledger <= 5);
    assert_int_equal(stats()->ready + stats()->backlog, 40);
    worker(1);
    for (unsigned ran = 0; ran < 40;) {
        durable_end(&d);
        const struct lane_action *l = fix_lane(&d.f, 0, LANE_TASK, 0);
        struct answer done = l ? fix_done(l->id, l->lease, "") : (struct answer){0};
        done.run_ns = 10 * MSEC; /* nothing is put behind it */
        durable_stored(&d, 1);
        if (!l)
            continue;
        assert_int_equal(done.id, ++ran);
        fix_answer(&d.f, 0, done);
    }
    durable_free(&d);
}

/* Ends what runs, and so on, until nothing does; tells in which order the others began. */
static size_t run_all(uint64_t *order, size_t room, struct answer *running, unsigned count)
{
    size_t ran = 0;
    while (count) {
        for (unsigned i = 0; i < count; i++)
            fix_answer(&d.f, 0, running[i]);
        const struct lane_action *l;
        for (unsigned idle = count = 0; !count && idle < 5; idle++) {
            durable_end(&d);
            for (; (l = fix_lane(&d.f, 0, LANE_TASK, count)); count++) {
                running[count] = fix_done(l->id, l->lease, "");
                assert_true(ran < room);
                order[ran++] = l->id;
            }
            durable_stored(&d, 1);
        }
    }
    return ran;
}

/* Between two parts of a fetch the window closes before what has come: the rest of it is void. */
static void a_fetch_that_is_overtaken_between_its_parts_is_void(void **state)
{
    const struct store_event *fetched;
    struct record rest[2];
    struct answer running[4];
    uint64_t order[8];
    (void)state;
    durable_new(&d, 4, DURABILITY_SYNC);
    for (unsigned i = 0; i < 8; i++)
        submit();
    durable_settle(&d);
    worker(3);
    durable_end(&d); /* three of the four in the window run, and three are fetched */
    for (uint64_t id = 1; id <= 3; id++)
        running[id - 1] = fix_done(id, durable_lease(&d, 0, id), "");
    assert_int_equal(store_mem_plain.poll(d.store, &fetched, 1), 1);
    assert_true(fetched->kind == STORE_FETCH && fetched->record_count == 3 && !fetched->more);
    struct store_event part = *fetched;
    for (unsigned i = 0; i < 2; i++) {
        rest[i] = fetched->records[i + 1];
        rest[i].queue = S("q");
        rest[i].payload = S("payload");
    }
    part.more = true;
    part.record_count = 1;
    fix_later(&d.f, 1);
    core_stored(d.f.core, &part, 1);
    struct msg_options urgent = fix_options();
    urgent.priority = 9;
    for (unsigned i = 0; i < 3; i++)
        fix_submit(&d.f, 5, "q", "payload", &urgent, FOLLOW_NONE);
    durable_end(&d);
    durable_stored(&d, 1);
    assert_int_equal(stats()->ready, 4); /* the one that had come is behind the edge again */
    part.more = false;
    part.records = rest;
    part.record_count = 2;
    core_stored(d.f.core, &part, 1);
    assert_int_equal(stats()->ready, 4);
    assert_int_equal(run_all(order, 8, running, 3), 8);
    assert_memory_equal(order, ((uint64_t[]){9, 10, 11, 4, 5, 6, 7, 8}), sizeof order);
    durable_free(&d);
}

/* A program may submit in one tick what memory has places for, which is 2^24: the store is asked
 * for more ids in time, and in time is a tick before. */
static void a_tick_does_not_run_out_of_ids(void **state)
{
    const struct store_opened opened = {.boot = 7, .first_id = 1, .id_count = 3};
    const struct core_config config = {.seed = 1};
    (void)state;
    durable_new(&d, 10, DURABILITY_SYNC);
    assert_true(d.opened.id_count >= UINT32_C(1) << 24);
    durable_free(&d);
    d = (struct durable){.f.now = {1000 * MSEC, 1000000}};
    d.f.core = core_new(&config, NULL, 0, &opened);
    assert_non_null(d.f.core);
    core_begin(d.f.core, d.f.now);
    assert_int_not_equal(submit(), 0);
    fix_end(&d.f);
    const struct store_op *asked = durable_op(&d, STORE_IDS, 0);
    assert_non_null(asked);
    assert_true(asked->limit >= UINT32_C(1) << 24);
    core_free(d.f.core);
}

/* What workers have, or clients have not acknowledged, is bounded elsewhere. */
static void what_runs_or_has_ended_takes_no_place(void **state)
{
    (void)state;
    durable_new(&d, 100, DURABILITY_SYNC);
    core_free(d.f.core);
    d.config.window_bytes = 20; /* two payloads of 7 bytes fit */
    durable_core(&d);
    worker(2);
    for (size_t i = 0; i < 2; i++)
        fix_submit(&d.f, 5, "q", "payload", NULL, FOLLOW_FINISH);
    durable_end(&d);
    durable_stored(&d, 1);
    durable_end(&d);
    const struct lane_action *l = fix_lane(&d.f, 0, LANE_TASK, 0);
    struct answer done = fix_done(l->id, l->lease, "");
    durable_stored(&d, 1);
    fix_answer(&d.f, 0, done);
    durable_settle(&d);
    for (size_t i = 0; i < 3; i++)
        fix_submit(&d.f, 5, "q", "payload", NULL, FOLLOW_NONE);
    durable_settle(&d);
    /* One has ended, two run, two wait. */
    assert_int_equal(core_stats(d.f.core)->ledger, 5);
    assert_int_equal(core_stats(d.f.core)->backlog, 0);
    durable_free(&d);
}

/* Accepted at once, and on its way to the store: what comes after it in order does not overtake it.
 */
static void an_async_task_is_not_overtaken_on_its_way(void **state)
{
    (void)state;
    struct msg_options o = fix_options();
    durable_new(&d, 1, DURABILITY_ASYNC);
    worker(2);
    fix_submit(&d.f, 5, "q", "", &o, FOLLOW_NONE);
    o.priority = 3;
    uint64_t first = fix_submit(&d.f, 5, "q", "", &o, FOLLOW_NONE);
    durable_end(&d); /* the store has not answered yet */
    fix_later(&d.f, 1);
    o.priority = 2;
    uint64_t second = fix_submit(&d.f, 5, "q", "", &o, FOLLOW_NONE);
    uint64_t lease = 0;
    for (int i = 0; i < 5 && !lease; i++) {
        durable_end(&d);
        assert_int_equal(durable_lease(&d, 0, second), 0);
        lease = durable_lease(&d, 0, first);
        durable_stored(&d, 1);
    }
    assert_int_not_equal(lease, 0);
    durable_free(&d);
}

/* A fetch was asked before its APPEND, and finds nothing more behind the edge. */
static void an_async_task_is_not_overtaken_by_a_fetch(void **state)
{
    const struct store_event *fetched;
    (void)state;
    durable_new(&d, 2, DURABILITY_ASYNC);
    worker(4);
    for (unsigned i = 0; i < 3; i++)
        submit();
    durable_end(&d);
    while (!durable_op(&d, STORE_FETCH, 0)) {
        durable_stored(&d, 1);
        durable_end(&d);
    }
    fix_later(&d.f, 1);
    uint64_t first = submit();
    durable_end(&d);
    fix_later(&d.f, 1);
    do { /* up to the answer to the fetch, and not to the APPEND behind it */
        assert_int_equal(store_mem_plain.poll(d.store, &fetched, 1), 1);
        core_stored(d.f.core, fetched, 1);
    } while (fetched->kind != STORE_FETCH);
    uint64_t second = submit(), lease = 0;
    for (int i = 0; i < 5 && !lease; i++) {
        durable_end(&d);
        lease = durable_lease(&d, 0, first);
        assert_true(lease || !durable_lease(&d, 0, second));
        durable_stored(&d, 1);
    }
    assert_int_not_equal(lease, 0);
    durable_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_retry_beside_a_purge_is_counted),
        cmocka_unit_test(what_is_looked_up_beside_a_purge_goes_with_it),
        cmocka_unit_test(it_expires_behind_the_edge),
        cmocka_unit_test(a_clock_that_is_set_back_makes_no_task_early),
        cmocka_unit_test(a_purge_that_was_refused_takes_nothing),
        cmocka_unit_test(what_comes_after_a_purge_is_counted),
        cmocka_unit_test(a_retry_behind_the_edge_is_cancelled),
        cmocka_unit_test(what_runs_is_known_to_the_store_to_run),
        cmocka_unit_test(an_async_backlog_lies_in_the_store),
        cmocka_unit_test(a_fetch_that_is_overtaken_between_its_parts_is_void),
        cmocka_unit_test(a_tick_does_not_run_out_of_ids),
        cmocka_unit_test(what_runs_or_has_ended_takes_no_place),
        cmocka_unit_test(an_async_task_is_not_overtaken_on_its_way),
        cmocka_unit_test(an_async_task_is_not_overtaken_by_a_fetch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
