/* SPDX-License-Identifier: Apache-2.0 */
/*
 * supervise_impl: the supervisor's state. Private to worker/supervise*.c.
 *
 *   supervise.c        the loop: start, death, pause, replacement, stop
 *   supervise_told.c   what the server says meanwhile
 *   supervise_guard.c  its set-up, and the orphans that it kills
 *   supervise_fork.c   the supervisor as a child of a server
 */
#ifndef WORKER_SUPERVISE_IMPL_H
#define WORKER_SUPERVISE_IMPL_H

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include "worker/supervise.h"

/* A child's words on its pipe. */
#define SAID_READY 'r'
#define SAID_LEAVE 'l'

enum place_state { PLACE_EMPTY, PLACE_PAUSING, PLACE_RUNNING };

/* Where a child runs, or will. All times: monotonic ms. */
struct place {
    enum place_state state;
    unsigned index; /* told to the child */
    pid_t pid;
    uint8_t instance[16];
    int said_fd; /* what it says of itself, a byte each; -1: it says no more */
    bool ready;  /* SAID_READY */
    bool leaves; /* SAID_LEAVE */
    uint64_t started_ms;
    uint64_t start_ms; /* PAUSING: not before */
    uint64_t pause_ms; /* before the restart after the next one */
    uint64_t kill_ms;  /* told to drain: SIGKILL then; 0: not told */
    unsigned renewal;  /* what it was given: guard.renewals at its start */
    bool retiring;     /* replaced: stays empty when it dies */
    unsigned round;    /* of replacements, in which it was started */
};

struct guard {
    const struct supervise_config *config;
    struct place *places;
    struct pollfd *fds; /* two, and one for each place */
    unsigned count;
    unsigned room;
    int signals;                    /* signalfd */
    int control;                    /* -1: none, or at its end */
    char input[2 * SUPERVISE_LINE]; /* of control: the beginning of a line */
    size_t input_size;
    unsigned processes; /* how many there are to be */
    unsigned renewals;  /* how often `renew` had news */
    pid_t keeper;       /* keeper.h; 0: none */
    pid_t *strangers;   /* children that we had before, and that have not ended */
    size_t stranger_count;
    sigset_t old_mask;
    uint64_t drain_ms;
    char join[SUPERVISE_JOIN]; /* "": not told yet */
    bool stopping;
    unsigned round;         /* of replacements: who was started in it is new already */
    unsigned replace_count; /* places below this one are still to be replaced */
    unsigned replacing;     /* place + 1 of the new child; 0: none under way */
    unsigned replaced;      /* place + 1 of the old one */
    uint64_t replace_ms;
    int exit_code;
};

bool guard_init(struct guard *g, const struct supervise_config *config, int control);
void guard_fini(struct guard *g);
struct place *guard_place(struct guard *g, unsigned index);     /* a free one; NULL: no memory */
struct place *guard_place_of(const struct guard *g, pid_t pid); /* where that child runs; NULL */
/* Kills what a dead child left behind, with its process group. */
void guard_orphans_kill(const struct guard *g);
/* It was reaped: its number may be anybody's now. */
void guard_stranger_ended(struct guard *g, pid_t pid);

/* supervise.c */
void guard_drain(struct guard *g, struct place *p);
void guard_stop(struct guard *g, bool now); /* the second time: now in any case */

/* supervise_told.c: reads what is there. */
void guard_told(struct guard *g);

int supervise_loop(const struct supervise_config *config, int control);

#endif
