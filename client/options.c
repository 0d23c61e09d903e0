/* SPDX-License-Identifier: Apache-2.0 */
#include "client/options.h"

#include <stdlib.h>
#include <string.h>

#include "common/options.h"

/* A name that a command has itself is found first, since its rows stand first. */
struct params *options_new(const struct command *command, struct param **rows)
{
    static const struct param title = ROW_TITLE("The server, and general");
    size_t count = command && command->rows ? *command->row_count : 0;
    *rows = calloc(count + 1 + option_count, sizeof **rows);
    if (!*rows)
        return NULL;
    if (count)
        memcpy(*rows, command->rows, count * sizeof **rows);
    (*rows)[count++] = title;
    for (size_t i = 0; i < option_count; i++)
        if (option_rows[i].type != PARAM_TITLE && (option_rows[i].scope & SCOPE_CLIENT))
            (*rows)[count++] = option_rows[i];
    return params_new(*rows, count, SCOPE_CLIENT);
}

void options_free(struct params *p, struct param *rows)
{
    params_free(p);
    free(rows);
}

struct params *options_common(void)
{
    return params_new(option_rows, option_count, SCOPE_CLIENT);
}
