/* SPDX-License-Identifier: Apache-2.0 */
/*
 * buf: a growable array of bytes.
 *
 * Growth doubles, which makes appending cheap; nothing here knows what the bytes mean.
 * An allocation that fails makes the buffer `failed` (sticky) and drops what
 * was to be added, so writers need not look after each call: look once, before the bytes are used.
 */
#ifndef COMMON_BUF_H
#define COMMON_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/slice.h"

struct buf {
    uint8_t *data;
    size_t size;     /* bytes in use */
    size_t capacity; /* bytes allocated */
    bool failed;
};

#define BUF_EMPTY ((struct buf){0})

void buf_free(struct buf *b);                  /* frees the bytes; b is empty again */
void buf_clear(struct buf *b);                 /* size 0, failed false; keeps the bytes */
void buf_recycle(struct buf *b, size_t most);  /* the same, if it has at most so many; else frees */
uint8_t *buf_grow(struct buf *b, size_t more); /* only for buf_reserve() */
void buf_append(struct buf *b, const void *data, size_t size);
void buf_consume(struct buf *b, size_t size); /* drop from the front; moves the rest */
/* The bytes as a text: with a NUL behind them, which does not count. "" if there is no memory, now
 * or earlier. Valid until the next call that adds. */
const char *buf_text(struct buf *b);
void buf_printf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * Room for `more` bytes after the last one, or NULL (no memory now or earlier). The size is
 * unchanged: who fills the room adds to it. Valid until the next call that adds.
 */
static inline uint8_t *buf_reserve(struct buf *b, size_t more)
{
    if (more <= b->capacity - b->size && b->data && !b->failed)
        return b->data + b->size;
    return buf_grow(b, more);
}

static inline struct slice buf_slice(const struct buf *b)
{
    return slice_of(b->data, b->size);
}

#endif
