/* SPDX-License-Identifier: Apache-2.0 */
/* Large results that come over a slow link: what is judged by time, while they come. */
#include "tests/unit/core_fixture.h"

static struct fix f;

static uint64_t given(size_t nth)
{
    const struct lane_action *task = fix_lane(&f, 0, LANE_TASK, nth);
    assert_non_null(task);
    return task->lease;
}

static void piece(uint64_t id, uint64_t lease)
{
    fix_answer(&f, 0,
        (struct answer){
            .kind = MSG_PART, .id = id, .lease = lease, .number = 100, .data = S("piece")});
}

/* A large result takes longer to arrive than its task, and those behind it, may run; the worker has
 * ended them in time. When nothing more comes, it is over. */
static void what_comes_behind_large_results_is_not_late(void **state)
{
    (void)state;
    struct msg_options o = fix_options();
    o.timeout_ms = 1000;
    o.max_attempts = 1;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 3);
    uint64_t ids[3], leases[3];
    for (size_t i = 0; i < 3; i++)
        ids[i] = fix_submit(&f, 5, "q", "", &o, FOLLOW_FINISH);
    fix_tick(&f);
    for (size_t i = 0; i < 3; i++)
        leases[i] = given(i);
    for (unsigned i = 0; i < 20; i++) {
        fix_later(&f, 1500);
        piece(ids[0], leases[0]);
        fix_tick(&f);
        assert_null(fix_conn(&f, 5, MSG_FINISHED, 0));
    }
    fix_later(&f, 1500);
    fix_answer(&f, 0, fix_done(ids[0], leases[0], ""));
    fix_answer(&f, 0, fix_done(ids[1], leases[1], ""));
    fix_tick(&f);
    assert_int_equal(fix_conn(&f, 5, MSG_FINISHED, 1)->task->status, PUSHROD_DONE);
    fix_later(&f, 500);
    fix_tick(&f);
    assert_int_equal(fix_conn(&f, 5, MSG_FINISHED, 0)->code, PUSHROD_E_TASK_TIMEOUT);
    fix_free(&f);
}

static void nothing_is_heard_for(uint64_t ms)
{
    for (uint64_t step = 999; ms > 1; step = 1000) { /* more at once would be ours */
        ms -= step;
        fix_later(&f, step);
        fix_tick(&f);
    }
    assert_int_equal(core_stats(f.core)->workers_silent, 0);
    fix_later(&f, 1);
}

/* The next piece may take its time, and a HEARTBEAT is behind all of them. */
static void a_worker_amid_a_large_result_may_be_silent_longer(void **state)
{
    (void)state;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    uint64_t id = fix_submit(&f, 5, "q", "", NULL, FOLLOW_FINISH);
    fix_tick(&f);
    uint64_t lease = given(0);
    fix_later(&f, 1);
    for (unsigned i = 0; i < 3; i++) {
        piece(id, lease);
        fix_tick(&f);
        nothing_is_heard_for(12000);
    }
    piece(id, lease);
    fix_tick(&f);
    nothing_is_heard_for(13000);
    fix_tick(&f);
    assert_int_equal(core_stats(f.core)->workers_silent, 1);
    fix_free(&f);
}

/* Who says HEARTBEAT has nothing on its way. */
static void a_worker_that_beats_again_is_missed_as_before(void **state)
{
    (void)state;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    uint64_t id = fix_submit(&f, 5, "q", "", NULL, FOLLOW_FINISH);
    fix_tick(&f);
    uint64_t lease = given(0);
    fix_later(&f, 1);
    piece(id, lease);
    fix_tick(&f);
    fix_later(&f, 1000);
    fix_answer(&f, 0, (struct answer){.kind = MSG_HEARTBEAT});
    fix_tick(&f);
    nothing_is_heard_for(3000);
    fix_tick(&f);
    assert_int_equal(core_stats(f.core)->workers_silent, 1);
    fix_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_comes_behind_large_results_is_not_late),
        cmocka_unit_test(a_worker_amid_a_large_result_may_be_silent_longer),
        cmocka_unit_test(a_worker_that_beats_again_is_missed_as_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
