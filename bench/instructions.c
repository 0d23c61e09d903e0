/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fixed scenarios whose instructions are counted under callgrind: 1,000 tasks each, in the core
 * submit, dispatch and finish, and one after the other beside 10,000 queues in which a task waits;
 * in the codec encode and decode. Each is run twice before, so that pools and buffers are there.
 * bench/instructions runs it and compares with bench/instructions.txt.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <valgrind/callgrind.h>
#include "common/buf.h"
#include "proto/codec.h"
#include "proto/messages.h"
#include "server/core/core.h"

enum { TASKS = 1000, ROUNDS = 3, RESULT = 8, QUEUES = 10000 };

static struct now now = {1, 1};
static bool counted; /* the last round */

/* What lies between the two is counted, under a name, in the last round. */
static void count_begin(void)
{
    if (counted)
        CALLGRIND_ZERO_STATS;
}

#define COUNT_END(name)                                                                            \
    do {                                                                                           \
        if (counted)                                                                               \
            CALLGRIND_DUMP_STATS_AT(name);                                                         \
    } while (0)

static void tick(struct core *core)
{
    now.mono_ns += 1000000;
    now.wall_ms++;
    core_begin(core, now);
}

static void submit_all(struct core *core)
{
    static struct submit submits[TASKS];
    static const char payload[64];
    for (size_t i = 0; i < TASKS; i++)
        submits[i] = (struct submit){.request = i + 1,
            .queue = slice_str("bench"),
            .payload = slice_of(payload, sizeof payload),
            .follow = FOLLOW_FINISH};
    tick(core);
    count_begin();
    core_submit(core, CONN_SELF, submits, TASKS, NULL);
    core_end(core);
    COUNT_END("core-submit");
}

/* A worker of any queue; gives its id and session. */
static void join_worker(
    struct core *core, unsigned number, uint32_t slots, uint64_t *worker, uint64_t *session)
{
    static const struct slice queue = {(const uint8_t *)"*", 1};
    struct join join = {.peer = number,
        .instance = {(uint8_t)(number + 1)},
        .name = slice_str("w"),
        .host = slice_str("h"),
        .slots = slots,
        .queues = &queue,
        .queue_count = 1};
    tick(core);
    core_join(core, &join);
    const struct actions *a = core_end(core);
    assert(a->join_count == 1 && a->join[0].kind == JOIN_WELCOME);
    *worker = a->join[0].worker;
    *session = a->join[0].session;
}

/* READY hands all tasks over; `answers` become their results. */
static void dispatch_all(
    struct core *core, uint64_t worker, uint64_t session, struct answer answers[TASKS])
{
    struct answer ready = {.kind = MSG_READY, .sequence = 1};
    tick(core);
    count_begin();
    core_answers(core, worker, session, &ready, 1);
    const struct actions *a = core_end(core);
    COUNT_END("core-dispatch");
    size_t count = 0;
    for (size_t i = 0; i < a->lane_count; i++)
        if (a->lane[i].kind == LANE_TASK) {
            answers[count] = (struct answer){.kind = MSG_TASK_DONE,
                .sequence = count + 2,
                .id = a->lane[i].id,
                .lease = a->lane[i].lease,
                .run_ns = 300,
                .data = slice_of("12345678", RESULT)};
            count++;
        }
    assert(count == TASKS);
}

static void finish_all(
    struct core *core, uint64_t worker, uint64_t session, const struct answer answers[TASKS])
{
    tick(core);
    count_begin();
    core_answers(core, worker, session, answers, TASKS);
    const struct actions *a = core_end(core);
    COUNT_END("core-finish");
    size_t count = 0;
    for (size_t i = 0; i < a->conn_count; i++)
        count += a->conn[i].kind == MSG_FINISHED;
    assert(count == TASKS);
}

static struct core *new_core(void)
{
    struct core_config config = {.seed = 1, .max_prefetch = 1000, .store = {.bypass = true}};
    struct store_opened opened = {.boot = 1, .first_id = 1, .id_count = UINT64_C(1) << 40};
    struct core *core = core_new(&config, NULL, 0, &opened);
    assert(core);
    return core;
}

static void run_core(void)
{
    static struct answer answers[TASKS];
    struct core *core = new_core();
    uint64_t worker, session;
    for (unsigned round = 0; round < ROUNDS; round++) {
        counted = round == ROUNDS - 1;
        submit_all(core);
        join_worker(core, round, TASKS, &worker, &session);
        dispatch_all(core, worker, session, answers);
        finish_all(core, worker, session, answers);
        tick(core);
        core_worker_lost(core, worker, PUSHROD_E_CLOSED, UINT64_MAX); /* just now */
        core_end(core);
    }
    core_free(core);
}

static void submit_queues(struct core *core)
{
    char name[16];
    tick(core);
    for (unsigned i = 0; i < QUEUES + ROUNDS * TASKS; i++) {
        snprintf(name, sizeof name, "q%u", i);
        struct submit submit = {.request = i + 1, .queue = slice_str(name)};
        core_submit(core, CONN_SELF, &submit, 1, NULL);
    }
    core_end(core);
}

/* What the one slot gets when it has answered is of another queue each time. */
static void run_queues(void)
{
    struct answer answer = {.kind = MSG_READY, .sequence = 1};
    struct core *core = new_core();
    uint64_t worker, session;
    submit_queues(core);
    join_worker(core, 0, 1, &worker, &session);
    for (unsigned round = 0; round < ROUNDS; round++) {
        counted = round == ROUNDS - 1;
        count_begin();
        for (unsigned i = 0; i < TASKS; i++) {
            tick(core);
            core_answers(core, worker, session, &answer, 1);
            const struct lane_action *task = core_end(core)->lane;
            assert(task->kind == LANE_TASK);
            answer = (struct answer){.kind = MSG_TASK_DONE,
                .sequence = answer.sequence + 1,
                .id = task->id,
                .lease = task->lease,
                .run_ns = 300};
        }
        COUNT_END("core-queues");
    }
    core_free(core);
}

/* The four messages of a task's life, as they cross the wire. */
static void encode_all(struct buf *out)
{
    static const char payload[64];
    struct slice body = slice_of(payload, sizeof payload), result = slice_of(payload, RESULT);
    for (uint64_t i = 0; i < TASKS; i++) {
        uint64_t id = (UINT64_C(7) << 20) + i, lease = (UINT64_C(3) << 40) + i;
        msg_submit_encode(out, &(struct msg_submit){.request = i,
                                   .queue = slice_str("bench"),
                                   .payload = body,
                                   .follow = FOLLOW_FINISH});
        msg_task_encode(out, &(struct msg_task){.id = id,
                                 .lease = lease,
                                 .queue = slice_str("bench"),
                                 .attempt = 1,
                                 .payload = body});
        msg_task_done_encode(out,
            &(struct msg_task_done){.id = id, .lease = lease, .run_ns = 300, .result = result});
        msg_finished_encode(out,
            &(struct msg_finished){
                .id = id, .status = PUSHROD_DONE, .attempts = 1, .run_ns = 300, .result = result});
    }
}

static void decode_all(struct slice frame)
{
    struct dec in = dec_of(frame);
    union {
        struct msg_submit submit;
        struct msg_task task;
        struct msg_task_done done;
        struct msg_finished finished;
    } m;
    while (dec_more(&in)) {
        switch (dec_message(&in)) {
        case MSG_SUBMIT:
            msg_submit_decode(&in, &m.submit);
            break;
        case MSG_TASK:
            msg_task_decode(&in, &m.task);
            break;
        case MSG_TASK_DONE:
            msg_task_done_decode(&in, &m.done);
            break;
        case MSG_FINISHED:
            msg_finished_decode(&in, &m.finished);
            break;
        }
    }
    assert(!dec_failed(&in));
}

static void run_codec(void)
{
    struct buf out = BUF_EMPTY;
    for (unsigned round = 0; round < ROUNDS; round++) {
        counted = round == ROUNDS - 1;
        buf_clear(&out);
        count_begin();
        encode_all(&out);
        COUNT_END("codec-encode");
        count_begin();
        decode_all(buf_slice(&out));
        COUNT_END("codec-decode");
    }
    buf_free(&out);
}

int main(void)
{
    run_core();
    run_queues();
    run_codec();
    return 0;
}
