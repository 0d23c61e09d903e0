/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A plug-in: FNV-1a of the payload, and a count of its words.
 *
 *     pushrod-worker --plugin build/examples/plugin/hash.so
 */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <pushrod/worker.h>

static int fnv(struct pushrod_task *task, void *arg)
{
    (void)arg;
    size_t size;
    const unsigned char *data = pushrod_task_payload(task, &size);
    uint64_t hash = UINT64_C(14695981039346656037);
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ data[i]) * UINT64_C(1099511628211);
    char text[17];
    int length = snprintf(text, sizeof text, "%016" PRIx64, hash);
    return pushrod_task_result(task, text, (size_t)length);
}

static int words(struct pushrod_task *task, void *arg)
{
    (void)arg;
    size_t size, count = 0;
    const unsigned char *data = pushrod_task_payload(task, &size);
    for (size_t i = 0; i < size; i++)
        count += !isspace(data[i]) && (i == 0 || isspace(data[i - 1]));
    if (count == 0)
        return pushrod_task_fail(task, "there is not one word in it");
    char text[32];
    int length = snprintf(text, sizeof text, "%zu", count);
    return pushrod_task_result(task, text, (size_t)length);
}

static int nothing(struct pushrod_task *task, void *arg)
{
    (void)task;
    (void)arg;
    return 0;
}

static int open_plugin(struct pushrod_worker *worker)
{
    int error = pushrod_worker_handle(worker, "hash.fnv", fnv, NULL);
    if (!error)
        error = pushrod_worker_handle(worker, "words", words, NULL);
    return error ? error : pushrod_worker_handle(worker, "noop", nothing, NULL);
}

const struct pushrod_plugin pushrod_plugin = {
    .abi = PUSHROD_PLUGIN_ABI,
    .flags = PUSHROD_PLUGIN_THREAD_SAFE,
    .name = "hash",
    .open = open_plugin,
};
