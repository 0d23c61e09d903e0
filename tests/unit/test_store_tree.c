/* SPDX-License-Identifier: Apache-2.0 */
/* The ordered set against a plain array of flags. */
#include <string.h>
#include "server/store/tree.h"
#include "tests/unit/unit.h"

#define KEYS 400u

static void same_as_an_array(void **state)
{
    static struct tree_node nodes[KEYS];
    static bool inside[KEYS];
    struct tree tree = {0};
    uint64_t random = random_seed();
    (void)state;
    for (int step = 0; step < 40000; step++) {
        uint64_t key = random_next(&random) % KEYS;
        if (random_next(&random) % 2 && !inside[key])
            tree_insert(&tree, &nodes[key], key / 20, key % 20);
        else if (inside[key])
            tree_remove(&tree, &nodes[key]);
        inside[key] = nodes[key].inside;
        uint64_t from = random_next(&random) % KEYS;
        uint64_t expected = from + 1;
        while (expected < KEYS && !inside[expected])
            expected++;
        struct tree_node *after = tree_after(&tree, from / 20, from % 20);
        assert_ptr_equal(after, expected < KEYS ? &nodes[expected] : NULL);
    }
    size_t count = 0;
    for (struct tree_node *n = tree_first(&tree), *last = NULL; n; n = tree_next(&tree, n)) {
        assert_true(!last || n > last); /* nodes lie in the order of their keys */
        last = n;
        count++;
    }
    assert_int_equal(count, tree.count);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_as_an_array)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
