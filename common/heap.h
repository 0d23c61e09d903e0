/* SPDX-License-Identifier: Apache-2.0 */
/*
 * heap: an intrusive binary min-heap of nodes that know their place, so that any node can be
 * removed in O(log n). The key is a pair, compared first by `key`, then by `tie`.
 */
#ifndef COMMON_HEAP_H
#define COMMON_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct heap_node {
    uint64_t key;
    uint64_t tie;
    uint32_t place; /* 1-based place in the heap; 0: in none */
};

struct heap {
    struct heap_node **nodes;
    size_t count;
    size_t capacity;
};

void heap_free(struct heap *h); /* frees the array, never the nodes */
bool heap_push(
    struct heap *h, struct heap_node *node, uint64_t key, uint64_t tie); /* false: no memory */
void heap_remove(struct heap *h, struct heap_node *node); /* nothing if it is in none */

static inline struct heap_node *heap_top(const struct heap *h)
{
    return h->count ? h->nodes[0] : NULL;
}

static inline bool heap_holds(const struct heap_node *node)
{
    return node->place != 0;
}

#endif
