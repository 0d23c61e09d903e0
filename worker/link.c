/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop: wait, read all there is, let the session decide, do what it says.
 *
 * A worker that was stopped for a while (SIGSTOP, a laptop's lid) reads what came meanwhile before
 * the session judges any silence.
 */
#include "worker/link.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "common/bell.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/retry.h"
#include "worker/link_impl.h"

/* How often a deadline that a function must keep itself is looked at. */
#define WATCH_MS 100u
/* Large frames on their way: one that leaves, and the next. */
#define FRAMES_AFLOAT 2u
/* How often the memory is. */
#define MEMORY_MS 1000u
/* After a handler that hangs was given up, the others have this long. */
#define STUCK_DRAIN_MS 5000u

/* --------------------------------------------------------------------- judgements */

static void check_stops(struct link *l)
{
    unsigned stops = atomic_load(l->config->stops);
    if (stops == l->stops)
        return;
    l->stops = stops;
    if (stops == 1) {
        session_drain(l->session, 0);
        return;
    }
    log_info("leaving now");
    session_quit(l->session);
}

/* Nobody but a supervisor starts a process again, and only a supervisor is told when it is ready.
 */
static bool is_supervised(const struct link *l)
{
    return l->config->ready_fd >= 0;
}

/* Its process cannot go on: the thread, and what it holds, can only be got rid of with it. */
static void check_overdue(struct link *l)
{
    uint64_t run_ns = 0;
    uint64_t lease = l->hung ? 0 : run_overdue(l->run, l->now.mono_ns, &run_ns);
    if (!lease)
        return;
    struct attempt_failure f = {
        .code = PUSHROD_E_TASK_TIMEOUT,
        .text = slice_str("the handler went on after its timeout; its process cannot go on"),
    };
    log_error("a handler went on after its timeout: this process cannot go on%s",
        is_supervised(l) ? ", and is replaced" : "");
    session_abandoned(l->session, lease, run_ns, &f);
    session_recycle(l->session, STUCK_DRAIN_MS);
    l->hung = true;
}

static size_t resident_bytes(void)
{
    unsigned long size, resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (!file)
        return 0;
    int fields = fscanf(file, "%lu %lu", &size, &resident);
    fclose(file);
    return fields == 2 ? resident * (size_t)sysconf(_SC_PAGESIZE) : 0;
}

static void check_memory(struct link *l)
{
    if (!l->config->max_memory || session_leaves(l->session) || l->now.mono_ns < l->memory_ns)
        return;
    l->memory_ns = l->now.mono_ns + MEMORY_MS * NS_PER_MS;
    size_t bytes = resident_bytes();
    if (bytes <= l->config->max_memory)
        return;
    log_info("%zu bytes of memory in use, max-memory is %zu: this process %s", bytes,
        l->config->max_memory, is_supervised(l) ? "is replaced" : "leaves");
    session_recycle(l->session, 0);
}

/* ---------------------------------------------------------------------------- waiting */

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static int wait_ms(const struct link *l, uint64_t wake_ns)
{
    uint64_t now_ns = clock_mono_ns();
    if (l->revoked_count)
        return 0;
    if (run_watched(l->run))
        wake_ns = earlier(wake_ns, now_ns + WATCH_MS * NS_PER_MS);
    if (l->config->max_memory && !session_leaves(l->session))
        wake_ns = earlier(wake_ns, l->memory_ns);
    return clock_wait_ms(now_ns, wake_ns);
}

/* -1, which poll() passes over: it is closed. */
static int socket_fd(void *socket)
{
    int fd = -1;
    size_t size = sizeof fd;
    if (socket && zmq_getsockopt(socket, ZMQ_FD, &fd, &size) != 0)
        return -1;
    return fd;
}

/* Sending a JOIN may take in the signal of its answer. */
static void look_at_join(struct link *l)
{
    int events = 0;
    size_t size = sizeof events;
    if (l->join && RETRY(zmq_getsockopt(l->join, ZMQ_EVENTS, &events, &size)) == 0 &&
        events & ZMQ_POLLIN)
        l->unread |= 1u << SOURCE_JOIN;
}

/*
 * Not zmq_poll(), which asks each socket for its events, at two system calls and more: ZMQ_FD is
 * readable when a socket that was read to its end has something new, and that is all we need.
 */
static void wait_events(struct link *l, bool wait)
{
    struct pollfd fds[SOURCE_COUNT] = {
        [SOURCE_REPORTS] = {.fd = l->full ? -1 : run_fd(l->run)},
        [SOURCE_STOPS] = {.fd = l->config->stop_fd},
        [SOURCE_ROOM] = {.fd = l->near ? -1 : l->room_fd},
        [SOURCE_LANE] = {.fd = socket_fd(l->lane)},
        [SOURCE_JOIN] = {.fd = socket_fd(l->join)},
        [SOURCE_JOIN_MONITOR] = {.fd = socket_fd(l->join_monitor)},
        [SOURCE_LANE_MONITOR] = {.fd = socket_fd(l->lane_monitor)},
        [SOURCE_ANSWERS_MONITOR] = {.fd = socket_fd(l->answers_monitor)},
    };
    look_at_join(l);
    if (l->unread || (!l->full && run_has_reports(l->run)))
        wait = false;
    for (size_t i = 0; i < SOURCE_COUNT; i++)
        fds[i].events = POLLIN;
    if (poll(fds, SOURCE_COUNT, !wait ? 0 : wait_ms(l, l->wake_ns)) <= 0)
        return;
    if (fds[SOURCE_REPORTS].revents)
        run_quiet(l->run);
    /* Before the wishes are counted: each was counted before it rang, so none is missed, and one
     * that was seen before it rang does not keep us awake. */
    if (fds[SOURCE_STOPS].revents)
        bell_quiet(l->config->stop_fd);
    if (fds[SOURCE_ROOM].revents)
        bell_quiet(l->room_fd);
    for (size_t i = SOURCE_LANE; i < SOURCE_COUNT; i++)
        if (fds[i].revents)
            l->unread |= 1u << i;
}

/* ------------------------------------------------------------------------------ life */

static const char *plural(size_t count)
{
    return count == 1 ? "" : "s";
}

/* The last word of a worker that was asked to leave; one that is replaced has said so. */
static void tell_end(const struct link *l, const struct session_actions *a)
{
    if (a->code || l->end->recycle)
        return;
    if (a->running)
        log_warning("leaving, while %zu task%s still ran: others get %s", a->running,
            plural(a->running), a->running == 1 ? "it" : "them");
    else
        log_info("drained: it has run %zu task%s", a->done, plural(a->done));
}

static void link_step(struct link *l, bool wait)
{
    wait_events(l, wait);
    l->now = clock_now();
    session_begin(l->session, l->now);
    link_read(l);
    link_take_reports(l);
    check_stops(l);
    check_overdue(l);
    check_memory(l);
    session_room(l->session, atomic_load(&l->afloat) < FRAMES_AFLOAT);
    const struct session_actions *a = session_end(l->session);
    link_act(l, a);
    if (a->state == SESSION_JOINING || a->state == SESSION_IDLE)
        link_complain(l);
    l->wake_ns = a->wake_ns;
    l->full = a->full;
    if (a->emitted != l->emitted)
        run_emitted(l->run, l->emitted = a->emitted);
    l->over = a->state == SESSION_OVER || l->end->code != 0;
    if (a->state != SESSION_OVER)
        return;
    l->end->code = a->code;
    l->end->recycle = a->recycle;
    tell_end(l, a);
}

/* On the slot's thread, while it leads. */
static bool link_step_of_slot(void *arg, bool wait)
{
    struct link *l = arg;
    link_step(l, wait);
    return !l->over;
}

static bool link_init(struct link *l, const struct link_config *config, struct link_end *end)
{
    *l = (struct link){.config = config, .end = end, .room_fd = -1};
    l->now = clock_now();
    l->contact_ns = l->now.mono_ns;
    l->session = session_new(&config->session);
    struct run_config run = config->run;
    if (run.slots == 1) {
        run.step = link_step_of_slot;
        run.step_arg = l;
    }
    l->run = l->session ? run_new(&run) : NULL;
    return l->run && link_open(l);
}

/* The runner first: until its threads have ended, they may use what the session holds. */
static void link_fini(struct link *l)
{
    link_close(l);
    l->end->stuck = !run_free(l->run, l->hung ? 0 : LINK_END_WAIT_MS);
    if (!l->end->stuck)
        session_free(l->session);
    free(l->starts);
    free(l->revoked);
}

/* Whoever called us would take 0 for a good end, and free what the handler uses. */
static void tell_hung(const struct link *l)
{
    if (l->end->code || !(l->hung || l->end->stuck))
        return;
    l->end->code = PUSHROD_E_TASK_TIMEOUT;
    snprintf(l->end->text, sizeof l->end->text, "%s: this process cannot go on",
        l->hung ? "a handler went on after its timeout" : "a handler did not return in time");
}

void link_run(const struct link_config *config, struct link_end *end)
{
    struct link l;
    *end = (struct link_end){0};
    if (link_init(&l, config, end)) {
        while (!l.over) {
            link_step(&l, true);
            if (l.over)
                break;
            run_offer_lead(l.run);
            run_await_lead(l.run);
        }
    } else {
        end->code = PUSHROD_E_SYSTEM;
        snprintf(end->text, sizeof end->text, "cannot start: %s", strerror(errno));
    }
    link_fini(&l);
    tell_hung(&l);
    if (end->code && !end->text[0])
        snprintf(end->text, sizeof end->text, "%s", pushrod_strerror(end->code));
}
