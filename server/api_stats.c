/* SPDX-License-Identifier: Apache-2.0 */
/* api_stats: every counter and gauge, for programs and as the page /metrics. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include "server/api.h"

typedef void stat_fn(
    const char *name, const char *kind, const char *text, uint64_t value, void *arg);

#define TELL(name, kind, text) fn(#name, #kind, text, stats->name, arg);

/*
 * What the scheduler did with this thread, which is the loop's (proc(5): schedstat, ns). Nothing is
 * told by a kernel that does not count it.
 */
static void stats_cpu(stat_fn *fn, void *arg)
{
    uint64_t ran, waited;
    FILE *file = fopen("/proc/thread-self/schedstat", "re");
    if (!file)
        return;
    if (fscanf(file, "%" SCNu64 " %" SCNu64, &ran, &waited) == 2) {
        fn("cpu_us", "counter", "CPU time of the thread that decides", ran / 1000, arg);
        fn("cpu_wait_us", "counter", "time in which it had to wait for a CPU: all tasks wait then",
            waited / 1000, arg);
    }
    fclose(file);
}

static void stats_each(struct pushrod_server *s, stat_fn *fn, void *arg)
{
    {
        const struct core_stats *stats = host_stats(s->host);
        CORE_STATS(TELL)
    }
    {
        const struct plane_stats *stats = plane_stats(host_plane(s->host));
        PLANE_STATS(TELL)
    }
    {
        const struct conn_stats *stats = conns_stats(s->conns);
        CONN_STATS(TELL)
    }
    struct store_usage usage = host_store_usage(s->host);
    fn("store_unsettled_bytes", "gauge", "bytes that the store has not settled yet",
        usage.unsettled, arg);
    fn("store_used_bytes", "gauge", "bytes of the store's file that are in use", usage.used, arg);
    fn("store_max_bytes", "gauge", "bytes that these may be (max-disk); 0: in memory only",
        usage.max, arg);
    fn("store_up", "gauge", "1: the store can write", !host_store_down(s->host), arg);
    fn("late_ticks", "counter", "pauses of the server's own that were longer than a heartbeat",
        host_late_ticks(s->host), arg);
    fn("uptime_ms", "gauge", "since the server started",
        (loop_now(s->loop).mono_ns - s->started_ns) / NS_PER_MS, arg);
    stats_cpu(fn, arg);
}

struct stats_to {
    void (*fn)(const char *name, uint64_t value, void *arg);
    void *arg;
};

static void stats_one(
    const char *name, const char *kind, const char *text, uint64_t value, void *arg)
{
    const struct stats_to *to = arg;
    (void)kind, (void)text;
    to->fn(name, value, to->arg);
}

void pushrod_server_stats(
    struct pushrod_server *s, void (*fn)(const char *name, uint64_t value, void *arg), void *arg)
{
    struct stats_to to = {fn, arg};
    if (s->host && s->conns) /* not in the last close events */
        stats_each(s, stats_one, &to);
}

static void metric_one(
    const char *name, const char *kind, const char *text, uint64_t value, void *arg)
{
    /* Prometheus wants counters to end in _total. */
    const char *suffix = kind[0] == 'c' ? "_total" : "";
    buf_printf(arg, "# HELP pushrod_%s%s %s\n# TYPE pushrod_%s%s %s\npushrod_%s%s %" PRIu64 "\n",
        name, suffix, text, name, suffix, kind, name, suffix, value);
}

/* ---- queues: a family of lines for each figure, as the format wants it ---- */

struct queue_lines {
    struct buf *out;
    const struct core_queue_stats *queues;
    size_t count;
};

static void queue_metric(const struct queue_lines *l, const char *name, const char *kind,
    const char *text, size_t offset)
{
    const char *suffix = kind[0] == 'c' ? "_total" : "";
    buf_printf(l->out, "# HELP pushrod_queue_%s%s %s\n# TYPE pushrod_queue_%s%s %s\n", name, suffix,
        text, name, suffix, kind);
    for (size_t i = 0; i < l->count; i++) {
        const struct core_queue_stats *q = &l->queues[i];
        uint64_t value;
        memcpy(&value, (const char *)q + offset, sizeof value);
        buf_printf(l->out, "pushrod_queue_%s%s{queue=\"%.*s\"} %" PRIu64 "\n", name, suffix,
            (int)q->name.size, (const char *)q->name.data, value);
    }
}

/* Of a hundred thousand queues the page has so many, or it would cost more than it tells. */
static void queues_metrics(struct pushrod_server *s, struct buf *out)
{
    size_t most = params_number(s->params, "metrics-queues"), count = 0;
    struct core_queue_stats *queues = calloc(most ? most : 1, sizeof *queues);
    const struct queue *at = NULL;
    if (!queues)
        return;
    while (count < most && host_queue_next(s->host, &at, &queues[count]))
        count++;
    struct queue_lines lines = {out, queues, count};
#define FAMILY(name, kind, text)                                                                   \
    queue_metric(&lines, #name, #kind, text, offsetof(struct core_queue_stats, name));
    if (count) {
        CORE_QUEUE_STATS(FAMILY)
    }
    free(queues);
}

void stats_metrics(void *arg, struct buf *out)
{
    stats_each(arg, metric_one, out);
    queues_metrics(arg, out);
}
