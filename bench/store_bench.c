/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_bench: what the LMDB store costs, with figures beside the goals of the design.
 *
 *   store_bench [directory [lives [backlog]]]
 *
 * The directory must not exist; it is removed again. Written bytes are those that the process
 * gave to write calls (/proc/self/io wchar); CPU of the commit thread is that of the process
 * without the main thread's. How long a commit and its fsync take is seen from below: this
 * program's mdb_txn_commit() and fdatasync() stand before the libraries' own.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* RUSAGE_THREAD, RTLD_NEXT */
#endif
#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <lmdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include "common/clock.h"
#include "server/store/store.h"

#define BATCH  500
#define FLIGHT 10000

static const struct store_ops *ops = &store_lmdb;

/* ---- what a commit takes ---- */

#define SAMPLES 65536u

/* Written by the commit thread, read when nothing is under way. */
struct samples {
    double ms[SAMPLES];
    size_t count;
};
static struct samples commits;
static struct samples syncs;

static void sample(struct samples *s, uint64_t from_ns)
{
    if (s->count < SAMPLES)
        s->ms[s->count++] = (double)(clock_now().mono_ns - from_ns) / 1e6;
}

int fdatasync(int fd)
{
    static int (*real)(int);
    uint64_t from = clock_now().mono_ns;
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "fdatasync");
    int rc = real(fd);
    sample(&syncs, from);
    return rc;
}

int mdb_txn_commit(MDB_txn *txn)
{
    static int (*real)(MDB_txn *);
    uint64_t from = clock_now().mono_ns;
    size_t before = syncs.count;
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "mdb_txn_commit");
    int rc = real(txn);
    if (syncs.count != before)
        sample(&commits, from);
    return rc;
}

struct bench {
    struct store *store;
    struct store_opened opened;
    const char *directory;
    uint64_t next_id;
    uint64_t asked_ns[FLIGHT + BATCH]; /* when each batch in flight was submitted, a ring */
    double *waits_ms;
    size_t wait_count;
};

struct usage {
    uint64_t wall_ns;
    double commit_s; /* CPU of all threads but this one */
    uint64_t written;
};

static double seconds(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

static uint64_t proc_number(const char *file, const char *name)
{
    char line[256];
    uint64_t number = 0;
    FILE *f = fopen(file, "r");
    while (f && fgets(line, sizeof(line), f))
        if (strncmp(line, name, strlen(name)) == 0)
            number = strtoull(line + strlen(name), NULL, 10);
    if (f)
        fclose(f);
    return number;
}

static struct usage usage_now(void)
{
    struct rusage all;
    struct rusage mine;
    getrusage(RUSAGE_SELF, &all);
    getrusage(RUSAGE_THREAD, &mine);
    double cpu = seconds(all.ru_utime) + seconds(all.ru_stime) - seconds(mine.ru_utime) -
                 seconds(mine.ru_stime);
    return (struct usage){clock_now().mono_ns, cpu, proc_number("/proc/self/io", "wchar:")};
}

static double rss_mb(void)
{
    return (double)proc_number("/proc/self/status", "VmRSS:") / 1024;
}

static void open_store(struct bench *b)
{
    char *error = NULL;
    struct store_config config = {.path = b->directory,
        .max_bytes = (uint64_t)16 << 30,
        .now_ms = clock_now().wall_ms,
        .id_block = 1u << 30};
    b->store = ops->open(&config, &b->opened, &error);
    if (!b->store) {
        fprintf(stderr, "store_bench: %s\n", error);
        free(error);
        exit(1);
    }
    b->next_id = b->opened.first_id;
}

static size_t wait_events(struct bench *b, const struct store_event **events)
{
    size_t count;
    while (!(count = ops->poll(b->store, events, 4096))) {
        struct pollfd wait = {.fd = ops->event_fd(b->store), .events = POLLIN};
        poll(&wait, 1, -1);
    }
    return count;
}

static void fail_unless_stored(const struct store_event *e)
{
    if (e->event == EVENT_OP && e->outcome == OUTCOME_STORED)
        return;
    fprintf(stderr, "store_bench: outcome %d: %s\n", e->outcome, e->text ? e->text : "");
    exit(1);
}

static void append_batch(struct bench *b, size_t count, bool windowed)
{
    static const char payload[64] = "sixty-four bytes";
    static struct record records[BATCH];
    static struct store_op batch[BATCH];
    uint64_t now_ms = clock_now().wall_ms;
    for (size_t i = 0; i < count; i++) {
        records[i] = (struct record){.id = b->next_id++,
            .queue = slice_str("bench"),
            .payload = slice_of(payload, sizeof(payload)),
            .submitted_ms = now_ms,
            .max_attempts = 3,
            .priority = 4,
            .windowed = windowed};
        batch[i] = (struct store_op){.kind = STORE_APPEND, .record = &records[i]};
    }
    b->asked_ns[b->next_id / BATCH % FLIGHT] = clock_now().mono_ns;
    ops->submit(b->store, batch, count, now_ms);
}

struct finishes {
    struct finish finish[4096];
    struct store_op op[4096];
};

static void finish_one(struct finishes *f, size_t *count, uint64_t id)
{
    f->finish[*count] = (struct finish){.id = id, .status = 1};
    f->op[*count] = (struct store_op){.kind = STORE_FINISH, .finish = &f->finish[*count]};
    ++*count;
}

static void note_wait(struct bench *b, uint64_t id)
{
    if ((id + 1) % BATCH == 0)
        b->waits_ms[b->wait_count++] =
            (double)(clock_now().mono_ns - b->asked_ns[(id + 1) / BATCH % FLIGHT]) / 1e6;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_quantiles(const char *what, double *ms, size_t count, const char *goal)
{
    if (count == 0)
        return;
    qsort(ms, count, sizeof(*ms), compare);
    printf("  %-18s p50 %.2f ms  p90 %.2f ms  p99 %.2f ms  of %zu   %s\n", what, ms[count / 2],
        ms[count * 9 / 10], ms[count * 99 / 100], count, goal);
}

static void print_waits(struct bench *b)
{
    print_quantiles("APPEND to event", b->waits_ms, b->wait_count, "");
    print_quantiles("commit", commits.ms, commits.count, "(goal: p50 0.5 ms, p99 1 ms)");
    print_quantiles("fsync of it", syncs.ms, syncs.count, "");
    commits.count = syncs.count = 0;
}

static void print_lives(const char *what, uint64_t lives, struct usage from, const char *goal)
{
    struct usage to = usage_now();
    double wall = (double)(to.wall_ns - from.wall_ns) / 1e9;
    printf("%s: %" PRIu64 " lives in %.2f s\n", what, lives, wall);
    printf("  %.0f k/s; commit thread %.2f us; %.0f bytes written; RSS %.0f MB   %s\n",
        (double)lives / wall / 1e3, (to.commit_s - from.commit_s) * 1e6 / (double)lives,
        (double)(to.written - from.written) / (double)lives, rss_mb(), goal);
}

/* Append, and finish as soon as it is stored; `rate` a second, 0: as fast as it goes. */
static void bench_lives(struct bench *b, uint64_t lives, uint64_t rate, const char *what)
{
    static struct finishes f;
    uint64_t appended = 0;
    uint64_t stored = 0;
    uint64_t finished = 0;
    struct usage from = usage_now();
    b->waits_ms = calloc(lives / BATCH + 2, sizeof(double));
    b->wait_count = 0;
    b->next_id = (b->next_id + BATCH - 1) / BATCH * BATCH;
    while (finished < lives) {
        uint64_t elapsed = clock_now().mono_ns - from.wall_ns;
        uint64_t due = rate ? elapsed * rate / 1000000000 : UINT64_MAX;
        while (appended < lives && appended - stored < FLIGHT && appended + BATCH <= due) {
            append_batch(b, BATCH, true);
            appended += BATCH;
        }
        struct pollfd wait = {.fd = ops->event_fd(b->store), .events = POLLIN};
        poll(&wait, 1, rate ? 1 : -1);
        const struct store_event *events;
        size_t finishing = 0;
        size_t count = ops->poll(b->store, &events, 4096);
        for (size_t i = 0; i < count; i++) {
            fail_unless_stored(&events[i]);
            if (events[i].kind == STORE_FINISH) {
                finished++;
                continue;
            }
            stored++;
            note_wait(b, events[i].id);
            finish_one(&f, &finishing, events[i].id);
        }
        if (finishing)
            ops->submit(b->store, f.op, finishing, clock_now().wall_ms);
    }
    print_lives(what, lives, from, "(goal: 250 k/s, 0.5 us, 370 bytes)");
    print_waits(b);
    free(b->waits_ms);
}

static void bench_fill(struct bench *b, uint64_t backlog)
{
    double before = rss_mb();
    double most = before;
    uint64_t stored = 0;
    uint64_t first = b->next_id;
    struct usage from = usage_now();
    while (stored < backlog) {
        while (b->next_id - first < backlog && b->next_id - first - stored < FLIGHT)
            append_batch(b, BATCH, false);
        const struct store_event *events;
        size_t count = wait_events(b, &events);
        for (size_t i = 0; i < count; i++)
            fail_unless_stored(&events[i]);
        uint64_t step = backlog / 64 + 1;
        if (stored / step != (stored + count) / step && rss_mb() > most)
            most = rss_mb();
        stored += count;
    }
    print_lives("backlog, appended", backlog, from, "");
    printf("  RSS %.0f MB before, %.0f MB at the most: +%.0f MB   (goal: < 100 MB)\n", before, most,
        most - before);
}

static void bench_reopen(struct bench *b)
{
    uint64_t from = clock_now().mono_ns;
    ops->close(b->store);
    uint64_t closed = clock_now().mono_ns;
    open_store(b);
    uint64_t opened = clock_now().mono_ns;
    struct store_op op = {.kind = STORE_FETCH, .queue = slice_str("bench"), .limit = 10000};
    ops->submit(b->store, &op, 1, clock_now().wall_ms);
    const struct store_event *events;
    wait_events(b, &events);
    printf("restart: close %.0f ms, open %.0f ms, first window of %zu after %.0f ms more "
           "  (goal: < 2 s)\n",
        (double)(closed - from) / 1e6, (double)(opened - closed) / 1e6, events[0].record_count,
        (double)(clock_now().mono_ns - opened) / 1e6);
}

/* A window of the oldest is fetched and finished, as many are appended behind. */
static void bench_behind_backlog(struct bench *b, uint64_t lives)
{
    static struct finishes f;
    struct order_key edge = {0};
    uint64_t finished = 0;
    uint64_t stored = 0;
    uint64_t appended = 0;
    bool fetching = false;
    uint64_t window = 0;
    struct usage from = usage_now();
    while (finished < lives) {
        struct store_op op = {
            .kind = STORE_FETCH, .queue = slice_str("bench"), .after = edge, .limit = 4096};
        if (!fetching && window < 4096) {
            ops->submit(b->store, &op, 1, clock_now().wall_ms);
            fetching = true;
        }
        for (; appended < lives && appended - stored < FLIGHT / 2; appended += BATCH)
            append_batch(b, BATCH, false);
        const struct store_event *events;
        size_t count = wait_events(b, &events);
        for (size_t i = 0; i < count; i++) {
            const struct store_event *e = &events[i];
            fail_unless_stored(e);
            stored += e->kind == STORE_APPEND;
            finished += e->kind == STORE_FINISH;
            window -= e->kind == STORE_FINISH;
            if (e->kind != STORE_FETCH)
                continue;
            fetching = false;
            size_t finishing = 0;
            for (size_t n = 0; n < e->record_count; n++)
                finish_one(&f, &finishing, e->records[n].id);
            if (finishing) {
                edge = (struct order_key){5, e->records[finishing - 1].id};
                ops->submit(b->store, f.op, finishing, clock_now().wall_ms);
                window += finishing;
            }
        }
    }
    print_lives("behind the backlog", lives, from, "(goal: 2 us)");
}

int main(int argc, char **argv)
{
    static struct bench b;
    setvbuf(stdout, NULL, _IOLBF, 0);
    char file[4096];
    uint64_t lives = argc > 2 ? strtoull(argv[2], NULL, 10) : 2000000;
    uint64_t backlog = argc > 3 ? strtoull(argv[3], NULL, 10) : 10000000;
    b.directory = argc > 1 ? argv[1] : "store-bench.tmp";
    lives = lives / BATCH * BATCH;
    backlog = backlog / BATCH * BATCH;
    if (mkdir(b.directory, 0700) != 0) {
        fprintf(stderr, "store_bench: %s: %s\n", b.directory, strerror(errno));
        return 2;
    }
    open_store(&b);
    bench_lives(&b, lives, 0, "lives, as fast as it goes");
    bench_lives(&b, lives / 2, 250000, "lives, 250 k/s");
    if (backlog) {
        bench_fill(&b, backlog);
        bench_reopen(&b);
        bench_behind_backlog(&b, lives);
    }
    ops->close(b.store);
    snprintf(file, sizeof(file), "%s/data.mdb", b.directory);
    struct stat info = {0};
    stat(file, &info);
    printf("file: %.0f MB\n", (double)info.st_size / 1e6);
    unlink(file);
    snprintf(file, sizeof(file), "%s/lock", b.directory);
    unlink(file);
    rmdir(b.directory);
    return 0;
}
