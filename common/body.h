/* SPDX-License-Identifier: Apache-2.0 */
/*
 * body: a payload or result too large to be copied, counted by references.
 *
 * Filled once by its maker, read-only from then on. The count is atomic, because libzmq drops
 * its reference on an I/O thread; everything else about a body belongs to one thread at a time.
 * The bytes follow the struct, or are where somebody else has them (a message of libzmq), who is
 * told when the last reference goes.
 */
#ifndef COMMON_BODY_H
#define COMMON_BODY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/slice.h"

struct body {
    atomic_uint references;
    size_t size;                     /* bytes in data */
    uint8_t *data;                   /* behind the struct, or somebody else's */
    void (*release)(struct body *b); /* frees it; NULL: free() does */
};

struct body *body_new(size_t size); /* one reference, bytes unset; NULL: no memory */
struct body *body_copy(const void *data, size_t size);
/* In the caller's struct, around bytes of the caller's: one reference. `release` may run on any
 * thread. */
void body_init(struct body *b, void *data, size_t size, void (*release)(struct body *b));
struct body *body_ref(struct body *b); /* returns b; NULL stays NULL */
void body_unref(struct body *b);       /* frees at the last; NULL is fine; any thread */
/* Somebody else has a reference too. To whom nobody else has one the bytes belong again. */
bool body_shared(const struct body *b);

static inline struct slice body_slice(const struct body *b)
{
    return b ? slice_of(b->data, b->size) : (struct slice){0};
}

#endif
