/* SPDX-License-Identifier: Apache-2.0 */
/* The client library against a fake server: submissions, waits, reconnects, limits, errors. */
#include "tests/unit/unit.h"

#include <poll.h>
#include <pushrod/client.h>
#include "client/lib.h"
#include "common/unixsock.h"
#include "tests/unit/fake_server.h"

struct fixture {
    struct fake_server server;
    struct pushrod_client *client;
    unsigned accepted, finished, attempts, downs;
    uint64_t last_id;
    int last_error;
    char result[64];
    char attempt_text[64];
    char down_text[128];
};

static int setup_with(void **state, const char *greeting)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->server.greeting = greeting;
    fake_start(&f->server);
    f->client = fake_client(&f->server);
    pushrod_client_set_data(f->client, f);
    *state = f;
    return 0;
}

static int setup(void **state)
{
    return setup_with(state, NULL);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    pushrod_client_free(f->client);
    fake_stop(&f->server);
    free(f);
    return 0;
}

/* ---------------------------------------------------------------------------------- callbacks */

static void on_accepted(
    struct pushrod_client *c, uint64_t id, int error, const char *text, void *arg)
{
    struct fixture *f = pushrod_client_data(c);
    f->accepted++;
    f->last_id = id;
    f->last_error = error;
    assert_non_null(text);
    assert_ptr_equal(arg, f);
    assert_int_equal(pushrod_client_ping(c, NULL), -PUSHROD_E_WRONG_STATE);
}

static void on_finish(struct pushrod_client *c, const struct pushrod_finish *finish, void *arg)
{
    struct fixture *f = pushrod_client_data(c);
    (void)arg;
    f->finished++;
    f->last_id = finish->id;
    snprintf(f->result, sizeof f->result, "%.*s", (int)finish->result_size,
        finish->result ? (const char *)finish->result : "");
}

static void on_attempt(struct pushrod_client *c, const struct pushrod_attempt *a, void *arg)
{
    struct fixture *f = pushrod_client_data(c);
    (void)arg;
    f->attempts++;
    snprintf(f->attempt_text, sizeof f->attempt_text, "%s on %s", a->text, a->worker);
}

static void on_connection(struct pushrod_client *c, bool up, const char *text)
{
    struct fixture *f = pushrod_client_data(c);
    assert_non_null(text);
    f->downs += !up;
    if (!up)
        snprintf(f->down_text, sizeof f->down_text, "%s", text);
}

static const struct pushrod_client_events events = {.accepted = on_accepted,
    .finish = on_finish,
    .attempt = on_attempt,
    .connection = on_connection};

/* ---------------------------------------------------------------------------------- tests */

static void test_call(void **state)
{
    struct fixture *f = *state;
    struct pushrod_finish finish;
    assert_int_equal(pushrod_client_call(f->client, "echo", "hello", 5, NULL, -1, &finish), 0);
    assert_int_equal(finish.status, PUSHROD_DONE);
    assert_string_equal(finish.result, "hello");
    assert_int_equal(
        pushrod_client_call(f->client, "fail", NULL, 0, NULL, -1, &finish), -PUSHROD_E_TASK_FAILED);
    assert_string_equal(pushrod_client_error_text(f->client), "it failed");
    assert_string_equal(pushrod_client_server(f->client)->software, "fake 1.0");
    assert_int_equal(atomic_load(&f->server.patient), 2);
}

static void test_submit_many(void **state)
{
    struct fixture *f = *state;
    enum { COUNT = 100000 };
    struct pushrod_submission *tasks = calloc(COUNT, sizeof *tasks);
    struct pushrod_receipt *receipts = calloc(COUNT, sizeof *receipts);
    for (size_t i = 0; i < COUNT; i++)
        tasks[i] = (struct pushrod_submission){.queue = i == 5   ? "full"
                                                        : i == 6 ? "b\nad"
                                                                 : "echo",
            .data = "payload",
            .size = 7};
    assert_int_equal(pushrod_client_submit_many(f->client, tasks, COUNT, receipts), COUNT - 2);
    assert_int_equal(receipts[5].error, -PUSHROD_E_QUEUE_FULL);
    assert_int_equal(receipts[6].error, -PUSHROD_E_BAD_QUEUE);
    assert_int_equal(receipts[COUNT - 1].id, COUNT - 2);
    assert_int_equal(pushrod_client_unanswered(f->client), 0);
    assert_int_equal(atomic_load(&f->server.patient), 0);
    free(tasks);
    free(receipts);
}

static void test_async(void **state)
{
    struct fixture *f = *state;
    struct pushrod_submission task = {
        .queue = "echo", .data = "x", .size = 1, .follow = PUSHROD_FOLLOW_FINISH, .arg = f};
    pushrod_client_on(f->client, &events);
    for (unsigned i = 0; i < 50000; i++)
        assert_int_equal(pushrod_client_submit_async(f->client, &task), 0);
    /* As another loop would: wait for the one descriptor, then process what is there. */
    while (f->finished < 50000) {
        struct pollfd fd = {.fd = pushrod_client_fd(f->client), .events = POLLIN};
        assert_int_equal(pushrod_client_process(f->client, 0), 0);
        if (f->finished < 50000)
            assert_int_equal(poll(&fd, 1, 10000), 1);
    }
    assert_int_equal(f->accepted, 50000);
    assert_int_equal(pushrod_client_unfinished(f->client), 0);
    /* Every finish is acknowledged: after a round trip the server has heard of all. */
    assert_int_equal(pushrod_client_ping(f->client, NULL), 0);
    assert_int_equal(atomic_load(&f->server.received), 50000);
    assert_int_equal(atomic_load(&f->server.patient), 50000);
}

static void test_follow_all(void **state)
{
    struct fixture *f = *state;
    struct pushrod_submission task = {.queue = "fail", .follow = PUSHROD_FOLLOW_ALL, .arg = f};
    pushrod_client_on(f->client, &events);
    assert_int_equal(pushrod_client_submit_async(f->client, &task), 0);
    while (!f->finished)
        assert_int_equal(pushrod_client_process(f->client, -1), 0);
    assert_int_equal(f->attempts, 1);
    assert_string_equal(f->attempt_text, "exit code 1 on worker-1");
}

/* Without a callback a finish is kept until wait() asks, however late. */
static void test_kept(void **state)
{
    struct fixture *f = *state;
    struct pushrod_finish finishes[3];
    uint64_t ids[3] = {0};
    struct pushrod_submission task = {
        .queue = "echo", .data = "abc", .size = 3, .follow = PUSHROD_FOLLOW_FINISH};
    assert_int_equal(pushrod_client_submit(f->client, &task, &ids[0]), 0);
    assert_int_equal(pushrod_client_ping(f->client, NULL), 0);
    ids[1] = ids[0]; /* named twice */
    ids[2] = 12345;  /* never issued */
    assert_int_equal(pushrod_client_wait(f->client, ids, 3, finishes, -1), 0);
    assert_string_equal(finishes[0].result, "abc");
    assert_string_equal(finishes[1].result, "abc");
    assert_int_equal(finishes[2].status, 0);
    assert_int_equal(finishes[2].error, PUSHROD_E_UNKNOWN_TASK);
}

static void test_wait_timeout(void **state)
{
    struct fixture *f = *state;
    struct pushrod_finish finish = {0};
    for (int64_t ms = 20; !finish.id; ms *= 2)
        assert_int_equal(pushrod_client_call(f->client, "never", NULL, 0, NULL, ms, &finish),
            -PUSHROD_E_TIMED_OUT);
    assert_int_equal(finish.status, 0);
}

/* As good as forever: sums of nanoseconds must not wrap. */
static void test_long_timeouts(void **state)
{
    (void)state;
    assert_true(client_deadline(INT64_MAX) == UINT64_MAX);
    assert_true(client_deadline(-1) == UINT64_MAX);
    assert_true(client_deadline(86400000) - clock_mono_ns() <= UINT64_C(86400000000000));
}

static void test_interrupt(void **state)
{
    struct fixture *f = *state;
    struct pushrod_finish finish;
    assert_int_equal(pushrod_client_connect(f->client), 0);
    uint64_t id;
    struct pushrod_submission task = {.queue = "never", .follow = PUSHROD_FOLLOW_FINISH};
    assert_int_equal(pushrod_client_submit(f->client, &task, &id), 0);
    pushrod_client_interrupt(f->client);
    assert_int_equal(pushrod_client_wait(f->client, &id, 1, &finish, -1), -PUSHROD_E_INTERRUPTED);
}

/* The connection goes after ACCEPTED: the library waits again, and tells the finish once. */
static void test_reconnect_waits_again(void **state)
{
    struct fixture *f = *state;
    struct pushrod_submission task = {.queue = "cut", .follow = PUSHROD_FOLLOW_FINISH, .arg = f};
    pushrod_client_on(f->client, &events);
    assert_int_equal(pushrod_client_submit_async(f->client, &task), 0);
    while (!f->finished)
        assert_int_equal(pushrod_client_process(f->client, -1), 0);
    assert_int_equal(pushrod_client_ping(f->client, NULL), 0);
    assert_string_equal(f->result, "waited");
    assert_int_equal(f->finished, 1);
    assert_int_equal(f->downs, 1);
    assert_int_equal(atomic_load(&f->server.connections), 2);
    assert_int_equal(atomic_load(&f->server.waits), 1);
}

/* No answer, no key: it is not known what became of it, and nothing is sent twice. */
static void test_unknown_outcome(void **state)
{
    struct fixture *f = *state;
    struct pushrod_submission task = {.queue = "hang-up"};
    uint64_t id = 1;
    pushrod_client_on(f->client, &events);
    assert_int_equal(pushrod_client_submit(f->client, &task, &id), -PUSHROD_E_CLOSED);
    assert_int_equal(id, 0);
    assert_non_null(strstr(pushrod_client_error_text(f->client), "unique key"));
    assert_non_null(strstr(f->down_text, "closed the connection")); /* and that is tried again */
    assert_int_equal(pushrod_client_ping(f->client, NULL), 0);
    assert_int_equal(atomic_load(&f->server.submits), 1);
}

/* No answer, but a key: sent again, and the duplicate is our own. */
static void test_resent_with_key(void **state)
{
    struct fixture *f = *state;
    struct pushrod_options options = {.unique_key = "k"};
    struct pushrod_submission task = {
        .queue = "hang-up", .options = &options, .follow = PUSHROD_FOLLOW_FINISH};
    struct pushrod_finish finish;
    uint64_t id = 0;
    assert_int_equal(pushrod_client_submit(f->client, &task, &id), 0);
    assert_int_equal(id, 77);
    assert_int_equal(pushrod_client_wait(f->client, &id, 1, &finish, -1), 0);
    assert_string_equal(finish.result, "waited");
    assert_int_equal(atomic_load(&f->server.submits), 2);
}

/* What had not left the process goes over the new connection, key or not. */
static void test_unsent_goes_later(void **state)
{
    struct fixture *f = *state;
    struct pushrod_submission cut = {.queue = "hang-up", .arg = f};
    struct pushrod_submission task = {.queue = "echo", .follow = PUSHROD_FOLLOW_FINISH, .arg = f};
    pushrod_client_on(f->client, &events);
    assert_int_equal(pushrod_client_submit_async(f->client, &cut), 0);
    pushrod_client_flush(f->client);
    while (f->downs == 0) {
        /* Ten messages without a flush are in no write, if the loss is noticed at the next read. */
        assert_int_equal(pushrod_client_process(f->client, -1), 0);
    }
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(pushrod_client_submit_async(f->client, &task), 0);
    while (f->finished < 10)
        assert_int_equal(pushrod_client_process(f->client, -1), 0);
    assert_int_equal(f->accepted, 11);
}

static void count_queue(const struct pushrod_queue_info *queue, void *arg)
{
    assert_true(strcmp(queue->name, "echo") == 0 || strcmp(queue->name, "fail") == 0);
    assert_int_equal(queue->ready, 3);
    ++*(unsigned *)arg;
}

static void test_lists(void **state)
{
    struct fixture *f = *state;
    unsigned rows = 0;
    struct pushrod_task_info info;
    assert_int_equal(pushrod_client_queues(f->client, NULL, count_queue, &rows), 2);
    assert_int_equal(pushrod_client_queues(f->client, "many", count_queue, &rows), 1001);
    assert_int_equal(rows, 1003);
    assert_int_equal(pushrod_client_status(f->client, 9, &info), 0);
    assert_string_equal(info.state, "failed");
    assert_int_equal(info.history_count, 2);
    assert_string_equal(info.history[1].worker, "worker-1");
    assert_int_equal(info.history[1].signal, 11);
    assert_int_equal(info.head_size, 6);
    assert_memory_equal(info.head, "begins", 6);
    assert_int_equal(pushrod_client_control(f->client, "pause", "echo", 0), 1);
    assert_int_equal(pushrod_client_cancel(f->client, 9), 0);
}

/* ---------------------------------------------------------------------------------- limits */

static void expect_refused(
    struct fixture *f, const struct pushrod_submission *task, int error, const char *says)
{
    assert_int_equal(pushrod_client_submit(f->client, task, NULL), -error);
    const char *text = pushrod_client_error_text(f->client);
    if (!strstr(text, says))
        fail_msg("'%s' does not say '%s'", text, says);
    assert_int_equal(atomic_load(&f->server.submits), 0);
}

static void test_limits(void **state)
{
    struct fixture *f = *state;
    static char bytes[70000];
    char key[PUSHROD_MAX_UNIQUE_KEY + 2];
    memset(key, 'k', sizeof key - 1);
    key[sizeof key - 1] = '\0';
    struct pushrod_header header = {"a b", "c"};
    struct pushrod_options o = {.priority_plus_1 = 11};
    struct pushrod_submission task = {.queue = "echo", .options = &o};
    expect_refused(f, &task, PUSHROD_E_BAD_OPTION, "priority is 10: it must be 0 to 9");
    o = (struct pushrod_options){.max_attempts = 1001};
    expect_refused(f, &task, PUSHROD_E_BAD_OPTION, "max_attempts is 1001");
    o = (struct pushrod_options){.tag = bytes, .tag_size = 257};
    expect_refused(f, &task, PUSHROD_E_TOO_BIG, "tag has 257 bytes: at most 256");
    o = (struct pushrod_options){.unique_key = key};
    expect_refused(f, &task, PUSHROD_E_TOO_BIG, "unique_key has 257 bytes");
    o = (struct pushrod_options){.delay_ms = UINT64_MAX};
    expect_refused(f, &task, PUSHROD_E_BAD_OPTION, "delay_ms");
    o = (struct pushrod_options){.headers = &header, .header_count = 1};
    expect_refused(f, &task, PUSHROD_E_BAD_OPTION, "headers");
    task = (struct pushrod_submission){.queue = "echo", .data = bytes, .size = 1001};
    expect_refused(f, &task, PUSHROD_E_TOO_BIG, "the payload has 1001 bytes: at most 1000");
    task = (struct pushrod_submission){.queue = "no such\nname"};
    expect_refused(f, &task, PUSHROD_E_BAD_QUEUE, "queue is");
    assert_int_equal(pushrod_client_set(f->client, "reconnect", "soon"), -PUSHROD_E_BAD_OPTION);
    assert_int_equal(pushrod_client_set(f->client, "colour", "x"), -PUSHROD_E_BAD_OPTION);
}

/* ---------------------------------------------------------------------------------- wrong ports */

static void expect_connect(struct fixture *f, int error, const char *says)
{
    assert_int_equal(pushrod_client_connect(f->client), -error);
    const char *text = pushrod_client_error_text(f->client);
    if (!strstr(text, says))
        fail_msg("'%s' does not say '%s'", text, says);
}

static void test_http_port(void **state)
{
    setup_with(state, "HTTP/1.1 400 Bad Request\r\n\r\n");
    expect_connect(*state, PUSHROD_E_WRONG_PORT, "is an HTTP port");
    teardown(state);
}

static void test_other_port(void **state)
{
    setup_with(state, "220 mail.example.com ESMTP\r\n");
    expect_connect(*state, PUSHROD_E_WRONG_PORT, "not a Pushrod server");
    teardown(state);
}

static void test_nobody(void **state)
{
    struct fixture *f = *state;
    char address[32];
    memcpy(address, f->server.address, sizeof address);
    /* The port of a listener that is gone. */
    struct fake_server gone = {0};
    fake_start(&gone);
    memcpy(address, gone.address, sizeof address);
    fake_stop(&gone);
    assert_int_equal(pushrod_client_set(f->client, "server", address), 0);
    expect_connect(f, PUSHROD_E_UNREACHABLE, "is pushrod-server running?");
    assert_int_equal(pushrod_client_set(f->client, "server", "127.0.0.1:+1"), 0);
    expect_connect(f, PUSHROD_E_BAD_OPTION, "HOST:PORT");
    /* The same client finds the server when it is told the right address. */
    assert_int_equal(pushrod_client_set(f->client, "server", f->server.address), 0);
    assert_int_equal(pushrod_client_ping(f->client, NULL), 0);
}

#define CLIENT_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* ------------------------------------------------------------------------- on the same host */

/* The server of the fixture tells of a Unix socket, where `other` listens. */
static void start_near(struct fixture *f, struct fake_server *other, char base[UNIXSOCK_BASE])
{
    struct sockaddr_un at;
    assert_true(unixsock_draw(base));
    f->server.unix_name = slice_str(base);
    socklen_t size = unixsock_address(&at, f->server.unix_name);
    assert_int_not_equal(size, 0);
    fake_listen(other, AF_UNIX, &at, size);
}

static void runs_one(struct fixture *f)
{
    struct pushrod_finish finish;
    assert_int_equal(pushrod_client_call(f->client, "echo", "here", 4, NULL, 10000, &finish), 0);
    assert_int_equal(finish.result_size, 4);
}

static void test_unix_socket(void **state)
{
    struct fixture *f = *state;
    struct fake_server near = {0};
    char base[UNIXSOCK_BASE];
    start_near(f, &near, base);
    runs_one(f);
    assert_int_equal(near.submits, 1);
    assert_int_equal(f->server.submits, 0);
    assert_int_equal(f->client->tcp, -1);
    fake_stop(&near);
}

static void test_unix_socket_elsewhere(void **state)
{
    struct fixture *f = *state;
    char base[UNIXSOCK_BASE];
    assert_true(unixsock_draw(base));
    f->server.unix_name = slice_str(base); /* of another host */
    runs_one(f);
    assert_int_equal(f->server.submits, 1);
}

static void test_unix_socket_that_does_not_greet(void **state)
{
    /* "": it hangs up; "\1": no more than that. */
    static const char *const says[] = {
        "", "\1", "HTTP/1.1 400\r\n\r\n", "\177\177\177\177 nonsense"};
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof says / sizeof says[0]; i++) {
        struct fake_server near = {.greeting = says[i]};
        char base[UNIXSOCK_BASE];
        start_near(f, &near, base);
        assert_int_equal(pushrod_client_set(f->client, "connect-timeout", "100"), 0);
        runs_one(f);
        assert_int_equal(near.connections, 1);
        assert_int_equal(f->server.submits, i + 1);
        assert_int_equal(f->server.connections, i + 1);
        pushrod_client_free(f->client);
        fake_stop(&near);
        f->client = pushrod_client_new();
        assert_int_equal(pushrod_client_set(f->client, "server", f->server.address), 0);
    }
}

/* What follows its ERROR is not taken for words of the connection that is left. */
static void test_unix_socket_that_refuses(void **state)
{
    struct fixture *f = *state;
    struct fake_server near = {.refuses = true};
    char base[UNIXSOCK_BASE];
    start_near(f, &near, base);
    runs_one(f);
    assert_int_equal(f->server.submits, 1);
    assert_int_equal(f->server.connections, 1);
    fake_stop(&near);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLIENT_TEST(test_call),
        CLIENT_TEST(test_submit_many),
        CLIENT_TEST(test_async),
        CLIENT_TEST(test_follow_all),
        CLIENT_TEST(test_kept),
        CLIENT_TEST(test_wait_timeout),
        cmocka_unit_test(test_long_timeouts),
        CLIENT_TEST(test_interrupt),
        CLIENT_TEST(test_reconnect_waits_again),
        CLIENT_TEST(test_unknown_outcome),
        CLIENT_TEST(test_resent_with_key),
        CLIENT_TEST(test_unsent_goes_later),
        CLIENT_TEST(test_lists),
        CLIENT_TEST(test_limits),
        cmocka_unit_test(test_http_port),
        cmocka_unit_test(test_other_port),
        CLIENT_TEST(test_nobody),
        CLIENT_TEST(test_unix_socket),
        CLIENT_TEST(test_unix_socket_elsewhere),
        CLIENT_TEST(test_unix_socket_that_does_not_greet),
        CLIENT_TEST(test_unix_socket_that_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
