/* SPDX-License-Identifier: Apache-2.0 */
/* What the store refuses is told, or asked for again. And what is replayed runs. */
#include "tests/lib/core_look.h"
#include "tests/unit/core_durable.h"

static struct durable d;

/* It is acknowledged when it is stored, not before. */
static void a_refused_retry_is_asked_again(void **state)
{
    (void)state;
    durable_begin(&d, DURABILITY_SYNC);
    uint64_t lease, id = durable_leased(&d, &lease, NULL);
    fix_later(&d.f, 1);
    fix_answer(&d.f, 0, fix_failed(id, lease, "no"));
    fix_end(&d.f); /* never put to the store */
    durable_say(&d, durable_op(&d, STORE_RESCHEDULE, 0), OUTCOME_REFUSED, PUSHROD_E_STORE_FAILED);
    durable_end(&d);
    assert_null(durable_op(&d, STORE_RESCHEDULE, 0));
    assert_null(fix_lane(&d.f, 0, LANE_ACK, 0));
    fix_later(&d.f, 200);
    durable_end(&d);
    assert_int_equal(durable_op(&d, STORE_RESCHEDULE, 0)->record->attempts, 1);
    durable_stored(&d, 1);
    durable_end(&d);
    assert_non_null(fix_lane(&d.f, 0, LANE_ACK, 0));
    assert_int_equal(core_stats(d.f.core)->delayed, 1);
    durable_free(&d);
}

/* Lost, and then it answers all the same: the refusal of the one operation is not the other's. */
static void a_refused_retry_asks_no_finish_again(void **state)
{
    (void)state;
    durable_begin(&d, DURABILITY_SYNC);
    uint64_t lease, id = durable_leased(&d, &lease, NULL);
    fix_later(&d.f, 1);
    core_worker_lost(d.f.core, d.f.worker[0], PUSHROD_E_CLOSED, d.f.now.mono_ns);
    fix_end(&d.f);
    struct store_op retry = *durable_op(&d, STORE_RESCHEDULE, 0);
    fix_later(&d.f, 1);
    fix_answer(&d.f, 0, fix_done(id, lease, "result"));
    fix_end(&d.f);
    struct store_op finish = *durable_op(&d, STORE_FINISH, 0);
    durable_say(&d, &retry, OUTCOME_REFUSED, PUSHROD_E_STORE_FULL);
    fix_end(&d.f);
    fix_later(&d.f, 300);
    fix_end(&d.f);
    assert_null(durable_op(&d, STORE_FINISH, 0));
    durable_say(&d, &finish, OUTCOME_STORED, 0);
    fix_end(&d.f);
    assert_int_equal(fix_conn(&d.f, 5, MSG_FINISHED, 0)->id, id);
    durable_free(&d);
}

/* Failed for good, stored and told; conn 5 has not acknowledged it. */
static uint64_t dead_letter(void)
{
    uint64_t lease, id = durable_leased(&d, &lease, NULL);
    struct answer failed = fix_failed(id, lease, "no");
    failed.permanent = true;
    fix_later(&d.f, 1);
    fix_answer(&d.f, 0, failed);
    durable_end(&d);
    durable_stored(&d, 1);
    durable_end(&d);
    assert_int_equal(fix_conn(&d.f, 5, MSG_FINISHED, 0)->id, id);
    fix_later(&d.f, 1);
    return id;
}

static const struct store_op *replay(uint64_t id)
{
    struct msg_control m = {.request = 9, .verb = S("replay"), .id = id};
    core_control(d.f.core, 6, &m);
    fix_end(&d.f); /* not put to the store yet */
    return durable_op(&d, STORE_REVIVE, 0);
}

static void runs_again(uint64_t id)
{
    durable_end(&d);
    assert_non_null(fix_conn(&d.f, 6, MSG_OK, 0));
    assert_int_equal(fix_lane(&d.f, 0, LANE_TASK, 0)->id, id);
}

/* Its finish is still here for whoever has not acknowledged it. */
static void a_replay_does_not_wait_for_an_acknowledgement(void **state)
{
    (void)state;
    durable_begin(&d, DURABILITY_SYNC);
    uint64_t id = dead_letter();
    assert_non_null(replay(id));
    durable_ask(&d);
    durable_stored(&d, 1);
    runs_again(id);
    durable_free(&d);
}

/* It holds at once; that it will after a restart is said when it is so. */
static void a_pause_is_told_when_it_is_stored(void **state)
{
    (void)state;
    durable_begin(&d, DURABILITY_SYNC);
    struct msg_control m = {.request = 9, .verb = S("pause"), .name = S("q")};
    core_control(d.f.core, 6, &m);
    uint64_t id = fix_submit(&d.f, 5, "q", "payload", NULL, FOLLOW_NONE);
    durable_end(&d);
    assert_null(fix_conn(&d.f, 6, MSG_OK, 0));
    durable_stored(&d, 1);
    durable_end(&d);
    assert_int_equal(fix_conn(&d.f, 6, MSG_OK, 0)->request, 9);
    assert_int_equal(durable_lease(&d, 0, id), 0);
    durable_free(&d);
}

static void a_pause_that_could_not_be_stored_says_so(void **state)
{
    (void)state;
    durable_begin(&d, DURABILITY_SYNC);
    struct msg_control m = {.request = 9, .verb = S("pause"), .name = S("q")};
    core_control(d.f.core, 6, &m);
    fix_end(&d.f); /* never put to the store */
    durable_say(&d, durable_op(&d, STORE_QUEUE, 0), OUTCOME_REFUSED, PUSHROD_E_STORE_FAILED);
    fix_end(&d.f);
    const struct conn_action *no = fix_conn(&d.f, 6, MSG_REJECTED, 0);
    assert_int_equal(no->code, PUSHROD_E_STORE_FAILED);
    assert_non_null(strstr(no->text, "until the server stops"));
    durable_free(&d);
}

/* All that were refused do not fit at once, and would not the next time: few do, and make room. */
static void a_full_store_is_asked_for_a_few(void **state)
{
    uint64_t lease, ids[4];
    (void)state;
    durable_begin(&d, DURABILITY_SYNC);
    for (size_t i = 0; i < 4; i++) {
        ids[i] = durable_leased(&d, &lease, NULL);
        fix_later(&d.f, 1);
        fix_answer(&d.f, 0, fix_done(ids[i], lease, "result"));
        fix_end(&d.f); /* never put to the store */
        durable_say(&d, durable_op(&d, STORE_FINISH, 0), OUTCOME_REFUSED, PUSHROD_E_STORE_FULL);
    }
    durable_state(&d, EVENT_STORE_DOWN, PUSHROD_E_STORE_FULL);
    for (size_t i = 0; i < 2; i++) {
        fix_end(&d.f);
        fix_later(&d.f, 200);
        fix_end(&d.f);
        const struct store_op *one = durable_op(&d, STORE_FINISH, 0);
        assert_int_equal(one->finish->id, ids[i]); /* not always the same: that may never fit */
        assert_null(durable_op(&d, STORE_FINISH, 1));
        if (i == 0)
            durable_say(&d, one, OUTCOME_REFUSED, PUSHROD_E_STORE_FULL);
    }
    durable_ask(&d);
    durable_stored(&d, 1);
    durable_end(&d);
    assert_int_equal(durable_op(&d, STORE_FINISH, 0)->finish->id, ids[2]);
    assert_int_equal(durable_op(&d, STORE_FINISH, 1)->finish->id, ids[3]);
    durable_stored(&d, 1);
    durable_end(&d);
    assert_int_equal(durable_op(&d, STORE_FINISH, 0)->finish->id, ids[0]);
    durable_free(&d);
}

/* A full disk: each try costs the store a failed commit, so that it is not asked without a pause.
 */
static void a_fetch_that_is_refused_is_asked_again_later(void **state)
{
    (void)state;
    durable_new(&d, 0, DURABILITY_SYNC);
    fix_submit(&d.f, 5, "q", "payload", NULL, FOLLOW_NONE);
    durable_settle(&d);
    durable_restart(&d);
    for (int i = 0; i < 3; i++) {
        fix_end(&d.f);
        assert_non_null(durable_op(&d, STORE_FETCH, 0));
        durable_say(&d, durable_op(&d, STORE_FETCH, 0), OUTCOME_REFUSED, PUSHROD_E_STORE_FULL);
        durable_state(&d, EVENT_STORE_DOWN, PUSHROD_E_STORE_FULL);
        fix_end(&d.f);
        assert_null(durable_op(&d, STORE_FETCH, 0));
        assert_true(d.f.acts->wake_ns <= d.f.now.mono_ns + 200 * MSEC);
        fix_later(&d.f, 200);
    }
    durable_settle(&d);
    assert_int_equal(core_stats(d.f.core)->ready, 1);
    durable_free(&d);
}

/*
 * The store has nothing of it: who was away is told here. `late`: the APPEND is refused when it has
 * ended already; `told`: its client goes without acknowledging it.
 */
static void refused_async_ends(bool late, bool told)
{
    durable_begin(&d, DURABILITY_ASYNC);
    uint64_t id = fix_submit(&d.f, 5, "q", "", NULL, FOLLOW_FINISH);
    fix_end(&d.f);
    uint64_t lease = durable_lease(&d, 0, id);
    struct store_op append = *durable_op(&d, STORE_APPEND, 0);
    if (late)
        fix_later(&d.f, 1);
    else
        durable_say(&d, &append, OUTCOME_REFUSED, PUSHROD_E_STORE_FULL);
    if (!told)
        core_conn_closed(d.f.core, 5);
    fix_answer(&d.f, 0, fix_done(id, lease, "well"));
    if (told)
        core_conn_closed(d.f.core, 5);
    if (late) {
        durable_end(&d);
        durable_say(&d, &append, OUTCOME_REFUSED, PUSHROD_E_STORE_FULL);
    }
    durable_settle(&d);
    core_wait(d.f.core, 6, 9, id, FOLLOW_FINISH);
    durable_end(&d);
    assert_int_equal(fix_conn(&d.f, 6, MSG_FINISHED, 0)->id, id);
    durable_free(&d);
}

static void async_that_is_refused_is_told(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++)
        refused_async_ends(i & 1, i & 2);
}

/* The store refused its finish before it was acknowledged, or since: when that is asked again,
 * nobody waits for it any more, and nobody would say so a second time. */
static void what_was_acknowledged_is_not_kept(void **state)
{
    (void)state;
    for (int late = 0; late < 2; late++) {
        durable_begin(&d, DURABILITY_ASYNC);
        uint64_t id = fix_submit(&d.f, 5, "q", "", NULL, FOLLOW_FINISH);
        durable_end(&d);
        uint64_t lease = durable_lease(&d, 0, id);
        durable_stored(&d, 1);
        fix_answer(&d.f, 0, fix_done(id, lease, "well"));
        fix_end(&d.f);
        struct store_op finish = *durable_op(&d, STORE_FINISH, 0);
        assert_true(finish.finish->keep_until_ms > d.f.now.wall_ms);
        if (late) {
            fix_later(&d.f, 1);
            core_received(d.f.core, 5, 1);
            durable_end(&d);
        }
        durable_say(&d, &finish, OUTCOME_REFUSED, PUSHROD_E_STORE_FULL);
        core_received(d.f.core, 5, 1);
        fix_later(&d.f, 200);
        durable_end(&d);
        assert_int_equal(durable_op(&d, STORE_FINISH, 0)->finish->keep_until_ms, 0);
        durable_free(&d);
    }
}

/* A finish that the store kept does not say which: no queue, and not one without a name. */
static void a_row_of_what_was_looked_up_names_no_queue(void **state)
{
    (void)state;
    durable_begin(&d, DURABILITY_SYNC);
    uint64_t lease, id = durable_leased(&d, &lease, NULL);
    fix_later(&d.f, 1);
    core_conn_closed(d.f.core, 5);
    fix_answer(&d.f, 0, fix_done(id, lease, ""));
    durable_settle(&d);
    core_wait(d.f.core, 6, 9, id, FOLLOW_FINISH);
    durable_end(&d);
    durable_stored(&d, 1);
    core_status(d.f.core, 6, 2, id);
    durable_end(&d);
    assert_non_null(fix_conn(&d.f, 6, MSG_FINISHED, 0));
    const struct msg_task_row *row = fix_conn(&d.f, 6, MSG_TASK_ROW, 0)->row;
    assert_null(row->queue.data);
    durable_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(async_that_is_refused_is_told),
        cmocka_unit_test(what_was_acknowledged_is_not_kept),
        cmocka_unit_test(a_row_of_what_was_looked_up_names_no_queue),
        cmocka_unit_test(a_refused_retry_is_asked_again),
        cmocka_unit_test(a_refused_retry_asks_no_finish_again),
        cmocka_unit_test(a_replay_does_not_wait_for_an_acknowledgement),
        cmocka_unit_test(a_pause_is_told_when_it_is_stored),
        cmocka_unit_test(a_pause_that_could_not_be_stored_says_so),
        cmocka_unit_test(a_full_store_is_asked_for_a_few),
        cmocka_unit_test(a_fetch_that_is_refused_is_asked_again_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
