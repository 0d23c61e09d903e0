/* SPDX-License-Identifier: Apache-2.0 */
/* The worker's session: joining, answers and their ACKs, withdrawal, drain, coming back. */
#include "tests/lib/session_play.h"

static struct play r;

static int start(void **state)
{
    (void)state;
    play_start(&r, (struct session_config){.slots = 2, .seed = 1});
    return 0;
}

static int stop(void **state)
{
    (void)state;
    play_stop(&r);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

static void restart(struct session_config config)
{
    play_stop(&r);
    play_start(&r, config);
}

/* ----------------------------------------------------------------------- joining */

static void joins_again_with_a_new_nonce_and_growing_pauses(void **state)
{
    (void)state;
    uint8_t last[16];
    play_tick(&r);
    assert_int_equal(r.joins, 1);
    memcpy(last, r.nonce, sizeof last);
    play_run_until(&r, r.ms + 10000);
    /* A try lasts 1 s, the pause is 1 s at most. */
    assert_in_range(r.joins, 5, 10);
    assert_memory_not_equal(last, r.nonce, sizeof last);
}

static void welcome_of_another_try_is_ignored(void **state)
{
    (void)state;
    play_tick(&r);
    r.nonce[0] ^= 1;
    play_welcome(&r, NULL);
    assert_int_equal(r.connects, 0);
    assert_int_equal(r.actions->state, SESSION_JOINING);
}

static void ready_is_the_first_answer(void **state)
{
    (void)state;
    play_up(&r);
    assert_int_equal(r.said_count, 1);
    assert_int_equal(r.said[0].kind, MSG_READY);
    assert_int_equal(r.said[0].sequence, 1);
    assert_int_equal(r.said[0].id, r.number);
}

static void before_the_hello_nothing_counts(void **state)
{
    (void)state;
    play_tick(&r);
    play_welcome(&r, NULL);
    play_tasks(&r, 1, 1);
    assert_int_equal(r.run_count, 0);
    struct msg_lane_hello other = {.worker = PLAY_WORKER, .session = r.number + 5};
    play_begin(&r);
    session_lane_hello(r.session, &other);
    play_end(&r);
    assert_int_equal(r.actions->state, SESSION_CONNECTING);
}

static void refused_for_good_is_over(void **state)
{
    (void)state;
    struct msg_refused m = {.code = PUSHROD_E_BAD_VERSION, .text = slice_str("too old")};
    play_tick(&r);
    m.nonce = slice_of(r.nonce, sizeof r.nonce);
    play_begin(&r);
    session_refused(r.session, &m);
    play_end(&r);
    assert_int_equal(r.actions->state, SESSION_OVER);
    assert_int_equal(r.actions->code, PUSHROD_E_BAD_VERSION);
    assert_non_null(strstr(r.actions->text, "too old"));
}

static void refused_for_now_tries_again(void **state)
{
    (void)state;
    struct msg_refused m = {.code = PUSHROD_E_TOO_MANY, .text = slice_str("full"), .retry = true};
    play_tick(&r);
    m.nonce = slice_of(r.nonce, sizeof r.nonce);
    play_begin(&r);
    session_refused(r.session, &m);
    play_end(&r);
    assert_int_equal(r.actions->state, SESSION_IDLE);
    play_run_until(&r, r.ms + 1100);
    assert_int_equal(r.joins, 2);
}

static void a_lane_that_stays_silent_is_given_up(void **state)
{
    (void)state;
    play_tick(&r);
    play_welcome(&r, NULL);
    play_run_until(&r, r.ms + 8000);
    assert_int_equal(r.disconnects, 1);
    assert_true(r.joins >= 2);
}

/* ------------------------------------------------------------------------- tasks */

static void starts_up_to_its_slots(void **state)
{
    (void)state;
    play_up(&r);
    play_clear(&r);
    play_tasks(&r, 1, 5);
    assert_int_equal(play_run_of(&r, RUN_START), 2);
    play_begin(&r);
    play_done(&r, 1001, 3);
    play_end(&r);
    assert_int_equal(play_run_of(&r, RUN_START), 3);
    assert_int_equal(r.runs[2].lease, 1003);
    assert_int_equal(play_first_said(&r, MSG_TASK_DONE)->size, 3);
}

static void short_tasks_say_only_done(void **state)
{
    (void)state;
    play_up(&r);
    play_clear(&r);
    play_tasks(&r, 1, 2);
    play_begin(&r);
    play_done(&r, 1001, 0);
    play_end(&r);
    assert_int_equal(r.said_count, 1);
    play_run_until(&r, r.ms + 5); /* the other one goes on */
    assert_int_equal(play_said_of(&r, MSG_STARTED), 1);
    assert_int_equal(play_first_said(&r, MSG_STARTED)->lease, 1002);
    play_run_until(&r, r.ms + 100);
    assert_int_equal(play_said_of(&r, MSG_STARTED), 1);
}

static void withdraw(uint64_t lease)
{
    struct msg_withdraw m = {.id = lease - 1000, .lease = lease};
    play_begin(&r);
    session_withdraw(r.session, &m);
    play_end(&r);
}

static void withdraw_gives_back_what_waits(void **state)
{
    (void)state;
    play_up(&r);
    play_tasks(&r, 1, 3);
    play_clear(&r);
    withdraw(1003);
    assert_int_equal(play_first_said(&r, MSG_RETURNED)->lease, 1003);
    assert_int_equal(play_first_said(&r, MSG_RETURNED)->code, 0);
    withdraw(1001); /* it runs */
    assert_int_equal(play_first_said(&r, MSG_STARTED)->lease, 1001);
    size_t said = r.said_count;
    withdraw(1999); /* never heard of */
    assert_int_equal(r.said_count, said);
}

static void withdraw_asks_the_runner_for_what_it_was_handed_ahead(void **state)
{
    (void)state;
    restart((struct session_config){.slots = 1, .ahead = 10, .seed = 1});
    play_up(&r);
    play_tasks(&r, 1, 4);
    assert_int_equal(play_run_of(&r, RUN_START), 4);
    play_clear(&r);
    withdraw(1003);
    withdraw(1004);
    assert_int_equal(play_run_of(&r, RUN_REVOKE), 2);
    play_begin(&r);
    session_revoked(r.session, 1003, true);
    session_revoked(r.session, 1004, false);
    play_end(&r);
    assert_int_equal(play_first_said(&r, MSG_RETURNED)->lease, 1003);
    assert_int_equal(play_first_said(&r, MSG_STARTED)->lease, 1004);
    play_begin(&r);
    play_done(&r, 1003, 0); /* what was given back has no answer any more */
    play_done(&r, 1004, 0);
    play_end(&r);
    assert_int_equal(play_said_of(&r, MSG_TASK_DONE), 1);
}

static void cancel_drops_what_waits_and_stops_what_runs(void **state)
{
    (void)state;
    play_up(&r);
    play_tasks(&r, 1, 3);
    play_clear(&r);
    play_begin(&r);
    session_cancel(r.session, &(struct msg_cancel_task){.id = 1, .lease = 1001});
    session_cancel(r.session, &(struct msg_cancel_task){.id = 3, .lease = 1003});
    play_end(&r);
    assert_int_equal(play_run_of(&r, RUN_CANCEL), 1);
    assert_int_equal(r.runs[0].lease, 1001);
    assert_int_equal(play_first_said(&r, MSG_TASK_FAILED)->lease, 1003);
    assert_int_equal(play_first_said(&r, MSG_TASK_FAILED)->code, PUSHROD_E_TASK_CANCELLED);
}

static void an_action_names_its_task_though_it_ended_in_the_same_tick(void **state)
{
    (void)state;
    play_up(&r);
    play_tasks(&r, 1, 1);
    play_clear(&r);
    play_begin(&r);
    session_cancel(r.session, &(struct msg_cancel_task){.id = 1, .lease = 1001});
    play_done(&r, 1001, 0);
    struct msg_task m = {.id = 2, .lease = 1002, .queue = slice_str("q")};
    session_task(r.session, &m, NULL);
    play_end(&r);
    assert_int_equal(r.runs[0].lease, 1001);
    assert_int_equal(r.runs[1].lease, 1002);
}

static void a_large_result_comes_in_parts(void **state)
{
    (void)state;
    play_up(&r);
    play_tasks(&r, 1, 1);
    play_clear(&r);
    play_begin(&r);
    play_done(&r, 1001, 3 * 65536 + 10);
    play_end(&r);
    assert_int_equal(play_said_of(&r, MSG_PART), 3);
    assert_int_equal(play_first_said(&r, MSG_PART)->size, 65536);
    assert_int_equal(play_first_said(&r, MSG_TASK_DONE)->size, 10);
}

static void too_large_a_result_fails(void **state)
{
    (void)state;
    play_up(&r);
    play_tasks(&r, 1, 1);
    play_begin(&r);
    play_done(&r, 1001, (8 << 20) + 1);
    play_end(&r);
    assert_int_equal(play_first_said(&r, MSG_TASK_FAILED)->code, PUSHROD_E_RESULT_TOO_BIG);
}

static void a_broken_handler_is_not_served_any_more(void **state)
{
    (void)state;
    play_up(&r);
    play_tasks(&r, 1, 4);
    play_clear(&r);
    play_begin(&r);
    session_broken(r.session, 1001, slice_str("not found"));
    session_broken(r.session, 1002, slice_str("not found"));
    play_end(&r);
    assert_int_equal(play_said_of(&r, MSG_RETURNED), 4);
    assert_int_equal(r.said[0].code, PUSHROD_E_HANDLER_BROKEN);
    assert_int_equal(r.actions->state, SESSION_ACTIVE); /* mail.* is left */
}

/* ----------------------------------------------------------------------- answers */

static void finish(uint64_t first, size_t count, size_t size)
{
    for (uint64_t id = first; id < first + count; id++) {
        play_tasks(&r, id, 1);
        play_begin(&r);
        play_done(&r, id + 1000, size);
        play_end(&r);
    }
}

static void ack(uint64_t sequence)
{
    play_begin(&r);
    session_ack(r.session, sequence);
    play_end(&r);
}

static void renewed_connection_resends_in_order(void **state)
{
    (void)state;
    play_up(&r);
    finish(1, 4, 5); /* 2, 3, 4, 5 after READY */
    ack(3);
    play_clear(&r);
    play_begin(&r);
    session_answers_renewed(r.session);
    play_end(&r);
    assert_int_equal(r.said_count, 2);
    assert_int_equal(r.said[0].sequence, 4);
    assert_int_equal(r.said[0].id, 3);
    assert_int_equal(r.said[1].id, 4);
}

static void a_stalled_ack_resends_after_a_second(void **state)
{
    (void)state;
    play_up(&r);
    ack(1);
    finish(1, 2, 5);
    play_clear(&r);
    play_run_until(&r, r.ms + 900);
    assert_int_equal(play_said_of(&r, MSG_TASK_DONE), 0);
    play_run_until(&r, r.ms + 200);
    assert_int_equal(play_said_of(&r, MSG_TASK_DONE), 2);
    ack(3);
    play_clear(&r);
    play_run_until(&r, r.ms + 3000);
    assert_int_equal(play_said_of(&r, MSG_TASK_DONE), 0);
    assert_true(play_said_of(&r, MSG_HEARTBEAT) >= 2);
}

/* An idle worker: nothing to acknowledge, nothing to send again, and no number is used up. */
static void heartbeats_are_not_numbered_or_kept(void **state)
{
    (void)state;
    play_up(&r);
    ack(1);
    play_clear(&r);
    play_run_until(&r, r.ms + 4500);
    assert_int_equal(play_said_of(&r, MSG_HEARTBEAT), 4);
    assert_int_equal(r.said_count, 4);
    finish(1, 1, 5);
    assert_int_equal(r.said[r.said_count - 1].kind, MSG_TASK_DONE);
    assert_int_equal(r.said[r.said_count - 1].sequence, 2);
}

static void acks_of_what_was_never_sent_do_no_harm(void **state)
{
    (void)state;
    play_up(&r);
    finish(1, 2, 5);
    ack(1000000);
    ack(0);
    finish(3, 1, 5);
    assert_int_equal(r.said[r.said_count - 1].sequence, 4);
    assert_int_equal(r.said[r.said_count - 1].id, 3);
}

static void a_result_is_kept_until_its_last_part_is_acknowledged(void **state)
{
    (void)state;
    play_up(&r);
    finish(1, 1, 2 * 65536 + 1); /* sequence 2, 3, 4 */
    ack(3);
    play_clear(&r);
    play_begin(&r);
    session_lane_down(r.session);
    play_end(&r);
    play_run_until(&r, r.ms + 200);
    assert_int_equal(r.held_count, 1);
    assert_true(r.holds[0].answered);
    play_welcome(&r, (const uint8_t[]){VERDICT_SEND});
    play_hello(&r);
    assert_int_equal(play_said_of(&r, MSG_PART), 2);
    assert_int_equal(play_said_of(&r, MSG_TASK_DONE), 1);
    assert_int_equal(r.said[0].kind, MSG_READY);
    assert_int_equal(r.said[1].sequence, 2);
}

/* What is in flight is bounded, but a result that was begun goes on to its end. */
static void large_results_leave_in_frames_and_a_window(void **state)
{
    (void)state;
    play_up(&r);
    play_tasks(&r, 1, 2);
    play_clear(&r);
    play_begin(&r);
    play_done(&r, 1001, 6 << 20);
    play_done(&r, 1002, 6 << 20);
    play_end(&r);
    assert_true(r.actions->answers.size < (size_t)400 << 10);
    for (int i = 0; i < 100; i++)
        play_tick(&r);
    assert_int_equal(play_said_of(&r, MSG_TASK_DONE), 1);
    ack(r.said[r.said_count - 1].sequence);
    for (int i = 0; i < 100; i++)
        play_tick(&r);
    assert_int_equal(play_said_of(&r, MSG_TASK_DONE), 2);
}

static void too_much_kept_starts_nothing(void **state)
{
    (void)state;
    restart((struct session_config){.slots = 1, .keep_bytes = 1000, .seed = 1});
    play_up(&r);
    finish(1, 1, 2000);
    play_clear(&r);
    play_tasks(&r, 2, 1);
    assert_int_equal(r.run_count, 0);
    ack(2);
    assert_int_equal(play_run_of(&r, RUN_START), 1);
}

/* ------------------------------------------------------------------- coming back */

static void lose_server(void)
{
    unsigned joins = r.joins;
    play_begin(&r);
    session_lane_down(r.session);
    play_end(&r);
    assert_true(r.actions->disconnect);
    while (r.joins == joins)
        play_advance(&r, 1);
}

static void comes_back_with_what_it_holds(void **state)
{
    (void)state;
    play_up(&r);
    play_tasks(&r, 1, 4); /* 1 and 2 run, 3 and 4 wait */
    play_begin(&r);
    play_done(&r, 1001, 1);
    play_end(&r); /* 3 runs */
    lose_server();
    assert_int_equal(r.held_count, 4);
    assert_int_equal(r.holds[0].lease, 1001);
    assert_true(r.holds[0].answered);
    assert_int_equal(r.holds[1].lease, 1002);
    assert_true(r.holds[1].started && !r.holds[1].answered);
    assert_int_equal(r.holds[3].lease, 1004);
    assert_false(r.holds[3].started);
    play_clear(&r);
    play_welcome(&r, (const uint8_t[]){VERDICT_SEND, VERDICT_KEEP, VERDICT_CANCEL, VERDICT_CANCEL});
    assert_int_equal(play_run_of(&r, RUN_CANCEL), 1);
    assert_int_equal(r.runs[0].lease, 1003);
    play_hello(&r);
    assert_int_equal(play_first_said(&r, MSG_TASK_DONE)->lease, 1001);
    play_begin(&r);
    play_done(&r, 1002, 1);
    play_done(&r, 1003, 1); /* cancelled by verdict: nobody waits for it */
    play_end(&r);
    assert_int_equal(play_said_of(&r, MSG_TASK_DONE), 2);
    assert_int_equal(r.said[r.said_count - 1].lease, 1002);
}

static void answers_made_meanwhile_obey_the_verdict(void **state)
{
    (void)state;
    play_up(&r);
    play_tasks(&r, 1, 2);
    lose_server();
    play_begin(&r);
    play_done(&r, 1001, 1); /* between JOIN and WELCOME */
    play_done(&r, 1002, 1);
    play_end(&r);
    play_clear(&r);
    play_welcome(&r, (const uint8_t[]){VERDICT_CANCEL, VERDICT_KEEP});
    play_hello(&r);
    assert_int_equal(play_said_of(&r, MSG_TASK_DONE), 1);
    assert_int_equal(play_first_said(&r, MSG_TASK_DONE)->lease, 1002);
}

static void forgotten_answers_are_not_sent(void **state)
{
    (void)state;
    play_up(&r);
    finish(1, 2, 1);
    lose_server();
    play_clear(&r);
    play_welcome(&r, (const uint8_t[]){VERDICT_FORGET, VERDICT_SEND});
    play_hello(&r);
    assert_int_equal(play_said_of(&r, MSG_TASK_DONE), 1);
    assert_int_equal(play_first_said(&r, MSG_TASK_DONE)->lease, 1002);
}

static void a_silent_server_is_left(void **state)
{
    (void)state;
    play_up(&r);
    play_tasks(&r, 1, 1);
    uint64_t begin = r.ms;
    play_run_until(&r, begin + 14000);
    assert_int_equal(r.disconnects, 0);
    play_begin(&r);
    session_ping(r.session, 0);
    play_end(&r);
    play_run_until(&r, r.ms + 14900);
    assert_int_equal(r.disconnects, 0);
    play_run_until(&r, r.ms + 1200);
    assert_int_equal(r.disconnects, 1);
    assert_int_equal(r.held_count, 1); /* its task runs on */
    assert_int_equal(play_run_of(&r, RUN_CANCEL), 0);
}

static void superseded_is_over_any_other_fence_is_not(void **state)
{
    (void)state;
    play_up(&r);
    play_begin(&r);
    session_fenced(r.session, PUSHROD_E_TIMED_OUT);
    play_end(&r);
    assert_int_equal(r.actions->state, SESSION_IDLE);
    play_up(&r);
    play_begin(&r);
    session_fenced(r.session, PUSHROD_E_SUPERSEDED);
    play_end(&r);
    assert_int_equal(r.actions->state, SESSION_OVER);
    assert_int_equal(r.actions->code, PUSHROD_E_SUPERSEDED);
}

/* ----------------------------------------------------------------------- leaving */

static void drain_returns_finishes_and_says_bye(void **state)
{
    (void)state;
    play_up(&r);
    play_tasks(&r, 1, 4);
    play_clear(&r);
    play_begin(&r);
    session_drain(r.session, 0);
    play_end(&r);
    assert_int_equal(play_said_of(&r, MSG_RETURNED), 2);
    assert_int_equal(r.said[0].code, PUSHROD_E_DRAINING);
    assert_int_equal(r.actions->state, SESSION_DRAINING);
    play_tasks(&r, 9, 1); /* was on its way */
    assert_int_equal(play_said_of(&r, MSG_RETURNED), 3);
    play_begin(&r);
    play_done(&r, 1001, 1);
    play_done(&r, 1002, 1);
    play_end(&r);
    assert_int_equal(play_said_of(&r, MSG_BYE), 0); /* the server has to store them first */
    ack(r.said[r.said_count - 1].sequence);
    assert_int_equal(play_said_of(&r, MSG_BYE), 1);
    assert_int_equal(play_first_said(&r, MSG_BYE)->id, 3);
    play_begin(&r);
    session_lane_down(r.session);
    play_end(&r);
    assert_int_equal(r.actions->state, SESSION_OVER);
    assert_int_equal(r.actions->code, 0);
}

static void drain_does_not_wait_for_ever(void **state)
{
    (void)state;
    restart((struct session_config){.slots = 1, .drain_ms = 500, .seed = 1});
    play_up(&r);
    play_tasks(&r, 1, 1);
    play_begin(&r);
    session_drain(r.session, 0);
    play_end(&r);
    play_run_until(&r, r.ms + 400);
    assert_int_equal(r.actions->state, SESSION_DRAINING);
    play_run_until(&r, r.ms + 1700);
    assert_int_equal(r.actions->state, SESSION_OVER);
    assert_true(play_said_of(&r, MSG_BYE) >= 1);
}

static void quit_leaves_at_once(void **state)
{
    (void)state;
    restart((struct session_config){.slots = 1, .ahead = 4, .seed = 1});
    play_up(&r);
    play_tasks(&r, 1, 2);
    play_clear(&r);
    play_begin(&r);
    session_quit(r.session);
    play_end(&r);
    assert_int_equal(play_run_of(&r, RUN_REVOKE), 1);
    play_begin(&r);
    session_revoked(r.session, 1002, true);
    play_end(&r);
    assert_int_equal(play_said_of(&r, MSG_RETURNED), 1);
    assert_int_equal(play_said_of(&r, MSG_BYE), 1);
    play_run_until(&r, r.ms + 1100);
    assert_int_equal(r.actions->state, SESSION_OVER);
}

static void drain_without_a_server_ends_when_nothing_is_held(void **state)
{
    (void)state;
    play_up(&r);
    play_tasks(&r, 1, 1);
    lose_server();
    play_begin(&r);
    session_drain(r.session, 2000);
    play_end(&r);
    assert_int_not_equal(r.actions->state, SESSION_OVER);
    play_run_until(&r, r.ms + 2100);
    assert_int_equal(r.actions->state, SESSION_OVER);
}

static void recycles_after_its_tasks(void **state)
{
    (void)state;
    restart((struct session_config){.slots = 1, .max_tasks = 2, .seed = 1});
    play_up(&r);
    play_clear(&r);
    play_tasks(&r, 1, 4);
    play_begin(&r);
    play_done(&r, 1001, 0);
    play_end(&r);
    play_begin(&r);
    play_done(&r, 1002, 0);
    play_end(&r);
    assert_int_equal(play_run_of(&r, RUN_START), 2);
    assert_int_equal(play_said_of(&r, MSG_RETURNED), 2);
    ack(100);
    play_run_until(&r, r.ms + 1100);
    assert_int_equal(r.actions->state, SESSION_OVER);
    assert_true(r.actions->recycle);
}

/* ------------------------------------------------------------------------- speed */

/* Not a benchmark: only that nothing costs a hundred times what it should. */
static void a_task_costs_little(void **state)
{
    (void)state;
    restart((struct session_config){.slots = 1, .ahead = 1000, .seed = 1});
    play_up(&r);
    struct timespec from, to;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
    uint64_t id = 1, sequence = 1;
    for (unsigned round = 0; round < 2000; round++) {
        play_clear(&r);
        play_tasks(&r, id, 100);
        session_begin(r.session, (struct now){.mono_ns = r.ms * 1000000});
        for (uint64_t i = id; i < id + 100; i++)
            play_done(&r, i + 1000, 8);
        sequence += 100;
        session_end(r.session);
        session_begin(r.session, (struct now){.mono_ns = r.ms * 1000000});
        session_ack(r.session, sequence);
        session_end(r.session);
        id += 100;
    }
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
    double ns = (double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec);
    print_message("%.0f ns of the session for each task\n", ns / 200000);
    assert_true(ns / 200000 < 10000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(joins_again_with_a_new_nonce_and_growing_pauses),
        TEST(welcome_of_another_try_is_ignored),
        TEST(ready_is_the_first_answer),
        TEST(before_the_hello_nothing_counts),
        TEST(refused_for_good_is_over),
        TEST(refused_for_now_tries_again),
        TEST(a_lane_that_stays_silent_is_given_up),
        TEST(starts_up_to_its_slots),
        TEST(short_tasks_say_only_done),
        TEST(withdraw_gives_back_what_waits),
        TEST(withdraw_asks_the_runner_for_what_it_was_handed_ahead),
        TEST(cancel_drops_what_waits_and_stops_what_runs),
        TEST(an_action_names_its_task_though_it_ended_in_the_same_tick),
        TEST(a_large_result_comes_in_parts),
        TEST(too_large_a_result_fails),
        TEST(a_broken_handler_is_not_served_any_more),
        TEST(renewed_connection_resends_in_order),
        TEST(a_stalled_ack_resends_after_a_second),
        TEST(heartbeats_are_not_numbered_or_kept),
        TEST(acks_of_what_was_never_sent_do_no_harm),
        TEST(a_result_is_kept_until_its_last_part_is_acknowledged),
        TEST(large_results_leave_in_frames_and_a_window),
        TEST(too_much_kept_starts_nothing),
        TEST(comes_back_with_what_it_holds),
        TEST(answers_made_meanwhile_obey_the_verdict),
        TEST(forgotten_answers_are_not_sent),
        TEST(a_silent_server_is_left),
        TEST(superseded_is_over_any_other_fence_is_not),
        TEST(drain_returns_finishes_and_says_bye),
        TEST(drain_does_not_wait_for_ever),
        TEST(quit_leaves_at_once),
        TEST(drain_without_a_server_ends_when_nothing_is_held),
        TEST(recycles_after_its_tasks),
        TEST(a_task_costs_little),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
