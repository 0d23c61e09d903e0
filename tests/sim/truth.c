/* SPDX-License-Identifier: Apache-2.0 */
/* What really happened to each submission, and the promises that are checked against it. */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/name.h"
#include "tests/lib/core_look.h"

const char *truth_queue(unsigned queue)
{
    static const char *const names[SIM_QUEUES] = {"mail.in", "mail.out", "digest", "slow"};
    return names[queue];
}

struct sub *truth_sub(struct sim *sim, struct slice payload)
{
    uint64_t number = 0;
    SIM_CHECK(sim, payload.size >= 8, "a payload of %zu bytes", payload.size);
    memcpy(&number, payload.data, 8);
    SIM_CHECK(sim, number < sim->sub_count, "a payload that nobody submitted");
    struct sub *sub = &sim->subs[number];
    SIM_CHECK(sim, payload.size == sub->size, "task %zu: a payload of %zu bytes, not %u",
        (size_t)number, payload.size, sub->size);
    return sub;
}

struct sub *truth_by_id(struct sim *sim, uint64_t id)
{
    uint64_t number = 0;
    return idmap_get(&sim->by_id, id, &number) ? &sim->subs[number] : NULL;
}

/* An id names one submission for ever, and a submission has one id. */
void truth_name(struct sim *sim, struct sub *sub, uint64_t id)
{
    struct sub *other = truth_by_id(sim, id);
    SIM_CHECK(
        sim, id && (!other || other == sub), "id %llu names two tasks", (unsigned long long)id);
    SIM_CHECK(sim, !sub->id || sub->id == id, "a task has two ids");
    sub->id = id;
    idmap_put(&sim->by_id, id, (uint64_t)(sub - sim->subs));
}

static struct sub *of_request(struct sim *sim, uint64_t request)
{
    SIM_CHECK(sim, request && request <= sim->sub_count, "an answer to a request of nobody");
    return &sim->subs[request - 1];
}

static bool settled_on_disk(const struct sim *sim, const struct sub *sub)
{
    return sim->plan.durability[sub->queue] == DURABILITY_SYNC && !sub->excused;
}

bool truth_was_purged(const struct sim *sim, const struct sub *sub)
{
    return sub->purging && disk_purged(&sim->disk, sub->id);
}

/* Dropped, if it was dead: of what no store has nobody else can tell. */
static bool was_dropped(const struct sim *sim, const struct sub *sub)
{
    return sub->dropping && (sub->status == PUSHROD_FAILED ||
                                sim->plan.durability[sub->queue] == DURABILITY_MEMORY ||
                                disk_saw_end(&sim->disk, sub->id) == PUSHROD_FAILED);
}

bool truth_gone(const struct sim *sim, const struct sub *sub)
{
    return sub->excused || truth_was_purged(sim, sub) || was_dropped(sim, sub);
}

void truth_accepted(struct sim *sim, const struct conn_action *a)
{
    struct sub *sub = of_request(sim, a->request);
    SIM_CHECK(sim, !sub->accepted && !sub->rejected, "a submission was answered twice");
    truth_name(sim, sub, a->id);
    sub->accepted = true;
    sub->accepted_ns = sim->now.mono_ns;
    sim->totals.accepted++;
    SIM_CHECK(sim,
        !settled_on_disk(sim, sub) || disk_keeps(&sim->disk, a->id) ||
            disk_ended(&sim->disk, a->id) || truth_was_purged(sim, sub),
        "ACCEPTED of task %llu, which is not settled", (unsigned long long)a->id);
    keys_accepted(sim, sub);
}

void truth_rejected(struct sim *sim, const struct conn_action *a)
{
    if (a->request > SIM_MAX_SUBS)
        return; /* of another kind of request: its client judges it */
    struct sub *sub = of_request(sim, a->request);
    SIM_CHECK(sim, !sub->accepted && !sub->rejected, "a submission was answered twice");
    sub->rejected = true;
    if (a->code == PUSHROD_E_DUPLICATE)
        keys_refused(sim, sub, a->id);
}

static uint64_t expires_at(const struct sub *sub)
{
    return sub->options.expires_ms ? sub->sent_ms + sub->options.expires_ms : UINT64_MAX;
}

/* A finish needs a reason; and whoever asked for it to be kept will find it. */
static void check_reason(struct sim *sim, const struct sub *sub, const struct task *task)
{
    unsigned long long id = task->record.id;
    SIM_CHECK(sim,
        task->status != PUSHROD_CANCELLED || sub->cancelled || sub->purging || sub->excused,
        "task %llu was cancelled by nobody", id);
    SIM_CHECK(sim,
        task->status != PUSHROD_EXPIRED || expires_at(sub) <= sim->wall_most || sub->excused,
        "task %llu expired before its time", id);
    SIM_CHECK(sim,
        task->status != PUSHROD_FAILED || sub->retries || sub->may_repeat || !sim->plan.strict ||
            sub->excused,
        "task %llu failed, and no attempt of it did", id);
    SIM_CHECK(sim, task->code != PUSHROD_E_RESULT_TOO_BIG || sub->lied,
        "task %llu failed, since its result did not come whole", id);
    bool purged = task->status == PUSHROD_CANCELLED && truth_was_purged(sim, sub);
    if (task->status == PUSHROD_FAILED || purged || !sub->options.keep_ms || sim->plan.clock ||
        !settled_on_disk(sim, sub))
        return;
    const struct entry *e = state_find(&sim->disk.kept, id);
    SIM_CHECK(sim, e && e->finish.keep_until_ms >= sub->sent_ms + sub->options.keep_ms,
        "the finish of task %llu is not kept as asked", id);
}

/* Told once to each connection that follows, the same for ever, and only what is settled. */
void truth_finished(struct sim *sim, const struct conn_action *a)
{
    const struct task *task = a->task;
    struct sub *sub = truth_by_id(sim, task->record.id);
    unsigned long long id = task->record.id;
    SIM_CHECK(sim, sub, "FINISHED of task %llu, which nobody knows", id);
    SIM_CHECK(sim, sub->follow != FOLLOW_NONE || a->request > SIM_MAX_SUBS,
        "FINISHED of task %llu, which nobody follows", id);
    odd_finished(sim, a);
    if (sub->replaying && sub->status == PUSHROD_FAILED && task->status != PUSHROD_FAILED)
        truth_revived(sim, sub);
    SIM_CHECK(sim, sub->excused || !sub->status || sub->status == task->status,
        "task %llu finished as %u, and now as %u", id, sub->status, task->status);
    SIM_CHECK(sim,
        !settled_on_disk(sim, sub) || disk_ended(&sim->disk, task->record.id) == task->status ||
            (task->status == PUSHROD_CANCELLED && truth_was_purged(sim, sub)) ||
            (task->status == PUSHROD_FAILED && sub->replaying &&
                (disk_keeps(&sim->disk, sub->id) || truth_was_purged(sim, sub))),
        "the finish of task %llu was told before it was settled", id);
    check_reason(sim, sub, task);
    if (task->status == PUSHROD_DONE && !sub->lied)
        result_check(sim, sub, task_result(task));
    /* Of what was purged behind the window nobody remembers the tag. */
    SIM_CHECK(sim,
        sub->excused || truth_was_purged(sim, sub) ||
            slice_equal(task_tag(task), slice_str(sub->tag)),
        "task %llu: wrong tag", id);
    if (!sub->status) {
        sub->ended_ms = sim->now.wall_ms;
        sub->ended_ns = sim->now.mono_ns;
    }
    sub->status = task->status;
    sim->totals.told++;
}

void truth_asked(struct sub *sub, const char *verb)
{
    sub->replaying |= strcmp(verb, "replay") == 0;
    sub->dropping |= strcmp(verb, "drop") == 0;
}

/* It was dead, and lives again. */
void truth_revived(struct sim *sim, struct sub *sub)
{
    SIM_CHECK(sim, !sub->status || sub->status == PUSHROD_FAILED || sub->excused,
        "task %llu was replayed, and was not dead", (unsigned long long)sub->id);
    sub->cancel_life = 0;
    sub->revived = true;
    sub->status = 0;
}

static bool more_urgent(const struct sub *a, const struct sub *b)
{
    return a->options.priority != b->options.priority ? a->options.priority > b->options.priority
                                                      : a->id < b->id;
}

/* FIFO within a priority, and the higher priority first. */
static void check_order(struct sim *sim, const struct sub *sub)
{
    if (!sim->plan.calm || sim->plan.big || sim->plan.lane_bytes)
        return;
    for (size_t i = 0; i < sim->sub_count; i++) {
        const struct sub *other = &sim->subs[i];
        if (!other->accepted || other->first_lease || other->queue != sub->queue || other == sub)
            continue;
        SIM_CHECK(sim, !more_urgent(other, sub), "task %llu was handed out before task %llu",
            (unsigned long long)sub->id, (unsigned long long)other->id);
    }
}

void truth_dispatch(struct sim *sim, const struct lane_action *a)
{
    const struct task_record *r = &a->task->record;
    struct sub *sub = truth_sub(sim, r->payload);
    const struct lane *lane = server_lane(sim, a->worker);
    truth_name(sim, sub, r->id);
    sim_trace(sim, "server: task %llu goes to worker %llu (%s), lease %llx, hand-over %u%s",
        (unsigned long long)r->id, (unsigned long long)a->worker, sim->nodes[lane->node].name,
        (unsigned long long)a->task->lease, a->task->hand_overs, r->suspect ? ", suspect" : "");
    if (sub->replaying && sub->status == PUSHROD_FAILED)
        truth_revived(sim, sub);
    SIM_CHECK(sim, !sub->status || sub->excused, "task %llu was handed out after its finish",
        (unsigned long long)r->id);
    SIM_CHECK(sim, !settled_on_disk(sim, sub) || disk_keeps(&sim->disk, r->id),
        "task %llu was handed out before it was settled", (unsigned long long)r->id);
    SIM_CHECK(sim, !sub->target[0] || strcmp(sub->target, sim->nodes[lane->node].name) == 0,
        "task %llu went to the wrong worker", (unsigned long long)r->id);
    SIM_CHECK(sim, sub->cancel_life != sim->server.life || sub->excused,
        "task %llu was handed out after it had been cancelled", (unsigned long long)r->id);
    SIM_CHECK(sim, !r->suspect || sub->suspected || sub->lied,
        "task %llu is to run alone, and ran on no worker that was lost", (unsigned long long)r->id);
    bool expires = !sub->first_lease && !sub->revived; /* a second life has no end of its own */
    SIM_CHECK(sim, !expires || expires_at(sub) > sim->now.wall_ms || sub->excused,
        "task %llu was handed out after it had expired", (unsigned long long)r->id);
    SIM_CHECK(sim, sub->eta_ms <= sim->wall_most || sub->lied,
        "task %llu was handed out before its time", (unsigned long long)r->id);
    if (!sub->first_lease)
        check_order(sim, sub);
    sub->first_lease = sub->first_lease ? sub->first_lease : a->task->lease;
}

/* What a worker says that it has goes on there if it may have it, and lives. */
void truth_verdict(struct sim *sim, bool liar, const struct held *held, enum verdict verdict)
{
    struct sub *sub = truth_by_id(sim, held->id);
    unsigned long long id = held->id;
    if (!sub)
        return;
    bool taken = verdict == VERDICT_KEEP || verdict == VERDICT_SEND;
    bool ours = sub->life == sim->server.life;
    /* In memory until it is handed out; a purge, too, may leave to the store what comes later. */
    bool purge = sim->plan.purge || sim->plan.odd;
    bool stays = ours && !sub->eta_ms && !sim->plan.window && !purge;
    SIM_CHECK(sim, !taken || sub->first_lease || !stays,
        "task %llu was handed to nobody, and a worker keeps it", id);
    SIM_CHECK(sim, !taken || !ours || held->lease >> 48 == sim->disk.opened.boot,
        "task %llu is kept with a lease that is older", id);
    bool lives = disk_keeps(&sim->disk, id) && !disk_saw_end(&sim->disk, id) && !sub->excused;
    bool gone = sub->purging || sub->replaying || sub->lied || liar;
    SIM_CHECK(sim, taken || gone || core_has(sim->server.core, id) || !lives,
        "task %llu lies in the store, and its worker is to drop it", id);
    sub->suspected |= verdict == VERDICT_SEND;
}

/* The worker begins what it is given in that order; what it was told to stop has its slot. */
void truth_lost(struct sim *sim, const struct lane *lane)
{
    for (size_t i = 0; i < lane->task_count; i++) {
        struct sub *sub = truth_by_id(sim, lane->tasks[i].id);
        if (sub && (i < lane->slots || lane->tasks[i].begun))
            sub->suspected = true;
    }
}

/* A handler begins. */
void truth_run(struct sim *sim, struct sub *sub, uint64_t id)
{
    SIM_CHECK(sim, sub->id == id, "a task came with the payload of another");
    sub->running++;
    sub->executions++;
    sim->totals.executed++;
    if (sub->executions <= 1 + sub->retries)
        return;
    sim->totals.repeated++;
    SIM_CHECK(sim, sub->may_repeat || !sim->plan.strict, "task %llu runs again for no reason",
        (unsigned long long)id);
}

/* What the durability of its queue does not promise to survive. */
void truth_server_died(struct sim *sim)
{
    for (size_t i = 0; i < sim->sub_count; i++) {
        struct sub *sub = &sim->subs[i];
        enum durability d = sim->plan.durability[sub->queue];
        if (d == DURABILITY_SYNC || !sub->sent)
            continue;
        sub->may_repeat = true;
        bool there = sub->id && d == DURABILITY_ASYNC &&
                     (disk_keeps(&sim->disk, sub->id) || disk_ended(&sim->disk, sub->id));
        if (!there)
            sub->excused = true;
        else if (disk_ended(&sim->disk, sub->id) != sub->status)
            sub->status = 0; /* its finish was told, and is lost with the last 50 ms */
    }
}

/*
 * A finish that the store does not have (refused, or lost with the server) is kept by the worker
 * alone until ACK, which check_ack() allows only for what is settled. The server may be down, and
 * its lanes gone. Other durabilities promise no more than truth_server_died() knows.
 */
static bool only_doer_knows(const struct sim *sim, const struct sub *sub, int node)
{
    return sub->doer_life == sim->nodes[node].life && sub->doer == node &&
           settled_on_disk(sim, sub) && !disk_ended(&sim->disk, sub->id);
}

void truth_worker_faulty(struct sim *sim, int node)
{
    struct node *n = &sim->nodes[node];
    for (size_t i = 0; i < n->run_count; i++)
        n->runs[i].sub->may_repeat = true;
    for (size_t i = 0; i < sim->sub_count; i++) {
        if (only_doer_knows(sim, &sim->subs[i], node))
            sim->subs[i].may_repeat = true;
    }
    for (size_t i = 0; i < sim->server.lane_count; i++) {
        const struct lane *lane = &sim->server.lanes[i];
        for (size_t k = 0; lane->node == node && k < lane->task_count; k++) {
            struct sub *sub = truth_by_id(sim, lane->tasks[k].id);
            if (sub)
                sub->may_repeat = true;
        }
    }
}

/* The server said that it is, in this life; what it had not stored by its death is forgotten. */
void truth_cancelled(struct sim *sim, struct sub *sub)
{
    sub->cancel_life = sim->server.life;
}

/* An async submission was accepted before the store refused it: it lives in memory only. */
void truth_unstored(struct sim *sim, const struct store_op *op)
{
    struct sub *sub = op->kind == STORE_APPEND ? truth_by_id(sim, op->record->id) : NULL;
    if (sub && op->async)
        sub->excused = true;
}

void truth_purged(struct sim *sim, struct slice queue)
{
    for (size_t i = 0; i < sim->sub_count; i++) {
        struct sub *sub = &sim->subs[i];
        if (sub->sent && slice_equal(queue, slice_str(truth_queue(sub->queue))))
            sub->purging = true;
    }
}

/* A worker with a slot that has been idle since then; UINT64_MAX: none that serves the queue. */
static uint64_t idle_since(const struct sim *sim, const struct lane *lane, const struct sub *sub)
{
    const struct node *n = &sim->nodes[lane->node];
    struct slice queue = slice_str(truth_queue(sub->queue));
    bool serves = false;
    if (!lane->ready || !lane->open || n->run_count >= n->slots)
        return UINT64_MAX;
    for (size_t i = 0; i < n->queue_count; i++)
        serves = serves || name_matches(slice_str(n->queues[i]), queue);
    if (!serves)
        return UINT64_MAX;
    uint64_t recorded = lane->ready_ns + 3 * sim->plan.commit_ns; /* nothing before that */
    return recorded > n->changed_ns ? recorded : n->changed_ns;
}

/*
 * How long it may lie in the store: a fetch brings a window's worth of what comes before it, and
 * waits for the commit on its way, its own, and one that was late.
 */
static uint64_t fetching_ns(const struct sim *sim, const struct sub *sub)
{
    uint64_t before = 0;
    if (!sim->plan.window)
        return 0;
    for (size_t i = 0; i < sim->sub_count; i++) {
        const struct sub *other = &sim->subs[i];
        before += other->accepted && other->queue == sub->queue && more_urgent(other, sub);
    }
    return 3 * sim->plan.commit_ns * (1 + before / sim->plan.window);
}

/*
 * In true state, of calm runs: no slot stays idle beside a task that it could run for longer than
 * it takes to ask the task back from another lane (a millisecond, and three messages) and a tick.
 */
void truth_idle(struct sim *sim)
{
    if (!sim->plan.calm || sim->plan.big || sim->plan.lane_bytes)
        return;
    for (size_t i = 0; i < sim->sub_count; i++) {
        const struct sub *sub = &sim->subs[i];
        if (!sub->accepted || sub->executions)
            continue;
        uint64_t bound = 4 * sim->plan.delay_ns + 5 * MS + fetching_ns(sim, sub);
        if (sub->accepted_ns + bound > sim->now.mono_ns)
            continue;
        for (size_t k = 0; k < sim->server.lane_count; k++) {
            uint64_t since = idle_since(sim, &sim->server.lanes[k], sub);
            SIM_CHECK(sim, since == UINT64_MAX || since + bound > sim->now.mono_ns,
                "task %llu waits, while %s has an idle slot", (unsigned long long)sub->id,
                sim->nodes[sim->server.lanes[k].node].name);
        }
    }
}

/* Only what has ended, and is wanted by nobody any more, may be forgotten. */
void truth_unknown(struct sim *sim, struct sub *sub)
{
    bool over = disk_saw_end(&sim->disk, sub->id) || sub->status || truth_gone(sim, sub) ||
                sim->plan.durability[sub->queue] == DURABILITY_MEMORY;
    bool kept = sub->status && settled_on_disk(sim, sub) &&
                sim->wall_most < sub->ended_ms + sub->options.keep_ms;
    bool gone = truth_gone(sim, sub);
    SIM_CHECK(sim, gone || !kept, "STATUS does not find task %llu, which is kept",
        (unsigned long long)sub->id);
    SIM_CHECK(sim, gone || (over && (sub->received || sub->follow == FOLLOW_NONE)),
        "LOST: STATUS does not find task %llu", (unsigned long long)sub->id);
}

/* ---- the end ---- */

bool truth_wanted(const struct sub *sub)
{
    return sub->known && sub->follow != FOLLOW_NONE && !sub->received;
}

static const char *unsettled(struct sim *sim, const struct sub *sub)
{
    if (sub->running)
        return "still runs";
    if (sub->id && disk_keeps(&sim->disk, sub->id))
        return "still lies in the store"; /* also what was replayed, or purged too late */
    if (sub->sent && !sub->accepted && !sub->rejected &&
        sub->conn == sim->clients[sub->client].conn)
        return "was never answered";
    if (!sub->accepted)
        return NULL;
    if (truth_wanted(sub))
        return "has a client that waits for its finish";
    bool stored = sim->plan.durability[sub->queue] != DURABILITY_MEMORY && !sub->excused;
    if (stored && !disk_ended(&sim->disk, sub->id) && !truth_was_purged(sim, sub))
        return "did not end";
    return NULL;
}

bool truth_settled(struct sim *sim)
{
    for (size_t i = 0; i < sim->sub_count; i++) {
        if (unsettled(sim, &sim->subs[i]))
            return false;
    }
    return !odd_waits(sim);
}

void truth_final(struct sim *sim)
{
    for (size_t i = 0; i < sim->sub_count; i++) {
        const char *why = unsettled(sim, &sim->subs[i]);
        SIM_CHECK(sim, !why, "task %llu (request %zu, queue %s) %s",
            (unsigned long long)sim->subs[i].id, i + 1, truth_queue(sim->subs[i].queue), why);
    }
    SIM_CHECK(sim, !odd_waits(sim), "WAIT %llx was granted, and never told of a finish",
        (unsigned long long)odd_waits(sim));
}
