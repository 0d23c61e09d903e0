/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exec: a command for each task. Payload on its standard input, result from its standard output.
 *
 * The thread of the slot waits in poll() for all of: room in the input, the three outputs, the
 * end of the process, a cancellation, the deadline. No handler can make it wait for anything else.
 */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "worker/command.h"
#include "worker/environment.h"
#include "worker/notes.h"
#include "worker/run.h"
#include "worker/said.h"
#include "worker/spawn.h"

#define READ_SIZE 65536u
/* What a pipe can hold, of a process that has ended; more comes from somebody else. */
#define LAST_READS 32

#define EXIT_GONE 65 /* EX_DATAERR: no attempt will help */

/* Why the process was told to end; EXEC_FREE: it was not. */
enum exec_stop { EXEC_FREE, EXEC_CANCELLED, EXEC_LATE, EXEC_TOO_BIG, EXEC_NO_MEMORY };

struct exec {
    struct slot *slot;
    struct pushrod_task *task;
    struct child child;
    size_t written; /* bytes of the payload */
    struct said said;
    struct notes notes;
    enum exec_stop stop;
    uint64_t kill_ns; /* after SIGTERM; UINT64_MAX: not told, or killed */
};

/* -------------------------------------------------------------------- the pipes */

/* Writes what the pipe takes. A command need not read its input: then it is closed early. */
static void feed(struct exec *e)
{
    struct slice payload = e->task->attempt->payload;
    if (!child_write(&e->child, payload, &e->written) || e->written == payload.size)
        child_close(&e->child.in);
}

static void stop_now(struct exec *e, enum exec_stop why)
{
    e->stop = why;
    e->kill_ns = UINT64_MAX;
    child_signal(&e->child, SIGKILL);
}

/* False: nothing more right now. At the end of the file the descriptor is closed. */
static bool read_output(struct exec *e)
{
    struct buf *result = &e->task->result;
    size_t limit = run_settings(e->slot->run)->max_result;
    uint8_t *room = buf_reserve(result, READ_SIZE);
    if (!room) {
        stop_now(e, EXEC_NO_MEMORY);
        child_close(&e->child.out);
        return false;
    }
    ssize_t size = read(e->child.out, room, READ_SIZE);
    if (size < 0)
        return errno == EINTR;
    if (size == 0) {
        child_close(&e->child.out);
        return false;
    }
    result->size += (size_t)size;
    if (result->size > limit) {
        stop_now(e, EXEC_TOO_BIG);
        child_close(&e->child.out);
        return false;
    }
    return true;
}

static bool read_notes(struct exec *e)
{
    char bytes[4096];
    ssize_t size = read(e->child.notes, bytes, sizeof bytes);
    if (size < 0)
        return errno == EINTR;
    if (size == 0)
        child_close(&e->child.notes);
    else
        notes_take(&e->notes, bytes, (size_t)size);
    return size > 0;
}

/* What the process wrote before it ended is in the pipes. Others may hold them open, and write. */
static void read_rest(struct exec *e)
{
    for (int i = 0; i < LAST_READS && e->child.out >= 0 && read_output(e); i++)
        ;
    said_read_rest(&e->said, &e->child.error);
    for (int i = 0; i < LAST_READS && e->child.notes >= 0 && read_notes(e); i++)
        ;
    notes_end(&e->notes);
    said_end(&e->said);
}

/* -------------------------------------------------------------- ending it early */

static void stop_politely(struct exec *e, enum exec_stop why, uint64_t now_ns)
{
    e->stop = why;
    e->kill_ns = now_ns + run_settings(e->slot->run)->grace_ms * NS_PER_MS;
    child_signal(&e->child, SIGTERM);
}

static void check_time(struct exec *e)
{
    uint64_t now_ns = clock_mono_ns();
    if (e->stop == EXEC_FREE && atomic_load(&e->task->cancelled))
        stop_politely(e, EXEC_CANCELLED, now_ns);
    else if (e->stop == EXEC_FREE && now_ns >= atomic_load(&e->task->deadline_ns))
        stop_politely(e, EXEC_LATE, now_ns);
    if (now_ns >= e->kill_ns) {
        child_signal(&e->child, SIGKILL);
        e->kill_ns = UINT64_MAX;
    }
}

static int wait_ms(const struct exec *e)
{
    return attempt_wait_ms(e->stop == EXEC_FREE ? atomic_load(&e->task->deadline_ns) : e->kill_ns);
}

static void exec_loop(struct exec *e)
{
    for (;;) {
        struct child *c = &e->child;
        struct pollfd p[] = {{.fd = c->exit, .events = POLLIN}, {.fd = c->in, .events = POLLOUT},
            {.fd = c->out, .events = POLLIN}, {.fd = c->error, .events = POLLIN},
            {.fd = c->notes, .events = POLLIN}, {.fd = e->slot->wake, .events = POLLIN}};
        if (child_poll(c, p, sizeof p / sizeof p[0], wait_ms(e)) < 0 && errno != EINTR)
            stop_now(e, EXEC_CANCELLED);
        if (p[0].revents)
            return;
        if (p[1].revents)
            feed(e);
        if (p[2].revents)
            read_output(e);
        if (p[3].revents)
            said_read(&e->said, &c->error);
        if (p[4].revents)
            read_notes(e);
        if (p[5].revents)
            slot_quiet(e->slot);
        check_time(e);
    }
}

/* ------------------------------------------------------------------ the outcome */

/* What it said last, or else how it ended. */
static void fail_with(struct exec *e, enum pushrod_error code, bool permanent, int status)
{
    char how[128];
    child_describe(status, how, sizeof how);
    struct slice tail = said_tail(&e->said, PUSHROD_MAX_ERROR_TEXT);
    if (tail.size)
        attempt_fail(e->task, code, permanent, "%.*s", (int)tail.size, (const char *)tail.data);
    else
        attempt_fail(e->task, code, permanent, "the command %s", how);
}

static void judge_stop(struct exec *e)
{
    struct pushrod_task *task = e->task;
    switch (e->stop) {
    case EXEC_CANCELLED:
        attempt_fail(task, PUSHROD_E_TASK_CANCELLED, true, "cancelled");
        break;
    case EXEC_LATE:
        attempt_fail_late(task, "");
        break;
    case EXEC_TOO_BIG:
        attempt_fail_too_big(task);
        break;
    case EXEC_NO_MEMORY:
        attempt_fail(task, PUSHROD_E_NO_MEMORY, false, "the worker has no memory for its result");
        break;
    case EXEC_FREE:
        assert(false); /* then it was not stopped */
    }
}

static void judge_exit(struct exec *e, int status)
{
    struct pushrod_task *task = e->task;
    struct handler *h = task->handler;
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1; /* so CHILD_UNKNOWN */
    if (e->notes.failed) {
        attempt_fail(task, PUSHROD_E_TASK_FAILED, true, "%s", e->notes.text);
    } else if (command_is_broken(h->command, code, atomic_load(&h->worked))) {
        struct slice tail = said_tail(&e->said, SAID_PART);
        attempt_fail(task, PUSHROD_E_HANDLER_BROKEN, false, "`%s` exited with %d: %.*s", h->command,
            code, (int)tail.size, (const char *)tail.data);
    } else if (code != 0) {
        fail_with(e, PUSHROD_E_TASK_FAILED, code == EXIT_GONE, status);
        task->failure.retry_ms = e->notes.retry_ms;
    }
}

static int exec_spawn(struct exec *e)
{
    struct environment env;
    if (!environment_make(&env, e->task->attempt))
        return ENOMEM;
    int error = child_spawn(&e->child, e->task->handler->command, env.variables);
    environment_free(&env);
    return error;
}

static void exec_run(struct slot *slot, struct pushrod_task *task)
{
    struct exec e = {.slot = slot, .task = task, .kill_ns = UINT64_MAX};
    said_begin(&e.said, task->attempt->id);
    notes_begin(&e.notes, task);
    int error = exec_spawn(&e);
    if (error) {
        attempt_fail_start(task, error);
        return;
    }
    feed(&e);
    exec_loop(&e);
    child_signal(&e.child, SIGKILL); /* what it left behind writes no more */
    read_rest(&e);
    int status = child_end(&e.child);
    if (e.stop == EXEC_FREE)
        judge_exit(&e, status);
    else
        judge_stop(&e);
}

const struct handler_ops handler_exec = {
    .kind = "exec",
    .run = exec_run,
    .interruptible = true,
};
