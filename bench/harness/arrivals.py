# SPDX-License-Identifier: Apache-2.0
"""The arrivals of bench/load.c's open loop, drawn again from the same seed; and how long they would wait where
handing over costs nothing. The bound of the head-of-line figures, which needs no run."""
import heapq
import math

BITS = (1 << 64) - 1


def arrivals(seed, rate, seconds, long_share):
    """(seconds since the first one, whether it is long) of each task that arrives before `seconds`."""
    state = (seed * 0x9e3779b97f4a7c15 + 1) & BITS

    def unit():  # xorshift64*
        nonlocal state
        state ^= state >> 12
        state ^= state << 25 & BITS
        state ^= state >> 27
        return (((state * 2685821657736338717 & BITS) >> 11) + 0.5) / 9007199254740992.0

    at, is_long = 0.0, long_share > 0 and unit() < long_share
    while at < seconds:
        yield at, is_long
        at += -math.log(unit()) / rate
        is_long = long_share > 0 and unit() < long_share


def wait_in_one_queue(tasks, workers, work):
    """The wait of each: the first in the queue goes to the first worker that is free."""
    free = [0.0] * workers
    for at, is_long in tasks:
        begin = max(at, heapq.heappop(free))
        heapq.heappush(free, begin + work(is_long))
        yield begin - at


def wait_in_turn(tasks, workers, work):
    """The wait of each where every worker has a queue of its own, and they are filled in turn."""
    free = [0.0] * workers
    for number, (at, is_long) in enumerate(tasks):
        begin = max(at, free[number % workers])
        free[number % workers] = begin + work(is_long)
        yield begin - at


def summary(waits):
    """What load programs say of latencies, in us."""
    waits = sorted(waits)
    at = lambda share: round(waits[min(len(waits) - 1, int(share * len(waits)))] * 1e6, 2)
    return {"count": len(waits), "mean": round(sum(waits) / len(waits) * 1e6, 2), "p50": at(0.5), "p90": at(0.9),
            "p99": at(0.99), "p999": at(0.999), "max": at(1)} if waits else {"count": 0}
