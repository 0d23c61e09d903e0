/* SPDX-License-Identifier: Apache-2.0 */
/*
 * worker: the inside of the worker library, shared by worker/api.c, worker/main.c and servers with
 * local workers: one worker process, its options and its handlers.
 *
 * An option is set by the name that it has on the command line; those that make handlers ("exec",
 * "coproc", "plugin") are read when the worker runs.
 */
#ifndef WORKER_WORKER_H
#define WORKER_WORKER_H

#include <stdatomic.h>
#include <pushrod/worker.h>
#include "common/params.h"
#include "worker/run.h"
#include "worker/supervise.h"

struct plugin {
    void *library;
    const struct pushrod_plugin *entry;
};

struct pushrod_worker {
    struct params *params; /* SCOPE_WORKER */
    struct handler *handlers;
    size_t handler_count;
    struct plugin *plugins;
    size_t plugin_count;
    bool serial; /* a plug-in is not thread-safe: one slot */
    bool catch_signals;
    bool named; /* instance, index, ready_fd come from a supervisor */
    struct supervise_child child;
    int stop_fd; /* a bell: pushrod_worker_stop() was called */
    atomic_uint stops;
    bool stuck;   /* a handler did not return: its memory is in use, the process must go */
    bool recycle; /* it ended because of max-tasks, max-memory, or a handler that hangs */
    char error[600];
};

/* Keeps the error's text; gives -code. */
int worker_error(struct pushrod_worker *w, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Checks the handlers of the options (patterns, duplicates) without starting anything. */
int worker_check(struct pushrod_worker *w);

/* The addresses of "join", with commas between them. False: longer than SUPERVISE_JOIN. */
bool worker_join(const struct pushrod_worker *w, char out[SUPERVISE_JOIN]);

/*
 * In a child of a supervisor: runs to the end. Gives the exit code that the supervisor
 * understands. For `run` of struct supervise_config; SIGTERM drains.
 */
int worker_child(struct pushrod_worker *w, const struct supervise_child *child);

/* ---- worker/plugin.c ---- */
int plugins_load(struct pushrod_worker *w); /* those of the options; adds their handlers */
void plugins_close(struct pushrod_worker *w);
/*
 * Loads the plug-ins in a process of its own and looks: 0, or a negative error and the text.
 * *serial: one of them is not thread-safe.
 */
int plugins_probe(struct pushrod_worker *w, bool *serial);

/* ---- worker/handlers.c ---- */
/* The lists that make handlers: options of a worker, and of a server for its local workers. */
#define HANDLER_OPTIONS 3
extern const char *const handler_options[HANDLER_OPTIONS];
bool handlers_named(const struct params *params); /* in one of these lists */

int handlers_add(struct pushrod_worker *w, const struct handler_ops *ops, struct slice pattern,
    const char *command, pushrod_handler function, void *arg);
int handlers_from_options(struct pushrod_worker *w); /* exec, coproc; not the plug-ins */
void handlers_free(struct pushrod_worker *w);
/* CPUs that this process may use, as far as its affinity and its cgroup tell; at least 1. */
unsigned cpus_usable(void);
unsigned worker_slots(const struct pushrod_worker *w);
/* Sees to it that this process may open as many files as these slots need with its handlers; there
 * are fewer of them where it may not. Not 0: a negative error; so many were asked for. */
int worker_descriptors(struct pushrod_worker *w, unsigned *slots);

#endif
