/* SPDX-License-Identifier: Apache-2.0 */
/* task_options: options of a task, from flags. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/command.h"

/* A local time; 0: there is none such. mktime() makes the 2nd of March of a 30th of February. */
static uint64_t local_time(struct tm *tm)
{
    int month = tm->tm_mon, day = tm->tm_mday;
    time_t when = mktime(tm);
    return when > 0 && tm->tm_mon == month && tm->tm_mday == day ? (uint64_t)when * 1000 : 0;
}

/* "@1767225600", or a local date and time. 0: it is neither. */
static uint64_t parse_when(const char *text)
{
    static const char *const formats[] = {
        "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M", "%Y-%m-%d"};
    char *end;
    if (*text == '@') {
        errno = 0;
        unsigned long long seconds = strtoull(text + 1, &end, 10);
        return errno || *end || end == text + 1 || seconds > 32503680000 ? 0 : seconds * 1000;
    }
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        struct tm tm = {.tm_isdst = -1};
        const char *rest = strptime(text, formats[i], &tm);
        if (rest && !*rest)
            return local_time(&tm);
    }
    return 0;
}

/* Names are checked by the library, which says what is allowed. */
static int read_headers(struct cli *cli, struct task_options *to)
{
    size_t count;
    const char *const *list = params_list(cli->p, "header", &count);
    if (!count)
        return 0;
    to->headers = calloc(count, sizeof *to->headers);
    if (!to->headers)
        return EXIT_REFUSED;
    for (size_t i = 0; i < count; i++) {
        const char *equals = strchr(list[i], '=');
        if (!equals)
            return cli_usage(cli, "--header '%s' must be NAME=VALUE", list[i]);
        char *name = strndup(list[i], (size_t)(equals - list[i]));
        if (!name)
            return EXIT_REFUSED;
        to->headers[i] = (struct pushrod_header){name, equals + 1};
        to->options.header_count = i + 1;
    }
    to->options.headers = to->headers;
    return 0;
}

/* What submit and map share; what they do not is set by them. */
int task_options_read(struct cli *cli, struct task_options *to)
{
    const char *when = params_text(cli->p, "at");
    const char *worker = params_text(cli->p, "worker");
    *to = (struct task_options){
        .options = {
            .priority_plus_1 = (unsigned)params_number(cli->p, "priority") + 1,
            .delay_ms = params_number(cli->p, "delay"),
            .timeout_ms = params_number(cli->p, "timeout"),
            .expires_ms = params_number(cli->p, "expires"),
            .backoff_ms = params_number(cli->p, "backoff"),
            .worker = *worker ? worker : NULL,
            .keep_ms = params_number(cli->p, "keep"),
        }};
    if (cli_check_word(cli, "at") || cli_check_word(cli, "worker"))
        return EXIT_USAGE;
    if (*when && params_given(cli->p, "delay"))
        return cli_usage(cli, "--delay and --at: only one of them can be meant");
    if (*when) {
        to->options.eta_ms = parse_when(when);
        if (!to->options.eta_ms)
            return cli_usage(
                cli, "--at '%s' must be 'YYYY-MM-DD HH:MM[:SS]' or @ and a Unix time", when);
    }
    return read_headers(cli, to);
}

void task_options_free(struct task_options *o)
{
    for (size_t i = 0; i < o->options.header_count; i++)
        free((char *)o->headers[i].name);
    free(o->headers);
    o->headers = NULL;
    o->options.header_count = 0;
}
