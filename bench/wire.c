/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/wire.h"

#include <err.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { FIRST_BUFFER = 64 << 10, DIAL_TRIES = 500 };

static int dial_once(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found;
    if (getaddrinfo(host, port, &hints, &found) != 0)
        errx(1, "no such address: %s:%s", host, port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        err(1, "socket");
    if (connect(fd, found->ai_addr, found->ai_addrlen) != 0) {
        close(fd);
        fd = -1;
    }
    freeaddrinfo(found);
    return fd;
}

static int dial_unix(const char *path)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || strlen(path) >= sizeof at.sun_path)
        errx(1, "no such path for a socket: %s", path);
    strcpy(at.sun_path, path);
    if (connect(fd, (struct sockaddr *)&at, sizeof at) == 0)
        return fd;
    close(fd);
    return -1;
}

/* -1: nobody is there. */
static int dial_address(const char *address)
{
    char host[256];
    const char *colon = strrchr(address, ':');
    if (strncmp(address, "unix:", 5) == 0)
        return dial_unix(address + 5);
    if (!colon || (size_t)(colon - address) >= sizeof host)
        errx(2, "address must be HOST:PORT or unix:PATH: %s", address);
    memcpy(host, address, (size_t)(colon - address));
    host[colon - address] = 0;
    return dial_once(host, colon + 1);
}

void wire_open(struct wire *w, const char *address)
{
    memset(w, 0, sizeof *w);
    w->fd = dial_address(address);
    for (int i = 0; w->fd < 0 && i < DIAL_TRIES; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
        w->fd = dial_address(address);
    }
    if (w->fd < 0)
        errx(1, "nobody listens at %s", address);
    int one = 1;
    setsockopt(w->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    w->in_cap = w->out_cap = FIRST_BUFFER;
    w->in = malloc(w->in_cap);
    w->out = malloc(w->out_cap);
    if (!w->in || !w->out)
        err(1, "malloc");
}

void wire_close(struct wire *w)
{
    close(w->fd);
    free(w->in);
    free(w->out);
}

/* Makes room for `more` bytes behind `end`: moves what is left to the front, then grows. */
static void make_room(char **data, size_t *at, size_t *end, size_t *cap, size_t more)
{
    if (*at == *end)
        *at = *end = 0;
    if (*end + more <= *cap)
        return;
    memmove(*data, *data + *at, *end - *at);
    *end -= *at;
    *at = 0;
    if (*end + more <= *cap)
        return;
    while (*end + more > *cap)
        *cap *= 2;
    *data = realloc(*data, *cap);
    if (!*data)
        err(1, "realloc");
}

void wire_put(struct wire *w, const void *data, size_t size)
{
    make_room(&w->out, &w->out_at, &w->out_end, &w->out_cap, size);
    memcpy(w->out + w->out_end, data, size);
    w->out_end += size;
}

void wire_printf(struct wire *w, const char *format, ...)
{
    char line[2048];
    va_list list;
    va_start(list, format);
    int size = vsnprintf(line, sizeof line, format, list);
    va_end(list);
    if (size < 0 || (size_t)size >= sizeof line)
        errx(1, "a request is too long: %s", line);
    wire_put(w, line, (size_t)size);
}

void wire_flush(struct wire *w)
{
    while (w->out_at < w->out_end) {
        ssize_t sent =
            send(w->fd, w->out + w->out_at, w->out_end - w->out_at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno == EAGAIN)
            return;
        if (sent < 0)
            err(1, "the server closed the connection: send");
        w->out_at += (size_t)sent;
    }
}

bool wire_pending(const struct wire *w)
{
    return w->out_at < w->out_end;
}

bool wire_fill(struct wire *w)
{
    make_room(&w->in, &w->in_at, &w->in_end, &w->in_cap, FIRST_BUFFER);
    ssize_t got = recv(w->fd, w->in + w->in_end, w->in_cap - w->in_end, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (got <= 0)
        errx(1, "the server closed the connection");
    w->in_end += (size_t)got;
    return true;
}

bool wire_block_for(struct wire *w, int ms)
{
    wire_flush(w);
    struct pollfd p = {.fd = w->fd, .events = POLLIN};
    if (wire_pending(w))
        p.events |= POLLOUT;
    if (poll(&p, 1, ms) <= 0)
        return false;
    wire_flush(w);
    return wire_fill(w);
}

void wire_block(struct wire *w)
{
    while (!wire_block_for(w, -1))
        ;
}

char *wire_line(struct wire *w, size_t *size)
{
    char *begin = w->in + w->in_at;
    size_t left = wire_left(w);
    char *end = left ? memchr(begin, '\n', left) : NULL;
    if (!end)
        return NULL;
    w->in_at += (size_t)(end - begin) + 1;
    if (end > begin && end[-1] == '\r')
        end--;
    *end = 0;
    *size = (size_t)(end - begin);
    return begin;
}

char *wire_take(struct wire *w, size_t size)
{
    if (wire_left(w) < size)
        return NULL;
    char *data = w->in + w->in_at;
    w->in_at += size;
    return data;
}

size_t wire_left(const struct wire *w)
{
    return w->in_end - w->in_at;
}

const char *wire_peek(const struct wire *w)
{
    return w->in + w->in_at;
}
