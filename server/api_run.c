/* SPDX-License-Identifier: Apache-2.0 */
/* api_run: serving, draining, ending. */
#include <event2/event.h>
#include <string.h>
#include <stdlib.h>
#include "common/clock.h"
#include "common/log.h"
#include "server/api.h"

#define FLUSH_MS    2000u /* for the last bytes to clients */
#define DRAIN_EXTRA 1000u /* ms beyond drain-timeout, which is the core's to keep */

/* --------------------------------------------------------------------------------- draining */

void state_set(struct pushrod_server *s, enum api_state state)
{
    /* Other threads look at it before they post. */
    pthread_mutex_lock(&s->lock);
    s->state = state;
    pthread_mutex_unlock(&s->lock);
}

static void phase_ends(void *arg)
{
    struct pushrod_server *s = arg;
    if (s->state == API_DRAINING)
        log_warning("drain-timeout is over: what still runs will be run again");
    s->phase_over = true;
}

static void deadline_set(struct pushrod_server *s, uint64_t ms)
{
    s->phase_timer.fn = phase_ends;
    s->phase_timer.arg = s;
    uint64_t at = clock_after_ms(loop_enter(s->loop).mono_ns, ms);
    /* Without memory for a timer there is no waiting. */
    if (!loop_timer_set(s->loop, &s->phase_timer, at))
        s->phase_over = true;
}

static void drain_begin(struct pushrod_server *s)
{
    uint64_t limit = settings_drain_ms(s);
    state_set(s, API_DRAINING);
    if (s->program)
        log_info("draining: what runs may finish for %llu s; once more stops at once",
            (unsigned long long)(limit / 1000));
    conns_deafen(s->conns);
    core_drain(host_core(s->host), limit);
    local_stop(s, false);
    deadline_set(s, limit + DRAIN_EXTRA);
    loop_wake(s->loop);
}

/* The stop event, and then only what is on its way to clients. */
static void flush_begin(struct pushrod_server *s)
{
    state_set(s, API_FLUSHING);
    loop_enter(s->loop);
    if (s->events.stop)
        s->events.stop(s, s->events_arg);
    s->phase_over = false;
    deadline_set(s, FLUSH_MS);
    loop_wake(s->loop);
}

/* Finishes that are told already may lead to a last send. */
static bool flush_done(const struct pushrod_server *s)
{
    bool telling = s->told.size || s->closes.size || s->notes.size;
    return s->phase_over || (!telling && !conns_busy(s->conns));
}

/* ----------------------------------------------------------------------------------- ending */

/* From the outside in; everything may be missing, for a start that failed. */
void server_end(struct pushrod_server *s)
{
    state_set(s, API_OVER);
    waits_abort(s);
    /* Groups stay until free(), too: whose they are may look at them, and drop them, in the last
     * close events and later. */
    if (s->loop) {
        timers_free(s);
        loop_timer_clear(s->loop, &s->phase_timer);
        loop_undefer(&s->start_tell);
    }
    http_free(s->http);
    struct conns *conns = s->conns;
    s->conns = NULL;
    conns_free(conns);
    closes_tell_last(s);
    native_free(s->native);
    host_free(s->host);
    local_wait(s); /* its event is one of the loop's */
    /* Not before the store is closed: one more signal would end the process with what is in it. */
    signals_leave(s);
    /* The loop stays until free(): stop() may ring it at any time. */
    s->http = NULL;
    s->native = NULL;
    s->host = NULL;
    free(s->token);
    s->token = NULL;
}

static void stops_look(struct pushrod_server *s)
{
    unsigned stops = atomic_load(&s->stops);
    if (stops == s->stops_seen)
        return;
    bool at_once = stops > 1;
    s->stops_seen = stops;
    if (s->state == API_RUNNING && !at_once) {
        drain_begin(s);
        return;
    }
    /* The second time is for local workers, too. */
    local_stop(s, true);
    if (s->state == API_RUNNING || s->state == API_DRAINING)
        flush_begin(s);
    s->phase_over = true;
}

/* ---------------------------------------------------------------------------------- serving */

/* What becomes of what has not ended: nobody should have to find out by its absence. */
static void left_log(const struct pushrod_server *s)
{
    const struct queue *at = NULL;
    struct core_queue_stats q;
    uint64_t stored = 0, lost = 0;
    while (host_queue_next(s->host, &at, &q))
        *(q.stored ? &stored : &lost) += q.ready + q.delayed + q.running;
    if (stored)
        log_info("%llu %s on disk for the next start", (unsigned long long)stored,
            stored == 1 ? "task is" : "tasks are");
    if (lost)
        log_warning("%llu %s with this process: no disk has %s", (unsigned long long)lost,
            lost == 1 ? "task ends" : "tasks end", lost == 1 ? "it" : "them");
}

/* One round; false: it is over. */
static bool server_turn(struct pushrod_server *s, bool wait)
{
    loop_turn(s->loop, wait);
    stops_look(s);
    if (s->state == API_DRAINING && s->phase_over)
        flush_begin(s);
    if (s->state != API_FLUSHING || !flush_done(s))
        return true;
    /* Nothing is posted from here on. What was is called, as it was promised; by hand, since a busy
     * loop may not come to it. The last round ends the tick, that of the stop event above all. */
    state_set(s, API_OVER);
    loop_enter(s->loop);
    loop_run_posts(s->loop);
    loop_turn(s->loop, false);
    left_log(s);
    server_end(s);
    return false;
}

int pushrod_server_run(struct pushrod_server *s)
{
    if (s->state == API_NEW) {
        int error = pushrod_server_start(s);
        if (error)
            return error;
    }
    if (s->state == API_OVER)
        return api_fail(s, PUSHROD_E_WRONG_STATE, "the server has stopped");
    int error = thread_take(s);
    while (error == 0 && server_turn(s, true))
        continue;
    return error;
}

int pushrod_server_fd(const struct pushrod_server *s)
{
    return s->loop ? loop_fd(s->loop) : -1;
}

int pushrod_server_step(struct pushrod_server *s)
{
    if (s->state == API_NEW)
        return api_fail(s, PUSHROD_E_WRONG_STATE, "the server was not started");
    if (s->state == API_OVER)
        return 0;
    int error = thread_take(s);
    return error ? error : server_turn(s, false);
}

void pushrod_server_stop(struct pushrod_server *s)
{
    atomic_fetch_add(&s->stops, 1);
    struct loop *loop = s->loop;
    if (loop)
        loop_wake(loop);
}
