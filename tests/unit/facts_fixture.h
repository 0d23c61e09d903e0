/* SPDX-License-Identifier: Apache-2.0 */
/* A plane, one fake worker, and plain TCP connections to both: what the tests of libzmq's facts
 * share. */
#ifndef TESTS_FACTS_FIXTURE_H
#define TESTS_FACTS_FIXTURE_H

#include "tests/unit/unit.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zmq.h>

#include "tests/lib/plane_rig.h"

static uint16_t first_port; /* of the ranges in this file: three that are free */

static struct rig rig;
static struct fake fake;

static inline void begin(void (*change)(struct plane_config *))
{
    plane_rig_start(&rig, change);
    fake_start(&fake, &rig);
}

static inline void end(void)
{
    fake_stop(&fake);
    plane_rig_stop(&rig);
}

/* Joins and is welcomed; connects to nothing yet. */
static inline void welcome(struct fake *who, uint64_t worker, uint64_t session)
{
    size_t joins = rig.joins;
    fake_join(who);
    RIG_UNTIL(&rig, rig.joins > joins);
    assert_int_equal(plane_rig_welcome(&rig, worker, session), 0);
    RIG_UNTIL(&rig, fake_is_welcome(who));
}

static inline int tcp_connect(uint64_t port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

/* -1: it is taken. */
static inline int tcp_try_listen(uint16_t port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) == 0 && listen(fd, 1) == 0)
        return fd;
    close(fd);
    return -1;
}

static inline int tcp_listen(uint16_t port)
{
    int fd = tcp_try_listen(port);
    assert_true(fd >= 0);
    return fd;
}

static inline bool range_free(uint16_t first, uint16_t count)
{
    int fd = count ? tcp_try_listen(first) : -1;
    bool rest = fd >= 0 && (count == 1 || range_free((uint16_t)(first + 1), (uint16_t)(count - 1)));
    if (fd >= 0)
        close(fd);
    return rest;
}

/* Below what the kernel hands out by itself; another run of this test has another process id. */
static inline int ports_find(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 1000; i++) {
        first_port = (uint16_t)(24000 + ((unsigned)getpid() + i) % 2000 * 4);
        if (range_free(first_port, 3))
            return 0;
    }
    return -1;
}

static inline void scan(uint64_t port, unsigned times)
{
    for (unsigned i = 0; i < times; i++) {
        close(tcp_connect(port));
        plane_rig_turn(&rig);
    }
}

static inline uint64_t strangers(void)
{
    return plane_stats(rig.plane)->strangers;
}

/* The lane still works: what is put arrives. */
static inline void expect_lane_works(struct fake *who, uint64_t worker, uint64_t sequence)
{
    plane_rig_ack(&rig, worker, sequence);
    plane_flush(rig.plane);
    RIG_UNTIL(&rig, (fake_read_lane(who), who->last_ack == sequence));
    assert_int_equal(rig.lost, 0);
}

#endif
