/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clock: the two clocks. Only loops read them, once for each tick; everybody else is told.
 */
#ifndef COMMON_CLOCK_H
#define COMMON_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NS_PER_MS UINT64_C(1000000)

struct now {
    uint64_t mono_ns; /* CLOCK_MONOTONIC: deadlines, durations */
    uint64_t wall_ms; /* Unix time: ETA, expiry, what people read */
};

struct now clock_now(void);
uint64_t clock_mono_ns(void);
/* `ms` after `from_ns`; UINT64_MAX, which no clock reaches, instead of a sum that wraps. */
uint64_t clock_after_ms(uint64_t from_ns, uint64_t ms);
/* As poll() wants it: ms from `now_ns` on, rounded up, since to wake up late is better than to spin
 * through the last one; -1, without an end: UINT64_MAX. */
int clock_wait_ms(uint64_t now_ns, uint64_t until_ns);
struct timespec clock_timespec(uint64_t ns);
int clock_seconds(uint64_t ms); /* as the kernel's timers want it: rounded up, 1 at the least */

#endif
