/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load_options.h"

#include <err.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { TEXT, U64, SIZE, UNSIGNED, REAL, BOOL };

#define ROW(name, kind, field, text)                                                               \
    {                                                                                              \
        name, kind, offsetof(struct load_options, field), text                                     \
    }

static const struct row {
    const char *name;
    enum kind kind;
    size_t at;
    const char *text;
} rows[] = {
    ROW("address", TEXT, address, "HOST:PORT of the system"),
    ROW("queue", TEXT, queue, "its queue"),
    ROW("mode", TEXT, mode, "run, submit, backlog or open"),
    ROW("variant", TEXT, variant, "the driver's own"),
    ROW("pids", TEXT, pids, "GROUP:PID+PID,...: whose CPU time counts"),
    ROW("count", U64, count, "tasks; 0: as many as fit in the time"),
    ROW("window", U64, window, "tasks in flight"),
    ROW("seed", U64, seed, "of arrivals and long tasks"),
    ROW("size", SIZE, size, "bytes of a payload, from 16"),
    ROW("conns", SIZE, conns, "connections that submit"),
    ROW("burst", SIZE, burst, "tasks in a row on one connection"),
    ROW("idle", SIZE, idle, "connections that do nothing"),
    ROW("seconds", REAL, seconds, "to measure"),
    ROW("warmup", REAL, warmup, "seconds before that"),
    ROW("rate", REAL, rate, "open: tasks per second"),
    ROW("long-share", REAL, long_share, "open: of tasks that take long"),
    ROW("long-us", U64, long_us, "their work"),
    ROW("short-us", U64, short_us, "the work of the others"),
    ROW("delay-ms", U64, delay_ms, "before a task may run"),
    ROW("keep-ms", U64, keep_ms, "to keep a result"),
    ROW("batch", UNSIGNED, batch, "tasks in one message"),
    ROW("workers", UNSIGNED, workers, "that the driver starts itself"),
    ROW("queues", UNSIGNED, queues, "to spread tasks over"),
    ROW("no-result", BOOL, no_result, "1: nobody waits for results"),
};

static void set(struct load_options *o, const struct row *row, const char *value)
{
    void *field = (char *)o + row->at;
    switch (row->kind) {
    case TEXT:
        *(const char **)field = value;
        break;
    case U64:
        *(uint64_t *)field = strtoull(value, NULL, 10);
        break;
    case SIZE:
        *(size_t *)field = strtoull(value, NULL, 10);
        break;
    case UNSIGNED:
        *(unsigned *)field = (unsigned)strtoul(value, NULL, 10);
        break;
    case REAL:
        *(double *)field = strtod(value, NULL);
        break;
    case BOOL:
        *(bool *)field = strcmp(value, "1") == 0;
        break;
    }
}

static void set_by_name(struct load_options *o, const char *text)
{
    const char *equals = strchr(text, '=');
    for (size_t i = 0; equals && i < sizeof rows / sizeof *rows; i++) {
        size_t size = strlen(rows[i].name);
        if (strncmp(text, "--", 2) == 0 && (size_t)(equals - text) == size + 2 &&
            memcmp(text + 2, rows[i].name, size) == 0) {
            set(o, &rows[i], equals + 1);
            return;
        }
    }
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        fprintf(stderr, "  --%s=  %s\n", rows[i].name, rows[i].text);
    errx(2, "there is no option %s", text);
}

void load_options_read(struct load_options *o, int argc, char **argv)
{
    *o = (struct load_options){.address = "127.0.0.1:5570",
        .queue = "bench",
        .mode = "run",
        .variant = "",
        .pids = "",
        .window = 1000,
        .seed = 1,
        .size = 64,
        .conns = 1,
        .burst = 1,
        .seconds = 1,
        .warmup = 0.2,
        .rate = 1000,
        .workers = 4,
        .queues = 1};
    for (int i = 2; i < argc; i++)
        set_by_name(o, argv[i]);
    if (o->size < LOAD_MIN_PAYLOAD || !o->conns || !o->window || !o->burst || !o->queues)
        errx(
            2, "size is at least %d; conns, burst, window and queues at least 1", LOAD_MIN_PAYLOAD);
    if (o->burst > o->window)
        o->burst = o->window;
}
