/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tasks in the hands of a worker: waiting -> handed to the runner -> answered.
 *
 * The runner begins what it was handed in order, so the first `slots` of the handed ones run (or
 * have just ended), and the others can be asked back.
 */
#include <stdio.h>
#include <stdlib.h>

#include "worker/session_impl.h"

/*
 * A task that takes longer than this is worth a STARTED of its own: it wakes up both ends. The
 * bytes of a large one keep others off the lane until then.
 */
#define STARTED_AFTER_NS       (5 * NS_PER_MS)
#define LARGE_STARTED_AFTER_NS (1 * NS_PER_MS)
/* A spare item keeps its memory up to this many bytes. */
#define SPARE_BYTES 8192u

/* Mostly asked for what ends: one after the other, in the order in which they were handed over. */
struct item *item_find(const struct session *s, uint64_t lease)
{
    uint64_t value;
    struct list *oldest = list_first(&s->handed);
    if (oldest && container_of(oldest, struct item, node)->attempt.lease == lease)
        return container_of(oldest, struct item, node);
    return idmap_get(&s->items, lease, &value) ? (struct item *)(uintptr_t)value : NULL;
}

static struct item *item_new(struct session *s)
{
    struct list *node = list_first(&s->spare);
    if (!node)
        return calloc(1, sizeof(struct item));
    list_remove(node);
    struct item *it = container_of(node, struct item, node);
    struct buf bytes = it->bytes;
    *it = (struct item){.bytes = bytes};
    return it;
}

/* What is large is given back at once; small memory serves the next task. */
static void item_lighten(struct item *it)
{
    body_unref(it->body);
    it->body = NULL;
    buf_free(&it->note);
    buf_recycle(&it->bytes, SPARE_BYTES);
}

/* As a whole: an item that ended is touched again when it serves the next task, not before. */
void item_sweep(struct session *s)
{
    list_splice_front(&s->spare, &s->gone);
}

/*
 * Out of its list and the map; its answer, if there is one, is in the log. An action of this tick
 * may name it, so it is reused in the next.
 */
void item_end(struct session *s, struct item *it)
{
    idmap_remove(&s->items, it->attempt.lease);
    list_remove(&it->node);
    if (it->handed)
        s->handed_count--;
    else
        s->waiting_count--;
    if (it->revoking)
        s->revoking_count--;
    if (it->progressing)
        s->progressing_count--;
    item_lighten(it);
    list_push_back(&s->gone, &it->node);
}

static void items_free(struct list *head)
{
    list_foreach(node, next, head)
    {
        struct item *it = container_of(node, struct item, node);
        body_unref(it->body);
        buf_free(&it->note);
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

static void run_add(struct session *s, enum run_kind kind, const struct attempt *attempt)
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

/* The whole payload, with what has come of it; NULL: no memory. */
static struct body *payload_begin(const struct msg_task *m, struct body *body)
{
    struct slice there = body ? body_slice(body) : m->payload;
    struct body *whole = body_new(there.size + m->rest);
    if (whole && there.size)
        memcpy(whole->data, there.data, there.size);
    return whole;
}

static bool item_begin(struct session *s, struct item *it, const struct msg_task *m, struct body *b)
{
    struct body *whole = m->rest ? payload_begin(m, b) : body_ref(b);
    bool filled = (whole || !m->rest) && item_fill(it, m, whole) &&
                  idmap_put(&s->items, m->lease, (uintptr_t)it);
    body_unref(whole);
    it->missing = m->rest;
    return filled;
}

void session_task(struct session *s, const struct msg_task *m, struct body *body)
{
    if (!session_heard(s))
        return;
    if (s->draining) {
        item_say_returned(s, m->id, m->lease, PUSHROD_E_DRAINING);
        return;
    }
    /* The next JOIN cannot tell the server which queues of a broader pattern we had to give up. */
    if (item_is_broken(s, m->queue)) {
        item_say_returned(s, m->id, m->lease, PUSHROD_E_HANDLER_BROKEN);
        return;
    }
    /* A lease is handed over once; a second time could only be a mistake of the server's. */
    if (m->lease == 0 || item_find(s, m->lease))
        return;
    struct item *it = item_new(s);
    if (!it || !item_begin(s, it, m, body)) {
        if (it) {
            item_lighten(it);
            list_push_back(&s->gone, &it->node);
        }
        item_say_returned(s, m->id, m->lease, PUSHROD_E_NO_MEMORY);
        return;
    }
    list_push_back(&s->waiting, &it->node);
    s->waiting_count++;
}

void session_payload(struct session *s, uint64_t lease, struct slice data)
{
    if (!session_heard(s))
        return;
    /* We may have answered for it, and forgotten it, while this was on its way. */
    struct item *it = item_find(s, lease);
    if (!it || !it->missing)
        return;
    if (data.size > it->missing) {
        session_rejoin(s, "the server sent more of a payload than there is");
        return;
    }
    if (data.size)
        memcpy(it->body->data + it->body->size - it->missing, data.data, data.size);
    it->missing -= data.size;
}

static const struct attempt_failure cancelled_unstarted = {
    .code = PUSHROD_E_TASK_CANCELLED, .permanent = true};

void session_cancel(struct session *s, const struct msg_cancel_task *m)
{
    if (!session_heard(s))
        return;
    struct item *it = item_find(s, m->lease);
    if (!it || it->cancelled)
        return;
    if (it->handed) {
        it->cancelled = true;
        run_add(s, RUN_CANCEL, &it->attempt);
        return;
    }
    item_say_failed(s, it, 0, &cancelled_unstarted);
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
    if (!session_heard(s))
        return;
    struct item *it = item_find(s, m->lease);
    if (!it || it->dropped)
        return;
    if (!it->handed) {
        item_say_returned(s, m->id, m->lease, 0);
        item_end(s, it);
    } else if (item_runs(s, it)) {
        item_say_started(s, it);
    } else {
        item_revoke(s, it);
    }
}

/* --------------------------------------------------------------------- each tick */

static bool task_may_start(const struct session *s)
{
    if (s->state != SESSION_ACTIVE || s->draining)
        return false;
    return !s->config.max_tasks || s->begun < s->config.max_tasks;
}

static void item_start(struct session *s, struct item *it)
{
    list_remove(&it->node);
    list_push_back(&s->handed, &it->node);
    s->waiting_count--;
    s->handed_count++;
    s->begun++;
    it->handed = true;
    run_add(s, RUN_START, &it->attempt);
}

/*
 * In their order. Who waits for the rest of its payload keeps its slot, for the server counts on
 * it: others pass it if there is a slot for each of them besides.
 */
void item_start_some(struct session *s)
{
    /* What is kept for a server that does not acknowledge must not grow without end. */
    if (answers_kept(s) > s->config.keep_bytes)
        return;
    size_t place = s->handed_count, places = (size_t)s->config.slots + s->config.ahead;
    list_foreach(node, next, &s->waiting)
    {
        struct item *it = container_of(node, struct item, node);
        if (!task_may_start(s) || place++ >= places)
            return;
        if (it->missing)
            places = s->config.slots;
        else
            item_start(s, it);
    }
}

static uint64_t item_started_ns(const struct item *it)
{
    return it->seen_ns + (it->body ? LARGE_STARTED_AFTER_NS : STARTED_AFTER_NS);
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
        else if (!it->told && !it->dropped && s->now.mono_ns >= item_started_ns(it))
            item_say_started(s, it);
    }
}

void item_tell_progress(struct session *s)
{
    size_t place = 0;
    list_foreach(node, next, &s->handed)
    {
        if (!s->progressing_count || place++ == s->config.slots)
            return;
        struct item *it = container_of(node, struct item, node);
        if (s->now.mono_ns >= it->progress_ns)
            item_say_progress(s, it);
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
        if (it->progressing && it->progress_ns < wake)
            wake = it->progress_ns;
        if (it->told || it->dropped)
            continue;
        uint64_t at = it->seen_ns ? item_started_ns(it) : s->now.mono_ns;
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
    if (it->progressing)
        s->progressing_count--;
    it->progressing = false;
    if (!it->cancelled)
        run_add(s, RUN_CANCEL, &it->attempt);
    it->cancelled = true;
}

void item_lose_partial(struct session *s)
{
    list_foreach(node, next, &s->waiting)
    {
        struct item *it = container_of(node, struct item, node);
        if (it->missing)
            item_end(s, it);
    }
}

void item_return_unstarted(struct session *s)
{
    list_foreach(node, next, &s->waiting)
    {
        struct item *it = container_of(node, struct item, node);
        item_say_returned(s, it->attempt.id, it->attempt.lease, PUSHROD_E_DRAINING);
        item_end(s, it);
    }
    size_t place = 0;
    list_foreach(node, next, &s->handed)
    {
        if (place++ >= s->config.slots)
            item_revoke(s, container_of(node, struct item, node));
    }
}
