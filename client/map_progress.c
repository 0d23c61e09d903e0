/* SPDX-License-Identifier: Apache-2.0 */
/* map_progress: one line at the bottom of a terminal. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/map.h"
#include "common/clock.h"

#define BAR        30u /* characters at the most */
#define RATE_AFTER 0.2 /* seconds; before, a rate would be of the start alone */

void map_progress_erase(void *map)
{
    struct map *m = map;
    if (m->drawn)
        fputs("\r\033[K", stderr);
    m->drawn = false;
}

static void bar(struct buf *line, double part, unsigned width)
{
    unsigned full = (unsigned)(part * width + 0.5);
    buf_printf(line, "[");
    for (unsigned i = 0; i < width; i++)
        buf_append(line, i < full ? "=" : i == full ? ">" : " ", 1);
    buf_printf(line, "] %3u%%  ", (unsigned)(part * 100)); /* 100 % only when all is done */
}

/* A text with its unit, if there is room for both: half a number is a wrong one. */
static void field(struct buf *line, unsigned width, const char *text, const char *unit)
{
    /* The last column stays free: some terminals wrap when it is written. */
    if (line->size + 2 + strlen(text) + strlen(unit) < width)
        buf_printf(line, "  %s%s", text, unit);
}

/* Full seconds, rounded up: what is left is never nothing. */
static const char *text_left(char to[TEXT_SIZE], double seconds)
{
    if (seconds >= 60)
        return text_ms(to, (uint64_t)(seconds * 1000));
    snprintf(to, TEXT_SIZE, "%us", (unsigned)seconds + 1);
    return to;
}

/* What matters most comes first. The rate is over the whole run: a bar that jumps tells less. */
static void compose(const struct map *m, struct buf *line, uint64_t now, unsigned width)
{
    char a[TEXT_SIZE], b[TEXT_SIZE];
    uint64_t done = m->finished + m->left_out;
    double seconds = (double)(now - m->began_ns) / 1e9;
    double rate = seconds >= RATE_AFTER ? (double)m->finished / seconds : 0;
    if (m->total) {
        double part = done < m->total ? (double)done / (double)m->total : 1;
        bar(line, part, width >= 80 ? BAR : width >= 50 ? 10 : 4);
        buf_printf(line, "%s/%s", text_count(a, done), text_count(b, m->total));
    } else {
        buf_printf(line, "%s done, %s in flight", text_count(a, done), text_count(b, m->in_flight));
    }
    if (m->failed)
        field(line, width, text_count(a, m->failed), " failed");
    if (m->stopping)
        field(line, width, "stopping", "");
    if (seconds >= RATE_AFTER)
        field(line, width, text_rate(a, rate), "");
    if (m->total > done && rate > 0 && !m->stopping)
        field(line, width, text_left(a, (double)(m->total - done) / rate), " left");
    else
        field(line, width, text_ms(a, (now - m->began_ns) / 1000000), "");
}

void map_progress(struct map *m, bool always)
{
    uint64_t now = clock_mono_ns();
    if (!m->progress || (!always && now - m->drawn_ns < 100000000))
        return;
    struct buf line = BUF_EMPTY;
    unsigned width = terminal_width(STDERR_FILENO);
    compose(m, &line, now, width);
    if (line.size >= width)
        line.size = width - 1;
    fprintf(stderr, "\r\033[K%s", buf_text(&line));
    buf_free(&line);
    m->drawn = true;
    m->drawn_ns = now;
}
