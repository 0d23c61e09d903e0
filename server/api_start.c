/* SPDX-License-Identifier: Apache-2.0 */
/* api_start: what a server opens when it starts, in which order, and how the rooms are put
 * together. */
#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/log.h"
#include "common/unixsock.h"
#include "server/api.h"

#define CLIENT_PORT 5570u
#define HTTP_PORT   5573u

/* ------------------------------------------------------------------------ what the host says */

static void on_self(void *arg, const struct conn_action *action)
{
    api_task_self(arg, action);
}

static void on_clients(void *arg, const struct conn_action *actions, size_t count)
{
    struct pushrod_server *s = arg;
    if (s->native)
        native_actions(s->native, actions, count);
}

static void on_notice(void *arg, const struct notice *notice)
{
    events_notice(arg, notice);
}

static void on_pause(void *arg, bool paused)
{
    struct pushrod_server *s = arg;
    conns_pause(s->conns, paused);
}

static void on_flush(void *arg)
{
    struct pushrod_server *s = arg;
    conns_flush(s->conns);
    http_flush(s->http);
}

static const struct host_events host_events = {
    .self = on_self,
    .clients = on_clients,
    .notice = on_notice,
    .pause = on_pause,
    .flush = on_flush,
};

static bool page_ready(void *arg, struct buf *out)
{
    struct pushrod_server *s = arg;
    if (s->state != API_RUNNING)
        buf_printf(out, "the server is stopping\n");
    else if (host_store_down(s->host))
        buf_printf(out, "the store cannot write\n");
    else
        return true;
    return false;
}

static void page_ports(void *arg, struct buf *out)
{
    struct pushrod_server *s = arg;
    buf_printf(out, "this is the port for HTTP; workers join at port %d",
        pushrod_server_port(s, "join", 0));
    if (s->native_ports.count)
        buf_printf(out, ", clients connect to port %d", s->native_ports.port[0]);
    buf_append(out, "\n", 1);
}

static const struct http_pages http_pages = {
    .metrics = stats_metrics, .ready = page_ready, .ports = page_ports};

/* --------------------------------------------------------------------------------- starting */

/* Takes the text of a failure that the caller would have to free. */
static int start_failed(struct pushrod_server *s, int code, const char *option, char *text)
{
    api_fail(s, code, "%s%s%s", option, option[0] ? ": " : "", text ? text : "out of memory");
    free(text);
    return -code;
}

/* "HOST" and "HOST:PORT" of an option as "HOST:PORT". */
static bool address_complete(const char *item, uint16_t port, char *out, size_t size)
{
    char host[256];
    if (!params_split_host(item, host, sizeof host, &port))
        return false;
    params_join_host(out, size, host, port);
    return true;
}

static int native_at(struct pushrod_server *s, const char *address, char **error)
{
    return conns_listen(s->conns, address, &native_ops, s->native, error);
}

static int http_at(struct pushrod_server *s, const char *address, char **error)
{
    return http_listen(s->http, address, error);
}

static int probe_at(struct pushrod_server *s, const char *address, char **error)
{
    (void)s;
    return conns_probe(address, error);
}

/* A program that embeds us has none of these unless it asks. */
static bool listen_wanted(const struct pushrod_server *s, const char *what)
{
    return s->program || params_given(s->params, what);
}

/* At each address of the option `what`. */
static int listen_at(struct pushrod_server *s, const char *what, uint16_t port,
    int (*at)(struct pushrod_server *s, const char *address, char **error), struct api_ports *ports)
{
    size_t count;
    const char *const *items = params_list(s->params, what, &count);
    if (!listen_wanted(s, what))
        return 0;
    assert(count <= SERVER_PORTS); /* settings_read() */
    for (size_t i = 0; i < count; i++) {
        char address[300], *error = NULL;
        if (!address_complete(items[i], port, address, sizeof address))
            return api_fail(s, PUSHROD_E_BAD_OPTION, "%s: \"%s\" is no address", what, items[i]);
        ports->port[i] = at(s, address, &error);
        if (ports->port[i] < 0)
            return start_failed(s, -ports->port[i], what, error);
        ports->count = (unsigned)i + 1;
    }
    return 0;
}

static bool http_wanted(const struct pushrod_server *s)
{
    size_t count;
    const char *const *items = params_list(s->params, "http", &count);
    return listen_wanted(s, "http") && !(count && strcmp(items[count - 1], "none") == 0);
}

static int listen_http(struct pushrod_server *s)
{
    if (!http_wanted(s))
        return 0;
    s->http = http_new(s->loop, &http_pages, s);
    if (!s->http)
        return api_fail(s, PUSHROD_E_NO_MEMORY, "out of memory");
    return listen_at(s, "http", HTTP_PORT, http_at, &s->http_ports);
}

static int listen_own(struct pushrod_server *s)
{
    for (size_t i = 0; i < s->listener_count; i++) {
        struct api_listener *l = s->listeners[i];
        char *error = NULL;
        l->port = conns_listen(s->conns, l->address, &api_conn_ops, l, &error);
        if (l->port < 0)
            return start_failed(s, -l->port, "", error);
    }
    return 0;
}

/* A system that does not let us is no reason to stop: there is TCP. */
static void listen_unix(struct pushrod_server *s)
{
    char address[sizeof s->unix_client + 8], *error = NULL;
    if (!s->unix_base[0] || !s->native_ports.count)
        return;
    snprintf(s->unix_client, sizeof s->unix_client, "%s-client", s->unix_base);
    snprintf(address, sizeof address, "unix:@%s", s->unix_client);
    if (native_at(s, address, &error) < 0)
        log_warning("%s; clients of this host stay with TCP", error ? error : "out of memory");
    else
        native_set_unix(s->native, s->unix_client);
    free(error);
}

/* HTTP first: its port is named to those who speak HTTP at the clients' port. */
static int start_listening(struct pushrod_server *s)
{
    int error = listen_http(s);
    if (error)
        return error;
    s->token = strdup(params_text(s->params, "token"));
    struct native_config native = {
        .token = s->token,
        .max_payload = params_number(s->params, "max-payload"),
        .http_port = (uint16_t)(s->http_ports.count ? s->http_ports.port[0] : 0),
        .join_port = (uint16_t)pushrod_server_port(s, "join", 0),
    };
    s->native = s->token ? native_new(s->conns, s->host, &native) : NULL;
    if (!s->native)
        return api_fail(s, PUSHROD_E_NO_MEMORY, "out of memory");
    error = listen_at(s, "listen", CLIENT_PORT, native_at, &s->native_ports);
    listen_unix(s);
    return error ? error : listen_own(s);
}

static void signal_caught(int number, short what, void *arg)
{
    (void)what;
    struct pushrod_server *s = arg;
    if (number == SIGHUP && s->reload) {
        s->reload(s);
    } else if (number == SIGUSR2 && !s->supervised) {
        log_warning("SIGUSR2: there are no local workers to replace");
    } else if (number == SIGUSR2) {
        log_info("local workers are replaced one by one");
        supervisor_replace(&s->supervisor);
    } else if (number != SIGHUP) {
        pushrod_server_stop(s);
    }
}

/* What would end the process is an error of the one call: peers of sockets and of the supervisor's
 * pipe may go at any time, and the store's file may grow to the limit of files (ulimit -f). */
static void signals_ignore(void)
{
    static const int numbers[] = {SIGPIPE, SIGXFSZ};
    struct sigaction old;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (sigaction(numbers[i], NULL, &old) == 0 && old.sa_handler == SIG_DFL)
            signal(numbers[i], SIG_IGN);
}

/* libevent gives the signals of a process to one loop: the server that has them. */
static _Atomic(struct pushrod_server *) catcher;

static int signals_catch(struct pushrod_server *s)
{
    static const int numbers[SERVER_SIGNALS] = {SIGTERM, SIGINT, SIGHUP, SIGUSR2};
    struct pushrod_server *nobody = NULL;
    if (!s->catch_signals)
        return 0;
    if (!atomic_compare_exchange_strong(&catcher, &nobody, s))
        return api_fail(s, PUSHROD_E_WRONG_STATE,
            "another server of this process catches the signals: catch them in the program, and "
            "call pushrod_server_stop() of each");
    for (size_t i = 0; i < (s->program ? SERVER_SIGNALS : 2); i++) {
        s->signals[i] = evsignal_new(loop_base(s->loop), numbers[i], signal_caught, s);
        if (!s->signals[i] || event_add(s->signals[i], NULL))
            return api_fail(s, PUSHROD_E_NO_MEMORY, "out of memory");
    }
    return 0;
}

void signals_leave(struct pushrod_server *s)
{
    for (size_t i = 0; i < SERVER_SIGNALS; i++) {
        if (s->signals[i])
            event_free(s->signals[i]);
        s->signals[i] = NULL;
    }
    struct pushrod_server *self = s;
    atomic_compare_exchange_strong(&catcher, &self, NULL);
}

atomic_uint servers_open;

static int start_rooms(struct pushrod_server *s, const struct host_settings *settings)
{
    char *error = NULL;
    s->loop = loop_new();
    if (!s->loop)
        return api_fail(s, PUSHROD_E_SYSTEM, "no event loop: %s", strerror(errno));
    s->process = getpid();
    atomic_fetch_add(&servers_open, 1);
    s->conns = conns_new(s->loop, &settings->conns);
    if (!s->conns)
        return api_fail(s, PUSHROD_E_NO_MEMORY, "out of memory");
    /* Clients come last, when all else is there; but theirs is the port that everybody knows, so
     * it is the one to name when a second server is started. */
    struct api_ports probed = {0};
    int failed = listen_at(s, "listen", CLIENT_PORT, probe_at, &probed);
    if (failed)
        return failed;
    s->host = host_new(s->loop, &settings->host, &host_events, s, &error);
    if (!s->host)
        return start_failed(s, PUSHROD_E_SYSTEM, "", error);
    failed = start_listening(s);
    return failed ? failed : local_join(s);
}

int pushrod_server_start(struct pushrod_server *s)
{
    struct host_settings settings;
    if (s->state != API_NEW)
        return api_fail(s, PUSHROD_E_WRONG_STATE, "the server was started already");
    settings_log(s);
    if (params_bool(s->params, "unix-sockets"))
        unixsock_draw(s->unix_base);
    int error = settings_read(s, &settings);
    if (error)
        return error;
    s->max_payload = settings.host.core.max_payload;
    /* Before any thread or socket, and with the signals of the program. */
    error = local_fork(s);
    signals_ignore();
    if (error == 0)
        error = start_rooms(s, &settings);
    if (error == 0)
        error = signals_catch(s);
    settings_free(&settings);
    if (error) {
        char text[sizeof s->error];
        memcpy(text, s->error, sizeof text);
        local_stop(s, true);
        server_end(s);
        return api_fail(s, -error, "%s", text);
    }
    s->thread = pthread_self();
    s->started_ns = loop_now(s->loop).mono_ns;
    state_set(s, API_RUNNING);
    loop_defer(s->loop, &s->start_tell);
    loop_wake(s->loop);
    return 0;
}
