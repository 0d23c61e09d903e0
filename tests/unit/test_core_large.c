/* SPDX-License-Identifier: Apache-2.0 */
/* Large payloads: they leave in pieces, so others pass them, and take their time to arrive. */
#include "tests/unit/core_durable.h"

static struct fix f;

/* A lane of 40 bytes, of which more than 10 are large. */
static void begin(void)
{
    struct core_config config = {.seed = 1, .lane_bytes = 40, .store = {.bypass = true}};
    fix_new(&f, &config);
    fix_worker(&f, 0, "*", 4);
}

/* None of them, and nothing behind them, waits until the first one has come. */
static void an_idle_slot_takes_what_is_large(void **state)
{
    (void)state;
    begin();
    fix_submit(&f, 5, "q", "a quarter, and more", NULL, FOLLOW_NONE);
    fix_submit(&f, 5, "q", "another one beside", NULL, FOLLOW_NONE);
    fix_submit(&f, 5, "q", "more than fits there", NULL, FOLLOW_NONE);
    uint64_t small = fix_submit(&f, 5, "q", "small", NULL, FOLLOW_NONE);
    fix_tick(&f);
    assert_int_equal(fix_lane(&f, 0, LANE_TASK, 3)->id, small);
    fix_free(&f);
}

/* A worker behind a slow line begins when all of it has come: its own time ends first. */
static void it_has_time_to_arrive(void **state)
{
    static char payload[(256 << 10) + 1]; /* two seconds at 128 KiB/s */
    (void)state;
    begin();
    struct msg_options o = fix_options();
    o.timeout_ms = 500;
    o.max_attempts = 1;
    memset(payload, 'x', sizeof payload - 1);
    fix_submit(&f, 5, "q", payload, &o, FOLLOW_FINISH);
    fix_tick(&f);
    fix_later(&f, 4499);
    fix_tick(&f);
    assert_null(fix_conn(&f, 5, MSG_FINISHED, 0));
    fix_later(&f, 1);
    fix_tick(&f);
    assert_int_equal(fix_conn(&f, 5, MSG_FINISHED, 0)->code, PUSHROD_E_TASK_TIMEOUT);
    fix_free(&f);
}

/* It never began there: no suspect, and the small one beside it was alone. */
static void what_did_not_leave_is_no_suspect(void **state)
{
    (void)state;
    begin();
    uint64_t small = fix_submit(&f, 5, "q", "small", NULL, FOLLOW_NONE);
    uint64_t large = fix_submit(&f, 5, "q", "more than a quarter", NULL, FOLLOW_NONE);
    fix_tick(&f);
    uint64_t lease = fix_lane(&f, 0, LANE_TASK, 1)->lease;
    fix_later(&f, 1);
    fix_worker(&f, 1, "*", 4);
    core_worker_cut(f.core, f.worker[0]);
    core_unsent(f.core, f.worker[0], large, lease);
    core_unsent(f.core, f.worker[0], small, lease); /* of another attempt: nothing */
    fix_tick(&f);
    assert_int_equal(fix_lane(&f, 1, LANE_TASK, 0)->id, large);
    assert_false(fix_lane(&f, 1, LANE_TASK, 0)->task->record.suspect);
    fix_later(&f, 1);
    core_worker_lost(f.core, f.worker[0], PUSHROD_E_CLOSED, f.now.mono_ns);
    fix_answer(&f, 1, fix_done(large, fix_lane(&f, 1, LANE_TASK, 0)->lease, ""));
    fix_tick(&f);
    assert_int_equal(fix_lane(&f, 1, LANE_TASK, 0)->id, small);
    assert_true(fix_lane(&f, 1, LANE_TASK, 0)->task->record.suspect);
    fix_free(&f);
}

/* Accepted at once, the store refuses it, and it stays here: not any number of them. */
static void what_a_store_refuses_is_bounded(void **state)
{
    (void)state;
    struct durable d;
    durable_new(&d, 0, DURABILITY_ASYNC);
    d.config.max_unsettled = 10;
    fix_end(&d.f);
    durable_restart(&d);
    for (int i = 0; i < 2; i++) {
        assert_int_not_equal(fix_submit(&d.f, 5, "q", "payload", NULL, FOLLOW_NONE), 0);
        fix_end(&d.f);
        durable_say(&d, durable_op(&d, STORE_APPEND, 0), OUTCOME_REFUSED, PUSHROD_E_STORE_FULL);
    }
    assert_int_equal(fix_submit(&d.f, 5, "q", "payload", NULL, FOLLOW_NONE), 0);
    assert_int_equal(core_refusal(d.f.core), PUSHROD_E_STORE_FULL);
    core_control(
        d.f.core, 5, &(struct msg_control){.request = 1, .verb = S("purge"), .name = S("q")});
    assert_int_not_equal(fix_submit(&d.f, 5, "q", "payload", NULL, FOLLOW_NONE), 0);
    durable_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_store_refuses_is_bounded),
        cmocka_unit_test(an_idle_slot_takes_what_is_large),
        cmocka_unit_test(it_has_time_to_arrive),
        cmocka_unit_test(what_did_not_leave_is_no_suspect),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
