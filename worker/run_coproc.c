/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The handler "coproc": one process for each slot that stays (coproc.h), and gets one task after
 * the other (talk.h).
 *
 * Whatever goes wrong with it (it dies, hangs, is cancelled, talks nonsense) ends the attempt with
 * a text that says so, and the process; the next task gets a new one.
 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/utf8.h"
#include "worker/command.h"
#include "worker/coproc.h"
#include "worker/run.h"
#include "worker/talk.h"

/* How the attempt stands. */
enum turn {
    TURN_OPEN, /* no answer yet */
    TURN_ANSWERED,
    TURN_CLOSED, /* the process is gone, or has closed its output */
    TURN_GARBAGE,
    TURN_TOO_BIG,
    TURN_CANCELLED,
    TURN_LATE
};

struct attempt_run {
    struct slot *slot;
    struct pushrod_task *task;
    struct coproc *p;
    enum turn turn;
    const char *wrong; /* GARBAGE: what of it, as talk_message.wrong */
    uint64_t kill_ns;  /* SIGTERM was sent: SIGKILL then; UINT64_MAX: was not */
};

/* --------------------------------------------------------------------- answers */

static void garbage(struct attempt_run *r, const char *wrong)
{
    r->turn = TURN_GARBAGE;
    r->wrong = wrong;
}

/* Bytes behind the line that we are willing to hold. */
static bool too_big(const struct attempt_run *r, const struct talk_message *m)
{
    return m->size > run_settings(r->slot->run)->max_result;
}

static void take_answer(struct attempt_run *r, const struct talk_message *m, uint8_t *bytes)
{
    struct pushrod_task *task = r->task;
    /* The text of a failure is the body, or, without one, that of the line. */
    const char *text = m->size ? (const char *)bytes : m->text;
    int size = (int)(m->size < PUSHROD_MAX_ERROR_TEXT ? m->size : PUSHROD_MAX_ERROR_TEXT);
    if (m->type == TALK_FAIL || m->type == TALK_RETRY)
        utf8_repair(bytes, (size_t)size);
    if (!m->size)
        size = (int)strlen(text);
    switch (m->type) {
    case TALK_PROGRESS:
        attempt_report(task, REPORT_PROGRESS, m->done, m->total, m->text, strlen(m->text));
        return;
    case TALK_DATA:
        attempt_report(task, REPORT_DATA, 0, 0, bytes, m->size);
        return;
    case TALK_DONE:
        buf_append(&task->result, bytes, m->size);
        break;
    case TALK_FAIL:
        attempt_fail(task, PUSHROD_E_TASK_FAILED, true, "%.*s", size, text);
        break;
    case TALK_RETRY:
        attempt_fail(task, PUSHROD_E_TASK_FAILED, false, "%.*s", size, text);
        task->failure.retry_ms = m->after_ms;
        break;
    }
    r->turn = TURN_ANSWERED;
}

/* All messages that are there whole. What comes after the answer is nobody's: see coproc_ready().
 */
static void take_output(struct attempt_run *r)
{
    struct buf *out = &r->p->out;
    size_t at = 0;
    while (r->turn == TURN_OPEN) {
        struct talk_message m;
        int known = talk_parse(slice_of(out->data + at, out->size - at), &m);
        if (known < 0)
            garbage(r, m.wrong);
        else if (known > 0 && m.id && m.id != r->task->attempt->id)
            garbage(r, "\"id\" is that of another task"); /* the answer to an earlier one */
        else if (known > 0 && too_big(r, &m))
            r->turn = TURN_TOO_BIG;
        if (known <= 0 || r->turn != TURN_OPEN || out->size - at - m.head < m.size)
            break;
        take_answer(r, &m, out->data + at + m.head);
        at += m.head + m.size;
    }
    buf_consume(out, at);
    if (out->size == 0)
        buf_recycle(out, COPROC_KEEP);
}

/* ------------------------------------------------------------------- the pipes */

static void read_output(struct attempt_run *r)
{
    struct coproc *p = r->p;
    uint8_t *room = buf_reserve(&p->out, COPROC_READ);
    ssize_t size = room ? read(p->child.out, room, COPROC_READ) : 0;
    if (size < 0)
        return;
    if (size == 0) {
        r->turn = r->turn == TURN_OPEN ? TURN_CLOSED : r->turn;
        return;
    }
    p->out.size += (size_t)size;
    p->heard = true;
    take_output(r);
}

static void check_time(struct attempt_run *r)
{
    uint64_t now_ns = clock_mono_ns();
    bool cancelled = atomic_load(&r->task->cancelled);
    if (r->kill_ns != UINT64_MAX) {
        if (now_ns >= r->kill_ns)
            r->turn = cancelled ? TURN_CANCELLED : TURN_LATE; /* child_end() kills it */
    } else if (cancelled || now_ns >= atomic_load(&r->task->deadline_ns)) {
        r->kill_ns = now_ns + run_settings(r->slot->run)->grace_ms * NS_PER_MS;
        child_signal(&r->p->child, SIGTERM);
    }
}

static int wait_ms(const struct attempt_run *r)
{
    return attempt_wait_ms(
        r->kill_ns == UINT64_MAX ? atomic_load(&r->task->deadline_ns) : r->kill_ns);
}

static void turn_step(struct attempt_run *r)
{
    struct coproc *p = r->p;
    bool more = p->written < p->in.size;
    struct pollfd f[] = {{.fd = p->child.exit, .events = POLLIN},
        {.fd = more ? p->child.in : -1, .events = POLLOUT}, {.fd = p->child.out, .events = POLLIN},
        {.fd = p->child.error, .events = POLLIN}, {.fd = r->slot->wake, .events = POLLIN}};
    if (child_poll(&p->child, f, sizeof f / sizeof f[0], wait_ms(r)) < 0)
        return;
    if (f[1].revents)
        coproc_feed(p);
    if (f[3].revents)
        said_read(&p->said, &p->child.error);
    if (f[2].revents)
        read_output(r);
    else if (f[0].revents) /* gone, and all that it said is read */
        r->turn = TURN_CLOSED;
    if (f[4].revents)
        slot_quiet(r->slot);
    if (r->turn == TURN_OPEN)
        check_time(r);
}

/* It has answered, but not taken its whole input, of which the rest would be taken for the next
 * task: a moment for it, then a new process. What it says meanwhile is not read. */
static void turn_finish(struct attempt_run *r)
{
    struct coproc *p = r->p;
    uint64_t end_ns = clock_mono_ns() + run_settings(r->slot->run)->grace_ms * NS_PER_MS;
    while (p->written < p->in.size) {
        uint64_t now_ns = clock_mono_ns();
        if (now_ns >= end_ns || child_ended(&p->child)) {
            coproc_end(p);
            return;
        }
        struct pollfd f[] = {{.fd = p->child.exit, .events = POLLIN},
            {.fd = p->child.in, .events = POLLOUT}, {.fd = p->child.error, .events = POLLIN}};
        child_poll(&p->child, f, sizeof f / sizeof f[0], clock_wait_ms(now_ns, end_ns));
        if (f[1].revents)
            coproc_feed(p);
        if (f[2].revents)
            said_read(&p->said, &p->child.error);
    }
}

/* ----------------------------------------------------------------- the outcome */

/* How its process came to its end, as far as people want to know. */
struct crash {
    bool ended; /* by itself */
    int status;
    char output[256]; /* what became of the answer */
    struct slice last_words;
};

/* A line of what is left of its output; before coproc_end(), which forgets it. */
static void describe_output(const struct attempt_run *r, char *text, size_t size)
{
    struct buf *out = &r->p->out;
    struct talk_message m;
    int length = (int)(out->size < 80 ? out->size : 80);
    if (r->turn == TURN_CLOSED && out->size == 0) {
        snprintf(text, size, " without an answer");
    } else if (r->turn == TURN_CLOSED && talk_parse(buf_slice(out), &m) > 0) {
        snprintf(text, size, " in the middle of its answer");
    } else {
        utf8_repair(out->data, (size_t)length);
        const uint8_t *feed = memchr(out->data, '\n', (size_t)length);
        snprintf(text, size, "; what it printed is not the protocol%s%s%s: %.*s",
            *r->wrong ? " (" : "", r->wrong, *r->wrong ? ")" : "",
            feed ? (int)(feed - out->data) : length, (const char *)out->data);
    }
}

static void fail_crashed(struct attempt_run *r, const struct crash *c)
{
    char how[128];
    struct handler *h = r->task->handler;
    child_describe(c->status, how, sizeof how);
    int code = c->ended && WIFEXITED(c->status) ? WEXITSTATUS(c->status) : -1;
    enum pushrod_error error = PUSHROD_E_TASK_CRASHED;
    if (command_is_broken(h->command, code, atomic_load(&h->worked)))
        error = PUSHROD_E_HANDLER_BROKEN;
    attempt_fail(r->task, error, false, "the handler's process (`%s`) %s%s%s%.*s", h->command,
        c->ended                  ? how
        : r->turn == TURN_GARBAGE ? "was ended"
                                  : "closed its output",
        c->output,
        !c->last_words.size   ? ""
        : c->output[0] == ';' ? "; its last words: "
                              : ": ",
        (int)c->last_words.size, (const char *)c->last_words.data);
}

/* A command that breaks the protocol does so with each task: its author looks here. */
static void tell_crash(const struct pushrod_task *task)
{
    static struct log_limit limit;
    char more[LOG_MORE];
    if (task->failure.code == PUSHROD_E_TASK_CRASHED && log_allowed(&limit, more))
        log_warning("task %llu: %.*s%s", (unsigned long long)task->attempt->id,
            (int)task->text.size, (const char *)task->text.data, more);
}

/* Most that say nothing more, or nonsense, are about to end: a moment for that, for their status.
 */
static void crashed(struct attempt_run *r)
{
    struct crash c = {0};
    c.ended = child_ends_within(&r->p->child, (int)run_settings(r->slot->run)->exit_ms);
    said_read_rest(&r->p->said, &r->p->child.error);
    describe_output(r, c.output, sizeof c.output);
    c.last_words = said_tail(&r->p->said, SAID_PART);
    c.status = coproc_end(r->p);
    fail_crashed(r, &c);
    tell_crash(r->task);
}

/* The process is replaced in each of these cases. */
static void judge(struct attempt_run *r)
{
    struct pushrod_task *task = r->task;
    if (r->kill_ns != UINT64_MAX) /* it was told to end: whatever else it did then */
        r->turn = atomic_load(&task->cancelled) ? TURN_CANCELLED : TURN_LATE;
    if (r->turn == TURN_GARBAGE || r->turn == TURN_CLOSED) {
        crashed(r);
        return;
    }
    coproc_end(r->p);
    if (r->turn == TURN_TOO_BIG)
        attempt_fail_too_big(task);
    else if (r->turn == TURN_CANCELLED)
        attempt_fail(task, PUSHROD_E_TASK_CANCELLED, true, "cancelled");
    else if (r->turn == TURN_LATE)
        attempt_fail_late(task,
            r->p->heard ? "" : "; its process has said nothing: does it flush what it prints?");
}

static struct coproc *coproc_of(struct slot *slot, const struct handler *handler)
{
    void **state = &slot->state[handler - run_settings(slot->run)->handlers];
    if (!*state)
        *state = coproc_new();
    return *state;
}

/* One turn in a process. False: it had left in good order after its last task, before it saw this.
 */
static bool coproc_turn(struct slot *slot, struct pushrod_task *task, struct coproc *p)
{
    bool used = p->used;
    struct attempt_run r = {.slot = slot, .task = task, .p = p, .wrong = "", .kill_ns = UINT64_MAX};
    p->written = 0;
    p->used = true;
    p->heard = false;
    coproc_feed(p);
    while (r.turn == TURN_OPEN)
        turn_step(&r);
    if (r.turn == TURN_ANSWERED && r.kill_ns == UINT64_MAX) {
        turn_finish(&r);
        return true;
    }
    if (r.turn == TURN_CLOSED && used && !p->heard && r.kill_ns == UINT64_MAX &&
        coproc_left_well(p, (int)run_settings(slot->run)->exit_ms))
        return false;
    judge(&r);
    return true;
}

static bool coproc_fresh(struct coproc *p, struct pushrod_task *task)
{
    int error = coproc_ready(p, task->handler->command);
    if (!error)
        return true;
    attempt_fail_start(task, error);
    return false;
}

static void coproc_run(struct slot *slot, struct pushrod_task *task)
{
    struct coproc *p = coproc_of(slot, task->handler);
    if (p)
        buf_clear(&p->in);
    if (!p || !talk_request(&p->in, task->attempt)) {
        attempt_fail(task, PUSHROD_E_NO_MEMORY, false, "no memory for the request");
        return;
    }
    said_begin(&p->said, task->attempt->id);
    /* The second process is a new one, so there is no third. */
    while (coproc_fresh(p, task) && !coproc_turn(slot, task, p))
        ;
    buf_recycle(&p->in, COPROC_KEEP);
    said_read_rest(&p->said, &p->child.error); /* it is of this task, not of the next */
    said_end(&p->said);
}

const struct handler_ops handler_coproc = {
    .kind = "coproc",
    .run = coproc_run,
    .slot_leave = coproc_leave,
    .slot_close = coproc_close,
    .interruptible = true,
};
