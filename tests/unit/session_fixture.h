/* SPDX-License-Identifier: Apache-2.0 */
/* One session for each test, started with two slots, and shorthands for what happens to it. */
#ifndef TESTS_SESSION_FIXTURE_H
#define TESTS_SESSION_FIXTURE_H

#include "tests/lib/session_play.h"

static struct play r;

static inline int start(void **state)
{
    (void)state;
    play_start(&r, (struct session_config){.slots = 2, .seed = 1});
    return 0;
}

static inline int stop(void **state)
{
    (void)state;
    play_stop(&r);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

static inline void restart(struct session_config config)
{
    play_stop(&r);
    play_start(&r, config);
}

static inline void finish(uint64_t first, size_t count, size_t size)
{
    for (uint64_t id = first; id < first + count; id++) {
        play_tasks(&r, id, 1);
        play_begin(&r);
        play_done(&r, id + 1000, size);
        play_end(&r);
    }
}

static inline void ack(uint64_t sequence)
{
    play_begin(&r);
    session_ack(r.session, sequence);
    play_end(&r);
}

/* The lane is gone, and the next JOIN said. */
static inline void lose_server(void)
{
    unsigned joins = r.joins;
    play_begin(&r);
    session_lane_down(r.session);
    play_end(&r);
    assert_true(r.actions->disconnect);
    while (r.joins == joins)
        play_advance(&r, 1);
}

#endif
