/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leaving: what has not started goes back, what runs is finished and stored, then BYE. For good
 * when whoever started us says so, or the operator; a server that stops is only waited for.
 */
#include "worker/session_impl.h"

/* How long a BYE may take to be acknowledged before we leave anyway. */
#define BYE_WAIT_MS 1000u

static void drain(struct session *s, uint64_t until_ns)
{
    s->draining = true;
    s->drain_ns = until_ns;
    item_return_unstarted(s);
}

void session_drain(struct session *s, uint64_t limit_ms)
{
    if ((s->draining && !s->coming_back) || s->state == SESSION_OVER)
        return;
    uint64_t limit = limit_ms && limit_ms < s->config.drain_ms ? limit_ms : s->config.drain_ms;
    s->coming_back = false;
    drain(s, session_in_ms(s, limit));
}

/*
 * A server that stops takes no worker along: what runs here goes on, however long, and whoever
 * comes up at its address has us again.
 */
void session_told_to_drain(struct session *s, const struct msg_drain *m)
{
    if (!m->again) {
        session_drain(s, m->limit_ms);
    } else if (!s->draining && session_active(s)) {
        s->coming_back = true;
        drain(s, UINT64_MAX);
    }
}

void session_quit(struct session *s)
{
    session_drain(s, 0);
    s->quitting = true;
}

static void say_bye(struct session *s)
{
    struct msg_bye m = {.returned = s->returned};
    size_t from = answer_log_open(&s->log);
    msg_bye_encode(&s->log.bytes, &m);
    answer_log_close(&s->log, from, MSG_BYE, 0, 0);
    s->leaving = true;
    s->deadline_ns = session_in_ms(s, BYE_WAIT_MS);
}

/* What is of the session itself may stay unacknowledged; what matters is stored before we go. */
static bool answers_stored(const struct session *s)
{
    for (size_t i = 0; answer_log_at(&s->log, i); i++) {
        if (answer_log_at(&s->log, i)->lease)
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
    if (has_run_enough(s) && !s->draining) {
        s->recycle = true;
        session_drain(s, 0);
    }
    if (!s->draining || s->state == SESSION_OVER)
        return;
    bool late = s->now.mono_ns >= s->drain_ns;
    bool idle = s->handed_count == 0 && s->waiting_count == 0;
    bool ready = late || (idle && answers_stored(s)) || (s->quitting && !s->revoking_count);
    if (s->leaving) {
        if (s->now.mono_ns >= s->deadline_ns || s->log.count == 0)
            leave(s);
    } else if (ready && session_active(s)) {
        say_bye(s);
    } else if (late || s->quitting || (idle && answer_log_bytes(&s->log) == 0)) {
        if (!session_active(s))
            session_over(s, s->code);
    }
}
