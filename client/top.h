/* SPDX-License-Identifier: Apache-2.0 */
/*
 * top: what `pushrod top` has seen, and what of it is on the screen.
 *
 *   cmd_top.c    looks at the server, again and again; the terminal and its keys
 *   top_draw.c   makes lines of a look, and shows those that the screen has room for
 */
#ifndef CLIENT_TOP_H
#define CLIENT_TOP_H

#include <termios.h>

#include "client/command.h"

#define TOP_QUEUES 512 /* of which rates are shown */

/* What a queue had finished at the last look. */
struct top_past {
    char name[PUSHROD_MAX_QUEUE_NAME + 1];
    uint64_t finished;
};

/* One of the two tables, as text: a line of titles, then the rows. */
struct top_section {
    const char *what; /* "queues" */
    struct buf text;
    size_t rows;
    size_t first; /* row that is shown at the top; what the keys move */
    size_t shown; /* rows, at the last drawing */
};

enum { TOP_QUEUE_LIST, TOP_WORKER_LIST, TOP_SECTIONS };

struct top {
    struct cli *cli;
    bool terminal, json;
    struct termios saved;
    struct top_past past[TOP_QUEUES];
    size_t past_count;
    uint64_t looked_ns; /* when the last look was; 0: never */
    double seconds;     /* since the last look */
    /* of this look */
    struct table queues, workers;
    json_t *json_queues, *json_workers;
    uint64_t ready, delayed, leased, dead, slots, busy, worker_count;
    double rate;
    /* as it is shown */
    struct buf head;
    struct top_section sections[TOP_SECTIONS];
    unsigned focus; /* section that the keys move */
};

enum top_key { TOP_UP, TOP_DOWN, TOP_PAGE_UP, TOP_PAGE_DOWN, TOP_FIRST, TOP_LAST, TOP_OTHER };

void top_compose(struct top *t, unsigned width); /* lines of what was seen; 0: of any width */
void top_print(const struct top *t);             /* all of them */
void top_draw(struct top *t);                    /* those that the screen has room for */
void top_move(struct top *t, enum top_key key);  /* shows other rows at the next drawing */
void top_free(struct top *t);                    /* what these have made */

#endif
