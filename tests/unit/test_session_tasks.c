/* SPDX-License-Identifier: Apache-2.0 */
/* The worker's session and its tasks: starting, withdrawal, answers and their ACKs. */
#include "tests/unit/session_fixture.h"

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
    play_run_until(&r, r.ms + 4);
    assert_int_equal(play_said_of(&r, MSG_STARTED), 0);
    play_run_until(&r, r.ms + 2); /* the other one goes on */
    assert_int_equal(play_said_of(&r, MSG_STARTED), 1);
    assert_int_equal(play_first_said(&r, MSG_STARTED)->lease, 1002);
    play_run_until(&r, r.ms + 100);
    assert_int_equal(play_said_of(&r, MSG_STARTED), 1);
}

/* Its bytes keep others off the lane until then. */
static void a_large_task_says_sooner_that_it_runs(void **state)
{
    (void)state;
    struct body *body = body_copy("payload", 7);
    assert_non_null(body);
    struct msg_task m = {
        .id = 1, .lease = 1001, .queue = slice_str("q"), .attempt = 1, .payload = body_slice(body)};
    play_up(&r);
    play_begin(&r);
    session_task(r.session, &m, body);
    play_end(&r);
    body_unref(body);
    play_run_until(&r, r.ms + 2);
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
    /* A frame arrives as a whole, and is a sign of life: over a slow link only if it is small. */
    assert_int_equal(play_said_of(&r, MSG_PART), 2);
    play_run_until(&r, r.ms);
    assert_int_equal(play_said_of(&r, MSG_PART), 6);
    assert_int_equal(play_first_said(&r, MSG_PART)->size, 32768);
    assert_int_equal(play_first_said(&r, MSG_TASK_DONE)->size, 10);
}

/* There no link is slow, and each frame wakes the server up. */
static void on_one_host_it_is_one_frame(void **state)
{
    (void)state;
    play_up(&r);
    play_tasks(&r, 1, 1);
    session_near(r.session, true);
    play_begin(&r);
    play_done(&r, 1001, 3 * 65536 + 10);
    play_end(&r);
    assert_int_equal(play_said_of(&r, MSG_PART), 3);
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

/* ----------------------------------------------------------------------- answers */

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
    assert_int_equal(play_said_of(&r, MSG_TASK_DONE), 1);
    assert_int_equal(play_first_said(&r, MSG_TASK_DONE)->sequence, 2);
    ack(2); /* it was missing: so was the other one */
    assert_int_equal(play_said_of(&r, MSG_TASK_DONE), 2);
    assert_int_equal(r.said[r.said_count - 1].sequence, 3);
    ack(3);
    play_clear(&r);
    play_run_until(&r, r.ms + 3000);
    assert_int_equal(play_said_of(&r, MSG_TASK_DONE), 0);
    assert_true(play_said_of(&r, MSG_HEARTBEAT) >= 2);
}

/* A slow connection has it all yet: it would only grow. Nobody acknowledges for a minute. */
static void what_a_slow_connection_has_is_sent_again_ever_more_seldom(void **state)
{
    (void)state;
    play_up(&r);
    ack(1);
    finish(1, 1, (size_t)2 << 20);
    play_run_until(&r, r.ms);
    size_t parts = play_said_of(&r, MSG_PART);
    assert_int_equal(parts, 63);
    for (unsigned i = 0; i < 60; i++) {
        play_run_until(&r, r.ms + 1000);
        play_begin(&r);
        session_ping(r.session, 0, true, 5000);
        play_end(&r);
    }
    assert_in_range(play_said_of(&r, MSG_PART), parts + 1, parts + 6);
    play_clear(&r);
    play_begin(&r);
    session_answers_renewed(r.session); /* then all of it was lost */
    play_end(&r);
    play_run_until(&r, r.ms);
    assert_int_equal(play_said_of(&r, MSG_PART), parts);
}

/* It is acknowledged frame by frame: each of them takes longer than the second. */
static void a_slow_connection_that_moves_is_not_filled(void **state)
{
    (void)state;
    play_up(&r);
    ack(1);
    finish(1, 1, (size_t)2 << 20);
    play_run_until(&r, r.ms);
    size_t parts = play_said_of(&r, MSG_PART);
    for (uint64_t sequence = 3; sequence < 65; sequence += 2) {
        play_run_until(&r, r.ms + 1300);
        ack(sequence);
    }
    assert_in_range(play_said_of(&r, MSG_PART), parts + 1, parts + 2);
    ack(65);
    finish(2, 1, 5); /* all was acknowledged: this one is sent again after a second */
    play_clear(&r);
    play_run_until(&r, r.ms + 1100);
    assert_int_equal(play_said_of(&r, MSG_TASK_DONE), 1);
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
    finish(1, 1, 65536 + 1); /* sequence 2, 3, 4 */
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
    play_run_until(&r, r.ms);
    assert_int_equal(play_said_of(&r, MSG_PART), 2);
    assert_int_equal(play_said_of(&r, MSG_TASK_DONE), 1);
    assert_int_equal(r.said[0].kind, MSG_READY);
    assert_int_equal(r.said[1].sequence, 2);
}

/* What is in flight is bounded, but on one host a result that was begun goes on to its end. */
static void large_results_leave_in_frames_and_a_window(void **state)
{
    (void)state;
    play_up(&r);
    session_near(r.session, true);
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

/* ------------------------------------------------------------------------- a long life */

/* 200,000 tasks later it holds no more than at the beginning. */
static void what_was_acknowledged_is_forgotten(void **state)
{
    (void)state;
    restart((struct session_config){.slots = 1, .ahead = 1000, .seed = 1});
    play_up(&r);
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
    unsigned joins = r.joins;
    play_begin(&r);
    session_lane_down(r.session);
    play_end(&r);
    while (r.joins == joins)
        play_advance(&r, 100);
    assert_int_equal(r.held_count, 0);
}

static void progress(uint64_t lease, uint64_t done)
{
    session_progress(r.session, lease, done, 1000, slice_str("on its way"));
}

static void of_progress_the_last_word_is_told(void **state)
{
    (void)state;
    play_up(&r);
    play_tasks(&r, 1, 2);
    play_run_until(&r, r.ms + 50);
    play_clear(&r);
    for (uint64_t ms = 0; ms < 500; ms++) {
        play_begin(&r);
        for (uint64_t i = 0; i < 10; i++)
            progress(1001, ms);
        play_end(&r);
        play_run_until(&r, r.ms + 1);
    }
    assert_in_range(play_said_of(&r, MSG_PROGRESS), 24, 26);
    play_run_until(&r, r.ms + 50);
    play_clear(&r);
    for (uint64_t i = 0; i < 2; i++) {
        play_begin(&r);
        progress(1002, i);
        play_end(&r);
    }
    assert_int_equal(play_said_of(&r, MSG_PROGRESS), 1);
    play_run_until(&r, r.ms + 50);
    assert_int_equal(play_said_of(&r, MSG_PROGRESS), 2);
    play_begin(&r);
    progress(1002, 3);
    progress(1002, 4);
    play_done(&r, 1002, 0);
    play_end(&r);
    assert_int_equal(play_said_of(&r, MSG_PROGRESS), 4); /* before the end, what was held back */
    assert_int_equal(r.said[r.said_count - 1].kind, MSG_TASK_DONE);
}

static void what_waits_to_be_sent_holds_the_runner(void **state)
{
    (void)state;
    static const uint8_t chunk[65536];
    play_up(&r);
    session_near(r.session, true);
    play_tasks(&r, 1, 1);
    size_t chunks = 0;
    do {
        assert_true(chunks++ < 400);
        play_begin(&r);
        session_data(r.session, 1001, slice_of(chunk, sizeof chunk));
        play_end(&r);
    } while (!r.actions->full);
    assert_true(chunks > 128);
    uint64_t last = r.said[r.said_count - 1].sequence;
    play_begin(&r);
    session_ack(r.session, last);
    play_end(&r);
    for (int i = 0; i < 20 && r.actions->full; i++)
        play_tick(&r);
    assert_false(r.actions->full);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(starts_up_to_its_slots),
        TEST(short_tasks_say_only_done),
        TEST(a_large_task_says_sooner_that_it_runs),
        TEST(withdraw_gives_back_what_waits),
        TEST(withdraw_asks_the_runner_for_what_it_was_handed_ahead),
        TEST(cancel_drops_what_waits_and_stops_what_runs),
        TEST(an_action_names_its_task_though_it_ended_in_the_same_tick),
        TEST(a_large_result_comes_in_parts),
        TEST(on_one_host_it_is_one_frame),
        TEST(too_large_a_result_fails),
        TEST(renewed_connection_resends_in_order),
        TEST(a_stalled_ack_resends_after_a_second),
        TEST(what_a_slow_connection_has_is_sent_again_ever_more_seldom),
        TEST(a_slow_connection_that_moves_is_not_filled),
        TEST(heartbeats_are_not_numbered_or_kept),
        TEST(acks_of_what_was_never_sent_do_no_harm),
        TEST(a_result_is_kept_until_its_last_part_is_acknowledged),
        TEST(large_results_leave_in_frames_and_a_window),
        TEST(too_much_kept_starts_nothing),
        TEST(what_was_acknowledged_is_forgotten),
        TEST(of_progress_the_last_word_is_told),
        TEST(what_waits_to_be_sent_holds_the_runner),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
