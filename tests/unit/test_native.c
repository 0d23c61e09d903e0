/* SPDX-License-Identifier: Apache-2.0 */
/* What the client protocol makes of bytes that arrive in pieces, at every place where they can. */
#include "tests/unit/unit.h"

#include <string.h>

#include "tests/lib/native_play.h"

static struct native_play play;
static struct native_peer peer;
static struct buf out;

static int begin(void **state)
{
    (void)state;
    native_play_start(&play);
    native_peer_open(&play, &peer);
    out = BUF_EMPTY;
    return 0;
}

static int end(void **state)
{
    (void)state;
    native_peer_close(&play, &peer);
    native_play_stop(&play);
    buf_free(&out);
    return 0;
}

static void again(void)
{
    native_peer_close(&play, &peer);
    native_peer_open(&play, &peer);
}

static void put_hello(struct buf *to)
{
    size_t at = frame_begin(to);
    msg_hello_encode(to, &(struct msg_hello){.version = PROTOCOL_VERSION});
    frame_end(to, at);
}

static const uint8_t *bytes_of(size_t size)
{
    static uint8_t bytes[NATIVE_PLAY_PAYLOAD + (64u << 10)];
    assert_true(size <= sizeof bytes);
    memset(bytes, 'x', sizeof bytes);
    return bytes;
}

static void put_submit(struct buf *to, uint64_t request, size_t size)
{
    msg_submit_encode(to, &(struct msg_submit){.request = request,
                              .queue = slice_str("work"),
                              .payload = slice_of(bytes_of(size), size)});
}

static void put_echo(struct buf *to, uint64_t request)
{
    struct msg_echo m = {.request = request};
    msg_echo_encode(to, &m);
}

static struct native_heard say_all(void)
{
    native_peer_say(&play, &peer, out.data, out.size);
    native_peer_settle(&play, &peer, out.size);
    return native_peer_heard(&peer);
}

/* In two pieces, cut after `cut` bytes. */
static struct native_heard say_cut(size_t cut)
{
    native_peer_say(&play, &peer, out.data, cut);
    native_peer_say(&play, &peer, out.data + cut, out.size - cut);
    native_peer_settle(&play, &peer, out.size);
    return native_peer_heard(&peer);
}

static void expect(struct native_heard h, size_t accepted, size_t rejected, size_t ok)
{
    assert_int_equal(h.error, 0);
    assert_int_equal(h.counts[MSG_GREETING], 1);
    assert_int_equal(h.counts[MSG_ACCEPTED], accepted);
    assert_int_equal(h.counts[MSG_REJECTED], rejected);
    assert_int_equal(h.counts[MSG_OK], ok);
    assert_true(h.in_order);
    assert_false(peer.closed);
}

/* ---------------------------------------------------------------------------- small frames */

static void put_conversation(struct buf *to)
{
    put_hello(to);
    size_t at = frame_begin(to);
    put_submit(to, 1, 10);
    put_echo(to, 2);
    put_submit(to, 3, 0);
    frame_end(to, at);
    at = frame_begin(to);
    put_submit(to, 4, 5000);
    frame_end(to, at);
    at = frame_begin(to);
    put_echo(to, 5);
    frame_end(to, at);
}

static void byte_by_byte(void **state)
{
    (void)state;
    put_conversation(&out);
    for (size_t i = 0; i < out.size; i++)
        native_peer_say(&play, &peer, out.data + i, 1);
    expect(native_peer_heard(&peer), 3, 0, 2);
}

static void cut_anywhere(void **state)
{
    (void)state;
    put_conversation(&out);
    for (size_t cut = 0; cut <= out.size; cut += cut < 120 || cut + 60 > out.size ? 1 : 97) {
        expect(say_cut(cut), 3, 0, 2);
        again();
    }
}

/* More than a batch in one frame, more than one frame in one read. */
static void many_in_one_piece(void **state)
{
    (void)state;
    put_hello(&out);
    for (uint64_t frame = 0; frame < 3; frame++) {
        size_t at = frame_begin(&out);
        for (uint64_t i = 0; i < NATIVE_BATCH + 1; i++)
            put_submit(&out, frame * 1000 + i + 1, 3);
        frame_end(&out, at);
    }
    expect(say_all(), 3 * (NATIVE_BATCH + 1), 0, 0);
}

/* What came before the garbage counts; nothing after it does. */
static void garbage_ends_it(void **state)
{
    (void)state;
    put_hello(&out);
    size_t at = frame_begin(&out);
    put_submit(&out, 1, 10);
    buf_append(&out, "\xc1", 1);
    put_submit(&out, 2, 10);
    frame_end(&out, at);
    at = frame_begin(&out);
    put_submit(&out, 3, 10);
    frame_end(&out, at);
    struct native_heard h = say_all();
    assert_int_equal(h.error, PUSHROD_E_BAD_MESSAGE);
    assert_int_equal(h.counts[MSG_ERROR], 1);
    /* Its answer was lost with the connection. */
    assert_int_equal(host_stats(play.server->host)->submitted, 1);
}

/* ---------------------------------------------------------------------------- large frames */

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

/* Its payload is not the first thing in the frame: read as a whole. */
static void large_behind_another(void **state)
{
    (void)state;
    put_hello(&out);
    size_t at = frame_begin(&out);
    put_echo(&out, 1);
    put_submit(&out, 2, 200u << 10);
    put_submit(&out, 3, 200u << 10);
    frame_end(&out, at);
    expect(say_all(), 2, 0, 1);
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

/* ------------------------------------------------------------------------------- patience */

static void put_patient(struct buf *to, uint64_t first, size_t count)
{
    size_t at = frame_begin(to);
    for (size_t i = 0; i < count; i++)
        msg_submit_encode(to, &(struct msg_submit){.request = first + i,
                                  .queue = slice_str("work"),
                                  .payload = slice_str("x"),
                                  .patient = true});
    frame_end(to, at);
}

/* All is read in one tick; what has left at its end is heard. */
static struct native_heard say_in_one_tick(void)
{
    assert_int_equal(send(peer.fd, out.data, out.size, 0), (ssize_t)out.size);
    buf_clear(&out);
    native_play_turn(&play);
    native_peer_hear(&peer);
    return native_peer_heard(&peer);
}

static void greet(void)
{
    put_hello(&out);
    say_all();
    buf_clear(&out);
}

static void patient_leaves_with_the_next(void **state)
{
    (void)state;
    greet();
    put_patient(&out, 1, 2);
    expect(say_in_one_tick(), 0, 0, 0);
    assert_int_equal(host_stats(play.server->host)->submitted, 2);
    size_t at = frame_begin(&out);
    put_submit(&out, 3, 10);
    frame_end(&out, at);
    expect(say_in_one_tick(), 3, 0, 0);
}

static void patient_alone_does_not_stay(void **state)
{
    (void)state;
    greet();
    put_patient(&out, 1, 1);
    while (say_in_one_tick().counts[MSG_ACCEPTED] < 1)
        ;
    put_patient(&out, 2, 1);
    while (say_in_one_tick().counts[MSG_ACCEPTED] < 2)
        ;
    expect(native_peer_heard(&peer), 2, 0, 0);
}

static void patient_and_many(void **state)
{
    (void)state;
    greet();
    put_patient(&out, 1, CONN_LATER / 4);
    expect(say_in_one_tick(), CONN_LATER / 4, 0, 0);
}

/* It has said all: what waits for it is told, and then the server closes. */
static void patient_and_leaving(void **state)
{
    (void)state;
    greet();
    put_patient(&out, 1, 1);
    expect(say_in_one_tick(), 0, 0, 0);
    assert_int_equal(shutdown(peer.fd, SHUT_WR), 0);
    while (!peer.closed) {
        native_play_turn(&play);
        native_peer_hear(&peer);
    }
    assert_int_equal(native_peer_heard(&peer).counts[MSG_ACCEPTED], 1);
}

/* It has gone, and nobody writes to it any more. */
static void patient_and_gone(void **state)
{
    (void)state;
    greet();
    put_patient(&out, 1, 1);
    expect(say_in_one_tick(), 0, 0, 0);
    again();
    greet();
    expect(native_peer_heard(&peer), 0, 0, 0);
}

/* Stopped at once: what had waited for company leaves before the connection is closed. */
static void patient_and_stopped(void **state)
{
    (void)state;
    greet();
    put_patient(&out, 1, 1);
    expect(say_in_one_tick(), 0, 0, 0);
    pushrod_server_stop(play.server);
    pushrod_server_stop(play.server);
    while (pushrod_server_step(play.server) == 1)
        continue;
    native_peer_hear(&peer);
    assert_int_equal(native_peer_heard(&peer).counts[MSG_ACCEPTED], 1);
    assert_true(peer.closed);
    native_play_stop(&play);
    native_play_start(&play);
    again();
}

static bool id_take(struct conn *c, void *id)
{
    *(uint64_t *)id = c->id;
    return false;
}

/* What could not be written is missing: a finish behind it would be taken for the whole. */
static void no_memory_ends_it(void **state)
{
    (void)state;
    struct pushrod_server *s = play.server;
    struct task task = {.result = body_new(100u << 10)};
    struct conn_action actions[] = {
        {.kind = MSG_OK, .request = 1}, {.kind = MSG_FINISHED, .task = &task}};
    put_hello(&out);
    say_all();
    memset(task.result->data, 'x', task.result->size);
    conns_each(s->conns, &native_ops, id_take, &actions[0].conn);
    actions[1].conn = actions[0].conn;
    loop_enter(s->loop);
    native_output(s->native)->failed = true;
    native_actions(s->native, actions, 2);
    native_peer_settle(&play, &peer, 0);
    assert_int_equal(native_peer_heard(&peer).counts[MSG_FINISHED], 0);
    assert_true(peer.closed);
    body_unref(task.result);
}

int main(void)
{
#define PLAY(test) cmocka_unit_test_setup_teardown(test, begin, end)
    const struct CMUnitTest tests[] = {
        PLAY(byte_by_byte),
        PLAY(cut_anywhere),
        PLAY(many_in_one_piece),
        PLAY(garbage_ends_it),
        PLAY(large_cut_anywhere),
        PLAY(large_in_small_pieces),
        PLAY(large_behind_another),
        PLAY(several_large),
        PLAY(small_beside_large),
        PLAY(too_large_by_one),
        PLAY(large_that_ends_in_garbage),
        PLAY(large_before_hello),
        PLAY(gone_in_the_middle),
        PLAY(patient_leaves_with_the_next),
        PLAY(patient_alone_does_not_stay),
        PLAY(patient_and_many),
        PLAY(patient_and_leaving),
        PLAY(patient_and_gone),
        PLAY(patient_and_stopped),
        PLAY(no_memory_ends_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
