/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the store answers meets what was asked meanwhile: a purge beside other operations, and
 * events of async operations, which may overtake those that wait for a commit.
 */
#include "tests/unit/core_durable.h"

static struct durable d;

static uint64_t submit(void)
{
    return fix_submit(&d.f, 5, "q", "payload", NULL, FOLLOW_FINISH);
}

static void worker(uint32_t slots)
{
    assert_int_not_equal(fix_join_held(&d.f, 0, "q", slots, NULL, 0), 0);
    durable_ask(&d);
    durable_stored(&d, 1);
    fix_answer(&d.f, 0, (struct answer){.kind = MSG_READY});
}

static void purge(void)
{
    struct msg_control m = {.request = 8, .verb = S("purge"), .name = S("q")};
    core_control(d.f.core, 5, &m);
}

static const struct core_stats *stats(void)
{
    return core_stats(d.f.core);
}

/* ---- a purge ---- */

/* The retry was asked before, and is stored: the purge leaves it, and it is counted. */
static void a_retry_beside_a_purge_is_counted(void **state)
{
    (void)state;
    durable_new(&d, 0, DURABILITY_SYNC);
    uint64_t id = submit();
    durable_settle(&d);
    worker(1);
    durable_end(&d);
    uint64_t lease = durable_lease(&d, 0, id);
    fix_later(&d.f, 1);
    fix_answer(&d.f, 0, fix_failed(id, lease, "no"));
    durable_end(&d);
    fix_later(&d.f, 1);
    purge();
    durable_end(&d);
    assert_int_equal(stats()->delayed, 1);
    durable_stored(&d, 1);
    durable_end(&d);
    assert_int_equal(fix_conn(&d.f, 5, MSG_OK, 0)->number, 0);
    assert_int_equal(stats()->delayed, 1);
    durable_free(&d);
}

/* One in memory, two behind the edge. */
static void three(void)
{
    durable_new(&d, 1, DURABILITY_SYNC);
    for (unsigned i = 0; i < 3; i++)
        submit();
    durable_settle(&d);
    assert_int_equal(stats()->backlog, 2);
}

static void a_purge_that_was_refused_takes_nothing(void **state)
{
    (void)state;
    three();
    purge();
    fix_end(&d.f);
    durable_say(&d, durable_op(&d, STORE_PURGE, 0), OUTCOME_REFUSED, PUSHROD_E_STORE_FAILED);
    fix_end(&d.f);
    assert_non_null(fix_conn(&d.f, 5, MSG_REJECTED, 0));
    assert_int_equal(stats()->backlog, 2);
    durable_free(&d);
}

/* What comes to lie behind the edge after the purge was asked stays there. */
static void what_comes_after_a_purge_is_counted(void **state)
{
    (void)state;
    three();
    purge();
    durable_end(&d);
    fix_later(&d.f, 1);
    submit();
    durable_settle(&d);
    assert_int_equal(stats()->ready + stats()->backlog, 1);
    durable_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_retry_beside_a_purge_is_counted),
        cmocka_unit_test(a_purge_that_was_refused_takes_nothing),
        cmocka_unit_test(what_comes_after_a_purge_is_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
