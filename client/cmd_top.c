/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_top: pushrod top: queues and workers, looked at again and again. */
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "client/command.h"
#include "client/interrupt.h"
#include "client/rows.h"
#include "common/clock.h"

#define MAX_QUEUES 512 /* of which rates are shown */

/* What a queue had finished at the last look. */
struct past {
    char name[PUSHROD_MAX_QUEUE_NAME + 1];
    uint64_t finished;
};

struct top {
    struct cli *cli;
    bool terminal;
    struct termios saved;
    struct past past[MAX_QUEUES];
    size_t past_count;
    uint64_t looked_ns; /* when the last look was; 0: never */
    double seconds;     /* since the last look */
    /* of this look */
    struct table queues, workers;
    uint64_t ready, delayed, leased, dead, slots, busy, worker_count;
    double rate;
};

/* ---------------------------------------------------------------------------------- looking */

static struct past *past_of(struct top *t, const char *name)
{
    for (size_t i = 0; i < t->past_count; i++)
        if (strcmp(t->past[i].name, name) == 0)
            return &t->past[i];
    if (t->past_count == MAX_QUEUES)
        return NULL;
    struct past *p = &t->past[t->past_count++];
    snprintf(p->name, sizeof p->name, "%s", name);
    p->finished = UINT64_MAX; /* not seen before: no rate yet */
    return p;
}

/*
 * Tasks finished each second since the last look, or a negative number: there was none, or it was
 * of a server that has restarted since, and counts from 0 again.
 */
static double rate_of(struct top *t, const struct pushrod_queue_info *q)
{
    struct past *p = past_of(t, q->name);
    double rate = -1;
    if (p && p->finished <= q->finished && t->seconds > 0)
        rate = (double)(q->finished - p->finished) / t->seconds;
    if (p)
        p->finished = q->finished;
    return rate;
}

static const char *const titles[] = {"QUEUE", "-READY", "-DELAYED", "-RUNNING", "-DEAD", "-WORKERS",
    "-SLOTS", "-RATE", "-DONE", "-FAILED", "-OLDEST", "-P95", "NOTE"};
/* The note says which queues have no worker. */
static const char *const spare[] = {"P95", "SLOTS", "WORKERS", "DELAYED", "FAILED", NULL};

/* What keeps a queue from moving. */
static const char *note_of(const struct pushrod_queue_info *q)
{
    if (q->paused)
        return "paused";
    return q->workers == 0 && q->ready ? "no worker" : "";
}

static void on_queue(const struct pushrod_queue_info *q, void *arg)
{
    struct top *t = arg;
    char text[TEXT_SIZE];
    double rate = rate_of(t, q);
    t->ready += q->ready;
    t->delayed += q->delayed;
    t->leased += q->leased;
    t->dead += q->dead;
    t->rate += rate < 0 ? 0 : rate;
    table_cell(&t->queues, "%s", q->name);
    table_cell(&t->queues, "%s", text_count(text, q->ready));
    table_cell(&t->queues, "%s", text_count(text, q->delayed));
    table_cell(&t->queues, "%s", text_count(text, q->leased));
    table_cell(&t->queues, "%s", text_count(text, q->dead));
    table_cell(&t->queues, "%s", text_count(text, q->workers));
    table_cell(&t->queues, "%s", text_count(text, q->slots));
    table_cell(&t->queues, "%s", rate < 0 ? "-" : text_rate(text, rate));
    table_cell(&t->queues, "%s", text_count(text, q->finished));
    table_cell(&t->queues, "%s", text_count(text, q->failed));
    table_cell(&t->queues, "%s", q->ready ? text_ms(text, q->oldest_ms) : "-");
    table_cell(&t->queues, "%s", q->service_ns ? text_ns(text, q->service_ns) : "-");
    table_cell(&t->queues, "%s", note_of(q));
}

static void on_worker(const struct pushrod_worker_info *w, void *arg)
{
    struct top *t = arg;
    t->slots += w->slots;
    t->busy += w->outstanding < w->slots ? w->outstanding : w->slots;
    t->worker_count++;
    rows_worker(&t->workers, w);
}

/* Two requests, one after the other: the numbers are of nearly the same moment. */
static int look(struct top *t)
{
    uint64_t now = clock_mono_ns();
    t->seconds = t->looked_ns ? (double)(now - t->looked_ns) / 1e9 : 0;
    t->looked_ns = now;
    t->ready = t->delayed = t->leased = t->dead = 0;
    t->slots = t->busy = t->worker_count = 0;
    t->rate = 0;
    buf_free(&t->queues.cells);
    buf_free(&t->workers.cells);
    table_begin(&t->queues, titles, sizeof titles / sizeof titles[0]);
    t->queues.spare = spare;
    t->queues.sorted = true;
    rows_begin_workers(&t->workers);
    int64_t rows = pushrod_client_queues(t->cli->client, NULL, on_queue, t);
    if (rows >= 0)
        rows = pushrod_client_workers(t->cli->client, NULL, on_worker, t);
    return rows < 0 ? (int)rows : 0;
}

/* ---------------------------------------------------------------------------------- drawing */

/* First byte of a line that stands out; only where it is drawn. */
enum { BOLD = 1, TITLE = 2 };

static void mark(const struct top *t, struct buf *out, char how)
{
    if (t->terminal)
        buf_append(out, &how, 1);
}

static void slots_bar(const struct top *t, struct buf *out)
{
    const unsigned width = 20;
    uint64_t full = t->slots ? (t->busy * width + t->slots - 1) / t->slots : 0;
    buf_printf(out, "slots [");
    for (unsigned i = 0; i < width; i++)
        buf_append(out, i < full ? "|" : " ", 1);
    buf_printf(out, "] %" PRIu64 " of %" PRIu64 " busy, %" PRIu64 " worker%s\n", t->busy, t->slots,
        t->worker_count, t->worker_count == 1 ? "" : "s");
}

static void compose(struct top *t, struct buf *out, unsigned width)
{
    const struct pushrod_server_info *server = pushrod_client_server(t->cli->client);
    char a[TEXT_SIZE], b[TEXT_SIZE], c[TEXT_SIZE], d[TEXT_SIZE], e[TEXT_SIZE];
    mark(t, out, BOLD);
    buf_printf(out, "%s at %s  %s%s\n", server->software, server->address,
        text_time(a, clock_now().wall_ms), t->terminal ? "  q leaves" : "");
    slots_bar(t, out);
    buf_printf(out, "tasks %s; %s ready, %s running, %s delayed, %s dead\n\n",
        t->seconds > 0 ? text_rate(e, t->rate) : "-/s", text_count(a, t->ready),
        text_count(b, t->leased), text_count(c, t->delayed), text_count(d, t->dead));
    mark(t, out, TITLE);
    table_end(&t->queues, out, width);
    buf_append(out, "\n", 1);
    mark(t, out, TITLE);
    table_end(&t->workers, out, width);
}

/* One line, cut at the edge and erased behind it; a title is reversed up to the edge. */
static void draw_line(struct buf *screen, const uint8_t *at, size_t size, size_t columns)
{
    bool bold = size && *at == BOLD, title = size && *at == TITLE;
    at += bold || title;
    size -= bold || title;
    size_t shown = columns && size > columns ? columns : size;
    buf_printf(screen, "%s%.*s",
        bold    ? "\033[1m"
        : title ? "\033[7m"
                : "",
        (int)shown, (const char *)at);
    if (title && shown < columns)
        buf_printf(screen, "%*s", (int)(columns - shown), "");
    buf_printf(screen, "%s\033[K\r\n", bold || title ? "\033[0m" : "");
}

/* Lines that fit on the screen, and nothing below them. */
static void draw(const struct buf *text)
{
    struct winsize size = {0};
    unsigned lines = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row ? size.ws_row : 24;
    struct buf screen = BUF_EMPTY;
    const uint8_t *at = text->data, *end = at + text->size;
    buf_printf(&screen, "\033[H");
    for (unsigned line = 0; at < end && line + 1 < lines; line++) {
        const uint8_t *stop = memchr(at, '\n', (size_t)(end - at));
        draw_line(&screen, at, (size_t)(stop - at), size.ws_col);
        at = stop + 1;
    }
    buf_printf(&screen, "\033[J");
    fwrite(screen.data, 1, screen.size, stdout);
    buf_free(&screen);
}

/* A terminal is drawn over, anything else gets one report after the other. */
static void show(struct top *t)
{
    struct buf text = BUF_EMPTY;
    compose(t, &text, t->terminal ? terminal_width(STDOUT_FILENO) : 0);
    if (t->terminal)
        draw(&text);
    else
        fwrite(text.data, 1, text.size, stdout);
    fflush(stdout);
    buf_free(&text);
}

/* ---------------------------------------------------------------------------------- the terminal
 */

/* Without line mode, so that a q needs no return; but for ^Z, signals stay as they are. */
static void terminal_begin(struct top *t)
{
    t->terminal =
        isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && tcgetattr(STDIN_FILENO, &t->saved) == 0;
    if (!t->terminal)
        return;
    struct termios raw = t->saved;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    raw.c_cc[VSUSP] = _POSIX_VDISABLE; /* the shell would get, and give back, a screen like that */
    tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    fputs("\033[?1049h\033[?25l", stdout); /* the other screen, no cursor */
}

static void terminal_end(const struct top *t)
{
    if (!t->terminal)
        return;
    fputs("\033[?25h\033[?1049l", stdout);
    fflush(stdout);
    tcsetattr(STDIN_FILENO, TCSANOW, &t->saved);
}

static void on_connection(struct pushrod_client *c, bool up, const char *text)
{
    const struct cli *cli = pushrod_client_data(c);
    if (up)
        return;
    if (isatty(STDOUT_FILENO))
        printf("\033[H\033[7m%s; trying again\033[0m\033[K", text);
    else
        fprintf(stderr, "pushrod %s: %s; trying again\n", cli->command->name, text);
    fflush(stdout);
}

/* True: q was pressed. */
static bool quit_pressed(void)
{
    char keys[16];
    ssize_t n = read(STDIN_FILENO, keys, sizeof keys);
    for (ssize_t i = 0; i < n; i++)
        if (keys[i] == 'q' || keys[i] == 'Q' || keys[i] == 4)
            return true;
    return n == 0;
}

/* Waits for the next look. 0, or a negative error; 1: the user leaves. */
static int pause_until(struct top *t, uint64_t until)
{
    for (;;) {
        uint64_t now = clock_mono_ns();
        struct pollfd fds[2] = {{.fd = pushrod_client_fd(t->cli->client), .events = POLLIN},
            {.fd = t->terminal ? STDIN_FILENO : -1, .events = POLLIN}};
        if (now >= until)
            return 0;
        poll(fds, 2, (int)((until - now) / 1000000) + 1);
        if (fds[1].revents && quit_pressed())
            return 1;
        int error = pushrod_client_process(t->cli->client, 0);
        if (error)
            return error;
    }
}

/* The terminal is put back on every way out but a second interrupt. */
int cmd_top(struct cli *cli)
{
    static const struct pushrod_client_events events = {.connection = on_connection};
    uint64_t count = params_number(cli->p, "count");
    uint64_t interval = params_number(cli->p, "interval") * 1000000;
    int code = cli_open(cli);
    struct top *t = code ? NULL : calloc(1, sizeof *t);
    if (!t)
        return code ? code : EXIT_REFUSED;
    pushrod_client_on(cli->client, &events);
    t->cli = cli;
    terminal_begin(t);
    int error = 0;
    for (uint64_t looks = 1; !error; looks++) {
        error = look(t);
        if (!error)
            show(t);
        if (!error && count && looks == count)
            break;
        if (!error && !t->terminal && (!count || looks < count))
            putchar('\n');
        if (!error)
            error = pause_until(t, t->looked_ns + interval);
    }
    buf_free(&t->queues.cells);
    buf_free(&t->workers.cells);
    terminal_end(t);
    free(t);
    return error < 0 ? cli_error(cli, error) : EXIT_OK;
}
