/* SPDX-License-Identifier: Apache-2.0 */
/*
 * api_group: several tasks and one callback.
 *
 * A group lives until its callback was called and the last of its tasks has finished: a finish that
 * comes after the deadline still finds its member, and is passed on to the finish event.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "common/clock.h"
#include "server/api.h"

struct member {
    struct pushrod_group *group;
    uint64_t id;
    struct pushrod_finish *finish; /* NULL: not yet */
};

struct pushrod_group {
    struct list node;
    struct pushrod_server *server;
    struct member **members;
    size_t count;
    size_t finished;
    size_t outstanding; /* members whose callback was not called yet */
    void (*done)(struct pushrod_server *server, struct pushrod_group *group, void *arg);
    void *arg;
    struct loop_timer timer;
    struct deferral tell;
    bool waited; /* pushrod_group_wait() was called */
    bool over;   /* told or dropped: freed with the last task */
};

static void group_free(struct pushrod_group *g)
{
    if (g->waited) /* else there may be no loop */
        loop_timer_clear(g->server->loop, &g->timer);
    loop_undefer(&g->tell);
    list_remove(&g->node);
    for (size_t i = 0; i < g->count; i++) {
        free(g->members[i]->finish);
        free(g->members[i]);
    }
    free(g->members);
    free(g);
}

static void group_end(struct pushrod_group *g)
{
    g->over = true;
    if (g->outstanding == 0)
        group_free(g);
}

static void group_tell(void *arg)
{
    struct pushrod_group *g = arg;
    assert(!g->over && g->waited);
    loop_timer_clear(g->server->loop, &g->timer);
    g->over = true;
    g->done(g->server, g, g->arg);
    group_end(g);
}

static void group_finish(struct pushrod_server *s, const struct pushrod_finish *finish, void *arg)
{
    struct member *m = arg;
    struct pushrod_group *g = m->group;
    g->outstanding--;
    if (g->over) {
        if (s->events.finish)
            s->events.finish(s, finish, s->events_arg);
        if (g->outstanding == 0)
            group_free(g);
        return;
    }
    m->finish = finish_copy(finish);
    g->finished += m->finish != NULL;
    if (g->waited && g->outstanding == 0)
        loop_defer(s->loop, &g->tell);
}

struct pushrod_group *pushrod_group_new(struct pushrod_server *s)
{
    struct pushrod_group *g = calloc(1, sizeof *g);
    if (!g)
        return NULL;
    g->server = s;
    g->timer.fn = group_tell;
    g->timer.arg = g;
    deferral_init(&g->tell, group_tell, g);
    list_init(&g->node);
    list_push_back(&s->groups, &g->node);
    return g;
}

static struct member *member_new(struct pushrod_group *g)
{
    /* Room for a power of two: grown when the count is one. */
    if ((g->count & (g->count - 1)) == 0) {
        size_t room = g->count ? g->count * 2 : 1;
        struct member **grown = realloc(g->members, room * sizeof(struct member *));
        if (!grown)
            return NULL;
        g->members = grown;
    }
    struct member *m = calloc(1, sizeof *m);
    if (m)
        m->group = g;
    return m;
}

int64_t pushrod_group_task(struct pushrod_group *g, const struct pushrod_job *job)
{
    struct pushrod_server *s = g->server;
    if (g->waited)
        return api_fail(s, PUSHROD_E_WRONG_STATE, "the group is waited for already");
    struct member *m = member_new(g);
    if (!m)
        return api_fail(s, PUSHROD_E_NO_MEMORY, "out of memory");
    int64_t id = api_task_submit(s, job, group_finish, m);
    if (id < 0) {
        free(m);
        return id;
    }
    m->id = (uint64_t)id;
    g->members[g->count++] = m;
    g->outstanding++;
    return (int64_t)(g->count - 1);
}

int pushrod_group_wait(struct pushrod_group *g, int64_t timeout_ms,
    void (*done)(struct pushrod_server *server, struct pushrod_group *group, void *arg), void *arg)
{
    struct pushrod_server *s = g->server;
    if (g->waited)
        return api_fail(s, PUSHROD_E_WRONG_STATE, "the group is waited for already");
    if (s->state == API_NEW || s->state >= API_FLUSHING)
        return api_fail(s, PUSHROD_E_WRONG_STATE, "the server does not run");
    if (!done)
        return api_fail(
            s, PUSHROD_E_INVALID, "the function that is called when all is done is NULL");
    uint64_t now = loop_enter(s->loop).mono_ns;
    if (timeout_ms >= 0 &&
        !loop_timer_set(s->loop, &g->timer, clock_after_ms(now, (uint64_t)timeout_ms)))
        return api_fail(s, PUSHROD_E_NO_MEMORY, "out of memory");
    g->done = done;
    g->arg = arg;
    g->waited = true;
    if (g->outstanding == 0)
        loop_defer(s->loop, &g->tell);
    return 0;
}

size_t pushrod_group_count(const struct pushrod_group *g)
{
    return g->count;
}

size_t pushrod_group_finished(const struct pushrod_group *g)
{
    return g->finished;
}

const struct pushrod_finish *pushrod_group_finish(const struct pushrod_group *g, size_t place)
{
    return place < g->count ? g->members[place]->finish : NULL;
}

uint64_t pushrod_group_id(const struct pushrod_group *g, size_t place)
{
    return place < g->count ? g->members[place]->id : 0;
}

void pushrod_group_drop(struct pushrod_group *g)
{
    assert(!g->waited);
    group_end(g);
}

void groups_free(struct pushrod_server *s)
{
    list_foreach(node, next, &s->groups) group_free(container_of(node, struct pushrod_group, node));
}
