/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pack: msgpack-c's packing templates, made to write through a pointer.
 *
 * Private to proto/. The caller has made room: a value's head takes at most PACK_HEAD bytes.
 * A message's encoder asks for room once, instead of once for each byte string it appends.
 */
#ifndef PROTO_PACK_H
#define PROTO_PACK_H

#include <stdint.h>
#include <string.h>
#include <msgpack/pack_define.h>
#include <msgpack/timestamp.h>
#include "common/slice.h"

#define PACK_HEAD 9u /* bytes: a kind and 64 bits */

struct pen {
    uint8_t *at;
};

static inline int pen_put(struct pen *pen, const void *data, size_t size)
{
    memcpy(pen->at, data, size);
    pen->at += size;
    return 0;
}

#define msgpack_pack_inline_func(name)      __attribute__((unused)) static inline int pack##name
#define msgpack_pack_inline_func_cint(name) __attribute__((unused)) static inline int pack##name
#define msgpack_pack_inline_func_fixint(name)                                                      \
    __attribute__((unused)) static inline int pack_fix##name
#define msgpack_pack_user                          struct pen *
#define msgpack_pack_append_buffer(pen, data, len) return pen_put((pen), (data), (len))

#include <msgpack/pack_template.h>

/* nil if data is NULL */
static inline void pen_text(struct pen *pen, struct slice value)
{
    if (!value.data) {
        pack_nil(pen);
        return;
    }
    pack_str(pen, value.size);
    pen_put(pen, value.data, value.size);
}

static inline void pen_bytes(struct pen *pen, struct slice value)
{
    if (!value.data) {
        pack_nil(pen);
        return;
    }
    pack_bin(pen, value.size);
    pen_put(pen, value.data, value.size);
}

#endif
