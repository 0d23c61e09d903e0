/* SPDX-License-Identifier: Apache-2.0 */
/* The event loop: its rounds, and what wakes the one who waits at its descriptor. */
#include <poll.h>
#include <string.h>
#include "server/net/loop.h"
#include "tests/unit/unit.h"

#define LIMIT_MS 20000

static struct loop *loop;
static struct loop_timer timer;
static struct deferral deferral;
static unsigned calls;

/* As a foreign loop does. */
static void turn(void)
{
    struct pollfd own = {loop_fd(loop), POLLIN, 0};
    assert_true(own.fd >= 0);
    assert_int_equal(poll(&own, 1, LIMIT_MS), 1);
    loop_turn(loop, false);
}

static int loop_begin(void **state)
{
    (void)state;
    calls = 0;
    timer = (struct loop_timer){0};
    loop = loop_new();
    return loop ? 0 : -1;
}

static int loop_end(void **state)
{
    (void)state;
    loop_free(loop);
    return 0;
}

static void call(void *arg)
{
    (void)arg;
    calls++;
}

static void call_again(void *arg)
{
    (void)arg;
    if (++calls < 1000)
        loop_timer_set(loop, &timer, 0);
}

/* Whoever is due again at once lets the others have their turn. */
static void a_timer_of_no_delay_is_called_once_a_round(void **state)
{
    (void)state;
    timer.fn = call_again;
    assert_true(loop_timer_set(loop, &timer, 0));
    loop_turn(loop, false);
    while (calls == 0)
        turn();
    assert_int_equal(calls, 1);
    turn();
    assert_int_equal(calls, 2);
    loop_timer_clear(loop, &timer);
}

static void a_timer_and_a_post_wake_the_descriptor(void **state)
{
    (void)state;
    timer.fn = call;
    assert_true(loop_timer_set(loop, &timer, clock_now().mono_ns + 1000000));
    loop_turn(loop, false);
    while (calls == 0)
        turn();
    struct post post = {.fn = call};
    loop_post(loop, &post);
    while (calls == 1)
        turn();
}

static void call_deferred(void *arg)
{
    (void)arg;
    if (++calls < 5)
        loop_defer(loop, &deferral);
}

static void what_defers_itself_wakes_the_descriptor(void **state)
{
    (void)state;
    deferral_init(&deferral, call_deferred, NULL);
    loop_defer(loop, &deferral);
    loop_turn(loop, false);
    while (calls < 5)
        turn();
}

/* However much of it there is: the others have their turn in between. */
static void what_is_postponed_goes_one_by_one(void **state)
{
    struct deferral two[2];
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        deferral_init(&two[i], call, NULL);
        loop_postpone(loop, &two[i]);
        loop_postpone(loop, &two[i]);
    }
    loop_turn(loop, false);
    assert_int_equal(calls, 1);
    turn();
    assert_int_equal(calls, 2);
    loop_postpone(loop, &two[0]);
    loop_undefer(&two[0]);
    loop_turn(loop, false);
    assert_int_equal(calls, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            a_timer_of_no_delay_is_called_once_a_round, loop_begin, loop_end),
        cmocka_unit_test_setup_teardown(
            a_timer_and_a_post_wake_the_descriptor, loop_begin, loop_end),
        cmocka_unit_test_setup_teardown(
            what_defers_itself_wakes_the_descriptor, loop_begin, loop_end),
        cmocka_unit_test_setup_teardown(what_is_postponed_goes_one_by_one, loop_begin, loop_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
