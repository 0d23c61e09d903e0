/* SPDX-License-Identifier: Apache-2.0 */
/*
 * list: an intrusive, circular, doubly linked list. No allocation; a node is in one list at most.
 * A node that is in no list points to itself (list_init), so removing it twice is harmless.
 */
#ifndef COMMON_LIST_H
#define COMMON_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *next;
    struct list *prev;
};

#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

/* Iterate; `next` makes it safe to remove the current node. */
#define list_foreach(it, next_, head)                                                              \
    for (struct list *it = (head)->next, *next_ = it->next; it != (head);                          \
         it = next_, next_ = it->next)

static inline void list_init(struct list *l)
{
    l->next = l->prev = l;
}

static inline bool list_empty(const struct list *l)
{
    return l->next == l;
}

static inline void list_push_back(struct list *head, struct list *node)
{
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}

static inline void list_push_front(struct list *head, struct list *node)
{
    list_push_back(head->next, node);
}

static inline void list_remove(struct list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    list_init(node);
}

/* All of `from`, in its order, before what is in `head`; `from` is empty then. */
static inline void list_splice_front(struct list *head, struct list *from)
{
    if (list_empty(from))
        return;
    from->prev->next = head->next;
    head->next->prev = from->prev;
    head->next = from->next;
    from->next->prev = head;
    list_init(from);
}

static inline struct list *list_first(const struct list *head)
{
    return list_empty(head) ? NULL : head->next;
}

static inline struct list *list_last(const struct list *head)
{
    return list_empty(head) ? NULL : head->prev;
}

#endif
