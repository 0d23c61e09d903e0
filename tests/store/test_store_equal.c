/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random operations on the LMDB store and on the memory store, with reopenings: every event must
 * be the same. SEED=n replays a run, STEPS=n sets its length.
 */
#include <string.h>
#include "tests/store/rig.h"
#include "tests/unit/unit.h"

#define IDS 300u

static uint64_t seed;

struct pair {
    struct rig one; /* the oracle */
    struct rig two;
    uint64_t random;
    uint64_t next_id;
    uint64_t step;
    struct order_key after;
};

static uint64_t pick(struct pair *p, uint64_t below)
{
    return random_next(&p->random) % below;
}

static const char *pick_queue(struct pair *p)
{
    static const char *const names[] = {"mail", "mail.fast", "thumbs"};
    return names[pick(p, 3)];
}

static uint64_t pick_id(struct pair *p)
{
    uint64_t back = pick(p, IDS);
    return p->next_id > back + 1 ? p->next_id - 1 - back : 1;
}

/* ---- the same? ---- */

static void same_slice(struct slice a, struct slice b)
{
    assert_int_equal(a.size, b.size);
    assert_int_equal(a.data == NULL, b.data == NULL);
    if (a.data)
        assert_memory_equal(a.data, b.data, a.size);
}

static void same_record(const struct record *a, const struct record *b)
{
    same_slice(a->queue, b->queue);
    same_slice(a->payload, b->payload);
    same_slice(a->headers, b->headers);
    same_slice(a->tag, b->tag);
    same_slice(a->unique, b->unique);
    same_slice(a->target, b->target);
    same_slice(a->history, b->history);
    assert_int_equal(a->id, b->id);
    assert_int_equal(a->due_ms, b->due_ms);
    assert_int_equal(a->expires_ms, b->expires_ms);
    assert_int_equal(a->unique_ms, b->unique_ms);
    assert_int_equal(a->keep_ms, b->keep_ms);
    assert_int_equal(a->attempts, b->attempts);
    assert_int_equal(a->deaths, b->deaths);
    assert_int_equal(a->priority, b->priority);
    assert_int_equal(a->suspect, b->suspect);
    assert_int_equal(a->windowed, b->windowed);
    assert_int_equal(a->maybe_running, b->maybe_running);
    assert_int_equal(a->body == NULL, b->body == NULL);
}

static void same_finish(const struct finish *a, const struct finish *b)
{
    assert_int_equal(a->id, b->id);
    assert_int_equal(a->status, b->status);
    assert_int_equal(a->dead, b->dead);
    assert_int_equal(a->keep_until_ms, b->keep_until_ms);
    same_slice(a->result, b->result);
    same_slice(a->text, b->text);
    same_slice(a->tag, b->tag);
}

static void same_event(const struct store_event *a, const struct store_event *b)
{
    assert_int_equal(a->outcome, b->outcome);
    assert_int_equal(a->id, b->id);
    assert_int_equal(a->count, b->count);
    assert_int_equal(a->record_count, b->record_count);
    assert_int_equal(a->exhausted, b->exhausted);
    assert_int_equal(a->next_ms, b->next_ms);
    for (size_t i = 0; i < a->record_count; i++)
        same_record(&a->records[i], &b->records[i]);
    assert_int_equal(a->finishes == NULL, b->finishes == NULL);
    size_t finishes = !a->finishes ? 0 : a->kind == STORE_SCAN ? a->record_count : 1;
    for (size_t i = 0; i < finishes; i++)
        same_finish(&a->finishes[i], &b->finishes[i]);
}

static const struct store_event *both(struct pair *p, const struct store_op *op)
{
    if (getenv("TRACE"))
        print_message("%llu: op %d id %llu\n", (unsigned long long)p->step, op->kind,
            (unsigned long long)(op->record   ? op->record->id
                                 : op->finish ? op->finish->id
                                              : op->id));
    const struct store_event *a = rig_do(&p->one, op);
    same_event(a, rig_do(&p->two, op));
    return a;
}

/* ---- the operations ---- */

static void do_append(struct pair *p)
{
    static const char *const keys[] = {"a", "b", "c"};
    struct record r = rig_record(p->next_id++, pick_queue(p), (unsigned)pick(p, 10));
    size_t size = pick(p, 20) == 0 ? 5000 + pick(p, 200000) : 0;
    r.body = size ? rig_body(r.id, size) : NULL;
    r.payload = size ? body_slice(r.body) : r.payload;
    r.windowed = pick(p, 2);
    r.due_ms = pick(p, 3) ? 0 : p->one.now_ms + pick(p, 400);
    r.expires_ms = pick(p, 4) ? 0 : p->one.now_ms + pick(p, 400);
    r.unique = pick(p, 4) ? (struct slice){0} : slice_str(keys[pick(p, 3)]);
    r.unique_ms = pick(p, 2) ? 0 : p->one.now_ms + pick(p, 300);
    r.tag = pick(p, 2) ? slice_str("tag") : (struct slice){0};
    r.headers = pick(p, 5) ? (struct slice){0} : slice_str("headers");
    both(p, &(struct store_op){.kind = STORE_APPEND, .record = &r, .async = pick(p, 2)});
    body_unref(r.body);
}

static void do_finish(struct pair *p)
{
    struct finish f = {.id = pick_id(p), .status = PUSHROD_DONE, .finished_ms = p->one.now_ms};
    f.keep_until_ms = pick(p, 3) ? 0 : p->one.now_ms + pick(p, 2000);
    f.dead = pick(p, 5) == 0;
    f.history = pick(p, 2) ? slice_str("history") : (struct slice){0};
    f.text = slice_str("text");
    f.tag = slice_str("tag");
    size_t size = pick(p, 8) == 0 ? 70000 + pick(p, 90000) : 0;
    f.body = size ? rig_body(f.id, size) : NULL;
    f.result = size ? body_slice(f.body) : slice_str("result");
    both(p, &(struct store_op){.kind = STORE_FINISH, .finish = &f, .async = pick(p, 2)});
    body_unref(f.body);
}

static void do_reschedule(struct pair *p)
{
    struct record r = {.id = pick_id(p), .attempts = (uint32_t)pick(p, 5)};
    r.due_ms = pick(p, 2) ? 0 : p->one.now_ms + pick(p, 300);
    r.deaths = (uint16_t)pick(p, 3);
    r.suspect = pick(p, 2);
    r.windowed = pick(p, 2);
    r.history = pick(p, 3) ? (struct slice){0} : slice_str("another death");
    both(p, &(struct store_op){.kind = STORE_RESCHEDULE, .record = &r, .async = pick(p, 2)});
}

static void do_fetch(struct pair *p)
{
    struct store_op op = {.kind = STORE_FETCH,
        .queue = slice_str(pick_queue(p)),
        .limit = (uint32_t)pick(p, 30),
        .limit_bytes = pick(p, 2) ? 0 : pick(p, 100000)};
    op.after =
        pick(p, 2) ? (struct order_key){0} : (struct order_key){(uint8_t)pick(p, 10), pick_id(p)};
    both(p, &op);
}

static void do_due(struct pair *p)
{
    p->one.now_ms += pick(p, 60);
    p->two.now_ms = p->one.now_ms;
    both(p, &(struct store_op){
                .kind = STORE_DUE, .until_ms = p->one.now_ms, .limit = (uint32_t)pick(p, 12)});
}

static void do_scan(struct pair *p)
{
    struct store_op op = {.kind = STORE_SCAN, .limit = (uint32_t)pick(p, 9), .id = pick_id(p) - 1};
    if (pick(p, 2))
        op.queue = slice_str(pick_queue(p));
    if (pick(p, 3) == 0)
        op.id = 0;
    both(p, &op);
}

static void do_purge(struct pair *p)
{
    uint64_t keep[5];
    uint64_t id = p->next_id > 60 ? p->next_id - 60 : 1;
    for (size_t i = 0; i < 5; i++, id += 1 + pick(p, 12))
        keep[i] = id;
    both(p, &(struct store_op){.kind = STORE_PURGE,
                .queue = slice_str(pick_queue(p)),
                .keep = keep,
                .keep_count = pick(p, 6)});
}

static void do_by_id(struct pair *p)
{
    static const enum store_op_kind kinds[] = {
        STORE_LOOKUP, STORE_LOOKUP, STORE_FORGET, STORE_REVIVE, STORE_DROP};
    both(p, &(struct store_op){.kind = kinds[pick(p, 5)], .id = pick_id(p)});
}

static int by_name(const void *a, const void *b)
{
    const struct store_queue *x = a;
    const struct store_queue *y = b;
    size_t size = x->name.size < y->name.size ? x->name.size : y->name.size;
    int order = memcmp(x->name.data, y->name.data, size);
    return order ? order : (x->name.size > y->name.size) - (x->name.size < y->name.size);
}

static void sorted_queues(const struct rig *r, struct store_queue *into)
{
    memcpy(into, r->opened.queues, r->opened.queue_count * sizeof(*into));
    qsort(into, r->opened.queue_count, sizeof(*into), by_name);
}

static void do_reopen(struct pair *p)
{
    struct store_queue a[8];
    struct store_queue b[8];
    if (getenv("TRACE"))
        print_message("%llu: reopen\n", (unsigned long long)p->step);
    rig_reopen(&p->one);
    rig_reopen(&p->two);
    assert_int_equal(p->one.opened.boot, p->two.opened.boot);
    assert_int_equal(p->one.opened.first_id, p->two.opened.first_id);
    assert_int_equal(p->one.opened.next_due_ms, p->two.opened.next_due_ms);
    assert_int_equal(p->one.opened.queue_count, p->two.opened.queue_count);
    sorted_queues(&p->one, a);
    sorted_queues(&p->two, b);
    for (size_t i = 0; i < p->one.opened.queue_count; i++) {
        same_slice(a[i].name, b[i].name);
        assert_int_equal(a[i].ready, b[i].ready);
        assert_int_equal(a[i].delayed, b[i].delayed);
        assert_int_equal(a[i].dead, b[i].dead);
    }
}

static void one_step(struct pair *p)
{
    uint64_t n = pick(p, 1000);
    if (n < 350)
        do_append(p);
    else if (n < 600)
        do_finish(p);
    else if (n < 700)
        do_reschedule(p);
    else if (n < 780)
        do_fetch(p);
    else if (n < 850)
        do_due(p);
    else if (n < 960)
        do_by_id(p);
    else if (n < 985)
        do_scan(p);
    else if (n < 992)
        do_purge(p);
    else
        do_reopen(p);
}

static void same_as_memory(void **state)
{
    static struct pair p;
    const char *steps = getenv("STEPS");
    p = (struct pair){.random = seed, .next_id = 1};
    rig_open(&p.one, &backends[0]);
    rig_open(&p.two, *state);
    uint64_t count = steps ? strtoull(steps, NULL, 10) : 6000;
    for (p.step = 0; p.step < count; p.step++)
        one_step(&p);
    rig_close(&p.one);
    rig_close(&p.two);
}

/* A dead letter whose finish was kept: that is gone with the replay, whatever comes of it. */
static void the_finish_before_a_replay_is_forgotten(void **state)
{
    struct rig r;
    rig_open(&r, *state);
    for (uint64_t id = 1; id <= 2; id++) {
        struct record in = rig_record(id, "q", 4);
        struct body *large = id == 2 ? rig_body(id, 300000) : NULL;
        struct finish f = {.id = id,
            .status = PUSHROD_FAILED,
            .finished_ms = r.now_ms,
            .keep_until_ms = r.now_ms + 600000,
            .body = large,
            .result = large ? body_slice(large) : slice_str("the old one"),
            .dead = true};
        assert_int_equal(rig_append(&r, &in)->outcome, OUTCOME_STORED);
        struct store_op op = {.kind = STORE_FINISH, .finish = &f};
        assert_int_equal(rig_do(&r, &op)->outcome, OUTCOME_STORED);
        rig_reopen(&r);
        assert_int_equal(rig_id(&r, STORE_REVIVE, id)->record_count, 1);
        assert_int_equal(rig_id(&r, STORE_LOOKUP, id)->record_count, 1);
        assert_int_equal(rig_finish(&r, id)->outcome, OUTCOME_STORED);
        assert_int_equal(rig_id(&r, STORE_LOOKUP, id)->outcome, OUTCOME_GONE);
        rig_reopen(&r);
        assert_int_equal(rig_id(&r, STORE_LOOKUP, id)->outcome, OUTCOME_GONE);
        body_unref(large);
    }
    rig_close(&r);
}

/* All of it in one commit. What need not be in the journal is left out; but the first end is. */
static void a_second_end_makes_the_first_forgotten(void **state)
{
    struct rig r;
    rig_open(&r, *state);
    struct record in = rig_record(1, "q", 4);
    struct finish dead = {.id = 1,
        .status = PUSHROD_FAILED,
        .finished_ms = r.now_ms,
        .keep_until_ms = r.now_ms + 600000,
        .dead = true};
    struct finish end = {.id = 1, .status = PUSHROD_DONE};
    struct store_op ops[] = {{.kind = STORE_APPEND, .record = &in},
        {.kind = STORE_FINISH, .finish = &dead}, {.kind = STORE_REVIVE, .id = 1},
        {.kind = STORE_FINISH, .finish = &end}};
    r.backend->ops->submit(r.store, ops, 4, r.now_ms);
    for (int i = 0; i < 4; i++)
        assert_int_equal(rig_next(&r)->outcome, OUTCOME_STORED);
    assert_int_equal(rig_id(&r, STORE_LOOKUP, 1)->outcome, OUTCOME_GONE);
    rig_reopen(&r);
    assert_int_equal(rig_id(&r, STORE_LOOKUP, 1)->outcome, OUTCOME_GONE);
    rig_close(&r);
}

static const struct store_event *append_unique(struct rig *r, uint64_t id)
{
    struct record in = rig_record(id, "q", 4);
    in.unique = slice_str("key");
    return rig_append(r, &in);
}

/* A replayed task takes its key again, unless another one has it: that one keeps it. */
static void a_replay_takes_no_key_from_another(void **state)
{
    struct rig r;
    rig_open(&r, *state);
    assert_int_equal(append_unique(&r, 1)->outcome, OUTCOME_STORED);
    rig_kill(&r, 1, "no");
    assert_int_equal(append_unique(&r, 2)->outcome, OUTCOME_STORED);
    assert_int_equal(rig_id(&r, STORE_REVIVE, 1)->record_count, 1);
    assert_int_equal(append_unique(&r, 3)->id, 2);
    rig_finish(&r, 1); /* without the key, it frees none */
    assert_int_equal(append_unique(&r, 3)->outcome, OUTCOME_HELD);
    rig_kill(&r, 2, "no");
    assert_int_equal(rig_id(&r, STORE_REVIVE, 2)->record_count, 1);
    rig_reopen(&r);
    assert_int_equal(append_unique(&r, 3)->outcome, OUTCOME_HELD);
    rig_finish(&r, 2);
    assert_int_equal(append_unique(&r, 3)->outcome, OUTCOME_STORED);
    rig_close(&r);
}

/* Replayed in the window that its key has from before, it has none: so a purge keeps none for it.
 */
static void a_purge_frees_what_its_task_has_no_more(void **state)
{
    static const uint64_t keep[] = {1};
    struct rig r;
    rig_open(&r, *state);
    struct record in = rig_record(1, "q", 4);
    in.unique = slice_str("key");
    in.unique_ms = r.now_ms + 60000;
    assert_int_equal(rig_append(&r, &in)->outcome, OUTCOME_STORED);
    rig_kill(&r, 1, "no");
    assert_int_equal(rig_id(&r, STORE_REVIVE, 1)->record_count, 1);
    assert_int_equal(append_unique(&r, 2)->outcome, OUTCOME_HELD);
    assert_int_equal(rig_purge(&r, "q", keep, 1)->count, 0);
    assert_int_equal(append_unique(&r, 2)->outcome, OUTCOME_STORED);
    rig_close(&r);
}

#define ON(test, n) cmocka_unit_test_prestate(test, (void *)(uintptr_t)&backends[n])

int main(void)
{
    seed = random_seed();
    static struct backend mixed = {"lmdb, both", &store_lmdb, true, 30};
    const struct CMUnitTest tests[] = {ON(same_as_memory, 1), ON(same_as_memory, 2),
        cmocka_unit_test_prestate(same_as_memory, &mixed),
        ON(the_finish_before_a_replay_is_forgotten, 0),
        ON(the_finish_before_a_replay_is_forgotten, 1),
        ON(the_finish_before_a_replay_is_forgotten, 2),
        ON(a_second_end_makes_the_first_forgotten, 0),
        ON(a_second_end_makes_the_first_forgotten, 1), ON(a_replay_takes_no_key_from_another, 0),
        ON(a_replay_takes_no_key_from_another, 1), ON(a_replay_takes_no_key_from_another, 2),
        ON(a_purge_frees_what_its_task_has_no_more, 0),
        ON(a_purge_frees_what_its_task_has_no_more, 1)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
