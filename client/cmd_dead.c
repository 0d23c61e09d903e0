/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_dead: pushrod dead ls|show|replay|drop. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "client/rows.h"

#define PAGE 1000u /* dead tasks asked for at a time */

/* ---------------------------------------------------------------------------------- ls */

static const char *const dead_titles[] = {
    "-ID", "QUEUE", "-ATTEMPTS", "-DEATHS", "-SIZE", "-ENDED", "ERROR"};

static void on_dead(const struct pushrod_task_info *t, void *arg)
{
    struct listing *l = arg;
    char text[TEXT_SIZE];
    if (l->json) {
        json_print_row(JSON_TASK, t);
        return;
    }
    table_cell(&l->table, "%" PRIu64, t->id);
    table_cell(&l->table, "%s", t->queue);
    table_cell(&l->table, "%" PRIu64, t->attempts);
    table_cell(&l->table, "%" PRIu64, t->deaths);
    table_cell(&l->table, "%s", text_bytes(text, t->size));
    table_cell(&l->table, "%s", text_age(text, task_ended_ms(t)));
    char error[64];
    snprintf(error, sizeof error, "%s%s", t->error ? pushrod_error_name(t->error) : "",
        t->error && *t->text ? ": " : "");
    table_reason(&l->table, error, t->text);
}

static int dead_ls(struct cli *cli)
{
    struct listing l = {.json = params_bool(cli->p, "json")};
    if (cli->count > 2)
        return cli_usage(cli, "ls takes one queue at the most");
    int code = cli_open(cli);
    if (code)
        return code;
    table_begin(&l.table, dead_titles, sizeof dead_titles / sizeof dead_titles[0]);
    uint64_t limit = params_number(cli->p, "limit");
    int64_t rows = pushrod_client_dead(cli->client, cli->count > 1 ? cli->operands[1] : NULL,
        params_number(cli->p, "after"), limit, on_dead, &l);
    code = listing_end(
        cli, &l, rows, cli->count > 1 ? "no dead tasks of this queue" : "no dead tasks");
    /* A list that ends at its limit looks like a whole one. */
    if (rows > 0 && (uint64_t)rows == limit)
        cli_say(cli, "there may be more: --limit N, or --after with the last id");
    return code;
}

/* ---------------------------------------------------------------------------------- show */

/* The lines as somebody wrote them, each made safe for a terminal. */
static void print_bytes(const char *indent, const char *text, size_t size)
{
    const char *end = text + size;
    while (text < end) {
        struct buf line = BUF_EMPTY;
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        text_clean(&line, text, (size_t)((stop ? stop : end) - text), 4096);
        printf("%s%s\n", indent, buf_text(&line));
        buf_free(&line);
        text = stop ? stop + 1 : end;
    }
}

static void print_text(const char *indent, const char *text)
{
    print_bytes(indent, text, strlen(text));
}

static void print_payload(const struct pushrod_task_info *t)
{
    char size[TEXT_SIZE];
    printf("  payload    %s%s\n", text_bytes(size, t->size),
        t->head_size < t->size ? t->head ? ", which begins:" : ", not shown" : "");
    if (t->head)
        print_bytes("      ", t->head, t->head_size);
}

/* How a worker died is what no other task queue tells: signal, exit code, peak memory. */
static void print_death(const struct pushrod_death *d)
{
    char when[TEXT_SIZE], memory[TEXT_SIZE];
    printf("  attempt %" PRIu64 "  %s  on %s  %s", d->attempt, text_time(when, d->at_ms),
        *d->worker ? d->worker : "?", pushrod_strerror(d->error));
    if (d->signal)
        printf("; killed by signal %" PRIu64 " (%s)", d->signal, strsignal((int)d->signal));
    else if (d->exit_code)
        printf("; its process left with exit code %" PRIu64, d->exit_code);
    if (d->peak_kib)
        printf("; peak memory %s", text_bytes(memory, d->peak_kib * 1024));
    putchar('\n');
    if (strcmp(d->text, pushrod_strerror(d->error)) != 0)
        print_text("      ", d->text);
}

/* `show` takes any id, also of a task that waits or runs. */
static void print_dead(const struct pushrod_task_info *t)
{
    char text[TEXT_SIZE];
    printf("task %" PRIu64 "\n  queue      %s\n  state      %s\n", t->id, t->queue,
        text_state(t->state));
    printf("  submitted  %s\n", text_time(text, t->submitted_ms));
    if (task_due_ms(t))
        printf("  due        %s\n", text_time(text, task_due_ms(t)));
    if (task_ended_ms(t))
        printf("  ended      %s\n", text_time(text, task_ended_ms(t)));
    if (t->tag) {
        printf("  tag\n");
        print_bytes("      ", t->tag, t->tag_size);
    }
    print_payload(t);
    printf("  priority   %u\n  attempts   %" PRIu64 "\n  deaths     %" PRIu64 "\n", t->priority,
        t->attempts, t->deaths);
    printf("  error      %s\n", t->error ? pushrod_strerror(t->error) : "none");
    print_text("             ", t->text);
    for (size_t i = 0; i < t->history_count; i++)
        print_death(&t->history[i]);
}

static int show_one(struct cli *cli, const char *operand)
{
    struct pushrod_task_info info;
    uint64_t id = cli_id(cli, operand);
    int error = pushrod_client_status(cli->client, id, &info);
    if (error)
        return cli_task_failed(cli, id, error);
    if (params_bool(cli->p, "json"))
        json_print_row(JSON_TASK, &info);
    else
        print_dead(&info);
    return EXIT_OK;
}

/* All operands are ids, or nothing is done. */
static int check_ids(struct cli *cli, const char *verb)
{
    for (int i = 1; i < cli->count; i++) {
        if (cli_id(cli, cli->operands[i]))
            continue;
        if (verb)
            cli_say(cli, "for all of a queue: pushrod dead %s --all %s", verb, cli->operands[i]);
        return EXIT_USAGE;
    }
    return EXIT_OK;
}

static int dead_show(struct cli *cli)
{
    int code = cli->count < 2 ? cli_usage(cli, "show which? ID is missing") : check_ids(cli, NULL);
    return code ? code : cli_each(cli, 1, show_one);
}

/* ---------------------------------------------------------------------------------- replay, drop
 */

static int control_one(struct cli *cli, const char *operand)
{
    const char *verb = cli->operands[0];
    uint64_t id = cli_id(cli, operand);
    int64_t error = pushrod_client_control(cli->client, verb, NULL, id);
    if (params_bool(cli->p, "json"))
        cli_print_act(cli, &(struct json_act){.action = verb, .id = id}, error);
    if (error < 0)
        cli_say(cli, "cannot %s task %" PRIu64 ": %s", verb, id,
            pushrod_client_error_text(cli->client));
    return error < 0 ? cli_exit_code((int)error) : EXIT_OK;
}

static void collect(const struct pushrod_task_info *t, void *arg)
{
    struct buf *ids = arg;
    buf_append(ids, &t->id, sizeof t->id);
}

/* Page by page: ids only grow, so what was replayed and died again meanwhile is not met twice. */
static int control_all(struct cli *cli, const char *verb)
{
    struct buf ids = BUF_EMPTY;
    char number[TEXT_SIZE];
    uint64_t after = 0, touched = 0;
    int64_t rows;
    const char *queue = cli->count > 1 ? cli->operands[1] : NULL;
    do {
        buf_clear(&ids);
        rows = pushrod_client_dead(cli->client, queue, after, PAGE, collect, &ids);
        for (size_t i = 0; rows > 0 && i < ids.size / sizeof after; i++) {
            memcpy(&after, ids.data + i * sizeof after, sizeof after);
            int64_t count = pushrod_client_control(cli->client, verb, NULL, after);
            if (count >= 0)
                touched++;
            else if (count != -PUSHROD_E_UNKNOWN_TASK && count != -PUSHROD_E_WRONG_STATE)
                rows = count;
        }
    } while (rows == PAGE);
    buf_free(&ids);
    if (params_bool(cli->p, "json"))
        cli_print_act(cli, &(struct json_act){.action = verb, .queue = queue, .tasks = touched},
            rows < 0 ? rows : (int64_t)touched);
    if (rows < 0)
        return cli_error(cli, (int)rows);
    if (params_bool(cli->p, "json"))
        return EXIT_OK;
    printf("%s task%s %s\n", text_count(number, touched), touched == 1 ? "" : "s",
        strcmp(verb, "drop") == 0 ? "dropped" : "replayed");
    return EXIT_OK;
}

/*
 * Ids are named, or --all is said: dropping everything must not be what a forgotten operand does.
 */
static int dead_control(struct cli *cli, const char *verb)
{
    bool all = params_bool(cli->p, "all");
    if (!all && cli->count < 2)
        return cli_usage(cli, "%s which? give ids, or --all [QUEUE]", verb);
    if (all && cli->count > 2)
        return cli_usage(cli, "--all takes one queue at the most");
    int code = all ? cli_open(cli) : check_ids(cli, verb);
    if (code)
        return code;
    return all ? control_all(cli, verb) : cli_each(cli, 1, control_one);
}

int cmd_dead(struct cli *cli)
{
    const char *verb = cli->operands[0];
    if (strcmp(verb, "ls") == 0)
        return dead_ls(cli);
    if (strcmp(verb, "show") == 0)
        return dead_show(cli);
    if (strcmp(verb, "replay") == 0 || strcmp(verb, "drop") == 0)
        return dead_control(cli, verb);
    return cli_usage(cli, "'%s' must be ls, show, replay or drop", verb);
}
