/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gearmand through libgearman, as its users have it: task sets (gearman_client_add_task(), then
 * gearman_client_run_tasks(), which keeps all of them in flight), and workers of
 * gearman_worker_work(). peer_gearmand.c speaks the protocol itself; both are shown.
 */
#include <err.h>
#include <libgearman/gearman.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "bench/load.h"

struct client {
    gearman_client_st *client;
    const struct load_options *o;
    unsigned gathered; /* tasks that wait for run_tasks() */
    int fd;            /* never readable: nothing comes between two sets */
};

static void split_address(const struct load_options *o, char host[256], int *port)
{
    if (sscanf(o->address, "%255[^:]:%d", host, port) != 2)
        errx(2, "address must be HOST:PORT: %s", o->address);
}

static gearman_return_t created(gearman_task_st *task)
{
    (void)task;
    load_accepted(1);
    return GEARMAN_SUCCESS;
}

static gearman_return_t completed(gearman_task_st *task)
{
    load_finished(gearman_task_data(task), gearman_task_data_size(task));
    free(gearman_task_context(task)); /* the workload: the library keeps only a pointer to it */
    return GEARMAN_SUCCESS;
}

static gearman_return_t failed(gearman_task_st *task)
{
    (void)task;
    errx(1, "gearmand: a task failed");
}

static void *client_open(const struct load_options *o)
{
    struct client *c = calloc(1, sizeof *c);
    char host[256];
    int port;
    if (!c || !(c->client = gearman_client_create(NULL)))
        err(1, "gearman_client_create");
    c->o = o;
    split_address(o, host, &port);
    gearman_client_add_server(c->client, host, (in_port_t)port);
    c->fd = eventfd(0, EFD_CLOEXEC);
    gearman_client_add_options(c->client, GEARMAN_CLIENT_FREE_TASKS);
    gearman_client_set_created_fn(c->client, created);
    gearman_client_set_complete_fn(c->client, completed);
    gearman_client_set_fail_fn(c->client, failed);
    return c;
}

static bool client_submit(void *handle, const struct load_task *task)
{
    struct client *c = handle;
    gearman_return_t error;
    char *copy = malloc(task->size);
    if (!copy)
        err(1, "malloc");
    memcpy(copy, task->payload, task->size);
    if (task->untold) /* such a task ends when it was accepted */
        gearman_client_add_task_background(
            c->client, NULL, copy, c->o->queue, NULL, copy, task->size, &error);
    else
        gearman_client_add_task(c->client, NULL, copy, c->o->queue, NULL, copy, task->size, &error);
    if (error != GEARMAN_SUCCESS)
        errx(1, "gearmand: %s", gearman_client_error(c->client));
    c->gathered++;
    return true;
}

/* Unlike the other drivers it waits, until the whole set is back: so the library works best. */
static void client_process(void *handle)
{
    struct client *c = handle;
    if (!c->gathered)
        return;
    c->gathered = 0;
    if (gearman_client_run_tasks(c->client) != GEARMAN_SUCCESS)
        errx(1, "gearmand: %s", gearman_client_error(c->client));
}

static int client_fd(void *handle)
{
    return ((struct client *)handle)->fd;
}

static void client_close(void *handle)
{
    gearman_client_free(((struct client *)handle)->client);
    close(((struct client *)handle)->fd);
    free(handle);
}

static void *run_job(
    gearman_job_st *job, void *context, size_t *result_size, gearman_return_t *error)
{
    char *result = malloc(LOAD_RESULT);
    (void)context;
    if (!result)
        err(1, "malloc");
    load_work(gearman_job_workload(job), gearman_job_workload_size(job), result);
    *result_size = LOAD_RESULT;
    *error = GEARMAN_SUCCESS;
    return result; /* the library frees it */
}

static void work(const struct load_options *o)
{
    gearman_worker_st *worker = gearman_worker_create(NULL);
    char host[256];
    int port;
    if (!worker)
        err(1, "gearman_worker_create");
    split_address(o, host, &port);
    gearman_worker_add_server(worker, host, (in_port_t)port);
    if (gearman_worker_add_function(worker, o->queue, 0, run_job, NULL) != GEARMAN_SUCCESS)
        errx(1, "gearmand: %s", gearman_worker_error(worker));
    while (gearman_worker_work(worker) == GEARMAN_SUCCESS)
        ;
    errx(1, "gearmand: %s", gearman_worker_error(worker));
}

int main(int argc, char **argv)
{
    static const struct driver driver = {.name = "libgearman",
        .open = client_open,
        .submit = client_submit,
        .process = client_process,
        .fd = client_fd,
        .close = client_close,
        .work = work};
    return load_main(argc, argv, &driver);
}
