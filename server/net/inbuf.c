/* SPDX-License-Identifier: Apache-2.0 */
#include "server/net/inbuf.h"

#include <stdatomic.h>
#include <stdlib.h>

/* Counted by references as a body is: one of the inbuf, one of each piece. */
struct inbuf_block {
    struct body body;
    bool given; /* something was taken of it: counted in `held` */
};

struct piece {
    struct body body;
    struct inbuf_block *block;
};

/* Of the process: what was taken may outlive the server that read it. */
static atomic_size_t held;  /* bytes of the blocks of which something was taken */
static atomic_size_t taken; /* bytes of the pieces */

static void block_release(struct body *b)
{
    struct inbuf_block *block = (struct inbuf_block *)b;
    if (block->given)
        atomic_fetch_sub_explicit(&held, b->size, memory_order_relaxed);
    free(block);
}

static void piece_release(struct body *b)
{
    struct piece *piece = (struct piece *)b;
    atomic_fetch_sub_explicit(&taken, b->size, memory_order_relaxed);
    body_unref(&piece->block->body);
    free(piece);
}

void inbuf_free(struct inbuf *in)
{
    if (in->block)
        body_unref(&in->block->body);
    *in = (struct inbuf){0};
}

uint8_t *inbuf_room(struct inbuf *in, size_t size)
{
    struct inbuf_block *block = in->block;
    if (block && block->body.size >= size && !in->unfit && !body_shared(&block->body))
        return block->body.data;
    inbuf_free(in);
    block = malloc(sizeof *block + size);
    if (!block)
        return NULL;
    body_init(&block->body, block + 1, size, block_release);
    block->given = false;
    in->block = block;
    return block->body.data;
}

/* Would the blocks hold too much if `size` bytes of this one were taken? */
static bool wasteful(const struct inbuf_block *block, size_t size)
{
    size_t blocks = atomic_load_explicit(&held, memory_order_relaxed);
    size_t pieces = atomic_load_explicit(&taken, memory_order_relaxed);
    if (!block->given)
        blocks += block->body.size;
    return blocks > 2 * (pieces + size) + INBUF_SPARE;
}

struct body *inbuf_take(struct inbuf *in, const uint8_t *data, size_t size)
{
    struct inbuf_block *block = in->block;
    uintptr_t at = block ? (uintptr_t)data - (uintptr_t)block->body.data : 0;
    if (!block || at >= block->body.size)
        return NULL;
    struct piece *piece = NULL;
    bool fits = size <= block->body.size - at && size >= block->body.size / INBUF_PARTS;
    if (fits && !wasteful(block, size))
        piece = malloc(sizeof *piece);
    if (!piece) {
        in->unfit = true;
        return NULL;
    }
    body_init(&piece->body, block->body.data + at, size, piece_release);
    piece->block = block;
    body_ref(&block->body);
    if (!block->given)
        atomic_fetch_add_explicit(&held, block->body.size, memory_order_relaxed);
    block->given = true;
    atomic_fetch_add_explicit(&taken, size, memory_order_relaxed);
    return &piece->body;
}
