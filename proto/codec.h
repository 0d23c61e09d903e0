/* SPDX-License-Identifier: Apache-2.0 */
/*
 * codec: msgpack, as far as the protocols use it.
 *
 * Encoding goes through msgpack-c's packing templates into a buf. Decoding is our own: msgpack-c
 * builds a tree of objects for each message, which costs more than the rest of a task's life; this
 * reader borrows from the frame and allocates nothing. It is strict (exact field counts, depth 4,
 * no value of another kind; an integer may have any form that holds it) and its error is sticky:
 * after the first, every call gives zero values, so look once at the end.
 */
#ifndef PROTO_CODEC_H
#define PROTO_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/buf.h"
#include "common/slice.h"

/* ---- encode: append one value ---- */
void enc_array(struct buf *out, uint32_t count);
void enc_map(struct buf *out, uint32_t pairs);
void enc_nil(struct buf *out);
void enc_bool(struct buf *out, bool value);
void enc_u64(struct buf *out, uint64_t value);
void enc_text(struct buf *out, struct slice text);   /* nil if data is NULL */
void enc_bytes(struct buf *out, struct slice bytes); /* nil if data is NULL */
void enc_raw(struct buf *out, struct slice value);   /* nil if data is NULL; else copied as it is */

/* ---- decode ---- */
struct dec {
    const uint8_t *at;
    const uint8_t *end;
    const char *error; /* NULL: none yet; else a constant text */
};

struct dec dec_of(struct slice frame);
bool dec_failed(const struct dec *d);
bool dec_short(const struct dec *d);           /* it failed for want of bytes behind the end */
bool dec_more(const struct dec *d);            /* no error, and bytes are left */
void dec_fail(struct dec *d, const char *why); /* the first one stays */

/* Reads the head of the next message and its number; checks the field count. 0: error (sticky). */
unsigned dec_message(struct dec *d);
/* Skips the fields of a message whose number dec_message() just gave. */
void dec_skip_message(struct dec *d, unsigned number);

uint32_t dec_array(struct dec *d); /* count; also usable on a RAW field through dec_of() */
uint32_t dec_map(struct dec *d);   /* pairs */
bool dec_bool(struct dec *d);
struct slice dec_raw(struct dec *d);  /* one whole value, checked for form and depth; nil: NULL */
struct slice dec_list(struct dec *d); /* the same, but only an array, a map or nil */

/* The slow halves of the functions below. */
uint64_t dec_u64_long(struct dec *d);
struct slice dec_text_long(struct dec *d);
struct slice dec_bytes_long(struct dec *d);

/* Consumes a nil if one is next; false otherwise, which is no error. */
static inline bool dec_nil(struct dec *d)
{
    if (d->at == d->end || *d->at != 0xc0)
        return false;
    d->at++;
    return true;
}

/* Below 2^63, or an error. A sticky error leaves at == end, so the fast paths need no look at it.
 */
static inline uint64_t dec_u64(struct dec *d)
{
    if (d->at != d->end && *d->at < 0x80)
        return *d->at++;
    return dec_u64_long(d);
}

static inline struct slice dec_text(struct dec *d) /* nil gives data NULL */
{
    size_t left = (size_t)(d->end - d->at);
    if (left && (*d->at & 0xe0) == 0xa0 && (*d->at & 0x1fu) < left) {
        struct slice text = {d->at + 1, *d->at & 0x1fu};
        d->at += 1 + text.size;
        return text;
    }
    return dec_text_long(d);
}

static inline struct slice dec_bytes(struct dec *d) /* nil gives data NULL */
{
    size_t left = (size_t)(d->end - d->at);
    if (left > 2 && d->at[0] == 0xc4 && d->at[1] <= left - 2) {
        struct slice bytes = {d->at + 2, d->at[1]};
        d->at += 2 + bytes.size;
        return bytes;
    }
    return dec_bytes_long(d);
}

/* True if it is a map of text to text, as headers must be, and every name is [A-Za-z0-9_-]{1,64}.
 */
bool headers_valid(struct slice map);

#endif
