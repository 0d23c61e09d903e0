/* SPDX-License-Identifier: Apache-2.0 */
/* text: numbers, times and tables for people. */
#define _GNU_SOURCE /* strverscmp */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "client/command.h"
#include "common/clock.h"
#include "common/utf8.h"

#define MAX_COLUMNS 16
#define LEAST_TEXT  12u /* of a text in the last column, before a column goes for it */

/* Two digits that matter, never more than five characters: columns stay narrow. */
const char *text_bytes(char to[TEXT_SIZE], uint64_t bytes)
{
    static const char units[] = "BKMGTPE";
    double value = (double)bytes;
    size_t unit = 0;
    for (; value >= 1023.5 && unit < sizeof units - 2; unit++)
        value /= 1024;
    snprintf(to, TEXT_SIZE, unit && value < 9.95 ? "%.1f%c" : "%.0f%c", value, units[unit]);
    return to;
}

const char *text_count(char to[TEXT_SIZE], uint64_t count)
{
    char digits[24];
    int size = snprintf(digits, sizeof digits, "%llu", (unsigned long long)count);
    char *at = to;
    for (int i = 0; i < size; i++) {
        if (i && (size - i) % 3 == 0)
            *at++ = ',';
        *at++ = digits[i];
    }
    *at = '\0';
    return to;
}

const char *text_rate(char to[TEXT_SIZE], double per_second)
{
    if (per_second >= 999500)
        snprintf(to, TEXT_SIZE, "%.2fM/s", per_second / 1e6);
    else if (per_second >= 9995)
        snprintf(to, TEXT_SIZE, "%.0fk/s", per_second / 1e3);
    else if (per_second >= 999.5)
        snprintf(to, TEXT_SIZE, "%.1fk/s", per_second / 1e3);
    else
        snprintf(
            to, TEXT_SIZE, per_second > 0 && per_second < 9.95 ? "%.1f/s" : "%.0f/s", per_second);
    return to;
}

/* The two largest units: 2d03h says all that somebody wants to know. */
const char *text_ms(char to[TEXT_SIZE], uint64_t ms)
{
    unsigned long long s = ms / 1000;
    if (ms < 1000)
        snprintf(to, TEXT_SIZE, "%llums", (unsigned long long)ms);
    else if (s < 10)
        snprintf(to, TEXT_SIZE, "%llu.%llus", s, (unsigned long long)ms % 1000 / 100);
    else if (s < 60)
        snprintf(to, TEXT_SIZE, "%llus", s);
    else if (s < 3600)
        snprintf(to, TEXT_SIZE, "%llum%02llus", s / 60, s % 60);
    else if (s < 86400)
        snprintf(to, TEXT_SIZE, "%lluh%02llum", s / 3600, s / 60 % 60);
    else
        snprintf(to, TEXT_SIZE, "%llud%02lluh", s / 86400, s / 3600 % 24);
    return to;
}

const char *text_ns(char to[TEXT_SIZE], uint64_t ns)
{
    if (ns < 1000)
        snprintf(to, TEXT_SIZE, "%lluns", (unsigned long long)ns);
    else if (ns < 1000000)
        snprintf(to, TEXT_SIZE, "%lluus", (unsigned long long)ns / 1000);
    else if (ns < 1000000000)
        snprintf(to, TEXT_SIZE, ns < 10000000 ? "%.1fms" : "%.0fms", (double)ns / 1e6);
    else
        return text_ms(to, ns / 1000000);
    return to;
}

const char *text_age(char to[TEXT_SIZE], uint64_t since_ms)
{
    uint64_t now = clock_now().wall_ms;
    if (since_ms == 0)
        return strcpy(to, "-");
    return text_ms(to, now > since_ms ? now - since_ms : 0);
}

const char *text_time(char to[TEXT_SIZE], uint64_t unix_ms)
{
    time_t seconds = (time_t)(unix_ms / 1000);
    struct tm tm;
    if (unix_ms == 0 || !localtime_r(&seconds, &tm))
        return strcpy(to, "-");
    strftime(to, TEXT_SIZE, "%Y-%m-%d %H:%M:%S", &tm);
    return to;
}

const char *text_state(const char *state)
{
    return strcmp(state, "leased") == 0 ? "running" : state;
}

uint64_t task_due_ms(const struct pushrod_task_info *task)
{
    return strcmp(task->state, "delayed") == 0 ? task->due_ms : 0;
}

uint64_t task_ended_ms(const struct pushrod_task_info *task)
{
    for (int status = PUSHROD_DONE; status <= PUSHROD_REFUSED; status++)
        if (strcmp(task->state, pushrod_status_name(status)) == 0)
            return task->due_ms;
    return 0;
}

/* Errors of handlers and names of strangers end up on terminals; escape sequences must not. */
void text_clean(struct buf *to, const char *text, size_t size, size_t width)
{
    const uint8_t *bytes = (const uint8_t *)text;
    size_t shown = 0;
    for (size_t i = 0; i < size;) {
        if (shown + 3 >= width && size - i > width - shown) {
            buf_append(to, "...", width < 3 ? width : 3);
            return;
        }
        size_t n = utf8_size(bytes + i, size - i);
        if (n == 0)
            buf_append(to, "?", 1);
        else if (utf8_control(bytes + i, n))
            buf_append(to, " ", 1);
        else
            buf_append(to, bytes + i, n);
        i += n ? n : 1;
        shown++;
    }
}

static size_t shown_width(const char *text)
{
    size_t width = 0;
    for (; *text; text++)
        width += ((uint8_t)*text & 0xc0) != 0x80;
    return width;
}

/* Appends at most `room` characters of a text. */
static void line_add(struct buf *out, size_t *room, const char *text)
{
    for (; *text; text++) {
        if (((uint8_t)*text & 0xc0) != 0x80) {
            if (*room == 0)
                return;
            --*room;
        }
        buf_append(out, text, 1);
    }
}

/* ---------------------------------------------------------------------------------- reasons */

#define BETWEEN     " ... "
#define LEAST_FIRST 12u /* characters of the first line; fewer say nothing */

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* The next line that is not empty, with its indentation; false: there is none. */
static bool next_line(struct slice *rest, struct slice *line)
{
    while (rest->size) {
        const uint8_t *end = memchr(rest->data, '\n', rest->size);
        *line = slice_of(rest->data, end ? (size_t)(end - rest->data) : rest->size);
        slice_skip(rest, line->size + (end != NULL));
        while (line->size && is_blank(line->data[line->size - 1]))
            line->size--;
        if (line->size)
            return true;
    }
    return false;
}

/*
 * Shells, C and Python end with the reason. What PHP and Java say behind it are the calls that led
 * there: indented, or numbered with #, under a line that ends in a colon.
 */
static bool may_be_reason(struct slice line)
{
    return !is_blank(line.data[0]) && line.data[0] != '#' && line.data[line.size - 1] != ':';
}

static void clean_line(struct buf *to, struct slice line, size_t width)
{
    while (is_blank(line.data[0]))
        slice_skip(&line, 1);
    text_clean(to, (const char *)line.data, line.size, width);
}

/* The reason as whole as it can be, and before it what there is room for of the first line. */
static void add_ends(struct buf *to, struct slice first, struct slice reason, size_t width)
{
    struct buf begin = BUF_EMPTY, end = BUF_EMPTY;
    clean_line(&begin, first, SIZE_MAX);
    clean_line(&end, reason, width);
    size_t size = shown_width(buf_text(&end)) + strlen(BETWEEN);
    if (first.data != reason.data && size + LEAST_FIRST <= width) {
        size_t room = width - size;
        line_add(to, &room, buf_text(&begin));
        buf_printf(to, BETWEEN);
    }
    buf_append(to, end.data, end.size);
    buf_free(&begin);
    buf_free(&end);
}

void text_reason(struct buf *to, const char *text, size_t size, size_t width)
{
    struct slice rest = slice_of(text, size), line, first = {0}, last = {0}, reason = {0};
    struct buf all = BUF_EMPTY;
    while (next_line(&rest, &line)) {
        buf_append(&all, " ", first.data != NULL);
        clean_line(&all, line, SIZE_MAX);
        first = first.data ? first : line;
        last = line;
        reason = may_be_reason(line) ? line : reason;
    }
    if (shown_width(buf_text(&all)) <= width || first.data == last.data)
        text_clean(to, (const char *)all.data, all.size, width);
    else
        add_ends(to, first, reason.data ? reason : last, width);
    buf_free(&all);
}

unsigned terminal_width(int fd)
{
    struct winsize size;
    if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    return 80;
}

/* ---------------------------------------------------------------------------------- tables */

void table_begin(struct table *t, const char *const *titles, size_t columns)
{
    assert(columns <= MAX_COLUMNS);
    *t = (struct table){.titles = titles, .columns = columns};
}

void table_cell(struct table *t, const char *format, ...)
{
    va_list args;
    char text[4096];
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    text_clean(&t->cells, text, strlen(text), sizeof text);
    buf_append(&t->cells, "", 1);
    t->rows++;
}

static void line_pad(struct buf *out, size_t *room, size_t count)
{
    for (; count && *room; count--, --*room)
        buf_append(out, " ", 1);
}

/* Its lines stay until it is known how much room there is for them. */
void table_reason(struct table *t, const char *before, const char *text)
{
    struct slice rest = slice_str(text), line;
    text_clean(&t->cells, before, strlen(before), SIZE_MAX);
    for (bool first = true; next_line(&rest, &line); first = false) {
        buf_append(&t->cells, "\n", !first);
        text_clean(&t->cells, (const char *)line.data, line.size, SIZE_MAX);
    }
    buf_append(&t->cells, "", 1);
    t->rows++;
}

struct layout {
    size_t widths[MAX_COLUMNS];
    bool hidden[MAX_COLUMNS];
    unsigned width;
};

static bool is_number(const struct table *t, size_t column)
{
    return t->titles[column][0] == '-';
}

/* Columns up to the `count`th, with what is between them. A text at the end may be cut somewhat. */
static size_t layout_width(const struct table *t, const struct layout *l, size_t count)
{
    size_t width = 0;
    for (size_t i = 0; i < count; i++) {
        bool cut = i + 1 == t->columns && !is_number(t, i) && l->widths[i] > LEAST_TEXT;
        if (!l->hidden[i])
            width += (width ? 2 : 0) + (cut ? LEAST_TEXT : l->widths[i]);
    }
    return width;
}

/* Half a number at the edge would be another number. */
static void layout_fit(const struct table *t, struct layout *l)
{
    const char *const *spare = t->spare;
    for (; spare && *spare && layout_width(t, l, t->columns) > l->width; spare++)
        for (size_t i = 0; i < t->columns; i++)
            if (strcmp(t->titles[i] + is_number(t, i), *spare) == 0)
                l->hidden[i] = true;
    for (size_t i = 0; i < t->columns; i++)
        if (is_number(t, i) && layout_width(t, l, i + 1) > l->width)
            l->hidden[i] = true;
}

static void table_line(
    const struct table *t, const struct layout *l, const char **cells, struct buf *out)
{
    size_t room = l->width ? l->width : SIZE_MAX;
    for (size_t i = 0; i < t->columns; i++) {
        if (l->hidden[i])
            continue;
        bool right = is_number(t, i);
        size_t pad = l->widths[i] - shown_width(cells[i]);
        if (right)
            line_pad(out, &room, pad);
        if (strchr(cells[i], '\n'))
            text_reason(out, cells[i], strlen(cells[i]), room);
        else
            line_add(out, &room, cells[i]);
        if (i + 1 < t->columns)
            line_pad(out, &room, (right ? 0 : pad) + 2);
    }
    while (out->size && out->data[out->size - 1] == ' ')
        out->size--;
    buf_append(out, "\n", 1);
}

/* Names with numbers in them in the order of the numbers: worker-9 before worker-10. */
static int row_compare(const void *a, const void *b)
{
    return strverscmp(**(const char *const *const *)a, **(const char *const *const *)b);
}

/* Two passes: the widths are known when all cells are. `rows` are those of `cells`. */
static void table_lines(
    struct table *t, const char ***rows, const char **cells, struct layout *l, struct buf *out)
{
    size_t count = t->rows / t->columns;
    const char *at = (const char *)t->cells.data;
    for (size_t i = 0; i < t->rows; i++, at += strlen(at) + 1) {
        size_t column = i % t->columns;
        cells[i] = at;
        rows[i / t->columns] = &cells[i - column];
        if (shown_width(at) > l->widths[column])
            l->widths[column] = shown_width(at);
    }
    if (t->sorted)
        qsort(rows, count, sizeof *rows, row_compare);
    const char *titles[MAX_COLUMNS];
    for (size_t i = 0; i < t->columns; i++)
        titles[i] = t->titles[i] + is_number(t, i);
    if (l->width)
        layout_fit(t, l);
    table_line(t, l, titles, out);
    for (size_t i = 0; i < count; i++)
        table_line(t, l, rows[i], out);
}

void table_print(struct table *t)
{
    struct buf out = BUF_EMPTY;
    bool any = t->rows > 0;
    table_end(t, &out, isatty(STDOUT_FILENO) ? terminal_width(STDOUT_FILENO) : 0);
    if (any)
        fwrite(out.data, 1, out.size, stdout);
    buf_free(&out);
}

void table_end(struct table *t, struct buf *out, unsigned width)
{
    struct layout l = {.width = width};
    for (size_t i = 0; i < t->columns; i++)
        l.widths[i] = shown_width(t->titles[i] + is_number(t, i));
    const char **cells = malloc((t->rows + 1) * sizeof *cells);
    const char ***rows = malloc((t->rows / t->columns + 1) * sizeof *rows);
    if (cells && rows)
        table_lines(t, rows, cells, &l, out);
    free(rows);
    free(cells);
    buf_free(&t->cells);
    t->rows = 0;
}
