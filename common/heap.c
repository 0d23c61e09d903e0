/* SPDX-License-Identifier: Apache-2.0 */
#include "common/heap.h"

#include <assert.h>
#include <stdlib.h>

#define HEAP_FIRST 16u /* nodes of the first allocation */

void heap_free(struct heap *h)
{
    free(h->nodes);
    *h = (struct heap){0};
}

static bool node_before(const struct heap_node *a, const struct heap_node *b)
{
    return a->key != b->key ? a->key < b->key : a->tie < b->tie;
}

/* Places are counted from 1, so that 0 can mean "in no heap". */
static void heap_place(struct heap *h, struct heap_node *node, size_t index)
{
    h->nodes[index] = node;
    node->place = (uint32_t)index + 1;
}

/* Moves the hole at index up to where the node belongs, and puts the node there. */
static void heap_rise(struct heap *h, struct heap_node *node, size_t index)
{
    while (index > 0) {
        size_t parent = (index - 1) / 2;
        if (!node_before(node, h->nodes[parent]))
            break;
        heap_place(h, h->nodes[parent], index);
        index = parent;
    }
    heap_place(h, node, index);
}

/* The same downwards. */
static void heap_sink(struct heap *h, struct heap_node *node, size_t index)
{
    for (;;) {
        size_t child = index * 2 + 1;
        if (child >= h->count)
            break;
        if (child + 1 < h->count && node_before(h->nodes[child + 1], h->nodes[child]))
            child++;
        if (!node_before(h->nodes[child], node))
            break;
        heap_place(h, h->nodes[child], index);
        index = child;
    }
    heap_place(h, node, index);
}

static bool heap_grow(struct heap *h)
{
    /* A place has 32 bits. */
    if (h->capacity > UINT32_MAX / 4)
        return false;
    size_t capacity = h->capacity ? h->capacity * 2 : HEAP_FIRST;
    struct heap_node **nodes = realloc(h->nodes, capacity * sizeof *nodes);
    if (!nodes)
        return false;
    h->nodes = nodes;
    h->capacity = capacity;
    return true;
}

bool heap_push(struct heap *h, struct heap_node *node, uint64_t key, uint64_t tie)
{
    assert(node->place == 0);
    if (h->count == h->capacity && !heap_grow(h))
        return false;
    node->key = key;
    node->tie = tie;
    heap_rise(h, node, h->count++);
    return true;
}

void heap_remove(struct heap *h, struct heap_node *node)
{
    if (node->place == 0)
        return;
    size_t index = node->place - 1u;
    assert(index < h->count && h->nodes[index] == node);
    node->place = 0;
    struct heap_node *last = h->nodes[--h->count];
    if (last == node)
        return;
    /* The last node fills the hole; it may belong above or below it, but never both. */
    if (index > 0 && node_before(last, h->nodes[(index - 1) / 2]))
        heap_rise(h, last, index);
    else
        heap_sink(h, last, index);
}
