/* SPDX-License-Identifier: Apache-2.0 */
/* api_timer: timers of the embedding program. */
#include <stdlib.h>
#include "common/clock.h"
#include "server/api.h"

struct api_timer {
    struct pushrod_server *server;
    uint64_t id;
    uint64_t repeat_ms; /* 0: once */
    void (*fn)(struct pushrod_server *server, void *arg);
    void *arg;
    struct loop_timer timer;
    bool firing; /* in its own callback: freed after it */
    bool cleared;
};

static void timer_free(struct api_timer *t)
{
    loop_timer_clear(t->server->loop, &t->timer);
    idmap_remove(&t->server->timers, t->id);
    free(t);
}

/* A callback that was late is not called twice in a row for it. */
static void timer_fired(void *arg)
{
    struct api_timer *t = arg;
    struct pushrod_server *s = t->server;
    t->firing = true;
    t->fn(s, t->arg);
    t->firing = false;
    uint64_t next = clock_after_ms(loop_enter(s->loop).mono_ns, t->repeat_ms);
    if (t->cleared || !t->repeat_ms || !loop_timer_set(s->loop, &t->timer, next))
        timer_free(t);
}

int64_t pushrod_server_timer(struct pushrod_server *s, uint64_t delay_ms, uint64_t repeat_ms,
    void (*fn)(struct pushrod_server *server, void *arg), void *arg)
{
    if (s->state == API_NEW || s->state >= API_FLUSHING)
        return api_fail(s, PUSHROD_E_WRONG_STATE, "the server does not run");
    if (!fn)
        return api_fail(s, PUSHROD_E_INVALID, "the function of the timer is NULL");
    struct api_timer *t = calloc(1, sizeof *t);
    if (!t)
        return api_fail(s, PUSHROD_E_NO_MEMORY, "out of memory");
    t->server = s;
    t->id = ++s->timer_ids;
    t->repeat_ms = repeat_ms;
    t->fn = fn;
    t->arg = arg;
    t->timer.fn = timer_fired;
    t->timer.arg = t;
    uint64_t at = clock_after_ms(loop_enter(s->loop).mono_ns, delay_ms);
    if (!idmap_put(&s->timers, t->id, (uintptr_t)t) || !loop_timer_set(s->loop, &t->timer, at)) {
        timer_free(t);
        return api_fail(s, PUSHROD_E_NO_MEMORY, "out of memory");
    }
    return (int64_t)t->id;
}

int pushrod_server_timer_clear(struct pushrod_server *s, int64_t timer)
{
    struct api_timer *t = idmap_pointer(&s->timers, (uint64_t)timer);
    if (!t || t->cleared)
        return api_fail(s, PUSHROD_E_INVALID, "there is no such timer");
    t->cleared = true;
    if (!t->firing)
        timer_free(t);
    return 0;
}

void timers_free(struct pushrod_server *s)
{
    struct idmap timers = s->timers;
    struct idmap_cell cell;
    s->timers = (struct idmap){0};
    for (size_t place = 0; idmap_next(&timers, &place, &cell);)
        timer_free((struct api_timer *)(uintptr_t)cell.value);
    idmap_free(&timers);
}
