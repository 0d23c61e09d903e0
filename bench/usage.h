/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage: the CPU time and memory of other processes, in named groups, out of /proc.
 */
#ifndef BENCH_USAGE_H
#define BENCH_USAGE_H

#include <stddef.h>
#include <stdint.h>

enum { USAGE_GROUPS = 4, USAGE_PIDS = 256 };

struct usage_group {
    char name[16];
    int pids[USAGE_PIDS];
    size_t count;
    int children;                 /* take those of this process */
    uint64_t before_ns, after_ns; /* CPU time of all threads, user and system */
    uint64_t rss_kib;             /* when usage_end() was called */
};

struct usage {
    struct usage_group groups[USAGE_GROUPS];
    size_t count;
};

/*
 * "server:12,worker:13+14"; ends the program if it cannot be read. "client" is this process, and
 * "children" its descendants, as they are when usage_begin() is called.
 */
void usage_init(struct usage *u, const char *pids);
void usage_begin(struct usage *u);
void usage_end(struct usage *u);

#endif
