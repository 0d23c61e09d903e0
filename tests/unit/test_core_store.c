/* SPDX-License-Identifier: Apache-2.0 */
/* "Persist, then act": what waits for the store, and what becomes of it when the store fails. */
#include "tests/unit/core_durable.h"

static struct durable d;

static void accepted_and_dispatched_when_stored(void **state)
{
    (void)state;
    durable_begin(&d, DURABILITY_SYNC);
    uint64_t id = fix_submit(&d.f, 5, "q", "payload", NULL, FOLLOW_FINISH);
    durable_end(&d);
    const struct store_op *op = durable_op(&d, STORE_APPEND, 0);
    assert_non_null(op);
    assert_int_equal(op->record->id, id);
    assert_true(op->record->followed && op->record->windowed && !op->async);
    assert_null(fix_conn(&d.f, 5, MSG_ACCEPTED, 0));
    assert_null(fix_lane(&d.f, 0, LANE_TASK, 0));
    assert_true(core_stats(d.f.core)->unsettled_bytes > 0);
    fix_later(&d.f, 100);
    durable_end(&d);
    assert_null(fix_lane(&d.f, 0, LANE_TASK, 0));
    durable_stored(&d, 1);
    durable_end(&d);
    assert_int_equal(fix_conn(&d.f, 5, MSG_ACCEPTED, 0)->id, id);
    assert_int_equal(fix_lane(&d.f, 0, LANE_TASK, 0)->id, id);
    assert_int_equal(core_stats(d.f.core)->unsettled_bytes, 0);
    /* Dispatch writes nothing. */
    assert_int_equal(d.f.acts->store_count, 0);
    durable_free(&d);
}

static void told_and_acknowledged_when_stored(void **state)
{
    (void)state;
    durable_begin(&d, DURABILITY_SYNC);
    uint64_t lease, id = durable_leased(&d, &lease, NULL);
    fix_later(&d.f, 1);
    fix_answer(&d.f, 0, fix_done(id, lease, "result"));
    uint64_t sequence = d.f.sequence[0];
    durable_end(&d);
    const struct store_op *op = durable_op(&d, STORE_FINISH, 0);
    assert_non_null(op);
    assert_int_equal(op->finish->id, id);
    assert_int_equal(op->finish->result.size, 6);
    assert_true(op->finish->keep_until_ms > d.f.now.wall_ms);
    assert_null(fix_conn(&d.f, 5, MSG_FINISHED, 0));
    assert_null(fix_lane(&d.f, 0, LANE_ACK, 0));
    durable_stored(&d, 1);
    durable_end(&d);
    assert_int_equal(fix_conn(&d.f, 5, MSG_FINISHED, 0)->id, id);
    assert_int_equal(fix_lane(&d.f, 0, LANE_ACK, 0)->number, sequence);
    /* The last follower has it: the store need not keep it. */
    fix_later(&d.f, 1);
    core_received(d.f.core, 5, 1);
    durable_end(&d);
    assert_int_equal(durable_op(&d, STORE_FORGET, 0)->id, id);
    assert_int_equal(core_stats(d.f.core)->ledger, 0);
    durable_free(&d);
}

/* Credit is free at DONE, not at ACK; the ACK stays below what is not stored. */
static void later_answers_wait_for_the_first(void **state)
{
    (void)state;
    durable_begin(&d, DURABILITY_SYNC);
    uint64_t first, second, a = durable_leased(&d, &first, NULL);
    fix_later(&d.f, 1);
    uint64_t b = fix_submit(&d.f, 5, "q", "", NULL, FOLLOW_FINISH);
    durable_end(&d);
    durable_stored(&d, 1);
    fix_answer(&d.f, 0, fix_done(a, first, "1"));
    uint64_t sequence = d.f.sequence[0];
    fix_end(&d.f); /* not put to the store yet */
    struct store_op finish = *durable_op(&d, STORE_FINISH, 0);
    second = durable_lease(&d, 0, b);
    assert_int_not_equal(second, 0);
    fix_later(&d.f, 1);
    fix_answer(&d.f, 0, (struct answer){.kind = MSG_STARTED, .id = b, .lease = second});
    fix_end(&d.f);
    assert_null(fix_lane(&d.f, 0, LANE_ACK, 0));
    durable_say(&d, &finish, OUTCOME_STORED, 0);
    fix_end(&d.f);
    assert_int_equal(fix_lane(&d.f, 0, LANE_ACK, 0)->number, sequence + 1);
    durable_free(&d);
}

/* Whether ACCEPTED is in a hurry is remembered as long as ACCEPTED has to wait. */
static void patience_is_passed_on(void **state)
{
    (void)state;
    const uint8_t durabilities[] = {DURABILITY_MEMORY, DURABILITY_ASYNC, DURABILITY_SYNC};
    for (unsigned i = 0; i < 6; i++) {
        durable_begin(&d, durabilities[i / 2]);
        struct submit s = {.request = 7, .queue = S("q"), .patient = i % 2};
        core_submit(d.f.core, 5, &s, 1, NULL);
        durable_end(&d);
        if (durabilities[i / 2] == DURABILITY_SYNC) {
            durable_stored(&d, 1);
            durable_end(&d);
        }
        assert_int_equal(fix_conn(&d.f, 5, MSG_ACCEPTED, 0)->patient, i % 2);
        durable_free(&d);
    }
}

static void async_does_not_wait(void **state)
{
    (void)state;
    durable_begin(&d, DURABILITY_ASYNC);
    uint64_t id = fix_submit(&d.f, 5, "q", "", NULL, FOLLOW_FINISH);
    durable_end(&d);
    assert_true(durable_op(&d, STORE_APPEND, 0)->async);
    assert_non_null(fix_conn(&d.f, 5, MSG_ACCEPTED, 0));
    uint64_t lease = durable_lease(&d, 0, id);
    fix_later(&d.f, 1);
    fix_answer(&d.f, 0, fix_done(id, lease, ""));
    durable_end(&d);
    assert_true(durable_op(&d, STORE_FINISH, 0)->async);
    assert_non_null(fix_conn(&d.f, 5, MSG_FINISHED, 0));
    assert_non_null(fix_lane(&d.f, 0, LANE_ACK, 0));
    durable_free(&d);
}

static void a_retry_is_stored_before_it_is_acknowledged(void **state)
{
    (void)state;
    durable_begin(&d, DURABILITY_SYNC);
    uint64_t lease, id = durable_leased(&d, &lease, NULL);
    fix_later(&d.f, 1);
    fix_answer(&d.f, 0, fix_failed(id, lease, "no"));
    durable_end(&d);
    const struct store_op *op = durable_op(&d, STORE_RESCHEDULE, 0);
    assert_int_equal(op->record->attempts, 1);
    uint64_t due = op->record->due_ms;
    assert_true(due > d.f.now.wall_ms);
    assert_null(fix_lane(&d.f, 0, LANE_ACK, 0));
    durable_stored(&d, 1);
    durable_end(&d);
    assert_non_null(fix_lane(&d.f, 0, LANE_ACK, 0));
    /* It waits in the store; its follower stays. */
    assert_int_equal(core_stats(d.f.core)->ledger, 0);
    assert_int_equal(core_stats(d.f.core)->delayed, 1);
    durable_stored(&d, due - d.f.now.wall_ms);
    fix_answer(&d.f, 0, (struct answer){.kind = MSG_HEARTBEAT});
    durable_end(&d);
    assert_non_null(durable_op(&d, STORE_DUE, 0));
    durable_stored(&d, 1);
    durable_end(&d);
    lease = durable_lease(&d, 0, id);
    assert_int_not_equal(lease, 0);
    assert_int_equal(fix_lane(&d.f, 0, LANE_TASK, 0)->task->hand_overs, 2);
    fix_later(&d.f, 1);
    fix_answer(&d.f, 0, fix_done(id, lease, ""));
    durable_end(&d);
    durable_stored(&d, 1);
    durable_end(&d);
    assert_int_equal(fix_conn(&d.f, 5, MSG_FINISHED, 0)->id, id);
    durable_free(&d);
}

/* A restart in between must not give it three more lives. */
static void a_death_is_stored(void **state)
{
    (void)state;
    durable_begin(&d, DURABILITY_SYNC);
    uint64_t lease, id = durable_leased(&d, &lease, NULL);
    uint8_t instance[16] = {1};
    fix_later(&d.f, 1);
    core_worker_lost(d.f.core, d.f.worker[0], PUSHROD_E_CLOSED, d.f.now.mono_ns);
    durable_settle(&d);
    core_obituary(
        d.f.core, &(struct msg_obituary){.instance = slice_of(instance, 16), .signal = 11});
    durable_settle(&d);
    durable_restart(&d);
    durable_settle(&d);
    core_status(d.f.core, 5, 2, id);
    durable_end(&d);
    const struct msg_task_row *row = fix_conn(&d.f, 5, MSG_TASK_ROW, 0)->row;
    assert_int_equal(row->deaths, 1);
    durable_free(&d);
}

/* ---- a store that fails ---- */

static void a_refused_submission_is_rejected(void **state)
{
    (void)state;
    durable_begin(&d, DURABILITY_SYNC);
    uint64_t id = fix_submit(&d.f, 5, "q", "", NULL, FOLLOW_FINISH);
    fix_end(&d.f);
    durable_say(&d, durable_op(&d, STORE_APPEND, 0), OUTCOME_REFUSED, PUSHROD_E_STORE_FULL);
    fix_end(&d.f);
    const struct conn_action *told = fix_conn(&d.f, 5, MSG_REJECTED, 0);
    assert_int_equal(told->code, PUSHROD_E_STORE_FULL);
    assert_int_equal(told->id, id);
    assert_int_equal(core_stats(d.f.core)->ledger, 0);
    assert_int_equal(core_stats(d.f.core)->unsettled_bytes, 0);
    durable_free(&d);
}

/* The store's memory, or one that says nothing of it: the submitter hears of it all the same. */
static void each_refusal_is_told(void **state)
{
    const enum pushrod_error said[] = {PUSHROD_E_NO_MEMORY, 0};
    const enum pushrod_error told[] = {PUSHROD_E_NO_MEMORY, PUSHROD_E_STORE_FAILED};
    (void)state;
    durable_begin(&d, DURABILITY_SYNC);
    for (unsigned i = 0; i < 2; i++) {
        fix_submit(&d.f, 5, "q", "", NULL, FOLLOW_FINISH);
        fix_end(&d.f);
        durable_say(&d, durable_op(&d, STORE_APPEND, 0), OUTCOME_REFUSED, said[i]);
        fix_end(&d.f);
        assert_non_null(fix_conn(&d.f, 5, MSG_REJECTED, 0));
        assert_int_equal(fix_conn(&d.f, 5, MSG_REJECTED, 0)->code, told[i]);
        fix_later(&d.f, 1);
    }
    durable_free(&d);
}

static void a_taken_key_names_its_holder(void **state)
{
    (void)state;
    durable_begin(&d, DURABILITY_SYNC);
    struct msg_options o = fix_options();
    o.unique_key = S("k");
    uint64_t a = fix_submit(&d.f, 5, "q", "", &o, FOLLOW_FINISH);
    fix_submit(&d.f, 5, "q", "", &o, FOLLOW_FINISH);
    durable_end(&d);
    durable_stored(&d, 1);
    durable_end(&d);
    assert_int_equal(fix_conn(&d.f, 5, MSG_ACCEPTED, 0)->id, a);
    assert_int_equal(fix_conn(&d.f, 5, MSG_REJECTED, 0)->code, PUSHROD_E_DUPLICATE);
    assert_int_equal(fix_conn(&d.f, 5, MSG_REJECTED, 0)->id, a);
    durable_free(&d);
}

/* Accepted at once, and then refused: it lives in memory, over a retry, too. */
static void async_that_is_refused_is_not_lost(void **state)
{
    (void)state;
    durable_begin(&d, DURABILITY_ASYNC);
    uint64_t id = fix_submit(&d.f, 5, "q", "", NULL, FOLLOW_FINISH);
    fix_end(&d.f); /* never put to the store */
    uint64_t lease = durable_lease(&d, 0, id);
    durable_say(&d, durable_op(&d, STORE_APPEND, 0), OUTCOME_REFUSED, PUSHROD_E_STORE_FULL);
    struct answer failed = fix_failed(id, lease, "no");
    failed.number = 100;
    fix_answer(&d.f, 0, failed);
    durable_settle(&d);
    assert_int_equal(core_stats(d.f.core)->delayed, 1);
    durable_stored(&d, 100);
    durable_end(&d);
    assert_int_equal(fix_lane(&d.f, 0, LANE_TASK, 0)->id, id);
    durable_free(&d);
}

/* A refused finish stays as it is, and is asked again. */
static void a_refused_finish_is_asked_again(void **state)
{
    (void)state;
    durable_begin(&d, DURABILITY_SYNC);
    uint64_t lease, id = durable_leased(&d, &lease, NULL);
    fix_later(&d.f, 1);
    fix_answer(&d.f, 0, fix_done(id, lease, "result"));
    fix_end(&d.f);
    durable_say(&d, durable_op(&d, STORE_FINISH, 0), OUTCOME_REFUSED, PUSHROD_E_STORE_FULL);
    fix_end(&d.f);
    assert_null(fix_conn(&d.f, 5, MSG_FINISHED, 0));
    assert_null(durable_op(&d, STORE_FINISH, 0));
    assert_true(d.f.acts->wake_ns <= d.f.now.mono_ns + 200 * MSEC);
    fix_later(&d.f, 200);
    durable_end(&d);
    assert_int_equal(durable_op(&d, STORE_FINISH, 0)->finish->result.size, 6);
    durable_stored(&d, 1);
    durable_end(&d);
    assert_int_equal(fix_conn(&d.f, 5, MSG_FINISHED, 0)->id, id);
    assert_non_null(fix_lane(&d.f, 0, LANE_ACK, 0));
    durable_free(&d);
}

/* A purge took it out of the store while it ran: there is no retry, and its client hears so. */
static void a_retry_of_what_was_purged_is_cancelled(void **state)
{
    (void)state;
    durable_begin(&d, DURABILITY_SYNC);
    uint64_t lease, id = durable_leased(&d, &lease, NULL);
    fix_later(&d.f, 1);
    fix_answer(&d.f, 0, fix_failed(id, lease, "no"));
    fix_end(&d.f);
    durable_say(&d, durable_op(&d, STORE_RESCHEDULE, 0), OUTCOME_GONE, 0);
    fix_end(&d.f);
    assert_non_null(fix_lane(&d.f, 0, LANE_ACK, 0));
    durable_say(&d, durable_op(&d, STORE_FINISH, 0), OUTCOME_GONE, 0);
    fix_end(&d.f);
    assert_int_equal(fix_conn(&d.f, 5, MSG_FINISHED, 0)->id, id);
    assert_int_equal(fix_conn(&d.f, 5, MSG_FINISHED, 0)->task->status, PUSHROD_CANCELLED);
    durable_free(&d);
}

static void down_refuses_and_up_goes_on(void **state)
{
    (void)state;
    durable_begin(&d, DURABILITY_SYNC);
    uint64_t lease, id = durable_leased(&d, &lease, NULL);
    fix_later(&d.f, 1);
    uint64_t waiting = fix_submit(&d.f, 5, "q", "", NULL, FOLLOW_FINISH);
    durable_end(&d);
    durable_stored(&d, 1);
    durable_state(&d, EVENT_STORE_DOWN, PUSHROD_E_STORE_FAILED);
    assert_int_equal(fix_submit(&d.f, 5, "q", "", NULL, FOLLOW_FINISH), 0);
    fix_answer(&d.f, 0, fix_done(id, lease, ""));
    durable_end(&d);
    assert_non_null(fix_notice(&d.f, NOTICE_STORE_DOWN));
    assert_int_equal(fix_conn(&d.f, 5, MSG_REJECTED, 0)->code, PUSHROD_E_STORE_FAILED);
    /* What would make more to store does not start. */
    assert_null(fix_lane(&d.f, 0, LANE_TASK, 0));
    durable_stored(&d, 1);
    durable_state(&d, EVENT_STORE_UP, 0);
    durable_end(&d);
    assert_non_null(fix_notice(&d.f, NOTICE_STORE_UP));
    assert_int_equal(fix_lane(&d.f, 0, LANE_TASK, 0)->id, waiting);
    durable_free(&d);
}

/* Also beside results that will never fit: only what ends makes room. */
static void a_full_store_runs_what_it_has(void **state)
{
    static char result[(16 << 20) + 2];
    (void)state;
    memset(result, 'x', sizeof result - 1);
    durable_begin(&d, DURABILITY_SYNC);
    uint64_t lease, id = durable_leased(&d, &lease, NULL);
    fix_later(&d.f, 1);
    fix_submit(&d.f, 5, "q", "", NULL, FOLLOW_FINISH);
    durable_settle(&d);
    durable_state(&d, EVENT_STORE_DOWN, PUSHROD_E_STORE_FULL);
    fix_answer(&d.f, 0, fix_done(id, lease, result));
    durable_end(&d);
    assert_non_null(fix_lane(&d.f, 0, LANE_TASK, 0));
    durable_free(&d);
}

static void unsettled_bytes_pause_clients(void **state)
{
    (void)state;
    durable_begin(&d, DURABILITY_SYNC);
    struct body *body = body_new(9 << 20);
    memset(body->data, 'x', body->size);
    struct submit s = {.request = 1, .queue = S("q"), .body = body};
    core_submit(d.f.core, 5, &s, 1, NULL);
    assert_false(durable_end(&d)->pause_clients);
    fix_later(&d.f, 1);
    core_submit(d.f.core, 5, &s, 1, NULL);
    assert_true(durable_end(&d)->pause_clients);
    durable_stored(&d, 1);
    assert_false(durable_end(&d)->pause_clients);
    body_unref(body);
    durable_free(&d);
}

static const char *unknown_said(struct fix *f, uint64_t id)
{
    fix_later(f, 1);
    core_wait(f->core, 5, 9, id, FOLLOW_FINISH);
    fix_tick(f);
    const struct conn_action *no = fix_conn(f, 5, MSG_REJECTED, 0);
    assert_int_equal(no->code, PUSHROD_E_UNKNOWN_TASK);
    return no->text;
}

/* Ids are leased in blocks: what is left of them has not finished, it has not begun. */
static void an_unknown_id_is_over_or_was_never_issued(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    uint64_t id = fix_submit(&f, CONN_SELF, "q", "", NULL, FOLLOW_NONE);
    fix_tick(&f);
    uint64_t lease = fix_lane(&f, 0, LANE_TASK, 0)->lease;
    fix_later(&f, 1);
    fix_answer(&f, 0, fix_done(id, lease, ""));
    fix_tick(&f);
    assert_non_null(strstr(unknown_said(&f, id), "it finished"));
    assert_non_null(strstr(unknown_said(&f, id + 1), "never issued"));
    assert_non_null(strstr(unknown_said(&f, UINT64_C(1) << 62), "never issued"));
    fix_free(&f);
}

/* What is farther away than the agenda can say would be due at once, for ever, before all else. */
static void no_moment_is_behind_the_last(void **state)
{
    (void)state;
    durable_begin(&d, DURABILITY_SYNC);
    for (unsigned i = 0; i < 3; i++) {
        struct msg_options o = fix_options();
        o.expires_ms = UINT64_MAX >> i;
        o.unique_key = slice_of(&"012"[i], 1);
        o.unique_ms = UINT64_MAX >> i;
        *(i % 2 ? &o.delay_ms : &o.eta_ms) = UINT64_MAX >> i;
        fix_submit(&d.f, 5, "q", "", &o, FOLLOW_NONE);
    }
    durable_end(&d);
    for (size_t i = 0; i < 3; i++) {
        const struct record *r = durable_op(&d, STORE_APPEND, i)->record;
        assert_int_equal(r->due_ms, STORE_LATEST_MS);
        assert_int_equal(r->expires_ms, STORE_LATEST_MS);
        assert_int_equal(r->unique_ms, STORE_LATEST_MS);
    }
    durable_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepted_and_dispatched_when_stored),
        cmocka_unit_test(told_and_acknowledged_when_stored),
        cmocka_unit_test(later_answers_wait_for_the_first),
        cmocka_unit_test(patience_is_passed_on),
        cmocka_unit_test(async_does_not_wait),
        cmocka_unit_test(a_retry_is_stored_before_it_is_acknowledged),
        cmocka_unit_test(a_death_is_stored),
        cmocka_unit_test(a_refused_submission_is_rejected),
        cmocka_unit_test(each_refusal_is_told),
        cmocka_unit_test(a_taken_key_names_its_holder),
        cmocka_unit_test(async_that_is_refused_is_not_lost),
        cmocka_unit_test(a_refused_finish_is_asked_again),
        cmocka_unit_test(a_retry_of_what_was_purged_is_cancelled),
        cmocka_unit_test(down_refuses_and_up_goes_on),
        cmocka_unit_test(a_full_store_runs_what_it_has),
        cmocka_unit_test(unsettled_bytes_pause_clients),
        cmocka_unit_test(an_unknown_id_is_over_or_was_never_issued),
        cmocka_unit_test(no_moment_is_behind_the_last),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
