/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/bell.h"
#include "common/clock.h"
#include "common/name.h"
#include "common/utf8.h"
#include "worker/run_impl.h"

/* What a task that ended keeps of its buffers for the next one. */
#define SPARE_BYTES 65536u
/* Bytes of PROGRESS and DATA beyond which a handler has to wait until they were sent. */
#define REPORTED_MOST ((size_t)4 << 20)
/* How often one that waits looks whether it should still. */
#define LOOK_NS UINT64_C(20000000)

const struct run_config *run_settings(const struct run *run)
{
    return &run->config;
}

int run_fd(const struct run *run)
{
    return run->fd;
}

/* --------------------------------------------------------------------- reports */

/* Many threads push, one takes all: no report can be seen twice, so there is no ABA problem. Only
 * the one that finds the stack empty wakes the owner; a slot's thread that leads comes to it by
 * itself. */
static void report_push(struct run *run, struct report *report)
{
    struct report *top = atomic_load_explicit(&run->reports, memory_order_relaxed);
    do {
        report->next = top;
    } while (!atomic_compare_exchange_weak_explicit(
        &run->reports, &top, report, memory_order_release, memory_order_relaxed));
    if (!top && !lead_is_slots(run))
        bell_ring(run->fd);
}

bool run_has_reports(const struct run *run)
{
    return atomic_load_explicit(&run->reports, memory_order_relaxed);
}

void run_quiet(struct run *run)
{
    bell_quiet(run->fd);
}

void slot_quiet(struct slot *slot)
{
    bell_quiet(slot->wake);
}

struct report *run_take(struct run *run)
{
    if (!atomic_load_explicit(&run->reports, memory_order_relaxed))
        return NULL;
    struct report *newest = atomic_exchange_explicit(&run->reports, NULL, memory_order_acquire);
    struct report *oldest = NULL;
    while (newest) {
        struct report *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    return oldest;
}

static size_t report_bytes(size_t size)
{
    return sizeof(struct report) + size;
}

static bool has_room(struct run *run)
{
    return atomic_load(&run->reported) + atomic_load(&run->emitted) < REPORTED_MOST;
}

void run_release(struct run *run, struct report *report)
{
    struct pushrod_task *task = report->task;
    if (!task) {
        bool full = !has_room(run);
        atomic_fetch_sub(&run->reported, report_bytes(report->size));
        if (full && has_room(run))
            pthread_cond_broadcast(&run->room);
        free(report);
        return;
    }
    assert(task->attempt && run->given > 0);
    run->given--;
    run->last_ns = task->run_ns;
    task->attempt = NULL;
    buf_recycle(&task->result, SPARE_BYTES);
    buf_recycle(&task->text, SPARE_BYTES);
    buf_recycle(&task->scratch, SPARE_BYTES);
    task->next = run->spare;
    run->spare = task;
}

static bool is_over(struct pushrod_task *task)
{
    return atomic_load(&task->run->stopping) || atomic_load(&task->cancelled) ||
           clock_mono_ns() >= atomic_load(&task->deadline_ns);
}

void run_emitted(struct run *run, size_t bytes)
{
    size_t had = atomic_exchange(&run->emitted, bytes);
    if (bytes < had)
        pthread_cond_broadcast(&run->room);
}

/* A server that does not take what a handler emits must not fill our memory. False: the attempt is
 * over before there is room. */
static bool wait_room(struct pushrod_task *task)
{
    struct run *run = task->run;
    bool room;
    pthread_mutex_lock(&run->lock);
    while (!(room = has_room(run)) && !is_over(task)) {
        struct timespec until = clock_timespec(clock_mono_ns() + LOOK_NS);
        pthread_cond_timedwait(&run->room, &run->lock, &until);
    }
    pthread_mutex_unlock(&run->lock);
    return room;
}

int attempt_report(struct pushrod_task *task, enum report_kind kind, uint64_t done, uint64_t total,
    const void *data, size_t size)
{
    struct run *run = task->run;
    if (kind == REPORT_PROGRESS && size > PUSHROD_MAX_ERROR_TEXT)
        size = PUSHROD_MAX_ERROR_TEXT;
    bool room = has_room(run);
    if (!room && kind == REPORT_PROGRESS)
        return 0; /* there will be more of it */
    if (!room && !wait_room(task))
        return -PUSHROD_E_TASK_CANCELLED;
    struct report *r = malloc(sizeof *r + size);
    if (!r)
        return -PUSHROD_E_NO_MEMORY;
    *r = (struct report){
        .kind = kind, .lease = task->attempt->lease, .done = done, .total = total, .size = size};
    if (size)
        memcpy(r->data, data, size);
    if (kind == REPORT_PROGRESS)
        utf8_repair(r->data, size);
    atomic_fetch_add(&run->reported, report_bytes(size));
    report_push(run, r);
    return 0;
}

void attempt_fail(
    struct pushrod_task *task, enum pushrod_error code, bool permanent, const char *format, ...)
{
    char text[PUSHROD_MAX_ERROR_TEXT + 1];
    va_list args;
    va_start(args, format);
    int size = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    size_t kept = size < 0 ? 0 : (size_t)size;
    kept = kept < sizeof text ? kept : sizeof text - 1;
    /* A client that decodes strictly would fail over the text of a stranger's handler. */
    utf8_repair(text, kept);
    buf_clear(&task->text);
    buf_append(&task->text, text, kept);
    task->failed = true;
    task->failure.code = code;
    task->failure.permanent = permanent;
}

void attempt_fail_late(struct pushrod_task *task, const char *hint)
{
    uint64_t timeout_ns = atomic_load(&task->deadline_ns) - task->begin_ns;
    attempt_fail(task, PUSHROD_E_TASK_TIMEOUT, false,
        "the attempt took longer than its timeout of %llu ms%s",
        (unsigned long long)(timeout_ns / NS_PER_MS), hint);
}

void attempt_fail_start(struct pushrod_task *task, int why)
{
    attempt_fail(task, PUSHROD_E_TASK_FAILED, false, "cannot start a process: %s", strerror(why));
    task->failure.retry_ms = 1000;
}

void attempt_fail_too_big(struct pushrod_task *task)
{
    attempt_fail(task, PUSHROD_E_RESULT_TOO_BIG, true,
        "the result is larger than max-result (%zu bytes)", task->run->config.max_result);
}

int attempt_wait_ms(uint64_t until_ns)
{
    return clock_wait_ms(clock_mono_ns(), until_ns);
}

/* ----------------------------------------------------------------- slot threads */

static struct pushrod_task *queue_take(struct run *run)
{
    struct pushrod_task *task = run->head;
    assert(task->queued);
    run->head = task->next;
    if (!run->head)
        run->tail = &run->head;
    task->queued = false;
    return task;
}

/*
 * The next attempt; NULL: the runner ends. While there is none this thread leads, or it sleeps.
 * *now_ns: when the last one ended, 0 at first; then when this one begins. One reading of the clock
 * for each: where one ends, the next begins, if it was there already.
 */
static struct pushrod_task *queue_pop(struct run *run, uint64_t *now_ns)
{
    struct pushrod_task *task = NULL;
    pthread_mutex_lock(&run->lock);
    while (!task && !atomic_load(&run->stopping)) {
        if (lead_is_due(run, *now_ns)) {
            lead_step(run, !run->head);
            *now_ns = run->lead.stepped_ns;
        } else if (run->head) {
            task = queue_take(run);
        } else {
            run->sleepers++;
            pthread_cond_wait(&run->more, &run->lock);
            run->sleepers--;
            *now_ns = 0;
        }
    }
    if (task) {
        task->begin_ns = *now_ns ? *now_ns : clock_mono_ns();
        lead_begin(run, task->begin_ns);
    }
    pthread_mutex_unlock(&run->lock);
    return task;
}

static struct handler *handler_of(const struct run *run, struct slice queue)
{
    struct handler *best = NULL;
    unsigned best_rank = 0;
    for (size_t i = 0; i < run->config.handler_count; i++) {
        struct handler *h = &run->config.handlers[i];
        struct slice pattern = slice_str(h->pattern);
        if (!name_matches(pattern, queue))
            continue;
        if (!best || name_specificity(pattern) > best_rank) {
            best = h;
            best_rank = name_specificity(pattern);
        }
    }
    return best;
}

/* A worker with one queue, or one after the other from the same: the last answer is the next. */
static struct handler *handler_find(const struct run *run, struct slice queue, struct handler *last)
{
    if (last && slice_equal(slice_str(last->pattern), queue))
        return last;
    return handler_of(run, queue);
}

static uint64_t deadline_of(const struct run *run, const struct pushrod_task *task)
{
    uint64_t ms = task->attempt->timeout_ms;
    if (!ms && task->handler->ops->interruptible)
        ms = run->config.timeout_ms;
    return ms ? clock_after_ms(task->begin_ns, ms) : UINT64_MAX;
}

static void task_run(struct slot *slot, struct pushrod_task *task)
{
    atomic_store_explicit(&task->deadline_ns, deadline_of(slot->run, task), memory_order_relaxed);
    atomic_store_explicit(&slot->task, task, memory_order_release);
    if (atomic_load(&task->cancelled))
        attempt_fail(task, PUSHROD_E_TASK_CANCELLED, true, "cancelled before it began");
    else
        task->handler->ops->run(slot, task);
    atomic_store_explicit(&slot->task, NULL, memory_order_release);
}

static void task_end(struct pushrod_task *task)
{
    struct report *r = &task->report;
    if (!task->failed && task->result.failed)
        attempt_fail(task, PUSHROD_E_NO_MEMORY, false, "no memory for the result");
    if (!task->failed && !atomic_load_explicit(&task->handler->worked, memory_order_relaxed))
        atomic_store(&task->handler->worked, true);
    r->kind = !task->failed                                    ? REPORT_DONE
              : task->failure.code == PUSHROD_E_HANDLER_BROKEN ? REPORT_BROKEN
                                                               : REPORT_FAILED;
    task->failure.text = buf_slice(&task->text);
    report_push(task->run, r);
}

static void slot_fini(struct slot *slot)
{
    const struct run_config *c = &slot->run->config;
    for (size_t i = 0; i < c->handler_count; i++) {
        if (slot->state[i])
            c->handlers[i].ops->slot_leave(slot->state[i]);
    }
    for (size_t i = 0; i < c->handler_count; i++) {
        if (slot->state[i])
            c->handlers[i].ops->slot_close(slot->state[i], slot->run->stop_ns);
    }
}

void *run_slot_main(void *arg)
{
    struct slot *slot = arg;
    struct run *run = slot->run;
    struct handler *last = NULL;
    struct pushrod_task *task;
    uint64_t now_ns = 0;
    while ((task = queue_pop(run, &now_ns))) {
        task->handler = last = handler_find(run, task->attempt->queue, last);
        if (last)
            task_run(slot, task);
        else
            attempt_fail(task, PUSHROD_E_HANDLER_BROKEN, false, "no handler serves this queue");
        now_ns = clock_mono_ns();
        task->run_ns = now_ns - task->begin_ns;
        task_end(task);
    }
    slot_fini(slot);
    atomic_fetch_sub(&run->running, 1);
    bell_ring(run->fd);
    return NULL;
}

/* -------------------------------------------------------------------- the owner */

static struct pushrod_task *task_take(struct run *run, const struct attempt *attempt)
{
    struct pushrod_task *task = run->spare;
    assert(task); /* never more than slots + ahead are handed in */
    run->spare = task->next;
    task->next = NULL;
    task->attempt = attempt;
    task->handler = NULL;
    task->failed = false;
    task->failure = (struct attempt_failure){0};
    task->queued = true;
    task->report.lease = attempt->lease;
    atomic_store_explicit(&task->cancelled, false, memory_order_relaxed);
    atomic_store_explicit(&task->deadline_ns, UINT64_MAX, memory_order_relaxed);
    return task;
}

void run_start(struct run *run, const struct attempt *const *attempts, size_t count)
{
    struct pushrod_task *head = NULL;
    struct pushrod_task **tail = &head;
    for (size_t i = 0; i < count; i++) {
        *tail = task_take(run, attempts[i]);
        tail = &(*tail)->next;
    }
    if (!head)
        return;
    run->given += count;
    pthread_mutex_lock(&run->lock);
    *run->tail = head;
    run->tail = tail;
    unsigned wake = run->sleepers;
    pthread_mutex_unlock(&run->lock);
    for (size_t i = 0; i < count && i < wake; i++)
        pthread_cond_signal(&run->more);
}

static struct pushrod_task *task_by_lease(const struct run *run, uint64_t lease)
{
    for (size_t i = 0; i < run->task_count; i++) {
        struct pushrod_task *task = &run->tasks[i];
        if (task->attempt && task->attempt->lease == lease)
            return task;
    }
    return NULL;
}

bool run_revoke(struct run *run, uint64_t lease)
{
    struct pushrod_task *task = task_by_lease(run, lease);
    if (!task)
        return false;
    pthread_mutex_lock(&run->lock);
    bool queued = task->queued;
    struct pushrod_task **link = &run->head;
    while (queued && *link != task)
        link = &(*link)->next;
    if (queued) {
        *link = task->next;
        if (!task->next)
            run->tail = link;
        task->queued = false;
    }
    pthread_mutex_unlock(&run->lock);
    if (queued)
        run_release(run, &task->report);
    return queued;
}

static void wake_slots(struct run *run)
{
    for (unsigned i = 0; i < run->config.slots; i++)
        bell_ring(run->threads[i].slot.wake);
}

void run_cancel(struct run *run, uint64_t lease)
{
    struct pushrod_task *task = task_by_lease(run, lease);
    if (!task)
        return;
    atomic_store(&task->cancelled, true);
    /* Which slot has it, nobody needs to know: the others look, and go on. */
    wake_slots(run);
}

void run_cancel_all(struct run *run)
{
    for (size_t i = 0; i < run->task_count; i++) {
        if (run->tasks[i].attempt)
            atomic_store(&run->tasks[i].cancelled, true);
    }
    wake_slots(run);
}

static uint64_t watched_deadline(const struct thread *t, struct pushrod_task **task)
{
    *task = atomic_load_explicit(&t->slot.task, memory_order_acquire);
    if (!*task || (*task)->handler->ops->interruptible)
        return UINT64_MAX;
    return atomic_load_explicit(&(*task)->deadline_ns, memory_order_relaxed);
}

uint64_t run_overdue(struct run *run, uint64_t now_ns, uint64_t *run_ns)
{
    for (unsigned i = 0; i < run->config.slots; i++) {
        struct pushrod_task *task;
        uint64_t deadline = watched_deadline(&run->threads[i], &task);
        uint64_t grace = run->config.grace_ms * NS_PER_MS;
        if (deadline == UINT64_MAX || now_ns < deadline || now_ns - deadline < grace)
            continue;
        *run_ns = now_ns - task->begin_ns;
        return task->attempt->lease;
    }
    return 0;
}

bool run_watched(const struct run *run)
{
    for (unsigned i = 0; i < run->config.slots; i++) {
        struct pushrod_task *task;
        if (watched_deadline(&run->threads[i], &task) != UINT64_MAX)
            return true;
    }
    return false;
}
