/* SPDX-License-Identifier: Apache-2.0 */
/* The worker's session and its server: joining, coming back, leaving. */
#include "tests/unit/session_fixture.h"

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
    assert_null(r.actions->text); /* the program says it when it ends */
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

/* 2^58 ms are 0 ns in 64 bits. */
static void a_heartbeat_of_ages_is_an_hour(void **state)
{
    (void)state;
    r.heartbeat_ms = UINT64_C(1) << 58;
    play_up(&r);
    play_run_until(&r, r.ms + 10000);
    assert_int_equal(r.actions->state, SESSION_ACTIVE);
    assert_int_equal(play_said_of(&r, MSG_HEARTBEAT), 0);
}

static void be_pinged(bool beat, uint64_t next_ms)
{
    play_begin(&r);
    session_ping(r.session, 0, beat, next_ms);
    play_end(&r);
}

static size_t beats_after_ping(bool beat, uint64_t ms)
{
    size_t before = play_said_of(&r, MSG_HEARTBEAT);
    be_pinged(beat, 5000);
    play_run_until(&r, r.ms + ms);
    return play_said_of(&r, MSG_HEARTBEAT) - before;
}

static void told_to_be_quiet_it_answers_pings_only(void **state)
{
    (void)state;
    play_up(&r);
    for (unsigned pings = 0; pings < 3; pings++)
        assert_int_equal(beats_after_ping(false, 10000), 1);
    assert_in_range(beats_after_ping(true, 3000), 2, 4);
    assert_int_equal(r.disconnects, 0);
}

/* ------------------------------------------------------------------- coming back */

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
    be_pinged(true, 5000);
    play_run_until(&r, r.ms + 14900);
    assert_int_equal(r.disconnects, 0);
    play_run_until(&r, r.ms + 1200);
    assert_int_equal(r.disconnects, 1);
    assert_int_equal(r.held_count, 1); /* its task runs on */
    assert_int_equal(play_run_of(&r, RUN_CANCEL), 0);
}

static void a_server_that_said_so_may_be_silent_for_longer(void **state)
{
    (void)state;
    play_up(&r);
    be_pinged(false, 20000);
    play_run_until(&r, r.ms + 29900);
    assert_int_equal(r.disconnects, 0);
    play_run_until(&r, r.ms + 1200);
    assert_int_equal(r.disconnects, 1);
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
    restart((struct session_config){.slots = 1, .drain_ms = 500, .signals = true, .seed = 1});
    play_up(&r);
    play_tasks(&r, 1, 1);
    play_begin(&r);
    session_drain(r.session, 0);
    play_end(&r);
    assert_string_equal(r.actions->text,
        "draining: 1 task runs, for 0.5 s at the most; a second SIGTERM leaves at once");
    play_run_until(&r, r.ms + 400);
    assert_int_equal(r.actions->state, SESSION_DRAINING);
    play_run_until(&r, r.ms + 1700);
    assert_int_equal(r.actions->state, SESSION_OVER);
    assert_true(play_said_of(&r, MSG_BYE) >= 1);
}

static void told_to_drain(uint64_t limit_ms, bool again)
{
    play_begin(&r);
    session_told_to_drain(r.session, &(struct msg_drain){limit_ms, again});
    play_end(&r);
}

static void who_asks_it_to_leave_is_told(void **state)
{
    (void)state;
    play_up(&r);
    play_tasks(&r, 1, 3);
    told_to_drain(3000, false);
    assert_string_equal(r.actions->text,
        "the server has this worker drained (pushrod drain): 2 tasks run, for 3 s at the most");
}

static void a_server_that_stops_takes_no_worker_along(void **state)
{
    (void)state;
    play_up(&r);
    play_tasks(&r, 1, 3);
    play_clear(&r);
    told_to_drain(100, true);
    assert_int_equal(play_said_of(&r, MSG_RETURNED), 1);
    play_run_until(&r, r.ms + 500); /* its limit is not ours */
    assert_int_equal(play_said_of(&r, MSG_BYE), 0);
    play_begin(&r);
    play_done(&r, 1001, 1);
    play_done(&r, 1002, 1);
    play_end(&r);
    ack(r.said[r.said_count - 1].sequence);
    assert_int_equal(play_said_of(&r, MSG_BYE), 1);
    ack(r.said[r.said_count - 1].sequence);
    assert_int_equal(r.actions->state, SESSION_IDLE);
    play_up(&r);
    play_clear(&r);
    play_tasks(&r, 11, 1);
    assert_int_equal(play_run_of(&r, RUN_START), 1);
}

/* Its end came before the tasks': they go on, and the next server is told of them. */
static void a_server_that_stops_may_be_faster(void **state)
{
    (void)state;
    play_up(&r);
    play_tasks(&r, 1, 1);
    told_to_drain(100, true);
    lose_server();
    assert_int_equal(r.held_count, 1);
    play_welcome(&r, (uint8_t[]){VERDICT_KEEP});
    play_hello(&r);
    play_clear(&r);
    play_tasks(&r, 11, 1);
    assert_int_equal(play_said_of(&r, MSG_RETURNED), 0);
}

static void who_is_told_to_leave_as_well_leaves(void **state)
{
    (void)state;
    play_up(&r);
    play_tasks(&r, 1, 1);
    told_to_drain(100, true);
    play_begin(&r);
    session_drain(r.session, 0);
    play_done(&r, 1001, 1);
    play_end(&r);
    ack(r.said[r.said_count - 1].sequence);
    assert_int_equal(play_said_of(&r, MSG_BYE), 1);
    ack(r.said[r.said_count - 1].sequence);
    assert_int_equal(r.actions->state, SESSION_OVER);
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

/* What was handed over is not yet run, and may be asked back: it counts once it runs. */
static void it_recycles_after_what_it_has_run(void **state)
{
    (void)state;
    restart((struct session_config){.slots = 1, .ahead = 2, .max_tasks = 3, .seed = 1});
    play_up(&r);
    play_clear(&r);
    play_tasks(&r, 1, 3);
    assert_int_equal(play_run_of(&r, RUN_START), 3);
    assert_int_equal(play_run_of(&r, RUN_REVOKE), 0);
    /* The third is given back, and another one comes in its place. */
    play_begin(&r);
    session_withdraw(r.session, &(struct msg_withdraw){.id = 3, .lease = 1003});
    play_end(&r);
    play_begin(&r);
    session_revoked(r.session, 1003, true);
    play_end(&r);
    play_tasks(&r, 4, 1);
    for (uint64_t lease = 1001; lease <= 1004; lease++) {
        if (lease == 1003)
            continue;
        play_begin(&r);
        play_done(&r, lease, 0);
        play_end(&r);
    }
    assert_int_equal(play_said_of(&r, MSG_TASK_DONE), 3);
    assert_int_equal(play_said_of(&r, MSG_RETURNED), 1);
    ack(100);
    play_run_until(&r, r.ms + 1100);
    assert_int_equal(r.actions->state, SESSION_OVER);
    assert_true(r.actions->recycle);
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
        TEST(a_heartbeat_of_ages_is_an_hour),
        TEST(told_to_be_quiet_it_answers_pings_only),
        TEST(comes_back_with_what_it_holds),
        TEST(answers_made_meanwhile_obey_the_verdict),
        TEST(forgotten_answers_are_not_sent),
        TEST(a_silent_server_is_left),
        TEST(a_server_that_said_so_may_be_silent_for_longer),
        TEST(superseded_is_over_any_other_fence_is_not),
        TEST(drain_returns_finishes_and_says_bye),
        TEST(drain_does_not_wait_for_ever),
        TEST(who_asks_it_to_leave_is_told),
        TEST(a_server_that_stops_takes_no_worker_along),
        TEST(a_server_that_stops_may_be_faster),
        TEST(who_is_told_to_leave_as_well_leaves),
        TEST(quit_leaves_at_once),
        TEST(drain_without_a_server_ends_when_nothing_is_held),
        TEST(recycles_after_its_tasks),
        TEST(it_recycles_after_what_it_has_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
