/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz: reads any bytes as frames of some planes, the way their readers do, and checks what must
 * hold of every message that was accepted: it is written again, and that reads back the same.
 */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include <stdlib.h>

#include "proto/codec.h"
#include "proto/messages.h"
#include "tests/fuzz/check.h"

#define M(number, NAME, name, plane, text)                                                         \
    static bool fuzz_##name(struct dec *d)                                                         \
    {                                                                                              \
        struct msg_##name m, again;                                                                \
        struct buf once = BUF_EMPTY, twice = BUF_EMPTY;                                            \
        if (!msg_##name##_decode(d, &m))                                                           \
            return false;                                                                          \
        msg_##name##_encode(&once, &m);                                                            \
        struct dec back = dec_of(buf_slice(&once));                                                \
        FUZZ_CHECK(dec_message(&back) == (number));                                                \
        FUZZ_CHECK(msg_##name##_decode(&back, &again) && !dec_more(&back));                        \
        msg_##name##_encode(&twice, &again);                                                       \
        FUZZ_CHECK(slice_equal(buf_slice(&once), buf_slice(&twice)));                              \
        buf_free(&once);                                                                           \
        buf_free(&twice);                                                                          \
        return true;                                                                               \
    }
MESSAGES(M)
#undef M

static bool fuzz_message(struct dec *d, unsigned number)
{
    switch (number) {
#define M(number_, NAME, name, plane, text)                                                        \
    case number_:                                                                                  \
        return fuzz_##name(d);
        MESSAGES(M)
#undef M
    default:
        abort();
    }
}

/* One frame: messages back to back; those of another plane are skipped, which must agree. */
static void fuzz_frame(struct slice frame, enum msg_plane first, enum msg_plane last)
{
    struct dec d = dec_of(frame);
    while (dec_more(&d)) {
        struct dec skipping = d;
        enum msg_plane plane = PLANE_NESTED;
        unsigned number = dec_message(&d);
        if (number == 0)
            break;
        FUZZ_CHECK(msg_known(number, &plane));
        FUZZ_CHECK(dec_message(&skipping) == number);
        dec_skip_message(&skipping, number);
        if (plane >= first && plane <= last && fuzz_message(&d, number))
            FUZZ_CHECK(!dec_failed(&skipping) && skipping.at == d.at);
        else
            d = skipping;
    }
    FUZZ_CHECK(d.at == d.end);
}

#endif
