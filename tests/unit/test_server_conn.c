/* SPDX-License-Identifier: Apache-2.0 */
/* The connections of an embedded server: framings, sending, closing, broadcast, addresses. */
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "server/net/conn.h"
#include "tests/unit/server_fixture.h"

static int dial(struct pushrod_server *s, unsigned listener)
{
    int port = pushrod_server_port(s, "own", listener);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_true(port > 0);
    at.sin_port = htons((uint16_t)port);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static void say(int fd, const char *data, size_t size)
{
    assert_int_equal(write(fd, data, size), (ssize_t)size);
}

/* Steps until `size` bytes are there, and compares them. */
static void hear(struct pushrod_server *s, int fd, const char *data, size_t size)
{
    char buffer[256];
    size_t got = 0;
    while (got < size) {
        ssize_t more = read(fd, buffer + got, sizeof buffer - got);
        if (more > 0)
            got += (size_t)more;
        else
            assert_int_equal(step(s), 1);
    }
    assert_int_equal(got, size);
    assert_memory_equal(buffer, data, size);
}

static void test_framings(void **state)
{
    struct pushrod_server *s = server_new();
    struct pushrod_framing lines = {.kind = PUSHROD_FRAMING_EOF, .eof = "\r\n", .max_message = 100};
    struct pushrod_framing length = {.kind = PUSHROD_FRAMING_LENGTH, .length_size = 2};
    struct pushrod_framing wrong = {.kind = PUSHROD_FRAMING_LENGTH, .length_size = 3};
    struct pushrod_framing huge = {.kind = PUSHROD_FRAMING_EOF, .max_message = SIZE_MAX};
    (void)state;
    assert_int_equal(pushrod_server_listen(s, "127.0.0.1:0", &lines), 0);
    assert_int_equal(pushrod_server_listen(s, "127.0.0.1:0", &length), 0);
    assert_int_equal(pushrod_server_listen(s, "127.0.0.1:0", &wrong), -PUSHROD_E_BAD_OPTION);
    assert_int_equal(pushrod_server_listen(s, "127.0.0.1:0", &huge), -PUSHROD_E_BAD_OPTION);
    server_start(s);
    int fd = dial(s, 0);
    say(fd, "one\r\n\r\nthr", 10);
    STEP_UNTIL(s, strcmp(seen.received, "[one][]") == 0);
    say(fd, "ee\r", 3);
    say(fd, "\nfour\r\nx", 8);
    STEP_UNTIL(s, strcmp(seen.received, "[one][][three][four]") == 0);
    assert_int_equal(pushrod_server_send(s, seen.conn, "yes", 3), 0);
    hear(s, fd, "yes\r\n", 5);
    /* A message that never ends. */
    char junk[300];
    memset(junk, 'j', sizeof junk);
    say(fd, junk, sizeof junk);
    STEP_UNTIL(s, seen.closes == 1);
    close(fd);
    seen.received[0] = 0;
    fd = dial(s, 1);
    say(fd, "\0\3abc\0\0\0", 8);
    STEP_UNTIL(s, strcmp(seen.received, "[abc][]") == 0);
    say(fd, "\2de", 3);
    STEP_UNTIL(s, strcmp(seen.received, "[abc][][de]") == 0);
    assert_int_equal(pushrod_server_broadcast(s, "all", 3, 0), 1);
    hear(s, fd, "\0\3all", 5);
    /* What a length of two bytes cannot say is not sent, by neither of them. */
    static const char large[65536];
    assert_int_equal(pushrod_server_send(s, seen.conn, large, 65536), -PUSHROD_E_TOO_BIG);
    assert_int_equal(pushrod_server_broadcast(s, large, 65536, 0), 0);
    close(fd);
    STEP_UNTIL(s, seen.closes == 2);
    assert_int_equal(pushrod_server_send(s, seen.conn, "x", 1), -PUSHROD_E_UNKNOWN_CONNECTION);
    server_stop(s);
}

static void test_connections(void **state)
{
    struct pushrod_server *s = server_new();
    struct pushrod_conn_info info;
    char byte;
    (void)state;
    assert_int_equal(pushrod_server_listen(s, "127.0.0.1:0", NULL), 0);
    server_start(s);
    int a = dial(s, 0), b;
    STEP_UNTIL(s, seen.connects == 1);
    uint64_t first = seen.conn;
    b = dial(s, 0);
    STEP_UNTIL(s, seen.connects == 2);
    assert_int_not_equal(seen.conn, first);
    assert_int_equal(pushrod_server_conn_info(s, first, &info), 0);
    assert_non_null(strstr(info.peer, "127.0.0.1:"));
    assert_int_equal(pushrod_server_send(s, first, NULL, 1), -PUSHROD_E_INVALID);
    assert_int_equal(pushrod_server_broadcast(s, "b", 1, first), 1);
    hear(s, b, "b", 1);
    assert_int_equal(read(a, &byte, 1), -1);
    assert_int_equal(pushrod_server_send(s, first, "last words", 10), 0);
    assert_int_equal(pushrod_server_close(s, first), 0);
    assert_int_equal(seen.closes, 0);
    hear(s, a, "last words", 10);
    close(a);
    STEP_UNTIL(s, seen.closes == 1);
    assert_int_equal(pushrod_server_close(s, first), -PUSHROD_E_UNKNOWN_CONNECTION);
    close(b);
    server_stop(s);
}

/* Answers each message with as many bytes as `arg` says. */
static void receive_large(
    struct pushrod_server *s, uint64_t conn, const void *data, size_t size, void *arg)
{
    void *answer = calloc(1, *(size_t *)arg);
    (void)data, (void)size;
    seen.general++;
    assert_non_null(answer);
    assert_int_equal(pushrod_server_send(s, conn, answer, *(size_t *)arg), 0);
    free(answer);
}

static void close_seen(struct pushrod_server *s, uint64_t conn, int error, void *arg)
{
    (void)s, (void)conn, (void)arg;
    seen.closes++;
    seen.last.error = error;
}

static void stat_bytes_in(const char *name, uint64_t value, void *arg)
{
    if (strcmp(name, "bytes_in") == 0)
        *(uint64_t *)arg = value;
}

/* The second only when the first was read. */
static void in_two_parts(struct pushrod_server *s, int fd, const char *first, const char *second)
{
    uint64_t read = 0;
    say(fd, first, strlen(first));
    while (pushrod_server_stats(s, stat_bytes_in, &read), read < strlen(first))
        assert_int_equal(step(s), 1);
    say(fd, second, strlen(second));
}

/* A line is answered with more than its connection may have unsent, until that is closed. */
static void answer_too_much(const struct pushrod_server_events *events)
{
    static const struct pushrod_framing lines = {.kind = PUSHROD_FRAMING_EOF};
    size_t answer = 3 << 20;
    struct pushrod_server *s = server_new();
    pushrod_server_on(s, events, &answer);
    assert_int_equal(pushrod_server_set(s, "max-unsent", "2m"), 0);
    assert_int_equal(pushrod_server_listen(s, "127.0.0.1:0", &lines), 0);
    server_start(s);
    int fd = dial(s, 0);
    in_two_parts(s, fd, "half", " a line\r\nanother\r\nand");
    STEP_UNTIL(s, seen.closes == 1);
    close(fd);
    server_stop(s);
}

/* A callback whose answer is too much for the connection ends it while its input is being read. */
static void test_dropped_by_its_answer(void **state)
{
    (void)state;
    answer_too_much(&(struct pushrod_server_events){
        .stop = on_stop, .receive = receive_large, .close = close_seen});
    assert_int_equal(seen.general, 1);
    assert_int_equal(seen.last.error, PUSHROD_E_SLOW_READER);
}

/* Is ended by its own answer, and looks at what it was given only then. */
static void receive_late(
    struct pushrod_server *s, uint64_t conn, const void *data, size_t size, void *arg)
{
    receive_large(s, conn, data, size, arg);
    assert_int_equal(pushrod_server_send(s, conn, data, size), -PUSHROD_E_UNKNOWN_CONNECTION);
    on_receive(s, conn, data, size, arg);
}

/* "What a callback is given is borrowed until it returns", whatever becomes of the connection. */
static void test_given_until_it_returns(void **state)
{
    (void)state;
    answer_too_much(&(struct pushrod_server_events){
        .stop = on_stop, .receive = receive_late, .close = close_seen});
    assert_string_equal(seen.received, "[half a line]");
}

/* Whoever has said all may still listen: `printf QUESTION | nc -N`. */
static void test_half_closed(void **state)
{
    static char piece[64 << 10];
    size_t sent = 0, got = 0;
    struct pushrod_conn_info info = {0};
    struct pushrod_server *s = server_new();
    ssize_t more;
    (void)state;
    assert_int_equal(pushrod_server_listen(s, "127.0.0.1:0", NULL), 0);
    server_start(s);
    int fd = dial(s, 0);
    STEP_UNTIL(s, seen.connects == 1);
    for (; info.unsent == 0; sent += sizeof piece) {
        assert_int_equal(pushrod_server_send(s, seen.conn, piece, sizeof piece), 0);
        assert_int_equal(step(s), 1);
        assert_int_equal(pushrod_server_conn_info(s, seen.conn, &info), 0);
    }
    /* The peer's end of speech is all that happens now. */
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    while (seen.closes == 0 && pushrod_server_conn_info(s, seen.conn, &info) == 0)
        assert_int_equal(step(s), 1);
    while ((more = read(fd, piece, sizeof piece)) != 0) {
        if (more > 0)
            got += (size_t)more;
        else
            assert_int_equal(step(s), 1);
    }
    assert_int_equal(got, sent);
    close(fd);
    STEP_UNTIL(s, seen.closes == 1);
    server_stop(s);
}

/* A socket at that path, which is somebody's. */
static void expect_taken(const char *path, int type)
{
    char address[80];
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    struct stat before, after;
    struct pushrod_server *s = server_new();
    snprintf(address, sizeof address, "unix:%s", path);
    memcpy(at.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, type, 0), caller = -1;
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    /* Whoever listens takes nobody at the moment. */
    while (type == SOCK_STREAM && listen(fd, 0) == 0) {
        caller = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
        if (connect(caller, (struct sockaddr *)&at, sizeof at) != 0)
            break;
    }
    assert_int_equal(stat(path, &before), 0);
    assert_int_equal(pushrod_server_listen(s, address, NULL), 0);
    assert_int_equal(pushrod_server_start(s), -PUSHROD_E_SYSTEM);
    assert_non_null(strstr(pushrod_server_error(s), "another server listens there"));
    pushrod_server_free(s);
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(after.st_ino, before.st_ino);
    close(caller);
    close(fd);
    unlink(path);
}

static void test_unix_path_of_another(void **state)
{
    char path[64];
    (void)state;
    snprintf(path, sizeof path, "/tmp/pushrod-test-%d", (int)getpid());
    expect_taken(path, SOCK_DGRAM);
    expect_taken(path, SOCK_STREAM);
}

/* What lies at the path of a socket is removed if a server left it, and only then. */
static void test_unix_path(void **state)
{
    char path[64], address[80];
    struct stat there;
    (void)state;
    snprintf(path, sizeof path, "/tmp/pushrod-test-%d", (int)getpid());
    snprintf(address, sizeof address, "unix:%s", path);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fclose(file);
    struct pushrod_server *s = server_new();
    assert_int_equal(pushrod_server_listen(s, address, NULL), 0);
    assert_int_equal(pushrod_server_start(s), -PUSHROD_E_SYSTEM);
    assert_non_null(strstr(pushrod_server_error(s), path));
    pushrod_server_free(s);
    assert_int_equal(stat(path, &there), 0);
    assert_int_equal(unlink(path), 0);
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    memcpy(at.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    close(fd);
    s = server_new();
    assert_int_equal(pushrod_server_listen(s, address, NULL), 0);
    server_start(s);
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    STEP_UNTIL(s, seen.connects == 1);
    close(fd);
    STEP_UNTIL(s, seen.closes == 1);
    server_stop(s);
    assert_int_equal(stat(path, &there), -1);
}

/* Somebody cleans up in /tmp, and another server takes the path: that one's stays. */
static void test_unix_path_taken_over(void **state)
{
    char path[64], address[70];
    struct stat before, after;
    struct pushrod_server *servers[2];
    (void)state;
    snprintf(path, sizeof path, "/tmp/pushrod-test-%d", (int)getpid());
    snprintf(address, sizeof address, "unix:%s", path);
    for (unsigned i = 0; i < 2; i++) {
        unlink(path);
        servers[i] = server_new();
        assert_int_equal(pushrod_server_listen(servers[i], address, NULL), 0);
        assert_int_equal(pushrod_server_start(servers[i]), 0);
    }
    assert_int_equal(stat(path, &before), 0);
    pushrod_server_free(servers[0]);
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(after.st_ino, before.st_ino);
    pushrod_server_free(servers[1]);
    assert_int_equal(stat(path, &after), -1);
}

static bool ipv6_there(void)
{
    struct sockaddr_in6 at = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    bool there = fd >= 0 && bind(fd, (struct sockaddr *)&at, sizeof at) == 0;
    if (fd >= 0)
        close(fd);
    return there;
}

static void test_ipv6(void **state)
{
    (void)state;
    if (!ipv6_there())
        skip();
    struct pushrod_server *s = server_new();
    struct pushrod_conn_info info;
    static const char *const wrong[] = {
        "[::1:0", "::1:0", "[::1]", "127.0.0.1", "", "a:b", "unix:", ":65536", NULL};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_int_equal(pushrod_server_listen(s, wrong[i], NULL), -PUSHROD_E_BAD_OPTION);
    assert_int_equal(pushrod_server_listen(s, "[::1]:0", NULL), 0);
    server_start(s);
    struct sockaddr_in6 at = {.sin6_family = AF_INET6,
        .sin6_addr = IN6ADDR_LOOPBACK_INIT,
        .sin6_port = htons((uint16_t)pushrod_server_port(s, "own", 0))};
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    STEP_UNTIL(s, seen.connects == 1);
    assert_int_equal(pushrod_server_conn_info(s, seen.conn, &info), 0);
    assert_memory_equal(info.peer, "[::1]:", 6);
    assert_int_equal(pushrod_server_send(s, seen.conn, "six", 3), 0);
    hear(s, fd, "six", 3);
    close(fd);
    STEP_UNTIL(s, seen.closes == 1);
    server_stop(s);
}

static void test_taken_port(void **state)
{
    struct pushrod_server *s = server_new();
    assert_int_equal(pushrod_server_listen(s, "127.0.0.1:0", NULL), 0);
    server_start(s);
    char address[32];
    (void)state;
    snprintf(address, sizeof address, "127.0.0.1:%d", pushrod_server_port(s, "own", 0));
    struct pushrod_server *other = pushrod_server_new();
    assert_int_equal(pushrod_server_set(other, "join-port", "0"), 0);
    assert_int_equal(pushrod_server_set(other, "answers-port", "0"), 0);
    assert_int_equal(pushrod_server_listen(other, address, NULL), 0);
    assert_int_equal(pushrod_server_run(other), -PUSHROD_E_SYSTEM);
    assert_non_null(strstr(pushrod_server_error(other), address));
    assert_non_null(strstr(pushrod_server_error(other), "taken"));
    pushrod_server_free(other);
    server_stop(s);
}

/* The server's end of a connection in this process. */
static int other_end(int fd)
{
    struct sockaddr_in ours, theirs;
    socklen_t size = sizeof ours;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&ours, &size), 0);
    for (int other = 0; other < 1024; other++) {
        size = sizeof theirs;
        if (getpeername(other, (struct sockaddr *)&theirs, &size) == 0 && size == sizeof theirs &&
            memcmp(&ours, &theirs, sizeof ours) == 0)
            return other;
    }
    return -1;
}

/* A client whose host vanished is not kept for ever. */
static void test_silent_clients_are_asked(void **state)
{
    static const struct pushrod_framing lines = {.kind = PUSHROD_FRAMING_EOF};
    struct pushrod_server *s = server_new();
    int on = 0, idle = 0, fd, theirs;
    socklen_t size = sizeof on;
    (void)state;
    assert_int_equal(pushrod_server_listen(s, "127.0.0.1:0", &lines), 0);
    server_start(s);
    fd = dial(s, 0);
    STEP_UNTIL(s, (theirs = other_end(fd)) >= 0);
    assert_int_equal(getsockopt(theirs, SOL_SOCKET, SO_KEEPALIVE, &on, &size), 0);
    assert_int_equal(getsockopt(theirs, IPPROTO_TCP, TCP_KEEPIDLE, &idle, &size), 0);
    assert_int_equal(on, 1);
    assert_in_range(idle, 1, 120);
    close(fd);
    server_stop(s);
}

/* The same rules as for all options that are addresses, and a port. */
static void test_addresses(void **state)
{
    static const char *const right[] = {
        "[::1]:0", ":0", "*:5570", "localhost:0", "127.0.0.1:65535", "unix:/x", "unix:@x"};
    static const char *const wrong[] = {"127.0.0.1:+0", "127.0.0.1: 0", "127.0.0.1:0x50",
        "local host:0", "127.0.0.1:", "127.0.0.1:65536", "[::1]", "[::1", "[]:0", ":", ""};
    (void)state;
    for (size_t i = 0; i < sizeof right / sizeof right[0]; i++)
        assert_true(listen_address_valid(right[i]));
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_false(listen_address_valid(wrong[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_framings),
        cmocka_unit_test(test_connections),
        cmocka_unit_test(test_dropped_by_its_answer),
        cmocka_unit_test(test_given_until_it_returns),
        cmocka_unit_test(test_half_closed),
        cmocka_unit_test(test_unix_path),
        cmocka_unit_test(test_unix_path_of_another),
        cmocka_unit_test(test_unix_path_taken_over),
        cmocka_unit_test(test_ipv6),
        cmocka_unit_test(test_taken_port),
        cmocka_unit_test(test_silent_clients_are_asked),
        cmocka_unit_test(test_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
