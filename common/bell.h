/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bell: an eventfd that wakes up whoever polls it: from another thread, or from a signal handler.
 * However often it is rung before it is heard, it is heard once.
 */
#ifndef COMMON_BELL_H
#define COMMON_BELL_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

static inline int bell_new(void) /* the descriptor, to be closed; -1: none, and errno */
{
    return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

static inline void bell_ring(int fd) /* any thread, signal-safe */
{
    int saved = errno;
    uint64_t one = 1;
    ssize_t written = write(fd, &one, sizeof one);
    (void)written; /* EAGAIN: it rings already */
    errno = saved;
}

static inline bool bell_quiet(int fd) /* true: it was rung */
{
    uint64_t count;
    return read(fd, &count, sizeof count) > 0;
}

#endif
