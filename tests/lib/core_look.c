/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/core_look.h"

#include "server/core/verbs.h"

bool core_has(const struct core *core, uint64_t id)
{
    return ledger_find(&core->ledger, id);
}

void core_each_payload(struct core *core, void (*fn)(struct slice payload))
{
    for (uint32_t slot = 0; slot < core->ledger.used; slot++) {
        const struct task *t = ledger_at(&core->ledger, slot);
        if (t)
            fn(t->record.payload);
    }
}

static const char *left_in_core(const struct core *c)
{
    for (const struct queue *q = c->first_queue; q; q = q->next)
        for (unsigned state = 0; state < TASK_FINISHED; state++)
            if (q->counts[state])
                return task_state_name((enum task_state)state);
    if (!list_empty(&c->requests) || !list_empty(&c->joining) || c->scanning)
        return "a request";
    if (c->unsettled_results || c->stats.unsettled_bytes)
        return "bytes on their way to the store";
    if (c->flight_bytes || c->bypass_bytes)
        return "bytes in flight, or in memory";
    return NULL;
}

static const char *left_at_workers(const struct core *c)
{
    for (const struct list *it = c->workers.next; it != &c->workers; it = it->next) {
        const struct worker *w = container_of(it, struct worker, in_core);
        if (w->ghosts.count || w->credits[CREDIT_SMALL].bytes || w->credits[CREDIT_LARGE].bytes ||
            w->parting.count || !list_empty(&w->settling))
            return "something at a worker";
    }
    for (size_t i = 0; i < c->group_count; i++)
        if (c->groups[i] && (c->groups[i]->reserved || c->groups[i]->alone))
            return "a slot that is kept free";
    return NULL;
}

const char *core_left(struct core *core, bool exact)
{
    const char *left = left_in_core(core);
    const struct core_stats *s = core_stats(core);
    uint64_t ended = s->done + s->failed + s->cancelled + s->expired;
    if (!left)
        left = left_at_workers(core);
    if (left || !exact)
        return left;
    if (s->ready || s->backlog || s->delayed || s->running)
        return "a count of tasks that wait";
    return s->submitted != ended ? "a task that was submitted, in the counts" : NULL;
}
