/* SPDX-License-Identifier: Apache-2.0 */
/* native_fixture: one server and one connection for each test, and what is said over it. */
#ifndef TESTS_NATIVE_FIXTURE_H
#define TESTS_NATIVE_FIXTURE_H

#include "tests/unit/unit.h"

#include <string.h>

#include "tests/lib/native_play.h"

static struct native_play play;
static struct native_peer peer;
static struct buf out;

static inline int begin(void **state)
{
    (void)state;
    native_play_start(&play);
    native_peer_open(&play, &peer);
    out = BUF_EMPTY;
    return 0;
}

static inline int end(void **state)
{
    (void)state;
    native_peer_close(&play, &peer);
    native_play_stop(&play);
    buf_free(&out);
    return 0;
}

static inline void again(void)
{
    native_peer_close(&play, &peer);
    native_peer_open(&play, &peer);
}

static inline void put_hello(struct buf *to)
{
    size_t at = frame_begin(to);
    msg_hello_encode(to, &(struct msg_hello){.version = PROTOCOL_VERSION});
    frame_end(to, at);
}

/* A payload that differs from the last one, and at each place from what is beside it. */
static inline uint8_t byte_of(uint8_t first, size_t i)
{
    return (uint8_t)(first + i * 7 + (i >> 8));
}

static inline const uint8_t *bytes_of(size_t size)
{
    static uint8_t bytes[NATIVE_PLAY_PAYLOAD + (64u << 10)], first;
    assert_true(size <= sizeof bytes);
    first += 31;
    for (size_t i = 0; i < size; i++)
        bytes[i] = byte_of(first, i);
    return bytes;
}

static inline void put_submit(struct buf *to, uint64_t request, size_t size)
{
    msg_submit_encode(to, &(struct msg_submit){.request = request,
                              .queue = slice_str("work"),
                              .payload = slice_of(bytes_of(size), size)});
}

static inline void put_echo(struct buf *to, uint64_t request)
{
    struct msg_echo m = {.request = request};
    msg_echo_encode(to, &m);
}

static inline struct native_heard say_all(void)
{
    native_peer_say(&play, &peer, out.data, out.size);
    native_peer_settle(&play, &peer, out.size);
    return native_peer_heard(&peer);
}

/* In two pieces, cut after `cut` bytes. */
static inline struct native_heard say_cut(size_t cut)
{
    native_peer_say(&play, &peer, out.data, cut);
    native_peer_say(&play, &peer, out.data + cut, out.size - cut);
    native_peer_settle(&play, &peer, out.size);
    return native_peer_heard(&peer);
}

static inline void expect(struct native_heard h, size_t accepted, size_t rejected, size_t ok)
{
    assert_int_equal(h.error, 0);
    assert_int_equal(h.counts[MSG_GREETING], 1);
    assert_int_equal(h.counts[MSG_ACCEPTED], accepted);
    assert_int_equal(h.counts[MSG_REJECTED], rejected);
    assert_int_equal(h.counts[MSG_OK], ok);
    assert_true(h.in_order);
    assert_false(peer.closed);
}

#define PLAY(test) cmocka_unit_test_setup_teardown(test, begin, end)

#endif
