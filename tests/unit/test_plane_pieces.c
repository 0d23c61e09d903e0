/* SPDX-License-Identifier: Apache-2.0 */
/* Large payloads on a lane: uncopied, as parts of a message, and in pieces that others pass. */
#include "tests/unit/unit.h"

#include <zmq.h>

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

static void payload_sizes(void **state)
{
    static const size_t sizes[] = {0, 1, 4096, 4097, 16384, 16385, 1 << 20, 16 << 20};
    (void)state;
    begin();
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct body *body = body_new(sizes[i]);
        uint8_t sum = 0;
        for (size_t at = 0; at < sizes[i]; at++)
            sum ^= body->data[at] = (uint8_t)(at * 31 + i);
        bool large = sizes[i] > 4096;
        struct task task = plane_rig_task_of(i + 1, body_slice(body), large ? body : NULL);
        if (sizes[i] == 0)
            task.record.payload = (struct slice){0};
        fake.tasks = 0;
        plane_rig_ack(&rig, 7, i + 1);
        plane_rig_task(&rig, 7, &task);
        plane_flush(rig.plane);
        RIG_UNTIL(&rig, fake_has_task(&fake));
        assert_int_equal(fake.last_ack, i + 1);
        assert_int_equal(fake.task.id, i + 1);
        assert_int_equal(fake.payload, sizes[i]);
        assert_int_equal(fake.payload_sum, sum);
        assert_int_equal(fake.payload_alone, sizes[i] > 16384);
        RIG_UNTIL(&rig, atomic_load(&body->references) == 1);
        body_unref(body);
    }
    end();
}

/* One body of `size` bytes, each of them `value`, as a task; returns the chain with its sum. */
static uint64_t put_body(uint64_t id, size_t size, uint8_t value, uint64_t chain)
{
    struct body *body = body_new(size);
    memset(body->data, value, size);
    struct task task = plane_rig_task_of(id, body_slice(body), body);
    plane_rig_task(&rig, 7, &task);
    body_unref(body);
    return chain * 31 + (size % 2 ? value : 0);
}

/* One wake-up of the worker for all of them; but it sees none before the last has come. */
static void large_payloads_share_a_message(void **state)
{
    static const struct {
        size_t sizes[33];
        size_t tasks, frames;
    } rows[] = {
        {{40001, 11, 40003, 40005, 13}, 5, 1},
        {{200001, 200005, 7, 200003}, 4, 2}, /* more than 512 KiB */
        {{[0 ... 31] = 16385, 15}, 33, 2},   /* as many as have a place */
    };
    (void)state;
    begin();
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        uint64_t chain = fake.payload_chain;
        size_t frames = fake.frames;
        fake.tasks = 0;
        for (size_t i = 0; i < rows[r].tasks; i++)
            chain = put_body(i + 1, rows[r].sizes[i], (uint8_t)(r * 16 + i + 1), chain);
        plane_flush(rig.plane);
        RIG_UNTIL(&rig, (fake_read_lane(&fake), fake.tasks == rows[r].tasks));
        assert_int_equal(fake.payload_chain, chain);
        assert_int_equal(fake.frames - frames, rows[r].frames);
    }
    end();
}

/* A body of zeros that leaves in pieces, as a task. */
static struct body *put_large(uint64_t id, size_t size)
{
    struct body *body = body_new(size);
    memset(body->data, 0, size);
    struct task task = plane_rig_task_of(id, body_slice(body), body);
    plane_rig_task(&rig, 7, &task);
    return body;
}

static void put_small(uint64_t id)
{
    struct task task = plane_rig_task_of(id, slice_str("small"), NULL);
    plane_rig_task(&rig, 7, &task);
    plane_flush(rig.plane);
}

/* Only the first two pieces are there when it is put. */
static void what_is_small_passes_a_large_payload(void **state)
{
    (void)state;
    begin();
    struct body *body = put_large(1, 16 << 20);
    put_small(2);
    RIG_UNTIL(&rig, (fake_read_lane(&fake), fake.tasks == 2));
    assert_int_equal(fake.passed, 1);
    assert_int_equal(fake.task.id, 1);
    assert_int_equal(fake.payload, 16 << 20);
    RIG_UNTIL(&rig, !body_shared(body));
    body_unref(body);
    end();
}

static void a_large_payload_passes_a_larger_one(void **state)
{
    (void)state;
    begin();
    struct body *body = put_large(1, 32 << 20), *other = put_large(2, 300 << 10);
    RIG_UNTIL(&rig, fake_has_task(&fake));
    assert_int_equal(fake.task.id, 2);
    assert_int_equal(fake.payload, 300 << 10);
    assert_true(body_shared(body)); /* more of it is to be sent */
    RIG_UNTIL(&rig, (fake_read_lane(&fake), !body_shared(body) && !body_shared(other)));
    body_unref(body);
    body_unref(other);
    end();
}

/* As much of it as the kernel holds, and libzmq, comes; the worker gives it back. */
static void of_what_was_taken_back_no_more_is_sent(void **state)
{
    static const enum lane_kind kinds[] = {LANE_CANCEL, LANE_WITHDRAW};
    (void)state;
    begin();
    for (uint64_t i = 0; i < 2; i++) {
        struct body *body = put_large(1 + i, 32 << 20), *next = put_large(11 + i, 1 << 20);
        struct lane_action action = {.worker = 7, .kind = kinds[i], .id = 1 + i, .lease = 1001 + i};
        plane_put(rig.plane, &action);
        fake.tasks = 0;
        RIG_UNTIL(&rig, fake_has_task(&fake));
        assert_int_equal(fake.task.id, 11 + i);
        RIG_UNTIL(&rig, !body_shared(body) && !body_shared(next));
        body_unref(body);
        body_unref(next);
    }
    end();
}

/* Those that never began are told. */
static void a_lane_that_is_lost_lets_go_of_payloads(void **state)
{
    (void)state;
    begin();
    struct body *body = put_large(1, 16 << 20), *next = put_large(2, 16 << 20);
    put_small(4);
    zmq_close(fake.lane);
    fake.lane = NULL;
    RIG_UNTIL(&rig, rig.lost);
    assert_int_equal(rig.cuts, 1);
    assert_int_equal(rig.unsent, 1 + 2);
    RIG_UNTIL(&rig, !body_shared(body) && !body_shared(next));
    body_unref(body);
    body_unref(next);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(payload_sizes),
        cmocka_unit_test(large_payloads_share_a_message),
        cmocka_unit_test(what_is_small_passes_a_large_payload),
        cmocka_unit_test(a_large_payload_passes_a_larger_one),
        cmocka_unit_test(of_what_was_taken_back_no_more_is_sent),
        cmocka_unit_test(a_lane_that_is_lost_lets_go_of_payloads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
