/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Workers: write your own worker program, or a plug-in for pushrod-worker.
 *
 *     static int digest(struct pushrod_task *task, void *arg)
 *     {
 *         size_t size;
 *         const void *data = pushrod_task_payload(task, &size);
 *         ...
 *         return pushrod_task_result(task, sum, sizeof sum);
 *     }
 *
 *     int main(void)
 *     {
 *         struct pushrod_worker *worker = pushrod_worker_new();
 *         pushrod_worker_set(worker, "join", "server.example:5571");
 *         pushrod_worker_handle(worker, "digest", digest, NULL);
 *         int error = pushrod_worker_run(worker);
 *         if (error)
 *             fprintf(stderr, "%s\n", pushrod_worker_error(worker));
 *         pushrod_worker_free(worker);
 *         return error ? 1 : 0;
 *     }
 *
 * A task is handed out again when a worker dies with it, so a handler may see a task twice.
 * Functions that can fail return 0 or a negative enum pushrod_error.
 */
#ifndef PUSHROD_WORKER_H
#define PUSHROD_WORKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <pushrod/error.h>
#include <pushrod/task.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

struct pushrod_worker;
struct pushrod_task; /* one attempt, as its handler sees it */

/*
 * Runs one attempt. 0: the task is done, with what pushrod_task_result() was given. Anything else:
 * the attempt failed, with the text of pushrod_task_fail() or pushrod_task_retry_after(), or
 * else "the handler returned N", and is tried again while attempts are left.
 *
 * Called on a thread of the worker that may block as long as it likes. With more than one slot,
 * several calls run at the same time. `task` and all that comes from it is valid until return.
 */
typedef int (*pushrod_handler)(struct pushrod_task *task, void *arg);

/* ---- the worker ---- */

/* A worker with default settings; no thread and no socket yet. NULL: out of memory. */
struct pushrod_worker *pushrod_worker_new(void);

/* Frees it; NULL is fine. Not while pushrod_worker_run() runs. After TASK_TIMEOUT it frees nothing
 * that a handler may use. */
void pushrod_worker_free(struct pushrod_worker *worker);

/*
 * Sets an option, as it is called and written on the command line of pushrod-worker: "join"
 * (host[:port]), "name", "slots" (here 1; 0: one for each CPU), "max-tasks", "max-memory" (bytes
 * resident, looked at once a second: above, the worker leaves as after pushrod_worker_stop()),
 * "max-result", "drain-timeout", "timeout", "token". "log-level" (error, warning, info, debug) and
 * "log-format" (text, json) are those of the whole process; lines on standard error bear the
 * program's name. Both strings are copied. BAD_OPTION: pushrod_worker_error() names the option, the
 * value and what is allowed. Before pushrod_worker_run(), one thread.
 */
int pushrod_worker_set(struct pushrod_worker *worker, const char *name, const char *value);

/*
 * `handler` runs the tasks of `queue`, a name or a pattern ("mail.*", "*"); the most specific
 * pattern wins. `queue` is copied, `arg` is handed to each call. BAD_QUEUE; INVALID if one is NULL;
 * DUPLICATE if the same pattern has a handler; NO_MEMORY. Before pushrod_worker_run(), one thread.
 */
int pushrod_worker_handle(
    struct pushrod_worker *worker, const char *queue, pushrod_handler handler, void *arg);

/*
 * With true, pushrod_worker_run() drains on the first SIGTERM or SIGINT and leaves on the second.
 * Otherwise (default) it touches no signal. Before pushrod_worker_run().
 */
void pushrod_worker_catch_signals(struct pushrod_worker *worker, bool yes);

/*
 * Joins the server and runs tasks until it was stopped. While the server is away, stopped or not,
 * it keeps trying, and says so on standard error. One call for each worker.
 *
 * 0: drained (stopped, `pushrod drain`, max-tasks or max-memory reached): no handler runs.
 * TASK_TIMEOUT: a handler did not return, 2 s past its timeout or when the worker had to leave. Its
 * thread goes on, and uses the worker and what its `arg` points to: free neither, end the process.
 * SUPERSEDED, BAD_VERSION, BAD_TOKEN, NOT_ALLOWED and others: the server refused it for good;
 * BAD_OPTION: nothing to handle, or no address that can be resolved.
 *
 * Nobody starts the process again, whatever the end: that is for whoever started it (a service
 * manager, a loop in the shell), or for pushrod-worker, which supervises plug-ins.
 */
int pushrod_worker_run(struct pushrod_worker *worker);

/*
 * Finish what runs, return the rest to the server, and let pushrod_worker_run() return; what takes
 * longer than drain-timeout (25 s) is handed to others. The second call leaves at once.
 * Any thread, and signal handlers.
 */
void pushrod_worker_stop(struct pushrod_worker *worker);

/* The last error in words, for people; "" if there was none. Valid until the next call. */
const char *pushrod_worker_error(const struct pushrod_worker *worker);

/* ---- the task; on the thread of its handler, unless another is named ---- */

uint64_t pushrod_task_id(const struct pushrod_task *task);
unsigned pushrod_task_attempt(const struct pushrod_task *task);  /* 1 for the first hand-over */
const char *pushrod_task_queue(const struct pushrod_task *task); /* NUL-terminated */
const void *pushrod_task_payload(const struct pushrod_task *task, size_t *size); /* size: bytes */

/* The value of a header, NUL-terminated, or NULL if the task has none of this name. */
const char *pushrod_task_header(struct pushrod_task *task, const char *name);

/* Milliseconds until the attempt's timeout; 0: over; UINT64_MAX: it has none. Any thread. */
uint64_t pushrod_task_remaining_ms(const struct pushrod_task *task);

/*
 * True when the attempt should end early: the task was cancelled, its timeout is over, or the
 * worker leaves. Costs next to nothing: ask in every loop. A handler that goes on 2 s past its
 * timeout loses its whole process: pushrod_worker_run() returns TASK_TIMEOUT. Any thread.
 */
bool pushrod_task_cancelled(const struct pushrod_task *task);

/* The result, copied; the last call wins. RESULT_TOO_BIG (the attempt then fails), NO_MEMORY. */
int pushrod_task_result(struct pushrod_task *task, const void *data, size_t size);

/* Sends a chunk to whoever follows the task; copied; it is no part of the result. Waits while the
 * server takes less than is emitted. NO_MEMORY; TASK_CANCELLED: the attempt should end, and had to
 * wait. */
int pushrod_task_emit(struct pushrod_task *task, const void *data, size_t size);

/* How far it is, for followers, in a unit of your own, below 2^63; total 0: unknown; text may be
 * NULL. Say it as often as you like: followers hear of it 50 times a second at the most. INVALID,
 * NO_MEMORY. */
int pushrod_task_progress(
    struct pushrod_task *task, uint64_t done, uint64_t total, const char *text);

/*
 * The attempt fails for good with this text (4 KiB are kept): no other attempt will help. Returns
 * a value that is not 0, for `return pushrod_task_fail(task, "not a JPEG");`.
 */
int pushrod_task_fail(struct pushrod_task *task, const char *text);

/* The attempt fails, and the next one begins no earlier than `ms` from now (at most 100 years). Not
 * 0, as above. */
int pushrod_task_retry_after(struct pushrod_task *task, uint64_t ms, const char *text);

/* ---- plug-ins: a shared object that pushrod-worker --plugin loads ---- */

#define PUSHROD_PLUGIN_ABI 1u

/* Handlers may run at the same time in one process; without it there is one slot per process. */
#define PUSHROD_PLUGIN_THREAD_SAFE 1u

/*
 * A plug-in defines one of these by the name of pushrod_plugin:
 *
 *     const struct pushrod_plugin pushrod_plugin = {
 *         .abi = PUSHROD_PLUGIN_ABI, .name = "images", .open = open_images };
 */
struct pushrod_plugin {
    unsigned abi;     /* PUSHROD_PLUGIN_ABI; any other value is refused */
    unsigned flags;   /* PUSHROD_PLUGIN_THREAD_SAFE or 0 */
    const char *name; /* for logs */
    /* Called once in each worker process, before any task: calls pushrod_worker_handle() for each
     * queue. Not 0: the process cannot work. */
    int (*open)(struct pushrod_worker *worker);
    void (*close)(void); /* NULL, or called when the worker ends in good order */
};

extern const struct pushrod_plugin pushrod_plugin;

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
