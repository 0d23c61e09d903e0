/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_top: pushrod top: queues and workers, looked at again and again. */
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "client/rows.h"
#include "client/top.h"
#include "common/clock.h"

/* ---------------------------------------------------------------------------------- looking */

static struct top_past *past_of(struct top *t, const char *name)
{
    for (size_t i = 0; i < t->past_count; i++)
        if (strcmp(t->past[i].name, name) == 0)
            return &t->past[i];
    if (t->past_count == TOP_QUEUES)
        return NULL;
    struct top_past *p = &t->past[t->past_count++];
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
    struct top_past *p = past_of(t, q->name);
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

static void queue_row(struct top *t, const struct pushrod_queue_info *q, double rate)
{
    char text[TEXT_SIZE];
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

static void on_queue(const struct pushrod_queue_info *q, void *arg)
{
    struct top *t = arg;
    double rate = rate_of(t, q);
    t->ready += q->ready;
    t->delayed += q->delayed;
    t->leased += q->leased;
    t->dead += q->dead;
    t->rate += rate < 0 ? 0 : rate;
    if (!t->json) {
        queue_row(t, q, rate);
        return;
    }
    json_t *o = json_object_of(JSON_QUEUE, q);
    json_object_set_new(o, "per_second", json_rate(rate));
    json_array_append_new(t->json_queues, o);
}

static void on_worker(const struct pushrod_worker_info *w, void *arg)
{
    struct top *t = arg;
    t->slots += w->slots;
    t->busy += w->outstanding < w->slots ? w->outstanding : w->slots;
    t->worker_count++;
    if (t->json)
        json_array_append_new(t->json_workers, json_object_of(JSON_WORKER, w));
    else
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
    json_array_clear(t->json_queues);
    json_array_clear(t->json_workers);
    int64_t rows = pushrod_client_queues(t->cli->client, NULL, on_queue, t);
    if (rows >= 0)
        rows = pushrod_client_workers(t->cli->client, NULL, on_worker, t);
    return rows < 0 ? (int)rows : 0;
}

/* ---------------------------------------------------------------------------------- showing */

static void show_json(const struct top *t)
{
    const struct pushrod_server_info *server = pushrod_client_server(t->cli->client);
    struct json_look look = {clock_now().wall_ms, server->address, server->software,
        t->seconds > 0 ? t->rate : -1, t->json_queues, t->json_workers};
    json_print_row(JSON_LOOK, &look);
}

/* A terminal is drawn over, anything else gets one report after the other. */
static void show(struct top *t)
{
    if (t->json) {
        show_json(t);
    } else {
        top_compose(t, t->terminal ? terminal_width(STDOUT_FILENO) : 0);
        if (t->terminal)
            top_draw(t);
        else
            top_print(t);
    }
    fflush(stdout);
}

/* ---------------------------------------------------------------------------------- the terminal
 */

/* Without line mode, so that a q needs no return; but for ^Z, signals stay as they are. */
static void terminal_begin(struct top *t)
{
    t->terminal = !t->json && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) &&
                  tcgetattr(STDIN_FILENO, &t->saved) == 0;
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
    const struct top *t = cli->state;
    if (up)
        return;
    if (t->terminal)
        printf("\033[H\033[7m%s; trying again\033[0m\033[K", text);
    else
        fprintf(stderr, "pushrod %s: %s; trying again\n", cli->command->name, text);
    fflush(stdout);
}

/* What terminals send for keys. */
static const struct {
    const char *text;
    enum top_key key;
} keys[] = {{"\033[A", TOP_UP}, {"\033OA", TOP_UP}, {"k", TOP_UP}, {"\033[B", TOP_DOWN},
    {"\033OB", TOP_DOWN}, {"j", TOP_DOWN}, {"\033[5~", TOP_PAGE_UP}, {"b", TOP_PAGE_UP},
    {"\033[6~", TOP_PAGE_DOWN}, {" ", TOP_PAGE_DOWN}, {"\033[H", TOP_FIRST}, {"\033OH", TOP_FIRST},
    {"\033[1~", TOP_FIRST}, {"g", TOP_FIRST}, {"\033[F", TOP_LAST}, {"\033OF", TOP_LAST},
    {"\033[4~", TOP_LAST}, {"G", TOP_LAST}, {"\t", TOP_OTHER}};

/* Size of a key that means nothing here; its last byte could be taken for a letter. */
static size_t key_unknown(const char *typed)
{
    size_t size = 2;
    if (strncmp(typed, "\033[", 2) != 0)
        return 1;
    while (typed[size] && (typed[size] < 0x40 || typed[size] > 0x7e))
        size++;
    return typed[size] ? size + 1 : size;
}

/* Does what the first key of the text asks for; its size. */
static size_t key_press(struct top *t, const char *typed)
{
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        size_t size = strlen(keys[i].text);
        if (strncmp(typed, keys[i].text, size) != 0)
            continue;
        top_move(t, keys[i].key);
        return size;
    }
    return key_unknown(typed);
}

/* Moves what is shown by the keys that were pressed. True: one of them was q. */
static bool quit_pressed(struct top *t)
{
    char typed[64];
    ssize_t n = read(STDIN_FILENO, typed, sizeof typed - 1);
    if (n <= 0)
        return n == 0;
    typed[n] = '\0';
    for (const char *at = typed; *at; at += key_press(t, at))
        if (*at == 'q' || *at == 'Q' || *at == 4)
            return true;
    top_draw(t);
    fflush(stdout);
    return false;
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
        poll(fds, 2, clock_wait_ms(now, until));
        if (fds[1].revents && quit_pressed(t))
            return 1;
        int error = pushrod_client_process(t->cli->client, 0);
        if (error)
            return error;
    }
}

/* One look after the other. 0, or a negative error; 1: the user leaves. */
static int top_run(struct top *t)
{
    uint64_t count = params_number(t->cli->p, "count");
    uint64_t interval = params_number(t->cli->p, "interval") * NS_PER_MS;
    int error = 0;
    for (uint64_t looks = 1; !error; looks++) {
        error = look(t);
        if (!error)
            show(t);
        if (!error && ((count && looks == count) || ferror(stdout)))
            break; /* what cannot be written main() says */
        if (!error && !t->terminal && !t->json && (!count || looks < count))
            putchar('\n');
        if (!error)
            error = pause_until(t, t->looked_ns + interval);
    }
    return error;
}

/* The terminal is put back on every way out but a second interrupt. */
int cmd_top(struct cli *cli)
{
    static const struct pushrod_client_events events = {.connection = on_connection};
    int code = cli_open(cli);
    struct top *t = code ? NULL : calloc(1, sizeof *t);
    if (!t)
        return code ? code : EXIT_REFUSED;
    pushrod_client_on(cli->client, &events);
    t->cli = cli;
    cli->state = t;
    t->json = params_bool(cli->p, "json");
    t->json_queues = json_array();
    t->json_workers = json_array();
    terminal_begin(t);
    int error = top_run(t);
    terminal_end(t);
    top_free(t);
    json_decref(t->json_queues);
    json_decref(t->json_workers);
    free(t);
    return error < 0 ? cli_error(cli, error) : EXIT_OK;
}
