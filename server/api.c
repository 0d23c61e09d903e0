/* SPDX-License-Identifier: Apache-2.0 */
/* api: making a server, and what is said to it before it starts. */
#include "server/api.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/name.h"
#include "common/options.h"

#define MAX_MESSAGE     (2u << 20) /* bytes, of framed connections */
#define MAX_MAX_MESSAGE ((size_t)1 << 40)

int api_fail(struct pushrod_server *s, int code, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(s->error, sizeof s->error, format, list);
    va_end(list);
    return -code;
}

struct pushrod_server *pushrod_server_new(void)
{
    struct pushrod_server *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->params = params_new(option_rows, option_count, SCOPE_SERVER);
    if (!s->params) {
        free(s);
        return NULL;
    }
    api_task_init(s);
    closes_init(s);
    events_init(s);
    list_init(&s->groups);
    list_init(&s->waits);
    pthread_mutex_init(&s->lock, NULL);
    return s;
}

int pushrod_server_set(struct pushrod_server *s, const char *name, const char *value)
{
    if (s->state != API_NEW)
        return api_fail(s, PUSHROD_E_WRONG_STATE, "options are set before the server starts");
    if (!name)
        return api_fail(s, PUSHROD_E_INVALID, "the name of the option is NULL");
    int error = params_set(s->params, name, value);
    return error ? api_fail(s, -error, "%s", params_error(s->params)) : 0;
}

const char *pushrod_server_error(const struct pushrod_server *s)
{
    return s->error;
}

void pushrod_server_set_data(struct pushrod_server *s, void *data)
{
    s->data = data;
}

void *pushrod_server_data(const struct pushrod_server *s)
{
    return s->data;
}

void pushrod_server_on(
    struct pushrod_server *s, const struct pushrod_server_events *events, void *arg)
{
    s->events = events ? *events : (struct pushrod_server_events){0};
    s->events_arg = arg;
}

void pushrod_server_catch_signals(struct pushrod_server *s, bool yes)
{
    s->catch_signals = yes;
}

/* Fills in the defaults; what is wrong is said. */
static int framing_check(struct pushrod_server *s, struct api_listener *l)
{
    struct pushrod_framing *f = &l->framing;
    const char *eof = f->eof ? f->eof : "\r\n";
    if (f->kind > PUSHROD_FRAMING_LENGTH)
        return api_fail(s, PUSHROD_E_BAD_OPTION, "there is no framing %d", (int)f->kind);
    l->eof_size = strlen(eof);
    if (l->eof_size < 1 || l->eof_size >= sizeof l->eof)
        return api_fail(s, PUSHROD_E_BAD_OPTION, "the end mark of a message has 1 to 8 bytes");
    memcpy(l->eof, eof, l->eof_size + 1);
    f->eof = l->eof;
    f->length_size = f->length_size ? f->length_size : 4;
    if (f->length_size != 1 && f->length_size != 2 && f->length_size != 4 && f->length_size != 8)
        return api_fail(
            s, PUSHROD_E_BAD_OPTION, "length_size is 1, 2, 4 or 8, not %u", f->length_size);
    f->max_message = f->max_message ? f->max_message : MAX_MESSAGE;
    if (f->max_message > MAX_MAX_MESSAGE)
        return api_fail(s, PUSHROD_E_BAD_OPTION, "max_message is %zu bytes, %zu are allowed",
            f->max_message, MAX_MAX_MESSAGE);
    return 0;
}

static void listener_drop(struct api_listener *l)
{
    if (l)
        free(l->address);
    free(l);
}

int pushrod_server_listen(
    struct pushrod_server *s, const char *address, const struct pushrod_framing *framing)
{
    if (s->state != API_NEW)
        return api_fail(s, PUSHROD_E_WRONG_STATE, "listeners are named before the server starts");
    if (!address || !listen_address_valid(address))
        return api_fail(s, PUSHROD_E_BAD_OPTION,
            "\"%s\": an address is HOST:PORT, [IPV6]:PORT, :PORT or unix:PATH",
            address ? address : "NULL");
    struct api_listener *l = calloc(1, sizeof *l);
    struct api_listener **grown =
        realloc(s->listeners, (s->listener_count + 1) * sizeof *s->listeners);
    if (grown)
        s->listeners = grown;
    if (l)
        l->address = strdup(address);
    if (!l || !grown || !l->address) {
        listener_drop(l);
        return api_fail(s, PUSHROD_E_NO_MEMORY, "out of memory");
    }
    l->server = s;
    l->number = (unsigned)s->listener_count;
    if (framing)
        l->framing = *framing;
    int error = framing_check(s, l);
    if (error) {
        listener_drop(l);
        return error;
    }
    s->listeners[s->listener_count++] = l;
    return 0;
}

int pushrod_server_on_task(struct pushrod_server *s, const char *queue,
    int (*handler)(struct pushrod_task *task, void *arg), void *arg)
{
    if (s->state != API_NEW)
        return api_fail(s, PUSHROD_E_WRONG_STATE, "handlers are named before the server starts");
    if (!queue || !name_pattern_valid(slice_str(queue)))
        return api_fail(s, PUSHROD_E_BAD_QUEUE, "%s: %s", queue ? queue : "NULL",
            pushrod_strerror(PUSHROD_E_BAD_QUEUE));
    if (!handler)
        return api_fail(s, PUSHROD_E_INVALID, "%s: the handler is NULL", queue);
    struct api_handler *grown = realloc(s->handlers, (s->handler_count + 1) * sizeof *s->handlers);
    if (grown)
        s->handlers = grown;
    char *copy = strdup(queue);
    if (!grown || !copy) {
        free(copy);
        return api_fail(s, PUSHROD_E_NO_MEMORY, "out of memory");
    }
    s->handlers[s->handler_count++] = (struct api_handler){copy, handler, arg};
    return 0;
}

int pushrod_server_port(const struct pushrod_server *s, const char *what, unsigned n)
{
    if (!s->host)
        return -1;
    if (strcmp(what, "join") == 0)
        return n == 0 ? plane_join_port(host_plane(s->host)) : -1;
    if (strcmp(what, "answers") == 0)
        return n == 0 ? plane_answers_port(host_plane(s->host)) : -1;
    if (strcmp(what, "own") == 0)
        return n < s->listener_count ? s->listeners[n]->port : -1;
    if (strcmp(what, "listen") == 0)
        return n < s->native_ports.count ? s->native_ports.port[n] : -1;
    if (strcmp(what, "http") == 0)
        return n < s->http_ports.count ? s->http_ports.port[n] : -1;
    return -1;
}

void pushrod_server_free(struct pushrod_server *s)
{
    /* Where it was only inherited, closing what it has would reach into the process that has it. */
    if (!s || !server_is_here(s))
        return;
    /* Twice: it ends at once. */
    pushrod_server_stop(s);
    pushrod_server_stop(s);
    while (s->state != API_NEW && s->state != API_OVER && pushrod_server_step(s) > 0)
        continue;
    groups_free(s); /* made before start or after the end */
    if (s->loop)
        atomic_fetch_sub(&servers_open, 1);
    loop_free(s->loop);
    for (size_t i = 0; i < s->listener_count; i++)
        listener_drop(s->listeners[i]);
    free(s->listeners);
    for (size_t i = 0; i < s->handler_count; i++)
        free(s->handlers[i].queue);
    free(s->handlers);
    api_task_free(s);
    closes_free(s);
    events_free(s);
    params_free(s->params);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
