/* SPDX-License-Identifier: Apache-2.0 */
/* What is said about a task: what the runner reports, as messages of the answers plane. */
#include <assert.h>
#include <stdio.h>

#include "common/name.h"
#include "worker/session_impl.h"

/* Nobody looks more often; a handler may say it a million times a second. */
#define PROGRESS_EVERY_NS (20 * NS_PER_MS)

void item_say_returned(struct session *s, uint64_t id, uint64_t lease, uint32_t code)
{
    /* Of what the next JOIN does not name as `held` the server disposes by itself. What the one on
     * its way has named may be KEPT: then this is its answer, said after READY. */
    if (s->state == SESSION_IDLE || s->state == SESSION_OVER)
        return;
    struct msg_returned m = {.id = id, .lease = lease, .code = code};
    size_t from = answer_log_open(&s->log);
    msg_returned_encode(&s->log.bytes, &m);
    answer_log_close(&s->log, from, MSG_RETURNED, id, lease);
    s->returned++;
}

void item_say_started(struct session *s, struct item *it)
{
    if (!session_active(s))
        return;
    struct msg_started m = {.id = it->attempt.id, .lease = it->attempt.lease};
    size_t from = answer_log_open(&s->log);
    msg_started_encode(&s->log.bytes, &m);
    answer_log_close(&s->log, from, MSG_STARTED, m.id, m.lease);
    it->told = true;
}

void item_say_progress(struct session *s, struct item *it)
{
    if (!it->progressing || !session_active(s))
        return;
    struct msg_progress m = {.id = it->attempt.id,
        .lease = it->attempt.lease,
        .done = it->progress_done,
        .total = it->progress_total,
        .text = it->note.size ? buf_slice(&it->note) : (struct slice){0}};
    size_t from = answer_log_open(&s->log);
    msg_progress_encode(&s->log.bytes, &m);
    answer_log_close(&s->log, from, MSG_PROGRESS, m.id, m.lease);
    it->progress_ns = s->now.mono_ns + PROGRESS_EVERY_NS;
    it->progressing = false;
    s->progressing_count--;
}

/*
 * Where its next answer goes: what is large waits aside on its way to another host, and what it
 * says next waits behind that. On one host nothing waits for long.
 */
static struct answer_log *item_log(struct session *s, struct item *it, bool large)
{
    it->bulk = (large && !s->near) || (it->bulk && s->bulk.count);
    return it->bulk ? &s->bulk : &s->log;
}

void item_say_failed(
    struct session *s, struct item *it, uint64_t run_ns, const struct attempt_failure *f)
{
    struct answer_log *log = item_log(s, it, false);
    struct msg_task_failed m = {
        .id = it->attempt.id,
        .lease = it->attempt.lease,
        .run_ns = run_ns,
        .code = f->code,
        .permanent = f->permanent,
        .retry_ms = f->retry_ms,
        .text = f->text,
    };
    if (m.text.size > PUSHROD_MAX_ERROR_TEXT)
        m.text.size = PUSHROD_MAX_ERROR_TEXT;
    size_t from = answer_log_open(log);
    msg_task_failed_encode(&log->bytes, &m);
    answer_log_close(log, from, MSG_TASK_FAILED, m.id, m.lease);
}

/* Of what is large two go into a frame at least: the ACK of a frame then covers more than the
 * message that is sent again when ACKs stall (session_ack). */
static size_t piece_bytes(const struct session *s)
{
    return s->near ? s->config.part_bytes : (s->config.part_bytes + 1) / 2;
}

/* All but the last of them in PARTs, if it is too large for one message; gives how many. */
static uint32_t answer_parts(
    struct session *s, struct answer_log *log, const struct item *it, struct slice *result)
{
    struct msg_part m = {.id = it->attempt.id, .lease = it->attempt.lease, .total = result->size};
    size_t part = result->size > s->config.part_bytes ? piece_bytes(s) : result->size;
    uint32_t parts = 0;
    while (result->size > part) {
        m.data = slice_of(result->data, part);
        size_t from = answer_log_open(log);
        msg_part_encode(&log->bytes, &m);
        answer_log_close(log, from, MSG_PART, m.id, m.lease);
        *result = slice_of(result->data + part, result->size - part);
        parts++;
    }
    return parts;
}

static void answer_done(struct session *s, struct item *it, uint64_t run_ns, struct slice result)
{
    struct answer_log *log = item_log(s, it, result.size > LOG_BULK * s->config.part_bytes);
    uint32_t parts = answer_parts(s, log, it, &result);
    struct msg_task_done m = {
        .id = it->attempt.id, .lease = it->attempt.lease, .run_ns = run_ns, .result = result};
    size_t from = answer_log_open(log);
    msg_task_done_encode(&log->bytes, &m);
    answer_log_close(log, from, MSG_TASK_DONE, m.id, m.lease);
    if (parts)
        answer_log_group(log, parts + 1);
}

/* ------------------------------------------------------------- what is kept */

size_t answers_kept(const struct session *s)
{
    return answer_log_bytes(&s->log) + answer_log_bytes(&s->bulk);
}

const struct kept *answers_at(const struct session *s, size_t i)
{
    return i < s->log.count ? answer_log_at(&s->log, i) : answer_log_at(&s->bulk, i - s->log.count);
}

bool answers_may_fill(const struct session *s)
{
    return s->room && s->bulk.count && answer_log_drained(&s->log);
}

/* ------------------------------------------------------------- from the runner */

void session_revoked(struct session *s, uint64_t lease, bool given_back)
{
    struct item *it = item_find(s, lease);
    if (!it || !it->revoking)
        return;
    it->revoking = false;
    s->revoking_count--;
    if (!given_back) {
        if (!it->dropped)
            item_say_started(s, it);
        return;
    }
    s->begun--;
    if (!it->dropped)
        item_say_returned(s, it->attempt.id, lease, s->draining ? PUSHROD_E_DRAINING : 0);
    item_end(s, it);
}

void session_progress(
    struct session *s, uint64_t lease, uint64_t done, uint64_t total, struct slice text)
{
    struct item *it = item_find(s, lease);
    if (!it || it->dropped)
        return;
    buf_clear(&it->note);
    buf_append(&it->note, text.data, text.size);
    it->progress_done = done;
    it->progress_total = total;
    if (!it->progressing)
        s->progressing_count++;
    it->progressing = true;
    if (s->now.mono_ns >= it->progress_ns)
        item_say_progress(s, it);
}

void session_data(struct session *s, uint64_t lease, struct slice data)
{
    struct item *it = item_find(s, lease);
    if (!it || it->dropped)
        return;
    /* A little at a time is passed by nothing: it is wanted soon. */
    bool much = answer_log_bytes(&s->log) + data.size > LOG_BULK * s->config.part_bytes;
    struct answer_log *log = item_log(s, it, much);
    while (data.size) {
        size_t size = data.size < piece_bytes(s) ? data.size : piece_bytes(s);
        struct msg_data m = {
            .id = it->attempt.id, .lease = lease, .data = slice_of(data.data, size)};
        size_t from = answer_log_open(log);
        msg_data_encode(&log->bytes, &m);
        answer_log_close(log, from, MSG_DATA, m.id, lease);
        data = slice_of(data.data + size, data.size - size);
    }
}

static void too_big(struct session *s, struct item *it, uint64_t run_ns, uint64_t size)
{
    char text[128];
    snprintf(text, sizeof text, "the result has %llu bytes, the server takes %llu",
        (unsigned long long)size, (unsigned long long)s->max_result);
    struct attempt_failure f = {
        .code = PUSHROD_E_RESULT_TOO_BIG, .permanent = true, .text = slice_str(text)};
    item_say_failed(s, it, run_ns, &f);
}

/* The runner has answered for it, and its last progress comes before that. NULL: not known. */
static struct item *item_answered(struct session *s, uint64_t lease)
{
    struct item *it = item_find(s, lease);
    if (!it)
        return NULL;
    assert(it->handed);
    s->ended++;
    item_say_progress(s, it);
    return it;
}

void session_done(struct session *s, uint64_t lease, uint64_t run_ns, struct slice result)
{
    struct item *it = item_answered(s, lease);
    if (!it)
        return;
    if (!it->dropped && s->max_result && result.size > s->max_result)
        too_big(s, it, run_ns, result.size);
    else if (!it->dropped)
        answer_done(s, it, run_ns, result);
    item_end(s, it);
}

void session_failed(
    struct session *s, uint64_t lease, uint64_t run_ns, const struct attempt_failure *f)
{
    struct item *it = item_answered(s, lease);
    if (!it)
        return;
    if (!it->dropped)
        item_say_failed(s, it, run_ns, f);
    item_end(s, it);
}

void session_abandoned(
    struct session *s, uint64_t lease, uint64_t run_ns, const struct attempt_failure *f)
{
    struct item *it = item_find(s, lease);
    if (!it)
        return;
    /* The handler may read its payload for ever: that stays, whatever the end of an item frees. */
    struct buf bytes = it->bytes;
    struct body *body = it->body;
    it->bytes = BUF_EMPTY;
    it->body = NULL;
    session_failed(s, lease, run_ns, f);
    it->bytes = bytes;
    it->body = body;
    list_remove(&it->node);
    list_push_back(&s->lost, &it->node);
}

/* The pattern that `queue` is served by, as the runner chooses: the most specific one that matches,
 * broken or not. NULL: none. */
static struct pattern *pattern_of(const struct session *s, struct slice queue)
{
    struct pattern *best = NULL;
    for (size_t i = 0; i < s->pattern_count; i++) {
        struct pattern *p = &s->patterns[i];
        if (!name_matches(p->text, queue))
            continue;
        if (!best || name_specificity(p->text) > name_specificity(best->text))
            best = p;
    }
    return best;
}

bool item_is_broken(const struct session *s, struct slice queue)
{
    if (s->served_count == s->pattern_count)
        return false;
    const struct pattern *p = pattern_of(s, queue);
    return p && p->broken;
}

static void return_waiting_of(struct session *s, const struct pattern *pattern)
{
    list_foreach(node, next, &s->waiting)
    {
        struct item *it = container_of(node, struct item, node);
        if (pattern_of(s, it->attempt.queue) != pattern)
            continue;
        item_say_returned(s, it->attempt.id, it->attempt.lease, PUSHROD_E_HANDLER_BROKEN);
        item_end(s, it);
    }
}

void session_broken(struct session *s, uint64_t lease, struct slice text)
{
    struct item *it = item_find(s, lease);
    if (!it)
        return;
    struct pattern *pattern = pattern_of(s, it->attempt.queue);
    if (!it->dropped)
        item_say_returned(s, it->attempt.id, lease, PUSHROD_E_HANDLER_BROKEN);
    item_end(s, it);
    if (!pattern || pattern->broken)
        return; /* known already */
    return_waiting_of(s, pattern);
    session_say(s, "no longer serving %.*s: %.*s", (int)pattern->text.size,
        (const char *)pattern->text.data, (int)text.size, (const char *)text.data);
    pattern->broken = true;
    if (--s->served_count > 0)
        return;
    s->code = PUSHROD_E_HANDLER_BROKEN;
    session_drain(s, 0);
}
