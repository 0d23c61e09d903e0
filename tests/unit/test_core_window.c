/* SPDX-License-Identifier: Apache-2.0 */
/* The store owns the backlog, the core a window: edge, fetch order, and tasks not in memory. */
#include "tests/unit/core_durable.h"

static struct durable d;

static uint64_t submit(const char *queue, uint64_t priority)
{
    struct msg_options o = fix_options();
    o.priority = priority;
    return fix_submit(&d.f, 5, queue, "payload", &o, FOLLOW_FINISH);
}

static void worker(const char *queue, uint32_t slots)
{
    assert_int_not_equal(fix_join_held(&d.f, 0, queue, slots, NULL, 0), 0);
    durable_ask(&d);
    durable_stored(&d, 1);
    fix_answer(&d.f, 0, (struct answer){.kind = MSG_READY});
}

static void control(const char *verb, const char *queue, uint64_t id)
{
    struct msg_control m = {.request = 8, .verb = S(verb), .id = id};
    if (queue)
        m.name = S(queue);
    core_control(d.f.core, 5, &m);
}

/* One after the other, as a worker with one slot gets them. */
static void run_in_order(const uint64_t *ids, size_t count)
{
    size_t ran = 0;
    for (unsigned idle = 0; ran < count && idle < 10; idle++) {
        durable_end(&d);
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
    assert_int_equal(ran, count);
}

static void order_holds_across_memory_and_disk(void **state)
{
    (void)state;
    static const uint8_t priorities[] = {4, 4, 1, 9, 4, 1, 9, 4, 9, 4, 1, 4};
    uint64_t ids[12], sorted[12];
    size_t n = 0;
    durable_new(&d, 3, DURABILITY_SYNC);
    for (size_t i = 0; i < 12; i++) {
        ids[i] = submit("q", priorities[i]);
        if (i % 3 == 2)
            durable_settle(&d);
    }
    assert_true(core_stats(d.f.core)->ledger <= 4);
    assert_int_equal(core_stats(d.f.core)->ready + core_stats(d.f.core)->backlog, 12);
    for (unsigned p = 10; p-- > 0;)
        for (size_t i = 0; i < 12; i++)
            if (priorities[i] == p)
                sorted[n++] = ids[i];
    worker("q", 1);
    run_in_order(sorted, 12);
    durable_settle(&d);
    assert_int_equal(core_stats(d.f.core)->backlog, 0);
    durable_free(&d);
}

/* One before the edge enters, and the least urgent leaves; it is never run before its turn. */
static void an_urgent_task_evicts(void **state)
{
    (void)state;
    durable_new(&d, 2, DURABILITY_SYNC);
    uint64_t a = submit("q", 4), b = submit("q", 4), c = submit("q", 4);
    durable_settle(&d);
    assert_int_equal(core_stats(d.f.core)->ledger, 2);
    uint64_t urgent = submit("q", 9);
    durable_settle(&d);
    assert_int_equal(core_stats(d.f.core)->ledger, 2);
    assert_int_equal(core_stats(d.f.core)->backlog, 2);
    worker("q", 1);
    run_in_order((uint64_t[]){urgent, a, b, c}, 4);
    durable_free(&d);
}

/* A fetch is on the way when urgent tasks come: what has to leave for them is not passed over by
 * it. */
static void a_fetch_that_was_overtaken_is_void(void **state)
{
    (void)state;
    durable_new(&d, 2, DURABILITY_SYNC);
    uint64_t ids[7];
    for (size_t i = 2; i < 7; i++)
        ids[i] = submit("q", 4);
    durable_settle(&d);
    assert_int_equal(core_stats(d.f.core)->ledger, 2);
    assert_int_not_equal(fix_join_held(&d.f, 0, "q", 1, NULL, 0), 0);
    durable_ask(&d);
    durable_stored(&d, 1);
    ids[0] = submit("q", 9);
    ids[1] = submit("q", 9);
    fix_answer(&d.f, 0, (struct answer){.kind = MSG_READY});
    durable_end(&d); /* the first of the others leaves the window for the worker */
    assert_int_equal(fix_lane(&d.f, 0, LANE_TASK, 0)->id, ids[2]);
    assert_non_null(durable_op(&d, STORE_FETCH, 0));
    struct answer done = fix_done(ids[2], fix_lane(&d.f, 0, LANE_TASK, 0)->lease, "");
    durable_stored(&d, 1);
    fix_answer(&d.f, 0, done);
    run_in_order((uint64_t[]){ids[0], ids[1], ids[3], ids[4], ids[5], ids[6]}, 6);
    durable_free(&d);
}

static void a_window_has_a_bound_in_bytes(void **state)
{
    (void)state;
    durable_new(&d, 100, DURABILITY_SYNC);
    core_free(d.f.core);
    d.config.window_bytes = 20; /* two payloads of 7 bytes fit */
    durable_core(&d);
    uint64_t ids[5];
    for (size_t i = 0; i < 5; i++)
        ids[i] = submit("q", 4);
    durable_settle(&d);
    assert_int_equal(core_stats(d.f.core)->ledger, 2);
    worker("q", 1);
    run_in_order(ids, 5);
    durable_free(&d);
}

static void delayed_tasks_wait_in_the_store(void **state)
{
    (void)state;
    durable_new(&d, 0, DURABILITY_SYNC);
    struct msg_options o = fix_options();
    o.delay_ms = 500;
    uint64_t id = fix_submit(&d.f, 5, "q", "", &o, FOLLOW_FINISH);
    o.delay_ms = 0;
    o.expires_ms = 300;
    uint64_t expires = fix_submit(&d.f, 5, "q", "", &o, FOLLOW_FINISH);
    durable_settle(&d);
    assert_int_equal(core_stats(d.f.core)->ledger, 1);
    assert_int_equal(core_stats(d.f.core)->delayed, 1);
    durable_stored(&d, 300);
    durable_end(&d);
    durable_stored(&d, 1);
    durable_end(&d);
    assert_int_equal(fix_conn(&d.f, 5, MSG_FINISHED, 0)->id, expires);
    assert_int_equal(fix_conn(&d.f, 5, MSG_FINISHED, 0)->task->status, PUSHROD_EXPIRED);
    assert_true(d.f.acts->wake_ns <= d.f.now.mono_ns + 200 * MSEC);
    durable_stored(&d, 200);
    worker("q", 1);
    run_in_order(&id, 1);
    assert_int_equal(core_stats(d.f.core)->delayed, 0);
    durable_free(&d);
}

/* ---- tasks that are not in memory ---- */

/* Two of three tasks are behind the edge: ids[1] and ids[2]. */
static void three(uint64_t *ids)
{
    durable_new(&d, 1, DURABILITY_SYNC);
    for (size_t i = 0; i < 3; i++)
        ids[i] = fix_submit(&d.f, 5, "q", "payload", NULL, FOLLOW_NONE);
    durable_settle(&d);
    assert_int_equal(core_stats(d.f.core)->ledger, 1);
}

static void answered(void)
{
    durable_end(&d);
    durable_stored(&d, 1);
    durable_end(&d);
}

static void wait_finds_the_store(void **state)
{
    (void)state;
    uint64_t ids[3];
    three(ids);
    core_wait(d.f.core, 6, 1, ids[2], FOLLOW_FINISH);
    core_wait(d.f.core, 6, 2, ids[1], FOLLOW_NONE);
    core_wait(d.f.core, 6, 3, UINT64_C(1) << 50, FOLLOW_FINISH);
    answered();
    assert_int_equal(fix_conn(&d.f, 6, MSG_OK, 0)->request, 1);
    assert_int_equal(fix_conn(&d.f, 6, MSG_REJECTED, 0)->code, PUSHROD_E_WRONG_STATE);
    durable_stored(&d, 1);
    worker("q", 1);
    run_in_order(ids, 3);
    durable_end(&d);
    durable_stored(&d, 1);
    durable_end(&d);
    assert_int_equal(fix_conn(&d.f, 6, MSG_FINISHED, 0)->id, ids[2]);
    /* Gone with its acknowledgement; the one that nobody waited for was never kept. */
    durable_stored(&d, 1);
    core_received(d.f.core, 6, 1);
    core_wait(d.f.core, 6, 4, ids[2], FOLLOW_FINISH);
    core_wait(d.f.core, 6, 5, ids[0], FOLLOW_FINISH);
    answered();
    assert_int_equal(fix_conn(&d.f, 6, MSG_REJECTED, 0)->code, PUSHROD_E_UNKNOWN_TASK);
    assert_int_equal(fix_conn(&d.f, 6, MSG_REJECTED, 1)->code, PUSHROD_E_UNKNOWN_TASK);
    durable_free(&d);
}

/* The store answers when the connection is gone: nobody follows the task. */
static void a_wait_ends_with_its_connection(void **state)
{
    (void)state;
    uint64_t ids[3];
    three(ids);
    core_wait(d.f.core, 6, 1, ids[2], FOLLOW_FINISH);
    durable_end(&d);
    fix_later(&d.f, 1);
    core_conn_closed(d.f.core, 6);
    answered();
    assert_null(fix_conn(&d.f, 6, MSG_OK, 0));
    durable_stored(&d, 1);
    worker("q", 1);
    run_in_order(ids, 3);
    durable_end(&d);
    durable_stored(&d, 1);
    durable_end(&d);
    assert_null(fix_conn(&d.f, 6, MSG_FINISHED, 0));
    assert_int_equal(core_stats(d.f.core)->ledger, 0);
    durable_free(&d);
}

static void status_finds_the_store(void **state)
{
    (void)state;
    uint64_t ids[3];
    three(ids);
    core_status(d.f.core, 6, 1, ids[1]);
    answered();
    const struct msg_task_row *row = fix_conn(&d.f, 6, MSG_TASK_ROW, 0)->row;
    assert_int_equal(row->id, ids[1]);
    assert_true(slice_equal(row->state, S("ready")));
    assert_int_equal(row->size, 7);
    durable_free(&d);
}

static void cancel_finds_the_store(void **state)
{
    (void)state;
    uint64_t ids[3];
    three(ids);
    core_wait(d.f.core, 6, 1, ids[1], FOLLOW_FINISH);
    durable_settle(&d);
    core_cancel(d.f.core, 7, 2, ids[1]);
    answered();
    assert_int_equal(fix_conn(&d.f, 7, MSG_OK, 0)->number, 1);
    assert_int_equal(durable_op(&d, STORE_FINISH, 0)->finish->status, PUSHROD_CANCELLED);
    durable_stored(&d, 1);
    durable_end(&d);
    assert_int_equal(fix_conn(&d.f, 6, MSG_FINISHED, 0)->id, ids[1]);
    durable_stored(&d, 1);
    worker("q", 1);
    run_in_order((uint64_t[]){ids[0], ids[2]}, 2);
    durable_free(&d);
}

static void a_connection_that_closes_takes_attached_tasks_along(void **state)
{
    (void)state;
    durable_new(&d, 1, DURABILITY_SYNC);
    struct msg_options o = fix_options();
    o.attached = true;
    fix_submit(&d.f, 5, "q", "", &o, FOLLOW_FINISH);
    fix_submit(&d.f, 5, "q", "", &o, FOLLOW_FINISH);
    fix_submit(&d.f, 6, "q", "", NULL, FOLLOW_NONE);
    durable_settle(&d);
    core_conn_closed(d.f.core, 5);
    durable_settle(&d);
    assert_int_equal(core_stats(d.f.core)->cancelled, 2);
    assert_int_equal(core_stats(d.f.core)->ready + core_stats(d.f.core)->backlog, 1);
    durable_free(&d);
}

static void purge_takes_what_lies_behind(void **state)
{
    (void)state;
    uint64_t ids[3];
    three(ids);
    worker("q", 1);
    core_wait(d.f.core, 6, 1, ids[2], FOLLOW_FINISH);
    durable_settle(&d);
    control("purge", "q", 0);
    answered();
    /* The worker has one; the others were waiting. */
    assert_int_equal(fix_conn(&d.f, 5, MSG_OK, 0)->number, 2);
    durable_stored(&d, 1);
    durable_end(&d);
    const struct conn_action *told = fix_conn(&d.f, 6, MSG_FINISHED, 0);
    if (!told) { /* its finish was looked for in the store */
        durable_stored(&d, 1);
        durable_end(&d);
        told = fix_conn(&d.f, 6, MSG_FINISHED, 0);
    }
    assert_int_equal(told->task->status, PUSHROD_CANCELLED);
    assert_int_equal(core_stats(d.f.core)->backlog, 0);
    assert_int_equal(core_stats(d.f.core)->running, 1);
    durable_free(&d);
}

/* ---- what is kept ---- */

static uint64_t dead_task(void)
{
    durable_new(&d, 0, DURABILITY_SYNC);
    worker("q", 1);
    struct msg_options o = fix_options();
    o.max_attempts = 1;
    uint64_t id = fix_submit(&d.f, 6, "q", "payload", &o, FOLLOW_NONE);
    durable_end(&d);
    durable_stored(&d, 1);
    durable_end(&d);
    uint64_t lease = durable_lease(&d, 0, id);
    durable_stored(&d, 1);
    fix_answer(&d.f, 0, fix_failed(id, lease, "no"));
    durable_settle(&d);
    assert_int_equal(core_stats(d.f.core)->dead, 1);
    assert_int_equal(core_stats(d.f.core)->ledger, 0);
    return id;
}

static void list_dead(void)
{
    struct msg_list list = {.request = 3, .what = S("dead")};
    core_list(d.f.core, 5, &list);
    answered();
}

/* A retry on its way to the store stays, there as well. */
static void a_purge_leaves_what_the_store_is_asked_about(void **state)
{
    (void)state;
    durable_new(&d, 0, DURABILITY_SYNC);
    uint64_t id = submit("q", 4);
    durable_settle(&d);
    worker("q", 1);
    durable_end(&d);
    uint64_t lease = durable_lease(&d, 0, id);
    fix_later(&d.f, 1);
    fix_answer(&d.f, 0, fix_failed(id, lease, "no"));
    control("purge", "q", 0);
    durable_end(&d);
    assert_int_equal(durable_op(&d, STORE_PURGE, 0)->keep_count, 1);
    durable_free(&d);
}

static void dead_letters_are_listed_and_replayed(void **state)
{
    (void)state;
    uint64_t id = dead_task();
    list_dead();
    const struct msg_task_row *row = fix_conn(&d.f, 5, MSG_TASK_ROW, 0)->row;
    assert_int_equal(row->id, id);
    assert_true(slice_equal(row->text, S("no")));
    const struct msg_end *last = fix_conn(&d.f, 5, MSG_END, 0)->row;
    assert_int_equal(last->rows, 1);
    durable_stored(&d, 1);
    control("replay", NULL, id);
    answered();
    assert_non_null(fix_conn(&d.f, 5, MSG_OK, 0));
    assert_int_equal(core_stats(d.f.core)->dead, 0);
    const struct lane_action *l = fix_lane(&d.f, 0, LANE_TASK, 0);
    assert_int_equal(l->id, id);
    assert_memory_equal(l->task->record.payload.data, "payload", 7);
    durable_free(&d);
}

static void dead_letters_are_dropped(void **state)
{
    (void)state;
    uint64_t id = dead_task();
    control("drop", NULL, id);
    answered();
    assert_non_null(fix_conn(&d.f, 5, MSG_OK, 0));
    durable_stored(&d, 1);
    control("drop", NULL, id);
    answered();
    assert_non_null(fix_conn(&d.f, 5, MSG_REJECTED, 0));
    durable_stored(&d, 1);
    list_dead();
    assert_null(fix_conn(&d.f, 5, MSG_TASK_ROW, 0));
    durable_stored(&d, 1);
    struct msg_list queues = {.request = 3, .what = S("queues"), .filter = S("q")};
    core_list(d.f.core, 5, &queues);
    durable_end(&d);
    const struct msg_queue_row *row = fix_conn(&d.f, 5, MSG_QUEUE_ROW, 0)->row;
    assert_int_equal(row->dead, 0);
    durable_free(&d);
}

/* One dead task in `queue`; a tick is open before and after it. */
static uint64_t bury(const char *queue)
{
    struct msg_options o = fix_options();
    o.max_attempts = 1;
    uint64_t id = fix_submit(&d.f, 6, queue, "payload", &o, FOLLOW_NONE);
    uint64_t lease = 0;
    for (int i = 0; i < 3 && !lease; i++) {
        durable_end(&d);
        lease = durable_lease(&d, 0, id);
        durable_stored(&d, 1);
    }
    fix_answer(&d.f, 0, fix_failed(id, lease, "no"));
    durable_settle(&d);
    return id;
}

/* Some in memory, some in the store, in turn: no page leaves out what a later one does not have. */
static void dead_letters_of_both_kinds_are_listed_by_id(void **state)
{
    static const struct queue_setting settings[] = {
        {.pattern = {(const uint8_t *)"memory", 6}, .durability = DURABILITY_MEMORY}};
    uint64_t ids[6];
    (void)state;
    durable_new(&d, 0, DURABILITY_SYNC);
    core_free(d.f.core);
    d.f.core = core_new(&d.config, settings, 1, &d.opened);
    core_begin(d.f.core, d.f.now);
    worker("*", 1);
    for (size_t i = 0; i < 6; i++)
        ids[i] = bury(i % 2 ? "memory" : "stored");
    struct msg_list list = {.request = 3, .what = S("dead"), .limit = 4};
    for (size_t page = 0, seen = 0; page < 2; page++, durable_stored(&d, 1)) {
        core_list(d.f.core, 5, &list);
        answered();
        const struct conn_action *row;
        for (size_t i = 0; (row = fix_conn(&d.f, 5, MSG_TASK_ROW, i)); i++, seen++) {
            list.after = ((const struct msg_task_row *)row->row)->id;
            assert_int_equal(list.after, ids[seen]);
        }
        assert_int_equal(seen, page ? 6 : 4);
    }
    durable_free(&d);
}

/* A client that vanished asks again by id; the store has the finish, over a restart, too. */
static void a_kept_finish_is_told_again(void **state)
{
    (void)state;
    durable_new(&d, 0, DURABILITY_SYNC);
    worker("q", 1);
    uint64_t id = fix_submit(&d.f, 5, "q", "", NULL, FOLLOW_FINISH);
    durable_end(&d);
    durable_stored(&d, 1);
    durable_end(&d);
    uint64_t lease = durable_lease(&d, 0, id);
    durable_stored(&d, 1);
    fix_answer(&d.f, 0, fix_done(id, lease, "result"));
    durable_settle(&d);
    core_conn_closed(d.f.core, 5);
    durable_settle(&d);
    assert_int_equal(core_stats(d.f.core)->ledger, 0);
    for (int i = 0; i < 2; i++) {
        core_wait(d.f.core, 6, 1, id, FOLLOW_NONE);
        answered();
        const struct conn_action *told = fix_conn(&d.f, 6, MSG_FINISHED, 0);
        assert_true(slice_equal(task_result(told->task), S("result")));
        if (i == 0)
            durable_restart(&d);
    }
    /* Nobody knows any more whether it is also kept for others: the store lets go of it in time. */
    durable_stored(&d, 1);
    core_received(d.f.core, 6, 1);
    durable_end(&d);
    assert_null(durable_op(&d, STORE_FORGET, 0));
    assert_int_equal(core_stats(d.f.core)->ledger, 0);
    durable_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_holds_across_memory_and_disk),
        cmocka_unit_test(an_urgent_task_evicts),
        cmocka_unit_test(a_fetch_that_was_overtaken_is_void),
        cmocka_unit_test(a_window_has_a_bound_in_bytes),
        cmocka_unit_test(delayed_tasks_wait_in_the_store),
        cmocka_unit_test(wait_finds_the_store),
        cmocka_unit_test(a_wait_ends_with_its_connection),
        cmocka_unit_test(status_finds_the_store),
        cmocka_unit_test(cancel_finds_the_store),
        cmocka_unit_test(a_connection_that_closes_takes_attached_tasks_along),
        cmocka_unit_test(purge_takes_what_lies_behind),
        cmocka_unit_test(a_purge_leaves_what_the_store_is_asked_about),
        cmocka_unit_test(dead_letters_are_listed_and_replayed),
        cmocka_unit_test(dead_letters_are_dropped),
        cmocka_unit_test(dead_letters_of_both_kinds_are_listed_by_id),
        cmocka_unit_test(a_kept_finish_is_told_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
