/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/hist.h"

#include <string.h>

/* Values below 2 * HIST_SUB have a cell each; above, the top HIST_SUB_BITS + 1 bits choose it. */
static unsigned cell_of(uint64_t ns)
{
    if (ns < HIST_SUB)
        return (unsigned)ns;
    unsigned top = 63u - (unsigned)__builtin_clzll(ns);
    unsigned shift = top - HIST_SUB_BITS;
    return (shift + 1u) * HIST_SUB + (unsigned)((ns >> shift) & (HIST_SUB - 1u));
}

/* The smallest value of a cell. */
static uint64_t cell_floor(unsigned cell)
{
    if (cell < HIST_SUB)
        return cell;
    unsigned shift = cell / HIST_SUB - 1u;
    return (uint64_t)(HIST_SUB + cell % HIST_SUB) << shift;
}

static uint64_t cell_middle(unsigned cell)
{
    unsigned shift = cell < HIST_SUB ? 0 : cell / HIST_SUB - 1u;
    return cell_floor(cell) + ((UINT64_C(1) << shift) >> 1);
}

void hist_init(struct hist *h)
{
    memset(h, 0, sizeof *h);
    h->min = UINT64_MAX;
}

void hist_add(struct hist *h, uint64_t ns)
{
    h->count++;
    h->sum += ns;
    if (ns < h->min)
        h->min = ns;
    if (ns > h->max)
        h->max = ns;
    h->cells[cell_of(ns)]++;
}

uint64_t hist_quantile(const struct hist *h, double q)
{
    if (h->count == 0)
        return 0;
    uint64_t rank = (uint64_t)(q * (double)h->count);
    if (rank >= h->count)
        return h->max;
    uint64_t seen = 0;
    for (unsigned cell = 0; cell < HIST_CELLS; cell++) {
        seen += h->cells[cell];
        if (seen > rank) {
            uint64_t value = cell_middle(cell);
            return value > h->max ? h->max : value < h->min ? h->min : value;
        }
    }
    return h->max;
}

double hist_mean(const struct hist *h)
{
    return h->count ? (double)h->sum / (double)h->count : 0;
}
