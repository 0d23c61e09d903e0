/* SPDX-License-Identifier: Apache-2.0 */
/* What STATUS says of a task. */
#include "tests/unit/core_fixture.h"

static struct fix f;

static const struct msg_task_row *status(uint64_t id)
{
    core_status(f.core, 5, 2, id);
    fix_end(&f);
    const struct conn_action *a = fix_conn(&f, 5, MSG_TASK_ROW, 0);
    assert_non_null(a);
    return a->row;
}

/* A backoff goes by the monotonic clock, and people's clocks do not. */
static void a_backoff_in_memory_says_when_it_ends(void **state)
{
    (void)state;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    uint64_t id = fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    fix_end(&f);
    struct answer failed = fix_failed(id, fix_lane(&f, 0, LANE_TASK, 0)->lease, "no");
    failed.number = 700; /* ms: to be tried again then */
    fix_later(&f, 1);
    fix_answer(&f, 0, failed);
    uint64_t due_ms = f.now.wall_ms + 700;
    fix_end(&f);
    fix_later(&f, 300);
    const struct msg_task_row *row = status(id);
    assert_true(slice_equal(row->state, S("delayed")));
    assert_int_equal(row->due_ms, due_ms);
    fix_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_backoff_in_memory_says_when_it_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
