/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run_impl: what the files of the runner share. Private to worker/run*.c.
 *
 *   run.c       queue, slot threads, reports
 *   run_life.c  making and ending it
 */
#ifndef WORKER_RUN_IMPL_H
#define WORKER_RUN_IMPL_H

#include <pthread.h>
#include "worker/run.h"

#define NS_PER_MS UINT64_C(1000000)

struct thread {
    struct slot slot;
    pthread_t thread;
    bool started;
};

struct run {
    struct run_config config;
    struct thread *threads;
    int fd;                           /* eventfd: reports */
    _Atomic(struct report *) reports; /* newest first */
    atomic_size_t reported;           /* bytes of PROGRESS and DATA that were not released */
    atomic_uint running;              /* threads that have not ended */
    atomic_bool stopping;

    /* the queue, and who sleeps in front of it */
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct pushrod_task *head;
    struct pushrod_task **tail;
    unsigned sleepers;
    pthread_cond_t room; /* `reported` is below its bound again */

    /* the owner's */
    struct pushrod_task *tasks; /* all of them */
    struct pushrod_task *spare;
    size_t task_count;
};

void run_signal(int fd);        /* adds one to an eventfd */
void *run_slot_main(void *arg); /* of a struct slot */

#endif
