/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "common/bell.h"
#include "common/clock.h"
#include "worker/run_impl.h"

static bool tasks_new(struct run *run)
{
    run->task_count = (size_t)run->config.slots + run->config.ahead;
    run->tasks = calloc(run->task_count, sizeof *run->tasks);
    for (size_t i = 0; run->tasks && i < run->task_count; i++) {
        struct pushrod_task *task = &run->tasks[i];
        task->run = run;
        task->report.task = task;
        task->next = run->spare;
        run->spare = task;
    }
    return run->tasks != NULL;
}

static bool slot_new(struct run *run, struct thread *t)
{
    t->slot = (struct slot){.run = run};
    t->slot.state = calloc(run->config.handler_count + 1, sizeof *t->slot.state);
    t->slot.wake = bell_new();
    if (!t->slot.state || t->slot.wake < 0)
        return false;
    atomic_fetch_add(&run->running, 1);
    t->started = pthread_create(&t->thread, NULL, run_slot_main, &t->slot) == 0;
    if (!t->started)
        atomic_fetch_sub(&run->running, 1);
    return t->started;
}

/* Signals are the business of the program's own threads; SIGPIPE of a handler that does not read
 * comes back as EPIPE. */
static bool slots_new(struct run *run)
{
    run->threads = calloc(run->config.slots, sizeof *run->threads);
    if (!run->threads)
        return false;
    for (unsigned i = 0; i < run->config.slots; i++)
        run->threads[i].slot.wake = -1;
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    bool ok = true;
    for (unsigned i = 0; i < run->config.slots && ok; i++)
        ok = slot_new(run, &run->threads[i]);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return ok;
}

/* Who waits for room looks up now and then, whatever becomes of the wall clock. */
static void lock_init(struct run *run)
{
    pthread_condattr_t monotonic;
    pthread_mutex_init(&run->lock, NULL);
    pthread_cond_init(&run->more, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&run->room, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

struct run *run_new(const struct run_config *config)
{
    assert(config->slots == 1 || (config->slots > 0 && !config->step));
    struct run *run = calloc(1, sizeof *run);
    if (!run)
        return NULL;
    run->config = *config;
    run->config.grace_ms = config->grace_ms ? config->grace_ms : 2000;
    run->config.exit_ms = config->exit_ms ? config->exit_ms : 100;
    run->config.max_result = config->max_result ? config->max_result : PUSHROD_MAX_PAYLOAD;
    run->tail = &run->head;
    lock_init(run);
    run->fd = bell_new();
    run->lead.relief = bell_new();
    run->lead.timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (run->fd >= 0 && run->lead.relief >= 0 && run->lead.timer >= 0 && tasks_new(run) &&
        slots_new(run))
        return run;
    run_free(run, UINT64_MAX / NS_PER_MS);
    return NULL;
}

/* A thread that ends signals the descriptor. */
static bool wait_threads(struct run *run, uint64_t wait_ms)
{
    uint64_t begin_ns = clock_mono_ns();
    while (atomic_load(&run->running)) {
        uint64_t spent_ms = (clock_mono_ns() - begin_ns) / NS_PER_MS;
        if (spent_ms >= wait_ms)
            return false;
        uint64_t left_ms = wait_ms - spent_ms;
        struct pollfd p = {.fd = run->fd, .events = POLLIN};
        poll(&p, 1, left_ms > 1000 ? 1000 : (int)left_ms);
        run_quiet(run);
    }
    return true;
}

static void tasks_free(struct run *run)
{
    for (struct report *r = run_take(run), *next; r; r = next) {
        next = r->next;
        if (!r->task)
            free(r);
    }
    for (size_t i = 0; run->tasks && i < run->task_count; i++) {
        buf_free(&run->tasks[i].result);
        buf_free(&run->tasks[i].text);
        buf_free(&run->tasks[i].scratch);
    }
    free(run->tasks);
}

static void slots_free(struct run *run)
{
    for (unsigned i = 0; run->threads && i < run->config.slots; i++) {
        struct thread *t = &run->threads[i];
        if (t->started)
            pthread_join(t->thread, NULL);
        if (t->slot.wake >= 0)
            close(t->slot.wake);
        free(t->slot.state);
    }
    free(run->threads);
}

static void run_stop(struct run *run)
{
    pthread_mutex_lock(&run->lock);
    run->stop_ns = clock_mono_ns() + run->config.grace_ms * NS_PER_MS;
    atomic_store(&run->stopping, true);
    pthread_cond_broadcast(&run->more);
    pthread_mutex_unlock(&run->lock);
    if (run->threads)
        run_cancel_all(run);
}

bool run_free(struct run *run, uint64_t wait_ms)
{
    if (!run)
        return true;
    run_stop(run);
    if (!wait_threads(run, wait_ms))
        return false;
    slots_free(run);
    tasks_free(run);
    const int fds[] = {run->fd, run->lead.relief, run->lead.timer};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    pthread_cond_destroy(&run->more);
    pthread_cond_destroy(&run->room);
    pthread_mutex_destroy(&run->lock);
    free(run);
    return true;
}
