/* SPDX-License-Identifier: Apache-2.0 */
/* params: reading flags, the environment, and the configuration file. */
#include "common/params.h"

#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <pushrod/error.h>
#include "common/params_value.h"

/* ----------------------------------------------------------------------------------- secrets */

/* The secret's row, if the name is NAME-file of one: --token-file keeps --token off `ps`. */
static const struct param *secret_row(const struct params *p, const char *name, size_t size)
{
    bool file = size > 5 && (name[size - 5] == '-' || name[size - 5] == '_') &&
                memcmp(name + size - 4, "file", 4) == 0;
    const struct param *row = file ? params_find(p, name, size - 5) : NULL;
    return row && (row->flags & PARAM_SECRET) ? row : NULL;
}

/* A secret may end in the newline that every editor adds. An empty one would mean none at all. */
int params_read_secret(const char *path, char text[PARAMS_SECRET], const char **why)
{
    FILE *file = fopen(path, "re");
    size_t size = file ? fread(text, 1, PARAMS_SECRET - 1, file) : 0;
    bool read = file && !ferror(file);
    *why = read ? "" : strerror(errno);
    if (file)
        fclose(file);
    if (!read)
        return -PUSHROD_E_SYSTEM;
    *why = "it is no file of under 4095 bytes";
    if (size == PARAMS_SECRET - 1)
        return -PUSHROD_E_BAD_OPTION;
    while (size > 0 && (text[size - 1] == '\n' || text[size - 1] == '\r'))
        size--;
    text[size] = '\0';
    *why = "it is not one line of text";
    return size && strcspn(text, "\r\n") == size ? 0 : -PUSHROD_E_BAD_OPTION;
}

static int secret_read(struct params *p, const struct param *row, const char *path,
    const char *where, char text[PARAMS_SECRET])
{
    const char *why;
    if (params_read_secret(path, text, &why) == 0)
        return 0;
    return params_fail(
        p, PUSHROD_E_BAD_OPTION, "%s: cannot read '%s' (from %s): %s", row->name, path, where, why);
}

static int store_from_file(struct params *p, const struct param *row, const char *path,
    enum param_source source, const char *where)
{
    char text[PARAMS_SECRET];
    bool used = source >= params_value(p, row)->source;
    int error = secret_read(p, row, path, where, text);
    if (!error)
        error = params_store(p, row, text, source, where);
    if (error || !used)
        return error;
    params_value(p, row)->file = strdup(path);
    return params_value(p, row)->file ? 0 : params_fail(p, PUSHROD_E_NO_MEMORY, "out of memory");
}

/* Or not there at all. A pipe would be empty by now, or keep who reads it waiting for ever. */
static bool is_regular(const char *path)
{
    struct stat status;
    return stat(path, &status) != 0 || S_ISREG(status.st_mode);
}

/* 1: it has changed; 0; or a negative error. */
static int secret_renew(struct params *p, const struct param *row)
{
    struct value *v = params_value(p, row);
    char text[PARAMS_SECRET];
    if (!is_regular(v->file))
        return 0;
    int error = secret_read(p, row, v->file, v->where, text);
    if (error || strcmp(text, v->text) == 0)
        return error;
    char *fresh = strdup(text);
    if (!fresh)
        return params_fail(p, PUSHROD_E_NO_MEMORY, "out of memory");
    free(v->text);
    v->text = fresh;
    return 1;
}

const char *params_read_once(const struct params *p)
{
    for (size_t i = 0; i < p->count; i++) {
        const struct value *v = &p->values[i];
        const char *file = strcmp(p->rows[i].name, "config") == 0 ? v->text : v->file;
        if (file && !is_regular(file))
            return file;
    }
    return NULL;
}

int params_renew_secrets(struct params *p)
{
    int changed = 0, error = 0;
    for (size_t i = 0; i < p->count; i++) {
        if (!p->values[i].file)
            continue;
        int renewed = secret_renew(p, &p->rows[i]);
        changed += renewed > 0;
        error = renewed < 0 ? renewed : error;
    }
    return error ? error : changed;
}

/* ----------------------------------------------------------------------------------- flags */

struct flags {
    struct params *p;
    char **argv;
    int argc;
    int at; /* the next argument */
};

/* The value of an option: what follows '=', or the next argument. */
static int flag_store(struct flags *f, const struct param *row, const char *value, const char *flag)
{
    if (!value && row->type == PARAM_BOOL)
        value = "yes";
    if (!value && f->at == f->argc)
        return params_fail(f->p, PUSHROD_E_BAD_OPTION, "%s needs a value", flag);
    if (!value)
        value = f->argv[f->at++];
    return params_store(f->p, row, value, FROM_FLAG, flag);
}

static int flag_secret(struct flags *f, const struct param *row, const char *path, const char *flag)
{
    if (!path && f->at == f->argc)
        return params_fail(f->p, PUSHROD_E_BAD_OPTION, "%s needs a value", flag);
    return store_from_file(f->p, row, path ? path : f->argv[f->at++], FROM_FLAG, flag);
}

static int flag_long(struct flags *f, const char *argument)
{
    const char *name = argument + 2;
    size_t size = strcspn(name, "=");
    const char *value = name[size] ? name + size + 1 : NULL;
    const struct param *row = params_find(f->p, name, size);
    if (!row && !value && size > 3 && strncmp(name, "no-", 3) == 0) {
        row = params_find(f->p, name + 3, size - 3);
        if (row && row->type == PARAM_BOOL)
            value = "no";
        else
            row = NULL;
    }
    char flag[PARAM_VARIABLE_SIZE];
    const struct param *secret = row ? NULL : secret_row(f->p, name, size);
    if (secret && param_in_scope(f->p, secret)) {
        snprintf(flag, sizeof flag, "--%s-file", secret->name);
        return flag_secret(f, secret, value, flag);
    }
    if (!row || !param_in_scope(f->p, row))
        return params_fail_unknown(f->p, "--", name, size);
    snprintf(flag, sizeof flag, "--%s", row->name);
    return flag_store(f, row, value, flag);
}

/* -j8, -j 8, -vq */
static int flag_letters(struct flags *f, const char *argument)
{
    for (const char *c = argument + 1; *c; c++) {
        const struct param *row = NULL;
        for (size_t i = 0; i < f->p->count && !row; i++)
            if (f->p->rows[i].letter == *c && param_in_scope(f->p, &f->p->rows[i]))
                row = &f->p->rows[i];
        if (!row)
            return params_fail(f->p, PUSHROD_E_BAD_OPTION, "there is no option -%c", *c);
        char flag[3] = {'-', *c, '\0'};
        if (row->type != PARAM_BOOL)
            return flag_store(f, row, c[1] ? c + 1 : NULL, flag);
        int error = flag_store(f, row, NULL, flag);
        if (error)
            return error;
    }
    return 0;
}

int params_read_flags(struct params *p, int argc, char **argv, int *operands, bool stop)
{
    struct flags f = {p, argv, argc, 1};
    int error = 0, kept = 1;
    bool only_operands = false;
    while (!error && f.at < argc) {
        char *argument = argv[f.at++];
        if (only_operands || argument[0] != '-' || argument[1] == '\0') {
            argv[kept++] = argument;
            only_operands = only_operands || stop;
        } else if (strcmp(argument, "--") == 0) {
            only_operands = true;
        } else if (argument[1] == '-') {
            error = flag_long(&f, argument);
        } else {
            error = flag_letters(&f, argument);
        }
    }
    if (operands)
        *operands = kept - 1;
    else if (!error && kept > 1)
        error = params_fail(p, PUSHROD_E_BAD_OPTION, "'%s' is not an option", argv[1]);
    return error;
}

/* ----------------------------------------------------------------------------- environment */

/* Variables that others put there: Kubernetes for services, workers for the handlers they run. */
static bool variable_is_foreign(const char *name)
{
    static const char *const beginnings[] = {
        "PUSHROD_TASK_", "PUSHROD_HEADER_", "PUSHROD_SUPERVISOR", NULL};
    for (size_t i = 0; beginnings[i]; i++)
        if (strncmp(name, beginnings[i], strlen(beginnings[i])) == 0)
            return true;
    return strstr(name, "_SERVICE_") || strstr(name, "_PORT");
}

/* The row that the variable belongs to, one of this scope first; `file`: a secret's _FILE form. */
static const struct param *variable_row(
    const struct params *p, const char *name, size_t size, bool *file)
{
    const struct param *elsewhere = NULL;
    char variable[PARAM_VARIABLE_SIZE];
    for (size_t i = 0; i < p->count; i++) {
        const struct param *row = &p->rows[i];
        if (row->type == PARAM_TITLE)
            continue;
        param_variable(row, variable);
        size_t length = strlen(variable);
        if (length == 0 || length > size || strncmp(variable, name, length) != 0)
            continue;
        *file = size == length + 5 && memcmp(name + length, "_FILE", 5) == 0;
        if (size != length && !(*file && (row->flags & PARAM_SECRET)))
            continue;
        if (param_in_scope(p, row))
            return row;
        elsewhere = row;
    }
    return elsewhere;
}

static void warn_unknown(const char *name, void (*unknown)(void *arg, const char *text), void *arg)
{
    char text[256];
    if (!unknown || strncmp(name, "PUSHROD_", 8) != 0 || variable_is_foreign(name))
        return;
    snprintf(text, sizeof text, "the environment variable %s means nothing to this program", name);
    unknown(arg, text);
}

int params_read_environment(struct params *p, char *const *environment,
    void (*unknown)(void *arg, const char *text), void *arg)
{
    int error = 0;
    for (; *environment && !error; environment++) {
        const char *name = *environment;
        size_t size = strcspn(name, "=");
        /* An empty variable is an unset one: that is how compose files leave things out. */
        if (name[size] == '\0' || name[size + 1] == '\0')
            continue;
        bool file = false;
        const struct param *row = variable_row(p, name, size, &file);
        char variable[PARAM_VARIABLE_SIZE + 8];
        snprintf(variable, sizeof variable, "%.*s", (int)size, name);
        if (!row)
            warn_unknown(variable, unknown, arg);
        else if (!param_in_scope(p, row))
            continue;
        else if (file)
            error = store_from_file(p, row, name + size + 1, FROM_ENVIRONMENT, variable);
        else
            error = params_store(p, row, name + size + 1, FROM_ENVIRONMENT, variable);
    }
    return error;
}

/* ------------------------------------------------------------------------------------ file */

#define FILE_LINE 65535 /* bytes of the longest line with its end; commands can be long */

struct file {
    struct params *p;
    const char *path;
    FILE *stream;
    int line;
    size_t length; /* bytes of the line that were read */
    int error;
};

/* What is left of a line that fills its room would be taken for the next one. */
static bool file_line_cut(struct file *f)
{
    int next = f->length < FILE_LINE ? EOF : getc(f->stream);
    if (next == EOF)
        return false;
    f->error = params_fail(f->p, PUSHROD_E_BAD_OPTION,
        "%s:%d: the line has more than %d bytes: a script can hold a long command", f->path,
        f->line, FILE_LINE);
    return true;
}

/* As fgets() reads; it gives how many bytes, which a NUL among them would hide. */
static size_t file_read(FILE *stream, char *text, size_t room)
{
    size_t size = 0;
    for (int c = 0; c != '\n' && size + 1 < room && (c = getc(stream)) != EOF;)
        text[size++] = (char)c;
    text[size] = '\0';
    return size;
}

/* An indented line means what it says: inih would add it to the value of the line above it. */
static void skip_indent(FILE *stream)
{
    int c = getc(stream);
    while (c == ' ' || c == '\t')
        c = getc(stream);
    ungetc(c, stream);
}

/* A line may come in pieces, each longer than the one before. */
static char *file_line(char *text, int room, void *arg)
{
    struct file *f = arg;
    if (f->length == 0)
        skip_indent(f->stream);
    size_t size = f->error ? 0 : file_read(f->stream, text, (size_t)room);
    if (size == 0)
        return NULL;
    f->line += f->length == 0;
    f->length += size;
    if (memchr(text, '\0', size))
        f->error = params_fail(f->p, PUSHROD_E_BAD_OPTION,
            "%s:%d: the line has a NUL byte: this is no file of text", f->path, f->line);
    if (text[size - 1] == '\n')
        f->length = 0;
    return f->error || file_line_cut(f) ? NULL : text;
}

/* inih's handler: 1 is fine, 0 stops. Sections are headings for people. */
static int file_entry(void *arg, const char *section, const char *name, const char *value)
{
    (void)section;
    struct file *f = arg;
    if (f->error) /* of a line that was cut */
        return 0;
    const struct param *row = params_find(f->p, name, strlen(name));
    char where[512];
    const struct param *secret = row ? NULL : secret_row(f->p, name, strlen(name));
    snprintf(where, sizeof where, "%s:%d", f->path, f->line);
    if (secret) {
        if (param_in_scope(f->p, secret))
            f->error = store_from_file(f->p, secret, value, FROM_FILE, where);
    } else if (!row || (row->flags & PARAM_ACTION)) {
        char text[sizeof f->p->error];
        f->error = params_fail_unknown(f->p, "", name, strlen(name));
        memcpy(text, f->p->error, sizeof text);
        params_fail(f->p, PUSHROD_E_BAD_OPTION, "%.200s: %.300s", where, text);
    } else if (param_in_scope(f->p, row)) {
        f->error = params_store(f->p, row, value, FROM_FILE, where);
    }
    return f->error == 0;
}

/*
 * As Debian builds it, inih cuts lines at 200 bytes and values at " ;", and its settings are
 * global: set for the time of the call, because commands are long and contain semicolons.
 */
static int file_parse(struct file *f)
{
    bool stack = ini_use_stack, grow = ini_allow_realloc, comments = ini_allow_inline_comments;
    bool stop = ini_stop_on_first_error, mark = ini_allow_bom;
    int longest = ini_max_line;
    ini_use_stack = ini_allow_inline_comments = false;
    ini_allow_realloc = ini_stop_on_first_error = ini_allow_bom = true;
    ini_max_line = FILE_LINE + 1;
    int result = ini_parse_stream(file_line, f, file_entry, f);
    ini_use_stack = stack;
    ini_allow_realloc = grow;
    ini_allow_inline_comments = comments;
    ini_stop_on_first_error = stop;
    ini_allow_bom = mark;
    ini_max_line = longest;
    return result;
}

int params_read_file(struct params *p, const char *path)
{
    struct file f = {.p = p, .path = path, .stream = fopen(path, "re")};
    if (!f.stream)
        return params_fail(p, PUSHROD_E_BAD_OPTION, "cannot read the configuration file '%s': %s",
            path, strerror(errno));
    int result = file_parse(&f);
    if (ferror(f.stream))
        f.error = params_fail(p, PUSHROD_E_SYSTEM, "cannot read the configuration file '%s': %s",
            path, strerror(errno));
    fclose(f.stream);
    if (result > 0 && !f.error)
        return params_fail(p, PUSHROD_E_BAD_OPTION, "%s:%d: expected 'name = value'", path, result);
    if (result < 0 && !f.error)
        return params_fail(p, PUSHROD_E_NO_MEMORY, "out of memory");
    return f.error;
}
