/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server library as a program sees it: tasks in local processes, callbacks, groups, other
 * threads, timers, somebody else's loop. Its connections: test_server_conn.c, its end:
 * test_server_stop.c.
 */
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>
#include "server/api.h"
#include "tests/unit/server_fixture.h"

/* ---- tasks ---- */

static void test_finish(void **state)
{
    struct pushrod_server *s = server_new();
    struct pushrod_options options = {.tag = "order 7", .tag_size = 7};
    (void)state;
    assert_int_equal(
        pushrod_server_task(s, "echo", "x", 1, NULL, NULL, NULL), -PUSHROD_E_WRONG_STATE);
    server_start(s);
    int64_t id = pushrod_server_task(s, "echo", "hello", 5, &options, on_finish, &seen);
    assert_true(id > 0);
    assert_int_equal(seen.finishes, 0);
    STEP_UNTIL(s, seen.finishes == 1);
    assert_int_equal(seen.started, 1);
    assert_int_equal(seen.last.id, id);
    assert_int_equal(seen.last.status, PUSHROD_DONE);
    assert_int_equal(seen.last.attempts, 1);
    assert_string_equal(seen.result, "hello");
    assert_string_equal(seen.error_text, "");
    assert_string_equal(seen.tag, "order 7");
    /* Without a callback: to the event. */
    assert_true(pushrod_server_task(s, "refuse", NULL, 0, NULL, NULL, NULL) > 0);
    STEP_UNTIL(s, seen.general == 1);
    assert_int_equal(seen.last.status, PUSHROD_FAILED);
    assert_string_equal(seen.error_text, "never");
    server_stop(s);
}

static void test_many(void **state)
{
    struct pushrod_server *s = server_new();
    enum { MANY = 20000 };
    (void)state;
    server_start(s);
    for (int i = 0; i < MANY; i++)
        assert_true(pushrod_server_task(s, "echo", &i, sizeof i, NULL, on_finish, &seen) > 0);
    STEP_UNTIL(s, seen.finishes == MANY);
    server_stop(s);
}

static void test_large(void **state)
{
    struct pushrod_server *s = server_new();
    size_t size = 5u << 20;
    char *data = malloc(size);
    (void)state;
    assert_non_null(data);
    memset(data, 'x', size);
    server_start(s);
    assert_true(pushrod_server_task(s, "echo", data, size, NULL, on_finish, &seen) > 0);
    STEP_UNTIL(s, seen.finishes == 1);
    assert_int_equal(seen.last.status, PUSHROD_DONE);
    assert_int_equal(seen.last.result_size, size);
    free(data);
    server_stop(s);
}

static void test_refusals(void **state)
{
    struct pushrod_server *s = server_new();
    struct pushrod_options priority = {.priority_plus_1 = 11};
    struct pushrod_header header = {"a b", "x"};
    struct pushrod_options headers = {.headers = &header, .header_count = 1};
    struct pushrod_options unique = {.unique_key = "k"};
    (void)state;
    assert_int_equal(pushrod_server_on_task(s, "nothing", NULL, NULL), -PUSHROD_E_INVALID);
    assert_int_equal(pushrod_server_on_task(s, NULL, echo, NULL), -PUSHROD_E_BAD_QUEUE);
    assert_int_equal(pushrod_server_set(s, NULL, "1k"), -PUSHROD_E_INVALID);
    assert_int_equal(pushrod_server_set(s, "max-payload", "1k"), 0);
    assert_int_equal(pushrod_server_set(s, "max-payload", "much"), -PUSHROD_E_BAD_OPTION);
    assert_non_null(strstr(pushrod_server_error(s), "max-payload"));
    assert_non_null(strstr(pushrod_server_error(s), "much"));
    server_start(s);
    char big[1025] = {0};
    assert_int_equal(
        pushrod_server_task(s, "", "", 0, NULL, on_finish, &seen), -PUSHROD_E_BAD_QUEUE);
    assert_int_equal(
        pushrod_server_task(s, "a b", "", 0, NULL, on_finish, &seen), -PUSHROD_E_BAD_QUEUE);
    assert_int_equal(pushrod_server_task(s, "echo", big, sizeof big, NULL, on_finish, &seen),
        -PUSHROD_E_TOO_BIG);
    assert_int_equal(
        pushrod_server_task(s, "echo", "", 0, &priority, on_finish, &seen), -PUSHROD_E_BAD_OPTION);
    assert_int_equal(
        pushrod_server_task(s, "echo", "", 0, &headers, on_finish, &seen), -PUSHROD_E_BAD_OPTION);
    assert_true(pushrod_server_task(s, "hang", "", 0, &unique, on_finish, &seen) > 0);
    int64_t id = (int64_t)seen.last.id;
    assert_int_equal(
        pushrod_server_task(s, "hang", "", 0, &unique, on_finish, &seen), -PUSHROD_E_DUPLICATE);
    assert_int_equal(pushrod_server_cancel(s, 0), -PUSHROD_E_INVALID);
    (void)id;
    /* A size without bytes. */
    struct pushrod_options tag = {.tag_size = 3};
    assert_int_equal(
        pushrod_server_task(s, "echo", NULL, 3, NULL, on_finish, &seen), -PUSHROD_E_INVALID);
    assert_int_equal(
        pushrod_server_task(s, "echo", "", 0, &tag, on_finish, &seen), -PUSHROD_E_INVALID);
    pushrod_server_stop(s);
    pushrod_server_stop(s);
    while (step(s) == 1)
        continue;
    pushrod_server_free(s);
}

/* A callback that is missing is said where it is missing, not when it would be called. */
static void test_no_callback(void **state)
{
    struct pushrod_server *s = server_new();
    (void)state;
    server_start(s);
    assert_int_equal(pushrod_server_post(s, NULL, NULL), -PUSHROD_E_INVALID);
    assert_int_equal(pushrod_server_timer(s, 1, 0, NULL, NULL), -PUSHROD_E_INVALID);
    struct pushrod_group *group = pushrod_group_new(s);
    assert_int_equal(pushrod_group_wait(group, -1, NULL, NULL), -PUSHROD_E_INVALID);
    assert_non_null(strstr(pushrod_server_error(s), "NULL"));
    pushrod_group_drop(group);
    server_stop(s);
}

static void test_cancel(void **state)
{
    struct pushrod_server *s = server_new();
    (void)state;
    server_start(s);
    int64_t runs = pushrod_server_task(s, "hang", "", 0, NULL, on_finish, &seen);
    STEP_UNTIL(s, seen.joined >= 1);
    assert_int_equal(pushrod_server_cancel(s, (uint64_t)runs), 0);
    STEP_UNTIL(s, seen.finishes == 1);
    assert_int_equal(seen.last.status, PUSHROD_CANCELLED);
    /* One that nobody can run. */
    int64_t waits = pushrod_server_task(s, "nobody", "", 0, NULL, on_finish, &seen);
    assert_int_equal(pushrod_server_cancel(s, (uint64_t)waits), 0);
    STEP_UNTIL(s, seen.finishes == 2);
    assert_int_equal(seen.last.id, waits);
    assert_int_equal(seen.last.status, PUSHROD_CANCELLED);
    server_stop(s);
}

/* ---- groups, and other threads ---- */

static void on_group(struct pushrod_server *s, struct pushrod_group *g, void *arg)
{
    (void)s;
    assert_ptr_equal(arg, &seen);
    assert_ptr_equal(g, seen.group);
    seen.group_done = true;
    seen.group_finished = pushrod_group_finished(g);
    if (seen.group_finished)
        copy_finish(pushrod_group_finish(g, 0));
}

static void test_group(void **state)
{
    struct pushrod_server *s = server_new();
    struct pushrod_job job = {"echo", "one", 3, NULL}, slow = {"hang", "", 0, NULL};
    (void)state;
    server_start(s);
    seen.group = pushrod_group_new(s);
    assert_int_equal(pushrod_group_task(seen.group, &job), 0);
    job.data = "two";
    assert_int_equal(pushrod_group_task(seen.group, &job), 1);
    /* As good as forever: sums of nanoseconds must not wrap. */
    assert_int_equal(pushrod_group_wait(seen.group, INT64_MAX, on_group, &seen), 0);
    assert_int_equal(pushrod_group_task(seen.group, &job), -PUSHROD_E_WRONG_STATE);
    STEP_UNTIL(s, seen.group_done);
    assert_int_equal(seen.group_finished, 2);
    assert_string_equal(seen.result, "one");
    /* Partial results at the deadline. */
    seen.group_done = false;
    seen.group = pushrod_group_new(s);
    assert_int_equal(pushrod_group_task(seen.group, &job), 0);
    assert_int_equal(pushrod_group_task(seen.group, &slow), 1);
    uint64_t id = pushrod_group_id(seen.group, 1);
    STEP_UNTIL(s, pushrod_group_finished(seen.group) == 1);
    assert_int_equal(pushrod_group_wait(seen.group, 10, on_group, &seen), 0);
    STEP_UNTIL(s, seen.group_done);
    assert_int_equal(seen.group_finished, 1);
    assert_string_equal(seen.result, "two");
    /* The late finish goes to the event, and an empty group is done at once. */
    seen.group_done = false;
    seen.group = pushrod_group_new(s);
    assert_int_equal(pushrod_group_wait(seen.group, -1, on_group, &seen), 0);
    assert_int_equal(pushrod_server_cancel(s, id), 0);
    STEP_UNTIL(s, seen.group_done && seen.general == 1);
    assert_int_equal(seen.last.id, id);
    server_stop(s);
}

/* A group belongs to its server, from new() to free(), whether it was used or not. */
static void test_unused_groups(void **state)
{
    struct pushrod_server *s = server_new();
    (void)state;
    assert_non_null(pushrod_group_new(s));
    pushrod_group_drop(pushrod_group_new(s));
    server_start(s);
    pushrod_group_drop(pushrod_group_new(s));
    server_stop(s);
    s = pushrod_server_new();
    assert_non_null(pushrod_group_new(s));
    pushrod_server_free(s);
}

struct thread {
    struct pushrod_server *server;
    int64_t task;
    int echoed, timed_out, partial_errors[2];
    int64_t partial;
    bool aligned;
    char result[16];
};

static void count_post(struct pushrod_server *s, void *arg)
{
    (void)s, (void)arg;
    seen.posts++;
}

static void *thread_main(void *arg)
{
    struct thread *t = arg;
    struct pushrod_job echo_job = {"echo", "hi", 2, NULL}, hang_job = {"hang", "", 0, NULL};
    struct pushrod_job both[2] = {echo_job, hang_job};
    struct pushrod_finish *finish = NULL, *two[2];
    t->task = pushrod_server_task(t->server, "echo", "", 0, NULL, NULL, NULL);
    t->echoed = pushrod_server_taskwait(t->server, &echo_job, -1, &finish);
    t->aligned = finish && (uintptr_t)finish->result % _Alignof(max_align_t) == 0;
    if (finish)
        snprintf(t->result, sizeof t->result, "%.*s", (int)finish->result_size,
            (const char *)finish->result);
    pushrod_server_finish_free(finish);
    t->timed_out = pushrod_server_taskwait(t->server, &hang_job, 20, &finish);
    t->partial = pushrod_server_taskwait_many(t->server, both, 2, 3000, two, t->partial_errors);
    pushrod_server_finish_free(two[0]);
    pushrod_server_finish_free(two[1]);
    pushrod_server_post(t->server, count_post, NULL);
    return NULL;
}

static void test_threads(void **state)
{
    struct pushrod_server *s = server_new();
    struct thread t = {.server = s};
    struct pushrod_job job = {"echo", "hi", 2, NULL};
    struct pushrod_finish *finish;
    pthread_t thread;
    (void)state;
    server_start(s);
    STEP_UNTIL(s, seen.joined == 2);
    assert_int_equal(pushrod_server_taskwait(s, &job, 0, &finish), -PUSHROD_E_WRONG_STATE);
    assert_int_equal(pthread_create(&thread, NULL, thread_main, &t), 0);
    STEP_UNTIL(s, seen.posts == 1);
    pthread_join(thread, NULL);
    assert_int_equal(t.task, -PUSHROD_E_WRONG_STATE);
    assert_int_equal(t.echoed, 0);
    assert_true(t.aligned);
    assert_string_equal(t.result, "hi");
    assert_int_equal(t.timed_out, -PUSHROD_E_TIMED_OUT);
    /* One slot still hangs; the other one answers. */
    assert_int_equal(t.partial, 1);
    assert_int_equal(t.partial_errors[0], 0);
    assert_int_equal(t.partial_errors[1], -PUSHROD_E_TIMED_OUT);
    pushrod_server_stop(s);
    pushrod_server_stop(s);
    while (step(s) == 1)
        continue;
    pushrod_server_free(s);
}

static void *run_main(void *arg)
{
    return (void *)(intptr_t)pushrod_server_run(arg);
}

static void post_stop(struct pushrod_server *s, void *arg)
{
    (void)arg;
    pushrod_server_stop(s);
    pushrod_server_stop(s);
}

static void count_atomic(struct pushrod_server *s, void *arg)
{
    (void)s;
    atomic_fetch_add((atomic_uint *)arg, 1);
}

/*
 * Started here, served by another thread, which is the server's from then on. What post() has
 * accepted is called, also when the server ends at that moment; stop() may come too late.
 */
static void test_end_beside_threads(void **state)
{
    (void)state;
    for (int round = 0; round < 3; round++) {
        struct pushrod_server *s = server_new();
        struct pushrod_job job = {"echo", "hi", 2, NULL};
        struct pushrod_finish *finish;
        atomic_uint called = 0;
        unsigned accepted = 0;
        pthread_t thread;
        void *result;
        assert_int_equal(pushrod_server_post(s, count_atomic, &called), -PUSHROD_E_WRONG_STATE);
        server_start(s);
        assert_int_equal(pthread_create(&thread, NULL, run_main, s), 0);
        while (pushrod_server_taskwait(s, &job, -1, &finish) == -PUSHROD_E_WRONG_STATE)
            continue; /* the other thread has not taken over yet */
        pushrod_server_finish_free(finish);
        assert_int_equal(pushrod_server_post(s, post_stop, NULL), 0);
        int error;
        while ((error = pushrod_server_post(s, count_atomic, &called)) == 0) {
            accepted++;
            pushrod_server_stop(s);
        }
        assert_int_equal(error, -PUSHROD_E_WRONG_STATE);
        pushrod_server_stop(s);
        pthread_join(thread, &result);
        assert_int_equal((intptr_t)result, 0);
        assert_int_equal(atomic_load(&called), accepted);
        pushrod_server_stop(s);
        assert_int_equal(pushrod_server_run(s), -PUSHROD_E_WRONG_STATE);
        pushrod_server_free(s);
    }
}

static void post_at_stop(struct pushrod_server *s, void *arg)
{
    (void)arg;
    seen.stopped++;
    assert_int_equal(pushrod_server_post(s, count_post, NULL), 0);
}

/* In the last round there is more to read than the loop takes at once: a post is called still. */
static void test_post_at_the_end(void **state)
{
    enum { CLIENTS = 256 };
    int fds[CLIENTS];
    (void)state;
    memset(&seen, 0, sizeof seen);
    struct pushrod_server *s = pushrod_server_new();
    const struct pushrod_server_events events = {.stop = post_at_stop, .connect = on_connect};
    pushrod_server_on(s, &events, NULL);
    assert_int_equal(pushrod_server_set(s, "join-port", "0"), 0);
    assert_int_equal(pushrod_server_set(s, "answers-port", "0"), 0);
    assert_int_equal(pushrod_server_listen(s, "127.0.0.1:0", NULL), 0);
    server_start(s);
    struct sockaddr_in at = {.sin_family = AF_INET,
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
        .sin_port = htons((uint16_t)pushrod_server_port(s, "own", 0))};
    for (int i = 0; i < CLIENTS; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM, 0);
        assert_int_equal(connect(fds[i], (struct sockaddr *)&at, sizeof at), 0);
    }
    STEP_UNTIL(s, seen.connects == CLIENTS);
    for (int i = 0; i < CLIENTS; i++)
        assert_int_equal(write(fds[i], "x", 1), 1);
    pushrod_server_stop(s);
    pushrod_server_stop(s);
    while (step(s) == 1)
        continue;
    assert_int_equal(seen.stopped, 1);
    assert_int_equal(seen.posts, 1);
    pushrod_server_free(s);
    for (int i = 0; i < CLIENTS; i++)
        close(fds[i]);
}

/* ---- timers, numbers ---- */

static void on_tick(struct pushrod_server *s, void *arg)
{
    (void)s, (void)arg;
    seen.ticks++;
}

static void test_timers(void **state)
{
    struct pushrod_server *s = server_new();
    (void)state;
    assert_int_equal(pushrod_server_timer(s, 1, 0, on_tick, NULL), -PUSHROD_E_WRONG_STATE);
    server_start(s);
    assert_true(pushrod_server_timer(s, UINT64_MAX, 0, on_tick, NULL) > 0);
    assert_true(pushrod_server_timer(s, UINT64_MAX / 1000000 + 2, 0, on_tick, NULL) > 0);
    assert_true(pushrod_server_timer(s, 1, UINT64_MAX, on_tick, NULL) > 0);
    STEP_UNTIL(s, seen.ticks == 1);
    int64_t repeats = pushrod_server_timer(s, 1, 1, on_tick, NULL);
    STEP_UNTIL(s, seen.ticks >= 4);
    assert_int_equal(pushrod_server_timer_clear(s, repeats), 0);
    assert_int_equal(pushrod_server_timer_clear(s, repeats), -PUSHROD_E_INVALID);
    server_stop(s);
}

static uint64_t cpu_us;

static void count_stat(const char *name, uint64_t value, void *arg)
{
    if (strcmp(name, "done") == 0)
        *(uint64_t *)arg = value;
    if (strcmp(name, "cpu_us") == 0)
        cpu_us = value;
}

static void test_stats(void **state)
{
    struct pushrod_server *s = server_new();
    uint64_t done = 99;
    (void)state;
    server_start(s);
    pushrod_server_stats(s, count_stat, &done);
    assert_int_equal(done, 0);
    assert_true(pushrod_server_task(s, "echo", "", 0, NULL, on_finish, &seen) > 0);
    STEP_UNTIL(s, seen.finishes == 1);
    pushrod_server_stats(s, count_stat, &done);
    assert_int_equal(done, 1);
    assert_true(cpu_us > 0 || access("/proc/thread-self/schedstat", R_OK) != 0);
    server_stop(s);
}

/* An event that is lost for want of memory takes none along that come after it. */
static void test_events_after_no_memory(void **state)
{
    const struct pushrod_server_events events = {.stop = on_stop, .worker_join = on_join};
    const struct notice ready = {.kind = NOTICE_WORKER_READY, .worker = 1, .name = "worker"};
    struct pushrod_server *s = pushrod_server_new();
    (void)state;
    memset(&seen, 0, sizeof seen);
    pushrod_server_on(s, &events, NULL);
    assert_int_equal(pushrod_server_set(s, "join-port", "0"), 0);
    assert_int_equal(pushrod_server_set(s, "answers-port", "0"), 0);
    server_start(s);
    s->notes.failed = true;
    for (int i = 0; i < 2; i++) {
        events_notice(s, &ready);
        assert_int_equal(pushrod_server_step(s), 1);
        assert_int_equal(pushrod_server_step(s), 1);
    }
    assert_int_equal(seen.joined, 1);
    server_stop(s);
}

/* Large results are of no use to a server that closes whoever is sent one, or keeps none. */
static void test_bounds_for_large_results(void **state)
{
    const uint64_t result = UINT64_C(300) << 20;
    struct pushrod_server *s = pushrod_server_new();
    struct host_settings settings;
    (void)state;
    assert_int_equal(pushrod_server_set(s, "max-result", "300m"), 0);
    assert_int_equal(settings_read(s, &settings), 0);
    assert_true(settings.conns.max_unsent > result && settings.host.core.hold_bytes > result);
    settings_free(&settings);
    assert_int_equal(pushrod_server_set(s, "max-unsent", "2m"), 0); /* who says it means it */
    assert_int_equal(settings_read(s, &settings), 0);
    assert_int_equal(settings.conns.max_unsent, 2 << 20);
    settings_free(&settings);
    pushrod_server_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_finish),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_large),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_no_callback),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_group),
        cmocka_unit_test(test_unused_groups),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_end_beside_threads),
        cmocka_unit_test(test_post_at_the_end),
        cmocka_unit_test(test_timers),
        cmocka_unit_test(test_stats),
        cmocka_unit_test(test_events_after_no_memory),
        cmocka_unit_test(test_bounds_for_large_results),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
