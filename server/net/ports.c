/* SPDX-License-Identifier: Apache-2.0 */
#include "server/net/ports.h"

#include <assert.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>

bool ports_init(struct ports *p, uint16_t first, uint16_t last)
{
    assert(first <= last);
    *p = (struct ports){0};
    if (first == 0)
        return true;
    p->size = (size_t)(last - first) + 1;
    p->queue = calloc(p->size, sizeof *p->queue);
    if (!p->queue)
        return false;
    for (size_t i = 0; i < p->size; i++)
        p->queue[i].port = (uint16_t)(first + i);
    p->count = p->size;
    return true;
}

void ports_free(struct ports *p)
{
    free(p->queue);
    *p = (struct ports){0};
}

uint16_t ports_take(struct ports *p, uint64_t now_ns)
{
    if (p->count == 0)
        return 0;
    /* The first was freed before all others: if it has to wait, they have to. */
    struct port_free first = p->queue[p->head];
    if (first.since_ns != 0 && now_ns < first.since_ns + PORTS_QUARANTINE_NS)
        return 0;
    p->head = (p->head + 1) % p->size;
    p->count--;
    return first.port;
}

void ports_give(struct ports *p, uint16_t port, uint64_t now_ns)
{
    if (p->size == 0)
        return;
    assert(p->count < p->size);
    p->queue[(p->head + p->count) % p->size] = (struct port_free){now_ns, port};
    p->count++;
}

uint16_t ports_bound(int fd)
{
    struct sockaddr_storage at = {0};
    socklen_t size = sizeof at;
    if (getsockname(fd, (struct sockaddr *)&at, &size) != 0)
        return 0;
    if (at.ss_family == AF_INET)
        return ntohs(((const struct sockaddr_in *)&at)->sin_port);
    return at.ss_family == AF_INET6 ? ntohs(((const struct sockaddr_in6 *)&at)->sin6_port) : 0;
}
