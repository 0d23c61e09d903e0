/* SPDX-License-Identifier: Apache-2.0 */
/* What there is much of: it takes no more memory, and no more of a tick, than it should. */
#include "server/core/state.h"
#include "tests/unit/core_durable.h"

static struct durable d;

/* FETCHes that it takes until a worker has run them all. */
static unsigned fetches_of(const uint64_t *ids, size_t count)
{
    unsigned fetches = 0;
    for (size_t ran = 0, idle = 0; ran < count && idle < 10; idle++) {
        durable_end(&d);
        fetches += durable_op(&d, STORE_FETCH, 0) != NULL;
        const struct lane_action *l = fix_lane(&d.f, 0, LANE_TASK, 0);
        struct answer done = l ? fix_done(l->id, l->lease, "") : (struct answer){0};
        if (l) {
            assert_int_equal(l->id, ids[ran++]);
            idle = 0;
        }
        durable_stored(&d, 1);
        if (done.id)
            fix_answer(&d.f, 0, done);
    }
    return fetches;
}

/* Those due last were submitted first: each comes before all that are there, and they leave. */
static void a_window_of_what_came_out_of_order(void **state)
{
    (void)state;
    enum { COUNT = 400, WINDOW = 20 };
    uint64_t ids[COUNT];
    durable_new(&d, WINDOW, DURABILITY_SYNC);
    for (size_t i = 0; i < COUNT; i++) {
        struct msg_options o = fix_options();
        o.delay_ms = 1000 + (COUNT - i) * 10;
        ids[i] = fix_submit(&d.f, 5, "q", "payload", &o, FOLLOW_NONE);
        durable_settle(&d);
    }
    assert_int_equal(core_stats(d.f.core)->delayed, COUNT);
    while (core_stats(d.f.core)->delayed) {
        durable_end(&d);
        durable_stored(&d, 20);
        assert_in_range(core_stats(d.f.core)->ledger, 0, WINDOW + 2);
    }
    assert_int_not_equal(fix_join_held(&d.f, 0, "q", 1, NULL, 0), 0);
    durable_ask(&d);
    durable_stored(&d, 1);
    fix_answer(&d.f, 0, (struct answer){.kind = MSG_READY});
    assert_in_range(fetches_of(ids, COUNT), 1, 3 * COUNT / WINDOW);
    durable_free(&d);
}

/* Submits, and the worker of one slot runs it; with `text` it fails for good. */
static uint64_t ended(struct fix *f, const char *text)
{
    struct msg_options o = fix_options();
    o.max_attempts = 1;
    uint64_t id = fix_submit(f, 5, "q", "payload", &o, FOLLOW_FINISH);
    fix_end(f);
    uint64_t lease = fix_lane(f, 0, LANE_TASK, 0)->lease;
    fix_later(f, 1);
    fix_answer(f, 0, text ? fix_failed(id, lease, text) : fix_done(id, lease, "result"));
    fix_end(f);
    assert_non_null(fix_conn(f, 5, MSG_FINISHED, 0));
    fix_later(f, 1);
    return id;
}

static bool is_kept(struct fix *f, uint64_t id)
{
    core_status(f->core, 6, 1, id);
    fix_end(f);
    bool kept = fix_conn(f, 6, MSG_TASK_ROW, 0);
    fix_later(f, 1);
    return kept;
}

/* "The oldest go first": not those whose time is over first, or dead letters would stay alone. */
static void many_dead_letters_leave_room_for_results(void **state)
{
    (void)state;
    struct core_config config = {.seed = 1, .hold_count = 4, .store = {.bypass = true}};
    uint64_t dead[4], done[3];
    struct fix f;
    fix_new(&f, &config);
    fix_worker(&f, 0, "q", 1);
    for (size_t i = 0; i < 4; i++)
        dead[i] = ended(&f, "no");
    for (size_t i = 0; i < 3; i++) {
        done[i] = ended(&f, NULL);
        for (size_t k = 0; k < 4; k++)
            assert_int_equal(is_kept(&f, dead[k]), k > i);
        for (size_t k = 0; k <= i; k++)
            assert_true(is_kept(&f, done[k]));
    }
    fix_free(&f);
}

/* Who only takes its tasks along when it leaves asks for no finish: none is kept for it. */
static void many_attached_tasks_are_not_kept(void **state)
{
    (void)state;
    struct msg_options o = fix_options();
    struct fix f;
    o.attached = true;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    uint64_t id = fix_submit(&f, 5, "q", "payload", &o, FOLLOW_NONE);
    fix_end(&f);
    uint64_t lease = fix_lane(&f, 0, LANE_TASK, 0)->lease;
    fix_later(&f, 1);
    fix_answer(&f, 0, fix_done(id, lease, "result"));
    fix_end(&f);
    assert_null(fix_conn(&f, 5, MSG_FINISHED, 0));
    assert_int_equal(core_stats(f.core)->ledger, 0);
    fix_free(&f);
}

/* One connection may wait for one task as often as it likes: each takes the same time to go. */
static void many_waits_for_one_task(void **state)
{
    (void)state;
    enum { WAITS = 300000 };
    for (unsigned closed = 0; closed < 3; closed++) {
        struct fix f;
        fix_new(&f, NULL);
        fix_worker(&f, 0, "q", 1);
        uint64_t id = fix_submit(&f, CONN_SELF, "q", "payload", NULL, FOLLOW_NONE);
        for (unsigned i = 0; i < WAITS; i++)
            core_wait(f.core, 6, i, id, FOLLOW_FINISH);
        fix_end(&f);
        uint64_t lease = fix_lane(&f, 0, LANE_TASK, 0)->lease;
        fix_later(&f, 1);
        if (closed > 0)
            fix_answer(&f, 0, fix_done(id, lease, "result"));
        if (closed == 1)
            core_received(f.core, 6, WAITS);
        else
            core_conn_closed(f.core, 6);
        fix_end(&f);
        assert_int_equal(core_stats(f.core)->ledger, closed != 1);
        fix_free(&f);
    }
}

/* ---- queues ---- */

enum { QUEUES = 150, SLOTS = 4 };

static struct answer running[QUEUES * 2];
static size_t run_first, run_end; /* of those that have not answered */
static unsigned turn_of[QUEUES];  /* how often each was handed over */

static void submit_to_each(struct fix *f)
{
    for (unsigned i = 0; i < QUEUES; i++) {
        char name[8];
        snprintf(name, sizeof name, "q%u", i);
        fix_submit(f, CONN_SELF, name, "payload", NULL, FOLLOW_NONE);
    }
}

static void note_handed_over(struct fix *f)
{
    const struct lane_action *l;
    fix_end(f);
    for (size_t i = 0; (l = fix_lane(f, 0, LANE_TASK, i)); i++) {
        running[run_end] = fix_done(l->id, l->lease, "");
        running[run_end++].run_ns = 5 * MSEC;
        turn_of[atoi((const char *)l->task->queue->name.data + 1)]++;
    }
    fix_later(f, 1);
}

/* The oldest one ends. */
static void one_ends(struct fix *f)
{
    assert_true(run_first < run_end);
    fix_answer(f, 0, running[run_first++]);
    note_handed_over(f);
}

/* Not all of many queues are asked for something to prefetch; it is each one's turn all the same.
 */
static void many_queues_take_turns(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "*", SLOTS);
    for (unsigned round = 0; round < 25; round++) {
        run_first = run_end = 0;
        submit_to_each(&f);
        for (note_handed_over(&f); run_first < run_end;)
            one_ends(&f);
    }
    memset(turn_of, 0, sizeof turn_of);
    run_first = run_end = 0;
    submit_to_each(&f); /* of which each slot may have one ahead, where there are enough */
    submit_to_each(&f);
    note_handed_over(&f);
    while (run_end < QUEUES)
        one_ends(&f);
    for (unsigned i = 0; i < QUEUES; i++)
        assert_in_range(turn_of[i], 0, 1);
    fix_free(&f);
}

/* ---- requests ---- */

static size_t count_of(const struct fix *f, uint16_t kind)
{
    size_t count = 0;
    while (fix_conn(f, 6, kind, count))
        count++;
    return count;
}

/* They cost a few bytes each, and a thousand rows. */
static void many_lists_in_one_tick(void **state)
{
    (void)state;
    struct msg_list list = {.request = 1, .what = S("stats")};
    struct fix f;
    fix_new(&f, NULL);
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < 2000; i++)
            core_list(f.core, 6, &list);
        fix_end(&f);
        assert_in_range(f.acts->conn_count, 20000, 23000);
        assert_int_equal(fix_conn(&f, 6, MSG_REJECTED, 0)->code, PUSHROD_E_OVERLOADED);
        assert_int_equal(count_of(&f, MSG_END) + count_of(&f, MSG_REJECTED), 2000);
        fix_later(&f, 1);
    }
    fix_free(&f);
}

static size_t scans_asked(void)
{
    size_t count = 0;
    while (durable_op(&d, STORE_SCAN, count))
        count++;
    return count;
}

/* The rows that the store is to read count until they are told, in whatever tick. */
static void many_lists_of_the_store(void **state)
{
    (void)state;
    struct msg_list list = {.request = 1, .what = S("dead")};
    durable_begin(&d, DURABILITY_SYNC);
    for (unsigned i = 0; i < 2000; i++)
        core_list(d.f.core, 6, &list);
    durable_end(&d);
    assert_int_equal(scans_asked(), 20);
    assert_int_equal(count_of(&d.f, MSG_REJECTED), 1980);
    assert_int_equal(fix_conn(&d.f, 6, MSG_REJECTED, 0)->code, PUSHROD_E_OVERLOADED);
    fix_later(&d.f, 1);
    core_list(d.f.core, 6, &list);
    fix_end(&d.f);
    assert_int_equal(scans_asked(), 0);
    durable_stored(&d, 1);
    core_list(d.f.core, 6, &list);
    durable_end(&d);
    assert_int_equal(count_of(&d.f, MSG_END), 20);
    assert_int_equal(scans_asked(), 1);
    durable_stored(&d, 1);
    durable_free(&d);
}

/* The store has no room for what the two look-ups of the last tick would give. 0: nobody leaves. */
static void look_later(uint64_t leaves)
{
    struct store_event events[2];
    for (size_t i = 0; i < 2; i++)
        events[i] = (struct store_event){.kind = STORE_LOOKUP,
            .token = durable_op(&d, STORE_LOOKUP, i)->token,
            .outcome = OUTCOME_LATER};
    fix_later(&d.f, 1);
    if (leaves)
        core_conn_closed(d.f.core, leaves);
    core_stored(d.f.core, events, 2);
}

/* It is asked for again, as long as somebody waits for it. */
static void many_results_come_in_turns(void **state)
{
    (void)state;
    struct msg_options o = fix_options();
    o.delay_ms = 1000;
    durable_begin(&d, DURABILITY_SYNC);
    uint64_t id = fix_submit(&d.f, 5, "q", "payload", &o, FOLLOW_NONE);
    durable_settle(&d);
    core_wait(d.f.core, 6, 1, id, FOLLOW_FINISH);
    core_status(d.f.core, 7, 1, id);
    for (unsigned turn = 0; turn < 2; turn++) {
        fix_end(&d.f);
        for (size_t i = 0; i < 2; i++) {
            assert_int_equal(durable_op(&d, STORE_LOOKUP, i)->id, id);
            assert_int_equal(durable_op(&d, STORE_LOOKUP, i)->bare, i == 1);
        }
        look_later(0);
    }
    fix_end(&d.f);
    look_later(6);
    durable_end(&d);
    assert_true(durable_op(&d, STORE_LOOKUP, 0)->bare);
    assert_null(durable_op(&d, STORE_LOOKUP, 1));
    durable_stored(&d, 1);
    durable_end(&d);
    assert_non_null(fix_conn(&d.f, 7, MSG_TASK_ROW, 0));
    durable_free(&d);
}

/* Each tick has its share of them, and the next one comes at once. */
static void many_tasks_are_due_at_once(void **state)
{
    (void)state;
    enum { COUNT = 2 * TICK_EXPIRIES + TICK_EXPIRIES / 2 };
    struct msg_options o = fix_options();
    struct fix f;
    fix_new(&f, NULL);
    o.delay_ms = 1000;
    for (unsigned i = 0; i < COUNT; i++)
        fix_submit(&f, 5, "q", "payload", &o, FOLLOW_NONE);
    fix_end(&f);
    fix_later(&f, 999);
    fix_end(&f);
    assert_int_equal(core_stats(f.core)->delayed, COUNT);
    fix_later(&f, 1);
    for (unsigned left = COUNT; left > 0;) {
        const struct actions *a = fix_end(&f);
        left = left > TICK_EXPIRIES ? left - TICK_EXPIRIES : 0;
        assert_int_equal(core_stats(f.core)->delayed, left);
        assert_int_equal(a->wake_ns <= f.now.mono_ns, left > 0);
        fix_later(&f, 0);
    }
    fix_free(&f);
}

/* Everything that worker n was given fails, and is to be tried again after 10 ms. */
static void all_fail(struct fix *f, unsigned n, const struct lane_action *given, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct answer failed = fix_failed(given[i].id, given[i].lease, "");
        failed.number = 10;
        if (given[i].kind == LANE_TASK && given[i].worker == f->worker[n])
            fix_answer(f, n, failed);
    }
}

/* What is left is to come at once, but not in the past: that would look as if we had slept. */
static void many_retries_are_due_at_once(void **state)
{
    (void)state;
    enum { COUNT = TICK_EXPIRIES + 1, WORKERS = 3 };
    struct msg_options o = fix_options();
    struct fix f;
    fix_new(&f, NULL);
    for (unsigned n = 0; n < WORKERS; n++)
        fix_worker(&f, n, "q", WORKER_SLOTS_MAX);
    for (unsigned i = 0; i < COUNT; i++)
        fix_submit(&f, 5, "q", "", &o, FOLLOW_NONE);
    for (unsigned i = 0; i < 20 && core_stats(f.core)->delayed < COUNT; i++) {
        size_t count = fix_end(&f)->lane_count;
        struct lane_action *given = calloc(count + 1, sizeof *given);
        memcpy(given, f.acts->lane, count * sizeof *given);
        fix_later(&f, 0);
        for (unsigned n = 0; n < WORKERS; n++)
            all_fail(&f, n, given, count);
        free(given);
    }
    assert_int_equal(core_stats(f.core)->delayed, COUNT);
    fix_end(&f);
    fix_later(&f, 11);
    const struct actions *a = fix_end(&f);
    assert_int_equal(core_stats(f.core)->delayed, 1);
    assert_int_equal(a->wake_ns, f.now.mono_ns);
    fix_free(&f);
}

/* What is paused runs nothing, so there is no end of fetching for it. */
static void a_paused_queue_keeps_its_window(void **state)
{
    (void)state;
    durable_new(&d, 2, DURABILITY_SYNC);
    for (int i = 0; i < 12; i++)
        fix_submit(&d.f, 5, "q", "payload", NULL, FOLLOW_NONE);
    struct msg_control pause = {.request = 8, .verb = S("pause"), .name = S("q")};
    core_control(d.f.core, 5, &pause);
    durable_settle(&d);
    assert_true(core_stats(d.f.core)->ready <= 3);
    assert_int_equal(core_stats(d.f.core)->ready + core_stats(d.f.core)->backlog, 12);
    durable_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_window_of_what_came_out_of_order),
        cmocka_unit_test(many_dead_letters_leave_room_for_results),
        cmocka_unit_test(many_attached_tasks_are_not_kept),
        cmocka_unit_test(many_waits_for_one_task),
        cmocka_unit_test(many_queues_take_turns),
        cmocka_unit_test(many_lists_in_one_tick),
        cmocka_unit_test(many_lists_of_the_store),
        cmocka_unit_test(many_results_come_in_turns),
        cmocka_unit_test(many_tasks_are_due_at_once),
        cmocka_unit_test(many_retries_are_due_at_once),
        cmocka_unit_test(a_paused_queue_keeps_its_window),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
