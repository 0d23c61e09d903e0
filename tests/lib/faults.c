/* SPDX-License-Identifier: Apache-2.0 */
/*
 * faults.so: a bad disk and a bad clock for a real process (LD_PRELOAD).
 *
 * Stands before the C library's writes, fdatasync() and clock_gettime(). FAULTS names a file of
 * numbers (struct faults), shared with the test, which changes them while the process runs. Only
 * the store's data file is meant, and only the wall clock; nothing else notices anything.
 * Linked into no test: the Makefile has a rule of its own for it.
 */
#define _GNU_SOURCE /* RTLD_NEXT */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* In this order in tests/lib/lab.py, 8 bytes each. */
struct faults {
    _Atomic int64_t code; /* errno of what fails */
    _Atomic int64_t pass; /* writes and syncs that still work before the first that fails */
    _Atomic int64_t writes, syncs; /* how many of them fail then */
    _Atomic int64_t metas;         /* commits that are written, and said to have failed */
    _Atomic int64_t sync_ms;       /* how long a sync takes */
    _Atomic int64_t wall_ms;       /* added to CLOCK_REALTIME */
    _Atomic int64_t hits;          /* how many failed, so far */
};

static struct faults nothing, *faults = &nothing;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void faults_open(void)
{
    const char *path = getenv("FAULTS");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *map = mmap(NULL, sizeof *faults, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map != MAP_FAILED)
        faults = map;
    close(fd);
}

static void *libc(const char *name)
{
    pthread_once(&once, faults_open);
    return dlsym(RTLD_NEXT, name);
}

static bool is_data_file(int fd)
{
    static const char name[] = "/data.mdb";
    char link[64];
    char path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < (ssize_t)sizeof name)
        return false;
    path[size] = 0;
    return strstr(path, name) != NULL; /* also "(deleted)" */
}

/* Counts down; true: it was above zero. */
static bool take(_Atomic int64_t *number)
{
    int64_t left = atomic_load(number);
    while (left > 0 && !atomic_compare_exchange_weak(number, &left, left - 1)) {
    }
    return left > 0;
}

static bool fails(int fd, _Atomic int64_t *number)
{
    if (atomic_load(number) <= 0 || !is_data_file(fd) || take(&faults->pass) || !take(number))
        return false;
    atomic_fetch_add(&faults->hits, 1);
    errno = (int)atomic_load(&faults->code);
    return true;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    ssize_t (*real)(int, const void *, size_t, off_t) = libc("pwrite");
    static _Atomic bool
        undo; /* LMDB writes the old meta page back, but this disk is gone by then */
    bool meta = (atomic_load(&faults->metas) > 0 || atomic_load(&undo)) &&
                (fcntl(fd, F_GETFL) & O_DSYNC) && is_data_file(fd);
    if (meta && atomic_exchange(&undo, false)) {
        errno = EIO;
        return -1;
    }
    if (fails(fd, &faults->writes))
        return -1;
    ssize_t done = real(fd, data, size, offset);
    if (meta && done > 0 && fails(fd, &faults->metas)) {
        atomic_store(&undo, true);
        return -1;
    }
    return done;
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    ssize_t (*real)(int, const struct iovec *, int, off_t) = libc("pwritev");
    return fails(fd, &faults->writes) ? -1 : real(fd, parts, count, offset);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    ssize_t (*real)(int, const struct iovec *, int) = libc("writev");
    return fails(fd, &faults->writes) ? -1 : real(fd, parts, count);
}

int fdatasync(int fd)
{
    int (*real)(int) = libc("fdatasync");
    int64_t ms = atomic_load(&faults->sync_ms);
    if (ms > 0 && is_data_file(fd))
        poll(NULL, 0, (int)ms); /* a slow disk */
    return fails(fd, &faults->syncs) ? -1 : real(fd);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int (*real)(clockid_t, struct timespec *) = libc("clock_gettime");
    int rc = real(clock, now);
    int64_t ms = atomic_load(&faults->wall_ms);
    if (rc != 0 || clock != CLOCK_REALTIME || ms == 0)
        return rc;
    int64_t ns = now->tv_nsec + ms % 1000 * 1000000;
    now->tv_sec += ms / 1000 + (ns < 0 ? -1 : ns / 1000000000);
    now->tv_nsec = ns < 0 ? ns + 1000000000 : ns % 1000000000;
    return rc;
}
