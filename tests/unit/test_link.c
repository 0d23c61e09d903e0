/* SPDX-License-Identifier: Apache-2.0 */
/* The worker's side of DESIGN's facts about libzmq: what its sockets are told. */
#include "tests/unit/unit.h"

#include <zmq.h>

#include "worker/link_impl.h"

static int option(void *socket, int name)
{
    int value = -2;
    size_t size = sizeof value;
    assert_int_equal(zmq_getsockopt(socket, name, &value, &size), 0);
    return value;
}

/*
 * A lane that went down stays down: with reconnect on, its socket takes what is meant for the next
 * worker on the same port. A PULL at a high-water mark stops reading, and with ZMTP heartbeats
 * healthy connections are cut then.
 */
static void options_that_must_stay(void **state)
{
    struct link l = {.context = zmq_ctx_new(), .address = "127.0.0.1"};
    struct msg_welcome welcome = {
        .lane_port = 1, .answers_port = 1, .user = slice_str("user"), .token = slice_str("token")};
    (void)state;
    assert_non_null(l.context);
    assert_int_equal(link_connect(&l, &welcome), 0);
    assert_int_equal(option(l.lane, ZMQ_RECONNECT_IVL), -1);
    assert_int_equal(option(l.lane, ZMQ_RCVHWM), 0);
    assert_int_equal(option(l.lane, ZMQ_HEARTBEAT_IVL), 0);
    assert_int_equal(option(l.answers, ZMQ_SNDHWM), 0);
    assert_int_equal(option(l.answers, ZMQ_HEARTBEAT_IVL), 0);
    assert_int_equal(option(l.answers, ZMQ_LINGER), 0);
    assert_true(option(l.answers, ZMQ_RECONNECT_IVL) > 0);
    link_disconnect(&l);
    assert_null(l.lane);
    assert_null(l.answers);
    zmq_ctx_term(l.context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_that_must_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
