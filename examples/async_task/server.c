/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The classic, split in two: this is the server; worker.c runs the tasks, on this machine or any
 * other. The server listens for workers on port 5571 (and those that it tells them).
 *
 *     build/examples/async_task/server                 here
 *     build/examples/async_task/worker HERE:5571       anywhere, as often as you like
 *     printf 'hello' | nc 127.0.0.1 9501
 *
 * For workers on other machines: server ADDRESS 0.0.0.0
 */
#include <inttypes.h>
#include <pushrod/server.h>
#include <stdio.h>

static void on_finish(struct pushrod_server *server, const struct pushrod_finish *finish, void *arg)
{
    (void)server, (void)arg;
    if (finish->status == PUSHROD_DONE)
        printf("Async task %" PRIu64 " result : %.*s\n", finish->id, (int)finish->result_size,
            (const char *)finish->result);
    else
        printf("Async task %" PRIu64 " failed : %s\n", finish->id, finish->error_text);
}

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

static void on_worker_join(
    struct pushrod_server *server, const struct pushrod_worker_note *note, void *arg)
{
    (void)server, (void)arg;
    printf("Worker joined : %s\n", note->name);
}

/* Its tasks go to others by themselves. */
static void on_worker_lost(
    struct pushrod_server *server, const struct pushrod_worker_note *note, void *arg)
{
    (void)server, (void)arg;
    printf("Worker lost : %s, with %zu tasks\n", note->name, note->task_count);
}

int main(int argc, char **argv)
{
    const char *address = argc > 1 ? argv[1] : "127.0.0.1:9501";
    const struct pushrod_server_events events = {
        .receive = on_receive,
        .worker_join = on_worker_join,
        .worker_lost = on_worker_lost,
    };
    setvbuf(stdout, NULL, _IOLBF, 0);

    struct pushrod_server *server = pushrod_server_new();
    if (!server)
        return 1;
    int error = 0;
    if (argc > 2)
        error = pushrod_server_set(server, "worker-listen", argv[2]);
    if (argc > 3 && !error)
        error = pushrod_server_set(server, "join-port", argv[3]);
    if (argc > 4 && !error)
        error = pushrod_server_set(server, "answers-port", argv[4]);
    pushrod_server_on(server, &events, NULL);
    pushrod_server_listen(server, address, NULL);
    pushrod_server_catch_signals(server, true);
    if (!error)
        error = pushrod_server_run(server);
    if (error)
        fprintf(stderr, "server: %s\n", pushrod_server_error(server));
    pushrod_server_free(server);
    return error ? 1 : 0;
}
