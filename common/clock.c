/* SPDX-License-Identifier: Apache-2.0 */
#include "common/clock.h"

#include <limits.h>

#define NS_PER_SECOND UINT64_C(1000000000)

static uint64_t clock_ns(const struct timespec *t)
{
    return (uint64_t)t->tv_sec * NS_PER_SECOND + (uint64_t)t->tv_nsec;
}

uint64_t clock_mono_ns(void)
{
    struct timespec mono;
    clock_gettime(CLOCK_MONOTONIC, &mono);
    return clock_ns(&mono);
}

uint64_t clock_after_ms(uint64_t from_ns, uint64_t ms)
{
    uint64_t ns, at;
    if (__builtin_mul_overflow(ms, NS_PER_MS, &ns) || __builtin_add_overflow(from_ns, ns, &at))
        return UINT64_MAX;
    return at;
}

int clock_wait_ms(uint64_t now_ns, uint64_t until_ns)
{
    if (until_ns == UINT64_MAX)
        return -1;
    uint64_t left_ns = until_ns > now_ns ? until_ns - now_ns : 0;
    uint64_t ms = left_ns / NS_PER_MS + (left_ns % NS_PER_MS != 0);
    return ms < INT_MAX ? (int)ms : INT_MAX;
}

struct now clock_now(void)
{
    struct timespec mono, wall;
    clock_gettime(CLOCK_MONOTONIC, &mono);
    clock_gettime(CLOCK_REALTIME, &wall);
    return (struct now){
        .mono_ns = clock_ns(&mono),
        .wall_ms = (uint64_t)wall.tv_sec * 1000u + (uint64_t)wall.tv_nsec / 1000000u,
    };
}

struct timespec clock_timespec(uint64_t ns)
{
    return (struct timespec){(time_t)(ns / NS_PER_SECOND), (long)(ns % NS_PER_SECOND)};
}

int clock_seconds(uint64_t ms)
{
    return ms > 1000 ? (int)((ms + 999) / 1000) : 1;
}
