/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client library: submit tasks to a Pushrod server, follow them, look at what is there.
 *
 *     struct pushrod_client *c = pushrod_client_new();
 *     struct pushrod_finish finish;
 *     if (pushrod_client_call(c, "digest", "hello", 5, NULL, 10000, &finish) == 0)
 *         printf("%.*s\n", (int)finish.result_size, (const char *)finish.result);
 *     else
 *         fprintf(stderr, "%s\n", pushrod_client_error_text(c));
 *     pushrod_client_free(c);
 *
 * Threads: one client belongs to one thread at a time; several threads use one client each. Only
 * pushrod_client_interrupt() may be called from anywhere, signal handlers included.
 *
 * Errors: functions that give an int return 0 (or a count) or a negative enum pushrod_error;
 * pushrod_client_error_text() then says in one line what was wrong and what to do.
 *
 * Waiting: functions with a `timeout_ms` block at the most that long; negative: without a limit;
 * 0: only what is there already. All others wait for the server's answer as long as the connection
 * holds, which a slow disk may need, or as long as `answer-timeout` says;
 * pushrod_client_interrupt() ends that. The first call that needs the server connects, bounded by
 * the settings `connect-timeout` and `connect-wait`.
 *
 * Reconnects: when the connection is lost the library dials again, with jittered backoff from 50 ms
 * to 1 s, for as long as `reconnect` says, and waits again for every task that it followed. Each
 * finish is delivered once for each id, however often it was sent. What was not told yet is
 * handled so:
 *   - a submission that had not left this process: sent over the new connection;
 *   - one that may have arrived, with a unique key: sent again; DUPLICATE then means that it had
 *     arrived, and counts as accepted. That needs a key that still holds: one without unique_ms is
 *     free again when its task has ended, and a task that was so short runs twice;
 *   - one that may have arrived, without a unique key: reported as PUSHROD_E_CLOSED. It may run or
 *     not; nothing sends it twice. Who cannot live with that gives each task a unique key, and a
 *     unique_ms that is longer than `reconnect`;
 *   - other requests: sent again.
 * An `attached` task is cancelled by the server when its connection closes, reconnect or not.
 *
 * Callbacks run inside the functions that wait, and inside pushrod_client_process(). In a callback
 * pushrod_client_submit_async(), _follow(), _cancel_async() and the functions that only look
 * may be called; those that wait return PUSHROD_E_WRONG_STATE.
 */
#ifndef PUSHROD_CLIENT_H
#define PUSHROD_CLIENT_H

#include <pushrod/error.h>
#include <pushrod/task.h>

#ifdef __cplusplus
extern "C" {
#endif

struct pushrod_client;

#define PUSHROD_DEFAULT_SERVER "127.0.0.1:5570"

/* ---- life ---- */

/*
 * A client with the settings of the environment (PUSHROD_SERVER, PUSHROD_TOKEN,
 * PUSHROD_TOKEN_FILE), not yet connected. NULL: out of memory or descriptors.
 * The caller frees it with pushrod_client_free().
 */
struct pushrod_client *pushrod_client_new(void);

/* Closes the connection and frees all; what was not flushed is lost. NULL is fine. */
void pushrod_client_free(struct pushrod_client *c);

/*
 * A setting by name; takes effect at the next connect, answer-timeout at once. Values are copied.
 *   server           HOST[:PORT], [IPV6]:PORT; 127.0.0.1:5570
 *   token            what the server asks for; none
 *   token-file       a file of one line, which is the token
 *   name             of this program, for people who look at the server; none
 *   connect-timeout  ms for one attempt to connect, greeting included; 5000
 *   connect-wait     ms during which a server that is not there yet is tried again; 0
 *   reconnect        ms during which a lost connection is tried again; 60000; 0: never
 *   answer-timeout   ms for the answer to what is asked of the server (status, lists, ping,
 *                    control, cancel), reconnects included, and without any of the answers that
 *                    submit() and submit_many() wait for; then TIMED_OUT, and what was asked for
 *                    may have been done or not; 0: no limit
 *
 * Errors: BAD_OPTION (the text names the setting and what is allowed), SYSTEM (token-file).
 */
int pushrod_client_set(struct pushrod_client *c, const char *name, const char *value);

/* Connects now, if it is not connected. Errors: UNREACHABLE, WRONG_PORT, BAD_TOKEN, BAD_VERSION,
 * INTERRUPTED. */
int pushrod_client_connect(struct pushrod_client *c);
bool pushrod_client_connected(const struct pushrod_client *c);

/* What the last function that failed says about it: one line, never NULL, valid until the next
 * call. */
const char *pushrod_client_error_text(const struct pushrod_client *c);

/* Makes the function that waits now, or the next one, return INTERRUPTED. Any thread, signal-safe.
 */
void pushrod_client_interrupt(struct pushrod_client *c);

/* What the server said about itself. Valid while connected. */
struct pushrod_server_info {
    char address[300];      /* host:port as it was dialled */
    char software[64];      /* "pushrod-server 0.1.0" */
    uint64_t max_payload;   /* bytes */
    int64_t clock_ahead_ms; /* the server's clock minus ours, when it greeted */
};
const struct pushrod_server_info *pushrod_client_server(const struct pushrod_client *c);

/* A pointer of the user's own, for callbacks. */
void pushrod_client_set_data(struct pushrod_client *c, void *data);
void *pushrod_client_data(const struct pushrod_client *c);

/* ---- callbacks ---- */

struct pushrod_progress {
    uint64_t id;
    uint64_t done;    /* in the handler's own unit */
    uint64_t total;   /* 0: unknown */
    const char *text; /* "" if none */
};

struct pushrod_attempt {
    uint64_t id;
    uint64_t attempt;   /* the one that ended, from 1 */
    int error;          /* enum pushrod_error */
    const char *text;   /* "" if none */
    const char *worker; /* its name; "" if none */
    uint64_t retry_ms;  /* until the next attempt */
};

struct pushrod_event {
    uint64_t at_ms;     /* Unix time */
    const char *kind;   /* "worker-join", "worker-lost", "task-dead", ... */
    uint64_t id;        /* of the task, or 0 */
    const char *worker; /* "" if none */
    const char *queue;  /* "" if none */
    const char *text;   /* "" if none */
};

/*
 * Each may be NULL. `arg` is that of the submission (struct pushrod_submission) or of follow().
 * What is pointed to is borrowed until the callback returns.
 */
struct pushrod_client_events {
    /* The answer to submit_async: error 0 and the id, or a negative enum pushrod_error; for
     * DUPLICATE id is the task that holds the key. Of a task that is followed it may come together
     * with the finish, a millisecond later than the server could have said it at the most. */
    void (*accepted)(struct pushrod_client *c, uint64_t id, int error, const char *text, void *arg);
    /* A followed task has finished; once for each id. Status 0: the server no longer knows how
     * (error: UNKNOWN_TASK or RESULT_GONE; error_text: what it knows instead). Not called for ids
     * that wait() or call() wait for. */
    void (*finish)(struct pushrod_client *c, const struct pushrod_finish *finish, void *arg);
    /* Only for tasks that are followed with PUSHROD_FOLLOW_ALL. */
    void (*progress)(struct pushrod_client *c, const struct pushrod_progress *progress, void *arg);
    void (*data)(struct pushrod_client *c, uint64_t id, const void *data, size_t size, void *arg);
    void (*attempt)(struct pushrod_client *c, const struct pushrod_attempt *attempt, void *arg);
    /* After pushrod_client_watch(). */
    void (*event)(struct pushrod_client *c, const struct pushrod_event *event);
    /* The connection came (true) or went (false, with the reason). */
    void (*connection)(struct pushrod_client *c, bool up, const char *text);
};

/* Copied; NULL: none. */
void pushrod_client_on(struct pushrod_client *c, const struct pushrod_client_events *events);

/* ---- submitting ---- */

enum pushrod_follow {
    PUSHROD_FOLLOW_NONE = 0,   /* only that it was accepted */
    PUSHROD_FOLLOW_FINISH = 1, /* its finish too: to the callback, or kept here until wait() asks */
    PUSHROD_FOLLOW_ALL = 2     /* progress, data and failed attempts as well */
};

/* One task. All that is pointed to is borrowed until the call returns. */
struct pushrod_submission {
    const char *queue;
    const void *data;                      /* the payload; may be NULL with size 0 */
    size_t size;                           /* bytes; at most pushrod_client_server()->max_payload */
    const struct pushrod_options *options; /* NULL: the defaults */
    enum pushrod_follow follow;
    bool attached; /* the server cancels the task when this connection closes */
    void *arg;     /* given to the callbacks */
};

/* What became of one submission. */
struct pushrod_receipt {
    uint64_t id; /* 0 if it was not accepted; DUPLICATE: the task that holds the key */
    int error;   /* 0, or a negative enum pushrod_error */
};

/*
 * Submits one task and returns once the server has accepted it, which means: has stored it as its
 * queue's durability says. Errors: BAD_QUEUE, TOO_BIG, BAD_OPTION (found here, before anything is
 * sent), DUPLICATE (*id is the task that holds the key), QUEUE_FULL, OVERLOADED, STORE_*, DRAINING,
 * CLOSED and TIMED_OUT (it is not known whether it was accepted), UNREACHABLE, INTERRUPTED.
 */
int pushrod_client_submit(
    struct pushrod_client *c, const struct pushrod_submission *task, uint64_t *id);

/*
 * Submits `count` tasks in as few round trips as possible; returns once each is accepted or
 * refused; receipts (one for each, in order) say which. Returns how many were accepted, or a
 * negative error if it could not go on (receipts that are not answered then say CLOSED).
 */
int64_t pushrod_client_submit_many(struct pushrod_client *c, const struct pushrod_submission *tasks,
    size_t count, struct pushrod_receipt *receipts);

/*
 * Encodes a submission and returns; accepted() tells the answer. Nothing is allocated for a task
 * in the steady state. Bytes leave in large writes: when 64 KiB are there, in
 * pushrod_client_process(), or in pushrod_client_flush(). Errors: those that are found here, and
 * OVERLOADED when 64 MiB wait to be sent, or would with it: call process() first.
 */
int pushrod_client_submit_async(struct pushrod_client *c, const struct pushrod_submission *task);

/* Submissions that are not answered yet; followed tasks whose finish has not come. */
size_t pushrod_client_unanswered(const struct pushrod_client *c);
size_t pushrod_client_unfinished(const struct pushrod_client *c);

/* ---- waiting ---- */

/*
 * Waits until each of `count` tasks has finished, whoever submitted them. finishes[i] is that of
 * ids[i]: status 0 and error 0 mean "not yet", status 0 and an error (UNKNOWN_TASK, RESULT_GONE)
 * that the server cannot tell any more. What finishes[] points to belongs to the client and is
 * valid until the next wait() or call(). Returns 0 when all are settled; TIMED_OUT and INTERRUPTED
 * leave the tasks followed: wait() again, or let the finish callback have them.
 */
int pushrod_client_wait(struct pushrod_client *c, const uint64_t *ids, size_t count,
    struct pushrod_finish *finishes, int64_t timeout_ms);

/*
 * Submits a task and waits for its finish. Returns 0 if it is done; TASK_FAILED, TASK_TIMEOUT,
 * TASK_CANCELLED, ... if it ended otherwise (*finish is filled, and the error text is the task's);
 * TIMED_OUT: finish->id says which task to wait for or follow, until the next call(); after that
 * its finish is dropped, unless there is a callback for it. If the server has not even accepted it
 * by then the id is 0, and it may run all the same. Memory as with wait().
 */
int pushrod_client_call(struct pushrod_client *c, const char *queue, const void *data, size_t size,
    const struct pushrod_options *options, int64_t timeout_ms, struct pushrod_finish *finish);

/*
 * Follows a task from now on; its finish comes to the callback, with `arg` (or is kept until
 * wait() asks, if there is no callback). Does not wait. Errors: INVALID, NO_MEMORY.
 */
int pushrod_client_follow(
    struct pushrod_client *c, uint64_t id, enum pushrod_follow follow, void *arg);

/* Asks the server to stop a task, and waits for the answer. Errors: UNKNOWN_TASK, WRONG_STATE (it
 * has ended already; also by this request, if that was sent again over a new connection). */
int pushrod_client_cancel(struct pushrod_client *c, uint64_t id);

/* The same without waiting for the answer. */
int pushrod_client_cancel_async(struct pushrod_client *c, uint64_t id);

/* ---- for other event loops ---- */

/*
 * One descriptor for the life of the client: wait until it is readable, then call process(c, 0).
 * It covers reading, writing, reconnecting and interrupt(). -1 never happens.
 */
int pushrod_client_fd(const struct pushrod_client *c);

/*
 * Sends what waits, reads what is there, calls the callbacks; waits for something to do up to
 * timeout_ms. Returns 0; INTERRUPTED; or why the connection could not be had (reconnect over).
 */
int pushrod_client_process(struct pushrod_client *c, int64_t timeout_ms);

/* Writes what the socket takes now; never blocks. */
void pushrod_client_flush(struct pushrod_client *c);

/* ---- looking and operating ---- */

/* How an attempt of a dead task ended. */
struct pushrod_death {
    uint64_t attempt;
    uint64_t at_ms; /* Unix time */
    int error;      /* enum pushrod_error */
    const char *worker;
    uint64_t signal;    /* that killed the worker's process; 0: none */
    uint64_t exit_code; /* of the worker's process */
    uint64_t peak_kib;  /* its peak resident memory; 0: unknown */
    const char *text;
};

struct pushrod_task_info {
    uint64_t id;
    const char *queue;
    const char *state; /* "delayed", "ready", "leased", "done", "failed", ... */
    unsigned priority;
    uint64_t attempts;
    uint64_t deaths; /* workers that died while they ran it alone */
    uint64_t submitted_ms;
    uint64_t due_ms;   /* of the next attempt if delayed, of the finish if it has one; else 0 */
    uint64_t since_ms; /* Unix time from which on its worker has it; 0: none has */
    uint64_t size;     /* of the payload, bytes */
    const char *worker;
    int error; /* enum pushrod_error of the last attempt, or 0 */
    const char *text;
    const struct pushrod_death *history; /* of a dead task */
    size_t history_count;
    const void *head; /* the first 1,024 bytes of the payload; NULL: not at hand */
    size_t head_size;
    const void *tag; /* NULL: none */
    size_t tag_size;
    uint64_t done, total; /* as its handler has said last, in its own unit; total 0: not known */
    const char *progress; /* the same in words */
};

struct pushrod_queue_info {
    const char *name;
    const char *durability;
    bool paused;
    uint64_t ready, delayed, leased, dead;             /* tasks */
    uint64_t workers, slots;                           /* that serve it */
    uint64_t submitted, finished, failed, redelivered; /* since the server started */
    uint64_t oldest_ms;                                /* age of the most urgent waiting task */
    uint64_t service_ns;                               /* 95 % of recent attempts took less */
};

struct pushrod_worker_info {
    uint64_t id;
    const char *name;
    const char *host;
    uint64_t pid;
    const char *state; /* "joining", "ready", "draining" */
    uint64_t slots, outstanding, started;
    const char *queues; /* patterns, separated by commas */
    uint64_t done, failed;
    uint64_t silent_ms;
    uint64_t joined_ms; /* Unix time */
};

/* Texts are never NULL, and borrowed: until the callback returns; status(): until the next call. */
typedef void pushrod_task_fn(const struct pushrod_task_info *task, void *arg);
typedef void pushrod_queue_fn(const struct pushrod_queue_info *queue, void *arg);
typedef void pushrod_worker_fn(const struct pushrod_worker_info *worker, void *arg);
typedef void pushrod_stat_fn(const char *name, uint64_t value, void *arg);

/* Where is this task? Errors: UNKNOWN_TASK. */
int pushrod_client_status(struct pushrod_client *c, uint64_t id, struct pushrod_task_info *info);

/*
 * A task as it was submitted, to be submitted again, changed or not: queue, options, and with
 * `payload` its data (without: NULL and 0, and nothing large is sent). That is there of a task that
 * waits or runs, and of a dead one. expires_ms and unique_ms are as they were given, eta_ms is 0
 * once the task need not wait any more. What *task points to belongs to the client, and is valid
 * until the next submitted(). Errors: UNKNOWN_TASK, WRONG_STATE (it has ended, and is not dead),
 * OVERLOADED (others ask for as many: ask again), INVALID (a server that does not know this yet).
 */
int pushrod_client_submitted(
    struct pushrod_client *c, uint64_t id, bool payload, struct pushrod_submission *task);

/* Calls `fn` for each row and returns how many there were, or a negative error. filter: a
 * name or pattern of queues, of workers, or of the queues of the tasks, NULL: all. running: what
 * workers have, by id. dead: ids above `after`, at most `limit` (0: 1,000). */
int64_t pushrod_client_queues(
    struct pushrod_client *c, const char *filter, pushrod_queue_fn *fn, void *arg);
int64_t pushrod_client_workers(
    struct pushrod_client *c, const char *filter, pushrod_worker_fn *fn, void *arg);
int64_t pushrod_client_running(
    struct pushrod_client *c, const char *filter, pushrod_task_fn *fn, void *arg);
int64_t pushrod_client_dead(struct pushrod_client *c, const char *filter, uint64_t after,
    uint64_t limit, pushrod_task_fn *fn, void *arg);
int64_t pushrod_client_stats(struct pushrod_client *c, pushrod_stat_fn *fn, void *arg);

/*
 * An operator's request. verb: "pause", "resume", "purge" (name: the queue; one to pause need not
 * be there yet), "drain" (name: the worker), "replay", "drop" (id: the dead task). Returns how many
 * tasks, workers or queues it touched. A pause or resume holds at once, and returns when it is
 * stored; after STORE_FAILED or STORE_FULL it may not outlive the server.
 */
int64_t pushrod_client_control(
    struct pushrod_client *c, const char *verb, const char *name, uint64_t id);

/*
 * "replay" or "drop" of `count` tasks, in as few round trips as possible: counts[i] is what
 * control() would give for ids[i]. Returns how many were touched, or a negative error if it could
 * not go on (those that are not answered then say CLOSED).
 */
int64_t pushrod_client_control_many(
    struct pushrod_client *c, const char *verb, const uint64_t *ids, size_t count, int64_t *counts);

/* Starts or stops event(); goes on over reconnects. */
int pushrod_client_watch(struct pushrod_client *c, bool on);

/* One round trip; *round_trip_ns, if not NULL, gets its time. */
int pushrod_client_ping(struct pushrod_client *c, uint64_t *round_trip_ns);

#ifdef __cplusplus
}
#endif
#endif
