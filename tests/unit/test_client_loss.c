/* SPDX-License-Identifier: Apache-2.0 */
/* Connections that are lost, and servers that say nothing: what callbacks ask for meanwhile, and
 * how long a question waits. */
#include "tests/unit/unit.h"

#include <pushrod/client.h>
#include "tests/unit/fake_server.h"

struct fixture {
    struct fake_server server;
    struct pushrod_client *client;
    unsigned downs, accepted, closed, finished;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    fake_start(&f->server);
    f->client = fake_client(&f->server);
    pushrod_client_set_data(f->client, f);
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

static void on_finish(struct pushrod_client *c, const struct pushrod_finish *finish, void *arg)
{
    struct fixture *f = pushrod_client_data(c);
    (void)arg;
    f->finished += finish->status == PUSHROD_DONE;
}

/* ---------------------------------------------------------------------------------- follow */

static void follow_when_down(struct pushrod_client *c, bool up, const char *text)
{
    struct fixture *f = pushrod_client_data(c);
    (void)text;
    assert_int_equal(pushrod_client_connected(c), up);
    f->downs += !up;
    if (!up && f->downs == 1)
        assert_int_equal(pushrod_client_follow(c, 1, PUSHROD_FOLLOW_FINISH, NULL), 0);
}

/* The next connection asks for it, and once. */
static void what_is_followed_meanwhile_is_asked_for(void **state)
{
    struct fixture *f = *state;
    const struct pushrod_client_events events = {
        .connection = follow_when_down, .finish = on_finish};
    struct pushrod_submission s = {.queue = "cut"};
    pushrod_client_on(f->client, &events);
    assert_int_equal(pushrod_client_submit(f->client, &s, NULL), 0);
    while (!f->finished)
        assert_int_equal(pushrod_client_process(f->client, -1), 0);
    assert_int_equal(f->downs, 1);
    assert_int_equal(atomic_load(&f->server.waits), 1);
}

/* ---------------------------------------------------------------------------------- submit */

static void submit_anew(
    struct pushrod_client *c, uint64_t id, int error, const char *text, void *arg)
{
    struct fixture *f = pushrod_client_data(c);
    struct pushrod_submission s = {.queue = "echo", .follow = PUSHROD_FOLLOW_FINISH};
    (void)id, (void)text, (void)arg;
    f->accepted += error == 0;
    f->closed += error != 0;
    if (error)
        assert_int_equal(pushrod_client_submit_async(c, &s), 0);
}

/* Nothing is dialled again by itself, but the next call that needs the server takes it along. */
static void what_is_submitted_meanwhile_is_sent(void **state)
{
    struct fixture *f = *state;
    const struct pushrod_client_events events = {.accepted = submit_anew, .finish = on_finish};
    struct pushrod_submission s = {.queue = "hang-up"};
    pushrod_client_on(f->client, &events);
    assert_int_equal(pushrod_client_set(f->client, "reconnect", "0"), 0);
    assert_int_equal(pushrod_client_submit_async(f->client, &s), 0);
    while (!f->closed)
        pushrod_client_process(f->client, -1);
    assert_int_equal(pushrod_client_ping(f->client, NULL), 0);
    assert_int_equal(f->accepted, 1);
    assert_int_equal(f->finished, 1);
    assert_int_equal(pushrod_client_unanswered(f->client), 0);
}

/* What becomes of the submissions has an error of its own, which is not that of the connection. */
static void the_reason_of_a_loss_outlives_what_is_lost(void **state)
{
    struct fixture *f = *state;
    struct pushrod_submission s = {.queue = "nonsense"};
    struct pushrod_receipt receipt;
    assert_int_equal(
        pushrod_client_submit_many(f->client, &s, 1, &receipt), -PUSHROD_E_BAD_MESSAGE);
    assert_non_null(strstr(pushrod_client_error_text(f->client), ": nonsense"));
    assert_int_equal(receipt.error, -PUSHROD_E_CLOSED);
    assert_int_equal(atomic_load(&f->server.connections), 1);
}

/* ---------------------------------------------------------------------------------- questions */

/* A server that is stopped, and one that is gone, answer nothing: the bound holds for both. */
static void a_question_ends_when_its_time_is_over(void **state)
{
    struct fixture *f = *state;
    struct pushrod_task_info info;
    assert_int_equal(pushrod_client_connect(f->client), 0);
    assert_int_equal(pushrod_client_set(f->client, "answer-timeout", "20"), 0);
    pthread_mutex_lock(&f->server.gate);
    assert_int_equal(pushrod_client_status(f->client, 9, &info), -PUSHROD_E_TIMED_OUT);
    assert_non_null(strstr(pushrod_client_error_text(f->client), "has not answered for 20 ms"));
    pthread_mutex_unlock(&f->server.gate);
    /* The late answer is nobody's, and the next one is that of its question. */
    assert_int_equal(pushrod_client_set(f->client, "answer-timeout", "0"), 0);
    assert_int_equal(pushrod_client_status(f->client, 10, &info), 0);
    assert_int_equal(info.id, 10);
    fake_stop(&f->server);
    assert_int_equal(pushrod_client_set(f->client, "answer-timeout", "20"), 0);
    assert_int_equal(pushrod_client_status(f->client, 9, &info), -PUSHROD_E_TIMED_OUT);
    assert_int_equal(pushrod_client_ping(f->client, NULL), -PUSHROD_E_TIMED_OUT);
    fake_start(&f->server);
}

/* What is submitted, too, and nobody knows then whether it is accepted. */
static void a_submission_ends_when_its_time_is_over(void **state)
{
    struct fixture *f = *state;
    struct pushrod_submission s = {.queue = "echo"};
    struct pushrod_receipt receipt;
    struct pushrod_finish finish;
    uint64_t id;
    assert_int_equal(pushrod_client_connect(f->client), 0);
    pthread_mutex_lock(&f->server.gate);
    assert_int_equal(
        pushrod_client_call(f->client, "echo", NULL, 0, NULL, 20, &finish), -PUSHROD_E_TIMED_OUT);
    assert_int_equal(finish.id, 0);
    assert_non_null(strstr(pushrod_client_error_text(f->client), "has not said in time"));
    assert_int_equal(pushrod_client_set(f->client, "answer-timeout", "20"), 0);
    assert_int_equal(pushrod_client_submit(f->client, &s, &id), -PUSHROD_E_TIMED_OUT);
    assert_int_equal(pushrod_client_submit_many(f->client, &s, 1, &receipt), -PUSHROD_E_TIMED_OUT);
    assert_int_equal(receipt.error, -PUSHROD_E_CLOSED);
    assert_int_equal(pushrod_client_unanswered(f->client), 0);
    pthread_mutex_unlock(&f->server.gate);
    /* The late answers are nobody's. */
    assert_int_equal(pushrod_client_set(f->client, "answer-timeout", "0"), 0);
    assert_int_equal(pushrod_client_submit(f->client, &s, &id), 0);
    assert_int_equal(id, 4);
    assert_int_equal(pushrod_client_unfinished(f->client), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_followed_meanwhile_is_asked_for, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_submitted_meanwhile_is_sent, setup, teardown),
        cmocka_unit_test_setup_teardown(
            the_reason_of_a_loss_outlives_what_is_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(a_question_ends_when_its_time_is_over, setup, teardown),
        cmocka_unit_test_setup_teardown(a_submission_ends_when_its_time_is_over, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
