/* SPDX-License-Identifier: Apache-2.0 */
#include "client/top.h"

#include <inttypes.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/clock.h"

#define HEAD_LINES 4u  /* with the empty one behind them */
#define NARROW     60u /* columns in which the head's lines do not fit as they are */

/* ---------------------------------------------------------------------------------- text */

static void slots_bar(const struct top *t, unsigned width, struct buf *out)
{
    const unsigned length = width && width < NARROW ? 8 : 20;
    uint64_t full = t->slots ? (t->busy * length + t->slots - 1) / t->slots : 0;
    buf_printf(out, "slots [");
    for (unsigned i = 0; i < length; i++)
        buf_append(out, i < full ? "|" : " ", 1);
    buf_printf(out, "] %" PRIu64 " of %" PRIu64 " busy, %" PRIu64 " worker%s\n", t->busy, t->slots,
        t->worker_count, t->worker_count == 1 ? "" : "s");
}

static void compose_head(const struct top *t, unsigned width, struct buf *out)
{
    const struct pushrod_server_info *server = pushrod_client_server(t->cli->client);
    char a[TEXT_SIZE], b[TEXT_SIZE], c[TEXT_SIZE], d[TEXT_SIZE], e[TEXT_SIZE];
    buf_printf(out, "%s at %s  %s%s\n", server->software, server->address,
        text_time(a, clock_now().wall_ms), t->terminal ? "  q leaves" : "");
    slots_bar(t, width, out);
    buf_printf(out, "tasks %s; %s ready, %s running, %s dead, %s delayed\n\n",
        t->seconds > 0 ? text_rate(e, t->rate) : "-/s", text_count(a, t->ready),
        text_count(b, t->leased), text_count(c, t->dead), text_count(d, t->delayed));
}

static void compose_section(
    struct top_section *s, const char *what, struct table *table, unsigned width)
{
    s->what = what;
    s->rows = table->rows / table->columns;
    buf_clear(&s->text);
    table_end(table, &s->text, width);
}

void top_compose(struct top *t, unsigned width)
{
    buf_clear(&t->head);
    compose_head(t, width, &t->head);
    compose_section(&t->sections[TOP_QUEUE_LIST], "queues", &t->queues, width);
    compose_section(&t->sections[TOP_WORKER_LIST], "workers", &t->workers, width);
}

void top_print(const struct top *t)
{
    fwrite(t->head.data, 1, t->head.size, stdout);
    for (size_t i = 0; i < TOP_SECTIONS; i++) {
        if (i)
            putchar('\n');
        fwrite(t->sections[i].text.data, 1, t->sections[i].text.size, stdout);
    }
}

void top_free(struct top *t)
{
    buf_free(&t->head);
    buf_free(&t->queues.cells);
    buf_free(&t->workers.cells);
    for (size_t i = 0; i < TOP_SECTIONS; i++)
        buf_free(&t->sections[i].text);
}

/* ---------------------------------------------------------------------------------- the screen */

struct screen {
    struct buf out;
    size_t columns;
    size_t left; /* lines */
};

enum look { PLAIN, BOLD, TITLE };

/* One line, cut at the edge and erased behind it; a title is reversed up to the edge. */
static void draw_line(struct screen *s, const uint8_t *at, size_t size, enum look look)
{
    static const char *const begin[] = {"", "\033[1m", "\033[7m"};
    size_t shown = size > s->columns ? s->columns : size;
    if (!s->left)
        return;
    s->left--;
    buf_printf(&s->out, "%s%.*s", begin[look], (int)shown, (const char *)at);
    if (look == TITLE && shown < s->columns)
        buf_printf(&s->out, "%*s", (int)(s->columns - shown), "");
    /* The last line has no end: the screen would move up. */
    buf_printf(&s->out, "%s\033[K%s", look ? "\033[0m" : "", s->left ? "\r\n" : "");
}

/* `count` lines of the text from the `first`th on, of which the first looks as told. */
static void draw_lines(
    struct screen *s, const struct buf *text, size_t first, size_t count, enum look look)
{
    if (!text->size)
        return;
    const uint8_t *at = text->data, *end = at + text->size;
    for (size_t i = 0; at < end && i < first + count; i++) {
        const uint8_t *stop = memchr(at, '\n', (size_t)(end - at));
        if (i >= first)
            draw_line(s, at, (size_t)(stop - at), i == first ? look : PLAIN);
        at = stop + 1;
    }
}

/* What is not on the screen must not look as if it were not there. */
static void draw_notice(struct screen *s, const struct top_section *section, bool focus)
{
    struct buf line = BUF_EMPTY;
    if (section->shown)
        buf_printf(&line, "  %zu-%zu of %zu %s", section->first + 1,
            section->first + section->shown, section->rows, section->what);
    else
        buf_printf(&line, "  %zu %s, not shown", section->rows, section->what);
    buf_printf(&line, "; %s", focus ? "arrows and page keys scroll" : "tab scrolls here");
    draw_line(s, line.data, line.size, focus ? BOLD : PLAIN);
    buf_free(&line);
}

/* `lines` are all that the section gets, with its titles and, if rows are left out, the notice. */
static void draw_section(struct screen *s, struct top_section *section, size_t lines, bool focus)
{
    bool all = lines > section->rows;
    section->shown = all ? section->rows : lines > 2 ? lines - 2 : 0;
    if (section->first > section->rows - section->shown)
        section->first = section->rows - section->shown;
    if (lines > 1)
        draw_lines(s, &section->text, 0, 1, TITLE);
    draw_lines(s, &section->text, 1 + section->first, section->shown, PLAIN);
    if (!all && lines)
        draw_notice(s, section, focus);
}

/*
 * Of lines that are too few for both, each gets what the other leaves, and workers at least a
 * third: who is there is seen beside a long list of queues.
 */
static void share(const struct top *t, size_t room, size_t lines[TOP_SECTIONS])
{
    size_t queues = t->sections[TOP_QUEUE_LIST].rows + 1;
    size_t workers = t->sections[TOP_WORKER_LIST].rows + 1;
    size_t least = room / 3 < workers ? room / 3 : workers;
    lines[TOP_QUEUE_LIST] = queues < room - least ? queues : room - least;
    lines[TOP_WORKER_LIST] =
        workers < room - lines[TOP_QUEUE_LIST] ? workers : room - lines[TOP_QUEUE_LIST];
}

void top_draw(struct top *t)
{
    struct winsize size = {0};
    bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row && size.ws_col;
    struct screen s = {.columns = known ? size.ws_col : 80, .left = known ? size.ws_row : 24};
    size_t lines[TOP_SECTIONS];
    share(t, s.left > HEAD_LINES + 1 ? s.left - HEAD_LINES - 1 : 0, lines);
    buf_printf(&s.out, "\033[H");
    draw_lines(&s, &t->head, 0, HEAD_LINES, BOLD);
    for (unsigned i = 0; i < TOP_SECTIONS; i++) {
        if (i)
            draw_line(&s, (const uint8_t *)"", 0, PLAIN);
        draw_section(&s, &t->sections[i], lines[i], i == t->focus);
    }
    if (s.left)
        buf_printf(&s.out, "\033[J");
    fwrite(s.out.data, 1, s.out.size, stdout);
    buf_free(&s.out);
}

/* The bounds of the other end are set when it is drawn, which knows how much fits. */
void top_move(struct top *t, enum top_key key)
{
    struct top_section *s = &t->sections[t->focus];
    size_t page = s->shown > 1 ? s->shown - 1 : 1;
    switch (key) {
    case TOP_UP:
        s->first -= s->first > 0;
        break;
    case TOP_DOWN:
        s->first++;
        break;
    case TOP_PAGE_UP:
        s->first -= s->first < page ? s->first : page;
        break;
    case TOP_PAGE_DOWN:
        s->first += page;
        break;
    case TOP_FIRST:
        s->first = 0;
        break;
    case TOP_LAST:
        s->first = s->rows;
        break;
    case TOP_OTHER:
        t->focus = (t->focus + 1) % TOP_SECTIONS;
        break;
    }
}
