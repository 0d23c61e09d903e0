/* SPDX-License-Identifier: Apache-2.0 */
/*
 * beanstalkd, over its protocol, pipelined. It knows no results: the worker puts them into a tube
 * of the submitter, who takes them with many reserves in flight on a second connection, since a
 * connection that waits in a reserve answers nothing else.
 */
#include <err.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <unistd.h>
#include <sys/epoll.h>
#include "bench/load.h"
#include "bench/wire.h"

enum { RESERVES = 64 };

struct client {
    struct wire put;  /* tasks */
    struct wire take; /* results */
    const struct load_options *o;
    int poller;       /* over both */
    int reserves;     /* in flight */
    uint64_t deletes; /* not answered */
    bool closing;     /* what comes now is not a result */
    bool taker;       /* one connection of a load takes the results of all */
};

static void watch(int poller, int fd)
{
    struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e) != 0)
        err(1, "epoll_ctl");
}

static void *client_open(const struct load_options *o)
{
    static bool taken;
    struct client *c = calloc(1, sizeof *c);
    if (!c)
        err(1, "calloc");
    c->o = o;
    c->taker = !o->no_result && !taken;
    taken = true;
    c->poller = epoll_create1(EPOLL_CLOEXEC);
    wire_open(&c->put, o->address);
    if (o->queues == 1)
        wire_printf(&c->put, "use %s\r\n", o->queue);
    watch(c->poller, c->put.fd);
    if (c->taker) {
        wire_open(&c->take, o->address);
        watch(c->poller, c->take.fd);
        wire_printf(&c->take, "watch %s-results\r\nignore default\r\n", o->queue);
        for (int i = 0; i < RESERVES; i++)
            wire_printf(&c->take, "reserve\r\n");
        c->reserves = RESERVES;
    }
    return c;
}

static bool client_submit(void *handle, const struct load_task *task)
{
    struct client *c = handle;
    if (c->o->queues > 1)
        wire_printf(&c->put, "use %s\r\n", task->queue);
    wire_printf(&c->put, "put 1000 %llu 120 %zu\r\n",
        (unsigned long long)((c->o->delay_ms + 999) / 1000), task->size);
    wire_put(&c->put, task->payload, task->size);
    wire_put(&c->put, "\r\n", 2);
    return true;
}

/*
 * The next answer; false: not all there. RESERVED <id> <bytes>, and the bytes: *body is set. Any
 * other: it is NULL, and *id is 1 if the answer was DELETED.
 */
static bool take_reserved(struct wire *w, unsigned long long *id, char **body, size_t *size)
{
    size_t start = w->in_at, line_size;
    char *line = wire_line(w, &line_size);
    *body = NULL;
    if (!line)
        return false;
    if (sscanf(line, "RESERVED %llu %zu", id, size) != 2) {
        if (strncmp(line, "WATCHING", 8) && strncmp(line, "USING", 5) &&
            strncmp(line, "DELETED", 7) && strncmp(line, "INSERTED", 8))
            errx(1, "beanstalkd: %s", line);
        *id = strncmp(line, "DELETED", 7) == 0;
        return true;
    }
    *body = wire_take(w, *size + 2);
    if (*body)
        return true;
    line[line_size] = '\r'; /* the line is read again when the rest is there */
    w->in_at = start;
    return false;
}

static void take_results(struct client *c)
{
    unsigned long long id;
    char *body;
    size_t size;
    while (take_reserved(&c->take, &id, &body, &size)) {
        if (!body) {
            c->deletes -= id;
            continue;
        }
        wire_printf(&c->take, "delete %llu\r\n%s", id, c->closing ? "" : "reserve\r\n");
        c->reserves -= c->closing;
        c->deletes++;
        if (!c->closing)
            load_finished(body, size);
    }
}

static void client_process(void *handle)
{
    struct client *c = handle;
    size_t size;
    wire_flush(&c->put);
    while (wire_fill(&c->put))
        for (char *line; (line = wire_line(&c->put, &size));) {
            if (strncmp(line, "INSERTED", 8) == 0)
                load_accepted(1);
            else if (strncmp(line, "USING", 5))
                errx(1, "beanstalkd: %s", line);
        }
    if (!c->taker)
        return;
    wire_flush(&c->take);
    while (wire_fill(&c->take))
        take_results(c);
    wire_flush(&c->take);
}

static int client_fd(void *handle)
{
    return ((struct client *)handle)->poller;
}

/* The inner epoll says only what can be read: a full socket is tried again with the next result. */
static bool client_writing(void *handle)
{
    struct client *c = handle;
    struct epoll_event e = {.events = EPOLLIN, .data.fd = c->put.fd};
    if (wire_pending(&c->put))
        e.events |= EPOLLOUT;
    epoll_ctl(c->poller, EPOLL_CTL_MOD, c->put.fd, &e);
    return false;
}

/*
 * Deletes wait behind the reserves in flight: dummy results use those up, so that the last results
 * are deleted, and not given to the next client.
 */
static void use_up_reserves(struct client *c)
{
    c->closing = true;
    wire_printf(&c->put, "use %s-results\r\n", c->o->queue);
    for (int i = 0; i < RESERVES; i++)
        wire_printf(&c->put, "put 0 0 120 %d\r\n........\r\n", LOAD_RESULT);
    while (wire_pending(&c->put))
        wire_flush(&c->put);
    while (c->reserves || c->deletes) {
        wire_block(&c->take);
        take_results(c);
        wire_flush(&c->take);
    }
}

static void client_close(void *handle)
{
    struct client *c = handle;
    if (c->taker) {
        use_up_reserves(c);
        wire_close(&c->take);
    }
    wire_close(&c->put);
    close(c->poller);
    free(c);
}

static void work(const struct load_options *o)
{
    struct wire w;
    unsigned long long id;
    char *body, result[LOAD_RESULT];
    size_t size;
    wire_open(&w, o->address);
    for (unsigned i = 0; i < o->queues; i++)
        wire_printf(&w, "watch %s\r\n", load_queue(o, i));
    wire_printf(&w, "ignore default\r\nuse %s-results\r\nreserve\r\n", o->queue);
    for (;;) {
        wire_block(&w);
        while (take_reserved(&w, &id, &body, &size)) {
            if (!body)
                continue;
            load_work(body, size, result);
            wire_printf(&w, "put 0 0 120 %d\r\n", LOAD_RESULT);
            wire_put(&w, result, sizeof result);
            wire_printf(&w, "\r\ndelete %llu\r\nreserve\r\n", id);
        }
    }
}

int main(int argc, char **argv)
{
    static const struct driver driver = {.name = "beanstalkd",
        .open = client_open,
        .submit = client_submit,
        .process = client_process,
        .fd = client_fd,
        .writing = client_writing,
        .close = client_close,
        .work = work};
    return load_main(argc, argv, &driver);
}
