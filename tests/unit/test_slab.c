/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <string.h>
#include "common/slab.h"

#define BLOCKS 20000
#define SIZES  4

static const size_t sizes[SIZES] = {112, 448, 1024, SLAB_MOST};

/* What a block holds tells whose it is: of two that overlap one would be wrong. */
static void mark(uint8_t *block, size_t size, uint64_t number)
{
    memcpy(block, &number, sizeof number);
    memcpy(block + size - sizeof number, &number, sizeof number);
}

static void check(const uint8_t *block, size_t size, uint64_t number)
{
    assert_memory_equal(block, &number, sizeof number);
    assert_memory_equal(block + size - sizeof number, &number, sizeof number);
}

static void init(struct slab_memory *m, struct slab_cache caches[SIZES])
{
    slab_memory_init(m);
    for (size_t i = 0; i < SIZES; i++)
        slab_cache_init(&caches[i], m, sizes[i]);
}

/* Taken and given back in any order, blocks of several sizes keep what was written into them. */
static void blocks_do_not_overlap(void **state)
{
    (void)state;
    uint64_t seed = random_seed();
    struct slab_memory m;
    struct slab_cache caches[SIZES];
    uint8_t *blocks[BLOCKS / 10] = {0};
    size_t count = sizeof blocks / sizeof *blocks, of[BLOCKS / 10] = {0};
    init(&m, caches);
    for (unsigned step = 0; step < 200000; step++) {
        size_t i = random_next(&seed) % count;
        if (blocks[i]) {
            check(blocks[i], sizes[of[i]], i);
            slab_give(&caches[of[i]], blocks[i]);
            blocks[i] = NULL;
            continue;
        }
        of[i] = random_next(&seed) % SIZES;
        blocks[i] = slab_take(&caches[of[i]]);
        assert_non_null(blocks[i]);
        size_t alignment = sizes[of[i]] & -sizes[of[i]];
        assert_int_equal((uintptr_t)blocks[i] % (alignment < 64 ? alignment : 64), 0);
        mark(blocks[i], sizes[of[i]], i);
    }
    for (size_t i = 0; i < count; i++)
        if (blocks[i])
            slab_give(&caches[of[i]], blocks[i]);
    for (size_t i = 0; i < SIZES; i++)
        assert_int_equal(caches[i].live, 0);
    slab_memory_free(&m);
}

/* Of a burst nothing stays, whichever end first; but for a region that the next one begins with. */
static void memory_of_a_burst_goes_back(void **state)
{
    (void)state;
    struct slab_memory m;
    struct slab_cache caches[SIZES];
    static void *blocks[BLOCKS];
    init(&m, caches);
    for (int turn = 0; turn < 3; turn++) {
        for (size_t i = 0; i < BLOCKS; i++)
            assert_non_null(blocks[i] = slab_take(&caches[1]));
        assert_true(m.regions >= BLOCKS * sizes[1] >> 21);
        for (size_t i = 0; i < BLOCKS; i++)
            slab_give(&caches[1], blocks[turn == 1   ? BLOCKS - 1 - i
                                         : turn == 2 ? i * 7 % BLOCKS
                                                     : i]);
        assert_in_range(m.regions, 1, 2);
    }
    slab_memory_free(&m);
}

/* A window that moves on stays where it is: it does not wander through ever more memory. */
static void a_window_stays_in_its_memory(void **state)
{
    (void)state;
    struct slab_memory m;
    struct slab_cache caches[SIZES];
    static void *window[BLOCKS];
    init(&m, caches);
    for (size_t i = 0; i < 20 * BLOCKS; i++) {
        if (i >= BLOCKS)
            slab_give(&caches[1], window[i % BLOCKS]);
        assert_non_null(window[i % BLOCKS] = slab_take(&caches[1]));
    }
    assert_in_range(m.regions, 1, (BLOCKS * sizes[1] >> 21) + 2);
    for (size_t i = 0; i < BLOCKS; i++)
        slab_give(&caches[1], window[i]);
    slab_memory_free(&m);
}

/* What some sizes do not need any more serves the others. */
static void an_empty_slab_is_anybodys(void **state)
{
    (void)state;
    struct slab_memory m;
    struct slab_cache caches[SIZES];
    static void *blocks[BLOCKS];
    size_t most = 0;
    init(&m, caches);
    for (size_t k = 0; k < SIZES; k++) {
        size_t count = ((size_t)6 << 20) / sizes[k];
        for (size_t i = 0; i < count && i < BLOCKS; i++)
            assert_non_null(blocks[i] = slab_take(&caches[k]));
        most = m.regions > most ? m.regions : most;
        for (size_t i = 0; i < count && i < BLOCKS; i++)
            slab_give(&caches[k], blocks[i]);
    }
    assert_in_range(most, 1, 5);
    slab_memory_free(&m);
}

/* A region that is empty waits behind all that have a free slab, whenever they got it. */
static void an_empty_region_is_used_last(void **state)
{
    (void)state;
    struct slab_memory m;
    struct slab_cache caches[SIZES];
    struct slab_cache *large = &caches[SIZES - 1];
    static void *blocks[BLOCKS];
    size_t count = 0, given = 0;
    init(&m, caches);
    while (m.regions < 2)
        assert_non_null(blocks[count++] = slab_take(large));
    slab_give(large, blocks[--count]);
    assert_true(m.spare && m.open.next == m.open.prev); /* the first region is full */
    while (m.open.next == m.open.prev)
        slab_give(large, blocks[given++]);
    void *small = slab_take(&caches[0]);
    assert_non_null(small);
    assert_true(m.spare);
    slab_give(&caches[0], small);
    while (given < count)
        slab_give(large, blocks[given++]);
    slab_memory_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_do_not_overlap),
        cmocka_unit_test(memory_of_a_burst_goes_back),
        cmocka_unit_test(a_window_stays_in_its_memory),
        cmocka_unit_test(an_empty_slab_is_anybodys),
        cmocka_unit_test(an_empty_region_is_used_last),
    };
    return cmocka_run_group_tests_name("slab", tests, NULL, NULL);
}
