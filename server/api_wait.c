/* SPDX-License-Identifier: Apache-2.0 */
/*
 * api_wait: other threads that submit tasks and wait for them.
 *
 * The thread posts its jobs to the server's thread and sleeps on a condition; everything else
 * happens on the server's thread, through a group. The struct wait belongs to both until `settled`.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "server/api.h"

struct wait {
    struct list node; /* in the server's `waits`; guarded by its lock */
    struct post start;
    struct pushrod_server *server;
    const struct pushrod_job *jobs;
    size_t count;
    int64_t timeout_ms;
    struct pushrod_finish **finishes;
    int *errors;     /* one for each job */
    int64_t *places; /* of each job in the group; negative: why it was refused */
    int64_t result;
    pthread_cond_t changed;
    bool settled; /* guarded by the server's lock */
};

static void wait_settle(struct wait *w, int64_t result)
{
    pthread_mutex_lock(&w->server->lock);
    list_remove(&w->node);
    w->result = result;
    w->settled = true;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->server->lock);
}

static void wait_done(struct pushrod_server *s, struct pushrod_group *g, void *arg)
{
    (void)s;
    struct wait *w = arg;
    int64_t finished = 0;
    for (size_t i = 0; i < w->count; i++) {
        if (w->places[i] < 0) {
            w->errors[i] = (int)w->places[i];
            continue;
        }
        const struct pushrod_finish *f = pushrod_group_finish(g, (size_t)w->places[i]);
        w->errors[i] = f ? 0 : -PUSHROD_E_TIMED_OUT;
        w->finishes[i] = f ? finish_copy(f) : NULL;
        if (f && !w->finishes[i])
            w->errors[i] = -PUSHROD_E_NO_MEMORY;
        finished += w->finishes[i] != NULL;
    }
    wait_settle(w, finished);
}

/* On the server's thread. */
static void wait_start(void *arg)
{
    struct wait *w = arg;
    struct pushrod_group *g = pushrod_group_new(w->server);
    if (!g) {
        wait_settle(w, -PUSHROD_E_NO_MEMORY);
        return;
    }
    for (size_t i = 0; i < w->count; i++)
        w->places[i] = pushrod_group_task(g, &w->jobs[i]);
    int error = pushrod_group_wait(g, w->timeout_ms, wait_done, w);
    if (error == 0)
        return;
    pushrod_group_drop(g);
    wait_settle(w, error);
}

/* False: the server does not run, or this is its own thread. Neither may change meanwhile. */
static bool wait_post(struct wait *w)
{
    struct pushrod_server *s = w->server;
    if (!server_is_here(s))
        return false;
    pthread_mutex_lock(&s->lock);
    bool runs = s->state == API_RUNNING && !pthread_equal(pthread_self(), s->thread);
    if (runs) {
        list_push_back(&s->waits, &w->node);
        loop_post(s->loop, &w->start);
    }
    pthread_mutex_unlock(&s->lock);
    return runs;
}

int64_t pushrod_server_taskwait_many(struct pushrod_server *s, const struct pushrod_job *jobs,
    size_t count, int64_t timeout_ms, struct pushrod_finish **finishes, int *errors)
{
    struct wait w = {
        .server = s,
        .jobs = jobs,
        .count = count,
        .timeout_ms = timeout_ms,
        .finishes = finishes,
        .errors = errors,
        .result = -PUSHROD_E_WRONG_STATE,
    };
    w.start = (struct post){.fn = wait_start, .arg = &w};
    int *own = errors ? NULL : calloc(count + 1, sizeof *own);
    w.errors = errors ? errors : own;
    w.places = calloc(count + 1, sizeof *w.places);
    memset(finishes, 0, count * sizeof(struct pushrod_finish *));
    list_init(&w.node);
    if (!w.errors || !w.places) {
        w.result = -PUSHROD_E_NO_MEMORY;
    } else {
        pthread_cond_init(&w.changed, NULL);
        if (wait_post(&w)) {
            pthread_mutex_lock(&s->lock);
            while (!w.settled)
                pthread_cond_wait(&w.changed, &s->lock);
            pthread_mutex_unlock(&s->lock);
        }
        pthread_cond_destroy(&w.changed);
    }
    free(w.places);
    free(own);
    return w.result;
}

int pushrod_server_taskwait(struct pushrod_server *s, const struct pushrod_job *job,
    int64_t timeout_ms, struct pushrod_finish **finish)
{
    int error = 0;
    int64_t count = pushrod_server_taskwait_many(s, job, 1, timeout_ms, finish, &error);
    return count < 0 ? (int)count : error;
}

/* What was posted has been called by now; groups are freed by the caller of this. */
void waits_abort(struct pushrod_server *s)
{
    pthread_mutex_lock(&s->lock);
    while (!list_empty(&s->waits)) {
        struct wait *w = container_of(list_first(&s->waits), struct wait, node);
        list_remove(&w->node);
        w->result = -PUSHROD_E_CLOSED;
        w->settled = true;
        pthread_cond_signal(&w->changed);
    }
    pthread_mutex_unlock(&s->lock);
}
