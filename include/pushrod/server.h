/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server library: put a task server into your own program.
 *
 *     static void finished(struct pushrod_server *s, const struct pushrod_finish *f, void *arg)
 *     {
 *         printf("task %llu: %.*s\n", (unsigned long long)f->id,
 *             (int)f->result_size, (const char *)f->result);
 *     }
 *
 *     static void receive(struct pushrod_server *s, uint64_t conn, const void *data, size_t size,
 *         void *arg)
 *     {
 *         pushrod_server_task(s, "upper", data, size, NULL, finished, NULL);
 *         pushrod_server_send(s, conn, "taken\n", 6);
 *     }
 *
 *     int main(void)
 *     {
 *         struct pushrod_server *s = pushrod_server_new();
 *         pushrod_server_on(s, &(struct pushrod_server_events){.receive = receive}, NULL);
 *         pushrod_server_on_task(s, "upper", upper, NULL);  // runs in processes of its own
 *         pushrod_server_listen(s, "127.0.0.1:9501", NULL);
 *         int error = pushrod_server_run(s);
 *         if (error)
 *             fprintf(stderr, "%s\n", pushrod_server_error(s));
 *         pushrod_server_free(s);
 *         return error ? 1 : 0;
 *     }
 *
 * Threads. A server belongs to one thread, the one that calls run(), or start() and step(); who
 * calls run() or step() last has it. All callbacks run there, and all functions are called there,
 * but for those marked "any thread": stop(), post(), taskwait() and taskwait_many(). Callbacks must
 * not block; what may block is what tasks are for. No callback is called from within a function
 * that the program calls, but for run(), step() and free().
 *
 * Processes. Handlers of on_task() run in `task-workers` (4) processes that are forked in start(),
 * before the library has made a thread or a socket. The program should have no other thread then.
 * They have all descriptors of the program; but if another server of it runs by then, none of those
 * that are closed at exec, as all of a server's are.
 * A process that the program forks after start() has no part in the server: run(), step(), post()
 * and taskwait() give WRONG_STATE there, free() does nothing. So a program becomes a daemon before.
 *
 * Signals. start() has SIGPIPE and SIGXFSZ ignored, unless the program does something with them: a
 * peer may go at any time, and the store grow to the limit of files. No other signal is touched
 * without pushrod_server_catch_signals().
 *
 * Memory. Inputs are copied before a function returns. What a callback is given is borrowed until
 * it returns.
 *
 * Errors. Functions that give an int return 0 (or a count) or a negative enum pushrod_error.
 */
#ifndef PUSHROD_SERVER_H
#define PUSHROD_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <pushrod/error.h>
#include <pushrod/task.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

struct pushrod_server;
struct pushrod_group;
struct pushrod_task; /* see pushrod/worker.h */

/* ---- life ---- */

/* A server with default settings: no thread, no socket, no process yet. NULL: out of memory. */
struct pushrod_server *pushrod_server_new(void);

/*
 * Stops at once if it still runs, and frees everything. NULL is fine. Not from a callback, and not
 * before all other threads are done with it: one in taskwait() has to have returned.
 */
void pushrod_server_free(struct pushrod_server *server);

/*
 * Sets an option, called and written as on the command line of pushrod-server (see its --help):
 * "data", "join-port", "task-workers", "max-tasks", "token" and all others. Lists ("queue",
 * "exec") get one more item with each call. The differences to the program: `listen` (native
 * clients) and `http` are off until they are set, and with on_task() the ports for workers are any
 * free ones on loopback until join-port is set. Both strings are copied. Before start.
 * Errors: BAD_OPTION; pushrod_server_error() names the option, the value and what is allowed;
 * INVALID (a NULL), NO_MEMORY, WRONG_STATE.
 */
int pushrod_server_set(struct pushrod_server *server, const char *name, const char *value);

/* What the last function that failed says about it: one line, "" if none did. Until the next call.
 */
const char *pushrod_server_error(const struct pushrod_server *server);

/* A pointer of the program's own. */
void pushrod_server_set_data(struct pushrod_server *server, void *data);
void *pushrod_server_data(const struct pushrod_server *server);

/* ---- events ---- */

/* A worker, as the events tell it. */
struct pushrod_worker_note {
    uint64_t worker; /* id, never used again */
    const char *name;
    int error;             /* lost: enum pushrod_error that says why */
    const uint64_t *tasks; /* lost: ids of the tasks that it had; they go to others */
    size_t task_count;
};

/* Each may be NULL. `conn` is the id of a connection; `arg` is that of pushrod_server_on(). */
struct pushrod_server_events {
    /* All is open; the first event. */
    void (*start)(struct pushrod_server *server, void *arg);
    /* A connection of one of the program's own listeners. */
    void (*connect)(struct pushrod_server *server, uint64_t conn, void *arg);
    /* Bytes (raw), or one whole message (EOF, length), without its end mark or length. */
    void (*receive)(
        struct pushrod_server *server, uint64_t conn, const void *data, size_t size, void *arg);
    /* It is gone. error: 0 if the peer or the program closed it, else enum pushrod_error. A peer
     * that ends its side of the connection (shutdown(), nc -N) has closed it; what was sent still
     * goes. */
    void (*close)(struct pushrod_server *server, uint64_t conn, int error, void *arg);
    /* A task that has no callback of its own finished; or one of an earlier life of this program,
     * whose callbacks died with it: its tag says what it was. */
    void (*finish)(struct pushrod_server *server, const struct pushrod_finish *finish, void *arg);
    /* A worker can be given tasks; a worker is gone without having said goodbye. */
    void (*worker_join)(
        struct pushrod_server *server, const struct pushrod_worker_note *note, void *arg);
    void (*worker_lost)(
        struct pushrod_server *server, const struct pushrod_worker_note *note, void *arg);
    /* All is over. Connections are still open: a last word can be sent. Then they are closed, each
     * with its close event, in which nothing can be sent any more. */
    void (*stop)(struct pushrod_server *server, void *arg);
};

/* Copied. Before start. */
void pushrod_server_on(
    struct pushrod_server *server, const struct pushrod_server_events *events, void *arg);

/* ---- listening ---- */

enum pushrod_framing_kind {
    PUSHROD_FRAMING_RAW = 0,   /* receive gets bytes as they come */
    PUSHROD_FRAMING_EOF = 1,   /* messages end with `eof` */
    PUSHROD_FRAMING_LENGTH = 2 /* a big-endian length of `length_size` bytes precedes each */
};

struct pushrod_framing {
    enum pushrod_framing_kind kind;
    const char *eof;      /* EOF: 1 to 8 bytes, NUL-terminated; NULL: "\r\n" */
    unsigned length_size; /* LENGTH: 1, 2, 4 or 8; 0: 4 */
    size_t max_message;   /* bytes; 0: 2 MiB; at most 1 TiB. A longer one closes the connection:
                             BAD_FRAME */
};

/*
 * Connections to `address` ("HOST:PORT", "[IPV6]:PORT", ":PORT" for every address, "unix:PATH")
 * come to the events above. framing NULL: raw. Both are copied; the socket is bound by start.
 * May be called several times. Before start. Errors: BAD_OPTION, NO_MEMORY.
 */
int pushrod_server_listen(
    struct pushrod_server *server, const char *address, const struct pushrod_framing *framing);

/*
 * The port that was bound, after start: of the n-th address of "listen" (native clients), "http" or
 * "own" (pushrod_server_listen), n from 0; of "join" and "answers". -1: there is none.
 */
int pushrod_server_port(const struct pushrod_server *server, const char *what, unsigned n);

/* ---- handlers in local processes ---- */

/*
 * `handler` (see pushrod/worker.h) runs the tasks of `queue`, a name or a pattern, in processes
 * of this program that are watched, and started again when they die. `queue` is copied; `arg` is as
 * it was at the time of the fork. Workers elsewhere may serve the same queue beside them.
 * Before start. Errors: BAD_QUEUE, INVALID (no handler), NO_MEMORY.
 */
int pushrod_server_on_task(struct pushrod_server *server, const char *queue,
    int (*handler)(struct pushrod_task *task, void *arg), void *arg);

/* ---- running ---- */

/*
 * Starts, and serves until pushrod_server_stop(). SIGTERM and SIGINT call stop() if
 * pushrod_server_catch_signals() was called. Returns 0 after a stop, or why it could not start.
 */
int pushrod_server_run(struct pushrod_server *server);

/*
 * With true, run() drains on the first SIGTERM or SIGINT and ends at the second. Before start. One
 * running server of a process at a time can have it: start() of another one fails with
 * WRONG_STATE. A program with several catches them itself, and calls stop() of each.
 */
void pushrod_server_catch_signals(struct pushrod_server *server, bool yes);

/*
 * For a loop of your own: start(), then wait until fd() is readable and call step(), which does
 * what is there to do and returns without waiting: 1 while it runs, 0 when it has stopped, or a
 * negative error. fd() is -1 before start; it belongs to the server.
 * Errors of start: SYSTEM (an address is taken, a file cannot be written; the text says which),
 * BAD_OPTION, STORE_FAILED, NO_MEMORY, WRONG_STATE (it was started already, or another server of
 * this process catches the signals). A start that failed leaves nothing to do but free().
 */
int pushrod_server_start(struct pushrod_server *server);
int pushrod_server_fd(const struct pushrod_server *server);
int pushrod_server_step(struct pushrod_server *server);

/*
 * Drains: no task is taken any more, what runs may finish for `drain-timeout` (25 s), local
 * processes leave, and run() returns; workers elsewhere wait for the next server. The second call
 * ends it at once; what is durable stays in the store either way. Any thread, and signal handlers.
 */
void pushrod_server_stop(struct pushrod_server *server);

/*
 * Has fn called on the server's thread, in order; what was taken is called even if the server ends
 * meanwhile. Any thread, from start on. Errors: INVALID (no fn), NO_MEMORY; WRONG_STATE (not
 * started, or over). They have no text, which is the server's thread's.
 */
int pushrod_server_post(
    struct pushrod_server *server, void (*fn)(struct pushrod_server *server, void *arg), void *arg);

/* ---- tasks ---- */

typedef void pushrod_finish_fn(
    struct pushrod_server *server, const struct pushrod_finish *finish, void *arg);

/*
 * Hands a task to the workers that serve `queue`. `data` (at most max-payload bytes) and options
 * (NULL: defaults) are copied. on_finish (may be NULL) is called once when it ends, never from
 * within this call: also with PUSHROD_REFUSED if the store could not take it after all. Without
 * it the finish event is called, if there is one. options->worker names the only worker that may
 * run it. Returns the id, above 0.
 * Errors: BAD_QUEUE, TOO_BIG, BAD_OPTION, INVALID (a size without data), DUPLICATE, QUEUE_FULL,
 * OVERLOADED, STORE_FAILED, STORE_FULL, DRAINING, NO_MEMORY; WRONG_STATE (not started, over, or not
 * the server's thread).
 */
int64_t pushrod_server_task(struct pushrod_server *server, const char *queue, const void *data,
    size_t size, const struct pushrod_options *options, pushrod_finish_fn *on_finish, void *arg);

/*
 * Ends a task that has not started, and asks its worker to stop it if it has; its finish tells what
 * came of it. Errors: INVALID, WRONG_STATE before start. An id that is not known is ignored.
 */
int pushrod_server_cancel(struct pushrod_server *server, uint64_t id);

/* One task of several. As in pushrod_server_task(). */
struct pushrod_job {
    const char *queue;
    const void *data;
    size_t size;
    const struct pushrod_options *options;
};

/*
 * Submits a task and waits for it, on a thread that is not the server's. timeout_ms: negative: as
 * long as it takes. *finish is the caller's, to be freed with pushrod_server_finish_free().
 * Errors: as of task(), TIMED_OUT (the task goes on; its finish goes to the finish event or is
 * dropped), WRONG_STATE (this is the server's thread, or it does not run), CLOSED (it stopped).
 */
int pushrod_server_taskwait(struct pushrod_server *server, const struct pushrod_job *job,
    int64_t timeout_ms, struct pushrod_finish **finish);

/*
 * The same for `count` tasks at once: finishes[i] is that of jobs[i], or NULL if it had none when
 * the time was over (errors[i], if errors is not NULL, says why: TIMED_OUT or what task() gave).
 * Returns how many have finished, or a negative error that concerns all of them.
 */
int64_t pushrod_server_taskwait_many(struct pushrod_server *server, const struct pushrod_job *jobs,
    size_t count, int64_t timeout_ms, struct pushrod_finish **finishes, int *errors);

void pushrod_server_finish_free(struct pushrod_finish *finish); /* NULL is fine. Any thread */

/* ---- groups: several tasks, one callback ---- */

/* NULL: out of memory. Belongs to the server, whose free() frees it; pushrod_group_wait() or
 * _drop() ends it before. */
struct pushrod_group *pushrod_group_new(struct pushrod_server *server);

/* Adds a task; as pushrod_server_task(). Returns its place in the group, from 0, or an error. */
int64_t pushrod_group_task(struct pushrod_group *group, const struct pushrod_job *job);

/*
 * Calls `done` once: when every task of the group has finished, or timeout_ms (negative: never)
 * from now with those that have. The group is freed when `done` returns. No task may be added any
 * more. Errors: INVALID (no `done`), NO_MEMORY, WRONG_STATE (it is waited for already, or the
 * server does not run); the group is as it was.
 */
int pushrod_group_wait(struct pushrod_group *group, int64_t timeout_ms,
    void (*done)(struct pushrod_server *server, struct pushrod_group *group, void *arg), void *arg);

size_t pushrod_group_count(const struct pushrod_group *group);
size_t pushrod_group_finished(const struct pushrod_group *group);
/* The finish of the task at `place`; NULL: not yet. Valid as long as the group. */
const struct pushrod_finish *pushrod_group_finish(const struct pushrod_group *group, size_t place);
uint64_t pushrod_group_id(const struct pushrod_group *group, size_t place);
/* Forgets the group; its tasks go on. Not after pushrod_group_wait(). */
void pushrod_group_drop(struct pushrod_group *group);

/* ---- connections of the program's own listeners ---- */

/*
 * Sends bytes; with framing EOF or LENGTH, a message (the end mark or length is added). Copied;
 * leaves at the end of the current callback round. Errors: UNKNOWN_CONNECTION, TOO_BIG, INVALID (a
 * size without data). A connection that lets too much pile up is closed: SLOW_READER.
 */
int pushrod_server_send(
    struct pushrod_server *server, uint64_t conn, const void *data, size_t size);

/* Closes it when what was sent has left. The close event comes later, never from within this call.
 */
int pushrod_server_close(struct pushrod_server *server, uint64_t conn);

/*
 * Sends to every connection of the program's own listeners but `except` (0: none), and those whose
 * framing LENGTH cannot say the size. Returns to how many.
 */
size_t pushrod_server_broadcast(
    struct pushrod_server *server, const void *data, size_t size, uint64_t except);

struct pushrod_conn_info {
    char peer[80];         /* "127.0.0.1:4711" */
    unsigned listener;     /* number of the pushrod_server_listen() call, from 0 */
    uint64_t connected_ms; /* Unix time */
    size_t unsent;         /* bytes that the peer has not taken */
};

int pushrod_server_conn_info(
    struct pushrod_server *server, uint64_t conn, struct pushrod_conn_info *info);

/* A pointer of the program's own for a connection; still there in its close event. */
int pushrod_server_conn_set_data(struct pushrod_server *server, uint64_t conn, void *data);
void *pushrod_server_conn_data(struct pushrod_server *server, uint64_t conn); /* NULL: none, gone */

/* ---- timers ---- */

/*
 * Calls fn in delay_ms, and then every repeat_ms (0: once). Returns an id above 0 that is never
 * used again, or an error: INVALID (no fn), NO_MEMORY; WRONG_STATE (not started, or over).
 */
int64_t pushrod_server_timer(struct pushrod_server *server, uint64_t delay_ms, uint64_t repeat_ms,
    void (*fn)(struct pushrod_server *server, void *arg), void *arg);
int pushrod_server_timer_clear(struct pushrod_server *server, int64_t timer); /* 0, or INVALID */

/* ---- looking ---- */

/*
 * Calls fn for each counter and gauge (the names are those of /metrics without the prefix). Any
 * time after start; for none in the close events of the end.
 */
void pushrod_server_stats(struct pushrod_server *server,
    void (*fn)(const char *name, uint64_t value, void *arg), void *arg);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
