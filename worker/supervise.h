/* SPDX-License-Identifier: Apache-2.0 */
/*
 * supervise: a small process that keeps N worker processes running.
 *
 * It forks them, starts them again with a growing pause when they die, tells the server how they
 * died (OBITUARY), kills what they left behind, passes signals on, and replaces them one by one.
 * Knows processes and signals; knows nothing of tasks, and never has a ZeroMQ object or a thread of
 * its own, so that it can fork at any time. The obituary is sent by a short-lived child.
 *
 * Used in two ways:
 * - pushrod-worker calls supervise_run() and is the supervisor itself.
 * - a server calls supervisor_fork() before it has any thread or socket, tells the new process
 *   where to join once the port is bound (supervisor_join), and stops it at the end
 *   (supervisor_stop). Nothing is forked below the supervisor until it knows where to join.
 *
 * Such a server may tell it more at any time (supervisor_tell): another number of processes, and
 * options for those that are started from then on. It stays as long as the server does, though
 * none of its places may be taken.
 *
 * Signals to a supervisor: SIGTERM (or SIGINT, if it is its own master) drains the children, the
 * second one makes them leave at once, and so does SIGQUIT: two equal signals that are not taken
 * before the second comes are one. SIGUSR2 replaces them one by one: the new one has joined before
 * the old one is told to drain. SIGHUP is ignored. A child ignores both of these; SIGTERM, which
 * service managers send to all, only ever drains it, and SIGQUIT makes it leave at once.
 */
#ifndef WORKER_SUPERVISE_H
#define WORKER_SUPERVISE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Bytes of "host:port", or of several with commas between them, with the NUL. */
#define SUPERVISE_JOIN 264u
/* Bytes of what supervisor_tell() says: written whole or not at all. */
#define SUPERVISE_LINE 4096u

/* How a child says what is to become of its place, after supervise_leave(). Any other exit is a
 * failure: again, after a pause.
 *   DONE      it was drained: the place stays empty
 *   RECYCLE   max_tasks, max_memory, a handler that hangs: again, at once
 *   NEVER     it can never work (refused, bad plug-in): empty, unless `renew` has news */
#define SUPERVISE_EXIT_DONE    0
#define SUPERVISE_EXIT_RECYCLE 64
#define SUPERVISE_EXIT_NEVER   78

/* What a child is told; valid as long as it lives. */
struct supervise_child {
    unsigned index;       /* 0 to processes - 1; a replacement has that of the one it replaces */
    unsigned processes;   /* how many there are */
    uint8_t instance[16]; /* for its JOIN: obituaries name the process by it */
    char join[SUPERVISE_JOIN]; /* as supervise_config.join */
    pid_t supervisor;          /* its parent: another one means that it has ended */
    int ready_fd;              /* for supervise_ready() and supervise_leave(); closed at exec */
};

/* In the child: tasks may come. */
void supervise_ready(int ready_fd);
/* In the child, before it ends in good order; done for it when run() returns. Without it the exit
 * code means nothing: a handler may have called exit(). */
void supervise_leave(int ready_fd);

struct supervise_config {
    unsigned processes; /* 1 to 1024; 0 only for a server that may ask for some later */
    bool others;        /* supervisor_fork(): the caller has descriptors that are not for them */
    const char *join;   /* host:port,...; NULL: it will come through supervisor_join() */
    uint64_t drain_ms;  /* after SIGTERM the children have this long before SIGKILL; 0: 25000 */
    /* Runs in the child, with signal handlers and mask as they were in the caller, but SIGINT,
     * SIGQUIT, SIGHUP and SIGUSR2 ignored; its value is the child's exit code. */
    int (*run)(void *arg, const struct supervise_child *child);
    /* In the supervisor, before it forks a child and when one has said that it can never work: what
     * children are given may be another now (a secret in a file). True: it is. NULL: never. */
    bool (*renew)(void *arg);
    /* In the supervisor: what supervisor_tell() said, if it is not the supervisor's own; or NULL.
     */
    void (*told)(void *arg, const char *name, const char *value);
    void *arg;
};

/*
 * Runs in the calling process until it was told to stop or every place is empty. Returns the exit
 * code for the process: 0 drained, 78 if a child said that it can never work, 1 if children had to
 * be killed or the supervisor cannot work. The caller has one thread and no ZeroMQ object.
 */
int supervise_run(const struct supervise_config *config);

/* ---- the supervisor as a child of a server ---- */

struct supervisor {
    pid_t pid;   /* 0: none */
    int control; /* its end closes when the server dies: the supervisor then drains and goes */
};

/*
 * Forks the supervisor; `config` is borrowed for ever in the new process, which never returns.
 * Not 0: a negative enum pushrod_error. Terminal signals (SIGINT) are ignored there: the server
 * decides when its workers stop. With `others` all is closed there that exec would close.
 */
int supervisor_fork(struct supervisor *s, const struct supervise_config *config);

/* Where to join, once; the children are forked now. Not 0: the supervisor is gone. */
int supervisor_join(struct supervisor *s, const char *join);

/*
 * Says a line "NAME VALUE", which no list of processes shows. "processes": so many from now on; the
 * ones too many drain. "drain-timeout": ms. All else goes to config.told, and is there for children
 * that are forked from then on. Does not wait. TOO_BIG; INVALID: the value has a line feed;
 * SYSTEM: the supervisor is gone.
 */
int supervisor_tell(struct supervisor *s, const char *name, const char *value);

/* Replace the children one by one (as SIGUSR2). Returns at once. */
int supervisor_replace(struct supervisor *s);

/* Drain the children; `now`: make them leave. Returns at once; any thread. */
void supervisor_stop(struct supervisor *s, bool now);

/* Waits for its end up to `ms`, then kills it, and with it its children. */
int supervisor_wait(struct supervisor *s, uint64_t ms);

#endif
