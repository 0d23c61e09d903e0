/* SPDX-License-Identifier: Apache-2.0 */
/*
 * core_bench: what the core alone costs for each task: submitted, handed over, done, told. Memory
 * queues, 64-byte payloads, 8-byte results, 4 workers with one slot.
 *
 *   core_bench [TASKS [BATCH [WAITING [UNREAD]]]]
 *
 * WAITING tasks lie before each one, and UNREAD finishes were told and are not acknowledged yet: so
 * much memory is gone over before a task is touched again. Without WAITING the follower is
 * CONN_SELF, else a connection. Prints ns for each task, and what a waiting one takes.
 */
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
static uint64_t follower = CONN_SELF;
static size_t finished, acknowledged;

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

static void acknowledge(size_t unread)
{
    if (follower == CONN_SELF || finished < acknowledged + unread)
        return;
    acknowledged = finished - unread;
    core_received(core, follower, acknowledged);
}

static void run(size_t tasks, size_t batch, size_t unread)
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
        core_submit(core, follower, submits, count, NULL);
        left -= count;
        answer_all();
        acknowledge(unread);
        end();
    }
}

static void fill(const char *queue, size_t count)
{
    static const char payload[64];
    struct submit s = {
        .queue = slice_str(queue), .payload = slice_of(payload, 64), .follow = FOLLOW_FINISH};
    for (size_t i = 0; i < count; i++) {
        if (i % 1000 == 0)
            begin();
        core_submit(core, follower, &s, 1, NULL);
        if (i % 1000 == 999 || i + 1 == count)
            end();
    }
}

static size_t resident(void)
{
    size_t all, pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f || fscanf(f, "%zu %zu", &all, &pages) != 2)
        pages = 0;
    if (f)
        fclose(f);
    return pages * 4096;
}

static void memory(size_t count)
{
    size_t before = resident();
    fill("other", count);
    printf("sizeof(struct task) %zu; a waiting task that is followed takes %.0f bytes beside its "
           "payload\n",
        sizeof(struct task), (double)(resident() - before) / (double)count - 64);
}

static size_t argument(int argc, char **argv, int at, size_t otherwise)
{
    return argc > at ? strtoul(argv[at], NULL, 10) : otherwise;
}

int main(int argc, char **argv)
{
    size_t tasks = argument(argc, argv, 1, 1000000), batch = argument(argc, argv, 2, 256);
    size_t waiting = argument(argc, argv, 3, 0), unread = argument(argc, argv, 4, 0);
    struct core_config config = {.seed = 1, .max_prefetch = 1000, .store = {.bypass = true}};
    struct store_opened opened = {.boot = 1, .first_id = 1, .id_count = UINT64_C(1) << 40};
    if (batch == 0 || batch > BATCH_MAX)
        return 2;
    core = core_new(&config, NULL, 0, &opened);
    if (!core)
        return 1;
    join_all();
    if (waiting)
        follower = 7;
    fill("bench", waiting);
    run(tasks / 10 + 2 * (waiting + unread), batch, unread);
    clock_t start = clock();
    run(tasks, batch, unread);
    double ns = (double)(clock() - start) * (1e9 / CLOCKS_PER_SEC);
    printf("%zu tasks in batches of %zu: %.0f ns of CPU time each\n", tasks, batch,
        ns / (double)tasks);
    memory(1000000);
    core_free(core);
    return 0;
}
