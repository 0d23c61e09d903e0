/* SPDX-License-Identifier: Apache-2.0 */
/* Workers: how they are lost, what they come back with, how they leave. */
#include "tests/unit/core_fixture.h"

static void heartbeats_and_fence(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    uint64_t id = fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    fix_tick(&f);
    assert_int_equal(f.acts->wake_ns, f.now.mono_ns + 3000 * MSEC);
    fix_later(&f, 2999);
    fix_tick(&f);
    assert_int_equal(f.acts->join_count, 0);
    fix_later(&f, 1);
    fix_tick(&f);
    assert_int_equal(f.acts->join[0].kind, JOIN_CLOSE);
    assert_int_equal(fix_notice(&f, NOTICE_WORKER_LOST)->ids[0], id);
    assert_int_equal(core_stats(f.core)->ready, 1);
    fix_free(&f);
}

static void heartbeats_are_not_acknowledged(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    fix_tick(&f);
    fix_later(&f, 100);
    fix_tick(&f); /* READY is */
    for (unsigned n = 0; n < 4; n++) {
        fix_later(&f, 1000);
        fix_answer(&f, 0, (struct answer){.kind = MSG_HEARTBEAT});
        fix_tick(&f);
        assert_int_equal(f.acts->lane_count, 0);
        assert_int_equal(f.acts->join_count, 0);
    }
    fix_later(&f, 1000);
    fix_tick(&f);
    assert_non_null(fix_lane(&f, 0, LANE_PING, 0));
    fix_free(&f);
}

/* Five seconds in which the worker says HEARTBEAT: the last tick has a PING for it. */
static void beat_until_ping(struct fix *f, unsigned n)
{
    for (unsigned beats = 0; beats < 5; beats++) {
        fix_later(f, 1000);
        fix_answer(f, n, (struct answer){.kind = MSG_HEARTBEAT});
        fix_tick(f);
    }
    assert_non_null(fix_lane(f, n, LANE_PING, 0));
}

static void be_quiet(struct fix *f, unsigned n)
{
    fix_tick(f);
    fix_later(f, 100);
    fix_tick(f); /* READY is acknowledged */
    beat_until_ping(f, n);
    assert_false(fix_lane(f, n, LANE_PING, 0)->beat);
}

static void an_idle_worker_answers_pings_only(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    be_quiet(&f, 0);
    for (unsigned pings = 0; pings < 3; pings++) {
        fix_later(&f, 1);
        fix_answer(&f, 0, (struct answer){.kind = MSG_HEARTBEAT});
        fix_tick(&f);
        fix_later(&f, 19999); /* a fourth as often as others */
        fix_tick(&f);
        assert_false(fix_lane(&f, 0, LANE_PING, 0)->beat);
        assert_int_equal(fix_lane(&f, 0, LANE_PING, 0)->next_ms, 20000);
        assert_int_equal(f.acts->join_count, 0);
    }
    fix_later(&f, 3000);
    fix_tick(&f);
    assert_int_equal(f.acts->join_count, 0);
    fix_later(&f, 1);
    fix_tick(&f); /* three heartbeats after a PING that it did not answer */
    assert_int_equal(f.acts->join[0].kind, JOIN_CLOSE);
    fix_free(&f);
}

static void a_task_rouses_a_quiet_worker(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 2);
    be_quiet(&f, 0);
    fix_later(&f, 4000);
    uint64_t id = fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    fix_submit(&f, 6, "q", "", NULL, FOLLOW_NONE);
    fix_tick(&f);
    assert_int_equal(f.acts->lane_count, 3);
    assert_int_equal(f.acts->lane[0].kind, LANE_PING); /* once, and first */
    assert_true(f.acts->lane[0].beat);
    assert_int_equal(f.acts->lane[0].next_ms, 5000);
    assert_int_equal(f.acts->lane[1].kind, LANE_TASK);
    assert_int_equal(f.acts->lane[1].id, id);
    fix_later(&f, 2999);
    fix_tick(&f);
    assert_int_equal(f.acts->join_count, 0);
    fix_later(&f, 1);
    fix_tick(&f); /* and silence is counted from there */
    assert_int_equal(f.acts->join[0].kind, JOIN_CLOSE);
    assert_int_equal(core_stats(f.core)->ready, 2);
    fix_free(&f);
}

static void a_busy_worker_is_told_to_beat(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    fix_tick(&f);
    beat_until_ping(&f, 0);
    assert_true(fix_lane(&f, 0, LANE_PING, 0)->beat);
    fix_free(&f);
}

static void pings_come_together(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    for (unsigned n = 0; n < 3; n++) {
        fix_worker(&f, n, "q", 1);
        fix_tick(&f);
        fix_later(&f, 50); /* READY is acknowledged */
        fix_tick(&f);
        fix_later(&f, n == 0 ? 300 : 1000);
    }
    fix_tick(&f);
    for (unsigned pings = 0; pings == 0; pings = (unsigned)f.acts->lane_count) {
        fix_later(&f, 100);
        for (unsigned n = 0; n < 3; n++)
            fix_answer(&f, n, (struct answer){.kind = MSG_HEARTBEAT});
        fix_tick(&f);
    }
    assert_non_null(fix_lane(&f, 0, LANE_PING, 0));
    assert_non_null(fix_lane(&f, 1, LANE_PING, 0)); /* early */
    assert_null(fix_lane(&f, 2, LANE_PING, 0));
    fix_free(&f);
}

static void late_server_does_not_fence(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    fix_tick(&f);
    fix_later(&f, 60000);
    fix_tick(&f);
    assert_int_equal(core_stats(f.core)->workers, 1);
    fix_free(&f);
}

static void not_ready_in_time(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    fix_join_held(&f, 0, "q", 1, NULL, 0);
    fix_later(&f, 5000);
    fix_tick(&f);
    assert_int_equal(f.acts->join[0].kind, JOIN_CLOSE);
    assert_int_equal(f.acts->join[0].code, PUSHROD_E_LANE_UNREACHABLE);
    assert_non_null(fix_notice(&f, NOTICE_WORKER_UNREADY));
    assert_null(fix_notice(&f, NOTICE_WORKER_LOST)); /* it never was a worker */
    fix_free(&f);
}

static void poison_is_dead_after_three(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    uint64_t id = fix_submit(&f, 5, "q", "", NULL, FOLLOW_FINISH);
    for (unsigned n = 0; n < 3; n++) {
        fix_worker(&f, n, "q", 1);
        fix_tick(&f);
        assert_int_equal(fix_lane(&f, n, LANE_TASK, 0)->id, id);
        fix_later(&f, 1);
        core_worker_lost(f.core, f.worker[n], PUSHROD_E_TASK_CRASHED, f.now.mono_ns);
        uint8_t instance[16] = {(uint8_t)(n + 1)};
        struct msg_obituary o = {.instance = slice_of(instance, 16), .signal = 11, .peak_kib = 7};
        core_obituary(f.core, &o);
        fix_tick(&f);
        fix_later(&f, 1);
        if (n < 2)
            assert_null(fix_conn(&f, 5, MSG_FINISHED, 0));
    }
    core_status(f.core, 5, 8, id);
    fix_tick(&f);
    const struct msg_task_row *row = fix_conn(&f, 5, MSG_TASK_ROW, 0)->row;
    assert_int_equal(row->code, PUSHROD_E_TASK_POISON);
    assert_int_equal(row->deaths, 3);
    assert_true(row->history.size > 0);
    fix_free(&f);
}

static void a_fence_is_no_death(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    uint64_t id = fix_submit(&f, 5, "q", "", NULL, FOLLOW_FINISH);
    for (unsigned n = 0; n < 5; n++) {
        fix_worker(&f, n, "q", 1);
        fix_tick(&f);
        assert_int_equal(fix_lane(&f, n, LANE_TASK, 0)->id, id);
        fix_later(&f, 1);
        core_worker_lost(f.core, f.worker[n], PUSHROD_E_TIMED_OUT, f.now.mono_ns);
        fix_tick(&f);
        fix_later(&f, 1);
    }
    assert_int_equal(core_stats(f.core)->failed, 0);
    fix_tick(&f);
    fix_free(&f);
}

/* One more death would end it, so it waits to hear whether this was one; it was not. */
static void a_last_chance_goes_on_when_its_worker_lives(void **state)
{
    (void)state;
    struct fix f;
    struct core_config config = {.seed = 1, .poison_limit = 1, .store = {.bypass = true}};
    fix_new(&f, &config);
    uint64_t id = fix_submit(&f, 5, "q", "", NULL, FOLLOW_FINISH);
    fix_worker(&f, 0, "q", 1);
    fix_tick(&f);
    fix_later(&f, 1);
    core_worker_lost(f.core, f.worker[0], PUSHROD_E_CLOSED, f.now.mono_ns);
    fix_tick(&f);
    fix_later(&f, 1);
    assert_int_equal(core_stats(f.core)->ready, 0);
    fix_worker(&f, 0, "q", 1); /* the same process, which does not have it */
    fix_tick(&f);
    assert_int_equal(fix_lane(&f, 0, LANE_TASK, 0)->id, id);
    assert_int_equal(core_stats(f.core)->failed, 0);
    fix_free(&f);
}

/* One that still reads the old lane would join again, and take the place from the new one. */
static void the_same_worker_again_supersedes_itself(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    fix_tick(&f);
    fix_later(&f, 1);
    uint64_t old = f.worker[0];
    assert_int_not_equal(fix_join_held(&f, 0, "q", 1, NULL, 0), old);
    f.worker[1] = old;
    assert_int_equal(fix_lane(&f, 1, LANE_FENCED, 0)->number, PUSHROD_E_SUPERSEDED);
    assert_int_equal(f.acts->join[0].kind, JOIN_CLOSE);
    assert_int_equal(f.acts->join[0].code, PUSHROD_E_SUPERSEDED);
    fix_free(&f);
}

/* Two run there, one of them about to be cancelled: nobody knows which of them it was. */
static void a_death_beside_a_cancelled_task_is_not_its_own(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 2);
    uint64_t id = fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    uint64_t other = fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    fix_tick(&f);
    fix_later(&f, 1);
    core_cancel(f.core, 5, 1, other);
    fix_tick(&f);
    fix_later(&f, 1);
    core_worker_lost(f.core, f.worker[0], PUSHROD_E_CLOSED, f.now.mono_ns);
    uint8_t instance[16] = {1};
    core_obituary(f.core, &(struct msg_obituary){.instance = slice_of(instance, 16), .signal = 11});
    core_status(f.core, 5, 2, id);
    fix_tick(&f);
    const struct msg_task_row *row = fix_conn(&f, 5, MSG_TASK_ROW, 0)->row;
    assert_int_equal(row->deaths, 0);
    fix_free(&f);
}

/* Anybody may send one to the join port, and a million at once: nothing is kept of it. */
static void obituaries_of_strangers_leave_nothing(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    uint8_t instance[16] = {99};
    core_obituary(f.core, &(struct msg_obituary){.instance = slice_of(instance, 16), .signal = 11});
    fix_tick(&f);
    assert_int_equal(f.acts->wake_ns, UINT64_MAX);
    fix_free(&f);
}

/* Ends the tick. */
static const struct msg_worker_row *fix_worker_row(struct fix *f)
{
    core_list(f->core, 5, &(struct msg_list){.request = 9, .what = S("workers")});
    fix_tick(f);
    const struct conn_action *action = fix_conn(f, 5, MSG_WORKER_ROW, 0);
    assert_non_null(action);
    return action->row;
}

static void broken_handler_is_not_asked_again(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "*", 1);
    uint64_t a = fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    fix_tick(&f);
    uint64_t lease = fix_lane(&f, 0, LANE_TASK, 0)->lease;
    fix_later(&f, 1);
    fix_answer(&f, 0,
        (struct answer){
            .kind = MSG_RETURNED, .id = a, .lease = lease, .code = PUSHROD_E_HANDLER_BROKEN});
    uint64_t b = fix_submit(&f, 5, "other", "", NULL, FOLLOW_NONE);
    fix_tick(&f);
    assert_int_equal(fix_lane(&f, 0, LANE_TASK, 0)->id, b);
    assert_null(fix_lane(&f, 0, LANE_TASK, 1));
    assert_int_equal(core_stats(f.core)->ready, 1);
    fix_later(&f, 1);
    const struct msg_worker_row *row = fix_worker_row(&f);
    assert_true(slice_equal(row->queues, slice_str("*,!q")));
    fix_free(&f);
}

/* What somebody cancelled is no fault of the worker. */
static void cancelled_is_not_failed(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    uint64_t id = fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    fix_tick(&f);
    uint64_t lease = fix_lane(&f, 0, LANE_TASK, 0)->lease;
    fix_later(&f, 1);
    core_cancel(f.core, 5, 1, id);
    fix_tick(&f);
    fix_later(&f, 1);
    fix_answer(&f, 0, fix_failed(id, lease, "cancelled"));
    const struct msg_worker_row *row = fix_worker_row(&f);
    assert_int_equal(row->failed, 0);
    assert_true(slice_equal(row->queues, slice_str("q")));
    fix_free(&f);
}

static void rejoin_keeps_what_runs(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 2);
    uint64_t a = fix_submit(&f, 5, "q", "", NULL, FOLLOW_FINISH);
    uint64_t b = fix_submit(&f, 5, "q", "", NULL, FOLLOW_FINISH);
    fix_tick(&f);
    struct held held[] = {{a, fix_lane(&f, 0, LANE_TASK, 0)->lease, false, true},
        {999, 1, false, true}, {998, 1, true, true}};
    fix_later(&f, 1);
    uint64_t old = f.worker[0];
    fix_join_held(&f, 0, "q", 2, held, 3);
    assert_int_not_equal(f.worker[0], old);
    const struct join_action *welcome = &f.acts->join[1];
    assert_int_equal(f.acts->join[0].kind, JOIN_CLOSE);
    assert_int_equal(welcome->kind, JOIN_WELCOME);
    assert_int_equal(welcome->verdicts[0], VERDICT_KEEP);
    assert_int_equal(welcome->verdicts[1], VERDICT_CANCEL);
    assert_int_equal(welcome->verdicts[2], VERDICT_FORGET);
    fix_later(&f, 1);
    fix_answer(&f, 0, (struct answer){.kind = MSG_READY});
    fix_answer(&f, 0, fix_done(a, held[0].lease, "x"));
    fix_tick(&f);
    assert_int_equal(fix_conn(&f, 5, MSG_FINISHED, 0)->id, a);
    assert_int_equal(fix_lane(&f, 0, LANE_TASK, 0)->id, b);
    fix_free(&f);
}

static void first_done_wins(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    uint64_t id = fix_submit(&f, 5, "q", "", NULL, FOLLOW_FINISH);
    fix_tick(&f);
    uint64_t lease = fix_lane(&f, 0, LANE_TASK, 0)->lease;
    fix_later(&f, 1);
    core_worker_lost(f.core, f.worker[0], PUSHROD_E_TIMED_OUT, f.now.mono_ns);
    fix_tick(&f);
    fix_later(&f, 1);
    fix_worker(&f, 1, "q", 1);
    fix_tick(&f);
    assert_non_null(fix_lane(&f, 1, LANE_TASK, 0));
    fix_later(&f, 1);
    fix_answer(&f, 0, fix_done(id, lease, "first"));
    fix_tick(&f);
    assert_int_equal(fix_conn(&f, 5, MSG_FINISHED, 0)->id, id);
    assert_int_equal(fix_lane(&f, 1, LANE_CANCEL, 0)->id, id);
    fix_free(&f);
}

static void drain_returns_and_ends(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    fix_tick(&f);
    fix_later(&f, 1);
    core_drain(f.core, 100);
    fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    fix_tick(&f);
    assert_int_equal(fix_lane(&f, 0, LANE_DRAIN, 0)->number, 100);
    assert_true(fix_lane(&f, 0, LANE_DRAIN, 0)->again);
    assert_int_equal(fix_conn(&f, 5, MSG_REJECTED, 0)->code, PUSHROD_E_DRAINING);
    fix_later(&f, 1);
    fix_answer(&f, 0, (struct answer){.kind = MSG_BYE});
    fix_tick(&f);
    assert_non_null(fix_notice(&f, NOTICE_DRAINED));
    assert_int_equal(f.acts->wake_ns, UINT64_MAX);
    fix_free(&f);
}

/* A worker that left while it joined says no BYE: the end waits for nobody who has nothing. */
static void drain_waits_for_no_joiner(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    uint64_t id = fix_submit(&f, 5, "q", "", NULL, FOLLOW_FINISH);
    fix_tick(&f);
    struct held held = {id, fix_lane(&f, 0, LANE_TASK, 0)->lease, false, true};
    fix_later(&f, 1);
    fix_join_held(&f, 0, "q", 1, &held, 1); /* back, and not ready yet */
    fix_later(&f, 1);
    fix_join_held(&f, 1, "q", 1, NULL, 0);
    fix_later(&f, 1);
    core_drain(f.core, 100);
    fix_tick(&f);
    assert_int_equal(f.acts->join_count, 1);
    assert_int_equal(f.acts->join[0].kind, JOIN_CLOSE);
    assert_int_equal(f.acts->join[0].worker, f.worker[1]);
    assert_null(fix_notice(&f, NOTICE_DRAINED)); /* the other one has a task */
    fix_later(&f, 1);
    fix_answer(&f, 0, (struct answer){.kind = MSG_READY});
    fix_answer(&f, 0, fix_done(id, held.lease, "x"));
    fix_answer(&f, 0, (struct answer){.kind = MSG_BYE});
    fix_tick(&f);
    assert_non_null(fix_notice(&f, NOTICE_DRAINED));
    fix_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heartbeats_and_fence),
        cmocka_unit_test(heartbeats_are_not_acknowledged),
        cmocka_unit_test(an_idle_worker_answers_pings_only),
        cmocka_unit_test(a_task_rouses_a_quiet_worker),
        cmocka_unit_test(a_busy_worker_is_told_to_beat),
        cmocka_unit_test(pings_come_together),
        cmocka_unit_test(late_server_does_not_fence),
        cmocka_unit_test(not_ready_in_time),
        cmocka_unit_test(poison_is_dead_after_three),
        cmocka_unit_test(a_fence_is_no_death),
        cmocka_unit_test(a_last_chance_goes_on_when_its_worker_lives),
        cmocka_unit_test(the_same_worker_again_supersedes_itself),
        cmocka_unit_test(a_death_beside_a_cancelled_task_is_not_its_own),
        cmocka_unit_test(obituaries_of_strangers_leave_nothing),
        cmocka_unit_test(broken_handler_is_not_asked_again),
        cmocka_unit_test(cancelled_is_not_failed),
        cmocka_unit_test(rejoin_keeps_what_runs),
        cmocka_unit_test(first_done_wins),
        cmocka_unit_test(drain_returns_and_ends),
        cmocka_unit_test(drain_waits_for_no_joiner),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
