/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gearmand, over its binary protocol: SUBMIT_JOB pipelined, as no client library does it
 * (libgearman waits for JOB_CREATED before the next task), and a worker that sends WORK_COMPLETE
 * and the next GRAB_JOB in one write.
 */
#include <arpa/inet.h>
#include <err.h>
#include <stdlib.h>
#include <string.h>
#include "bench/load.h"
#include "bench/wire.h"

enum {
    CAN_DO = 1,
    PRE_SLEEP = 4,
    NOOP = 6,
    SUBMIT_JOB = 7,
    JOB_CREATED = 8,
    GRAB_JOB = 9,
    NO_JOB = 10,
    JOB_ASSIGN = 11,
    WORK_COMPLETE = 13,
    SUBMIT_JOB_BG = 18,
    ERROR = 19,
    HEAD = 12
};

static void put_head(struct wire *w, uint32_t type, size_t size)
{
    uint32_t head[3] = {0, htonl(type), htonl((uint32_t)size)};
    memcpy(head, "\0REQ", 4);
    wire_put(w, head, sizeof head);
}

/* The next packet; 0: not all there. */
static uint32_t take_packet(struct wire *w, char **data, size_t *size)
{
    uint32_t head[3];
    if (wire_left(w) < HEAD)
        return 0;
    memcpy(head, wire_peek(w), HEAD);
    *size = ntohl(head[2]);
    if (wire_left(w) < HEAD + *size)
        return 0;
    *data = wire_take(w, HEAD + *size) + HEAD;
    if (ntohl(head[1]) == ERROR)
        errx(1, "gearmand: %.*s", (int)*size, *data);
    return ntohl(head[1]);
}

struct client {
    struct wire wire;
    const struct load_options *o;
};

static void *client_open(const struct load_options *o)
{
    struct client *c = calloc(1, sizeof *c);
    if (!c)
        err(1, "calloc");
    c->o = o;
    wire_open(&c->wire, o->address);
    return c;
}

static bool client_submit(void *handle, const struct load_task *task)
{
    struct client *c = handle;
    size_t name = strlen(task->queue) + 1;
    put_head(&c->wire, task->untold ? SUBMIT_JOB_BG : SUBMIT_JOB, name + 1 + task->size);
    wire_put(&c->wire, task->queue, name);
    wire_put(&c->wire, "", 1); /* no unique id */
    wire_put(&c->wire, task->payload, task->size);
    return true;
}

static void client_process(void *handle)
{
    struct client *c = handle;
    char *data;
    size_t size;
    wire_flush(&c->wire);
    while (wire_fill(&c->wire))
        for (uint32_t type; (type = take_packet(&c->wire, &data, &size));) {
            if (type == JOB_CREATED)
                load_accepted(1);
            else if (type == WORK_COMPLETE) {
                size_t handle_size = strnlen(data, size) + 1;
                load_finished(data + handle_size, size - handle_size);
            }
        }
}

static int client_fd(void *handle)
{
    return ((struct client *)handle)->wire.fd;
}

static bool client_writing(void *handle)
{
    return wire_pending(&((struct client *)handle)->wire);
}

static void client_close(void *handle)
{
    wire_close(&((struct client *)handle)->wire);
    free(handle);
}

static void run_job(struct wire *w, const char *data, size_t size)
{
    char result[LOAD_RESULT];
    size_t handle_size = strnlen(data, size) + 1;
    const char *name = data + handle_size;
    size_t head = handle_size + strnlen(name, size - handle_size) + 1;
    load_work(data + head, size - head, result);
    put_head(w, WORK_COMPLETE, handle_size + LOAD_RESULT);
    wire_put(w, data, handle_size);
    wire_put(w, result, LOAD_RESULT);
    put_head(w, GRAB_JOB, 0);
}

static void work(const struct load_options *o)
{
    struct wire w;
    char *data;
    size_t size;
    wire_open(&w, o->address);
    for (unsigned i = 0; i < o->queues; i++) {
        const char *name = load_queue(o, i);
        put_head(&w, CAN_DO, strlen(name));
        wire_put(&w, name, strlen(name));
    }
    put_head(&w, GRAB_JOB, 0);
    for (;;) {
        wire_block(&w);
        for (uint32_t type; (type = take_packet(&w, &data, &size));) {
            if (type == JOB_ASSIGN)
                run_job(&w, data, size);
            else
                put_head(&w, type == NO_JOB ? PRE_SLEEP : GRAB_JOB, 0);
        }
    }
}

int main(int argc, char **argv)
{
    static const struct driver driver = {.name = "gearmand",
        .open = client_open,
        .submit = client_submit,
        .process = client_process,
        .fd = client_fd,
        .writing = client_writing,
        .close = client_close,
        .work = work};
    return load_main(argc, argv, &driver);
}
