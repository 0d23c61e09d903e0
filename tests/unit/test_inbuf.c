/* SPDX-License-Identifier: Apache-2.0 */
/* What connections read into: payloads are taken of it as they lie, and do not keep too much. */
#include "tests/unit/unit.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "server/net/conn_impl.h"

#define K 1024u

static struct inbuf in;

static int begin(void **state)
{
    (void)state;
    in = (struct inbuf){0};
    return 0;
}

static int end(void **state)
{
    (void)state;
    inbuf_free(&in);
    return 0;
}

static void what_is_taken_stays(void **state)
{
    (void)state;
    uint8_t *room = inbuf_room(&in, 100 * K);
    memset(room, 1, 100 * K);
    struct body *first = inbuf_take(&in, room + 10, 40 * K);
    struct body *second = inbuf_take(&in, room + 50 * K, 50 * K);
    assert_ptr_equal(first->data, room + 10);
    assert_int_equal(first->size, 40 * K);
    assert_ptr_equal(second->data, room + 50 * K);
    uint8_t *next = inbuf_room(&in, 100 * K);
    assert_ptr_not_equal(next, room);
    memset(next, 2, 100 * K);
    inbuf_free(&in);
    for (size_t i = 0; i < 40 * K; i++)
        assert_int_equal(first->data[i], 1);
    body_unref(first);
    assert_int_equal(second->data[50 * K - 1], 1);
    body_unref(second);
}

/* Its memory is in the caches. */
static void a_room_that_nobody_holds_is_used_again(void **state)
{
    (void)state;
    uint8_t *room = inbuf_room(&in, 100 * K);
    assert_ptr_equal(inbuf_room(&in, 90 * K), room);
    body_unref(inbuf_take(&in, room, 70 * K));
    assert_ptr_equal(inbuf_room(&in, 100 * K), room);
}

static void what_does_not_fit_is_not_taken(void **state)
{
    (void)state;
    uint8_t *room = inbuf_room(&in, 800 * K);
    assert_null(inbuf_take(&in, room + 1, 800 * K));
    assert_null(inbuf_take(&in, room, 90 * K)); /* a small part of it */
    struct body *all = inbuf_take(&in, inbuf_room(&in, 100 * K), 100 * K);
    assert_int_equal(all->size, 100 * K);
    body_unref(all);
}

/* Of many large buffers one small piece each is held: that ends, and begins again when they go. */
static void small_pieces_do_not_hold_large_buffers(void **state)
{
    (void)state;
    struct body *pieces[1000];
    size_t count = 0;
    while (count < 1000) {
        pieces[count] = inbuf_take(&in, inbuf_room(&in, 1024 * K), 128 * K);
        if (!pieces[count])
            break;
        count++;
    }
    /* 1 MiB each, of at most twice 128 KiB each and the spare. */
    assert_int_equal(count, INBUF_SPARE / (1024 * K - 2 * 128 * K));
    struct body *half = inbuf_take(&in, inbuf_room(&in, 100 * K), 90 * K);
    assert_non_null(half);
    body_unref(half);
    while (count > 0)
        body_unref(pieces[--count]);
    struct body *again = inbuf_take(&in, inbuf_room(&in, 1024 * K), 128 * K);
    assert_non_null(again);
    body_unref(again);
}

/* ---- through a connection: each message is a size, and so many bytes ---- */

static struct body *bodies[64];
static size_t body_count;
static struct body *begun;
static size_t begun_there; /* bytes of the first that were there */

static uint8_t byte_of(size_t n, size_t i)
{
    return (uint8_t)(n * 31 + i * 7 + (i >> 8));
}

static void body_done(void)
{
    bodies[body_count++] = begun;
    begun = NULL;
}

static size_t sized_input(struct conn *c, const uint8_t *data, size_t size)
{
    uint32_t wanted;
    size_t at = 0;
    if (begun)
        body_done();
    while (size - at >= sizeof wanted) {
        memcpy(&wanted, data + at, sizeof wanted);
        at += sizeof wanted;
        size_t there = size - at < wanted ? size - at : wanted;
        if (body_count == 0)
            begun_there = there;
        begun = conn_body_begun(c, data + at, there, wanted);
        assert_non_null(begun);
        at += there;
        if (there < wanted)
            break;
        body_done();
    }
    return at;
}

static void sized_opened(struct conn *c)
{
    (void)c;
}

static void sized_closed(struct conn *c, int code)
{
    (void)c, (void)code;
}

static const struct conn_ops sized_ops = {
    .name = "sized", .opened = sized_opened, .input = sized_input, .closed = sized_closed};

static void tick_begin(void *arg, struct now now)
{
    (void)arg, (void)now;
}

static void tick_end(void *arg)
{
    conns_flush(arg);
}

/* In pieces of `piece` bytes, so large that the socket takes them. */
static void say(struct loop *loop, int fd, const uint8_t *data, size_t size, size_t piece)
{
    while (size > 0) {
        size_t most = size < piece ? size : piece;
        ssize_t sent = send(fd, data, most, MSG_DONTWAIT);
        if (sent > 0) {
            data += sent;
            size -= (size_t)sent;
        }
        loop_turn(loop, false);
    }
}

/* Of the first one the beginning is copied; all that follow it are taken. */
static void a_stream_of_large_payloads_is_not_copied(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {64 * K, 100 * K, 256 * K, 1024 * K, 3000 * K};
    static const size_t piece[] = {SIZE_MAX, 150 * K, 64 * K};
    static const struct loop_hooks hooks = {tick_begin, tick_end};
    const struct sockaddr_storage nobody = {.ss_family = AF_UNIX};
    const struct conns_config config = {.max_clients = 10, .handshake_ms = 100000};
    enum { EACH = 8 };
    for (size_t i = 0; i < 15; i++) {
        uint32_t size = sizes[i % 5];
        struct loop *loop = loop_new();
        struct conns *set = conns_new(loop, &config);
        loop_hook(loop, &hooks, set);
        int ends[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
        conn_accept(set, ends[0], &sized_ops, NULL, &nobody);
        struct buf out = BUF_EMPTY;
        for (size_t n = 0; n < EACH; n++) {
            buf_append(&out, &size, sizeof size);
            uint8_t *at = buf_reserve(&out, size);
            for (size_t b = 0; b < size; b++)
                at[b] = byte_of(n, b);
            out.size += size;
        }
        say(loop, ends[1], out.data, out.size, piece[i / 5]);
        close(ends[1]);
        while (body_count < EACH)
            loop_turn(loop, false);
        assert_in_range(begun_there, 1, CONN_FIRST);
        for (size_t n = 0; n < EACH; n++) {
            if (n > 0)
                assert_non_null(bodies[n]->release); /* a copy would be an allocation of its own */
            for (size_t b = 0; b < size; b++)
                if (bodies[n]->data[b] != byte_of(n, b))
                    fail_msg("byte %zu of payload %zu of %u is wrong", b, n, size);
            body_unref(bodies[n]);
        }
        body_count = 0;
        buf_free(&out);
        conns_free(set);
        loop_free(loop);
    }
}

/* Its parts come in turns, without a look at whether there is more; unless nobody is read. */
static void who_waits_for_its_turn_is_not_watched(void **state)
{
    (void)state;
    enum { SIZE = 1024 * K };
    static const struct loop_hooks hooks = {tick_begin, tick_end};
    static uint8_t bytes[SIZE];
    const struct sockaddr_storage nobody = {.ss_family = AF_UNIX};
    const struct conns_config config = {.max_clients = 10, .handshake_ms = 100000};
    const uint32_t size = SIZE;
    struct loop *loop = loop_new();
    struct conns *set = conns_new(loop, &config);
    int ends[2], room = 4 * SIZE;
    loop_hook(loop, &hooks, set);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    conn_accept(set, ends[0], &sized_ops, NULL, &nobody);
    const struct conn *c = conn_find(set, set->last_id);
    say(loop, ends[1], (const uint8_t *)&size, sizeof size, SIZE_MAX);
    say(loop, ends[1], bytes, 64 * K, SIZE_MAX);
    while (!begun || !c->reading)
        loop_turn(loop, false);
    size_t rest = (size_t)send(ends[1], bytes, SIZE - 64 * K - 1, 0), left = c->fill_left;
    assert_true(rest > 200 * K);
    loop_turn(loop, false);
    assert_false(c->reading);
    conns_pause(set, true);
    loop_turn(loop, false);
    loop_turn(loop, false);
    assert_in_range(c->fill_left, left - 2 * CONN_LARGE, left);
    assert_false(c->reading);
    left = c->fill_left;
    loop_turn(loop, false);
    assert_int_equal(c->fill_left, left);
    conns_pause(set, false);
    say(loop, ends[1], bytes, SIZE - 64 * K - rest, SIZE_MAX);
    close(ends[1]);
    while (body_count < 1)
        loop_turn(loop, false);
    body_unref(bodies[0]);
    body_count = 0;
    conns_free(set);
    loop_free(loop);
}

int main(void)
{
#define IN(test) cmocka_unit_test_setup_teardown(test, begin, end)
    const struct CMUnitTest tests[] = {
        IN(what_is_taken_stays),
        IN(a_room_that_nobody_holds_is_used_again),
        IN(what_does_not_fit_is_not_taken),
        IN(small_pieces_do_not_hold_large_buffers),
        IN(a_stream_of_large_payloads_is_not_copied),
        IN(who_waits_for_its_turn_is_not_watched),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
