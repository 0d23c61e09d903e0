/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lib_connect: the connection's life, and the loop that drives it.
 *
 *   IDLE ──▶ DIALLING ──▶ GREETING ──▶ UP
 *              ▲  ▲───────────┘         │ lost
 *              │                        ▼
 *              └────── backoff ───── WAITING ──▶ IDLE (the time is over, or trying cannot help)
 *
 * A server on this host tells of a Unix socket in its greeting: it is greeted there once more, and
 * the first connection is kept until that has succeeded, for it is the one to go on with otherwise.
 *
 * Nothing but this file writes `state`.
 */
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "client/lib.h"
#include "common/bell.h"
#include "common/sockopt.h"
#include "common/params.h"
#include "common/unixsock.h"
#include "proto/frame.h"

#define BACKOFF_FIRST_MS 50u
#define BACKOFF_LAST_MS  1000u

static void dial_next(struct pushrod_client *c, int why);
static void client_ready(struct pushrod_client *c);

/* ---------------------------------------------------------------------------------- state */

/* The timer is for those who watch pushrod_client_fd(); our own loop computes its wait. */
static void state_set(struct pushrod_client *c, enum client_state state, uint64_t deadline_ns)
{
    c->state = state;
    c->deadline_ns = deadline_ns;
    uint64_t at = deadline_ns == UINT64_MAX ? 0 : deadline_ns;
    struct itimerspec when = {.it_value = clock_timespec(at)};
    timerfd_settime(c->timer, TFD_TIMER_ABSTIME, &when, NULL);
}

/* Closing takes the descriptor out of epoll as well. */
static void socket_close(struct pushrod_client *c)
{
    if (c->fd >= 0)
        close(c->fd);
    if (c->tcp >= 0)
        close(c->tcp);
    c->fd = c->tcp = -1;
    c->wants_write = c->broken = false;
}

static void addresses_free(struct pushrod_client *c)
{
    if (c->addresses)
        freeaddrinfo(c->addresses);
    c->addresses = c->address = NULL;
}

void client_close(struct pushrod_client *c)
{
    socket_close(c);
    addresses_free(c);
    state_set(c, CLIENT_IDLE, UINT64_MAX);
}

/* Trying again cannot help, or the time for it is over. The error text is set already. */
static void give_up(struct pushrod_client *c)
{
    client_close(c);
    c->resuming = false;
    c->tries = 0;
    int error = c->error;
    char text[sizeof c->error_text];
    memcpy(text, c->error_text, sizeof text);
    stream_forget(c); /* before callbacks submit anew */
    pending_give_up(c, error, text);
    client_fail(c, error, "%s", text);
}

/* A small xorshift: backoff of many clients must not fall together; nothing secret depends on it.
 */
static uint64_t jitter_next(struct pushrod_client *c)
{
    c->jitter |= 1;
    c->jitter ^= c->jitter << 13;
    c->jitter ^= c->jitter >> 7;
    c->jitter ^= c->jitter << 17;
    return c->jitter;
}

/* The try failed; the text says why. */
static void try_later(struct pushrod_client *c)
{
    socket_close(c);
    addresses_free(c);
    uint64_t now = clock_mono_ns();
    uint64_t window = (c->resuming ? c->reconnect_ms : c->wait_ms) * NS_PER_MS;
    if (now - c->lost_ns >= window) {
        give_up(c);
        return;
    }
    uint64_t backoff = BACKOFF_FIRST_MS << (c->tries < 6 ? c->tries : 6);
    if (backoff > BACKOFF_LAST_MS)
        backoff = BACKOFF_LAST_MS;
    c->tries++;
    uint64_t wait_ms = backoff / 2 + jitter_next(c) % (backoff / 2 + 1);
    state_set(c, CLIENT_WAITING, now + wait_ms * NS_PER_MS);
}

/* Errors that another try cannot change. */
static bool error_is_final(int error)
{
    switch (error) {
    case PUSHROD_E_WRONG_PORT:
    case PUSHROD_E_BAD_TOKEN:
    case PUSHROD_E_BAD_VERSION:
    case PUSHROD_E_BAD_MESSAGE:
    case PUSHROD_E_BAD_FRAME:
    case PUSHROD_E_NOT_ALLOWED:
    case PUSHROD_E_BAD_OPTION:
        return true;
    default:
        return false;
    }
}

/* What was read from the other one, or is to be written to it, is not for this one. */
static void go_on_with(struct pushrod_client *c, int fd)
{
    c->fd = fd;
    c->wants_write = c->broken = false;
    buf_clear(&c->in);
    buf_clear(&c->hello);
    c->in_at = c->hello_at = 0;
}

/* All that it was for is over, or it ended before anything was said. */
static void stay_with_tcp(struct pushrod_client *c)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = c->tcp};
    close(c->fd);
    go_on_with(c, c->tcp);
    c->tcp = -1;
    c->broken = epoll_ctl(c->epoll, EPOLL_CTL_ADD, c->fd, &event) != 0;
    client_ready(c);
}

/* It was up: what was under way is sent again, or counts as lost. */
static void lose(struct pushrod_client *c, const char *why)
{
    state_set(c, CLIENT_WAITING, UINT64_MAX); /* what callbacks ask for is for the next one */
    c->resuming = true;
    c->tries = 0;
    c->lost_ns = clock_mono_ns();
    stream_reset(c);
    pending_reconnect(c);
    if (c->events.connection)
        c->events.connection(c, false, why);
}

void client_lost(struct pushrod_client *c, int error, const char *format, ...)
{
    if (c->tcp >= 0) {
        stay_with_tcp(c);
        return;
    }
    char text[sizeof c->error_text];
    va_list args;
    va_start(args, format);
    error = client_vfail(c, error, format, args);
    va_end(args);
    memcpy(text, c->error_text, sizeof text);
    bool was_up = c->state == CLIENT_UP, final = error_is_final(-error);
    socket_close(c);
    if (was_up)
        lose(c, text);
    buf_clear(&c->in);
    c->in_at = 0;
    if (final) /* what was lost with it, and callbacks, may have had errors of their own since */
        client_fail(c, error, "%s", text);
    if (final || (was_up && c->reconnect_ms == 0))
        give_up(c);
    else
        try_later(c);
}

/* ---------------------------------------------------------------------------------- dial */

/* "host", "host:port", "[ipv6]:port", or a bare IPv6 address. */
static int split_address(struct pushrod_client *c, char *host, size_t room, char port[8])
{
    const char *text = c->server, *colon = strchr(text, ':');
    bool bare = text[0] != '[' && colon && strchr(colon + 1, ':');
    uint16_t number = 5570;
    int size = bare ? snprintf(host, room, "%s", text) : 0;
    if (bare ? size >= (int)room : !params_split_host(text, host, room, &number) || !number)
        return client_fail(c, PUSHROD_E_BAD_OPTION,
            "server is '%s': it must be HOST, HOST:PORT or [IPV6]:PORT (--server, PUSHROD_SERVER)",
            text);
    snprintf(port, 8, "%u", number);
    snprintf(c->info.address, sizeof c->info.address, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host,
        port);
    return 0;
}

static int resolve(struct pushrod_client *c, const char *host, const char *port, int flags)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags};
    return getaddrinfo(host, port, &hints, &c->addresses);
}

/*
 * Resolving blocks: getaddrinfo has no other portable form, and a numeric address does not wait.
 * The addresses are kept until one of them has greeted.
 */
static void dial(struct pushrod_client *c)
{
    char host[256], port[8];
    if (split_address(c, host, sizeof host, port)) {
        give_up(c);
        return;
    }
    addresses_free(c);
    int failed = resolve(c, host, port, AI_ADDRCONFIG);
    if (failed) /* loopback does not count as configured, and is there all the same */
        failed = resolve(c, host, port, 0);
    if (failed) {
        c->addresses = NULL;
        client_fail(c, PUSHROD_E_UNREACHABLE,
            "cannot reach server %s: no address for '%s': %s (--server, PUSHROD_SERVER)",
            c->info.address, host, gai_strerror(failed));
        try_later(c);
        return;
    }
    c->address = c->addresses;
    dial_next(c, 0);
}

/* "Nobody listens" is the common case, and its question says it all; other reasons are named. */
static void dial_failed(struct pushrod_client *c, int why)
{
    bool nobody = why == ECONNREFUSED;
    client_fail(c, PUSHROD_E_UNREACHABLE,
        "cannot reach server %s: %s%sis pushrod-server running? (--server, PUSHROD_SERVER)",
        c->info.address, nobody ? "" : strerror(why), nobody ? "" : ": ");
    try_later(c);
}

/* Tries the addresses from c->address on; `why` is the errno of the one before. */
static void dial_next(struct pushrod_client *c, int why)
{
    socket_close(c);
    for (; c->address; c->address = c->address->ai_next) {
        const struct addrinfo *a = c->address;
        c->fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, a->ai_protocol);
        struct epoll_event event = {.events = EPOLLOUT, .data.fd = c->fd};
        if (c->fd >= 0 &&
            (connect(c->fd, a->ai_addr, a->ai_addrlen) == 0 || errno == EINPROGRESS) &&
            epoll_ctl(c->epoll, EPOLL_CTL_ADD, c->fd, &event) == 0) {
            state_set(c, CLIENT_DIALLING, clock_mono_ns() + c->connect_ms * NS_PER_MS);
            return;
        }
        why = errno;
        socket_close(c);
    }
    dial_failed(c, why);
}

/* The connection is there: say HELLO. On a Unix socket the options of TCP are refused. */
static void say_hello(struct pushrod_client *c)
{
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    sockopt_keepalive(c->fd);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = c->fd};
    epoll_ctl(c->epoll, EPOLL_CTL_MOD, c->fd, &event);
    buf_clear(&c->hello);
    c->hello_at = 0;
    struct msg_hello m = {
        .version = PROTOCOL_VERSION, .token = slice_str(c->token), .name = slice_str(c->name)};
    size_t begin = frame_begin(&c->hello);
    msg_hello_encode(&c->hello, &m);
    frame_end(&c->hello, begin);
    state_set(c, CLIENT_GREETING, clock_mono_ns() + c->connect_ms * NS_PER_MS);
    stream_write(c);
}

/* connect() has ended; a refusal goes on with the next address of the same name. */
static void dial_ready(struct pushrod_client *c)
{
    int why = 0;
    socklen_t size = sizeof why;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &why, &size);
    if (!why) {
        say_hello(c);
        return;
    }
    c->address = c->address->ai_next;
    dial_next(c, why);
}

static bool is_near(int fd)
{
    struct sockaddr_storage at;
    socklen_t size = sizeof at;
    return getpeername(fd, (struct sockaddr *)&at, &size) == 0 &&
           unixsock_near((const struct sockaddr *)&at, size);
}

/* True: HELLO was said at the Unix socket of a server on this host. */
static bool change_to_unix(struct pushrod_client *c, struct slice name)
{
    int fd = name.size && is_near(c->fd) ? unixsock_dial(name) : -1;
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (fd < 0)
        return false;
    if (epoll_ctl(c->epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
        close(fd);
        return false;
    }
    epoll_ctl(c->epoll, EPOLL_CTL_DEL, c->fd, NULL);
    c->tcp = c->fd;
    go_on_with(c, fd);
    say_hello(c);
    return true;
}

void client_greeted(struct pushrod_client *c, const struct msg_greeting *m)
{
    addresses_free(c);
    c->tries = 0;
    c->info.max_payload = m->max_payload;
    c->max_frame = m->max_frame;
    snprintf(c->info.software, sizeof c->info.software, "%.*s", (int)m->software.size,
        m->software.data ? (const char *)m->software.data : "");
    c->info.clock_ahead_ms = (int64_t)m->now_ms - (int64_t)clock_now().wall_ms;
    if (c->tcp >= 0) {
        close(c->tcp);
        c->tcp = -1;
    } else if (change_to_unix(c, m->unix_name)) {
        return;
    }
    client_ready(c);
}

/*
 * From here on the connection counts as had: everything that waited for it goes out in this order,
 * tasks that are followed first, since their finishes may be there already.
 */
static void client_ready(struct pushrod_client *c)
{
    state_set(c, CLIENT_UP, UINT64_MAX);
    int error = followed_wait_again(c);
    calls_restart(c);
    if (!error && c->watching)
        error = pushrod_client_watch(c, true);
    if (c->events.connection)
        c->events.connection(c, true, c->info.software);
    /* What was not asked for would be waited for without an end: the next connection asks again. */
    if (error && c->state == CLIENT_UP)
        client_lost(c, error, "out of memory");
}

/* ---------------------------------------------------------------------------------- the loop */

/* Each state that has a deadline says here what its passing means. */
static void deadline_reached(struct pushrod_client *c)
{
    switch (c->state) {
    case CLIENT_WAITING:
        dial(c);
        break;
    case CLIENT_DIALLING:
        c->address = c->address->ai_next;
        dial_next(c, ETIMEDOUT);
        break;
    case CLIENT_GREETING:
        client_lost(c, PUSHROD_E_UNREACHABLE,
            "%s took the connection but did not greet within %llu ms: is it the server's client "
            "port, 5570 by default? (--server, PUSHROD_SERVER)",
            c->info.address, (unsigned long long)c->connect_ms);
        break;
    case CLIENT_IDLE:
    case CLIENT_UP:
        break;
    }
}

static void event_happened(struct pushrod_client *c, const struct epoll_event *event)
{
    if (event->data.fd == c->bell) {
        c->interrupted |= bell_quiet(c->bell);
    } else if (event->data.fd == c->timer) {
        uint64_t count;
        ssize_t n = read(c->timer, &count, sizeof count);
        (void)n; /* the deadline itself is looked at below */
    } else if (event->data.fd == c->fd && c->state == CLIENT_DIALLING) {
        dial_ready(c);
    } else if (event->data.fd == c->fd) {
        if (event->events & (EPOLLIN | EPOLLHUP | EPOLLERR))
            stream_read(c);
        if (c->fd >= 0 && (event->events & EPOLLOUT))
            stream_write(c);
    }
}

/*
 * Write, wait, read, look at the clock. The order matters: what is to be sent leaves before we
 * sleep, and answers that were caused by callbacks leave before we return.
 */
static int turn(struct pushrod_client *c, uint64_t until_ns)
{
    if (c->state == CLIENT_IDLE) {
        c->lost_ns = clock_mono_ns();
        dial(c);
    }
    enum client_state before = c->state;
    stream_write(c);
    if (c->broken)
        stream_read(c); /* an ERROR that explains the reset may be there to read */
    if (c->broken)
        client_lost(c, PUSHROD_E_CLOSED, "%s closed the connection", c->info.address);
    if (c->state == CLIENT_IDLE)
        return -c->error;
    struct epoll_event events[3];
    uint64_t until = until_ns < c->deadline_ns ? until_ns : c->deadline_ns;
    if (c->state != before)
        until = 0; /* it may be what our caller waits for */
    int n = epoll_wait(c->epoll, events, 3, clock_wait_ms(clock_mono_ns(), until));
    for (int i = 0; i < n; i++)
        event_happened(c, &events[i]);
    if (c->deadline_ns != UINT64_MAX && clock_mono_ns() >= c->deadline_ns)
        deadline_reached(c);
    stream_write(c);
    if (c->interrupted) {
        c->interrupted = false;
        return client_fail(c, PUSHROD_E_INTERRUPTED, "interrupted");
    }
    return c->state == CLIENT_IDLE ? -c->error : 0;
}

int client_turn(struct pushrod_client *c, uint64_t until_ns)
{
    assert(!c->turning);
    c->turning = true;
    int error = turn(c, until_ns);
    c->turning = false;
    return error;
}

int client_turn_before(struct pushrod_client *c, uint64_t until_ns)
{
    return clock_mono_ns() < until_ns ? client_turn(c, until_ns) : -PUSHROD_E_TIMED_OUT;
}

int client_may_wait(struct pushrod_client *c)
{
    if (!c->turning)
        return 0;
    return client_fail(c, PUSHROD_E_WRONG_STATE, "a function that waits was called in a callback");
}

/* IDLE after a turn means that dialling was given up: client_turn() gives the reason. */
int client_up(struct pushrod_client *c, uint64_t until_ns)
{
    int error = client_may_wait(c);
    while (!error && c->state != CLIENT_UP)
        error = client_turn_before(c, until_ns);
    return error;
}

int pushrod_client_connect(struct pushrod_client *c)
{
    return client_up(c, UINT64_MAX);
}

int pushrod_client_process(struct pushrod_client *c, int64_t timeout_ms)
{
    int error = client_may_wait(c);
    return error ? error : client_turn(c, timeout_ms == 0 ? 0 : client_deadline(timeout_ms));
}

void pushrod_client_flush(struct pushrod_client *c)
{
    stream_write(c);
}
