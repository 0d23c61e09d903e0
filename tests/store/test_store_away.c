/* SPDX-License-Identifier: Apache-2.0 */
/* The LMDB store when its directory is taken away while it runs. */
#define _GNU_SOURCE /* RTLD_NEXT */
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
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

/* UNKNOWN: it went along with the commit whose fsync failed, be it one of the store's own. */
static void refused_while_away(struct rig *r)
{
    struct record in = rig_record(9, "q", 4);
    const struct store_event *e;
    do {
        e = rig_append(r, &in);
        in.id++;
    } while (e->outcome == OUTCOME_STORED || e->outcome == OUTCOME_UNKNOWN);
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
    assert_int_equal(rig_append(&r, &in)->outcome, OUTCOME_UNKNOWN);
    assert_int_equal(rig_id(&r, STORE_LOOKUP, 1)->outcome, OUTCOME_REFUSED);
    bring_back(&r, away);
    rig_wait_up(&r);
    const struct store_event *e = rig_fetch(&r, "q", (struct order_key){0}, 1);
    assert_true(e->record_count == 1 && e->records[0].maybe_running);
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
        FOR(a_store_that_was_taken_away_refuses_submissions, 1)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
