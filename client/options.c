/* SPDX-License-Identifier: Apache-2.0 */
#include "client/options.h"

#include <stdlib.h>
#include <string.h>

#include "common/options.h"

/* Options of the table in common/ that mean nothing to a command. */
static bool left_out(const struct param *row)
{
    static const char *const names[] = {"check-config", "print-sample", "print-man"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(row->name, names[i]) == 0)
            return true;
    return row->type == PARAM_TITLE || !(row->scope & SCOPE_CLIENT);
}

/* Copies what all commands have behind the title; counts only if `to` is NULL. */
static size_t shared_rows(struct param *to)
{
    static const struct param title = ROW_TITLE("The server, and general");
    size_t n = 0;
    if (to)
        to[n] = title;
    n++;
    for (size_t i = 0; i < option_count; i++) {
        if (left_out(&option_rows[i]))
            continue;
        if (to)
            to[n] = option_rows[i];
        n++;
    }
    return n;
}

static size_t own_count(const struct command *command)
{
    return command->row_count ? *command->row_count : 0;
}

size_t options_count(const struct command *command)
{
    return own_count(command) + shared_rows(NULL);
}

/* A name that a command has itself is found first, since its rows stand first. */
struct param *options_rows(const struct command *command)
{
    struct param *rows = calloc(options_count(command), sizeof *rows);
    if (!rows)
        return NULL;
    size_t own = own_count(command);
    if (own)
        memcpy(rows, command->rows, own * sizeof *rows);
    shared_rows(rows + own);
    return rows;
}

struct params *options_common(void)
{
    return params_new(option_rows, option_count, SCOPE_CLIENT);
}
