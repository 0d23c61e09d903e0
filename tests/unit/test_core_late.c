/* SPDX-License-Identifier: Apache-2.0 */
/* What comes late: answers of attempts that others overtook, and the deaths of their workers. */
#include "tests/unit/core_durable.h"

static struct durable d;

static uint64_t acknowledged(unsigned n)
{
    const struct lane_action *a = fix_lane(&d.f, n, LANE_ACK, 0);
    return a ? a->number : 0;
}

/* Worker 1 has it after worker 0, of whose attempt nobody has heard the end; the tick is over. */
static uint64_t overtaken(uint64_t *lease, uint64_t *again)
{
    durable_begin(&d, DURABILITY_SYNC);
    uint64_t id = durable_leased(&d, lease, NULL);
    fix_later(&d.f, 1);
    fix_answer(&d.f, 0, (struct answer){.kind = MSG_STARTED, .id = id, .lease = *lease});
    core_worker_lost(d.f.core, d.f.worker[0], PUSHROD_E_CLOSED);
    durable_settle(&d);
    assert_int_not_equal(fix_join_held(&d.f, 1, "*", 1, NULL, 0), 0);
    durable_ask(&d);
    durable_stored(&d, 1);
    fix_answer(&d.f, 1, (struct answer){.kind = MSG_READY});
    durable_end(&d);
    *again = durable_lease(&d, 1, id);
    assert_int_not_equal(*again, 0);
    durable_stored(&d, 1);
    return id;
}

/* Its retry is on its way to the store: nothing else that it says is needed for the ACK. */
static void a_failure_that_a_result_overtakes_is_acknowledged(void **state)
{
    (void)state;
    uint64_t lease, again, id = overtaken(&lease, &again);
    fix_answer(&d.f, 1, fix_failed(id, again, "no"));
    durable_end(&d);
    fix_later(&d.f, 1);
    fix_answer(&d.f, 0, fix_done(id, lease, "result"));
    uint64_t before = acknowledged(1);
    assert_int_not_equal(before, d.f.sequence[1]);
    for (int i = 0; i < 3 && acknowledged(1) != d.f.sequence[1]; i++) {
        durable_end(&d);
        if (acknowledged(1) != d.f.sequence[1])
            durable_stored(&d, 1);
    }
    assert_int_equal(acknowledged(1), d.f.sequence[1]);
    durable_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failure_that_a_result_overtakes_is_acknowledged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
