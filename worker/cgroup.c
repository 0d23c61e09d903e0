/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/cgroup.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_SIZE 4352u

/* CPU time for a period of time, both in us, as CPUs; 0: no bound. "max" and -1 are none. */
static unsigned cpus_of(long long time, long long period)
{
    if (time <= 0 || period <= 0)
        return 0;
    long long cpus = time / period + (time % period != 0);
    return cpus < INT_MAX ? (unsigned)cpus : 0;
}

/* The first line of a file in a directory. */
static bool read_line(const char *directory, const char *name, char line[64])
{
    char path[PATH_SIZE + 32];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "re");
    bool read = file && fgets(line, 64, file);
    if (file)
        fclose(file);
    return read;
}

/* Version 2: "200000 100000" or "max 100000". */
static unsigned limit_v2(const char *directory)
{
    char line[64], *end;
    if (!read_line(directory, "cpu.max", line))
        return 0;
    long long time = strtoll(line, &end, 10);
    return cpus_of(time, strtoll(end, NULL, 10));
}

static unsigned limit_v1(const char *directory)
{
    char time[64], period[64];
    if (!read_line(directory, "cpu.cfs_quota_us", time) ||
        !read_line(directory, "cpu.cfs_period_us", period))
        return 0;
    return cpus_of(strtoll(time, NULL, 10), strtoll(period, NULL, 10));
}

/*
 * From our group up to the root: each of them binds us. In a container the path may be that of the
 * host, of which only the end, our own group, is to be seen, as the root.
 */
static unsigned tightest(const char *root, const char *path, unsigned (*limit)(const char *))
{
    char directory[PATH_SIZE];
    size_t base = strlen(root);
    unsigned least = 0;
    snprintf(directory, sizeof directory, "%s%s", root, path);
    for (;;) {
        unsigned cpus = limit(directory);
        if (cpus && (!least || cpus < least))
            least = cpus;
        char *slash = strrchr(directory, '/');
        if (!slash || slash < directory + base)
            return least;
        *slash = '\0';
    }
}

/* True if `name` is one of those between commas. */
static bool names(const char *list, size_t size, const char *name)
{
    for (const char *end = list + size; list < end;) {
        size_t one = strcspn(list, ",:");
        if (one == strlen(name) && memcmp(list, name, one) == 0)
            return true;
        list += one + 1;
    }
    return false;
}

/* A line is "NUMBER:CONTROLLERS:PATH"; that of version 2 is "0::PATH". */
static unsigned limit_of_line(const char *line, const char *root)
{
    const char *list = strchr(line, ':');
    const char *path = list ? strchr(list + 1, ':') : NULL;
    if (!path)
        return 0;
    size_t size = (size_t)(path - ++list);
    if (size == 0)
        return tightest(root, path + 1, limit_v2);
    if (!names(list, size, "cpu"))
        return 0;
    /* Mounted as "cpu", which is often a link to "cpu,cpuacct", or as the whole list. */
    char mount[PATH_SIZE];
    snprintf(mount, sizeof mount, "%s/cpu", root);
    unsigned cpus = tightest(mount, path + 1, limit_v1);
    snprintf(mount, sizeof mount, "%s/%.*s", root, (int)size, list);
    return cpus ? cpus : tightest(mount, path + 1, limit_v1);
}

unsigned cgroup_cpus(const char *file, const char *root)
{
    char line[4096];
    unsigned least = 0;
    FILE *groups = fopen(file, "re");
    while (groups && fgets(line, sizeof line, groups)) {
        line[strcspn(line, "\n")] = '\0';
        unsigned cpus = limit_of_line(line, root);
        if (cpus && (!least || cpus < least))
            least = cpus;
    }
    if (groups)
        fclose(groups);
    return least;
}
