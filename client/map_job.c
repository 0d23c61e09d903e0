/* SPDX-License-Identifier: Apache-2.0 */
/* map_job: a job's way from its input to its finish. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "client/input.h"
#include "client/map.h"
#include "common/clock.h"

/* Until a job that the server had no room for is sent again. */
#define RETRY_NS UINT64_C(100000000)

/*
 * How long the key of a detached task holds. The library sends it again as long as it dials, 60 s,
 * after it has noticed that the connection is lost; the server keeps each key so long.
 */
#define KEY_MS   90000u
#define KEY_SIZE 64

/* ---------------------------------------------------------------------------------- the ring */

struct job *map_job(struct map *m, uint64_t seq)
{
    return &m->window[seq & m->mask];
}

/* Jobs move; callbacks find theirs by number, never by address. */
static bool window_grow(struct map *m)
{
    size_t size = m->window ? (m->mask + 1) * 2 : 1024;
    struct job *window = calloc(size, sizeof *window);
    if (!window)
        return false;
    for (uint64_t i = m->first; i < m->next; i++)
        window[i & (size - 1)] = *map_job(m, i);
    free(m->window);
    m->window = window;
    m->mask = size - 1;
    return true;
}

bool map_job_new(struct map *m, struct slice input)
{
    if ((!m->window || m->next - m->first > m->mask) && !window_grow(m))
        return false;
    struct job *job = map_job(m, m->next);
    *job = (struct job){.seq = m->next, .state = JOB_READY, .input_size = input.size};
    job->input = malloc(input.size + 1);
    if (!job->input)
        return false;
    if (input.size)
        memcpy(job->input, input.data, input.size);
    job->input[input.size] = '\0';
    m->next++;
    m->ready++;
    return true;
}

/* ---------------------------------------------------------------------------------- the end */

/* The one way out of flight: the counts and the state change together. */
static void job_end(struct map *m, struct job *job)
{
    if (job->state == JOB_SENT) {
        m->in_flight--;
        m->in_flight_bytes -= job->payload_size;
    } else if (job->state == JOB_READY) {
        m->ready--;
    }
    job->state = JOB_ENDED;
    if (job->began_ns)
        job->took_ns = clock_mono_ns() - job->began_ns;
    map_ended(m, job);
}

void map_job_fail(struct map *m, struct job *job, int error, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    job->error = error;
    job->status = 0;
    buf_clear(&job->text);
    buf_append(&job->text, text, strlen(text));
    job_end(m, job);
}

void map_job_drop(struct map *m, struct job *job)
{
    job->dropped = true;
    job_end(m, job);
}

/* ---------------------------------------------------------------------------------- sending */

/* Behind a "-" among names that come through standard input are the other names. */
static const char *path_of(const struct map *m, const struct job *job)
{
    bool a_name = !m->input.arguments && strcmp(job->input, "-") == 0;
    return a_name ? "./-" : job->input;
}

/* The payload: the input itself, or what is in the file that it names. False: the job has failed.
 */
static bool read_payload(struct map *m, struct job *job, struct buf *to, struct slice *payload)
{
    size_t limit = (size_t)pushrod_client_server(m->cli->client)->max_payload;
    *payload = slice_of(job->input, job->input_size);
    if (m->files) {
        int why =
            strlen(job->input) != job->input_size ? EINVAL : input_read(to, path_of(m, job), limit);
        if (why) {
            map_job_fail(m, job, PUSHROD_E_SYSTEM, "cannot read it: %s", strerror(why));
            return false;
        }
        *payload = slice_of(to->data, to->size);
    }
    if (payload->size <= limit)
        return true;
    map_job_fail(m, job, PUSHROD_E_TOO_BIG, "the payload has more than %zu bytes", limit);
    return false;
}

/*
 * Options of this job: a detached one has a key, so that a lost answer does not make it run twice.
 * It outlasts the task: one that had ended before it is sent again would be taken for a new one.
 */
static struct pushrod_options options_of(
    const struct map *m, const struct job *job, char key[KEY_SIZE])
{
    struct pushrod_options options = m->task.options;
    if (!m->detach)
        return options;
    snprintf(key, KEY_SIZE, "map-%016" PRIx64 "-%" PRIu64, m->run_id, job->seq);
    options.unique_key = key;
    options.unique_ms = KEY_MS;
    return options;
}

/* Progress and failed attempts cost messages: only where they will be shown. */
static bool follows_all(const struct map *m)
{
    return m->unordered || m->task.options.max_attempts > 1;
}

/* A file is read when its turn comes, so that only what is in flight is in memory. */
int map_job_send(struct map *m, struct job *job)
{
    struct buf file = BUF_EMPTY;
    struct slice payload;
    char key[KEY_SIZE];
    struct pushrod_options options = options_of(m, job, key);
    if (!read_payload(m, job, &file, &payload)) {
        buf_free(&file);
        return 0;
    }
    struct pushrod_submission s = {
        .queue = m->queue,
        .data = payload.data,
        .size = payload.size,
        .options = &options,
        .follow = follows_all(m) ? PUSHROD_FOLLOW_ALL : PUSHROD_FOLLOW_FINISH,
        .attached = !m->detach,
        .arg = (void *)(uintptr_t)job->seq,
    };
    int error = pushrod_client_submit_async(m->cli->client, &s);
    buf_free(&file);
    if (error)
        return error == -PUSHROD_E_OVERLOADED ? 0 : error;
    job->state = JOB_SENT;
    job->id = 0;
    job->losses = m->cli->losses;
    job->payload_size = payload.size;
    if (!job->began_ns) {
        struct now now = clock_now();
        job->began_ns = now.mono_ns;
        job->began_wall_ms = now.wall_ms;
    }
    m->ready--;
    m->in_flight++;
    m->in_flight_bytes += payload.size;
    return 0;
}

/* Back to where it was before it was sent. */
static void job_again(struct map *m, struct job *job)
{
    m->in_flight--;
    m->in_flight_bytes -= job->payload_size;
    m->ready++;
    job->state = JOB_READY;
    job->id = 0;
}

/* ---------------------------------------------------------------------------------- answers */

static struct job *job_of(struct map *m, void *arg)
{
    uint64_t seq = (uint64_t)(uintptr_t)arg;
    struct job *job = seq >= m->first && seq < m->next ? map_job(m, seq) : NULL;
    return job && job->state == JOB_SENT ? job : NULL;
}

void map_on_accepted(struct pushrod_client *c, uint64_t id, int error, const char *text, void *arg)
{
    const struct cli *cli = pushrod_client_data(c);
    struct map *m = cli->state;
    struct job *job = job_of(m, arg);
    if (!job)
        return;
    if (!error) {
        job->id = id;
        m->refused[0] = '\0';
        if (m->stopping)
            pushrod_client_cancel_async(c, id);
        return;
    }
    switch (-error) {
    case PUSHROD_E_QUEUE_FULL:
    case PUSHROD_E_OVERLOADED:
    case PUSHROD_E_STORE_FAILED:
    case PUSHROD_E_STORE_FULL:
    case PUSHROD_E_DRAINING:
        snprintf(m->refused, sizeof m->refused, "%s", text);
        /* fallthrough */
    case PUSHROD_E_CLOSED: /* attached: the server cancelled whatever arrived */
        m->retry_ns = clock_mono_ns() + RETRY_NS;
        if (!m->stopping) {
            job_again(m, job);
            return;
        }
        map_job_drop(m, job);
        return;
    case PUSHROD_E_TOO_BIG:
        map_job_fail(m, job, -error, "%s", text);
        return;
    default:
        /* Refused for a reason that the next one has as well. */
        if (!m->fatal && !m->stopping)
            cli_say(m->cli, "cannot submit to '%s': %s", m->queue, text);
        m->fatal = m->fatal ? m->fatal : cli_exit_code(error);
        map_job_drop(m, job);
    }
}

/*
 * Attached tasks end with their connection. When it broke, not the user's wish but the network
 * ended them, or took the result along, and they are submitted again.
 */
static bool was_lost(const struct map *m, const struct job *job, const struct pushrod_finish *f)
{
    bool gone =
        f->status == 0 && (f->error == PUSHROD_E_UNKNOWN_TASK || f->error == PUSHROD_E_RESULT_GONE);
    return (gone || f->status == PUSHROD_CANCELLED) && !m->detach && job->losses != m->cli->losses;
}

void map_on_finish(struct pushrod_client *c, const struct pushrod_finish *f, void *arg)
{
    const struct cli *cli = pushrod_client_data(c);
    struct map *m = cli->state;
    struct job *job = job_of(m, arg);
    if (!job)
        return;
    if (!m->stopping && was_lost(m, job, f)) {
        job_again(m, job);
        return;
    }
    job->status = f->status;
    job->error = f->error;
    job->run_ns = f->run_ns;
    job->dropped = m->stopping && f->status != PUSHROD_DONE && f->status != PUSHROD_FAILED;
    buf_append(&job->result, f->result, f->result_size);
    if (job->result.failed) {
        map_job_fail(m, job, PUSHROD_E_NO_MEMORY, "no memory for its %zu bytes", f->result_size);
        return;
    }
    if (f->status != PUSHROD_DONE)
        buf_printf(&job->text, "%s", *f->error_text ? f->error_text : pushrod_strerror(f->error));
    job_end(m, job);
}

void map_stop(struct map *m)
{
    m->no_more = true;
    if (m->stopping)
        return;
    m->stopping = true;
    for (uint64_t i = m->first; i < m->next; i++) {
        struct job *job = map_job(m, i);
        if (job->state == JOB_SENT && job->id)
            pushrod_client_cancel_async(m->cli->client, job->id);
    }
    /* Ending one may print it and move `first`; what was not sent ends here. */
    for (uint64_t i = m->first; i < m->next; i++) {
        struct job *job = map_job(m, i);
        if (job->state == JOB_READY)
            map_job_drop(m, job);
    }
}
