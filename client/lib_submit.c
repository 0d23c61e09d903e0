/* SPDX-License-Identifier: Apache-2.0 */
/* lib_submit: submissions: their limits, their encoding, and waiting for their answers. */
#include <stdlib.h>
#include <string.h>

#include "client/lib.h"
#include "common/name.h"

#define MAX_ATTEMPTS 1000u
#define MAX_MS       UINT64_C(3155760000000) /* 100 years: sums with the clock stay far from 2^63 */
#define SHOWN        60                      /* bytes of a bad value that an error quotes */

/* ---------------------------------------------------------------------------------- limits */

/* A time beyond any sense is a mistake in a unit; it is refused before sums overflow. */
static int check_ms(struct pushrod_client *c, const char *option, uint64_t ms)
{
    if (ms <= MAX_MS)
        return 0;
    return client_fail(c, PUSHROD_E_BAD_OPTION, "%s is %llu ms: at most 100 years are allowed",
        option, (unsigned long long)ms);
}

static int check_size(struct pushrod_client *c, const char *option, size_t size, size_t limit)
{
    if (size <= limit)
        return 0;
    return client_fail(
        c, PUSHROD_E_TOO_BIG, "%s has %zu bytes: at most %zu are allowed", option, size, limit);
}

static int check_times(struct pushrod_client *c, const struct pushrod_options *o)
{
    int error = check_ms(c, "delay_ms", o->delay_ms);
    if (!error)
        error = check_ms(c, "eta_ms", o->eta_ms);
    if (!error)
        error = check_ms(c, "timeout_ms", o->timeout_ms);
    if (!error)
        error = check_ms(c, "expires_ms", o->expires_ms);
    if (!error)
        error = check_ms(c, "backoff_ms", o->backoff_ms);
    if (!error)
        error = check_ms(c, "unique_ms", o->unique_ms);
    return error ? error : check_ms(c, "keep_ms", o->keep_ms);
}

/*
 * What the server would refuse is refused here, with the name of the field: no round trip, no
 * guess.
 */
static int check_options(struct pushrod_client *c, const struct pushrod_options *o)
{
    if (o->priority_plus_1 > PUSHROD_MAX_PRIORITY + 1)
        return client_fail(c, PUSHROD_E_BAD_OPTION, "priority is %u: it must be 0 to %u",
            o->priority_plus_1 - 1, PUSHROD_MAX_PRIORITY);
    if (o->max_attempts > MAX_ATTEMPTS)
        return client_fail(c, PUSHROD_E_BAD_OPTION, "max_attempts is %u: it must be 1 to %u",
            o->max_attempts, MAX_ATTEMPTS);
    if (o->unique_key && !*o->unique_key)
        return client_fail(c, PUSHROD_E_BAD_OPTION, "unique_key is empty");
    if (o->worker && !*o->worker)
        return client_fail(c, PUSHROD_E_BAD_OPTION, "worker is empty: it must be a worker's name");
    if (o->tag_size && !o->tag)
        return client_fail(c, PUSHROD_E_INVALID, "tag is NULL but tag_size is not 0");
    if (o->header_count && !o->headers)
        return client_fail(c, PUSHROD_E_INVALID, "headers is NULL but header_count is not 0");
    int error = check_size(c, "tag", o->tag_size, PUSHROD_MAX_TAG);
    if (!error && o->unique_key)
        error = check_size(c, "unique_key", strlen(o->unique_key), PUSHROD_MAX_UNIQUE_KEY);
    if (!error && o->worker)
        error = check_size(c, "worker", strlen(o->worker), 255);
    return error ? error : check_times(c, o);
}

/* Before the first connection the server's own limit is not known: the protocol's stands in. */
static int check_submission(struct pushrod_client *c, const struct pushrod_submission *s)
{
    uint64_t limit = c->info.max_payload ? c->info.max_payload : PUSHROD_MAX_PAYLOAD;
    if (!s->queue || !name_valid(slice_str(s->queue)))
        return client_fail(c, PUSHROD_E_BAD_QUEUE, "queue is '%.*s': %s", SHOWN,
            s->queue ? s->queue : "", pushrod_strerror(PUSHROD_E_BAD_QUEUE));
    if (s->size && !s->data)
        return client_fail(c, PUSHROD_E_INVALID, "data is NULL but size is not 0");
    if ((unsigned)s->follow > PUSHROD_FOLLOW_ALL)
        return client_fail(c, PUSHROD_E_INVALID, "follow is not one of enum pushrod_follow");
    int error = check_size(c, "the payload", s->size, (size_t)limit);
    return error || !s->options ? error : check_options(c, s->options);
}

/* ---------------------------------------------------------------------------------- encoding */

/* The map of headers, into c->encoded. */
static int encode_headers(struct pushrod_client *c, const struct pushrod_options *o)
{
    struct buf *to = &c->encoded;
    enc_map(to, (uint32_t)o->header_count);
    for (size_t i = 0; i < o->header_count && to->size <= PUSHROD_MAX_HEADERS; i++) {
        enc_text(to, slice_str(o->headers[i].name));
        enc_text(to, slice_str(o->headers[i].value));
    }
    int error = check_size(c, "headers: their encoding", to->size, PUSHROD_MAX_HEADERS);
    if (!error && !to->failed && !headers_valid(buf_slice(to)))
        error = client_fail(c, PUSHROD_E_BAD_OPTION,
            "headers: a name must be 1 to 64 of A-Z a-z 0-9 _ -, and a value text");
    return error;
}

/* The OPTIONS message, into c->encoded after the headers. Absent if all are defaults. */
static int encode_options(
    struct pushrod_client *c, const struct pushrod_submission *s, struct slice *options)
{
    static const struct pushrod_options defaults;
    const struct pushrod_options *o = s->options ? s->options : &defaults;
    *options = (struct slice){0};
    if (!s->attached && (!s->options || memcmp(o, &defaults, sizeof *o) == 0))
        return 0;
    buf_clear(&c->encoded);
    if (o->header_count) {
        int error = encode_headers(c, o);
        if (error)
            return error;
    }
    size_t begin = c->encoded.size;
    /* The message copies the headers out of the same buffer, so its growth must come first. */
    buf_reserve(&c->encoded, 1024 + begin + o->tag_size);
    struct msg_options m = {
        .priority = o->priority_plus_1 ? o->priority_plus_1 - 1 : PUSHROD_DEFAULT_PRIORITY,
        .delay_ms = o->delay_ms,
        .eta_ms = o->eta_ms,
        .timeout_ms = o->timeout_ms,
        .expires_ms = o->expires_ms,
        .max_attempts = o->max_attempts ? o->max_attempts : PUSHROD_DEFAULT_MAX_ATTEMPTS,
        .backoff_ms = o->backoff_ms ? o->backoff_ms : PUSHROD_DEFAULT_BACKOFF_MS,
        .unique_key = slice_str(o->unique_key),
        .unique_ms = o->unique_ms,
        .worker = slice_str(o->worker),
        .keep_ms = o->keep_ms,
        .attached = s->attached,
        .tag = slice_of(o->tag_size ? o->tag : NULL, o->tag_size),
        .headers = begin ? slice_of(c->encoded.data, begin) : (struct slice){0},
    };
    msg_options_encode(&c->encoded, &m);
    if (c->encoded.failed)
        return client_no_memory(c);
    *options = slice_of(c->encoded.data + begin, c->encoded.size - begin);
    return 0;
}

/* A SUBMIT that may be sent again is kept; only those with a unique key may. */
static bool keep_copy(struct pending *p, const struct msg_submit *m)
{
    p->copy = calloc(1, sizeof *p->copy);
    if (!p->copy)
        return false;
    msg_submit_encode(p->copy, m);
    return !p->copy->failed;
}

/*
 * `patient`: nobody waits for ACCEPTED alone. Nothing is allocated here in the steady state: ring,
 * buffer and records have their sizes by then.
 */
static int submit_encode(struct pushrod_client *c, const struct pushrod_submission *s,
    struct pushrod_receipt *receipt, bool patient)
{
    int error = check_submission(c, s);
    if (error)
        return error;
    /* What is larger than the limit goes alone. */
    if (stream_waiting(c) && stream_waiting(c) + s->size > CLIENT_OUT_LIMIT)
        return client_fail(c, PUSHROD_E_OVERLOADED,
            "%zu bytes wait to be sent: call pushrod_client_process() first", stream_waiting(c));
    struct msg_submit m = {.queue = slice_str(s->queue),
        .payload = slice_of(s->size ? s->data : "", s->size),
        .follow = s->follow,
        .patient = patient};
    error = encode_options(c, s, &m.options);
    if (error)
        return error;
    struct pending *p = pending_add(c, &m.request);
    if (!p)
        return client_no_memory(c);
    p->kind = PENDING_SUBMIT;
    p->follow = (uint8_t)s->follow;
    p->arg = s->arg;
    p->receipt = receipt;
    p->waited = receipt && patient;
    c->pending.count++;
    bool keyed = s->options && s->options->unique_key;
    bool kept = !keyed || keep_copy(p, &m);
    if (kept)
        msg_submit_encode(stream_out(c), &m);
    if (kept && stream_added(c))
        return 0;
    pending_remove(c, m.request);
    return client_no_memory(c);
}

int pushrod_client_submit_async(struct pushrod_client *c, const struct pushrod_submission *task)
{
    return submit_encode(c, task, NULL, task->follow != PUSHROD_FOLLOW_NONE);
}

size_t pushrod_client_unanswered(const struct pushrod_client *c)
{
    return c->pending.count;
}

size_t pushrod_client_unfinished(const struct pushrod_client *c)
{
    return c->tasks.open;
}

/* ---------------------------------------------------------------------------------- waiting */

/* Until when answers are waited for, counted anew whenever something moves, or not. */
struct patience {
    uint64_t until_ns;
    bool renewed;
    size_t moved; /* what was under way at the last look */
};

static int wait_turn(struct pushrod_client *c, struct patience *p)
{
    size_t under_way = c->pending.count + stream_waiting(c);
    if (p->renewed && under_way != p->moved)
        p->until_ns = client_answer_deadline(c);
    p->moved = under_way;
    return client_turn_before(c, p->until_ns);
}

/* Waits until at most `left` of the submissions are without an answer. */
static int wait_answers(struct pushrod_client *c, size_t left)
{
    struct patience p = {.until_ns = client_answer_deadline(c), .renewed = true};
    int error = 0;
    while (!error && c->pending.count > left)
        error = wait_turn(c, &p);
    return error;
}

/* Backpressure: what waits to be sent has to leave first. */
static int wait_room(struct pushrod_client *c, size_t size, struct patience *p)
{
    int error = 0;
    while (!error && stream_waiting(c) && stream_waiting(c) + size > CLIENT_OUT_LIMIT / 4)
        error = wait_turn(c, p);
    return error;
}

static int submit_late(struct pushrod_client *c)
{
    return client_fail(c, PUSHROD_E_TIMED_OUT,
        "server %s has not said in time what it accepts, and may accept it yet", c->info.address);
}

/* An error of one submission is its receipt; an error of the connection ends the batch. */
static int submit_one(
    struct pushrod_client *c, const struct pushrod_submission *s, struct pushrod_receipt *receipt)
{
    struct patience p = {.until_ns = client_answer_deadline(c), .renewed = true};
    int error = 0;
    *receipt = (struct pushrod_receipt){0, -PUSHROD_E_CLOSED};
    if (c->pending.count >= CLIENT_IN_FLIGHT)
        error = wait_answers(c, CLIENT_IN_FLIGHT / 2);
    if (!error)
        error = wait_room(c, s->size, &p);
    if (error)
        return error;
    receipt->error = submit_encode(c, s, receipt, false);
    if (!receipt->error)
        receipt->error = -PUSHROD_E_CLOSED; /* until it is answered */
    return 0;
}

int64_t pushrod_client_submit_many(struct pushrod_client *c, const struct pushrod_submission *tasks,
    size_t count, struct pushrod_receipt *receipts)
{
    for (size_t i = 0; i < count; i++)
        receipts[i] = (struct pushrod_receipt){0, -PUSHROD_E_CLOSED};
    int error = client_up(c, client_answer_deadline(c));
    for (size_t i = 0; !error && i < count; i++)
        error = submit_one(c, &tasks[i], &receipts[i]);
    if (!error)
        error = wait_answers(c, 0);
    if (error) {
        pending_forget_receipts(c);
        return error == -PUSHROD_E_TIMED_OUT ? submit_late(c) : error;
    }
    int64_t accepted = 0;
    for (size_t i = 0; i < count; i++)
        accepted += receipts[i].error == 0;
    return accepted;
}

int client_submit(struct pushrod_client *c, const struct pushrod_submission *task, uint64_t *id,
    bool patient, uint64_t until_ns)
{
    struct pushrod_receipt receipt = {0, 0};
    struct patience p = {.until_ns = until_ns};
    if (until_ns == UINT64_MAX)
        p = (struct patience){.until_ns = client_answer_deadline(c), .renewed = true};
    int error = client_up(c, p.until_ns);
    if (!error)
        error = wait_room(c, task->size, &p);
    if (error)
        return error == -PUSHROD_E_TIMED_OUT ? submit_late(c) : error;
    error = submit_encode(c, task, &receipt, patient);
    receipt.error = error ? error : 1; /* 1: no answer yet */
    while (!error && receipt.error == 1)
        error = wait_turn(c, &p);
    if (id)
        *id = receipt.id;
    if (receipt.error != 1)
        return receipt.error;
    pending_forget_receipts(c);
    return error == -PUSHROD_E_TIMED_OUT ? submit_late(c) : error;
}

int pushrod_client_submit(
    struct pushrod_client *c, const struct pushrod_submission *task, uint64_t *id)
{
    return client_submit(c, task, id, false, UINT64_MAX);
}
