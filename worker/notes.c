/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/notes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/utf8.h"
#include "worker/run.h"

void notes_begin(struct notes *n, struct pushrod_task *task)
{
    n->task = task;
    n->size = 0;
    n->retry_ms = 0;
    n->failed = false;
    n->strange = 0;
}

/* Each gives false if it is not what stands behind the word: passed over, it would look as if it
 * had worked. */

static bool take_progress(struct notes *n, const char *rest)
{
    char *at, *end;
    uint64_t done = strtoull(rest, &at, 10);
    uint64_t total = strtoull(at, &end, 10);
    /* The wire carries integers below 2^63. */
    if (at == rest || done > INT64_MAX || total > INT64_MAX)
        return false;
    while (*end == ' ')
        end++;
    attempt_report(n->task, REPORT_PROGRESS, done, total, end, strlen(end));
    return true;
}

static bool take_retry(struct notes *n, const char *rest)
{
    char *end;
    double seconds = strtod(rest, &end);
    if (end == rest || !(seconds >= 0 && seconds < 1e9))
        return false;
    n->retry_ms = (uint64_t)(seconds * 1000) + (seconds > 0 && seconds * 1000 < 1);
    return true;
}

static bool take_fail(struct notes *n, const char *rest)
{
    n->failed = true;
    snprintf(n->text, sizeof n->text, "%s", rest);
    return true;
}

static void take_line(struct notes *n)
{
    static const struct {
        const char *word;
        bool (*take)(struct notes *n, const char *rest);
    } kinds[] = {{"progress ", take_progress}, {"retry-after ", take_retry}, {"fail ", take_fail}};
    n->line[n->size] = '\0';
    utf8_repair(n->line, n->size);
    n->size = 0;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        size_t length = strlen(kinds[i].word);
        if (strncmp(n->line, kinds[i].word, length) == 0 && kinds[i].take(n, n->line + length))
            return;
    }
    if (n->line[0] && n->strange++ < NOTES_STRANGE)
        log_warning("task %llu: descriptor 3: not understood: %s",
            (unsigned long long)pushrod_task_id(n->task), n->line);
}

void notes_take(struct notes *n, const char *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (data[i] == '\n')
            take_line(n);
        else if (n->size < sizeof n->line - 1)
            n->line[n->size++] = data[i];
    }
}

void notes_end(struct notes *n)
{
    if (n->size)
        take_line(n);
    if (n->strange > NOTES_STRANGE)
        log_warning("task %llu: descriptor 3: %u more lines were not understood",
            (unsigned long long)pushrod_task_id(n->task), n->strange - NOTES_STRANGE);
}
