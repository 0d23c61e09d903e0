/* SPDX-License-Identifier: Apache-2.0 */
/* The directory of the LMDB store, its environment, and how much room is left. */
#define _GNU_SOURCE /* asprintf() */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include "server/store/lmdb.h"

#define LOCK_TRIES 100u /* 10 ms apart */

#define MIB ((uint64_t)1 << 20)

static const char *const table_names[TABLE_RESULTS] = {[TABLE_META] = "meta",
    [TABLE_QUEUES] = "queues",
    [TABLE_WORKERS] = "workers",
    [TABLE_JOURNAL] = "journal",
    [TABLE_TASKS] = "tasks",
    [TABLE_READY] = "ready",
    [TABLE_AGENDA] = "agenda",
    [TABLE_DEAD] = "dead",
    [TABLE_BURIED] = "buried",
    [TABLE_PARTS] = "parts",
    [TABLE_UNIQUE] = "unique"};

static char *message(const char *format, const char *path, const char *detail)
{
    char *text = NULL;
    if (asprintf(&text, format, path, detail) < 0)
        abort();
    return text;
}

/* Who started a server as root once, and as another user now, sees only that it is refused. */
static const char *reason(int error)
{
    return error == EACCES ? "Permission denied: it belongs to another user" : mdb_strerror(error);
}

/* ---- the directory and its lock ---- */

static int make_directories(const char *path)
{
    char *copy = store_text(path);
    for (char *slash = strchr(copy + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(copy, 0755); /* what cannot be made shows below */
        *slash = '/';
    }
    int rc = mkdir(path, 0700) == 0 || errno == EEXIST ? 0 : errno;
    free(copy);
    return rc;
}

/* The lock file holds the process id of who has it, for the message. */
static char *lock_held(const struct lmdb *l)
{
    char pid[24] = "";
    ssize_t size = pread(l->lock_fd, pid, sizeof(pid) - 1, 0);
    pid[size > 0 ? strcspn(pid, "\n") : 0] = 0;
    return message("the store in %s is in use by another server, process %s", l->path,
        pid[0] ? pid : "(unknown)");
}

/*
 * A server that was killed keeps its lock until the kernel has torn it down, which takes a moment
 * with a large map: who restarts it at once should not be told that it still runs.
 */
static bool lock_wait(int fd)
{
    static const struct timespec pause = {.tv_nsec = 10000000};
    for (unsigned tries = 0; tries < LOCK_TRIES; tries++) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
            return true;
        if (errno != EWOULDBLOCK)
            return false;
        nanosleep(&pause, NULL);
    }
    errno = EWOULDBLOCK;
    return false;
}

static char *lock_take(struct lmdb *l)
{
    char *name = message("%s/%s", l->path, "lock");
    l->lock_fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    free(name);
    if (l->lock_fd < 0)
        return message("cannot write in the store's directory %s: %s", l->path, reason(errno));
    if (!lock_wait(l->lock_fd))
        return errno == EWOULDBLOCK
                   ? lock_held(l)
                   : message("cannot lock the store in %s: %s", l->path, strerror(errno));
    if (ftruncate(l->lock_fd, 0) != 0 || dprintf(l->lock_fd, "%ld\n", (long)getpid()) < 0) {
        /* A full disk: the lock holds, it is only without the number. */
    }
    return NULL;
}

char *lmdb_directory_take(struct lmdb *l)
{
    struct stat info;
    int rc = make_directories(l->path);
    if (rc)
        return message(
            "cannot create the store's directory %s: %s: choose one of this user's with --data",
            l->path, strerror(rc));
    if (stat(l->path, &info) == 0 && !S_ISDIR(info.st_mode))
        return message("the store's directory %s: %s", l->path, strerror(ENOTDIR));
    return lock_take(l);
}

void lmdb_directory_release(struct lmdb *l)
{
    if (l->lock_fd >= 0)
        close(l->lock_fd);
    l->lock_fd = -1;
}

/* ---- the environment ---- */

static int tables_open(struct lmdb *l)
{
    int rc = mdb_txn_begin(l->env, NULL, 0, &l->txn);
    l->finder = NULL;
    for (int t = 0; t < TABLE_COUNT && rc == 0; t++) {
        char name[16];
        unsigned flags = MDB_CREATE;
        flags |= t == TABLE_TASKS || t == TABLE_JOURNAL ? (unsigned)MDB_INTEGERKEY : 0u;
        if (t < TABLE_RESULTS)
            snprintf(name, sizeof(name), "%s", table_names[t]);
        else
            snprintf(name, sizeof(name), "results%02d", t - TABLE_RESULTS);
        rc = mdb_dbi_open(l->txn, name, flags, &l->tables[t]);
    }
    return rc;
}

/* Where the file is mapped, so that its resident pages can be given back. */
static void find_map(struct lmdb *l)
{
    char line[4352];
    char *file = message("%s/%s", l->path, "data.mdb");
    char *real = realpath(file, NULL);
    FILE *maps = fopen("/proc/self/maps", "re");
    l->map = 0;
    while (maps && real && fgets(line, sizeof(line), maps)) {
        unsigned long from;
        unsigned long to;
        line[strcspn(line, "\n")] = 0;
        char *name = strchr(line, '/');
        if (name && strcmp(name, real) == 0 && sscanf(line, "%lx-%lx", &from, &to) == 2) {
            l->map = from;
            l->map_size = to - from;
        }
    }
    if (maps)
        fclose(maps);
    free(real);
    free(file);
}

static int env_open(struct lmdb *l)
{
    /* One thread, one process (the directory is locked): LMDB's own lock file is not needed. */
    unsigned flags = MDB_NOLOCK | MDB_NOTLS | MDB_NORDAHEAD;
    int rc = mdb_env_create(&l->env);
    if (rc == 0)
        rc = mdb_env_set_maxdbs(l->env, TABLE_COUNT);
    if (rc == 0)
        rc = mdb_env_set_mapsize(l->env, l->max_bytes);
    return rc ? rc : mdb_env_open(l->env, l->path, flags, 0600);
}

/* True: the data file is at its place; stat() tells which one. */
static bool file_stat(const struct lmdb *l, struct stat *info)
{
    char *name = message("%s/%s", l->path, "data.mdb");
    int rc = stat(name, info), saved = errno;
    free(name);
    errno = saved;
    return rc == 0;
}

/* No store has begun there, as far as one can tell for sure. */
static bool file_is_new(const struct lmdb *l)
{
    struct stat info;
    return file_stat(l, &info) ? info.st_size == 0 : errno == ENOENT;
}

/* What was to become a store, and has no room for it, would be a damaged one to the next server. */
static void file_empty(const struct lmdb *l)
{
    char *name = message("%s/%s", l->path, "data.mdb");
    int rc = truncate(name, 0);
    (void)rc; /* it was not even made */
    free(name);
}

/*
 * A directory that was moved away, or a disk that was unmounted: LMDB would begin an empty store in
 * its place, and nobody would know what was accepted in the one before.
 */
bool lmdb_is_away(struct lmdb *l)
{
    struct stat info;
    if (!l->file || (file_stat(l, &info) && info.st_ino == l->file && info.st_dev == l->device))
        return false;
    snprintf(l->text, sizeof(l->text),
        "the store's file %.128s/data.mdb was taken away: bring it back", l->path);
    return true;
}

static void file_remember(struct lmdb *l)
{
    struct stat info;
    if (file_stat(l, &info)) {
        l->file = info.st_ino;
        l->device = info.st_dev;
    }
}

/* ---- how long the file is, and may become ---- */

/* Kept back for finishes: 5 %, at least 64 MiB, but never more than an eighth of a small store. */
static uint64_t reserve_of(uint64_t total)
{
    uint64_t wanted = total / 20 > 64 * MIB ? total / 20 : 64 * MIB;
    return wanted < total / 8 ? wanted : total / 8;
}

/* Page numbers with their count before them, as LMDB keeps them; those from `first` on. */
static uint64_t count_from(MDB_val list, size_t first)
{
    size_t count, page;
    uint64_t pages = 0;
    memcpy(&count, list.mv_data, sizeof(count));
    for (size_t i = 1; first && i <= count && (i + 1) * sizeof(page) <= list.mv_size; i++) {
        memcpy(&page, (const char *)list.mv_data + i * sizeof(page), sizeof(page));
        pages += page >= first;
    }
    return first ? pages : count;
}

/*
 * Pages from `first` on that are free within the file, as of the last commit. Their list is LMDB's
 * table 0, which only a transaction for reading may look at; it is over before anything is written.
 */
static uint64_t free_pages(struct lmdb *l, size_t first)
{
    MDB_txn *reader = NULL;
    MDB_cursor *c = NULL;
    MDB_val key;
    MDB_val value;
    uint64_t pages = 0;
    if (mdb_txn_begin(l->env, NULL, MDB_RDONLY, &reader))
        return 0;
    if (mdb_cursor_open(reader, 0, &c) == 0) {
        while (mdb_cursor_get(c, &key, &value, MDB_NEXT) == 0)
            pages += count_from(value, first);
        mdb_cursor_close(c);
    }
    mdb_txn_abort(reader);
    return pages;
}

/* Pages that have ever been used, and their size: as large as the kernel's, which need not be 4 KiB
 */
static uint64_t pages_used(const struct lmdb *l, size_t *size)
{
    MDB_envinfo info;
    MDB_stat pages;
    mdb_env_info(l->env, &info);
    mdb_env_stat(l->env, &pages);
    *size = pages.ms_psize;
    return (uint64_t)info.me_last_pgno + 1;
}

/* Bytes of the file that are used; *inside: free ones among them, 0 if there is enough besides. */
static uint64_t bytes_used(struct lmdb *l, uint64_t *inside)
{
    size_t size;
    uint64_t used = pages_used(l, &size) * size;
    *inside = used + reserve_of(l->max_bytes) > l->max_bytes ? free_pages(l, 0) * size : 0;
    return used;
}

/*
 * The bound may be smaller than what is there by now. LMDB takes the file as it is then, and not a
 * page more: no task could ever end. So the reserve for that lies behind the file.
 */
static int reserve_room(struct lmdb *l)
{
    uint64_t inside, used = bytes_used(l, &inside);
    uint64_t needed = used - inside + reserve_of(l->max_bytes);
    return needed > l->max_bytes ? mdb_env_set_mapsize(l->env, needed) : 0;
}

/*
 * LMDB maps the file: who reads what was cut off of it ends by SIGBUS, without a word. Pages at the
 * end that were freed before they were ever written are rightly missing; to look whether it is only
 * those, the list of free pages must be read, which may be missing as well: so there are zeros
 * first.
 */
static char *whole_check(struct lmdb *l)
{
    int fd;
    size_t size;
    struct stat info;
    char *text = NULL;
    uint64_t pages = pages_used(l, &size);
    if (mdb_env_get_fd(l->env, &fd) || fstat(fd, &info) || (uint64_t)info.st_size >= pages * size)
        return NULL;
    size_t first = (size_t)info.st_size / size;
    if (ftruncate(fd, (off_t)(pages * size)) == 0 && free_pages(l, first) == pages - first)
        return NULL;
    bool back = ftruncate(fd, info.st_size) == 0;
    (void)back; /* what is there is as damaged as it was */
    if (asprintf(&text,
            "the store in %s is damaged: data.mdb was cut off at %llu of %llu bytes: put a whole "
            "copy of it there, or begin anew with another --data",
            l->path, (unsigned long long)info.st_size, (unsigned long long)(pages * size)) < 0)
        abort();
    return text;
}

char *lmdb_open_failed(const struct lmdb *l, int rc)
{
    if (rc == ENOMEM)
        return message("cannot open the store in %s: %s: --max-disk is mapped whole: lower it, or "
                       "allow more address space (ulimit -v)",
            l->path, reason(rc));
    bool damaged = rc == MDB_INVALID || rc == MDB_CORRUPTED || rc == MDB_PAGE_NOTFOUND ||
                   rc == MDB_VERSION_MISMATCH;
    return message(damaged ? "the store in %s is damaged (%s): put a whole copy of data.mdb there, "
                             "or begin anew with another --data"
                           : "cannot open the store in %s: %s",
        l->path, reason(rc));
}

char *lmdb_env_open(struct lmdb *l)
{
    if (lmdb_is_away(l))
        return store_text(l->text);
    bool is_new = file_is_new(l);
    int rc = env_open(l);
    char *damage = rc ? NULL : whole_check(l);
    if (damage) {
        lmdb_env_close(l);
        return damage;
    }
    rc = rc ? rc : reserve_room(l);
    rc = rc ? rc : tables_open(l);
    if (rc) {
        lmdb_env_close(l);
        if (is_new)
            file_empty(l);
        return lmdb_open_failed(l, rc);
    }
    file_remember(l);
    find_map(l);
    uint64_t format = meta_get(l, "format", LMDB_FORMAT);
    if (format == LMDB_FORMAT)
        return NULL;
    char number[64];
    snprintf(number, sizeof(number), "format %llu, this server knows %llu",
        (unsigned long long)format, (unsigned long long)LMDB_FORMAT);
    lmdb_env_close(l);
    return message("the store in %s was written by a newer server (%s)", l->path, number);
}

void lmdb_env_close(struct lmdb *l)
{
    if (l->txn)
        mdb_txn_abort(l->txn);
    l->txn = NULL;
    if (l->env)
        mdb_env_close(l->env);
    l->env = NULL;
    l->map = 0;
}

bool lmdb_begin(struct lmdb *l)
{
    if (l->txn)
        return true;
    l->dirty = false;
    l->finder = NULL;
    l->error = l->env ? mdb_txn_begin(l->env, NULL, 0, &l->txn) : EIO;
    return l->error == 0;
}

void lmdb_release_pages(struct lmdb *l)
{
    if (l->map)
        madvise((void *)l->map, l->map_size, MADV_DONTNEED);
}

/* ---- room ---- */

void lmdb_text_errno(struct lmdb *l, const char *what, int error)
{
    struct statvfs fs;
    unsigned long long left = 0;
    if (statvfs(l->path, &fs) == 0)
        left = (unsigned long long)fs.f_bavail * fs.f_frsize / MIB;
    snprintf(l->text, sizeof(l->text), "%s: %s (%llu MiB left on the disk of %.128s)", what,
        mdb_strerror(error), left, l->path);
}

void lmdb_measure(struct lmdb *l)
{
    size_t size;
    if (l->env)
        atomic_store(&l->used, (pages_used(l, &size) - free_pages(l, 0)) * size);
}

uint64_t lmdb_left(struct lmdb *l)
{
    struct statvfs fs;
    size_t size;
    uint64_t used = pages_used(l, &size) * size, inside = free_pages(l, 0) * size;
    uint64_t left = l->max_bytes + inside > used ? l->max_bytes + inside - used : 0;
    if (statvfs(l->path, &fs) != 0)
        return left;
    uint64_t disk = (uint64_t)fs.f_bavail * fs.f_frsize + inside;
    return disk < left ? disk : left;
}

bool lmdb_room(struct lmdb *l)
{
    struct statvfs fs;
    uint64_t reserve = reserve_of(l->max_bytes);
    uint64_t inside, used = bytes_used(l, &inside);
    if (used - inside + reserve > l->max_bytes) {
        snprintf(l->text, sizeof(l->text), "the store's %llu MiB are full (--max-disk)",
            (unsigned long long)(l->max_bytes / MIB));
        return false;
    }
    if (statvfs(l->path, &fs) != 0)
        return true;
    uint64_t left = (uint64_t)fs.f_bavail * fs.f_frsize;
    uint64_t total = (uint64_t)fs.f_blocks * fs.f_frsize;
    uint64_t floor = reserve_of(total) < 64 * MIB ? reserve_of(total) : 64 * MIB;
    /* What only the journal has comes to the tables before its rows go. */
    uint64_t kept = floor + l->index.bytes;
    size_t size;
    /* Pages that are free within the file need no disk. */
    if (!inside && left < kept + 64 * MIB && pages_used(l, &size))
        inside = free_pages(l, 0) * size;
    l->spare = left + inside > kept ? (left + inside - kept) / 2 : 0;
    snprintf(l->text, sizeof(l->text), "the disk of %.128s is full (%llu MiB left)", l->path,
        (unsigned long long)(left / MIB));
    /* Once it was full there has to be more, so that it is not full again at once. */
    return left + inside >= (l->down ? kept + 2 * floor : kept);
}
