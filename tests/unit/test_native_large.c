/* SPDX-License-Identifier: Apache-2.0 */
/* Large payloads over the client protocol, in pieces: they are read into the body they leave from.
 */
#include "tests/lib/core_look.h"
#include "tests/unit/native_fixture.h"

static void payload_is_right(struct slice payload)
{
    for (size_t i = 0; i < payload.size; i++)
        if (payload.data[i] != byte_of(payload.data[0], i))
            fail_msg("byte %zu of %zu is wrong", i, payload.size);
}

/* Every payload that the server has is one that was sent. */
static void payloads_are_right(void)
{
    core_each_payload(host_core(play.server->host), payload_is_right);
}

/* The payload is read into its body; what is behind it, in the frame and after it, is not lost. */
static size_t put_large(struct buf *to, size_t size)
{
    put_hello(to);
    size_t at = frame_begin(to), head = to->size;
    put_submit(to, 1, size);
    put_echo(to, 2);
    put_submit(to, 3, 10);
    frame_end(to, at);
    at = frame_begin(to);
    put_echo(to, 4);
    frame_end(to, at);
    return head;
}

static void large_of_cut_anywhere(size_t size)
{
    size_t head = put_large(&out, size);
    size_t cuts[128], count = 0;
    for (size_t i = 0; i < 40; i++)
        cuts[count++] = head - 5 + i; /* the frame's length, the SUBMIT's head, the first bytes */
    for (size_t cut = head + size; cut < out.size; cut++)
        cuts[count++] = cut; /* its end, the tail, the next frame */
    assert_true(count < 100);
    if (size > CONN_READ) {
        cuts[count++] = head + CONN_READ;
        cuts[count++] = head + CONN_READ + 1;
    }
    for (size_t i = 0; i < count; i++) {
        expect(say_cut(cuts[i]), 2, 0, 2);
        again();
    }
    buf_clear(&out);
}

static void large_cut_anywhere(void **state)
{
    (void)state;
    large_of_cut_anywhere(300u << 10); /* larger than one read */
    large_of_cut_anywhere(64u << 10);  /* not so, but its payload has a read of its own */
}

static void large_in_small_pieces(void **state)
{
    (void)state;
    put_large(&out, 300u << 10);
    for (size_t at = 0; at < out.size; at += 4999)
        native_peer_say(&play, &peer, out.data + at, out.size - at < 4999 ? out.size - at : 4999);
    expect(native_peer_heard(&peer), 2, 0, 2);
}

/* Not the first thing in the frame, and not the last. */
static void large_behind_another(void **state)
{
    (void)state;
    put_hello(&out);
    size_t at = frame_begin(&out), cuts[8];
    put_echo(&out, 1);
    put_submit(&out, 2, 200u << 10);
    cuts[0] = out.size;
    put_submit(&out, 3, 200u << 10);
    cuts[1] = out.size;
    put_submit(&out, 4, 10);
    put_submit(&out, 5, 90u << 10);
    cuts[2] = out.size;
    put_echo(&out, 6);
    frame_end(&out, at);
    uint64_t wanted = 0, each = (200u << 10) * 2 + (90u << 10) + 10;
    for (size_t i = 0; i < 3; i++)
        for (size_t back = 0; back < 12; back++) {
            expect(say_cut(cuts[i] - back), 4, 0, 2);
            again();
            /* A payload that lost its message would be an empty one. */
            wanted += each;
            assert_int_equal(host_stats(play.server->host)->ledger_bytes, wanted);
        }
    payloads_are_right();
}

/* Behind a large payload a value that the frame's end cuts off, and then the next frame. */
static void cut_off_by_its_frame(void **state)
{
    (void)state;
    for (size_t left = 1; left < 15; left++) {
        put_hello(&out);
        size_t at = frame_begin(&out);
        put_submit(&out, 1, 100u << 10);
        size_t first = out.size;
        put_submit(&out, 2, 10);
        out.size = first + left;
        frame_end(&out, at);
        at = frame_begin(&out);
        put_echo(&out, 3);
        frame_end(&out, at);
        for (size_t cut = first - 5; cut < out.size; cut++) {
            struct native_heard h = say_cut(cut);
            assert_int_equal(h.error, PUSHROD_E_BAD_MESSAGE);
            assert_int_equal(h.counts[MSG_OK], 0);
            again();
        }
        buf_clear(&out);
    }
}

/* What makes no sense is the same nonsense in pieces: a queue's name of 400 KiB. */
static void long_without_a_payload(void **state)
{
    (void)state;
    put_hello(&out);
    size_t at = frame_begin(&out);
    put_submit(&out, 1, 70u << 10);
    struct msg_submit m = {.request = 2, .queue = slice_of(bytes_of(400u << 10), 400u << 10)};
    msg_submit_encode(&out, &m);
    put_echo(&out, 3);
    put_submit(&out, 4, 80u << 10);
    frame_end(&out, at);
    expect(say_all(), 2, 1, 1);
    for (size_t cut = 50; cut < out.size; cut += 29989) {
        again();
        expect(say_cut(cut), 2, 1, 1);
    }
    payloads_are_right();
}

/* It ends with a payload, whose SUBMIT has more fields; something before it has a body, too. */
static void ends_with_a_payload(void **state)
{
    (void)state;
    for (size_t missing = 1; missing <= 4; missing++) {
        put_hello(&out);
        size_t at = frame_begin(&out);
        put_submit(&out, 1, 10u << 10);
        put_submit(&out, 2, 100u << 10);
        out.size -= missing;
        frame_end(&out, at);
        for (size_t cut = 60; cut < out.size; cut += 9973) {
            assert_int_equal(say_cut(cut).error, PUSHROD_E_BAD_MESSAGE);
            again();
        }
        buf_clear(&out);
    }
}

/* Who comes again sends a frame of which the server has not seen the end once more. */
static void nothing_counts_before_the_end(void **state)
{
    (void)state;
    put_hello(&out);
    size_t at = frame_begin(&out);
    for (uint64_t i = 0; i < 1000; i++)
        put_submit(&out, i + 1, 100);
    put_submit(&out, 1001, 200u << 10);
    put_submit(&out, 1002, 100);
    size_t end = out.size;
    frame_end(&out, at);
    for (size_t cut = end - 1; cut > 60000; cut -= 37000) {
        native_peer_say(&play, &peer, out.data, cut);
        native_peer_settle(&play, &peer, cut);
        again();
    }
    assert_int_equal(host_stats(play.server->host)->submitted, 0);
    expect(say_cut(end - 1), 1002, 0, 0);
}

/* Its length says more than the frame has. */
static void larger_than_its_frame(void **state)
{
    (void)state;
    put_hello(&out);
    size_t at = frame_begin(&out);
    put_submit(&out, 1, 100u << 10);
    out.size -= 1000;
    frame_end(&out, at);
    assert_int_equal(say_cut(50u << 10).error, PUSHROD_E_BAD_MESSAGE);
    again();
    assert_int_equal(say_all().error, PUSHROD_E_BAD_MESSAGE);
    assert_int_equal(host_stats(play.server->host)->submitted, 0);
}

/* A frame for each; what is read behind one begins the next. */
static void several_large(void **state)
{
    (void)state;
    enum { K = 1024, M = NATIVE_PLAY_PAYLOAD };
    static const size_t sizes[] = {M, M, M, 70 * K, 70 * K, 70 * K, 70 * K, 64 * K, 64 * K, 64 * K,
        64 * K, 200 * K, 100, 90 * K, 50 * K, M, 70 * K, 0, 250 * K, 5 * K};
    const size_t count = sizeof sizes / sizeof *sizes;
    put_hello(&out);
    for (uint64_t i = 0; i < count; i++) {
        size_t at = frame_begin(&out);
        put_submit(&out, i + 1, sizes[i]);
        frame_end(&out, at);
    }
    expect(say_all(), count, 0, 0);
    payloads_are_right();
}

/* Frames of any messages, in any pieces. */
static void any_frames_in_any_pieces(void **state)
{
    (void)state;
    enum { K = 1024 };
    static const size_t sizes[] = {0, 5, 300, 5 * K, 63 * K, 64 * K, 65 * K, 130 * K, 256 * K};
    uint64_t seed = random_seed(), wanted = 0;
    for (unsigned round = 0; round < 60; round++) {
        size_t tasks = 0, echoes = 0;
        put_hello(&out);
        for (size_t frames = 1 + random_next(&seed) % 3; frames > 0; frames--) {
            size_t at = frame_begin(&out), begin = out.size;
            do {
                size_t size = sizes[random_next(&seed) % 9];
                if (random_next(&seed) % 3 == 0) {
                    put_echo(&out, 1000 + ++echoes);
                } else if (out.size - begin + size < NATIVE_PLAY_PAYLOAD) {
                    put_submit(&out, ++tasks, size);
                    wanted += size;
                }
            } while (random_next(&seed) % 5);
            if (out.size == begin)
                put_echo(&out, 1000 + ++echoes);
            frame_end(&out, at);
        }
        size_t most = 1 + random_next(&seed) % (random_next(&seed) % 2 ? 300 * K : 40 * K);
        for (size_t at = 0, piece; at < out.size; at += piece) {
            piece = 1 + random_next(&seed) % most;
            piece = piece < out.size - at ? piece : out.size - at;
            native_peer_say(&play, &peer, out.data + at, piece);
        }
        native_peer_settle(&play, &peer, out.size);
        expect(native_peer_heard(&peer), tasks, 0, echoes);
        assert_int_equal(host_stats(play.server->host)->ledger_bytes, wanted);
        again();
        buf_clear(&out);
    }
    payloads_are_right();
}

/* What is small waits for a part of a large payload, never for the whole. */
static void small_beside_large(void **state)
{
    (void)state;
    struct native_peer small;
    native_peer_open(&play, &small);
    put_hello(&out);
    size_t hello = out.size, at = frame_begin(&out);
    native_peer_say(&play, &small, out.data, hello);
    native_peer_say(&play, &peer, out.data, hello);
    put_submit(&out, 1, NATIVE_PLAY_PAYLOAD);
    frame_end(&out, at);
    /* All of it is there to be read, before the small one says anything. */
    assert_int_equal(send(peer.fd, out.data + hello, out.size - hello, 0), out.size - hello);
    native_play_turn(&play);
    buf_clear(&out);
    at = frame_begin(&out);
    put_echo(&out, 1);
    frame_end(&out, at);
    assert_int_equal(send(small.fd, out.data, out.size, 0), out.size);
    native_play_turn(&play);
    native_play_turn(&play);
    native_peer_hear(&small);
    assert_int_equal(native_peer_heard(&small).counts[MSG_OK], 1);
    assert_int_equal(host_stats(play.server->host)->submitted, 0);
    native_peer_settle(&play, &peer, NATIVE_PLAY_PAYLOAD);
    assert_int_equal(host_stats(play.server->host)->submitted, 1);
    native_peer_close(&play, &small);
}

/* One byte too many is refused for its size; the connection goes on. */
static void too_large_by_one(void **state)
{
    (void)state;
    put_hello(&out);
    size_t at = frame_begin(&out);
    put_submit(&out, 1, NATIVE_PLAY_PAYLOAD + 1);
    frame_end(&out, at);
    at = frame_begin(&out);
    put_submit(&out, 2, NATIVE_PLAY_PAYLOAD);
    frame_end(&out, at);
    struct native_heard h = say_all();
    expect(h, 1, 1, 0);
    assert_int_equal(h.rejected, PUSHROD_E_TOO_BIG);
}

static void large_that_ends_in_garbage(void **state)
{
    (void)state;
    put_hello(&out);
    size_t at = frame_begin(&out);
    put_submit(&out, 1, 300u << 10);
    out.data[out.size - 1] = 0xc1; /* instead of the options */
    frame_end(&out, at);
    struct native_heard h = say_all();
    assert_int_equal(h.error, PUSHROD_E_BAD_MESSAGE);
    assert_int_equal(h.counts[MSG_ACCEPTED], 0);
}

/* Before HELLO nobody may make the server keep more than a small frame. */
static void large_before_hello(void **state)
{
    (void)state;
    size_t at = frame_begin(&out);
    put_submit(&out, 1, 300u << 10);
    frame_end(&out, at);
    struct native_heard h = say_all();
    assert_int_equal(h.error, PUSHROD_E_BAD_FRAME);
    again();
    buf_clear(&out);
    at = frame_begin(&out);
    put_submit(&out, 1, 60u << 10);
    frame_end(&out, at);
    assert_int_equal(say_all().error, PUSHROD_E_BAD_MESSAGE);
}

/* It leaves in the middle of a payload: nothing was submitted, nothing leaks, others go on. */
static void gone_in_the_middle(void **state)
{
    (void)state;
    put_large(&out, 300u << 10);
    for (size_t cut = 30; cut < out.size; cut += 20011) {
        native_peer_say(&play, &peer, out.data, cut);
        again();
    }
    struct pushrod_server *s = play.server;
    assert_int_equal(host_stats(s->host)->submitted, 0);
    expect(say_all(), 2, 0, 2);
}

struct back {
    size_t count;
    size_t bytes;
};

static void back_add(void *arg, unsigned number, struct dec d)
{
    struct back *back = arg;
    struct msg_submitted m;
    if (number != MSG_SUBMITTED)
        return;
    assert_true(msg_submitted_decode(&d, &m));
    assert_true(m.request > 10 && slice_equal(m.queue, slice_str("work")));
    assert_true(m.options.data);
    if (m.payload.size)
        payload_is_right(m.payload);
    back->count++;
    back->bytes += m.payload.size;
}

/* What was given comes back, beside other answers; the large ones from where they lie. */
static void payloads_come_back(void **state)
{
    static const size_t sizes[] = {0, 10, 4097, 16u << 10, 90u << 10, 300u << 10};
    enum { COUNT = sizeof sizes / sizeof *sizes };
    (void)state;
    struct back back = {0};
    size_t wanted = 0;
    put_hello(&out);
    for (size_t i = 0; i < COUNT; i++, wanted += sizes[i - 1]) {
        size_t at = frame_begin(&out);
        put_submit(&out, i + 1, sizes[i]);
        frame_end(&out, at);
    }
    expect(say_all(), COUNT, 0, 0);
    buf_clear(&out);
    size_t at = frame_begin(&out);
    for (size_t i = 0; i < COUNT; i++) {
        struct msg_list m = {.request = 11 + i, .what = slice_str("submitted"), .after = i + 1};
        msg_list_encode(&out, &m);
        put_echo(&out, 31 + i);
    }
    struct msg_list m = {.request = 22, .what = slice_str("options"), .after = COUNT};
    msg_list_encode(&out, &m);
    frame_end(&out, at);
    expect(say_all(), COUNT, 0, COUNT);
    native_peer_each(&peer, back_add, &back);
    assert_int_equal(back.count, COUNT + 1);
    assert_int_equal(back.bytes, wanted);
}

static bool conn_take(struct conn *c, void *arg)
{
    *(struct conn **)arg = c;
    return false;
}

/* More than the peer has room for, and the end of the connection if these are the last words. */
static struct conn *told(size_t size, bool last)
{
    struct conn *c = NULL;
    void *words = calloc(1, size);
    assert_non_null(words);
    conns_each(play.server->conns, &native_ops, conn_take, &c);
    assert_non_null(c);
    loop_enter(play.server->loop);
    conn_write(c, words, size);
    if (last)
        conn_close(c, 0);
    free(words);
    native_play_turn(&play);
    assert_true(c->unsent > 0);
    return c;
}

/* A socket of MiB that is read from says that there is room when a third of it is empty: over a
 * slow link that may be later than `slow-client`. */
static void room_in_the_socket_is_progress(void **state)
{
    (void)state;
    static uint8_t some[64 << 10];
    put_hello(&out);
    say_all();
    struct conn *c = told(8 << 20, false);
    size_t unsent = c->unsent;
    for (unsigned i = 0; i < 2; i++) {
        assert_true(recv(peer.fd, some, sizeof some, 0) > 0);
        loop_timer_clear(play.server->loop, &c->timer);
        c->timer.fn(c->timer.arg);
        assert_int_equal(c->state, CONN_OPEN);
        assert_int_equal(c->unsent, unsent);
        assert_true(heap_holds(&c->timer.node));
    }
    loop_timer_clear(play.server->loop, &c->timer);
    c->timer.fn(c->timer.arg);
    assert_int_equal(c->state, CONN_DEAD);
    assert_int_equal(c->code, PUSHROD_E_SLOW_READER);
}

/* "slow-client: without a byte taken", also when they are the last ones. */
static void last_words_are_read_slowly(void **state)
{
    enum { WORDS = 8 << 20, SOME = 256 << 10 };
    (void)state;
    static uint8_t some[SOME];
    const uint64_t slow_ms = play.server->conns->config.slow_ms;
    struct conn *c = told(WORDS, true);
    assert_int_equal(c->state, CONN_CLOSING);
    for (size_t left = c->unsent; left > 0; left = c->unsent) {
        uint64_t before = clock_mono_ns();
        while (c->unsent == left) {
            assert_true(recv(peer.fd, some, SOME, 0) > 0);
            native_play_turn(&play);
        }
        assert_true(c->unsent == 0 || c->timer.node.key >= before + slow_ms * NS_PER_MS);
    }
    /* All is sent: now it is waited for only a moment. */
    assert_true(c->timer.node.key < clock_mono_ns() + slow_ms * NS_PER_MS);
    native_peer_hear(&peer);
    assert_true(peer.closed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        PLAY(large_cut_anywhere),
        PLAY(large_in_small_pieces),
        PLAY(large_behind_another),
        PLAY(long_without_a_payload),
        PLAY(ends_with_a_payload),
        PLAY(larger_than_its_frame),
        PLAY(cut_off_by_its_frame),
        PLAY(nothing_counts_before_the_end),
        PLAY(several_large),
        PLAY(any_frames_in_any_pieces),
        PLAY(small_beside_large),
        PLAY(too_large_by_one),
        PLAY(large_that_ends_in_garbage),
        PLAY(large_before_hello),
        PLAY(gone_in_the_middle),
        PLAY(payloads_come_back),
        PLAY(room_in_the_socket_is_progress),
        PLAY(last_words_are_read_slowly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
