/* SPDX-License-Identifier: Apache-2.0 */
/*
 * frame: a 4-byte big-endian length before each frame on a client connection.
 */
#ifndef PROTO_FRAME_H
#define PROTO_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/buf.h"

#define FRAME_HEAD 4u

/* Reserves the head; frame_end() fills it in. Frames do not nest. */
size_t frame_begin(struct buf *out);
void frame_end(struct buf *out, size_t begin);

uint32_t frame_size(const uint8_t head[FRAME_HEAD]);
void frame_head(uint8_t head[FRAME_HEAD], uint32_t size);

#endif
