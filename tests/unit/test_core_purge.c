/* SPDX-License-Identifier: Apache-2.0 */
/* A purge beside what was asked of the store just before it; dead letters that live again. */
#include "tests/unit/core_durable.h"

static void purge(struct durable *d)
{
    struct msg_control m = {.request = 1, .verb = S("purge"), .name = S("q")};
    fix_later(&d->f, 1);
    core_control(d->f.core, 5, &m);
    durable_end(d);
    assert_non_null(durable_op(d, STORE_PURGE, 0));
    durable_stored(d, 1);
}

/* The id of the task that is handed out next; 0: none. */
static uint64_t runs_next(struct durable *d)
{
    for (int i = 0; i < 10; i++) {
        durable_end(d);
        const struct lane_action *a = fix_lane(&d->f, 0, LANE_TASK, 0);
        if (a)
            return a->id;
        durable_stored(d, 1);
    }
    durable_end(d);
    return 0;
}

static void what_came_due_just_before_a_purge_does_not_run(void **state)
{
    (void)state;
    struct durable d;
    durable_begin(&d, DURABILITY_SYNC);
    struct msg_options o = fix_options();
    o.delay_ms = 1000;
    fix_submit(&d.f, 5, "q", "payload", &o, FOLLOW_NONE);
    durable_settle(&d);
    durable_end(&d);
    fix_later(&d.f, 2000);
    fix_answer(&d.f, 0, (struct answer){.kind = MSG_HEARTBEAT});
    durable_end(&d);
    assert_non_null(durable_op(&d, STORE_DUE, 0));
    purge(&d);
    assert_int_equal(runs_next(&d), 0);
    fix_later(&d.f, 1);
    /* The next one that comes due does. */
    uint64_t id = fix_submit(&d.f, 5, "q", "payload", &o, FOLLOW_NONE);
    durable_settle(&d);
    durable_end(&d);
    fix_later(&d.f, 2000);
    fix_answer(&d.f, 0, (struct answer){.kind = MSG_HEARTBEAT});
    assert_int_equal(runs_next(&d), id);
    durable_free(&d);
}

static void what_was_replayed_just_before_a_purge_does_not_run(void **state)
{
    (void)state;
    struct durable d;
    durable_begin(&d, DURABILITY_SYNC);
    struct msg_options o = fix_options();
    o.max_attempts = 1;
    uint64_t lease, id = durable_leased(&d, &lease, &o);
    fix_later(&d.f, 1);
    fix_answer(&d.f, 0, fix_failed(id, lease, "no"));
    durable_settle(&d);
    core_received(d.f.core, 5, 1);
    durable_settle(&d);
    struct msg_control m = {.request = 2, .verb = S("replay"), .id = id};
    core_control(d.f.core, 5, &m);
    durable_end(&d);
    purge(&d);
    assert_int_equal(runs_next(&d), 0);
    const struct queue *at = NULL;
    struct core_queue_stats stats;
    assert_true(core_queue_next(d.f.core, &at, &stats));
    assert_int_equal(stats.dead, 0);
    durable_free(&d);
}

/* Its second life holds its key, if nobody else does by then: until it ends, whatever the first one
 * had asked for. */
static void replayed_with_key(uint64_t unique_ms)
{
    struct fix f;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    struct msg_options o = fix_options();
    o.unique_key = S("key");
    o.unique_ms = unique_ms;
    o.max_attempts = 1;
    uint64_t id = fix_submit(&f, 5, "q", "", &o, FOLLOW_NONE);
    fix_end(&f);
    uint64_t lease = fix_lane(&f, 0, LANE_TASK, 0)->lease;
    fix_later(&f, 1);
    fix_answer(&f, 0, fix_failed(id, lease, "no"));
    fix_end(&f);
    fix_later(&f, 1);
    struct msg_control m = {.request = 1, .verb = S("replay"), .id = id};
    core_control(f.core, 5, &m);
    fix_end(&f);
    assert_non_null(fix_conn(&f, 5, MSG_OK, 0));
    lease = fix_lane(&f, 0, LANE_TASK, 0)->lease;
    fix_later(&f, 1);
    core_control(f.core, 5, &m); /* it lives */
    fix_end(&f);
    assert_int_equal(fix_conn(&f, 5, MSG_REJECTED, 0)->code, PUSHROD_E_WRONG_STATE);
    fix_later(&f, 1);
    assert_int_equal(fix_submit(&f, 5, "q", "", &o, FOLLOW_NONE), 0);
    fix_end(&f);
    const struct conn_action *rejected = fix_conn(&f, 5, MSG_REJECTED, 0);
    assert_non_null(rejected);
    assert_int_equal(rejected->code, PUSHROD_E_DUPLICATE);
    assert_int_equal(rejected->id, id);
    fix_later(&f, 1);
    fix_answer(&f, 0, fix_done(id, lease, ""));
    assert_int_not_equal(fix_submit(&f, 5, "q", "", &o, FOLLOW_NONE), 0);
    fix_end(&f);
    fix_free(&f);
}

static void a_replayed_task_takes_its_key_again(void **state)
{
    (void)state;
    replayed_with_key(0);
    replayed_with_key(1); /* that is over by then */
}

/* Of what was purged, and of what had ended before; not that of what a worker has. */
static void a_purge_frees_keys_whose_window_lasts(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    struct msg_options o = fix_options();
    o.unique_ms = 60000;
    const char *const keys[] = {"running", "ended", "waiting"};
    uint64_t ids[3];
    for (int i = 0; i < 3; i++) {
        o.unique_key = S(keys[i]);
        ids[i] = fix_submit(&f, 5, "q", "", &o, FOLLOW_NONE);
    }
    uint64_t other = fix_submit(&f, 5, "q2", "", &o, FOLLOW_NONE);
    core_cancel(f.core, 5, 1, ids[1]);
    core_cancel(f.core, 5, 1, other);
    fix_worker(&f, 0, "q", 1);
    fix_tick(&f);
    assert_int_equal(fix_lane(&f, 0, LANE_TASK, 0)->id, ids[0]);
    fix_later(&f, 1);
    for (int i = 0; i < 3; i++) {
        o.unique_key = S(keys[i]);
        assert_int_equal(fix_submit(&f, 5, "q", "", &o, FOLLOW_NONE), 0);
    }
    core_control(
        f.core, 5, &(struct msg_control){.request = 1, .verb = S("purge"), .name = S("q")});
    for (int i = 0; i < 3; i++) {
        o.unique_key = S(keys[i]);
        assert_int_equal(fix_submit(&f, 5, "q", "", &o, FOLLOW_NONE) != 0, i != 0);
    }
    assert_int_equal(fix_submit(&f, 5, "q2", "", &o, FOLLOW_NONE), 0);
    fix_free(&f);
}

/* The store refused its finish, and is asked again behind the purge: it is to find the record. */
static void a_finish_that_was_refused_is_stored_behind_a_purge(void **state)
{
    (void)state;
    struct durable d;
    durable_begin(&d, DURABILITY_SYNC);
    struct msg_options o = fix_options();
    o.keep_ms = 60000;
    uint64_t lease, id = durable_leased(&d, &lease, &o);
    fix_later(&d.f, 1);
    fix_answer(&d.f, 0, fix_done(id, lease, "result"));
    fix_end(&d.f);
    durable_say(&d, durable_op(&d, STORE_FINISH, 0), OUTCOME_REFUSED, PUSHROD_E_STORE_FAILED);
    durable_end(&d);
    purge(&d);
    durable_settle(&d);
    durable_end(&d);
    fix_later(&d.f, 200);
    durable_settle(&d);
    core_received(d.f.core, 5, 1);
    durable_settle(&d);
    durable_restart(&d);
    core_wait(d.f.core, 6, 1, id, FOLLOW_FINISH);
    durable_end(&d);
    durable_stored(&d, 1);
    durable_end(&d);
    const struct conn_action *told = fix_conn(&d.f, 6, MSG_FINISHED, 0);
    assert_non_null(told);
    assert_true(slice_equal(task_result(told->task), S("result")));
    durable_free(&d);
}

/* The store refused what the purge cancelled here, and did the purge itself. */
static void what_a_purge_cancels_is_counted_once(void **state)
{
    (void)state;
    struct durable d;
    const struct store_event *events;
    durable_new(&d, 0, DURABILITY_SYNC);
    fix_submit(&d.f, 5, "q", "payload", NULL, FOLLOW_NONE);
    durable_settle(&d);
    struct msg_control m = {.request = 1, .verb = S("purge"), .name = S("q")};
    core_control(d.f.core, 5, &m);
    fix_end(&d.f);
    store_mem_plain.submit(d.store, durable_op(&d, STORE_PURGE, 0), 1, d.f.now.wall_ms);
    durable_say(&d, durable_op(&d, STORE_FINISH, 0), OUTCOME_REFUSED, PUSHROD_E_STORE_FAILED);
    assert_int_equal(store_mem_plain.poll(d.store, &events, 64), 1);
    core_stored(d.f.core, events, 1);
    fix_end(&d.f);
    assert_int_equal(fix_conn(&d.f, 5, MSG_OK, 0)->number, 1);
    fix_later(&d.f, 200);
    durable_settle(&d);
    assert_int_equal(core_stats(d.f.core)->cancelled, 1);
    assert_int_equal(core_stats(d.f.core)->ledger, 0);
    durable_free(&d);
}

/* What waits behind an edge for a worker by name counts again. */
static void a_purge_that_is_refused_changes_no_bound(void **state)
{
    (void)state;
    struct durable d;
    durable_new(&d, 2, DURABILITY_SYNC);
    struct msg_options o = fix_options();
    for (int i = 0; i < 5; i++) {
        o.worker = i < 3 ? (struct slice){0} : S("away");
        assert_int_not_equal(fix_submit(&d.f, 5, "q", "payload", &o, FOLLOW_NONE), 0);
        durable_settle(&d);
    }
    assert_int_equal(fix_submit(&d.f, 5, "q", "payload", &o, FOLLOW_NONE), 0);
    struct msg_control m = {.request = 1, .verb = S("purge"), .name = S("q")};
    core_control(d.f.core, 5, &m);
    fix_end(&d.f);
    durable_say(&d, durable_op(&d, STORE_PURGE, 0), OUTCOME_REFUSED, PUSHROD_E_STORE_FAILED);
    assert_int_equal(fix_submit(&d.f, 5, "q", "payload", &o, FOLLOW_NONE), 0);
    assert_int_equal(core_refusal(d.f.core), PUSHROD_E_QUEUE_FULL);
    durable_free(&d);
}

/* Whoever waits for what was purged in the store is told, though the store could not say so. */
static void who_waits_for_what_was_purged_is_told_later(void **state)
{
    (void)state;
    struct durable d;
    durable_new(&d, 1, DURABILITY_SYNC);
    uint64_t id = 0;
    for (int i = 0; i < 2; i++) {
        id = fix_submit(&d.f, 5, "q", "payload", NULL, i ? FOLLOW_FINISH : FOLLOW_NONE);
        durable_settle(&d);
    }
    purge(&d);
    fix_end(&d.f); /* not put to the store */
    const struct store_op *op = durable_op(&d, STORE_LOOKUP, 0);
    assert_non_null(op);
    assert_int_equal(op->id, id);
    durable_say(&d, op, OUTCOME_REFUSED, PUSHROD_E_STORE_FAILED);
    fix_end(&d.f);
    assert_null(durable_op(&d, STORE_LOOKUP, 0));
    assert_null(fix_conn(&d.f, 5, MSG_FINISHED, 0));
    fix_later(&d.f, 200);
    durable_end(&d);
    durable_stored(&d, 1);
    durable_end(&d);
    const struct conn_action *told = fix_conn(&d.f, 5, MSG_FINISHED, 0);
    assert_non_null(told);
    assert_int_equal(told->id, id);
    assert_int_equal(told->code, PUSHROD_E_TASK_CANCELLED);
    durable_free(&d);
}

/* Its client is gone, and cannot ask again; the store could not say where it is. */
static void what_was_attached_is_cancelled_later(void **state)
{
    (void)state;
    struct durable d;
    durable_new(&d, 1, DURABILITY_SYNC);
    struct msg_options o = fix_options();
    for (int i = 0; i < 2; i++) {
        o.attached = i;
        fix_submit(&d.f, 5, "q", "payload", &o, FOLLOW_NONE);
        durable_settle(&d);
    }
    core_conn_closed(d.f.core, 5);
    fix_end(&d.f);
    durable_say(&d, durable_op(&d, STORE_LOOKUP, 0), OUTCOME_REFUSED, PUSHROD_E_STORE_FAILED);
    fix_end(&d.f);
    assert_null(durable_op(&d, STORE_LOOKUP, 0));
    fix_later(&d.f, 200);
    durable_settle(&d);
    assert_int_equal(core_stats(d.f.core)->cancelled, 1);
    durable_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_came_due_just_before_a_purge_does_not_run),
        cmocka_unit_test(what_was_replayed_just_before_a_purge_does_not_run),
        cmocka_unit_test(a_replayed_task_takes_its_key_again),
        cmocka_unit_test(a_purge_frees_keys_whose_window_lasts),
        cmocka_unit_test(a_finish_that_was_refused_is_stored_behind_a_purge),
        cmocka_unit_test(what_a_purge_cancels_is_counted_once),
        cmocka_unit_test(a_purge_that_is_refused_changes_no_bound),
        cmocka_unit_test(who_waits_for_what_was_purged_is_told_later),
        cmocka_unit_test(what_was_attached_is_cancelled_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
