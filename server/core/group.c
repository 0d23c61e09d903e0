/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Groups: workers with the same patterns. What one of them may run, each may; so queues are matched
 * with groups, once for each pair (a link), and the scheduler never looks at a pattern. A group
 * lives as long as it has a member, or a WITHDRAW on its way that reserved one of its slots.
 */
#include <assert.h>
#include <stdlib.h>
#include "common/name.h"
#include "server/core/verbs.h"

#define GROUPS_MAX 65535u /* task.reserved_by has 16 bits */

static bool group_is(const struct group *g, const struct slice *patterns, size_t count)
{
    assert(count > 0);
    if (g->pattern_count != count)
        return false;
    for (size_t i = 0; i < count; i++)
        if (!slice_equal(g->patterns[i], patterns[i]))
            return false;
    return true;
}

/* Any of its patterns, and none of what it has given up. */
static bool group_matches(const struct group *g, struct slice name)
{
    assert(g->pattern_count > 0);
    bool matches = false;
    for (size_t i = 0; i < g->pattern_count; i++) {
        struct slice p = g->patterns[i];
        /* "!name": a worker of this group found out that it cannot run it */
        if (p.data[0] == '!' && slice_equal(slice_of(p.data + 1, p.size - 1), name))
            return false;
        matches = matches || name_matches(p, name);
    }
    return matches;
}

static bool link_new(struct core *c, struct queue *q, struct group *g)
{
    struct link *link = malloc(sizeof *link);
    if (!link)
        return false;
    assert(!group_serves(g, q));
    *link = (struct link){.queue = q, .group = g};
    list_init(&link->in_ring);
    list_init(&link->in_suspected);
    list_push_back(&q->links, &link->in_queue);
    list_push_back(&g->links, &link->in_group);
    if (q->active)
        list_push_back(&g->ring, &link->in_ring);
    if (q->suspected)
        list_push_back(&g->suspected, &link->in_suspected);
    group_touch(c, g);
    return true;
}

static void link_free(struct link *link)
{
    assert(link->queue && link->group);
    list_remove(&link->in_queue);
    list_remove(&link->in_group);
    list_remove(&link->in_ring);
    list_remove(&link->in_suspected);
    free(link);
}

void group_unlink_queue(struct queue *q)
{
    list_foreach(it, next, &q->links) link_free(container_of(it, struct link, in_queue));
    assert(list_empty(&q->links));
}

bool group_link_queue(struct core *c, struct queue *q)
{
    assert(list_empty(&q->links));
    for (size_t i = 0; i < c->group_count; i++) {
        struct group *g = c->groups[i];
        if (g && group_matches(g, q->name) && !link_new(c, q, g)) {
            group_unlink_queue(q);
            return false;
        }
    }
    return true;
}

bool group_serves(const struct group *g, const struct queue *q)
{
    assert(g && q);
    for (const struct list *it = q->links.next; it != &q->links; it = it->next)
        if (container_of(it, struct link, in_queue)->group == g)
            return true;
    return false;
}

void group_touch(struct core *c, struct group *g)
{
    assert(g->number > 0);
    if (list_empty(&g->dirty_node))
        list_push_back(&c->dirty_groups, &g->dirty_node);
}

/* One block: the struct, the slices, and the bytes of the patterns. */
static struct group *group_allocate(const struct slice *patterns, size_t count)
{
    size_t size = sizeof(struct group) + count * sizeof(struct slice);
    for (size_t i = 0; i < count; i++)
        size += patterns[i].size;
    struct group *g = calloc(1, size);
    if (!g)
        return NULL;
    g->patterns = (struct slice *)(g + 1);
    uint8_t *at = (uint8_t *)(g->patterns + count);
    for (size_t i = 0; i < count; i++) {
        memcpy(at, patterns[i].data, patterns[i].size);
        g->patterns[i] = slice_of(at, patterns[i].size);
        at += patterns[i].size;
    }
    g->pattern_count = count;
    assert(at == (uint8_t *)g + size);
    return g;
}

static bool group_number(struct core *c, struct group *g)
{
    size_t i = 0;
    while (i < c->group_count && c->groups[i])
        i++;
    if (i == GROUPS_MAX)
        return false;
    if (i == c->group_count) {
        struct group **groups = realloc(c->groups, (i + 1) * sizeof(struct group *));
        if (!groups)
            return false;
        c->groups = groups;
        c->group_count++;
    }
    c->groups[i] = g;
    g->number = (uint16_t)(i + 1);
    assert(g->number > 0);
    return true;
}

struct group *group_get(struct core *c, const struct slice *patterns, size_t count)
{
    assert(count > 0);
    for (size_t i = 0; i < c->group_count; i++)
        if (c->groups[i] && group_is(c->groups[i], patterns, count))
            return c->groups[i];
    struct group *g = group_allocate(patterns, count);
    if (!g)
        return NULL;
    list_init(&g->links);
    list_init(&g->ring);
    list_init(&g->suspected);
    list_init(&g->dirty_node);
    for (unsigned room = 0; room < ROOM_COUNT; room++)
        list_init(&g->rooms[room]);
    if (!group_number(c, g)) {
        free(g);
        return NULL;
    }
    for (struct queue *q = c->first_queue; q; q = q->next) {
        if (group_matches(g, q->name) && !link_new(c, q, g)) {
            c->groups[g->number - 1] = NULL;
            group_free(g);
            return NULL;
        }
    }
    return g;
}

/* Nobody is in it, and no WITHDRAW is on its way for one of its slots: it goes. */
void group_release(struct core *c, struct group *g)
{
    assert(c->groups[g->number - 1] == g);
    if (g->members || g->reserved)
        return;
    c->groups[g->number - 1] = NULL;
    group_free(g);
}

/* Out of the core's table first; called when nobody is in it, or at the end. */
void group_free(struct group *g)
{
    list_foreach(it, next, &g->links)
    {
        assert(container_of(it, struct link, in_group)->group == g);
        link_free(container_of(it, struct link, in_group));
    }
    list_remove(&g->dirty_node);
    free(g);
}
