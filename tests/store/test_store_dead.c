/* SPDX-License-Identifier: Apache-2.0 */
/* What store.h promises of dead letters that are listed and dropped, of every backend. */
#include <string.h>
#include "tests/store/rig.h"
#include "tests/unit/unit.h"

static void bury(struct rig *r, uint64_t id, const char *queue)
{
    struct record in = rig_record(id, queue, 4);
    assert_int_equal(rig_append(r, &in)->outcome, OUTCOME_STORED);
    assert_int_equal(rig_kill(r, id, "boom")->outcome, OUTCOME_STORED);
}

static void expect(const struct store_event *e, const char *ids, bool exhausted)
{
    char text[64] = "";
    assert_int_equal(e->outcome, OUTCOME_STORED);
    for (size_t i = 0; i < e->record_count; i++) {
        snprintf(text + strlen(text), 16, "%llu ", (unsigned long long)e->records[i].id);
        assert_int_equal(e->finishes[i].id, e->records[i].id);
    }
    assert_string_equal(text, ids);
    assert_int_equal(e->exhausted, exhausted);
}

static void they_are_listed_by_name_and_pattern(void **state)
{
    static const char *const queues[] = {"mail", "mail.b", "thumbs", "mail.a"};
    struct rig r;
    rig_open(&r, *state);
    for (uint64_t id = 1; id <= 8; id++)
        bury(&r, id, queues[id % 4]);
    expect(rig_scan(&r, NULL, 0, 9), "1 2 3 4 5 6 7 8 ", true);
    expect(rig_scan(&r, NULL, 0, 8), "1 2 3 4 5 6 7 8 ", true);
    expect(rig_scan(&r, NULL, 2, 3), "3 4 5 ", false);
    expect(rig_scan(&r, "mail", 0, 9), "4 8 ", true);
    expect(rig_scan(&r, "mail.*", 0, 9), "1 3 5 7 ", true);
    expect(rig_scan(&r, "mail.*", 1, 2), "3 5 ", false);
    expect(rig_scan(&r, "mail*", 0, 9), "1 3 4 5 7 8 ", true);
    expect(rig_scan(&r, "other", 0, 9), "", true);
    expect(rig_scan(&r, NULL, UINT64_MAX, 9), "", true);
    rig_close(&r);
}

/* It comes from a client, who may ask for anything. */
static void a_name_of_any_length_is_a_filter(void **state)
{
    static char name[100001];
    struct rig r;
    rig_open(&r, *state);
    bury(&r, 1, "q");
    memset(name, 'q', sizeof(name) - 1);
    expect(rig_scan(&r, name, 0, 9), "", true);
    name[sizeof(name) - 2] = '*';
    expect(rig_scan(&r, name, 0, 9), "", true);
    expect(rig_scan(&r, "", 0, 9), "", true);
    rig_close(&r);
}

/* A list of a thousand of 16 MiB each would be more than the machine has. */
static void a_list_is_without_bodies(void **state)
{
    struct rig r;
    rig_open(&r, *state);
    struct record in = rig_record(1, "q", 4);
    in.body = rig_body(1, 100000);
    in.payload = body_slice(in.body);
    assert_int_equal(rig_append(&r, &in)->outcome, OUTCOME_STORED);
    struct finish f = {.id = 1,
        .status = PUSHROD_FAILED,
        .dead = true,
        .text = slice_str("boom"),
        .body = in.body,
        .result = body_slice(in.body)};
    rig_do(&r, &(struct store_op){.kind = STORE_FINISH, .finish = &f});
    const struct store_event *e = rig_scan(&r, NULL, 0, 9);
    expect(e, "1 ", true);
    assert_true(e->records[0].payload.size == 100000 && !e->records[0].payload.data);
    assert_true(!e->records[0].body && !e->finishes[0].body && !e->finishes[0].result.data);
    assert_true(slice_equal(e->finishes[0].text, slice_str("boom")));
    e = rig_do(&r, &(struct store_op){.kind = STORE_LOOKUP, .id = 1, .payload = true});
    assert_int_equal(e->record_count, 0);
    assert_true(slice_equal(e->records[0].payload, body_slice(in.body)));
    assert_true(e->finishes[0].status == PUSHROD_FAILED);
    rig_reopen(&r);
    e = rig_id(&r, STORE_LOOKUP, 1);
    assert_true(!e->records[0].payload.data);
    e = rig_do(&r, &(struct store_op){.kind = STORE_LOOKUP, .id = 1, .payload = true});
    assert_true(slice_equal(e->records[0].payload, body_slice(in.body)));
    e = rig_id(&r, STORE_REVIVE, 1);
    assert_true(slice_equal(e->records[0].payload, body_slice(in.body)));
    body_unref(in.body);
    rig_close(&r);
}

/* Whoever counts them by queue has to know which queue has one less. */
static void a_drop_tells_the_queue(void **state)
{
    struct rig r;
    rig_open(&r, *state);
    bury(&r, 1, "q");
    const struct store_event *e = rig_id(&r, STORE_DROP, 1);
    assert_int_equal(e->record_count, 1);
    assert_true(slice_equal(e->records[0].queue, slice_str("q")));
    assert_int_equal(rig_id(&r, STORE_DROP, 1)->record_count, 0);
    rig_close(&r);
}

static void submit_many(struct rig *r, uint64_t first, size_t count)
{
    for (uint64_t id = first; id < first + count; id++) {
        struct record in = rig_record(id, "q", 4);
        struct store_op op = {.kind = STORE_APPEND, .record = &in};
        r->backend->ops->submit(r->store, &op, 1, r->now_ms);
    }
    for (size_t i = 0; i < count; i++)
        assert_int_equal(rig_next(r)->outcome, OUTCOME_STORED);
}

/* A commit each, which takes rows to the tables, and some of those that a purge left from them. */
static void let_settle(struct rig *r)
{
    for (int i = 0; i < 100; i++)
        rig_id(r, STORE_LOOKUP, 1);
}

/* Purged and replayed: what is left in the tables of its first life says nothing of the second. */
static void a_replay_forgets_the_times_that_were_purged(void **state)
{
    struct rig r;
    rig_open(&r, *state);
    struct record in = rig_record(1, "q", 0);
    in.due_ms = r.now_ms + 500;
    in.expires_ms = r.now_ms + 1000;
    assert_int_equal(rig_append(&r, &in)->outcome, OUTCOME_STORED);
    submit_many(&r, 2, 20000); /* they go before it, a part with each commit */
    let_settle(&r);
    struct finish dead = {.id = 1, .status = PUSHROD_FAILED, .dead = true};
    struct store_op ops[] = {{.kind = STORE_FINISH, .finish = &dead},
        {.kind = STORE_PURGE, .queue = slice_str("q")}, {.kind = STORE_REVIVE, .id = 1}};
    r.backend->ops->submit(r.store, ops, 3, r.now_ms);
    for (int i = 0; i < 3; i++)
        assert_int_equal(rig_next(&r)->outcome, OUTCOME_STORED);
    let_settle(&r);
    const struct store_event *e = rig_due(&r, r.now_ms + 2000, 10);
    assert_int_equal(e->record_count, 0);
    assert_int_equal(e->next_ms, 0);
    assert_int_equal(rig_finish(&r, 1)->outcome, OUTCOME_STORED);
    rig_close(&r);
}

#define FOR(test, n)                                                                               \
    {                                                                                              \
#test ", " #n, test, NULL, NULL, (void *)(uintptr_t)&backends[n]                           \
    }
#define ALL(test) FOR(test, 0), FOR(test, 1), FOR(test, 2)

int main(void)
{
    const struct CMUnitTest tests[] = {ALL(they_are_listed_by_name_and_pattern),
        ALL(a_name_of_any_length_is_a_filter), ALL(a_list_is_without_bodies),
        ALL(a_drop_tells_the_queue), ALL(a_replay_forgets_the_times_that_were_purged)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
