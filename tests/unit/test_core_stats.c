/* SPDX-License-Identifier: Apache-2.0 */
/* Figures of queues: who waits for a worker in vain, and how long a lost worker's tasks waited. */
#include "server/core/state.h"
#include "tests/unit/core_durable.h"

static struct core_queue_stats stats_of(struct fix *f, const char *name)
{
    struct core_queue_stats stats;
    const struct queue *at = NULL;
    while (core_queue_next(f->core, &at, &stats))
        if (slice_equal(stats.name, S(name)))
            return stats;
    fail_msg("there is no queue %s", name);
    return stats;
}

/* A worker of one slot has it; the next tick is `ms` later. */
static uint64_t running(struct fix *f, uint64_t ms)
{
    uint64_t id = fix_submit(f, 5, "q", "", NULL, FOLLOW_FINISH);
    fix_worker(f, 0, "q", 1);
    fix_end(f);
    assert_int_equal(fix_lane(f, 0, LANE_TASK, 0)->id, id);
    fix_later(f, ms);
    return id;
}

static void queues_come_in_their_order(void **state)
{
    (void)state;
    struct core_queue_stats stats;
    const struct queue *at = NULL;
    struct fix f;
    fix_new(&f, NULL);
    assert_false(core_queue_next(f.core, &at, &stats));
    fix_submit(&f, 5, "b", "", NULL, FOLLOW_NONE);
    fix_submit(&f, 5, "a", "", NULL, FOLLOW_NONE);
    fix_submit(&f, 5, "b", "", NULL, FOLLOW_NONE);
    fix_end(&f);
    assert_true(core_queue_next(f.core, &at, &stats));
    assert_true(slice_equal(stats.name, S("b")));
    assert_int_equal(stats.ready, 2);
    assert_int_equal(stats.submitted, 2);
    assert_true(core_queue_next(f.core, &at, &stats));
    assert_true(slice_equal(stats.name, S("a")));
    assert_int_equal(stats.ready, 1);
    assert_false(core_queue_next(f.core, &at, &stats));
    assert_int_equal(core_stats(f.core)->queues, 2);
    fix_free(&f);
}

/* "No worker for a queue: a metric shows it." */
static void tasks_that_no_worker_serves(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    for (unsigned i = 0; i < 3; i++)
        fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    fix_submit(&f, 5, "other", "", NULL, FOLLOW_NONE);
    fix_end(&f);
    assert_int_equal(core_stats(f.core)->unserved, 4);
    fix_later(&f, 1);
    fix_worker(&f, 0, "q", 1);
    fix_end(&f);
    assert_int_equal(core_stats(f.core)->unserved, 1);
    assert_int_equal(stats_of(&f, "q").workers, 1);
    assert_int_equal(stats_of(&f, "q").slots, 1);
    fix_later(&f, 1);
    core_worker_lost(f.core, f.worker[0], PUSHROD_E_CLOSED, f.now.mono_ns);
    fix_end(&f);
    assert_int_equal(core_stats(f.core)->unserved, 4);
    fix_free(&f);
}

static void recovery_is_from_the_loss_to_the_next_hand_over(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    running(&f, 100);
    core_worker_lost(f.core, f.worker[0], PUSHROD_E_CLOSED, f.now.mono_ns - 5 * MSEC);
    fix_end(&f);
    assert_int_equal(stats_of(&f, "q").redelivered, 1);
    assert_int_equal(stats_of(&f, "q").recovered, 0);
    fix_later(&f, 7);
    fix_worker(&f, 1, "q", 1); /* is ready a millisecond later */
    fix_end(&f);
    assert_int_equal(stats_of(&f, "q").recovered, 1);
    assert_int_equal(stats_of(&f, "q").recovery_us, 13000);
    assert_int_equal(stats_of(&f, "q").recovery_max_us, 13000);
    fix_free(&f);
}

/* Nobody knows when it fell silent, but for the last that was heard of it. */
static void a_silent_worker_is_lost_since_it_was_heard(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    running(&f, 0);
    uint64_t heard_ns = f.now.mono_ns;
    while (core_stats(f.core)->workers) {
        fix_end(&f);
        fix_later(&f, 100);
    }
    fix_worker(&f, 1, "q", 1);
    fix_end(&f);
    assert_int_equal(core_stats(f.core)->workers_lost, 1);
    assert_int_equal(core_stats(f.core)->workers_silent, 1);
    assert_int_equal(stats_of(&f, "q").recovered, 1);
    assert_int_equal(stats_of(&f, "q").recovery_us, (f.now.mono_ns - heard_ns) / 1000);
    assert_true(stats_of(&f, "q").recovery_us > 1000000);
    fix_free(&f);
}

static void who_leaves_in_order_is_not_lost(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    running(&f, 1);
    fix_answer(&f, 0, (struct answer){.kind = MSG_BYE});
    fix_worker(&f, 1, "q", 1);
    fix_end(&f);
    assert_non_null(fix_lane(&f, 1, LANE_TASK, 0));
    assert_int_equal(stats_of(&f, "q").recovered, 0);
    fix_free(&f);
}

/* It ran for a time that nobody knows, and the moment of the loss is none. */
static void what_ends_before_it_recovers_did_not_run(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    uint64_t id = running(&f, 1);
    core_worker_lost(f.core, f.worker[0], PUSHROD_E_CLOSED, f.now.mono_ns);
    core_cancel(f.core, 5, 1, id);
    fix_end(&f);
    const struct conn_action *told = fix_conn(&f, 5, MSG_FINISHED, 0);
    assert_non_null(told);
    assert_int_equal(told->task->status, PUSHROD_CANCELLED);
    assert_int_equal(told->task->run_ns, 0);
    fix_free(&f);
}

/* Just then it is of interest how long. */
static void what_waits_in_a_paused_queue_grows_old(void **state)
{
    (void)state;
    struct fix f;
    struct msg_options o = fix_options();
    o.worker = S("absent");
    fix_new(&f, NULL);
    fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    fix_submit(&f, 5, "targeted", "", &o, FOLLOW_NONE);
    struct msg_control m = {.request = 1, .verb = S("pause"), .name = S("q")};
    core_control(f.core, 5, &m);
    fix_end(&f);
    fix_later(&f, 3000);
    assert_int_equal(stats_of(&f, "q").oldest_ms, 3000);
    assert_int_equal(stats_of(&f, "targeted").oldest_ms, 3000);
    fix_end(&f);
    fix_free(&f);
}

/* Its client has gone before the store had it, and it runs all the same. */
static void a_task_counts_though_nobody_hears_of_it(void **state)
{
    (void)state;
    struct durable d;
    durable_begin(&d, DURABILITY_SYNC);
    fix_submit(&d.f, 5, "q", "payload", NULL, FOLLOW_NONE);
    durable_end(&d);
    fix_later(&d.f, 1);
    core_conn_closed(d.f.core, 5);
    durable_end(&d);
    durable_stored(&d, 1);
    durable_end(&d);
    assert_int_equal(core_stats(d.f.core)->running, 1);
    assert_int_equal(core_stats(d.f.core)->submitted, 1);
    durable_free(&d);
}

/* Accepted before the store had it, it counts for its queue, though the store refused it. */
static void a_task_counts_though_the_store_refused_it(void **state)
{
    (void)state;
    struct durable d;
    durable_begin(&d, DURABILITY_ASYNC);
    struct msg_options o = fix_options();
    o.delay_ms = 1000;
    fix_submit(&d.f, 5, "q", "", &o, FOLLOW_NONE);
    fix_end(&d.f);
    durable_say(&d, durable_op(&d, STORE_APPEND, 0), OUTCOME_REFUSED, PUSHROD_E_STORE_FULL);
    fix_end(&d.f);
    assert_int_equal(core_stats(d.f.core)->submitted, 1);
    assert_int_equal(stats_of(&d.f, "q").submitted, 1);
    assert_int_equal(stats_of(&d.f, "q").delayed, 1);
    durable_free(&d);
}

/* Told, since it is async, but refused by a full store: that is no unknown task. */
static void a_dead_letter_that_is_not_stored_yet(void **state)
{
    (void)state;
    struct durable d;
    durable_begin(&d, DURABILITY_ASYNC);
    uint64_t id = fix_submit(&d.f, 5, "q", "p", NULL, FOLLOW_NONE);
    durable_end(&d);
    struct answer failed = fix_failed(id, durable_lease(&d, 0, id), "no");
    failed.permanent = true;
    durable_stored(&d, 1);
    fix_answer(&d.f, 0, failed);
    fix_end(&d.f);
    durable_say(&d, durable_op(&d, STORE_FINISH, 0), OUTCOME_REFUSED, PUSHROD_E_STORE_FULL);
    struct msg_control replay = {.request = 4, .verb = S("replay"), .id = id};
    core_control(d.f.core, 6, &replay);
    durable_end(&d);
    durable_stored(&d, 1);
    durable_end(&d);
    assert_int_equal(fix_conn(&d.f, 6, MSG_REJECTED, 0)->code, PUSHROD_E_STORE_FAILED);
    durable_stored(&d, 200);
    durable_settle(&d);
    core_control(d.f.core, 6, &replay);
    durable_end(&d);
    durable_stored(&d, 1);
    durable_end(&d);
    assert_non_null(fix_conn(&d.f, 6, MSG_OK, 0));
    assert_int_not_equal(durable_lease(&d, 0, id), 0);
    durable_free(&d);
}

/* Not as one of those that are ready behind the edge, among which it lies. */
static void what_expires_before_its_time_was_delayed(void **state)
{
    (void)state;
    struct durable d;
    struct msg_options o = fix_options();
    durable_new(&d, 2, DURABILITY_SYNC);
    for (unsigned i = 0; i < 5; i++)
        fix_submit(&d.f, 5, "q", "", NULL, FOLLOW_NONE);
    o.delay_ms = 5000;
    o.expires_ms = 100;
    fix_submit(&d.f, 5, "q", "", &o, FOLLOW_NONE);
    durable_settle(&d);
    assert_int_equal(stats_of(&d.f, "q").delayed, 1);
    durable_end(&d);
    durable_stored(&d, 200);
    durable_settle(&d);
    assert_int_equal(core_stats(d.f.core)->expired, 1);
    assert_int_equal(stats_of(&d.f, "q").delayed, 0);
    assert_int_equal(stats_of(&d.f, "q").ready, 5);
    durable_free(&d);
}

static size_t dead_rows(struct durable *d)
{
    size_t rows = 0;
    core_list(d->f.core, 5, &(struct msg_list){.request = 9, .what = S("dead")});
    durable_end(d);
    durable_stored(d, 1);
    durable_end(d);
    while (fix_conn(&d->f, 5, MSG_TASK_ROW, rows))
        rows++;
    assert_int_equal(core_stats(d->f.core)->dead, rows);
    fix_later(&d->f, 1);
    return rows;
}

/* The full store refused it, before its end or behind it: it is a dead letter in memory. */
static void a_dead_letter_that_no_store_has(bool before, enum follow follow)
{
    struct durable d;
    struct msg_options o = fix_options();
    o.max_attempts = 1;
    durable_begin(&d, DURABILITY_ASYNC);
    uint64_t id = fix_submit(&d.f, 5, "q", "payload", &o, follow);
    fix_end(&d.f); /* never put to the store */
    const struct store_op append = *durable_op(&d, STORE_APPEND, 0);
    uint64_t lease = durable_lease(&d, 0, id);
    if (before)
        durable_say(&d, &append, OUTCOME_REFUSED, PUSHROD_E_STORE_FULL);
    else
        fix_later(&d.f, 1);
    fix_answer(&d.f, 0, fix_failed(id, lease, "no"));
    durable_end(&d);
    if (before)
        durable_stored(&d, 1);
    else
        durable_say(&d, &append, OUTCOME_REFUSED, PUSHROD_E_STORE_FULL);
    durable_settle(&d);
    assert_int_equal(dead_rows(&d), 1);
    core_received(d.f.core, 5, 1);
    core_conn_closed(d.f.core, 5);
    struct msg_control m = {.request = 1, .verb = S("replay"), .id = id};
    core_control(d.f.core, 5, &m);
    durable_end(&d);
    lease = durable_lease(&d, 0, id);
    assert_int_not_equal(lease, 0);
    fix_later(&d.f, 1);
    assert_int_equal(dead_rows(&d), 0);
    fix_answer(&d.f, 0, fix_failed(id, lease, "no"));
    durable_settle(&d);
    assert_int_equal(dead_rows(&d), 1);
    m.verb = S("drop");
    core_control(d.f.core, 5, &m);
    assert_int_equal(dead_rows(&d), 0);
    durable_settle(&d);
    assert_int_equal(core_stats(d.f.core)->ledger, 0);
    durable_free(&d);
}

static void dead_letters_that_no_store_has(void **state)
{
    (void)state;
    for (int follow = FOLLOW_NONE; follow <= FOLLOW_FINISH; follow++) {
        a_dead_letter_that_no_store_has(true, (enum follow)follow);
        a_dead_letter_that_no_store_has(false, (enum follow)follow);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dead_letters_that_no_store_has),
        cmocka_unit_test(queues_come_in_their_order),
        cmocka_unit_test(tasks_that_no_worker_serves),
        cmocka_unit_test(recovery_is_from_the_loss_to_the_next_hand_over),
        cmocka_unit_test(a_silent_worker_is_lost_since_it_was_heard),
        cmocka_unit_test(who_leaves_in_order_is_not_lost),
        cmocka_unit_test(what_ends_before_it_recovers_did_not_run),
        cmocka_unit_test(what_waits_in_a_paused_queue_grows_old),
        cmocka_unit_test(a_task_counts_though_nobody_hears_of_it),
        cmocka_unit_test(a_task_counts_though_the_store_refused_it),
        cmocka_unit_test(a_dead_letter_that_is_not_stored_yet),
        cmocka_unit_test(what_expires_before_its_time_was_delayed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
