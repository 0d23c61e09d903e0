/* SPDX-License-Identifier: Apache-2.0 */
/* map_progress: one line at the bottom of a terminal. */
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

/* The rate is over the whole run: a bar that jumps tells less. */
static void compose(const struct map *m, struct buf *line, uint64_t now, unsigned width)
{
    char a[TEXT_SIZE], b[TEXT_SIZE], c[TEXT_SIZE];
    uint64_t done = m->finished + m->left_out;
    double seconds = (double)(now - m->began_ns) / 1e9;
    double rate = seconds > 0 ? (double)m->finished / seconds : 0;
    if (m->total) {
        double part = done < m->total ? (double)done / (double)m->total : 1;
        bar(line, part, width >= 80 ? BAR : width >= 50 ? 10 : 4);
        buf_printf(line, "%s/%s", text_count(a, done), text_count(b, m->total));
    } else {
        buf_printf(line, "%s done, %s in flight", text_count(a, done), text_count(b, m->in_flight));
    }
    if (seconds >= RATE_AFTER)
        buf_printf(line, "  %s", text_rate(c, rate));
    if (m->total > done && seconds >= RATE_AFTER && rate > 0)
        buf_printf(line, "  %s left",
            text_ms(c, (uint64_t)((double)(m->total - done) / rate * 1000) / 1000 * 1000));
    else
        buf_printf(line, "  %s", text_ms(c, (now - m->began_ns) / 1000000));
    if (m->failed)
        buf_printf(line, "  %s failed", text_count(c, m->failed));
    if (m->stopping)
        buf_printf(line, "  stopping");
}

void map_progress(struct map *m, bool always)
{
    uint64_t now = clock_now().mono_ns;
    if (!m->progress || (!always && now - m->drawn_ns < 100000000))
        return;
    struct buf line = BUF_EMPTY;
    unsigned width = terminal_width(STDERR_FILENO);
    compose(m, &line, now, width);
    /* The last column stays free: some terminals wrap when it is written. */
    if (line.size >= width)
        line.size = width - 1;
    fprintf(stderr, "\r\033[K%.*s", (int)line.size, line.data ? (const char *)line.data : "");
    buf_free(&line);
    m->drawn = true;
    m->drawn_ns = now;
}
