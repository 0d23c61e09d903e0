/* SPDX-License-Identifier: Apache-2.0 */
#include "common/body.h"

#include <assert.h>
#include <stdlib.h>

struct body *body_new(size_t size)
{
    if (size > SIZE_MAX - sizeof(struct body))
        return NULL;
    struct body *b = malloc(sizeof *b + size);
    if (b)
        body_init(b, b + 1, size, NULL);
    return b;
}

void body_init(struct body *b, void *data, size_t size, void (*release)(struct body *b))
{
    atomic_init(&b->references, 1);
    b->size = size;
    b->data = data;
    b->release = release;
}

struct body *body_copy(const void *data, size_t size)
{
    struct body *b = body_new(size);
    if (b && size)
        memcpy(b->data, data, size);
    return b;
}

struct body *body_ref(struct body *b)
{
    /* Whoever calls holds a reference, so nothing needs to be ordered by this one. */
    if (b)
        atomic_fetch_add_explicit(&b->references, 1, memory_order_relaxed);
    return b;
}

bool body_shared(const struct body *b)
{
    /* Acquire what those did who dropped theirs: they are done with the bytes. */
    return atomic_load_explicit(&b->references, memory_order_acquire) > 1;
}

void body_unref(struct body *b)
{
    if (!b)
        return;
    /* Release what this thread did to the bytes; acquire what the others did, before freeing. */
    unsigned before = atomic_fetch_sub_explicit(&b->references, 1, memory_order_acq_rel);
    assert(before > 0);
    if (before > 1)
        return;
    if (b->release)
        b->release(b);
    else
        free(b);
}
