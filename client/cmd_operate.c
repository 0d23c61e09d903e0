/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_operate: pushrod pause, resume, purge, drain, ping. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "client/command.h"
#include "common/name.h"

/* What became of it, for a script or for people; `count` as the request gave it. */
static void report(struct cli *cli, const struct json_act *act, const char *done, int64_t count)
{
    char number[TEXT_SIZE];
    const char *name = act->worker ? act->worker : act->queue;
    if (params_bool(cli->p, "json"))
        cli_print_act(cli, act, count);
    else if (count >= 0 && strcmp(act->action, "purge") == 0)
        printf("%s: %s task%s %s\n", name, text_count(number, (uint64_t)count),
            count == 1 ? "" : "s", done);
    else if (count >= 0)
        printf("%s: %s\n", name, done);
}

/* `count`: as the request gave it. */
static int tell(
    struct cli *cli, const char *name, const char *verb, const char *done, int64_t count)
{
    bool worker = strcmp(verb, "drain") == 0;
    struct json_act act = {
        .action = verb, .queue = worker ? NULL : name, .worker = worker ? name : NULL};
    report(cli, &act, done, count);
    if (count < 0)
        cli_say(cli, "cannot %s '%s': %s", verb, name, pushrod_client_error_text(cli->client));
    return count < 0 ? cli_exit_code((int)count) : EXIT_OK;
}

static int one(struct cli *cli, const char *name, const char *verb, const char *done)
{
    return tell(cli, name, verb, done, pushrod_client_control(cli->client, verb, name, 0));
}

static void on_known(const struct pushrod_queue_info *q, void *arg)
{
    const char **name = arg;
    if (*name && strcmp(q->name, *name) == 0)
        *name = NULL;
}

/* A queue may be paused before its first task; a name that was mistyped looks the same. */
static int pause_one(struct cli *cli, const char *name)
{
    const char *unknown = name_valid(slice_str(name)) ? name : NULL;
    int64_t rows = unknown ? pushrod_client_queues(cli->client, name, on_known, &unknown) : 0;
    if (rows < 0) {
        unknown = NULL;
        if (!cli_goes_on(cli_exit_code((int)rows)))
            return tell(cli, name, "pause", "paused", rows);
    }
    int code = one(cli, name, "pause", "paused");
    if (unknown && code == EXIT_OK)
        cli_say(cli, "queue '%s' is new: tasks that come to it wait until pushrod resume %s", name,
            name);
    return code;
}

static int resume_one(struct cli *cli, const char *name)
{
    return one(cli, name, "resume", "resumed");
}

static int purge_one(struct cli *cli, const char *name)
{
    return one(cli, name, "purge", "purged");
}

int cmd_pause(struct cli *cli)
{
    return cli_each(cli, 0, pause_one);
}

int cmd_resume(struct cli *cli)
{
    return cli_each(cli, 0, resume_one);
}

int cmd_purge(struct cli *cli)
{
    return cli_each(cli, 0, purge_one);
}

/* ---------------------------------------------------------------------------------- drain */

/* Names of the workers, since a list may not be read and operated on at the same time. */
static void collect_name(const struct pushrod_worker_info *w, void *arg)
{
    struct buf *names = arg;
    if (strcmp(w->state, "draining") == 0)
        return;
    buf_append(names, w->name, strlen(w->name) + 1);
}

/* One that left meanwhile has done what was asked, and one of two of a name that was the first. */
static int drain_names(struct cli *cli, const struct buf *names)
{
    int64_t error = 0;
    for (size_t at = 0; error >= 0 && at < names->size;) {
        const char *name = (const char *)names->data + at;
        error = pushrod_client_control(cli->client, "drain", name, 0);
        if (error == -PUSHROD_E_UNKNOWN_WORKER)
            error = 0;
        else
            report(cli, &(struct json_act){.action = "drain", .worker = name}, "draining", error);
        at += strlen(name) + 1;
    }
    return error < 0 ? cli_error(cli, (int)error) : EXIT_OK;
}

/* Nothing was drained: a pattern that matches nobody was not what was meant. */
static int drain_none(struct cli *cli, const char *pattern, int64_t rows)
{
    struct json_act act = {.action = "drain",
        .worker = pattern,
        .error = PUSHROD_E_UNKNOWN_WORKER,
        .text = "no worker has such a name"};
    if (!pattern || rows) {
        cli_say(cli, "there is no %sworker that is not draining already", pattern ? "such " : "");
        return EXIT_OK;
    }
    if (params_bool(cli->p, "json"))
        json_print_row(JSON_ACT, &act);
    cli_say(cli, "cannot drain '%s': %s (pushrod workers)", pattern, act.text);
    return cli_exit_code(act.error);
}

/* The pattern may be NULL: all. */
static int drain_matching(struct cli *cli, const char *pattern)
{
    struct buf names = BUF_EMPTY;
    int64_t rows = pushrod_client_workers(cli->client, pattern, collect_name, &names);
    int code = rows < 0     ? cli_error(cli, (int)rows)
               : names.size ? drain_names(cli, &names)
                            : drain_none(cli, pattern, rows);
    buf_free(&names);
    return code;
}

static int drain_one(struct cli *cli, const char *name)
{
    return strchr(name, '*') ? drain_matching(cli, name) : one(cli, name, "drain", "draining");
}

int cmd_drain(struct cli *cli)
{
    bool all = params_bool(cli->p, "all");
    if (all == (cli->count > 0))
        return cli_usage(cli, "name the workers, or say --all");
    if (!all)
        return cli_each(cli, 0, drain_one);
    int code = cli_open(cli);
    return code ? code : drain_matching(cli, NULL);
}

/* ---------------------------------------------------------------------------------- ping */

#define WAIT_MOST_MS 86400000

/* "10", "500ms", "10s", "1m" as milliseconds; -1: none of these, or more than a day. */
static int64_t parse_wait(const char *text)
{
    static const struct {
        const char *name;
        double ms;
    } units[] = {{"", 1000}, {"s", 1000}, {"ms", 1}, {"m", 60000}};
    char *end;
    double value = strtod(text, &end);
    if (end == text || !(value >= 0))
        return -1;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (strcmp(end, units[i].name) == 0 && value * units[i].ms <= WAIT_MOST_MS)
            return (int64_t)(value * units[i].ms);
    return -1;
}

static int ping_wait(struct cli *cli, const char *text)
{
    char number[24];
    int64_t ms = parse_wait(text);
    if (ms < 0)
        return cli_usage(
            cli, "--wait '%s' must be seconds, or 500ms, 10s, 1m: a day at most", text);
    snprintf(number, sizeof number, "%" PRId64, ms);
    pushrod_client_set(cli->client, "connect-wait", number);
    return 0;
}

static void ping_print(struct cli *cli, uint64_t ns)
{
    char took[TEXT_SIZE];
    const struct pushrod_server_info *server = pushrod_client_server(cli->client);
    if (params_bool(cli->p, "json"))
        json_print_row(JSON_PING,
            &(struct json_ping){server->address, server->software, ns, server->clock_ahead_ms});
    else
        printf("%s at %s: %s\n", server->software, server->address, text_ns(took, ns));
}

/* The first round trip is as good as the others: the connection is there already. */
static int ping_run(struct cli *cli, bool quiet)
{
    for (uint64_t i = params_number(cli->p, "count"); i > 0; i--) {
        uint64_t ns;
        int error = pushrod_client_ping(cli->client, &ns);
        if (error)
            return quiet ? cli_exit_code(error) : cli_error(cli, error);
        if (!quiet)
            ping_print(cli, ns);
    }
    return EXIT_OK;
}

/* --wait is for scripts that have just started a server. */
int cmd_ping(struct cli *cli)
{
    const char *wait = params_text(cli->p, "wait");
    bool quiet = params_bool(cli->p, "quiet");
    int code = cli_client(cli);
    if (!code && *wait)
        code = ping_wait(cli, wait);
    if (code)
        return code;
    int error = pushrod_client_connect(cli->client);
    if (error)
        return quiet ? cli_exit_code(error) : cli_error(cli, error);
    return ping_run(cli, quiet);
}
