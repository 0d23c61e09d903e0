/* SPDX-License-Identifier: Apache-2.0 */
/* Coming back: the table of verdicts row by row, and what is held back after a restart. */
#include "tests/unit/core_durable.h"

static struct durable d;

/* Joins again with what it holds; the store is asked first where the core has to. Verdicts in *v.
 */
static void rejoin(unsigned n, const struct held *held, size_t count, uint8_t *v)
{
    d.f.worker[n] = 0;
    fix_join_held(&d.f, n, "q", 1, held, count);
    for (int i = 0; i < 5 && !d.f.worker[n]; i++) {
        durable_ask(&d);
        durable_stored(&d, 1);
        fix_end(&d.f);
        for (size_t k = 0; k < d.f.acts->join_count; k++)
            if (d.f.acts->join[k].kind == JOIN_WELCOME && d.f.acts->join[k].peer == 100 + n) {
                d.f.worker[n] = d.f.acts->join[k].worker;
                d.f.session[n] = d.f.acts->join[k].session;
            }
    }
    durable_ask(&d);
    d.f.sequence[n] = 0;
    const struct join_action *welcome = NULL;
    for (size_t k = 0; k < d.f.acts->join_count; k++)
        if (d.f.acts->join[k].kind == JOIN_WELCOME)
            welcome = &d.f.acts->join[k];
    assert_non_null(welcome);
    assert_int_equal(welcome->held_count, count);
    memcpy(v, welcome->verdicts, count);
}

static void ready(unsigned n)
{
    durable_stored(&d, 1);
    fix_answer(&d.f, n, (struct answer){.kind = MSG_READY});
}

static void joined(unsigned n)
{
    uint8_t none[1];
    rejoin(n, NULL, 0, none);
    ready(n);
}

/* Submits, and goes on until worker 0 has it; the tick is over. */
static uint64_t leased(uint64_t *lease)
{
    uint64_t id = fix_submit(&d.f, 5, "q", "", NULL, FOLLOW_FINISH);
    durable_end(&d);
    durable_stored(&d, 1);
    durable_end(&d);
    *lease = durable_lease(&d, 0, id);
    assert_int_not_equal(*lease, 0);
    return id;
}

static void begin(uint64_t *id, uint64_t *lease)
{
    durable_new(&d, 0, DURABILITY_SYNC);
    joined(0);
    *id = leased(lease);
    durable_stored(&d, 1);
}

/* A worker that was fenced: no death, its task is ready again at once. */
static void fenced(void)
{
    core_worker_lost(d.f.core, d.f.worker[0], PUSHROD_E_TIMED_OUT, d.f.now.mono_ns);
    durable_settle(&d);
}

static struct held held_of(uint64_t id, uint64_t lease, bool answered)
{
    return (struct held){.id = id, .lease = lease, .answered = answered, .started = true};
}

/* ---- known, not given to another ---- */

static void running_is_kept(void **state)
{
    (void)state;
    uint64_t id, lease;
    uint8_t v[1];
    begin(&id, &lease);
    fenced();
    rejoin(0, (struct held[]){held_of(id, lease, false)}, 1, v);
    assert_int_equal(v[0], VERDICT_KEEP);
    ready(0);
    durable_end(&d);
    assert_null(fix_lane(&d.f, 0, LANE_TASK, 0));
    /* The lease is the old one, and its DONE counts. */
    durable_stored(&d, 1);
    fix_answer(&d.f, 0, fix_done(id, lease, ""));
    durable_end(&d);
    durable_stored(&d, 1);
    durable_end(&d);
    assert_int_equal(fix_conn(&d.f, 5, MSG_FINISHED, 0)->id, id);
    durable_free(&d);
}

static void answered_is_sent(void **state)
{
    (void)state;
    uint64_t id, lease;
    uint8_t v[1];
    begin(&id, &lease);
    fenced();
    rejoin(0, (struct held[]){held_of(id, lease, true)}, 1, v);
    assert_int_equal(v[0], VERDICT_SEND);
    /* Nobody else gets it meanwhile. */
    durable_stored(&d, 1);
    joined(1);
    durable_end(&d);
    assert_null(fix_lane(&d.f, 1, LANE_TASK, 0));
    durable_free(&d);
}

/* A known instance that joins again: "tasks leased there and not held are ready again". */
static void not_held_is_ready_again(void **state)
{
    (void)state;
    uint64_t id, lease;
    uint8_t v[1];
    begin(&id, &lease);
    rejoin(0, NULL, 0, v);
    assert_int_equal(core_stats(d.f.core)->running, 0);
    ready(0);
    durable_end(&d);
    uint64_t again = durable_lease(&d, 0, id);
    assert_int_not_equal(again, 0);
    assert_int_not_equal(again, lease);
    durable_free(&d);
}

/* ---- given to another ---- */

/* Worker 1 has the task that worker 0 still holds. */
static uint64_t given_to_another(uint64_t *id, uint64_t *lease, bool started)
{
    begin(id, lease);
    fenced();
    joined(1);
    durable_end(&d);
    uint64_t other = durable_lease(&d, 1, *id);
    assert_int_not_equal(other, 0);
    durable_stored(&d, 1);
    if (started)
        fix_answer(&d.f, 1, (struct answer){.kind = MSG_STARTED, .id = *id, .lease = other});
    return other;
}

static void running_here_and_there_is_cancelled_here(void **state)
{
    (void)state;
    uint64_t id, lease;
    uint8_t v[1];
    given_to_another(&id, &lease, true);
    rejoin(0, (struct held[]){held_of(id, lease, false)}, 1, v);
    assert_int_equal(v[0], VERDICT_CANCEL);
    assert_null(fix_lane(&d.f, 1, LANE_CANCEL, 0));
    durable_free(&d);
}

static void running_here_and_not_there_is_kept(void **state)
{
    (void)state;
    uint64_t id, lease;
    uint8_t v[1];
    uint64_t other = given_to_another(&id, &lease, false);
    rejoin(0, (struct held[]){held_of(id, lease, false)}, 1, v);
    assert_int_equal(v[0], VERDICT_KEEP);
    assert_int_equal(fix_lane(&d.f, 1, LANE_CANCEL, 0)->lease, other);
    durable_free(&d);
}

static void answered_here_and_running_there(void **state)
{
    (void)state;
    uint64_t id, lease;
    uint8_t v[1];
    uint64_t other = given_to_another(&id, &lease, true);
    rejoin(0, (struct held[]){held_of(id, lease, true)}, 1, v);
    assert_int_equal(v[0], VERDICT_SEND);
    ready(0);
    fix_answer(&d.f, 0, fix_done(id, lease, "first"));
    durable_end(&d);
    /* The first DONE wins, the other is cancelled, and what it says later is counted. */
    assert_int_equal(fix_lane(&d.f, 1, LANE_CANCEL, 0)->lease, other);
    durable_stored(&d, 1);
    fix_answer(&d.f, 1, fix_done(id, other, "second"));
    durable_end(&d);
    const struct conn_action *told = fix_conn(&d.f, 5, MSG_FINISHED, 0);
    assert_true(slice_equal(task_result(told->task), S("first")));
    assert_null(fix_conn(&d.f, 5, MSG_FINISHED, 1));
    assert_int_equal(core_stats(d.f.core)->done, 1);
    assert_true(core_stats(d.f.core)->stale_answers > 0);
    durable_free(&d);
}

/* ---- not in memory ---- */

static void a_finished_or_unknown_one(void **state)
{
    (void)state;
    uint64_t id, lease;
    uint8_t v[4];
    begin(&id, &lease);
    fix_answer(&d.f, 0, fix_done(id, lease, ""));
    durable_settle(&d);
    core_received(d.f.core, 5, 1);
    durable_settle(&d);
    uint64_t never = UINT64_C(1) << 40;
    struct held held[] = {held_of(id, lease, false), held_of(id, lease, true),
        held_of(never, 12345, false), held_of(never, 12345, true)};
    rejoin(0, held, 4, v);
    assert_int_equal(v[0], VERDICT_CANCEL);
    assert_int_equal(v[1], VERDICT_FORGET);
    assert_int_equal(v[2], VERDICT_CANCEL);
    assert_int_equal(v[3], VERDICT_FORGET);
    durable_free(&d);
}

/* It failed, waits in the store for its retry, and the worker did not hear the ACK. */
static void one_in_the_store_is_adopted(void **state)
{
    (void)state;
    uint64_t id, lease;
    uint8_t v[1];
    begin(&id, &lease);
    struct answer failed = fix_failed(id, lease, "later");
    failed.number = 60000;
    fix_answer(&d.f, 0, failed);
    durable_settle(&d);
    assert_int_equal(core_stats(d.f.core)->ledger, 0);
    rejoin(0, (struct held[]){held_of(id, lease, false)}, 1, v);
    assert_int_equal(v[0], VERDICT_KEEP);
    assert_int_equal(core_stats(d.f.core)->running, 1);
    durable_free(&d);
}

/* Two are looked up, and one answer comes a tick before the other: nobody else gets that task. */
static void what_was_looked_up_waits_for_its_worker(void **state)
{
    (void)state;
    uint64_t id[2], lease[2];
    begin(&id[0], &lease[0]);
    for (unsigned i = 0; i < 2; i++) {
        if (i == 1)
            id[1] = leased(&lease[1]), durable_stored(&d, 1);
        struct answer failed = fix_failed(id[i], lease[i], "later");
        failed.number = 60000;
        fix_answer(&d.f, 0, failed);
        durable_settle(&d);
    }
    fenced();
    joined(1);
    fix_join_held(&d.f, 0, "q", 2,
        (struct held[]){held_of(id[0], lease[0], false), held_of(id[1], lease[1], false)}, 2);
    durable_ask(&d);
    const struct store_event *events;
    for (unsigned i = 0; i < 2; i++) {
        fix_later(&d.f, 1);
        assert_int_equal(store_mem_plain.poll(d.store, &events, 1), 1);
        core_stored(d.f.core, events, 1);
        fix_end(&d.f);
        assert_null(fix_lane(&d.f, 1, LANE_TASK, 0));
    }
    assert_int_equal(d.f.acts->join_count, 1);
    assert_int_equal(d.f.acts->join[0].verdicts[0], VERDICT_KEEP);
    assert_int_equal(d.f.acts->join[0].verdicts[1], VERDICT_KEEP);
    durable_free(&d);
}

/* ---- after a restart of the server ---- */

static void a_running_task_is_not_run_again(void **state)
{
    (void)state;
    uint64_t id, lease;
    uint8_t v[1];
    begin(&id, &lease);
    durable_restart(&d);
    joined(1);
    durable_settle(&d);
    assert_int_equal(core_stats(d.f.core)->running, 0);
    /* What comes now starts at once. */
    uint64_t fresh = fix_submit(&d.f, 5, "q", "", NULL, FOLLOW_NONE);
    durable_end(&d);
    durable_stored(&d, 1);
    durable_end(&d);
    assert_int_equal(fix_lane(&d.f, 1, LANE_TASK, 0)->id, fresh);
    durable_stored(&d, 1);
    rejoin(0, (struct held[]){held_of(id, lease, false)}, 1, v);
    assert_int_equal(v[0], VERDICT_KEEP);
    ready(0);
    fix_answer(&d.f, 0, fix_done(id, lease, "over the restart"));
    durable_settle(&d);
    assert_int_equal(core_stats(d.f.core)->done, 1);
    durable_free(&d);
}

static void all_are_back_and_nobody_has_it(void **state)
{
    (void)state;
    uint64_t id, lease;
    begin(&id, &lease);
    durable_restart(&d);
    durable_settle(&d);
    joined(0);
    bool given = false;
    for (int i = 0; i < 4 && !given; i++) {
        durable_end(&d);
        given = durable_lease(&d, 0, id) != 0;
        durable_stored(&d, 1);
    }
    assert_true(given);
    durable_free(&d);
}

static void who_does_not_come_back_is_not_waited_for(void **state)
{
    (void)state;
    uint64_t id, lease;
    begin(&id, &lease);
    durable_restart(&d);
    joined(1);
    durable_settle(&d);
    assert_int_equal(core_stats(d.f.core)->running, 0);
    durable_stored(&d, 2900);
    fix_answer(&d.f, 1, (struct answer){.kind = MSG_HEARTBEAT});
    durable_end(&d);
    assert_null(fix_lane(&d.f, 1, LANE_TASK, 0));
    durable_stored(&d, 200);
    durable_end(&d);
    assert_int_equal(fix_lane(&d.f, 1, LANE_TASK, 0)->id, id);
    /* Off the record: it holds nothing any more. */
    const struct store_op *op = durable_op(&d, STORE_WORKER, 0);
    assert_true(op && op->gone && op->instance.size == 16);
    durable_free(&d);
}

/* What is looked up for a JOIN and not kept by it waits for its time, as before. */
static void a_stored_backoff_is_not_cut_short(void **state)
{
    (void)state;
    uint64_t id, lease;
    uint8_t v[1];
    begin(&id, &lease);
    struct answer failed = fix_failed(id, lease, "later");
    failed.number = 60000;
    fix_answer(&d.f, 0, failed);
    durable_settle(&d);
    durable_end(&d);
    durable_restart(&d);
    rejoin(0, (struct held[]){held_of(id, lease, true)}, 1, v);
    assert_int_equal(v[0], VERDICT_SEND);
    ready(0);
    durable_settle(&d);
    assert_int_equal(core_stats(d.f.core)->running, 0);
    durable_end(&d);
    durable_stored(&d, 60000);
    durable_settle(&d);
    assert_int_equal(core_stats(d.f.core)->running, 1);
    durable_free(&d);
}

/* Its ACK was lost with the server, and another worker runs the next attempt. */
static void a_stored_failure_is_not_counted_again(void **state)
{
    (void)state;
    uint64_t id, first, second;
    uint8_t v[1];
    begin(&id, &first);
    fix_answer(&d.f, 0, fix_failed(id, first, "no"));
    durable_settle(&d);
    fenced();
    joined(1);
    durable_end(&d);
    durable_stored(&d, 1500); /* the backoff is over: DUE */
    durable_end(&d);
    durable_stored(&d, 1);
    durable_end(&d);
    second = durable_lease(&d, 1, id);
    assert_int_not_equal(second, 0);
    durable_stored(&d, 1);
    durable_end(&d);
    durable_restart(&d);
    rejoin(0, (struct held[]){held_of(id, first, true)}, 1, v);
    assert_int_equal(v[0], VERDICT_SEND);
    durable_stored(&d, 1);
    rejoin(1, (struct held[]){held_of(id, second, false)}, 1, v);
    assert_int_equal(v[0], VERDICT_KEEP);
    ready(0);
    fix_answer(&d.f, 1, (struct answer){.kind = MSG_READY});
    fix_answer(&d.f, 0, fix_failed(id, first, "no"));
    durable_end(&d);
    assert_null(durable_op(&d, STORE_RESCHEDULE, 0));
    assert_int_equal(core_stats(d.f.core)->running, 1);
    durable_free(&d);
}

/* Its time had come before its new record was stored: when it runs, the store has to know. */
static void a_retry_that_is_due_at_once_is_held_back_as_well(void **state)
{
    (void)state;
    uint64_t id, lease;
    begin(&id, &lease);
    struct answer failed = fix_failed(id, lease, "no");
    failed.number = 1; /* retry in so many ms */
    fix_answer(&d.f, 0, failed);
    durable_end(&d);
    assert_non_null(durable_op(&d, STORE_RESCHEDULE, 0));
    lease = 0;
    for (int i = 0; i < 5 && !lease; i++) {
        durable_stored(&d, 50);
        durable_end(&d);
        lease = durable_lease(&d, 0, id);
    }
    assert_int_not_equal(lease, 0);
    durable_restart(&d);
    durable_settle(&d);
    joined(1); /* another one: worker 0 may still run it */
    durable_settle(&d);
    assert_int_equal(core_stats(d.f.core)->running, 0);
    durable_settle(&d);
    durable_stored(&d, 5000); /* it will not come back any more */
    durable_settle(&d);
    assert_int_equal(core_stats(d.f.core)->running, 1);
    durable_free(&d);
}

/* Else a restart would not wait for it. */
static void nothing_is_handed_out_before_the_worker_is_on_record(void **state)
{
    (void)state;
    durable_new(&d, 0, DURABILITY_SYNC);
    uint64_t id = fix_submit(&d.f, 5, "q", "", NULL, FOLLOW_FINISH);
    durable_settle(&d);
    fix_join_held(&d.f, 0, "q", 1, NULL, 0); /* ends the tick */
    const struct store_op record = *durable_op(&d, STORE_WORKER, 0);
    fix_later(&d.f, 1);
    fix_answer(&d.f, 0, (struct answer){.kind = MSG_READY});
    fix_end(&d.f);
    assert_null(fix_lane(&d.f, 0, LANE_TASK, 0));
    durable_say(&d, &record, OUTCOME_STORED, 0);
    fix_end(&d.f);
    assert_int_equal(fix_lane(&d.f, 0, LANE_TASK, 0)->id, id);
    durable_free(&d);
}

static void a_worker_that_could_not_be_recorded_is_recorded_later(void **state)
{
    (void)state;
    durable_new(&d, 0, DURABILITY_SYNC);
    uint64_t id = fix_submit(&d.f, 5, "q", "", NULL, FOLLOW_FINISH);
    durable_settle(&d);
    fix_join_held(&d.f, 0, "q", 1, NULL, 0);
    const struct store_op record = *durable_op(&d, STORE_WORKER, 0);
    fix_later(&d.f, 1);
    durable_state(&d, EVENT_STORE_DOWN, PUSHROD_E_STORE_FAILED);
    fix_answer(&d.f, 0, (struct answer){.kind = MSG_READY});
    fix_end(&d.f);
    durable_say(&d, &record, OUTCOME_REFUSED, PUSHROD_E_STORE_FAILED);
    fix_end(&d.f);
    fix_later(&d.f, 1);
    durable_state(&d, EVENT_STORE_UP, 0);
    durable_end(&d);
    assert_non_null(durable_op(&d, STORE_WORKER, 0));
    assert_null(fix_lane(&d.f, 0, LANE_TASK, 0));
    durable_stored(&d, 1);
    durable_end(&d);
    assert_int_equal(fix_lane(&d.f, 0, LANE_TASK, 0)->id, id);
    durable_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(running_is_kept),
        cmocka_unit_test(nothing_is_handed_out_before_the_worker_is_on_record),
        cmocka_unit_test(a_worker_that_could_not_be_recorded_is_recorded_later),
        cmocka_unit_test(a_retry_that_is_due_at_once_is_held_back_as_well),
        cmocka_unit_test(answered_is_sent),
        cmocka_unit_test(not_held_is_ready_again),
        cmocka_unit_test(running_here_and_there_is_cancelled_here),
        cmocka_unit_test(running_here_and_not_there_is_kept),
        cmocka_unit_test(a_stored_failure_is_not_counted_again),
        cmocka_unit_test(a_stored_backoff_is_not_cut_short),
        cmocka_unit_test(answered_here_and_running_there),
        cmocka_unit_test(a_finished_or_unknown_one),
        cmocka_unit_test(one_in_the_store_is_adopted),
        cmocka_unit_test(what_was_looked_up_waits_for_its_worker),
        cmocka_unit_test(a_running_task_is_not_run_again),
        cmocka_unit_test(all_are_back_and_nobody_has_it),
        cmocka_unit_test(who_does_not_come_back_is_not_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
