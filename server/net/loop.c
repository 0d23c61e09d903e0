/* SPDX-License-Identifier: Apache-2.0 */
#include "server/net/loop.h"

#include <assert.h>
#include <dirent.h>
#include <event2/event.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "common/bell.h"

struct loop {
    struct event_base *base;
    const struct loop_hooks *hooks;
    void *arg;
    struct now now; /* of the tick, valid while entered */
    bool entered;
    bool turning;
    bool firing; /* timers are being called */

    struct heap timers;
    struct event *timer_event;
    int timer_fd;
    int poll_fd;       /* of libevent; -1: not looked for yet */
    uint64_t armed_ns; /* when timer_fd fires; UINT64_MAX: it does not */

    struct event *wake_event;
    int wake_fd;
    pthread_mutex_t lock; /* guards the posts */
    struct list posts;

    struct list deferred;
    struct list postponed;
};

/* ----------------------------------------------------------------------------------- timers */

static void timer_arm(struct loop *loop, uint64_t at_ns)
{
    /* 0 would disarm it; the past fires at once. */
    at_ns = at_ns ? at_ns : 1;
    struct itimerspec when = {.it_value = clock_timespec(at_ns)};
    int failed = timerfd_settime(loop->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
    assert(!failed);
    (void)failed;
    loop->armed_ns = at_ns;
}

/*
 * A timer that moved into the future leaves the descriptor armed: the one early wake-up is cheaper
 * than a system call for each move.
 */
static void timers_arm(struct loop *loop)
{
    struct heap_node *top = heap_top(&loop->timers);
    if (top && top->key < loop->armed_ns)
        timer_arm(loop, top->key);
}

static void timers_fire(int fd, short what, void *arg)
{
    struct loop *loop = arg;
    (void)what;
    uint64_t count;
    ssize_t got = read(fd, &count, sizeof count);
    (void)got; /* EAGAIN: it was armed anew meanwhile */
    loop->armed_ns = UINT64_MAX;
    uint64_t now_ns = loop_enter(loop).mono_ns;
    loop->firing = true;
    for (struct heap_node *top; (top = heap_top(&loop->timers)) && top->key <= now_ns;) {
        struct loop_timer *timer = container_of(top, struct loop_timer, node);
        heap_remove(&loop->timers, top);
        timer->fn(timer->arg);
    }
    loop->firing = false;
}

bool loop_timer_set(struct loop *loop, struct loop_timer *timer, uint64_t at_ns)
{
    assert(timer->fn);
    heap_remove(&loop->timers, &timer->node);
    /* Of a timer that is always due, the first call would be followed by the next without an end.
     */
    if (loop->firing && at_ns <= loop->now.mono_ns)
        at_ns = loop->now.mono_ns + 1;
    return heap_push(&loop->timers, &timer->node, at_ns, 0);
}

void loop_timer_clear(struct loop *loop, struct loop_timer *timer)
{
    heap_remove(&loop->timers, &timer->node);
}

/* -------------------------------------------------------------------------- deferred, posted */

void deferral_init(struct deferral *deferral, loop_fn *fn, void *arg)
{
    list_init(&deferral->node);
    deferral->fn = fn;
    deferral->arg = arg;
}

void loop_defer(struct loop *loop, struct deferral *deferral)
{
    if (list_empty(&deferral->node))
        list_push_back(&loop->deferred, &deferral->node);
}

void loop_postpone(struct loop *loop, struct deferral *deferral)
{
    if (list_empty(&deferral->node))
        list_push_back(&loop->postponed, &deferral->node);
}

void loop_undefer(struct deferral *deferral)
{
    list_remove(&deferral->node);
}

/* Only those that were there at the start: one that defers itself again waits for the next round.
 */
static void deferred_run(struct loop *loop)
{
    struct list now;
    list_init(&now);
    list_splice_front(&now, &loop->deferred);
    while (!list_empty(&now)) {
        struct deferral *deferral = container_of(list_first(&now), struct deferral, node);
        list_remove(&deferral->node);
        loop_enter(loop);
        deferral->fn(deferral->arg);
    }
}

static void postponed_run(struct loop *loop)
{
    struct list *first = list_first(&loop->postponed);
    if (!first)
        return;
    list_remove(first);
    struct deferral *deferral = container_of(first, struct deferral, node);
    deferral->fn(deferral->arg);
}

/* Something is to be called without an event. */
static bool loop_owes(const struct loop *loop)
{
    return !list_empty(&loop->deferred) || !list_empty(&loop->postponed);
}

void loop_wake(struct loop *loop)
{
    bell_ring(loop->wake_fd);
}

void loop_post(struct loop *loop, struct post *post)
{
    pthread_mutex_lock(&loop->lock);
    bool first = list_empty(&loop->posts);
    list_push_back(&loop->posts, &post->node);
    pthread_mutex_unlock(&loop->lock);
    if (first)
        loop_wake(loop);
}

/* Those that are there now: one that posts again does not keep the loop from its work. */
void loop_run_posts(struct loop *loop)
{
    struct list now;
    list_init(&now);
    pthread_mutex_lock(&loop->lock);
    list_splice_front(&now, &loop->posts);
    pthread_mutex_unlock(&loop->lock);
    while (!list_empty(&now)) {
        struct post *post = container_of(list_first(&now), struct post, node);
        list_remove(&post->node);
        loop_enter(loop);
        post->fn(post->arg);
    }
}

static void wake_ready(int fd, short what, void *arg)
{
    (void)what;
    bell_quiet(fd);
    loop_run_posts(arg);
}

/* -------------------------------------------------------------------------------- the round */

struct now loop_enter(struct loop *loop)
{
    if (loop->entered)
        return loop->now;
    loop->entered = true;
    loop->now = clock_now();
    if (loop->hooks)
        loop->hooks->begin(loop->arg, loop->now);
    /* Outside of a round nobody would end the tick: see to it that one comes soon. */
    if (!loop->turning)
        loop_wake(loop);
    return loop->now;
}

static void turn_once(struct loop *loop, bool wait)
{
    deferred_run(loop);
    postponed_run(loop);
    timers_arm(loop);
    bool sleep = wait && !loop->entered && !loop_owes(loop);
    event_base_loop(loop->base, EVLOOP_ONCE | (sleep ? 0 : EVLOOP_NONBLOCK));
    if (loop->entered) {
        if (loop->hooks)
            loop->hooks->end(loop->arg);
        loop->entered = false;
    }
}

void loop_turn(struct loop *loop, bool wait)
{
    assert(!loop->turning);
    loop->turning = true;
    turn_once(loop, wait);
    /* What a tick deferred, its callbacks above all, is worth a second round at once: a wake-up
     * through the descriptor would cost the caller's loop three system calls for each tick. */
    if (!list_empty(&loop->deferred))
        turn_once(loop, false);
    timers_arm(loop);
    loop->turning = false;
    bool more =
        loop_owes(loop) || event_base_get_num_events(loop->base, EVENT_BASE_COUNT_ACTIVE) > 0;
    /* Somebody else's loop looks at the descriptor only. */
    if (more && !wait)
        loop_wake(loop);
}

/* True if the eventpoll descriptor `name` of this process watches `target`. */
static bool epoll_watches(const char *name, int target)
{
    char path[64], line[256];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%.16s", name);
    FILE *info = fopen(path, "re");
    if (!info)
        return false;
    bool found = false;
    int fd;
    while (!found && fgets(line, sizeof line, info))
        found = sscanf(line, "tfd: %d", &fd) == 1 && fd == target;
    fclose(info);
    return found;
}

/*
 * libevent 2.1 has no call that gives its epoll descriptor; the kernel knows which one watches our
 * timer. Timers and wake-ups are descriptors too, so this one is all that a foreign loop needs.
 */
int loop_fd(struct loop *loop)
{
    if (loop->poll_fd >= 0)
        return loop->poll_fd;
    DIR *dir = opendir("/proc/self/fdinfo");
    if (!dir)
        return -1;
    int fd = -1;
    for (struct dirent *entry; fd < 0 && (entry = readdir(dir));)
        if (entry->d_name[0] != '.' && epoll_watches(entry->d_name, loop->timer_fd))
            fd = atoi(entry->d_name);
    closedir(dir);
    return loop->poll_fd = fd;
}

/* --------------------------------------------------------------------------------- lifetime */

static bool loop_watch(struct loop *loop)
{
    loop->timer_event =
        event_new(loop->base, loop->timer_fd, EV_READ | EV_PERSIST, timers_fire, loop);
    loop->wake_event = event_new(loop->base, loop->wake_fd, EV_READ | EV_PERSIST, wake_ready, loop);
    return loop->timer_event && loop->wake_event && !event_add(loop->timer_event, NULL) &&
           !event_add(loop->wake_event, NULL);
}

static struct event_base *base_new(void)
{
    struct event_config *config = event_config_new();
    if (!config)
        return NULL;
    event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
    event_config_require_features(config, EV_FEATURE_O1);
    struct event_base *base = event_base_new_with_config(config);
    event_config_free(config);
    return base;
}

struct loop *loop_new(void)
{
    struct loop *loop = calloc(1, sizeof *loop);
    if (!loop)
        return NULL;
    list_init(&loop->deferred);
    list_init(&loop->postponed);
    list_init(&loop->posts);
    loop->armed_ns = UINT64_MAX;
    loop->poll_fd = -1;
    pthread_mutex_init(&loop->lock, NULL);
    loop->base = base_new();
    loop->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    loop->wake_fd = bell_new();
    if (loop->base && loop->timer_fd >= 0 && loop->wake_fd >= 0 && loop_watch(loop))
        return loop;
    loop_free(loop);
    return NULL;
}

void loop_free(struct loop *loop)
{
    if (!loop)
        return;
    if (loop->timer_event)
        event_free(loop->timer_event);
    if (loop->wake_event)
        event_free(loop->wake_event);
    assert(list_empty(&loop->posts));
    heap_free(&loop->timers);
    if (loop->timer_fd >= 0)
        close(loop->timer_fd);
    if (loop->wake_fd >= 0)
        close(loop->wake_fd);
    if (loop->base)
        event_base_free(loop->base);
    pthread_mutex_destroy(&loop->lock);
    free(loop);
}

void loop_hook(struct loop *loop, const struct loop_hooks *hooks, void *arg)
{
    loop->hooks = hooks;
    loop->arg = arg;
}

struct now loop_now(const struct loop *loop)
{
    return loop->entered ? loop->now : clock_now();
}

struct event_base *loop_base(struct loop *loop)
{
    return loop->base;
}
