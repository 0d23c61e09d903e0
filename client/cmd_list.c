/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_list: pushrod queues, workers, running, events. */
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "client/rows.h"

static const char *const queue_titles[] = {"QUEUE", "-READY", "-DELAYED", "-RUNNING", "-DEAD",
    "-WORKERS", "-SLOTS", "-DONE", "-FAILED", "-OLDEST", "-P95", "DURABILITY"};
static const char *const worker_titles[] = {"WORKER", "HOST", "-PID", "STATE", "-SLOTS", "-TASKS",
    "-STARTED", "-DONE", "-FAILED", "-SILENT", "-UP", "QUEUES"};

static void begin_queues(struct table *t)
{
    static const char *const spare[] = {"DURABILITY", "P95", "SLOTS", "DELAYED", "FAILED", NULL};
    table_begin(t, queue_titles, sizeof queue_titles / sizeof queue_titles[0]);
    t->spare = spare;
    t->sorted = true;
}

void rows_begin_workers(struct table *t)
{
    static const char *const spare[] = {"STARTED", "HOST", "SILENT", "PID", "FAILED", NULL};
    table_begin(t, worker_titles, sizeof worker_titles / sizeof worker_titles[0]);
    t->spare = spare;
    t->sorted = true;
}

/* A dash where a number would mean nothing: no age without a waiting task. */
static void queue_row(struct table *t, const struct pushrod_queue_info *q)
{
    char text[TEXT_SIZE];
    table_cell(t, "%s%s", q->name, q->paused ? " (paused)" : "");
    table_cell(t, "%s", text_count(text, q->ready));
    table_cell(t, "%s", text_count(text, q->delayed));
    table_cell(t, "%s", text_count(text, q->leased));
    table_cell(t, "%s", text_count(text, q->dead));
    table_cell(t, "%s", text_count(text, q->workers));
    table_cell(t, "%s", text_count(text, q->slots));
    table_cell(t, "%s", text_count(text, q->finished));
    table_cell(t, "%s", text_count(text, q->failed));
    table_cell(t, "%s", q->ready ? text_ms(text, q->oldest_ms) : "-");
    table_cell(t, "%s", q->service_ns ? text_ns(text, q->service_ns) : "-");
    table_cell(t, "%s", q->durability);
}

void rows_worker(struct table *t, const struct pushrod_worker_info *w)
{
    char text[TEXT_SIZE];
    table_cell(t, "%s", w->name);
    table_cell(t, "%s", w->host);
    table_cell(t, "%" PRIu64, w->pid);
    table_cell(t, "%s", w->state);
    table_cell(t, "%" PRIu64, w->slots);
    table_cell(t, "%s", text_count(text, w->outstanding));
    table_cell(t, "%s", text_count(text, w->started));
    table_cell(t, "%s", text_count(text, w->done));
    table_cell(t, "%s", text_count(text, w->failed));
    table_cell(t, "%s", text_ms(text, w->silent_ms));
    table_cell(t, "%s", text_age(text, w->joined_ms));
    table_cell(t, "%s", w->queues);
}

static void on_queue(const struct pushrod_queue_info *q, void *arg)
{
    struct listing *l = arg;
    if (l->json)
        json_print_row(JSON_QUEUE, q);
    else
        queue_row(&l->table, q);
}

static void on_worker(const struct pushrod_worker_info *w, void *arg)
{
    struct listing *l = arg;
    if (l->json)
        json_print_row(JSON_WORKER, w);
    else
        rows_worker(&l->table, w);
}

/* An empty list is no error, but silence would look like one. */
int listing_end(struct cli *cli, struct listing *l, int64_t rows, const char *none)
{
    if (rows == 0 && !l->json)
        cli_say(cli, "%s", none);
    if (rows > 0)
        table_print(&l->table);
    buf_free(&l->table.cells);
    return rows < 0 ? cli_error(cli, (int)rows) : EXIT_OK;
}

int cmd_queues(struct cli *cli)
{
    struct listing l = {.json = params_bool(cli->p, "json")};
    int code = cli_open(cli);
    if (code)
        return code;
    begin_queues(&l.table);
    int64_t rows =
        pushrod_client_queues(cli->client, cli->count ? cli->operands[0] : NULL, on_queue, &l);
    return listing_end(cli, &l, rows,
        cli->count ? "no queue has such a name (pushrod queues)" : "no queue: none was used yet");
}

int cmd_workers(struct cli *cli)
{
    struct listing l = {.json = params_bool(cli->p, "json")};
    int code = cli_open(cli);
    if (code)
        return code;
    rows_begin_workers(&l.table);
    int64_t rows =
        pushrod_client_workers(cli->client, cli->count ? cli->operands[0] : NULL, on_worker, &l);
    return listing_end(cli, &l, rows,
        cli->count ? "no worker has such a name (pushrod workers)"
                   : "no worker has joined (pushrod-worker --join HOST)");
}

/* --------------------------------------------------------------------------------- running */

/* "3/10 pages", as far as the handler has said it. */
static void progress_cell(struct table *t, const struct pushrod_task_info *info)
{
    char total[TEXT_SIZE] = "";
    const char *gap = *info->progress ? " " : "";
    if (info->total)
        snprintf(total, sizeof total, "/%" PRIu64, info->total);
    if (info->done || info->total)
        table_cell(t, "%" PRIu64 "%s%s%s", info->done, total, gap, info->progress);
    else
        table_cell(t, "%s", *info->progress ? info->progress : "-");
}

static const char *const running_titles[] = {
    "-ID", "QUEUE", "WORKER", "-FOR", "-ATTEMPTS", "-PRIORITY", "-SIZE", "-AGE", "PROGRESS"};

static const char *const running_spare[] = {"PRIORITY", "SIZE", "ATTEMPTS", "AGE", NULL};

static void on_running(const struct pushrod_task_info *t, void *arg)
{
    struct listing *l = arg;
    char text[TEXT_SIZE];
    if (l->json) {
        json_print_row(JSON_TASK, t);
        return;
    }
    table_cell(&l->table, "%" PRIu64, t->id);
    table_cell(&l->table, "%s", t->queue);
    table_cell(&l->table, "%s", t->worker);
    table_cell(&l->table, "%s", text_age(text, t->since_ms));
    table_cell(&l->table, "%" PRIu64, t->attempts);
    table_cell(&l->table, "%u", t->priority);
    table_cell(&l->table, "%s", text_bytes(text, t->size));
    table_cell(&l->table, "%s", text_age(text, t->submitted_ms));
    progress_cell(&l->table, t);
}

int cmd_running(struct cli *cli)
{
    struct listing l = {.json = params_bool(cli->p, "json")};
    int code = cli_open(cli);
    if (code)
        return code;
    table_begin(&l.table, running_titles, sizeof running_titles / sizeof running_titles[0]);
    l.table.spare = running_spare;
    int64_t rows =
        pushrod_client_running(cli->client, cli->count ? cli->operands[0] : NULL, on_running, &l);
    return listing_end(cli, &l, rows,
        cli->count ? "no worker has a task of such a queue" : "no worker has a task");
}

/* ---------------------------------------------------------------------------------- events */

/* Names that a stranger may have chosen end up on a terminal. */
static void add_name(struct buf *line, const char *what, const char *name)
{
    if (!*name)
        return;
    buf_printf(line, "  %s ", what);
    text_clean(line, name, strlen(name), PUSHROD_MAX_QUEUE_NAME);
}

static void print_event(const struct pushrod_event *e)
{
    char when[TEXT_SIZE];
    struct buf line = BUF_EMPTY;
    buf_printf(&line, "%s  %-14s", text_time(when, e->at_ms), e->kind);
    if (e->id)
        buf_printf(&line, "  task %" PRIu64, e->id);
    add_name(&line, "queue", e->queue);
    add_name(&line, "worker", e->worker);
    if (*e->text) {
        buf_printf(&line, "  ");
        text_reason(&line, e->text, strlen(e->text), REASON_WIDTH);
    }
    buf_append(&line, "\n", 1);
    fwrite(line.data, 1, line.size, stdout);
    buf_free(&line);
}

static void on_event(struct pushrod_client *c, const struct pushrod_event *e)
{
    const struct cli *cli = pushrod_client_data(c);
    if (params_bool(cli->p, "json"))
        json_print_row(JSON_EVENT, e);
    else
        print_event(e);
    fflush(stdout);
}

/*
 * Endless; a reconnect watches again by itself. Scripts wait for the line that says that it
 * watches: what happened before is not told.
 */
int cmd_events(struct cli *cli)
{
    static const struct pushrod_client_events events = {
        .event = on_event, .connection = cli_connection};
    int code = cli_client(cli);
    if (code)
        return code;
    pushrod_client_on(cli->client, &events);
    int error = pushrod_client_watch(cli->client, true);
    if (!error)
        error =
            pushrod_client_ping(cli->client, NULL); /* behind it, so the server has heard of it */
    if (!error)
        cli_say(cli, "watching %s", pushrod_client_server(cli->client)->address);
    while (!error && !ferror(stdout))
        error = pushrod_client_process(cli->client, -1);
    if (!error) /* nobody would see what happens: main() says so */
        return EXIT_OK;
    /* Who stops looking has seen what there was to see. */
    return error == -PUSHROD_E_INTERRUPTED ? EXIT_INTERRUPTED : cli_error(cli, error);
}
