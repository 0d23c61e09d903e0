/* SPDX-License-Identifier: Apache-2.0 */
/*
 * command: what the subcommands of `pushrod` share.
 *
 * The table of commands (command.c) is the only place that knows all of them: help, completion and
 * the manual page come from it. A subcommand knows the client library and the terminal; it must not
 * know the protocol, and ends by returning an exit code.
 */
#ifndef CLIENT_COMMAND_H
#define CLIENT_COMMAND_H

#include <pushrod/client.h>
#include <stdio.h>
#include "client/json.h"
#include "common/buf.h"
#include "common/params.h"

enum exit_code {
    EXIT_OK = 0,
    EXIT_TASK_FAILED = 1,
    EXIT_USAGE = 2,
    EXIT_REFUSED = 3,
    EXIT_UNREACHED = 4,
    EXIT_UNKNOWN = 5,
    EXIT_TIMED_OUT = 124,
    EXIT_INTERRUPTED = 130
};

struct cli {
    const struct command *command;
    struct params *p;      /* flags: options of the command and of all commands */
    struct params *common; /* environment and file: options of all commands */
    char **operands;
    int count;                     /* of operands */
    const char *last, *before;     /* the last word of the command line, and the one before it */
    struct pushrod_client *client; /* NULL until cli_open() */
    unsigned losses;               /* of the connection, as cli_connection() was told */
    void (*erase)(void *arg);      /* takes what is drawn off the terminal; NULL: nothing is */
    void *erase_arg;
    void *state; /* of the command, for its callbacks */
};

struct command {
    const char *name;
    const char *operands; /* "QUEUE [PAYLOAD...]" */
    const char *summary;  /* one line */
    const char *details;  /* for help and manual; "" if the summary says it all */
    int (*run)(struct cli *cli);
    const struct param *rows; /* its options; NULL: none of its own */
    const size_t *row_count;
    int least, most; /* operands; most -1: any number */
};

extern const struct command commands[];
extern const size_t command_count;

const struct command *command_find(const char *name); /* NULL: there is none */

/* ---- rows: options of commands are only flags, but for those of common/options.c ---- */
#define ROW(name_, kind, help_, ...)                                                               \
    {                                                                                              \
        .name = (name_), .type = PARAM_##kind, .scope = SCOPE_CLIENT, .help = (help_),             \
        .flags = PARAM_ACTION, __VA_ARGS__                                                         \
    }
#define ROW_TITLE(text)                                                                            \
    {                                                                                              \
        .name = (text), .type = PARAM_TITLE                                                        \
    }
#define ROWS(name) size_t name##_count = sizeof name / sizeof name[0]

/* ---- cli.c ---- */

#define CLI_LISTED 20u /* of many failures: enough to see what is wrong; the others are counted */

/* The client with the options that were given, connected. Not 0: an exit code; it was reported. */
int cli_open(struct cli *cli);
/* The client without a connection yet: for who sets callbacks or settings first. */
int cli_client(struct cli *cli);
/* One line on standard error: "pushrod: ...". */
void cli_say(struct cli *cli, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Says what the client's last error was; gives the exit code for it. */
int cli_error(struct cli *cli, int error);
int cli_exit_code(int error); /* of an enum pushrod_error with either sign */
/*
 * Opens the client and does it for each operand from the `first` on; the exit code is that of the
 * first that failed. Of many ids one may be gone already, which is no reason to leave the rest; a
 * server that cannot be reached is one.
 */
typedef int cli_act(struct cli *cli, const char *operand);
int cli_each(struct cli *cli, int first, cli_act *act);
bool cli_goes_on(int code); /* whether the next operand is tried after one that ended so */
/*
 * Prints with --json what was done to one operand. `count`: as the request gave it, how many tasks
 * (workers, queues) it touched, or a negative error, whose text is added.
 */
void cli_print_act(struct cli *cli, const struct json_act *act, int64_t count);
/* A wrong use of the command: says it, and where to read more. EXIT_USAGE. */
int cli_usage(struct cli *cli, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* An option that is given has a value: an empty one is what a script makes of a variable that is
 * not set, and to do without would be something else. Not 0: EXIT_USAGE; it was said. */
int cli_check_word(struct cli *cli, const char *option);
/* A task id. 0: it is none, and that was said. */
uint64_t cli_id(struct cli *cli, const char *text);
/* A task that could not be looked at: says why, with --json as an object too. The exit code. */
int cli_task_failed(struct cli *cli, uint64_t id, int error);
/* For struct pushrod_client_events: says that the connection was lost, and that it is back. The
 * client's data must be the struct cli. */
void cli_connection(struct pushrod_client *c, bool up, const char *text);

/* ---- help.c ---- */
int command_unknown(const char *name); /* says so; EXIT_USAGE */
void help_program(struct buf *out);    /* pushrod --help */
/* pushrod COMMAND --help; `p`: its options */
void help_command(const struct command *command, const struct params *p, struct buf *out);
void help_man(struct buf *out); /* roff: the commands and their options */
/* Text in roff: a leading dot or quote would be a request, a backslash an escape. */
void roff_text(struct buf *out, const char *text);

/* ---- complete.c: for shells ---- */
void complete_commands(struct buf *out);
/* Options, or what the last word may become, if there is one behind --print-completion. */
void complete_word(struct cli *cli, struct buf *out);

/* ---- text.c: for people ---- */

/* All write into a buffer of the caller and give it back. */
#define TEXT_SIZE 32
const char *text_bytes(char to[TEXT_SIZE], uint64_t bytes);   /* "1.5M" */
const char *text_count(char to[TEXT_SIZE], uint64_t count);   /* "12,345" */
const char *text_rate(char to[TEXT_SIZE], double per_second); /* "1.2k/s" */
const char *text_ms(char to[TEXT_SIZE], uint64_t ms);         /* "850ms", "12s", "3m12s", "2d3h" */
const char *text_ns(char to[TEXT_SIZE], uint64_t ns);         /* "85us", "1.2ms", "12s" */
const char *text_age(char to[TEXT_SIZE], uint64_t since_ms);  /* of a Unix time; "-" for 0 */
const char *text_time(char to[TEXT_SIZE], uint64_t unix_ms);  /* "2026-01-31 12:00:00" */
/* The state of a task by the word that stands over its column in the list of queues. */
const char *text_state(const char *state);
/* Unix times of a task, which come in one field; 0: it has none. */
uint64_t task_due_ms(const struct pushrod_task_info *task);   /* of its next attempt */
uint64_t task_ended_ms(const struct pushrod_task_info *task); /* of its end, if it is known */
/* What may be shown on a terminal: control characters become spaces; cut with "..." at `width`. */
void text_clean(struct buf *to, const char *text, size_t size, size_t width);
/*
 * The text of an error as one line of at most `width` characters: all of it if it fits, else the
 * beginning and the line that says what went wrong, which is seldom the first.
 */
#define REASON_WIDTH 300u /* of a line that is nothing but a failure */
void text_reason(struct buf *to, const char *text, size_t size, size_t width);
unsigned terminal_width(int fd); /* columns; 80 if it cannot be known */

/* Columns of text, aligned when all rows are known. Numbers are set flush right. */
struct table {
    const char *const *titles; /* "-" before a title: flush right */
    size_t columns;
    const char *const
        *spare;       /* titles, NULL behind the last: what a narrow terminal does without */
    bool sorted;      /* by the first column; else as they came */
    struct buf cells; /* NUL-terminated, row after row */
    size_t rows;
};
void table_begin(struct table *t, const char *const *titles, size_t columns);
void table_cell(struct table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* In the last column: text_reason() of both texts, when the room for it is known. */
void table_reason(struct table *t, const char *before, const char *text);
/*
 * Appends the table to `out` and empties it. Where lines are wider than `width` (0: never) spare
 * columns are left out, the first of them first; then lines are cut, but not within a number.
 */
void table_end(struct table *t, struct buf *out, unsigned width);
/* Prints it, if it has rows, and empties it: on a terminal lines end at its edge, in a pipe they
 * are whole. */
void table_print(struct table *t);

/* ---- task_options.c: options of tasks, for submit and map ---- */
#define TASK_ROWS                                                                                  \
    ROW_TITLE("The task"),                                                                         \
        ROW("priority", UNSIGNED, "0 to 9, 9 runs first", .initial = "4", .max = 9,                \
            .letter = 'p'),                                                                        \
        ROW("delay", DURATION, "do not start before this time has passed"),                        \
        ROW("at", STRING, "do not start before: 'YYYY-MM-DD HH:MM[:SS]' local time, or @UNIX",     \
            .value_name = "WHEN"),                                                                 \
        ROW("timeout", DURATION, "of one attempt; else the worker's own"),                         \
        ROW("expires", DURATION, "not started within this time: not started at all"),              \
        ROW("backoff", DURATION,                                                                   \
            "the first retry comes within this time, by chance; doubled each time",                \
            .initial = "1s", .min = 1),                                                            \
        ROW("worker", STRING, "only this worker, by name", .value_name = "NAME"),                  \
        ROW("keep", DURATION, "keep the result this long, for who asks later"),                    \
        ROW("header", LIST, "carried to the handler; repeatable", .value_name = "NAME=VALUE")

struct task_options {
    struct pushrod_options options;
    struct pushrod_header *headers; /* owned, with their texts */
};
/* Not 0: an exit code. Texts are borrowed from the params. */
int task_options_read(struct cli *cli, struct task_options *to);
void task_options_free(struct task_options *o);

/* ---- why.c ---- */

/* Remembers what was said last, so that it is said once. */
struct why {
    char said[512];
    bool many; /* there are others: of the one only what is peculiar to it is said */
};
/* Says on standard error why a task (id 0: the tasks) of the queue has not finished yet. */
void why_explain(struct cli *cli, struct why *why, const char *queue, uint64_t id);
/* The same of tasks for which the server has no room yet; `text` is what it says. */
void why_refused(struct cli *cli, struct why *why, const char *queue, const char *text);
/* A failed attempt of a task, as a line on standard error. `what` names the task. */
void why_attempt(struct cli *cli, const char *what, const struct pushrod_attempt *attempt);
/* How a task ended badly, in one line: "exit code 1: no such file". */
void why_failed(struct buf *to, const struct pushrod_finish *finish);

/* ---- the commands ---- */
int cmd_submit(struct cli *cli);
int cmd_map(struct cli *cli);
int cmd_wait(struct cli *cli);
int cmd_status(struct cli *cli);
int cmd_payload(struct cli *cli);
int cmd_cancel(struct cli *cli);
int cmd_queues(struct cli *cli);
int cmd_workers(struct cli *cli);
int cmd_running(struct cli *cli);
int cmd_top(struct cli *cli);
int cmd_events(struct cli *cli);
int cmd_pause(struct cli *cli);
int cmd_resume(struct cli *cli);
int cmd_purge(struct cli *cli);
int cmd_drain(struct cli *cli);
int cmd_dead(struct cli *cli);
int cmd_ping(struct cli *cli);
int cmd_bench(struct cli *cli);
int cmd_help(struct cli *cli);
int cmd_version(struct cli *cli);

#endif
