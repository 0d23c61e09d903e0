/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run: the slots of a worker process. Each is a thread that runs one attempt at a time; what they
 * have to say comes back as reports.
 *
 * Knows handlers and threads; knows no socket and no session. The thread that owns the sockets
 * hands attempts in and takes reports out, in batches, and is never blocked: when both sides are
 * busy, a task costs no system call. With one slot it may be the slot's own thread: run_lead.c.
 *
 *    run_start() ──▶ queue ──▶ slot threads ──▶ reports ──▶ run_take()
 *                  (in order)              (run_fd() rings when the first one comes)
 */
#ifndef WORKER_RUN_H
#define WORKER_RUN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <pushrod/worker.h>
#include "common/buf.h"
#include "worker/session.h"

struct run;
struct slot;
struct handler;

/* ---- handlers: one const table for each kind ---- */

struct handler_ops {
    const char *kind; /* "exec", "coproc", "function" */
    /* Runs task->attempt to its end on the slot's thread and fills in the outcome. */
    void (*run)(struct slot *slot, struct pushrod_task *task);
    /* The slot ends; NULL: it has no state. First of all of them the end is told to what they have
     * running, then each is waited for, until `until_ns` at the most, and freed. */
    void (*slot_leave)(void *state);
    void (*slot_close)(void *state, uint64_t until_ns);
    /* run() itself ends when slot->wake is readable and task->cancelled is set, and at the
     * deadline. Otherwise the handler's own code must look, and a watchdog looks after it. */
    bool interruptible;
};

extern const struct handler_ops handler_exec;
extern const struct handler_ops handler_coproc;
extern const struct handler_ops handler_function;

struct handler {
    const struct handler_ops *ops;
    char *pattern;            /* owned: a queue name or pattern */
    char *command;            /* owned: exec, coproc; else NULL */
    pushrod_handler function; /* function */
    void *arg;
    atomic_bool worked; /* a task has ended well in this process: it can be run */
};

/* ---- attempts ---- */

enum report_kind { REPORT_DONE, REPORT_FAILED, REPORT_BROKEN, REPORT_PROGRESS, REPORT_DATA };

struct report {
    struct report *next;
    enum report_kind kind;
    struct pushrod_task *task; /* DONE, FAILED, BROKEN: the report is a part of it */
    uint64_t lease;
    uint64_t done;  /* PROGRESS */
    uint64_t total; /* PROGRESS */
    size_t size;
    uint8_t data[]; /* PROGRESS: text; DATA */
};

/* One attempt in the hands of a handler. Made and freed by the owner's thread; between run_start()
 * and its last report it belongs to the queue or to the slot, but for what is atomic. */
struct pushrod_task {
    struct pushrod_task *next; /* in the queue, or spare */
    const struct attempt *attempt;
    struct run *run;
    struct handler *handler;
    uint64_t begin_ns;         /* monotonic */
    atomic_ullong deadline_ns; /* UINT64_MAX: none */
    atomic_bool cancelled;
    bool queued; /* in the queue; guarded by its lock */
    /* the outcome */
    uint64_t run_ns;
    struct attempt_failure failure; /* FAILED, BROKEN; its text is that of `text` */
    bool failed;                    /* fail() or retry_after() was called */
    struct buf result;
    struct buf text;
    struct buf scratch; /* headers as NUL-terminated strings, made on demand */
    struct report report;
};

/* What one slot has: for handlers. */
struct slot {
    struct run *run;
    int wake;     /* a bell: something was cancelled; slot_quiet(), look at the task, go on */
    void **state; /* one for each handler, by its place in the list; NULL at first */
    _Atomic(struct pushrod_task *) task; /* that it runs, for the watchdog */
};

struct run_config {
    unsigned slots;
    unsigned ahead;           /* attempts beyond the slots that may be handed in */
    struct handler *handlers; /* borrowed; only `worked` is changed */
    size_t handler_count;
    uint64_t timeout_ms; /* of commands, for attempts that say nothing; 0: none */
    uint64_t grace_ms;   /* between SIGTERM and SIGKILL, and for functions; 0: 2000 */
    uint64_t exit_ms;    /* for a coprocess that has said its last to end by itself; 0: 100 */
    size_t max_result;   /* bytes; 0: PUSHROD_MAX_PAYLOAD */
    /* With one slot: a step of the owner's loop, for the slot's thread when it leads (run_lead.c).
     * Waits for what comes only if it may. False: it was the last. NULL: it never leads. */
    bool (*step)(void *arg, bool wait);
    void *step_arg;
};

/* NULL: no memory, descriptors or threads. */
struct run *run_new(const struct run_config *config);

/*
 * Ends all slots: commands are killed; a function that runs is waited for. False: some function
 * did not return within `wait_ms`; then nothing was freed, and the process had better exit.
 */
bool run_free(struct run *run, uint64_t wait_ms);

/* With a `step`, for the owner's thread: lets the slot's thread lead if it may, and waits until
 * this one does. */
void run_offer_lead(struct run *run);
void run_await_lead(struct run *run);

/* Readable when run_take() has something new; not while the slot's thread leads, who comes to it by
 * itself. */
int run_fd(const struct run *run);

/* ---- for the owner's thread, or the slot's while it leads ---- */
void run_start(struct run *run, const struct attempt *const *attempts, size_t count);
void run_cancel(struct run *run, uint64_t lease);
void run_cancel_all(struct run *run);             /* the worker leaves now */
bool run_revoke(struct run *run, uint64_t lease); /* true: it had not begun, and is forgotten */

bool run_has_reports(const struct run *run); /* whether or not run_fd() says so */
void run_quiet(struct run *run); /* run_fd() was readable: no more, until there are new reports */

/* All reports so far, oldest first; give each back with run_release(). NULL: none. */
struct report *run_take(struct run *run);
void run_release(struct run *run, struct report *report);
/* So many bytes of what was emitted are held back: whoever emits more waits, from a bound on. */
void run_emitted(struct run *run, size_t bytes);

/* A function that went on `grace_ms` past its deadline: its lease, else 0. */
uint64_t run_overdue(struct run *run, uint64_t now_ns, uint64_t *run_ns);
/* Any attempt with a deadline that only the watchdog enforces. */
bool run_watched(const struct run *run);

/* ---- for handlers, on the slot's thread ---- */
const struct run_config *run_settings(const struct run *run);
void attempt_fail(struct pushrod_task *task, enum pushrod_error code, bool permanent,
    const char *format, ...) __attribute__((format(printf, 4, 5)));
/* Its timeout is over; `hint`: what else is to be said. */
void attempt_fail_late(struct pushrod_task *task, const char *hint);
void attempt_fail_too_big(struct pushrod_task *task); /* its result is larger than max_result */
/* There is no process to be had (memory, limits; why: an errno): another worker may have one. */
void attempt_fail_start(struct pushrod_task *task, int why);
void slot_quiet(struct slot *slot);     /* slot->wake was readable: no more */
int attempt_wait_ms(uint64_t until_ns); /* clock_wait_ms() from now on */
int attempt_report(struct pushrod_task *task, enum report_kind kind, uint64_t done, uint64_t total,
    const void *data, size_t size);

#endif
