/* SPDX-License-Identifier: Apache-2.0 */
/* Large payloads: they leave in pieces, so others pass them, and take their time to arrive. */
#include "tests/unit/core_fixture.h"

static struct fix f;

/* A lane of 40 bytes, of which more than 10 are large. */
static void begin(void)
{
    struct core_config config = {.seed = 1, .lane_bytes = 40, .store = {.bypass = true}};
    fix_new(&f, &config);
    fix_worker(&f, 0, "*", 4);
}

static void what_is_small_passes_a_large_payload(void **state)
{
    (void)state;
    begin();
    fix_submit(&f, 5, "large", "a quarter, and more", NULL, FOLLOW_NONE);
    fix_submit(&f, 5, "large", "another one beside", NULL, FOLLOW_NONE);
    fix_submit(&f, 5, "large", "for which is no room", NULL, FOLLOW_NONE);
    uint64_t small = fix_submit(&f, 5, "small", "small", NULL, FOLLOW_NONE);
    fix_tick(&f);
    assert_int_equal(fix_lane(&f, 0, LANE_TASK, 1)->id, small);
    assert_non_null(fix_lane(&f, 0, LANE_TASK, 2));
    assert_null(fix_lane(&f, 0, LANE_TASK, 3));
    fix_free(&f);
}

/* Cancelled, it may still be on its way there: no other large one is sent behind it. */
static void a_ghost_keeps_its_share(void **state)
{
    (void)state;
    begin();
    uint64_t id =
        fix_submit(&f, 5, "large", "more than all of what a lane carries", NULL, FOLLOW_NONE);
    fix_tick(&f);
    uint64_t lease = fix_lane(&f, 0, LANE_TASK, 0)->lease;
    fix_later(&f, 1);
    core_cancel(f.core, 5, 1, id);
    fix_tick(&f);
    for (int i = 0; i < 6; i++) {
        fix_later(&f, 1000);
        fix_answer(&f, 0, (struct answer){.kind = MSG_HEARTBEAT});
        fix_tick(&f);
    }
    assert_int_equal(core_stats(f.core)->cancelled, 1);
    fix_later(&f, 1);
    fix_submit(&f, 5, "large", "another one beside", NULL, FOLLOW_NONE);
    uint64_t small = fix_submit(&f, 5, "small", "small", NULL, FOLLOW_NONE);
    fix_tick(&f);
    assert_int_equal(fix_lane(&f, 0, LANE_TASK, 0)->id, small);
    assert_null(fix_lane(&f, 0, LANE_TASK, 1));
    fix_later(&f, 1);
    fix_answer(&f, 0,
        (struct answer){
            .kind = MSG_TASK_FAILED, .id = id, .lease = lease, .code = PUSHROD_E_TASK_CANCELLED});
    fix_tick(&f);
    assert_non_null(fix_lane(&f, 0, LANE_TASK, 0));
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_small_passes_a_large_payload),
        cmocka_unit_test(a_ghost_keeps_its_share),
        cmocka_unit_test(it_has_time_to_arrive),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
