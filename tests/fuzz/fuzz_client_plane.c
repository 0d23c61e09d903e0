/* SPDX-License-Identifier: Apache-2.0 */
/* A client connection's bytes: frames with their lengths, and headers as they are in SUBMIT. */
#include "proto/frame.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice all = slice_of(data, size);
    fuzz_frame(all, PLANE_CLIENT_UP, PLANE_NESTED);
    headers_valid(all);
    while (all.size >= FRAME_HEAD) {
        uint32_t length = frame_size(all.data);
        if (length > all.size - FRAME_HEAD)
            break;
        fuzz_frame(slice_of(all.data + FRAME_HEAD, length), PLANE_CLIENT_UP, PLANE_CLIENT_DOWN);
        all = slice_of(all.data + FRAME_HEAD + length, all.size - FRAME_HEAD - length);
    }
    return 0;
}
