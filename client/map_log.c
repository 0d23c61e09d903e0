/* SPDX-License-Identifier: Apache-2.0 */
/*
 * map_log: --joblog in the columns of GNU parallel, and what --resume makes of it.
 *
 * A line is written when the result has left this process, so that a run that was interrupted, or
 * killed, and resumed prints everything. An entry counts only if its input is still the same.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "client/map.h"

#define LINES_BYTES (64u << 10) /* of lines that wait: more is written at once */

static const char header[] =
    "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n";

/* The input as one field of a line. */
static void escape(struct buf *to, struct slice input)
{
    for (size_t i = 0; i < input.size; i++) {
        uint8_t c = input.data[i];
        if (c == '\\' || c == '\n' || c == '\t' || c == '\0')
            buf_printf(to, "\\%c", c == '\\' ? '\\' : c == '\n' ? 'n' : c == '\t' ? 't' : '0');
        else
            buf_append(to, &c, 1);
    }
}

/* FNV-1a; it only has to notice that inputs have moved. */
static uint64_t fingerprint(const void *data, size_t size)
{
    const uint8_t *bytes = data;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
    return hash >> 1;
}

/* One line of an earlier run; the last one of a number counts. */
static void read_line(struct map *m, char *line, size_t size)
{
    char *fields[9];
    size_t n = 0;
    if (size && line[size - 1] == '\n')
        line[--size] = '\0';
    for (char *at = line; n < 9 && at; n++) {
        fields[n] = at;
        char *tab = n < 8 ? strchr(at, '\t') : NULL;
        if (tab)
            *tab = '\0';
        at = tab ? tab + 1 : NULL;
    }
    uint64_t seq = n == 9 ? strtoull(fields[0], NULL, 10) : 0;
    if (seq == 0)
        return; /* a line that was cut off */
    size_t command = size - (size_t)(fields[8] - line);
    bool good = strcmp(fields[6], "0") == 0 && strcmp(fields[7], "0") == 0;
    idmap_put(&m->log.done, seq, fingerprint(fields[8], command) << 1 | good);
}

/* What a log is that cannot be gone on with; NULL: it is none such. *cut: its last line was cut
 * off. */
static const char *read_lines(struct map *m, FILE *file, bool *cut)
{
    char *line = NULL;
    size_t room = 0;
    bool first = true, strange = false;
    ssize_t n;
    while (!strange && (n = getline(&line, &room, file)) > 0) {
        *cut = line[n - 1] != '\n';
        strange = first && strcmp(line, header) != 0;
        if (!first && !*cut)
            read_line(m, line, (size_t)n);
        first = false;
    }
    free(line);
    return strange ? "it does not begin with the header of a joblog" : NULL;
}

/*
 * A name that was mistyped, or the log of another program, must not be written to: its lines would
 * say nothing of what was done, and ours would spoil it. An exit code.
 */
static int read_log(struct map *m, const char *path, bool *cut)
{
    FILE *file = fopen(path, "re");
    if (!file && errno == ENOENT)
        return 0;
    const char *why = file ? read_lines(m, file, cut) : strerror(errno);
    if (file)
        fclose(file);
    if (!why)
        return 0;
    cli_say(m->cli, "cannot resume from %s: %s", path, why);
    return EXIT_USAGE;
}

/* A new run begins a new log; a resumed one goes on behind the old lines. */
int map_log_open(struct map *m)
{
    const struct params *p = m->cli->p;
    const char *path = params_text(p, "joblog");
    bool resume = params_bool(p, "resume") || params_bool(p, "resume-failed"), cut = false;
    m->log.only_good = params_bool(p, "resume-failed");
    if (!*path)
        return resume ? cli_usage(m->cli, "--resume needs the --joblog of the earlier run") : 0;
    int code = resume ? read_log(m, path, &cut) : 0;
    if (code)
        return code;
    m->log.file = fopen(path, resume ? "ae" : "we");
    if (!m->log.file) {
        cli_say(m->cli, "cannot write joblog %s: %s", path, strerror(errno));
        return EXIT_USAGE;
    }
    fseek(m->log.file, 0, SEEK_END);
    if (ftell(m->log.file) == 0)
        fputs(header, m->log.file);
    else if (cut)
        fputc('\n', m->log.file);
    return 0;
}

bool map_log_has(const struct map *m, uint64_t seq, struct slice input)
{
    uint64_t entry;
    if (!idmap_get(&m->log.done, seq, &entry) || (m->log.only_good && !(entry & 1)))
        return false;
    struct buf text = BUF_EMPTY;
    escape(&text, input);
    bool same = fingerprint(text.data, text.size) == entry >> 1;
    buf_free(&text);
    return same;
}

/*
 * What the columns mean here is in the manual. The run is the last thing that was known of a task:
 * it began its own time before the finish came. One that never ran began when it was submitted.
 */
void map_log_write(struct map *m, const struct job *job)
{
    struct buf *to = &m->log.lines;
    if (!m->log.file)
        return;
    int exit = job->status == PUSHROD_DONE ? 0 : job->error ? job->error : PUSHROD_E_TASK_FAILED;
    uint64_t waited = job->run_ns && job->run_ns < job->took_ns ? job->took_ns - job->run_ns : 0;
    buf_printf(to, "%" PRIu64 "\t%s\t%.3f\t%10.3f\t%zu\t%zu\t%d\t0\t", job->seq, "pushrod",
        (double)job->began_wall_ms / 1e3 + (double)waited / 1e9, (double)job->run_ns / 1e9,
        job->payload_size, job->result.size, exit);
    escape(to, slice_of(job->input, job->input_size));
    buf_append(to, "\n", 1);
    if (to->size >= LINES_BYTES)
        map_flush(m);
}

/* False: not all of them are in the file. */
static bool write_lines(struct joblog *log)
{
    const struct buf *lines = &log->lines;
    if (lines->failed) {
        errno = ENOMEM;
        return false;
    }
    bool good = !lines->size || fwrite(lines->data, 1, lines->size, log->file) == lines->size;
    return fflush(log->file) == 0 && good;
}

/* Who cannot note what is done must not go on: --resume would do it all again. */
void map_log_flush(struct map *m)
{
    if (!m->log.file)
        return;
    bool good = write_lines(&m->log);
    buf_clear(&m->log.lines);
    if (good)
        return;
    if (!m->fatal)
        cli_say(m->cli, "cannot write the joblog: %s", strerror(errno));
    m->fatal = m->fatal ? m->fatal : EXIT_TASK_FAILED;
    fclose(m->log.file);
    m->log.file = NULL;
}

void map_log_close(struct map *m)
{
    if (m->log.file && fclose(m->log.file))
        cli_say(m->cli, "cannot write the joblog: %s", strerror(errno));
    m->log.file = NULL;
    buf_free(&m->log.lines);
    idmap_free(&m->log.done);
}
