/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/address.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <pushrod/error.h>
#include "common/params.h"
#include "common/retry.h"
#include "common/slice.h"
#include "common/unixsock.h"

#define CONNECT_WAIT_MS  250
#define DIAGNOSE_WAIT_MS 500

/* IPv4 first: a server listens there unless it was told otherwise. */
static void list_add(struct address_list *list, const struct addrinfo *found, int family)
{
    for (; found && list->count < ADDRESS_MAX; found = found->ai_next) {
        char *to = list->addresses[list->count];
        if (found->ai_family == family && getnameinfo(found->ai_addr, found->ai_addrlen, to,
                                              ADDRESS_TEXT, NULL, 0, NI_NUMERICHOST) == 0)
            list->count++;
    }
}

/* Copies one of the entries; false: it is too long. */
static bool pick(const char *text, size_t which, char *out, size_t size)
{
    size_t commas = 0;
    for (const char *c = text; *c; c++)
        commas += *c == ',';
    for (which %= commas + 1; which; which--)
        text = strchr(text, ',') + 1;
    int length = (int)strcspn(text, ",");
    return snprintf(out, size, "%.*s", length, text) < (int)size;
}

int address_resolve(struct address_list *list, const char *text, size_t which)
{
    char one[sizeof list->host + 8];
    *list = (struct address_list){.port = JOIN_PORT};
    if (!pick(text, which, one, sizeof one) ||
        !params_split_host(one, list->host, sizeof list->host, &list->port))
        return -PUSHROD_E_BAD_OPTION;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    struct addrinfo *found = NULL;
    if (getaddrinfo(list->host, NULL, &hints, &found) != 0) {
        hints.ai_flags = 0; /* a host with loopback only has nothing configured */
        if (getaddrinfo(list->host, NULL, &hints, &found) != 0)
            return -PUSHROD_E_UNREACHABLE;
    }
    list_add(list, found, AF_INET);
    list_add(list, found, AF_INET6);
    freeaddrinfo(found);
    return list->count ? 0 : -PUSHROD_E_UNREACHABLE;
}

void address_endpoint(const char *host, uint64_t port, char out[ADDRESS_ENDPOINT])
{
    const char *format = strchr(host, ':') ? "tcp://[%s]:%llu" : "tcp://%s:%llu";
    snprintf(out, ADDRESS_ENDPOINT, format, host, (unsigned long long)port);
}

static bool await(int fd, short events, int ms)
{
    struct pollfd p = {.fd = fd, .events = events};
    return RETRY(poll(&p, 1, ms)) > 0;
}

static bool connected(int fd, const struct addrinfo *to)
{
    if (connect(fd, to->ai_addr, to->ai_addrlen) == 0)
        return true;
    int error = errno;
    socklen_t size = sizeof error;
    return error == EINPROGRESS && await(fd, POLLOUT, CONNECT_WAIT_MS) &&
           getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0;
}

/* To be freed; NULL: it is none, or there is no memory. */
static struct addrinfo *numeric(const char *address, uint16_t port)
{
    struct addrinfo hints = {
        .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
    struct addrinfo *to = NULL;
    char service[8];
    snprintf(service, sizeof service, "%u", port);
    return getaddrinfo(address, service, &hints, &to) == 0 ? to : NULL;
}

bool address_near(const char *address)
{
    struct addrinfo *to = numeric(address, 0);
    if (!to)
        return false;
    bool near = unixsock_near(to->ai_addr, to->ai_addrlen);
    freeaddrinfo(to);
    return near;
}

/* A connected, non-blocking descriptor, or -1. */
static int dial(const char *address, uint16_t port)
{
    struct addrinfo *to = numeric(address, port);
    if (!to)
        return -1;
    int fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && !connected(fd, to)) {
        close(fd);
        fd = -1;
    }
    freeaddrinfo(to);
    return fd;
}

const char *address_reachable(const struct address_list *list, size_t first)
{
    for (size_t i = 0; i < list->count && list->count > 1; i++) {
        const char *address = list->addresses[(first + i) % list->count];
        int fd = dial(address, list->port);
        if (fd < 0)
            continue;
        close(fd);
        return address;
    }
    return list->addresses[first % list->count];
}

/* ----------------------------------------------------------------------- diagnosis */

/* A line of text is for people: what listens there knows better than we do what it is. */
static bool is_line(struct slice bytes)
{
    for (size_t i = 0; i < bytes.size; i++) {
        if (bytes.data[i] == '\n')
            return i > 0;
        if (bytes.data[i] < 0x20 || bytes.data[i] > 0x7e)
            return false;
    }
    return false;
}

/* Which port it is only the server knows: many have another than the default. */
static void explain_other(const char *what, char *text, size_t size)
{
    snprintf(
        text, size, "%s; workers join at the server's --join-port, %u by default", what, JOIN_PORT);
}

/* `bytes`: what the peer says to the first bytes of a ZMTP greeting, with a NUL behind them. */
static void explain(struct slice bytes, char *text, size_t size)
{
    const char *body = NULL; /* `bytes` end with a NUL */
    bool http = bytes.size >= 5 && memcmp(bytes.data, "HTTP/", 5) == 0;
    if (http)
        body = strstr((const char *)bytes.data, "\r\n\r\nthis is the port");
    if (bytes.size == 0)
        explain_other("what listens there says nothing", text, size);
    else if (bytes.data[0] == 0xff)
        explain_other("ZeroMQ is there, but no server answers", text, size);
    else if (body)
        snprintf(text, size, "%.*s", (int)strcspn(body + 4, "\n"), body + 4);
    else if (http)
        explain_other("that is an HTTP port", text, size);
    else if (is_line(bytes))
        snprintf(text, size, "%.*s", (int)strcspn((const char *)bytes.data, "\n"),
            (const char *)bytes.data);
    else
        explain_other("something else listens there", text, size);
}

static size_t hear(int fd, const void *say, size_t size, void *answer, size_t room)
{
    if (send(fd, say, size, MSG_NOSIGNAL) != (ssize_t)size || !await(fd, POLLIN, DIAGNOSE_WAIT_MS))
        return 0;
    ssize_t got = recv(fd, answer, room, 0);
    return got > 0 ? (size_t)got : 0;
}

bool address_diagnose(const char *address, uint16_t port, char *text, size_t size)
{
    static const uint8_t greeting[] = {0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f};
    int fd = dial(address, port);
    if (fd < 0)
        return false;
    uint8_t answer[513] = {0};
    size_t have = hear(fd, greeting, sizeof greeting, answer, sizeof answer - 1);
    if (have == 0) /* no ZMTP peer keeps its own greeting back; HTTP waits for the end of a line */
        have = hear(fd, "\r\n\r\n", 4, answer, sizeof answer - 1);
    close(fd);
    explain(slice_of(answer, have), text, size);
    return true;
}
