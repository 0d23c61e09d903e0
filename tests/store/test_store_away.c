/* SPDX-License-Identifier: Apache-2.0 */
/* The LMDB store when its directory is taken away while it runs, or a part of its file before. */
#define _GNU_SOURCE /* RTLD_NEXT */
#include <dlfcn.h>
#include <errno.h>
#include <lmdb.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include "tests/store/rig.h"
#include "tests/unit/unit.h"

static atomic_int failing_syncs; /* that many from now on fail with EIO */

int fdatasync(int fd)
{
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    if (failing_syncs > 0) {
        failing_syncs--;
        errno = EIO;
        return -1;
    }
    return real(fd);
}

static int lock_error; /* of a file system that has no locks, or has no more of them */

int flock(int fd, int operation)
{
    int (*real)(int, int) = dlsym(RTLD_NEXT, "flock");
    errno = lock_error;
    return lock_error ? -1 : real(fd, operation);
}

static atomic_ulong clock_readings; /* of the store's thread, which does so when it wakes up */

int clock_gettime(clockid_t which, struct timespec *now)
{
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    clock_readings++;
    return real(which, now);
}

/* The directory is moved away, or a disk unmounted, and an empty one lies in its place. */
static void move_away(struct rig *r, char away[80])
{
    snprintf(away, 80, "%s.away", r->directory);
    assert_int_equal(rename(r->directory, away), 0);
    assert_int_equal(mkdir(r->directory, 0700), 0);
}

static void bring_back(struct rig *r, const char *away)
{
    assert_int_equal(rmdir(r->directory), 0); /* nothing began there */
    assert_int_equal(rename(away, r->directory), 0);
}

static void refused_while_away(struct rig *r)
{
    struct record in = rig_record(9, "q", 4);
    const struct store_event *e;
    do {
        e = rig_append(r, &in);
        in.id++;
    } while (e->outcome == OUTCOME_STORED);
    assert_int_equal(e->outcome, OUTCOME_REFUSED);
    assert_non_null(strstr(e->text, "data.mdb"));
}

static void no_second_store_begins_where_one_was(void **state)
{
    struct rig r;
    char away[80];
    rig_open(&r, *state);
    struct record in = rig_record(1, "q", 4);
    assert_int_equal(rig_append(&r, &in)->outcome, OUTCOME_STORED);
    move_away(&r, away);
    failing_syncs = 1; /* it opens its files again */
    in.id = 2;
    assert_int_not_equal(rig_append(&r, &in)->outcome, OUTCOME_STORED);
    refused_while_away(&r);
    failing_syncs = 0;
    bring_back(&r, away);
    rig_wait_up(&r);
    assert_int_equal(rig_id(&r, STORE_LOOKUP, 1)->outcome, OUTCOME_STORED);
    assert_int_equal(rig_id(&r, STORE_LOOKUP, 2)->outcome, OUTCOME_GONE);
    rig_close(&r);
}

/* The open file still takes what is written, but nobody will find it again. */
static void a_store_that_was_taken_away_refuses_submissions(void **state)
{
    struct rig r;
    char away[80];
    rig_open(&r, *state);
    struct record in = rig_record(1, "q", 4);
    assert_int_equal(rig_append(&r, &in)->outcome, OUTCOME_STORED);
    move_away(&r, away);
    refused_while_away(&r);
    assert_int_equal(rig_finish(&r, 1)->outcome, OUTCOME_STORED); /* what it has still ends */
    bring_back(&r, away);
    rig_wait_up(&r);
    in.id = 500000;
    assert_int_equal(rig_append(&r, &in)->outcome, OUTCOME_STORED);
    rig_close(&r);
}

/* What is overdue, and cannot be done while the disk fails, is no reason to wake up. */
static void a_store_that_failed_sleeps(void **state)
{
    struct rig r;
    rig_open(&r, *state);
    struct record in = rig_record(1, "q", 4);
    for (in.id = 1; in.id <= 3; in.id++)
        assert_int_equal(rig_append(&r, &in)->outcome, OUTCOME_STORED);
    failing_syncs = 4; /* a try each 200 ms */
    assert_int_equal(rig_append(&r, &in)->outcome, OUTCOME_REFUSED);
    clock_readings = 0;
    rig_wait_up(&r);
    print_message("  %lu readings of the clock\n", clock_readings);
    assert_true(clock_readings < 1000);
    rig_close(&r);
}

/* It is open again, and waits until it can be sure: it is not full, and says so. */
static void a_store_that_failed_is_not_full(void **state)
{
    struct rig r;
    rig_open(&r, *state);
    struct record in = rig_record(1, "q", 4);
    failing_syncs = 1;
    assert_int_equal(rig_append(&r, &in)->code, PUSHROD_E_STORE_FAILED);
    in.id = 2;
    const struct store_event *e = rig_append(&r, &in);
    if (e->outcome != OUTCOME_STORED) {
        assert_int_equal(e->outcome, OUTCOME_REFUSED);
        assert_int_equal(e->code, PUSHROD_E_STORE_FAILED);
        assert_non_null(strstr(e->text, "a write failed"));
    }
    rig_wait_up(&r);
    rig_close(&r);
}

/* What a life found when it began is known over tries to open the store that fail. */
static void it_knows_what_may_be_running_over_failures(void **state)
{
    struct rig r;
    char away[80];
    rig_open(&r, *state);
    struct record in = rig_record(1, "q", 4);
    rig_append(&r, &in);
    assert_int_equal(rig_fetch(&r, "q", (struct order_key){0}, 9)->record_count, 1);
    rig_reopen(&r);
    failing_syncs = 1;
    move_away(&r, away);
    in.id = 2;
    assert_int_equal(rig_append(&r, &in)->outcome, OUTCOME_REFUSED);
    assert_int_equal(rig_id(&r, STORE_LOOKUP, 1)->outcome, OUTCOME_REFUSED);
    bring_back(&r, away);
    rig_wait_up(&r);
    const struct store_event *e = rig_fetch(&r, "q", (struct order_key){0}, 1);
    assert_true(e->record_count == 1 && e->records[0].maybe_running);
    rig_close(&r);
}

/* ---- found otherwise than it was left ---- */

static void the_files_of_another_user(void **state)
{
    struct rig r;
    char *error = NULL;
    if (geteuid() != 0)
        skip();
    rig_open(&r, *state);
    rig_stop(&r);
    assert_int_equal(chmod(r.directory, 0777), 0);
    assert_int_equal(seteuid(65534), 0);
    assert_null(r.backend->ops->open(&r.config, &r.opened, &error));
    assert_int_equal(seteuid(0), 0);
    assert_non_null(strstr(error, "another user"));
    free(error);
    rig_remove(&r);
}

static void a_lock_that_is_not_to_be_had_is_nobodys(void **state)
{
    struct rig r;
    char *error = NULL;
    rig_open(&r, *state);
    rig_stop(&r);
    lock_error = ENOLCK;
    assert_null(r.backend->ops->open(&r.config, &r.opened, &error));
    lock_error = 0;
    assert_non_null(strstr(error, strerror(ENOLCK)));
    free(error);
    rig_remove(&r);
}

static off_t file_size(const struct rig *r)
{
    char file[128];
    struct stat info;
    snprintf(file, sizeof(file), "%s/data.mdb", r->directory);
    assert_int_equal(stat(file, &info), 0);
    return info.st_size;
}

static void cut_off(const struct rig *r, off_t size)
{
    char file[128];
    snprintf(file, sizeof(file), "%s/data.mdb", r->directory);
    assert_int_equal(truncate(file, size), 0);
}

/* To read what is missing of a file that is mapped would end the process. */
static void a_file_that_was_cut_off_is_said(void **state)
{
    struct rig r;
    rig_open(&r, *state);
    struct body *body = rig_body(1, 1 << 20);
    struct record in = rig_record(1, "q", 4);
    in.body = body;
    in.payload = body_slice(body);
    assert_int_equal(rig_append(&r, &in)->outcome, OUTCOME_STORED);
    body_unref(body);
    rig_stop(&r);
    off_t whole = file_size(&r);
    for (off_t size = whole - 5000; size > 8192; size -= whole / 7) {
        char *error = NULL;
        cut_off(&r, size);
        assert_null(r.backend->ops->open(&r.config, &r.opened, &error));
        assert_non_null(strstr(error, "cut off"));
        assert_int_equal(file_size(&r), size); /* as it was found */
        free(error);
    }
    rig_remove(&r);
}

/* The disk that was full at the first start has room now: half of a first page is no damage. */
static void what_could_not_begin_is_no_damaged_store(void **state)
{
    struct rig r;
    char *error = NULL;
    struct rlimit before;
    rig_open(&r, *state);
    rig_stop(&r);
    cut_off(&r, 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &(struct rlimit){4096, before.rlim_max}), 0);
    assert_null(r.backend->ops->open(&r.config, &r.opened, &error));
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_non_null(strstr(error, strerror(ENOSPC)));
    free(error);
    rig_start(&r);
    rig_close(&r);
}

/* Its map is a part of the address space, however empty it is. */
static void a_map_without_room_is_said(void **state)
{
    struct rig r;
    char *error = NULL;
    rig_open(&r, *state);
    rig_stop(&r);
    r.config.max_bytes = UINT64_C(1) << 60;
    assert_null(r.backend->ops->open(&r.config, &r.opened, &error));
    assert_non_null(strstr(error, "--max-disk"));
    free(error);
    rig_remove(&r);
}

/* So many bytes are put into the file and taken out again. */
static void put_and_delete(MDB_env *env, size_t size)
{
    static uint8_t bytes[1 << 20];
    MDB_val key = {1, "x"}, value = {size, bytes};
    for (int i = 0; i < 2; i++) {
        MDB_txn *txn;
        MDB_dbi dbi;
        assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
        assert_int_equal(mdb_dbi_open(txn, NULL, 0, &dbi), 0);
        assert_int_equal(i ? mdb_del(txn, dbi, &key, NULL) : mdb_put(txn, dbi, &key, &value, 0), 0);
        assert_int_equal(mdb_txn_commit(txn), 0);
    }
}

/* The first of the pages at the end of the file that are all free. */
static size_t free_tail(MDB_env *env)
{
    static bool is_free[100000];
    MDB_envinfo info;
    MDB_txn *txn;
    MDB_cursor *c;
    MDB_val key, value;
    memset(is_free, 0, sizeof(is_free));
    assert_int_equal(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn), 0);
    assert_int_equal(mdb_cursor_open(txn, 0, &c), 0);
    while (mdb_cursor_get(c, &key, &value, MDB_NEXT) == 0)
        for (size_t i = 1; i < value.mv_size / sizeof(size_t); i++)
            is_free[((size_t *)value.mv_data)[i]] = true;
    mdb_cursor_close(c);
    mdb_txn_abort(txn);
    mdb_env_info(env, &info);
    size_t page = info.me_last_pgno + 1;
    while (is_free[page - 1])
        page--;
    return page;
}

/* LMDB does not write what is freed within the transaction that made the file longer. */
static void free_pages_at_the_end_may_be_missing(void **state)
{
    struct rig r;
    MDB_env *env;
    MDB_stat pages;
    rig_open(&r, *state);
    struct record in = rig_record(1, "q", 4);
    assert_int_equal(rig_append(&r, &in)->outcome, OUTCOME_STORED);
    rig_stop(&r);
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_set_mapsize(env, r.config.max_bytes), 0);
    assert_int_equal(mdb_env_open(env, r.directory, MDB_NOLOCK, 0600), 0);
    mdb_env_stat(env, &pages);
    off_t used = file_size(&r);
    for (int tries = 0; used > file_size(&r) - (1 << 19); tries++) {
        assert_true(tries < 100);
        put_and_delete(env, 1 << 20);
        put_and_delete(env, 1);
        used = (off_t)(free_tail(env) * pages.ms_psize);
    }
    mdb_env_close(env);
    cut_off(&r, used);
    rig_start(&r);
    assert_int_equal(rig_id(&r, STORE_LOOKUP, 1)->record_count, 1);
    in.id = 2;
    assert_int_equal(rig_append(&r, &in)->outcome, OUTCOME_STORED);
    rig_close(&r);
}

#define FOR(test, n)                                                                               \
    {                                                                                              \
#test ", " #n, test, NULL, NULL, (void *)(uintptr_t)&backends[n]                           \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {FOR(no_second_store_begins_where_one_was, 1),
        FOR(no_second_store_begins_where_one_was, 2),
        FOR(it_knows_what_may_be_running_over_failures, 1),
        FOR(it_knows_what_may_be_running_over_failures, 2),
        FOR(a_store_that_was_taken_away_refuses_submissions, 1),
        FOR(a_store_that_failed_is_not_full, 1), FOR(a_store_that_failed_sleeps, 1),
        FOR(the_files_of_another_user, 1), FOR(a_lock_that_is_not_to_be_had_is_nobodys, 1),
        FOR(a_file_that_was_cut_off_is_said, 1), FOR(a_file_that_was_cut_off_is_said, 2),
        FOR(what_could_not_begin_is_no_damaged_store, 1), FOR(a_map_without_room_is_said, 1),
        FOR(free_pages_at_the_end_may_be_missing, 1)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
