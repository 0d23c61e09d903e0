/* SPDX-License-Identifier: Apache-2.0 */
/* api_local: worker processes of the server's own: on_task() handlers, and --workers. */
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/log.h"
#include "server/api.h"
#include "worker/worker.h"

/* Options of the server that its local workers are given, beside those that make handlers. */
static const struct passed {
    const char *name;
    const char *worker; /* what the worker calls it */
    const char *unit;
} passed[] = {{"slots", "slots", ""}, {"max-result", "max-result", ""},
    {"max-prefetch", "max-prefetch", ""}, {"recycle-tasks", "max-tasks", ""},
    {"max-memory", "max-memory", ""}, {"drain-timeout", "drain-timeout", "ms"},
    {"timeout", "timeout", "ms"}};

static unsigned local_processes(const struct pushrod_server *s)
{
    if (s->handler_count)
        return (unsigned)params_number(s->params, "task-workers");
    unsigned workers = (unsigned)params_number(s->params, "workers");
    if (workers == 0 && handlers_named(s->params) && !params_given(s->params, "workers"))
        return 1;
    return workers;
}

bool local_wanted(const struct pushrod_server *s)
{
    return local_processes(s) > 0;
}

/* --------------------------------------------------------------------------------- a child */

static int worker_options(struct pushrod_server *s, struct pushrod_worker *w)
{
    int error = 0;
    for (size_t i = 0; error == 0 && i < sizeof passed / sizeof passed[0]; i++) {
        char value[32];
        snprintf(value, sizeof value, "%llu%s",
            (unsigned long long)params_number(s->params, passed[i].name), passed[i].unit);
        if (params_given(s->params, passed[i].name))
            error = pushrod_worker_set(w, passed[i].worker, value);
    }
    const char *token = params_text(s->params, "token");
    if (error == 0 && token[0])
        error = pushrod_worker_set(w, "token", token);
    for (size_t i = 0; i < HANDLER_OPTIONS; i++) {
        size_t count;
        const char *const *items = params_list(s->params, handler_options[i], &count);
        for (size_t j = 0; error == 0 && j < count; j++)
            error = pushrod_worker_set(w, handler_options[i], items[j]);
    }
    return error;
}

/* The worker of a child, with every handler. NULL: the server's error text says why. */
static struct pushrod_worker *local_worker(struct pushrod_server *s)
{
    struct pushrod_worker *w = pushrod_worker_new();
    if (!w) {
        api_fail(s, PUSHROD_E_NO_MEMORY, "out of memory");
        return NULL;
    }
    /* An on_task() handler is called by one thread of its process, unless the program asks. */
    int error = 0;
    if (s->handler_count && !params_given(s->params, "slots"))
        error = pushrod_worker_set(w, "slots", "1");
    if (error == 0)
        error = worker_options(s, w);
    for (size_t i = 0; error == 0 && i < s->handler_count; i++) {
        const struct api_handler *h = &s->handlers[i];
        error = pushrod_worker_handle(w, h->queue, h->handler, h->arg);
    }
    if (error == 0)
        return w;
    api_fail(s, -error, "%s", pushrod_worker_error(w));
    pushrod_worker_free(w);
    return NULL;
}

/* Its exit code. */
static int local_run(void *arg, const struct supervise_child *child)
{
    struct pushrod_server *s = arg;
    struct pushrod_worker *w = local_worker(s);
    if (!w) {
        log_error("local worker: %s", s->error);
        return SUPERVISE_EXIT_NEVER;
    }
    int code = worker_child(w, child);
    pushrod_worker_free(w);
    return code;
}

/* In the supervisor: an option that was reloaded, for children from now on. */
static void local_told(void *arg, const char *name, const char *value)
{
    struct pushrod_server *s = arg;
    if (params_set(s->params, name, value))
        log_error("local workers: %s", params_error(s->params));
    settings_log(s);
}

/* -------------------------------------------------------------------------------- the server */

int local_check(struct pushrod_server *s)
{
    if (!local_wanted(s))
        return 0;
    if (!s->handler_count && !handlers_named(s->params))
        return api_fail(s, PUSHROD_E_BAD_OPTION,
            "workers is %u, but there is nothing for them to run: add exec, coproc or plugin",
            local_processes(s));
    struct pushrod_worker *w = local_worker(s);
    bool serial;
    int error = w ? worker_check(w) : -PUSHROD_E_BAD_OPTION;
    if (w && error == 0)
        error = plugins_probe(w, &serial);
    if (w && error)
        api_fail(s, -error, "%s", pushrod_worker_error(w));
    pushrod_worker_free(w);
    return error;
}

int local_fork(struct pushrod_server *s)
{
    /* What is wrong with a handler is better said now, by the server. */
    int error = local_check(s);
    /* With handlers and no workers, a reload may ask for some. */
    if (error || (!local_wanted(s) && !(s->program && handlers_named(s->params))))
        return error;
    struct supervise_config config = {
        .processes = local_processes(s),
        .others = atomic_load(&servers_open) > 0,
        .drain_ms = params_number(s->params, "drain-timeout"),
        .run = local_run,
        .told = local_told,
        .arg = s,
    };
    error = supervisor_fork(&s->supervisor, &config);
    s->supervised = error == 0;
    return error ? api_fail(s, -error, "cannot start local workers: %s", pushrod_strerror(error))
                 : 0;
}

/* The supervisor's end of the pipe is closed: it is not coming back, and its children went along.
 */
static void local_gone(int fd, short what, void *arg)
{
    (void)fd, (void)what;
    struct pushrod_server *s = arg;
    event_free(s->local_event);
    s->local_event = NULL;
    local_wait(s);
    if (s->state == API_RUNNING)
        log_error("local workers are gone, because their supervisor has ended: restart the server");
}

static int local_watch(struct pushrod_server *s)
{
    s->local_event =
        event_new(loop_base(s->loop), s->supervisor.control, EV_READ | EV_PERSIST, local_gone, s);
    if (s->local_event && event_add(s->local_event, NULL) == 0)
        return 0;
    return api_fail(s, PUSHROD_E_NO_MEMORY, "out of memory");
}

int local_join(struct pushrod_server *s)
{
    if (!s->supervised)
        return 0;
    const char *address = plane_address(host_plane(s->host));
    const char *host = address ? address : "127.0.0.1"; /* every one: loopback too */
    char join[SUPERVISE_JOIN];
    params_join_host(join, sizeof join, host, plane_join_port(host_plane(s->host)));
    int error = supervisor_join(&s->supervisor, join);
    if (error)
        return api_fail(s, -error, "cannot start local workers: %s", pushrod_strerror(-error));
    return local_watch(s);
}

static void local_tell(struct pushrod_server *s, const char *name, const char *value)
{
    int error = supervisor_tell(&s->supervisor, name, value);
    if (error)
        log_error("local workers cannot be told of the new %s: %s", name, pushrod_strerror(-error));
}

void local_reload(struct pushrod_server *s)
{
    char text[32];
    if (!s->supervised) {
        if (local_wanted(s))
            log_error("reload: there is nothing for workers to run: add exec, coproc or plugin, "
                      "and restart");
        return;
    }
    local_tell(s, "token", params_text(s->params, "token"));
    local_tell(s, "log-level", params_text(s->params, "log-level"));
    snprintf(
        text, sizeof text, "%llums", (unsigned long long)params_number(s->params, "drain-timeout"));
    local_tell(s, "drain-timeout", text);
    snprintf(text, sizeof text, "%u", local_processes(s));
    local_tell(s, "processes", text);
}

void local_stop(struct pushrod_server *s, bool now)
{
    if (s->supervised)
        supervisor_stop(&s->supervisor, now);
}

void local_wait(struct pushrod_server *s)
{
    if (s->local_event)
        event_free(s->local_event);
    s->local_event = NULL;
    if (s->supervised)
        supervisor_wait(&s->supervisor, 2000);
    s->supervised = false;
}
