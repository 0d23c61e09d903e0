/* SPDX-License-Identifier: Apache-2.0 */
/* JOINs that cross each other, and how long a worker is on record. */
#include "tests/unit/core_durable.h"

/* Welcomed, and never ready; or ready, and then silent for good: neither holds anything any more.
 */
static void who_does_not_come_back_is_off_the_record(void **state)
{
    (void)state;
    struct durable d;
    durable_new(&d, 0, DURABILITY_SYNC);
    durable_settle(&d);
    for (unsigned n = 0; n < 8; n++) {
        assert_int_not_equal(fix_join_held(&d.f, n, "q", 1, NULL, 0), 0);
        durable_ask(&d);
        durable_stored(&d, 1);
        if (n >= 4)
            fix_answer(&d.f, n, (struct answer){.kind = MSG_READY});
        durable_settle(&d);
    }
    for (int i = 0; i < 60; i++) {
        durable_end(&d);
        durable_stored(&d, 1000);
    }
    durable_settle(&d);
    durable_end(&d);
    assert_int_equal(core_stats(d.f.core)->workers, 0);
    fix_later(&d.f, 1);
    durable_restart(&d);
    assert_int_equal(d.opened.worker_count, 0);
    durable_free(&d);
}

/* The older one waits for a look-up, the newer for none: it is the newer session that counts. */
static void the_newer_of_two_joins_wins(void **state)
{
    (void)state;
    struct durable d;
    durable_new(&d, 1, DURABILITY_SYNC);
    durable_settle(&d);
    uint64_t id = 0;
    for (int i = 0; i < 5; i++) {
        id = fix_submit(&d.f, 5, "q", "payload", NULL, FOLLOW_NONE);
        durable_settle(&d);
    }
    struct held held = {.id = id, .lease = UINT64_C(1) << 48 | 7, .started = true};
    assert_int_equal(fix_join_held(&d.f, 0, "q", 1, &held, 1), 0);
    durable_ask(&d);
    fix_later(&d.f, 1);
    uint64_t newer = fix_join_held(&d.f, 0, "q", 1, NULL, 0);
    assert_int_not_equal(newer, 0);
    durable_ask(&d);
    durable_stored(&d, 1);
    durable_end(&d);
    for (size_t i = 0; i < d.f.acts->lane_count; i++)
        assert_int_not_equal(d.f.acts->lane[i].kind, LANE_FENCED);
    assert_int_equal(core_stats(d.f.core)->workers, 1);
    durable_free(&d);
}

/* What nobody could look up has no verdict: FORGET would lose the answer of a task that lives. */
static void a_join_beside_a_store_that_fails_comes_again(void **state)
{
    (void)state;
    struct durable d;
    struct held held = {.answered = true, .started = true};
    durable_begin(&d, DURABILITY_SYNC);
    held.id = durable_leased(&d, &held.lease, NULL);
    durable_restart(&d);
    assert_int_equal(fix_join_held(&d.f, 0, "*", 1, &held, 1), 0);
    durable_say(&d, durable_op(&d, STORE_LOOKUP, 0), OUTCOME_REFUSED, PUSHROD_E_STORE_FAILED);
    fix_end(&d.f);
    assert_int_equal(d.f.acts->join_count, 1);
    assert_int_equal(d.f.acts->join[0].kind, JOIN_REFUSE);
    assert_int_equal(d.f.acts->join[0].code, PUSHROD_E_STORE_FAILED);
    assert_true(d.f.acts->join[0].retry);
    fix_later(&d.f, 1);
    assert_int_equal(fix_join_held(&d.f, 0, "*", 1, &held, 1), 0);
    durable_ask(&d);
    durable_stored(&d, 1);
    durable_end(&d);
    assert_int_equal(d.f.acts->join[0].kind, JOIN_WELCOME);
    assert_int_equal(d.f.acts->join[0].verdicts[0], VERDICT_SEND);
    durable_free(&d);
}

/* So many tasks from before a restart, which a worker may hold, and another worker that is ready.
 */
static void restarted(struct durable *d, struct held *held, unsigned count)
{
    durable_new(d, 1, DURABILITY_SYNC);
    for (unsigned i = 0; i < count; i++) {
        held[i] = (struct held){.id = fix_submit(&d->f, 5, "q", "payload", NULL, FOLLOW_NONE),
            .lease = UINT64_C(1) << 48 | 7,
            .started = true};
        durable_settle(d);
    }
    durable_restart(d);
    durable_settle(d);
    assert_int_not_equal(fix_join_held(&d->f, 1, "q", 1, NULL, 0), 0);
    durable_ask(d);
    durable_stored(d, 1);
    fix_answer(&d->f, 1, (struct answer){.kind = MSG_READY});
}

/* In memory when the JOIN came, it went to the store before the other was looked up. */
static void what_leaves_memory_beside_a_join_is_kept(void **state)
{
    (void)state;
    struct durable d;
    struct held held[3];
    restarted(&d, held, 3);
    durable_end(&d);
    uint64_t lease = durable_lease(&d, 1, held[0].id);
    durable_stored(&d, 1);
    assert_int_equal(core_stats(d.f.core)->ready, 1);
    fix_answer(&d.f, 1, fix_failed(held[0].id, lease, "no"));
    assert_int_equal(fix_join_held(&d.f, 0, "q", 3, held, 3), 0);
    assert_non_null(durable_op(&d, STORE_LOOKUP, 0));
    assert_int_equal(durable_op(&d, STORE_LOOKUP, 0)->id, held[2].id);
    assert_null(durable_op(&d, STORE_LOOKUP, 1));
    durable_ask(&d);
    durable_stored(&d, 1);
    durable_end(&d);
    assert_non_null(durable_op(&d, STORE_LOOKUP, 0));
    assert_int_equal(durable_op(&d, STORE_LOOKUP, 0)->id, held[0].id);
    durable_stored(&d, 1);
    durable_end(&d);
    assert_int_equal(d.f.acts->join_count, 1);
    assert_int_equal(d.f.acts->join[0].kind, JOIN_WELCOME);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(d.f.acts->join[0].verdicts[i], VERDICT_KEEP);
    durable_free(&d);
}

/* Its id is of this life, its lease of a former one: the store is not asked, and it is not kept. */
static void a_task_is_younger_than_no_lease_of_it(void **state)
{
    (void)state;
    struct durable d;
    durable_new(&d, 1, DURABILITY_SYNC);
    durable_settle(&d);
    durable_restart(&d);
    durable_settle(&d);
    struct held held[2] = {{.started = true}, {.started = true, .answered = true}};
    for (unsigned i = 0; i < 2; i++) {
        held[i].id = fix_submit(&d.f, 5, "q", "payload", NULL, FOLLOW_NONE);
        held[i].lease = UINT64_C(1) << 48 | 7;
        durable_settle(&d);
    }
    assert_int_not_equal(fix_join_held(&d.f, 0, "q", 2, held, 2), 0);
    assert_null(durable_op(&d, STORE_LOOKUP, 0));
    assert_int_equal(d.f.acts->join[0].verdicts[0], VERDICT_CANCEL);
    assert_int_equal(d.f.acts->join[0].verdicts[1], VERDICT_FORGET);
    assert_int_equal(core_stats(d.f.core)->ready, 1);
    durable_free(&d);
}

/* It is ready here, and so is a worker; but who says that it runs it waits for a look-up. */
static void what_a_join_claims_goes_to_nobody_else(void **state)
{
    (void)state;
    struct durable d;
    struct held held[2];
    restarted(&d, held, 2);
    assert_int_equal(fix_join_held(&d.f, 0, "q", 2, held, 2), 0);
    assert_null(fix_lane(&d.f, 1, LANE_TASK, 0));
    durable_ask(&d);
    durable_stored(&d, 1);
    durable_end(&d);
    assert_int_equal(d.f.acts->join_count, 1);
    assert_int_equal(d.f.acts->join[0].kind, JOIN_WELCOME);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(d.f.acts->join[0].verdicts[i], VERDICT_KEEP);
    assert_null(fix_lane(&d.f, 1, LANE_CANCEL, 0));
    durable_free(&d);
}

/* Its death was being stored when it came back: once that is done it is ready, and still claimed.
 */
static void what_a_join_claims_may_be_ready_later(void **state)
{
    (void)state;
    struct durable d;
    struct held held[3];
    restarted(&d, held, 3);
    durable_end(&d);
    held[0].lease = durable_lease(&d, 1, held[0].id);
    durable_stored(&d, 1);
    assert_int_not_equal(fix_join_held(&d.f, 2, "q", 1, NULL, 0), 0);
    durable_ask(&d);
    durable_stored(&d, 1);
    core_worker_lost(d.f.core, d.f.worker[1], PUSHROD_E_CLOSED, d.f.now.mono_ns);
    struct held claims[] = {held[0], held[2]};
    assert_int_equal(fix_join_held(&d.f, 1, "q", 2, claims, 2), 0);
    assert_non_null(durable_op(&d, STORE_LOOKUP, 0));
    const struct store_op *moved = durable_op(&d, STORE_RESCHEDULE, 0);
    assert_int_equal(moved->record->id, held[0].id);
    durable_ask(&d);
    durable_say(&d, moved, OUTCOME_STORED, 0);
    fix_answer(&d.f, 2, (struct answer){.kind = MSG_READY});
    durable_end(&d);
    assert_int_equal(fix_lane(&d.f, 2, LANE_TASK, 0)->id, held[1].id);
    durable_free(&d);
}

/* Each time it says that it still runs what it has just failed, and the store is asked twice more.
 */
static void who_comes_back_while_the_store_stalls_ends_nothing(void **state)
{
    (void)state;
    struct durable d;
    struct msg_options o = {.max_attempts = 1000, .backoff_ms = 1000};
    struct held held = {.started = true};
    durable_begin(&d, DURABILITY_SYNC);
    held.id = durable_leased(&d, &held.lease, &o);
    for (int i = 0; i < 300; i++) {
        fix_later(&d.f, 1);
        fix_answer(&d.f, 0, fix_failed(held.id, held.lease, "no"));
        assert_int_not_equal(fix_join_held(&d.f, 0, "*", 1, &held, 1), 0);
        durable_ask(&d);
    }
    assert_int_equal(d.f.acts->join[d.f.acts->join_count - 1].verdicts[0], VERDICT_CANCEL);
    durable_stored(&d, 1);
    durable_settle(&d);
    assert_int_equal(core_stats(d.f.core)->delayed, 1);
    durable_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_does_not_come_back_is_off_the_record),
        cmocka_unit_test(the_newer_of_two_joins_wins),
        cmocka_unit_test(a_join_beside_a_store_that_fails_comes_again),
        cmocka_unit_test(what_leaves_memory_beside_a_join_is_kept),
        cmocka_unit_test(a_task_is_younger_than_no_lease_of_it),
        cmocka_unit_test(what_a_join_claims_goes_to_nobody_else),
        cmocka_unit_test(what_a_join_claims_may_be_ready_later),
        cmocka_unit_test(who_comes_back_while_the_store_stalls_ends_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
