/* SPDX-License-Identifier: Apache-2.0 */
#include "server/store/arena.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARENA_BLOCK ((size_t)8 << 10) /* bytes; larger pieces get a block of their own */

struct arena_block {
    struct arena_block *next;
    size_t used;
    size_t size;
    _Alignas(16) unsigned char data[];
};

static void *check(void *memory)
{
    if (!memory) {
        fputs("pushrod: the store is out of memory\n", stderr);
        abort();
    }
    return memory;
}

void *store_alloc(size_t size)
{
    return check(calloc(1, size ? size : 1));
}

char *store_text(const char *text)
{
    return check(strdup(text));
}

struct body *store_body(size_t size)
{
    return check(body_new(size));
}

void *store_grow(void *old, size_t *capacity, size_t item)
{
    *capacity = *capacity ? *capacity * 2 : 16;
    return check(realloc(old, *capacity * item));
}

static struct arena_block *block_new(struct arena *a, size_t size)
{
    struct arena_block *block = check(malloc(sizeof(*block) + size));
    block->size = size;
    block->used = 0;
    /* A large piece goes behind the first block, which may still have room. */
    struct arena_block **place = a->blocks && size > ARENA_BLOCK ? &a->blocks->next : &a->blocks;
    block->next = *place;
    *place = block;
    return block;
}

void *store_arena_alloc(struct arena *a, size_t size)
{
    size = (size + 15) & ~(size_t)15;
    struct arena_block *block = a->blocks;
    if (!block || block->size - block->used < size)
        block = block_new(a, size > ARENA_BLOCK ? size : ARENA_BLOCK);
    void *piece = block->data + block->used;
    block->used += size;
    return piece;
}

void *arena_copy(struct arena *a, const void *data, size_t size)
{
    void *piece = store_arena_alloc(a, size);
    if (size)
        memcpy(piece, data, size);
    return piece;
}

struct body *arena_body(struct arena *a, struct body *b)
{
    if (a->body_count == a->body_capacity)
        a->bodies = store_grow(a->bodies, &a->body_capacity, sizeof(struct body *));
    a->bodies[a->body_count++] = b;
    return b;
}

void store_arena_free(struct arena *a)
{
    for (struct arena_block *block = a->blocks, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    for (size_t i = 0; i < a->body_count; i++)
        body_unref(a->bodies[i]);
    free(a->bodies);
    *a = (struct arena){0};
}
