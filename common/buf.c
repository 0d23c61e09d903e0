/* SPDX-License-Identifier: Apache-2.0 */
#include "common/buf.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define BUF_FIRST 256u           /* bytes of the first allocation: one small message and its head */
#define BUF_LIMIT (SIZE_MAX / 4) /* beyond it doubling would overflow: refused as no memory */

void buf_free(struct buf *b)
{
    free(b->data);
    *b = BUF_EMPTY;
}

void buf_clear(struct buf *b)
{
    b->size = 0;
    b->failed = false;
}

void buf_recycle(struct buf *b, size_t most)
{
    buf_clear(b);
    if (b->capacity > most)
        buf_free(b);
}

/* The slow half of buf_reserve(): makes the array large enough, at least twice what it was. */
uint8_t *buf_grow(struct buf *b, size_t more)
{
    if (b->failed)
        return NULL;
    if (more > BUF_LIMIT || b->size > BUF_LIMIT) {
        b->failed = true;
        return NULL;
    }
    size_t capacity = b->capacity ? b->capacity * 2 : BUF_FIRST;
    if (capacity < b->size + more)
        capacity = b->size + more;
    uint8_t *data = realloc(b->data, capacity);
    if (!data) {
        b->failed = true;
        return NULL;
    }
    b->data = data;
    b->capacity = capacity;
    return data + b->size;
}

void buf_append(struct buf *b, const void *data, size_t size)
{
    if (size == 0)
        return;
    uint8_t *to = buf_reserve(b, size);
    if (!to)
        return;
    memcpy(to, data, size);
    b->size += size;
}

void buf_consume(struct buf *b, size_t size)
{
    assert(size <= b->size);
    if (size == 0)
        return;
    b->size -= size;
    memmove(b->data, b->data + size, b->size);
}

const char *buf_text(struct buf *b)
{
    uint8_t *end = buf_reserve(b, 1);
    if (!end)
        return "";
    *end = '\0';
    return (const char *)b->data;
}

void buf_printf(struct buf *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int size = vsnprintf(NULL, 0, format, args);
    va_end(args);
    assert(size >= 0);
    /* vsnprintf() wants room for its NUL, which does not count as content. */
    uint8_t *to = buf_reserve(b, (size_t)size + 1);
    if (!to)
        return;
    va_start(args, format);
    vsnprintf((char *)to, (size_t)size + 1, format, args);
    va_end(args);
    b->size += (size_t)size;
}
