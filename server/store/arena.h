/* SPDX-License-Identifier: Apache-2.0 */
/*
 * arena: memory that is taken in small pieces and given back all at once, with its bodies.
 *
 * A store cannot go on without memory: it ends the process, as a crash would, which everything
 * that was told as STORED survives. So nothing here returns NULL.
 */
#ifndef SERVER_STORE_ARENA_H
#define SERVER_STORE_ARENA_H

#include <stddef.h>
#include "common/body.h"

struct arena_block;

struct arena {
    struct arena_block *blocks; /* newest first */
    struct body **bodies;       /* one reference each */
    size_t body_count;
    size_t body_capacity;
};

void *store_alloc(size_t size);       /* zeroed; the caller frees it */
char *store_text(const char *text);   /* a copy that the caller frees */
struct body *store_body(size_t size); /* its bytes unset */
void *store_grow(
    void *old, size_t *capacity, size_t item); /* doubles an array; at least 16 items */

void *store_arena_alloc(struct arena *a, size_t size); /* aligned to 16, not zeroed */
void *arena_copy(struct arena *a, const void *data, size_t size);
struct body *arena_body(struct arena *a, struct body *b); /* takes over the caller's reference */
void store_arena_free(struct arena *a);                   /* everything; a is empty again */

#endif
