/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Nth call of LMDB fails, whichever it is: every operation is answered, what was refused can be
 * asked for again, and in the end everything is as if nothing had happened, now and after a
 * restart.
 */
#define _GNU_SOURCE /* RTLD_NEXT */
#include <dlfcn.h>
#include <errno.h>
#include <lmdb.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include "tests/store/rig.h"
#include "tests/unit/unit.h"

#define LARGE ((size_t)100 << 10) /* bytes: two parts */
#define STEP  8

static const struct order_key start = {0, 0};

/* ---- before LMDB's own functions ---- */

static atomic_long left;  /* calls until one fails; 0 or less: none does */
static atomic_bool taken; /* the next commit is done, and said to have failed */

static bool fails(void)
{
    return atomic_fetch_sub(&left, 1) == 1;
}

#define BEFORE(name, parameters, ...)                                                              \
    int name parameters;                                                                           \
    int name parameters                                                                            \
    {                                                                                              \
        int(*real) parameters = dlsym(RTLD_NEXT, #name);                                           \
        return fails() ? ENOMEM : real(__VA_ARGS__);                                               \
    }

BEFORE(mdb_txn_begin, (MDB_env * env, MDB_txn *parent, unsigned flags, MDB_txn **txn), env, parent,
    flags, txn)
BEFORE(
    mdb_get, (MDB_txn * txn, MDB_dbi table, MDB_val *key, MDB_val *value), txn, table, key, value)
BEFORE(mdb_put, (MDB_txn * txn, MDB_dbi table, MDB_val *key, MDB_val *value, unsigned flags), txn,
    table, key, value, flags)
BEFORE(
    mdb_del, (MDB_txn * txn, MDB_dbi table, MDB_val *key, MDB_val *value), txn, table, key, value)
BEFORE(mdb_drop, (MDB_txn * txn, MDB_dbi table, int whole), txn, table, whole)
BEFORE(mdb_cursor_open, (MDB_txn * txn, MDB_dbi table, MDB_cursor **cursor), txn, table, cursor)
BEFORE(mdb_cursor_get, (MDB_cursor * cursor, MDB_val *key, MDB_val *value, MDB_cursor_op op),
    cursor, key, value, op)
BEFORE(mdb_cursor_put, (MDB_cursor * cursor, MDB_val *key, MDB_val *value, unsigned flags), cursor,
    key, value, flags)
BEFORE(mdb_cursor_del, (MDB_cursor * cursor, unsigned flags), cursor, flags)

int mdb_txn_commit(MDB_txn *txn)
{
    int (*real)(MDB_txn *) = dlsym(RTLD_NEXT, "mdb_txn_commit");
    if (atomic_exchange(&taken, false))
        return real(txn) ? abort(), 0 : EIO;
    if (!fails())
        return real(txn);
    mdb_txn_abort(txn);
    return ENOMEM;
}

/* ---- what is done meanwhile ---- */

/* Until it is done. */
static const struct store_event *done(struct rig *r, struct store_op op)
{
    for (;;) {
        const struct store_event *e = rig_do(r, &op);
        if (e->outcome != OUTCOME_REFUSED)
            return e;
        rig_wait_up(r);
    }
}

static void append(struct rig *r, struct record record, bool async)
{
    done(r, (struct store_op){.kind = STORE_APPEND, .record = &record, .async = async});
}

static void finish(struct rig *r, struct finish finish, bool async)
{
    finish.finished_ms = r->now_ms;
    done(r, (struct store_op){.kind = STORE_FINISH, .finish = &finish, .async = async});
}

static void by_id(struct rig *r, enum store_op_kind kind, uint64_t id)
{
    done(r, (struct store_op){.kind = kind, .id = id, .limit = 10});
}

static struct record large(uint64_t id, struct body *body)
{
    struct record record = rig_record(id, "q", 4);
    record.body = body;
    record.payload = body_slice(body);
    return record;
}

static void submissions(struct rig *r, struct body *body)
{
    struct record keyed = large(3, body), delayed = rig_record(4, "q", 4);
    keyed.unique = slice_str("key");
    delayed.due_ms = r->now_ms + 1000;
    delayed.expires_ms = r->now_ms + 1500;
    append(r, rig_record(1, "q", 4), false);
    append(r, rig_record(2, "async", 4), true);
    append(r, keyed, false);
    append(r, delayed, false);
    done(r, (struct store_op){.kind = STORE_FETCH, .queue = slice_str("q"), .limit = 10});
    done(r, (struct store_op){
                .kind = STORE_RESCHEDULE, .record = &(struct record){.id = 1, .attempts = 1}});
}

static void ends(struct rig *r, struct body *body)
{
    uint64_t until_ms = r->now_ms + 60000;
    finish(r, (struct finish){.id = 2, .status = 1}, true);
    finish(r,
        (struct finish){
            .id = 1, .status = 1, .keep_until_ms = until_ms, .result = slice_str("small")},
        false);
    finish(r,
        (struct finish){.id = 3,
            .status = 2,
            .dead = true,
            .keep_until_ms = until_ms,
            .body = body,
            .result = body_slice(body)},
        false);
    by_id(r, STORE_SCAN, 0);
    by_id(r, STORE_REVIVE, 3);
    done(r, (struct store_op){.kind = STORE_DUE, .until_ms = r->now_ms + 2000, .limit = 10});
    finish(r, (struct finish){.id = 4, .status = 1}, false);
}

static void operators(struct rig *r)
{
    static const uint64_t keep[] = {3};
    struct slice q = slice_str("q"), instance = slice_str("0123456789abcdef");
    append(r, rig_record(5, "q", 4), false);
    done(r, (struct store_op){.kind = STORE_PURGE, .queue = q, .keep = keep, .keep_count = 1});
    by_id(r, STORE_FORGET, 1);
    done(r, (struct store_op){.kind = STORE_QUEUE, .queue = q, .paused = true});
    done(r, (struct store_op){.kind = STORE_WORKER, .instance = instance});
    by_id(r, STORE_IDS, 0);
    finish(r, (struct finish){.id = 3, .status = 2, .dead = true}, false);
    by_id(r, STORE_DROP, 3);
}

static void workload(struct rig *r, struct body *body)
{
    submissions(r, body);
    ends(r, body);
    operators(r);
    append(r, large(6, body), false);
    append(r, rig_record(7, "async", 4), true);
}

/* ---- what is there then ---- */

static void check_tasks(struct rig *r, const struct body *body)
{
    for (uint64_t id = 1; id <= 5; id++)
        assert_int_equal(rig_id(r, STORE_LOOKUP, id)->outcome, OUTCOME_GONE);
    const struct store_event *e = rig_fetch(r, "q", start, 10);
    assert_int_equal(e->record_count, 1);
    assert_int_equal(e->records[0].id, 6);
    assert_true(slice_equal(e->records[0].payload, body_slice(body)));
    e = rig_fetch(r, "async", start, 10);
    assert_int_equal(e->record_count, 1);
    assert_int_equal(e->records[0].id, 7);
    assert_int_equal(rig_scan(r, NULL, 0, 10)->record_count, 0);
}

static void check_opened(const struct rig *r)
{
    assert_int_equal(r->opened.queue_count, 2);
    assert_int_equal(r->opened.worker_count, 1);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(r->opened.queues[i].ready, 1);
        assert_int_equal(r->opened.queues[i].delayed, 0);
        assert_int_equal(r->opened.queues[i].dead, 0);
    }
}

/* True: a call has failed. */
static bool round_of(const struct backend *b, long n, struct body *body)
{
    struct rig r;
    rig_open(&r, b);
    atomic_store(&left, n);
    workload(&r, body);
    bool failed = atomic_exchange(&left, 0) <= 0;
    rig_wait_up(&r);
    check_tasks(&r, body);
    for (int i = 0; i < 2; i++) {
        rig_reopen(&r);
        check_opened(&r);
        check_tasks(&r, body);
    }
    rig_close(&r);
    return failed;
}

/* A store that has failed looks again after 200 ms, so not each call has its turn in each run. */
static void the_nth_call_fails(void **state)
{
    const char *step = getenv("NTH_STEP");
    struct body *body = rig_body(1, LARGE);
    long by = step ? strtol(step, NULL, 10) : STEP, n = 1 + (*state == &backends[2] ? by / 2 : 0);
    while (round_of(*state, n, body))
        n += by;
    print_message("  every %ldth of %ld calls (NTH_STEP)\n", by, n);
    body_unref(body);
}

/* What was answered runs again: the disk has it twice then, and counts it once. */
static void a_dead_letter_is_counted_once(void **state)
{
    struct rig r;
    rig_open(&r, *state);
    struct record record = rig_record(1, "q", 4);
    struct finish dead = {.id = 1, .status = 2, .finished_ms = r.now_ms, .dead = true};
    struct store_op ops[] = {{.kind = STORE_APPEND, .record = &record, .async = true},
        {.kind = STORE_FINISH, .finish = &dead, .async = true}};
    atomic_store(&taken, true);
    r.backend->ops->submit(r.store, ops, 2, r.now_ms);
    while (!r.downs)
        rig_next(&r);
    rig_wait_up(&r);
    rig_reopen(&r);
    assert_int_equal(r.opened.queues[0].ready, 0);
    assert_int_equal(r.opened.queues[0].dead, 1);
    assert_int_equal(rig_scan(&r, "q", 0, 9)->record_count, 1);
    rig_close(&r);
}

/* Nobody asks a second time, and in a full store it is what makes room. */
static void what_may_go_goes(void **state)
{
    bool failed = true;
    for (long n = 1; failed; n += 3) {
        struct rig r;
        rig_open(&r, *state);
        append(&r, rig_record(1, "q", 4), false);
        rig_finish_kept(&r, 1, "result", 600000);
        struct record record = rig_record(2, "q", 4);
        struct store_op ops[] = {
            {.kind = STORE_APPEND, .record = &record}, {.kind = STORE_FORGET, .id = 1}};
        atomic_store(&left, n);
        r.backend->ops->submit(r.store, ops, 2, r.now_ms);
        for (unsigned told = 0; told < 2;)
            told += rig_next(&r)->event == EVENT_OP;
        failed = atomic_exchange(&left, 0) <= 0;
        rig_wait_up(&r);
        assert_int_equal(rig_id(&r, STORE_LOOKUP, 1)->outcome, OUTCOME_GONE);
        rig_reopen(&r);
        assert_int_equal(rig_id(&r, STORE_LOOKUP, 1)->outcome, OUTCOME_GONE);
        rig_close(&r);
    }
}

#define FOR(test, n)                                                                               \
    {                                                                                              \
#test ", " #n, test, NULL, NULL, (void *)(uintptr_t)&backends[n]                           \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {FOR(the_nth_call_fails, 1), FOR(the_nth_call_fails, 2),
        FOR(what_may_go_goes, 1), FOR(what_may_go_goes, 2), FOR(a_dead_letter_is_counted_once, 1),
        FOR(a_dead_letter_is_counted_once, 2)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
