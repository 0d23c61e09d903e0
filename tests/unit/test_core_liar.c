/* SPDX-License-Identifier: Apache-2.0 */
/* What a worker says of attempts that it was not given, and what others may still say of theirs. */
#include "tests/unit/core_fixture.h"

static struct fix f;
static uint64_t id, lease;

/* Worker 0 runs a task; worker 1 is the liar, or the next one to get it. */
static void begin(void)
{
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    id = fix_submit(&f, 5, "q", "payload", NULL, FOLLOW_FINISH);
    fix_end(&f);
    lease = fix_lane(&f, 0, LANE_TASK, 0)->lease;
    fix_later(&f, 1);
    fix_worker(&f, 1, "q", 1);
    fix_end(&f);
    fix_later(&f, 1);
}

static void assert_finished(const char *result)
{
    fix_end(&f);
    const struct conn_action *told = fix_conn(&f, 5, MSG_FINISHED, 0);
    assert_non_null(told);
    assert_int_equal(told->id, id);
    assert_int_equal(told->task->status, PUSHROD_DONE);
    assert_true(slice_equal(task_result(told->task), S(result)));
    assert_int_equal(core_stats(f.core)->done, 1);
}

static void assert_dropped(uint64_t stale)
{
    fix_end(&f);
    assert_null(fix_conn(&f, 5, MSG_FINISHED, 0));
    assert_int_equal(core_stats(f.core)->stale_answers, stale);
    assert_int_equal(core_stats(f.core)->done, 0);
    fix_later(&f, 1);
}

static void a_lease_that_was_never_given_finishes_nothing(void **state)
{
    (void)state;
    begin();
    fix_answer(&f, 1, fix_done(id, lease + (1u << 24), "lie"));
    fix_answer(&f, 0, fix_done(id, lease ^ UINT64_C(1) << 48, "lie"));
    assert_dropped(2);
    fix_answer(&f, 0, fix_done(id, lease, "truth"));
    assert_finished("truth");
    fix_free(&f);
}

static void another_workers_lease_finishes_nothing(void **state)
{
    (void)state;
    begin();
    fix_answer(&f, 1, fix_done(id, lease, "lie"));
    assert_dropped(1);
    assert_null(fix_lane(&f, 0, LANE_CANCEL, 0));
    fix_answer(&f, 0, fix_done(id, lease, "truth"));
    assert_finished("truth");
    fix_free(&f);
}

static void what_nobody_has_is_finished_by_nobody(void **state)
{
    (void)state;
    begin();
    uint64_t waits = fix_submit(&f, 5, "other", "", NULL, FOLLOW_FINISH);
    fix_answer(&f, 1, fix_done(waits, lease, "lie"));
    fix_answer(&f, 1, fix_done(waits, 0, "lie"));
    assert_dropped(2);
    assert_int_equal(core_stats(f.core)->ready, 1);
    fix_free(&f);
}

/* Nor do its pieces of a result tear those of the worker that has the task. */
static void a_lie_tears_no_result(void **state)
{
    (void)state;
    begin();
    struct answer part = fix_done(id, lease, "tr");
    part.kind = MSG_PART;
    part.number = 5;
    fix_answer(&f, 0, part);
    fix_answer(&f, 1, part);
    part.lease++;
    fix_answer(&f, 1, part);
    fix_answer(&f, 0, fix_done(id, lease, "uth"));
    assert_finished("truth");
    fix_free(&f);
}

/* The attempt was given up, and its worker ends it all the same. */
static uint64_t given_to_the_next(int code)
{
    core_worker_lost(f.core, f.worker[0], code, f.now.mono_ns);
    fix_end(&f);
    const struct lane_action *l = fix_lane(&f, 1, LANE_TASK, 0);
    assert_non_null(l);
    uint64_t next = l->lease;
    assert_int_equal(l->id, id);
    fix_later(&f, 1);
    return next;
}

static void a_late_answer_of_an_attempt_that_was_given_wins(void **state)
{
    (void)state;
    begin();
    uint64_t next = given_to_the_next(PUSHROD_E_TIMED_OUT);
    fix_answer(&f, 0, fix_done(id, next, "lie"));
    assert_dropped(1);
    fix_answer(&f, 0, fix_done(id, lease, "late"));
    assert_finished("late");
    assert_non_null(fix_lane(&f, 1, LANE_CANCEL, 0));
    fix_free(&f);
}

/* It is remembered for as long as answers may be on their way, and not forever. */
static void an_answer_that_comes_much_later_is_dropped(void **state)
{
    (void)state;
    begin();
    given_to_the_next(PUSHROD_E_TIMED_OUT);
    fix_later(&f, 60000);
    fix_end(&f);
    fix_later(&f, 1);
    fix_answer(&f, 0, fix_done(id, lease, "too late"));
    assert_dropped(1);
    fix_free(&f);
}

/* What it said at JOIN that it has counts, with that lease. */
static void an_answer_that_was_held_wins(void **state)
{
    (void)state;
    begin();
    uint64_t next = given_to_the_next(PUSHROD_E_TIMED_OUT);
    struct answer started = {.kind = MSG_STARTED, .id = id, .lease = next};
    fix_answer(&f, 1, started);
    fix_end(&f);
    fix_later(&f, 1);
    struct held held = {.id = id, .lease = lease, .answered = true, .started = true};
    assert_int_not_equal(fix_join_held(&f, 0, "q", 1, &held, 1), 0);
    assert_int_equal(f.acts->join[0].verdicts[0], VERDICT_SEND);
    fix_later(&f, 1);
    fix_answer(&f, 0, (struct answer){.kind = MSG_READY});
    fix_answer(&f, 0, fix_done(id, lease + 1, "lie"));
    assert_dropped(1);
    fix_answer(&f, 0, fix_done(id, lease, "held"));
    assert_finished("held");
    fix_free(&f);
}

/* A slot that a fenced attempt takes is free when that attempt is answered, and not before. */
static void a_lie_frees_no_slot(void **state)
{
    (void)state;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    struct msg_options o = fix_options();
    o.timeout_ms = 100;
    o.max_attempts = 1;
    id = fix_submit(&f, 5, "q", "", &o, FOLLOW_NONE);
    fix_end(&f);
    lease = fix_lane(&f, 0, LANE_TASK, 0)->lease;
    fix_later(&f, 2101);
    fix_answer(&f, 0, (struct answer){.kind = MSG_HEARTBEAT});
    uint64_t next = fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    fix_end(&f);
    assert_non_null(fix_lane(&f, 0, LANE_CANCEL, 0));
    fix_later(&f, 1);
    fix_answer(&f, 0, fix_failed(id, lease + 1, "lie"));
    fix_answer(&f, 0, fix_failed(next, lease, "lie"));
    fix_end(&f);
    assert_null(fix_lane(&f, 0, LANE_TASK, 0));
    fix_later(&f, 1);
    fix_answer(&f, 0, fix_failed(id, lease, "at last"));
    fix_end(&f);
    assert_int_equal(fix_lane(&f, 0, LANE_TASK, 0)->id, next);
    fix_free(&f);
}

/* A piece of its result has come, so that there is something to look for. */
static void an_answer_without_a_lease_is_no_answer(void **state)
{
    (void)state;
    begin();
    struct answer part = fix_done(id, lease, "re");
    part.kind = MSG_PART;
    part.number = 6;
    fix_answer(&f, 0, part);
    fix_answer(&f, 0, fix_done(id, 0, "lie"));
    fix_answer(&f, 0, fix_failed(id, 0, "lie"));
    fix_answer(&f, 0, fix_done(id, lease, "sult"));
    assert_finished("result");
    fix_free(&f);
}

static void a_join_may_name_a_task_twice(void **state)
{
    (void)state;
    begin();
    core_worker_lost(f.core, f.worker[1], PUSHROD_E_CLOSED, f.now.mono_ns);
    core_worker_lost(f.core, f.worker[0], PUSHROD_E_CLOSED, f.now.mono_ns);
    fix_end(&f);
    fix_later(&f, 1);
    struct held held[] = {{.id = id, .lease = lease}, {.id = id, .lease = lease}};
    assert_int_not_equal(fix_join_held(&f, 0, "q", 1, held, 2), 0);
    fix_later(&f, 1);
    fix_answer(&f, 0, (struct answer){.kind = MSG_READY});
    fix_answer(&f, 0, fix_done(id, lease, "result"));
    assert_finished("result");
    fix_free(&f);
}

/* Nobody was ever handed it, so nobody has it: neither with another's lease, nor with a made-up one
 * of this life or of a former one. */
static void what_nobody_was_handed_is_kept_by_nobody(void **state)
{
    (void)state;
    begin();
    uint64_t waits = fix_submit(&f, 5, "other", "", NULL, FOLLOW_FINISH);
    fix_end(&f);
    fix_later(&f, 1);
    uint64_t leases[] = {lease, lease + 1, lease + (UINT64_C(1) << 24), lease + (1u << 24) + 1,
        lease - (UINT64_C(1) << 48), lease + 1 - (UINT64_C(1) << 48)};
    struct held held[2 * sizeof leases / sizeof *leases];
    size_t count = sizeof held / sizeof *held;
    for (size_t i = 0; i < count; i++)
        held[i] = (struct held){
            .id = waits, .lease = leases[i / 2], .answered = i % 2, .started = i % 3 > 0};
    assert_int_not_equal(fix_join_held(&f, 2, "q", 1, held, count), 0);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(
            f.acts->join[0].verdicts[i], held[i].answered ? VERDICT_FORGET : VERDICT_CANCEL);
    assert_int_equal(core_stats(f.core)->ready, 1);
    fix_later(&f, 1);
    fix_answer(&f, 2, (struct answer){.kind = MSG_READY});
    fix_answer(&f, 2, fix_done(waits, lease + 1, "lie"));
    assert_dropped(1);
    fix_free(&f);
}

/* Each lease that it ever had counts, and the next one does not. */
static void what_was_handed_is_known_by_each_of_its_leases(void **state)
{
    (void)state;
    begin();
    uint64_t next = given_to_the_next(PUSHROD_E_TIMED_OUT);
    core_worker_lost(f.core, f.worker[1], PUSHROD_E_TIMED_OUT, f.now.mono_ns);
    fix_end(&f);
    fix_later(&f, 1);
    struct held held[] = {{.id = id, .lease = next + (1u << 24), .answered = true},
        {.id = id, .lease = lease - (1u << 24), .answered = true},
        {.id = id, .lease = lease, .answered = true}, {.id = id, .lease = next, .answered = true}};
    static const uint8_t verdicts[] = {VERDICT_FORGET, VERDICT_FORGET, VERDICT_SEND, VERDICT_SEND};
    assert_int_not_equal(fix_join_held(&f, 1, "q", 1, held, 4), 0);
    assert_memory_equal(f.acts->join[0].verdicts, verdicts, sizeof verdicts);
    fix_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lease_that_was_never_given_finishes_nothing),
        cmocka_unit_test(another_workers_lease_finishes_nothing),
        cmocka_unit_test(what_nobody_has_is_finished_by_nobody),
        cmocka_unit_test(a_lie_tears_no_result),
        cmocka_unit_test(a_late_answer_of_an_attempt_that_was_given_wins),
        cmocka_unit_test(an_answer_that_comes_much_later_is_dropped),
        cmocka_unit_test(an_answer_that_was_held_wins),
        cmocka_unit_test(a_lie_frees_no_slot),
        cmocka_unit_test(an_answer_without_a_lease_is_no_answer),
        cmocka_unit_test(a_join_may_name_a_task_twice),
        cmocka_unit_test(what_nobody_was_handed_is_kept_by_nobody),
        cmocka_unit_test(what_was_handed_is_known_by_each_of_its_leases),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
