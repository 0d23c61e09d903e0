/* SPDX-License-Identifier: Apache-2.0 */
/*
 * "Fail the Nth allocation until the run passes", with a leak check each round: frames of the
 * client protocol that come in pieces, with large payloads, through a connection's buffers. Either
 * all of a frame is there as it was sent, or its connection ends for want of memory, and the next
 * one is none the wiser.
 */
#include "tests/unit/bad_memory.h"
#include "tests/unit/unit.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <pushrod/error.h>
#include "proto/codec.h"
#include "proto/frame.h"
#include "proto/messages.h"
#include "server/net/conn_impl.h"
#include "server/net/native_parts.h"

#define K 1024u

/* Small ones, that are kept; large ones, in one read and in many; the last is cut by most reads. */
static const size_t sizes[] = {100, 64 * K, 5 * K, 700 * K, 0, 63 * K, 130 * K, 300 * K};
#define TASKS (sizeof sizes / sizeof *sizes)

static struct loop *loop;
static struct conns *set;
static unsigned whole;  /* frames that were there, and right */
static int closed_code; /* of the last connection that ended */
static unsigned closed;

static uint8_t byte_of(size_t n, size_t i)
{
    return (uint8_t)(n * 31 + i * 7 + (i >> 8));
}

static void payload_look(size_t n, struct slice payload)
{
    assert_int_equal(payload.size, sizes[n]);
    for (size_t i = 0; i < payload.size; i++)
        if (payload.data[i] != byte_of(n, i))
            fail_msg("byte %zu of payload %zu is wrong", i, n);
}

static void frame_look(struct parts *p)
{
    struct dec d = *parts_left(p);
    for (size_t n = 0; n < TASKS; n++) {
        const uint8_t *begin = d.at;
        struct msg_submit m;
        assert_int_equal(dec_message(&d), MSG_SUBMIT);
        assert_true(msg_submit_decode(&d, &m));
        struct body *body = parts_payload(p, begin);
        assert_int_equal(body != NULL, sizes[n] >= CONN_LARGE);
        payload_look(n, body ? body_slice(body) : m.payload);
        body_unref(body);
    }
    assert_false(dec_more(&d));
    whole++;
}

/* As native_input.c does it, for frames of any size. */
static size_t framed_input(struct conn *c, const uint8_t *data, size_t size)
{
    struct slice in = slice_of(data, size);
    if (!c->data && in.size < FRAME_HEAD)
        return 0;
    if (!c->data) {
        c->data = parts_new(frame_size(in.data));
        slice_skip(&in, FRAME_HEAD);
    }
    enum parts_state state = c->data ? parts_read(c->data, c, &in) : PARTS_NO_MEMORY;
    if (state == PARTS_NO_MEMORY)
        conn_kill(c, PUSHROD_E_NO_MEMORY);
    if (state != PARTS_WHOLE)
        return size - in.size;
    frame_look(c->data);
    parts_free(c->data);
    c->data = NULL;
    return size - in.size;
}

static void framed_opened(struct conn *c)
{
    (void)c;
}

static void framed_closed(struct conn *c, int code)
{
    parts_free(c->data);
    c->data = NULL;
    closed_code = code;
    closed++;
}

static const struct conn_ops framed_ops = {
    .name = "framed", .opened = framed_opened, .input = framed_input, .closed = framed_closed};

static void tick_begin(void *arg, struct now now)
{
    (void)arg, (void)now;
}

static void tick_end(void *arg)
{
    (void)arg;
    conns_flush(set);
}

static void turn(bool bad)
{
    armed = bad;
    loop_turn(loop, false);
    armed = false;
}

static void frame_make(struct buf *out)
{
    size_t at = frame_begin(out);
    for (size_t n = 0; n < TASKS; n++) {
        uint8_t *payload = malloc(sizes[n] + 1);
        assert_non_null(payload);
        for (size_t i = 0; i < sizes[n]; i++)
            payload[i] = byte_of(n, i);
        msg_submit_encode(out,
            &(struct msg_submit){
                .request = n, .queue = slice_str("work"), .payload = slice_of(payload, sizes[n])});
        free(payload);
    }
    frame_end(out, at);
    assert_false(out->failed);
}

/* A connection on which the frame comes twice, in pieces of at most so many bytes. */
static void say_twice(const struct buf *frame, size_t piece, bool bad)
{
    const struct sockaddr_storage nobody = {.ss_family = AF_UNIX};
    int ends[2];
    unsigned before = closed;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    loop_enter(loop);
    conn_accept(set, ends[0], &framed_ops, NULL, &nobody);
    for (size_t at = 0; at < 2 * frame->size && closed == before;) {
        size_t from = at % frame->size, most = frame->size - from;
        ssize_t sent = send(
            ends[1], frame->data + from, most < piece ? most : piece, MSG_NOSIGNAL | MSG_DONTWAIT);
        at += sent > 0 ? (size_t)sent : 0;
        turn(bad);
    }
    close(ends[1]);
    while (closed == before)
        turn(bad);
}

static size_t round_of(const struct buf *frame, size_t piece, long nth, bool good)
{
    static const struct loop_hooks hooks = {tick_begin, tick_end};
    const struct conns_config config = {.max_clients = 10, .handshake_ms = 100000};
    size_t before = living;
    loop = loop_new();
    set = conns_new(loop, &config);
    loop_hook(loop, &hooks, NULL);
    good_left = nth;
    for_good = good;
    failures = whole = 0;
    say_twice(frame, piece, true);
    good_left = -1;
    assert_true(whole <= 2);
    assert_int_equal(closed_code, whole == 2 ? 0 : PUSHROD_E_NO_MEMORY);
    assert_true(whole == 2 || failures > 0);
    say_twice(frame, piece, false);
    assert_int_equal(closed_code, 0);
    assert_in_range(whole, 2, 4);
    turn(false);
    conns_free(set);
    loop_free(loop);
    assert_int_equal(living, before);
    return failures;
}

static void all_rounds(bool good)
{
    static const size_t pieces[] = {SIZE_MAX, 200 * K, 64 * K, 40000, 7777};
    struct buf frame = BUF_EMPTY;
    frame_make(&frame);
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        long nth = 0;
        while (round_of(&frame, pieces[i], nth, good))
            nth++;
        print_message("pieces of %zu: %ld allocations\n", pieces[i], nth);
        assert_true(nth > 10);
    }
    buf_free(&frame);
}

static void one_allocation_fails(void **state)
{
    (void)state;
    all_rounds(false);
}

static void and_all_after_it(void **state)
{
    (void)state;
    all_rounds(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_allocation_fails),
        cmocka_unit_test(and_all_after_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
