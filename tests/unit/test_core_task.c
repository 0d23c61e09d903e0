/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a task without a store behind it: submit, dispatch, answers, retries, ends. */
#include "tests/unit/core_fixture.h"

static void done_is_told(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    uint64_t id = fix_submit(&f, 5, "q", "payload", NULL, FOLLOW_FINISH);
    fix_tick(&f);
    assert_int_equal(fix_conn(&f, 5, MSG_ACCEPTED, 0)->id, id);
    const struct lane_action *task = fix_lane(&f, 0, LANE_TASK, 0);
    assert_non_null(task);
    assert_memory_equal(task->task->record.payload.data, "payload", 7);
    uint64_t lease = task->lease;
    assert_true(lease > 0 && lease < UINT64_C(1) << 63);
    fix_later(&f, 1);
    fix_answer(&f, 0, fix_done(id, lease, "result"));
    fix_tick(&f);
    const struct conn_action *told = fix_conn(&f, 5, MSG_FINISHED, 0);
    assert_non_null(told);
    assert_int_equal(told->task->status, PUSHROD_DONE);
    assert_int_equal(task_result(told->task).size, 6);
    assert_int_equal(fix_lane(&f, 0, LANE_ACK, 0)->number, 2);
    /* Kept until it is acknowledged. */
    fix_later(&f, 1);
    core_wait(f.core, 5, 9, id, FOLLOW_FINISH);
    fix_tick(&f);
    assert_non_null(fix_conn(&f, 5, MSG_FINISHED, 0));
    fix_later(&f, 1);
    core_received(f.core, 5, 2);
    core_wait(f.core, 5, 10, id, FOLLOW_FINISH);
    fix_tick(&f);
    assert_int_equal(fix_conn(&f, 5, MSG_REJECTED, 0)->code, PUSHROD_E_UNKNOWN_TASK);
    assert_int_equal(core_stats(f.core)->ledger, 0);
    fix_free(&f);
}

static void nobody_follows(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    uint64_t id = fix_submit(&f, CONN_SELF, "q", "", NULL, FOLLOW_NONE);
    fix_tick(&f);
    uint64_t lease = fix_lane(&f, 0, LANE_TASK, 0)->lease;
    fix_later(&f, 1);
    fix_answer(&f, 0, fix_done(id, lease, "r"));
    fix_tick(&f);
    assert_null(fix_conn(&f, CONN_SELF, MSG_FINISHED, 0));
    assert_int_equal(core_stats(f.core)->ledger, 0);
    assert_int_equal(core_stats(f.core)->done, 1);
    fix_free(&f);
}

/* Names are remembered for ever, so a stranger may not make up as many as it likes. */
static void queues_are_bounded(void **state)
{
    (void)state;
    struct fix f;
    struct core_config config = {.seed = 1, .max_queues = 2, .store = {.bypass = true}};
    fix_new(&f, &config);
    assert_int_not_equal(fix_submit(&f, 5, "a", "", NULL, FOLLOW_NONE), 0);
    assert_int_not_equal(fix_submit(&f, 5, "b", "", NULL, FOLLOW_NONE), 0);
    assert_int_equal(fix_submit(&f, 5, "c", "", NULL, FOLLOW_NONE), 0);
    assert_int_not_equal(fix_submit(&f, 5, "a", "", NULL, FOLLOW_NONE), 0);
    fix_tick(&f);
    const struct conn_action *no = fix_conn(&f, 5, MSG_REJECTED, 0);
    assert_int_equal(no->code, PUSHROD_E_TOO_MANY);
    assert_non_null(strstr(no->text, "raise max-queues"));
    assert_null(fix_conn(&f, 5, MSG_REJECTED, 1));
    fix_free(&f);
}

static void retries_then_dead(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    struct msg_options o = fix_options();
    o.max_attempts = 2;
    uint64_t id = fix_submit(&f, 5, "q", "p", &o, FOLLOW_ALL);
    fix_tick(&f);
    uint64_t first = fix_lane(&f, 0, LANE_TASK, 0)->lease;
    fix_later(&f, 1);
    fix_answer(&f, 0, fix_failed(id, first, "no"));
    fix_tick(&f);
    assert_null(fix_lane(&f, 0, LANE_TASK, 0));
    const struct msg_attempt *attempt = fix_conn(&f, 5, MSG_ATTEMPT, 0)->row;
    assert_int_equal(attempt->attempt, 1);
    assert_true(attempt->retry_ms >= 1 && attempt->retry_ms <= 1001);
    assert_true(f.acts->wake_ns <= f.now.mono_ns + attempt->retry_ms * MSEC);
    fix_later(&f, attempt->retry_ms);
    fix_tick(&f);
    uint64_t second = fix_lane(&f, 0, LANE_TASK, 0)->lease;
    assert_int_not_equal(second, first);
    fix_later(&f, 1);
    /* A late failure of the first attempt changes nothing. */
    fix_answer(&f, 0, fix_failed(id, first, "late"));
    fix_answer(&f, 0, fix_failed(id, second, "no again"));
    fix_tick(&f);
    const struct task *t = fix_conn(&f, 5, MSG_FINISHED, 0)->task;
    assert_int_equal(t->status, PUSHROD_FAILED);
    assert_string_equal(t->text, "no again");
    assert_int_equal(t->hand_overs, 2);
    assert_non_null(fix_notice(&f, NOTICE_TASK_DEAD));
    /* The dead letter stays, and can be replayed. */
    fix_later(&f, 1);
    core_received(f.core, 5, 1);
    struct msg_list list = {.request = 3, .what = S("dead")};
    core_list(f.core, 5, &list);
    fix_tick(&f);
    const struct msg_task_row *row = fix_conn(&f, 5, MSG_TASK_ROW, 0)->row;
    assert_int_equal(row->id, id);
    fix_later(&f, 1);
    struct msg_control replay = {.request = 4, .verb = S("replay"), .id = id};
    core_control(f.core, 5, &replay);
    fix_tick(&f);
    assert_non_null(fix_conn(&f, 5, MSG_OK, 0));
    assert_int_equal(fix_lane(&f, 0, LANE_TASK, 0)->id, id);
    fix_free(&f);
}

static void permanent_and_retry_after(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 2);
    uint64_t a = fix_submit(&f, 5, "q", "p", NULL, FOLLOW_FINISH);
    uint64_t b = fix_submit(&f, 5, "q", "p", NULL, FOLLOW_FINISH);
    fix_tick(&f);
    struct answer fa = fix_failed(a, fix_lane(&f, 0, LANE_TASK, 0)->lease, "bad input");
    struct answer fb = fix_failed(b, fix_lane(&f, 0, LANE_TASK, 1)->lease, "wait");
    fa.permanent = true;
    fb.number = 5000;
    fix_later(&f, 1);
    fix_answer(&f, 0, fa);
    fix_answer(&f, 0, fb);
    fix_tick(&f);
    assert_int_equal(fix_conn(&f, 5, MSG_FINISHED, 0)->id, a);
    fix_later(&f, 2900);
    fix_answer(&f, 0, (struct answer){.kind = MSG_HEARTBEAT});
    fix_tick(&f);
    fix_later(&f, 2099);
    fix_tick(&f);
    assert_null(fix_lane(&f, 0, LANE_TASK, 0));
    fix_later(&f, 1);
    fix_tick(&f);
    assert_int_equal(fix_lane(&f, 0, LANE_TASK, 0)->id, b);
    fix_free(&f);
}

/* A worker of somebody else may ask for any time: it is late, and never at once. */
static void retry_after_for_ever_is_long(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    uint64_t id = fix_submit(&f, 5, "q", "", NULL, FOLLOW_FINISH);
    fix_tick(&f);
    struct answer failed = fix_failed(id, fix_lane(&f, 0, LANE_TASK, 0)->lease, "later");
    failed.number = UINT64_C(1) << 62;
    fix_later(&f, 1);
    fix_answer(&f, 0, failed);
    fix_tick(&f);
    fix_later(&f, 1000);
    fix_answer(&f, 0, (struct answer){.kind = MSG_HEARTBEAT});
    fix_tick(&f);
    assert_null(fix_lane(&f, 0, LANE_TASK, 0));
    assert_int_equal(core_stats(f.core)->delayed, 1);
    fix_free(&f);
}

static void priority_then_order(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    struct msg_options low = fix_options(), high = fix_options();
    low.priority = 1;
    high.priority = 9;
    uint64_t a = fix_submit(&f, 5, "q", "", &low, FOLLOW_NONE);
    uint64_t b = fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    uint64_t c = fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    uint64_t d = fix_submit(&f, 5, "q", "", &high, FOLLOW_NONE);
    fix_worker(&f, 0, "*", 4);
    fix_tick(&f);
    uint64_t expected[] = {d, b, c, a};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(fix_lane(&f, 0, LANE_TASK, i)->id, expected[i]);
    /* Given back, the first of them comes first again. */
    uint64_t lease = fix_lane(&f, 0, LANE_TASK, 1)->lease;
    fix_later(&f, 1);
    uint64_t e = fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    fix_answer(&f, 0, (struct answer){.kind = MSG_RETURNED, .id = b, .lease = lease});
    fix_tick(&f);
    assert_int_equal(fix_lane(&f, 0, LANE_TASK, 0)->id, b);
    assert_null(fix_lane(&f, 0, LANE_TASK, 1));
    (void)e;
    fix_free(&f);
}

static void delay_and_expiry(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    struct msg_options later = fix_options(), soon = fix_options();
    later.delay_ms = 500;
    soon.expires_ms = 100;
    uint64_t a = fix_submit(&f, 5, "q", "", &later, FOLLOW_FINISH);
    uint64_t b = fix_submit(&f, 5, "q", "", &soon, FOLLOW_FINISH);
    fix_tick(&f);
    assert_int_equal(f.acts->wake_ns, f.now.mono_ns + 100 * MSEC);
    fix_later(&f, 100);
    fix_tick(&f);
    assert_int_equal(fix_conn(&f, 5, MSG_FINISHED, 0)->id, b);
    assert_int_equal(fix_conn(&f, 5, MSG_FINISHED, 0)->task->status, PUSHROD_EXPIRED);
    fix_later(&f, 1);
    fix_worker(&f, 0, "q", 1);
    fix_tick(&f);
    assert_null(fix_lane(&f, 0, LANE_TASK, 0));
    fix_later(&f, 398);
    fix_tick(&f);
    assert_int_equal(fix_lane(&f, 0, LANE_TASK, 0)->id, a);
    fix_free(&f);
}

static void unique_keys(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    struct msg_options o = fix_options();
    o.unique_key = S("k");
    uint64_t a = fix_submit(&f, 5, "q", "", &o, FOLLOW_NONE);
    assert_int_equal(fix_submit(&f, 5, "q", "", &o, FOLLOW_NONE), 0);
    assert_int_not_equal(fix_submit(&f, 5, "other", "", &o, FOLLOW_NONE), 0);
    fix_tick(&f);
    assert_int_equal(fix_conn(&f, 5, MSG_REJECTED, 0)->code, PUSHROD_E_DUPLICATE);
    assert_int_equal(fix_conn(&f, 5, MSG_REJECTED, 0)->id, a);
    fix_later(&f, 1);
    core_cancel(f.core, 5, 1, a);
    assert_int_not_equal(fix_submit(&f, 5, "q", "", &o, FOLLOW_NONE), 0);
    fix_tick(&f);
    fix_free(&f);
}

static void cancel_ready_and_leased(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    uint64_t a = fix_submit(&f, 5, "q", "", NULL, FOLLOW_FINISH);
    uint64_t b = fix_submit(&f, 5, "q", "", NULL, FOLLOW_FINISH);
    core_cancel(f.core, 5, 1, a);
    fix_tick(&f);
    assert_int_equal(fix_conn(&f, 5, MSG_FINISHED, 0)->task->status, PUSHROD_CANCELLED);
    fix_later(&f, 1);
    fix_worker(&f, 0, "q", 1);
    fix_tick(&f);
    fix_later(&f, 1);
    core_cancel(f.core, 5, 2, b);
    fix_tick(&f);
    const struct lane_action cancel = *fix_lane(&f, 0, LANE_CANCEL, 0);
    assert_int_equal(cancel.id, b);
    assert_null(fix_conn(&f, 5, MSG_FINISHED, 0));
    for (int i = 0; i < 2; i++) {
        fix_later(&f, 2499);
        fix_answer(&f, 0, (struct answer){.kind = MSG_HEARTBEAT});
        fix_tick(&f);
        assert_null(fix_conn(&f, 5, MSG_FINISHED, 0));
    }
    fix_later(&f, 2);
    uint64_t c = fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    fix_tick(&f);
    assert_int_equal(fix_conn(&f, 5, MSG_FINISHED, 0)->id, b);
    /* The slot is not free before the worker says so. */
    assert_null(fix_lane(&f, 0, LANE_TASK, 0));
    fix_later(&f, 1);
    fix_answer(&f, 0, fix_failed(b, cancel.lease, "cancelled"));
    fix_tick(&f);
    assert_int_equal(fix_lane(&f, 0, LANE_TASK, 0)->id, c);
    fix_free(&f);
}

/* The last attempt: that it failed is what the cancellation made of it. */
static void a_cancelled_attempt_is_no_failure(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    struct msg_options o = fix_options();
    o.max_attempts = 1;
    uint64_t id = fix_submit(&f, 5, "q", "", &o, FOLLOW_FINISH);
    fix_worker(&f, 0, "q", 1);
    fix_tick(&f);
    uint64_t lease = fix_lane(&f, 0, LANE_TASK, 0)->lease;
    fix_later(&f, 1);
    core_cancel(f.core, 5, 2, id);
    fix_tick(&f);
    fix_later(&f, 1);
    fix_answer(&f, 0, fix_failed(id, lease, "killed"));
    fix_tick(&f);
    assert_int_equal(fix_conn(&f, 5, MSG_FINISHED, 0)->task->status, PUSHROD_CANCELLED);
    assert_int_equal(core_stats(f.core)->dead, 0);
    fix_free(&f);
}

/* Without a store: the window of a key may outlast its task, and ends without it as well. */
static void a_key_holds_as_long_as_its_window(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    struct msg_options o = fix_options();
    o.unique_key = S("key");
    o.unique_ms = 1000;
    uint64_t id = fix_submit(&f, 5, "q", "", &o, FOLLOW_FINISH);
    fix_tick(&f);
    uint64_t lease = fix_lane(&f, 0, LANE_TASK, 0)->lease;
    fix_later(&f, 1);
    fix_answer(&f, 0, fix_done(id, lease, ""));
    fix_tick(&f);
    assert_non_null(fix_conn(&f, 5, MSG_FINISHED, 0));
    fix_later(&f, 900);
    assert_int_equal(fix_submit(&f, 5, "q", "", &o, FOLLOW_NONE), 0);
    fix_tick(&f);
    assert_int_equal(fix_conn(&f, 5, MSG_REJECTED, 0)->id, id);
    fix_later(&f, 100); /* its time is over before the timers of this tick say so */
    assert_int_not_equal(fix_submit(&f, 5, "q", "", &o, FOLLOW_NONE), 0);
    fix_free(&f);
}

static void bad_submissions(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    struct msg_options o = fix_options();
    o.priority = 10;
    fix_submit(&f, 5, "q", "", &o, FOLLOW_NONE);
    fix_submit(&f, 5, "", "", NULL, FOLLOW_NONE);
    fix_submit(&f, 5, "a b", "", NULL, FOLLOW_NONE);
    fix_tick(&f);
    assert_int_equal(fix_conn(&f, 5, MSG_REJECTED, 0)->code, PUSHROD_E_BAD_OPTION);
    assert_int_equal(fix_conn(&f, 5, MSG_REJECTED, 1)->code, PUSHROD_E_BAD_QUEUE);
    assert_int_equal(fix_conn(&f, 5, MSG_REJECTED, 2)->code, PUSHROD_E_BAD_QUEUE);
    assert_int_equal(core_stats(f.core)->rejected, 3);
    fix_free(&f);
}

static void timeout_is_fenced(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    struct msg_options o = fix_options();
    o.timeout_ms = 500;
    o.max_attempts = 1;
    uint64_t id = fix_submit(&f, 5, "q", "", &o, FOLLOW_FINISH);
    fix_tick(&f);
    uint64_t lease = fix_lane(&f, 0, LANE_TASK, 0)->lease;
    fix_later(&f, 2499);
    fix_tick(&f);
    assert_null(fix_conn(&f, 5, MSG_FINISHED, 0));
    fix_later(&f, 1);
    fix_tick(&f);
    assert_int_equal(fix_conn(&f, 5, MSG_FINISHED, 0)->code, PUSHROD_E_TASK_TIMEOUT);
    assert_int_equal(fix_lane(&f, 0, LANE_CANCEL, 0)->lease, lease);
    fix_later(&f, 1);
    fix_answer(&f, 0, fix_done(id, lease, "late"));
    fix_tick(&f);
    assert_null(fix_conn(&f, 5, MSG_FINISHED, 0));
    assert_int_equal(core_stats(f.core)->stale_answers, 1);
    fix_free(&f);
}

/* A short result takes the place of the payload, a longer one has memory of its own. */
static void results_of_each_size_stay(void **state)
{
    static const char *const results[] = {"", "r", "payloaD", "longer than the payload"};
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    for (size_t i = 0; i < sizeof results / sizeof *results; i++) {
        uint64_t id = fix_submit(&f, 5, "q", "payload", NULL, FOLLOW_FINISH);
        fix_tick(&f);
        uint64_t lease = fix_lane(&f, 0, LANE_TASK, 0)->lease;
        fix_later(&f, 1);
        fix_answer(&f, 0, fix_done(id, lease, results[i]));
        fix_tick(&f);
        /* Told at once, and again to whoever asks later. */
        for (int asked = 0; asked < 2; asked++) {
            struct slice result = task_result(fix_conn(&f, 5, MSG_FINISHED, 0)->task);
            assert_int_equal(result.size, strlen(results[i]));
            assert_memory_equal(result.data, results[i], result.size);
            fix_later(&f, 1);
            core_wait(f.core, 5, 9, id, FOLLOW_FINISH);
            fix_tick(&f);
        }
        fix_later(&f, 1);
    }
    fix_free(&f);
}

/* Those held for the common time go in their order, those kept longer at theirs. */
static void finishes_go_in_time(void **state)
{
    (void)state;
    struct fix f;
    struct core_config config = {.seed = 1, .hold_ms = 1000, .store = {.bypass = true}};
    fix_new(&f, &config);
    fix_worker(&f, 0, "q", 4);
    struct msg_options longer = fix_options();
    longer.keep_ms = 5000;
    for (int i = 0; i < 4; i++)
        fix_submit(&f, 5, "q", "payload", i == 0 ? &longer : NULL, FOLLOW_FINISH);
    fix_tick(&f);
    struct answer answers[4];
    for (unsigned i = 0; i < 4; i++) {
        const struct lane_action *task = fix_lane(&f, 0, LANE_TASK, i);
        answers[i] = fix_done(task->id, task->lease, "r");
    }
    fix_later(&f, 1);
    for (unsigned i = 0; i < 4; i++)
        fix_answer(&f, 0, answers[i]);
    fix_tick(&f);
    fix_later(&f, 999);
    fix_tick(&f);
    assert_int_equal(core_stats(f.core)->ledger, 4);
    fix_later(&f, 1);
    fix_tick(&f);
    assert_int_equal(core_stats(f.core)->ledger, 1);
    fix_later(&f, 4000);
    fix_tick(&f);
    assert_int_equal(core_stats(f.core)->ledger, 0);
    fix_free(&f);
}

static void large_result_in_parts(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    uint64_t id = fix_submit(&f, CONN_SELF, "q", "", NULL, FOLLOW_FINISH);
    fix_tick(&f);
    uint64_t lease = fix_lane(&f, 0, LANE_TASK, 0)->lease;
    fix_later(&f, 1);
    fix_answer(&f, 0,
        (struct answer){
            .kind = MSG_PART, .id = id, .lease = lease, .number = 10, .data = S("01234")});
    fix_answer(&f, 0,
        (struct answer){
            .kind = MSG_PART, .id = id, .lease = lease, .number = 10, .data = S("567")});
    fix_answer(&f, 0, fix_done(id, lease, "89"));
    fix_tick(&f);
    const struct conn_action *told = fix_conn(&f, CONN_SELF, MSG_FINISHED, 0);
    assert_int_equal(told->request, 77);
    assert_memory_equal(task_result(told->task).data, "0123456789", 10);
    fix_later(&f, 1);
    fix_tick(&f);
    assert_int_equal(core_stats(f.core)->ledger, 0);
    fix_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(done_is_told),
        cmocka_unit_test(nobody_follows),
        cmocka_unit_test(queues_are_bounded),
        cmocka_unit_test(retries_then_dead),
        cmocka_unit_test(permanent_and_retry_after),
        cmocka_unit_test(retry_after_for_ever_is_long),
        cmocka_unit_test(priority_then_order),
        cmocka_unit_test(delay_and_expiry),
        cmocka_unit_test(unique_keys),
        cmocka_unit_test(cancel_ready_and_leased),
        cmocka_unit_test(a_cancelled_attempt_is_no_failure),
        cmocka_unit_test(a_key_holds_as_long_as_its_window),
        cmocka_unit_test(bad_submissions),
        cmocka_unit_test(timeout_is_fenced),
        cmocka_unit_test(results_of_each_size_stay),
        cmocka_unit_test(finishes_go_in_time),
        cmocka_unit_test(large_result_in_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
