/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers: each is encoded once, numbered by its place, kept until the server has stored it, and
 * sent again from the first unacknowledged one when a connection was renewed; when ACK stalls, that
 * one alone.
 */
#include <assert.h>
#include <stdlib.h>

#include "worker/session_impl.h"

void answer_log_free(struct answer_log *l)
{
    free(l->ring);
    buf_free(&l->bytes);
    *l = (struct answer_log){0};
}

static struct kept *log_record(const struct answer_log *l, size_t i)
{
    assert(i < l->count);
    return &l->ring[(l->first + i) & (l->capacity - 1)];
}

const struct kept *answer_log_at(const struct answer_log *l, size_t i)
{
    return i < l->count ? log_record(l, i) : NULL;
}

static bool log_room(struct answer_log *l)
{
    if (l->count < l->capacity)
        return true;
    size_t capacity = l->capacity ? 2 * l->capacity : 256;
    struct kept *ring = malloc(capacity * sizeof *ring);
    if (!ring)
        return false;
    for (size_t i = 0; i < l->count; i++)
        ring[i] = *log_record(l, i);
    free(l->ring);
    l->ring = ring;
    l->capacity = capacity;
    l->first = 0;
    return true;
}

size_t answer_log_open(struct answer_log *l)
{
    return l->bytes.size;
}

void answer_log_close(struct answer_log *l, size_t from, uint16_t kind, uint64_t id, uint64_t lease)
{
    if (l->bytes.failed || !log_room(l)) {
        l->failed = true;
        return;
    }
    assert(l->bytes.size >= from && l->bytes.size - from <= UINT32_MAX);
    l->count++;
    l->data += kind == MSG_DATA ? l->bytes.size - from : 0;
    *log_record(l, l->count - 1) = (struct kept){
        .id = id,
        .lease = lease,
        .size = (uint32_t)(l->bytes.size - from),
        .kind = kind,
    };
}

void answer_log_group(struct answer_log *l, uint32_t messages)
{
    if (l->failed)
        return;
    assert(messages <= l->count);
    for (uint32_t i = 0; i < messages; i++)
        log_record(l, l->count - messages + i)->tail = messages - 1 - i;
}

/* Gives memory back to new messages: at once when nothing is kept, else when half of it is stale,
 * so that each byte is moved once on average. */
static void log_compact(struct answer_log *l)
{
    if (l->head_at < l->bytes.size && l->head_at < l->frame)
        return;
    if (l->head_at < l->bytes.size && l->head_at < l->bytes.size / 2)
        return;
    l->acked_at -= l->head_at;
    l->sent_at -= l->head_at;
    if (l->head_at == l->bytes.size)
        buf_recycle(&l->bytes, LOG_WINDOW * l->part);
    else
        buf_consume(&l->bytes, l->head_at);
    l->head_at = 0;
}

/* Its first record is gone. */
static void log_shift(struct answer_log *l)
{
    const struct kept *record = log_record(l, 0);
    l->head_at += record->size;
    l->data -= record->kind == MSG_DATA ? record->size : 0;
    l->first = (l->first + 1) & (l->capacity - 1);
    l->count--;
}

/* Forgets whole groups that are acknowledged to their last message. */
static void log_forget(struct answer_log *l)
{
    while (l->count && !log_record(l, 0)->scattered) {
        size_t messages = log_record(l, 0)->tail + (size_t)1;
        if (messages > l->acked)
            break;
        for (size_t i = 0; i < messages; i++)
            log_shift(l);
        l->acked -= messages;
        l->sent -= messages;
        l->head_sequence += messages;
    }
    log_compact(l);
}

/* The last of a scattered group is acknowledged: all of it may go. */
static void log_gather(struct answer_log *l, const struct kept *done)
{
    for (size_t i = 0; i < l->acked; i++) {
        struct kept *record = log_record(l, i);
        if (record->lease == done->lease)
            record->scattered = false;
    }
}

bool answer_log_ack(struct answer_log *l, uint64_t sequence)
{
    uint64_t known = l->head_sequence + l->acked; /* the first that is not acknowledged */
    if (sequence < known || l->acked == l->count)
        return false;
    uint64_t news = sequence - known + 1;
    /* More than there is can only be a mistake of the peer's; what was never sent stays. */
    size_t left = l->count - l->acked;
    for (size_t i = 0; i < left && i < news; i++) {
        const struct kept *record = log_record(l, l->acked++);
        l->acked_at += record->size;
        if (record->scattered && record->kind == MSG_TASK_DONE)
            log_gather(l, record);
    }
    if (l->sent < l->acked) {
        l->sent = l->acked;
        l->sent_at = l->acked_at;
    }
    log_forget(l);
    return true;
}

void answer_log_rewind(struct answer_log *l)
{
    l->sent = l->acked;
    l->sent_at = l->acked_at;
}

/* A result that was begun is ended, whatever the window: its messages are acknowledged together. */
static bool log_open_window(const struct answer_log *l)
{
    if (l->sent_at - l->acked_at < LOG_WINDOW * l->part)
        return true;
    return l->sent && log_record(l, l->sent - 1)->tail > 0;
}

bool answer_log_pending(const struct answer_log *l)
{
    return l->sent < l->count && log_open_window(l);
}

bool answer_log_drained(const struct answer_log *l)
{
    return l->sent == l->count && log_open_window(l);
}

bool answer_log_take(struct answer_log *l, struct buf *frame, uint64_t *sequence)
{
    size_t begin = l->sent_at;
    *sequence = l->head_sequence + l->sent;
    while (answer_log_pending(l) && l->sent_at - begin < l->frame)
        l->sent_at += log_record(l, l->sent++)->size;
    if (l->sent_at == begin)
        return false;
    buf_append(frame, l->bytes.data + begin, l->sent_at - begin);
    return true;
}

bool answer_log_again(const struct answer_log *l, struct buf *frame)
{
    if (l->sent == l->acked)
        return false;
    buf_append(frame, l->bytes.data + l->acked_at, log_record(l, l->acked)->size);
    return true;
}

size_t answer_log_bytes(const struct answer_log *l)
{
    return l->bytes.size - l->head_at;
}

size_t answer_log_unsent(const struct answer_log *l)
{
    return l->bytes.size - l->sent_at;
}

/* A group stays or goes as a whole, because all its records have the same lease and the DONE. */
static struct kept *log_copy(
    struct answer_log *to, const struct answer_log *from, size_t i, size_t at)
{
    const struct kept *record = answer_log_at(from, i);
    size_t open = answer_log_open(to), count = to->count;
    buf_append(&to->bytes, from->bytes.data + at, record->size);
    answer_log_close(to, open, record->kind, record->id, record->lease);
    if (to->count == count)
        return NULL;
    struct kept *copy = log_record(to, count);
    copy->tail = record->tail;
    copy->scattered = record->scattered;
    return copy;
}

void answer_log_move(struct answer_log *l, struct answer_log *from)
{
    assert(from->sent == 0);
    for (size_t begin = l->bytes.size; from->count && l->bytes.size - begin < l->frame;) {
        struct kept *copy = log_copy(l, from, 0, from->head_at);
        if (!copy)
            return;
        copy->tail = 0;
        copy->scattered = copy->kind == MSG_PART || copy->kind == MSG_TASK_DONE;
        log_shift(from);
    }
    from->acked_at = from->sent_at = from->head_at;
    log_compact(from);
}

struct answer_log answer_log_like(const struct answer_log *l)
{
    return (struct answer_log){
        .head_sequence = 1, .part = l->part, .frame = l->frame, .failed = l->failed};
}

void answer_log_restart(
    struct answer_log *l, struct answer_log fresh, answer_log_filter *keep, const void *arg)
{
    size_t at = l->head_at;
    for (size_t i = 0; i < l->count; i++) {
        const struct kept *record = answer_log_at(l, i);
        /* What is acknowledged, and is here only for a group before it, is not said again. */
        bool open = record->scattered || i + record->tail >= l->acked;
        if (open && (!keep || keep(arg, record)))
            log_copy(&fresh, l, i, at);
        at += record->size;
    }
    answer_log_free(l);
    *l = fresh;
}
