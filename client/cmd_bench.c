/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_bench: pushrod bench: how many tasks a second, and how long does one take.
 *
 * First all tasks as fast as they go with a bound on those in flight, then some one at a time. A
 * latency is from the submission to the finish as this client sees both.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "client/command.h"
#include "client/interrupt.h"
#include "common/clock.h"

struct bench {
    struct cli *cli;
    struct pushrod_submission task;
    uint64_t count, in_flight; /* of this phase */
    uint64_t sent, accepted, finished, failed, refused;
    uint64_t *begun;   /* by number of the task, ns */
    uint64_t *latency; /* of those that finished, ns */
    int error;         /* of the last refusal */
    char error_text[256];
    struct why why;
    uint64_t moved_ns; /* when the last one finished */
};

/* The number of a task goes through the library as its argument; + 1, since NULL means none. */
static void on_accepted(
    struct pushrod_client *c, uint64_t id, int error, const char *text, void *arg)
{
    struct cli *cli = pushrod_client_data(c);
    struct bench *b = cli->state;
    (void)id, (void)arg;
    if (!error) {
        b->accepted++;
        return;
    }
    b->refused++;
    b->error = error;
    snprintf(b->error_text, sizeof b->error_text, "%s", text);
}

static void on_finish(struct pushrod_client *c, const struct pushrod_finish *f, void *arg)
{
    struct cli *cli = pushrod_client_data(c);
    struct bench *b = cli->state;
    uint64_t number = (uint64_t)(uintptr_t)arg - 1;
    b->moved_ns = clock_mono_ns();
    b->latency[b->finished++] = b->moved_ns - b->begun[number];
    b->failed += f->status != PUSHROD_DONE;
}

/* Closed loop: the next task goes when one has come back, so the bound is what is in flight. */
static int send_some(struct bench *b)
{
    while (b->sent < b->count && b->sent - b->finished - b->refused < b->in_flight) {
        b->task.arg = (void *)(uintptr_t)(b->sent + 1);
        b->begun[b->sent] = clock_mono_ns();
        int error = pushrod_client_submit_async(b->cli->client, &b->task);
        if (error == -PUSHROD_E_OVERLOADED)
            return 0;
        if (error)
            return error;
        b->sent++;
    }
    return 0;
}

/* Runs one phase. 0, or a negative error. */
static int run(struct bench *b, uint64_t count, uint64_t in_flight)
{
    b->count = count;
    b->in_flight = in_flight;
    b->sent = b->accepted = b->finished = b->failed = b->refused = 0;
    b->moved_ns = clock_mono_ns();
    int error = 0;
    while (!error && !b->error && b->finished + b->refused < count) {
        error = send_some(b);
        if (!error)
            error = pushrod_client_process(b->cli->client, 1000);
        if (!error && clock_mono_ns() - b->moved_ns > UINT64_C(1000000000))
            why_explain(b->cli, &b->why, b->task.queue, 0);
    }
    return error;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Of the sorted latencies; exact, since every one was kept. */
static uint64_t percentile(const struct bench *b, double part)
{
    size_t place = (size_t)(part * (double)b->finished);
    return b->finished ? b->latency[place < b->finished ? place : b->finished - 1] : 0;
}

static const double parts[] = {0.5, 0.9, 0.99, 0.999, 1.0};
static const char *const part_names[] = {"p50", "p90", "p99", "p999", "max"};

static void print_phase(struct bench *b, const char *name, uint64_t ns, bool json)
{
    char rate[TEXT_SIZE], text[TEXT_SIZE];
    double seconds = (double)ns / 1e9;
    qsort(b->latency, b->finished, sizeof *b->latency, compare);
    if (json) {
        json_print_row(JSON_PHASE,
            &(struct json_phase){name, b->finished, b->failed, ns, (double)b->finished / seconds,
                percentile(b, parts[0]), percentile(b, parts[1]), percentile(b, parts[2]),
                percentile(b, parts[3]), percentile(b, parts[4])});
        return;
    }
    printf("%-12s %s tasks in %.2f s: %s;  latency", name, text_count(text, b->finished), seconds,
        text_rate(rate, (double)b->finished / seconds));
    for (size_t i = 0; i < 5; i++)
        printf(" %s %s", part_names[i], text_ns(text, percentile(b, parts[i])));
    putchar('\n');
    if (b->failed)
        printf("%-12s %s of them failed\n", "", text_count(text, b->failed));
    fflush(stdout);
}

static int run_phase(struct bench *b, const char *name, uint64_t count, uint64_t in_flight)
{
    if (count == 0)
        return EXIT_OK;
    uint64_t begin = clock_mono_ns();
    int error = run(b, count, in_flight);
    if (error)
        return cli_error(b->cli, error);
    if (b->error) {
        cli_say(b->cli, "cannot submit to '%s': %s", b->task.queue, b->error_text);
        return cli_exit_code(b->error);
    }
    print_phase(b, name, clock_mono_ns() - begin, params_bool(b->cli->p, "json"));
    return b->failed ? EXIT_TASK_FAILED : EXIT_OK;
}

static int bench_run(struct bench *b)
{
    const struct params *p = b->cli->p;
    static const struct pushrod_client_events events = {
        .accepted = on_accepted, .finish = on_finish, .connection = cli_connection};
    uint64_t most = params_number(p, "count"), trips = params_number(p, "round-trips");
    most = most > trips ? most : trips;
    b->begun = calloc(most, sizeof *b->begun);
    b->latency = calloc(most, sizeof *b->latency);
    if (!b->begun || !b->latency)
        return EXIT_REFUSED;
    pushrod_client_on(b->cli->client, &events);
    int code = run_phase(b, "throughput", params_number(p, "count"), params_number(p, "in-flight"));
    return code ? code : run_phase(b, "round trip", trips, 1);
}

int cmd_bench(struct cli *cli)
{
    struct bench b = {.cli = cli};
    size_t size = (size_t)params_number(cli->p, "size");
    char *payload = calloc(1, size + 1);
    int code = payload ? cli_open(cli) : EXIT_REFUSED;
    if (!code) {
        b.task = (struct pushrod_submission){.queue = params_text(cli->p, "queue"),
            .data = payload,
            .size = size,
            .follow = PUSHROD_FOLLOW_FINISH,
            .attached = true};
        cli->state = &b;
        code = bench_run(&b);
    }
    free(b.begun);
    free(b.latency);
    free(payload);
    return code;
}
