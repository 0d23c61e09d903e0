/* SPDX-License-Identifier: Apache-2.0 */
/* The client library with more to send than the server takes: the order, and the connection's loss.
 */
#include "tests/unit/unit.h"

#include <pushrod/client.h>
#include <sched.h>
#include "client/lib.h"
#include "tests/unit/fake_server.h"

enum { TASKS = 200, SIZE = 256 << 10, SMALL = 6000, MANY = 2000, LOST_AT = 20, LARGEST = 81 << 20 };

/* Of all tasks at least so much stays with the client, whatever the kernel keeps of a connection.
 */
#define MUCH ((size_t)16 << 20)

struct fixture {
    struct fake_server server;
    struct pushrod_client *client;
    uint8_t payload[SIZE];
    unsigned accepted, unknown, finished, downs;
    size_t last; /* index of the task that finished last */
    bool done[TASKS];
};

/* Each payload says which task it is, at both ends. */
static size_t index_of(const void *data, size_t size)
{
    size_t first;
    size_t last;
    assert_int_equal(size, SIZE);
    memcpy(&first, data, sizeof first);
    memcpy(&last, (const uint8_t *)data + SIZE - sizeof last, sizeof last);
    assert_int_equal(first, last);
    assert_true(first < TASKS);
    return first;
}

static void on_accepted(
    struct pushrod_client *c, uint64_t id, int error, const char *text, void *arg)
{
    struct fixture *f = pushrod_client_data(c);
    (void)id, (void)text, (void)arg;
    assert_true(!error || error == -PUSHROD_E_CLOSED);
    f->accepted += !error;
    f->unknown += error != 0;
}

static void on_finish(struct pushrod_client *c, const struct pushrod_finish *finish, void *arg)
{
    struct fixture *f = pushrod_client_data(c);
    size_t index = index_of(finish->result, finish->result_size);
    (void)arg;
    assert_int_equal(finish->status, PUSHROD_DONE);
    assert_false(f->done[index]);
    assert_true(f->finished == 0 || index > f->last);
    f->done[index] = true;
    f->last = index;
    f->finished++;
}

static void on_connection(struct pushrod_client *c, bool up, const char *text)
{
    struct fixture *f = pushrod_client_data(c);
    (void)text;
    f->downs += !up;
}

static int setup(void **state)
{
    static const struct pushrod_client_events events = {
        .accepted = on_accepted, .finish = on_finish, .connection = on_connection};
    struct fixture *f = calloc(1, sizeof *f);
    f->server.max_payload = SIZE;
    fake_start(&f->server);
    f->client = fake_client(&f->server);
    pushrod_client_set_data(f->client, f);
    pushrod_client_on(f->client, &events);
    assert_int_equal(pushrod_client_connect(f->client), 0);
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

static void wait_for_submits(struct fixture *f, unsigned count)
{
    while (atomic_load(&f->server.submits) < count)
        sched_yield();
}

/* Many frames in a block: those that had left when the connection ended are not sent again. */
static void what_left_whole_is_not_sent_again(void **state)
{
    struct fixture *f = *state;
    static const uint8_t payload[SMALL];
    struct pushrod_submission task = {.queue = "never", .data = payload, .size = SMALL};
    int bytes = 64 << 10;
    assert_int_equal(setsockopt(f->client->fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes), 0);
    pthread_mutex_lock(&f->server.gate);
    for (size_t i = 0; i < MANY; i++) {
        pushrod_client_submit_async(f->client, &task);
        pushrod_client_flush(f->client); /* a frame for each */
    }
    pthread_mutex_unlock(&f->server.gate);
    /* A frame is a little larger than its payload: these have left whole, and the next ones do. */
    wait_for_submits(f, (unsigned)(MANY - stream_waiting(f->client) / SMALL - 1));
    pthread_mutex_lock(&f->server.gate);
    pushrod_client_flush(f->client);
    size_t waiting = stream_waiting(f->client);
    pthread_mutex_unlock(&f->server.gate);
    wait_for_submits(f, (unsigned)(MANY - waiting / SMALL - 1));
    assert_true(waiting > (size_t)CLIENT_FRAME);
    shutdown(f->client->fd, SHUT_RDWR);
    while (f->accepted + f->unknown < MANY)
        assert_int_equal(pushrod_client_process(f->client, -1), 0);
    assert_int_equal(f->downs, 1);
    assert_in_range(atomic_load(&f->server.submits), MANY - 1, MANY);
}

/* All tasks at once, while the server reads nothing; the one at `hang_up` ends the connection. */
static void submit_all(struct fixture *f, size_t hang_up)
{
    unsigned taken = 0;
    pthread_mutex_lock(&f->server.gate);
    for (size_t i = 0; i < TASKS; i++) {
        struct pushrod_submission task = {.queue = i == hang_up ? "hang-up" : "echo",
            .data = f->payload,
            .size = SIZE,
            .follow = PUSHROD_FOLLOW_FINISH};
        memcpy(f->payload, &i, sizeof i);
        memcpy(f->payload + SIZE - sizeof i, &i, sizeof i);
        taken += pushrod_client_submit_async(f->client, &task) == 0;
    }
    size_t waiting = stream_waiting(f->client);
    pthread_mutex_unlock(&f->server.gate);
    assert_int_equal(taken, TASKS);
    assert_true(waiting > MUCH);
}

static void all_that_waits_leaves_in_order(void **state)
{
    struct fixture *f = *state;
    submit_all(f, TASKS);
    while (f->finished < TASKS)
        assert_int_equal(pushrod_client_process(f->client, -1), 0);
    assert_int_equal(stream_waiting(f->client), 0);
    assert_int_equal(f->accepted, TASKS);
    assert_int_equal(f->downs, 0);
}

/* What the server may have seen is unknown; all that had not left whole goes over the next one. */
static void what_was_not_written_goes_over_the_next_connection(void **state)
{
    struct fixture *f = *state;
    submit_all(f, LOST_AT);
    while (f->finished < f->accepted || f->accepted + f->unknown < TASKS)
        assert_int_equal(pushrod_client_process(f->client, -1), 0);
    assert_int_equal(f->downs, 1);
    assert_int_equal(atomic_load(&f->server.connections), 2);
    /* Answers that were on their way when it ended may be lost, too. */
    size_t gap = 0;
    while (f->done[gap])
        gap++;
    assert_true(gap <= LOST_AT && LOST_AT < gap + f->unknown);
    assert_true(TASKS - gap - f->unknown > MUCH / SIZE);
    for (size_t i = gap; i < TASKS; i++)
        assert_int_equal(f->done[i], i >= gap + f->unknown);
    assert_int_equal(atomic_load(&f->server.submits), LOST_AT + 1 + TASKS - gap - f->unknown);
}

/* What is small and what is as large as may be, with much beside their payloads. */
static void no_frame_is_larger_than_the_server_takes(void **state)
{
    struct fixture *f = *state;
    char value[5000];
    memset(value, 'x', sizeof value - 1);
    value[sizeof value - 1] = '\0';
    struct pushrod_header header = {"x", value};
    struct pushrod_options options = {.headers = &header, .header_count = 1};
    struct pushrod_submission task = {
        .queue = "never", .data = f->payload, .size = 60000, .options = &options};
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(pushrod_client_submit_async(f->client, &task), 0);
        task.size = SIZE;
    }
    while (f->accepted < 2)
        assert_int_equal(pushrod_client_process(f->client, -1), 0);
    assert_int_equal(f->downs, 0);
}

/* The same before a server has said what it takes, and in the order of the submissions. */
static void nor_is_one_from_before_the_connection(void **state)
{
    struct fixture *f = *state;
    static const size_t sizes[] = {60000, 1, 900, 64000, 900, 900, SIZE, 1};
    struct pushrod_client *c = pushrod_client_new();
    assert_int_equal(pushrod_client_set(c, "server", f->server.address), 0);
    pushrod_client_set_data(c, f);
    pushrod_client_on(c, &(struct pushrod_client_events){.accepted = on_accepted});
    pushrod_client_free(f->client);
    f->client = c;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct pushrod_submission task = {.queue = "never", .data = f->payload, .size = sizes[i]};
        assert_int_equal(pushrod_client_submit_async(c, &task), 0);
        assert_true(c->open_frame == SIZE_MAX || c->out.size - c->open_frame <= CLIENT_FRAME);
    }
    while (f->accepted < sizeof sizes / sizeof sizes[0])
        assert_int_equal(pushrod_client_process(c, -1), 0);
}

/* A server may allow payloads and results of up to a GiB: one at a time goes, however large. */
static void what_is_huge_goes_alone(void **state)
{
    struct fixture *f = *state;
    struct pushrod_client *c = pushrod_client_new();
    struct pushrod_finish finish;
    uint8_t *payload = calloc(1, LARGEST);
    f->server.max_payload = LARGEST;
    assert_int_equal(pushrod_client_set(c, "server", f->server.address), 0);
    pushrod_client_free(f->client); /* the server has one connection at a time */
    f->client = c;
    payload[LARGEST - 1] = 'x';
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pushrod_client_call(c, "echo", payload, LARGEST, NULL, -1, &finish), 0);
        assert_int_equal(finish.result_size, LARGEST);
        assert_memory_equal(finish.result, payload, LARGEST);
    }
    free(payload);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(all_that_waits_leaves_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(
            what_was_not_written_goes_over_the_next_connection, setup, teardown),
        cmocka_unit_test_setup_teardown(what_left_whole_is_not_sent_again, setup, teardown),
        cmocka_unit_test_setup_teardown(no_frame_is_larger_than_the_server_takes, setup, teardown),
        cmocka_unit_test_setup_teardown(nor_is_one_from_before_the_connection, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_huge_goes_alone, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
