/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load.h"

#include <err.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include "bench/hist.h"
#include "bench/load_options.h"
#include "bench/usage.h"

/*
 * A task in flight: its number plus 1 (0: the place is free), and when it was meant to start. Tasks
 * lie at their number modulo the ring's size; a result finds its task without a search.
 */
struct flight {
    uint64_t seq_1;
    uint64_t start_ns;
    uint64_t work_us;
};

enum { EVENTS = 1024, EXIT_SILENT = 3 /* the system hangs: harness/procs.py */ };

/* One run of this program: everything that drivers report to. */
static struct {
    const struct driver *driver;
    struct load_options o;
    void **handles;
    bool *writing; /* as epoll was told */
    int poller;
    bool coarse; /* there is only epoll_wait(), in ms */
    struct flight *ring;
    uint64_t mask;
    char *payload;
    uint64_t sent, sent_long, accepted, done, duplicates, foreign;
    uint64_t random;
    bool timed;          /* results are entered into the histogram */
    uint64_t timed_from; /* of tasks that were meant to start then or later */
    struct hist latency;
    struct usage usage;
    uint64_t begin_ns, end_ns, begin_done, end_done, begin_accepted, end_accepted;
} load;

/* ---- what drivers call ---- */

void load_accepted(uint64_t count)
{
    load.accepted += count;
}

void load_finished(const void *result, size_t size)
{
    uint64_t seq;
    if (size != LOAD_RESULT) {
        load.foreign++;
        return;
    }
    memcpy(&seq, result, sizeof seq);
    struct flight *f = &load.ring[seq & load.mask];
    if (f->seq_1 != seq + 1) { /* at least once: some systems give a result twice */
        load.duplicates++;
        return;
    }
    load.done++;
    /* With long tasks in the mix the figure is the wait of the short ones, without their work. */
    if (load.timed && f->start_ns > load.timed_from &&
        !(load.o.long_share > 0 && f->work_us == load.o.long_us)) {
        uint64_t took = now_ns() - f->start_ns, work = f->work_us * 1000;
        hist_add(&load.latency, took > work ? took - work : 0);
    }
    f->seq_1 = 0;
}

/* A sleep is 50 us longer by default: a twentieth of a short task. Inherited by threads and forks.
 */
static void sleep_exactly(void)
{
    static _Thread_local bool told;
    if (!told)
        prctl(PR_SET_TIMERSLACK, 1);
    told = true;
}

void load_work(const void *payload, size_t size, char result[LOAD_RESULT])
{
    uint64_t us;
    if (size < LOAD_MIN_PAYLOAD)
        errx(1, "a payload of %zu bytes", size);
    memcpy(result, payload, LOAD_RESULT);
    memcpy(&us, (const char *)payload + 8, sizeof us);
    if (us)
        sleep_exactly();
    struct timespec left = {(time_t)(us / 1000000), (long)(us % 1000000) * 1000};
    while (us && nanosleep(&left, &left) != 0 && errno == EINTR)
        ;
}

/* ---- submitting and waiting ---- */

/* xorshift64*: arrivals and long tasks are the same for every system that gets the same seed. */
static double random_unit(void)
{
    load.random ^= load.random >> 12;
    load.random ^= load.random << 25;
    load.random ^= load.random >> 27;
    return ((double)((load.random * UINT64_C(2685821657736338717)) >> 11) + 0.5) /
           9007199254740992.0;
}

/* Of a long backlog only the last tasks are followed: the queue is first in, first out. */
static bool is_last(void)
{
    return strcmp(load.o.mode, "backlog") == 0 && load.sent + load.o.window >= load.o.count;
}

const char *load_queue(const struct load_options *o, unsigned number)
{
    static char name[64];
    if (o->queues == 1)
        return o->queue;
    snprintf(name, sizeof name, "%s.%u", o->queue, number);
    return name;
}

/* The connection that submits a task: each in turn, `burst` tasks at a time. */
static size_t connection_of(uint64_t seq)
{
    return (size_t)(seq / load.o.burst % load.o.conns);
}

static bool submit_one(uint64_t start_ns, uint64_t work_us)
{
    struct flight *f = &load.ring[load.sent & load.mask];
    if (f->seq_1)
        return false; /* the oldest of them has not come back: no room in the ring */
    memcpy(load.payload, &load.sent, 8);
    memcpy(load.payload + 8, &work_us, 8);
    struct load_task task = {.seq = load.sent,
        .queue = load_queue(&load.o, (unsigned)(load.sent % load.o.queues)),
        .payload = load.payload,
        .size = load.o.size,
        .untold = load.o.no_result && !is_last()};
    if (!task.untold)
        *f = (struct flight){load.sent + 1, start_ns, work_us};
    if (!load.driver->submit(load.handles[connection_of(load.sent)], &task)) {
        f->seq_1 = 0;
        return false;
    }
    load.sent++;
    return true;
}

/* Tells epoll when a connection begins or ends to wait for room in its socket. */
static void watch_writing(size_t i)
{
    bool now = load.driver->writing && load.driver->writing(load.handles[i]);
    if (now == load.writing[i])
        return;
    struct epoll_event e = {.events = now ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.u64 = i};
    epoll_ctl(load.poller, EPOLL_CTL_MOD, load.driver->fd(load.handles[i]), &e);
    load.writing[i] = now;
}

static void process_one(size_t i)
{
    load.driver->process(load.handles[i]);
    watch_writing(i);
}

/* Waits up to timeout_ns for any connection, and lets those that have something to do, do it. */
static void process_ready(uint64_t timeout_ns)
{
    struct epoll_event events[EVENTS];
    struct timespec t = {(time_t)(timeout_ns / 1000000000u), (long)(timeout_ns % 1000000000u)};
    int n = load.coarse ? -1 : epoll_pwait2(load.poller, events, EVENTS, &t, NULL);
    if (n < 0 && (load.coarse || errno == ENOSYS)) { /* valgrind does not know it */
        load.coarse = true;
        n = epoll_wait(load.poller, events, EVENTS, (int)((timeout_ns + 999999) / 1000000));
    }
    for (int i = 0; i < n; i++)
        process_one(events[i].data.u64);
}

/* Sends what was gathered: with one connection at once, with many those that were used. */
static void process_used(uint64_t from)
{
    if (load.sent == from)
        return;
    uint64_t first = from / load.o.burst, last = (load.sent - 1) / load.o.burst;
    if (last - first >= load.o.conns)
        last = first + load.o.conns - 1;
    for (uint64_t turn = first; turn <= last; turn++)
        process_one((size_t)(turn % load.o.conns));
}

/* ---- what is measured ---- */

static void measure_begin(void)
{
    usage_begin(&load.usage);
    load.begin_ns = now_ns();
    load.begin_done = load.done;
    load.begin_accepted = load.accepted;
    load.timed = true;
}

static void measure_end(void)
{
    load.end_ns = now_ns();
    load.end_done = load.done;
    load.end_accepted = load.accepted;
    load.timed = false;
    usage_end(&load.usage);
}

static uint64_t returned(bool accepted)
{
    return accepted ? load.accepted : load.done;
}

static void refuse_silence(uint64_t seen, uint64_t now, uint64_t *last, uint64_t *last_ns)
{
    if (*last != now || seen == 0) {
        *last = now;
        *last_ns = now_ns();
    } else if (now_ns() - *last_ns > UINT64_C(30000000000)) {
        errx(EXIT_SILENT,
            "nothing came back for 30 s: %" PRIu64 " sent, %" PRIu64 " accepted, %" PRIu64 " done",
            load.sent, load.accepted, load.done);
    }
}

/* Until all that was sent has come back. */
static void drain(bool accepted)
{
    uint64_t last = 0, last_ns = now_ns();
    while (returned(accepted) < load.sent) {
        process_ready(100000000);
        refuse_silence(1, returned(accepted), &last, &last_ns);
    }
}

/* A connection's burst goes out at once: new tasks begin when there is room for a whole one. */
static bool has_room(bool accepted)
{
    return load.sent - returned(accepted) + load.o.burst <= load.o.window;
}

/* Keeps `window` tasks in flight until `count` are sent or the time is over. */
static void closed_loop(bool accepted)
{
    uint64_t begin = now_ns(), warm = begin + (uint64_t)(load.o.warmup * 1e9);
    uint64_t stop = UINT64_MAX; /* counted from when the measurement really began */
    uint64_t limit = load.o.count ? load.o.count : UINT64_MAX;
    uint64_t last = 0, last_ns = begin;
    bool measuring = load.o.count != 0;
    if (measuring)
        measure_begin();
    for (uint64_t now = begin; load.sent < limit && now < stop; now = now_ns()) {
        if (!measuring && now >= warm) {
            measure_begin();
            measuring = true;
            stop = now + (uint64_t)(load.o.seconds * 1e9);
        }
        uint64_t from = load.sent;
        for (bool full = false; !full && load.sent < limit && has_room(accepted);)
            for (size_t i = 0; i < load.o.burst && load.sent < limit && !full; i++)
                full = !submit_one(now, load.o.short_us);
        process_used(from);
        process_ready(has_room(accepted) ? 0 : 50000000);
        refuse_silence(load.sent, returned(accepted), &last, &last_ns);
    }
    if (!load.o.count)
        measure_end();
    drain(accepted);
    if (load.o.count)
        measure_end();
}

/* A task of the open loop. harness/arrivals.py draws the same ones. */
struct arrival {
    double at; /* ns */
    bool is_long;
};

static bool draw_long(void)
{
    return load.o.long_share > 0 && random_unit() < load.o.long_share;
}

static void next_arrival(struct arrival *a)
{
    a->at += -log(random_unit()) / load.o.rate * 1e9;
    a->is_long = draw_long();
}

#define REST_LEAST 20000  /* ns */
#define REST_MOST  100000 /* ns, from a million tasks a second on */
#define BURST      2000 /* tasks that are sent before a look at what came back, however many are due */

/*
 * No rest is shorter: who looks at the clock all the time takes a core from what is measured, and
 * each rest costs two switches of it, which the more tasks have to share the less there is left.
 * What is due meanwhile goes out together, and is late by its own measure.
 */
static uint64_t rest_ns(void)
{
    double ns = load.o.rate / 1e6 * REST_MOST;
    return ns < REST_LEAST ? REST_LEAST : ns > REST_MOST ? REST_MOST : (uint64_t)ns;
}

/*
 * Open loop: Poisson arrivals at `rate`, whatever comes back. Latency counts from when a task was
 * meant to start, so a system that stalls pays for all that should have been sent meanwhile.
 */
static void open_loop(void)
{
    struct arrival next = {.at = (double)now_ns() + 1e6, .is_long = draw_long()};
    double stop = next.at + (load.o.warmup + load.o.seconds) * 1e9;
    double warm = next.at + load.o.warmup * 1e9;
    /* Who falls behind by as much as the run is long will not catch up: its latency shows it. */
    double give_up = stop + load.o.seconds * 1e9;
    uint64_t rest = rest_ns();
    bool measuring = false;
    load.timed_from = (uint64_t)warm;
    while (next.at < stop && (double)now_ns() < give_up) {
        uint64_t now = now_ns(), from = load.sent;
        if (!measuring && (double)now >= warm) {
            measure_begin();
            measuring = true;
        }
        while (next.at <= (double)now && next.at < stop && load.sent - from < BURST) {
            if (!submit_one((uint64_t)next.at, next.is_long ? load.o.long_us : load.o.short_us))
                break;
            load.sent_long += next.is_long;
            next_arrival(&next);
        }
        process_used(from);
        now = now_ns();
        process_ready((double)(now + rest) < next.at ? (uint64_t)(next.at - (double)now) : rest);
    }
    drain(false);
    measure_end();
}

/* Fills a queue that nobody serves, says so, waits for a line on standard input, takes it all back.
 */
static void backlog_loop(void)
{
    uint64_t begin = now_ns();
    while (load.sent < load.o.count) {
        uint64_t from = load.sent;
        while (load.sent < load.o.count && load.sent - load.accepted < load.o.window)
            if (!submit_one(0, 0))
                break;
        process_used(from);
        process_ready(load.sent - load.accepted < load.o.window ? 0 : 50000000);
    }
    drain(true);
    printf("{\"filled\": %" PRIu64 ", \"rate\": %.0f}\n", load.sent,
        (double)load.sent * 1e9 / (double)(now_ns() - begin));
    fflush(stdout);
    char line[16];
    if (!fgets(line, sizeof line, stdin))
        exit(0);
    measure_begin();
    if (load.o.no_result) /* the others end unseen, before the last ones */
        load.done = load.sent > load.o.window ? load.sent - load.o.window : 0;
    load.begin_done = 0;
    drain(false);
    measure_end();
}

/* ---- the report ---- */

static void print_usage(double tasks)
{
    const struct usage *u = &load.usage;
    printf(", \"cpu_us\": {");
    for (size_t i = 0; i < u->count; i++)
        printf("%s\"%s\": %.4f", i ? ", " : "", u->groups[i].name,
            tasks > 0 ? (double)(u->groups[i].after_ns - u->groups[i].before_ns) / 1e3 / tasks : 0);
    printf("}, \"rss_kib\": {");
    for (size_t i = 0; i < u->count; i++)
        printf("%s\"%s\": %" PRIu64, i ? ", " : "", u->groups[i].name, u->groups[i].rss_kib);
    printf("}");
}

static void print_hist(const char *name, const struct hist *h)
{
    static const double quantiles[] = {0.5, 0.9, 0.99, 0.999};
    static const char *const names[] = {"p50", "p90", "p99", "p999"};
    printf(", \"%s\": {\"count\": %" PRIu64 ", \"mean\": %.2f", name, h->count, hist_mean(h) / 1e3);
    for (size_t i = 0; i < sizeof quantiles / sizeof *quantiles; i++)
        printf(", \"%s\": %.2f", names[i], (double)hist_quantile(h, quantiles[i]) / 1e3);
    printf(", \"max\": %.2f}", (double)h->max / 1e3);
}

static void print_report(bool accepted)
{
    double seconds = (double)(load.end_ns - load.begin_ns) / 1e9;
    double tasks = (double)(accepted ? load.end_accepted - load.begin_accepted
                                     : load.end_done - load.begin_done);
    printf("{\"tasks\": %.0f, \"seconds\": %.6f, \"rate\": %.2f", tasks, seconds,
        seconds > 0 ? tasks / seconds : 0);
    print_hist("latency_us", &load.latency);
    if (strcmp(load.o.mode, "open") == 0)
        printf(", \"sent\": %" PRIu64 ", \"sent_long\": %" PRIu64, load.sent, load.sent_long);
    print_usage(tasks);
    printf(", \"duplicates\": %" PRIu64 "}\n", load.duplicates);
    fflush(stdout);
    if (load.foreign)
        errx(1, "%" PRIu64 " results were not ours", load.foreign);
}

/* ---- the program ---- */

static void open_all(void)
{
    size_t all = load.o.conns + load.o.idle;
    struct rlimit files = {0};
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    load.handles = calloc(all, sizeof *load.handles);
    load.writing = calloc(all, sizeof *load.writing);
    load.payload = calloc(1, load.o.size);
    uint64_t places = 1u << 10;
    uint64_t most = load.o.count && strcmp(load.o.mode, "backlog") == 0 ? load.o.count
                    : strcmp(load.o.mode, "open") == 0                  ? 1u << 20
                                                                        : load.o.window * 4;
    while (places < most)
        places *= 2;
    load.mask = places - 1;
    load.ring = calloc(places, sizeof *load.ring);
    load.poller = epoll_create1(EPOLL_CLOEXEC);
    if (!load.handles || !load.writing || !load.payload || !load.ring || load.poller < 0)
        err(1, "no memory for the load");
    for (size_t i = 0; i < all; i++) {
        bool is_idle = i >= load.o.conns && load.driver->open_idle;
        load.handles[i] = is_idle ? load.driver->open_idle(&load.o) : load.driver->open(&load.o);
        struct epoll_event e = {.events = EPOLLIN, .data.u64 = i};
        if (epoll_ctl(load.poller, EPOLL_CTL_ADD, load.driver->fd(load.handles[i]), &e) != 0)
            err(1, "epoll_ctl");
    }
}

static int run_client(void)
{
    bool accepted = strcmp(load.o.mode, "submit") == 0;
    prctl(PR_SET_TIMERSLACK, 1);
    hist_init(&load.latency);
    usage_init(&load.usage, load.o.pids);
    load.random = load.o.seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    load.o.no_result = load.o.no_result || accepted;
    open_all();
    if (strcmp(load.o.mode, "open") == 0)
        open_loop();
    else if (strcmp(load.o.mode, "backlog") == 0)
        backlog_loop();
    else
        closed_loop(accepted);
    print_report(accepted);
    for (size_t i = 0; i < load.o.conns + load.o.idle; i++)
        load.driver->close(load.handles[i]);
    return 0;
}

int load_main(int argc, char **argv, const struct driver *driver)
{
    load.driver = driver;
    load_options_read(&load.o, argc, argv);
    if (argc > 1 && strcmp(argv[1], "worker") == 0 && driver->work) {
        driver->work(&load.o);
        return 0;
    }
    if (argc < 2 || strcmp(argv[1], "client") != 0)
        errx(2, "usage: %s client|worker [--OPTION=VALUE]...", argv[0]);
    return run_client();
}
