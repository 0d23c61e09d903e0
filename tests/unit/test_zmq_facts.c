/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Facts about libzmq that the lanes are built on: ports, descriptors, options, and what is lost
 * with a connection. Each test fails if the plane forgets it.
 */
#include "tests/unit/facts_fixture.h"

#include <dirent.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <string.h>

#include "server/net/lane.h"
#include "server/net/plane_internal.h"

/* ----------------------------------------------------------------------------------- ports */

static void two_lane_ports(struct plane_config *config)
{
    config->lane_port_first = first_port;
    config->lane_port_last = (uint16_t)(first_port + 1);
}

static void taken_lane_port_is_left_out(void **state)
{
    (void)state;
    int taken = tcp_listen(first_port);
    begin(two_lane_ports);
    welcome(&fake, 7, 70);
    assert_int_equal(fake.welcome.lane_port, first_port + 1);
    fake_connect_lane(&fake);
    RIG_UNTIL(&rig, fake_has_hello(&fake));
    struct fake second;
    fake_start(&second, &rig);
    fake_join(&second);
    RIG_UNTIL(&rig, rig.joins == 2);
    assert_int_equal(plane_rig_welcome(&rig, 8, 80), -PUSHROD_E_TOO_MANY);
    RIG_UNTIL(&rig, fake_is_refused(&second));
    assert_true(second.retry);
    assert_non_null(strstr(second.text, "lane port"));
    close(taken);
    fake_stop(&second);
    end();
}

static void three_lane_ports(struct plane_config *config)
{
    config->lane_port_first = first_port;
    config->lane_port_last = (uint16_t)(first_port + 2);
}

/* A bind after a close is tried on other ports first, and the freed one works again later. */
static void freed_ports_are_used_again(void **state)
{
    uint64_t last = 0, freed_ns = 0;
    (void)state;
    begin(three_lane_ports);
    for (uint64_t i = 1; i <= 12;) {
        size_t joins = rig.joins;
        fake_again(&fake);
        fake_join(&fake);
        RIG_UNTIL(&rig, rig.joins > joins);
        if (plane_rig_welcome(&rig, i, i) != 0) {
            /* Hundreds that are not read, one in each round, would stand before the welcome. */
            RIG_UNTIL(&rig, fake_is_refused(&fake));
            continue;
        }
        RIG_UNTIL(&rig, fake_is_welcome(&fake));
        /* On a busy machine its rest may be over before the next one is bound. */
        if (clock_now().mono_ns - freed_ns < PORTS_QUARANTINE_NS)
            assert_int_not_equal(fake.welcome.lane_port, last);
        last = fake.welcome.lane_port;
        fake_connect_lane(&fake);
        RIG_UNTIL(&rig, fake_has_hello(&fake));
        freed_ns = clock_now().mono_ns;
        plane_rig_close(&rig, i++, 0);
        zmq_close(fake.lane);
        fake.lane = NULL;
    }
    end();
}

static struct plane *refused_plane(const struct plane_config *config, char **error)
{
    static const struct plane_events events;
    struct loop *loop = loop_new();
    struct plane *plane = plane_new(loop, config, &events, NULL, error);
    loop_free(loop);
    return plane;
}

static void taken_join_port_is_named(void **state)
{
    struct plane_config config = {.listen = "127.0.0.1", .max_lanes = 4};
    char *error;
    (void)state;
    int taken = tcp_listen(first_port);
    config.join_port = first_port;
    assert_null(refused_plane(&config, &error));
    char text[32];
    snprintf(text, sizeof text, "port %u is taken", first_port);
    assert_non_null(strstr(error, text));
    assert_non_null(strstr(error, "--join-port"));
    free(error);
    config.join_port = 0;
    config.answers_port = first_port;
    assert_null(refused_plane(&config, &error));
    assert_non_null(strstr(error, "--answers-port"));
    free(error);
    config.answers_port = 0;
    config.listen = "192.0.2.1";
    assert_null(refused_plane(&config, &error));
    assert_non_null(strstr(error, "'192.0.2.1' is no address of this machine"));
    free(error);
    close(taken);
}

/* ----------------------------------------------------------------------------- descriptors */

static size_t open_descriptors(void)
{
    size_t count = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

/* What the limit is computed from: five for each lane, and all come back. */
static void lanes_cost_five_descriptors(void **state)
{
    struct fake fakes[20];
    (void)state;
    begin(NULL);
    fake_up(&fake, 100, 100);
    fake_done(&fake, 1, 1, (struct slice){0});
    RIG_UNTIL(&rig, rig.answers == 1);
    size_t before = open_descriptors();
    for (unsigned i = 0; i < 20; i++) {
        fake_start(&fakes[i], &rig);
        welcome(&fakes[i], i + 1, i + 1);
        fake_connect_lane(&fakes[i]);
        RIG_UNTIL(&rig, fake_has_hello(&fakes[i]));
    }
    size_t with = open_descriptors();
    for (unsigned i = 0; i < 20; i++)
        fake_stop(&fakes[i]);
    size_t after = open_descriptors();
    /* Those that the workers closed, and one each that the server closed with them. */
    assert_true(with - after >= 20);
    assert_true(after - before <= 20 * 5);
    for (unsigned i = 0; i < 20; i++)
        plane_rig_close(&rig, i + 1, 0);
    RIG_UNTIL(&rig, open_descriptors() <= before);
    end();
}

static int option(void *socket, int name)
{
    int value = -2;
    size_t size = sizeof value;
    assert_int_equal(zmq_getsockopt(socket, name, &value, &size), 0);
    return value;
}

/* RCVHWM 0 on the PULL and ZMTP heartbeats off: together they cut healthy connections. */
static void options_that_must_stay(void **state)
{
    (void)state;
    begin(NULL);
    fake_up(&fake, 7, 70);
    struct lane *lane = lane_find(rig.plane, 7);
    assert_int_equal(option(rig.plane->answers.socket, ZMQ_RCVHWM), 0);
    assert_int_equal(option(rig.plane->answers.socket, ZMQ_HEARTBEAT_IVL), 0);
    assert_int_equal(option(rig.plane->join.socket, ZMQ_HEARTBEAT_IVL), 0);
    assert_int_equal(option(lane->socket, ZMQ_HEARTBEAT_IVL), 0);
    assert_int_equal(option(lane->socket, ZMQ_SNDHWM), 0);
    assert_int_equal(option(lane->socket, ZMQ_LINGER), 0);
    assert_true(zmq_ctx_get(rig.plane->context, ZMQ_MAX_SOCKETS) >= 3 * 32 + 50);
    end();
}

static void too_many_lanes(struct plane_config *config)
{
    config->max_lanes = 2;
}

static void lanes_are_bounded(void **state)
{
    struct fake others[2];
    (void)state;
    begin(too_many_lanes);
    welcome(&fake, 1, 1);
    fake_start(&others[0], &rig);
    welcome(&others[0], 2, 2);
    fake_start(&others[1], &rig);
    fake_join(&others[1]);
    RIG_UNTIL(&rig, rig.joins == 3);
    assert_int_equal(plane_rig_welcome(&rig, 3, 3), -PUSHROD_E_TOO_MANY);
    RIG_UNTIL(&rig, fake_is_refused(&others[1]));
    assert_non_null(strstr(others[1].text, "--max-workers"));
    fake_stop(&others[0]);
    fake_stop(&others[1]);
    end();
}

static void thousand_lanes(struct plane_config *config)
{
    config->max_lanes = 1000;
}

/* Sockets, monitors and descriptors for a thousand are there; one dealer asks for all of them. */
static void thousand_lanes_are_fine(void **state)
{
    (void)state;
    begin(thousand_lanes);
    uint64_t start_ns = plane_rig_now();
    for (uint64_t i = 1; i <= 1000; i++) {
        fake_again(&fake);
        welcome(&fake, i, i);
    }
    print_message("1000 joins: %u ms\n", (unsigned)((plane_rig_now() - start_ns) / 1000000));
    assert_int_equal(plane_stats(rig.plane)->lanes, 1000);
    fake_connect_lane(&fake);
    RIG_UNTIL(&rig, fake_has_hello(&fake));
    expect_lane_works(&fake, 1000, 1);
    end();
}

/* ---------------------------------------------------------------------------- what is lost */

/* Half of the answers of a killed worker arrive after its DISCONNECTED. */
static void answers_of_a_lost_worker_are_read_first(void **state)
{
    static uint8_t result[10000];
    (void)state;
    begin(NULL);
    fake_up(&fake, 7, 70);
    for (unsigned i = 0; i < 1000; i++)
        fake_done(&fake, i + 1, 1, slice_of(result, sizeof result));
    uint64_t before_ns = plane_rig_now();
    zmq_close(fake.lane);
    fake.lane = NULL;
    RIG_UNTIL(&rig, lane_find(rig.plane, 7)->state == LANE_LOST);
    assert_true(lane_find(rig.plane, 7)->grace_end_ns >= before_ns + 20000000);
    RIG_UNTIL(&rig, rig.lost);
    assert_true(rig.answers_at_loss > 0);
    RIG_UNTIL(&rig, rig.answers == 1000);
    assert_int_equal(rig.lost, 1);
    end();
}

/* A forwarder between the worker and the answers port, which can be cut. */
struct cutter {
    struct evconnlistener *listener;
    struct bufferevent *sides[2];
    uint16_t port;
    uint16_t to;
    unsigned cuts;
};

static void cutter_cut(struct cutter *cutter)
{
    for (int i = 0; i < 2; i++) {
        if (cutter->sides[i])
            bufferevent_free(cutter->sides[i]);
        cutter->sides[i] = NULL;
    }
    cutter->cuts++;
}

static void on_bytes(struct bufferevent *side, void *arg)
{
    struct cutter *cutter = arg;
    bufferevent_write_buffer(cutter->sides[side == cutter->sides[0]], bufferevent_get_input(side));
}

static void on_side_event(struct bufferevent *side, short what, void *arg)
{
    (void)side;
    if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR))
        cutter_cut(arg);
}

static void on_accept(
    struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *from, int size, void *arg)
{
    struct cutter *cutter = arg;
    (void)from;
    (void)size;
    struct event_base *base = evconnlistener_get_base(listener);
    if (cutter->sides[0])
        cutter_cut(cutter);
    evutil_make_socket_nonblocking(fd);
    int out = tcp_connect(cutter->to);
    evutil_make_socket_nonblocking(out);
    int fds[2] = {fd, out};
    for (int i = 0; i < 2; i++) {
        cutter->sides[i] = bufferevent_socket_new(base, fds[i], BEV_OPT_CLOSE_ON_FREE);
        bufferevent_setcb(cutter->sides[i], on_bytes, NULL, on_side_event, cutter);
    }
    for (int i = 0; i < 2; i++)
        bufferevent_enable(cutter->sides[i], EV_READ | EV_WRITE);
}

static void cutter_start(struct cutter *cutter, uint16_t to)
{
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t size = sizeof at;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    *cutter = (struct cutter){.to = to};
    cutter->listener = evconnlistener_new_bind(rig.base, on_accept, cutter,
        LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE, -1, (struct sockaddr *)&at, sizeof at);
    assert_non_null(cutter->listener);
    getsockname(evconnlistener_get_fd(cutter->listener), (struct sockaddr *)&at, &size);
    cutter->port = ntohs(at.sin_port);
}

#define CUT_TOTAL 200000u
#define CUT_FRAME 100u

/* The worker's rule: send on while acknowledgements come, else all of it again. */
static void resend_until_taken(struct cutter *cutter)
{
    uint64_t sent = 0, taken = 0, stalled_ns = plane_rig_now();
    while (rig.answers < CUT_TOTAL) {
        if (sent < CUT_TOTAL && sent - rig.answers < 20000) {
            fake_done(&fake, sent + 1, CUT_FRAME, slice_str("0123456789"));
            sent += CUT_FRAME;
        }
        plane_rig_turn(&rig);
        if (rig.answers != taken)
            stalled_ns = plane_rig_now();
        taken = rig.answers;
        if (cutter->cuts < 3 && rig.answers > (cutter->cuts + 1) * 50000)
            cutter_cut(cutter);
        if (plane_rig_now() - stalled_ns > 100000000) {
            sent = rig.answers - rig.answers % CUT_FRAME;
            stalled_ns = plane_rig_now();
        }
    }
}

/* Cutting the answers connection loses messages with both ends alive; sequence numbers heal it. */
static void cut_answers_connection(void **state)
{
    struct cutter cutter;
    (void)state;
    begin(NULL);
    welcome(&fake, 7, 70);
    cutter_start(&cutter, plane_answers_port(rig.plane));
    fake_connect_lane(&fake);
    fake_connect_answers(&fake, cutter.port);
    RIG_UNTIL(&rig, fake_has_hello(&fake));
    resend_until_taken(&cutter);
    assert_int_equal(rig.answers, CUT_TOTAL);
    assert_false(rig.out_of_order);
    assert_int_equal(rig.lost, 0);
    assert_true(cutter.cuts >= 3);
    cutter_cut(&cutter);
    evconnlistener_free(cutter.listener);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(taken_lane_port_is_left_out),
        cmocka_unit_test(freed_ports_are_used_again),
        cmocka_unit_test(taken_join_port_is_named),
        cmocka_unit_test(lanes_cost_five_descriptors),
        cmocka_unit_test(options_that_must_stay),
        cmocka_unit_test(lanes_are_bounded),
        cmocka_unit_test(thousand_lanes_are_fine),
        cmocka_unit_test(answers_of_a_lost_worker_are_read_first),
        cmocka_unit_test(cut_answers_connection),
    };
    return cmocka_run_group_tests(tests, ports_find, NULL);
}
