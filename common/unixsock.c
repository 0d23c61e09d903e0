/* SPDX-License-Identifier: Apache-2.0 */
#include "common/unixsock.h"

#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define RANDOM_BYTES 16u
/* The kernel doubles it for its own needs. 0.5 to 2 MiB were no faster, and are more in caches. */
#define WIDE_BYTES (256 << 10)

bool unixsock_draw(char base[UNIXSOCK_BASE])
{
    uint8_t bytes[RANDOM_BYTES];
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        return false;
    int at = snprintf(base, UNIXSOCK_BASE, "pushrod-");
    for (size_t i = 0; i < sizeof bytes; i++)
        at += snprintf(base + at, UNIXSOCK_BASE - (size_t)at, "%02x", bytes[i]);
    return true;
}

socklen_t unixsock_address(struct sockaddr_un *address, struct slice name)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (name.size == 0 || name.size >= sizeof address->sun_path)
        return 0;
    memcpy(address->sun_path + 1, name.data, name.size);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + name.size);
}

/* The kernel lets nobody have another host's address. */
bool unixsock_near(const struct sockaddr *server, socklen_t size)
{
    struct sockaddr_storage at = {0};
    if (size > sizeof at || (server->sa_family != AF_INET && server->sa_family != AF_INET6))
        return false;
    memcpy(&at, server, size);
    if (at.ss_family == AF_INET)
        ((struct sockaddr_in *)&at)->sin_port = 0;
    else
        ((struct sockaddr_in6 *)&at)->sin6_port = 0;
    int fd = socket(at.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool near = fd >= 0 && bind(fd, (const struct sockaddr *)&at, size) == 0;
    if (fd >= 0)
        close(fd);
    return near;
}

/* A socket for that name, whose address and size are set; -1: it is none. */
static int socket_for(struct slice name, struct sockaddr_un *address, socklen_t *size)
{
    *size = unixsock_address(address, name);
    return *size ? socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0) : -1;
}

int unixsock_dial(struct slice name)
{
    struct sockaddr_un address;
    socklen_t size;
    int fd = socket_for(name, &address, &size);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, size) != 0) {
        close(fd);
        fd = -1;
    }
    if (fd >= 0)
        unixsock_widen(fd);
    return fd;
}

bool unixsock_taken(struct slice name)
{
    struct sockaddr_un address;
    socklen_t size;
    int fd = socket_for(name, &address, &size);
    if (fd < 0)
        return false;
    bool taken = bind(fd, (const struct sockaddr *)&address, size) != 0 && errno == EADDRINUSE;
    close(fd);
    return taken;
}

/* The name that the descriptor has; its size is 0 for any other kind. */
static struct slice name_of(int fd, struct sockaddr_un *address)
{
    socklen_t size = sizeof *address;
    size_t head = offsetof(struct sockaddr_un, sun_path) + 1;
    if (getsockname(fd, (struct sockaddr *)address, &size) != 0 || address->sun_family != AF_UNIX ||
        size <= head || address->sun_path[0])
        return (struct slice){0};
    return slice_of(address->sun_path + 1, size - head);
}

bool unixsock_is(int fd, const char *name)
{
    struct sockaddr_un address;
    return name[0] && slice_equal(name_of(fd, &address), slice_str(name));
}

void unixsock_widen(int fd)
{
    int domain = 0, bytes = WIDE_BYTES;
    socklen_t size = sizeof domain;
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
}
