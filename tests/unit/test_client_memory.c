/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client library without memory: the Nth allocation fails. What was refused is not sent, what
 * was accepted is; and the connection goes on, with nothing on it that the server cannot read.
 */
#include "tests/unit/unit.h"

#include <pushrod/client.h>
#include "client/lib.h"
#include "tests/unit/bad_memory.h"
#include "tests/unit/fake_server.h"

#define SIZE  900u /* bytes: larger than the first allocation of the buffer for what is sent */
#define LOOKS 20u  /* of a second, where nothing takes as long */

static unsigned losses, finishes, answers;

static void on_connection(struct pushrod_client *c, bool up, const char *text)
{
    (void)c, (void)text;
    losses += !up;
}

static void on_finish(struct pushrod_client *c, const struct pushrod_finish *finish, void *arg)
{
    (void)c, (void)arg;
    finishes += finish->status == PUSHROD_DONE;
}

static void on_accepted(
    struct pushrod_client *c, uint64_t id, int error, const char *text, void *arg)
{
    (void)c, (void)id, (void)error, (void)text, (void)arg;
    answers++;
}

static struct pushrod_client *client_of(const struct fake_server *server)
{
    static const struct pushrod_client_events events = {
        .accepted = on_accepted, .connection = on_connection, .finish = on_finish};
    struct pushrod_client *c = fake_client(server);
    pushrod_client_on(c, &events);
    assert_int_equal(pushrod_client_connect(c), 0);
    return c;
}

/* Two tasks, of which the second may be sent again; gives how many were taken. */
static unsigned submit_two(struct pushrod_client *c)
{
    static const uint8_t payload[SIZE];
    struct pushrod_options options = {.unique_key = "key"};
    struct pushrod_submission s = {
        .queue = "echo", .data = payload, .size = SIZE, .follow = PUSHROD_FOLLOW_FINISH};
    unsigned taken = pushrod_client_submit_async(c, &s) == 0;
    s.options = &options;
    return taken + (pushrod_client_submit_async(c, &s) == 0);
}

static void one_round(struct fake_server *server)
{
    struct pushrod_client *c = client_of(server);
    struct pushrod_finish finish;
    unsigned before = atomic_load(&server->submits);
    losses = finishes = 0;
    armed = true;
    unsigned taken = submit_two(c);
    armed = false;
    assert_true(taken == 2 || failures);
    while (pushrod_client_unanswered(c) || pushrod_client_unfinished(c))
        assert_int_equal(pushrod_client_process(c, -1), 0);
    assert_int_equal(finishes, taken);
    assert_int_equal(pushrod_client_call(c, "echo", "x", 1, NULL, -1, &finish), 0);
    assert_string_equal(finish.result, "x");
    assert_int_equal(finishes, taken); /* call() has its finish for itself */
    assert_int_equal(atomic_load(&server->submits) - before, taken + 1);
    assert_int_equal(losses, 0);
    pushrod_client_free(c);
}

/* The first allocation of a round fails, the second of the next one, and so on until none does. */
static void fail_each(void (*round)(struct fake_server *))
{
    struct fake_server server = {0};
    fake_start(&server);
    for (long n = 0; n == 0 || failures; n++) {
        failures = 0;
        good_left = n;
        round(&server);
    }
    fake_stop(&server);
}

static void what_is_refused_is_not_sent(void **state)
{
    (void)state;
    fail_each(one_round);
}

/* Of a task that was accepted before the connection went, the new one asks again. */
static void cut_round(struct fake_server *server)
{
    struct pushrod_client *c = client_of(server);
    struct pushrod_submission s = {.queue = "cut", .follow = PUSHROD_FOLLOW_FINISH};
    losses = finishes = 0;
    assert_int_equal(pushrod_client_submit_async(c, &s), 0);
    while (losses == 0)
        assert_int_equal(pushrod_client_process(c, -1), 0);
    armed = true;
    while (pushrod_client_unfinished(c))
        assert_int_equal(pushrod_client_process(c, -1), 0);
    armed = false;
    assert_int_equal(finishes, 1);
    pushrod_client_free(c);
}

static void what_is_followed_is_asked_for_again(void **state)
{
    (void)state;
    fail_each(cut_round);
}

/* Who watches is told of nothing on a new connection that does not know of it. */
static void watch_round(struct fake_server *server)
{
    struct pushrod_client *c = client_of(server);
    struct pushrod_submission s = {.queue = "cut"};
    losses = 0;
    assert_int_equal(pushrod_client_watch(c, true), 0);
    assert_int_equal(pushrod_client_submit_async(c, &s), 0);
    while (losses == 0)
        assert_int_equal(pushrod_client_process(c, -1), 0);
    armed = true;
    while (!pushrod_client_connected(c))
        assert_int_equal(pushrod_client_process(c, -1), 0);
    armed = false;
    assert_int_equal(pushrod_client_ping(c, NULL), 0);
    assert_int_equal(atomic_load(&server->watched), atomic_load(&server->connections));
    pushrod_client_free(c);
}

static void what_is_watched_is_asked_for_again(void **state)
{
    (void)state;
    fail_each(watch_round);
}

/* What had not left is kept for the new connection, or told to be lost; and nothing else is sent.
 */
static void unsent_round(struct fake_server *server)
{
    struct pushrod_client *c = client_of(server);
    losses = finishes = answers = 0;
    submit_two(c);
    submit_two(c);
    shutdown(c->fd, SHUT_RDWR);
    armed = true;
    for (unsigned i = 0; i < LOOKS && pushrod_client_unanswered(c); i++)
        assert_int_equal(pushrod_client_process(c, 1000), 0);
    armed = false;
    assert_int_equal(answers, 4);
    assert_int_equal(pushrod_client_ping(c, NULL), 0);
    pushrod_client_free(c);
}

static void what_was_not_written_is_not_forgotten(void **state)
{
    (void)state;
    fail_each(unsent_round);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_refused_is_not_sent),
        cmocka_unit_test(what_is_followed_is_asked_for_again),
        cmocka_unit_test(what_is_watched_is_asked_for_again),
        cmocka_unit_test(what_was_not_written_is_not_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
