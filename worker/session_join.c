/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Joining: what a worker says that it still has, and what it makes of the verdicts.
 *
 * `held` names each task without an answer (it runs, or waits), and each answer that was not
 * acknowledged. What is not named is handed to others; so RETURNED, STARTED and PROGRESS of a
 * session that is over need not be said again.
 */
#include <assert.h>

#include "proto/codec.h"
#include "worker/session_impl.h"

/* The server waits 5 s for READY, and then says over the join socket what is wrong. */
#define HELLO_WAIT_MS 6000u

static bool is_answer(const struct kept *record)
{
    return record->kind == MSG_TASK_DONE || record->kind == MSG_TASK_FAILED;
}

static bool outlives_session(const void *arg, const struct kept *record)
{
    (void)arg;
    return is_answer(record) || record->kind == MSG_PART || record->kind == MSG_DATA;
}

void joining_forget_session(struct session *s)
{
    answer_log_restart(&s->log, answer_log_like(&s->log), outlives_session, NULL);
    item_lose_partial(s);
    s->returned = 0;
}

void joining_ready(struct session *s)
{
    struct answer_log fresh = answer_log_like(&s->log);
    struct msg_ready m = {.session = s->session};
    msg_ready_encode(&fresh.bytes, &m);
    answer_log_close(&fresh, 0, MSG_READY, 0, 0);
    answer_log_restart(&s->log, fresh, NULL, NULL);
}

/* ------------------------------------------------------------------------- JOIN */

static uint32_t held_count(const struct session *s)
{
    size_t count = s->waiting_count;
    list_foreach(node, next, &s->handed)
    {
        if (!container_of(node, struct item, node)->dropped)
            count++;
    }
    for (size_t i = 0; answers_at(s, i); i++)
        count += is_answer(answers_at(s, i));
    return (uint32_t)count;
}

static void held_items(struct buf *out, const struct list *head, uint32_t slots)
{
    uint32_t place = 0;
    list_foreach(node, next, head)
    {
        const struct item *it = container_of(node, struct item, node);
        struct msg_held m = {
            .id = it->attempt.id, .lease = it->attempt.lease, .started = place++ < slots};
        if (!it->dropped)
            msg_held_encode(out, &m);
    }
}

static void encode_held(struct session *s, struct buf *out)
{
    enc_array(out, held_count(s));
    for (size_t i = 0; answers_at(s, i); i++) {
        const struct kept *record = answers_at(s, i);
        struct msg_held m = {
            .id = record->id, .lease = record->lease, .answered = true, .started = true};
        if (is_answer(record))
            msg_held_encode(out, &m);
    }
    /* Of what the runner has, the first `slots` run; nothing of what waits here does. */
    held_items(out, &s->handed, s->config.slots);
    held_items(out, &s->waiting, 0);
}

static void encode_queues(const struct session *s, struct buf *out)
{
    enc_array(out, (uint32_t)s->served_count);
    for (size_t i = 0; i < s->pattern_count; i++) {
        if (!s->patterns[i].broken)
            enc_text(out, s->patterns[i].text);
    }
}

static void draw_nonce(struct session *s)
{
    for (size_t i = 0; i < sizeof s->nonce; i += sizeof(uint64_t)) {
        uint64_t random = session_random(s);
        memcpy(s->nonce + i, &random, sizeof random);
    }
}

void joining_start(struct session *s)
{
    struct buf *out = &s->join_bytes;
    buf_clear(out);
    encode_queues(s, out);
    size_t queues = out->size;
    encode_held(s, out);
    if (out->failed) {
        session_over(s, PUSHROD_E_NO_MEMORY);
        return;
    }
    draw_nonce(s);
    s->join = (struct msg_join){
        .version = PROTOCOL_VERSION,
        .instance = slice_of(s->config.instance, sizeof s->config.instance),
        .nonce = slice_of(s->nonce, sizeof s->nonce),
        .name = s->config.name,
        .host = s->config.host,
        .pid = s->config.pid,
        .slots = s->config.slots,
        .max_prefetch = s->config.max_prefetch,
        .queues = slice_of(out->data, queues),
        .held = slice_of(out->data + queues, out->size - queues),
        .token = s->config.token,
    };
    s->actions.join = &s->join;
}

/* ---------------------------------------------------------------------- WELCOME */

/* lease -> verdict, of those that are to be dropped. False: not what WELCOME may say. */
static bool read_verdicts(struct slice raw, struct idmap *unwanted)
{
    struct dec in = dec_of(raw);
    uint32_t count = raw.data ? dec_array(&in) : 0;
    for (uint32_t i = 0; i < count; i++) {
        struct msg_verdict m;
        if (dec_message(&in) != MSG_VERDICT || !msg_verdict_decode(&in, &m))
            return false;
        bool drop = m.verdict == VERDICT_CANCEL || m.verdict == VERDICT_FORGET;
        if (drop && m.lease && !idmap_put(unwanted, m.lease, m.verdict))
            return false;
    }
    return !dec_failed(&in);
}

static bool still_wanted(const void *arg, const struct kept *record)
{
    return !idmap_get(arg, record->lease, NULL);
}

/* A task that ended since the JOIN has an answer now: it is dropped with the same verdict. */
static void apply_verdicts(struct session *s, const struct idmap *unwanted)
{
    if (unwanted->count == 0)
        return;
    answer_log_restart(&s->log, answer_log_like(&s->log), still_wanted, unwanted);
    answer_log_restart(&s->bulk, answer_log_like(&s->bulk), still_wanted, unwanted);
    size_t place = 0;
    struct idmap_cell cell;
    while (idmap_next(unwanted, &place, &cell)) {
        struct item *it = item_find(s, cell.key);
        if (it)
            item_drop(s, it);
    }
}

/* The message is borrowed until return, the action that it becomes lives for a tick. */
static void take_welcome(struct session *s, const struct msg_welcome *m)
{
    struct buf *b = &s->welcome_bytes;
    buf_clear(b);
    if (!buf_reserve(b, m->host.size + m->user.size + m->token.size + m->unix_lane.size +
                            m->unix_answers.size + 1)) {
        session_over(s, PUSHROD_E_NO_MEMORY);
        return;
    }
    s->welcome = *m;
    s->welcome.nonce = slice_of(s->nonce, sizeof s->nonce);
    s->welcome.host = session_keep(b, m->host);
    s->welcome.user = session_keep(b, m->user);
    s->welcome.token = session_keep(b, m->token);
    s->welcome.unix_lane = session_keep(b, m->unix_lane);
    s->welcome.unix_answers = session_keep(b, m->unix_answers);
    s->welcome.verdicts = (struct slice){0};
    s->worker = m->worker;
    s->session = m->session;
    s->welcome.heartbeat_ms = s->heartbeat_ms = session_bound_ms(m->heartbeat_ms, 1000);
    s->welcome.ping_ms = s->ping_ms = s->next_ms = session_bound_ms(m->ping_ms, 5000);
    s->max_result = m->max_result;
    s->beat = BEAT_ALWAYS;
    s->actions.connect = &s->welcome;
    s->state = SESSION_CONNECTING;
    s->deadline_ns = session_in_ms(s, HELLO_WAIT_MS);
}

void session_welcome(struct session *s, const struct msg_welcome *m)
{
    if (s->state != SESSION_JOINING || !slice_equal(m->nonce, slice_of(s->nonce, sizeof s->nonce)))
        return;
    struct idmap unwanted = {0};
    if (read_verdicts(m->verdicts, &unwanted)) {
        apply_verdicts(s, &unwanted);
        if (s->state != SESSION_OVER) /* for want of memory */
            take_welcome(s, m);
    } else {
        session_rejoin(s, "the server's WELCOME cannot be read");
    }
    idmap_free(&unwanted);
}
