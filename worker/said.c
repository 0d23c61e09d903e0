/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/said.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/utf8.h"
#include "worker/spawn.h"

/* What a pipe can hold; more comes from somebody who goes on. */
#define LAST_READS 32

void said_begin(struct said *s, uint64_t id)
{
    s->id = id;
    s->tail_size = s->line_size = 0;
    s->lines = 0;
}

static void line_end(struct said *s)
{
    if (s->lines++ < SAID_LINES && s->id)
        log_info("task %llu: %.*s", (unsigned long long)s->id, (int)s->line_size, s->line);
    else if (s->lines <= SAID_LINES)
        log_info("handler: %.*s", (int)s->line_size, s->line);
    s->line_size = 0;
}

/* The second half of the buffer moves to the front when it is full: at least 4 KiB are there. */
static void tail_take(struct said *s, const char *data, size_t size)
{
    size_t half = sizeof s->tail / 2;
    if (size > half) {
        data += size - half;
        size = half;
    }
    if (s->tail_size + size > sizeof s->tail) {
        size_t drop = s->tail_size - half;
        memmove(s->tail, s->tail + drop, half);
        s->tail_size = half;
    }
    memcpy(s->tail + s->tail_size, data, size);
    s->tail_size += size;
}

void said_take(struct said *s, const void *data, size_t size)
{
    const char *text = data;
    tail_take(s, text, size);
    for (size_t i = 0; i < size; i++) {
        if (text[i] != '\n' && s->line_size < sizeof s->line)
            s->line[s->line_size++] = text[i] ? text[i] : '?'; /* it would end the line */
        if (text[i] == '\n' || s->line_size == sizeof s->line)
            line_end(s);
    }
}

bool said_read(struct said *s, int *fd)
{
    char bytes[4096];
    ssize_t size = read(*fd, bytes, sizeof bytes);
    if (size < 0)
        return errno == EINTR;
    if (size == 0)
        child_close(fd);
    said_take(s, bytes, (size_t)size);
    return size > 0;
}

void said_read_rest(struct said *s, int *fd)
{
    for (int i = 0; i < LAST_READS && *fd >= 0 && said_read(s, fd); i++)
        ;
}

void said_end(struct said *s)
{
    if (s->line_size)
        line_end(s);
    if (s->lines > SAID_LINES)
        log_info("task %llu: %u more lines on its standard error", (unsigned long long)s->id,
            s->lines - SAID_LINES);
    s->lines = 0;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

struct slice said_tail(struct said *s, size_t most)
{
    size_t from = s->tail_size > most ? s->tail_size - most : 0;
    size_t end = s->tail_size;
    while (end > from && is_space(s->tail[end - 1]))
        end--;
    while (from < end && is_space(s->tail[from]))
        from++;
    utf8_repair(s->tail + from, end - from); /* a NUL would end it where it is printed */
    return slice_of(s->tail + from, end - from);
}
