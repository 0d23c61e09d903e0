/* SPDX-License-Identifier: Apache-2.0 */
/* What a worker gives back, by handlers that are broken and between two sessions; and whether
 * another process takes its place. */
#include "tests/unit/session_fixture.h"

static void broken(uint64_t lease)
{
    play_begin(&r);
    session_broken(r.session, lease, slice_str("not found"));
    play_end(&r);
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

/* The runner has chosen among all patterns: a broken one leaves nothing to a broader one. */
static void a_broken_handler_takes_no_broader_one_along(void **state)
{
    (void)state;
    play_up(&r);
    play_begin(&r);
    for (uint64_t id = 1; id <= 4; id++)
        play_task_of(&r, "mail.x", id);
    play_task_of(&r, "mail.y", 5);
    play_end(&r);
    play_clear(&r);
    broken(1001); /* 2 runs; 3 and 4 wait, and are given back at once */
    assert_int_equal(play_said_of(&r, MSG_RETURNED), 3);
    broken(1002);
    assert_int_equal(play_said_of(&r, MSG_RETURNED), 4);
    assert_int_equal(play_run_of(&r, RUN_START), 1);
    play_begin(&r);
    play_done(&r, 1005, 1);
    play_end(&r);
    assert_int_equal(play_said_of(&r, MSG_TASK_DONE), 1);
}

/* A JOIN names mail.*, and cannot say that mail.x is none of them. */
static void what_is_broken_stays_broken_after_the_next_join(void **state)
{
    (void)state;
    play_up(&r);
    assert_int_equal(r.queue_count, 3);
    play_begin(&r);
    play_task_of(&r, "mail.x", 1);
    play_end(&r);
    broken(1001);
    lose_server();
    assert_int_equal(r.queue_count, 2);
    play_welcome(&r, NULL);
    play_hello(&r);
    play_clear(&r);
    play_begin(&r);
    play_task_of(&r, "mail.x", 2);
    play_task_of(&r, "mail.z", 3);
    play_end(&r);
    assert_int_equal(play_first_said(&r, MSG_RETURNED)->lease, 1002);
    assert_int_equal(play_first_said(&r, MSG_RETURNED)->code, PUSHROD_E_HANDLER_BROKEN);
    assert_int_equal(r.run_count, 1);
    assert_int_equal(r.runs[0].lease, 1003);
}

/* The JOIN has named it: if it is to be KEPT, somebody waits for its answer. */
static void what_breaks_while_it_joins_is_given_back_if_it_is_kept(void **state)
{
    (void)state;
    play_up(&r);
    play_tasks(&r, 1, 2);
    lose_server();
    broken(1001); /* between JOIN and WELCOME */
    play_welcome(&r, (const uint8_t[]){VERDICT_KEEP, VERDICT_KEEP});
    broken(1002); /* between WELCOME and LANE_HELLO */
    play_clear(&r);
    play_hello(&r);
    assert_int_equal(r.said[0].kind, MSG_READY);
    assert_int_equal(play_said_of(&r, MSG_RETURNED), 2);
    assert_int_equal(r.said[1].lease, 1001);
    assert_int_equal(r.said[1].code, PUSHROD_E_HANDLER_BROKEN);
    assert_int_equal(r.said[2].lease, 1002);
}

static void what_breaks_while_it_joins_is_not_given_back_if_it_is_cancelled(void **state)
{
    (void)state;
    play_up(&r);
    play_tasks(&r, 1, 1);
    lose_server();
    broken(1001);
    play_welcome(&r, (const uint8_t[]){VERDICT_CANCEL});
    play_hello(&r);
    assert_int_equal(play_said_of(&r, MSG_RETURNED), 0);
}

/* What the next JOIN does not name the server hands to others. */
static void what_breaks_between_two_tries_is_named_by_none(void **state)
{
    (void)state;
    play_up(&r);
    play_tasks(&r, 1, 2);
    play_begin(&r);
    session_lane_down(r.session);
    play_end(&r);
    broken(1001); /* it pauses */
    while (r.joins < 2)
        play_advance(&r, 1);
    assert_int_equal(r.held_count, 1);
    broken(1002); /* it joins, and nobody answers */
    while (r.joins < 3)
        play_advance(&r, 1);
    assert_int_equal(r.held_count, 0);
    play_clear(&r);
    play_welcome(&r, NULL);
    play_hello(&r);
    assert_int_equal(play_said_of(&r, MSG_RETURNED), 0);
}

static void what_has_not_begun_when_it_is_told_to_leave_while_it_joins_is_given_back(void **state)
{
    (void)state;
    play_up(&r);
    play_tasks(&r, 1, 4); /* 1 and 2 run, 3 and 4 wait */
    lose_server();
    play_begin(&r);
    session_drain(r.session, 0);
    play_end(&r);
    play_welcome(&r, (const uint8_t[]){VERDICT_KEEP, VERDICT_KEEP, VERDICT_KEEP, VERDICT_KEEP});
    play_clear(&r);
    play_hello(&r);
    assert_int_equal(play_said_of(&r, MSG_RETURNED), 2);
    assert_int_equal(play_first_said(&r, MSG_RETURNED)->lease, 1003);
    assert_int_equal(play_first_said(&r, MSG_RETURNED)->code, PUSHROD_E_DRAINING);
    play_begin(&r);
    play_done(&r, 1001, 1);
    play_done(&r, 1002, 1);
    play_end(&r);
    ack(100);
    assert_int_equal(play_first_said(&r, MSG_BYE)->id, 2); /* it knows how many it gave back */
}

/* A handler that hangs, or too much memory: the process is to be replaced. */
static void it_is_replaced_if_it_was_not_told_to_leave(void **state)
{
    (void)state;
    play_up(&r);
    assert_false(session_leaves(r.session));
    play_begin(&r);
    assert_true(session_recycle(r.session, 100));
    assert_false(session_recycle(r.session, 100)); /* it does already */
    play_end(&r);
    assert_true(session_leaves(r.session));
    play_run_until(&r, r.ms + 2000);
    assert_int_equal(r.actions->state, SESSION_OVER);
    assert_true(r.actions->recycle);
}

/* The operator takes it out: it does not come back, whatever else happens to it, and when. */
static void who_was_told_to_leave_is_not_replaced(void **state)
{
    (void)state;
    for (unsigned first = 0; first < 2; first++) {
        restart((struct session_config){.slots = 2, .seed = 1});
        play_up(&r);
        play_begin(&r);
        if (first)
            session_recycle(r.session, 100);
        session_told_to_drain(r.session, &(struct msg_drain){.limit_ms = 100});
        if (!first)
            assert_false(session_recycle(r.session, 100));
        play_end(&r);
        play_run_until(&r, r.ms + 2000);
        assert_int_equal(r.actions->state, SESSION_OVER);
        assert_false(r.actions->recycle);
    }
}

static void the_join_connection_is(bool up)
{
    play_begin(&r);
    if (up)
        session_join_up(r.session);
    else
        session_join_down(r.session);
    play_end(&r);
}

/* Over a long way, or a slow one, no WELCOME can be there within a second, however often it is
 * asked for. It is waited for while somebody is there who may send it. */
static void a_welcome_may_be_long_in_coming(void **state)
{
    (void)state;
    play_tick(&r);
    play_run_until(&r, r.ms + 900);
    the_join_connection_is(true);
    play_run_until(&r, r.ms + 7900);
    assert_int_equal(r.joins, 1);
    the_join_connection_is(false);
    assert_int_equal(r.actions->state, SESSION_IDLE);
    play_run_until(&r, r.ms + 100);
    assert_int_equal(r.joins, 2);
    the_join_connection_is(true);
    play_welcome(&r, NULL);
    assert_int_equal(r.connects, 1);
    the_join_connection_is(false);
    assert_int_equal(r.actions->state, SESSION_CONNECTING);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_welcome_may_be_long_in_coming),
        TEST(a_broken_handler_is_not_served_any_more),
        TEST(a_broken_handler_takes_no_broader_one_along),
        TEST(what_is_broken_stays_broken_after_the_next_join),
        TEST(what_breaks_while_it_joins_is_given_back_if_it_is_kept),
        TEST(what_breaks_while_it_joins_is_not_given_back_if_it_is_cancelled),
        TEST(what_breaks_between_two_tries_is_named_by_none),
        TEST(what_has_not_begun_when_it_is_told_to_leave_while_it_joins_is_given_back),
        TEST(it_is_replaced_if_it_was_not_told_to_leave),
        TEST(who_was_told_to_leave_is_not_replaced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
