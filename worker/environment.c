/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/environment.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/codec.h"

extern char **environ;

/* Not passed on: what a task would set itself, and what only the worker needs to know. */
static bool is_private(const char *variable)
{
    static const char *const prefixes[] = {
        "PUSHROD_TASK_", "PUSHROD_HEADER_", "PUSHROD_TOKEN=", "PUSHROD_TOKEN_FILE="};
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        if (strncmp(variable, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    }
    return false;
}

/* The name in capitals; '-' is not allowed in a variable, and no header name can add one of ours.
 */
static void put_header(struct buf *b, struct slice name, struct slice value)
{
    buf_append(b, "PUSHROD_HEADER_", 15);
    for (size_t i = 0; i < name.size; i++) {
        char c = (char)(name.data[i] == '-' ? '_' : toupper(name.data[i]));
        buf_append(b, &c, 1);
    }
    buf_append(b, "=", 1);
    buf_append(b, value.data, value.size);
    buf_append(b, "", 1);
}

/* All of a task's variables, each with its NUL. Gives how many. */
static size_t put_task(struct buf *b, const struct attempt *a)
{
    buf_printf(b, "PUSHROD_TASK_ID=%llu", (unsigned long long)a->id);
    buf_append(b, "", 1);
    buf_printf(b, "PUSHROD_TASK_ATTEMPT=%llu", (unsigned long long)a->number);
    buf_append(b, "", 1);
    buf_printf(b, "PUSHROD_TASK_QUEUE=%.*s", (int)a->queue.size, (const char *)a->queue.data);
    buf_append(b, "", 1);
    size_t count = 3;
    struct dec in = dec_of(a->headers);
    uint32_t pairs = a->headers.data ? dec_map(&in) : 0;
    for (uint32_t i = 0; i < pairs; i++) {
        struct slice name = dec_text(&in);
        struct slice value = dec_text(&in);
        if (dec_failed(&in))
            break;
        put_header(b, name, value);
        count++;
    }
    return count;
}

static size_t environ_count(void)
{
    size_t count = 0;
    while (environ && environ[count])
        count++;
    return count;
}

bool environment_make(struct environment *e, const struct attempt *attempt)
{
    *e = (struct environment){0};
    size_t ours = environ_count();
    size_t count = attempt ? put_task(&e->text, attempt) : 0;
    e->variables = calloc(ours + count + 1, sizeof *e->variables);
    if (!e->variables || e->text.failed) {
        environment_free(e);
        return false;
    }
    size_t n = 0;
    for (size_t i = 0; i < ours; i++) {
        if (!is_private(environ[i]))
            e->variables[n++] = environ[i];
    }
    char *at = (char *)e->text.data;
    for (size_t i = 0; i < count; i++, at += strlen(at) + 1)
        e->variables[n++] = at;
    return true;
}

void environment_free(struct environment *e)
{
    free(e->variables);
    buf_free(&e->text);
    *e = (struct environment){0};
}
