/* SPDX-License-Identifier: Apache-2.0 */
/* What a client asks of a server, and makes of its answers. */
#include "tests/unit/unit.h"

#include <pushrod/client.h>
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

#define REQUEST_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        REQUEST_TEST(dead_tasks_come_up_to_the_limit),
        REQUEST_TEST(a_task_that_has_ended_is_not_cancelled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
