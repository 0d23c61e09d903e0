/* SPDX-License-Identifier: Apache-2.0 */
/* Handlers that are C functions, and the task as they see it (include/pushrod/worker.h). */
#include <string.h>

#include "common/clock.h"
#include "proto/codec.h"
#include "worker/run.h"

#define MAX_RETRY_MS UINT64_C(3155760000000) /* 100 years: sums with the clock do not wrap */

static void function_run(struct slot *slot, struct pushrod_task *task)
{
    (void)slot;
    int value = task->handler->function(task, task->handler->arg);
    /* Without an end to wait for, a cancelled function that gave up is cancelled, whatever it says.
     */
    if (value == 0 && !task->failed)
        return;
    if (atomic_load(&task->cancelled))
        attempt_fail(task, PUSHROD_E_TASK_CANCELLED, true, "cancelled");
    else if (clock_mono_ns() >= atomic_load(&task->deadline_ns))
        attempt_fail_late(task, "");
    else if (!task->failed)
        attempt_fail(task, PUSHROD_E_TASK_FAILED, false, "the handler returned %d", value);
}

const struct handler_ops handler_function = {.kind = "function", .run = function_run};

/* --------------------------------------------------------------------- looking */

uint64_t pushrod_task_id(const struct pushrod_task *task)
{
    return task->attempt->id;
}

unsigned pushrod_task_attempt(const struct pushrod_task *task)
{
    return (unsigned)task->attempt->number;
}

const char *pushrod_task_queue(const struct pushrod_task *task)
{
    return (const char *)task->attempt->queue.data; /* the session adds the NUL */
}

const void *pushrod_task_payload(const struct pushrod_task *task, size_t *size)
{
    *size = task->attempt->payload.size;
    return task->attempt->payload.data;
}

/* All headers as name NUL value NUL ..., in `scratch`; made once. */
static bool headers_unpack(struct pushrod_task *task)
{
    if (task->scratch.size)
        return !task->scratch.failed;
    struct dec in = dec_of(task->attempt->headers);
    uint32_t pairs = task->attempt->headers.data ? dec_map(&in) : 0;
    for (uint32_t i = 0; i < 2 * pairs && !dec_failed(&in); i++) {
        struct slice text = dec_text(&in);
        buf_append(&task->scratch, text.data, text.size);
        buf_append(&task->scratch, "", 1);
    }
    return !dec_failed(&in) && !task->scratch.failed;
}

const char *pushrod_task_header(struct pushrod_task *task, const char *name)
{
    if (!headers_unpack(task))
        return NULL;
    const char *at = (const char *)task->scratch.data;
    const char *end = at + task->scratch.size;
    while (at < end) {
        const char *value = at + strlen(at) + 1;
        if (strcmp(at, name) == 0)
            return value;
        at = value + strlen(value) + 1;
    }
    return NULL;
}

uint64_t pushrod_task_remaining_ms(const struct pushrod_task *task)
{
    uint64_t deadline = atomic_load_explicit(&task->deadline_ns, memory_order_relaxed);
    if (deadline == UINT64_MAX)
        return UINT64_MAX;
    uint64_t now = clock_mono_ns();
    return now >= deadline ? 0 : (deadline - now + NS_PER_MS - 1) / NS_PER_MS;
}

bool pushrod_task_cancelled(const struct pushrod_task *task)
{
    if (atomic_load_explicit(&task->cancelled, memory_order_relaxed))
        return true;
    return pushrod_task_remaining_ms(task) == 0;
}

/* --------------------------------------------------------------------- answering */

int pushrod_task_result(struct pushrod_task *task, const void *data, size_t size)
{
    size_t limit = run_settings(task->run)->max_result;
    if (size > limit) {
        attempt_fail(task, PUSHROD_E_RESULT_TOO_BIG, true,
            "the result has %zu bytes, max-result is %zu", size, limit);
        return -PUSHROD_E_RESULT_TOO_BIG;
    }
    buf_clear(&task->result);
    buf_append(&task->result, data, size);
    return task->result.failed ? -PUSHROD_E_NO_MEMORY : 0;
}

int pushrod_task_emit(struct pushrod_task *task, const void *data, size_t size)
{
    return attempt_report(task, REPORT_DATA, 0, 0, data, size);
}

int pushrod_task_progress(
    struct pushrod_task *task, uint64_t done, uint64_t total, const char *text)
{
    /* The wire carries no more; the server would drop the worker for such a message. */
    if (done > INT64_MAX || total > INT64_MAX)
        return -PUSHROD_E_INVALID;
    return attempt_report(task, REPORT_PROGRESS, done, total, text, text ? strlen(text) : 0);
}

int pushrod_task_fail(struct pushrod_task *task, const char *text)
{
    attempt_fail(task, PUSHROD_E_TASK_FAILED, true, "%s", text ? text : "");
    return -PUSHROD_E_TASK_FAILED;
}

int pushrod_task_retry_after(struct pushrod_task *task, uint64_t ms, const char *text)
{
    attempt_fail(task, PUSHROD_E_TASK_FAILED, false, "%s", text ? text : "");
    task->failure.retry_ms = ms < MAX_RETRY_MS ? ms : MAX_RETRY_MS;
    return -PUSHROD_E_TASK_FAILED;
}
