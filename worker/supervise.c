/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The supervisor's loop: one thread, one signalfd, the control pipe, and a pipe for each child
 * that says when it is ready.
 */
#define _GNU_SOURCE
#include "worker/supervise.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <pushrod/error.h>
#include "common/clock.h"
#include "common/log.h"
#include "common/memory.h"
#include "worker/link.h"
#include "worker/obituary.h"
#include "worker/supervise_impl.h"

/* A child that lived this long was healthy: its next restart comes at once. */
#define HEALTHY_MS 10000u
#define PAUSE_MS   100u   /* first pause; doubled ... */
#define PAUSE_CAP  10000u /* ... up to this */
/* A replacement that does not say that it is ready in this time is believed to be. */
#define READY_WAIT_MS 10000u
/* After SIGTERM and the drain, a child has this long: for its goodbye, for the commands that it
 * then ends, and to be scheduled. */
#define GRACE_MS (SESSION_BYE_WAIT_MS + LINK_END_WAIT_MS + 500u)

static uint64_t mono_ms(void)
{
    return clock_mono_ns() / NS_PER_MS;
}

/* ------------------------------------------------------------------------ children */

/* In the child: what the parent set up for itself is undone. */
static void child_prepare(const struct guard *g, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1); /* it died between the fork and the line above */
    /* ^C reaches the whole foreground group; only the supervisor acts on it, and passes it on. */
    signal(SIGINT, SIG_IGN);
    /* Until the worker listens to it: SIGTERM, which comes first, ends it without a core file. */
    signal(SIGQUIT, SIG_IGN);
    /* These are the supervisor's business, whoever sends them to all. */
    signal(SIGHUP, SIG_IGN);
    signal(SIGUSR2, SIG_IGN);
    sigprocmask(SIG_SETMASK, &g->old_mask, NULL);
    close(g->signals);
    if (g->control >= 0)
        close(g->control);
    for (unsigned i = 0; i < g->count; i++)
        if (g->places[i].said_fd >= 0)
            close(g->places[i].said_fd);
}

static int child_main(struct guard *g, struct place *p, const int ready[2], pid_t parent)
{
    child_prepare(g, parent);
    memory_keep_large();
    close(ready[0]);
    struct supervise_child child = {
        .index = p->index, .processes = g->processes, .supervisor = parent, .ready_fd = ready[1]};
    memcpy(child.instance, p->instance, sizeof child.instance);
    memcpy(child.join, g->join, sizeof child.join);
    int code = g->config->run(g->config->arg, &child);
    supervise_leave(ready[1]);
    return code;
}

static void guard_renew(struct guard *g)
{
    if (g->config->renew && g->config->renew(g->config->arg))
        g->renewals++;
}

static void place_start(struct guard *g, struct place *p)
{
    int ready[2];
    guard_renew(g);
    p->renewal = g->renewals;
    if (getrandom(p->instance, sizeof p->instance, 0) != (ssize_t)sizeof p->instance ||
        pipe2(ready, O_CLOEXEC | O_NONBLOCK) != 0) {
        log_error("cannot start a worker process: %s", strerror(errno));
        p->start_ms = mono_ms() + PAUSE_CAP;
        return;
    }
    pid_t parent = getpid();
    p->pid = fork();
    if (p->pid == 0)
        exit(child_main(g, p, ready, parent));
    close(ready[1]);
    if (p->pid < 0) {
        log_error("cannot start a worker process: %s", strerror(errno));
        close(ready[0]);
        p->start_ms = mono_ms() + PAUSE_CAP;
        return;
    }
    p->state = PLACE_RUNNING;
    p->said_fd = ready[0];
    p->ready = p->leaves = false;
    p->started_ms = mono_ms();
    p->round = g->round;
    log_debug("worker process %d started", (int)p->pid);
}

static void place_kill(struct place *p, int signal_number)
{
    if (p->state == PLACE_RUNNING)
        kill(p->pid, signal_number);
}

void guard_drain(struct guard *g, struct place *p)
{
    if (p->state == PLACE_RUNNING && !p->kill_ms) {
        place_kill(p, SIGTERM);
        p->kill_ms = mono_ms() + g->drain_ms + GRACE_MS;
    } else if (p->state == PLACE_PAUSING) {
        p->state = PLACE_EMPTY;
    }
}

/* ------------------------------------------------------------------- what they say */

static void say(int ready_fd, char word)
{
    ssize_t written = write(ready_fd, &word, 1);
    (void)written; /* a supervisor that is gone takes us with it */
}

void supervise_ready(int ready_fd)
{
    say(ready_fd, SAID_READY);
}

void supervise_leave(int ready_fd)
{
    say(ready_fd, SAID_LEAVE);
}

static void place_deaf(struct place *p)
{
    if (p->said_fd >= 0)
        close(p->said_fd);
    p->said_fd = -1;
}

static void place_hear(struct place *p)
{
    char words[16];
    ssize_t size = p->said_fd >= 0 ? read(p->said_fd, words, sizeof words) : -1;
    for (ssize_t i = 0; i < size; i++) {
        p->ready |= words[i] == SAID_READY;
        p->leaves |= words[i] == SAID_LEAVE;
    }
    if (size == 0)
        place_deaf(p);
}

/* -------------------------------------------------------------------------- deaths */

static void tell_death(struct guard *g, const struct place *p, int status, const struct rusage *use)
{
    struct obituary o = {
        .pid = (uint64_t)p->pid,
        .signal = WIFSIGNALED(status) ? (uint64_t)WTERMSIG(status) : 0,
        .exit_code = WIFEXITED(status) ? (uint64_t)WEXITSTATUS(status) : 0,
        .peak_kib = (uint64_t)use->ru_maxrss,
    };
    memcpy(o.instance, p->instance, sizeof o.instance);
    /* Told to leave before it could listen to signals: nothing was lost, and nobody is to blame. */
    if (o.signal == SIGTERM && p->kill_ms) {
        log_debug("worker process %d left before it had begun", (int)p->pid);
        return;
    }
    if (o.signal)
        log_warning("worker process %d was killed by signal %d (%s); its peak memory was %llu KiB",
            (int)p->pid, (int)o.signal, strsignal((int)o.signal), (unsigned long long)o.peak_kib);
    else
        log_warning("worker process %d exited with %d in the middle of its work", (int)p->pid,
            (int)o.exit_code);
    obituary_post(g->join, &o, &g->old_mask);
}

/* It can never work with what it was given; and with what there is now? */
static bool is_outdated(struct guard *g, const struct place *p)
{
    guard_renew(g);
    if (p->renewal == g->renewals)
        return false;
    log_info("worker process %d is started again: its secrets have changed since", (int)p->pid);
    return true;
}

/* What a dead child means for its place: empty, again at once, or again after a pause. */
static void place_died(struct guard *g, struct place *p, int code)
{
    uint64_t now = mono_ms();
    if (code == SUPERVISE_EXIT_NEVER && !p->retiring && !g->stopping && is_outdated(g, p))
        code = -1;
    bool stays_empty =
        p->retiring || g->stopping || code == SUPERVISE_EXIT_DONE || code == SUPERVISE_EXIT_NEVER;
    if (code == SUPERVISE_EXIT_NEVER) {
        log_error("worker process %d can never work, for the reason above: it is not started again",
            (int)p->pid);
        g->exit_code = SUPERVISE_EXIT_NEVER;
    }
    if (code == SUPERVISE_EXIT_DONE && !p->retiring && !g->stopping)
        log_info("worker process %d was drained: it is not started again", (int)p->pid);
    /* One that never got to work would be recycled a thousand times a second. */
    if (now - p->started_ms >= HEALTHY_MS || (code == SUPERVISE_EXIT_RECYCLE && p->ready))
        p->pause_ms = 0;
    p->start_ms = now + p->pause_ms;
    p->pause_ms = p->pause_ms ? p->pause_ms * 2 : PAUSE_MS;
    if (p->pause_ms > PAUSE_CAP)
        p->pause_ms = PAUSE_CAP;
    p->state = stays_empty ? PLACE_EMPTY : PLACE_PAUSING;
    p->kill_ms = 0;
    place_deaf(p);
}

/* What the child means by its exit; -1: nothing, it died. */
static int exit_code_of(struct place *p, int status)
{
    place_hear(p);
    return p->leaves && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void reap(struct guard *g)
{
    int status;
    struct rusage use;
    pid_t pid;
    while ((pid = wait4(-1, &status, WNOHANG, &use)) > 0) {
        struct place *p = guard_place_of(g, pid);
        if (pid == g->keeper)
            g->keeper = 0;
        if (!p) {
            guard_stranger_ended(g, pid);
            continue; /* an obituary, or an orphan that came to us */
        }
        int code = exit_code_of(p, status);
        bool orderly = code == SUPERVISE_EXIT_DONE || code == SUPERVISE_EXIT_RECYCLE ||
                       code == SUPERVISE_EXIT_NEVER;
        if (!orderly)
            tell_death(g, p, status, &use);
        place_died(g, p, code);
        guard_orphans_kill(g);
    }
}

/* --------------------------------------------------------------------- replacement */

/* The place's child retires; a new place takes its index over, and starts first. */
static void replace_one(struct guard *g, unsigned old)
{
    struct place *fresh = guard_place(g, g->places[old].index); /* the places may move */
    if (!fresh) {
        log_error("cannot replace a worker process: out of memory");
        return;
    }
    place_start(g, fresh);
    if (fresh->state != PLACE_RUNNING) {
        fresh->state = PLACE_EMPTY;
        return;
    }
    g->replacing = (unsigned)(fresh - g->places) + 1;
    g->replaced = old + 1;
    g->replace_ms = mono_ms() + READY_WAIT_MS;
}

static void replace_next(struct guard *g)
{
    while (!g->replacing && g->replace_count) {
        const struct place *p = &g->places[--g->replace_count];
        if (p->state == PLACE_RUNNING && !p->retiring && p->round != g->round)
            replace_one(g, g->replace_count);
    }
}

/* The new one has joined, or died, or takes too long. */
static void replace_step(struct guard *g)
{
    if (!g->replacing)
        return;
    struct place *fresh = &g->places[g->replacing - 1];
    struct place *old = &g->places[g->replaced - 1];
    if (fresh->state != PLACE_RUNNING) {
        log_error("the replacement of worker process %d died; it stays", (int)old->pid);
        fresh->state = PLACE_EMPTY;
        g->replace_count = 0;
    } else if (!fresh->ready && mono_ms() < g->replace_ms) {
        return;
    } else {
        old->retiring = true;
        guard_drain(g, old);
    }
    g->replacing = 0;
}

/* ------------------------------------------------------------------------ the loop */

void guard_stop(struct guard *g, bool now)
{
    bool again = g->stopping;
    g->stopping = true;
    g->replace_count = g->replacing = 0; /* all of them leave */
    for (unsigned i = 0; i < g->count; i++) {
        guard_drain(g, &g->places[i]);
        if (now || again)
            place_kill(&g->places[i], SIGQUIT);
    }
}

static void take_signal(struct guard *g, unsigned number)
{
    switch (number) {
    case SIGCHLD:
        reap(g);
        break;
    case SIGUSR2:
        if (g->stopping || g->replace_count)
            break;
        g->replace_count = g->count;
        g->round++;
        break;
    case SIGTERM:
    case SIGINT:
    case SIGQUIT:
        guard_stop(g, number == SIGQUIT);
        break;
    default:
        break;
    }
}

static void read_signals(struct guard *g)
{
    struct signalfd_siginfo info[16];
    ssize_t size;
    while ((size = read(g->signals, info, sizeof info)) > 0) {
        for (size_t i = 0; i < (size_t)size / sizeof info[0]; i++)
            take_signal(g, info[i].ssi_signo);
    }
}

static void start_due(struct guard *g)
{
    if (!g->join[0] || g->stopping)
        return;
    uint64_t now = mono_ms();
    for (unsigned i = 0; i < g->count; i++) {
        struct place *p = &g->places[i];
        if (p->state == PLACE_PAUSING && now >= p->start_ms)
            place_start(g, p);
    }
}

static void kill_late(struct guard *g)
{
    uint64_t now = mono_ms();
    for (unsigned i = 0; i < g->count; i++) {
        struct place *p = &g->places[i];
        if (p->state != PLACE_RUNNING || !p->kill_ms || now < p->kill_ms)
            continue;
        log_error("worker process %d did not leave in time: killed", (int)p->pid);
        place_kill(p, SIGKILL);
        p->kill_ms = UINT64_MAX;
        if (g->stopping)
            g->exit_code = g->exit_code ? g->exit_code : 1;
    }
}

/* Only SIGKILL, or the end of a pause, needs a timer; a tick of 50 ms is fine enough for both. */
static int wait_ms(const struct guard *g)
{
    for (unsigned i = 0; i < g->count; i++) {
        const struct place *p = &g->places[i];
        bool waits = p->state == PLACE_PAUSING && g->join[0];
        if (waits || (p->kill_ms && p->kill_ms != UINT64_MAX))
            return 50;
    }
    return g->replacing ? 50 : -1;
}

static void wait_events(struct guard *g)
{
    nfds_t count = 2;
    g->fds[0] = (struct pollfd){.fd = g->signals, .events = POLLIN};
    g->fds[1] = (struct pollfd){.fd = g->control, .events = POLLIN};
    for (unsigned i = 0; i < g->count; i++)
        g->fds[count++] = (struct pollfd){.fd = g->places[i].said_fd, .events = POLLIN};
    if (poll(g->fds, count, wait_ms(g)) <= 0)
        return;
    for (unsigned i = 0; i < g->count; i++) {
        if (g->fds[2 + i].revents)
            place_hear(&g->places[i]);
    }
    if (g->fds[0].revents)
        read_signals(g);
    if (g->fds[1].revents && g->control >= 0)
        guard_told(g);
}

static bool all_empty(const struct guard *g)
{
    for (unsigned i = 0; i < g->count; i++) {
        if (g->places[i].state != PLACE_EMPTY)
            return false;
    }
    return true;
}

/* A server may ask for processes again. */
static bool guard_over(const struct guard *g)
{
    return all_empty(g) && (g->control < 0 || g->stopping);
}

static int guard_run(struct guard *g)
{
    while (!guard_over(g)) {
        start_due(g);
        replace_next(g);
        wait_events(g);
        replace_step(g);
        kill_late(g);
    }
    if (!g->stopping)
        log_info("no worker process is left: leaving");
    return g->exit_code;
}

int supervise_loop(const struct supervise_config *config, int control)
{
    struct guard g;
    if (!guard_init(&g, config, control)) {
        log_error("cannot supervise: %s", strerror(errno));
        return 1;
    }
    int code = guard_run(&g);
    guard_fini(&g);
    return code;
}

int supervise_run(const struct supervise_config *config)
{
    assert(config->join && config->run && config->processes);
    return supervise_loop(config, -1);
}
