/* SPDX-License-Identifier: Apache-2.0 */
#include "server/store/packed.h"

#include <assert.h>
#include <string.h>

static_assert(
    __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "records are packed as they lie in memory");

enum {
    FLAG_FOLLOWED = 1,
    FLAG_SUSPECT = 2,
    FLAG_WINDOWED = 4,
    FLAG_EXPIRY_TOLD = 8,
    FLAG_BODY = 16,
    FLAG_DEAD = 32
};

/* Fixed part of a record; `present` has a bit for each optional field that follows. */
struct record_head {
    uint64_t id;
    uint64_t submitted_ms;
    uint32_t attempts;
    uint32_t max_attempts;
    uint16_t deaths;
    uint16_t present;
    uint8_t priority;
    uint8_t flags;
    uint8_t queue_size;
    uint8_t boot;
};
static_assert(sizeof(struct record_head) == 32, "no padding");

struct finish_head {
    uint64_t id;
    uint64_t run_ns;
    uint64_t finished_ms;
    uint64_t keep_until_ms;
    uint32_t status;
    uint32_t code;
    uint32_t attempts;
    uint32_t flags;
    uint32_t present;
    uint32_t result_size; /* with FLAG_BODY the bytes are elsewhere */
};
static_assert(sizeof(struct finish_head) == 56, "no padding");

/*
 * The optional fields, in the order in which they lie, which is part of the format. Absent and
 * empty are not the same for a slice: a task may have a payload of no bytes. The payload, or the
 * result, is the first of the slices; it has its size alone if its bytes lie in a body.
 */
#define RECORD_NUMBERS(N)                                                                          \
    N(due_ms) N(expires_ms) N(unique_ms) N(keep_ms) N(timeout_ms) N(backoff_ms)
#define RECORD_SLICES(S) S(headers) S(tag) S(unique) S(target) S(history)
#define FINISH_SLICES(S) S(text) S(tag) S(history)

/* An optional field: its bit, and where it lies if it is there. */
#define PACK(present, there, put_it)                                                               \
    if (there) {                                                                                   \
        present |= bit;                                                                            \
        to = put_it;                                                                               \
    }                                                                                              \
    bit <<= 1;
#define UNPACK(take_it)                                                                            \
    if (head.present & bit)                                                                        \
        take_it;                                                                                   \
    bit <<= 1;

struct reader {
    const uint8_t *at;
    const uint8_t *end;
    bool failed;
};

static uint8_t *put(uint8_t *to, const void *data, size_t size)
{
    if (size)
        memcpy(to, data, size);
    return to + size;
}

static uint8_t *put_slice(uint8_t *to, struct slice s)
{
    uint32_t size = (uint32_t)s.size;
    to = put(to, &size, sizeof(size));
    return s.data ? put(to, s.data, s.size) : to;
}

static void take(struct reader *r, void *into, size_t size)
{
    if ((size_t)(r->end - r->at) < size) {
        r->failed = true;
        memset(into, 0, size);
        return;
    }
    memcpy(into, r->at, size);
    r->at += size;
}

static struct slice take_slice(struct reader *r, bool detached)
{
    uint32_t size = 0;
    take(r, &size, sizeof(size));
    if (detached)
        return slice_of(NULL, size);
    if ((size_t)(r->end - r->at) < size) {
        r->failed = true;
        return (struct slice){0};
    }
    struct slice s = slice_of(r->at, size);
    r->at += size;
    return s;
}

static size_t slice_packed_size(struct slice s)
{
    return s.data ? sizeof(uint32_t) + s.size : 0;
}

/* A payload or result as it is packed: of what lies in a body, the size. */
static struct slice without_body(struct slice bytes, const struct body *body)
{
    return body ? slice_of(NULL, body->size) : bytes;
}

/* ---- records ---- */

size_t record_packed_size(const struct record *r)
{
    struct slice payload = without_body(r->payload, r->body);
    size_t size = sizeof(struct record_head) + r->queue.size;
    size += slice_detached(payload) ? sizeof(uint32_t) : slice_packed_size(payload);
#define NUMBER(name) size += r->name ? sizeof(uint64_t) : 0;
#define SLICE(name)  size += slice_packed_size(r->name);
    RECORD_NUMBERS(NUMBER)
    RECORD_SLICES(SLICE)
#undef NUMBER
#undef SLICE
    return size;
}

void record_pack(uint8_t *to, const struct record *r, struct packed_state state)
{
    struct slice payload = without_body(r->payload, r->body);
    bool detached = slice_detached(payload);
    int flags = (r->followed ? FLAG_FOLLOWED : 0) | (r->suspect ? FLAG_SUSPECT : 0) |
                (r->windowed ? FLAG_WINDOWED : 0) | (state.expiry_told ? FLAG_EXPIRY_TOLD : 0) |
                (detached ? FLAG_BODY : 0);
    struct record_head head = {.id = r->id,
        .submitted_ms = r->submitted_ms,
        .attempts = r->attempts,
        .max_attempts = r->max_attempts,
        .deaths = r->deaths,
        .priority = r->priority,
        .flags = (uint8_t)flags,
        .queue_size = (uint8_t)r->queue.size,
        .boot = state.boot};
    uint8_t *begin = to;
    unsigned present = 0;
    unsigned bit = 1;
    to = put(to + sizeof(head), r->queue.data, r->queue.size);
#define NUMBER(name) PACK(present, r->name, put(to, &r->name, sizeof(uint64_t)))
#define SLICE(name)  PACK(present, r->name.data, put_slice(to, r->name))
    RECORD_NUMBERS(NUMBER)
    PACK(present, detached || payload.data, put_slice(to, payload))
    RECORD_SLICES(SLICE)
#undef NUMBER
#undef SLICE
    head.present = (uint16_t)present;
    memcpy(begin, &head, sizeof(head));
}

static void record_from_head(struct record *r, const struct record_head *head)
{
    r->id = head->id;
    r->submitted_ms = head->submitted_ms;
    r->attempts = head->attempts;
    r->max_attempts = head->max_attempts;
    r->deaths = head->deaths;
    r->priority = head->priority;
    r->followed = (head->flags & FLAG_FOLLOWED) != 0;
    r->suspect = (head->flags & FLAG_SUSPECT) != 0;
    r->windowed = (head->flags & FLAG_WINDOWED) != 0;
}

bool record_unpack(const uint8_t *from, size_t size, struct record *r, struct packed_state *state)
{
    struct reader in = {from, from + size, false};
    struct record_head head;
    *r = (struct record){0};
    take(&in, &head, sizeof(head));
    if (in.failed || (size_t)(in.end - in.at) < head.queue_size)
        return false;
    record_from_head(r, &head);
    r->queue = slice_of(in.at, head.queue_size);
    in.at += head.queue_size;
    unsigned bit = 1;
#define NUMBER(name) UNPACK(take(&in, &r->name, sizeof(uint64_t)))
#define SLICE(name)  UNPACK(r->name = take_slice(&in, false))
    RECORD_NUMBERS(NUMBER)
    UNPACK(r->payload = take_slice(&in, (head.flags & FLAG_BODY) != 0))
    RECORD_SLICES(SLICE)
#undef NUMBER
#undef SLICE
    if (state)
        *state = (struct packed_state){head.boot, (head.flags & FLAG_EXPIRY_TOLD) != 0};
    return !in.failed;
}

void record_load(const uint8_t *from, size_t size, struct record *r, struct packed_state *state)
{
    bool whole = record_unpack(from, size, r, state);
    assert(whole);
    (void)whole;
}

/* ---- finishes ---- */

static bool finish_wanted(const struct finish *f)
{
    return f->dead || f->keep_until_ms;
}

size_t finish_packed_size(const struct finish *f)
{
    if (!finish_wanted(f))
        return sizeof(uint64_t);
    size_t size = sizeof(struct finish_head);
    size += slice_packed_size(without_body(f->result, f->body));
#define SLICE(name) size += slice_packed_size(f->name);
    FINISH_SLICES(SLICE)
#undef SLICE
    return size;
}

void finish_pack(uint8_t *to, const struct finish *f)
{
    if (!finish_wanted(f)) {
        put(to, &f->id, sizeof(f->id));
        return;
    }
    struct slice result = without_body(f->result, f->body);
    struct finish_head head = {.id = f->id,
        .run_ns = f->run_ns,
        .finished_ms = f->finished_ms,
        .keep_until_ms = f->keep_until_ms,
        .status = f->status,
        .code = f->code,
        .attempts = f->attempts,
        .flags = (f->dead ? FLAG_DEAD : 0u) | (f->body ? FLAG_BODY : 0u),
        .result_size = (uint32_t)result.size};
    uint8_t *begin = to;
    unsigned bit = 1;
    to += sizeof(head);
#define SLICE(name) PACK(head.present, f->name.data, put_slice(to, f->name))
    PACK(head.present, result.data, put_slice(to, result))
    FINISH_SLICES(SLICE)
#undef SLICE
    memcpy(begin, &head, sizeof(head));
}

bool finish_unpack(const uint8_t *from, size_t size, struct finish *f)
{
    struct reader in = {from, from + size, false};
    struct finish_head head = {0};
    *f = (struct finish){0};
    if (size == sizeof(uint64_t)) {
        take(&in, &f->id, sizeof(f->id));
        return true;
    }
    take(&in, &head, sizeof(head));
    f->id = head.id;
    f->run_ns = head.run_ns;
    f->finished_ms = head.finished_ms;
    f->keep_until_ms = head.keep_until_ms;
    f->status = head.status;
    f->code = head.code;
    f->attempts = head.attempts;
    f->dead = (head.flags & FLAG_DEAD) != 0;
    unsigned bit = 1;
#define SLICE(name) UNPACK(f->name = take_slice(&in, false))
    SLICE(result)
    FINISH_SLICES(SLICE)
#undef SLICE
    if (head.flags & FLAG_BODY)
        f->result = slice_of(NULL, head.result_size);
    return !in.failed;
}

void finish_load(const uint8_t *from, size_t size, struct finish *f)
{
    bool whole = finish_unpack(from, size, f);
    assert(whole);
    (void)whole;
}

/* ---- what some operations mean ---- */

void record_reschedule(struct record *r, const struct record *change)
{
    r->due_ms = change->due_ms;
    r->attempts = change->attempts;
    r->deaths = change->deaths;
    r->suspect = change->suspect;
    r->windowed = change->windowed;
    if (change->history.data)
        r->history = change->history;
}

void record_revive(struct record *r)
{
    r->due_ms = 0;
    r->expires_ms = 0;
    r->unique_ms = 0;
    r->attempts = 0;
    r->deaths = 0;
    r->suspect = false;
    r->windowed = true;
}

bool purge_keeps(const uint64_t *keep, size_t count, uint64_t id)
{
    for (size_t low = 0, high = count; low < high;) {
        size_t middle = low + (high - low) / 2;
        if (keep[middle] == id)
            return true;
        if (keep[middle] < id)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}
