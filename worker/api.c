/* SPDX-License-Identifier: Apache-2.0 */
/* The worker library's face: include/pushrod/worker.h, and worker/worker.h for our own programs. */
#define _GNU_SOURCE
#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <unistd.h>

#include "common/bell.h"
#include "common/log.h"
#include "common/name.h"
#include "common/options.h"
#include "worker/link.h"
#include "worker/worker.h"

/* Attempts that the runner gets beyond its slots, so that a batch of short ones costs no round
 * trip between two threads for each. What has not begun can be taken back. */
#define RUN_AHEAD 1024u
/* Without its supervisor a process has this long to end its commands. */
#define ORPHAN_SECONDS 10u

struct pushrod_worker *pushrod_worker_new(void)
{
    struct pushrod_worker *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    w->params = params_new(option_rows, option_count, SCOPE_WORKER);
    w->stop_fd = bell_new();
    if (w->params && w->stop_fd >= 0)
        return w;
    pushrod_worker_free(w);
    return NULL;
}

void pushrod_worker_free(struct pushrod_worker *w)
{
    if (!w || w->stuck)
        return; /* a handler may still use it */
    plugins_close(w);
    handlers_free(w);
    params_free(w->params);
    if (w->stop_fd >= 0)
        close(w->stop_fd);
    free(w);
}

int worker_error(struct pushrod_worker *w, int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(w->error, sizeof w->error, format, args);
    va_end(args);
    return -code;
}

const char *pushrod_worker_error(const struct pushrod_worker *w)
{
    return w->error;
}

int pushrod_worker_set(struct pushrod_worker *w, const char *name, const char *value)
{
    int error = params_set(w->params, name, value);
    return error ? worker_error(w, -error, "%s", params_error(w->params)) : 0;
}

int pushrod_worker_handle(
    struct pushrod_worker *w, const char *queue, pushrod_handler handler, void *arg)
{
    if (!queue)
        return worker_error(w, PUSHROD_E_INVALID, "the queue is NULL");
    if (!handler)
        return worker_error(w, PUSHROD_E_INVALID, "%s: the handler is NULL", queue);
    return handlers_add(w, &handler_function, slice_str(queue), NULL, handler, arg);
}

void pushrod_worker_catch_signals(struct pushrod_worker *w, bool yes)
{
    w->catch_signals = yes;
}

void pushrod_worker_stop(struct pushrod_worker *w)
{
    atomic_fetch_add(&w->stops, 1);
    bell_ring(w->stop_fd);
}

int worker_check(struct pushrod_worker *w)
{
    int error = handlers_from_options(w);
    if (!error && w->handler_count == 0 && !handlers_named(w->params))
        error = worker_error(w, PUSHROD_E_BAD_OPTION,
            "nothing to run: give at least one of --exec QUEUE=COMMAND, --coproc QUEUE=COMMAND, "
            "--plugin FILE");
    handlers_free(w);
    return error;
}

/* ------------------------------------------------------------------------- settings */

bool worker_join(const struct pushrod_worker *w, char out[SUPERVISE_JOIN])
{
    size_t count;
    size_t used = 0;
    const char *const *hosts = params_list(w->params, "join", &count);
    out[0] = '\0';
    for (size_t i = 0; i < count && used < SUPERVISE_JOIN; i++)
        used += (size_t)snprintf(out + used, SUPERVISE_JOIN - used, "%s%s", i ? "," : "", hosts[i]);
    return used > 0 && used < SUPERVISE_JOIN;
}

static int load_handlers(struct pushrod_worker *w)
{
    int error = handlers_from_options(w);
    if (!error)
        error = plugins_load(w);
    if (!error && w->handler_count == 0)
        error = worker_error(w, PUSHROD_E_BAD_OPTION, "there is no handler for any queue");
    return error;
}

/* HOST-PID if it has none; one of several processes adds its number. */
static void make_name(const struct pushrod_worker *w, const char *host, char *name, size_t size)
{
    const char *given = params_text(w->params, "name");
    if (!given[0])
        snprintf(name, size, "%s-%d", host, (int)getpid());
    else if (w->named && w->child.processes > 1)
        snprintf(name, size, "%s-%u", given, w->child.index + 1);
    else
        snprintf(name, size, "%s", given);
}

/* What a session needs to be told, and where its strings are. */
struct settings {
    struct link_config link;
    struct slice *patterns;
    char host[256];
    char name[384];
};

static int make_session(struct pushrod_worker *w, struct settings *s)
{
    struct session_config *c = &s->link.session;
    if (gethostname(s->host, sizeof s->host - 1) != 0)
        snprintf(s->host, sizeof s->host, "unknown");
    make_name(w, s->host, s->name, sizeof s->name);
    s->patterns = calloc(w->handler_count, sizeof *s->patterns);
    if (!s->patterns)
        return worker_error(w, PUSHROD_E_NO_MEMORY, "out of memory");
    for (size_t i = 0; i < w->handler_count; i++)
        s->patterns[i] = slice_str(w->handlers[i].pattern);
    c->name = slice_str(s->name);
    c->host = slice_str(s->host);
    /* An empty one would be compared, and is none. */
    const char *token = params_text(w->params, "token");
    c->token = slice_str(token[0] ? token : NULL);
    c->pid = (uint64_t)getpid();
    c->slots = worker_slots(w);
    c->ahead = RUN_AHEAD;
    c->max_prefetch = (uint32_t)params_number(w->params, "max-prefetch");
    c->queues = s->patterns;
    c->queue_count = w->handler_count;
    uint64_t drain_ms = params_number(w->params, "drain-timeout");
    c->signals = w->catch_signals;
    c->drain_ms = drain_ms ? drain_ms : 1; /* 0 would mean the default */
    c->max_tasks = params_number(w->params, "max-tasks");
    bool drawn = getrandom(&c->seed, sizeof c->seed, 0) == (ssize_t)sizeof c->seed;
    if (w->named)
        memcpy(c->instance, w->child.instance, sizeof c->instance);
    else
        drawn &= getrandom(c->instance, sizeof c->instance, 0) == (ssize_t)sizeof c->instance;
    return drawn ? 0 : worker_error(w, PUSHROD_E_SYSTEM, "no random bytes: %s", strerror(errno));
}

static int make_settings(struct pushrod_worker *w, struct settings *s)
{
    *s = (struct settings){0};
    int error = make_session(w, s);
    if (!error)
        error = worker_descriptors(w, &s->link.session.slots);
    if (!error && !w->named && !worker_join(w, w->child.join))
        error = worker_error(w, PUSHROD_E_BAD_OPTION, "join: the address is too long");
    s->link.join = w->child.join;
    s->link.io_threads = (unsigned)params_number(w->params, "io-threads");
    s->link.max_memory = params_number(w->params, "max-memory");
    s->link.stop_fd = w->stop_fd;
    s->link.stops = &w->stops;
    s->link.ready_fd = w->named ? w->child.ready_fd : -1;
    s->link.run = (struct run_config){
        .slots = s->link.session.slots,
        .ahead = RUN_AHEAD,
        .handlers = w->handlers,
        .handler_count = w->handler_count,
        .timeout_ms = params_number(w->params, "timeout"),
        .max_result = params_number(w->params, "max-result"),
    };
    return error;
}

/* -------------------------------------------------------------------------- signals */

/* The one worker of this process that catches signals; a handler has no other way to find it. */
static _Atomic(struct pushrod_worker *) caught;

/*
 * systemd, `timeout` and terminals signal every process of a service, and the supervisor passes
 * the signal on as well: that is one wish to stop, not two. So under a supervisor SIGTERM only
 * drains, and SIGQUIT means at once. (supervise.h)
 */
static void on_signal(int number)
{
    struct pushrod_worker *w = atomic_load(&caught);
    if (!w)
        return;
    bool orphan = w->named && getppid() != w->child.supervisor;
    if (orphan)
        alarm(ORPHAN_SECONDS);
    bool now = orphan || number == SIGQUIT;
    while (now && atomic_load(&w->stops) < 2)
        pushrod_worker_stop(w);
    if (!now && (!w->named || atomic_load(&w->stops) == 0))
        pushrod_worker_stop(w);
}

static const int signals[] = {SIGTERM, SIGINT, SIGQUIT};
#define SIGNALS (sizeof signals / sizeof signals[0])

/* The end of the supervisor, which SIGKILL would leave no time for: nobody else is there to kill
 * the commands that run here. */
static void orphan_signal(const struct pushrod_worker *w, int number)
{
    if (!w->named)
        return;
    prctl(PR_SET_PDEATHSIG, number);
    if (getppid() != w->child.supervisor)
        raise(number);
}

/* A signal that is ignored stays ignored: SIGINT under a supervisor, or nohup. SIGQUIT is the
 * supervisor's, and anybody else's is the program's business. */
static bool is_ours(const struct pushrod_worker *w, int number, const struct sigaction *old)
{
    return number == SIGQUIT ? w->named : old->sa_handler != SIG_IGN;
}

static void signals_catch(struct pushrod_worker *w, struct sigaction old[SIGNALS])
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    if (!w->catch_signals)
        return;
    atomic_store(&caught, w);
    for (size_t i = 0; i < SIGNALS; i++) {
        sigaction(signals[i], NULL, &old[i]);
        if (is_ours(w, signals[i], &old[i]))
            sigaction(signals[i], &action, NULL);
    }
    orphan_signal(w, SIGTERM);
}

static void signals_restore(struct pushrod_worker *w, const struct sigaction old[SIGNALS])
{
    if (!w->catch_signals)
        return;
    orphan_signal(w, SIGKILL);
    for (size_t i = 0; i < SIGNALS; i++)
        sigaction(signals[i], &old[i], NULL);
    atomic_store(&caught, NULL);
}

/* ----------------------------------------------------------------------------- running */

static int run_link(struct pushrod_worker *w, const struct settings *s)
{
    struct link_end end;
    struct sigaction old[SIGNALS];
    signals_catch(w, old);
    link_run(&s->link, &end);
    signals_restore(w, old);
    w->stuck = end.stuck;
    w->recycle = end.recycle;
    return end.code ? worker_error(w, end.code, "%s", end.text) : 0;
}

/* In a program of somebody's own; pushrod-worker has done it, and servers do it for theirs. */
static void setup_log(const struct pushrod_worker *w)
{
    const struct params *p = w->params;
    if (!w->named && (params_given(p, "log-level") || params_given(p, "log-format")))
        log_setup(NULL, log_level_named(params_text(p, "log-level")),
            strcmp(params_text(p, "log-format"), "json") == 0);
}

int pushrod_worker_run(struct pushrod_worker *w)
{
    struct settings s;
    setup_log(w);
    int error = load_handlers(w);
    if (error)
        return error;
    error = make_settings(w, &s);
    if (!error)
        error = run_link(w, &s);
    if (!w->stuck)
        free(s.patterns);
    return error;
}

/* Refused for good: starting again would end the same way. Anything else may pass. */
static bool is_hopeless(int error)
{
    static const int codes[] = {PUSHROD_E_BAD_VERSION, PUSHROD_E_BAD_OPTION, PUSHROD_E_BAD_QUEUE,
        PUSHROD_E_DUPLICATE, PUSHROD_E_INVALID, PUSHROD_E_NOT_ALLOWED, PUSHROD_E_BAD_TOKEN,
        PUSHROD_E_HANDLER_BROKEN};
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        if (codes[i] == -error)
            return true;
    }
    return false;
}

/* What the supervisor has made is shared with the other children: one would be woken by the stop of
 * another, and take it away from that one. */
static int stop_fd_renew(struct pushrod_worker *w)
{
    int fd = bell_new();
    if (fd < 0)
        return worker_error(w, PUSHROD_E_SYSTEM, "cannot start: %s", strerror(errno));
    close(w->stop_fd);
    w->stop_fd = fd;
    return 0;
}

int worker_child(struct pushrod_worker *w, const struct supervise_child *child)
{
    w->child = *child;
    w->named = true;
    w->catch_signals = true;
    int error = stop_fd_renew(w);
    if (!error)
        error = pushrod_worker_run(w);
    if (w->recycle)
        return SUPERVISE_EXIT_RECYCLE;
    if (error)
        log_error("%s", w->error);
    /* What did not return goes with the process, which was to leave anyway. */
    if (!error || error == -PUSHROD_E_TASK_TIMEOUT)
        return SUPERVISE_EXIT_DONE;
    return is_hopeless(error) ? SUPERVISE_EXIT_NEVER : 1;
}
