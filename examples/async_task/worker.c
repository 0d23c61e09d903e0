/* SPDX-License-Identifier: Apache-2.0 */
/* The other half of server.c: runs its tasks, four at a time. One argument: where to join. */
#include <inttypes.h>
#include <pushrod/worker.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    setvbuf(stdout, NULL, _IOLBF, 0);
    struct pushrod_worker *worker = pushrod_worker_new();
    if (!worker)
        return 1;
    int error = pushrod_worker_set(worker, "join", argc > 1 ? argv[1] : "127.0.0.1:5571");
    if (!error)
        error = pushrod_worker_set(worker, "slots", "4");
    if (!error)
        error = pushrod_worker_handle(worker, "work", on_task, NULL);
    pushrod_worker_catch_signals(worker, true);
    if (!error)
        error = pushrod_worker_run(worker);
    if (error)
        fprintf(stderr, "worker: %s\n", pushrod_worker_error(worker));
    pushrod_worker_free(worker);
    return error ? 1 : 0;
}
