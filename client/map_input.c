/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/map.h"

#define READ_SIZE 65536u
#define AHEAD     (16u << 20) /* bytes that are read before their turn */

bool input_delimiter(const char *text, uint8_t *delimiter)
{
    static const char names[] = "ntr0\\", values[] = "\n\t\r\0\\";
    if (text[0] && !text[1]) {
        *delimiter = (uint8_t)text[0];
        return true;
    }
    if (text[0] != '\\')
        return false;
    if (text[1] == 'x') {
        char *end;
        unsigned long value = strtoul(text + 2, &end, 16);
        *delimiter = (uint8_t)value;
        return end != text + 2 && !*end && value <= 255;
    }
    const char *found = text[1] ? strchr(names, text[1]) : NULL;
    if (!found || text[2])
        return false;
    *delimiter = (uint8_t)values[found - names];
    return true;
}

/* Inputs as operands have no delimiter, and no end but their number. */
static enum input_result next_argument(struct input *in, struct slice *line)
{
    if (in->argument_at == in->argument_count)
        return INPUT_END;
    *line = slice_str(in->arguments[in->argument_at++]);
    return line->size > in->limit ? INPUT_TOO_LONG : INPUT_ONE;
}

static void take(struct input *in, size_t size)
{
    in->at += size;
    in->scanned = 0;
    if (in->at == in->buf.size) {
        buf_clear(&in->buf);
        in->at = 0;
    }
}

/* No delimiter in what is there: wait for more, unless it is the end, or too long already. */
static enum input_result next_partial(struct input *in, struct slice *line)
{
    size_t left = in->buf.size - in->at;
    in->scanned = left;
    if (left > in->limit && !in->skipping) {
        /* The rest of the line is thrown away as it comes. */
        in->skipping = true;
        take(in, left);
        return INPUT_TOO_LONG;
    }
    if (in->skipping)
        take(in, left);
    if (!in->eof)
        return INPUT_AGAIN;
    if (in->why) /* a line that was not read to its end is no input */
        return INPUT_FAILED;
    if (left == 0 || in->skipping)
        return INPUT_END;
    *line = slice_of(in->buf.data + in->at, left);
    in->at += left;
    in->scanned = 0;
    return INPUT_ONE;
}

/* What was looked at without success is not looked at again: a line of 16 MiB stays linear. */
enum input_result input_next(struct input *in, struct slice *line)
{
    if (in->arguments)
        return next_argument(in, line);
    for (;;) {
        size_t left = in->buf.size - in->at;
        if (left == 0)
            return next_partial(in, line);
        const uint8_t *begin = in->buf.data + in->at;
        const uint8_t *end = left > in->scanned
                                 ? memchr(begin + in->scanned, in->delimiter, left - in->scanned)
                                 : NULL;
        if (!end)
            return next_partial(in, line);
        size_t size = (size_t)(end - begin);
        bool skipped = in->skipping;
        in->skipping = false;
        *line = slice_of(begin, size);
        /* The line stays readable until the buffer is filled again. */
        in->at += size + 1;
        in->scanned = 0;
        if (!skipped)
            return size > in->limit ? INPUT_TOO_LONG : INPUT_ONE;
    }
}

/*
 * Called when poll() says that a read will not block; on a file it never does. What was read ahead
 * is moved only when it is less than what is done with, so that each byte is moved once or twice.
 */
void input_fill(struct input *in)
{
    if (in->arguments || in->eof)
        return;
    if (in->at > in->buf.size / 2) {
        buf_consume(&in->buf, in->at);
        in->at = 0;
    }
    uint8_t *room = buf_reserve(&in->buf, READ_SIZE);
    ssize_t n = room ? read(in->fd, room, READ_SIZE) : -1;
    if (n > 0) {
        in->buf.size += (size_t)n;
    } else if (n == 0 || (errno != EINTR && errno != EAGAIN)) {
        in->eof = true;
        in->why = n == 0 ? 0 : room ? errno : ENOMEM;
    }
}

static uint64_t count_in(const struct input *in, const uint8_t *data, size_t size)
{
    uint64_t count = 0;
    for (size_t i = 0; i < size; i++)
        count += data[i] == in->delimiter;
    return count;
}

/* Delimiters from here to the end of a regular file, without moving its offset. */
static uint64_t count_file(const struct input *in, off_t at)
{
    static uint8_t block[1 << 16];
    uint64_t count = 0;
    uint8_t last = in->delimiter;
    for (;;) {
        ssize_t n = pread(in->fd, block, sizeof block, at);
        if (n <= 0)
            return count + (last != in->delimiter);
        count += count_in(in, block, (size_t)n);
        last = block[n - 1];
        at += n;
    }
}

uint64_t input_count(const struct input *in)
{
    struct stat st;
    if (in->arguments)
        return in->argument_count;
    off_t at = lseek(in->fd, 0, SEEK_CUR);
    if (at < 0 || fstat(in->fd, &st) || !S_ISREG(st.st_mode))
        return 0;
    return count_file(in, at);
}

bool input_may_read_ahead(const struct input *in)
{
    return !in->arguments && !in->eof && in->buf.size - in->at < AHEAD;
}

/* Of one that is too long the rest does not count once more. */
uint64_t input_left(const struct input *in)
{
    size_t size = in->buf.size - in->at;
    if (!size)
        return 0;
    const uint8_t *at = in->buf.data + in->at;
    return count_in(in, at, size) + (at[size - 1] != in->delimiter) - in->skipping;
}

void input_free(struct input *in)
{
    buf_free(&in->buf);
}
