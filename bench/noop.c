/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plug-in of the benchmarks for pushrod-worker: spends the time that the payload asks for
 * (none, mostly) and answers with the task's number, as every other peer's worker does
 * (bench/load.h).
 */
#include <errno.h>
#include <pushrod/worker.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

/* As in bench/load.c: a sleep is 50 us longer by default. */
static void sleep_exactly(void)
{
    static _Thread_local bool told;
    if (!told)
        prctl(PR_SET_TIMERSLACK, 1);
    told = true;
}

static int run_task(struct pushrod_task *task, void *arg)
{
    size_t size;
    const char *payload = pushrod_task_payload(task, &size);
    uint64_t us;
    (void)arg;
    if (size < 16)
        return pushrod_task_fail(task, "the payload of a benchmark has at least 16 bytes");
    memcpy(&us, payload + 8, sizeof us);
    if (us)
        sleep_exactly();
    struct timespec left = {(time_t)(us / 1000000), (long)(us % 1000000) * 1000};
    while (us && nanosleep(&left, &left) != 0 && errno == EINTR)
        ;
    return pushrod_task_result(task, payload, 8);
}

static int open_plugin(struct pushrod_worker *worker)
{
    int error = pushrod_worker_handle(worker, "bench", run_task, NULL);
    return error ? error : pushrod_worker_handle(worker, "bench.*", run_task, NULL);
}

const struct pushrod_plugin pushrod_plugin = {.abi = PUSHROD_PLUGIN_ABI,
    .flags = PUSHROD_PLUGIN_THREAD_SAFE,
    .name = "bench",
    .open = open_plugin};
