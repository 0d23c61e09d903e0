/* SPDX-License-Identifier: Apache-2.0 */
/* What a fake worker reads of its lane: tasks count when all of their payload is there. */
#include <assert.h>
#include <stdatomic.h>
#include <zmq.h>

#include "proto/codec.h"
#include "tests/lib/plane_rig.h"

/* Of the bytes, or of the next part of the message. */
static size_t fake_sum(struct fake *fake, struct slice bytes, uint8_t *sum)
{
    zmq_msg_t part;
    zmq_msg_init(&part);
    if (!bytes.data) {
        int more = 0;
        size_t size = sizeof more;
        zmq_getsockopt(fake->lane, ZMQ_RCVMORE, &more, &size);
        assert(more);
        zmq_msg_recv(&part, fake->lane, 0);
        bytes = slice_of(zmq_msg_data(&part), zmq_msg_size(&part));
    }
    for (size_t i = 0; i < bytes.size; i++)
        *sum ^= bytes.data[i];
    zmq_msg_close(&part);
    return bytes.size;
}

static void fake_whole(struct fake *fake, const struct msg_task *task, size_t size, uint8_t sum)
{
    fake->task = *task;
    fake->payload = size;
    fake->payload_sum = sum;
    fake->payload_chain = fake->payload_chain * 31 + sum;
    fake->tasks++;
}

static void fake_task(struct fake *fake, struct dec *d)
{
    struct msg_task m;
    uint8_t sum = 0;
    msg_task_decode(d, &m);
    size_t size = fake_sum(fake, m.payload, &sum);
    fake->payload_alone = !m.payload.data || m.rest;
    if (!m.rest) {
        fake->passed += fake->missing > 0;
        fake_whole(fake, &m, size, sum);
        return;
    }
    fake->partial = m;
    fake->partial_size = size;
    fake->partial_sum = sum;
    fake->missing = m.rest;
}

static void fake_piece(struct fake *fake, struct dec *d)
{
    struct msg_payload m;
    msg_payload_decode(d, &m);
    uint8_t sum = 0;
    size_t size = fake_sum(fake, m.data, &sum);
    /* Of the last one that was announced: what was taken back before may still come. */
    if (m.lease != fake->partial.lease)
        return;
    assert(size && size <= fake->missing);
    fake->partial_sum ^= sum;
    fake->partial_size += size;
    fake->missing -= size;
    if (!fake->missing)
        fake_whole(fake, &fake->partial, fake->partial_size, fake->partial_sum);
}

static void fake_record(struct fake *fake, struct dec *d)
{
    unsigned kind = dec_message(d);
    struct msg_ack ack;
    if (fake->frames == 1 && kind == MSG_LANE_HELLO && fake->hellos == 0)
        fake->hello_first = true;
    fake->hellos += kind == MSG_LANE_HELLO;
    fake->pings += kind == MSG_PING;
    fake->fences += kind == MSG_FENCED;
    if (kind == MSG_TASK) {
        fake_task(fake, d);
    } else if (kind == MSG_PAYLOAD) {
        fake_piece(fake, d);
    } else if (kind == MSG_ACK) {
        msg_ack_decode(d, &ack);
        fake->acks++;
        fake->last_ack = ack.sequence;
    } else {
        dec_skip_message(d, kind);
    }
}

void fake_read_lane(struct fake *fake)
{
    for (;;) {
        zmq_msg_t message;
        zmq_msg_init(&message);
        if (zmq_msg_recv(&message, fake->lane, ZMQ_DONTWAIT) < 0)
            return;
        struct slice frame = slice_of(zmq_msg_data(&message), zmq_msg_size(&message));
        struct dec d = dec_of(frame);
        fake->frames++;
        while (dec_more(&d))
            fake_record(fake, &d);
        assert(!dec_failed(&d));
        zmq_msg_close(&message);
        int more = 0;
        size_t size = sizeof more;
        zmq_getsockopt(fake->lane, ZMQ_RCVMORE, &more, &size);
        assert(!more);
    }
}

bool fake_has_hello(void *arg)
{
    struct fake *fake = arg;
    fake_read_lane(fake);
    return fake->hellos > 0;
}

bool fake_has_task(void *arg)
{
    struct fake *fake = arg;
    fake_read_lane(fake);
    return fake->tasks > 0;
}
