/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pushrod over its client protocol, pipelined, as any program would use it: <pushrod/client.h>. The
 * workers are pushrod-worker with bench/noop.c, or, with --variant=plain, the worker library here.
 */
#include <err.h>
#include <pushrod/client.h>
#include <pushrod/worker.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "bench/load.h"
#include "bench/wire.h"
#include "proto/frame.h"
#include "proto/messages.h"

static void accepted(struct pushrod_client *c, uint64_t id, int error, const char *text, void *arg)
{
    (void)c;
    (void)arg;
    if (error)
        errx(1, "pushrod: task %llu was refused: %s", (unsigned long long)id, text);
    load_accepted(1);
}

static void finished(struct pushrod_client *c, const struct pushrod_finish *finish, void *arg)
{
    (void)c;
    (void)arg;
    if (finish->status != PUSHROD_DONE)
        errx(1, "pushrod: task %llu: %s", (unsigned long long)finish->id, finish->error_text);
    load_finished(finish->result, finish->result_size);
}

struct client {
    struct pushrod_client *client; /* NULL: only `idle`, a greeted connection */
    struct wire idle;
    struct pushrod_submission task;
    struct pushrod_options options;
};

static void *client_open(const struct load_options *o)
{
    struct client *c = calloc(1, sizeof *c);
    if (!c || !(c->client = pushrod_client_new()))
        err(1, "pushrod_client_new");
    pushrod_client_set(c->client, "server", o->address);
    pushrod_client_set(c->client, "connect-wait", "10000");
    pushrod_client_on(
        c->client, &(struct pushrod_client_events){.accepted = accepted, .finish = finished});
    if (pushrod_client_connect(c->client) != 0)
        errx(1, "pushrod: %s", pushrod_client_error_text(c->client));
    c->options.delay_ms = o->delay_ms;
    c->options.keep_ms = o->keep_ms;
    c->task.options = o->delay_ms || o->keep_ms ? &c->options : NULL;
    return c;
}

/* 10,000 clients of the library would take four descriptors each: here it is the server that
 * counts. */
static void *idle_open(const struct load_options *o)
{
    struct client *c = calloc(1, sizeof *c);
    struct buf hello = BUF_EMPTY;
    if (!c)
        err(1, "calloc");
    wire_open(&c->idle, o->address);
    size_t begin = frame_begin(&hello);
    msg_hello_encode(&hello, &(struct msg_hello){.version = PROTOCOL_VERSION});
    frame_end(&hello, begin);
    wire_put(&c->idle, hello.data, hello.size);
    wire_block(&c->idle);
    buf_free(&hello);
    return c;
}

static bool client_submit(void *handle, const struct load_task *task)
{
    struct client *c = handle;
    c->task.queue = task->queue;
    c->task.data = task->payload;
    c->task.size = task->size;
    c->task.follow = task->untold ? PUSHROD_FOLLOW_NONE : PUSHROD_FOLLOW_FINISH;
    int error = pushrod_client_submit_async(c->client, &c->task);
    if (error && error != -PUSHROD_E_OVERLOADED)
        errx(1, "pushrod: %s", pushrod_client_error_text(c->client));
    return error == 0; /* OVERLOADED: 64 MiB wait to be sent, and process() is next */
}

static void client_process(void *handle)
{
    struct client *c = handle;
    if (!c->client) {
        wire_take(&c->idle, wire_left(&c->idle));
        wire_fill(&c->idle);
        return;
    }
    if (pushrod_client_process(c->client, 0) != 0)
        errx(1, "pushrod: %s", pushrod_client_error_text(c->client));
}

static int client_fd(void *handle)
{
    const struct client *c = handle;
    return c->client ? pushrod_client_fd(c->client) : c->idle.fd;
}

static void client_close(void *handle)
{
    struct client *c = handle;
    pushrod_client_free(c->client);
    if (!c->client)
        wire_close(&c->idle);
    free(handle);
}

static int run_task(struct pushrod_task *task, void *arg)
{
    char result[LOAD_RESULT];
    size_t size;
    const void *payload = pushrod_task_payload(task, &size);
    (void)arg;
    load_work(payload, size, result);
    return pushrod_task_result(task, result, sizeof result);
}

static void work(const struct load_options *o)
{
    struct pushrod_worker *worker = pushrod_worker_new();
    char slots[16];
    if (!worker)
        err(1, "pushrod_worker_new");
    snprintf(slots, sizeof slots, "%u", o->workers);
    if (pushrod_worker_set(worker, "join", o->address) != 0 ||
        pushrod_worker_set(worker, "slots", slots) != 0 ||
        pushrod_worker_handle(worker, o->queue, run_task, NULL) != 0 ||
        pushrod_worker_run(worker) != 0)
        errx(1, "pushrod: %s", pushrod_worker_error(worker));
    pushrod_worker_free(worker);
}

int main(int argc, char **argv)
{
    static const struct driver driver = {.name = "pushrod",
        .open = client_open,
        .open_idle = idle_open,
        .submit = client_submit,
        .process = client_process,
        .fd = client_fd,
        .close = client_close,
        .work = work};
    return load_main(argc, argv, &driver);
}
