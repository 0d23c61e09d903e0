/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The classic, in one file: a TCP server that answers at once and has the work done by task
 * processes. Receive, task and finish stand together.
 *
 *     build/examples/async_task/async_task
 *     printf 'hello' | nc 127.0.0.1 9501
 */
#include <inttypes.h>
#include <pushrod/server.h>
#include <pushrod/worker.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The result of a task is here: on the server's thread again. */
static void on_finish(struct pushrod_server *server, const struct pushrod_finish *finish, void *arg)
{
    (void)server, (void)arg;
    if (finish->status == PUSHROD_DONE)
        printf("Async task %" PRIu64 " result : %.*s\n", finish->id, (int)finish->result_size,
            (const char *)finish->result);
    else
        printf("Async task %" PRIu64 " failed : %s\n", finish->id, finish->error_text);
}

/* Bytes from a client: hand them to a task, answer, and go on. */
static void on_receive(
    struct pushrod_server *server, uint64_t conn, const void *data, size_t size, void *arg)
{
    (void)arg;
    int64_t id = pushrod_server_task(server, "work", data, size, NULL, on_finish, NULL);
    if (id > 0)
        printf("Dispatch async task: id = %" PRId64 "\n", id);
    else
        printf("No task: %s\n", pushrod_server_error(server));
    pushrod_server_send(server, conn, "Server: ", 8);
    pushrod_server_send(server, conn, data, size);
}

/* In one of the task processes; it may take as long as it likes. */
static int on_task(struct pushrod_task *task, void *arg)
{
    static const char suffix[] = " ->finished";
    size_t size;
    const char *data = pushrod_task_payload(task, &size);
    (void)arg;
    printf("Receive new task, id : %" PRIu64 "\n", pushrod_task_id(task));
    char *result = malloc(size + sizeof suffix);
    if (!result)
        return pushrod_task_retry_after(task, 1000, "out of memory");
    memcpy(result, data, size);
    memcpy(result + size, suffix, sizeof suffix);
    int error = pushrod_task_result(task, result, size + sizeof suffix - 1);
    free(result);
    return error;
}

int main(int argc, char **argv)
{
    const char *address = argc > 1 ? argv[1] : "127.0.0.1:9501";
    const struct pushrod_server_events events = {.receive = on_receive};
    setvbuf(stdout, NULL, _IOLBF, 0);

    struct pushrod_server *server = pushrod_server_new();
    if (!server)
        return 1;
    pushrod_server_set(server, "task-workers", "4");
    pushrod_server_on(server, &events, NULL);
    pushrod_server_on_task(server, "work", on_task, NULL);
    pushrod_server_listen(server, address, NULL);
    pushrod_server_catch_signals(server, true);
    int error = pushrod_server_run(server);
    if (error)
        fprintf(stderr, "async_task: %s\n", pushrod_server_error(server));
    pushrod_server_free(server);
    return error ? 1 : 0;
}
