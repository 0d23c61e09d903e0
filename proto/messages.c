/* SPDX-License-Identifier: Apache-2.0 */
/* messages: encoders, decoders and tables, all made from the lists of proto/messages.h. */
#include "proto/messages.h"

#include <assert.h>

#include "proto/codec.h"
#include "proto/pack.h"

/* Every number of the protocol is below this; most are one byte on the wire. */
#define MSG_NUMBERS 128u

struct msg_kind {
    const char *name; /* NULL: no such number */
    uint8_t plane;
    uint8_t fields;
};

#define F(kind, name, text) +1
static const struct msg_kind msg_kinds[MSG_NUMBERS] = {
#define M(number, NAME, name, plane, text) [number] = {#NAME, PLANE_##plane, 0 FIELDS_##NAME(F)},
    MESSAGES(M)
#undef M
};
#undef F

const char *msg_name(unsigned number)
{
    return msg_known(number, NULL) ? msg_kinds[number].name : "?";
}

bool msg_known(unsigned number, enum msg_plane *plane)
{
    if (number >= MSG_NUMBERS || !msg_kinds[number].name)
        return false;
    if (plane)
        *plane = (enum msg_plane)msg_kinds[number].plane;
    return true;
}

unsigned msg_fields(unsigned number)
{
    assert(msg_known(number, NULL));
    return msg_kinds[number].fields;
}

unsigned dec_message(struct dec *d)
{
    uint32_t count = dec_array(d);
    uint64_t number = dec_u64(d);
    if (dec_failed(d))
        return 0;
    if (count == 0 || number >= MSG_NUMBERS || !msg_kinds[number].name) {
        dec_fail(d, "there is no message with this number");
        return 0;
    }
    if (count != msg_kinds[number].fields + 1u) {
        dec_fail(d, "the message has too few or too many fields");
        return 0;
    }
    return (unsigned)number;
}

void dec_skip_message(struct dec *d, unsigned number)
{
    for (unsigned i = msg_fields(number); i > 0; i--)
        dec_raw(d);
}

/* ---------------------------------------------------------------------------------- encode */

/* Room for one field at the most, and its writing. */
#define ROOM_U64(value)   PACK_HEAD
#define ROOM_BOOL(value)  PACK_HEAD
#define ROOM_TEXT(value)  (PACK_HEAD + (value).size)
#define ROOM_BYTES(value) (PACK_HEAD + (value).size)
#define ROOM_RAW(value)   (PACK_HEAD + (value).size)

#define PACK_U64(pen, value)   pack_uint64(pen, value)
#define PACK_BOOL(pen, value)  ((value) ? pack_true(pen) : pack_false(pen))
#define PACK_TEXT(pen, value)  pen_text(pen, value)
#define PACK_BYTES(pen, value) pen_bytes(pen, value)
#define PACK_RAW(pen, value)   pen_raw(pen, value)

static inline void pen_raw(struct pen *pen, struct slice value)
{
    if (value.data)
        pen_put(pen, value.data, value.size);
    else
        pack_nil(pen);
}

#define ROOM(kind, name, text)  +ROOM_##kind(m->name)
#define WRITE(kind, name, text) PACK_##kind(&pen, m->name);
#define M(number, NAME, name, plane, text)                                                         \
    void msg_##name##_encode(struct buf *out, const struct msg_##name *m)                          \
    {                                                                                              \
        struct pen pen = {buf_reserve(out, 2 * PACK_HEAD FIELDS_##NAME(ROOM))};                    \
        if (!pen.at)                                                                               \
            return;                                                                                \
        pack_array(&pen, msg_kinds[number].fields + 1u);                                           \
        pack_uint8(&pen, number);                                                                  \
        FIELDS_##NAME(WRITE) out->size = (size_t)(pen.at - out->data);                             \
    }
MESSAGES(M)
#undef M

/* ---------------------------------------------------------------------------------- decode */

#define READ_U64   dec_u64
#define READ_BOOL  dec_bool
#define READ_TEXT  dec_text
#define READ_BYTES dec_bytes
#define READ_RAW   dec_list

#define READ(kind, name, text) m->name = READ_##kind(in);
#define M(number, NAME, name, plane, text)                                                         \
    bool msg_##name##_decode(struct dec *in, struct msg_##name *m)                                 \
    {                                                                                              \
        FIELDS_##NAME(READ) return !dec_failed(in);                                                \
    }
MESSAGES(M)
#undef M
