/* SPDX-License-Identifier: Apache-2.0 */
#include "server/net/crowd.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/memory.h"
#include "common/unixsock.h"
#include "server/net/ports.h"

/* What a line carries in this time is what a stranger can cost beyond max_bytes. */
#define LOOK_MS 100
/* Giving memory back takes 0.4 us for each free block of a page and more, and what is in use again
 * must be had from the kernel: strangers shall not choose how often. */
#define GIVE_BACK_MS 1000
/* libzmq frees what a stranger sent when its thread gets to it, and does not say so: mostly before
 * the next look, on a busy machine later. Twice the distance between them each time: 1, 2 s. */
#define GIVE_BACKS 3

static void visitor_shut(struct crowd *c, int fd)
{
    if (ports_bound(fd) != c->port && !unixsock_is(fd, c->unix_name))
        return;
    shutdown(fd, SHUT_RDWR);
    ++*c->shut;
}

static void visitor_add(struct crowd *c, int fd)
{
    if (c->limits.places && c->count > 0)
        c->limits.places->taken++;
    c->visitors[c->count++] = (struct visitor){fd, loop_now(c->loop).mono_ns};
}

static void visitor_remove(struct crowd *c, size_t at)
{
    c->count--;
    if (c->limits.places && c->count > 0)
        c->limits.places->taken--;
    memmove(c->visitors + at, c->visitors + at + 1, (c->count - at) * sizeof *c->visitors);
}

static uint64_t bytes_of(int fd)
{
    struct tcp_info info = {0};
    socklen_t size = sizeof info;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0)
        return 0;
    return info.tcpi_bytes_received;
}

static bool is_old(const struct crowd *c, const struct visitor *v, uint64_t now_ns)
{
    return c->limits.max_ms && now_ns - v->since_ns >= c->limits.max_ms * NS_PER_MS;
}

static void look_again(struct crowd *c)
{
    bool wanted = (c->limits.max_ms || c->limits.max_bytes) && c->count;
    if ((wanted || c->heavy) && !heap_holds(&c->look.node))
        loop_timer_set(c->loop, &c->look, loop_now(c->loop).mono_ns + LOOK_MS * NS_PER_MS);
}

static void give_back(struct crowd *c, uint64_t now_ns)
{
    if (!c->heavy || now_ns < c->give_back_ns)
        return;
    memory_give_back();
    c->give_back_ns = now_ns + (GIVE_BACK_MS * NS_PER_MS << (GIVE_BACKS - c->heavy));
    c->heavy--;
}

/* Those go that are too old, or have sent more than that. Gives the bytes of the others. */
static uint64_t shut_some(struct crowd *c, uint64_t now_ns, uint64_t most)
{
    uint64_t all = 0;
    for (size_t i = c->count; i-- > 0;) {
        uint64_t bytes = c->limits.max_bytes ? bytes_of(c->visitors[i].fd) : 0;
        bool heavy = bytes > most;
        if (!heavy && !is_old(c, &c->visitors[i], now_ns)) {
            all += bytes;
            continue;
        }
        if (heavy)
            c->heavy = GIVE_BACKS;
        visitor_shut(c, c->visitors[i].fd);
        visitor_remove(c, i);
    }
    return all;
}

/* Of too much in all, who has sent more than an equal share of what may be goes. */
static void crowd_look(void *arg)
{
    struct crowd *c = arg;
    uint64_t now_ns = loop_now(c->loop).mono_ns;
    give_back(c, now_ns);
    uint64_t all = shut_some(c, now_ns, c->limits.max_bytes);
    if (c->limits.all_bytes && all > c->limits.all_bytes)
        shut_some(c, now_ns, c->limits.all_bytes / c->count);
    look_again(c);
}

void crowd_start(struct crowd *c, struct loop *loop, const struct crowd_limits *limits,
    uint16_t port, const char *unix_name, uint64_t *shut)
{
    *c = (struct crowd){
        .loop = loop, .limits = *limits, .port = port, .unix_name = unix_name, .shut = shut};
    c->look = (struct loop_timer){.fn = crowd_look, .arg = c};
}

void crowd_stop(struct crowd *c)
{
    while (c->count > 0)
        visitor_remove(c, c->count - 1);
    if (c->loop)
        loop_timer_clear(c->loop, &c->look);
    free(c->visitors);
    *c = (struct crowd){0};
}

static bool crowd_grow(struct crowd *c)
{
    size_t capacity = c->capacity ? 2 * c->capacity : 4;
    if (c->count < c->capacity)
        return true;
    struct visitor *more = realloc(c->visitors, capacity * sizeof *more);
    if (!more)
        return false;
    c->visitors = more;
    c->capacity = capacity;
    return true;
}

static bool is_full(const struct crowd *c)
{
    const struct crowd_places *places = c->limits.places;
    return c->count >= c->limits.most || (places && c->count > 0 && places->taken >= places->most);
}

void crowd_came(struct crowd *c, int fd)
{
    if (!c->limits.most)
        return;
    if (is_full(c) && c->limits.keep_newest) {
        visitor_shut(c, c->visitors[0].fd);
        visitor_remove(c, 0);
    }
    /* Without memory to know it by, it has to go as well. */
    if (is_full(c) || !crowd_grow(c)) {
        visitor_shut(c, fd);
        return;
    }
    visitor_add(c, fd);
    look_again(c);
}

void crowd_left(struct crowd *c, int fd)
{
    for (size_t i = 0; i < c->count; i++) {
        if (c->visitors[i].fd != fd)
            continue;
        visitor_remove(c, i);
        return;
    }
}
