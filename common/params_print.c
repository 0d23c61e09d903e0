/* SPDX-License-Identifier: Apache-2.0 */
/* params: help, the values in use, the sample file, the manual page's options, completion words. */
#include "common/params.h"

#include <stdio.h>
#include <string.h>

#include "common/params_value.h"

#define HELP_COLUMN 34 /* where the explanations begin */
#define HELP_WIDTH  80

static const char *value_name(const struct param *row)
{
    static const char *const names[] = {
        [PARAM_UNSIGNED] = "N",
        [PARAM_SIZE] = "SIZE",
        [PARAM_DURATION] = "TIME",
        [PARAM_STRING] = "TEXT",
        [PARAM_PORT] = "PORT",
        [PARAM_PORTS] = "FIRST-LAST",
        [PARAM_HOST_PORT] = "HOST:PORT",
        [PARAM_HOST_PORTS] = "HOST:PORT,...",
        [PARAM_LIST] = "TEXT",
    };
    if (row->value_name)
        return row->value_name;
    return row->type == PARAM_ENUM ? row->allowed : names[row->type];
}

/* Calls for each row that is printed; a title only if an option of this scope follows it. */
static bool row_shown(const struct params *p, const struct param *row, bool actions)
{
    if (row->type != PARAM_TITLE)
        return param_in_scope(p, row) && (actions || !(row->flags & PARAM_ACTION));
    for (row++; row < p->rows + p->count && row->type != PARAM_TITLE; row++)
        if (row_shown(p, row, actions))
            return true;
    return false;
}

/* The flag of what is on by itself turns it off: its help is a verb, and gets a "do not". */
static bool row_turns_off(const struct param *row)
{
    return row->type == PARAM_BOOL && row->initial && strcmp(row->initial, "yes") == 0;
}

static const char *help_begin(const struct param *row)
{
    return row_turns_off(row) ? "do not " : "";
}

static void print_flag(const struct param *row, struct buf *out)
{
    buf_printf(out, row->letter ? "-%c, " : "    ", row->letter);
    buf_printf(out, row_turns_off(row) ? "--no-%s" : "--%s", row->name);
    if (row->type != PARAM_BOOL)
        buf_printf(out, " %s", value_name(row));
}

/* Words, in lines that end before HELP_WIDTH; the first begins at HELP_COLUMN. */
static void print_wrapped(const char *text, struct buf *out)
{
    size_t column = HELP_COLUMN;
    while (*text) {
        size_t size = strcspn(text, " ");
        if (column > HELP_COLUMN && column + 1 + size >= HELP_WIDTH) {
            buf_printf(out, "\n%*s", HELP_COLUMN, "");
            column = HELP_COLUMN;
        } else if (column > HELP_COLUMN) {
            buf_append(out, " ", 1);
            column++;
        }
        buf_append(out, text, size);
        column += size;
        text += size + (text[size] == ' ');
    }
}

static void print_explanation(const struct param *row, struct buf *out)
{
    /* A variable that is not named as the option is cannot be guessed. */
    const char *variable = row->variable ? row->variable : "";
    const char *initial = row->initial && row->type != PARAM_BOOL ? row->initial : "";
    bool both = *variable && *initial, any = *variable || *initial;
    char text[512];
    snprintf(text, sizeof text, "%s%s%s%s%s%s%s", help_begin(row), row->help, any ? " (" : "",
        initial, both ? "; " : "", variable, any ? ")" : "");
    print_wrapped(text, out);
    buf_append(out, "\n", 1);
}

void params_print_help(const struct params *p, struct buf *out)
{
    for (size_t i = 0; i < p->count; i++) {
        const struct param *row = &p->rows[i];
        if (!row_shown(p, row, true))
            continue;
        if (row->type == PARAM_TITLE) {
            buf_printf(out, "\n%s:\n", row->name);
            continue;
        }
        size_t begin = out->size;
        buf_printf(out, "  ");
        print_flag(row, out);
        int gap = HELP_COLUMN - (int)(out->size - begin);
        if (gap < 2)
            buf_printf(out, "\n%*s", HELP_COLUMN, "");
        else
            buf_printf(out, "%*s", gap, "");
        print_explanation(row, out);
    }
}

/* ------------------------------------------------------------------------------ the values */

/* Only servers take over what was read again. */
static bool row_reloads(const struct params *p, const struct param *row)
{
    return (row->flags & PARAM_RELOADABLE) && (p->scope & SCOPE_SERVER);
}

static void print_source(const struct params *p, const struct param *row, struct buf *out)
{
    const struct value *v = params_value(p, row);
    buf_printf(out, "; from %s%s%s%s\n", param_sources[v->source], v->where ? ": " : "",
        v->where ? v->where : "", row_reloads(p, row) ? " (reloadable)" : "");
}

void params_print_values(const struct params *p, struct buf *out)
{
    for (size_t i = 0; i < p->count; i++) {
        const struct param *row = &p->rows[i];
        const struct value *v = &p->values[i];
        if (row->type == PARAM_TITLE || !row_shown(p, row, false))
            continue;
        print_source(p, row, out);
        if (row->flags & PARAM_SECRET)
            buf_printf(out, "; %s = %s\n", row->name, v->text ? "(hidden)" : "");
        else if (!v->text && v->count == 0)
            buf_printf(out, "; %s =\n", row->name);
        else if (!param_is_list(row))
            buf_printf(out, "%s = %s\n", row->name, v->text);
        for (size_t n = 0; n < v->count && !(row->flags & PARAM_SECRET); n++)
            buf_printf(out, "%s = %s\n", row->name, v->items[n]);
    }
}

void params_print_sample(const struct params *p, struct buf *out)
{
    for (size_t i = 0; i < p->count; i++) {
        const struct param *row = &p->rows[i];
        if (!row_shown(p, row, false))
            continue;
        if (row->type == PARAM_TITLE) {
            buf_printf(out, "%s; ---- %s ----\n\n", i ? "\n" : "", row->name);
            continue;
        }
        buf_printf(out, "; %s: ", row->help);
        param_describe(row, out);
        buf_printf(out, "%s\n", row_reloads(p, row) ? "; reloadable" : "");
        buf_printf(out, ";%s = %s\n", row->name, row->initial ? row->initial : "");
    }
}

/* --------------------------------------------------------------------------------- manual */

/* roff takes '-' for a hyphen, and a '.' or "'" at the beginning of a line for a request. */
static void print_roff(const char *text, struct buf *out)
{
    if (*text == '.' || *text == '\'')
        buf_printf(out, "\\&");
    for (; *text; text++) {
        if (*text == '-' || *text == '\\')
            buf_printf(out, "\\%s", *text == '-' ? "-" : "e");
        else
            buf_append(out, text, 1);
    }
}

static const char *man_variable_note(const struct param *row)
{
    if (row->flags & PARAM_SECRET)
        return ", or the same with _FILE for a file that holds it";
    if (row->type == PARAM_BOOL)
        return " (yes or no)";
    return row->type == PARAM_LIST ? ", one a line" : "";
}

static void print_man_row(const struct params *p, const struct param *row, struct buf *out)
{
    char variable[PARAM_VARIABLE_SIZE];
    struct buf flag = BUF_EMPTY;
    print_flag(row, &flag);
    const char *text = buf_text(&flag);
    text += strspn(text, " ");
    buf_printf(out, ".TP\n.B ");
    print_roff(text, out);
    buf_free(&flag);
    buf_printf(out, "\n%s", help_begin(row));
    print_roff(row->help, out);
    buf_printf(out, ".\n");
    if (row->type != PARAM_BOOL && row->type != PARAM_STRING && row->type != PARAM_LIST) {
        buf_printf(out, "Takes ");
        param_describe(row, out);
        buf_printf(out, ".\n");
    }
    if (row->initial && row->type != PARAM_BOOL)
        buf_printf(out, "Default: %s.\n", row->initial);
    param_variable(row, variable);
    if (row->type == PARAM_LIST && variable[0])
        buf_printf(out, "Repeatable.\n");
    if (variable[0])
        buf_printf(out, "Environment: %s%s.\n", variable, man_variable_note(row));
    if (row_reloads(p, row))
        buf_printf(out, "Reloadable.\n");
}

void params_print_man(const struct params *p, struct buf *out)
{
    for (size_t i = 0; i < p->count; i++) {
        if (!row_shown(p, &p->rows[i], true))
            continue;
        if (p->rows[i].type == PARAM_TITLE)
            buf_printf(out, ".SS %s\n", p->rows[i].name);
        else
            print_man_row(p, &p->rows[i], out);
    }
}

void params_print_completion(const struct params *p, struct buf *out)
{
    for (size_t i = 0; i < p->count; i++)
        if (param_in_scope(p, &p->rows[i])) {
            const struct param *row = &p->rows[i];
            buf_printf(out, "--%s\t%s\n", row->name, row->help);
            if (row->flags & PARAM_SECRET)
                buf_printf(out, "--%s-file\tthe same, in a file\n", row->name);
        }
}
