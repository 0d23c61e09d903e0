/* SPDX-License-Identifier: Apache-2.0 */
/* How an embedded server ends: signals, stop() from other threads, and what is said meanwhile. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>
#include "tests/unit/server_fixture.h"

/* ---- signals ---- */

static void raise_once(struct pushrod_server *s, void *arg)
{
    (void)s, (void)arg;
    raise(SIGTERM);
}

static void test_signals(void **state)
{
    struct pushrod_server *s = server_new();
    (void)state;
    pushrod_server_catch_signals(s, true);
    server_start(s);
    assert_true(pushrod_server_timer(s, 1, 0, raise_once, NULL) > 0);
    assert_int_equal(pushrod_server_run(s), 0);
    assert_int_equal(seen.stopped, 1);
    assert_int_equal(pushrod_server_step(s), 0);
    pushrod_server_free(s);
}

/* Without handlers: nothing is forked, so that there may be other threads. */
static struct pushrod_server *server_alone(void)
{
    struct pushrod_server *s = pushrod_server_new();
    assert_non_null(s);
    assert_int_equal(pushrod_server_set(s, "join-port", "0"), 0);
    assert_int_equal(pushrod_server_set(s, "answers-port", "0"), 0);
    return s;
}

/* One of a process: who comes second is told so, and what the first one caught it still catches. */
static void test_signals_of_two(void **state)
{
    struct pushrod_server *first = server_alone(), *second = server_alone();
    (void)state;
    pushrod_server_catch_signals(first, true);
    pushrod_server_catch_signals(second, true);
    server_start(first);
    assert_int_equal(pushrod_server_start(second), -PUSHROD_E_WRONG_STATE);
    assert_non_null(strstr(pushrod_server_error(second), "signals"));
    pushrod_server_free(second);
    assert_true(pushrod_server_timer(first, 1, 0, raise_once, NULL) > 0);
    assert_int_equal(pushrod_server_run(first), 0);
    /* It is over, so that another may. */
    second = server_alone();
    pushrod_server_catch_signals(second, true);
    server_start(second);
    assert_true(pushrod_server_timer(second, 1, 0, raise_once, NULL) > 0);
    assert_int_equal(pushrod_server_run(second), 0);
    pushrod_server_free(second);
    pushrod_server_free(first);
}

static void raise_at_close(struct pushrod_server *s, uint64_t conn, int error, void *arg)
{
    (void)conn, (void)error;
    seen.closes++;
    raise_once(s, arg);
}

/* A server that runs, and in *fd a connection to it. */
static struct pushrod_server *server_connected(
    const struct pushrod_server_events *events, bool signals, int *fd)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct pushrod_server *s = server_alone();
    memset(&seen, 0, sizeof seen);
    pushrod_server_on(s, events, NULL);
    pushrod_server_catch_signals(s, signals);
    assert_int_equal(pushrod_server_listen(s, "127.0.0.1:0", NULL), 0);
    server_start(s);
    *fd = socket(AF_INET, SOCK_STREAM, 0);
    at.sin_port = htons((uint16_t)pushrod_server_port(s, "own", 0));
    assert_int_equal(connect(*fd, (struct sockaddr *)&at, sizeof at), 0);
    STEP_UNTIL(s, seen.connects == 1);
    return s;
}

/* Whoever is impatient does no harm to what is still to be closed: the store is the last. */
static void test_signal_at_the_end(void **state)
{
    const struct pushrod_server_events events = {.connect = on_connect, .close = raise_at_close};
    int fd;
    struct pushrod_server *s = server_connected(&events, true, &fd);
    (void)state;
    raise_once(s, NULL);
    assert_int_equal(pushrod_server_run(s), 0);
    assert_int_equal(seen.closes, 1);
    close(fd);
    pushrod_server_free(s);
}

static void count_stat(const char *name, uint64_t value, void *arg)
{
    unsigned *count = arg;
    (void)name, (void)value;
    ++*count;
}

static void look_at_close(struct pushrod_server *s, uint64_t conn, int error, void *arg)
{
    struct pushrod_conn_info info;
    unsigned count = 0;
    (void)error, (void)arg;
    seen.closes++;
    pushrod_server_stats(s, count_stat, &count);
    assert_int_equal(count, 0);
    assert_int_equal(pushrod_server_broadcast(s, "x", 1, 0), 0);
    assert_int_equal(pushrod_server_conn_info(s, conn, &info), -PUSHROD_E_UNKNOWN_CONNECTION);
}

/* The last events come when all else is over: there is nothing to look at, and nothing breaks. */
static void test_looking_at_the_end(void **state)
{
    const struct pushrod_server_events events = {.connect = on_connect, .close = look_at_close};
    int fd;
    struct pushrod_server *s = server_connected(&events, false, &fd);
    (void)state;
    pushrod_server_stop(s);
    assert_int_equal(pushrod_server_run(s), 0);
    assert_int_equal(seen.closes, 1);
    close(fd);
    pushrod_server_free(s);
}

static void drop_at_close(struct pushrod_server *s, uint64_t conn, int error, void *arg)
{
    (void)s, (void)conn, (void)error, (void)arg;
    assert_int_equal(pushrod_group_count(seen.group), 1);
    pushrod_group_drop(seen.group);
    seen.closes++;
}

/* A group that nobody waits for is the program's, to look at and to drop, as long as the server. */
static void test_groups_at_the_end(void **state)
{
    const struct pushrod_server_events events = {.connect = on_connect, .close = drop_at_close};
    const struct pushrod_job job = {.queue = "nobody"};
    int fd;
    struct pushrod_server *s = server_connected(&events, false, &fd);
    struct pushrod_group *other = pushrod_group_new(s);
    (void)state;
    seen.group = pushrod_group_new(s);
    assert_true(other && seen.group);
    assert_int_equal(pushrod_group_task(seen.group, &job), 0);
    assert_int_equal(pushrod_group_task(other, &job), 0);
    for (int i = 0; i < 2; i++)
        pushrod_server_stop(s);
    assert_int_equal(pushrod_server_run(s), 0);
    assert_int_equal(seen.closes, 1);
    assert_int_equal(pushrod_group_count(other), 1);
    pushrod_group_drop(other);
    close(fd);
    pushrod_server_free(s);
}

/* ---- stopping ---- */

/* Standard error of the test and of all processes that it starts goes to the file meanwhile. */
static int errors_divert(FILE *file)
{
    int saved = dup(STDERR_FILENO);
    assert_true(saved >= 0 && dup2(fileno(file), STDERR_FILENO) >= 0);
    return saved;
}

static void errors_back(int saved)
{
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    close(saved);
}

/* Stops when `joined` workers have joined, `stops` times; 0: by being freed. */
static void live(unsigned joined, int stops)
{
    struct pushrod_server *s = server_new();
    server_start(s);
    STEP_UNTIL(s, seen.joined >= joined);
    for (int i = 0; i < stops; i++)
        pushrod_server_stop(s);
    while (stops && step(s) == 1)
        continue;
    pushrod_server_free(s);
}

/* Who is told to stop has nothing to warn of, in any of its processes. */
static void test_stopping_is_no_trouble(void **state)
{
    (void)state;
    for (int stops = 0; stops <= 2; stops++) {
        for (unsigned joined = 0; joined <= 2; joined++) {
            char said[8192] = "";
            FILE *file = tmpfile();
            assert_non_null(file);
            int saved = errors_divert(file);
            live(joined, stops);
            errors_back(saved);
            rewind(file);
            said[fread(said, 1, sizeof said - 1, file)] = '\0';
            fclose(file);
            if (strstr(said, "warning") || strstr(said, "error"))
                fail_msg("%u joined, %d stops: %s", joined, stops, said);
        }
    }
}

struct stopper {
    struct pushrod_server *server;
    atomic_bool called, over;
};

static void *stop_main(void *arg)
{
    struct stopper *t = arg;
    while (!atomic_load(&t->over)) {
        pushrod_server_stop(t->server);
        atomic_store(&t->called, true);
    }
    return NULL;
}

/* Another thread may stop it before it is there, while it starts, and when it is over. */
static void test_stop_beside_start(void **state)
{
    struct stopper t = {.server = server_alone()};
    pthread_t thread;
    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, stop_main, &t), 0);
    while (!atomic_load(&t.called))
        continue;
    assert_int_equal(pushrod_server_run(t.server), 0);
    atomic_store(&t.over, true);
    pthread_join(thread, NULL);
    pushrod_server_free(t.server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_signals),
        cmocka_unit_test(test_signals_of_two),
        cmocka_unit_test(test_signal_at_the_end),
        cmocka_unit_test(test_looking_at_the_end),
        cmocka_unit_test(test_groups_at_the_end),
        cmocka_unit_test(test_stopping_is_no_trouble),
        cmocka_unit_test(test_stop_beside_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
