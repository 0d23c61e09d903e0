/* SPDX-License-Identifier: Apache-2.0 */
#include "server/net/native_parts.h"

#include <stdlib.h>
#include "proto/codec.h"
#include "proto/frame.h"
#include "proto/messages.h"

#define BIN32        0xc6 /* msgpack: bytes, and 4 bytes of their number before them */
#define BIN32_HEAD   5u
#define NIL          0xc0
#define PAYLOAD_LEFT 4u /* fields of a SUBMIT from its payload on */

struct apart {
    size_t message; /* where its SUBMIT begins, in `kept` */
    struct body *body;
};

struct parts {
    size_t left;        /* bytes of the frame that are still to come */
    unsigned number;    /* of the message that has begun */
    unsigned fields;    /* of it that are still to come */
    size_t message;     /* where it begins, in `kept` */
    struct buf kept;    /* all but the large payloads */
    struct buf aparts;  /* struct apart: those, in their order */
    size_t handed_over; /* of them */
};

struct parts *parts_new(size_t size)
{
    struct parts *p = calloc(1, sizeof *p);
    if (p)
        p->left = size;
    return p;
}

static struct apart *aparts_of(const struct parts *p, size_t *count)
{
    *count = p->aparts.size / sizeof(struct apart);
    return (struct apart *)(void *)p->aparts.data;
}

void parts_free(struct parts *p)
{
    if (!p)
        return;
    size_t count;
    struct apart *aparts = aparts_of(p, &count);
    for (size_t i = p->handed_over; i < count; i++)
        body_unref(aparts[i].body);
    buf_free(&p->aparts);
    buf_free(&p->kept);
    free(p);
}

struct slice parts_frame(const struct parts *p)
{
    return buf_slice(&p->kept);
}

struct body *parts_payload(struct parts *p, const uint8_t *message)
{
    size_t count;
    struct apart *aparts = aparts_of(p, &count);
    if (p->handed_over == count || p->kept.data + aparts[p->handed_over].message != message)
        return NULL;
    return aparts[p->handed_over++].body;
}

/* ---------------------------------------------------------------------------------- values */

/* Moves what was looked at from `in` to `kept`. */
static void keep(struct parts *p, struct slice *in, const uint8_t *end)
{
    size_t size = (size_t)(end - in->data);
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

/*
 * Looks at values up to the next large payload, and gives its size; 0: there is none, or an error.
 * `begin`: of those that are not kept yet; `seen`: behind the last one that is whole.
 */
static size_t payload_find(
    struct parts *p, const uint8_t *begin, struct dec *d, const uint8_t **seen)
{
    for (; dec_more(d); *seen = dec_failed(d) ? *seen : d->at) {
        size_t size = large_payload(p, d), message = (size_t)(d->at - begin);
        if (size > 0)
            return size;
        if (p->fields > 0) {
            dec_raw(d);
            p->fields -= !dec_failed(d);
            continue;
        }
        unsigned number = dec_message(d);
        if (dec_failed(d))
            break;
        p->number = number;
        p->fields = msg_fields(number);
        p->message = p->kept.size + message;
    }
    return 0;
}

/* `in` begins with the payload; false: no memory. */
static bool payload_take(struct parts *p, struct conn *c, struct slice *in, size_t size)
{
    static const uint8_t nil = NIL;
    size_t there = in->size - BIN32_HEAD < size ? in->size - BIN32_HEAD : size;
    struct apart apart = {p->message, conn_body(c, in->data + BIN32_HEAD, there, size)};
    if (!apart.body)
        return false;
    buf_append(&p->aparts, &apart, sizeof apart);
    if (p->aparts.failed)
        body_unref(apart.body);
    buf_append(&p->kept, &nil, sizeof nil);
    slice_skip(in, BIN32_HEAD + there);
    p->left -= BIN32_HEAD + size;
    p->fields--;
    return !p->aparts.failed && !p->kept.failed;
}

bool parts_wanted(struct slice begin)
{
    struct parts p = {0};
    struct dec d = dec_of(begin);
    const uint8_t *seen = d.at;
    return payload_find(&p, begin.data, &d, &seen) > 0;
}

enum parts_state parts_add(struct parts *p, struct conn *c, struct slice *in)
{
    struct dec d = dec_of(slice_of(in->data, in->size < p->left ? in->size : p->left));
    const uint8_t *seen = d.at;
    size_t payload;
    while ((payload = payload_find(p, in->data, &d, &seen)) > 0) {
        keep(p, in, d.at);
        if (payload > p->left - BIN32_HEAD)
            break;
        if (!payload_take(p, c, in, payload))
            return PARTS_NO_MEMORY;
        seen = d.at = in->data;
    }
    bool broken = payload > 0 || (dec_failed(&d) && !dec_short(&d));
    /* What a value lacks cannot come behind the frame's end. */
    bool last = (size_t)(d.end - in->data) == p->left;
    keep(p, in, broken || last ? d.end : seen);
    if (p->kept.failed)
        return PARTS_NO_MEMORY;
    if (broken || last)
        return PARTS_WHOLE;
    return in->size > CONN_READ ? PARTS_TOO_LONG : PARTS_MORE;
}
