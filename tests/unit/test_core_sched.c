/* SPDX-License-Identifier: Apache-2.0 */
/* Which worker gets what: suspects alone, prefetch and withdrawal, bytes. */
#include "tests/unit/core_durable.h"

static void suspects_run_alone(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 2);
    uint64_t a = fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    uint64_t b = fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    uint64_t c = fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    fix_tick(&f);
    fix_later(&f, 1);
    core_worker_lost(f.core, f.worker[0], PUSHROD_E_TASK_CRASHED, f.now.mono_ns);
    fix_tick(&f);
    fix_later(&f, 1);
    fix_worker(&f, 1, "q", 2);
    fix_tick(&f);
    assert_int_equal(fix_lane(&f, 1, LANE_TASK, 0)->id, a);
    assert_null(fix_lane(&f, 1, LANE_TASK, 1));
    uint64_t lease = fix_lane(&f, 1, LANE_TASK, 0)->lease;
    fix_later(&f, 1);
    fix_answer(&f, 1, fix_done(a, lease, ""));
    fix_tick(&f);
    assert_int_equal(fix_lane(&f, 1, LANE_TASK, 0)->id, b);
    assert_null(fix_lane(&f, 1, LANE_TASK, 1));
    (void)c;
    fix_free(&f);
}

/* What it says may still come, but nothing that is sent now would reach it. */
static void who_is_cut_off_gets_nothing_more(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 2);
    uint64_t a = fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    fix_tick(&f);
    uint64_t lease = fix_lane(&f, 0, LANE_TASK, 0)->lease;
    fix_later(&f, 1);
    core_worker_cut(f.core, f.worker[0]);
    uint64_t b = fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    fix_answer(&f, 0, fix_done(a, lease, ""));
    fix_tick(&f);
    assert_null(fix_lane(&f, 0, LANE_TASK, 0));
    fix_later(&f, 1);
    core_worker_lost(f.core, f.worker[0], PUSHROD_E_CLOSED, f.now.mono_ns);
    fix_worker(&f, 1, "q", 2);
    fix_tick(&f);
    assert_int_equal(fix_lane(&f, 1, LANE_TASK, 0)->id, b);
    assert_false(fix_lane(&f, 1, LANE_TASK, 0)->task->record.suspect);
    fix_free(&f);
}

/* The worker that was to be empty for a suspect leaves: the suspect waits for another one. */
static void a_suspect_does_not_go_to_who_leaves(void **state)
{
    (void)state;
    struct fix f;
    uint64_t lease[3];
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 2);
    uint64_t a = fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    uint64_t b = fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    fix_tick(&f);
    lease[0] = fix_lane(&f, 0, LANE_TASK, 0)->lease;
    lease[1] = fix_lane(&f, 0, LANE_TASK, 1)->lease;
    for (unsigned n = 1; n < 3; n++) {
        fix_later(&f, 1);
        fix_worker(&f, n, "q", 1);
        fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
        fix_tick(&f);
    }
    lease[2] = fix_lane(&f, 2, LANE_TASK, 0)->lease;
    fix_later(&f, 1);
    core_worker_lost(f.core, f.worker[1], PUSHROD_E_TASK_CRASHED, f.now.mono_ns);
    fix_tick(&f);
    fix_later(&f, 1);
    fix_answer(&f, 0,
        (struct answer){
            .kind = MSG_RETURNED, .id = b, .lease = lease[1], .code = PUSHROD_E_DRAINING});
    fix_answer(&f, 0, fix_done(a, lease[0], ""));
    fix_tick(&f);
    assert_null(fix_lane(&f, 0, LANE_TASK, 0));
    fix_later(&f, 1);
    fix_answer(&f, 2, fix_done(4, lease[2], ""));
    fix_tick(&f);
    assert_int_equal(fix_lane(&f, 2, LANE_TASK, 0)->id, 3);
    assert_null(fix_lane(&f, 2, LANE_TASK, 1));
    fix_free(&f);
}

/* The queue's attempts, one after the other, take so long at the worker. */
static void run_some(struct fix *f, unsigned n, const char *queue, int count, uint64_t run_ns)
{
    for (int i = 0; i < count; i++) {
        uint64_t id = fix_submit(f, 5, queue, "", NULL, FOLLOW_NONE);
        fix_tick(f);
        assert_null(fix_lane(f, n, LANE_TASK, 1));
        uint64_t lease = fix_lane(f, n, LANE_TASK, 0)->lease;
        fix_later(f, 1);
        struct answer done = fix_done(id, lease, "");
        done.run_ns = run_ns;
        fix_answer(f, n, done);
    }
}

/* Makes the queue known as one whose attempts take so long. */
static void warm(struct fix *f, unsigned n, const char *queue, uint64_t run_ns)
{
    run_some(f, n, queue, 20, run_ns);
}

static void prefetch_and_withdraw(void **state)
{
    (void)state;
    struct fix f;
    uint64_t ids[50];
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    warm(&f, 0, "q", 1000);
    for (size_t i = 0; i < 50; i++)
        ids[i] = fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    fix_tick(&f);
    assert_non_null(fix_lane(&f, 0, LANE_TASK, 49));
    uint64_t lease = fix_lane(&f, 0, LANE_TASK, 49)->lease;
    /* Another worker comes, and the first one is stuck with what it runs. */
    fix_later(&f, 1);
    fix_worker(&f, 1, "q", 2);
    fix_tick(&f);
    assert_int_equal(fix_lane(&f, 0, LANE_WITHDRAW, 0)->id, ids[49]);
    assert_int_equal(fix_lane(&f, 0, LANE_WITHDRAW, 1)->id, ids[48]);
    assert_null(fix_lane(&f, 0, LANE_WITHDRAW, 2));
    fix_later(&f, 1);
    fix_answer(&f, 0, (struct answer){.kind = MSG_RETURNED, .id = ids[49], .lease = lease});
    fix_tick(&f);
    assert_int_equal(fix_lane(&f, 1, LANE_TASK, 0)->id, ids[49]);
    assert_null(fix_lane(&f, 0, LANE_WITHDRAW, 0));
    fix_free(&f);
}

/* One worker, of a queue whose attempts took so long: how many of three tasks it is handed. */
static unsigned handed(const struct core_config *config, uint32_t slots, uint64_t run_ns)
{
    struct fix f;
    unsigned count = 0;
    fix_new(&f, config);
    fix_worker(&f, 0, "q", slots);
    warm(&f, 0, "q", run_ns);
    for (size_t i = 0; i < 3; i++)
        fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    fix_tick(&f);
    while (fix_lane(&f, 0, LANE_TASK, count))
        count++;
    fix_free(&f);
    return count;
}

static void without_prefetch_a_worker_has_what_runs(void **state)
{
    const struct core_config none = {.seed = 1, .store = {.bypass = true}};
    (void)state;
    assert_int_equal(handed(NULL, 2, 1000), 3);
    assert_int_equal(handed(&none, 2, 1000), 2);
}

static void an_operator_drains_for_as_long_as_is_configured(void **state)
{
    const struct msg_control drain = {.request = 8, .verb = S("drain"), .name = S("w0")};
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    core_configure(f.core, 0, 0, 700);
    core_control(f.core, 5, &drain);
    fix_tick(&f);
    assert_int_equal(fix_lane(&f, 0, LANE_DRAIN, 0)->number, 700);
    assert_false(fix_lane(&f, 0, LANE_DRAIN, 0)->again);
    fix_free(&f);
}

static void control(struct fix *f, const char *verb, const char *name)
{
    struct msg_control m = {.request = 2, .verb = S(verb)};
    if (name)
        m.name = S(name);
    core_control(f->core, 5, &m);
    fix_end(f);
}

static void a_queue_is_paused_before_its_first_task(void **state)
{
    (void)state;
    struct fix f;
    struct core_config config = {.seed = 1, .max_queues = 1, .store = {.bypass = true}};
    fix_new(&f, &config);
    fix_worker(&f, 0, "new", 1);
    control(&f, "pause", "new");
    assert_non_null(fix_conn(&f, 5, MSG_OK, 0));
    fix_later(&f, 1);
    assert_int_not_equal(fix_submit(&f, 5, "new", "", NULL, FOLLOW_NONE), 0);
    fix_tick(&f);
    assert_null(fix_lane(&f, 0, LANE_TASK, 0));
    fix_later(&f, 1);
    control(&f, "resume", "new");
    assert_non_null(fix_lane(&f, 0, LANE_TASK, 0));
    fix_later(&f, 1);
    control(&f, "resume", "other");
    assert_int_equal(fix_conn(&f, 5, MSG_REJECTED, 0)->code, PUSHROD_E_UNKNOWN_QUEUE);
    fix_later(&f, 1);
    control(&f, "pause", "other");
    assert_int_equal(fix_conn(&f, 5, MSG_REJECTED, 0)->code, PUSHROD_E_TOO_MANY);
    fix_later(&f, 1);
    control(&f, "pause", NULL);
    assert_int_equal(fix_conn(&f, 5, MSG_REJECTED, 0)->code, PUSHROD_E_BAD_QUEUE);
    fix_free(&f);
}

/* Two workers with a slot each, and a queue of which every 100th attempt took `slow_ns`. */
static void fix_two(struct fix *f, uint64_t slow_ns)
{
    fix_new(f, NULL);
    fix_worker(f, 0, "q", 1);
    for (int i = 0; i < 3; i++) {
        run_some(f, 0, "q", 98, 1000);
        run_some(f, 0, "q", 2, slow_ns);
    }
    fix_worker(f, 1, "q", 1);
    fix_tick(f);
    fix_later(f, 1);
}

/* Of 1 us each: 39 are done before another worker would have woken up. */
static void short_tasks_do_not_wake_everybody(void **state)
{
    (void)state;
    struct fix f;
    fix_two(&f, 30000);
    for (size_t i = 0; i < 60; i++)
        fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    fix_tick(&f);
    unsigned first = fix_lane(&f, 0, LANE_TASK, 0)->id == 301 ? 0 : 1;
    assert_int_equal(fix_lane(&f, first, LANE_TASK, 38)->id, 339);
    assert_int_equal(fix_lane(&f, 1 - first, LANE_TASK, 0)->id, 340);
    fix_free(&f);
}

/* One at a time, they go to the same worker again and again; others are left asleep. */
static void short_tasks_stay_with_who_is_warm(void **state)
{
    (void)state;
    struct fix f;
    fix_two(&f, 30000);
    for (unsigned i = 0, n = 2; i < 4; i++) {
        uint64_t id = fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
        fix_tick(&f);
        if (n == 2)
            n = fix_lane(&f, 0, LANE_TASK, 0) ? 0 : 1;
        uint64_t lease = fix_lane(&f, n, LANE_TASK, 0)->lease;
        fix_later(&f, 1);
        fix_answer(&f, n, fix_done(id, lease, ""));
    }
    fix_free(&f);
}

/* One of them takes long after all: what comes then does not wait for it, beside an idle slot. */
static void nothing_short_goes_to_who_is_stuck(void **state)
{
    (void)state;
    struct fix f;
    fix_two(&f, 30000);
    uint64_t id = fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    fix_tick(&f);
    unsigned first = fix_lane(&f, 0, LANE_TASK, 0) ? 0 : 1;
    assert_int_equal(fix_lane(&f, first, LANE_TASK, 0)->id, id);
    fix_later(&f, 1);
    id = fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    fix_tick(&f);
    assert_null(fix_lane(&f, first, LANE_TASK, 0));
    assert_int_equal(fix_lane(&f, 1 - first, LANE_TASK, 0)->id, id);
    fix_free(&f);
}

/* One in a hundred might take long: what is behind it would wait, beside an idle slot. */
static void a_few_long_ones_are_reason_to_share(void **state)
{
    (void)state;
    struct fix f;
    fix_two(&f, 5000000);
    for (size_t i = 0; i < 2; i++)
        fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    fix_tick(&f);
    for (unsigned n = 0; n < 2; n++) {
        assert_non_null(fix_lane(&f, n, LANE_TASK, 0));
        assert_null(fix_lane(&f, n, LANE_TASK, 1));
    }
    fix_free(&f);
}

/* 0 is what a worker says that does not measure: nothing is known then, and nothing sent ahead. */
static void no_time_told_is_no_fast_queue(void **state)
{
    (void)state;
    assert_int_equal(handed(NULL, 1, 0), 1);
}

/* So many queues were new, whose first attempts took 1 us, or slow_ns: of three of another one. */
static unsigned handed_new(unsigned queues, uint64_t slow_ns)
{
    struct fix f;
    char name[8];
    unsigned count = 0;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "u*", 1);
    for (unsigned i = 0; i < queues; i++) {
        snprintf(name, sizeof name, "u%u", i);
        run_some(&f, 0, name, 20, i ? 1000 : slow_ns);
        run_some(&f, 0, name, 20, 1000); /* not the first any more */
    }
    for (size_t i = 0; i < 3; i++)
        fix_submit(&f, 5, "u", "", NULL, FOLLOW_NONE);
    fix_tick(&f);
    while (fix_lane(&f, 0, LANE_TASK, count))
        count++;
    fix_free(&f);
    return count;
}

/* Where each user has a queue, nearly all are new: what those took is what another one will take.
 */
static void a_new_queue_is_what_new_ones_were(void **state)
{
    (void)state;
    assert_int_equal(handed_new(9, 1000), 1);
    assert_int_equal(handed_new(10, 1000), 3);
    assert_int_equal(handed_new(10, 5000000), 1);
}

/* Tasks of a millisecond: each slot has one more at its worker, while there are enough for all. */
static void one_ahead_of_each_slot(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    warm(&f, 0, "q", 1100000);
    fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    fix_tick(&f);
    assert_null(fix_lane(&f, 0, LANE_TASK, 1));
    fix_later(&f, 1);
    fix_worker(&f, 1, "q", 1);
    for (size_t i = 0; i < 4; i++)
        fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    fix_tick(&f);
    assert_non_null(fix_lane(&f, 0, LANE_TASK, 0));
    assert_null(fix_lane(&f, 0, LANE_TASK, 1));
    assert_non_null(fix_lane(&f, 1, LANE_TASK, 1));
    assert_null(fix_lane(&f, 1, LANE_TASK, 2));
    fix_free(&f);
}

/* Behind a task that turns out to be long it waits no longer than that takes to see. */
static void what_is_ahead_does_not_wait_behind_a_long_one(void **state)
{
    (void)state;
    struct fix f;
    uint64_t ids[3];
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    warm(&f, 0, "q", 1100000);
    for (size_t i = 0; i < 3; i++)
        ids[i] = fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    fix_tick(&f);
    uint64_t lease = fix_lane(&f, 0, LANE_TASK, 1)->lease;
    assert_int_equal(fix_lane(&f, 0, LANE_TASK, 1)->id, ids[1]);
    assert_true(f.acts->wake_ns <= f.now.mono_ns + 8 * MSEC);
    fix_later(&f, 8);
    fix_tick(&f);
    assert_int_equal(fix_lane(&f, 0, LANE_WITHDRAW, 0)->id, ids[1]);
    /* It is asked back once, and its lane gets no other in its place while the long one runs. */
    fix_later(&f, 1);
    fix_tick(&f);
    assert_null(fix_lane(&f, 0, LANE_WITHDRAW, 0));
    fix_later(&f, 1);
    fix_answer(&f, 0, (struct answer){.kind = MSG_RETURNED, .id = ids[1], .lease = lease});
    fix_tick(&f);
    assert_null(fix_lane(&f, 0, LANE_TASK, 0));
    fix_later(&f, 1);
    /* It has kept its place in the queue. */
    fix_worker(&f, 1, "q", 1);
    fix_tick(&f);
    assert_int_equal(fix_lane(&f, 1, LANE_TASK, 0)->id, ids[1]);
    fix_free(&f);
}

/* The slot for which a task was asked back is gone when it comes, and so is the group. */
static void a_group_ends_with_its_last_withdraw(void **state)
{
    (void)state;
    struct fix f;
    uint64_t id = 0;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    warm(&f, 0, "q", 1000);
    for (size_t i = 0; i < 2; i++)
        id = fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    fix_tick(&f);
    uint64_t lease = fix_lane(&f, 0, LANE_TASK, 1)->lease;
    fix_later(&f, 1);
    fix_worker(&f, 1, "*", 1);
    fix_tick(&f);
    assert_int_equal(fix_lane(&f, 0, LANE_WITHDRAW, 0)->id, id);
    fix_later(&f, 1);
    fix_answer(&f, 1, (struct answer){.kind = MSG_BYE});
    fix_tick(&f);
    fix_later(&f, 1);
    fix_answer(&f, 0, (struct answer){.kind = MSG_RETURNED, .id = id, .lease = lease});
    fix_tick(&f);
    fix_free(&f);
}

static void lane_carries_its_bytes(void **state)
{
    (void)state;
    struct fix f;
    struct core_config config = {.seed = 1, .lane_bytes = 100, .store = {.bypass = true}};
    uint64_t ids[6];
    fix_new(&f, &config);
    fix_worker(&f, 0, "q", 8);
    for (int i = 0; i < 6; i++)
        ids[i] = fix_submit(&f, 5, "q", "a payload of 20 bytes", NULL, FOLLOW_NONE);
    fix_tick(&f);
    assert_non_null(fix_lane(&f, 0, LANE_TASK, 3));
    assert_null(fix_lane(&f, 0, LANE_TASK, 4));
    uint64_t lease = fix_lane(&f, 0, LANE_TASK, 0)->lease;
    fix_later(&f, 1);
    fix_answer(&f, 0, (struct answer){.kind = MSG_STARTED, .id = ids[0], .lease = lease});
    fix_tick(&f);
    assert_int_equal(fix_lane(&f, 0, LANE_TASK, 0)->id, ids[4]);
    assert_null(fix_lane(&f, 0, LANE_TASK, 1));
    fix_free(&f);
}

/* Payloads of 20 in a lane of 100: five are under way, and the next come when two are left. */
static void a_lane_is_filled_up_when_half_empty(void **state)
{
    (void)state;
    struct fix f;
    struct core_config config = {
        .seed = 1, .max_prefetch = 1000, .lane_bytes = 100, .store = {.bypass = true}};
    uint64_t ids[9], leases[5];
    fix_new(&f, &config);
    fix_worker(&f, 0, "q", 1);
    warm(&f, 0, "q", 1000);
    for (size_t i = 0; i < 9; i++)
        ids[i] = fix_submit(&f, 5, "q", "xxxxxxxxxxxxxxxxxxxx", NULL, FOLLOW_NONE);
    fix_tick(&f);
    assert_null(fix_lane(&f, 0, LANE_TASK, 5));
    for (size_t i = 0; i < 5; i++)
        leases[i] = fix_lane(&f, 0, LANE_TASK, i)->lease;
    for (size_t i = 0; i < 3; i++) {
        fix_later(&f, 1);
        fix_answer(&f, 0, fix_done(ids[i], leases[i], ""));
        fix_tick(&f);
        assert_true(i == 2 || !fix_lane(&f, 0, LANE_TASK, 0));
    }
    assert_int_equal(fix_lane(&f, 0, LANE_TASK, 2)->id, ids[7]);
    assert_null(fix_lane(&f, 0, LANE_TASK, 3));
    fix_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(suspects_run_alone),
        cmocka_unit_test(who_is_cut_off_gets_nothing_more),
        cmocka_unit_test(a_suspect_does_not_go_to_who_leaves),
        cmocka_unit_test(prefetch_and_withdraw),
        cmocka_unit_test(without_prefetch_a_worker_has_what_runs),
        cmocka_unit_test(an_operator_drains_for_as_long_as_is_configured),
        cmocka_unit_test(a_queue_is_paused_before_its_first_task),
        cmocka_unit_test(short_tasks_do_not_wake_everybody),
        cmocka_unit_test(short_tasks_stay_with_who_is_warm),
        cmocka_unit_test(nothing_short_goes_to_who_is_stuck),
        cmocka_unit_test(a_few_long_ones_are_reason_to_share),
        cmocka_unit_test(a_new_queue_is_what_new_ones_were),
        cmocka_unit_test(one_ahead_of_each_slot),
        cmocka_unit_test(what_is_ahead_does_not_wait_behind_a_long_one),
        cmocka_unit_test(no_time_told_is_no_fast_queue),
        cmocka_unit_test(a_group_ends_with_its_last_withdraw),
        cmocka_unit_test(lane_carries_its_bytes),
        cmocka_unit_test(a_lane_is_filled_up_when_half_empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
