/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include "common/heap.h"

#define NODES 300

/* The naive model: the smallest of all nodes that are in the heap. */
static const struct heap_node *model_top(const struct heap_node *nodes)
{
    const struct heap_node *top = NULL;
    for (size_t i = 0; i < NODES; i++)
        if (heap_holds(&nodes[i]) && (!top || nodes[i].key < top->key ||
                                         (nodes[i].key == top->key && nodes[i].tie < top->tie)))
            top = &nodes[i];
    return top;
}

static void check(const struct heap *h, const struct heap_node *nodes)
{
    const struct heap_node *top = model_top(nodes);
    assert_ptr_equal(heap_top(h), top);
    size_t count = 0;
    for (size_t i = 0; i < NODES; i++)
        if (heap_holds(&nodes[i])) {
            assert_ptr_equal(h->nodes[nodes[i].place - 1], &nodes[i]);
            count++;
        }
    assert_int_equal(h->count, count);
}

/* Random pushes and removals agree with a linear search, ties included. */
static void heap_agrees_with_model(void **state)
{
    (void)state;
    uint64_t seed = random_seed();
    struct heap h = {0};
    struct heap_node nodes[NODES] = {0};
    for (unsigned step = 0; step < 20000; step++) {
        uint64_t r = random_next(&seed);
        struct heap_node *node = &nodes[r % NODES];
        if (heap_holds(node))
            heap_remove(&h, node);
        else
            assert_true(heap_push(&h, node, r >> 32 & 15, (uint64_t)(node - nodes)));
        check(&h, nodes);
    }
    heap_free(&h);
}

static void heap_gives_in_order(void **state)
{
    (void)state;
    uint64_t seed = random_seed(), last = 0;
    struct heap h = {0};
    struct heap_node nodes[NODES] = {0};
    for (size_t i = 0; i < NODES; i++)
        assert_true(heap_push(&h, &nodes[i], random_next(&seed), i));
    while (heap_top(&h)) {
        struct heap_node *top = heap_top(&h);
        assert_true(top->key >= last);
        last = top->key;
        heap_remove(&h, top);
        assert_false(heap_holds(top));
        heap_remove(&h, top); /* twice is harmless */
    }
    heap_free(&h);
    assert_null(heap_top(&h));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heap_agrees_with_model),
        cmocka_unit_test(heap_gives_in_order),
    };
    return cmocka_run_group_tests_name("heap", tests, NULL, NULL);
}
