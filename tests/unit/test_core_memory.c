/* SPDX-License-Identifier: Apache-2.0 */
/*
 * "Fail the Nth allocation until the run passes", with a leak check each round. A run of the core
 * in which much happens, against a store and without one. Each time either the core refuses what
 * it cannot do, and every task that it accepted ends all the same; or it says that the tick failed,
 * which its host answers as a crash would.
 */
#include "tests/unit/bad_memory.h"
#include "tests/unit/core_durable.h"

/* ---- a run ---- */

#define TICKS 400
#define TASKS 60

static struct durable d;
static uint64_t random_state;
static size_t accepted; /* by ACCEPTED */
static bool over;       /* the tick failed: nothing of it may be carried out */
static struct kept {
    uint64_t id, lease;
} kept[2][64]; /* what the workers have */
static size_t kept_count[2];

#define CORE(call) (armed = true, (void)(call), armed = false)

static void end(void)
{
    armed = true;
    d.f.acts = core_end(d.f.core);
    armed = false;
    over = d.f.acts->failed;
    if (over)
        return;
    core_check(d.f.core);
    durable_ask(&d);
    for (size_t i = 0; i < d.f.acts->conn_count; i++)
        accepted += d.f.acts->conn[i].kind == MSG_ACCEPTED;
    for (size_t i = 0; i < d.f.acts->lane_count; i++) {
        const struct lane_action *l = &d.f.acts->lane[i];
        unsigned n = l->worker == d.f.worker[1];
        if (l->kind == LANE_TASK && l->task->rare && l->task->rare->target.data)
            assert_int_equal(n, 0); /* and nobody else, though there be no memory */
        if (l->kind == LANE_TASK && kept_count[n] < 64)
            kept[n][kept_count[n]++] = (struct kept){l->id, l->lease};
    }
    for (size_t i = 0; i < d.f.acts->join_count; i++) {
        const struct join_action *j = &d.f.acts->join[i];
        size_t n = j->peer - 100;
        if (j->kind == JOIN_WELCOME) {
            d.f.worker[n] = j->worker;
            d.f.session[n] = j->session;
            d.f.sequence[n] = 0;
            kept_count[n] = 0;
            for (size_t k = 0; k < j->held_count; k++)
                if (j->verdicts[k] == VERDICT_KEEP || j->verdicts[k] == VERDICT_SEND)
                    kept[n][kept_count[n]++] = (struct kept){j->held[k].id, j->held[k].lease};
        } else if (j->kind == JOIN_CLOSE && d.f.worker[n] == j->worker) {
            d.f.worker[n] = 0;
        }
    }
}

static void next(uint64_t ms)
{
    const struct store_event *events;
    armed = true;
    fix_later(&d.f, ms);
    armed = false;
    for (size_t count; (count = store_mem_plain.poll(d.store, &events, 64));)
        CORE(core_stored(d.f.core, events, count));
}

static void join(unsigned n)
{
    static const struct slice queues[] = {{(const uint8_t *)"*", 1}};
    struct held held[64];
    for (size_t i = 0; i < kept_count[n]; i++)
        held[i] = (struct held){kept[n][i].id, kept[n][i].lease, i % 2, true};
    struct join j = {.peer = 100 + n,
        .instance = {(uint8_t)(n + 1)},
        .name = S(n ? "two" : "one"),
        .host = S("host"),
        .slots = 2,
        .max_prefetch = 10,
        .queues = queues,
        .queue_count = 1,
        .held = held,
        .held_count = kept_count[n]};
    CORE(core_join(d.f.core, &j));
}

static void submit(unsigned i)
{
    static uint8_t headers[] = {0x81, 0xa1, 'a', 0xa1, 'b'};
    static char payload[8000];
    struct msg_options o = fix_options();
    o.priority = i % 10;
    o.max_attempts = 2;
    o.backoff_ms = 5;
    if (i % 4 == 0)
        o.headers = slice_of(headers, sizeof headers);
    if (i % 5 == 0)
        o.unique_key = S("k"), o.unique_ms = 3;
    if (i % 6 == 0)
        o.worker = S("one");
    if (i % 7 == 0)
        o.expires_ms = 30;
    if (i % 8 == 0)
        o.delay_ms = 5;
    o.timeout_ms = i % 9 == 0 ? 20 : 0;
    o.attached = i % 11 == 0;
    struct submit s = {.request = i,
        .queue = S(i % 3 ? "a" : "b"),
        .payload = slice_of(payload, i % 13 ? i : sizeof payload),
        .options = i % 2 ? &o : NULL,
        .follow = (enum follow)(i % 3)};
    CORE(core_submit(d.f.core, 5 + i % 2, &s, 1, NULL));
}

static void answer(unsigned n, struct answer a)
{
    if (!d.f.worker[n])
        return;
    armed = true;
    fix_answer(&d.f, n, a);
    armed = false;
}

/* The worker answers what it has, in one way or another. */
static void work(unsigned n)
{
    while (kept_count[n] && d.f.worker[n]) {
        struct kept k = kept[n][--kept_count[n]];
        struct answer a = fix_done(k.id, k.lease, "some result");
        uint64_t dice = random_next(&random_state) % 10;
        if (dice < 2)
            a = fix_failed(k.id, k.lease, "no");
        else if (dice == 2)
            a = (struct answer){.kind = MSG_RETURNED, .id = k.id, .lease = k.lease};
        else if (dice == 3)
            answer(n, (struct answer){.kind = MSG_PROGRESS, .id = k.id, .lease = k.lease});
        else if (dice == 4)
            answer(n, (struct answer){.kind = MSG_PART,
                          .id = k.id,
                          .lease = k.lease,
                          .number = 15,
                          .data = S("part")});
        answer(n, a);
    }
}

static void operate(unsigned tick)
{
    static const char *const lists[] = {
        "queues", "workers", "stats", "dead", "submitted", "options"};
    struct msg_list list = {.request = 1, .what = S(lists[tick % 6]), .after = tick % 6 / 4 * tick};
    struct msg_control control = {.request = 2, .verb = S("pause"), .name = S("b")};
    CORE(core_list(d.f.core, 6, &list));
    CORE(core_wait(d.f.core, 6, 3, tick, FOLLOW_ALL));
    CORE(core_status(d.f.core, 6, 4, tick + 1));
    if (tick % 20 == 0)
        CORE(core_cancel(d.f.core, 6, 5, tick + 2));
    if (tick == 2)
        CORE(core_watch(d.f.core, 6, 6, true));
    if (tick == 20 || tick == 30) /* once more, if there was no memory */
        control.verb = S("resume");
    if (tick == 40)
        control.verb = S("purge");
    if (tick % 10 == 0 && tick > 0 && tick < 50)
        CORE(core_control(d.f.core, 6, &control));
    control = (struct msg_control){.request = 7, .verb = S("replay"), .id = tick};
    if (tick < 60)
        CORE(core_control(d.f.core, 6, &control));
    CORE(core_received(d.f.core, 6, tick / 2));
}

static void crash(unsigned tick)
{
    struct msg_obituary o = {
        .instance = slice_of("\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16), .signal = 9};
    if (tick == 15 || tick == 45)
        CORE(core_worker_lost(d.f.core, d.f.worker[0], PUSHROD_E_CLOSED, d.f.now.mono_ns));
    if (tick == 17)
        CORE(core_obituary(d.f.core, &o));
    if (tick == 30)
        CORE(core_worker_lost(d.f.core, d.f.worker[1], PUSHROD_E_TIMED_OUT, d.f.now.mono_ns));
    if (tick == 50)
        CORE(core_conn_closed(d.f.core, 5));
}

static void play(unsigned tick)
{
    for (unsigned n = 0; n < 2; n++) {
        if (!d.f.worker[n] && tick % 4 == 0)
            join(n);
        else if (d.f.worker[n] && d.f.sequence[n] == 0)
            answer(n, (struct answer){.kind = MSG_READY});
        else if (tick % 3)
            answer(n, (struct answer){.kind = MSG_HEARTBEAT});
        if (tick % 3 == n || tick > 100)
            work(n);
    }
    if (tick < TASKS)
        submit(tick), submit(tick + 1);
    if (tick < 100)
        operate(tick);
    crash(tick);
}

static void run(bool bypass)
{
    struct store_config config = {.max_bytes = 1 << 30, .now_ms = 1000000};
    char *error = NULL;
    d = (struct durable){.f.now = {1000 * MSEC, 1000000}, .config = {.seed = 1, .window_tasks = 5}};
    d.config.rejoin_wait_ms = 50;
    d.config.hold_ms = 100;
    d.store = store_mem_plain.open(&config, &d.opened, &error);
    d.config.store = store_mem_plain.capabilities(d.store);
    d.config.store.bypass = bypass;
    random_state = 1;
    accepted = kept_count[0] = kept_count[1] = 0;
    over = false;
    CORE(d.f.core = core_new(&d.config, NULL, 0, &d.opened));
    armed = d.f.core != NULL;
    if (armed)
        core_begin(d.f.core, d.f.now);
    armed = false;
    for (unsigned tick = 0; d.f.core && !over && tick < TICKS; tick++) {
        play(tick);
        end();
        if (!over)
            next(tick < 100 ? 1 : 50);
    }
}

/* Everything that was accepted has ended. A key's window, or what waits for memory, may be
 * good_left. */
static void check_end(void)
{
    const struct core_stats *s = core_stats(d.f.core);
    if (s->ready + s->backlog + s->delayed + s->running)
        print_message("good_left: ready %d backlog %d delayed %d leased %d\n", (int)s->ready,
            (int)s->backlog, (int)s->delayed, (int)s->running);
    assert_int_equal(s->ready + s->backlog + s->delayed + s->running, 0);
    assert_true(s->done + s->failed + s->cancelled + s->expired >= accepted);
}

static size_t round_of(long nth, bool bypass, bool good)
{
    size_t before = living;
    good_left = nth;
    for_good = good;
    failures = 0;
    run(bypass);
    good_left = -1;
    if (d.f.core && !over && !for_good)
        check_end();
    core_free(d.f.core);
    store_mem_plain.close(d.store);
    assert_int_equal(living, before);
    return failures;
}

static void all_rounds(bool bypass, bool good)
{
    long nth = 0, failed = 0;
    for (; round_of(nth, bypass, good); nth++)
        failed += over;
    print_message("%ld allocations, of which %ld end the process\n", nth, failed);
    assert_true(nth > 100);
}

static void without_a_store(void **state)
{
    (void)state;
    all_rounds(true, false);
}

static void without_a_store_for_good(void **state)
{
    (void)state;
    all_rounds(true, true);
}

static void with_a_store(void **state)
{
    (void)state;
    all_rounds(false, false);
}

static void with_a_store_for_good(void **state)
{
    (void)state;
    all_rounds(false, true);
}

/* Without memory for its place it is not given to another worker instead. */
static void a_task_for_one_worker_stays_his(void **state)
{
    (void)state;
    struct msg_options o = fix_options();
    o.worker = S("absent");
    unsigned ended = 0;
    bool failed = true;
    for (long nth = 0; failed; nth++) {
        struct fix f;
        fix_new(&f, NULL);
        fix_worker(&f, 1, "q", 1);
        fix_end(&f);
        fix_later(&f, 1);
        good_left = nth;
        for_good = false;
        armed = true;
        fix_submit(&f, 5, "q", "", &o, FOLLOW_NONE);
        armed = false;
        failed = good_left < 0;
        good_left = -1;
        f.acts = core_end(f.core);
        ended += f.acts->failed;
        assert_null(fix_lane(&f, 1, LANE_TASK, 0));
        fix_free(&f);
    }
    assert_true(ended > 0);
}

/* A dead letter of a queue without a store. */
static uint64_t dead_letter(struct fix *f)
{
    struct msg_options o = fix_options();
    o.max_attempts = 1;
    fix_new(f, NULL);
    fix_worker(f, 0, "q", 1);
    uint64_t id = fix_submit(f, 5, "q", "payload", &o, FOLLOW_NONE);
    fix_tick(f);
    fix_later(f, 1);
    fix_answer(f, 0, fix_failed(id, fix_lane(f, 0, LANE_TASK, 0)->lease, "no"));
    fix_tick(f);
    assert_int_equal(core_stats(f->core)->dead, 1);
    return id;
}

/* It is there as long as nothing has come of it. */
static void a_replay_without_memory_keeps_the_letter(void **state)
{
    (void)state;
    unsigned refused = 0;
    bool failed = true;
    for (long nth = 0; failed; nth++) {
        struct fix f;
        struct msg_control replay = {.request = 4, .verb = S("replay"), .id = dead_letter(&f)};
        fix_later(&f, 1);
        good_left = nth;
        for_good = false;
        CORE(core_control(f.core, 5, &replay));
        failed = good_left < 0;
        good_left = -1;
        f.acts = core_end(f.core);
        const struct conn_action *no = fix_conn(&f, 5, MSG_REJECTED, 0);
        if (no)
            assert_int_equal(no->code, PUSHROD_E_NO_MEMORY);
        else if (!f.acts->failed)
            assert_non_null(fix_lane(&f, 0, LANE_TASK, 0));
        assert_int_equal(core_stats(f.core)->dead, no != NULL);
        refused += no != NULL;
        fix_free(&f);
    }
    assert_true(refused > 0);
}

/* A result that only the store has, and a client that asks for it. */
static uint64_t kept_result(void)
{
    struct msg_options o = fix_options();
    uint64_t lease;
    o.keep_ms = 60000;
    durable_begin(&d, DURABILITY_SYNC);
    uint64_t id = durable_leased(&d, &lease, &o);
    fix_later(&d.f, 1);
    fix_answer(&d.f, 0,
        (struct answer){.kind = MSG_TASK_DONE, .id = id, .lease = lease, .data = S("result")});
    durable_settle(&d);
    durable_restart(&d);
    durable_settle(&d);
    core_wait(d.f.core, 6, 77, id, FOLLOW_FINISH);
    durable_end(&d);
    return id;
}

static void who_waits_without_memory_is_told(void **state)
{
    (void)state;
    unsigned refused = 0, told = 0;
    bool failed = true;
    for (long nth = 0; failed; nth++) {
        const struct store_event *events;
        uint64_t id = kept_result();
        fix_later(&d.f, 1);
        size_t count = store_mem_plain.poll(d.store, &events, 64);
        assert_int_equal(count, 1);
        good_left = nth;
        for_good = false;
        CORE(core_stored(d.f.core, events, count));
        failed = good_left < 0;
        good_left = -1;
        d.f.acts = core_end(d.f.core);
        const struct conn_action *no = fix_conn(&d.f, 6, MSG_REJECTED, 0);
        const struct conn_action *finish = fix_conn(&d.f, 6, MSG_FINISHED, 0);
        assert_true(no || finish || d.f.acts->failed);
        if (no)
            assert_int_equal(no->code, PUSHROD_E_NO_MEMORY);
        if (finish) {
            assert_int_equal(finish->task->record.id, id);
            assert_int_equal(task_result(finish->task).size, 6);
        }
        refused += no != NULL;
        told += finish != NULL;
        durable_free(&d);
    }
    assert_true(refused > 0 && told > 0);
}

/* What the store says, with memory for so many allocations. False: the tick has failed. */
static bool stored_without_memory(void)
{
    const struct store_event *events;
    fix_later(&d.f, 1);
    size_t count = store_mem_plain.poll(d.store, &events, 64);
    CORE(core_stored(d.f.core, events, count));
    d.f.acts = core_end(d.f.core);
    if (!d.f.acts->failed)
        durable_ask(&d);
    return !d.f.acts->failed;
}

/* Only the store has the task; its followers wait for the core to look for it there. */
static void who_followed_what_was_purged_is_told(void **state)
{
    (void)state;
    unsigned ended = 0;
    bool failed = true;
    for (long nth = 0; failed; nth++) {
        struct msg_options o = fix_options();
        struct msg_control purge = {.request = 1, .verb = S("purge"), .name = S("q")};
        o.delay_ms = 100000;
        durable_begin(&d, DURABILITY_SYNC);
        uint64_t id = fix_submit(&d.f, 6, "q", "", &o, FOLLOW_FINISH);
        durable_settle(&d);
        core_control(d.f.core, 5, &purge);
        durable_end(&d);
        good_left = nth;
        for_good = false;
        bool goes_on = stored_without_memory() && stored_without_memory();
        failed = good_left < 0;
        good_left = -1;
        const struct conn_action *finish = fix_conn(&d.f, 6, MSG_FINISHED, 0);
        assert_true(goes_on == (finish != NULL));
        if (finish)
            assert_int_equal(finish->id, id);
        ended += !goes_on;
        durable_free(&d);
    }
    assert_true(ended > 0);
}

/* Refused as a whole: what is not told to hold does not. */
static void a_pause_without_memory_is_none(void **state)
{
    (void)state;
    bool no = true;
    for (long nth = 0; no; nth++) {
        struct msg_control pause = {.request = 1, .verb = S("pause"), .name = S("q")};
        durable_begin(&d, DURABILITY_SYNC);
        good_left = nth;
        CORE(core_control(d.f.core, 6, &pause));
        fix_submit(&d.f, 5, "q", "", NULL, FOLLOW_NONE);
        bool lost = durable_end(&d)->failed;
        no = lost || fix_conn(&d.f, 6, MSG_REJECTED, 0);
        durable_stored(&d, 1);
        durable_end(&d);
        assert_true(lost || no == (fix_lane(&d.f, 0, LANE_TASK, 0) != NULL));
        durable_free(&d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_store),
        cmocka_unit_test(without_a_store_for_good),
        cmocka_unit_test(with_a_store),
        cmocka_unit_test(with_a_store_for_good),
        cmocka_unit_test(a_task_for_one_worker_stays_his),
        cmocka_unit_test(a_replay_without_memory_keeps_the_letter),
        cmocka_unit_test(who_waits_without_memory_is_told),
        cmocka_unit_test(who_followed_what_was_purged_is_told),
        cmocka_unit_test(a_pause_without_memory_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
