/* SPDX-License-Identifier: Apache-2.0 */
/* map_output: results in the order of their inputs, or as they come. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/map.h"
#include "common/clock.h"

/* ---------------------------------------------------------------------------------- --results */

int map_results_begin(struct map *m)
{
    const char *dir = m->results;
    if (!*dir || mkdir(dir, 0777) == 0 || errno == EEXIST)
        return 0;
    cli_say(m->cli, "cannot make directory %s: %s", dir, strerror(errno));
    return EXIT_USAGE;
}

static bool write_file(const char *dir, const char *name, const void *data, size_t size)
{
    char path[4096];
    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path)
        return false;
    FILE *file = fopen(path, "we");
    if (!file)
        return false;
    bool good = fwrite(data ? data : "", 1, size, file) == size;
    return fclose(file) == 0 && good;
}

static bool write_results(struct map *m, const struct job *job)
{
    char dir[4000];
    snprintf(dir, sizeof dir, "%s/%" PRIu64, m->results, job->seq);
    if ((mkdir(dir, 0777) == 0 || errno == EEXIST) &&
        write_file(dir, "input", job->input, job->input_size) &&
        write_file(dir, "result", job->result.data, job->result.size) &&
        write_file(dir, "error", job->text.data, job->text.size))
        return true;
    if (!m->fatal)
        cli_say(m->cli, "cannot write to %s: %s", dir, strerror(errno));
    m->fatal = EXIT_TASK_FAILED;
    m->lost = true;
    return false;
}

/* ---------------------------------------------------------------------------------- printing */

/* Each line of the result, as GNU parallel does. */
static void print_tagged(const struct job *job)
{
    const uint8_t *at = job->result.data, *end = at + job->result.size;
    while (at < end) {
        const uint8_t *stop = memchr(at, '\n', (size_t)(end - at));
        stop = stop ? stop + 1 : end;
        fwrite(job->input, 1, job->input_size, stdout);
        putchar('\t');
        fwrite(at, 1, (size_t)(stop - at), stdout);
        at = stop;
    }
}

/* Which of the results that wait for their lines got out is not known: a resumed run does them all.
 */
static void output_failed(struct map *m)
{
    if (!m->fatal)
        cli_say(m->cli, "cannot write to standard output: %s", strerror(errno));
    m->fatal = EXIT_TASK_FAILED;
    m->lost = true;
    buf_clear(&m->log.lines);
}

/* In this order: whatever ends us between the two, what the log has was printed. */
void map_flush(struct map *m)
{
    if (fflush(stdout) == EOF || ferror(stdout))
        output_failed(m);
    map_log_flush(m);
}

/* What the job keeps of its finish; the text is in `text`, whose owner is the caller. */
static struct pushrod_finish finish_of(const struct job *job, struct buf *text)
{
    buf_append(text, job->text.data, job->text.size);
    return (struct pushrod_finish){.id = job->id,
        .status = job->status,
        .error = job->error,
        .error_text = buf_text(text),
        .result = job->result.size ? job->result.data : NULL,
        .result_size = job->result.size,
        .run_ns = job->run_ns};
}

static void print_json(const struct job *job)
{
    struct buf text = BUF_EMPTY;
    struct json_job row = {.seq = job->seq,
        .input = job->input,
        .input_size = job->input_size,
        .finish = finish_of(job, &text),
        .took_ns = job->took_ns};
    json_print_row(JSON_JOB, &row);
    buf_free(&text);
}

static void print_result(struct map *m, const struct job *job)
{
    const struct buf *r = &job->result;
    if (*m->results && !write_results(m, job))
        return;
    if (!r->size && !m->json)
        return;
    /* The bar is on the same screen, if both are terminals. */
    if (m->drawn && isatty(STDOUT_FILENO))
        map_progress_erase(m);
    if (m->json)
        print_json(job);
    else if (m->tag)
        print_tagged(job);
    else
        fwrite(r->data, 1, r->size, stdout);
    if (!m->json && r->data[r->size - 1] != '\n')
        putchar('\n');
    if (ferror(stdout))
        output_failed(m);
}

/* What is remembered of a failure, for the list at the end. */
static void note_failure(struct map *m, const struct job *job)
{
    struct buf *to = &m->failures, text = BUF_EMPTY;
    if (m->listed == CLI_LISTED)
        return;
    m->listed++;
    struct pushrod_finish finish = finish_of(job, &text);
    buf_printf(to, "  input %" PRIu64 " '", job->seq);
    text_clean(to, job->input, job->input_size, 60);
    buf_printf(to, "': ");
    why_failed(to, &finish);
    buf_printf(to, "\n");
    buf_free(&text);
}

/* Memory of a job ends here; its place in the ring is free for another number. */
static void job_close(struct map *m, struct job *job)
{
    m->waiting_bytes -= job->result.size;
    if (!job->dropped) {
        if (job->status != PUSHROD_DONE)
            note_failure(m, job);
        if (!m->lost)
            print_result(m, job);
        if (!m->lost)
            map_log_write(m, job);
    }
    buf_free(&job->result);
    buf_free(&job->text);
    free(job->input);
    job->input = NULL;
    job->state = JOB_FREE;
}

/* In order: the head of the ring, and all behind it that had to wait for it. */
void map_ended(struct map *m, struct job *job)
{
    m->moved_ns = clock_mono_ns();
    m->waiting_bytes += job->result.size;
    if (!job->dropped) {
        m->finished++;
        m->failed += job->status != PUSHROD_DONE;
    }
    if (m->unordered)
        job_close(m, job);
    while (m->first < m->next) {
        struct job *head = map_job(m, m->first);
        if (head->state == JOB_ENDED)
            job_close(m, head);
        else if (head->state != JOB_FREE)
            break;
        m->first++;
    }
}

/* At the end, where the reader looks; the first ones are enough to see what is wrong. */
void map_report(struct map *m)
{
    char a[TEXT_SIZE], b[TEXT_SIZE];
    map_progress_erase(m);
    if (!m->failed)
        return;
    cli_say(m->cli, "%s of %s failed:", text_count(a, m->failed), text_count(b, m->finished));
    fwrite(m->failures.data, 1, m->failures.size, stderr);
    if (m->failed > m->listed)
        fprintf(stderr, "  and %s more%s\n", text_count(a, m->failed - m->listed),
            m->log.file ? " (see the joblog)" : "");
}
