/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What follows an attempt that did not end the task: a retry after a backoff, a place among the
 * dead, or the queue again at no cost; and what is remembered of it (text, history).
 */
#include <assert.h>
#include <stdlib.h>
#include "server/core/verbs.h"

#define HISTORY_MAX  20u   /* deaths and failures that a task remembers */
#define HISTORY_TEXT 1024u /* bytes of each one's text */

void task_set_text(struct task *t, struct slice text)
{
    size_t size = text.size < PUSHROD_MAX_ERROR_TEXT ? text.size : PUSHROD_MAX_ERROR_TEXT;
    free(t->text);
    t->text = size ? malloc(size + 1) : NULL;
    if (!t->text)
        return;
    assert(text.data);
    memcpy(t->text, text.data, size);
    t->text[size] = '\0';
}

/* ---- history: what became of earlier attempts ---- */

static void history_forget_oldest(struct rare *rare)
{
    struct dec d = dec_of(buf_slice(&rare->history));
    struct msg_death death;
    dec_message(&d);
    msg_death_decode(&d, &death);
    assert(!dec_failed(&d));
    buf_consume(&rare->history, (size_t)(d.at - rare->history.data));
    rare->history_count--;
}

void history_add(struct core *c, struct task *t, const struct msg_death *death)
{
    struct rare *rare = task_rare(t);
    if (!rare || rare->history.failed)
        return;
    assert(rare->history_count <= HISTORY_MAX);
    if (rare->history_count == HISTORY_MAX)
        history_forget_oldest(rare);
    struct msg_death entry = *death;
    if (entry.text.size > HISTORY_TEXT)
        entry.text.size = HISTORY_TEXT;
    entry.at_ms = c->now.wall_ms;
    msg_death_encode(&rare->history, &entry);
    if (!rare->history.failed)
        rare->history_count++;
}

/* As an array, for the store and for rows. Lives until the next tick. */
struct slice history_array(struct core *c, const struct task *t)
{
    const struct rare *rare = t->rare;
    if (!rare || !rare->history_count)
        return (struct slice){0};
    struct buf array = BUF_EMPTY;
    enc_array(&array, rare->history_count);
    buf_append(&array, rare->history.data, rare->history.size);
    struct slice copy = array.failed ? (struct slice){0} : arena_slice(c, buf_slice(&array));
    assert(array.failed || copy.size == array.size || !copy.data);
    buf_free(&array);
    return copy;
}

/* ---- another attempt, or none ---- */

/* Full jitter: anywhere between now and the exponential bound, so that failures spread out. */
static uint64_t backoff_ms(struct core *c, const struct task *t)
{
    uint64_t bound = t->record.backoff_ms;
    for (unsigned i = 1; i < t->record.attempts && bound < BACKOFF_CAP_MS; i++)
        bound *= 2;
    if (bound > BACKOFF_CAP_MS)
        bound = BACKOFF_CAP_MS;
    assert(bound <= BACKOFF_CAP_MS);
    return 1 + core_random(c, bound + 1);
}

/* Asks the store to change what it has: attempts, deaths, due time. */
void task_reschedule(struct core *c, struct task *t, bool windowed)
{
    assert(!t->queue->bypass);
    struct record *r = arena_alloc(c, sizeof *r);
    struct store_op *op = r ? out_store(c, STORE_RESCHEDULE, t->slot) : NULL;
    if (!op)
        return;
    t->record.windowed = windowed;
    task_record(t, r);
    r->history = history_array(c, t);
    op->record = r;
    op->async = t->queue->durability == DURABILITY_ASYNC;
    t->operations++;
}

static void retry_at(struct core *c, struct task *t, uint64_t delay_ms)
{
    assert(delay_ms > 0);
    if (task_only_here(t)) {
        task_delay(c, t, c->now.mono_ns + delay_ms * MS);
        return;
    }
    t->record.due_ms = c->now.wall_ms + delay_ms;
    task_move(c, t, TASK_MOVING);
    task_reschedule(c, t, false);
}

static void tell_attempt(
    struct core *c, struct task *t, uint32_t code, struct slice worker, uint64_t retry_ms)
{
    assert(t->record.id != 0);
    struct msg_attempt row = {.id = t->record.id,
        .attempt = t->hand_overs,
        .code = code,
        .text = arena_slice(c, slice_str(t->text)),
        .worker = arena_slice(c, worker),
        .retry_ms = retry_ms};
    if (t->followers)
        follow_tell(c, t, MSG_ATTEMPT, &row, sizeof row);
    watch_event(c, "attempt-failed", t->record.id, worker, t->queue->name, t->text);
}

/* An attempt that failed counts, and the next one comes after its backoff, or when the worker says.
 */
void attempt_over(struct core *c, struct task *t, uint32_t code, struct slice text, bool permanent,
    uint64_t retry_ms)
{
    assert(!task_ended(t));
    struct slice worker = t->worker ? t->worker->name : (struct slice){0};
    t->record.attempts++;
    t->code = (uint16_t)code;
    task_set_text(t, text);
    c->stats.attempts_failed++;
    t->queue->failed++;
    history_add(c, t,
        &(struct msg_death){
            .attempt = t->hand_overs, .code = code, .worker = worker, .text = text});
    bool last = permanent || t->record.attempts >= t->record.max_attempts;
    if (!last && !retry_ms)
        retry_ms = backoff_ms(c, t);
    retry_ms = earlier(retry_ms, FAR_MS);
    tell_attempt(c, t, code, worker, last ? 0 : retry_ms);
    if (t->cancelling)
        task_finish(c, t, PUSHROD_CANCELLED, PUSHROD_E_TASK_CANCELLED);
    else if (last)
        task_finish(c, t, PUSHROD_FAILED, (int)code);
    else
        retry_at(c, t, retry_ms);
}

/* From the store, which said that its time is over. */
void task_expire(struct core *c, struct task *t)
{
    assert(t->state == TASK_STORING && t->operations == 0);
    task_move(c, t, TASK_HELD);
    task_finish(c, t, PUSHROD_EXPIRED, PUSHROD_E_TASK_EXPIRED);
}

/* Given back, or taken from a worker that is gone: the attempt did not count. */
void task_requeue(struct core *c, struct task *t)
{
    assert(!task_ended(t));
    const struct rare *rare = t->rare;
    t->record.due_ms = 0;
    if (t->state == TASK_STORING)
        task_move(c, t, TASK_HELD); /* it comes from the store, and may have to end at once */
    if (t->cancelling)
        task_finish(c, t, PUSHROD_CANCELLED, PUSHROD_E_TASK_CANCELLED);
    else if (rare && rare->expires_ms && rare->expires_ms <= c->now.wall_ms)
        task_finish(c, t, PUSHROD_EXPIRED, PUSHROD_E_TASK_EXPIRED);
    else
        task_move(c, t, TASK_READY);
}
