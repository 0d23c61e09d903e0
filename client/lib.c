/* SPDX-License-Identifier: Apache-2.0 */
/* lib: settings, errors, the life of a client. */
#include "client/lib.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "common/bell.h"
#include "common/params.h"

int client_vfail(struct pushrod_client *c, int error, const char *format, va_list args)
{
    vsnprintf(c->error_text, sizeof c->error_text, format, args);
    c->error = error < 0 ? -error : error;
    return -c->error;
}

int client_fail(struct pushrod_client *c, int error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    client_vfail(c, error, format, args);
    va_end(args);
    return -c->error;
}

int client_no_memory(struct pushrod_client *c)
{
    return client_fail(c, PUSHROD_E_NO_MEMORY, "%s", pushrod_strerror(PUSHROD_E_NO_MEMORY));
}

uint64_t client_deadline(int64_t timeout_ms)
{
    if (timeout_ms < 0)
        return UINT64_MAX;
    return clock_after_ms(clock_mono_ns(), (uint64_t)timeout_ms);
}

uint64_t client_answer_deadline(const struct pushrod_client *c)
{
    return c->answer_ms ? client_deadline((int64_t)c->answer_ms) : UINT64_MAX;
}

const char *pushrod_client_error_text(const struct pushrod_client *c)
{
    return c->error_text;
}

/* ---------------------------------------------------------------------------------- settings */

/* Values are copied: callers may pass what getenv() or a parser owns. */
static int set_text(struct pushrod_client *c, char **to, const char *value)
{
    char *copy = strdup(value);
    if (!copy)
        return client_no_memory(c);
    free(*to);
    *to = copy;
    return 0;
}

static int set_ms(struct pushrod_client *c, uint64_t *to, const char *name, const char *value)
{
    char *end;
    errno = 0;
    unsigned long long ms = strtoull(value, &end, 10);
    /* A day is longer than anybody waits, and keeps sums of nanoseconds far from overflow. */
    if (errno || end == value || *end || *value == '-' || ms > 86400000)
        return client_fail(c, PUSHROD_E_BAD_OPTION,
            "%s is '%s': it must be a number of milliseconds from 0 to 86400000", name, value);
    *to = ms;
    return 0;
}

static int set_token_file(struct pushrod_client *c, const char *path)
{
    char token[PARAMS_SECRET];
    const char *why;
    int error = params_read_secret(path, token, &why);
    if (error)
        return client_fail(c, error, "cannot read token file %s: %s", path, why);
    return set_text(c, &c->token, token);
}

/*
 * A chain of comparisons and no table: the values are of three kinds, and the list is complete on
 * one screen.
 */
int pushrod_client_set(struct pushrod_client *c, const char *name, const char *value)
{
    if (!value || strlen(value) > 4096)
        return client_fail(c, PUSHROD_E_BAD_OPTION, "%s has no value, or a too long one", name);
    if (strcmp(name, "server") == 0)
        return set_text(c, &c->server, value);
    if (strcmp(name, "token") == 0)
        return set_text(c, &c->token, value);
    if (strcmp(name, "token-file") == 0)
        return set_token_file(c, value);
    if (strcmp(name, "name") == 0)
        return set_text(c, &c->name, value);
    if (strcmp(name, "connect-timeout") == 0)
        return set_ms(c, &c->connect_ms, name, value);
    if (strcmp(name, "connect-wait") == 0)
        return set_ms(c, &c->wait_ms, name, value);
    if (strcmp(name, "reconnect") == 0)
        return set_ms(c, &c->reconnect_ms, name, value);
    if (strcmp(name, "answer-timeout") == 0)
        return set_ms(c, &c->answer_ms, name, value);
    return client_fail(c, PUSHROD_E_BAD_OPTION,
        "there is no setting '%s' (server, token, token-file, name, connect-timeout, "
        "connect-wait, reconnect, answer-timeout)",
        name);
}

/* ---------------------------------------------------------------------------------- life */

/* Values from the environment are checked when they are used: new() has no way to say what is
 * wrong. */
static int set_environment(struct pushrod_client *c)
{
    const char *server = getenv("PUSHROD_SERVER");
    const char *token = getenv("PUSHROD_TOKEN");
    const char *file = getenv("PUSHROD_TOKEN_FILE");
    int error = set_text(c, &c->server, server && *server ? server : PUSHROD_DEFAULT_SERVER);
    if (!error && token && *token)
        error = set_text(c, &c->token, token);
    else if (!error && file && *file && set_token_file(c, file))
        error = c->error == PUSHROD_E_NO_MEMORY ? -c->error : 0;
    return error;
}

/* The three descriptors of a client live in one epoll, which is what other loops watch. */
static bool watch_fd(struct pushrod_client *c, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    return fd >= 0 && epoll_ctl(c->epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

/* What new() needs from the system; all of it is closed by free(), however far it came. */
static bool client_open(struct pushrod_client *c)
{
    c->fd = c->tcp = -1;
    c->epoll = epoll_create1(EPOLL_CLOEXEC);
    c->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    c->bell = bell_new();
    if (c->epoll < 0 || !watch_fd(c, c->timer) || !watch_fd(c, c->bell))
        return false;
    return set_environment(c) == 0;
}

struct pushrod_client *pushrod_client_new(void)
{
    struct pushrod_client *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->connect_ms = 5000;
    c->reconnect_ms = 60000;
    c->deadline_ns = UINT64_MAX;
    c->open_frame = SIZE_MAX;
    c->pending.base = c->pending.next = 1;
    c->calls = REQUEST_CALL;
    c->jitter = clock_mono_ns() ^ (uint64_t)getpid() << 32;
    if (!client_open(c)) {
        pushrod_client_free(c);
        return NULL;
    }
    return c;
}

static void close_fd(int fd)
{
    if (fd >= 0)
        close(fd);
}

/* The order: first the socket, so that nothing arrives any more, then what events would touch. */
void pushrod_client_free(struct pushrod_client *c)
{
    if (!c)
        return;
    client_close(c);
    close_fd(c->timer);
    close_fd(c->bell);
    close_fd(c->epoll);
    stream_free(c);
    pending_free(c);
    followed_free(c);
    kept_free(c->handed);
    buf_free(&c->scratch);
    buf_free(&c->encoded);
    buf_free(&c->row_texts);
    submitted_free(c);
    free((void *)c->row.history);
    free(c->server);
    free(c->token);
    free(c->name);
    free(c);
}

void pushrod_client_on(struct pushrod_client *c, const struct pushrod_client_events *events)
{
    c->events = events ? *events : (struct pushrod_client_events){0};
}

void pushrod_client_set_data(struct pushrod_client *c, void *data)
{
    c->data = data;
}

void *pushrod_client_data(const struct pushrod_client *c)
{
    return c->data;
}

const struct pushrod_server_info *pushrod_client_server(const struct pushrod_client *c)
{
    return &c->info;
}

bool pushrod_client_connected(const struct pushrod_client *c)
{
    return c->state == CLIENT_UP;
}

int pushrod_client_fd(const struct pushrod_client *c)
{
    return c->epoll;
}

void pushrod_client_interrupt(struct pushrod_client *c)
{
    bell_ring(c->bell);
}
