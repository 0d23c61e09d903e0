/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/frame.h"

#include <assert.h>

size_t frame_begin(struct buf *out)
{
    size_t begin = out->size;
    if (buf_reserve(out, FRAME_HEAD))
        out->size += FRAME_HEAD;
    return begin;
}

void frame_end(struct buf *out, size_t begin)
{
    /* A buffer that failed may have lost the head itself; its bytes are not used any more. */
    if (out->failed)
        return;
    assert(out->size >= begin + FRAME_HEAD);
    size_t size = out->size - begin - FRAME_HEAD;
    assert(size <= UINT32_MAX);
    frame_head(out->data + begin, (uint32_t)size);
}

uint32_t frame_size(const uint8_t head[FRAME_HEAD])
{
    return (uint32_t)head[0] << 24 | (uint32_t)head[1] << 16 | (uint32_t)head[2] << 8 | head[3];
}

void frame_head(uint8_t head[FRAME_HEAD], uint32_t size)
{
    head[0] = (uint8_t)(size >> 24);
    head[1] = (uint8_t)(size >> 16);
    head[2] = (uint8_t)(size >> 8);
    head[3] = (uint8_t)size;
}
