/* SPDX-License-Identifier: Apache-2.0 */
/*
 * After a restart: "what may be running is held back until every worker on record has joined again
 * with its held list, or rejoin_wait has passed; all else starts at once."
 */
#include <assert.h>
#include <stdlib.h>
#include "server/core/verbs.h"

bool restart_waits(const struct core *c)
{
    assert(c->missing_count == 0 || c->missing);
    return c->rejoin_ns != NEVER;
}

void restart_hold(struct core *c, struct task *t)
{
    assert(t->state == TASK_STORING || t->state == TASK_READY);
    task_move(c, t, TASK_HELD);
    list_push_back(&c->held, &t->node);
}

static bool restart_queue(struct core *c, const struct store_queue *s)
{
    struct queue *q = queue_get(c, s->name);
    if (!q)
        return false;
    assert(slice_equal(q->name, s->name));
    q->paused = s->paused;
    q->stored_ready = s->ready;
    q->stored_delayed = s->delayed;
    q->dead = s->dead;
    q->backlog = s->ready > 0 && !q->bypass;
    q->edge = (struct order_key){0, 0};
    window_low(c, q);
    return true;
}

/* The clock is not known before the first core_begin(): it starts the wait. */
bool restart_begin(struct core *c, const struct store_opened *opened)
{
    assert(opened->boot > 0);
    c->ledger.boot = (opened->boot - 1) % 32767 + 1;
    ids_begin(c, opened);
    c->next_due_ms = opened->next_due_ms;
    for (size_t i = 0; i < opened->queue_count; i++)
        if (!restart_queue(c, &opened->queues[i]))
            return false;
    if (opened->worker_count == 0)
        return true;
    c->missing = malloc(opened->worker_count * sizeof *c->missing);
    if (!c->missing)
        return false;
    memcpy(c->missing, opened->workers, opened->worker_count * sizeof *c->missing);
    c->missing_count = opened->worker_count;
    c->rejoin_ns = 0;
    return true;
}

static void held_release(struct core *c)
{
    list_foreach(it, next, &c->held)
    {
        struct task *t = container_of(it, struct task, node);
        assert(t->state == TASK_HELD);
        /* A death of its worker is being stored: the event brings us here again. */
        if (t->operations)
            continue;
        /* Looked up for a JOIN that did not keep it: it waits here for DUE (window_due_one()). */
        if (t->record.due_ms)
            list_remove(it);
        else
            window_enter(c, t);
    }
}

/* Those that did not come back hold nothing any more. */
static void restart_over(struct core *c)
{
    c->rejoin_ns = NEVER;
    assert(!c->bypass || c->missing_count == 0);
    for (size_t i = 0; i < c->missing_count; i++)
        worker_off_record(c, c->missing[i]);
    free(c->missing);
    c->missing = NULL;
    c->missing_count = 0;
}

void restart_rejoined(struct core *c, const uint8_t instance[INSTANCE_SIZE])
{
    assert(instance);
    for (size_t i = 0; i < c->missing_count; i++) {
        if (memcmp(c->missing[i], instance, INSTANCE_SIZE) != 0)
            continue;
        memcpy(c->missing[i], c->missing[--c->missing_count], INSTANCE_SIZE);
        return;
    }
}

/* Also releases what a look-up brought after the wait was over. */
void restart_run(struct core *c)
{
    if (c->rejoin_ns == 0)
        c->rejoin_ns = c->now.mono_ns + c->config.rejoin_wait_ms * MS;
    assert(c->rejoin_ns > 0);
    bool over = c->missing_count == 0 || c->now.mono_ns >= c->rejoin_ns;
    if (over && restart_waits(c))
        restart_over(c);
    if (over && list_empty(&c->joining))
        held_release(c);
}
