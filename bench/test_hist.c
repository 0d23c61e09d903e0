/* SPDX-License-Identifier: Apache-2.0 */
/* Checks the histogram against sorted values: quantiles within 1.6 %, minimum and maximum exact. */
#include <stdio.h>
#include <stdlib.h>
#include "bench/hist.h"

enum { COUNT = 100000 };

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static int failures;

static void check(int good, const char *what, double at)
{
    if (!good) {
        printf("not so: %s (%g)\n", what, at);
        failures++;
    }
}

/* Values over the whole range: a random number of bits, then random bits. */
static uint64_t random_value(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (*state >> 1) >> (*state >> 32) % 60;
}

int main(void)
{
    static uint64_t values[COUNT];
    static struct hist h;
    uint64_t state = 1;
    hist_init(&h);
    check(hist_quantile(&h, 0.5) == 0 && hist_mean(&h) == 0, "an empty one gives 0", 0);
    for (int i = 0; i < COUNT; i++)
        hist_add(&h, values[i] = random_value(&state));
    qsort(values, COUNT, sizeof *values, by_value);
    for (double q = 0; q < 1; q += 0.0007) {
        double exact = (double)values[(int)(q * COUNT)], told = (double)hist_quantile(&h, q);
        check(told >= exact * (1 - 1.0 / 64) - 1 && told <= exact * (1 + 1.0 / 64) + 1, "quantile",
            q);
    }
    check(h.min == values[0] && h.max == values[COUNT - 1], "minimum and maximum", 0);
    check(hist_quantile(&h, 1) == h.max && h.count == COUNT, "the last one", 1);
    for (uint64_t v = 1; v < UINT64_C(1) << 62; v += v / 7 + 1) { /* one value is told as itself */
        hist_init(&h);
        hist_add(&h, v);
        check(hist_quantile(&h, 0.5) == v, "one value", (double)v);
    }
    printf("%s\n", failures ? "failed" : "ok");
    return failures != 0;
}
