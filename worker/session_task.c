/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tasks in the hands of a worker: waiting -> handed to the runner -> answered.
 *
 * The runner begins what it was handed in order, so the first `slots` of the handed ones run (or
 * have just ended), and the others can be asked back.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/name.h"
#include "worker/session_impl.h"

/* A task that takes longer than this is worth a STARTED of its own. */
#define STARTED_AFTER_NS NS_PER_MS
/* A spare item keeps its memory up to this many bytes. */
#define SPARE_BYTES 8192u

struct item *item_find(const struct session *s, uint64_t lease)
{
    uint64_t value;
    return idmap_get(&s->items, lease, &value) ? (struct item *)(uintptr_t)value : NULL;
}

static struct item *item_new(struct session *s)
{
    struct list *node = list_first(&s->spare);
    if (!node)
        return calloc(1, sizeof(struct item));
    list_remove(node);
    return container_of(node, struct item, node);
}

/* Its memory is small and serves the next task. */
static void item_reset(struct item *it)
{
    body_unref(it->body);
    struct buf bytes = it->bytes;
    buf_clear(&bytes);
    if (bytes.capacity > SPARE_BYTES)
        buf_free(&bytes);
    *it = (struct item){.bytes = bytes};
}

void item_sweep(struct session *s)
{
    list_foreach(node, next, &s->gone)
    {
        struct item *it = container_of(node, struct item, node);
        list_remove(node);
        item_reset(it);
        list_push_front(&s->spare, &it->node);
    }
}

/*
 * Out of its list and the map; its answer, if there is one, is in the log. An action of this tick
 * may name it, so it is reused in the next.
 */
static void item_end(struct session *s, struct item *it)
{
    idmap_remove(&s->items, it->attempt.lease);
    list_remove(&it->node);
    if (it->handed)
        s->handed_count--;
    else
        s->waiting_count--;
    if (it->revoking)
        s->revoking_count--;
    list_push_back(&s->gone, &it->node);
}

static void items_free(struct list *head)
{
    list_foreach(node, next, head)
    {
        struct item *it = container_of(node, struct item, node);
        body_unref(it->body);
        buf_free(&it->bytes);
        free(it);
    }
    list_init(head);
}

void item_free_all(struct session *s)
{
    items_free(&s->waiting);
    items_free(&s->handed);
    items_free(&s->gone);
    items_free(&s->lost);
    items_free(&s->spare);
    idmap_free(&s->items);
    free(s->runs);
}

void run_add(struct session *s, enum run_kind kind, const struct attempt *attempt)
{
    struct session_actions *a = &s->actions;
    if (a->run_count == s->run_capacity) {
        size_t capacity = s->run_capacity ? 2 * s->run_capacity : 64;
        struct run_action *runs = realloc(s->runs, capacity * sizeof *runs);
        if (!runs) {
            session_over(s, PUSHROD_E_NO_MEMORY);
            return;
        }
        s->runs = runs;
        s->run_capacity = capacity;
    }
    s->runs[a->run_count++] = (struct run_action){.kind = kind, .attempt = attempt};
}

/* ------------------------------------------------------------------ answers */

static void answer_returned(struct session *s, uint64_t id, uint64_t lease, uint32_t code)
{
    /* After a lost session the server hands out again whatever is not `held`: nothing to say. */
    if (!session_active(s))
        return;
    struct msg_returned m = {.id = id, .lease = lease, .code = code};
    size_t from = answer_log_open(&s->log);
    msg_returned_encode(&s->log.bytes, &m);
    answer_log_close(&s->log, from, MSG_RETURNED, id, lease);
    s->returned++;
}

static void answer_started(struct session *s, struct item *it)
{
    if (!session_active(s))
        return;
    struct msg_started m = {.id = it->attempt.id, .lease = it->attempt.lease};
    size_t from = answer_log_open(&s->log);
    msg_started_encode(&s->log.bytes, &m);
    answer_log_close(&s->log, from, MSG_STARTED, m.id, m.lease);
    it->told = true;
}

static void answer_failed(
    struct session *s, const struct item *it, uint64_t run_ns, const struct attempt_failure *f)
{
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
    size_t from = answer_log_open(&s->log);
    msg_task_failed_encode(&s->log.bytes, &m);
    answer_log_close(&s->log, from, MSG_TASK_FAILED, m.id, m.lease);
}

/* All but the last 64 KiB in PARTs; gives how many. */
static uint32_t answer_parts(struct session *s, const struct item *it, struct slice *result)
{
    struct msg_part m = {.id = it->attempt.id, .lease = it->attempt.lease, .total = result->size};
    uint32_t parts = 0;
    while (result->size > LOG_PART) {
        m.data = slice_of(result->data, LOG_PART);
        size_t from = answer_log_open(&s->log);
        msg_part_encode(&s->log.bytes, &m);
        answer_log_close(&s->log, from, MSG_PART, m.id, m.lease);
        *result = slice_of(result->data + LOG_PART, result->size - LOG_PART);
        parts++;
    }
    return parts;
}

static void answer_done(
    struct session *s, const struct item *it, uint64_t run_ns, struct slice result)
{
    uint32_t parts = answer_parts(s, it, &result);
    struct msg_task_done m = {
        .id = it->attempt.id, .lease = it->attempt.lease, .run_ns = run_ns, .result = result};
    size_t from = answer_log_open(&s->log);
    msg_task_done_encode(&s->log.bytes, &m);
    answer_log_close(&s->log, from, MSG_TASK_DONE, m.id, m.lease);
    if (parts)
        answer_log_group(&s->log, parts + 1);
}

/* ---------------------------------------------------------------- from the lane */

/* Copies what the message borrows from its frame. The queue gets a NUL for handlers in C. */
static bool item_fill(struct item *it, const struct msg_task *m, struct body *body)
{
    struct buf *b = &it->bytes;
    buf_clear(b);
    size_t payload = body ? 0 : m->payload.size;
    if (!buf_reserve(b, m->queue.size + m->headers.size + payload + 2))
        return false;
    buf_append(b, m->queue.data, m->queue.size);
    buf_append(b, "", 1);
    buf_append(b, m->headers.data, m->headers.size);
    buf_append(b, m->payload.data, payload);
    const uint8_t *at = b->data;
    const uint8_t *headers = at + m->queue.size + 1;
    it->body = body_ref(body);
    it->attempt = (struct attempt){
        .id = m->id,
        .lease = m->lease,
        .number = m->attempt,
        .timeout_ms = m->timeout_ms,
        .queue = slice_of(at, m->queue.size),
        .headers = m->headers.data ? slice_of(headers, m->headers.size) : (struct slice){0},
        .payload = body ? body_slice(body) : slice_of(headers + m->headers.size, payload),
    };
    return true;
}

void session_task(struct session *s, const struct msg_task *m, struct body *body)
{
    if (!session_active(s))
        return;
    s->heard_ns = s->now.mono_ns;
    if (s->draining) {
        answer_returned(s, m->id, m->lease, PUSHROD_E_DRAINING);
        return;
    }
    /* A lease is handed over once; a second time could only be a mistake of the server's. */
    if (m->lease == 0 || item_find(s, m->lease))
        return;
    struct item *it = item_new(s);
    if (!it || !item_fill(it, m, body) || !idmap_put(&s->items, m->lease, (uintptr_t)it)) {
        if (it)
            list_push_back(&s->gone, &it->node);
        answer_returned(s, m->id, m->lease, PUSHROD_E_NO_MEMORY);
        return;
    }
    list_push_back(&s->waiting, &it->node);
    s->waiting_count++;
}

static const struct attempt_failure cancelled_unstarted = {
    .code = PUSHROD_E_TASK_CANCELLED, .permanent = true};

void session_cancel(struct session *s, const struct msg_cancel_task *m)
{
    if (!session_active(s))
        return;
    s->heard_ns = s->now.mono_ns;
    struct item *it = item_find(s, m->lease);
    if (!it || it->cancelled)
        return;
    if (it->handed) {
        it->cancelled = true;
        run_add(s, RUN_CANCEL, &it->attempt);
        return;
    }
    answer_failed(s, it, 0, &cancelled_unstarted);
    item_end(s, it);
}

/* Among the first `slots` of what was handed over: it runs. The lists are short: slots + ahead. */
static bool item_runs(const struct session *s, const struct item *it)
{
    size_t place = 0;
    list_foreach(node, next, &s->handed)
    {
        if (place++ == s->config.slots)
            return false;
        if (node == &it->node)
            return true;
    }
    return false;
}

static void item_revoke(struct session *s, struct item *it)
{
    if (it->revoking)
        return;
    it->revoking = true;
    s->revoking_count++;
    run_add(s, RUN_REVOKE, &it->attempt);
}

void session_withdraw(struct session *s, const struct msg_withdraw *m)
{
    if (!session_active(s))
        return;
    s->heard_ns = s->now.mono_ns;
    struct item *it = item_find(s, m->lease);
    if (!it || it->dropped)
        return;
    if (!it->handed) {
        answer_returned(s, m->id, m->lease, 0);
        item_end(s, it);
    } else if (item_runs(s, it)) {
        answer_started(s, it);
    } else {
        item_revoke(s, it);
    }
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
            answer_started(s, it);
        return;
    }
    if (!it->dropped)
        answer_returned(s, it->attempt.id, lease, s->draining ? PUSHROD_E_DRAINING : 0);
    item_end(s, it);
}

void session_progress(
    struct session *s, uint64_t lease, uint64_t done, uint64_t total, struct slice text)
{
    struct item *it = item_find(s, lease);
    if (!it || it->dropped || !session_active(s))
        return;
    struct msg_progress m = {
        .id = it->attempt.id, .lease = lease, .done = done, .total = total, .text = text};
    size_t from = answer_log_open(&s->log);
    msg_progress_encode(&s->log.bytes, &m);
    answer_log_close(&s->log, from, MSG_PROGRESS, m.id, lease);
}

void session_data(struct session *s, uint64_t lease, struct slice data)
{
    struct item *it = item_find(s, lease);
    if (!it || it->dropped)
        return;
    while (data.size) {
        size_t size = data.size < LOG_PART ? data.size : LOG_PART;
        struct msg_data m = {
            .id = it->attempt.id, .lease = lease, .data = slice_of(data.data, size)};
        size_t from = answer_log_open(&s->log);
        msg_data_encode(&s->log.bytes, &m);
        answer_log_close(&s->log, from, MSG_DATA, m.id, lease);
        data = slice_of(data.data + size, data.size - size);
    }
}

static void too_big(struct session *s, const struct item *it, uint64_t run_ns, uint64_t size)
{
    char text[128];
    snprintf(text, sizeof text, "the result has %llu bytes, the server takes %llu",
        (unsigned long long)size, (unsigned long long)s->max_result);
    struct attempt_failure f = {
        .code = PUSHROD_E_RESULT_TOO_BIG, .permanent = true, .text = slice_str(text)};
    answer_failed(s, it, run_ns, &f);
}

void session_done(struct session *s, uint64_t lease, uint64_t run_ns, struct slice result)
{
    struct item *it = item_find(s, lease);
    if (!it)
        return;
    assert(it->handed);
    s->ended++;
    if (!it->dropped && s->max_result && result.size > s->max_result)
        too_big(s, it, run_ns, result.size);
    else if (!it->dropped)
        answer_done(s, it, run_ns, result);
    item_end(s, it);
}

void session_failed(
    struct session *s, uint64_t lease, uint64_t run_ns, const struct attempt_failure *f)
{
    struct item *it = item_find(s, lease);
    if (!it)
        return;
    assert(it->handed);
    s->ended++;
    if (!it->dropped)
        answer_failed(s, it, run_ns, f);
    item_end(s, it);
}

void session_abandoned(
    struct session *s, uint64_t lease, uint64_t run_ns, const struct attempt_failure *f)
{
    struct item *it = item_find(s, lease);
    if (!it)
        return;
    session_failed(s, lease, run_ns, f);
    list_remove(&it->node);
    list_push_back(&s->lost, &it->node);
}

/* The pattern that `queue` is served by: the most specific one that matches; count: none. */
static size_t pattern_of(const struct session *s, struct slice queue)
{
    size_t best = s->pattern_count;
    for (size_t i = 0; i < s->pattern_count; i++) {
        if (!name_matches(s->patterns[i], queue))
            continue;
        if (best == s->pattern_count ||
            name_specificity(s->patterns[i]) > name_specificity(s->patterns[best]))
            best = i;
    }
    return best;
}

static void return_waiting_of(struct session *s, size_t pattern)
{
    list_foreach(node, next, &s->waiting)
    {
        struct item *it = container_of(node, struct item, node);
        if (pattern_of(s, it->attempt.queue) != pattern)
            continue;
        answer_returned(s, it->attempt.id, it->attempt.lease, PUSHROD_E_HANDLER_BROKEN);
        item_end(s, it);
    }
}

void session_broken(struct session *s, uint64_t lease, struct slice text)
{
    struct item *it = item_find(s, lease);
    if (!it)
        return;
    size_t pattern = pattern_of(s, it->attempt.queue);
    if (!it->dropped)
        answer_returned(s, it->attempt.id, lease, PUSHROD_E_HANDLER_BROKEN);
    item_end(s, it);
    if (pattern == s->pattern_count)
        return; /* known already */
    return_waiting_of(s, pattern);
    struct slice name = s->patterns[pattern];
    session_say(s, "no longer serving %.*s: %.*s", (int)name.size, (const char *)name.data,
        (int)text.size, (const char *)text.data);
    s->patterns[pattern] = s->patterns[--s->pattern_count];
    if (s->pattern_count > 0)
        return;
    s->code = PUSHROD_E_HANDLER_BROKEN;
    session_drain(s, 0);
}

/* --------------------------------------------------------------------- each tick */

static bool task_may_start(const struct session *s)
{
    if (s->state != SESSION_ACTIVE || s->draining)
        return false;
    if (s->config.max_tasks && s->begun >= s->config.max_tasks)
        return false;
    return s->handed_count < (size_t)s->config.slots + s->config.ahead;
}

void item_start_some(struct session *s)
{
    /* What is kept for a server that does not acknowledge must not grow without end. */
    if (answer_log_bytes(&s->log) > s->config.keep_bytes)
        return;
    while (s->waiting_count && task_may_start(s)) {
        struct item *it = container_of(s->waiting.next, struct item, node);
        list_remove(&it->node);
        list_push_back(&s->handed, &it->node);
        s->waiting_count--;
        s->handed_count++;
        s->begun++;
        it->handed = true;
        run_add(s, RUN_START, &it->attempt);
    }
}

void item_tell_started(struct session *s)
{
    size_t place = 0;
    list_foreach(node, next, &s->handed)
    {
        if (place++ == s->config.slots)
            return;
        struct item *it = container_of(node, struct item, node);
        if (!it->seen_ns)
            it->seen_ns = s->now.mono_ns;
        else if (!it->told && !it->dropped && s->now.mono_ns - it->seen_ns >= STARTED_AFTER_NS)
            answer_started(s, it);
    }
}

uint64_t item_wake_ns(const struct session *s)
{
    uint64_t wake = UINT64_MAX;
    size_t place = 0;
    if (!session_active(s))
        return wake;
    list_foreach(node, next, &s->handed)
    {
        if (place++ == s->config.slots)
            break;
        const struct item *it = container_of(node, struct item, node);
        if (it->told || it->dropped)
            continue;
        uint64_t at = it->seen_ns ? it->seen_ns + STARTED_AFTER_NS : s->now.mono_ns;
        wake = at < wake ? at : wake;
    }
    return wake;
}

void item_drop(struct session *s, struct item *it)
{
    if (!it->handed) {
        item_end(s, it);
        return;
    }
    it->dropped = true;
    if (!it->cancelled)
        run_add(s, RUN_CANCEL, &it->attempt);
    it->cancelled = true;
}

void item_return_unstarted(struct session *s)
{
    list_foreach(node, next, &s->waiting)
    {
        struct item *it = container_of(node, struct item, node);
        answer_returned(s, it->attempt.id, it->attempt.lease, PUSHROD_E_DRAINING);
        item_end(s, it);
    }
    size_t place = 0;
    list_foreach(node, next, &s->handed)
    {
        if (place++ >= s->config.slots)
            item_revoke(s, container_of(node, struct item, node));
    }
}
