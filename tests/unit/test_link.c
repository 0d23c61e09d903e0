/* SPDX-License-Identifier: Apache-2.0 */
/* The worker's side of DESIGN's facts about libzmq: what its sockets are told. */
#define _GNU_SOURCE /* RTLD_NEXT */
#include "tests/unit/unit.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.h>

#include "common/unixsock.h"
#include "tests/unit/interrupts.h"
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
    assert_true(option(l.lane, ZMQ_RECONNECT_IVL) >= 3600 * 1000);
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

/*
 * What came is whole, and read to its end. A PULL that never connects again, as libzmq calls it,
 * loses its pipe with the connection: what lies there is dropped, and libzmq asserts if that is
 * noticed between two parts of a message.
 */
static void a_lane_that_has_ended_is_read(void **state)
{
    enum { MESSAGES = 500 };
    struct link l = {.context = zmq_ctx_new(), .address = "127.0.0.1"};
    struct msg_welcome welcome = {
        .lane_port = 1, .answers_port = 1, .user = slice_str("user"), .token = slice_str("token")};
    void *context = zmq_ctx_new(), *push = zmq_socket(context, ZMQ_PUSH);
    char part[8], endpoint[64];
    size_t size = sizeof endpoint;
    int parts = 0;
    (void)state;
    assert_int_equal(link_connect(&l, &welcome), 0);
    assert_int_equal(zmq_bind(push, "tcp://127.0.0.1:*"), 0);
    assert_int_equal(zmq_getsockopt(push, ZMQ_LAST_ENDPOINT, endpoint, &size), 0);
    zmq_setsockopt(l.lane, ZMQ_PLAIN_USERNAME, NULL, 0); /* there is nobody to ask for it */
    assert_int_equal(zmq_connect(l.lane, endpoint), 0);
    for (int i = 0; i < MESSAGES; i++) {
        assert_int_equal(zmq_send(push, "head", 4, ZMQ_SNDMORE), 4);
        assert_int_equal(zmq_send(push, "payload", 7, 0), 7);
    }
    zmq_close(push);
    zmq_ctx_term(context);
    for (uint16_t event = 0; event != ZMQ_EVENT_DISCONNECTED;
         event = link_next_event(l.lane_monitor))
        zmq_poll(&(zmq_pollitem_t){.socket = l.lane_monitor, .events = ZMQ_POLLIN}, 1, 10000);
    while (zmq_recv(l.lane, part, sizeof part, ZMQ_DONTWAIT) >= 0)
        parts++;
    assert_int_equal(parts, 2 * MESSAGES);
    link_disconnect(&l);
    zmq_ctx_term(l.context);
}

static int nothing(struct pushrod_task *task, void *arg)
{
    (void)task;
    (void)arg;
    return 0;
}

static void *run_it(void *config)
{
    struct link_end end;
    link_run(config, &end);
    return NULL;
}

static void signal_it(int fd)
{
    uint64_t one = 1;
    assert_int_equal(write(fd, &one, sizeof one), (int)sizeof one);
}

/*
 * pushrod_worker_stop() counts and then writes, on another thread: the loop may have seen the count
 * before the descriptor is readable. What is left in it would keep the loop from sleeping.
 */
static void wish_to_stop_that_was_seen_already_is_read(void **state)
{
    atomic_uint stops = 0;
    struct handler handler = {
        .ops = &handler_function, .pattern = (char *)(uintptr_t) "*", .function = nothing};
    struct link_config config = {.join = "127.0.0.1:1",
        .session = {.name = slice_str("w"), .slots = 1, .ahead = 1},
        .run = {.slots = 1, .ahead = 1, .handlers = &handler, .handler_count = 1},
        .io_threads = 1,
        .stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
        .stops = &stops,
        .ready_fd = -1};
    pthread_t thread;
    (void)state;
    assert_true(config.stop_fd >= 0);
    assert_int_equal(pthread_create(&thread, NULL, run_it, &config), 0);
    signal_it(config.stop_fd);
    struct pollfd fd = {.fd = config.stop_fd, .events = POLLIN};
    time_t limit = time(NULL) + 10;
    while (poll(&fd, 1, 0) == 1)
        assert_true(time(NULL) < limit);
    atomic_store(&stops, 2);
    signal_it(config.stop_fd);
    pthread_join(thread, NULL);
    close(config.stop_fd);
}

static void hears(struct link *l, void *peer, struct buf *frame)
{
    assert_true(zmq_send(peer, frame->data, frame->size, 0) > 0);
    l->unread = 1u << SOURCE_JOIN;
    link_read(l);
    buf_free(frame);
}

/* What a worker says at its end is of its last try: an earlier one may have been refused. */
static void a_welcome_ends_what_was_refused(void **state)
{
    struct link_end end = {0};
    const struct slice queue = slice_str("q");
    struct link l = {.context = zmq_ctx_new(),
        .end = &end,
        .session = session_new(&(struct session_config){.queues = &queue, .queue_count = 1})};
    struct buf frame = BUF_EMPTY;
    (void)state;
    void *peer = zmq_socket(l.context, ZMQ_PAIR);
    l.join = zmq_socket(l.context, ZMQ_PAIR);
    assert_int_equal(zmq_bind(peer, "inproc://join"), 0);
    assert_int_equal(zmq_connect(l.join, "inproc://join"), 0);
    msg_refused_encode(&frame, &(struct msg_refused){.text = slice_str("full"), .retry = true});
    hears(&l, peer, &frame);
    assert_string_equal(end.text, "full");
    msg_welcome_encode(&frame, &(struct msg_welcome){.worker = 1});
    hears(&l, peer, &frame);
    assert_string_equal(end.text, "");
    session_free(l.session);
    zmq_close(peer);
    zmq_close(l.join);
    zmq_ctx_term(l.context);
}

/* What the socket was told to connect to begins so. */
static bool goes_to(void *socket, const char *kind)
{
    char endpoint[256];
    size_t size = sizeof endpoint;
    assert_int_equal(zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, endpoint, &size), 0);
    return strncmp(endpoint, kind, strlen(kind)) == 0;
}

/*
 * The name is there, but may not be connected to (a sandbox): what bind() says is not all. The
 * third session goes by TCP.
 */
static void unix_socket_that_is_not_for_us_is_given_up(void **state)
{
    char base[UNIXSOCK_BASE];
    struct sockaddr_un at;
    struct link l = {.context = zmq_ctx_new(), .address = "127.0.0.1"};
    (void)state;
    assert_true(unixsock_draw(base));
    socklen_t size = unixsock_address(&at, slice_str(base));
    int holder = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(holder, (const struct sockaddr *)&at, size), 0);
    struct msg_welcome welcome = {.lane_port = 1,
        .answers_port = 1,
        .user = slice_str("user"),
        .token = slice_str("token"),
        .unix_lane = slice_str(base),
        .unix_answers = slice_str(base)};
    for (l.lanes_missed = 0; l.lanes_missed < 2; l.lanes_missed++) {
        assert_int_equal(link_connect(&l, &welcome), 0);
        assert_true(goes_to(l.lane, "ipc://") && goes_to(l.answers, "ipc://"));
        zmq_pollitem_t item = {.socket = l.lane_monitor, .events = ZMQ_POLLIN};
        assert_int_equal(zmq_poll(&item, 1, 10000), 1);
        assert_int_equal(link_next_event(l.lane_monitor), ZMQ_EVENT_CLOSED);
        link_disconnect(&l);
    }
    assert_int_equal(link_connect(&l, &welcome), 0);
    assert_true(goes_to(l.lane, "tcp://") && goes_to(l.answers, "tcp://"));
    link_disconnect(&l);
    /* A server that is elsewhere: whoever has its name here is not the server. */
    l.lanes_missed = 0;
    strcpy(l.address, "192.0.2.1");
    assert_int_equal(link_connect(&l, &welcome), 0);
    assert_true(goes_to(l.lane, "tcp://") && goes_to(l.answers, "tcp://"));
    link_disconnect(&l);
    close(holder);
    zmq_ctx_term(l.context);
}

static const void *stormy[3]; /* sockets */

static bool interrupted(const void *socket)
{
    bool is_one = socket == stormy[0] || socket == stormy[1] || socket == stormy[2];
    return socket && is_one && interrupt();
}

static void pair(struct link *l, const char *at, void **ours, void **theirs)
{
    *ours = zmq_socket(l->context, ZMQ_PAIR);
    *theirs = zmq_socket(l->context, ZMQ_PAIR);
    assert_int_equal(zmq_bind(*theirs, at), 0);
    assert_int_equal(zmq_connect(*ours, at), 0);
}

/* What could not be read gives no signal any more; what could not be sent is missed for a second.
 */
static void signals_interrupt_nothing(void **state)
{
    static uint8_t large[300000];
    void *lane, *answers, *join;
    struct link_end end = {0};
    const struct slice queue = slice_str("q");
    struct link l = {.context = zmq_ctx_new(),
        .room_fd = -1,
        .end = &end,
        .session = session_new(&(struct session_config){.queues = &queue, .queue_count = 1})};
    struct buf frame = BUF_EMPTY;
    (void)state;
    pair(&l, "inproc://lane", &l.lane, &lane);
    pair(&l, "inproc://answers", &l.answers, &answers);
    pair(&l, "inproc://join", &l.join, &join);
    stormy[0] = l.lane;
    stormy[1] = l.answers;
    stormy[2] = l.join;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(zmq_send(lane, "\x92\x00", 2, ZMQ_SNDMORE), 2);
        assert_int_equal(zmq_send(lane, "rest", 4, 0), 4);
    }
    l.unread = 1u << SOURCE_LANE;
    link_read(&l);
    assert_false(option(l.lane, ZMQ_EVENTS) & ZMQ_POLLIN);
    msg_refused_encode(&frame, &(struct msg_refused){.text = slice_str("full"), .retry = true});
    hears(&l, join, &frame);
    assert_string_equal(end.text, "full");
    link_act(&l, &(struct session_actions){.answers = slice_str("small")});
    assert_int_equal(zmq_recv(answers, large, sizeof large, ZMQ_DONTWAIT), 5);
    link_act(&l, &(struct session_actions){.answers = slice_of(large, sizeof large)});
    assert_int_equal(zmq_recv(answers, large, sizeof large, ZMQ_DONTWAIT), (int)sizeof large);
    memset(stormy, 0, sizeof stormy);
    session_free(l.session);
    void *sockets[] = {lane, answers, join, l.lane, l.answers, l.join};
    for (size_t i = 0; i < sizeof sockets / sizeof sockets[0]; i++)
        zmq_close(sockets[i]);
    zmq_ctx_term(l.context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_that_must_stay),
        cmocka_unit_test(a_lane_that_has_ended_is_read),
        cmocka_unit_test(a_welcome_ends_what_was_refused),
        cmocka_unit_test(unix_socket_that_is_not_for_us_is_given_up),
        cmocka_unit_test(wish_to_stop_that_was_seen_already_is_read),
        cmocka_unit_test(signals_interrupt_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
