/* SPDX-License-Identifier: Apache-2.0 */
/* What comes late: answers of attempts that others overtook, and the deaths of their workers. */
#include "proto/codec.h"
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
    core_worker_lost(d.f.core, d.f.worker[0], PUSHROD_E_CLOSED, d.f.now.mono_ns);
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

static struct answer part_of(uint64_t id, uint64_t lease, const char *data)
{
    return (struct answer){
        .kind = MSG_PART, .id = id, .lease = lease, .number = 10, .data = S(data)};
}

/* What the finish says; the tick is open before. */
static void expect_result(const char *result)
{
    const struct conn_action *told = NULL;
    for (int i = 0; i < 3 && !told; i++) {
        durable_end(&d);
        told = fix_conn(&d.f, 5, MSG_FINISHED, 0);
        if (!told)
            durable_stored(&d, 1);
    }
    assert_non_null(told);
    assert_int_equal(told->task->status, PUSHROD_DONE);
    assert_int_equal(task_result(told->task).size, strlen(result));
    assert_memory_equal(task_result(told->task).data, result, strlen(result));
}

/* Pieces of two attempts meet: none spoils the result of the other, and the first that ends wins.
 */
static void pieces_of_two_attempts_meet(void **state)
{
    (void)state;
    for (unsigned first = 0; first < 2; first++) {
        uint64_t lease, again, id = overtaken(&lease, &again);
        fix_answer(&d.f, 0, part_of(id, lease, "abcd"));
        fix_answer(&d.f, 1, part_of(id, again, "0123"));
        fix_answer(&d.f, 0, part_of(id, lease, "efg"));
        fix_answer(&d.f, 1, part_of(id, again, "456"));
        fix_answer(&d.f, first, first ? fix_done(id, again, "789") : fix_done(id, lease, "hij"));
        fix_answer(&d.f, !first, first ? fix_done(id, lease, "hij") : fix_done(id, again, "789"));
        expect_result(first ? "0123456789" : "abcdefghij");
        durable_free(&d);
    }
}

/* Nor is the end of one that was torn the whole of another, when it comes again. */
static void what_comes_again_of_an_old_session_is_nothing_new(void **state)
{
    (void)state;
    uint64_t lease, again, id = overtaken(&lease, &again);
    fix_answer(&d.f, 0, part_of(id, lease, "abcd"));
    for (int i = 0; i < 2; i++) {
        fix_answer(&d.f, 0, fix_done(id, lease, "hij"));
        d.f.sequence[0]--;
    }
    fix_answer(&d.f, 1, fix_done(id, again, "result"));
    expect_result("result");
    durable_free(&d);
}

/* Its connection broke between two pieces: in the next session it sends all of them again. */
static void pieces_are_sent_again_in_a_new_session(void **state)
{
    (void)state;
    uint64_t lease;
    durable_begin(&d, DURABILITY_SYNC);
    uint64_t id = durable_leased(&d, &lease, NULL);
    fix_later(&d.f, 1);
    fix_answer(&d.f, 0, part_of(id, lease, "0123"));
    fix_join_held(&d.f, 0, "*", 1, &(struct held){id, lease, true, true}, 1);
    durable_ask(&d);
    durable_stored(&d, 1);
    fix_answer(&d.f, 0, (struct answer){.kind = MSG_READY});
    fix_answer(&d.f, 0, part_of(id, lease, "0123"));
    fix_answer(&d.f, 0, part_of(id, lease, "456"));
    fix_answer(&d.f, 0, fix_done(id, lease, "789"));
    expect_result("0123456789");
    durable_free(&d);
}

/* Meanwhile what its last session had sent arrives, late: that does not spoil it. */
static void pieces_of_two_sessions_meet(void **state)
{
    (void)state;
    uint64_t lease, again, id = overtaken(&lease, &again);
    fix_join_held(&d.f, 2, "*", 1, &(struct held){id, lease, true, true}, 1);
    durable_ask(&d);
    durable_stored(&d, 1);
    fix_answer(&d.f, 2, (struct answer){.kind = MSG_READY});
    fix_answer(&d.f, 2, part_of(id, lease, "0123"));
    fix_answer(&d.f, 0, part_of(id, lease, "0123"));
    fix_answer(&d.f, 2, part_of(id, lease, "456"));
    fix_answer(&d.f, 0, part_of(id, lease, "456"));
    fix_answer(&d.f, 2, fix_done(id, lease, "789"));
    expect_result("0123456789");
    durable_free(&d);
}

/* Ticks until worker 0 is given this task; the tick is open. */
static uint64_t given(uint64_t id)
{
    uint64_t lease = 0;
    for (int i = 0; i < 5 && !lease; i++) {
        durable_end(&d);
        lease = durable_lease(&d, 0, id);
        durable_stored(&d, 1);
    }
    assert_int_not_equal(lease, 0);
    return lease;
}

/* A window of one task, and a worker for all queues, which is ready. */
static void begin(void)
{
    durable_new(&d, 1, DURABILITY_SYNC);
    assert_int_not_equal(fix_join_held(&d.f, 0, "*", 1, NULL, 0), 0);
    durable_ask(&d);
    durable_stored(&d, 1);
    fix_answer(&d.f, 0, (struct answer){.kind = MSG_READY});
}

/* Its attempt failed, and it waits for its time in the store. */
static uint64_t waits_a_minute(uint64_t *lease)
{
    uint64_t id = fix_submit(&d.f, 5, "q", "payload", NULL, FOLLOW_FINISH);
    *lease = given(id);
    struct answer failed = fix_failed(id, *lease, "later");
    failed.number = 60000;
    fix_answer(&d.f, 0, failed);
    durable_settle(&d);
    assert_int_equal(core_stats(d.f.core)->ledger, 0);
    return id;
}

static uint64_t urgent(void)
{
    struct msg_options o = fix_options();
    o.priority = 9;
    return fix_submit(&d.f, 5, "q", "payload", &o, FOLLOW_NONE);
}

static bool welcomed(void)
{
    for (size_t i = 0; i < d.f.acts->join_count; i++) {
        if (d.f.acts->join[i].kind != JOIN_WELCOME)
            continue;
        d.f.worker[0] = d.f.acts->join[i].worker;
        d.f.session[0] = d.f.acts->join[i].session;
        d.f.sequence[0] = 0;
        return true;
    }
    return false;
}

/* Worker 0 comes back, and says that it has this. */
static void rejoin(const struct held *held)
{
    fix_join_held(&d.f, 0, "*", 1, held, 1);
    for (int i = 0; i < 5 && !welcomed(); i++) {
        durable_ask(&d);
        durable_stored(&d, 1);
        fix_end(&d.f);
    }
    durable_ask(&d);
    durable_stored(&d, 1);
    fix_answer(&d.f, 0, (struct answer){.kind = MSG_READY});
}

/* The store had a time for it, and forgets that: given back it is as any other that is ready. */
static void what_a_worker_runs_all_the_same_has_no_time(void **state)
{
    (void)state;
    begin();
    uint64_t lease, id = waits_a_minute(&lease);
    waits_a_minute(&(uint64_t){0});
    rejoin(&(struct held){.id = id, .lease = lease, .started = true});
    assert_int_equal(core_stats(d.f.core)->running, 1);
    /* Two that are more urgent: one that runs, and one that has the window. */
    uint64_t first = urgent();
    durable_settle(&d);
    fix_answer(&d.f, 0, (struct answer){.kind = MSG_RETURNED, .id = id, .lease = lease});
    uint64_t runs = given(first), second = urgent();
    durable_settle(&d);
    assert_int_equal(core_stats(d.f.core)->backlog, 1);
    assert_int_equal(core_stats(d.f.core)->delayed, 1);
    fix_answer(&d.f, 0, fix_done(first, runs, ""));
    fix_answer(&d.f, 0, fix_done(second, given(second), ""));
    fix_answer(&d.f, 0, fix_done(id, given(id), ""));
    durable_settle(&d);
    assert_int_equal(core_stats(d.f.core)->delayed, 1);
    durable_free(&d);
}

/*
 * Its worker was lost; another one failed it, and it waits for its retry. Then a third says that it
 * has an answer of the first attempt, and while it is due the first worker is known to have died.
 */
static void a_death_is_stored_while_its_time_comes(void **state)
{
    (void)state;
    uint64_t lease, again, id = overtaken(&lease, &again);
    struct answer failed = fix_failed(id, again, "later");
    failed.number = 2000;
    fix_answer(&d.f, 1, failed);
    durable_settle(&d);
    d.f.worker[2] = 0;
    fix_join_held(&d.f, 2, "none", 1, &(struct held){id, lease, true, true}, 1);
    durable_ask(&d);
    durable_stored(&d, 1);
    durable_settle(&d);
    assert_int_equal(core_stats(d.f.core)->ledger, 1);
    durable_end(&d);
    fix_later(&d.f, 2000);
    durable_end(&d);
    assert_non_null(durable_op(&d, STORE_DUE, 0));
    fix_later(&d.f, 1);
    core_obituary(
        d.f.core, &(struct msg_obituary){
                      .instance = slice_of("\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16), .signal = 11});
    durable_end(&d);
    assert_non_null(durable_op(&d, STORE_RESCHEDULE, 0));
    const struct store_event *events;
    fix_later(&d.f, 1);
    size_t count = store_mem_plain.poll(d.store, &events, 1);
    assert_int_equal(events->kind, STORE_DUE);
    core_stored(d.f.core, events, count);
    for (again = 0; !again && count; count = durable_stored(&d, 1)) {
        durable_end(&d);
        again = durable_lease(&d, 1, id);
    }
    assert_int_not_equal(again, 0);
    durable_free(&d);
}

/* The obituary comes when another worker has the task already. */
static void a_late_death_is_of_its_own_attempt(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    uint64_t id = fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    fix_worker(&f, 0, "q", 1);
    fix_tick(&f);
    assert_int_equal(fix_lane(&f, 0, LANE_TASK, 0)->task->hand_overs, 1);
    fix_later(&f, 1);
    fix_worker(&f, 1, "q", 1);
    core_worker_lost(f.core, f.worker[0], PUSHROD_E_CLOSED, f.now.mono_ns);
    fix_tick(&f);
    assert_int_equal(fix_lane(&f, 1, LANE_TASK, 0)->task->hand_overs, 2);
    fix_later(&f, 1);
    core_obituary(
        f.core, &(struct msg_obituary){
                    .instance = slice_of("\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16), .signal = 11});
    core_status(f.core, 5, 8, id);
    fix_tick(&f);
    const struct msg_task_row *row = fix_conn(&f, 5, MSG_TASK_ROW, 0)->row;
    struct dec history = dec_of(row->history);
    struct msg_death death;
    assert_int_equal(dec_array(&history), 1);
    assert_int_equal(dec_message(&history), MSG_DEATH);
    assert_true(msg_death_decode(&history, &death));
    assert_int_equal(death.attempt, 1);
    fix_free(&f);
}

/* A worker that is emptied for a suspect may have to be recorded anew: until then it gets none. */
static void a_suspect_waits_for_the_record_of_its_worker(void **state)
{
    (void)state;
    durable_new(&d, 0, DURABILITY_MEMORY);
    assert_int_not_equal(fix_join_held(&d.f, 0, "*", 1, NULL, 0), 0);
    durable_say(&d, durable_op(&d, STORE_WORKER, 0), OUTCOME_REFUSED, PUSHROD_E_STORE_FAILED);
    fix_answer(&d.f, 0, (struct answer){.kind = MSG_READY});
    uint64_t first = fix_submit(&d.f, 5, "q", "", NULL, FOLLOW_NONE), lease = given(first);
    assert_int_not_equal(fix_join_held(&d.f, 1, "*", 1, NULL, 0), 0);
    durable_ask(&d);
    durable_stored(&d, 1);
    fix_answer(&d.f, 1, (struct answer){.kind = MSG_READY});
    uint64_t suspect = fix_submit(&d.f, 5, "q", "", NULL, FOLLOW_NONE);
    durable_end(&d);
    assert_int_not_equal(durable_lease(&d, 1, suspect), 0);
    durable_stored(&d, 1);
    core_worker_lost(d.f.core, d.f.worker[1], PUSHROD_E_CLOSED, d.f.now.mono_ns);
    durable_settle(&d);
    durable_state(&d, EVENT_STORE_UP, 0);
    durable_end(&d);
    assert_non_null(durable_op(&d, STORE_WORKER, 0));
    fix_later(&d.f, 1);
    fix_answer(&d.f, 0, fix_done(first, lease, ""));
    fix_end(&d.f);
    assert_null(fix_lane(&d.f, 0, LANE_TASK, 0));
    durable_stored(&d, 1);
    assert_int_not_equal(given(suspect), 0);
    durable_free(&d);
}

static void piece(uint64_t id, uint64_t lease)
{
    struct answer part = {.kind = MSG_PART, .id = id, .lease = lease, .number = 8};
    part.data = S("half");
    fix_answer(&d.f, 0, part);
}

/* Its attempt took too long, and it waits for another one in the store. */
static uint64_t timed_out(uint64_t *lease, bool began)
{
    struct msg_options o = fix_options();
    o.timeout_ms = 1000;
    o.backoff_ms = 3600000;
    begin();
    uint64_t id = fix_submit(&d.f, 5, "q", "payload", &o, FOLLOW_FINISH);
    *lease = given(id);
    fix_answer(&d.f, 0, (struct answer){.kind = MSG_STARTED, .id = id, .lease = *lease});
    if (began)
        piece(id, *lease);
    for (int i = 0; i < 4; i++) {
        durable_end(&d);
        durable_stored(&d, 1000);
        fix_answer(&d.f, 0, (struct answer){.kind = MSG_HEARTBEAT});
    }
    durable_settle(&d);
    assert_int_equal(core_stats(d.f.core)->ledger, 0);
    assert_int_equal(core_stats(d.f.core)->delayed, 1);
    return id;
}

/* "The first DONE of any attempt wins." */
static void a_late_result_finds_its_task_in_the_store(void **state)
{
    (void)state;
    uint64_t lease, id = timed_out(&lease, false);
    fix_answer(&d.f, 0, fix_done(id, lease, "late"));
    expect_result("late");
    assert_int_equal(core_stats(d.f.core)->delayed, 0);
    durable_free(&d);
}

/* So does one in pieces: of those that came before its time was over, and after. */
static void a_late_result_in_pieces_finds_its_task_in_the_store(void **state)
{
    (void)state;
    for (int before = 0; before < 2; before++) {
        uint64_t lease, id = timed_out(&lease, before);
        if (!before)
            piece(id, lease);
        fix_answer(&d.f, 0, fix_done(id, lease, "more"));
        expect_result("halfmore");
        assert_int_equal(core_stats(d.f.core)->delayed, 0);
        durable_free(&d);
    }
}

/* What is not the whole, or more than that, is none. */
static void a_late_result_without_a_piece_is_none(void **state)
{
    (void)state;
    const char *ends[] = {"mor", "more."};
    for (int i = 0; i < 2; i++) {
        uint64_t lease, id = timed_out(&lease, i);
        if (!i)
            piece(id, lease);
        fix_answer(&d.f, 0, fix_done(id, lease, ends[i]));
        durable_settle(&d);
        assert_int_equal(core_stats(d.f.core)->delayed, 1);
        assert_int_equal(core_stats(d.f.core)->done, 0);
        durable_free(&d);
    }
}

/* The server ends while it waits for a lost worker, and tasks for their time (for sanitizers). */
static void a_core_ends_beside_a_loss(void **state)
{
    (void)state;
    struct fix f;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    fix_submit(&f, 5, "q", "payload", NULL, FOLLOW_NONE);
    fix_end(&f);
    fix_later(&f, 1);
    core_worker_lost(f.core, f.worker[0], PUSHROD_E_CLOSED, f.now.mono_ns);
    fix_worker(&f, 1, "r", 1);
    for (unsigned i = 0; i < 4; i++) {
        uint64_t id = fix_submit(&f, 5, "r", "payload", NULL, FOLLOW_NONE);
        fix_end(&f);
        struct answer later = fix_failed(id, fix_lane(&f, 1, LANE_TASK, 0)->lease, "no");
        later.number = 100000;
        fix_later(&f, 1);
        fix_answer(&f, 1, later);
    }
    fix_end(&f);
    assert_int_equal(core_stats(f.core)->delayed, 4);
    fix_free(&f);
}

/* Its finish is being stored: an empty result would be another one. */
static void a_result_that_nobody_waited_for_is_told_as_gone(void **state)
{
    (void)state;
    durable_begin(&d, DURABILITY_SYNC);
    uint64_t id = fix_submit(&d.f, 5, "q", "payload", NULL, FOLLOW_NONE);
    durable_end(&d);
    durable_stored(&d, 1);
    durable_end(&d);
    uint64_t lease = durable_lease(&d, 0, id);
    fix_later(&d.f, 1);
    fix_answer(&d.f, 0, fix_done(id, lease, "result"));
    core_wait(d.f.core, 5, 1, id, FOLLOW_FINISH);
    fix_end(&d.f);
    const struct conn_action *rejected = fix_conn(&d.f, 5, MSG_REJECTED, 0);
    assert_non_null(rejected);
    assert_int_equal(rejected->code, PUSHROD_E_RESULT_GONE);
    durable_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failure_that_a_result_overtakes_is_acknowledged),
        cmocka_unit_test(pieces_of_two_attempts_meet),
        cmocka_unit_test(what_comes_again_of_an_old_session_is_nothing_new),
        cmocka_unit_test(pieces_are_sent_again_in_a_new_session),
        cmocka_unit_test(pieces_of_two_sessions_meet),
        cmocka_unit_test(what_a_worker_runs_all_the_same_has_no_time),
        cmocka_unit_test(a_death_is_stored_while_its_time_comes),
        cmocka_unit_test(a_late_death_is_of_its_own_attempt),
        cmocka_unit_test(a_suspect_waits_for_the_record_of_its_worker),
        cmocka_unit_test(a_late_result_finds_its_task_in_the_store),
        cmocka_unit_test(a_late_result_in_pieces_finds_its_task_in_the_store),
        cmocka_unit_test(a_late_result_without_a_piece_is_none),
        cmocka_unit_test(a_core_ends_beside_a_loss),
        cmocka_unit_test(a_result_that_nobody_waited_for_is_told_as_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
