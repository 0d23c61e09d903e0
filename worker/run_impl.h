/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run_impl: what the files of the runner share. Private to worker/run*.c.
 *
 *   run.c       queue, slot threads, reports
 *   run_lead.c  which thread steps the owner's loop
 *   run_life.c  making and ending it
 */
#ifndef WORKER_RUN_IMPL_H
#define WORKER_RUN_IMPL_H

#include <pthread.h>
#include "worker/run.h"

struct thread {
    struct slot slot;
    pthread_t thread;
    bool started;
};

/* Who leads: run_lead.c. Guarded by run.lock, but for the descriptors. */
struct lead {
    bool slot;           /* the slot's thread does */
    bool armed;          /* the timer runs */
    uint64_t begin_ns;   /* of the attempt that the slot runs; 0: none */
    uint64_t stepped_ns; /* when the slot's thread made its last step */
    int timer;           /* timerfd */
    int relief;          /* a bell: the slot's thread has led to the end */
};

struct run {
    struct run_config config;
    struct thread *threads;
    int fd;                           /* a bell: reports */
    _Atomic(struct report *) reports; /* newest first */
    atomic_size_t reported;           /* bytes of PROGRESS and DATA that were not released */
    atomic_size_t emitted;            /* ... and that the link holds back */
    atomic_uint running;              /* threads that have not ended */
    atomic_bool stopping;
    uint64_t stop_ns; /* stopping: what the slots have running is killed then */

    /* the queue, and who sleeps in front of it */
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct pushrod_task *head;
    struct pushrod_task **tail;
    unsigned sleepers;
    pthread_cond_t room; /* `reported` is below its bound again */

    struct lead lead;

    /* the leader's */
    struct pushrod_task *tasks; /* all of them */
    struct pushrod_task *spare;
    size_t task_count;
    size_t given;     /* attempts whose last report was not released */
    uint64_t last_ns; /* how long the last one took */
};

/* run_lead.c, for the slot's thread; all but the first with run.lock held */
bool lead_is_slots(struct run *run);
bool lead_is_due(const struct run *run, uint64_t now_ns); /* a step comes before the next attempt */
void lead_step(struct run *run, bool wait);               /* without the lock meanwhile */
void lead_begin(struct run *run, uint64_t now_ns);        /* an attempt */

void *run_slot_main(void *arg); /* of a struct slot */

#endif
