/* SPDX-License-Identifier: Apache-2.0 */
#include "server/net/native_parts.h"

#include <stdlib.h>
#include "proto/frame.h"
#include "proto/messages.h"

#define BIN32        0xc6 /* msgpack: bytes, and 4 bytes of their number before them */
#define BIN32_HEAD   5u
#define NIL          0xc0
#define KEPT_FIRST   (72u << 10) /* bytes: a frame of the library's, if it is of small messages */
#define PAYLOAD_LEFT 4u /* fields of a SUBMIT from its payload on, each of a byte at least */

struct payload {
    size_t message; /* where its SUBMIT begins, in `kept` */
    struct body *body;
};

struct parts {
    size_t left;         /* bytes of the frame that are still to come */
    bool blind;          /* they are not looked at */
    size_t again;        /* bytes of a value that is not whole, before it is looked at again */
    unsigned number;     /* of the message that has begun */
    unsigned fields;     /* of it that are still to come */
    size_t message;      /* where it begins, in `kept` */
    struct buf kept;     /* all but the large payloads */
    struct buf payloads; /* struct payload: those, in their order */
    size_t handed_over;  /* of them */
    struct dec whole;    /* what is to be decoded of `kept`, when all is there */
};

struct parts *parts_new(size_t size)
{
    struct parts *p = calloc(1, sizeof *p);
    if (p)
        p->left = size;
    return p;
}

static struct payload *payloads_of(const struct parts *p, size_t *count)
{
    *count = p->payloads.size / sizeof(struct payload);
    return (struct payload *)(void *)p->payloads.data;
}

void parts_free(struct parts *p)
{
    if (!p)
        return;
    size_t count;
    struct payload *payloads = payloads_of(p, &count);
    for (size_t i = p->handed_over; i < count; i++)
        body_unref(payloads[i].body);
    buf_free(&p->payloads);
    buf_free(&p->kept);
    free(p);
}

struct dec *parts_left(struct parts *p)
{
    return &p->whole;
}

struct body *parts_payload(struct parts *p, const uint8_t *message)
{
    size_t count;
    struct payload *payloads = payloads_of(p, &count);
    if (p->handed_over == count || p->kept.data + payloads[p->handed_over].message != message)
        return NULL;
    return payloads[p->handed_over++].body;
}

/* ---------------------------------------------------------------------------------- values */

/* Moves what was looked at from `in` to `kept`. */
static void keep(struct parts *p, struct slice *in, const uint8_t *end)
{
    size_t size = (size_t)(end - in->data);
    if (!p->kept.data)
        buf_reserve(&p->kept, p->left < KEPT_FIRST ? p->left : KEPT_FIRST);
    buf_append(&p->kept, in->data, size);
    slice_skip(in, size);
    p->left -= size;
}

/* The size of the payload at d, if it is one that goes into a body; else 0. */
static size_t large_payload(const struct parts *p, const struct dec *d)
{
    if (p->number != MSG_SUBMIT || p->fields != PAYLOAD_LEFT)
        return 0;
    if (d->end - d->at < (ptrdiff_t)BIN32_HEAD || d->at[0] != BIN32)
        return 0;
    size_t size = frame_size(d->at + 1);
    return size >= CONN_LARGE ? size : 0;
}

/* One value, or the head of a message; `in` begins with those that are not kept yet. */
static void value_look(struct parts *p, const struct slice *in, struct dec *d)
{
    size_t at = (size_t)(d->at - in->data);
    if (p->fields > 0) {
        dec_raw(d);
        p->fields -= !dec_failed(d);
        return;
    }
    unsigned number = dec_message(d);
    if (dec_failed(d))
        return;
    p->number = number;
    p->fields = msg_fields(number);
    p->message = p->kept.size + at;
}

/* `in` begins with the payload; false: no memory. */
static bool payload_take(struct parts *p, struct conn *c, struct slice *in, size_t size)
{
    static const uint8_t nil = NIL;
    size_t there = in->size - BIN32_HEAD < size ? in->size - BIN32_HEAD : size;
    struct payload payload = {p->message, conn_body_begun(c, in->data + BIN32_HEAD, there, size)};
    if (!payload.body)
        return false;
    buf_append(&p->payloads, &payload, sizeof payload);
    if (p->payloads.failed)
        body_unref(payload.body);
    buf_append(&p->kept, &nil, sizeof nil);
    slice_skip(in, BIN32_HEAD + there);
    p->left -= BIN32_HEAD + size;
    p->fields--;
    return !p->payloads.failed && !p->kept.failed;
}

enum parts_state parts_read(struct parts *p, struct conn *c, struct slice *in)
{
    if (p->left == 0)
        return PARTS_WHOLE;
    /* A look begins at the value's first byte: it is worth it when there is twice as much. */
    if (in->size < p->again && in->size < p->left)
        return PARTS_MORE;
    struct dec d = dec_of(slice_of(in->data, in->size < p->left ? in->size : p->left));
    const uint8_t *seen = d.at; /* behind the last value that is whole */
    while (dec_more(&d) && !p->blind) {
        size_t payload = large_payload(p, &d);
        if (payload == 0) {
            value_look(p, in, &d);
            seen = dec_failed(&d) ? seen : d.at;
            continue;
        }
        keep(p, in, seen);
        p->blind = BIN32_HEAD + payload + PAYLOAD_LEFT - 1 > p->left;
        if (!p->blind && !payload_take(p, c, in, payload))
            return PARTS_NO_MEMORY;
        seen = d.at = in->data;
    }
    bool last = (size_t)(d.end - in->data) == p->left;
    bool long_value = (size_t)(d.end - seen) > CONN_READ;
    p->blind |= (dec_failed(&d) && !dec_short(&d)) || last || long_value;
    keep(p, in, p->blind ? d.end : seen);
    if (p->kept.failed)
        return PARTS_NO_MEMORY;
    p->again = in->size < CONN_READ / 2 ? 2 * in->size : CONN_READ + 1;
    if (p->left > 0)
        return PARTS_MORE;
    p->whole = dec_of(buf_slice(&p->kept));
    return PARTS_WHOLE;
}
