/* SPDX-License-Identifier: Apache-2.0 */
#include "server/store/tree.h"

#include <assert.h>

static uint64_t priority(const struct tree_node *n)
{
    uint64_t x = n->lo ^ (n->hi * UINT64_C(0x9e3779b97f4a7c15));
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static bool less(uint64_t hi, uint64_t lo, const struct tree_node *n)
{
    return hi < n->hi || (hi == n->hi && lo < n->lo);
}

/* Everything below (hi, lo) goes to *small, the rest to *large. */
static void split(struct tree_node *n, uint64_t hi, uint64_t lo, struct tree_node **small,
    struct tree_node **large)
{
    while (n) {
        if (less(hi, lo, n)) {
            *large = n;
            large = &n->left;
            n = n->left;
        } else {
            *small = n;
            small = &n->right;
            n = n->right;
        }
    }
    *small = *large = NULL;
}

void tree_insert(struct tree *t, struct tree_node *n, uint64_t hi, uint64_t lo)
{
    assert(!n->inside);
    *n = (struct tree_node){.hi = hi, .lo = lo, .inside = true};
    struct tree_node **place = &t->root;
    uint64_t rank = priority(n);
    while (*place && priority(*place) >= rank)
        place = less(hi, lo, *place) ? &(*place)->left : &(*place)->right;
    struct tree_node *below = *place;
    *place = n;
    split(below, hi, lo, &n->left, &n->right);
    t->count++;
}

/* Puts two subtrees, all of `a` below all of `b`, into one place. */
static void join(struct tree_node **place, struct tree_node *a, struct tree_node *b)
{
    while (a && b) {
        if (priority(a) > priority(b)) {
            *place = a;
            place = &a->right;
            a = a->right;
        } else {
            *place = b;
            place = &b->left;
            b = b->left;
        }
    }
    *place = a ? a : b;
}

void tree_remove(struct tree *t, struct tree_node *n)
{
    if (!n->inside)
        return;
    struct tree_node **place = &t->root;
    while (*place != n) {
        assert(*place);
        place = less(n->hi, n->lo, *place) ? &(*place)->left : &(*place)->right;
    }
    join(place, n->left, n->right);
    n->inside = false;
    t->count--;
}

struct tree_node *tree_after(const struct tree *t, uint64_t hi, uint64_t lo)
{
    struct tree_node *found = NULL;
    for (struct tree_node *n = t->root; n;) {
        if (less(hi, lo, n)) {
            found = n;
            n = n->left;
        } else {
            n = n->right;
        }
    }
    return found;
}

struct tree_node *tree_first(const struct tree *t)
{
    struct tree_node *n = t->root;
    while (n && n->left)
        n = n->left;
    return n;
}
