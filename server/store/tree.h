/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tree: an intrusive ordered set (a treap) of nodes with a key (hi, lo), unique in its tree.
 * Priorities are a hash of the key, so the shape depends on the contents only.
 */
#ifndef SERVER_STORE_TREE_H
#define SERVER_STORE_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tree_node {
    struct tree_node *left;
    struct tree_node *right;
    uint64_t hi;
    uint64_t lo;
    bool inside; /* in a tree */
};

struct tree {
    struct tree_node *root;
    size_t count;
};

void tree_insert(struct tree *t, struct tree_node *n, uint64_t hi, uint64_t lo);
void tree_remove(struct tree *t, struct tree_node *n); /* nothing if it is in none */
/* The first node whose key is greater than (hi, lo); NULL: none. */
struct tree_node *tree_after(const struct tree *t, uint64_t hi, uint64_t lo);
struct tree_node *tree_first(const struct tree *t);

static inline struct tree_node *tree_next(const struct tree *t, const struct tree_node *n)
{
    return tree_after(t, n->hi, n->lo);
}

#endif
