/* SPDX-License-Identifier: Apache-2.0 */
/* cli: what every command does: open the client, speak to standard error, turn errors into exit
 * codes. */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "client/command.h"
#include "client/interrupt.h"

/* What is drawn at the bottom of the terminal goes first; it is drawn again when it is due. */
void cli_say(struct cli *cli, const char *format, ...)
{
    char text[4096];
    struct buf line = BUF_EMPTY;
    va_list args;
    if (cli->erase)
        cli->erase(cli->erase_arg);
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    /* Names that somebody typed, and what servers say, are in it: one line all the same. */
    text_clean(&line, text, strlen(text), sizeof text);
    fprintf(stderr, "pushrod: %s\n", buf_text(&line));
    buf_free(&line);
}

/* Usage errors name the command, and where its help is; errors of the server do not need it. */
int cli_usage(struct cli *cli, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "pushrod %s: ", cli->command->name);
    vfprintf(stderr, format, args);
    fprintf(stderr, " (pushrod %s --help)\n", cli->command->name);
    va_end(args);
    return EXIT_USAGE;
}

int cli_check_word(struct cli *cli, const char *option)
{
    if (!params_given(cli->p, option) || *params_text(cli->p, option))
        return 0;
    return cli_usage(cli, "--%s has an empty value", option);
}

/* The exit codes of the manual: scripts rely on them, so each error has its place here. */
int cli_exit_code(int error)
{
    switch (error < 0 ? -error : error) {
    case PUSHROD_E_OK:
        return EXIT_OK;
    case PUSHROD_E_INVALID:
    case PUSHROD_E_BAD_QUEUE:
    case PUSHROD_E_BAD_OPTION:
    case PUSHROD_E_TOO_BIG:
        return EXIT_USAGE;
    case PUSHROD_E_UNKNOWN_TASK:
    case PUSHROD_E_UNKNOWN_WORKER:
    case PUSHROD_E_UNKNOWN_QUEUE:
    case PUSHROD_E_RESULT_GONE:
        return EXIT_UNKNOWN;
    case PUSHROD_E_UNREACHABLE:
    case PUSHROD_E_WRONG_PORT:
    case PUSHROD_E_BAD_VERSION:
    case PUSHROD_E_CLOSED:
        return EXIT_UNREACHED;
    case PUSHROD_E_TIMED_OUT:
        return EXIT_TIMED_OUT;
    case PUSHROD_E_INTERRUPTED:
        return EXIT_INTERRUPTED;
    case PUSHROD_E_TASK_FAILED:
    case PUSHROD_E_TASK_TIMEOUT:
    case PUSHROD_E_TASK_CRASHED:
    case PUSHROD_E_TASK_POISON:
    case PUSHROD_E_TASK_CANCELLED:
    case PUSHROD_E_TASK_EXPIRED:
    case PUSHROD_E_RESULT_TOO_BIG:
        return EXIT_TASK_FAILED;
    default:
        return EXIT_REFUSED;
    }
}

int cli_error(struct cli *cli, int error)
{
    int code = cli_exit_code(error);
    if (code != EXIT_INTERRUPTED)
        cli_say(cli, "%s", pushrod_client_error_text(cli->client));
    return code;
}

void cli_print_act(struct cli *cli, const struct json_act *act, int64_t count)
{
    struct json_act done = *act;
    bool counts = strcmp(act->action, "pause") && strcmp(act->action, "resume") && !act->worker;
    if (count < 0)
        done.error = (int)count;
    else if (counts)
        done.tasks = (uint64_t)count;
    if (count < 0)
        done.text = pushrod_client_error_text(cli->client);
    json_print_row(JSON_ACT, &done);
}

/* A flag, else the environment or the file. */
static const struct params *source_of(const struct cli *cli, const char *name)
{
    return params_given(cli->p, name) ? cli->p : cli->common;
}

/*
 * Flags win over environment and file; the library's own reading of the environment is overridden.
 */
static int client_configure(struct cli *cli)
{
    char number[24];
    const char *token = params_text(source_of(cli, "token"), "token");
    uint64_t ms = params_number(source_of(cli, "connect-timeout"), "connect-timeout");
    snprintf(number, sizeof number, "%llu", (unsigned long long)ms);
    int error =
        pushrod_client_set(cli->client, "server", params_text(source_of(cli, "server"), "server"));
    if (!error && *token)
        error = pushrod_client_set(cli->client, "token", token);
    if (!error)
        error = pushrod_client_set(cli->client, "connect-timeout", number);
    return error ? error : pushrod_client_set(cli->client, "name", "pushrod");
}

int cli_client(struct cli *cli)
{
    cli->client = pushrod_client_new();
    if (!cli->client) {
        cli_say(cli, "cannot start: %s", strerror(errno));
        return EXIT_REFUSED;
    }
    pushrod_client_set_data(cli->client, cli);
    interrupt_client(cli->client);
    int error = client_configure(cli);
    return error ? cli_error(cli, error) : 0;
}

int cli_open(struct cli *cli)
{
    int code = cli_client(cli);
    if (code)
        return code;
    int error = pushrod_client_connect(cli->client);
    return error ? cli_error(cli, error) : 0;
}

bool cli_goes_on(int code)
{
    return code != EXIT_UNREACHED && code != EXIT_TIMED_OUT && code != EXIT_INTERRUPTED;
}

int cli_each(struct cli *cli, int first, cli_act *act)
{
    int code = cli_open(cli);
    bool on = !code;
    for (int i = first; on && i < cli->count; i++) {
        int ended = act(cli, cli->operands[i]);
        code = code ? code : ended;
        on = cli_goes_on(ended);
    }
    return code;
}

uint64_t cli_id(struct cli *cli, const char *text)
{
    char *end;
    errno = 0;
    unsigned long long id = strtoull(text, &end, 10);
    if (errno || *end || end == text || *text == '-' || id == 0 || id > INT64_MAX) {
        cli_usage(cli, "'%s' is no task id: it must be a number as submit prints it", text);
        return 0;
    }
    return id;
}

/* An object for each id, so that a script finds them by their order too. */
int cli_task_failed(struct cli *cli, uint64_t id, int error)
{
    const char *text = pushrod_client_error_text(cli->client);
    struct pushrod_task_info none = {
        .id = id, .queue = "", .state = "", .worker = "", .error = error, .text = text};
    if (params_bool(cli->p, "json"))
        json_print_row(JSON_TASK, &none);
    cli_say(cli, "task %" PRIu64 ": %s", id, text);
    return cli_exit_code(error);
}

void cli_connection(struct pushrod_client *c, bool up, const char *text)
{
    struct cli *cli = pushrod_client_data(c);
    cli->losses += !up;
    if (!up)
        cli_say(cli, "%s; trying again", text);
    else if (cli->losses)
        cli_say(cli, "connected again to %s", pushrod_client_server(c)->address);
}
