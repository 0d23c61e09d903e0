/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_task: pushrod wait, status, payload, cancel: tasks by id. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "client/command.h"
#include "client/waiter.h"
#include "common/clock.h"

/* The operands as ids; NULL: one is none, and that was said. */
static uint64_t *read_ids(struct cli *cli)
{
    size_t count = (size_t)cli->count;
    uint64_t *ids = calloc(count, sizeof *ids);
    for (size_t i = 0; ids && i < count; i++) {
        ids[i] = cli_id(cli, cli->operands[i]);
        if (!ids[i]) {
            free(ids);
            return NULL;
        }
    }
    return ids;
}

int cmd_wait(struct cli *cli)
{
    uint64_t *ids = waiter_check(cli) ? NULL : read_ids(cli);
    if (!ids)
        return EXIT_USAGE;
    struct waiter w = {.cli = cli,
        .ids = ids,
        .count = (size_t)cli->count,
        .limit_ms = params_number(cli->p, "wait-for"),
        .json = params_bool(cli->p, "json")};
    int code = cli_open(cli);
    if (!code) {
        waiter_begin(cli);
        code = waiter_run(&w);
    }
    free(ids);
    return code;
}

/* When the next attempt may begin, for who asks why there is none. */
static void due_cell(struct table *t, uint64_t due_ms)
{
    char text[TEXT_SIZE];
    uint64_t now = clock_now().wall_ms;
    if (!due_ms)
        table_cell(t, "-");
    else if (due_ms <= now)
        table_cell(t, "now");
    else
        table_cell(t, "in %s", text_ms(text, due_ms - now));
}

/*
 * The age is since submission, whatever became of the task meanwhile. Of one that was finished and
 * kept on disk only the end is known.
 */
static void status_row(struct table *t, const struct pushrod_task_info *info)
{
    char size[TEXT_SIZE], age[TEXT_SIZE];
    table_cell(t, "%" PRIu64, info->id);
    bool known = info->submitted_ms != 0;
    table_cell(t, "%s", known ? info->queue : "-");
    table_cell(t, "%s", text_state(info->state));
    table_cell(t, known ? "%u" : "-", info->priority);
    table_cell(t, "%" PRIu64, info->attempts);
    table_cell(t, "%s", known ? text_bytes(size, info->size) : "-");
    table_cell(t, "%s", text_age(age, info->submitted_ms));
    due_cell(t, task_due_ms(info));
    table_cell(t, "%s", *info->worker ? info->worker : "-");
    table_reason(t, "",
        *info->text   ? info->text
        : info->error ? pushrod_strerror(info->error)
                      : "");
}

static const char *const status_titles[] = {
    "-ID", "QUEUE", "STATE", "-PRIORITY", "-ATTEMPTS", "-SIZE", "-AGE", "-DUE", "WORKER", "ERROR"};

static const char *const status_spare[] = {"SIZE", "PRIORITY", "ATTEMPTS", NULL};

/* One that is unknown is said, and the others are shown all the same. */
static int status_all(struct cli *cli, const uint64_t *ids)
{
    struct table t;
    int code = EXIT_OK;
    bool json = params_bool(cli->p, "json");
    table_begin(&t, status_titles, sizeof status_titles / sizeof status_titles[0]);
    t.spare = status_spare;
    for (int i = 0; i < cli->count; i++) {
        struct pushrod_task_info info;
        int error = pushrod_client_status(cli->client, ids[i], &info);
        if (error) {
            code = cli_task_failed(cli, ids[i], error);
            if (code != EXIT_UNKNOWN)
                break;
        } else if (json) {
            json_print_row(JSON_TASK, &info);
        } else {
            status_row(&t, &info);
        }
    }
    table_print(&t);
    return code;
}

int cmd_status(struct cli *cli)
{
    uint64_t *ids = read_ids(cli);
    if (!ids)
        return EXIT_USAGE;
    int code = cli_open(cli);
    if (!code)
        code = status_all(cli, ids);
    free(ids);
    return code;
}

/* Nothing is added to it: it goes into a file, or to the next command. */
static int payload_write(struct cli *cli, const struct pushrod_submission *task)
{
    errno = 0;
    if (fwrite(task->data, 1, task->size, stdout) == task->size && fflush(stdout) == 0)
        return EXIT_OK;
    cli_say(cli, "cannot write to standard output: %s", strerror(errno));
    return EXIT_TASK_FAILED;
}

int cmd_payload(struct cli *cli)
{
    uint64_t id = cli_id(cli, cli->operands[0]);
    int code = id ? cli_open(cli) : EXIT_USAGE;
    if (code)
        return code;
    struct json_submitted row = {.id = id};
    row.error = pushrod_client_submitted(cli->client, id, true, &row.task);
    if (row.error)
        row.text = pushrod_client_error_text(cli->client);
    else
        row.options = *row.task.options;
    if (params_bool(cli->p, "json"))
        json_print_row(JSON_SUBMITTED, &row);
    else if (!row.error)
        return payload_write(cli, &row.task);
    if (row.error)
        cli_say(cli, "task %" PRIu64 ": %s", id, row.text);
    return cli_exit_code(row.error);
}

/* What has ended need not be stopped: a script that cleans up behind itself has not failed. */
static int cancel_one(struct cli *cli, const char *operand)
{
    uint64_t id = cli_id(cli, operand);
    int error = pushrod_client_cancel(cli->client, id);
    const char *text = pushrod_client_error_text(cli->client);
    bool ended = error == -PUSHROD_E_WRONG_STATE;
    int touched = ended ? 0 : 1;
    if (params_bool(cli->p, "json"))
        cli_print_act(cli, &(struct json_act){.action = "cancel", .id = id},
            error && !ended ? error : touched);
    if (ended)
        cli_say(cli, "%s", text);
    else if (error)
        cli_say(cli, "cannot cancel task %" PRIu64 ": %s", id, text);
    return ended ? EXIT_OK : cli_exit_code(error);
}

/* All operands are ids, or nothing is done. */
int cmd_cancel(struct cli *cli)
{
    for (int i = 0; i < cli->count; i++)
        if (!cli_id(cli, cli->operands[i]))
            return EXIT_USAGE;
    return cli_each(cli, 0, cancel_one);
}
