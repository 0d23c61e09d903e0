/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <string.h>

#include "common/idindex.h"
#include "common/list.h"
#include "common/map.h"

#define KEYS 500

static void idmap_check(const struct idmap *m, const uint64_t *model, uint64_t base)
{
    size_t count = 0, seen = 0, place = 0;
    for (uint64_t i = 0; i < KEYS; i++) {
        uint64_t value = 0;
        assert_int_equal(idmap_get(m, base + i, &value), model[i] != 0);
        assert_int_equal(value, model[i]);
        count += model[i] != 0;
    }
    assert_int_equal(m->count, count);
    struct idmap_cell cell;
    while (idmap_next(m, &place, &cell)) {
        assert_int_equal(model[cell.key - base], cell.value);
        seen++;
    }
    assert_int_equal(seen, count);
}

/* Random puts and removals agree with an array; keys are neighbours, as ids are. */
static void idmap_agrees_with_model(void **state)
{
    (void)state;
    uint64_t seed = random_seed(), base = random_next(&seed) >> 20 | 1;
    uint64_t model[KEYS] = {0};
    struct idmap m = {0};
    for (unsigned step = 0; step < 20000; step++) {
        uint64_t r = random_next(&seed), i = r % KEYS;
        if (r >> 40 & 1) {
            model[i] = r | 1;
            assert_true(idmap_put(&m, base + i, r | 1));
        } else {
            assert_int_equal(idmap_remove(&m, base + i), model[i] != 0);
            model[i] = 0;
        }
        if (step % 50 == 0)
            idmap_check(&m, model, base);
    }
    idmap_check(&m, model, base);
    idmap_free(&m);
}

/* A long run of old ids must not make the lookups of others walk over it. */
static void idmap_has_no_long_runs(void **state)
{
    (void)state;
    struct idmap m = {0};
    for (uint64_t i = 1; i <= 10000; i++) {
        assert_true(idmap_put(&m, i, i));
        assert_true(idmap_put(&m, (UINT64_C(1) << 20) + i, i));
    }
    size_t run = 0, longest = 0;
    for (size_t i = 0; i <= m.mask; i++) {
        run = m.cells[i].key ? run + 1 : 0;
        longest = run > longest ? run : longest;
    }
    assert_in_range(longest, 1, 400);
    idmap_free(&m);
}

static void idmap_edge_keys(void **state)
{
    (void)state;
    struct idmap m = {0};
    assert_false(idmap_get(&m, 1, NULL));
    assert_false(idmap_remove(&m, 1));
    assert_true(idmap_put(&m, UINT64_MAX, 0));
    assert_true(idmap_put(&m, UINT64_MAX, 5));
    assert_true(idmap_get(&m, UINT64_MAX, NULL));
    assert_false(idmap_get(&m, 0, NULL));
    assert_int_equal(m.count, 1);
    idmap_free(&m);
}

struct named {
    char name[16];
};

static void idindex_check(const struct idindex *x, const uint32_t *model, uint64_t base)
{
    size_t count = 0;
    for (uint64_t i = 0; i < KEYS; i++) {
        uint64_t id = base + i;
        const uint32_t *four = idindex_four(x, id - id % 4);
        assert_int_equal(idindex_get(x, id), model[i]);
        assert_int_equal(four ? four[id % 4] : 0, model[i]);
        count += model[i] != 0;
    }
    assert_int_equal(x->count, count);
}

/* The same, where pages come and go as well. */
static void idindex_agrees_with_model(void **state)
{
    (void)state;
    uint64_t seed = random_seed(), base = random_next(&seed) >> 20 | 1;
    uint32_t model[KEYS] = {0};
    struct idindex x = {0};
    for (unsigned step = 0; step < 20000; step++) {
        uint64_t r = random_next(&seed), i = r % KEYS;
        bool fewer = step / 2000 % 2; /* in turns most of them go, whole pages too */
        if ((r >> 40 & 7) < (fewer ? 1 : 5)) {
            model[i] = (uint32_t)(r >> 32) | 1;
            assert_true(idindex_put(&x, base + i, model[i]));
        } else {
            idindex_remove(&x, base + i);
            model[i] = 0;
        }
        if (step % 50 == 0)
            idindex_check(&x, model, base);
    }
    for (uint64_t i = 0; i < KEYS; i++)
        idindex_remove(&x, base + i);
    assert_int_equal(x.count, 0);
    assert_int_equal(x.pages.count, 1); /* empty pages go, but for the last */
    idindex_free(&x);
}

static void idindex_edge_ids(void **state)
{
    (void)state;
    static const uint64_t ids[] = {1, 63, 64, UINT64_C(1) << 32, INT64_MAX, UINT64_MAX};
    struct idindex x = {0};
    assert_int_equal(idindex_get(&x, 1), 0);
    idindex_remove(&x, 1);
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        assert_true(idindex_put(&x, ids[i], (uint32_t)i + 1));
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        assert_int_equal(idindex_get(&x, ids[i]), i + 1);
    assert_int_equal(idindex_get(&x, 0), 0);
    assert_int_equal(idindex_get(&x, 65), 0);
    idindex_free(&x);
}

static void strmap_agrees_with_model(void **state)
{
    (void)state;
    uint64_t seed = random_seed();
    static struct named all[KEYS];
    bool in[KEYS] = {false};
    struct strmap m = {.seed = random_next(&seed)};
    for (unsigned i = 0; i < KEYS; i++)
        snprintf(all[i].name, sizeof all[i].name, "%.*u", (int)(i % 12 + 1), i);
    for (unsigned step = 0; step < 20000; step++) {
        uint64_t r = random_next(&seed), i = r % KEYS;
        struct slice key = slice_str(all[i].name);
        struct named *now = strmap_get(&m, key);
        /* Two of the names may be the same text; then the map knows either. */
        if (now && strcmp(now->name, all[i].name) != 0)
            fail();
        if (r >> 40 & 1) {
            assert_true(strmap_put(&m, key, &all[i]));
            assert_ptr_equal(strmap_get(&m, key), &all[i]);
        } else {
            assert_ptr_equal(strmap_remove(&m, key), now);
            assert_null(strmap_get(&m, key));
        }
    }
    size_t place = 0, count = 0;
    struct strmap_cell cell;
    while (strmap_next(&m, &place, &cell)) {
        struct named *value = cell.value;
        assert_true(slice_equal(cell.key, slice_str(value->name)));
        assert_false(in[value - all]);
        in[value - all] = true;
        count++;
    }
    assert_int_equal(count, m.count);
    strmap_free(&m);
}

static void list_keeps_order(void **state)
{
    (void)state;
    struct list head, nodes[4];
    list_init(&head);
    assert_null(list_first(&head));
    assert_null(list_last(&head));
    for (int i = 0; i < 3; i++) {
        list_init(&nodes[i]);
        list_push_back(&head, &nodes[i]);
    }
    list_init(&nodes[3]);
    list_push_front(&head, &nodes[3]);
    assert_ptr_equal(list_first(&head), &nodes[3]);
    assert_ptr_equal(list_last(&head), &nodes[2]);
    int seen = 0;
    list_foreach(node, next, &head)
    {
        list_remove(node);
        list_remove(node); /* twice is harmless */
        seen++;
    }
    assert_int_equal(seen, 4);
    assert_true(list_empty(&head));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(idmap_agrees_with_model),
        cmocka_unit_test(idmap_has_no_long_runs),
        cmocka_unit_test(idmap_edge_keys),
        cmocka_unit_test(idindex_agrees_with_model),
        cmocka_unit_test(idindex_edge_ids),
        cmocka_unit_test(strmap_agrees_with_model),
        cmocka_unit_test(list_keeps_order),
    };
    return cmocka_run_group_tests_name("map", tests, NULL, NULL);
}
