/* SPDX-License-Identifier: Apache-2.0 */
#include "client/waiter.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/interrupt.h"
#include "common/clock.h"
#include "common/map.h"

#define FIRST_MS 1000u /* of silence, until the reason of waiting is told */
#define NEXT_MS  3000u
#define LOOK_MS  3000u /* for one question to the server about that reason */
#define LAST_MS  "500" /* for what is asked when the wait has ended */

static void on_attempt(struct pushrod_client *c, const struct pushrod_attempt *a, void *arg)
{
    char what[32];
    (void)arg;
    if (!a->retry_ms)
        return; /* the last one: the task's failure follows and says it */
    snprintf(what, sizeof what, "task %" PRIu64, a->id);
    why_attempt(pushrod_client_data(c), what, a);
}

static void line_erase(void *arg)
{
    struct cli *cli = arg;
    fputs("\r\033[K", stderr);
    cli->erase = NULL;
}

/* How far a handler says that it is; only where somebody watches, and in one line, or what was
 * drawn before would stay. */
static void on_progress(struct pushrod_client *c, const struct pushrod_progress *p, void *arg)
{
    struct cli *cli = pushrod_client_data(c);
    struct buf line = BUF_EMPTY, shown = BUF_EMPTY;
    (void)arg;
    if (!isatty(STDERR_FILENO))
        return;
    buf_printf(&line, "task %" PRIu64 ": %" PRIu64, p->id, p->done);
    if (p->total)
        buf_printf(&line, "/%" PRIu64, p->total);
    buf_printf(&line, " %s", p->text);
    text_clean(&shown, buf_text(&line), line.size, terminal_width(STDERR_FILENO) - 1);
    fprintf(stderr, "\r\033[K%s", buf_text(&shown));
    buf_free(&line);
    buf_free(&shown);
    cli->erase = line_erase;
    cli->erase_arg = cli;
}

static bool line_open; /* what went to standard output last has no newline at its end */

static void print_bytes(const void *data, size_t size)
{
    fwrite(data, 1, size, stdout);
    if (size)
        line_open = ((const char *)data)[size - 1] != '\n';
}

static void on_data(struct pushrod_client *c, uint64_t id, const void *data, size_t size, void *arg)
{
    const struct cli *cli = pushrod_client_data(c);
    (void)id, (void)arg;
    if (cli->erase)
        cli->erase(cli->erase_arg);
    print_bytes(data, size);
    fflush(stdout);
}

int waiter_check(struct cli *cli)
{
    if (params_bool(cli->p, "stream") && params_bool(cli->p, "json"))
        return cli_usage(cli, "a chunk is no line of JSON: --stream cannot go with --json");
    return EXIT_OK;
}

/* On one screen a line that is drawn over would take the beginnings of chunks along. */
void waiter_begin(struct cli *cli)
{
    bool stream = params_bool(cli->p, "stream");
    struct pushrod_client_events events = {
        .attempt = on_attempt, .progress = on_progress, .connection = cli_connection};
    if (stream)
        events.data = on_data;
    if (stream && isatty(STDOUT_FILENO))
        events.progress = NULL;
    pushrod_client_on(cli->client, &events);
}

/* The queue of the task, for the reason of waiting; "" if the server does not know the task. */
static const char *queue_of(
    const struct waiter *w, uint64_t id, char name[PUSHROD_MAX_QUEUE_NAME + 1])
{
    struct pushrod_task_info info;
    if (w->queue)
        return w->queue;
    name[0] = '\0';
    int error = pushrod_client_status(w->cli->client, id, &info);
    if (!error)
        snprintf(name, PUSHROD_MAX_QUEUE_NAME + 1, "%s", info.queue);
    else if (error == -PUSHROD_E_INTERRUPTED) /* it is meant for the wait that goes on after this */
        pushrod_client_interrupt(w->cli->client);
    return name;
}

static uint64_t now_ms(void)
{
    return clock_mono_ns() / 1000000;
}

/* The questions are part of the wait: a server that does not answer them must not prolong it. */
static void bound_questions(const struct waiter *w, uint64_t began)
{
    char ms[24];
    uint64_t passed = now_ms() - began, bound = LOOK_MS;
    if (w->limit_ms && w->limit_ms < passed + bound)
        bound = w->limit_ms > passed ? w->limit_ms - passed : 1;
    snprintf(ms, sizeof ms, "%" PRIu64, bound);
    pushrod_client_set(w->cli->client, "answer-timeout", ms);
}

/* Waits for one task in slices, between which the reason of waiting is told. */
static int wait_one(
    const struct waiter *w, struct why *why, uint64_t id, uint64_t began, struct pushrod_finish *f)
{
    char name[PUSHROD_MAX_QUEUE_NAME + 1];
    uint64_t slice = FIRST_MS;
    for (;;) {
        uint64_t passed = now_ms() - began;
        uint64_t left = w->limit_ms > passed ? w->limit_ms - passed : 0;
        bool last = w->limit_ms && left <= slice;
        int error = pushrod_client_wait(w->cli->client, &id, 1, f, (int64_t)(last ? left : slice));
        if (error != -PUSHROD_E_TIMED_OUT || last)
            return error;
        bound_questions(w, began);
        const char *queue = queue_of(w, id, name);
        if (*queue)
            why_explain(w->cli, why, queue, id);
        slice = NEXT_MS;
    }
}

/* ---------------------------------------------------------------------------------- mentions */

/* Ids that are named more than once: a server tells a finish once, and may forget it then. */
struct mentions {
    struct idmap count; /* id -> how often */
    struct idmap told;  /* id -> its finish, owned, a pointer */
};

static bool mentions_begin(struct mentions *m, const struct waiter *w)
{
    bool good = true;
    for (size_t i = 0; good && i < w->count; i++) {
        uint64_t count = 0;
        idmap_get(&m->count, w->ids[i], &count);
        good = idmap_put(&m->count, w->ids[i], count + 1);
    }
    return good;
}

static void mentions_free(struct mentions *m)
{
    struct idmap_cell cell;
    for (size_t place = 0; idmap_next(&m->told, &place, &cell);)
        free((void *)(uintptr_t)cell.value);
    idmap_free(&m->told);
    idmap_free(&m->count);
}

/* With all that it points to, in one allocation. */
static struct pushrod_finish *finish_copy(const struct pushrod_finish *f)
{
    size_t text = strlen(f->error_text) + 1;
    struct pushrod_finish *to = malloc(sizeof *to + f->result_size + f->tag_size + text);
    if (!to)
        return NULL;
    char *at = (char *)(to + 1);
    *to = *f;
    if (f->result_size)
        to->result = memcpy(at, f->result, f->result_size);
    at += f->result_size;
    if (f->tag_size)
        to->tag = memcpy(at, f->tag, f->tag_size);
    to->error_text = memcpy(at + f->tag_size, f->error_text, text);
    return to;
}

/* Without memory for it the server is asked again, which may have forgotten it. */
static void mentions_keep(struct mentions *m, const struct pushrod_finish *f)
{
    uint64_t count = 0;
    if (!idmap_get(&m->count, f->id, &count) || count < 2)
        return;
    struct pushrod_finish *copy = finish_copy(f);
    if (copy && !idmap_put(&m->told, f->id, (uint64_t)(uintptr_t)copy))
        free(copy);
}

/* The finish of the next mention, as it was told at the first one. */
static int wait_mentioned(const struct waiter *w, struct mentions *m, struct why *why, uint64_t id,
    uint64_t began, struct pushrod_finish *f)
{
    uint64_t told;
    if (idmap_get(&m->told, id, &told)) {
        *f = *(const struct pushrod_finish *)(uintptr_t)told;
        return 0;
    }
    int error = wait_one(w, why, id, began, f);
    if (!error)
        mentions_keep(m, f);
    return error;
}

/* ---------------------------------------------------------------------------------- reports */

/* Byte for byte; only on a terminal a line is ended, so that the prompt does not stick to it. */
static void print_result(const struct pushrod_finish *f)
{
    print_bytes(f->result, f->result_size);
    if (line_open && isatty(STDOUT_FILENO))
        print_bytes("\n", 1);
}

/* The result is all that goes to standard output. */
static int report(const struct waiter *w, const struct pushrod_finish *f)
{
    struct buf why = BUF_EMPTY;
    if (w->cli->erase)
        w->cli->erase(w->cli->erase_arg);
    if (w->json)
        json_print_row(JSON_FINISH, &(struct json_finish){*f, NULL});
    else if (f->status == PUSHROD_DONE)
        print_result(f);
    fflush(stdout);
    if (f->status == PUSHROD_DONE)
        return EXIT_OK;
    why_failed(&why, f);
    char attempts[48] = "";
    if (f->status == PUSHROD_FAILED)
        snprintf(attempts, sizeof attempts,
            f->attempts == 1 ? " failed" : " failed after %u attempts", f->attempts);
    cli_say(w->cli, "task %" PRIu64 "%s: %s", f->id, attempts, buf_text(&why));
    buf_free(&why);
    return f->status ? EXIT_TASK_FAILED : cli_exit_code(f->error);
}

/*
 * What is known of a task when the wait for it ends; without a connection that is its id. *asks:
 * the server has answered so far; one that does not must not be waited for again with each task.
 */
static void report_unfinished(const struct waiter *w, uint64_t id, bool *asks)
{
    struct pushrod_task_info info = {0};
    struct json_finish row = {.finish = {.id = id, .error = PUSHROD_E_TIMED_OUT}};
    row.finish.error_text = "the wait ended before the task did";
    if (!w->json)
        return;
    if (*asks && pushrod_client_connected(w->cli->client)) {
        pushrod_client_set(w->cli->client, "answer-timeout", LAST_MS);
        int error = pushrod_client_status(w->cli->client, id, &info);
        row.state = error ? NULL : info.state;
        *asks = !error || error == -PUSHROD_E_UNKNOWN_TASK;
    }
    row.finish.attempts = (unsigned)info.attempts;
    json_print_row(JSON_FINISH, &row);
}

/* A task outlives the command that waits for it, or does not: the reader is told which. */
static int say_unfinished(const struct waiter *w, uint64_t first, size_t count)
{
    char others[48] = "", number[TEXT_SIZE];
    bool one = count == 1;
    if (!one)
        snprintf(others, sizeof others, " and %s other%s", text_count(number, count - 1),
            count == 2 ? "" : "s");
    cli_say(w->cli, "the wait ended; task %" PRIu64 "%s %s not finished%s", first, others,
        one ? "has" : "have",
        !w->attached ? ""
        : one        ? " and is cancelled (--attached)"
                     : " and are cancelled (--attached)");
    return EXIT_TIMED_OUT;
}

/* Likewise. */
static int wait_failed(const struct waiter *w, int error, uint64_t id)
{
    if (error != -PUSHROD_E_INTERRUPTED)
        return cli_error(w->cli, error);
    if (w->attached)
        cli_say(w->cli,
            "interrupted; task %" PRIu64 " has not finished and is cancelled (--attached)", id);
    else
        cli_say(
            w->cli, "interrupted; task %" PRIu64 " goes on (pushrod cancel %" PRIu64 ")", id, id);
    return EXIT_INTERRUPTED;
}

/*
 * In the order of the ids; what ends earlier is kept by the library until its turn. When the time
 * is over that is told as well: the server has been told that it came, and may have forgotten it.
 */
static int wait_each(const struct waiter *w, struct mentions *m)
{
    struct why why = {.many = w->count > 1};
    uint64_t began = now_ms(), first = 0;
    size_t unfinished = 0;
    bool asks = true;
    int code = EXIT_OK;
    for (size_t i = 0; i < w->count; i++)
        pushrod_client_follow(w->cli->client, w->ids[i], PUSHROD_FOLLOW_ALL, NULL);
    for (size_t i = 0; i < w->count; i++) {
        struct pushrod_finish f;
        int error = wait_mentioned(w, m, &why, w->ids[i], began, &f);
        if (error && error != -PUSHROD_E_TIMED_OUT)
            return wait_failed(w, error, w->ids[i]);
        if (error) {
            first = unfinished++ ? first : w->ids[i];
            report_unfinished(w, w->ids[i], &asks);
            continue;
        }
        int one = report(w, &f);
        /* A failed task says more than an unknown one, and both more than none. */
        if (one && code != EXIT_TASK_FAILED)
            code = one;
    }
    return unfinished ? say_unfinished(w, first, unfinished) : code;
}

int waiter_run(struct waiter *w)
{
    struct mentions m = {0};
    int code = EXIT_REFUSED;
    if (mentions_begin(&m, w))
        code = wait_each(w, &m);
    else
        cli_say(w->cli, "%s", pushrod_strerror(PUSHROD_E_NO_MEMORY));
    mentions_free(&m);
    return code;
}
