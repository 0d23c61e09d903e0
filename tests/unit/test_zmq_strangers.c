/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Facts about libzmq that the lanes are built on: who is let in. Port scans, other protocols, wrong
 * secrets, second peers. Each test fails if the plane forgets it.
 */
#include "tests/unit/facts_fixture.h"

#include <errno.h>
#include <string.h>

#include "common/clock.h"
#include "server/net/plane_internal.h"
#include "server/net/ports.h"

/* ------------------------------------------------------------------------------ strangers */

/* A bare connect causes ACCEPTED and DISCONNECTED; only the admitted peer's end counts. */
static void port_scan_before_and_after_admission(void **state)
{
    (void)state;
    begin(NULL);
    welcome(&fake, 7, 70);
    scan(fake.welcome.lane_port, 50);
    RIG_UNTIL(&rig, strangers() >= 50);
    fake_connect_lane(&fake);
    RIG_UNTIL(&rig, fake_has_hello(&fake));
    scan(fake.welcome.lane_port, 50);
    RIG_UNTIL(&rig, strangers() >= 100);
    expect_lane_works(&fake, 7, 5);
    end();
}

/* An unread monitor stalls the I/O thread after some 670 connects, and with it everybody. */
static void many_scans_stall_nobody(void **state)
{
    (void)state;
    begin(NULL);
    fake_up(&fake, 7, 70);
    scan(fake.welcome.lane_port, 1500);
    scan(plane_join_port(rig.plane), 750);
    scan(plane_answers_port(rig.plane), 750);
    RIG_UNTIL(&rig, strangers() >= 3000);
    expect_lane_works(&fake, 7, 6);
    fake_done(&fake, 1, 3, (struct slice){0});
    RIG_UNTIL(&rig, rig.answers == 3);
    end();
}

/* What is there to read is read; true: the other side has ended. Then errno says nothing. */
static bool has_ended(int fd)
{
    char answer[256];
    ssize_t got = recv(fd, answer, sizeof answer, 0);
    return got == 0 || (got < 0 && errno != EAGAIN);
}

static void say(uint64_t port, const char *text, size_t size)
{
    int fd = tcp_connect(port);
    assert_int_equal(send(fd, text, size, MSG_NOSIGNAL), size);
    struct timeval tv = {.tv_usec = 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    /* ZeroMQ says its greeting, and ends the connection. */
    RIG_UNTIL(&rig, has_ended(fd));
    close(fd);
}

static void other_protocols_are_dropped(void **state)
{
    static const char http[] =
        "GET /metrics HTTP/1.1\r\nHost: localhost:5571\r\nAccept: */*\r\n\r\n"
        "GET /metrics HTTP/1.1\r\nHost: localhost:5571\r\nAccept: */*\r\n\r\n";
    static const char client[] = "\0\0\0\6\x94\x28\1\xc0\xc0";
    (void)state;
    begin(NULL);
    fake_up(&fake, 7, 70);
    uint16_t ports[] = {plane_join_port(rig.plane), plane_answers_port(rig.plane),
        (uint16_t)fake.welcome.lane_port};
    for (unsigned i = 0; i < 3; i++) {
        say(ports[i], http, sizeof http - 1);
        say(ports[i], client, sizeof client - 1);
    }
    expect_lane_works(&fake, 7, 7);
    assert_int_equal(plane_stats(rig.plane)->garbage, 0);
    assert_int_equal(rig.joins, 1);
    end();
}

static void few_strangers(struct plane_config *config)
{
    config->strangers = 8;
}

/* Those who stay are few on all lanes together, and a worker's own place is not among theirs. */
static void squatters_share_their_places(void **state)
{
    struct fake other;
    int fds[20];
    unsigned open = 20;
    (void)state;
    begin(few_strangers);
    fake_up(&fake, 7, 70);
    fake_start(&other, &rig);
    fake_up(&other, 8, 80);
    for (unsigned i = 0; i < 20; i++)
        fds[i] = tcp_connect(i % 2 ? fake.welcome.lane_port : other.welcome.lane_port);
    RIG_UNTIL(&rig, strangers() >= 12);
    struct timeval tv = {.tv_usec = 1000};
    for (unsigned i = 0; i < 20; i++)
        setsockopt(fds[i], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    for (unsigned i = 0; open > 8; i = (i + 1) % 20) {
        plane_rig_turn(&rig);
        if (fds[i] >= 0 && has_ended(fds[i])) {
            close(fds[i]);
            fds[i] = -1;
            open--;
        }
    }
    for (unsigned i = 0; i < 20; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    /* Their places are free again, and those of a lane that ends with it. */
    RIG_UNTIL(&rig, rig.plane->lane_places.taken == 0);
    expect_lane_works(&fake, 7, 8);
    expect_lane_works(&other, 8, 9);
    fake_stop(&other);
    end();
}

/* What the ROUTER calls the first that joins, in a process whose rand() begins as any other's. */
static void first_name(uint8_t name[ROUTE_SIZE])
{
    srand(1);
    begin(NULL);
    fake_join(&fake);
    RIG_UNTIL(&rig, rig.joins == 1);
    memcpy(name, peers_get(&rig.plane->peers, rig.join.peer)->route, ROUTE_SIZE);
    end();
}

/* A peer that calls itself what the ROUTER will call another one makes libzmq abort. */
static void names_of_peers_cannot_be_foreseen(void **state)
{
    uint8_t one[ROUTE_SIZE], other[ROUTE_SIZE];
    (void)state;
    first_name(one);
    first_name(other);
    assert_memory_not_equal(one, other, ROUTE_SIZE);
    /* Whose rand() it is does not notice. */
    void *context = zmq_ctx_new();
    struct socket_options options = {.domain = ZAP_DOMAIN_JOIN};
    srand(1);
    int expected = rand();
    srand(1);
    void *router = socket_make(context, ZMQ_ROUTER, &options);
    assert_non_null(router);
    assert_int_equal(rand(), expected);
    zmq_close(router);
    zmq_ctx_term(context);
}

/* ------------------------------------------------------------------------------- admission */

/* The first peer with the right secret is admitted, and nobody after it, not even when it left. */
static void lane_admits_once(void **state)
{
    struct fake thief;
    (void)state;
    begin(NULL);
    fake_up(&fake, 7, 70);
    fake_start(&thief, &rig);
    thief.lane = fake_plain(thief.context, ZMQ_PULL, fake.user, fake.token);
    fake_connect(thief.lane, fake.welcome.lane_port);
    RIG_UNTIL(&rig, strangers() >= 1);
    for (uint64_t i = 1; i <= 100; i++)
        expect_lane_works(&fake, 7, i);
    zmq_close(fake.lane);
    fake.lane = NULL;
    RIG_UNTIL(&rig, rig.lost);
    uint64_t before = strangers();
    fake_connect_lane(&fake);
    RIG_UNTIL(&rig, strangers() > before);
    fake_read_lane(&thief);
    fake.frames = 0;
    fake_read_lane(&fake);
    assert_int_equal(thief.frames + fake.frames, 0);
    fake_stop(&thief);
    end();
}

static void wrong_secrets_are_rejected(void **state)
{
    static const char *const tokens[] = {"", "wrong", NULL};
    (void)state;
    begin(NULL);
    welcome(&fake, 7, 70);
    for (unsigned i = 0; i < 3; i++) {
        uint64_t before = strangers();
        void *lane = tokens[i] ? fake_plain(fake.context, ZMQ_PULL, fake.user, tokens[i])
                               : zmq_socket(fake.context, ZMQ_PULL);
        void *answers = fake_plain(fake.context, ZMQ_PUSH, fake.user, "no");
        fake_connect(lane, fake.welcome.lane_port);
        fake_connect(answers, fake.welcome.answers_port);
        RIG_UNTIL(&rig, strangers() >= before + 2);
        zmq_close(lane);
        zmq_close(answers);
    }
    fake_connect_lane(&fake);
    RIG_UNTIL(&rig, fake_has_hello(&fake));
    end();
}

/* A token opens its own lane, and none beside it. */
static void token_of_another_worker(void **state)
{
    struct fake other;
    (void)state;
    begin(NULL);
    welcome(&fake, 7, 70); /* its own lane is not taken yet */
    fake_start(&other, &rig);
    welcome(&other, 8, 80);
    void *lane = fake_plain(fake.context, ZMQ_PULL, fake.user, fake.token);
    fake_connect(lane, other.welcome.lane_port);
    RIG_UNTIL(&rig, strangers() >= 1);
    fake_connect_lane(&other);
    RIG_UNTIL(&rig, fake_has_hello(&other));
    zmq_close(lane);
    fake_stop(&other);
    end();
}

static void one_lane_port(struct plane_config *config)
{
    config->lane_port_first = config->lane_port_last = first_port;
}

/* Joins; false: there is no port for it. */
static bool welcome_if_free(struct fake *who, uint64_t worker, uint64_t session)
{
    size_t joins = rig.joins;
    fake_join(who);
    RIG_UNTIL(&rig, rig.joins > joins);
    if (plane_rig_welcome(&rig, worker, session) == 0)
        return true;
    RIG_UNTIL(&rig, fake_is_refused(who));
    return false;
}

/* A worker that reconnects must not get the tasks of the next lane on the same port. */
static void reconnecting_peer_stays_outside(void **state)
{
    struct fake next;
    int soon = 1;
    (void)state;
    begin(one_lane_port);
    welcome(&fake, 7, 70);
    fake.lane = fake_plain(fake.context, ZMQ_PULL, fake.user, fake.token);
    zmq_setsockopt(fake.lane, ZMQ_RECONNECT_IVL, &soon, sizeof soon);
    fake_connect(fake.lane, fake.welcome.lane_port);
    RIG_UNTIL(&rig, fake_has_hello(&fake));
    uint64_t freed_ns = clock_now().mono_ns;
    plane_rig_close(&rig, 7, 0);
    fake_start(&next, &rig);
    while (!welcome_if_free(&next, 8, 80)) {
        assert_int_equal(next.code, PUSHROD_E_TOO_MANY);
        assert_true(next.retry);
        fake_again(&next);
    }
    /* The only port was in quarantine. */
    assert_true(clock_now().mono_ns - freed_ns >= PORTS_QUARANTINE_NS);
    RIG_UNTIL(&rig, fake_is_welcome(&next) && next.welcomed);
    assert_int_equal(next.welcome.lane_port, first_port);
    RIG_UNTIL(&rig, strangers() >= 1); /* the old one knocked */
    fake_connect_lane(&next);
    RIG_UNTIL(&rig, fake_has_hello(&next));
    fake.frames = 0;
    for (uint64_t i = 1; i <= 20; i++)
        expect_lane_works(&next, 8, i);
    fake_read_lane(&fake);
    assert_int_equal(fake.frames, 0);
    fake_stop(&next);
    end();
}

/* Reading ZMQ_EVENTS before the first send, or the HELLO of some lanes never leaves. */
static void first_message_after_each_handshake(void **state)
{
    (void)state;
    begin(NULL);
    for (uint64_t i = 1; i <= 200; i++) {
        struct fake one;
        fake_start(&one, &rig);
        fake_up(&one, i, i + 1000);
        expect_lane_works(&one, i, i);
        plane_rig_close(&rig, i, 0);
        fake_stop(&one);
    }
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(port_scan_before_and_after_admission),
        cmocka_unit_test(many_scans_stall_nobody),
        cmocka_unit_test(other_protocols_are_dropped),
        cmocka_unit_test(squatters_share_their_places),
        cmocka_unit_test(names_of_peers_cannot_be_foreseen),
        cmocka_unit_test(lane_admits_once),
        cmocka_unit_test(wrong_secrets_are_rejected),
        cmocka_unit_test(token_of_another_worker),
        cmocka_unit_test(reconnecting_peer_stays_outside),
        cmocka_unit_test(first_message_after_each_handshake),
    };
    return cmocka_run_group_tests(tests, ports_find, NULL);
}
