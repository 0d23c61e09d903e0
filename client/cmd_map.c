/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_map: pushrod map: its flags, its loop, its end. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/interrupt.h"
#include "client/map.h"
#include "common/clock.h"

#define STOP_NS  UINT64_C(5000000000) /* for the server to say that what was cancelled has ended */
#define QUIET_NS UINT64_C(1000000000) /* without an end, until the reason is told */

/* ---------------------------------------------------------------------------------- flags */

/* A terminal is ours alone unless the results go to another program: it may draw there, as less
 * does. */
static bool may_draw(void)
{
    struct stat out;
    if (!isatty(STDERR_FILENO))
        return false;
    return fstat(STDOUT_FILENO, &out) != 0 || !S_ISFIFO(out.st_mode);
}

/* All that can be wrong is said before the server is asked. */
static int read_flags(struct map *m)
{
    struct cli *cli = m->cli;
    const struct params *p = cli->p;
    const char *delimiter = params_text(p, "delimiter");
    m->queue = cli->operands[0];
    m->files = params_bool(p, "files");
    m->tag = params_bool(p, "tag");
    m->json = params_bool(p, "json");
    m->unordered = params_bool(p, "unordered");
    m->detach = params_bool(p, "detach");
    m->jobs = params_number(p, "jobs");
    if (!m->jobs)
        m->jobs = MAP_JOBS;
    m->results = params_text(p, "results");
    m->progress = params_given(p, "progress") ? params_bool(p, "progress") : may_draw();
    m->input.delimiter = params_bool(p, "null") ? '\0' : '\n';
    if (*delimiter && !input_delimiter(delimiter, &m->input.delimiter))
        return cli_usage(
            cli, "--delimiter '%s' must be one character, or \\n \\t \\0 \\xHH", delimiter);
    if (m->json && m->tag)
        return cli_usage(cli, "--json has the input already: it cannot go with --tag");
    if (!halt_parse(params_text(p, "halt"), &m->halt))
        return cli_usage(cli,
            "--halt '%s' must be never, or now|soon,fail|success|done=N or N%%, as in now,fail=1",
            params_text(p, "halt"));
    if (cli->count > 1) {
        m->input.arguments = cli->operands + 1;
        m->input.argument_count = (size_t)cli->count - 1;
    }
    if (m->halt.percent || m->progress)
        m->total = input_count(&m->input);
    if (m->halt.percent && m->halt.on == HALT_DONE && !m->total)
        return cli_usage(cli,
            "--halt %s: how many inputs a pipe will bring is not known; give a file, or a number",
            params_text(p, "halt"));
    int code = task_options_read(cli, &m->task);
    m->task.options.max_attempts = (unsigned)params_number(p, "retries");
    return code;
}

/* ---------------------------------------------------------------------------------- reading */

/* A new job for the input, unless an earlier run has done it. */
static bool take_input(struct map *m, struct slice input, bool too_long)
{
    bool left_out = !too_long && map_log_has(m, m->next, input);
    /* What is not sent counts in no bound: nothing of it is remembered. */
    struct slice kept = left_out ? (struct slice){0} : too_long ? slice_str("...") : input;
    if (!map_job_new(m, kept))
        return false;
    struct job *job = map_job(m, m->next - 1);
    m->left_out += left_out;
    if (left_out)
        map_job_drop(m, job);
    else if (too_long)
        map_job_fail(
            m, job, PUSHROD_E_TOO_BIG, "the input has more than %zu bytes", m->input.limit);
    return true;
}

/*
 * Three bounds: what is in flight, the bytes of it, and how far results may run ahead of their
 * turn.
 */
static bool has_room(const struct map *m)
{
    if (m->in_flight + m->ready >= m->jobs || m->in_flight_bytes >= MAP_BYTES)
        return false;
    return m->unordered ||
           (m->next - m->first < MAP_AHEAD * m->jobs && m->waiting_bytes < MAP_BYTES);
}

/* Sends what was refused before. */
static int send_again(struct map *m)
{
    int error = 0;
    if (!m->ready || clock_mono_ns() < m->retry_ns || !pushrod_client_connected(m->cli->client))
        return 0;
    for (uint64_t i = m->first; !error && m->ready && i < m->next; i++)
        if (map_job(m, i)->state == JOB_READY)
            error = map_job_send(m, map_job(m, i));
    return error;
}

/* Reads inputs that are there, and submits them. *wants: more input would be of use. */
static int read_inputs(struct map *m, bool *wants)
{
    struct slice line = {0};
    *wants = false;
    while (!m->no_more && has_room(m)) {
        enum input_result result = input_next(&m->input, &line);
        if (result == INPUT_AGAIN) {
            *wants = true;
            return 0;
        }
        if (result == INPUT_FAILED) {
            cli_say(m->cli, "cannot read standard input: %s", strerror(m->input.why));
            m->fatal = EXIT_TASK_FAILED;
        }
        if (result == INPUT_END || result == INPUT_FAILED) {
            m->no_more = true;
            if (!m->total) /* it came through a pipe; from here on the bar knows how much is left */
                m->total = m->finished + m->left_out + m->in_flight + m->ready;
            return 0;
        }
        uint64_t seq = m->next;
        if (!take_input(m, line, result == INPUT_TOO_LONG))
            return -PUSHROD_E_NO_MEMORY;
        struct job *job = map_job(m, seq);
        int error = seq >= m->first && job->state == JOB_READY ? map_job_send(m, job) : 0;
        if (error)
            return error;
    }
    return 0;
}

/* ---------------------------------------------------------------------------------- the loop */

/* How many come through a pipe is known when its end was read: the sooner the better for the bar.
 */
static bool wants_end(const struct map *m)
{
    return m->progress && !m->total && !m->no_more && input_may_read_ahead(&m->input);
}

static void read_more(struct map *m)
{
    bool ahead = wants_end(m);
    input_fill(&m->input);
    if (ahead && m->input.eof)
        m->total = m->next - 1 + input_left(&m->input);
}

/* Waits for the server or, if more input is of use, for that. */
static int wait_for_something(struct map *m, bool wants)
{
    struct pollfd fds[2] = {{.fd = pushrod_client_fd(m->cli->client), .events = POLLIN},
        {.fd = wants || wants_end(m) ? m->input.fd : -1, .events = POLLIN}};
    pushrod_client_flush(m->cli->client);
    poll(fds, 2, 100); /* the progress bar moves, and jobs that were refused are tried again */
    if (fds[1].revents)
        read_more(m);
    return pushrod_client_process(m->cli->client, 0);
}

/* The first that was accepted and has not ended; 0: none. */
static uint64_t oldest(struct map *m)
{
    for (uint64_t i = m->first; i < m->next; i++)
        if (map_job(m, i)->state == JOB_SENT && map_job(m, i)->id)
            return map_job(m, i)->id;
    return 0;
}

/* With nothing in flight it is the tasks of others that have to end first. */
static void tell_why(struct map *m)
{
    uint64_t now = clock_mono_ns();
    bool refused = m->ready && *m->refused;
    if ((!m->in_flight && !refused) || m->stopping || now - m->moved_ns < QUIET_NS)
        return;
    m->moved_ns = now;
    if (refused)
        why_refused(m->cli, &m->why_refused, m->queue, m->refused);
    why_explain(m->cli, &m->why, m->queue, oldest(m));
}

/* A fatal error or `now` cancels what runs; `soon` only reads no more. */
static void check_stop(struct map *m)
{
    if (m->fatal && !m->stopping)
        map_stop(m);
    if (m->fatal || m->halted || !halt_reached(m))
        return;
    m->halted = true;
    m->no_more = true;
    if (m->halt.now)
        map_stop(m);
}

static bool is_over(const struct map *m)
{
    return m->no_more && !m->in_flight && !m->ready;
}

/* Until everything has ended. 0, or an exit code. */
static int loop(struct map *m)
{
    uint64_t stop_ns = UINT64_MAX;
    bool wants;
    while (!is_over(m)) {
        int error = m->stopping ? 0 : send_again(m);
        wants = false;
        if (!error)
            error = read_inputs(m, &wants);
        if (!error && !is_over(m))
            error = wait_for_something(m, wants);
        if (error == -PUSHROD_E_INTERRUPTED) {
            m->fatal = EXIT_INTERRUPTED;
            error = 0;
        }
        if (error)
            return cli_error(m->cli, error);
        check_stop(m);
        if (m->stopping && stop_ns == UINT64_MAX)
            stop_ns = clock_mono_ns() + STOP_NS;
        if (clock_mono_ns() >= stop_ns)
            break;
        tell_why(m);
        map_progress(m, false);
        map_flush(m);
    }
    return 0;
}

/* ---------------------------------------------------------------------------------- events */

static void on_data(struct pushrod_client *c, uint64_t id, const void *data, size_t size, void *arg)
{
    const struct cli *cli = pushrod_client_data(c);
    struct map *m = cli->state;
    (void)id, (void)arg;
    if (!m->unordered || m->json || m->stopping)
        return; /* a chunk is no line of JSON */
    if (m->drawn && isatty(STDOUT_FILENO))
        map_progress_erase(m);
    fwrite(data, 1, size, stdout);
}

static void on_attempt(struct pushrod_client *c, const struct pushrod_attempt *a, void *arg)
{
    const struct cli *cli = pushrod_client_data(c);
    struct map *m = cli->state;
    uint64_t seq = (uint64_t)(uintptr_t)arg;
    char what[96];
    if (seq < m->first || seq >= m->next || !map_job(m, seq)->input || !a->retry_ms)
        return; /* the last attempt is told with the failure */
    const struct job *job = map_job(m, seq);
    struct buf input = BUF_EMPTY;
    text_clean(&input, job->input, job->input_size, 40);
    snprintf(what, sizeof what, "input %" PRIu64 " '%s'", seq, buf_text(&input));
    buf_free(&input);
    why_attempt(m->cli, what, a);
}

/* ---------------------------------------------------------------------------------- the end */

static void map_free(struct map *m)
{
    for (uint64_t i = m->first; m->window && i < m->next; i++) {
        struct job *job = map_job(m, i);
        free(job->input);
        buf_free(&job->result);
        buf_free(&job->text);
    }
    free(m->window);
    buf_free(&m->failures);
    input_free(&m->input);
    map_log_close(m);
    task_options_free(&m->task);
}

/* The last word on standard error: what failed. The exit code says the same. A bar that did not
 * get to its end goes with map_report(). */
static int finish(struct map *m, int code)
{
    char count[TEXT_SIZE];
    map_flush(m);
    if (m->progress && !code && !m->fatal) {
        map_progress(m, true);
        /* The full bar stays; what comes after it begins on a line of its own. */
        fputc('\n', stderr);
        m->drawn = false;
    }
    map_report(m);
    const char *many = m->finished == 1 ? "" : "s";
    if (m->fatal == EXIT_INTERRUPTED)
        cli_say(m->cli, "interrupted after %s task%s", text_count(count, m->finished), many);
    else if (m->halted)
        cli_say(m->cli, "stopped after %s task%s: --halt %s", text_count(count, m->finished), many,
            params_text(m->cli->p, "halt"));
    if (code || m->fatal)
        return code ? code : m->fatal;
    /* Who asked for so many successes has them. */
    if (m->halted && m->halt.on == HALT_SUCCESS)
        return EXIT_OK;
    return m->failed ? EXIT_TASK_FAILED : EXIT_OK;
}

/* Connected first: the limits of the server are those of the inputs. */
static int map_run(struct map *m)
{
    static const struct pushrod_client_events events = {.accepted = map_on_accepted,
        .finish = map_on_finish,
        .attempt = on_attempt,
        .data = on_data,
        .connection = cli_connection};
    int code = cli_open(m->cli);
    if (code)
        return code;
    m->input.limit = (size_t)pushrod_client_server(m->cli->client)->max_payload;
    m->began_ns = m->moved_ns = clock_mono_ns();
    if (getrandom(&m->run_id, sizeof m->run_id, 0) != sizeof m->run_id)
        m->run_id = m->began_ns;
    m->cli->erase = map_progress_erase;
    m->cli->erase_arg = m->cli->state = m;
    pushrod_client_on(m->cli->client, &events);
    code = finish(m, loop(m));
    m->cli->erase = NULL;
    return code;
}

int cmd_map(struct cli *cli)
{
    struct map m = {
        .cli = cli, .first = 1, .next = 1, .input = {.fd = STDIN_FILENO}, .why = {.many = true}};
    int code = read_flags(&m);
    if (!code)
        code = map_log_open(&m);
    if (!code)
        code = map_results_begin(&m);
    if (!code)
        code = map_run(&m);
    /* No event may come for jobs that are gone. */
    if (cli->client)
        pushrod_client_on(cli->client, NULL);
    map_free(&m);
    return code;
}
