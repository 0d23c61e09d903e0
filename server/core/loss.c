/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What became of a worker that was lost. Its process died if an obituary says so, or if its
 * connection went down and it has not joined again within rejoin_wait. A fence, a drain or a
 * partition that mends is no death. Redelivery waits for none of this; only a task that would be
 * dead with one death more does (leave.c).
 */
#include <assert.h>
#include <stdlib.h>
#include "server/core/verbs.h"

#define LOSS_KEEP (10000 * MS) /* an obituary waits so long for the loss that it belongs to */

static struct loss *loss_find(const struct core *c, const uint8_t instance[INSTANCE_SIZE])
{
    struct loss *loss = c->losses;
    assert(instance);
    while (loss && memcmp(loss->instance, instance, INSTANCE_SIZE) != 0)
        loss = loss->next;
    return loss;
}

static void loss_drop(struct core *c, struct loss *loss)
{
    struct loss **at = &c->losses;
    while (*at != loss) {
        assert(*at);
        at = &(*at)->next;
    }
    *at = loss->next;
    heap_remove(&c->by_mono, &loss->timer);
    free(loss);
}

/* It is judged, or forgotten, after `wait_ns`. */
static struct loss *loss_new(struct core *c, const uint8_t instance[INSTANCE_SIZE], size_t count,
    size_t name, uint64_t wait_ns)
{
    struct loss *loss = calloc(1, sizeof *loss + count * sizeof loss->suspects[0] + name + 1);
    if (!loss || !timer_loss(c, loss, c->now.mono_ns + wait_ns)) {
        free(loss);
        return NULL;
    }
    memcpy(loss->instance, instance, INSTANCE_SIZE);
    loss->next = c->losses;
    c->losses = loss;
    assert(loss_find(c, instance) == loss);
    return loss;
}

/* ---- a death is counted ---- */

static const char *death_text(struct core *c, const struct loss *loss)
{
    const struct msg_obituary *o = &loss->obituary;
    assert(loss->lost);
    if (!loss->known)
        return "the worker was lost while it ran the task, and did not come back";
    if (o->signal)
        return arena_text(c, "the worker process was killed by signal %u while it ran the task",
            (unsigned)o->signal);
    return arena_text(
        c, "the worker process exited with %u while it ran the task", (unsigned)o->exit_code);
}

static void death_count(
    struct core *c, struct task *t, const struct loss *loss, unsigned attempt, const char *text)
{
    const struct msg_obituary *o = &loss->obituary;
    assert(!task_ended(t));
    history_add(c, t,
        &(struct msg_death){.attempt = attempt,
            .code = PUSHROD_E_TASK_CRASHED,
            .worker = slice_str(loss->name),
            .signal = o->signal,
            .exit_code = o->exit_code,
            .peak_kib = o->peak_kib,
            .text = slice_str(text)});
    t->code = PUSHROD_E_TASK_CRASHED;
    task_set_text(t, slice_str(text));
    if (loss->alone)
        t->record.deaths++;
    bool waits = t->state == TASK_DELAYED && t->record.suspect;
    if (t->record.deaths >= c->config.poison_limit && t->state != TASK_LEASED) {
        task_finish(c, t, PUSHROD_FAILED, PUSHROD_E_TASK_POISON);
        return;
    }
    if (loss->alone && !task_only_here(t))
        task_reschedule(c, t, true);
    if (waits)
        task_requeue(c, t);
}

static void loss_is_death(struct core *c, struct loss *loss)
{
    const char *text = death_text(c, loss);
    assert(loss->lost);
    for (size_t i = 0; i < loss->count; i++) {
        const struct suspect *s = &loss->suspects[i];
        struct task *t = ledger_find(&c->ledger, s->id);
        if (t && !task_ended(t) && t->state != TASK_STORING)
            death_count(c, t, loss, s->attempt, text);
    }
    worker_off_record(c, loss->instance);
    loss_drop(c, loss);
}

/* ---- what is heard of it ---- */

void loss_add(struct core *c, const struct worker *w, const struct lost *lost)
{
    struct loss *before = loss_find(c, w->instance);
    size_t count = lost->suspects;
    assert(count == 0 || (lost->ids && lost->cut));
    struct loss *loss = loss_new(
        c, w->instance, count, w->name.size, lost->cut ? c->config.rejoin_wait_ms * MS : LOSS_KEEP);
    if (!loss)
        return;
    if (before && before->known) {
        loss->known = true;
        loss->obituary = before->obituary;
        loss->obituary.instance = (struct slice){0};
    }
    if (before)
        loss_drop(c, before);
    memcpy(loss->suspects + count, w->name.data, w->name.size);
    loss->name = (char *)(loss->suspects + count);
    loss->lost = true;
    loss->cut = lost->cut;
    loss->alone = lost->alone;
    loss->count = count;
    for (size_t i = 0; i < count; i++) {
        const struct task *t = ledger_find(&c->ledger, lost->ids[i]);
        loss->suspects[i] = (struct suspect){lost->ids[i], t ? t->hand_overs : 0};
    }
    if (loss->known)
        loss_is_death(c, loss);
}

void core_obituary(struct core *c, const struct msg_obituary *o)
{
    if (o->instance.size != INSTANCE_SIZE)
        return;
    struct loss *loss = loss_find(c, o->instance.data);
    bool lost = loss && loss->lost;
    /* Anybody can send any number of them: one is kept only of a process that is joined. */
    if (!loss && worker_by_instance(c, o->instance.data))
        loss = loss_new(c, o->instance.data, 0, 0, LOSS_KEEP);
    if (!loss)
        return;
    loss->known = true;
    loss->obituary = *o;
    loss->obituary.instance = (struct slice){0};
    assert(lost || loss->count == 0);
    if (lost)
        loss_is_death(c, loss);
}

/* It lives: what it ran is suspected no longer for this. */
void loss_rejoined(struct core *c, const uint8_t instance[INSTANCE_SIZE])
{
    struct loss *loss = loss_find(c, instance);
    if (!loss)
        return;
    for (size_t i = 0; i < loss->count; i++) {
        struct task *t = ledger_find(&c->ledger, loss->suspects[i].id);
        assert(!t || t->record.id == loss->suspects[i].id);
        if (t && t->state == TASK_DELAYED && t->record.suspect)
            task_requeue(c, t);
    }
    loss_drop(c, loss);
}

/* It did not come back in time, or nothing more was heard of it. */
void loss_expire(struct core *c, struct loss *loss)
{
    assert(!heap_holds(&loss->timer));
    if (loss->lost && loss->cut) {
        loss_is_death(c, loss);
        return;
    }
    if (loss->lost) /* else it was of an obituary, and its process is still here */
        worker_off_record(c, loss->instance);
    loss_drop(c, loss);
}

void loss_free(struct core *c)
{
    while (c->losses)
        loss_drop(c, c->losses);
    assert(!c->losses);
}
