/* SPDX-License-Identifier: Apache-2.0 */
/*
 * core_bench: what the core alone costs for each task: submitted, handed over, done, told. Memory
 * queues, CONN_SELF as the follower, 64-byte payloads, 8-byte results, 4 workers with one slot.
 *
 *   core_bench [TASKS [BATCH]]
 *
 * Prints ns for each task, and the bytes that a waiting task takes beside its payload.
 */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "common/clock.h"
#include "server/core/core.h"

#define WORKERS   4
#define BATCH_MAX 4096u

static struct core *core;
static struct now now = {1, 1};
static uint64_t sessions[WORKERS + 1], worker_ids[WORKERS], sequences[WORKERS];
static struct answer answers[WORKERS][BATCH_MAX * 4];
static size_t answer_counts[WORKERS];
static size_t finished;

static void begin(void)
{
    now.mono_ns += 1000000;
    now.wall_ms++;
    core_begin(core, now);
}

/* Workers answer what they got in the next tick; heartbeats are not needed, they never rest. */
static void end(void)
{
    const struct actions *a = core_end(core);
    for (size_t i = 0; i < a->lane_count; i++) {
        const struct lane_action *l = &a->lane[i];
        if (l->kind != LANE_TASK)
            continue;
        size_t n = (size_t)(l->worker - worker_ids[0]);
        answers[n][answer_counts[n]++] = (struct answer){.kind = MSG_TASK_DONE,
            .sequence = ++sequences[n],
            .id = l->id,
            .lease = l->lease,
            .run_ns = 300,
            .data = slice_of("12345678", 8)};
    }
    for (size_t i = 0; i < a->conn_count; i++)
        finished += a->conn[i].kind == MSG_FINISHED;
}

static void answer_all(void)
{
    for (size_t n = 0; n < WORKERS; n++) {
        size_t count = answer_counts[n];
        answer_counts[n] = 0;
        core_answers(core, worker_ids[n], sessions[n], answers[n], count);
    }
}

static void join_all(void)
{
    static const struct slice queue = {(const uint8_t *)"bench", 5};
    begin();
    for (size_t n = 0; n < WORKERS; n++) {
        struct join j = {.peer = n,
            .instance = {(uint8_t)(n + 1)},
            .name = slice_str("w"),
            .host = slice_str("h"),
            .slots = 1,
            .max_prefetch = 1000,
            .queues = &queue,
            .queue_count = 1};
        core_join(core, &j);
    }
    const struct actions *a = core_end(core);
    for (size_t n = 0; n < WORKERS; n++) {
        worker_ids[n] = a->join[n].worker;
        sessions[n] = a->join[n].session;
    }
    begin();
    for (size_t n = 0; n < WORKERS; n++) {
        struct answer ready = {.kind = MSG_READY, .sequence = ++sequences[n]};
        core_answers(core, worker_ids[n], sessions[n], &ready, 1);
    }
    end();
}

static void run(size_t tasks, size_t batch)
{
    static struct submit submits[BATCH_MAX];
    static const char payload[64];
    for (size_t i = 0; i < batch; i++)
        submits[i] = (struct submit){.request = i,
            .queue = slice_str("bench"),
            .payload = slice_of(payload, sizeof payload),
            .follow = FOLLOW_FINISH};
    size_t target = finished + tasks;
    for (size_t left = tasks; finished < target;) {
        size_t count = left < batch ? left : batch;
        begin();
        core_submit(core, CONN_SELF, submits, count, NULL);
        left -= count;
        answer_all();
        end();
    }
}

static void memory(size_t count)
{
    static const char payload[64];
    struct submit s = {.queue = slice_str("other"), .payload = slice_of(payload, 64)};
    size_t before = mallinfo2().uordblks + mallinfo2().hblkhd;
    for (size_t i = 0; i < count; i++) {
        if (i % 1000 == 0)
            begin();
        core_submit(core, CONN_SELF, &s, 1, NULL);
        if (i % 1000 == 999)
            core_end(core);
    }
    size_t after = mallinfo2().uordblks + mallinfo2().hblkhd;
    printf("sizeof(struct task) %zu; a waiting task takes %.0f bytes beside its payload\n",
        sizeof(struct task), (double)(after - before) / (double)count - 64);
}

int main(int argc, char **argv)
{
    size_t tasks = argc > 1 ? strtoul(argv[1], NULL, 10) : 1000000;
    size_t batch = argc > 2 ? strtoul(argv[2], NULL, 10) : 256;
    struct core_config config = {.seed = 1, .max_prefetch = 1000, .store = {.bypass = true}};
    struct store_opened opened = {.boot = 1, .first_id = 1, .id_count = UINT64_C(1) << 40};
    if (batch == 0 || batch > BATCH_MAX)
        return 2;
    core = core_new(&config, NULL, 0, &opened);
    if (!core)
        return 1;
    join_all();
    run(tasks / 10, batch);
    clock_t start = clock();
    run(tasks, batch);
    double ns = (double)(clock() - start) * (1e9 / CLOCKS_PER_SEC);
    printf("%zu tasks in batches of %zu: %.0f ns of CPU time each\n", tasks, batch,
        ns / (double)tasks);
    memory(100000);
    core_free(core);
    return 0;
}
