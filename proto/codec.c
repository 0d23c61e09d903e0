/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/codec.h"

#include <assert.h>
#include <endian.h>
#include <string.h>

#include "proto/pack.h"

/* ---------------------------------------------------------------------------------- encode */

/* Makes room for a value's head and `body` bytes after it. */
static bool pen_open(struct pen *pen, struct buf *out, size_t body)
{
    pen->at = buf_reserve(out, PACK_HEAD + body);
    return pen->at != NULL;
}

static void pen_close(const struct pen *pen, struct buf *out)
{
    out->size = (size_t)(pen->at - out->data);
    assert(out->size <= out->capacity);
}

void enc_array(struct buf *out, uint32_t count)
{
    struct pen pen;
    if (!pen_open(&pen, out, 0))
        return;
    pack_array(&pen, count);
    pen_close(&pen, out);
}

void enc_map(struct buf *out, uint32_t pairs)
{
    struct pen pen;
    if (!pen_open(&pen, out, 0))
        return;
    pack_map(&pen, pairs);
    pen_close(&pen, out);
}

void enc_nil(struct buf *out)
{
    struct pen pen;
    if (!pen_open(&pen, out, 0))
        return;
    pack_nil(&pen);
    pen_close(&pen, out);
}

void enc_bool(struct buf *out, bool value)
{
    struct pen pen;
    if (!pen_open(&pen, out, 0))
        return;
    if (value)
        pack_true(&pen);
    else
        pack_false(&pen);
    pen_close(&pen, out);
}

void enc_u64(struct buf *out, uint64_t value)
{
    struct pen pen;
    if (!pen_open(&pen, out, 0))
        return;
    pack_uint64(&pen, value);
    pen_close(&pen, out);
}

void enc_text(struct buf *out, struct slice text)
{
    struct pen pen;
    if (!pen_open(&pen, out, text.size))
        return;
    pen_text(&pen, text);
    pen_close(&pen, out);
}

void enc_bytes(struct buf *out, struct slice bytes)
{
    struct pen pen;
    if (!pen_open(&pen, out, bytes.size))
        return;
    pen_bytes(&pen, bytes);
    pen_close(&pen, out);
}

void enc_raw(struct buf *out, struct slice value)
{
    if (value.data)
        buf_append(out, value.data, value.size);
    else
        enc_nil(out);
}

/* ---------------------------------------------------------------------------------- decode */

#define RAW_DEPTH 4u /* arrays and maps within one another, in a RAW value */

static const char text_short[] = "the message ends in the middle of a value";

struct dec dec_of(struct slice frame)
{
    return (struct dec){frame.data, frame.data ? frame.data + frame.size : NULL, NULL};
}

bool dec_failed(const struct dec *d)
{
    return d->error != NULL;
}

bool dec_short(const struct dec *d)
{
    return d->error == text_short;
}

bool dec_more(const struct dec *d)
{
    return d->at != d->end;
}

void dec_fail(struct dec *d, const char *why)
{
    if (!d->error)
        d->error = why;
    /* Nothing is left to read: every later call gives its zero value. */
    d->at = d->end;
}

/* True if `size` bytes are left; else the error is set. */
static bool dec_has(struct dec *d, uint64_t size)
{
    if ((uint64_t)(d->end - d->at) >= size)
        return true;
    dec_fail(d, text_short);
    return false;
}

/*
 * A big-endian number of 1, 2, 4 or 8 bytes. Where the frame has eight, they are read at once: ids
 * and leases are most of what a worker and the server say to each other.
 */
static inline uint64_t dec_number(struct dec *d, unsigned size)
{
    uint64_t value = 0;
    if (d->end - d->at >= (ptrdiff_t)sizeof value) {
        memcpy(&value, d->at, sizeof value);
        d->at += size;
        return be64toh(value) >> (64 - 8 * size);
    }
    if (!dec_has(d, size))
        return 0;
    for (unsigned i = 0; i < size; i++)
        value = value << 8 | d->at[i];
    d->at += size;
    return value;
}

/* The kind byte of the next value, consumed; an error gives 0xc1, which no value has. */
static uint8_t dec_kind(struct dec *d)
{
    if (!dec_has(d, 1))
        return 0xc1;
    return *d->at++;
}

uint64_t dec_u64_long(struct dec *d)
{
    uint8_t kind = dec_kind(d);
    uint64_t value;
    if (kind < 0x80)
        return kind;
    if (kind >= 0xcc && kind <= 0xcf) {
        value = dec_number(d, 1u << (kind - 0xcc));
    } else if (kind >= 0xd0 && kind <= 0xd3) {
        /* Some encoders write every integer in a signed form. */
        unsigned size = 1u << (kind - 0xd0);
        value = dec_number(d, size);
        if (value >> (8 * size - 1))
            value = UINT64_MAX;
    } else {
        dec_fail(d, "an unsigned integer was expected");
        return 0;
    }
    if (value <= INT64_MAX)
        return value;
    dec_fail(d, "an integer is negative, or 2^63 or more");
    return 0;
}

bool dec_bool(struct dec *d)
{
    uint8_t kind = dec_kind(d);
    if (kind != 0xc2 && kind != 0xc3)
        dec_fail(d, "true or false was expected");
    return kind == 0xc3;
}

static struct slice dec_take(struct dec *d, uint64_t size)
{
    if (!dec_has(d, size))
        return (struct slice){0};
    struct slice bytes = {d->at, (size_t)size};
    d->at += size;
    return bytes;
}

struct slice dec_text_long(struct dec *d)
{
    uint8_t kind = dec_kind(d);
    if (kind == 0xc0)
        return (struct slice){0};
    if ((kind & 0xe0) == 0xa0)
        return dec_take(d, kind & 0x1fu);
    if (kind < 0xd9 || kind > 0xdb) {
        dec_fail(d, "text or nil was expected");
        return (struct slice){0};
    }
    return dec_take(d, dec_number(d, 1u << (kind - 0xd9)));
}

struct slice dec_bytes_long(struct dec *d)
{
    uint8_t kind = dec_kind(d);
    if (kind == 0xc0)
        return (struct slice){0};
    if (kind < 0xc4 || kind > 0xc6) {
        dec_fail(d, "bytes or nil were expected");
        return (struct slice){0};
    }
    return dec_take(d, dec_number(d, 1u << (kind - 0xc4)));
}

/*
 * The count of an array or a map, whose short form is `fix` | count, and whose 16-bit form is
 * `wide`, the 32-bit form following it. A count that the rest of the frame cannot hold is an error
 * here already, so nobody allocates or loops for it.
 */
static uint32_t dec_count(struct dec *d, uint8_t fix, uint8_t wide, unsigned each, const char *why)
{
    uint8_t kind = dec_kind(d);
    uint64_t count = 0;
    if ((kind & 0xf0) == fix)
        count = kind & 0x0fu;
    else if (kind == wide || kind == wide + 1)
        count = dec_number(d, kind == wide ? 2 : 4);
    else
        dec_fail(d, why);
    return dec_has(d, count * each) ? (uint32_t)count : 0;
}

uint32_t dec_array(struct dec *d)
{
    return dec_count(d, 0x90, 0xdc, 1, "an array was expected");
}

uint32_t dec_map(struct dec *d)
{
    return dec_count(d, 0x80, 0xde, 2, "a map was expected");
}

static bool kind_is_array(uint8_t kind)
{
    return (kind & 0xf0) == 0x90 || kind == 0xdc || kind == 0xdd;
}

static bool kind_is_map(uint8_t kind)
{
    return (kind & 0xf0) == 0x80 || kind == 0xde || kind == 0xdf;
}

static bool kind_is_text(uint8_t kind)
{
    return (kind & 0xe0) == 0xa0 || (kind >= 0xd9 && kind <= 0xdb);
}

/* Skips a value's head, and its bytes if it is a leaf. Gives how many values lie inside it. */
static uint64_t dec_skip_head(struct dec *d)
{
    if (!dec_has(d, 1))
        return 0;
    uint8_t kind = *d->at;
    if (kind_is_array(kind))
        return dec_array(d);
    if (kind_is_map(kind))
        return 2 * (uint64_t)dec_map(d);
    if (kind_is_text(kind))
        dec_text(d);
    else if (kind >= 0xc4 && kind <= 0xc6)
        dec_bytes(d);
    else if (kind == 0xc2 || kind == 0xc3)
        dec_bool(d);
    else if (!dec_nil(d))
        dec_u64(d);
    return 0;
}

static void dec_skip(struct dec *d)
{
    uint64_t left[RAW_DEPTH + 1] = {1}; /* values still to skip, at each depth */
    unsigned depth = 0;
    while (!d->error) {
        if (left[depth] == 0) {
            if (depth == 0)
                return;
            depth--;
            continue;
        }
        left[depth]--;
        uint64_t inside = dec_skip_head(d);
        if (inside == 0)
            continue;
        if (depth == RAW_DEPTH)
            dec_fail(d, "values are nested too deeply");
        else
            left[++depth] = inside;
    }
}

struct slice dec_raw(struct dec *d)
{
    if (dec_nil(d))
        return (struct slice){0};
    const uint8_t *begin = d->at;
    dec_skip(d);
    return d->error ? (struct slice){0} : slice_of(begin, (size_t)(d->at - begin));
}

struct slice dec_list(struct dec *d)
{
    struct slice value = dec_raw(d);
    if (!value.data || kind_is_array(value.data[0]) || kind_is_map(value.data[0]))
        return value;
    dec_fail(d, "an array, a map or nil was expected");
    return (struct slice){0};
}

/* --------------------------------------------------------------------------------- headers */

static bool header_name_valid(struct slice name)
{
    if (name.size < 1 || name.size > 64)
        return false;
    for (size_t i = 0; i < name.size; i++) {
        uint8_t c = name.data[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!letter && !(c >= '0' && c <= '9') && c != '_' && c != '-')
            return false;
    }
    return true;
}

bool headers_valid(struct slice map)
{
    struct dec d = dec_of(map);
    uint32_t pairs = dec_map(&d);
    for (uint32_t i = 0; i < pairs; i++) {
        if (!header_name_valid(dec_text(&d)))
            return false;
        /* Values become environment variables, so a NUL would cut them short unseen. */
        struct slice value = dec_text(&d);
        if (!value.data || (value.size && memchr(value.data, 0, value.size)))
            return false;
    }
    return !dec_failed(&d) && !dec_more(&d);
}
