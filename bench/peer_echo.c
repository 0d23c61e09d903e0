/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bare libzmq PUSH/PULL echo: what the sockets allow, without a server, a ledger or a promise.
 * The submitter binds a PUSH (its tasks go round robin) and a PULL; workers connect to both.
 * --batch=16 puts up to that many tasks into a message, as fast as they come. Also the round-robin
 * PUSH of the head-of-line figures.
 */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>
#include "bench/load.h"

struct client {
    const struct load_options *o;
    void *context, *push, *pull;
    char *message; /* tasks that wait for their message to be full */
    unsigned gathered;
};

/* The first port carries the tasks, the next one what comes back; --variant=unix: names instead. */
static void endpoint_of(const struct load_options *o, int which, char out[300])
{
    char host[256];
    int port;
    if (sscanf(o->address, "%255[^:]:%d", host, &port) != 2)
        errx(2, "address must be HOST:PORT: %s", o->address);
    if (strcmp(o->variant, "unix") == 0)
        snprintf(out, 300, "ipc://@pushrod-bench-%d", port + which);
    else
        snprintf(out, 300, "tcp://%s:%d", host, port + which);
}

static void *bound_socket(void *context, int type, const char *address)
{
    int zero = 0;
    void *s = zmq_socket(context, type);
    if (!s)
        errx(1, "zmq_socket: %s", zmq_strerror(zmq_errno()));
    zmq_setsockopt(s, ZMQ_SNDHWM, &zero, sizeof zero);
    zmq_setsockopt(s, ZMQ_RCVHWM, &zero, sizeof zero);
    zmq_setsockopt(s, ZMQ_LINGER, &zero, sizeof zero);
    if (zmq_bind(s, address) != 0)
        errx(1, "%s: %s", address, zmq_strerror(zmq_errno()));
    return s;
}

/* Each worker says one empty message when its sockets are up; the load begins when all are there.
 */
static void await_workers(struct client *c)
{
    char hello[1];
    for (unsigned i = 0; i < c->o->workers; i++)
        if (zmq_recv(c->pull, hello, sizeof hello, 0) < 0)
            errx(1, "zmq_recv: %s", zmq_strerror(zmq_errno()));
}

static void *client_open(const struct load_options *o)
{
    char address[300];
    struct client *c = calloc(1, sizeof *c);
    if (!c || !(c->message = malloc((o->batch + 1) * o->size)))
        err(1, "calloc");
    c->o = o;
    c->context = zmq_ctx_new();
    endpoint_of(o, 0, address);
    c->push = bound_socket(c->context, ZMQ_PUSH, address);
    endpoint_of(o, 1, address);
    c->pull = bound_socket(c->context, ZMQ_PULL, address);
    await_workers(c);
    return c;
}

static void send_gathered(struct client *c)
{
    if (c->gathered && zmq_send(c->push, c->message, c->gathered * c->o->size, 0) < 0)
        errx(1, "zmq_send: %s", zmq_strerror(zmq_errno()));
    c->gathered = 0;
}

static bool client_submit(void *handle, const struct load_task *task)
{
    struct client *c = handle;
    load_accepted(1);
    memcpy(c->message + c->gathered * task->size, task->payload, task->size);
    if (++c->gathered >= (c->o->batch ? c->o->batch : 1))
        send_gathered(c);
    return true;
}

static void client_process(void *handle)
{
    struct client *c = handle;
    zmq_msg_t m;
    send_gathered(c);
    zmq_msg_init(&m);
    while (zmq_msg_recv(&m, c->pull, ZMQ_DONTWAIT) >= 0) {
        const char *data = zmq_msg_data(&m);
        for (size_t at = 0; at + LOAD_RESULT <= zmq_msg_size(&m); at += LOAD_RESULT)
            load_finished(data + at, LOAD_RESULT);
    }
    zmq_msg_close(&m);
}

static int client_fd(void *handle)
{
    struct client *c = handle;
    int fd;
    size_t size = sizeof fd;
    zmq_getsockopt(c->pull, ZMQ_FD, &fd, &size);
    return fd;
}

static void client_close(void *handle)
{
    struct client *c = handle;
    zmq_close(c->push);
    zmq_close(c->pull);
    zmq_ctx_term(c->context);
    free(c->message);
    free(c);
}

static void work(const struct load_options *o)
{
    char address[300];
    int zero = 0;
    void *context = zmq_ctx_new();
    void *pull = zmq_socket(context, ZMQ_PULL), *push = zmq_socket(context, ZMQ_PUSH);
    zmq_setsockopt(pull, ZMQ_RCVHWM, &zero, sizeof zero);
    zmq_setsockopt(push, ZMQ_SNDHWM, &zero, sizeof zero);
    endpoint_of(o, 1, address);
    zmq_connect(push, address);
    endpoint_of(o, 0, address);
    zmq_connect(pull, address);
    zmq_send(push, "", 0, 0);
    zmq_msg_t m;
    zmq_msg_init(&m);
    while (zmq_msg_recv(&m, pull, 0) >= 0) {
        size_t count = zmq_msg_size(&m) / o->size;
        zmq_msg_t answer;
        zmq_msg_init_size(&answer, count * LOAD_RESULT);
        for (size_t i = 0; i < count; i++)
            load_work((char *)zmq_msg_data(&m) + i * o->size, o->size,
                (char *)zmq_msg_data(&answer) + i * LOAD_RESULT);
        zmq_msg_send(&answer, push, 0);
    }
}

int main(int argc, char **argv)
{
    static const struct driver driver = {.name = "echo",
        .open = client_open,
        .submit = client_submit,
        .process = client_process,
        .fd = client_fd,
        .close = client_close,
        .work = work};
    return load_main(argc, argv, &driver);
}
