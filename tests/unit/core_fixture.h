/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A core with a clock that the test moves, and shorthands for what happens to it. Each tick ends
 * with core_check().
 */
#ifndef TESTS_CORE_FIXTURE_H
#define TESTS_CORE_FIXTURE_H

#include "tests/unit/unit.h"
#include "server/core/core.h"

#define S(text) slice_str(text)
#define MSEC    UINT64_C(1000000)

struct fix {
    struct core *core;
    struct now now;
    const struct actions *acts;
    uint64_t sequence[16]; /* of each worker's answers */
    uint64_t session[16];
    uint64_t worker[16];
};

static inline void fix_new(struct fix *f, const struct core_config *config)
{
    static const struct store_opened opened = {
        .boot = 7, .first_id = 1, .id_count = STORE_ID_BLOCK};
    struct core_config bypass = {.seed = 1, .max_prefetch = 1000, .store = {.bypass = true}};
    *f = (struct fix){.now = {1000 * MSEC, 1000000}};
    f->core = core_new(config ? config : &bypass, NULL, 0, &opened);
    assert_non_null(f->core);
    core_begin(f->core, f->now);
}

static inline const struct actions *fix_end(struct fix *f)
{
    f->acts = core_end(f->core);
    core_check(f->core);
    return f->acts;
}

/* Ends the tick if it has not ended; begins the next one `ms` later. */
static inline void fix_later(struct fix *f, uint64_t ms)
{
    f->now.mono_ns += ms * MSEC;
    f->now.wall_ms += ms;
    core_begin(f->core, f->now);
}

static inline const struct actions *fix_tick(struct fix *f)
{
    fix_end(f);
    return f->acts;
}

static inline uint64_t fix_submit(struct fix *f, uint64_t conn, const char *queue,
    const char *payload, const struct msg_options *options, enum follow follow)
{
    struct submit s = {.request = 77,
        .queue = S(queue),
        .payload = S(payload),
        .options = options,
        .follow = follow};
    uint64_t id;
    core_submit(f->core, conn, &s, 1, &id);
    return id;
}

static inline struct msg_options fix_options(void)
{
    return (struct msg_options){.priority = 4, .max_attempts = 3, .backoff_ms = 1000};
}

static inline uint64_t fix_join_held(struct fix *f, unsigned n, const char *queue, uint32_t slots,
    const struct held *held, size_t count)
{
    char name[8] = {'w', (char)('0' + n)};
    struct slice queues[] = {S(queue)};
    struct join j = {.peer = 100 + n,
        .name = S(name),
        .host = S("host"),
        .pid = n,
        .slots = slots,
        .max_prefetch = 1000,
        .queues = queues,
        .queue_count = 1,
        .held = held,
        .held_count = count};
    j.instance[0] = (uint8_t)(n + 1);
    core_join(f->core, &j);
    const struct actions *a = fix_end(f);
    f->worker[n] = 0;
    for (size_t i = 0; i < a->join_count; i++) {
        if (a->join[i].kind == JOIN_WELCOME && a->join[i].peer == 100 + n) {
            f->worker[n] = a->join[i].worker;
            f->session[n] = a->join[i].session;
            f->sequence[n] = 0;
        }
    }
    return f->worker[n];
}

static inline void fix_answer(struct fix *f, unsigned n, struct answer answer)
{
    answer.sequence = answer.kind == MSG_HEARTBEAT ? 0 : ++f->sequence[n];
    core_answers(f->core, f->worker[n], f->session[n], &answer, 1);
}

/* Joins and is ready; leaves the tick open, at the next moment. */
static inline void fix_worker(struct fix *f, unsigned n, const char *queue, uint32_t slots)
{
    assert_int_not_equal(fix_join_held(f, n, queue, slots, NULL, 0), 0);
    fix_later(f, 1);
    fix_answer(f, n, (struct answer){.kind = MSG_READY});
}

static inline const struct lane_action *fix_lane(
    const struct fix *f, unsigned n, enum lane_kind kind, size_t nth)
{
    for (size_t i = 0; i < f->acts->lane_count; i++)
        if (f->acts->lane[i].worker == f->worker[n] && f->acts->lane[i].kind == kind && !nth--)
            return &f->acts->lane[i];
    return NULL;
}

static inline const struct conn_action *fix_conn(
    const struct fix *f, uint64_t conn, uint16_t kind, size_t nth)
{
    for (size_t i = 0; i < f->acts->conn_count; i++)
        if (f->acts->conn[i].conn == conn && f->acts->conn[i].kind == kind && !nth--)
            return &f->acts->conn[i];
    return NULL;
}

static inline const struct notice *fix_notice(const struct fix *f, enum notice_kind kind)
{
    for (size_t i = 0; i < f->acts->notice_count; i++)
        if (f->acts->notices[i].kind == kind)
            return &f->acts->notices[i];
    return NULL;
}

static inline struct answer fix_done(uint64_t id, uint64_t lease, const char *result)
{
    return (struct answer){
        .kind = MSG_TASK_DONE, .id = id, .lease = lease, .run_ns = 1000, .data = S(result)};
}

static inline struct answer fix_failed(uint64_t id, uint64_t lease, const char *text)
{
    return (struct answer){.kind = MSG_TASK_FAILED,
        .id = id,
        .lease = lease,
        .run_ns = 1000,
        .code = PUSHROD_E_TASK_FAILED,
        .data = S(text)};
}

static inline void fix_free(struct fix *f)
{
    core_free(f->core);
}

#endif
