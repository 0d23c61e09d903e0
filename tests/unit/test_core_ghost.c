/* SPDX-License-Identifier: Apache-2.0 */
/* Slots of attempts that were fenced and did not end, and of suspects for which one is kept free.
 */
#include "tests/unit/core_fixture.h"

static struct fix f;

static void beat(unsigned n)
{
    fix_answer(&f, n, (struct answer){.kind = MSG_HEARTBEAT});
}

/* So many short ones that the next are put ahead of a slot. */
static void learn(void)
{
    for (int i = 0; i < 30; i++) {
        uint64_t id = fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
        fix_end(&f);
        struct answer done = fix_done(id, fix_lane(&f, 0, LANE_TASK, 0)->lease, "");
        done.run_ns = 100000;
        fix_later(&f, 1);
        fix_answer(&f, 0, done);
    }
}

/* Its only slot runs a task that was cancelled, and does not obey. */
static void stuck(void)
{
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    learn();
    uint64_t id = fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    fix_end(&f);
    uint64_t lease = fix_lane(&f, 0, LANE_TASK, 0)->lease;
    fix_later(&f, 10);
    fix_answer(&f, 0, (struct answer){.kind = MSG_STARTED, .id = id, .lease = lease});
    core_cancel(f.core, 5, 1, id);
    fix_end(&f);
    assert_non_null(fix_lane(&f, 0, LANE_CANCEL, 0));
    for (int i = 0; i < 6; i++) {
        fix_later(&f, 1000);
        beat(0);
        fix_end(&f);
    }
    assert_int_equal(core_stats(f.core)->cancelled, 1);
    fix_later(&f, 1);
    beat(0);
}

static void nothing_is_put_ahead_of_a_slot_that_does_not_come_free(void **state)
{
    (void)state;
    stuck();
    uint64_t id = fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    fix_end(&f);
    assert_null(fix_lane(&f, 0, LANE_TASK, 0));
    fix_later(&f, 1);
    beat(0);
    fix_worker(&f, 1, "q", 1);
    fix_end(&f);
    assert_int_equal(fix_lane(&f, 1, LANE_TASK, 0)->id, id);
    fix_free(&f);
}

/* It would be dead without having run. */
static void what_did_not_start_does_not_time_out(void **state)
{
    (void)state;
    struct msg_options o = fix_options();
    o.timeout_ms = 100;
    o.max_attempts = 1;
    stuck();
    fix_submit(&f, 5, "q", "", &o, FOLLOW_NONE);
    for (int i = 0; i < 10; i++) {
        fix_end(&f);
        fix_later(&f, 500);
        beat(0);
    }
    fix_end(&f);
    assert_int_equal(core_stats(f.core)->failed, 0);
    fix_free(&f);
}

/* The only slot is stuck in another, and then the worker dies: it had nothing to do with that. */
static void what_waits_behind_a_stuck_slot_is_no_suspect(void **state)
{
    (void)state;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    learn();
    uint64_t ids[2];
    for (int i = 0; i < 2; i++)
        ids[i] = fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    fix_end(&f);
    uint64_t lease = fix_lane(&f, 0, LANE_TASK, 0)->lease;
    assert_int_equal(fix_lane(&f, 0, LANE_TASK, 1)->id, ids[1]);
    fix_later(&f, 10);
    fix_answer(&f, 0, (struct answer){.kind = MSG_STARTED, .id = ids[0], .lease = lease});
    core_cancel(f.core, 5, 1, ids[0]);
    for (int i = 0; i < 6; i++) {
        fix_end(&f);
        fix_later(&f, 1000);
        beat(0);
    }
    assert_int_equal(core_stats(f.core)->cancelled, 1);
    fix_worker(&f, 1, "q", 2);
    core_worker_lost(f.core, f.worker[0], PUSHROD_E_TASK_CRASHED, f.now.mono_ns);
    fix_end(&f);
    const struct lane_action *next = fix_lane(&f, 1, LANE_TASK, 0);
    assert_non_null(next);
    assert_int_equal(next->id, ids[1]);
    assert_false(next->task->record.suspect);
    fix_free(&f);
}

/* Of two slots one is stuck, and a second task runs: what is behind it is asked back. */
static void what_waits_behind_a_stuck_slot_is_asked_back(void **state)
{
    (void)state;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 2);
    learn();
    uint64_t ids[3], leases[3];
    for (int i = 0; i < 3; i++)
        ids[i] = fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    fix_end(&f);
    for (unsigned i = 0; i < 3; i++) {
        assert_non_null(fix_lane(&f, 0, LANE_TASK, i));
        assert_int_equal(fix_lane(&f, 0, LANE_TASK, i)->id, ids[i]);
        leases[i] = fix_lane(&f, 0, LANE_TASK, i)->lease;
    }
    fix_later(&f, 1);
    fix_answer(&f, 0, (struct answer){.kind = MSG_STARTED, .id = ids[0], .lease = leases[0]});
    core_cancel(f.core, 5, 1, ids[0]);
    core_cancel(f.core, 5, 2, ids[1]);
    for (int i = 0; i < 7; i++) {
        fix_end(&f);
        fix_later(&f, 1000);
        beat(0);
    }
    assert_int_equal(core_stats(f.core)->cancelled, 2);
    fix_worker(&f, 1, "q", 1);
    bool asked = false;
    for (int i = 0; i < 4; i++) {
        fix_end(&f);
        const struct lane_action *a = fix_lane(&f, 0, LANE_WITHDRAW, 0);
        asked |= a && a->id == ids[2];
        fix_later(&f, 500);
        beat(0);
        beat(1);
    }
    fix_end(&f);
    assert_true(asked);
    fix_free(&f);
}

/* A worker is to be empty for a suspect, which is cancelled: what waits for its slots goes on. */
static void a_slot_is_not_kept_for_a_suspect_that_is_gone(void **state)
{
    (void)state;
    fix_new(&f, NULL);
    fix_worker(&f, 1, "a", 1);
    uint64_t suspect = fix_submit(&f, 5, "a", "", NULL, FOLLOW_NONE);
    fix_end(&f);
    uint64_t lease = fix_lane(&f, 1, LANE_TASK, 0)->lease;
    fix_later(&f, 1);
    fix_answer(&f, 1, (struct answer){.kind = MSG_STARTED, .id = suspect, .lease = lease});
    fix_worker(&f, 0, "*", 4);
    uint64_t other = fix_submit(&f, 5, "b", "", NULL, FOLLOW_NONE);
    fix_end(&f);
    assert_int_equal(fix_lane(&f, 0, LANE_TASK, 0)->id, other);
    lease = fix_lane(&f, 0, LANE_TASK, 0)->lease;
    fix_later(&f, 1);
    fix_answer(&f, 0, (struct answer){.kind = MSG_STARTED, .id = other, .lease = lease});
    core_worker_lost(f.core, f.worker[1], PUSHROD_E_CLOSED, f.now.mono_ns);
    fix_end(&f);
    assert_null(fix_lane(&f, 0, LANE_TASK, 0));
    fix_later(&f, 1);
    uint64_t id = fix_submit(&f, 5, "b", "", NULL, FOLLOW_NONE);
    fix_end(&f);
    assert_null(fix_lane(&f, 0, LANE_TASK, 0));
    fix_later(&f, 1);
    core_cancel(f.core, 5, 1, suspect);
    fix_end(&f);
    assert_non_null(fix_lane(&f, 0, LANE_TASK, 0));
    assert_int_equal(fix_lane(&f, 0, LANE_TASK, 0)->id, id);
    fix_free(&f);
}

/* Answers of two attempts at one task, held by one worker, while another has it: each counts. */
static void an_answer_counts_beside_a_later_one_of_its_task(void **state)
{
    (void)state;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    uint64_t id = fix_submit(&f, 5, "q", "", NULL, FOLLOW_FINISH);
    fix_end(&f);
    uint64_t lease = fix_lane(&f, 0, LANE_TASK, 0)->lease;
    fix_later(&f, 1);
    core_worker_lost(f.core, f.worker[0], PUSHROD_E_TIMED_OUT, f.now.mono_ns);
    fix_worker(&f, 1, "q", 1);
    fix_end(&f);
    assert_int_equal(fix_lane(&f, 1, LANE_TASK, 0)->id, id);
    fix_later(&f, 1);
    struct held held[] = {{id, lease, true, true}, {id, lease + (100 << 24), true, true}};
    assert_int_not_equal(fix_join_held(&f, 0, "q", 1, held, 2), 0);
    fix_later(&f, 1);
    fix_answer(&f, 0, (struct answer){.kind = MSG_READY});
    fix_answer(&f, 0, fix_done(id, lease, ""));
    fix_end(&f);
    assert_non_null(fix_conn(&f, 5, MSG_FINISHED, 0));
    assert_non_null(fix_lane(&f, 1, LANE_CANCEL, 0));
    fix_free(&f);
}

/* ---- which workers are emptied for suspects ---- */

static uint64_t submit(const char *queue, const char *target)
{
    struct msg_options o = fix_options();
    if (target)
        o.worker = S(target);
    return fix_submit(&f, 5, queue, "", &o, FOLLOW_NONE);
}

/* A task that worker n starts; the next tick is open. */
static uint64_t started(unsigned n, const char *queue, const char *target)
{
    uint64_t id = submit(queue, target);
    fix_end(&f);
    const struct lane_action *l = fix_lane(&f, n, LANE_TASK, 0);
    assert_non_null(l);
    assert_int_equal(l->id, id);
    uint64_t lease = l->lease;
    fix_later(&f, 1);
    fix_answer(&f, n, (struct answer){.kind = MSG_STARTED, .id = id, .lease = lease});
    return id;
}

/* What it runs is suspect. */
static void lose(unsigned n)
{
    core_worker_lost(f.core, f.worker[n], PUSHROD_E_CLOSED, f.now.mono_ns);
}

static void assert_gets(unsigned n, uint64_t id)
{
    assert_non_null(fix_lane(&f, n, LANE_TASK, 0));
    assert_int_equal(fix_lane(&f, n, LANE_TASK, 0)->id, id);
    assert_null(fix_lane(&f, n, LANE_TASK, 1));
}

/* Two groups serve its queue: the one that is asked first can only empty a worker, the other runs
 * it. */
static void a_slot_is_not_kept_for_a_suspect_that_another_group_runs(void **state)
{
    (void)state;
    fix_new(&f, NULL);
    fix_worker(&f, 1, "a", 1);
    uint64_t suspect = started(1, "a", NULL);
    fix_worker(&f, 0, "*", 2);
    started(0, "b", NULL);
    fix_join_held(&f, 2, "a", 1, NULL, 0);
    fix_later(&f, 1);
    uint64_t next = submit("b", NULL);
    lose(1);
    fix_answer(&f, 2, (struct answer){.kind = MSG_READY});
    fix_end(&f);
    assert_gets(2, suspect);
    assert_gets(0, next);
    fix_free(&f);
}

/* In the same tick: nobody would look at it again before something else happens. */
static void a_slot_that_is_not_kept_any_more_runs_what_is_for_its_worker(void **state)
{
    (void)state;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 2);
    started(0, "q", NULL);
    fix_worker(&f, 1, "q", 1);
    uint64_t suspect = started(1, "q", NULL);
    lose(1);
    fix_end(&f);
    fix_later(&f, 1);
    uint64_t id = submit("q", "w0");
    fix_end(&f);
    assert_null(fix_lane(&f, 0, LANE_TASK, 0));
    fix_later(&f, 1);
    fix_worker(&f, 2, "q", 1);
    fix_end(&f);
    assert_gets(2, suspect);
    assert_gets(0, id);
    fix_free(&f);
}

/* Two suspects; the more urgent one is for a worker that is busy. */
static void a_suspect_does_not_wait_for_the_worker_of_another(void **state)
{
    (void)state;
    fix_new(&f, NULL);
    fix_worker(&f, 1, "q", 2);
    started(1, "q", "w1");
    lose(1);
    uint64_t first = submit("q", "w1");
    fix_worker(&f, 1, "q", 2);
    fix_end(&f);
    assert_gets(1, first);
    fix_later(&f, 1);
    fix_worker(&f, 2, "q", 1);
    uint64_t suspect = started(2, "q", NULL);
    lose(2);
    fix_worker(&f, 3, "q", 1);
    fix_end(&f);
    assert_gets(3, suspect);
    fix_free(&f);
}

/* Nor for one that runs a suspect by now: another worker is emptied for it. */
static void a_worker_is_emptied_for_the_suspect_that_it_can_run(void **state)
{
    (void)state;
    fix_new(&f, NULL);
    fix_worker(&f, 1, "q", 2);
    uint64_t first = started(1, "q", "w1");
    started(1, "q", "w1");
    lose(1);
    fix_worker(&f, 1, "q", 2);
    fix_end(&f);
    assert_gets(1, first);
    fix_later(&f, 1);
    fix_worker(&f, 3, "q", 2);
    uint64_t runs = submit("q", NULL);
    fix_end(&f);
    assert_gets(3, runs);
    uint64_t lease = fix_lane(&f, 3, LANE_TASK, 0)->lease;
    fix_later(&f, 1);
    fix_worker(&f, 2, "q", 1);
    uint64_t suspect = started(2, "q", NULL);
    lose(2);
    submit("q", NULL);
    fix_end(&f);
    assert_null(fix_lane(&f, 3, LANE_TASK, 0));
    fix_later(&f, 1);
    fix_answer(&f, 3, fix_done(runs, lease, ""));
    fix_end(&f);
    assert_gets(3, suspect);
    fix_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_put_ahead_of_a_slot_that_does_not_come_free),
        cmocka_unit_test(what_did_not_start_does_not_time_out),
        cmocka_unit_test(what_waits_behind_a_stuck_slot_is_no_suspect),
        cmocka_unit_test(what_waits_behind_a_stuck_slot_is_asked_back),
        cmocka_unit_test(a_slot_is_not_kept_for_a_suspect_that_is_gone),
        cmocka_unit_test(an_answer_counts_beside_a_later_one_of_its_task),
        cmocka_unit_test(a_slot_is_not_kept_for_a_suspect_that_another_group_runs),
        cmocka_unit_test(a_slot_that_is_not_kept_any_more_runs_what_is_for_its_worker),
        cmocka_unit_test(a_suspect_does_not_wait_for_the_worker_of_another),
        cmocka_unit_test(a_worker_is_emptied_for_the_suspect_that_it_can_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
