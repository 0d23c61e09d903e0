/* SPDX-License-Identifier: Apache-2.0 */
/*
 * why: a command that waits never stays silent: what is the task waiting for?
 *
 * Asks the server for the queue, and where that is not enough for the workers; the first reason
 * that holds is the one that the reader can do something about.
 */
#include <string.h>

#include "client/command.h"
#include "client/interrupt.h"
#include "common/clock.h"
#include "common/name.h"

/* What is known of the queue. */
struct look {
    const char *queue;
    bool found;
    struct pushrod_queue_info row; /* its texts are not used */
    struct buf serving;            /* patterns of all workers, each once */
    unsigned workers, serves, draining;
    bool many;
    char text[512];
};

/* The filter may be a pattern for the server; here only the queue itself counts. */
static void look_queue(const struct pushrod_queue_info *row, void *arg)
{
    struct look *l = arg;
    if (strcmp(row->name, l->queue) != 0)
        return;
    l->found = true;
    l->row = *row;
}

/* Adds a pattern to what is served, if it is not there. */
static void serving_add(struct look *l, struct slice pattern)
{
    const char *at = (const char *)l->serving.data;
    for (size_t i = 0; i < l->serving.size;) {
        size_t n = strlen(at + i);
        if (slice_equal(pattern, slice_of(at + i, n)))
            return;
        i += n + 1;
    }
    buf_append(&l->serving, pattern.data, pattern.size);
    buf_append(&l->serving, "", 1);
}

static void look_worker(const struct pushrod_worker_info *w, void *arg)
{
    struct look *l = arg;
    bool serves = false;
    l->workers++;
    for (const char *at = w->queues; *at;) {
        size_t n = strcspn(at, ",");
        struct slice pattern = slice_of(at, n);
        /* "!name": its handler is broken there. */
        if (n && *at == '!')
            serves &= !slice_equal(slice_of(at + 1, n - 1), slice_str(l->queue));
        else if (n)
            serving_add(l, pattern);
        serves |= name_matches(pattern, slice_str(l->queue));
        at += n + (at[n] == ',');
    }
    l->serves += serves;
    l->draining += serves && strcmp(w->state, "draining") == 0;
}

static void serving_text(const struct look *l, struct buf *to)
{
    const char *at = (const char *)l->serving.data;
    for (size_t i = 0; i < l->serving.size; i += strlen(at + i) + 1) {
        if (to->size > 300) {
            buf_printf(to, ", ...");
            return;
        }
        buf_printf(to, "%s%s", i ? ", " : "", at + i);
    }
}

/* The most frequent mistake is a name: so the names that would work are shown. */
static void say_nobody(struct look *l)
{
    struct buf names = BUF_EMPTY;
    serving_text(l, &names);
    if (!l->workers)
        snprintf(l->text, sizeof l->text,
            "no worker serves '%s': none has joined (pushrod-worker --join HOST --exec %s=COMMAND)",
            l->queue, l->queue);
    else
        snprintf(l->text, sizeof l->text, "no worker serves '%s' (serving: %s)", l->queue,
            names.size ? buf_text(&names) : "nothing");
    buf_free(&names);
}

static void add_text(struct buf *to, const char *text)
{
    text_reason(to, text, strlen(text), REASON_WIDTH);
}

static void say_delayed(struct look *l, const struct pushrod_task_info *t, uint64_t left_ms)
{
    char age[TEXT_SIZE];
    struct buf after = BUF_EMPTY;
    if (*t->text)
        buf_printf(&after, ", after: ");
    add_text(&after, t->text);
    snprintf(l->text, sizeof l->text, "task %llu %s: in %s%s", (unsigned long long)t->id,
        *t->text ? "waits for its next attempt" : "is not due yet", text_ms(age, left_ms),
        buf_text(&after));
    buf_free(&after);
}

/* Where the one task is; false: nothing worth saying. */
static bool say_task(struct look *l, const struct pushrod_task_info *t)
{
    uint64_t now = clock_now().wall_ms;
    unsigned long long id = t->id;
    if (strcmp(t->state, "delayed") == 0 && t->due_ms > now)
        say_delayed(l, t, t->due_ms - now);
    else if (strcmp(t->state, "held") == 0)
        snprintf(l->text, sizeof l->text,
            "task %llu may be running since before the server restarted: waiting for its worker",
            id);
    else if (strcmp(t->state, "leased") == 0 && !l->many)
        snprintf(l->text, sizeof l->text, "task %llu is with worker %s", id, t->worker);
    else if (strcmp(t->state, "ready") == 0 && *t->worker)
        snprintf(l->text, sizeof l->text, "task %llu is for worker %s only, which is busy or away",
            id, t->worker);
    else if (strcmp(t->state, "storing") == 0)
        snprintf(l->text, sizeof l->text,
            "task %llu is not stored yet: the store is slow or failed", id);
    else
        return false;
    return true;
}

/* From what an operator did, over who is missing, to plain load. */
static void say_queue(struct look *l)
{
    char a[TEXT_SIZE], b[TEXT_SIZE];
    const struct pushrod_queue_info *q = &l->row;
    if (l->found && q->paused)
        snprintf(l->text, sizeof l->text, "queue '%s' is paused (pushrod resume %s)", l->queue,
            l->queue);
    else if (!l->serves)
        say_nobody(l);
    else if (l->draining == l->serves)
        snprintf(l->text, sizeof l->text, "every worker that serves '%s' is draining", l->queue);
    else if (l->found && q->ready && q->slots && q->leased >= q->slots)
        snprintf(l->text, sizeof l->text, "every slot for '%s' is busy (%s); tasks that wait: %s",
            l->queue, text_count(a, q->slots), text_count(b, q->ready));
    else if (l->found && q->leased)
        snprintf(l->text, sizeof l->text, "'%s': tasks with workers: %s, that wait: %s", l->queue,
            text_count(a, q->leased), text_count(b, q->ready));
}

/* Three questions to the server, once a second at the most, and only while nothing happens. */
static void explain(struct cli *cli, struct look *l, uint64_t id)
{
    struct pushrod_task_info task;
    if (pushrod_client_queues(cli->client, l->queue, look_queue, l) < 0 ||
        pushrod_client_workers(cli->client, NULL, look_worker, l) < 0)
        return;
    if (l->found && l->row.paused) {
        say_queue(l);
        return;
    }
    if (id && pushrod_client_status(cli->client, id, &task) == 0 && say_task(l, &task))
        return;
    say_queue(l);
}

/* Once, until there is another reason. */
static void say(struct cli *cli, struct why *why, const char *text)
{
    if (!*text || strcmp(text, why->said) == 0)
        return;
    snprintf(why->said, sizeof why->said, "%s", text);
    cli_say(cli, "waiting: %s", text);
}

void why_refused(struct cli *cli, struct why *why, const char *queue, const char *text)
{
    char line[sizeof why->said];
    snprintf(line, sizeof line, "'%s' takes no more tasks yet: %s", queue, text);
    say(cli, why, line);
}

void why_explain(struct cli *cli, struct why *why, const char *queue, uint64_t id)
{
    struct look l = {.queue = queue, .many = why->many};
    if (!pushrod_client_connected(cli->client))
        return; /* that was said when it was lost */
    explain(cli, &l, id);
    /* An interrupt that ended one of the questions is meant for the wait that goes on after them.
     */
    if (interrupt_count())
        pushrod_client_interrupt(cli->client);
    say(cli, why, l.text);
    buf_free(&l.serving);
}

/* ---------------------------------------------------------------------------------- failures */

void why_attempt(struct cli *cli, const char *what, const struct pushrod_attempt *a)
{
    struct buf text = BUF_EMPTY;
    char wait[TEXT_SIZE];
    add_text(&text, *a->text ? a->text : pushrod_strerror(a->error));
    cli_say(cli, "%s: attempt %llu failed%s%s: %s%s%s", what, (unsigned long long)a->attempt,
        *a->worker ? " on " : "", a->worker, buf_text(&text), a->retry_ms ? "; next in " : "",
        a->retry_ms ? text_ms(wait, a->retry_ms) : "");
    buf_free(&text);
}

/* What is said for all that ended so; false: the task's own text says it all. */
static bool add_kind(struct buf *to, const struct pushrod_finish *f)
{
    bool plain = f->error == PUSHROD_E_TASK_FAILED || f->error == PUSHROD_E_TASK_TIMEOUT;
    if (f->status && f->status != PUSHROD_FAILED)
        buf_printf(to, "%s", pushrod_status_name((int)f->status));
    else if (!*f->error_text || (f->status && !plain))
        buf_printf(to, "%s", pushrod_strerror(f->error));
    else
        return false;
    return true;
}

/* Without a status the text is that of whoever could not tell how the task ended, or begin it. */
void why_failed(struct buf *to, const struct pushrod_finish *f)
{
    bool kind = add_kind(to, f);
    if (!*f->error_text || (kind && strcmp(f->error_text, pushrod_strerror(f->error)) == 0))
        return;
    if (kind)
        buf_printf(to, ": ");
    add_text(to, f->error_text);
}
