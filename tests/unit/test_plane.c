/* SPDX-License-Identifier: Apache-2.0 */
/* The worker side of the server's sockets, against workers made by hand. */
#include "tests/unit/unit.h"

#include <poll.h>
#include <string.h>
#include <zmq.h>

#include "common/clock.h"
#include "server/core/task.h"
#include "tests/lib/plane_rig.h"

static struct rig rig;
static struct fake fake;

static void begin(void)
{
    plane_rig_start(&rig, NULL);
    fake_start(&fake, &rig);
    fake_up(&fake, 7, 70);
}

static void end(void)
{
    fake_stop(&fake);
    plane_rig_stop(&rig);
}

/* -------------------------------------------------------------------------------- answers */

static void worker_joins_and_answers(void **state)
{
    (void)state;
    begin();
    assert_true(fake.hello_first);
    assert_string_equal(rig.name, "box-17");
    assert_int_equal(rig.queue_count, 2);
    assert_int_equal(rig.join.slots, 4);
    assert_int_equal(fake.welcome.worker, 7);
    assert_int_equal(fake.welcome.session, 70);
    assert_int_equal(strlen(fake.token), 64);
    assert_int_equal(fake.welcome.heartbeat_ms, 1000);
    assert_null(fake.welcome.host.data);
    fake_done(&fake, 1, 1000, slice_str("result"));
    RIG_UNTIL(&rig, rig.answers == 1000);
    assert_false(rig.out_of_order);
    assert_int_equal(rig.from_worker, 7);
    assert_int_equal(rig.from_session, 70);
    assert_int_equal(rig.sum, 500500);
    uint64_t before_ns = clock_mono_ns();
    zmq_close(fake.lane);
    fake.lane = NULL;
    RIG_UNTIL(&rig, rig.lost);
    assert_int_equal(rig.lost_worker, 7);
    assert_int_equal(rig.lost_code, PUSHROD_E_CLOSED);
    assert_in_range(rig.lost_since_ns, before_ns, clock_mono_ns() - 5000000); /* the grace */
    plane_rig_close(&rig, 7, 0);
    assert_int_equal(plane_stats(rig.plane)->lanes, 0);
    end();
}

static void every_kind_of_answer(void **state)
{
    (void)state;
    struct buf frame = BUF_EMPTY;
    begin();
    fake_from(&fake, &frame, 1);
    msg_ready_encode(&frame, &(struct msg_ready){70});
    msg_started_encode(&frame, &(struct msg_started){2, 102});
    msg_progress_encode(&frame, &(struct msg_progress){3, 103, 5, 9, slice_str("half")});
    msg_data_encode(&frame, &(struct msg_data){4, 104, slice_str("chunk")});
    msg_part_encode(&frame, &(struct msg_part){5, 105, 1 << 17, slice_str("part")});
    msg_task_done_encode(&frame, &(struct msg_task_done){6, 106, 77, {0}});
    msg_task_failed_encode(&frame,
        &(struct msg_task_failed){7, 107, 78, PUSHROD_E_TASK_TIMEOUT, true, 9, slice_str("no")});
    msg_returned_encode(&frame, &(struct msg_returned){8, 108, PUSHROD_E_HANDLER_BROKEN});
    msg_heartbeat_encode(&frame, &(struct msg_heartbeat){3});
    msg_bye_encode(&frame, &(struct msg_bye){1});
    fake_push(&fake, &frame);
    RIG_UNTIL(&rig, rig.answers == 9 && rig.beats == 1);
    assert_false(rig.out_of_order);
    assert_int_equal(rig.seen[1].kind, MSG_READY);
    assert_int_equal(rig.seen[2].lease, 102);
    assert_int_equal(rig.seen[3].number, 5);
    assert_int_equal(rig.seen[3].total, 9);
    assert_int_equal(rig.seen[4].data.size, 5);
    assert_int_equal(rig.seen[5].number, 1 << 17);
    assert_int_equal(rig.seen[6].run_ns, 77);
    assert_int_equal(rig.seen[7].code, PUSHROD_E_TASK_TIMEOUT);
    assert_true(rig.seen[7].permanent);
    assert_int_equal(rig.seen[7].number, 9);
    assert_int_equal(rig.seen[8].code, PUSHROD_E_HANDLER_BROKEN);
    assert_int_equal(rig.seen[9].kind, MSG_BYE);
    end();
}

static void answers_are_taken_once_and_in_order(void **state)
{
    (void)state;
    begin();
    fake_done(&fake, 1, 10, (struct slice){0});
    fake_done(&fake, 1, 10, (struct slice){0});
    fake_done(&fake, 5, 10, (struct slice){0});  /* 5-10 again, 11-14 new */
    fake_done(&fake, 20, 10, (struct slice){0}); /* 15-19 are lost: nothing of this */
    RIG_UNTIL(&rig, plane_stats(rig.plane)->gaps == 10);
    assert_int_equal(rig.answers, 14);
    assert_int_equal(plane_stats(rig.plane)->repeated, 16);
    assert_int_equal(rig.calls, 4); /* those with nothing new are a sign of life */
    fake_done(&fake, 15, 300, (struct slice){0});
    RIG_UNTIL(&rig, rig.answers == 314);
    assert_false(rig.out_of_order);
    end();
}

static void late_answers_of_a_closed_session(void **state)
{
    (void)state;
    begin();
    fake_done(&fake, 1, 1, (struct slice){0});
    RIG_UNTIL(&rig, rig.answers == 1);
    plane_rig_close(&rig, 7, 0);
    fake_done(&fake, 1, 3, (struct slice){0});
    RIG_UNTIL(&rig, rig.answers == 3);
    assert_int_equal(rig.from_session, 70);
    assert_int_equal(plane_stats(rig.plane)->repeated, 1);
    end();
}

/* What must cut the worker that sends it, and nobody else. */
static void expect_cut(struct buf *frame)
{
    struct fake other;
    fake_start(&other, &rig);
    fake_up(&other, 8, 80);
    rig.answers = 0;
    rig.last_sequence = 0;
    fake_push(&fake, frame);
    RIG_UNTIL(&rig, rig.lost);
    assert_int_equal(rig.lost_worker, 7);
    assert_int_equal(rig.lost_code, PUSHROD_E_BAD_MESSAGE);
    assert_int_equal(plane_stats(rig.plane)->garbage, 1);
    fake_done(&fake, 1, 5, (struct slice){0});
    fake_done(&other, 1, 5, (struct slice){0});
    RIG_UNTIL(&rig, rig.answers == 5);
    assert_int_equal(rig.from_worker, 8);
    assert_int_equal(rig.lost, 1);
    fake_stop(&other);
}

static void garbage_cuts_its_sender_only(void **state)
{
    (void)state;
    struct buf frame = BUF_EMPTY;
    begin();
    buf_append(&frame, "garbage", 7);
    expect_cut(&frame);
    end();
}

static void from_names(uint64_t worker, uint64_t session)
{
    struct buf frame = BUF_EMPTY;
    begin();
    msg_from_encode(&frame, &(struct msg_from){worker, session, 1});
    msg_task_done_encode(&frame, &(struct msg_task_done){1, 1, 1, {0}});
    expect_cut(&frame);
    end();
}

static void somebody_elses_name_cuts(void **state)
{
    (void)state;
    from_names(8, 80);
    from_names(8, 70);
    from_names(7, 80);
}

static void unknown_and_foreign_messages_cut(void **state)
{
    (void)state;
    struct buf frame = BUF_EMPTY;
    begin();
    fake_from(&fake, &frame, 1);
    msg_ack_encode(&frame, &(struct msg_ack){1});
    expect_cut(&frame);
    end();
}

static void truncated_frame_cuts(void **state)
{
    (void)state;
    struct buf frame = BUF_EMPTY;
    begin();
    fake_from(&fake, &frame, 1);
    msg_task_done_encode(&frame, &(struct msg_task_done){1, 1, 1, slice_str("result")});
    frame.size--;
    expect_cut(&frame);
    end();
}

static void empty_frame_cuts(void **state)
{
    (void)state;
    struct buf frame = BUF_EMPTY;
    begin();
    expect_cut(&frame);
    end();
}

/* ---------------------------------------------------------------------------------- lanes */

static void one_message_for_a_tick(void **state)
{
    (void)state;
    struct task task = plane_rig_task_of(5, slice_str("payload"), NULL);
    begin();
    fake.frames = 0;
    for (unsigned i = 0; i < 100; i++)
        plane_rig_task(&rig, 7, &task);
    plane_rig_ack(&rig, 7, 99);
    plane_put(
        rig.plane, &(struct lane_action){.worker = 7, .kind = LANE_CANCEL, .id = 1, .lease = 2});
    plane_put(
        rig.plane, &(struct lane_action){.worker = 7, .kind = LANE_WITHDRAW, .id = 1, .lease = 2});
    plane_put(rig.plane, &(struct lane_action){.worker = 7, .kind = LANE_PING, .number = 3});
    plane_put(rig.plane, &(struct lane_action){.worker = 7, .kind = LANE_DRAIN, .number = 3});
    plane_put(rig.plane, &(struct lane_action){.worker = 99, .kind = LANE_PING, .number = 3});
    plane_flush(rig.plane);
    RIG_UNTIL(&rig, (fake_read_lane(&fake), fake.pings == 1));
    assert_int_equal(fake.frames, 1);
    assert_int_equal(fake.tasks, 100);
    assert_int_equal(fake.last_ack, 99);
    assert_int_equal(fake.task.id, 5);
    assert_int_equal(fake.task.lease, 1005);
    assert_int_equal(fake.task.attempt, 2);
    assert_int_equal(fake.task.timeout_ms, 500);
    assert_int_equal(fake.payload, 7);
    end();
}

/* Or it would come with the last byte of the payload, and the worker was fenced for its silence. */
static void a_ping_that_rouses_goes_ahead(void **state)
{
    (void)state;
    struct task task = plane_rig_task_of(5, slice_str("payload"), NULL);
    begin();
    fake.frames = 0;
    plane_put(rig.plane, &(struct lane_action){.worker = 7, .kind = LANE_PING, .beat = true});
    plane_rig_task(&rig, 7, &task);
    plane_flush(rig.plane);
    RIG_UNTIL(&rig, (fake_read_lane(&fake), fake.tasks == 1));
    assert_int_equal(fake.pings, 1);
    assert_int_equal(fake.frames, 2);
    end();
}

/* Destroying the lane discards what was queued, and the references to it. */
static void close_discards_what_is_queued(void **state)
{
    (void)state;
    struct body *body = body_new(1 << 20);
    memset(body->data, 7, body->size);
    struct task task = plane_rig_task_of(1, body_slice(body), body);
    begin();
    zmq_close(fake.lane); /* a reader that stops reading */
    fake_again(&fake);
    fake_join(&fake);
    size_t joins = rig.joins;
    RIG_UNTIL(&rig, rig.joins > joins);
    assert_int_equal(plane_rig_welcome(&rig, 7, 71), 0);
    RIG_UNTIL(&rig, fake_is_welcome(&fake));
    fake.lane = fake_plain(fake.context, ZMQ_PULL, fake.user, fake.token);
    int one = 1, small = 4096;
    zmq_setsockopt(fake.lane, ZMQ_RCVHWM, &one, sizeof one);
    zmq_setsockopt(fake.lane, ZMQ_RCVBUF, &small, sizeof small);
    fake_connect(fake.lane, fake.welcome.lane_port);
    RIG_UNTIL(&rig, fake_has_hello(&fake));
    for (unsigned i = 0; i < 200; i++)
        plane_rig_task(&rig, 7, &task);
    plane_flush(rig.plane);
    assert_true(atomic_load(&body->references) > 100);
    plane_rig_close(&rig, 7, 0);
    RIG_UNTIL(&rig, atomic_load(&body->references) == 1);
    body_unref(body);
    end();
}

static void farewell_arrives(void **state)
{
    (void)state;
    begin();
    plane_put(rig.plane,
        &(struct lane_action){.worker = 7, .kind = LANE_FENCED, .number = PUSHROD_E_SUPERSEDED});
    plane_rig_close(&rig, 7, PUSHROD_E_SUPERSEDED);
    RIG_UNTIL(&rig, (fake_read_lane(&fake), fake.fences == 1));
    RIG_UNTIL(&rig, fake_is_refused(&fake));
    assert_int_equal(fake.code, PUSHROD_E_SUPERSEDED);
    assert_false(fake.retry);
    end();
}

static bool timer_fired;

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
    timer_fired = true;
}

/*
 * Nothing wakes up while nobody says anything: after what the handshakes left, one round of the
 * loop lasts until the timer. A plane that wakes by itself never gets there.
 */
static void idle_plane_sleeps(void **state)
{
    struct timeval tv = {.tv_usec = 100000};
    (void)state;
    begin();
    event_del(rig.tick);
    /* Not one of the loop's, which may fire for nothing after they were moved. */
    struct event *timer = evtimer_new(rig.base, on_timer, NULL);
    timer_fired = false;
    for (unsigned rounds = 0; !timer_fired; rounds++) {
        assert_true(rounds < 50);
        evtimer_add(timer, &tv);
        loop_turn(rig.loop, true);
    }
    event_free(timer);
    end();
}

/* Somebody else's loop only looks at one descriptor; the end of the grace makes it readable, too.
 */
static void loss_is_told_to_a_foreign_loop(void **state)
{
    (void)state;
    begin();
    event_del(rig.tick);
    struct pollfd own = {loop_fd(rig.loop), POLLIN, 0};
    zmq_close(fake.lane);
    fake.lane = NULL;
    while (!rig.lost) {
        assert_int_equal(poll(&own, 1, 20000), 1);
        loop_turn(rig.loop, false);
    }
    assert_int_equal(rig.lost_worker, 7);
    end();
}

/* Nobody says anything more, and yet all of it is read: a budget that ends is no end. */
static void answers_are_read_in_a_foreign_loop(void **state)
{
    enum { FRAMES = 64, SIZE = 64 << 10 };
    (void)state;
    begin();
    event_del(rig.tick);
    struct pollfd own = {loop_fd(rig.loop), POLLIN, 0};
    static uint8_t result[SIZE];
    for (unsigned i = 0; i < FRAMES; i++)
        fake_done(&fake, 1 + i, 1, slice_of(result, sizeof result));
    while (rig.answers < FRAMES) {
        assert_int_equal(poll(&own, 1, 20000), 1);
        loop_turn(rig.loop, false);
    }
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(worker_joins_and_answers),
        cmocka_unit_test(every_kind_of_answer),
        cmocka_unit_test(answers_are_taken_once_and_in_order),
        cmocka_unit_test(late_answers_of_a_closed_session),
        cmocka_unit_test(garbage_cuts_its_sender_only),
        cmocka_unit_test(somebody_elses_name_cuts),
        cmocka_unit_test(unknown_and_foreign_messages_cut),
        cmocka_unit_test(truncated_frame_cuts),
        cmocka_unit_test(empty_frame_cuts),
        cmocka_unit_test(one_message_for_a_tick),
        cmocka_unit_test(a_ping_that_rouses_goes_ahead),
        cmocka_unit_test(close_discards_what_is_queued),
        cmocka_unit_test(farewell_arrives),
        cmocka_unit_test(idle_plane_sleeps),
        cmocka_unit_test(loss_is_told_to_a_foreign_loop),
        cmocka_unit_test(answers_are_read_in_a_foreign_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
