/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The LMDB store on bad days: killed, without power, an fsync that fails, a directory that is
 * taken or too new.
 *
 * The power loss: this program's own pwrite(), pwritev(), writev() and fdatasync() stand before
 * the C library's, note what LMDB writes and copy it to a shadow file when it was synced (the
 * meta page goes through a descriptor with O_DSYNC, and so at once). Of what was not synced, a
 * random part is in the shadow as well, as a disk might do. It covers the order of writes and
 * fsyncs; it does not cover a drive that lies about them.
 */
#define _GNU_SOURCE /* RTLD_NEXT */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
#include <lmdb.h>
#include "tests/store/rig.h"
#include "tests/unit/unit.h"

/* ---- the disk below ---- */

struct write_range {
    off_t offset;
    size_t size;
};

static struct {
    int shadow; /* descriptor; -1: not in use */
    int reader; /* of the file that is shadowed */
    ino_t file;
    struct write_range *unsynced;
    size_t count;
    uint64_t random;
    atomic_int failing_syncs; /* that many fsyncs from now on fail with EIO */
    atomic_int failing_metas; /* that many commits are written, and then said to have failed */
} disk = {.shadow = -1};
static pthread_mutex_t disk_lock = PTHREAD_MUTEX_INITIALIZER; /* over what is about the shadow */

static void *libc(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

static bool is_data_file(int fd)
{
    struct stat info;
    return disk.shadow >= 0 && fstat(fd, &info) == 0 && info.st_ino == disk.file;
}

static void shadow_copy(off_t offset, size_t size)
{
    static char buffer[1 << 20];
    while (size) {
        ssize_t got =
            pread(disk.reader, buffer, size < sizeof(buffer) ? size : sizeof(buffer), offset);
        if (got <= 0)
            return;
        ssize_t (*real)(int, const void *, size_t, off_t) = libc("pwrite");
        real(disk.shadow, buffer, (size_t)got, offset);
        offset += got;
        size -= (size_t)got;
    }
}

static void note_write(int fd, off_t offset, ssize_t size)
{
    if (size <= 0 || !is_data_file(fd))
        return;
    bool at_once = (fcntl(fd, F_GETFL) & O_DSYNC) != 0;
    if (at_once || random_next(&disk.random) % 4 == 0)
        shadow_copy(offset, (size_t)size);
    if (at_once)
        return;
    disk.unsynced = realloc(disk.unsynced, (disk.count + 1) * sizeof(*disk.unsynced));
    disk.unsynced[disk.count++] = (struct write_range){offset, (size_t)size};
}

static void wrote(int fd, off_t offset, ssize_t size)
{
    pthread_mutex_lock(&disk_lock);
    note_write(fd, offset, size);
    pthread_mutex_unlock(&disk_lock);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    ssize_t (*real)(int, const void *, size_t, off_t) = libc("pwrite");
    static bool undoing; /* LMDB writes the old meta page back, but this disk is gone by then */
    if (undoing) {
        undoing = false;
        return -1;
    }
    ssize_t done = real(fd, data, size, offset);
    wrote(fd, offset, done);
    if (disk.failing_metas > 0 && (fcntl(fd, F_GETFL) & O_DSYNC)) {
        disk.failing_metas--;
        undoing = true;
        errno = EIO;
        return -1;
    }
    return done;
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    ssize_t (*real)(int, const struct iovec *, int, off_t) = libc("pwritev");
    ssize_t done = real(fd, parts, count, offset);
    wrote(fd, offset, done);
    return done;
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    ssize_t (*real)(int, const struct iovec *, int) = libc("writev");
    off_t offset = lseek(fd, 0, SEEK_CUR);
    ssize_t done = real(fd, parts, count);
    wrote(fd, offset, done);
    return done;
}

int fdatasync(int fd)
{
    int (*real)(int) = libc("fdatasync");
    if (disk.failing_syncs > 0) {
        disk.failing_syncs--;
        errno = EIO;
        return -1;
    }
    int rc = real(fd);
    pthread_mutex_lock(&disk_lock);
    if (rc == 0 && is_data_file(fd)) {
        for (size_t i = 0; i < disk.count; i++)
            shadow_copy(disk.unsynced[i].offset, disk.unsynced[i].size);
        disk.count = 0;
    }
    pthread_mutex_unlock(&disk_lock);
    return rc;
}

/* From now on `directory`/data.mdb is shadowed in `shadow`/data.mdb. */
static void disk_shadow(const struct rig *r, const struct rig *shadow)
{
    char from[128];
    char to[128];
    char command[300];
    struct stat info;
    snprintf(from, sizeof(from), "%s/data.mdb", r->directory);
    snprintf(to, sizeof(to), "%s/data.mdb", shadow->directory);
    snprintf(command, sizeof(command), "cp %s %s", from, to);
    assert_int_equal(system(command), 0);
    assert_int_equal(stat(from, &info), 0);
    pthread_mutex_lock(&disk_lock);
    disk.file = info.st_ino;
    disk.count = 0;
    disk.shadow = open(to, O_RDWR | O_CLOEXEC);
    disk.reader = open(from, O_RDONLY | O_CLOEXEC);
    pthread_mutex_unlock(&disk_lock);
    assert_true(disk.shadow >= 0 && disk.reader >= 0);
}

static void disk_unshadow(void)
{
    pthread_mutex_lock(&disk_lock);
    close(disk.shadow);
    close(disk.reader);
    disk.shadow = -1;
    free(disk.unsynced);
    disk.unsynced = NULL;
    disk.count = 0;
    pthread_mutex_unlock(&disk_lock);
}

/* ---- a run whose acknowledged operations are known ---- */

#define RUN_IDS 4000u

enum fate { NOT_ASKED, ASKED, STORED, FINISH_ASKED, FINISHED };

/* Shared with a child that is killed. */
struct run {
    volatile uint8_t fate[RUN_IDS + 1];
    volatile uint64_t asked;
    volatile uint64_t events;
};

static void run_ask(struct rig *r, struct run *run, uint64_t id)
{
    struct record record = rig_record(id, "q", (unsigned)(id % 10));
    struct finish finish = {.id = id > 50 ? id - 50 : 0, .status = 1};
    struct store_op ops[2] = {{.kind = STORE_APPEND, .record = &record, .token = id},
        {.kind = STORE_FINISH, .finish = &finish, .token = finish.id}};
    bool finishes = finish.id && id % 3 && run->fate[finish.id] == STORED;
    run->fate[id] = ASKED;
    if (finishes)
        run->fate[finish.id] = FINISH_ASKED;
    run->asked += finishes ? 2 : 1;
    r->backend->ops->submit(r->store, ops, finishes ? 2 : 1, r->now_ms);
}

static void run_events(struct rig *r, struct run *run)
{
    const struct store_event *events;
    size_t count = r->backend->ops->poll(r->store, &events, 100);
    for (size_t i = 0; i < count; i++) {
        if (events[i].outcome == OUTCOME_STORED)
            run->fate[events[i].token] = events[i].kind == STORE_APPEND ? STORED : FINISHED;
        run->events++;
    }
}

static void run_all(struct rig *r, struct run *run, uint64_t until_events)
{
    for (uint64_t id = 1; id <= RUN_IDS && run->events < until_events; id++) {
        run_ask(r, run, id);
        while (run->asked - run->events > 40)
            run_events(r, run);
    }
}

/* Everything acknowledged is there, everything finished is gone. */
static void run_check(struct rig *r, const struct run *run)
{
    uint64_t stored = 0, finished = 0;
    for (uint64_t id = 1; id <= RUN_IDS; id++) {
        enum store_outcome outcome = rig_id(r, STORE_LOOKUP, id)->outcome;
        if (run->fate[id] == STORED && outcome != OUTCOME_STORED)
            fail_msg("task %llu was stored and is lost", (unsigned long long)id);
        if (run->fate[id] == FINISHED && outcome != OUTCOME_GONE)
            fail_msg("task %llu was finished and is back", (unsigned long long)id);
        if (run->fate[id] == NOT_ASKED && outcome != OUTCOME_GONE)
            fail_msg("task %llu was never asked for", (unsigned long long)id);
        stored += run->fate[id] == STORED;
        finished += run->fate[id] == FINISHED;
    }
    print_message("  %llu stored, %llu finished, 0 lost\n", (unsigned long long)stored,
        (unsigned long long)finished);
}

static void killed_processes_lose_nothing(void **state)
{
    uint64_t seed = random_seed();
    struct run *run =
        mmap(NULL, sizeof(*run), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(run != MAP_FAILED);
    for (int round = 0; round < 6; round++) {
        struct rig r;
        rig_open(&r, *state);
        rig_stop(&r);
        memset((void *)run, 0, sizeof(*run));
        uint64_t until = 50 + random_next(&seed) % 3000;
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            rig_start(&r);
            run_all(&r, run, UINT64_MAX);
            for (;;)
                run_events(&r, run);
        }
        while (run->events < until && waitpid(child, NULL, WNOHANG) == 0)
            sched_yield();
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, NULL, 0), child);
        rig_start(&r);
        assert_int_equal(r.opened.boot, 3);
        run_check(&r, run);
        rig_close(&r);
    }
    munmap(run, sizeof(*run));
}

static void power_loss_loses_nothing(void **state)
{
    uint64_t seed = random_seed();
    for (int round = 0; round < 6; round++) {
        static struct run run;
        struct rig r, shadow;
        memset(&run, 0, sizeof(run));
        disk.random = random_next(&seed);
        rig_open(&r, *state);
        rig_open(&shadow, *state);
        rig_stop(&shadow);
        disk_shadow(&r, &shadow);
        run_all(&r, &run, 50 + random_next(&seed) % 3000);
        /* The power goes here: what this copy of `run` knows was acknowledged before. */
        disk_unshadow();
        rig_start(&shadow);
        run_check(&shadow, &run);
        rig_close(&shadow);
        rig_close(&r);
    }
}

/* ---- failures that are told ---- */

/* Until it is the task's own commit that fails, and not one that takes rows to the tables. */
static void append_refused(struct rig *r, struct record *in)
{
    do {
        rig_wait_up(r);
        in->id++;
        disk.failing_syncs = 1;
    } while (rig_append(r, in)->outcome != OUTCOME_REFUSED);
}

static void a_failed_fsync_does_no_damage(void **state)
{
    struct rig r;
    rig_open(&r, *state);
    struct record in = rig_record(1, "q", 4);
    assert_int_equal(rig_append(&r, &in)->outcome, OUTCOME_STORED);
    append_refused(&r, &in);
    rig_wait_up(&r);
    in.id++;
    assert_int_equal(rig_append(&r, &in)->outcome, OUTCOME_STORED);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(rig_id(&r, STORE_LOOKUP, in.id)->outcome, OUTCOME_STORED);
        assert_int_equal(rig_id(&r, STORE_LOOKUP, in.id - 1)->outcome, OUTCOME_GONE);
        rig_reopen(&r);
    }
    rig_close(&r);
}

/* Its last page was written, and said to have failed: the file says what became of it. */
static void a_commit_that_failed_may_be_there(void **state)
{
    struct rig r;
    rig_open(&r, *state);
    struct record in = rig_record(1, "q", 4);
    for (; r.downs < 2; in.id++) {
        disk.failing_metas = 1;
        assert_int_equal(rig_append(&r, &in)->outcome, OUTCOME_STORED);
        assert_int_equal(rig_kill(&r, in.id, "boom")->outcome, OUTCOME_STORED);
        rig_wait_up(&r);
    }
    rig_reopen(&r);
    assert_int_equal(r.opened.queues[0].dead, in.id - 1);
    rig_close(&r);
}

/* Only a commit that is on disk says that the disk works again. */
static void it_is_up_when_a_commit_was_written(void **state)
{
    struct rig r;
    rig_open(&r, *state);
    struct record in = rig_record(1, "q", 4);
    assert_int_equal(rig_append(&r, &in)->outcome, OUTCOME_STORED);
    in.id = 2;
    disk.failing_syncs = 4;
    assert_int_equal(rig_append(&r, &in)->outcome, OUTCOME_REFUSED);
    rig_wait_up(&r);
    assert_int_equal(disk.failing_syncs, 0);
    assert_int_equal(r.downs, 1);
    rig_close(&r);
}

static void async_answers_survive_a_failed_commit(void **state)
{
    struct rig r;
    rig_open(&r, *state);
    struct record in = rig_record(1, "q", 4);
    struct store_op op = {.kind = STORE_APPEND, .record = &in, .async = true};
    disk.failing_syncs = 1;
    assert_int_equal(rig_do(&r, &op)->outcome, OUTCOME_STORED);
    while (!r.downs)
        rig_next(&r);
    rig_wait_up(&r);
    rig_reopen(&r);
    assert_int_equal(rig_id(&r, STORE_LOOKUP, 1)->outcome, OUTCOME_STORED);
    rig_close(&r);
}

/* Whatever the disk made of the failed commits: each due task is given, once, and is ready. */
static void due_fails(struct rig *r, atomic_int *failures, int times)
{
    struct record in = rig_record(1, "q", 4);
    uint64_t due_ms = in.due_ms = r->now_ms + 1000;
    for (in.id = 1; in.id <= 3; in.id++)
        assert_int_equal(rig_append(r, &in)->outcome, OUTCOME_STORED);
    in.due_ms = 0;
    in.expires_ms = r->now_ms + 1500;
    in.windowed = true;
    assert_int_equal(rig_append(r, &in)->outcome, OUTCOME_STORED);
    *failures = times;
    const struct store_event *e;
    while ((e = rig_due(r, r->now_ms + 2000, 100))->outcome == OUTCOME_REFUSED)
        ;
    assert_int_equal(e->outcome, OUTCOME_STORED);
    assert_int_equal(e->record_count, 4);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(e->records[i].id, i < 3 ? i + 1 : 4);
        assert_int_equal(e->records[i].due_ms, i < 3 ? due_ms : 0);
    }
    assert_true(e->exhausted && e->next_ms == 0);
    assert_true(*failures < times);
    *failures = 0; /* once the disk has it all, nothing is written that could fail */
    rig_wait_up(r);
    assert_int_equal(rig_due(r, r->now_ms + 2000, 100)->record_count, 0);
    rig_reopen(r);
    assert_int_equal(rig_fetch(r, "q", (struct order_key){0}, 9)->record_count, 4);
}

static void a_due_that_fails_gives_each_task_once(void **state)
{
    for (int times = 1; times <= 6; times++) {
        struct rig r;
        rig_open(&r, *state);
        due_fails(&r, times % 2 ? &disk.failing_syncs : &disk.failing_metas, (times + 1) / 2);
        rig_close(&r);
    }
}

static char *open_error(struct rig *r)
{
    char *error = NULL;
    struct store_opened opened;
    struct store *s = r->backend->ops->open(&r->config, &opened, &error);
    assert_null(s);
    assert_non_null(error);
    return error;
}

static void a_second_opener_is_told_who_has_it(void **state)
{
    struct rig r;
    char pid[32];
    rig_open(&r, *state);
    char *error = open_error(&r);
    snprintf(pid, sizeof(pid), "process %ld", (long)getpid());
    assert_non_null(strstr(error, "in use"));
    assert_non_null(strstr(error, pid));
    free(error);
    rig_close(&r);
}

static void a_newer_format_is_refused(void **state)
{
    struct rig r;
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi meta;
    uint64_t format = 2;
    MDB_val key = {6, (void *)(uintptr_t) "format"}, value = {sizeof(format), &format};
    rig_open(&r, *state);
    rig_stop(&r);
    assert_int_equal(mdb_env_create(&env), 0);
    mdb_env_set_maxdbs(env, 4);
    assert_int_equal(mdb_env_open(env, r.directory, MDB_NOLOCK, 0600), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, "meta", 0, &meta), 0);
    assert_int_equal(mdb_put(txn, meta, &key, &value, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
    char *error = open_error(&r);
    assert_non_null(strstr(error, "newer"));
    assert_non_null(strstr(error, "format 2"));
    free(error);
    rig_remove(&r);
}

static void a_directory_that_cannot_be_made(void **state)
{
    struct rig r = {.backend = *state, .config = {.path = "/proc/pushrod/store"}};
    for (int i = 0; i < 2; i++) {
        char *error = open_error(&r);
        assert_non_null(strstr(error, r.config.path));
        free(error);
        r.config.path = "/dev/null";
    }
}

#define FOR(test, n)                                                                               \
    {                                                                                              \
#test ", " #n, test, NULL, NULL, (void *)(uintptr_t)&backends[n]                           \
    }

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {FOR(killed_processes_lose_nothing, 1),
        FOR(killed_processes_lose_nothing, 2), FOR(power_loss_loses_nothing, 1),
        FOR(power_loss_loses_nothing, 2), FOR(a_failed_fsync_does_no_damage, 1),
        FOR(a_failed_fsync_does_no_damage, 2), FOR(a_commit_that_failed_may_be_there, 1),
        FOR(a_commit_that_failed_may_be_there, 2), FOR(it_is_up_when_a_commit_was_written, 1),
        FOR(async_answers_survive_a_failed_commit, 1),
        FOR(a_due_that_fails_gives_each_task_once, 1),
        FOR(a_due_that_fails_gives_each_task_once, 2), FOR(a_second_opener_is_told_who_has_it, 1),
        FOR(a_newer_format_is_refused, 1), FOR(a_directory_that_cannot_be_made, 1)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
