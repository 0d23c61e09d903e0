/* SPDX-License-Identifier: Apache-2.0 */
/* The input of `pushrod map`, read in pieces of any size, also before there is use for it, is cut
 * as if it had come at once; when all was read it is known how much is left. */
#include <string.h>
#include <unistd.h>

#include "tests/fuzz/check.h"

static ssize_t read_piece(int fd, void *to, size_t room);
#define read read_piece
#include "client/map_input.c"
#undef read

#define LIMIT 20u

static struct slice pending; /* what was not read yet */
static size_t piece;

static ssize_t read_piece(int fd, void *to, size_t room)
{
    (void)fd;
    size_t size = pending.size < piece ? pending.size : piece;
    size = size < room ? size : room;
    if (size)
        memcpy(to, pending.data, size);
    pending = slice_of(pending.data + size, pending.size - size);
    return (ssize_t)size;
}

/* The next line of what is left, which is cut as a whole. False: there is none. */
static bool line_cut(struct slice *left, uint8_t delimiter, struct slice *line)
{
    const uint8_t *end = left->size ? memchr(left->data, delimiter, left->size) : NULL;
    size_t size = end ? (size_t)(end - left->data) : left->size;
    if (left->size == 0)
        return false;
    *line = slice_of(left->data, size);
    *left = slice_of(left->data + size + (end != NULL), left->size - size - (end != NULL));
    return true;
}

static uint64_t lines_of(struct slice left, uint8_t delimiter)
{
    struct slice line;
    uint64_t count = 0;
    while (line_cut(&left, delimiter, &line))
        count++;
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    struct input in = {.fd = 0, .delimiter = data[0], .limit = LIMIT};
    struct slice whole = slice_of(data + 2, size - 2), line, wanted;
    enum input_result result;
    pending = whole;
    piece = 1u + (data[1] & 127);
    while ((result = input_next(&in, &line)) != INPUT_END) {
        if (result == INPUT_AGAIN) {
            input_fill(&in);
            continue;
        }
        FUZZ_CHECK(line_cut(&whole, in.delimiter, &wanted));
        FUZZ_CHECK(result == (wanted.size > LIMIT ? INPUT_TOO_LONG : INPUT_ONE));
        FUZZ_CHECK(result == INPUT_TOO_LONG || slice_equal(line, wanted));
        if (data[1] & 128)
            input_fill(&in);
        FUZZ_CHECK(!in.eof || input_left(&in) == lines_of(whole, in.delimiter));
    }
    FUZZ_CHECK(!line_cut(&whole, in.delimiter, &wanted));
    input_free(&in);
    char text[8] = {0};
    memcpy(text, data, size < sizeof text - 1 ? size : sizeof text - 1);
    input_delimiter(text, &in.delimiter);
    return 0;
}
