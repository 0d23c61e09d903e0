/* SPDX-License-Identifier: Apache-2.0 */
/* Everything that goes over the join, lane and answers sockets, and the nested messages in it. */
#include "tests/fuzz/fuzz.h"

static void fuzz_nested(struct slice list)
{
    struct dec d = dec_of(list);
    uint32_t count = dec_array(&d);
    for (uint32_t i = 0; i < count && dec_more(&d); i++) {
        unsigned number = dec_message(&d);
        if (number)
            fuzz_message(&d, number);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_frame(slice_of(data, size), PLANE_JOIN_UP, PLANE_ANSWERS);
    fuzz_nested(slice_of(data, size));
    return 0;
}
