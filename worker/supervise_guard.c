/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "common/log.h"
#include "worker/keeper.h"
#include "worker/supervise_impl.h"

static bool grow(struct guard *g)
{
    unsigned room = g->room ? 2 * g->room : 2 * g->processes + 8;
    struct place *places = realloc(g->places, room * sizeof *places);
    if (!places)
        return false;
    g->places = places;
    struct pollfd *fds = realloc(g->fds, (room + 2) * sizeof *fds);
    if (!fds)
        return false;
    g->fds = fds;
    g->room = room;
    return true;
}

struct place *guard_place(struct guard *g, unsigned index)
{
    struct place *p = NULL;
    for (unsigned i = 0; i < g->count && !p; i++) {
        if (g->places[i].state == PLACE_EMPTY)
            p = &g->places[i];
    }
    if (!p) {
        if (g->count == g->room && !grow(g))
            return NULL;
        p = &g->places[g->count++];
    }
    *p = (struct place){.state = PLACE_PAUSING, .index = index, .said_fd = -1};
    return p;
}

struct place *guard_place_of(const struct guard *g, pid_t pid)
{
    for (unsigned i = 0; i < g->count; i++) {
        if (g->places[i].state == PLACE_RUNNING && g->places[i].pid == pid)
            return &g->places[i];
    }
    return NULL;
}

/* Signals arrive in the loop and nowhere else; children get the old mask back. */
static bool guard_signals(struct guard *g)
{
    sigset_t mask;
    /* A program that embeds a server may ignore it: the kernel would reap, and say nothing. */
    signal(SIGCHLD, SIG_DFL);
    sigemptyset(&mask);
    sigaddset(&mask, SIGCHLD);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGUSR2);
    sigaddset(&mask, SIGHUP);
    sigaddset(&mask, SIGQUIT);
    /* Below a server it is ignored; a signal that is blocked would not be. */
    if (g->control < 0)
        sigaddset(&mask, SIGINT);
    if (sigprocmask(SIG_BLOCK, &mask, &g->old_mask) != 0)
        return false;
    g->signals = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
    return g->signals >= 0;
}

/* ------------------------------------------------------------------------- orphans */

static FILE *children_open(void)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    return fopen(path, "re");
}

static bool stranger_add(struct guard *g, pid_t pid)
{
    pid_t *all = realloc(g->strangers, (g->stranger_count + 1) * sizeof *all);
    if (!all)
        return false;
    g->strangers = all;
    g->strangers[g->stranger_count++] = pid;
    return true;
}

/* Whoever became us may have started them, as a shell does that ends with `exec pushrod-worker`. */
static bool strangers_note(struct guard *g)
{
    FILE *children = children_open();
    bool noted = true;
    int pid;
    while (children && noted && fscanf(children, "%d", &pid) == 1)
        noted = stranger_add(g, pid);
    if (children)
        fclose(children);
    return noted;
}

static pid_t *stranger_of(const struct guard *g, pid_t pid)
{
    for (size_t i = 0; i < g->stranger_count; i++) {
        if (g->strangers[i] == pid)
            return &g->strangers[i];
    }
    return NULL;
}

void guard_stranger_ended(struct guard *g, pid_t pid)
{
    pid_t *at = stranger_of(g, pid);
    if (at)
        *at = g->strangers[--g->stranger_count];
}

/*
 * Children of ours that are in a process group of their own are commands of a worker that died:
 * we were made their parent. Everything else (places, obituaries) is in our group, but the keeper,
 * and what was there before us.
 */
void guard_orphans_kill(const struct guard *g)
{
    FILE *children = children_open();
    if (!children)
        return;
    int pid;
    while (fscanf(children, "%d", &pid) == 1) {
        pid_t group = getpgid(pid);
        if (guard_place_of(g, pid) || pid == g->keeper || stranger_of(g, pid))
            continue;
        if (group <= 0 || group == getpgrp())
            continue;
        log_debug("process group %d outlived its worker: killed", (int)group);
        kill(-group, SIGKILL);
    }
    fclose(children);
}

/* ------------------------------------------------------------------- its life */

bool guard_init(struct guard *g, const struct supervise_config *config, int control)
{
    *g = (struct guard){
        .config = config, .control = control, .signals = -1, .processes = config->processes};
    g->drain_ms = config->drain_ms ? config->drain_ms : 25000;
    if (config->join)
        snprintf(g->join, sizeof g->join, "%s", config->join);
    if (!strangers_note(g))
        return false;
    /* What a dead worker leaves behind comes to us, so that we can end it. */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    g->keeper = keeper_start();
    if (!g->keeper)
        log_warning("commands would stay behind if this process and its workers were killed "
                    "together: %s",
            strerror(errno));
    if (!guard_signals(g))
        return false;
    if (!grow(g))
        return false;
    for (unsigned i = 0; i < config->processes; i++)
        if (!guard_place(g, i))
            return false;
    return true;
}

void guard_fini(struct guard *g)
{
    close(g->signals);
    if (g->control >= 0)
        close(g->control);
    sigprocmask(SIG_SETMASK, &g->old_mask, NULL);
    free(g->strangers);
    free(g->places);
    free(g->fds);
}
