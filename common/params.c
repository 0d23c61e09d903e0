/* SPDX-License-Identifier: Apache-2.0 */
/* params: the table, one value's parsing and checks, and the questions. */
#include "common/params.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pushrod/error.h>
#include "common/params_value.h"

/* ------------------------------------------------------------------------------------ rows */

const char *const param_sources[] = {
    [FROM_DEFAULT] = "the default",
    [FROM_FILE] = "the file",
    [FROM_ENVIRONMENT] = "the environment",
    [FROM_FLAG] = "the command line",
    [FROM_CALL] = "the program",
};

bool param_is_list(const struct param *row)
{
    return row->type == PARAM_LIST || row->type == PARAM_HOST_PORTS;
}

bool param_in_scope(const struct params *p, const struct param *row)
{
    return row->type != PARAM_TITLE && (row->scope & p->scope);
}

static bool name_equal(const char *name, const char *other, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (name[i] == '\0' || (other[i] == '_' ? '-' : other[i]) != name[i])
            return false;
    return name[size] == '\0';
}

/* Programs may call different things by one name, so a row of this scope goes first. */
const struct param *params_find(const struct params *p, const char *name, size_t size)
{
    const struct param *elsewhere = NULL;
    for (size_t i = 0; i < p->count; i++) {
        if (p->rows[i].type == PARAM_TITLE || !name_equal(p->rows[i].name, name, size))
            continue;
        if (param_in_scope(p, &p->rows[i]))
            return &p->rows[i];
        elsewhere = &p->rows[i];
    }
    return elsewhere;
}

struct value *params_value(const struct params *p, const struct param *row)
{
    return &p->values[row - p->rows];
}

void param_variable(const struct param *row, char name[PARAM_VARIABLE_SIZE])
{
    if (row->flags & PARAM_ACTION)
        name[0] = '\0';
    else
        snprintf(name, PARAM_VARIABLE_SIZE, "%s%s", row->variable ? "" : "PUSHROD_",
            row->variable ? row->variable : row->name);
    for (char *c = row->variable ? name + strlen(name) : name; *c; c++)
        *c = *c == '-' ? '_' : (char)(*c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c);
}

/* Kubernetes puts variables of such names into every container that sees a service `pushrod`. */
static bool variable_is_injected(const char *name)
{
    return strstr(name, "PORT") || strstr(name, "_SERVICE_") ||
           (strlen(name) > 5 && strcmp(name + strlen(name) - 5, "_HOST") == 0);
}

static void row_check(struct params *p, const struct param *row)
{
    char variable[PARAM_VARIABLE_SIZE];
    if (row->type == PARAM_TITLE)
        return;
    param_variable(row, variable);
    assert(row->help && row->scope && !variable_is_injected(variable));
    assert((row->type == PARAM_ENUM) == (row->allowed != NULL));
    assert(!param_in_scope(p, row) || params_find(p, row->name, strlen(row->name)) == row);
    (void)variable_is_injected;
}

/* ---------------------------------------------------------------------------------- errors */

int params_fail(struct params *p, int error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(p->error, sizeof p->error, format, args);
    va_end(args);
    return -error;
}

const char *params_error(const struct params *p)
{
    return p->error;
}

size_t params_name_distance(const char *a, const char *b, size_t size)
{
    size_t row[64], length = size < 63 ? size : 63;
    for (size_t j = 0; j <= length; j++)
        row[j] = j;
    for (size_t i = 1; a[i - 1]; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= length; j++) {
            size_t changed = diagonal + (a[i - 1] != (b[j - 1] == '_' ? '-' : b[j - 1]));
            size_t other = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = changed < other ? changed : other;
        }
    }
    return row[length];
}

int params_fail_unknown(struct params *p, const char *prefix, const char *name, size_t size)
{
    const struct param *nearest = NULL;
    size_t best = 2 + size / 4;
    for (size_t i = 0; i < p->count; i++) {
        if (!param_in_scope(p, &p->rows[i]))
            continue;
        size_t distance = params_name_distance(p->rows[i].name, name, size);
        if (distance < best) {
            best = distance;
            nearest = &p->rows[i];
        }
    }
    if (nearest)
        return params_fail(p, PUSHROD_E_BAD_OPTION, "there is no option %s%.*s; did you mean %s%s?",
            prefix, (int)size, name, prefix, nearest->name);
    return params_fail(
        p, PUSHROD_E_BAD_OPTION, "there is no option %s%.*s", prefix, (int)size, name);
}

static int fail_value(struct params *p, const struct param *row, const char *text,
    enum param_source source, const char *where)
{
    struct buf expected = BUF_EMPTY;
    param_describe(row, &expected);
    const char *shown = row->flags & PARAM_SECRET ? "(hidden)" : text;
    params_fail(p, PUSHROD_E_BAD_OPTION, "%s: '%.100s' (from %s%s%s) is not %s", row->name, shown,
        param_sources[source], where ? ", " : "", where ? where : "", buf_text(&expected));
    buf_free(&expected);
    return -PUSHROD_E_BAD_OPTION;
}

/* ----------------------------------------------------------------------------------- store */

static void value_empty(struct value *v)
{
    for (size_t i = 0; i < v->count; i++)
        free(v->items[i]);
    free(v->items);
    free(v->text);
    free(v->where);
    free(v->file);
    *v = (struct value){0};
}

static bool value_add_item(struct value *v, const char *text, size_t size)
{
    char **items = realloc(v->items, (v->count + 1) * sizeof *items);
    if (!items)
        return false;
    v->items = items;
    items[v->count] = strndup(text, size);
    return items[v->count] && ++v->count;
}

/* Adds the items of one text: of host:port those between commas, of a list one a line in the
 * environment, where a name can be only once. */
static int store_items(struct params *p, const struct param *row, struct value *v, const char *text)
{
    const char *lines = v->source == FROM_ENVIRONMENT ? "\n" : "";
    const char *separators = row->type == PARAM_LIST ? lines : ", ";
    if (text[strspn(text, separators)] == '\0')
        return fail_value(p, row, text, v->source, v->where);
    while (*(text += strspn(text, separators))) {
        size_t size = strcspn(text, separators);
        if (!value_add_item(v, text, size))
            return params_fail(p, PUSHROD_E_NO_MEMORY, "out of memory");
        uint64_t number;
        if (!param_parse(row, v->items[v->count - 1], &number))
            return fail_value(p, row, v->items[v->count - 1], v->source, v->where);
        text += size;
    }
    return 0;
}

int params_store(struct params *p, const struct param *row, const char *text,
    enum param_source source, const char *where)
{
    struct value *v = params_value(p, row);
    uint64_t number = 0;
    if (source < v->source)
        return 0;
    if (!param_is_list(row) && !param_parse(row, text, &number))
        return fail_value(p, row, text, source, where);
    if (!param_is_list(row) || source != v->source)
        value_empty(v);
    free(v->where);
    *v = (struct value){.source = source,
        .number = number,
        .items = v->items,
        .count = v->count,
        .where = where ? strdup(where) : NULL};
    if (param_is_list(row))
        return store_items(p, row, v, text);
    v->text = strdup(text);
    return v->text ? 0 : params_fail(p, PUSHROD_E_NO_MEMORY, "out of memory");
}

int params_set(struct params *p, const char *name, const char *value)
{
    const struct param *row = params_find(p, name, strlen(name));
    if (!row || !param_in_scope(p, row) || (row->flags & PARAM_ACTION))
        return params_fail_unknown(p, "", name, strlen(name));
    if (value)
        return params_store(p, row, value, FROM_CALL, NULL);
    if (!param_is_list(row))
        return params_fail(p, PUSHROD_E_INVALID, "%s: no value was given", row->name);
    value_empty(params_value(p, row));
    params_value(p, row)->source = FROM_CALL;
    return 0;
}

struct params *params_new(const struct param *rows, size_t count, unsigned scope)
{
    struct params *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->rows = rows;
    p->count = count;
    p->scope = scope;
    p->values = calloc(count ? count : 1, sizeof *p->values);
    int error = p->values ? 0 : -PUSHROD_E_NO_MEMORY;
    for (size_t i = 0; !error && i < count; i++) {
        row_check(p, &rows[i]);
        if (rows[i].initial)
            error = params_store(p, &rows[i], rows[i].initial, FROM_DEFAULT, NULL);
        assert(error == 0 || error == -PUSHROD_E_NO_MEMORY);
    }
    if (!error)
        return p;
    params_free(p);
    return NULL;
}

void params_free(struct params *p)
{
    if (!p)
        return;
    for (size_t i = 0; p->values && i < p->count; i++)
        value_empty(&p->values[i]);
    free(p->values);
    free(p);
}

/* --------------------------------------------------------------------------------- asking */

static const struct value *value_of(const struct params *p, const char *name)
{
    const struct param *row = params_find(p, name, strlen(name));
    assert(row && param_in_scope(p, row));
    return params_value(p, row);
}

bool params_bool(const struct params *p, const char *name)
{
    return value_of(p, name)->number != 0;
}

uint64_t params_number(const struct params *p, const char *name)
{
    return value_of(p, name)->number;
}

const char *params_text(const struct params *p, const char *name)
{
    const char *text = value_of(p, name)->text;
    return text ? text : "";
}

const char *const *params_list(const struct params *p, const char *name, size_t *count)
{
    const struct value *v = value_of(p, name);
    *count = v->count;
    return (const char *const *)v->items;
}

void params_ports(const struct params *p, const char *name, uint16_t *first, uint16_t *last)
{
    uint64_t number = value_of(p, name)->number;
    *first = (uint16_t)(number >> 16);
    *last = (uint16_t)number;
}

bool params_given(const struct params *p, const char *name)
{
    return value_of(p, name)->source != FROM_DEFAULT;
}

/* --------------------------------------------------------------------------------- reload */

static bool value_equal(const struct value *a, const struct value *b)
{
    if (a->count != b->count || !a->text != !b->text || (a->text && strcmp(a->text, b->text) != 0))
        return false;
    for (size_t i = 0; i < a->count; i++)
        if (strcmp(a->items[i], b->items[i]) != 0)
            return false;
    return true;
}

static bool value_copy(struct value *to, const struct value *from)
{
    struct value copy = {.source = from->source, .number = from->number};
    bool done = true;
    if (from->text)
        done = (copy.text = strdup(from->text)) != NULL;
    if (from->where)
        done = done && (copy.where = strdup(from->where)) != NULL;
    if (from->file)
        done = done && (copy.file = strdup(from->file)) != NULL;
    for (size_t i = 0; done && i < from->count; i++)
        done = value_add_item(&copy, from->items[i], strlen(from->items[i]));
    if (!done) {
        value_empty(&copy);
        return false;
    }
    value_empty(to);
    *to = copy;
    return true;
}

unsigned params_reload(struct params *p, const struct params *fresh, struct buf *report)
{
    unsigned changed = 0;
    assert(p->rows == fresh->rows && p->count == fresh->count);
    for (size_t i = 0; i < p->count; i++) {
        const struct param *row = &p->rows[i];
        if ((row->flags & PARAM_ACTION) || !param_in_scope(p, row) ||
            value_equal(&p->values[i], &fresh->values[i]))
            continue;
        if (!(row->flags & PARAM_RELOADABLE)) {
            buf_printf(report, "%s changed, but needs a restart\n", row->name);
        } else if (value_copy(&p->values[i], &fresh->values[i])) {
            buf_printf(report, "%s changed\n", row->name);
            changed++;
        } else {
            buf_printf(report, "%s did not change: out of memory\n", row->name);
        }
    }
    return changed;
}
