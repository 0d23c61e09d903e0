/* SPDX-License-Identifier: Apache-2.0 */
/* help: the table of commands, as text, as a part of a manual page, and as words for a shell. */
#include <stdlib.h>
#include <string.h>

#include "client/command.h"
#include "client/options.h"

#define HELP_WIDTH 80u

/* Short enough for one screen; everything else is one command away. */
void help_program(struct buf *out)
{
    buf_printf(out,
        "usage: pushrod COMMAND [OPTIONS] [OPERANDS]\n\n"
        "Submits tasks to a Pushrod server, follows them, and looks at what is there.\n\n");
    for (size_t i = 0; i < command_count; i++)
        buf_printf(out, "  %-9s %s\n", commands[i].name, commands[i].summary);
    buf_printf(out,
        "\nThe server is --server HOST[:PORT], or PUSHROD_SERVER, or 127.0.0.1:5570.\n"
        "Exit codes: 0 ok, 1 a task failed, 2 usage, 3 refused, 4 the server cannot be\n"
        "reached, 5 unknown id, 124 the wait ended, 130 interrupted.\n"
        "'pushrod COMMAND --help' explains a command.\n");
}

/* A newline is one that is meant; longer lines are broken between words. */
static void put_wrapped(struct buf *out, const char *text)
{
    while (*text) {
        size_t size = strcspn(text, "\n");
        if (size > HELP_WIDTH)
            for (size = HELP_WIDTH; size > 1 && text[size] != ' ';)
                size--;
        buf_append(out, text, size);
        buf_append(out, "\n", 1);
        text += size + (text[size] != '\0');
    }
}

/* The options come from the same rows that read them. */
void help_command(const struct command *command, const struct params *p, struct buf *out)
{
    buf_printf(out, "usage: pushrod %s [OPTIONS]%s%s\n\n%s\n%s", command->name,
        *command->operands ? " " : "", command->operands, command->summary,
        *command->details ? "\n" : "");
    put_wrapped(out, command->details);
    if (command->rows && command->rows->type != PARAM_TITLE)
        buf_append(out, "\n", 1);
    params_print_help(p, out);
}

/* As with options: the nearest one, if it is near enough to be what was meant. */
int command_unknown(const char *name)
{
    const char *nearest = NULL;
    size_t size = strlen(name), best = 2 + size / 4;
    for (size_t i = 0; i < command_count; i++) {
        size_t distance = params_name_distance(commands[i].name, name, size);
        if (distance < best) {
            best = distance;
            nearest = commands[i].name;
        }
    }
    fprintf(stderr, "pushrod: there is no command '%s'%s%s%s (pushrod help)\n", name,
        nearest ? "; did you mean " : "", nearest ? nearest : "", nearest ? "?" : "");
    return EXIT_USAGE;
}

int cmd_help(struct cli *cli)
{
    struct buf out = BUF_EMPTY;
    const struct command *command = cli->count ? command_find(cli->operands[0]) : NULL;
    if (cli->count && !command)
        return command_unknown(cli->operands[0]);
    struct param *rows = NULL;
    struct params *p = command ? options_new(command, &rows) : NULL;
    if (!cli->count)
        help_program(&out);
    else if (p)
        help_command(command, p, &out);
    fwrite(out.data, 1, out.size, stdout);
    buf_free(&out);
    options_free(p, rows);
    return command && !p ? EXIT_REFUSED : EXIT_OK;
}

int cmd_version(struct cli *cli)
{
    if (params_bool(cli->p, "json"))
        json_print_row(JSON_VERSION, &(struct json_version){PUSHROD_VERSION});
    else
        printf("pushrod %s\n", PUSHROD_VERSION);
    return EXIT_OK;
}

void roff_text(struct buf *out, const char *text)
{
    bool begin = true;
    for (; *text; text++) {
        if (begin && (*text == '.' || *text == '\''))
            buf_printf(out, "\\&");
        if (*text == '\\' || *text == '-')
            buf_printf(out, "\\%c", *text == '\\' ? 'e' : '-');
        else
            buf_append(out, text, 1);
        begin = *text == '\n';
        if (begin)
            buf_printf(out, ".br\n");
    }
}

/* Put into docs/man/pushrod.1 by the Makefile. */
void help_man(struct buf *out)
{
    for (size_t i = 0; i < command_count; i++) {
        const struct command *command = &commands[i];
        buf_printf(out, ".SS \"%s %s\"\n", command->name, command->operands);
        roff_text(out, command->summary);
        buf_printf(out, "\n");
        if (*command->details) {
            buf_printf(out, ".br\n");
            roff_text(out, command->details);
            buf_printf(out, "\n");
        }
        struct params *p =
            command->rows ? params_new(command->rows, *command->row_count, SCOPE_CLIENT) : NULL;
        if (p)
            params_print_man(p, out);
        params_free(p);
    }
    buf_printf(out, ".SS \"Options of every command\"\n");
    struct param *rows;
    struct params *p = options_new(NULL, &rows);
    if (p)
        params_print_man(p, out);
    options_free(p, rows);
    json_man(out);
}
