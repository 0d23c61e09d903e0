/* SPDX-License-Identifier: Apache-2.0 */
/* What a server says to the supervisor that it forked: lines of "NAME VALUE" on a pipe. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "worker/supervise_impl.h"

/* A place that works on under this index; a child that retires does not count. */
static bool index_taken(const struct guard *g, unsigned index)
{
    for (unsigned i = 0; i < g->count; i++) {
        const struct place *p = &g->places[i];
        if (p->index == index && p->state != PLACE_EMPTY && !p->retiring && !p->kill_ms)
            return true;
    }
    return false;
}

static void more_places(struct guard *g)
{
    for (unsigned index = 0; index < g->processes; index++) {
        if (!index_taken(g, index) && !guard_place(g, index))
            log_error("cannot start a worker process: out of memory");
    }
}

/* Those that are too many leave as in a drain, and nobody takes their place. */
static void fewer_places(struct guard *g)
{
    for (unsigned i = 0; i < g->count; i++) {
        struct place *p = &g->places[i];
        if (p->index < g->processes || p->state == PLACE_EMPTY)
            continue;
        p->retiring = true;
        guard_drain(g, p);
    }
}

static void told_processes(struct guard *g, const char *value)
{
    if (g->stopping)
        return;
    g->processes = (unsigned)strtoul(value, NULL, 10);
    fewer_places(g);
    more_places(g);
}

static void told_line(struct guard *g, char *line)
{
    char *value = strchr(line, ' ');
    if (!value)
        return;
    *value++ = '\0';
    if (strcmp(line, "join") == 0) {
        snprintf(g->join, sizeof g->join, "%s", value);
    } else if (strcmp(line, "processes") == 0) {
        told_processes(g, value);
    } else {
        if (strcmp(line, "drain-timeout") == 0)
            g->drain_ms = strtoull(value, NULL, 10);
        if (g->config->told)
            g->config->told(g->config->arg, line, value);
    }
}

static void told_lines(struct guard *g)
{
    char *at = g->input, *end = g->input + g->input_size, *feed;
    while ((feed = memchr(at, '\n', (size_t)(end - at)))) {
        *feed = '\0';
        told_line(g, at);
        at = feed + 1;
    }
    g->input_size = (size_t)(end - at);
    memmove(g->input, at, g->input_size);
}

/* The end of the file is the end of the server. */
void guard_told(struct guard *g)
{
    ssize_t size = read(g->control, g->input + g->input_size, sizeof g->input - g->input_size);
    if (size < 0 && errno == EINTR)
        return;
    if (size <= 0) {
        close(g->control);
        g->control = -1;
        guard_stop(g, false);
        return;
    }
    g->input_size += (size_t)size;
    told_lines(g);
}
