/* SPDX-License-Identifier: Apache-2.0 */
/* The worker's session and what is large: payloads come in pieces, and results leave in pieces. */
#include "tests/unit/session_fixture.h"

/* Within a tick. The payload of these is 10 bytes. */
static void partial_task(uint64_t id)
{
    session_task(r.session,
        &(struct msg_task){.id = id,
            .lease = id + 1000,
            .queue = slice_str("q"),
            .attempt = 1,
            .payload = slice_str("12"),
            .rest = 8},
        NULL);
}

static void piece(uint64_t lease, const char *data)
{
    play_begin(&r);
    session_payload(r.session, lease, slice_str(data));
    play_end(&r);
}

static void a_payload_in_pieces_runs_when_it_is_whole(void **state)
{
    (void)state;
    play_up(&r);
    play_clear(&r);
    play_begin(&r);
    partial_task(1);
    play_end(&r);
    piece(1001, "34567");
    piece(1999, "of what was given back");
    assert_int_equal(play_run_of(&r, RUN_START), 0);
    piece(1001, "890");
    assert_int_equal(play_run_of(&r, RUN_START), 1);
    const struct attempt *attempt = r.actions->run[0].attempt;
    assert_int_equal(attempt->lease, 1001);
    assert_true(slice_equal(attempt->payload, slice_str("1234567890")));
    piece(1001, "1"); /* it is whole */
    assert_int_equal(r.actions->state, SESSION_ACTIVE);
}

/* The server takes the first two of these to run. */
static void who_waits_for_its_payload_keeps_its_slot(void **state)
{
    (void)state;
    restart((struct session_config){.slots = 2, .ahead = 10, .seed = 1});
    play_up(&r);
    play_clear(&r);
    play_begin(&r);
    partial_task(1);
    play_task_of(&r, "q", 2);
    play_task_of(&r, "q", 3);
    play_end(&r);
    assert_int_equal(play_run_of(&r, RUN_START), 1);
    assert_int_equal(r.runs[0].lease, 1002);
    play_begin(&r);
    play_done(&r, 1002, 0);
    play_end(&r);
    assert_int_equal(play_run_of(&r, RUN_START), 2);
    assert_int_equal(r.runs[1].lease, 1003);
    piece(1001, "34567890");
    assert_int_equal(play_run_of(&r, RUN_START), 3);
    assert_int_equal(r.runs[2].lease, 1001);
}

static void what_has_not_come_whole_is_given_back(void **state)
{
    (void)state;
    play_up(&r);
    play_clear(&r);
    play_begin(&r);
    partial_task(1);
    partial_task(2);
    session_withdraw(r.session, &(struct msg_withdraw){.id = 1, .lease = 1001});
    session_cancel(r.session, &(struct msg_cancel_task){.id = 2, .lease = 1002});
    play_end(&r);
    assert_int_equal(play_first_said(&r, MSG_RETURNED)->lease, 1001);
    assert_int_equal(play_first_said(&r, MSG_TASK_FAILED)->lease, 1002);
}

/* The rest of it was on the lane. Claimed as held, it would never run. */
static void what_has_not_come_whole_is_not_held(void **state)
{
    (void)state;
    play_up(&r);
    play_begin(&r);
    partial_task(1);
    play_task_of(&r, "q", 2);
    play_end(&r);
    play_begin(&r);
    session_lane_down(r.session);
    play_end(&r);
    play_run_until(&r, r.ms + 1000);
    assert_int_equal(r.held_count, 1);
    assert_int_equal(r.holds[0].lease, 1002);
}

static void more_than_the_payload_ends_the_session(void **state)
{
    (void)state;
    play_up(&r);
    play_begin(&r);
    partial_task(1);
    play_end(&r);
    piece(1001, "345678901");
    assert_true(r.actions->disconnect);
    assert_non_null(strstr(r.actions->text, "more of a payload"));
}

static void a_payload_without_memory_is_given_back(void **state)
{
    struct msg_task m = {
        .id = 1, .lease = 1001, .queue = slice_str("q"), .attempt = 1, .rest = INT64_MAX};
    (void)state;
    play_up(&r);
    play_begin(&r);
    session_task(r.session, &m, NULL);
    play_end(&r);
    assert_int_equal(play_first_said(&r, MSG_RETURNED)->code, PUSHROD_E_NO_MEMORY);
}

/* Two tasks run; the first one has ended, with a large result, and a frame of it was sent. */
static void large_result(size_t size)
{
    play_up(&r);
    play_tasks(&r, 1, 2);
    play_clear(&r);
    play_begin(&r);
    play_done(&r, 1001, size);
    play_end(&r);
    assert_int_equal(play_said_of(&r, MSG_PART), 2);
}

static void small_result(void)
{
    play_begin(&r);
    play_done(&r, 1002, 5);
    play_end(&r);
}

static void what_is_small_passes_a_large_result(void **state)
{
    (void)state;
    large_result(1 << 20);
    small_result();
    assert_int_equal(play_first_said(&r, MSG_TASK_DONE)->lease, 1002);
    assert_int_equal(play_said_of(&r, MSG_PART), 2);
    play_run_until(&r, r.ms);
    assert_int_equal(play_said_of(&r, MSG_TASK_DONE), 2);
    assert_int_equal(play_said_of(&r, MSG_PART), 31);
    for (size_t i = 1; i < r.said_count; i++)
        assert_int_equal(r.said[i].sequence, r.said[i - 1].sequence + 1);
}

/* Its slot is not the only one: what ends in the others is still taken from the runner. */
static void a_large_result_does_not_hold_the_runner(void **state)
{
    (void)state;
    large_result(6 << 20);
    session_room(r.session, false);
    play_begin(&r);
    play_done(&r, 1002, 6 << 20);
    play_end(&r);
    assert_false(r.actions->full);
}

/* The link has as much of it as is to be on its way. */
static void without_room_nothing_large_follows(void **state)
{
    (void)state;
    large_result(1 << 20);
    session_room(r.session, false);
    small_result();
    play_run_until(&r, r.ms + 10);
    assert_int_equal(play_said_of(&r, MSG_PART), 2);
    assert_int_equal(play_said_of(&r, MSG_TASK_DONE), 1);
    session_room(r.session, true);
    play_run_until(&r, r.ms + 10);
    assert_int_equal(play_said_of(&r, MSG_TASK_DONE), 2);
}

static void what_is_not_acknowledged_is_bounded(void **state)
{
    (void)state;
    large_result(6 << 20);
    play_run_until(&r, r.ms);
    size_t parts = play_said_of(&r, MSG_PART);
    assert_in_range(parts, 128, 130); /* 4 MiB */
    small_result();
    assert_int_equal(play_said_of(&r, MSG_TASK_DONE), 0);
    ack(r.said[parts - 1].sequence);
    play_run_until(&r, r.ms);
    assert_int_equal(play_said_of(&r, MSG_TASK_DONE), 2);
}

/* The server may lose what it has of a result; what it has stored beside that is not said again. */
static void a_result_that_others_pass_begins_anew(void **state)
{
    (void)state;
    large_result(1 << 20);
    session_room(r.session, false);
    small_result();
    ack(r.said[r.said_count - 1].sequence);
    play_begin(&r);
    session_lane_down(r.session);
    play_end(&r);
    play_run_until(&r, r.ms + 1000);
    assert_int_equal(r.held_count, 1);
    assert_int_equal(r.holds[0].lease, 1001);
    assert_true(r.holds[0].answered);
    play_welcome(&r, (const uint8_t[]){VERDICT_SEND});
    session_room(r.session, true);
    play_clear(&r);
    play_hello(&r);
    play_run_until(&r, r.ms);
    assert_int_equal(play_said_of(&r, MSG_PART), 31);
    assert_int_equal(play_said_of(&r, MSG_TASK_DONE), 1);
    ack(r.said[r.said_count - 1].sequence);
    play_begin(&r);
    session_lane_down(r.session);
    play_end(&r);
    play_run_until(&r, r.ms + 1000);
    assert_int_equal(r.held_count, 0);
}

static void a_large_result_that_nobody_wants_is_dropped(void **state)
{
    (void)state;
    large_result(1 << 20);
    session_room(r.session, false);
    play_begin(&r);
    session_lane_down(r.session);
    play_end(&r);
    play_run_until(&r, r.ms + 1000);
    play_welcome(&r, (const uint8_t[]){VERDICT_FORGET, VERDICT_KEEP});
    session_room(r.session, true);
    play_clear(&r);
    play_hello(&r);
    play_run_until(&r, r.ms);
    assert_int_equal(play_said_of(&r, MSG_PART), 0);
    assert_int_equal(play_said_of(&r, MSG_TASK_DONE), 0);
}

static void emits(uint64_t lease, size_t size)
{
    static uint8_t chunk[1 << 20];
    play_begin(&r);
    session_data(r.session, lease, slice_of(chunk, size));
    play_end(&r);
}

/* Only as much goes ahead of it as is on its way; what the same handler says next stays behind. */
static void what_is_small_passes_what_is_emitted(void **state)
{
    (void)state;
    play_up(&r);
    play_tasks(&r, 1, 3);
    play_clear(&r);
    emits(1001, 1 << 20);
    assert_int_equal(play_said_of(&r, MSG_DATA), 2);
    session_room(r.session, false);
    play_begin(&r);
    play_done(&r, 1001, 5);
    play_done(&r, 1002, 5);
    play_end(&r);
    emits(1003, 100); /* a little is not much */
    play_run_until(&r, r.ms);
    assert_int_equal(play_said_of(&r, MSG_DATA), 3);
    assert_int_equal(play_first_said(&r, MSG_TASK_DONE)->lease, 1002);
    assert_int_equal(play_said_of(&r, MSG_TASK_DONE), 1);
    assert_int_equal(r.actions->emitted >> 10, 15 << 6);
    session_room(r.session, true);
    play_run_until(&r, r.ms);
    assert_int_equal(play_said_of(&r, MSG_DATA), 33);
    assert_int_equal(r.said[r.said_count - 1].kind, MSG_TASK_DONE);
    assert_int_equal(r.said[r.said_count - 1].lease, 1001);
    assert_int_equal(r.actions->emitted, 0);
    for (size_t i = 1; i < r.said_count; i++)
        assert_int_equal(r.said[i].sequence, r.said[i - 1].sequence + 1);
}

/* It is acknowledged one by one, as nothing waits for the end of the task. */
static void what_was_emitted_is_forgotten(void **state)
{
    struct attempt_failure f = {.code = PUSHROD_E_TASK_FAILED};
    (void)state;
    play_up(&r);
    play_tasks(&r, 1, 1);
    play_clear(&r);
    emits(1001, 1 << 20);
    play_begin(&r);
    session_failed(r.session, 1001, 1, &f);
    play_end(&r);
    play_run_until(&r, r.ms);
    assert_int_equal(play_said_of(&r, MSG_DATA), 32);
    assert_int_equal(r.said[r.said_count - 1].kind, MSG_TASK_FAILED);
    ack(r.said[r.said_count - 2].sequence);
    play_begin(&r);
    session_lane_down(r.session);
    play_end(&r);
    play_run_until(&r, r.ms + 1000);
    assert_int_equal(r.held_count, 1);
    play_welcome(&r, (const uint8_t[]){VERDICT_SEND});
    play_clear(&r);
    play_hello(&r);
    play_run_until(&r, r.ms);
    assert_int_equal(play_said_of(&r, MSG_DATA), 0);
    assert_int_equal(play_said_of(&r, MSG_TASK_FAILED), 1);
}

/* The server is on this host now, where nothing goes aside: of a task whose words are there already
 * all the rest still does. */
static void what_waits_stays_ahead_when_the_server_is_near(void **state)
{
    (void)state;
    play_up(&r);
    play_tasks(&r, 1, 2);
    play_clear(&r);
    emits(1001, 1 << 20);
    session_room(r.session, false);
    session_near(r.session, true);
    emits(1001, 100);
    emits(1002, 1 << 20);
    play_begin(&r);
    play_done(&r, 1001, 5);
    play_end(&r);
    play_run_until(&r, r.ms);
    assert_int_equal(play_said_of(&r, MSG_TASK_DONE), 0);
    session_room(r.session, true);
    play_run_until(&r, r.ms);
    assert_int_equal(r.said[r.said_count - 1].kind, MSG_TASK_DONE);
    size_t before = 0;
    for (size_t i = 0; i < r.said_count; i++)
        before += r.said[i].kind == MSG_DATA && r.said[i].lease == 1001;
    assert_int_equal(before, 32 + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_payload_in_pieces_runs_when_it_is_whole),
        TEST(who_waits_for_its_payload_keeps_its_slot),
        TEST(what_has_not_come_whole_is_given_back),
        TEST(what_has_not_come_whole_is_not_held),
        TEST(more_than_the_payload_ends_the_session),
        TEST(a_payload_without_memory_is_given_back),
        TEST(what_is_small_passes_a_large_result),
        TEST(a_large_result_does_not_hold_the_runner),
        TEST(without_room_nothing_large_follows),
        TEST(what_is_not_acknowledged_is_bounded),
        TEST(a_result_that_others_pass_begins_anew),
        TEST(a_large_result_that_nobody_wants_is_dropped),
        TEST(what_is_small_passes_what_is_emitted),
        TEST(what_was_emitted_is_forgotten),
        TEST(what_waits_stays_ahead_when_the_server_is_near),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
