/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pushrod inside the program that submits: <pushrod/server.h>, with --workers processes of
 * on_task(). --variant: the durability (memory, async, sync; the store is in the current
 * directory).
 */
#include <err.h>
#include <poll.h>
#include <pushrod/server.h>
#include <pushrod/worker.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "bench/load.h"

#define WORKERS_WAIT_NS UINT64_C(30000000000)

struct client {
    struct pushrod_server *server;
    const struct load_options *o;
    struct pushrod_options options;
    unsigned joined;
};

static int run_task(struct pushrod_task *task, void *arg)
{
    char result[LOAD_RESULT];
    size_t size;
    const void *payload = pushrod_task_payload(task, &size);
    (void)arg;
    load_work(payload, size, result);
    return pushrod_task_result(task, result, sizeof result);
}

static void finished(struct pushrod_server *s, const struct pushrod_finish *finish, void *arg)
{
    (void)s;
    (void)arg;
    if (finish->status != PUSHROD_DONE)
        errx(1, "pushrod: task %llu: %s", (unsigned long long)finish->id, finish->error_text);
    load_finished(finish->result, finish->result_size);
}

static void joined(struct pushrod_server *s, const struct pushrod_worker_note *note, void *arg)
{
    struct client *c = arg;
    (void)s;
    (void)note;
    c->joined++;
}

static void set(struct client *c, const char *name, const char *value)
{
    if (pushrod_server_set(c->server, name, value) != 0)
        errx(1, "pushrod: %s", pushrod_server_error(c->server));
}

/* DURABILITY, or DURABILITY-tcp: without Unix sockets. */
static void set_variant(struct client *c, const char *variant)
{
    char durability[16];
    snprintf(durability, sizeof durability, "%.*s", (int)strcspn(variant, "-"), variant);
    set(c, "durability", durability);
    if (strcmp(durability, "memory") != 0)
        set(c, "data", "store");
    if (strchr(variant, '-'))
        set(c, "unix-sockets", "no");
}

static void step(struct client *c)
{
    if (pushrod_server_step(c->server) < 0)
        errx(1, "pushrod: %s", pushrod_server_error(c->server));
}

static void *client_open(const struct load_options *o)
{
    struct client *c = calloc(1, sizeof *c);
    char workers[16];
    if (!c || !(c->server = pushrod_server_new()))
        err(1, "pushrod_server_new");
    c->o = o;
    snprintf(workers, sizeof workers, "%u", o->workers);
    set(c, "task-workers", workers);
    set_variant(c, *o->variant ? o->variant : "memory");
    pushrod_server_on(c->server, &(struct pushrod_server_events){.worker_join = joined}, c);
    if (pushrod_server_on_task(c->server, o->queue, run_task, NULL) != 0 ||
        pushrod_server_on_task(c->server, "bench.*", run_task, NULL) != 0 ||
        pushrod_server_start(c->server) != 0)
        errx(1, "pushrod: %s", pushrod_server_error(c->server));
    for (uint64_t end = now_ns() + WORKERS_WAIT_NS; c->joined < o->workers;) {
        if (now_ns() > end)
            errx(1, "pushrod: %u of %u workers joined in 30 s", c->joined, o->workers);
        struct pollfd p = {.fd = pushrod_server_fd(c->server), .events = POLLIN};
        poll(&p, 1, 100);
        step(c);
    }
    return c;
}

static bool client_submit(void *handle, const struct load_task *task)
{
    struct client *c = handle;
    int64_t id = pushrod_server_task(
        c->server, task->queue, task->payload, task->size, NULL, finished, NULL);
    if (id < 0 && id != PUSHROD_E_OVERLOADED)
        errx(1, "pushrod: %s", pushrod_server_error(c->server));
    if (id > 0)
        load_accepted(1);
    return id > 0;
}

static void client_process(void *handle)
{
    step(handle);
}

static int client_fd(void *handle)
{
    return pushrod_server_fd(((struct client *)handle)->server);
}

static void client_close(void *handle)
{
    struct client *c = handle;
    pushrod_server_free(c->server);
    free(c);
}

int main(int argc, char **argv)
{
    static const struct driver driver = {.name = "pushrod-embedded",
        .open = client_open,
        .submit = client_submit,
        .process = client_process,
        .fd = client_fd,
        .close = client_close};
    return load_main(argc, argv, &driver);
}
