/* SPDX-License-Identifier: Apache-2.0 */
/* What store.h promises, operation by operation, of every backend. */
#include <string.h>
#include "tests/store/rig.h"
#include "tests/unit/unit.h"

static const struct order_key start = {0, 0};

static void open_rig(struct rig *r, void **state)
{
    rig_open(r, *state);
}

static void append(struct rig *r, uint64_t id, unsigned priority)
{
    struct record record = rig_record(id, "q", priority);
    assert_int_equal(rig_append(r, &record)->outcome, OUTCOME_STORED);
}

static void expect_ids(const struct store_event *e, const uint64_t *ids, size_t count)
{
    assert_int_equal(e->outcome, OUTCOME_STORED);
    assert_int_equal(e->record_count, count);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(e->records[i].id, ids[i]);
}

#define EXPECT(e, ...)                                                                             \
    expect_ids(e, (const uint64_t[]){__VA_ARGS__},                                                 \
        sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

static void append_keeps_every_field(void **state)
{
    struct rig r;
    open_rig(&r, state);
    struct record in = {.id = 5,
        .queue = slice_str("a/b+c"),
        .payload = slice_str(""),
        .headers = slice_str("hh"),
        .tag = slice_str("tag"),
        .unique = slice_str("key"),
        .target = slice_str("worker-1"),
        .history = slice_str("past"),
        .submitted_ms = 1,
        .due_ms = r.now_ms + 10,
        .expires_ms = r.now_ms + 20,
        .unique_ms = r.now_ms + 30,
        .keep_ms = 4,
        .timeout_ms = 5,
        .backoff_ms = 6,
        .attempts = 7,
        .max_attempts = 8,
        .deaths = 2,
        .priority = 9,
        .followed = true,
        .suspect = true};
    const struct store_event *e = rig_append(&r, &in);
    assert_int_equal(e->outcome, OUTCOME_STORED);
    assert_int_equal(e->id, 5);
    e = rig_id(&r, STORE_LOOKUP, 5);
    assert_int_equal(e->record_count, 1);
    const struct record *out = &e->records[0];
    assert_true(slice_equal(out->queue, in.queue) && slice_equal(out->headers, in.headers));
    assert_true(out->payload.data && out->payload.size == 0);
    assert_true(slice_equal(out->tag, in.tag) && slice_equal(out->unique, in.unique));
    assert_true(slice_equal(out->target, in.target) && slice_equal(out->history, in.history));
    assert_int_equal(out->submitted_ms, 1);
    assert_int_equal(out->due_ms, in.due_ms);
    assert_int_equal(out->expires_ms, in.expires_ms);
    assert_int_equal(out->unique_ms, in.unique_ms);
    assert_int_equal(out->keep_ms + out->timeout_ms + out->backoff_ms, 15);
    assert_int_equal(out->attempts + out->max_attempts + out->deaths, 17);
    assert_true(out->followed && out->suspect && !out->windowed && !out->maybe_running);
    rig_close(&r);
}

static void large_payloads_and_results_come_back(void **state)
{
    struct rig r;
    open_rig(&r, state);
    for (uint64_t id = 1; id <= 3; id++) {
        struct record in = rig_record(id, "q", 4);
        in.body = rig_body(id, 65536 * id + id - 2); /* around a part's size */
        in.payload = body_slice(in.body);
        assert_int_equal(rig_append(&r, &in)->outcome, OUTCOME_STORED);
        const struct store_event *e = rig_fetch(&r, "q", (struct order_key){5, id - 1}, 1);
        assert_int_equal(e->record_count, 1);
        assert_true(slice_equal(e->records[0].payload, body_slice(in.body)));
        assert_non_null(e->records[0].body);
        struct finish f = {.id = id,
            .status = 1,
            .finished_ms = r.now_ms,
            .keep_until_ms = r.now_ms + 1000,
            .body = in.body,
            .result = body_slice(in.body)};
        e = rig_do(&r, &(struct store_op){.kind = STORE_FINISH, .finish = &f});
        assert_int_equal(e->outcome, OUTCOME_STORED);
        e = rig_id(&r, STORE_LOOKUP, id);
        assert_true(slice_equal(e->finishes[0].result, body_slice(in.body)));
        body_unref(in.body);
    }
    rig_close(&r);
}

static void order_is_priority_then_id(void **state)
{
    struct rig r;
    open_rig(&r, state);
    append(&r, 1, 4);
    append(&r, 2, 9);
    append(&r, 3, 0);
    append(&r, 4, 4);
    append(&r, 5, 9);
    EXPECT(rig_fetch(&r, "q", start, 10), 2, 5, 1, 4, 3);
    const struct store_event *e = rig_fetch(&r, "q", start, 2);
    EXPECT(e, 2, 5);
    assert_false(e->exhausted);
    e = rig_fetch(&r, "q", (struct order_key){0, 5}, 3);
    EXPECT(e, 1, 4, 3);
    assert_true(e->exhausted);
    assert_int_equal(rig_fetch(&r, "other", start, 9)->record_count, 0);
    rig_close(&r);
}

static void fetch_sees_appends_in_flight(void **state)
{
    enum { MANY = 2 * STORE_PART };
    static struct record records[MANY];
    static struct store_op ops[MANY + 1];
    struct rig r;
    open_rig(&r, state);
    for (uint64_t i = 0; i < MANY; i++) {
        records[i] = rig_record(i + 1, "q", 4);
        ops[i] = (struct store_op){.kind = STORE_APPEND, .record = &records[i]};
    }
    ops[MANY] = (struct store_op){
        .kind = STORE_FETCH, .queue = slice_str("q"), .after = {5, 10}, .limit = MANY};
    r.backend->ops->submit(r.store, ops, MANY + 1, r.now_ms);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(rig_next(&r)->outcome, OUTCOME_STORED);
    const struct store_event *e = rig_next(&r);
    assert_true(e->kind == STORE_FETCH && e->more && e->record_count == STORE_PART);
    assert_int_equal(e->records[0].id, 11);
    e = rig_next(&r);
    assert_true(e->kind == STORE_FETCH && !e->more && e->record_count == STORE_PART - 10);
    assert_true(e->records[0].id == 11 + STORE_PART && e->exhausted);
    rig_close(&r);
}

static void fetch_stops_at_its_bytes(void **state)
{
    struct rig r;
    open_rig(&r, state);
    for (uint64_t id = 1; id <= 4; id++)
        append(&r, id, 4);
    struct store_op op = {
        .kind = STORE_FETCH, .queue = slice_str("q"), .limit = 10, .limit_bytes = 15};
    EXPECT(rig_do(&r, &op), 1, 2); /* 7 bytes each */
    op.limit_bytes = 1;
    EXPECT(rig_do(&r, &op), 1); /* one at the least */
    rig_close(&r);
}

static void finish_and_reschedule_of_unknown_ids(void **state)
{
    struct rig r;
    open_rig(&r, state);
    append(&r, 1, 4);
    assert_int_equal(rig_finish(&r, 1)->outcome, OUTCOME_STORED);
    assert_int_equal(rig_finish(&r, 1)->outcome, OUTCOME_GONE);
    assert_int_equal(rig_finish(&r, 99)->outcome, OUTCOME_GONE);
    struct record change = {.id = 99};
    struct store_op op = {.kind = STORE_RESCHEDULE, .record = &change};
    assert_int_equal(rig_do(&r, &op)->outcome, OUTCOME_GONE);
    assert_int_equal(rig_id(&r, STORE_LOOKUP, 1)->outcome, OUTCOME_GONE);
    assert_int_equal(rig_fetch(&r, "q", start, 9)->record_count, 0);
    rig_close(&r);
}

static void an_id_is_appended_once(void **state)
{
    struct rig r;
    open_rig(&r, state);
    append(&r, 1, 4);
    struct record again = rig_record(1, "q", 9);
    const struct store_event *e = rig_append(&r, &again);
    assert_int_equal(e->outcome, OUTCOME_HELD);
    assert_int_equal(e->id, 1);
    EXPECT(rig_fetch(&r, "q", start, 9), 1);
    rig_close(&r);
}

static void due_comes_in_bounded_steps(void **state)
{
    struct rig r;
    open_rig(&r, state);
    for (uint64_t id = 1; id <= 5; id++) {
        struct record in = rig_record(id, "q", 4);
        in.due_ms = id < 5 ? r.now_ms + 100 * id : STORE_LATEST_MS;
        assert_int_equal(rig_append(&r, &in)->outcome, OUTCOME_STORED);
    }
    assert_int_equal(rig_fetch(&r, "q", start, 9)->record_count, 0);
    const struct store_event *e = rig_due(&r, r.now_ms + 99, 10);
    assert_true(!e->record_count && e->exhausted);
    assert_int_equal(e->next_ms, r.now_ms + 100);
    e = rig_due(&r, r.now_ms + 350, 2);
    EXPECT(e, 1, 2);
    assert_false(e->exhausted);
    assert_true(e->records[0].windowed && e->records[0].due_ms == r.now_ms + 100);
    e = rig_due(&r, r.now_ms + 350, 2);
    EXPECT(e, 3);
    assert_true(e->exhausted);
    assert_int_equal(e->next_ms, r.now_ms + 400);
    EXPECT(rig_fetch(&r, "q", start, 9), 1, 2, 3);
    rig_close(&r);
}

static void expired_tasks_are_told_once(void **state)
{
    struct rig r;
    open_rig(&r, state);
    struct record in = rig_record(1, "q", 4);
    in.expires_ms = r.now_ms + 50;
    rig_append(&r, &in);
    in.id = 2;
    in.due_ms = r.now_ms + 60; /* expires before it is due */
    rig_append(&r, &in);
    const struct store_event *e = rig_due(&r, r.now_ms + 55, 9);
    EXPECT(e, 1, 2);
    assert_true(!e->records[0].due_ms && e->records[1].due_ms == r.now_ms + 60);
    e = rig_due(&r, r.now_ms + 500, 9);
    assert_true(!e->record_count && !e->next_ms);
    rig_close(&r);
}

static void rescheduled_tasks_change_places(void **state)
{
    struct rig r;
    open_rig(&r, state);
    append(&r, 1, 4);
    append(&r, 2, 4);
    struct record change = {.id = 1,
        .due_ms = r.now_ms + 10,
        .attempts = 2,
        .deaths = 1,
        .suspect = true,
        .history = slice_str("died")};
    struct store_op op = {.kind = STORE_RESCHEDULE, .record = &change};
    assert_int_equal(rig_do(&r, &op)->outcome, OUTCOME_STORED);
    EXPECT(rig_fetch(&r, "q", start, 9), 2);
    change.due_ms = 0;
    change.history = (struct slice){0};
    assert_int_equal(rig_do(&r, &op)->outcome, OUTCOME_STORED);
    const struct store_event *e = rig_fetch(&r, "q", start, 9);
    EXPECT(e, 1, 2);
    assert_int_equal(e->records[0].attempts, 2);
    assert_true(e->records[0].suspect);
    assert_true(slice_equal(e->records[0].history, slice_str("died")));
    assert_int_equal(rig_due(&r, r.now_ms + 100, 9)->record_count, 0);
    rig_close(&r);
}

static void unique_keys_hold_until_the_task_ends(void **state)
{
    struct rig r;
    open_rig(&r, state);
    struct record in = rig_record(1, "q", 4);
    in.unique = slice_str("k");
    assert_int_equal(rig_append(&r, &in)->outcome, OUTCOME_STORED);
    in.id = 2;
    const struct store_event *e = rig_append(&r, &in);
    assert_int_equal(e->outcome, OUTCOME_HELD);
    assert_int_equal(e->id, 1);
    in.queue = slice_str("another");
    assert_int_equal(rig_append(&r, &in)->outcome, OUTCOME_STORED);
    rig_finish(&r, 1);
    in.id = 3;
    in.queue = slice_str("q");
    assert_int_equal(rig_append(&r, &in)->outcome, OUTCOME_STORED);
    rig_close(&r);
}

static void unique_windows_end_with_time(void **state)
{
    struct rig r;
    open_rig(&r, state);
    struct record in = rig_record(1, "q", 4);
    in.unique = slice_str("k");
    in.unique_ms = r.now_ms + 100;
    rig_append(&r, &in);
    rig_finish(&r, 1);
    in.id = 2;
    assert_int_equal(rig_append(&r, &in)->outcome, OUTCOME_HELD);
    r.now_ms += 100;
    in.unique_ms = r.now_ms + 100;
    assert_int_equal(rig_append(&r, &in)->outcome, OUTCOME_STORED);
    r.now_ms += 100;
    assert_int_equal(rig_due(&r, r.now_ms, 9)->next_ms, 0);
    rig_close(&r);
}

static void finishes_are_kept_until_forgotten_or_over(void **state)
{
    struct rig r;
    open_rig(&r, state);
    append(&r, 1, 4);
    append(&r, 2, 4);
    rig_finish_kept(&r, 1, "answer", 1000);
    rig_finish_kept(&r, 2, "other", 5000);
    const struct store_event *e = rig_id(&r, STORE_LOOKUP, 1);
    assert_int_equal(e->record_count, 0);
    assert_true(slice_equal(e->finishes[0].result, slice_str("answer")));
    assert_int_equal(rig_id(&r, STORE_FORGET, 1)->outcome, OUTCOME_STORED);
    assert_int_equal(rig_id(&r, STORE_FORGET, 1)->outcome, OUTCOME_GONE);
    assert_int_equal(rig_id(&r, STORE_LOOKUP, 1)->outcome, OUTCOME_GONE);
    r.now_ms += 4999;
    assert_non_null(rig_id(&r, STORE_LOOKUP, 2)->finishes);
    r.now_ms += 1;
    assert_int_equal(rig_id(&r, STORE_LOOKUP, 2)->outcome, OUTCOME_GONE);
    rig_close(&r);
}

static void dead_letters_are_listed_revived_and_dropped(void **state)
{
    struct rig r;
    open_rig(&r, state);
    for (uint64_t id = 1; id <= 4; id++) {
        struct record in = rig_record(id, id == 3 ? "other" : "q", 4);
        rig_append(&r, &in);
        assert_int_equal(rig_kill(&r, id, "boom")->outcome, OUTCOME_STORED);
    }
    const struct store_event *e = rig_scan(&r, NULL, 0, 10);
    EXPECT(e, 1, 2, 3, 4);
    assert_true(slice_equal(e->finishes[2].text, slice_str("boom")));
    assert_true(slice_equal(e->records[0].history, slice_str("how it died")));
    EXPECT(rig_scan(&r, "q", 1, 1), 2);
    EXPECT(rig_scan(&r, "q", 2, 9), 4);
    e = rig_id(&r, STORE_LOOKUP, 4);
    assert_int_equal(e->finishes[0].status, PUSHROD_FAILED);
    assert_int_equal(e->record_count, 0);
    assert_true(slice_equal(e->records[0].queue, slice_str("q")));
    e = rig_id(&r, STORE_REVIVE, 2);
    EXPECT(e, 2);
    assert_int_equal(e->records[0].attempts, 0);
    assert_int_equal(rig_id(&r, STORE_DROP, 1)->outcome, OUTCOME_STORED);
    assert_int_equal(rig_id(&r, STORE_DROP, 1)->outcome, OUTCOME_GONE);
    assert_int_equal(rig_id(&r, STORE_REVIVE, 1)->outcome, OUTCOME_GONE);
    EXPECT(rig_scan(&r, NULL, 0, 10), 3, 4);
    EXPECT(rig_fetch(&r, "q", start, 9), 2);
    rig_close(&r);
}

static void purge_leaves_what_is_kept(void **state)
{
    struct rig r;
    open_rig(&r, state);
    for (uint64_t id = 1; id <= 6; id++) {
        struct record in = rig_record(id, id == 6 ? "other" : "q", 4);
        in.due_ms = id == 5 ? r.now_ms + 10 : 0;
        rig_append(&r, &in);
    }
    uint64_t keep[] = {2, 4, 77};
    assert_int_equal(rig_purge(&r, "q", keep, 3)->count, 3);
    EXPECT(rig_fetch(&r, "q", start, 9), 2, 4);
    EXPECT(rig_fetch(&r, "other", start, 9), 6);
    assert_int_equal(rig_id(&r, STORE_LOOKUP, 1)->outcome, OUTCOME_GONE);
    assert_int_equal(rig_finish(&r, 5)->outcome, OUTCOME_GONE);
    assert_int_equal(rig_due(&r, r.now_ms + 100, 9)->next_ms, 0);
    append(&r, 7, 4);
    rig_reopen(&r);
    EXPECT(rig_fetch(&r, "q", start, 9), 2, 4, 7);
    assert_int_equal(rig_finish(&r, 2)->outcome, OUTCOME_STORED);
    rig_close(&r);
}

static const struct store_queue *queue_named(const struct rig *r, const char *name)
{
    for (size_t i = 0; i < r->opened.queue_count; i++)
        if (slice_equal(r->opened.queues[i].name, slice_str(name)))
            return &r->opened.queues[i];
    fail_msg("no queue %s", name);
    return NULL;
}

static void opening_tells_what_is_there(void **state)
{
    struct rig r;
    uint8_t instance[2][16] = {"fifteen letters", "another one, ok"};
    open_rig(&r, state);
    assert_int_equal(r.opened.boot, 1);
    assert_int_equal(r.opened.queue_count + r.opened.worker_count, 0);
    for (uint64_t id = 1; id <= 5; id++) {
        struct record in = rig_record(id, "q", 4);
        in.due_ms = id == 5 ? r.now_ms + 123 : 0;
        rig_append(&r, &in);
    }
    rig_finish(&r, 1);
    rig_kill(&r, 2, "boom");
    rig_do(&r, &(struct store_op){.kind = STORE_QUEUE,
                   .queue = slice_str("q"),
                   .paused = true,
                   .durability = DURABILITY_ASYNC});
    for (int i = 0; i < 2; i++)
        rig_do(&r, &(struct store_op){.kind = STORE_WORKER, .instance = slice_of(instance[i], 16)});
    rig_do(&r, &(struct store_op){
                   .kind = STORE_WORKER, .instance = slice_of(instance[0], 16), .gone = true});
    rig_reopen(&r);
    const struct store_queue *q = queue_named(&r, "q");
    assert_int_equal(r.opened.boot, 2);
    assert_int_equal(q->ready, 2);
    assert_int_equal(q->delayed, 1);
    assert_int_equal(q->dead, 1);
    assert_true(q->paused && q->durability == DURABILITY_ASYNC);
    assert_int_equal(r.opened.worker_count, 1);
    assert_memory_equal(r.opened.workers[0], instance[1], 16);
    assert_int_equal(r.opened.next_due_ms, r.now_ms + 123);
    rig_close(&r);
}

static void ids_are_given_once(void **state)
{
    struct rig r;
    uint64_t next = 1;
    open_rig(&r, state);
    for (int life = 0; life < 3; life++) {
        assert_true(r.opened.first_id >= next);
        next = r.opened.first_id + r.opened.id_count;
        for (int i = 0; i < 3; i++) {
            const struct store_event *e =
                rig_do(&r, &(struct store_op){.kind = STORE_IDS, .limit = 1000});
            assert_int_equal(e->count, 1000);
            assert_true(e->id >= next);
            next = e->id + e->count;
        }
        rig_reopen(&r);
    }
    rig_close(&r);
}

static void a_restart_knows_what_may_be_running(void **state)
{
    struct rig r;
    open_rig(&r, state);
    for (uint64_t id = 1; id <= 6; id++) {
        struct record in = rig_record(id, "q", 4);
        in.windowed = id == 5;
        rig_append(&r, &in);
    }
    const struct store_event *e = rig_fetch(&r, "q", start, 3);
    for (size_t i = 0; i < e->record_count; i++)
        assert_false(e->records[i].maybe_running);
    rig_reopen(&r);
    e = rig_fetch(&r, "q", start, 9);
    EXPECT(e, 1, 2, 3, 4, 5, 6);
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(e->records[i].maybe_running, i <= 2 || i == 4);
    assert_true(rig_id(&r, STORE_LOOKUP, 5)->records[0].maybe_running);
    rig_close(&r);
}

/* A look-up waits for a commit, and what is async does not: yet it does not overtake that. */
static void async_operations_keep_their_place(void **state)
{
    struct rig r;
    open_rig(&r, state);
    struct record in = rig_record(1, "q", 4);
    struct finish f = {.id = 1, .status = 1};
    struct store_op ops[] = {{.kind = STORE_APPEND, .record = &in, .async = true},
        {.kind = STORE_LOOKUP, .id = 1}, {.kind = STORE_FINISH, .finish = &f, .async = true}};
    r.backend->ops->submit(r.store, ops, 3, r.now_ms);
    for (size_t i = 0; i < 3; i++) {
        const struct store_event *e = rig_next(&r);
        assert_int_equal(e->kind, ops[i].kind);
        assert_int_equal(e->outcome, OUTCOME_STORED);
    }
    rig_reopen(&r);
    assert_int_equal(rig_id(&r, STORE_LOOKUP, 1)->outcome, OUTCOME_GONE);
    rig_close(&r);
}

#define FOR(test, n)                                                                               \
    {                                                                                              \
#test ", " #n, test, NULL, NULL, (void *)(uintptr_t)&backends[n]                           \
    }
#define EACH(test) FOR(test, 0), FOR(test, 1), FOR(test, 2)

int main(void)
{
    const struct CMUnitTest tests[] = {EACH(append_keeps_every_field),
        EACH(large_payloads_and_results_come_back), EACH(order_is_priority_then_id),
        EACH(fetch_sees_appends_in_flight), EACH(fetch_stops_at_its_bytes),
        EACH(finish_and_reschedule_of_unknown_ids), EACH(an_id_is_appended_once),
        EACH(due_comes_in_bounded_steps), EACH(expired_tasks_are_told_once),
        EACH(rescheduled_tasks_change_places), EACH(unique_keys_hold_until_the_task_ends),
        EACH(unique_windows_end_with_time), EACH(finishes_are_kept_until_forgotten_or_over),
        EACH(dead_letters_are_listed_revived_and_dropped), EACH(purge_leaves_what_is_kept),
        EACH(opening_tells_what_is_there), EACH(ids_are_given_once),
        EACH(a_restart_knows_what_may_be_running), EACH(async_operations_keep_their_place)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
