/* SPDX-License-Identifier: Apache-2.0 */
/* What a client asks of a server, and makes of its answers. */
#include "tests/unit/unit.h"

#include <pushrod/client.h>
#include "client/lib.h"
#include "tests/unit/fake_server.h"

struct fixture {
    struct fake_server server;
    struct pushrod_client *client;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    fake_start(&f->server);
    f->client = fake_client(&f->server);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    pushrod_client_free(f->client);
    fake_stop(&f->server);
    free(f);
    return 0;
}

/* ---------------------------------------------------------------------------------- lists */

static void on_dead(const struct pushrod_task_info *task, void *arg)
{
    uint64_t *last = arg;
    assert_int_equal(task->id, *last + 1);
    *last = task->id;
}

/* However many a server gives at a time, so many come as were asked for, each once. */
static void dead_tasks_come_up_to_the_limit(void **state)
{
    static const struct {
        uint64_t after, limit;
        int64_t rows;
    } cases[] = {{0, 2300, 2300}, {0, 5000, FAKE_DEAD}, {0, 0, 1000}, {0, 1000, 1000}, {7, 1, 1},
        {100, 2000, 2000}, {FAKE_DEAD, 2000, 0}};
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint64_t last = cases[i].after;
        int64_t rows =
            pushrod_client_dead(f->client, NULL, cases[i].after, cases[i].limit, on_dead, &last);
        assert_int_equal(rows, cases[i].rows);
        assert_int_equal(last, cases[i].after + (uint64_t)rows);
    }
}

/* ---------------------------------------------------------------------------------- cancel */

static void a_task_that_has_ended_is_not_cancelled(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(pushrod_client_cancel(f->client, 99), 0);
    assert_int_equal(pushrod_client_cancel(f->client, 100), -PUSHROD_E_WRONG_STATE);
    assert_string_equal(pushrod_client_error_text(f->client), "task 100 has ended already");
}

/* ---------------------------------------------------------------------------------- control */

/* As if each had been asked for alone, whatever is lost in between. */
static void many_are_operated_on(void **state)
{
    struct fixture *f = *state;
    uint64_t ids[600];
    int64_t counts[600];
    for (uint64_t i = 0; i < 600; i++)
        ids[i] = i + 1;
    assert_int_equal(pushrod_client_control_many(f->client, "drop", ids, 600, counts), 599);
    for (size_t i = 0; i < 600; i++)
        assert_int_equal(counts[i], ids[i] == 404 ? -PUSHROD_E_UNKNOWN_TASK : 1);
    assert_int_equal(atomic_load(&f->server.connections), 2);
    /* 300 of the first connection; those before the last of them were answered. */
    assert_int_equal(atomic_load(&f->server.controls), 300 + 600 - 299);
    assert_int_equal(pushrod_client_control_many(f->client, "drop", ids, 0, counts), 0);
}

/* And a server that says nothing has not been asked for all of them. */
static void not_all_of_them_are_under_way(void **state)
{
    struct fixture *f = *state;
    static uint64_t ids[1000];
    static int64_t counts[1000];
    assert_int_equal(pushrod_client_connect(f->client), 0);
    assert_int_equal(pushrod_client_set(f->client, "answer-timeout", "20"), 0);
    pthread_mutex_lock(&f->server.gate);
    assert_int_equal(
        pushrod_client_control_many(f->client, "drop", ids, 1000, counts), -PUSHROD_E_TIMED_OUT);
    pthread_mutex_unlock(&f->server.gate);
    for (size_t i = 0; i < 1000; i++)
        assert_int_equal(counts[i], -PUSHROD_E_CLOSED);
    assert_int_equal(pushrod_client_set(f->client, "answer-timeout", "0"), 0);
    assert_int_equal(pushrod_client_ping(f->client, NULL), 0);
    assert_in_range(atomic_load(&f->server.controls), 1, 256);
}

/* ---------------------------------------------------------------------------------- submitted */

/* What comes can be given to submit() as it is, and stays until the next is asked for. */
static void a_task_comes_back_as_it_was_submitted(void **state)
{
    struct fixture *f = *state;
    struct pushrod_submission t;
    uint64_t id;
    assert_int_equal(pushrod_client_submitted(f->client, 9, true, &t), 0);
    assert_int_equal(pushrod_client_ping(f->client, NULL), 0);
    assert_string_equal(t.queue, "echo");
    assert_int_equal(t.size, sizeof "\0\n\0payload");
    assert_memory_equal(t.data, "\0\n\0payload", t.size);
    assert_int_equal(t.options->priority_plus_1, 1);
    assert_int_equal(t.options->timeout_ms, 5);
    assert_int_equal(t.options->max_attempts, 7);
    assert_string_equal(t.options->unique_key, "key");
    assert_null(t.options->worker);
    assert_int_equal(t.options->tag_size, 3);
    assert_memory_equal(t.options->tag, "t\0g", 3);
    assert_int_equal(t.options->header_count, 2);
    assert_string_equal(t.options->headers[0].name, "a");
    assert_string_equal(t.options->headers[0].value, "b");
    assert_string_equal(t.options->headers[1].value, "");
    assert_int_equal(pushrod_client_submit(f->client, &t, &id), 0);
    assert_int_equal(pushrod_client_submitted(f->client, 9, false, &t), 0);
    assert_null(t.data);
    assert_int_equal(t.size, 0);
    assert_string_equal(t.options->unique_key, "key");
}

static void or_it_is_said_why_not(void **state)
{
    struct fixture *f = *state;
    struct pushrod_submission t;
    assert_int_equal(pushrod_client_submitted(f->client, 404, true, &t), -PUSHROD_E_UNKNOWN_TASK);
    assert_int_equal(pushrod_client_submitted(f->client, 400, true, &t), -PUSHROD_E_INVALID);
    assert_non_null(strstr(pushrod_client_error_text(f->client), "older"));
    assert_int_equal(pushrod_client_submitted(f->client, 10, true, &t), -PUSHROD_E_BAD_MESSAGE);
    assert_int_equal(pushrod_client_submitted(f->client, 9, true, &t), 0);
}

/* ---------------------------------------------------------------------------------- call */

/* A task that was accepted before its call() was over, however slow we are. */
static uint64_t call_in_vain(struct fixture *f, const char *queue)
{
    struct pushrod_finish finish = {0};
    for (int64_t ms = 1; !finish.id; ms *= 2)
        assert_int_equal(pushrod_client_call(f->client, queue, NULL, 0, NULL, ms, &finish),
            -PUSHROD_E_TIMED_OUT);
    return finish.id;
}

/* A task whose call() is over before it is, and which ends then. */
static uint64_t call_late_one(struct fixture *f)
{
    uint64_t id = call_in_vain(f, "late");
    assert_int_equal(pushrod_client_ping(f->client, NULL), 0);
    return id;
}

/* However many of them time out: of the last one the finish can be had, and no other is kept. */
static void late_finishes_of_calls_do_not_pile_up(void **state)
{
    struct fixture *f = *state;
    struct pushrod_finish finish;
    uint64_t id = 0;
    for (unsigned i = 0; i < 10; i++)
        id = call_late_one(f);
    assert_int_equal(f->client->tasks.places.count, 1);
    assert_int_equal(pushrod_client_wait(f->client, &id, 1, &finish, 0), 0);
    assert_string_equal(finish.result, "late");
    for (unsigned i = 0; i < 10; i++)
        call_in_vain(f, "never");
    assert_int_equal(pushrod_client_unfinished(f->client), 1);
}

/* Who asks for one by its id has it, whatever is called meanwhile. */
static void what_is_asked_for_by_id_is_kept(void **state)
{
    struct fixture *f = *state;
    struct pushrod_finish finish;
    uint64_t followed = call_late_one(f);
    assert_int_equal(pushrod_client_follow(f->client, followed, PUSHROD_FOLLOW_FINISH, NULL), 0);
    call_late_one(f);
    call_late_one(f);
    assert_int_equal(pushrod_client_wait(f->client, &followed, 1, &finish, 0), 0);
    assert_string_equal(finish.result, "late");
}

static void on_finish(struct pushrod_client *c, const struct pushrod_finish *finish, void *arg)
{
    (void)arg;
    assert_int_equal(finish->status, PUSHROD_DONE);
    ++*(unsigned *)pushrod_client_data(c);
}

static void or_goes_to_the_callback(void **state)
{
    struct fixture *f = *state;
    unsigned finished = 0;
    struct pushrod_finish finish;
    pushrod_client_set_data(f->client, &finished);
    pushrod_client_on(f->client, &(struct pushrod_client_events){.finish = on_finish});
    call_in_vain(f, "late");
    assert_int_equal(pushrod_client_call(f->client, "echo", "x", 1, NULL, -1, &finish), 0);
    assert_int_equal(pushrod_client_ping(f->client, NULL), 0);
    assert_int_equal(finished, 1);
}

/* ---------------------------------------------------------------------------------- settings */

static int set_token_file(struct pushrod_client *c, const char *content, size_t size)
{
    char path[] = "/tmp/pushrod-token-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, content, size) == (ssize_t)size);
    close(fd);
    int error = pushrod_client_set(c, "token-file", path);
    unlink(path);
    return error;
}

/* As servers and workers read it: whole, or not at all. */
static void a_token_file_is_one_line(void **state)
{
    static char content[5000];
    struct fixture *f = *state;
    memset(content, 'x', sizeof content);
    content[2000] = '\n';
    assert_int_equal(set_token_file(f->client, content, 2001), 0);
    assert_int_equal(strlen(f->client->token), 2000);
    assert_int_equal(set_token_file(f->client, content, 2002), -PUSHROD_E_BAD_OPTION);
    assert_non_null(strstr(pushrod_client_error_text(f->client), "not one line"));
    assert_int_equal(set_token_file(f->client, content, sizeof content), -PUSHROD_E_BAD_OPTION);
    assert_int_equal(set_token_file(f->client, "\n", 1), -PUSHROD_E_BAD_OPTION);
    assert_int_equal(
        pushrod_client_set(f->client, "token-file", "/nowhere/at/all"), -PUSHROD_E_SYSTEM);
    assert_int_equal(strlen(f->client->token), 2000);
}

#define REQUEST_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        REQUEST_TEST(dead_tasks_come_up_to_the_limit),
        REQUEST_TEST(a_task_that_has_ended_is_not_cancelled),
        REQUEST_TEST(many_are_operated_on),
        REQUEST_TEST(not_all_of_them_are_under_way),
        REQUEST_TEST(a_task_comes_back_as_it_was_submitted),
        REQUEST_TEST(or_it_is_said_why_not),
        REQUEST_TEST(late_finishes_of_calls_do_not_pile_up),
        REQUEST_TEST(what_is_asked_for_by_id_is_kept),
        REQUEST_TEST(or_goes_to_the_callback),
        REQUEST_TEST(a_token_file_is_one_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
