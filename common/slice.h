/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slice: bytes that somebody else owns. Whoever hands one over says how long it stays valid.
 */
#ifndef COMMON_SLICE_H
#define COMMON_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct slice {
    const uint8_t *data; /* NULL: absent, which is not the same as empty */
    size_t size;         /* bytes */
};

static inline struct slice slice_of(const void *data, size_t size)
{
    return (struct slice){data, size};
}

static inline struct slice slice_str(const char *text)
{
    return (struct slice){(const uint8_t *)text, text ? strlen(text) : 0};
}

/* Drops bytes from the front. */
static inline void slice_skip(struct slice *s, size_t size)
{
    s->data += size;
    s->size -= size;
}

static inline bool slice_equal(struct slice a, struct slice b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

/* The same for secrets: the time it takes does not tell where they differ. */
static inline bool slice_equal_secret(struct slice given, struct slice wanted)
{
    unsigned differ = given.size != wanted.size;
    for (size_t i = 0; i < given.size; i++)
        differ |= (unsigned)(given.data[i] ^ (wanted.size ? wanted.data[i % wanted.size] : 0));
    return differ == 0;
}

#endif
