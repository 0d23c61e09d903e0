/* SPDX-License-Identifier: Apache-2.0 */
/* Tasks for one worker by name. */
#include "tests/unit/core_durable.h"

static void targeted_tasks_wait_for_their_worker(void **state)
{
    (void)state;
    struct fix f;
    struct msg_options o = fix_options();
    o.worker = S("w1");
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    uint64_t a = fix_submit(&f, 5, "q", "", &o, FOLLOW_NONE);
    uint64_t b = fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    fix_tick(&f);
    assert_int_equal(fix_lane(&f, 0, LANE_TASK, 0)->id, b);
    fix_later(&f, 1);
    fix_worker(&f, 1, "other", 1);
    fix_tick(&f);
    assert_null(fix_lane(&f, 1, LANE_TASK, 0));
    fix_later(&f, 1);
    core_worker_lost(f.core, f.worker[1], PUSHROD_E_TIMED_OUT, f.now.mono_ns);
    fix_tick(&f);
    fix_later(&f, 1);
    fix_worker(&f, 1, "*", 1);
    fix_tick(&f);
    assert_int_equal(fix_lane(&f, 1, LANE_TASK, 0)->id, a);
    fix_free(&f);
}

/* "Memory does not grow with the backlog", nor with tasks for a worker that is not there. */
static void tasks_for_an_absent_worker_are_bounded(void **state)
{
    (void)state;
    struct durable d;
    durable_new(&d, 3, DURABILITY_SYNC);
    struct msg_options options = fix_options();
    options.worker = S("absent");
    for (int i = 0; i < 4; i++)
        fix_submit(&d.f, 5, "q", "payload", &options, FOLLOW_NONE);
    durable_end(&d);
    assert_int_equal(fix_conn(&d.f, 5, MSG_REJECTED, 0)->code, PUSHROD_E_QUEUE_FULL);
    assert_null(fix_conn(&d.f, 5, MSG_REJECTED, 1));
    durable_stored(&d, 1);
    /* Others are not in their way, nor they in others'. */
    uint64_t id = fix_submit(&d.f, 5, "q", "payload", NULL, FOLLOW_NONE);
    assert_int_not_equal(id, 0);
    assert_int_equal(fix_submit(&d.f, 5, "q", "payload", &options, FOLLOW_NONE), 0);
    durable_end(&d);
    durable_stored(&d, 1);
    fix_join_held(&d.f, 0, "q", 1, NULL, 0);
    durable_ask(&d);
    durable_stored(&d, 1);
    fix_answer(&d.f, 0, (struct answer){.kind = MSG_READY});
    durable_end(&d);
    assert_int_not_equal(durable_lease(&d, 0, id), 0);
    durable_free(&d);
}

/* A worker with a slot, whose queue's attempts took so long: of three for it by name it is handed.
 */
static unsigned handed(uint64_t run_ns)
{
    struct fix f;
    unsigned count = 0;
    struct msg_options o = fix_options();
    o.worker = S("w0");
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    for (int i = 0; i < 20; i++) {
        uint64_t id = fix_submit(&f, 5, "q", "", &o, FOLLOW_NONE);
        fix_tick(&f);
        struct answer done = fix_done(id, fix_lane(&f, 0, LANE_TASK, 0)->lease, "");
        done.run_ns = run_ns;
        fix_later(&f, 1);
        fix_answer(&f, 0, done);
    }
    for (size_t i = 0; i < 3; i++)
        fix_submit(&f, 5, "q", "", &o, FOLLOW_NONE);
    fix_tick(&f);
    while (fix_lane(&f, 0, LANE_TASK, count))
        count++;
    fix_free(&f);
    return count;
}

/* Nobody else could run them sooner; but what is long is not kept in a lane. */
static void short_ones_are_sent_ahead(void **state)
{
    (void)state;
    assert_int_equal(handed(1000), 3);
    assert_int_equal(handed(50000000), 1);
}

/* Five that do not fit into the lane together: the last one goes when the first has arrived. */
static void bytes_that_come_free_are_used(void **state)
{
    (void)state;
    static char payload[1001];
    memset(payload, 'x', sizeof payload - 1);
    struct core_config config = {.seed = 1, .lane_bytes = 4096, .store = {.bypass = true}};
    struct fix f;
    struct msg_options o = fix_options();
    o.worker = S("w0");
    uint64_t ids[5];
    fix_new(&f, &config);
    fix_worker(&f, 0, "q", 8);
    for (int i = 0; i < 5; i++)
        ids[i] = fix_submit(&f, 5, "q", payload, &o, FOLLOW_NONE);
    fix_end(&f);
    uint64_t lease = fix_lane(&f, 0, LANE_TASK, 0)->lease;
    assert_non_null(fix_lane(&f, 0, LANE_TASK, 3));
    assert_null(fix_lane(&f, 0, LANE_TASK, 4));
    fix_later(&f, 1);
    fix_answer(&f, 0, (struct answer){.kind = MSG_STARTED, .id = ids[0], .lease = lease});
    fix_end(&f);
    assert_non_null(fix_lane(&f, 0, LANE_TASK, 0));
    assert_int_equal(fix_lane(&f, 0, LANE_TASK, 0)->id, ids[4]);
    fix_free(&f);
}

/* Behind the edge of a queue, too: once what is before it has run, they would all come into memory.
 */
static void they_are_bounded_wherever_they_lie(void **state)
{
    (void)state;
    struct durable d;
    durable_new(&d, 3, DURABILITY_SYNC);
    struct msg_options o = fix_options();
    o.worker = S("absent");
    for (int i = 0; i < 5; i++) {
        fix_submit(&d.f, 5, "q", "payload", NULL, FOLLOW_NONE);
        durable_settle(&d);
    }
    for (int i = 0; i < 50; i++) {
        if (i == 1)
            o.delay_ms = 1000000;
        fix_submit(&d.f, 5, "q", "payload", &o, FOLLOW_NONE);
        durable_settle(&d);
    }
    assert_int_equal(core_stats(d.f.core)->submitted, 5 + 3);
    /* One that is cancelled makes room for another. */
    core_cancel(d.f.core, 5, 1, core_stats(d.f.core)->submitted);
    durable_settle(&d);
    fix_submit(&d.f, 5, "q", "payload", &o, FOLLOW_NONE);
    fix_submit(&d.f, 5, "q", "payload", &o, FOLLOW_NONE);
    durable_settle(&d);
    assert_int_equal(core_stats(d.f.core)->submitted, 5 + 3 + 1);
    durable_free(&d);
}

static void others_that_are_being_stored_do_not_count(void **state)
{
    (void)state;
    struct durable d;
    durable_new(&d, 3, DURABILITY_SYNC);
    struct msg_options o = fix_options();
    o.worker = S("w0");
    for (int i = 0; i < 3; i++)
        fix_submit(&d.f, 5, "q", "payload", NULL, FOLLOW_NONE);
    fix_submit(&d.f, 5, "q", "payload", &o, FOLLOW_NONE);
    durable_end(&d);
    assert_null(fix_conn(&d.f, 5, MSG_REJECTED, 0));
    durable_free(&d);
}

/* A name is kept for as long as the task: it is no longer than that of a worker may be. */
static void the_name_is_one_of_a_worker(void **state)
{
    (void)state;
    static char name[200];
    memset(name, 'x', sizeof name - 1);
    struct fix f;
    struct msg_options o = fix_options();
    fix_new(&f, NULL);
    const char *const wrong[] = {name, "", "a b"};
    for (unsigned i = 0; i < 3; i++) {
        o.worker = S(wrong[i]);
        assert_int_equal(fix_submit(&f, 5, "q", "", &o, FOLLOW_NONE), 0);
    }
    fix_end(&f);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(fix_conn(&f, 5, MSG_REJECTED, i)->code, PUSHROD_E_BAD_OPTION);
    fix_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(targeted_tasks_wait_for_their_worker),
        cmocka_unit_test(tasks_for_an_absent_worker_are_bounded),
        cmocka_unit_test(short_ones_are_sent_ahead),
        cmocka_unit_test(bytes_that_come_free_are_used),
        cmocka_unit_test(they_are_bounded_wherever_they_lie),
        cmocka_unit_test(others_that_are_being_stored_do_not_count),
        cmocka_unit_test(the_name_is_one_of_a_worker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
