/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What has to be looked up in the store first, when the Nth allocation on the way fails: who asked
 * is told one thing or another, or the tick has failed; and nothing leaks.
 */
#include "tests/lib/core_look.h"
#include "tests/unit/bad_memory.h"
#include "tests/unit/core_durable.h"

#define CORE(call) (armed = true, (void)(call), armed = false)

static struct durable d;
static uint64_t task;
static bool over; /* the tick failed: nothing of it may be carried out */
static unsigned told, refused;
static struct held held[2];

static void look_at_actions(void)
{
    for (size_t i = 0; i < d.f.acts->conn_count; i++) {
        const struct conn_action *a = &d.f.acts->conn[i];
        told += a->kind == MSG_OK || a->kind == MSG_END;
        refused += a->kind == MSG_REJECTED;
        if (a->kind != MSG_SUBMITTED)
            continue;
        const struct submitted *s = a->row;
        assert_int_equal(s->row.payload.size, 8000);
        assert_int_equal(s->row.payload.data[7999], 'x');
    }
    for (size_t i = 0; i < d.f.acts->join_count; i++) {
        const struct join_action *j = &d.f.acts->join[i];
        told += j->kind == JOIN_WELCOME;
        refused += j->kind == JOIN_REFUSE;
        if (j->kind == JOIN_REFUSE)
            assert_true(j->code == PUSHROD_E_NO_MEMORY && j->retry);
        else if (j->kind == JOIN_WELCOME)
            assert_true(j->verdicts[0] == VERDICT_KEEP && j->verdicts[1] == VERDICT_SEND);
    }
}

static void end(void)
{
    CORE(d.f.acts = core_end(d.f.core));
    over = d.f.acts->failed;
    if (over)
        return;
    core_check(d.f.core);
    look_at_actions();
    durable_ask(&d);
}

/* False: the store has said all. */
static bool stored(void)
{
    const struct store_event *events;
    size_t all = 0;
    fix_later(&d.f, 1);
    for (size_t count; (count = store_mem_plain.poll(d.store, &events, 64)); all += count) {
        CORE(core_stored(d.f.core, events, count));
    }
    return all > 0;
}

/* Gives how often it was refused. */
static unsigned each_allocation(void (*begin)(void), void (*ask)(void))
{
    unsigned all_told = 0, all_refused = 0, ended = 0;
    size_t before = living;
    bool failed = true;
    for (long nth = 0; failed; nth++) {
        told = refused = 0;
        begin();
        good_left = nth;
        ask();
        do
            end();
        while (!over && stored());
        failed = good_left < 0;
        good_left = -1;
        assert_true(over || told + refused == 1);
        all_told += told;
        all_refused += refused;
        ended += over;
        durable_free(&d);
        assert_int_equal(living, before);
    }
    print_message("%u told, %u refused, %u end the process\n", all_told, all_refused, ended);
    assert_true(all_told > 0);
    return all_refused;
}

/* ---- a worker that joins a server which was restarted ---- */

static void two_run_here(void)
{
    durable_new(&d, 0, DURABILITY_SYNC);
    assert_int_not_equal(fix_join_held(&d.f, 0, "*", 2, NULL, 0), 0);
    durable_ask(&d);
    durable_stored(&d, 1);
    fix_answer(&d.f, 0, (struct answer){.kind = MSG_READY});
    fix_submit(&d.f, 5, "q", "one", NULL, FOLLOW_NONE);
    fix_submit(&d.f, 5, "q", "two", NULL, FOLLOW_NONE);
    durable_end(&d);
    durable_stored(&d, 1);
    durable_end(&d);
    for (size_t i = 0; i < 2; i++) {
        const struct lane_action *a = fix_lane(&d.f, 0, LANE_TASK, i);
        held[i] = (struct held){a->id, a->lease, i == 1, true};
    }
    durable_restart(&d);
}

static void join(void)
{
    struct slice queues[] = {S("q"), S("other*")};
    struct join j = {.peer = 100,
        .instance = {1},
        .name = S("w0"),
        .host = S("host"),
        .slots = 2,
        .queues = queues,
        .queue_count = 2,
        .held = held,
        .held_count = 2};
    CORE(core_join(d.f.core, &j));
}

static void a_join_is_answered(void **state)
{
    (void)state;
    assert_true(each_allocation(two_run_here, join) > 0);
}

/* ---- a task as it was submitted ---- */

static void large_task(uint64_t delay_ms)
{
    static char payload[8001];
    struct msg_options o = fix_options();
    o.delay_ms = delay_ms;
    memset(payload, 'x', 8000);
    durable_begin(&d, DURABILITY_SYNC);
    task = fix_submit(&d.f, 5, "q", payload, &o, FOLLOW_NONE);
    durable_settle(&d);
}

static void one_waits_in_the_store(void)
{
    large_task(1000000);
    assert_false(core_has(d.f.core, task));
}

static void one_runs(void)
{
    large_task(0);
    assert_true(core_has(d.f.core, task));
}

static void list(void)
{
    struct msg_list m = {.request = 1, .what = S("submitted"), .after = task};
    CORE(core_list(d.f.core, 6, &m));
}

static void a_task_is_given_back_or_not(void **state)
{
    (void)state;
    assert_true(each_allocation(one_waits_in_the_store, list) > 0);
    each_allocation(one_runs, list);
}

/* ---- a replay ---- */

static void one_is_dead(void)
{
    struct msg_options o = fix_options();
    uint64_t lease;
    o.max_attempts = 1;
    durable_begin(&d, DURABILITY_SYNC);
    task = durable_leased(&d, &lease, &o);
    fix_later(&d.f, 1);
    fix_answer(&d.f, 0, fix_failed(task, lease, "no"));
    durable_settle(&d);
    core_conn_closed(d.f.core, 5);
    durable_settle(&d);
}

static void replay(void)
{
    struct msg_control m = {.request = 1, .verb = S("replay"), .id = task};
    CORE(core_control(d.f.core, 6, &m));
}

static void a_replay_is_answered(void **state)
{
    (void)state;
    assert_true(each_allocation(one_is_dead, replay) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_join_is_answered),
        cmocka_unit_test(a_task_is_given_back_or_not),
        cmocka_unit_test(a_replay_is_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
