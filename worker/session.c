/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a worker's session:
 *
 *   IDLE -> JOINING -> CONNECTING -> ACTIVE (draining) -> OVER
 *    ^---------'------------'-----------'  whatever goes wrong: a pause, then a new try
 */
#include "worker/session.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "worker/session_impl.h"

/* A JOIN without an answer is tried again, on a fresh socket, after this long. */
#define WELCOME_WAIT_MS 1000u
/* ... and after so long if somebody is there: the way may be long, or slow. */
#define WELCOME_WAIT_UP_MS 8000u
/* Periods of PING that the server may be late with its next word; then it counts as gone. */
#define MISSED_PINGS 2u
/* The longest period that a server may say. */
#define PERIOD_MOST_MS UINT64_C(3600000)
/* Times resend_ms, at the most, between two messages that are sent again without need. */
#define RESEND_MOST 32u
/* Moments in a heartbeat's time at which a HEARTBEAT may be said. */
#define BEAT_GROUPS 20u

/* ------------------------------------------------------------------- begin, end */

static struct session_config config_defaults(const struct session_config *given)
{
    struct session_config c = *given;
    c.slots = c.slots ? c.slots : 1;
    c.drain_ms = c.drain_ms ? c.drain_ms : 25000;
    c.keep_bytes = c.keep_bytes ? c.keep_bytes : (size_t)64 << 20;
    c.part_bytes = c.part_bytes ? c.part_bytes : (size_t)64 << 10;
    c.resend_ms = c.resend_ms ? c.resend_ms : 1000;
    c.backoff_ms = c.backoff_ms ? c.backoff_ms : 50;
    c.backoff_cap_ms = c.backoff_cap_ms ? c.backoff_cap_ms : 1000;
    return c;
}

struct slice session_keep(struct buf *to, struct slice text)
{
    size_t at = to->size;
    buf_append(to, text.data, text.size);
    return text.data ? slice_of(to->data + at, text.size) : text;
}

/* Name, host, token and patterns, in one allocation of ours. */
static bool copy_identity(struct session *s, const struct session_config *c)
{
    size_t size = c->name.size + c->host.size + c->token.size + 1;
    for (size_t i = 0; i < c->queue_count; i++)
        size += c->queues[i].size;
    s->patterns = calloc(c->queue_count + 1, sizeof *s->patterns);
    if (!s->patterns || !buf_reserve(&s->identity, size))
        return false;
    s->config.name = session_keep(&s->identity, c->name);
    s->config.host = session_keep(&s->identity, c->host);
    s->config.token = session_keep(&s->identity, c->token);
    for (size_t i = 0; i < c->queue_count; i++)
        s->patterns[i].text = session_keep(&s->identity, c->queues[i]);
    s->pattern_count = s->served_count = c->queue_count;
    return true;
}

struct session *session_new(const struct session_config *config)
{
    struct session *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    list_init(&s->waiting);
    list_init(&s->handed);
    list_init(&s->gone);
    list_init(&s->lost);
    list_init(&s->spare);
    s->config = config_defaults(config);
    s->random = config->seed;
    s->log.head_sequence = 1;
    s->log.part = s->bulk.part = s->config.part_bytes;
    s->room = true;
    session_near(s, false);
    if (!copy_identity(s, config)) {
        session_free(s);
        return NULL;
    }
    return s;
}

void session_free(struct session *s)
{
    if (!s)
        return;
    item_free_all(s);
    answer_log_free(&s->log);
    answer_log_free(&s->bulk);
    buf_free(&s->identity);
    buf_free(&s->join_bytes);
    buf_free(&s->welcome_bytes);
    buf_free(&s->frame);
    free(s->patterns);
    free(s);
}

void session_begin(struct session *s, struct now now)
{
    s->now = now;
    s->actions = (struct session_actions){0};
    item_sweep(s);
}

/* splitmix64: small, seeded, good enough for jitter and for nonces that only need to differ. */
uint64_t session_random(struct session *s)
{
    uint64_t z = (s->random += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

void session_say(struct session *s, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(s->text, sizeof s->text, format, args);
    va_end(args);
    s->actions.text = s->text;
    s->actions.warning = false;
}

bool session_active(const struct session *s)
{
    return s->state == SESSION_ACTIVE;
}

bool session_heard(struct session *s)
{
    if (!session_active(s))
        return false;
    s->heard_ns = s->now.mono_ns;
    return true;
}

size_t session_running(const struct session *s)
{
    return s->handed_count < s->config.slots ? s->handed_count : s->config.slots;
}

uint64_t session_in_ms(const struct session *s, uint64_t ms)
{
    return s->now.mono_ns + ms * NS_PER_MS;
}

/* Bounded, so that sums with the clock do not wrap, whatever the server says. */
uint64_t session_bound_ms(uint64_t told, uint64_t otherwise)
{
    uint64_t ms = told ? told : otherwise;
    return ms < PERIOD_MOST_MS ? ms : PERIOD_MOST_MS;
}

void session_over(struct session *s, int code)
{
    if (s->state == SESSION_OVER)
        return;
    s->state = SESSION_OVER;
    s->code = code;
    s->actions.disconnect = true;
    s->actions.join = NULL;
    s->actions.connect = NULL;
}

/* ------------------------------------------------------------------------- joining */

/* Half of the pause is certain, half is drawn, so that workers of a restarted server spread out. */
static uint64_t backoff_ms(struct session *s)
{
    uint64_t pause = s->config.backoff_ms;
    for (uint64_t i = 0; i < s->tries && pause < s->config.backoff_cap_ms; i++)
        pause *= 2;
    if (pause > s->config.backoff_cap_ms)
        pause = s->config.backoff_cap_ms;
    s->tries++;
    return pause / 2 + session_random(s) % (pause / 2 + 1);
}

void session_rejoin(struct session *s, const char *why)
{
    if (s->state == SESSION_OVER)
        return;
    if (s->leaving && !s->coming_back) {
        session_over(s, s->code);
        return;
    }
    if (s->coming_back) /* the server that told us to drain has gone */
        s->draining = s->leaving = s->coming_back = false;
    if (why) {
        session_say(s, "%s; joining again", why);
        s->actions.warning = true;
    }
    joining_forget_session(s);
    s->actions.disconnect = s->state == SESSION_CONNECTING || s->state == SESSION_ACTIVE;
    s->state = SESSION_IDLE;
    s->settled = false;
    s->actions.connect = NULL;
    s->deadline_ns = session_in_ms(s, backoff_ms(s));
}

void session_refused(struct session *s, const struct msg_refused *m)
{
    if (s->state == SESSION_IDLE || s->state == SESSION_OVER ||
        !slice_equal(m->nonce, slice_of(s->nonce, sizeof s->nonce)))
        return;
    if (!m->retry) { /* told once, by whoever ends the process */
        session_over(s, (int)m->code);
        return;
    }
    session_rejoin(s, NULL);
    if (m->code == PUSHROD_E_DRAINING && s->tries > 1)
        return; /* it said so */
    session_say(s, "the server refused: %.*s", (int)m->text.size, (const char *)m->text.data);
    s->actions.warning = true;
}

void session_near(struct session *s, bool near)
{
    s->near = near;
    s->log.frame = near ? LOG_NEAR * s->config.part_bytes : s->config.part_bytes;
    s->bulk.frame = s->log.frame;
}

void session_room(struct session *s, bool room)
{
    s->room = room;
}

void session_join_up(struct session *s)
{
    if (s->state == SESSION_JOINING)
        s->deadline_ns = session_in_ms(s, WELCOME_WAIT_UP_MS);
}

void session_join_down(struct session *s)
{
    if (s->state == SESSION_JOINING)
        session_rejoin(s, NULL);
}

static void stall_reset(struct session *s)
{
    s->progress_ns = s->now.mono_ns;
    s->resend_ms = s->config.resend_ms;
    s->probe = 0;
}

void session_lane_hello(struct session *s, const struct msg_lane_hello *m)
{
    if (s->state != SESSION_CONNECTING || m->worker != s->worker || m->session != s->session)
        return;
    s->state = SESSION_ACTIVE;
    s->tries = 0;
    s->heard_ns = s->said_ns = s->now.mono_ns;
    stall_reset(s);
    joining_ready(s);
    session_say(s, "joined as worker %llu", (unsigned long long)s->worker);
    if (s->draining)
        item_return_unstarted(s);
}

/* No warning: a server that stops ends its connections. That it cannot be reached is one, later. */
void session_lane_down(struct session *s)
{
    if (s->state != SESSION_CONNECTING && s->state != SESSION_ACTIVE)
        return;
    session_rejoin(s, "the connection to the server is gone");
    s->actions.warning = false;
}

void session_answers_renewed(struct session *s)
{
    answer_log_rewind(&s->log);
    stall_reset(s);
}

void session_fenced(struct session *s, uint64_t code)
{
    if (!session_active(s))
        return;
    session_say(s, "fenced: %s", pushrod_strerror((int)code));
    if (code == PUSHROD_E_SUPERSEDED)
        session_over(s, PUSHROD_E_SUPERSEDED);
    else
        session_rejoin(s, pushrod_strerror((int)code));
}

/* ---------------------------------------------------------------------- life signs */

void session_ack(struct session *s, uint64_t sequence)
{
    if (!session_heard(s))
        return;
    s->settled = true;
    if (!answer_log_ack(&s->log, sequence))
        return;
    s->progress_ns = s->now.mono_ns;
    /* Of a frame only the message that came again: it was lost, and so is what came behind it. */
    if (sequence == s->probe)
        answer_log_rewind(&s->log);
    s->probe = 0;
}

void session_ping(struct session *s, uint64_t sequence, bool beat, uint64_t next_ms)
{
    if (!session_heard(s))
        return;
    if (sequence)
        session_ack(s, sequence);
    s->beat = beat ? BEAT_ALWAYS : BEAT_ONCE;
    s->next_ms = session_bound_ms(next_ms, s->ping_ms);
}

static uint64_t silent_ns(const struct session *s)
{
    return s->heard_ns + (s->next_ms + MISSED_PINGS * s->ping_ms) * NS_PER_MS;
}

static void judge_silence(struct session *s)
{
    if (s->now.mono_ns >= silent_ns(s))
        session_rejoin(s, "the server is silent");
}

/*
 * Acknowledgements that stall. What is lost with its connection is sent again when there is a new
 * one; so this is mostly a slow connection or a slow disk, and libzmq's queue, which has no end,
 * still has all of it. One message goes out again, ever more seldom: session_ack() sees whether it
 * was missing.
 */
static void judge_stall(struct session *s)
{
    s->probing = false;
    if (s->log.sent == s->log.acked) {
        stall_reset(s);
        return;
    }
    if (s->now.mono_ns - s->progress_ns < s->resend_ms * NS_PER_MS)
        return;
    s->probing = true;
    s->probe = s->log.head_sequence + s->log.acked;
    s->progress_ns = s->now.mono_ns;
    if (s->resend_ms < RESEND_MOST * s->config.resend_ms)
        s->resend_ms *= 2;
}

/* Due a little early, at a round moment of the host's clock: the heartbeats of a host's workers
 * come in groups, and wake the server up once for many. */
static uint64_t beat_ns(const struct session *s)
{
    if (s->beat != BEAT_ALWAYS)
        return s->beat == BEAT_ONCE ? s->now.mono_ns : UINT64_MAX;
    uint64_t period = s->heartbeat_ms * NS_PER_MS, at = s->said_ns + period;
    return at - at % (period / BEAT_GROUPS);
}

/* Not kept: a HEARTBEAT has no number, is not acknowledged, and is never sent again. */
static bool beat(const struct session *s, struct buf *frame)
{
    if (s->now.mono_ns < beat_ns(s))
        return false;
    struct msg_heartbeat m = {.running = session_running(s)};
    msg_heartbeat_encode(frame, &m);
    return true;
}

/* ---------------------------------------------------------------------- each tick */

static void judge_state(struct session *s)
{
    bool late = s->now.mono_ns >= s->deadline_ns;
    switch (s->state) {
    case SESSION_IDLE:
        if (!late)
            break;
        s->state = SESSION_JOINING;
        s->deadline_ns = session_in_ms(s, WELCOME_WAIT_MS);
        joining_start(s);
        break;
    case SESSION_JOINING:
        if (late)
            session_rejoin(s, NULL);
        break;
    case SESSION_CONNECTING:
        if (late)
            session_rejoin(s, "the server said nothing on the lane");
        break;
    case SESSION_ACTIVE:
        judge_silence(s);
        break;
    case SESSION_DRAINING:
    case SESSION_OVER:
        break;
    }
}

/* One frame: FROM, and as many messages as fit; a HEARTBEAT if there is none for too long. */
static void send_answers(struct session *s)
{
    struct buf *f = &s->frame;
    buf_clear(f);
    if (answers_may_fill(s))
        answer_log_move(&s->log, &s->bulk);
    uint64_t sequence = s->probing ? s->probe : s->log.head_sequence + s->log.sent;
    struct msg_from from = {.worker = s->worker, .session = s->session, .sequence = sequence};
    msg_from_encode(f, &from);
    bool taken = s->probing ? answer_log_again(&s->log, f) : answer_log_take(&s->log, f, &sequence);
    if (!taken && !beat(s, f))
        return;
    s->actions.answers = buf_slice(f);
    s->said_ns = s->now.mono_ns;
    if (s->beat == BEAT_ONCE)
        s->beat = BEAT_NEVER;
}

static void earlier(uint64_t *wake, uint64_t at)
{
    *wake = at < *wake ? at : *wake;
}

static uint64_t active_wake_ns(const struct session *s)
{
    if (answer_log_pending(&s->log) || answers_may_fill(s))
        return s->now.mono_ns;
    uint64_t wake = beat_ns(s);
    earlier(&wake, silent_ns(s));
    if (s->log.sent > s->log.acked)
        earlier(&wake, s->progress_ns + s->resend_ms * NS_PER_MS);
    earlier(&wake, item_wake_ns(s));
    if (s->leaving)
        earlier(&wake, s->deadline_ns);
    return wake;
}

static uint64_t next_wake_ns(const struct session *s)
{
    if (s->state == SESSION_OVER)
        return UINT64_MAX;
    uint64_t wake = session_active(s) ? active_wake_ns(s) : s->deadline_ns;
    if (s->draining && !s->leaving)
        earlier(&wake, s->drain_ns);
    return wake;
}

static void act(struct session *s)
{
    judge_state(s);
    item_start_some(s);
    if (session_active(s)) {
        item_tell_started(s);
        item_tell_progress(s);
        judge_stall(s);
    }
    leave_judge(s);
    if (s->log.failed || s->log.bytes.failed || s->bulk.failed || s->bulk.bytes.failed)
        session_over(s, PUSHROD_E_NO_MEMORY);
    if (session_active(s))
        send_answers(s);
    if (s->frame.failed)
        session_over(s, PUSHROD_E_NO_MEMORY);
}

const struct session_actions *session_end(struct session *s)
{
    act(s);
    struct session_actions *a = &s->actions;
    bool draining = s->state == SESSION_ACTIVE && s->draining;
    a->run = s->runs;
    a->state = draining ? SESSION_DRAINING : s->state;
    a->code = s->state == SESSION_OVER ? s->code : 0;
    a->wake_ns = next_wake_ns(s);
    a->done = s->ended;
    a->running = session_running(s);
    a->settled = s->settled;
    a->full = answer_log_unsent(&s->log) > LOG_FULL * s->config.part_bytes ||
              answer_log_bytes(&s->bulk) > s->config.keep_bytes;
    a->emitted = s->bulk.data;
    a->recycle = s->state == SESSION_OVER && s->recycle;
    assert(a->state != SESSION_OVER || a->disconnect || !a->join);
    return a;
}
