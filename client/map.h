/* SPDX-License-Identifier: Apache-2.0 */
/*
 * map: `pushrod map`, a task for each input.
 *
 *   cmd_map.c       reads the flags, drives the loop, ends it
 *   map_input.c     inputs: arguments, or standard input cut at a delimiter
 *   map_job.c       a job's way from input to finish: payload, submission, retries of lost ones
 *   map_output.c    results in order, --tag, --results, the list of failures
 *   map_log.c       --joblog, --resume
 *   map_progress.c  the progress bar
 *   map_halt.c      --halt
 *
 * Jobs between the first that is not printed and the last that was read are in a ring by their
 * number; in-order output bounds it, so memory does not grow with the input.
 */
#ifndef CLIENT_MAP_H
#define CLIENT_MAP_H

#include "client/command.h"
#include "common/map.h"

#define MAP_BYTES (64u << 20) /* payloads in flight, and results that wait for their turn */
#define MAP_JOBS  100000u     /* in flight, of --jobs 0 */
#define MAP_AHEAD 4u          /* times --jobs: how far output may lag behind */

enum job_state {
    JOB_FREE,  /* printed, left out, or not read yet */
    JOB_READY, /* to be submitted */
    JOB_SENT,
    JOB_ENDED /* its finish waits for its turn to be printed */
};

struct job {
    uint64_t seq; /* from 1, as in the joblog */
    enum job_state state;
    char *input; /* owned */
    size_t input_size;
    size_t payload_size;
    uint64_t id;                               /* 0: not accepted yet */
    unsigned losses;                           /* of connections, when it was sent */
    uint64_t began_wall_ms, began_ns, took_ns; /* from the submission on */
    uint64_t run_ns;                           /* of the last attempt, in the handler */
    /* finish */
    enum pushrod_status status; /* 0: never ran; `text` says why */
    bool dropped;               /* left out, or we stop: no result, no failure */
    int error;
    struct buf result;
    struct buf text; /* whole, with its lines */
};

enum input_result { INPUT_ONE, INPUT_TOO_LONG, INPUT_AGAIN, INPUT_END, INPUT_FAILED };

struct input {
    int fd;
    uint8_t delimiter;
    size_t limit; /* bytes of one input */
    struct buf buf;
    size_t at;      /* bytes of buf that are done with */
    size_t scanned; /* bytes behind `at` that have no delimiter */
    bool eof, skipping;
    int why; /* errno of INPUT_FAILED */
    char **arguments;
    size_t argument_count, argument_at;
};

struct halt {
    bool now;
    enum { HALT_NEVER, HALT_FAIL, HALT_SUCCESS, HALT_DONE } on;
    double value;
    bool percent;
};

struct joblog {
    FILE *file;        /* NULL: none */
    struct buf lines;  /* of results that may not have left yet */
    struct idmap done; /* number -> fingerprint << 1 | successful; what --resume leaves out */
    bool only_good;    /* --resume-failed */
};

struct map {
    struct cli *cli;
    const char *queue;
    struct task_options task;
    bool files, tag, json, unordered, detach;
    uint64_t jobs; /* in flight at the most */
    const char *results;
    struct input input;
    struct joblog log;
    struct halt halt;
    uint64_t run_id; /* random: part of the unique keys of detached tasks */
    /* the ring */
    struct job *window;
    size_t mask;
    uint64_t first, next; /* [first, next) */
    /* counts */
    uint64_t in_flight, in_flight_bytes, waiting_bytes, ready;
    uint64_t finished, failed, left_out; /* failed: of the finished */
    uint64_t total;                      /* 0: not known */
    uint64_t retry_ns;                   /* not before this a refused job is sent again */
    bool no_more;                        /* nothing is read any more */
    bool stopping;                       /* what runs is cancelled */
    bool halted;                         /* what --halt waits for has happened */
    bool lost;           /* a result could not be written: none is printed or logged any more */
    int fatal;           /* exit code that ends it; 0: none */
    struct buf failures; /* lines, the first CLI_LISTED */
    uint64_t listed;     /* of them */
    uint64_t moved_ns;   /* when something finished last */
    struct why why;
    char refused[256]; /* why the server has no room for more now; "": it has */
    struct why why_refused;
    /* progress */
    bool progress, drawn;
    uint64_t began_ns, drawn_ns;
};

/* ---- map_input.c ---- */
enum input_result input_next(struct input *in, struct slice *line);
void input_fill(struct input *in);            /* one read(); may block */
uint64_t input_count(const struct input *in); /* inputs in all; 0: cannot be known */
/* More may be read than there is use for now: whoever draws a bar wants to see the end. */
bool input_may_read_ahead(const struct input *in);
uint64_t input_left(const struct input *in); /* inputs that were read and not taken yet */
/* One character, or \n \t \0 \xHH. False: neither. */
bool input_delimiter(const char *text, uint8_t *delimiter);
void input_free(struct input *in);

/* ---- map_job.c ---- */
struct job *map_job(struct map *m, uint64_t seq);
bool map_job_new(struct map *m, struct slice input); /* false: no memory */
/* Submits it. A payload that cannot be is a failure of the job; other errors are given back. */
int map_job_send(struct map *m, struct job *job);
void map_on_accepted(struct pushrod_client *c, uint64_t id, int error, const char *text, void *arg);
void map_on_finish(struct pushrod_client *c, const struct pushrod_finish *finish, void *arg);
/* It ended without the server's doing. */
void map_job_fail(struct map *m, struct job *job, int error, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void map_job_drop(struct map *m, struct job *job); /* it ends without a result, and is no failure */
void map_stop(struct map *m);                      /* reads no more, cancels what is in flight */

/* ---- map_output.c ---- */
void map_ended(struct map *m, struct job *job); /* counts it, prints what is due */
void map_report(struct map *m);                 /* the failures, at the end */
void map_flush(struct map *m);        /* standard output, then the log; their failure is the end */
int map_results_begin(struct map *m); /* makes the directory; an exit code */

/* ---- map_log.c ---- */
int map_log_open(struct map *m); /* an exit code */
bool map_log_has(const struct map *m, uint64_t seq, struct slice input);
void map_log_write(struct map *m, const struct job *job);
void map_log_flush(struct map *m); /* only for map_flush() */
void map_log_close(struct map *m);

/* ---- map_halt.c ---- */
bool halt_parse(const char *text, struct halt *halt);
bool halt_reached(const struct map *m);

/* ---- map_progress.c ---- */
void map_progress(struct map *m, bool always); /* draws, ten times a second at the most */
void map_progress_erase(void *map);

#endif
