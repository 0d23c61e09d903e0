/* SPDX-License-Identifier: Apache-2.0 */
/* The LMDB store when it is full, by its bound or the disk's, and when its Nth write fails. */
#include <errno.h>
#include <malloc.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "common/clock.h"
#include "tests/store/rig.h"
#include "tests/store/store_fault.h"
#include "tests/unit/unit.h"

static const struct order_key start = {0, 0};

static const struct store_event *append_with(struct rig *r, uint64_t id, struct body *body)
{
    struct record in = rig_record(id, "q", 4);
    in.body = body;
    in.payload = body_slice(body);
    return rig_append(r, &in);
}

static uint64_t fill(struct rig *r, uint64_t id, struct body *body)
{
    for (;; id++) {
        const struct store_event *e = append_with(r, id, body);
        if (e->outcome == OUTCOME_STORED)
            continue;
        assert_int_equal(e->outcome, OUTCOME_REFUSED);
        assert_int_equal(e->code, PUSHROD_E_STORE_FULL);
        assert_non_null(strstr(e->text, "full"));
        return id;
    }
}

/* Refused when full; what was accepted is there and can be finished; then there is room again. */
static void fill_and_drain(struct rig *r)
{
    struct body *body = rig_body(1, 1 << 20);
    uint64_t end = fill(r, 1, body);
    assert_true(end > 5);
    for (uint64_t id = 1; id < end; id++)
        assert_int_equal(rig_id(r, STORE_LOOKUP, id)->record_count, 1);
    for (uint64_t id = 1; id < end; id++)
        assert_int_equal(rig_finish(r, id)->outcome, OUTCOME_STORED);
    rig_wait_up(r);
    assert_true(fill(r, end, body) > end + 5);
    body_unref(body);
}

/* A directory, and nothing in it. */
static void rig_empty(struct rig *r, const struct backend *b)
{
    rig_open(r, b);
    rig_stop(r);
    rig_remove(r);
    mkdir(r->directory, 0700);
}

static void max_bytes_is_a_bound(void **state)
{
    struct rig r;
    struct stat info;
    char file[128];
    rig_empty(&r, *state);
    r.config.max_bytes = 64 << 20;
    rig_start(&r);
    fill_and_drain(&r);
    snprintf(file, sizeof(file), "%s/data.mdb", r.directory);
    assert_int_equal(stat(file, &info), 0);
    assert_true(info.st_size <= 64 << 20);
    rig_close(&r);
}

static void small_disk_start(struct rig *r, const struct backend *b, const char *size)
{
    rig_empty(r, b);
    if (mount("none", r->directory, "tmpfs", 0, size) != 0) {
        print_message("  skipped: a small disk cannot be mounted: %s\n", strerror(errno));
        rmdir(r->directory);
        skip();
    }
    rig_start(r);
}

static void small_disk_stop(struct rig *r)
{
    rig_stop(r);
    umount(r->directory);
    rmdir(r->directory);
}

static void a_full_disk_refuses_and_recovers(void **state)
{
    struct rig r;
    small_disk_start(&r, *state, "size=48m");
    fill_and_drain(&r);
    small_disk_stop(&r);
}

/* As many as the core lets wait for their commit; gives the number of those that are stored. */
static size_t burst(struct rig *r, uint64_t first, uint64_t *stored)
{
    enum { BATCH = 1000, BATCHES = 16 };
    static struct record records[BATCH];
    static struct store_op ops[BATCH];
    static const char payload[1000] = "small";
    size_t count = 0;
    for (unsigned b = 0; b < BATCHES; b++) {
        for (size_t i = 0; i < BATCH; i++) {
            records[i] = rig_record(first + b * BATCH + i, "q", 4);
            records[i].payload = slice_of(payload, sizeof(payload));
            ops[i] = (struct store_op){.kind = STORE_APPEND, .record = &records[i]};
        }
        r->backend->ops->submit(r->store, ops, BATCH, r->now_ms);
    }
    for (unsigned i = 0; i < BATCH * BATCHES;) {
        const struct store_event *e = rig_next(r);
        i += e->event == EVENT_OP;
        if (e->event == EVENT_OP && e->outcome == OUTCOME_STORED)
            stored[count++] = e->id;
    }
    return count;
}

/* More comes at once than is kept back: even then what was accepted can end, and makes room. */
static void a_burst_fills_a_small_disk(void **state)
{
    enum { TASKS = 64000 };
    struct rig r;
    static uint64_t stored[TASKS];
    size_t count = 0;
    small_disk_start(&r, *state, "size=40m");
    for (uint64_t first = 1; !r.down && first < TASKS; first += 16000)
        count += burst(&r, first, stored + count);
    assert_true(r.down && count > 1000);
    for (size_t i = 0; i < count; i++) {
        unsigned tries = 0;
        while (rig_finish(&r, stored[i])->outcome != OUTCOME_STORED)
            assert_true(++tries < 100);
    }
    rig_wait_up(&r);
    small_disk_stop(&r);
}

static void open_small(struct rig *r, const struct backend *b)
{
    rig_empty(r, b);
    r->config.max_bytes = 32 << 20;
    rig_start(r);
}

/* Small tasks, whose rows go bit by bit after a purge: nobody has to ask for each bit. */
static void a_purge_makes_room(void **state)
{
    enum { BATCH = 100 };
    static struct record records[BATCH];
    static struct store_op ops[BATCH];
    static const char payload[3000] = "small";
    struct rig r;
    open_small(&r, *state);
    for (uint64_t id = 1; !r.down;) {
        for (size_t i = 0; i < BATCH; i++, id++) {
            records[i] = rig_record(id, "q", 4);
            records[i].payload = slice_of(payload, id < 4000 ? 5 : sizeof(payload));
            ops[i] = (struct store_op){.kind = STORE_APPEND, .record = &records[i]};
        }
        r.backend->ops->submit(r.store, ops, BATCH, r.now_ms);
        for (size_t i = 0; i < BATCH;)
            i += rig_next(&r)->event == EVENT_OP;
    }
    assert_true(rig_purge(&r, "q", NULL, 0)->count > BATCH);
    rig_wait_up(&r);
    rig_close(&r);
}

static const struct store_event *finish_with(struct rig *r, uint64_t id, struct body *body)
{
    struct finish f = {.id = id,
        .status = PUSHROD_DONE,
        .finished_ms = r->now_ms,
        .keep_until_ms = r->now_ms + 60000,
        .body = body,
        .result = body_slice(body)};
    return rig_do(r, &(struct store_op){.kind = STORE_FINISH, .finish = &f});
}

/* Kept results that are over make room, too, as soon as the store hears what time it is. */
static void expired_results_make_room(void **state)
{
    struct rig r;
    open_small(&r, *state);
    struct body *body = rig_body(1, 1 << 20);
    for (uint64_t id = 1; !r.down; id++) {
        struct record in = rig_record(id, "q", 4);
        rig_append(&r, &in);
        finish_with(&r, id, body);
    }
    r.now_ms += 3600000;
    rig_id(&r, STORE_LOOKUP, 1);
    rig_wait_up(&r);
    body_unref(body);
    rig_close(&r);
}

/* Tasks in the tables make room when these hear of their end: a full store tells them soon. */
static void ended_tasks_make_room(void **state)
{
    enum { TASKS = 2800 };
    static const char payload[12000] = "in the tables";
    struct rig r;
    rig_empty(&r, *state);
    r.config.max_bytes = 64 << 20;
    r.config.settle_ms = 1;
    rig_start(&r);
    for (uint64_t id = 1; id <= TASKS; id++) {
        struct record in = rig_record(id, "q", 4);
        in.payload = slice_of(payload, sizeof(payload));
        assert_int_equal(rig_append(&r, &in)->outcome, OUTCOME_STORED);
    }
    rig_stop(&r);
    r.config.max_bytes = 36 << 20;
    r.config.settle_ms = 60000;
    rig_start(&r);
    while (!r.down)
        rig_id(&r, STORE_LOOKUP, 1);
    for (uint64_t id = 1; id <= TASKS; id++)
        assert_int_equal(rig_finish(&r, id)->outcome, OUTCOME_STORED);
    rig_wait_up(&r);
    rig_close(&r);
}

/* The bound was made smaller than what is there: what was accepted ends all the same. */
static void a_smaller_bound_still_drains(void **state)
{
    enum { TASKS = 30 };
    struct rig r;
    struct body *body = rig_body(1, 1 << 20);
    rig_empty(&r, *state);
    r.config.max_bytes = 64 << 20;
    rig_start(&r);
    for (uint64_t id = 1; id <= TASKS; id++)
        assert_int_equal(append_with(&r, id, body)->outcome, OUTCOME_STORED);
    body_unref(body);
    rig_stop(&r);
    r.config.max_bytes = 16 << 20;
    rig_start(&r);
    assert_true(r.backend->ops->usage(r.store).used > TASKS << 20);
    while (!r.down)
        rig_id(&r, STORE_LOOKUP, 1);
    for (uint64_t id = 1; id <= TASKS; id++)
        assert_int_equal(rig_finish(&r, id)->outcome, OUTCOME_STORED);
    rig_wait_up(&r);
    while (r.backend->ops->usage(r.store).used > 1 << 20) /* of a file that stays as large */
        rig_id(&r, STORE_LOOKUP, 1);
    rig_close(&r);
}

/* Larger than all that there is, again and again: the store says so once, and goes on. */
static void what_never_fits_stops_nothing_else(void **state)
{
    struct rig r;
    rig_empty(&r, *state);
    r.config.max_bytes = 1 << 20;
    rig_start(&r);
    struct body *body = rig_body(1, 1 << 20), *half = rig_body(2, 1 << 19);
    struct record small = rig_record(1, "q", 4);
    assert_int_equal(rig_append(&r, &small)->outcome, OUTCOME_STORED);
    assert_int_equal(append_with(&r, 100, body)->code, PUSHROD_E_STORE_FULL);
    assert_true(r.down);
    rig_wait_up(&r);
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(append_with(&r, 100, body)->code, PUSHROD_E_STORE_FULL);
        assert_int_equal(finish_with(&r, 1, body)->code, PUSHROD_E_STORE_FULL);
        small.id++;
        assert_int_equal(rig_append(&r, &small)->outcome, OUTCOME_STORED);
    }
    assert_int_equal(r.downs, 1);
    assert_int_equal(finish_with(&r, 2, half)->outcome, OUTCOME_STORED);
    body_unref(body);
    body_unref(half);
    rig_close(&r);
}

/* What did not fit beside others is asked again, and fits when those have gone. */
static void what_does_not_fit_now_does_later(void **state)
{
    struct rig r;
    rig_empty(&r, *state);
    r.config.max_bytes = 16 << 20;
    rig_start(&r);
    struct body *body = rig_body(1, 7 << 20);
    struct record in = rig_record(1, "q", 4);
    for (; in.id <= 3; in.id++)
        assert_int_equal(rig_append(&r, &in)->outcome, OUTCOME_STORED);
    for (uint64_t id = 1; id <= 2; id++)
        assert_int_equal(finish_with(&r, id, body)->outcome, OUTCOME_STORED);
    for (int i = 0; i < 2; i++)
        assert_int_equal(finish_with(&r, 3, body)->code, PUSHROD_E_STORE_FULL);
    assert_int_equal(r.downs, 1);
    assert_int_equal(rig_id(&r, STORE_FORGET, 1)->outcome, OUTCOME_STORED);
    while (finish_with(&r, 3, body)->outcome != OUTCOME_STORED)
        ;
    body_unref(body);
    rig_close(&r);
}

/* ---- each write fails once ---- */

static bool workload(struct rig *r)
{
    struct record in = rig_record(1, "q", 4);
    struct record change = {.id = 1, .attempts = 1};
    bool whole = rig_append(r, &in)->outcome == OUTCOME_STORED;
    in.id = 2;
    whole &= rig_append(r, &in)->outcome == OUTCOME_STORED;
    struct store_op op = {.kind = STORE_RESCHEDULE, .record = &change};
    whole &= rig_do(r, &op)->outcome == OUTCOME_STORED;
    whole &= rig_fetch(r, "q", start, 9)->outcome == OUTCOME_STORED;
    whole &= rig_finish_kept(r, 1, "x", 1000)->outcome == OUTCOME_STORED;
    whole &= rig_kill(r, 2, "boom")->outcome == OUTCOME_STORED;
    whole &= rig_id(r, STORE_REVIVE, 2)->outcome == OUTCOME_STORED;
    whole &= rig_purge(r, "q", NULL, 0)->outcome == OUTCOME_STORED;
    return whole;
}

static void the_nth_write_fails(void **state)
{
    uint64_t n = 0;
    bool whole = false;
    while (!whole) {
        struct rig r;
        char *error = NULL;
        struct fault_plan plan = {.refuse_at = ++n};
        const struct backend fault = {"fault", &store_fault_ops, true, 1};
        rig_open(&r, *state);
        rig_stop(&r);
        r.store = store_fault_open(&store_lmdb, &r.config, &plan, &r.opened, &error);
        assert_non_null(r.store);
        r.backend = &fault;
        whole = workload(&r);
        assert_true(n < 50);
        rig_close(&r);
    }
    assert_int_equal(n, 9); /* eight writes, and a round in which none fails */
}

static size_t memory_in_use(void)
{
    struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}

/* Delayed tasks, which nobody takes: once they are in the tables nothing is left of them here. */
static void memory_of_a_burst_is_given_back(void **state)
{
    enum { BURSTS = 200, TASKS = 1000 };
    const struct backend lasting = {"lmdb", &store_lmdb, true, 1000};
    static struct record records[TASKS];
    static struct store_op ops[TASKS];
    struct rig r;
    (void)state;
    rig_open(&r, &lasting);
    size_t before = memory_in_use(), most = 0;
    for (uint64_t id = 1, burst = 0; burst < BURSTS; burst++) {
        for (size_t i = 0; i < TASKS; i++, id++) {
            records[i] = rig_record(id, "q", 4);
            records[i].due_ms = r.now_ms + 3600000;
            ops[i] = (struct store_op){.kind = STORE_APPEND, .record = &records[i]};
        }
        r.backend->ops->submit(r.store, ops, TASKS, r.now_ms);
        for (size_t i = 0; i < TASKS; i++)
            assert_int_equal(rig_next(&r)->outcome, OUTCOME_STORED);
        most = memory_in_use() > most ? memory_in_use() : most;
    }
    uint64_t end_ns = clock_now().mono_ns + 20 * UINT64_C(1000000000);
    while (memory_in_use() > before + (4u << 20) && clock_now().mono_ns < end_ns)
        assert_int_equal(rig_id(&r, STORE_LOOKUP, 1)->record_count, 1);
    print_message("  %zu KiB before, %zu at the most, %zu at rest\n", before >> 10, most >> 10,
        memory_in_use() >> 10);
    assert_true(memory_in_use() <= before + (4u << 20));
    rig_close(&r);
}

/* Of this process, as RLIMIT_DATA counts it: what is only reserved is none. */
static size_t data_bytes(void)
{
    size_t pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%*u %*u %*u %*u %*u %zu", &pages), 1);
    fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* In a process of its own: a payload is read for which there is no memory. 0: all the same. */
static int fetch_large(struct rig *r, size_t size)
{
    const struct rlimit no_core = {0};
    rig_start(r);
    setrlimit(RLIMIT_CORE, &no_core);
    rlim_t most = data_bytes() + size / 2;
    setrlimit(RLIMIT_DATA, &(struct rlimit){most, most});
    const struct store_event *e = rig_fetch(r, "q", start, 1);
    return e->record_count == 1 ? 0 : 1;
}

/* It ends as a crash would: a task that is given without its payload would run without it. */
static void a_payload_is_whole_or_not_given(void **state)
{
    struct rig r;
    struct body *body = rig_body(1, 16 << 20);
    int status;
    (void)state;
    rig_open(&r, &backends[1]);
    assert_int_equal(append_with(&r, 1, body)->outcome, OUTCOME_STORED);
    rig_stop(&r);
    pid_t pid = fork();
    if (pid == 0)
        _exit(fetch_large(&r, body->size));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    rig_start(&r);
    const struct store_event *e = rig_fetch(&r, "q", start, 1);
    assert_true(slice_equal(e->records[0].payload, body_slice(body)));
    rig_close(&r);
    body_unref(body);
}

/* A thousand may be due at once, each as large as a task can be. */
static void due_gives_what_there_is_room_for(void **state)
{
    struct rig r;
    struct body *body = rig_body(1, 10 << 20);
    rig_open(&r, *state);
    for (uint64_t id = 1; id <= 3; id++) {
        struct record in = rig_record(id, "q", 4);
        in.body = body;
        in.payload = body_slice(body);
        in.due_ms = r.now_ms + id;
        assert_int_equal(rig_append(&r, &in)->outcome, OUTCOME_STORED);
    }
    const struct store_event *e = rig_due(&r, r.now_ms + 3, 9);
    assert_int_equal(e->record_count, 2);
    assert_true(!e->exhausted && e->next_ms == r.now_ms + 3);
    e = rig_due(&r, r.now_ms + 3, 9);
    assert_int_equal(e->records[0].id, 3);
    assert_true(e->exhausted && slice_equal(e->records[0].payload, body_slice(body)));
    rig_close(&r);
    body_unref(body);
}

/* Of three results, asked for at once: it costs a few bytes to ask for each. */
static void lookups_give_what_there_is_room_for(void **state)
{
    struct rig r;
    struct body *body = rig_body(1, 20 << 20);
    struct record in = rig_record(1, "q", 4);
    const struct store_op lookup = {.kind = STORE_LOOKUP, .id = 1};
    const struct store_op ops[] = {lookup, lookup, lookup};
    static const enum store_outcome expected[] = {OUTCOME_STORED, OUTCOME_STORED, OUTCOME_LATER};
    rig_open(&r, *state);
    rig_append(&r, &in);
    assert_int_equal(finish_with(&r, 1, body)->outcome, OUTCOME_STORED);
    r.backend->ops->submit(r.store, ops, 3, r.now_ms);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(rig_next(&r)->outcome, expected[i]);
    const struct store_event *e = rig_do(&r, &lookup);
    assert_true(slice_equal(e->finishes->result, body_slice(body)));
    e = rig_do(&r, &(struct store_op){.kind = STORE_LOOKUP, .id = 1, .bare = true});
    assert_true(e->finishes->result.size == body->size && !e->finishes->result.data);
    rig_close(&r);
    body_unref(body);
}

#define FOR(test, n)                                                                               \
    {                                                                                              \
#test ", " #n, test, NULL, NULL, (void *)(uintptr_t)&backends[n]                           \
    }

int main(void)
{
    /* The first needs a heap that has nothing to spare. */
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_payload_is_whole_or_not_given),
        FOR(max_bytes_is_a_bound, 1), FOR(max_bytes_is_a_bound, 2),
        FOR(a_full_disk_refuses_and_recovers, 2), FOR(a_burst_fills_a_small_disk, 1),
        FOR(a_burst_fills_a_small_disk, 2), FOR(a_purge_makes_room, 2),
        FOR(expired_results_make_room, 1), FOR(expired_results_make_room, 2),
        FOR(ended_tasks_make_room, 1), FOR(a_smaller_bound_still_drains, 1),
        FOR(a_smaller_bound_still_drains, 2), FOR(what_never_fits_stops_nothing_else, 1),
        FOR(what_never_fits_stops_nothing_else, 2), FOR(what_does_not_fit_now_does_later, 1),
        FOR(the_nth_write_fails, 2), FOR(due_gives_what_there_is_room_for, 1),
        FOR(due_gives_what_there_is_room_for, 2), FOR(lookups_give_what_there_is_room_for, 1),
        FOR(lookups_give_what_there_is_room_for, 2),
        cmocka_unit_test(memory_of_a_burst_is_given_back)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
