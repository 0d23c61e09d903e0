/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The LMDB store's journal against its tables: what a restart makes of operations that were
 * applied in part, and what the index costs meanwhile.
 */
#define _GNU_SOURCE /* RTLD_NEXT */
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include "server/store/lmdb.h"
#include "tests/store/rig.h"
#include "tests/unit/unit.h"

#define SMALL   ((uint64_t)64 << 20) /* of this size, the journal goes to the tables at 2 MiB */
#define FILLER  500u                 /* tasks of one batch */
#define SOON_MS 200u                 /* a generation begins to age; its rows are there by then */

static const struct order_key start = {0, 0};

/* Of what the store's thread owns: for waiting until it has come to rest, so nothing is locked. */
#define PEEK __attribute__((noinline, no_sanitize_thread)) static

PEEK uint64_t index_bytes(const struct rig *r)
{
    return ((const struct lmdb *)r->store)->index.bytes;
}

PEEK size_t index_places(const struct rig *r)
{
    return ((const struct lmdb *)r->store)->index.fresh_capacity;
}

/* Everything is in the tables then, if the journal goes there at once. */
static void wait_for_tables(struct rig *r)
{
    for (int i = 0; i < 10000 && index_bytes(r); i++)
        rig_id(r, STORE_LOOKUP, 1);
}

static void open_small(struct rig *r)
{
    rig_open(r, &backends[1]);
    rig_stop(r);
    rig_remove(r);
    r->config.max_bytes = SMALL;
    rig_start(r);
}

static void append(struct rig *r, uint64_t id, const char *queue)
{
    struct record record = rig_record(id, queue, 4);
    assert_int_equal(rig_append(r, &record)->outcome, OUTCOME_STORED);
}

static void submit_filler(struct rig *r, uint64_t first, const char *payload)
{
    static struct record records[FILLER];
    static struct store_op ops[FILLER];
    for (size_t i = 0; i < FILLER; i++) {
        records[i] = rig_record(first + i, "filler", 4);
        records[i].payload = slice_str(payload);
        ops[i] = (struct store_op){.kind = STORE_APPEND, .record = &records[i]};
    }
    r->backend->ops->submit(r->store, ops, FILLER, r->now_ms);
    for (size_t i = 0; i < FILLER; i++)
        assert_int_equal(rig_next(r)->outcome, OUTCOME_STORED);
}

/* Until what is in the journal begins to age: from here on each commit takes some of it along. */
static uint64_t fill_generation(struct rig *r, uint64_t first)
{
    const struct lmdb *l = (const struct lmdb *)r->store;
    uint64_t size = 0;
    for (; size < l->index_bound + l->index_bound / 8; first += FILLER) {
        submit_filler(r, first, "of some size, so that it fills");
        size += FILLER * (sizeof(struct entry) + 100);
    }
    return first;
}

static void settle(struct rig *r)
{
    for (int i = 0; i < 60; i++)
        rig_id(r, STORE_LOOKUP, 1);
}

static uint64_t ready_at_open(const struct rig *r, const char *queue)
{
    for (size_t i = 0; i < r->opened.queue_count; i++)
        if (slice_equal(r->opened.queues[i].name, slice_str(queue)))
            return r->opened.queues[i].ready;
    return 0;
}

/* Its end is about to be applied when it is revived: so the tables have it, revived already. */
static void a_revived_task_ends_once(void **state)
{
    enum { FIRST = 900000, COUNT = 20 };
    struct rig r;
    (void)state;
    open_small(&r);
    for (uint64_t i = 0; i < COUNT; i++)
        append(&r, FIRST + i, "q");
    uint64_t next = fill_generation(&r, 1);
    settle(&r);
    for (uint64_t i = 0; i < COUNT; i++)
        assert_int_equal(rig_kill(&r, FIRST + i, "boom")->outcome, OUTCOME_STORED);
    fill_generation(&r, next);
    for (uint64_t i = 0; i < COUNT; i++)
        assert_int_equal(rig_id(&r, STORE_REVIVE, FIRST + i)->outcome, OUTCOME_STORED);
    settle(&r);
    rig_reopen(&r);
    assert_int_equal(ready_at_open(&r, "q"), COUNT);
    for (uint64_t i = 0; i < COUNT; i++) {
        assert_int_equal(rig_finish(&r, FIRST + i)->outcome, OUTCOME_STORED);
        assert_int_equal(rig_id(&r, STORE_LOOKUP, FIRST + i)->outcome, OUTCOME_GONE);
    }
    assert_int_equal(rig_fetch(&r, "q", start, COUNT)->record_count, 0);
    rig_reopen(&r);
    assert_int_equal(ready_at_open(&r, "q"), 0);
    rig_close(&r);
}

/* The finish is in the journal, its task in the tables, under the number that the queue had. */
static void a_purge_leaves_kept_finishes(void **state)
{
    struct rig r;
    rig_open(&r, *state);
    r.config.settle_ms = 60000;
    append(&r, 1, "q");
    append(&r, 2, "q");
    if (r.backend->settle_ms == 1)
        wait_for_tables(&r);
    rig_reopen(&r);
    rig_finish_kept(&r, 1, "answer", 60000);
    assert_int_equal(rig_purge(&r, "q", NULL, 0)->count, 1);
    for (int life = 0; life < 2; life++, rig_reopen(&r)) {
        const struct store_event *e = rig_id(&r, STORE_LOOKUP, 1);
        assert_int_equal(e->outcome, OUTCOME_STORED);
        assert_true(slice_equal(e->finishes[0].result, slice_str("answer")));
        assert_int_equal(rig_id(&r, STORE_LOOKUP, 2)->outcome, OUTCOME_GONE);
    }
    assert_int_equal(rig_id(&r, STORE_FORGET, 1)->outcome, OUTCOME_STORED);
    rig_reopen(&r);
    assert_int_equal(rig_id(&r, STORE_LOOKUP, 1)->outcome, OUTCOME_GONE);
    rig_close(&r);
}

/*
 * Results go by tables of four minutes: those that a step back of the clock meets must stay. After
 * a step by whole turns of the tables each is met by results that expire at another time.
 */
static void a_clock_that_goes_back_drops_no_finish(void **state)
{
    enum { MINUTE = 60000, STEPS = 5, KEPT = 3 };
    static const uint64_t back_ms[STEPS] = {
        0, 2000, 32 * MINUTE, 8 * 60 * MINUTE, 40 * 24 * 60 * UINT64_C(60000)};
    struct rig r;
    uint64_t id = 0;
    rig_open(&r, *state);
    r.now_ms = UINT64_C(1700000000000) / (4 * MINUTE) * (4 * MINUTE) + 1000;
    for (unsigned step = 0; step < STEPS; step++) {
        r.now_ms -= back_ms[step];
        for (unsigned i = 1; i <= KEPT; i++) {
            append(&r, ++id, "q");
            rig_finish_kept(&r, id, "result", i * 4 * MINUTE - 500);
        }
        wait_for_tables(&r);
        for (uint64_t kept = 1; kept <= id; kept++)
            assert_non_null(rig_id(&r, STORE_LOOKUP, kept)->finishes);
    }
    rig_close(&r);
}

/* ---- what the index costs ---- */

/* The bytes decide when the journal ages, so they must come back to nothing. */
static void the_index_counts_its_bytes(void **state)
{
    struct rig r;
    rig_open(&r, *state);
    struct record in = rig_record(1, "q", 4);
    in.due_ms = r.now_ms + 10;
    rig_append(&r, &in);
    assert_int_equal(rig_due(&r, r.now_ms + 10, 9)->record_count, 1);
    rig_kill(&r, 1, "boom");
    assert_int_equal(rig_id(&r, STORE_REVIVE, 1)->record_count, 1);
    assert_int_equal(rig_purge(&r, "q", NULL, 0)->count, 1);
    wait_for_tables(&r);
    assert_int_equal(index_bytes(&r), 0);
    rig_close(&r);
}

/* They leave nothing in the journal; nor may they leave anything in memory. */
static void tasks_that_end_at_once_leave_nothing(void **state)
{
    enum { ROUNDS = 2000 };
    static struct record records[FILLER];
    static struct finish finishes[FILLER];
    static struct store_op ops[2 * FILLER];
    struct rig r;
    uint64_t id = 1;
    rig_open(&r, *state);
    size_t before = 0;
    for (int round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < FILLER; i++, id++) {
            records[i] = rig_record(id, "q", 4);
            finishes[i] = (struct finish){.id = id, .status = PUSHROD_DONE};
            ops[2 * i] =
                (struct store_op){.kind = STORE_APPEND, .async = true, .record = &records[i]};
            ops[2 * i + 1] =
                (struct store_op){.kind = STORE_FINISH, .async = true, .finish = &finishes[i]};
        }
        r.backend->ops->submit(r.store, ops, 2 * FILLER, r.now_ms);
        for (size_t i = 0; i < 2 * FILLER; i++)
            rig_next(&r);
        if (round == ROUNDS / 10)
            before = index_places(&r);
    }
    assert_true(index_places(&r) <= before + 4096);
    rig_close(&r);
}

static void places_are_sorted(void **state)
{
    enum { MOST = 300 };
    static struct entry entries[4];
    uint64_t seed = random_seed();
    (void)state;
    for (int round = 0; round < 500; round++) {
        struct place places[MOST];
        size_t count = random_next(&seed) % (MOST + 1), run = random_next(&seed) % 40 + 1;
        uint64_t sum = 0;
        for (size_t i = 0; i < count; i++) {
            uint64_t id = random_next(&seed) % 1000;
            id = i % run && places[i - 1].id < 990 ? places[i - 1].id + id % 3 : id;
            places[i] = (struct place){id, &entries[id % 4]};
            sum += id;
        }
        places_sort(places, count);
        for (size_t i = 0; i < count; i++) {
            assert_true(i == 0 || places[i - 1].id <= places[i].id);
            assert_ptr_equal(places[i].entry, &entries[places[i].id % 4]);
            sum -= places[i].id;
        }
        assert_int_equal(sum, 0);
    }
}

/* Before LMDB's own: the next transaction that would write cannot begin, while it is set. */
static atomic_bool no_memory;

int mdb_txn_begin(MDB_env *env, MDB_txn *parent, unsigned flags, MDB_txn **txn)
{
    int (*real)(MDB_env *, MDB_txn *, unsigned, MDB_txn **) = dlsym(RTLD_NEXT, "mdb_txn_begin");
    if (!(flags & MDB_RDONLY) && atomic_exchange(&no_memory, false))
        return ENOMEM;
    return real(env, parent, flags, txn);
}

/* What was asked for is answered, whichever step of the store it is that has no memory. */
static void a_group_that_cannot_begin_is_answered(void **state)
{
    struct rig r;
    (void)state;
    rig_open(&r, &backends[1]);
    for (uint64_t id = 1; id <= 10; id++) {
        struct record in = rig_record(id, "q", 4);
        atomic_store(&no_memory, true);
        const struct store_event *e = rig_append(&r, &in);
        bool stored = e->outcome == OUTCOME_STORED;
        assert_true(stored || e->outcome == OUTCOME_REFUSED);
        rig_wait_up(&r);
        assert_int_equal(rig_id(&r, STORE_LOOKUP, id)->record_count, stored);
    }
    atomic_store(&no_memory, false);
    rig_close(&r);
}

/* Rows of the journal that were deleted; after so many the store fails once. */
static _Atomic(const struct lmdb *) watched;
static atomic_size_t rows_gone;
static atomic_size_t fail_after;

int mdb_cursor_del(MDB_cursor *c, unsigned flags)
{
    int (*real)(MDB_cursor *, unsigned) = dlsym(RTLD_NEXT, "mdb_cursor_del");
    const struct lmdb *l = atomic_load(&watched);
    if (l && mdb_cursor_dbi(c) == l->tables[TABLE_JOURNAL] &&
        atomic_fetch_add(&rows_gone, 1) + 1 == atomic_load(&fail_after))
        atomic_store(&no_memory, true);
    return real(c, flags);
}

/* Commits that say that a generation ages, of which no row is left. */
static atomic_size_t rowless;

static bool has_row(struct lmdb *l, uint64_t last)
{
    MDB_cursor *c = table_cursor(l, TABLE_JOURNAL);
    struct slice key, value;
    uint64_t sequence = UINT64_MAX;
    if (cursor_get(l, c, &key, &value, MDB_FIRST))
        memcpy(&sequence, key.data, sizeof(sequence));
    mdb_cursor_close(c);
    return sequence <= last;
}

int mdb_txn_commit(MDB_txn *txn)
{
    int (*real)(MDB_txn *) = dlsym(RTLD_NEXT, "mdb_txn_commit");
    struct lmdb *l = (struct lmdb *)(uintptr_t)atomic_load(&watched);
    if (l && l->txn == txn) {
        uint64_t aging = meta_get(l, "aging", 0);
        if (aging && !has_row(l, aging))
            atomic_fetch_add(&rowless, 1);
    }
    return real(txn);
}

static void wait_for_rows_gone(struct rig *r, size_t rows)
{
    while (atomic_load(&rows_gone) < rows)
        rig_id(r, STORE_LOOKUP, 1);
}

/* A store of so many rows, which fails once when `fail` of them are gone. */
static void open_rows(struct rig *r, size_t rows, size_t fail)
{
    rig_open(r, &backends[1]);
    rig_stop(r);
    rig_remove(r);
    r->config.settle_ms = SOON_MS;
    rig_start(r);
    atomic_store(&rows_gone, 0);
    atomic_store(&fail_after, fail);
    atomic_store(&watched, (const struct lmdb *)r->store);
    for (uint64_t id = 1; id <= rows; id++)
        append(r, id, "q"); /* a group of its own, and a row */
}

/* Each commit takes a few: between two of them the store is opened again, and goes on from there.
 */
static void rows_go_in_steps(void **state)
{
    enum { ROWS = 300 };
    struct rig r;
    (void)state;
    open_rows(&r, ROWS, ROWS / 3);
    wait_for_rows_gone(&r, ROWS);
    /* We may not have heard yet that it was down; or it was a look for room that could not begin.
     */
    while (r.downs == 0) {
        atomic_store(&no_memory, true);
        rig_id(&r, STORE_LOOKUP, 1);
    }
    atomic_store(&no_memory, false);
    rig_wait_up(&r);
    wait_for_tables(&r);
    assert_int_equal(index_bytes(&r), 0);
    const struct store_event *e = rig_fetch(&r, "q", start, ROWS + 1);
    assert_int_equal(e->record_count, ROWS);
    for (size_t i = 0; i < ROWS; i++)
        assert_int_equal(e->records[i].id, i + 1);
    atomic_store(&watched, NULL);
    rig_close(&r);
}

/* After a restart its numbers would be given again, and rows that have them taken for old ones. */
static void a_generation_ages_while_it_has_rows(void **state)
{
    (void)state;
    for (uint64_t rows = 114; rows < 122; rows++) { /* what one step takes is among them */
        struct rig r;
        open_rows(&r, rows, 0);
        while (atomic_load(&rows_gone) < rows)
            sched_yield();
        rig_id(&r, STORE_LOOKUP, 1); /* comes behind that commit */
        assert_int_equal(atomic_load(&rowless), 0);
        atomic_store(&watched, NULL);
        rig_close(&r);
    }
}

PEEK uint64_t row_sequence(const struct rig *r)
{
    return ((const struct lmdb *)r->store)->sequence;
}

PEEK uint64_t commits(const struct rig *r)
{
    return ((const struct lmdb *)r->store)->commits;
}

/* However many batches it came in: each row takes time to delete. */
static void a_group_is_a_row(void **state)
{
    enum { BATCHES = 200 };
    static struct record records[BATCHES];
    struct rig r;
    (void)state;
    rig_open(&r, &backends[1]);
    for (uint64_t i = 0; i < BATCHES; i++) {
        records[i] = rig_record(i + 1, "q", 4);
        struct store_op op = {.kind = STORE_APPEND, .async = true, .record = &records[i]};
        r.backend->ops->submit(r.store, &op, 1, r.now_ms);
    }
    for (size_t i = 0; i < BATCHES; i++)
        assert_int_equal(rig_next(&r)->outcome, OUTCOME_STORED);
    append(&r, BATCHES + 1, "q");
    rig_id(&r, STORE_LOOKUP, 1); /* comes behind that commit, which is counted then */
    assert_in_range(row_sequence(&r), 1, commits(&r)); /* an async one waits 20 ms for more */
    rig_reopen(&r);
    assert_int_equal(ready_at_open(&r, "q"), BATCHES + 1);
    rig_close(&r);
}

static void append_due(struct rig *r, uint64_t id, const char *queue, uint64_t due_ms)
{
    struct record record = rig_record(id, queue, 4);
    record.due_ms = due_ms;
    assert_int_equal(rig_append(r, &record)->outcome, OUTCOME_STORED);
}

/* What a purge has left of the agenda is deleted in steps: all that is to be committed waits. */
static void due_takes_its_share_of_a_purge(void **state)
{
    enum { COUNT = 2500 };
    struct rig r;
    rig_open(&r, *state);
    for (uint64_t id = 1; id <= COUNT; id++)
        append_due(&r, id, "q", r.now_ms + 10);
    append_due(&r, COUNT + 1, "other", r.now_ms + 20);
    wait_for_tables(&r);
    const struct store_op ops[] = {{.kind = STORE_PURGE, .queue = slice_str("q")},
        {.kind = STORE_DUE, .until_ms = r.now_ms + 20, .limit = 9}};
    r.backend->ops->submit(r.store, ops, 2, r.now_ms);
    assert_int_equal(rig_next(&r)->count, COUNT);
    const struct store_event *e = rig_next(&r);
    for (int i = 0; i < COUNT && !e->record_count; i++) {
        assert_true(!e->exhausted && e->next_ms <= r.now_ms + 20);
        e = rig_due(&r, r.now_ms + 20, 9);
    }
    assert_int_equal(e->records[0].id, COUNT + 1);
    assert_true(e->exhausted && !e->next_ms);
    rig_close(&r);
}

/* Names come from strangers, who could choose a hundred thousand that meet in one cell. */
static void names_are_hashed_with_a_secret(void **state)
{
    struct rig a, b;
    (void)state;
    rig_open(&a, &backends[1]);
    rig_open(&b, &backends[1]);
    assert_int_not_equal(((const struct lmdb *)a.store)->queue_names.seed,
        ((const struct lmdb *)b.store)->queue_names.seed);
    rig_close(&a);
    rig_close(&b);
}

#define FOR(test, n)                                                                               \
    {                                                                                              \
#test ", " #n, test, NULL, NULL, (void *)(uintptr_t)&backends[n]                           \
    }

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_revived_task_ends_once),
        FOR(a_purge_leaves_kept_finishes, 1), FOR(a_purge_leaves_kept_finishes, 2),
        FOR(a_clock_that_goes_back_drops_no_finish, 2), FOR(the_index_counts_its_bytes, 2),
        FOR(tasks_that_end_at_once_leave_nothing, 1), FOR(due_takes_its_share_of_a_purge, 2),
        cmocka_unit_test(a_group_that_cannot_begin_is_answered),
        cmocka_unit_test(names_are_hashed_with_a_secret), cmocka_unit_test(places_are_sorted),
        cmocka_unit_test(rows_go_in_steps), cmocka_unit_test(a_generation_ages_while_it_has_rows),
        cmocka_unit_test(a_group_is_a_row)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
