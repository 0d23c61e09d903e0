/* SPDX-License-Identifier: Apache-2.0 */
/*
 * load: the same load for every system.
 *
 * Each program bench/peer_X.c says in a `struct driver` how X takes a task and gives back a result;
 * load.c does the rest: how many are in flight, when each was meant to start, what was lost or came
 * twice, the latency, and the CPU time of all who take part. A payload begins with the number of
 * the task (8 bytes) and the time that a worker spends on it (8 bytes, us); the result is the
 * number. So all carry the same bytes, and a driver cannot forget a task.
 */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

enum { LOAD_MIN_PAYLOAD = 16, LOAD_RESULT = 8 };

/* The command line; see load_usage() in load.c. */
struct load_options {
    const char *address; /* HOST:PORT of the system */
    const char *queue;
    const char *mode;    /* run, submit, backlog, open */
    const char *variant; /* the driver's own, "" if none */
    const char *pids;    /* GROUP:PID[+PID...],... whose CPU time counts */
    uint64_t count;      /* tasks; 0: as many as fit in `seconds` */
    uint64_t window;     /* tasks in flight */
    uint64_t seed;
    size_t size;    /* of a payload */
    size_t conns;   /* connections that submit */
    size_t burst;   /* tasks in a row that one connection submits */
    size_t idle;    /* and those that only are there */
    double seconds; /* to measure, after `warmup` */
    double warmup;
    double rate;       /* open: tasks per second */
    double long_share; /* open: that take long_us, the others short_us */
    uint64_t long_us, short_us;
    uint64_t delay_ms; /* for systems that can delay a task */
    uint64_t keep_ms;  /* for systems that can keep a result */
    unsigned batch;    /* tasks in one message, where a driver has the choice; 0: its own */
    unsigned workers;  /* that the driver starts, if it starts them itself */
    unsigned queues;   /* in turn; of more than one the names are load_queue()'s */
    bool no_result;    /* submit: nobody waits for the results */
};

struct load_task {
    uint64_t seq;
    const char *queue;
    const char *payload;
    size_t size;
    bool untold; /* nobody waits for its result */
};

struct driver {
    const char *name;
    /* Ready to submit when it returns. Ends the program when it cannot. */
    void *(*open)(const struct load_options *);
    /* A connection that only is there, as cheap as it can be for us; NULL: as open(). */
    void *(*open_idle)(const struct load_options *);
    /* Takes a task; sends it now or in process(). It never waits. false: full, call process(). */
    bool (*submit)(void *handle, const struct load_task *);
    /* Sends, reads what is there, calls load_accepted() and load_finished(); never waits. */
    void (*process)(void *handle);
    int (*fd)(void *handle);       /* readable: call process() */
    bool (*writing)(void *handle); /* wants to hear of room, too; NULL: never */
    void (*close)(void *handle);
    /* Works until it is killed. NULL: the system has workers of its own. */
    void (*work)(const struct load_options *);
};

/* What the driver tells, from within process(). */
void load_accepted(uint64_t count); /* the system has taken that many more */
void load_finished(const void *result, size_t size);

/* What a worker does with a payload: spends the time it asks for, and gives its number. */
void load_work(const void *payload, size_t size, char result[LOAD_RESULT]);

/* The name of a queue, QUEUE or QUEUE.0, QUEUE.1 and so on. It lives until the next call. */
const char *load_queue(const struct load_options *, unsigned number);

/* The whole program: PROGRAM client|worker [--OPTION=VALUE]... */
int load_main(int argc, char **argv, const struct driver *driver);

static inline uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

#endif
