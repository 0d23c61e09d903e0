/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a worker's session ends: BYE, drain, superseded by the same process, or lost. What it had
 * goes to others at once. A lost connection makes what ran suspect; whether the process died, and
 * so whether a death is counted, is loss.c's business.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include "common/name.h"
#include "server/core/verbs.h"

#define DRAIN_EXTRA (5000 * MS)

/* ---- taking back ---- */

/* Stored before it runs again, or at once if nothing stands behind the queue. */
static void take_back_suspect(struct core *c, struct task *t, bool alone)
{
    bool last = alone && t->record.deaths + 1u >= c->config.poison_limit;
    assert(t->state == TASK_LEASED);
    t->record.suspect = true;
    if (last) {
        /* One death more, and it does not run again: wait for what became of the process. */
        if (!task_only_here(t))
            task_reschedule(c, t, true);
        task_delay(c, t, c->now.mono_ns + (c->config.rejoin_wait_ms + 1) * MS);
    } else if (task_only_here(t)) {
        task_requeue(c, t);
    } else {
        t->record.due_ms = 0;
        task_move(c, t, TASK_MOVING);
        task_reschedule(c, t, true);
    }
}

/* What was fenced there or is about to be cancelled runs as well, though it is no suspect. */
static bool runs_one(const struct worker *w)
{
    size_t count = w->ghosts.count;
    uint32_t running = worker_running(w), place = 0;
    assert(w->state != WORKER_OVER);
    list_foreach(it, next, &w->outstanding)
    {
        count += task_may_run(container_of(it, struct task, node), place++, running);
    }
    return count == 1;
}

static void lost_note(struct lost *lost, uint64_t id, bool suspect)
{
    assert(lost->suspects <= lost->count);
    if (!lost->ids)
        return;
    lost->ids[lost->count] = id;
    if (suspect) {
        lost->ids[lost->count] = lost->ids[lost->suspects];
        lost->ids[lost->suspects++] = id;
    }
    lost->count++;
}

/* Gives everything back. What it may yet answer of that is remembered for a while. */
static void take_back(struct core *c, struct worker *w, struct lost *lost)
{
    uint32_t running = worker_running(w); /* what is taken back is a ghost from then on */
    uint32_t place = 0;
    list_foreach(it, next, &w->outstanding)
    {
        struct task *t = container_of(it, struct task, node);
        bool suspect = lost->cut && task_may_run(t, place++, running) && !t->cancelling;
        worker_ghost(c, w, t);
        lost_note(lost, t->record.id, suspect);
        if (lost->since_ns)
            task_lost(t, lost->since_ns);
        t->queue->redelivered++;
        c->stats.redelivered++;
        if (suspect)
            take_back_suspect(c, t, lost->alone);
        else
            task_requeue(c, t);
    }
    assert(w->outstanding_count == 0);
}

/* ---- the ways to go ---- */

/* For people, who want to know which of both it was. */
static const char *loss_text(struct core *c, const struct worker *w, int code, uint64_t since_ns)
{
    assert(code > 0);
    if (code != PUSHROD_E_TIMED_OUT)
        return pushrod_strerror(code);
    if (w->state == WORKER_DRAINING && since_ns >= c->now.mono_ns)
        return "it was to leave, and did not in time";
    const char *text = arena_text(c, "nothing was heard of it for %" PRIu64 ".%" PRIu64 " s",
        (c->now.mono_ns - since_ns) / (1000 * MS), (c->now.mono_ns - since_ns) / (100 * MS) % 10);
    return text ? text : pushrod_strerror(code);
}

void core_worker_cut(struct core *c, uint64_t id)
{
    struct worker *w = worker_find(c, id);
    if (w && w->state == WORKER_READY)
        worker_move(c, w, WORKER_DRAINING);
}

/* No ghost is left of it: the worker has nothing to answer but that it is not whole. */
void core_unsent(struct core *c, uint64_t id, uint64_t task, uint64_t lease)
{
    struct task *t = ledger_find_lease(&c->ledger, lease, task);
    if (!t || t->state != TASK_LEASED || t->lease != lease || t->worker->id != id)
        return;
    task_lost(t, c->now.mono_ns);
    t->queue->redelivered++;
    c->stats.redelivered++;
    task_requeue(c, t);
}

void core_worker_lost(struct core *c, uint64_t id, int code, uint64_t since_ns)
{
    struct worker *w = worker_find(c, id);
    if (!w)
        return;
    assert(w->state != WORKER_OVER);
    bool joining = w->state == WORKER_JOINING;
    /* Only a connection that went down may mean that the process died. */
    struct lost lost = {.cut = code == PUSHROD_E_CLOSED || code == PUSHROD_E_TASK_CRASHED};
    lost.alone = lost.cut && runs_one(w);
    lost.since_ns = joining ? 0 : earlier(since_ns, c->now.mono_ns);
    const char *text = loss_text(c, w, code, earlier(since_ns, c->now.mono_ns));
    if (w->outstanding_count)
        lost.ids = arena_alloc(c, w->outstanding_count * sizeof *lost.ids);
    take_back(c, w, &lost);
    if (joining) {
        worker_off_record(c, w->instance);
    } else {
        loss_add(c, w, &lost);
        c->stats.workers_lost++;
        watch_event(c, "worker-lost", 0, w->name, (struct slice){0}, text);
    }
    out_notice(c, (struct notice){.kind = joining ? NOTICE_WORKER_UNREADY : NOTICE_WORKER_LOST,
                      .worker = w->id,
                      .code = code,
                      .name = (const char *)w->name.data,
                      .ids = lost.ids,
                      .count = lost.count,
                      .text = text});
    worker_remove(c, w, code, !lost.cut && !joining);
}

void core_lane_failed(struct core *c, uint64_t id)
{
    struct worker *w = worker_find(c, id);
    if (!w)
        return;
    assert(w->state == WORKER_JOINING);
    take_back(c, w, &(struct lost){0});
    worker_off_record(c, w->instance);
    worker_remove(c, w, 0, false);
}

/*
 * The same process joins again: its old session is over in the same step. Whoever still reads the
 * old lane is another one with the same name: it is to stop, or the two would take turns for ever.
 */
void worker_supersede(struct core *c, struct worker *w)
{
    assert(w->state != WORKER_OVER);
    take_back(c, w, &(struct lost){0});
    worker_remove(c, w, PUSHROD_E_SUPERSEDED, true);
}

void worker_bye(struct core *c, struct worker *w)
{
    assert(w->state != WORKER_OVER);
    take_back(c, w, &(struct lost){0});
    worker_off_record(c, w->instance);
    out_worker_notice(c, NOTICE_WORKER_BYE, w, 0, NULL);
    watch_event(c, "worker-bye", 0, w->name, (struct slice){0}, NULL);
    worker_remove(c, w, 0, false);
}

void worker_drain(struct core *c, struct worker *w, uint64_t limit_ms)
{
    if (w->state != WORKER_READY)
        return;
    worker_move(c, w, WORKER_DRAINING);
    assert(w->room == ROOM_NONE);
    w->deadline_ns = c->now.mono_ns + limit_ms * MS + DRAIN_EXTRA;
    struct lane_action *a = out_lane(c, w, LANE_DRAIN);
    a->number = limit_ms;
    a->again = c->draining;
    worker_timer(c, w);
}

void core_drain(struct core *c, uint64_t limit_ms)
{
    c->draining = true;
    c->drain_limit_ms = limit_ms;
    list_foreach(it, next, &c->workers)
    {
        struct worker *w = container_of(it, struct worker, in_core);
        /* It may have left already, for our own workers are told to: nothing to wait for. */
        if (w->state == WORKER_JOINING && w->outstanding_count == 0)
            core_lane_failed(c, w->id);
        else
            worker_drain(c, w, limit_ms);
    }
    assert(c->draining);
}

/* All have left, and nothing is on its way to the store. */
void drain_check(struct core *c)
{
    if (!c->draining || c->drained || c->worker_count)
        return;
    for (const struct queue *q = c->first_queue; q; q = q->next) {
        assert(q->counts[TASK_LEASED] == 0);
        if (q->counts[TASK_STORING] || q->counts[TASK_MOVING] || q->counts[TASK_FINISHING])
            return;
    }
    c->drained = true;
    out_notice(c, (struct notice){.kind = NOTICE_DRAINED});
}
