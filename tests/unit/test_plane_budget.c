/* SPDX-License-Identifier: Apache-2.0 */
/* How much of the workers' input is taken at a time: so much that others have their turn, or all.
 */
#include "tests/unit/unit.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <zmq.h>

#include "server/net/plane_internal.h"
#include "tests/lib/plane_rig.h"

static struct rig rig;
static struct fake fake;

static void end(void)
{
    fake_stop(&fake);
    plane_rig_stop(&rig);
}

/* A pause: what came meanwhile is there after plane_drain_input(), without a turn of the loop. */
static void drain_input_reads_everything(void **state)
{
    (void)state;
    plane_rig_start(&rig, NULL);
    fake_start(&fake, &rig);
    fake_up(&fake, 7, 70);
    for (unsigned i = 0; i < 100; i++)
        fake_done(&fake, 1 + i * 100, 100, slice_str("0123456789012345678901234567890123456789"));
    for (uint64_t begun = plane_rig_now(); rig.answers < 10000;) {
        plane_drain_input(rig.plane);
        assert_true(plane_rig_now() < begun + UINT64_C(20000000000));
    }
    zmq_close(fake.lane);
    fake.lane = NULL;
    RIG_UNTIL(&rig, rig.lost);
    end();
}

static void large_frames(struct plane_config *config)
{
    config->max_message = 32 << 20;
}

/* Others have their turn while a frame with very many answers is taken. */
static void a_huge_frame_is_taken_bit_by_bit(void **state)
{
    enum { COUNT = 300000 };
    (void)state;
    plane_rig_start(&rig, large_frames);
    fake_start(&fake, &rig);
    fake_up(&fake, 7, 70);
    fake_done(&fake, 1, COUNT, (struct slice){0});
    RIG_UNTIL(&rig, rig.answers);
    assert_true(rig.answers < COUNT);
    /* It goes on when it is called by hand, too, and the loop knows of what is left. */
    size_t before = rig.answers;
    plane_drain_input(rig.plane);
    assert_true(rig.answers > before);
    RIG_UNTIL(&rig, rig.answers == COUNT);
    assert_false(rig.out_of_order);
    fake_done(&fake, COUNT + 1, COUNT, (struct slice){0});
    RIG_UNTIL(&rig, rig.answers > COUNT);
    end(); /* in the middle of a frame */
}

/* What has no number is work, too. */
static void a_frame_of_heartbeats_is_taken_bit_by_bit(void **state)
{
    (void)state;
    plane_rig_start(&rig, large_frames);
    fake_start(&fake, &rig);
    fake_up(&fake, 7, 70);
    struct buf frame = BUF_EMPTY;
    fake_from(&fake, &frame, 1);
    while (frame.size < 6 << 20)
        msg_heartbeat_encode(&frame, &(struct msg_heartbeat){3});
    fake_push(&fake, &frame);
    uint64_t before = plane_stats(rig.plane)->answer_messages;
    RIG_UNTIL(&rig, plane_stats(rig.plane)->answer_messages > before);
    assert_int_equal(rig.beats, 0);
    RIG_UNTIL(&rig, rig.beats == 1);
    end();
}

/* Whatever a frame holds, each of its messages is work. */
static void frames_of_many_messages_are_taken_bit_by_bit(void **state)
{
    enum { FRAMES = 400, EACH = 64, BUDGET = 256 };
    (void)state;
    plane_rig_start(&rig, NULL);
    fake_start(&fake, &rig);
    struct buf frame = BUF_EMPTY, scratch = BUF_EMPTY;
    struct msg_join join = fake_join_message(&fake, &scratch);
    for (unsigned i = 0; i < EACH; i++)
        msg_obituary_encode(&frame, &(struct msg_obituary){join.instance, 17, 9, 0, 1234});
    for (unsigned i = 0; i < FRAMES; i++)
        fake_send_raw(&fake, frame.data, frame.size);
    size_t most = 0;
    while (rig.obituaries < FRAMES * EACH) {
        size_t before = rig.obituaries;
        RIG_UNTIL(&rig, rig.obituaries != before);
        most = rig.obituaries - before > most ? rig.obituaries - before : most;
    }
    assert_in_range(most, 1, 2 * BUDGET + 2 * EACH);
    buf_free(&frame);
    buf_free(&scratch);
    end();
}

/* What all connections to the join port have brought, of which nothing need have been read. */
static uint64_t bytes_at_join(void)
{
    const struct crowd *crowd = &rig.plane->join.monitor.crowd;
    uint64_t bytes = 0;
    monitor_read(&rig.plane->join.monitor);
    for (size_t i = 0; i < crowd->count; i++) {
        struct tcp_info info = {0};
        socklen_t size = sizeof info;
        getsockopt(crowd->visitors[i].fd, IPPROTO_TCP, TCP_INFO, &info, &size);
        bytes += info.tcpi_bytes_received;
    }
    return bytes;
}

/* A JOIN that says to hold very much is as much work as many that do not. */
static void large_joins_are_taken_a_few_at_a_time(void **state)
{
    enum { JOINS = 6, HELD = 300000, BUDGET = 8 << 20 };
    struct fake fakes[JOINS];
    struct buf held = BUF_EMPTY, scratch = BUF_EMPTY;
    (void)state;
    plane_rig_start(&rig, NULL);
    enc_array(&held, HELD);
    for (uint64_t i = 1; i <= HELD; i++)
        msg_held_encode(&held, &(struct msg_held){i, UINT64_C(1) << 40, true, true});
    for (unsigned i = 0; i < JOINS; i++) {
        fake_start(&fakes[i], &rig);
        struct msg_join join = fake_join_message(&fakes[i], &scratch);
        join.held = buf_slice(&held);
        fake_send(&fakes[i], &join);
        buf_clear(&scratch);
    }
    for (uint64_t begun = plane_rig_now(); bytes_at_join() < JOINS * held.size;)
        assert_true(plane_rig_now() < begun + UINT64_C(20000000000));
    join_ready(rig.plane);
    assert_true(rig.joins <= BUDGET / held.size + 1);
    RIG_UNTIL(&rig, rig.joins == JOINS);
    for (unsigned i = 0; i < JOINS; i++)
        fake_stop(&fakes[i]);
    buf_free(&held);
    buf_free(&scratch);
    plane_rig_stop(&rig);
}

/* A message of very many parts is nothing but garbage, and takes many turns all the same. */
static void a_message_of_many_parts_is_dropped_bit_by_bit(void **state)
{
    enum { PARTS = 100000, BUDGET = 256 };
    (void)state;
    plane_rig_start(&rig, NULL);
    fake_start(&fake, &rig);
    for (unsigned i = 0; i < PARTS; i++)
        zmq_send(fake.dealer, "", 0, ZMQ_SNDMORE);
    zmq_send(fake.dealer, "", 0, 0);
    fake_join(&fake);
    RIG_UNTIL(&rig, plane_stats(rig.plane)->garbage);
    for (unsigned turns = 1; turns < PARTS / BUDGET / 4; turns++) {
        plane_rig_turn(&rig);
        assert_int_equal(rig.joins, 0);
    }
    RIG_UNTIL(&rig, rig.joins);
    assert_int_equal(plane_stats(rig.plane)->garbage, 1);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(drain_input_reads_everything),
        cmocka_unit_test(a_huge_frame_is_taken_bit_by_bit),
        cmocka_unit_test(a_frame_of_heartbeats_is_taken_bit_by_bit),
        cmocka_unit_test(frames_of_many_messages_are_taken_bit_by_bit),
        cmocka_unit_test(large_joins_are_taken_a_few_at_a_time),
        cmocka_unit_test(a_message_of_many_parts_is_dropped_bit_by_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
