/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signals of the embedding program (a profiler's, a timer's) that arrive while the plane is in
 * libzmq, which then fails with EINTR although it was not to wait. Here each of the plane's calls
 * that can be interrupted is, once, before it is done.
 */
#define _GNU_SOURCE /* RTLD_NEXT */
#include "tests/unit/unit.h"

#include <pthread.h>
#include <zmq.h>

#include "tests/lib/plane_rig.h"
#include "tests/unit/interrupts.h"

static struct rig rig;
static struct fake fake;
static pthread_t self;
static bool storm;
static unsigned interrupts;
static unsigned ended; /* contexts */

/* Not the fake worker's, whose calls are on this thread too. */
static bool interrupted(const void *of)
{
    if (!storm || !pthread_equal(self, pthread_self()) || of == fake.dealer || of == fake.lane ||
        of == fake.answers || of == fake.context)
        return false;
    bool now = interrupt();
    interrupts += now;
    return now;
}

int zmq_getsockopt(void *socket, int option, void *value, size_t *size)
{
    if (option == ZMQ_EVENTS && interrupted(socket))
        return -1;
    return REAL(zmq_getsockopt)(socket, option, value, size);
}

static bool within(const char *endpoint)
{
    return strncmp(endpoint, "inproc:", 7) == 0;
}

/* Within the process it may be zmq_socket_monitor() that calls. */
int zmq_bind(void *socket, const char *endpoint)
{
    return !within(endpoint) && interrupted(socket) ? -1 : REAL(zmq_bind)(socket, endpoint);
}

/* To a port it is the fake worker that calls. */
int zmq_connect(void *socket, const char *endpoint)
{
    return within(endpoint) && interrupted(socket) ? -1 : REAL(zmq_connect)(socket, endpoint);
}

int zmq_socket_monitor(void *socket, const char *endpoint, int events)
{
    return endpoint && interrupted(socket) ? -1
                                           : REAL(zmq_socket_monitor)(socket, endpoint, events);
}

int zmq_ctx_term(void *context)
{
    if (interrupted(context))
        return -1;
    ended++;
    return REAL(zmq_ctx_term)(context);
}

static void signals_interrupt_nothing(void **state)
{
    (void)state;
    uint8_t large[20000] = {0};
    struct body *body = body_copy(large, sizeof large);
    assert_non_null(body);
    self = pthread_self();
    storm = true;
    plane_rig_start(&rig, NULL);
    fake_start(&fake, &rig);
    fake_up(&fake, 7, 70);
    struct task small = plane_rig_task_of(1, slice_str("small"), NULL);
    struct task big = plane_rig_task_of(2, body_slice(body), body);
    plane_rig_task(&rig, 7, &small);
    plane_rig_task(&rig, 7, &big);
    plane_flush(rig.plane);
    RIG_UNTIL(&rig, (fake_read_lane(&fake), fake.tasks == 2));
    for (unsigned i = 0; i < 300; i++)
        fake_done(&fake, 1 + i, 1, slice_str("result"));
    RIG_UNTIL(&rig, rig.answers == 300);
    assert_false(rig.out_of_order);
    assert_int_equal(rig.lost, 0);
    assert_int_equal(rig.cuts, 0);
    assert_int_equal(plane_stats(rig.plane)->garbage, 0);
    assert_true(interrupts > 300);
    plane_rig_close(&rig, 7, 0);
    plane_rig_stop(&rig);
    assert_int_equal(ended, 1);
    storm = false;
    fake_stop(&fake);
    body_unref(body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(signals_interrupt_nothing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
