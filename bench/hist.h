/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hist: a log-linear histogram of durations, as HdrHistogram keeps them.
 *
 * Values are nanoseconds from 0 to 2^63; each power of two is cut into HIST_SUB equal cells, so a
 * value is known to 1/64 of itself (1.6 %), whatever its size, in 30 KiB. It knows nothing of
 * clocks.
 */
#ifndef BENCH_HIST_H
#define BENCH_HIST_H

#include <stdint.h>

#define HIST_SUB_BITS 6u
#define HIST_SUB      (1u << HIST_SUB_BITS)
#define HIST_CELLS    ((64u - HIST_SUB_BITS + 1u) * HIST_SUB)

struct hist {
    uint64_t count;
    uint64_t sum; /* ns */
    uint64_t min; /* exact; UINT64_MAX while empty */
    uint64_t max; /* exact */
    uint64_t cells[HIST_CELLS];
};

void hist_init(struct hist *h);
void hist_add(struct hist *h, uint64_t ns);

/* The value below or at which a share q (0 to 1) of all lies: the middle of its cell. 0 if empty.
 */
uint64_t hist_quantile(const struct hist *h, double q);
double hist_mean(const struct hist *h);

#endif
