/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leaving: what has not started goes back, what runs is finished and stored, then BYE. For good
 * when whoever started us says so, or the operator; a server that stops is only waited for.
 */
#include "worker/session_impl.h"

static void drain(struct session *s, uint64_t until_ns)
{
    s->draining = true;
    s->drain_ns = until_ns;
    item_return_unstarted(s);
}

bool session_leaves(const struct session *s)
{
    return (s->draining && !s->coming_back) || s->state == SESSION_OVER;
}

/* For good: told to leave, it is not to come back. False: it drains already. */
static bool drain_for_good(struct session *s, uint64_t limit_ms)
{
    s->recycle = false;
    if (session_leaves(s))
        return false;
    s->coming_back = false;
    drain(s, session_in_ms(s, limit_ms));
    return true;
}

static uint64_t drain_limit_ms(const struct session *s, uint64_t told_ms)
{
    return told_ms && told_ms < s->config.drain_ms ? told_ms : s->config.drain_ms;
}

/* Whoever looks at a process that does not end wants to know what it waits for, and how long yet.
 * `hurry`: how to wait no longer. */
static void say_drain(struct session *s, const char *who, uint64_t limit_ms, const char *hurry)
{
    size_t running = session_running(s);
    if (running == 0)
        session_say(s, "%s: no task runs", who);
    else
        session_say(s, "%s: %zu task%s, for %g s at the most%s", who, running,
            running == 1 ? " runs" : "s run", (double)limit_ms / 1000,
            s->config.signals ? hurry : "");
}

void session_drain(struct session *s, uint64_t limit_ms)
{
    uint64_t limit = drain_limit_ms(s, limit_ms);
    if (drain_for_good(s, limit))
        say_drain(s, "draining", limit, "; a second SIGTERM leaves at once");
}

/* The first SIGTERM asks for what is done already. */
static void drain_for_server(struct session *s, uint64_t limit_ms)
{
    uint64_t limit = drain_limit_ms(s, limit_ms);
    if (drain_for_good(s, limit))
        say_drain(s, "the server has this worker drained (pushrod drain)", limit,
            "; SIGTERM twice leaves at once");
}

bool session_recycle(struct session *s, uint64_t limit_ms)
{
    if (session_leaves(s))
        return false;
    drain_for_good(s, drain_limit_ms(s, limit_ms));
    s->recycle = true;
    return true;
}

/*
 * A server that stops takes no worker along: what runs here goes on, however long, and whoever
 * comes up at its address has us again.
 */
void session_told_to_drain(struct session *s, const struct msg_drain *m)
{
    if (!m->again) {
        drain_for_server(s, m->limit_ms);
    } else if (!s->draining && session_active(s)) {
        s->coming_back = true;
        drain(s, UINT64_MAX);
    }
}

void session_quit(struct session *s)
{
    drain_for_good(s, s->config.drain_ms);
    s->quitting = true;
}

static void say_bye(struct session *s)
{
    struct msg_bye m = {.returned = s->returned};
    size_t from = answer_log_open(&s->log);
    msg_bye_encode(&s->log.bytes, &m);
    answer_log_close(&s->log, from, MSG_BYE, 0, 0);
    s->leaving = true;
    s->deadline_ns = session_in_ms(s, SESSION_BYE_WAIT_MS);
}

/* What is of the session itself may stay unacknowledged; what matters is stored before we go. */
static bool answers_stored(const struct session *s)
{
    for (size_t i = 0; answers_at(s, i); i++) {
        if (answers_at(s, i)->lease)
            return false;
    }
    return true;
}

static void leave(struct session *s)
{
    if (!s->coming_back) {
        session_over(s, s->code);
        return;
    }
    session_rejoin(s, NULL);
    session_say(s, "the server stops; joining again when it is back");
}

/* All that it may run runs, or has run. */
static bool has_run_enough(const struct session *s)
{
    return s->config.max_tasks && s->begun >= s->config.max_tasks &&
           s->handed_count <= s->config.slots;
}

/* BYE when all is done and stored, or the time is over; then a moment for it to arrive. */
void leave_judge(struct session *s)
{
    if (has_run_enough(s) && !s->draining)
        session_recycle(s, 0);
    if (!s->draining || s->state == SESSION_OVER)
        return;
    bool late = s->now.mono_ns >= s->drain_ns;
    bool idle = s->handed_count == 0 && s->waiting_count == 0;
    bool ready = late || (idle && answers_stored(s)) || (s->quitting && !s->revoking_count);
    if (s->leaving) {
        if (s->now.mono_ns >= s->deadline_ns || !answers_at(s, 0))
            leave(s);
    } else if (ready && session_active(s)) {
        say_bye(s);
    } else if (late || s->quitting || (idle && answers_kept(s) == 0)) {
        if (!session_active(s))
            session_over(s, s->code);
    }
}
