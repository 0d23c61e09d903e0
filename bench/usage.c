/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/usage.h"

#include <dirent.h>
#include <err.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The first number of /proc/PID/task/TID/schedstat: ns on a CPU. 0 if the thread is gone. */
static uint64_t thread_ns(int pid, const char *tid)
{
    char path[300];
    snprintf(path, sizeof path, "/proc/%d/task/%s/schedstat", pid, tid);
    FILE *file = fopen(path, "re");
    uint64_t ns = 0;
    if (file) {
        if (fscanf(file, "%" SCNu64, &ns) != 1)
            ns = 0;
        fclose(file);
    }
    return ns;
}

static uint64_t process_ns(int pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *dir = opendir(path);
    uint64_t ns = 0;
    for (struct dirent *e; dir && (e = readdir(dir));)
        if (e->d_name[0] != '.')
            ns += thread_ns(pid, e->d_name);
    if (dir)
        closedir(dir);
    return ns;
}

static uint64_t process_rss_kib(int pid)
{
    char path[64], line[256];
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    FILE *file = fopen(path, "re");
    uint64_t kib = 0;
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "VmRSS: %" SCNu64, &kib) == 1)
            break;
    if (file)
        fclose(file);
    return kib;
}

static uint64_t group_ns(const struct usage_group *g)
{
    uint64_t ns = 0;
    for (size_t i = 0; i < g->count; i++)
        ns += process_ns(g->pids[i]);
    return ns;
}

static void parse_group(struct usage_group *g, char *text)
{
    char *rest = strchr(text, ':');
    if (!rest || (size_t)(rest - text) >= sizeof g->name)
        errx(2, "not GROUP:PID+PID: %s", text);
    *rest++ = 0;
    strcpy(g->name, text);
    g->children = strcmp(rest, "children") == 0;
    for (char *save, *pid = g->children ? NULL : strtok_r(rest, "+", &save); pid;
         pid = strtok_r(NULL, "+", &save))
        if (g->count < USAGE_PIDS)
            g->pids[g->count++] = atoi(pid);
}

/* Adds the children of a process, and theirs. */
static void add_descendants(struct usage_group *g, int pid)
{
    char path[64];
    int child;
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", pid, pid);
    FILE *file = fopen(path, "re");
    while (file && fscanf(file, "%d", &child) == 1 && g->count < USAGE_PIDS) {
        g->pids[g->count++] = child;
        add_descendants(g, child);
    }
    if (file)
        fclose(file);
}

void usage_init(struct usage *u, const char *pids)
{
    memset(u, 0, sizeof *u);
    strcpy(u->groups[0].name, "client");
    u->groups[0].pids[0] = getpid();
    u->groups[0].count = 1;
    u->count = 1;
    char *copy = strdup(pids), *save;
    if (!copy)
        err(1, "strdup");
    for (char *g = strtok_r(copy, ",", &save); g; g = strtok_r(NULL, ",", &save)) {
        if (u->count == USAGE_GROUPS)
            errx(2, "too many groups: %s", pids);
        parse_group(&u->groups[u->count++], g);
    }
    free(copy);
}

void usage_begin(struct usage *u)
{
    for (size_t i = 0; i < u->count; i++) {
        struct usage_group *g = &u->groups[i];
        if (g->children) {
            g->count = 0;
            add_descendants(g, getpid());
        }
        g->before_ns = group_ns(g);
    }
}

void usage_end(struct usage *u)
{
    for (size_t i = 0; i < u->count; i++) {
        struct usage_group *g = &u->groups[i];
        g->after_ns = group_ns(g);
        g->rss_kib = 0;
        for (size_t k = 0; k < g->count; k++)
            g->rss_kib += process_rss_kib(g->pids[k]);
    }
}
