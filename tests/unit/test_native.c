/* SPDX-License-Identifier: Apache-2.0 */
/* What the client protocol makes of bytes that arrive in pieces, at every place where they can. */
#include "tests/unit/native_fixture.h"

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

static bool add_unsent(struct conn *c, void *arg)
{
    *(size_t *)arg += c->unsent;
    return true;
}

/* Bytes that the one connection was told, or is to be. */
static size_t said_to_it(void)
{
    size_t size = peer.heard.size;
    conns_each(play.server->conns, &native_ops, add_unsent, &size);
    return size;
}

/* Many small ones in one frame are several turns' work: what they are told comes in parts, too. */
static void frame_of_many_has_several_turns(void **state)
{
    size_t count = 190000;
    (void)state;
    put_hello(&out);
    size_t at = frame_begin(&out);
    for (size_t i = 0; i < count; i++)
        put_echo(&out, 1);
    frame_end(&out, at);
    at = frame_begin(&out);
    put_echo(&out, 2);
    frame_end(&out, at);
    /* Two rounds at the most: the end of the frame is read in the one, and the other follows. */
    size_t last = out.size - 9;
    for (unsigned i = 0; i < 2; i++) {
        again();
        native_peer_say(&play, &peer, out.data, last);
        assert_int_equal(native_peer_heard(&peer).counts[MSG_OK], 0);
        assert_int_equal(write(peer.fd, out.data + last, out.size - last), out.size - last);
        native_play_turn(&play);
        native_peer_hear(&peer);
        assert_true(native_peer_heard(&peer).counts[MSG_OK] > 0);
        assert_true(said_to_it() < count * (FRAME_HEAD + 4)); /* an array of 3 small numbers */
    }
    native_peer_settle(&play, &peer, out.size);
    expect(native_peer_heard(&peer), 0, 0, count + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        PLAY(byte_by_byte),
        PLAY(cut_anywhere),
        PLAY(many_in_one_piece),
        PLAY(frame_of_many_has_several_turns),
        PLAY(garbage_ends_it),
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
