/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_submit: pushrod submit. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "client/command.h"
#include "client/input.h"
#include "client/waiter.h"
#include "common/clock.h"

struct submit {
    struct cli *cli;
    struct task_options task;
    size_t count;
    struct buf *payloads; /* count of them */
    struct pushrod_submission *tasks;
    struct pushrod_receipt *receipts;
};

/* "text", "@FILE", "@-", "-", "@@text"; `number`: which of them it is, from 1. */
static int read_payload(struct cli *cli, struct buf *to, const char *operand, size_t number)
{
    char name[40];
    const char *rest = operand[0] == '@' ? operand + 1 : operand;
    bool literal = rest == operand ? strcmp(operand, "-") != 0 : *rest == '@';
    if (!literal)
        return payload_read(cli, to, rest);
    buf_append(to, rest, strlen(rest));
    snprintf(name, sizeof name, "payload %zu", number);
    return payload_fits(cli, name, to->size);
}

static bool waits(const struct cli *cli)
{
    return params_bool(cli->p, "wait") || params_given(cli->p, "wait-for") ||
           params_bool(cli->p, "stream");
}

/* Options that do nothing without another, or not what was meant. */
static int check_options(struct cli *cli)
{
    if (cli_check_word(cli, "unique"))
        return EXIT_USAGE;
    if (params_given(cli->p, "unique-for") && !*params_text(cli->p, "unique"))
        return cli_usage(cli, "--unique-for is how long a key holds: --unique KEY is missing");
    if (params_bool(cli->p, "attached") && !waits(cli))
        return cli_usage(cli, "--attached without --wait would cancel the task at once");
    return waiter_check(cli);
}

/* Options that map does not have, or has with another meaning. */
static void set_options(struct submit *s)
{
    const struct params *p = s->cli->p;
    struct pushrod_options *o = &s->task.options;
    const char *unique = params_text(p, "unique"), *tag = params_text(p, "tag");
    o->unique_key = *unique ? unique : NULL;
    o->unique_ms = params_number(p, "unique-for");
    o->tag = *tag ? tag : NULL;
    o->tag_size = strlen(tag);
    o->max_attempts = (unsigned)params_number(p, "attempts");
}

/* All are there before the first task is sent: a missing file, or one too large, submits nothing.
 */
static int make_tasks(struct submit *s, bool follow)
{
    struct cli *cli = s->cli;
    for (size_t i = 0; i < s->count; i++) {
        const char *operand = cli->count > 1 ? cli->operands[i + 1] : "-";
        int code = read_payload(cli, &s->payloads[i], operand, i + 1);
        if (code)
            return code;
        s->tasks[i] = (struct pushrod_submission){
            .queue = cli->operands[0],
            .data = s->payloads[i].data,
            .size = s->payloads[i].size,
            .options = &s->task.options,
            .follow = follow ? PUSHROD_FOLLOW_ALL : PUSHROD_FOLLOW_NONE,
            .attached = params_bool(cli->p, "attached"),
        };
    }
    return 0;
}

/* The server's words are those of the last refusal; those for another reason have only its name. */
static const char *refusal_text(const struct submit *s, const struct pushrod_receipt *r)
{
    size_t last = s->count - 1;
    while (last && !s->receipts[last].error)
        last--;
    return r->error == s->receipts[last].error ? pushrod_client_error_text(s->cli->client)
                                               : pushrod_strerror(r->error);
}

static void add_refusal(struct buf *to, const struct submit *s, const struct pushrod_receipt *r)
{
    if (r->error == -PUSHROD_E_DUPLICATE && r->id)
        buf_printf(to, "task %" PRIu64 " has this unique key already", r->id);
    else
        buf_printf(to, "%s", refusal_text(s, r));
}

/* Of several payloads those that were refused are listed, the first of them. */
static void list_refused(const struct submit *s, size_t refused)
{
    struct buf lines = BUF_EMPTY;
    char a[TEXT_SIZE], b[TEXT_SIZE];
    size_t listed = 0;
    cli_say(s->cli, "%s of %s cannot be submitted to '%s':", text_count(a, refused),
        text_count(b, s->count), s->cli->operands[0]);
    for (size_t i = 0; i < s->count && listed < CLI_LISTED; i++) {
        const char *payload = s->cli->operands[i + 1];
        if (!s->receipts[i].error)
            continue;
        listed++;
        buf_printf(&lines, "  payload %zu '", i + 1);
        text_clean(&lines, payload, strlen(payload), 60);
        buf_printf(&lines, "': ");
        add_refusal(&lines, s, &s->receipts[i]);
        buf_printf(&lines, "\n");
    }
    if (refused > listed)
        buf_printf(&lines, "  and %s more\n", text_count(a, refused - listed));
    fwrite(lines.data, 1, lines.size, stderr);
    buf_free(&lines);
}

/* What was refused, and the exit code that it makes. */
static int report_refused(struct submit *s)
{
    size_t refused = 0;
    int code = EXIT_OK;
    for (size_t i = 0; i < s->count; i++) {
        refused += s->receipts[i].error != 0;
        code = s->receipts[i].error ? cli_exit_code(s->receipts[i].error) : code;
    }
    if (refused && s->count > 1) {
        list_refused(s, refused);
    } else if (refused) {
        struct buf text = BUF_EMPTY;
        add_refusal(&text, s, s->receipts);
        cli_say(s->cli, "cannot submit to '%s': %s", s->cli->operands[0], buf_text(&text));
        buf_free(&text);
    }
    return code;
}

/* Of those that are waited for only the refused ones: the others are printed when they finish. */
static void print_receipts(const struct submit *s, bool wait)
{
    bool json = params_bool(s->cli->p, "json");
    for (size_t i = 0; i < s->count; i++) {
        const struct pushrod_receipt *r = &s->receipts[i];
        if (json && (r->error || !wait))
            json_print_row(JSON_RECEIPT, &(struct json_receipt){s->cli->operands[0], r->id,
                                             r->error, r->error ? refusal_text(s, r) : NULL});
        else if (!json && !r->error && !wait)
            printf("%" PRIu64 "\n", r->id);
    }
}

#define ANSWER_LEAST_MS UINT64_C(1000) /* a disk may need it, and a task without its id is lost */
#define ANSWER_MOST_MS  UINT64_C(86400000) /* no setting is longer */

/* The limit of the wait is one for the answers to the submission, too. 0: there is none. */
static uint64_t submit_until(struct submit *s)
{
    char ms[24];
    uint64_t limit = params_number(s->cli->p, "wait-for"), answer = limit;
    if (!limit)
        return 0;
    answer = answer > ANSWER_LEAST_MS ? answer : ANSWER_LEAST_MS;
    answer = answer < ANSWER_MOST_MS ? answer : ANSWER_MOST_MS;
    snprintf(ms, sizeof ms, "%" PRIu64, answer);
    pushrod_client_set(s->cli->client, "answer-timeout", ms);
    return clock_after_ms(clock_mono_ns(), limit);
}

/* What is left of it, in ms; not 0, which would be none. */
static uint64_t left_of(uint64_t until)
{
    uint64_t now = clock_mono_ns();
    return !until ? 0 : until > now + NS_PER_MS ? (until - now) / NS_PER_MS : 1;
}

static int wait_for(struct submit *s, uint64_t until)
{
    uint64_t *ids = calloc(s->count, sizeof *ids);
    struct waiter w = {.cli = s->cli,
        .ids = ids,
        .queue = s->cli->operands[0],
        .limit_ms = left_of(until),
        .json = params_bool(s->cli->p, "json"),
        .attached = params_bool(s->cli->p, "attached")};
    for (size_t i = 0; ids && i < s->count; i++)
        if (!s->receipts[i].error)
            ids[w.count++] = s->receipts[i].id;
    int code = ids ? waiter_run(&w) : EXIT_REFUSED;
    free(ids);
    return code;
}

/* Interrupted between the task and its answer nobody knows an id to name. */
static int not_answered(const struct submit *s, int error)
{
    bool attached = params_bool(s->cli->p, "attached");
    if (error != -PUSHROD_E_INTERRUPTED)
        return cli_error(s->cli, error);
    cli_say(s->cli, "interrupted; what '%s' has accepted %s", s->cli->operands[0],
        attached ? "is cancelled (--attached)" : "goes on");
    return cli_exit_code(error);
}

static int submit_run(struct submit *s)
{
    struct cli *cli = s->cli;
    bool wait = waits(cli);
    s->payloads = calloc(s->count, sizeof *s->payloads);
    s->tasks = calloc(s->count, sizeof *s->tasks);
    s->receipts = calloc(s->count, sizeof *s->receipts);
    if (!s->payloads || !s->tasks || !s->receipts)
        return EXIT_REFUSED;
    int code = make_tasks(s, wait);
    if (code)
        return code;
    waiter_begin(cli);
    uint64_t until = submit_until(s);
    int64_t accepted = pushrod_client_submit_many(cli->client, s->tasks, s->count, s->receipts);
    if (accepted < 0)
        return not_answered(s, (int)accepted);
    code = report_refused(s);
    print_receipts(s, wait);
    if (!wait || !accepted)
        return code;
    int waited = wait_for(s, until);
    return waited ? waited : code;
}

/* Without a payload operand there is one task, of standard input. */
int cmd_submit(struct cli *cli)
{
    struct submit s = {.cli = cli, .count = cli->count > 1 ? (size_t)cli->count - 1 : 1};
    int code = check_options(cli);
    code = code ? code : task_options_read(cli, &s.task);
    set_options(&s);
    if (!code)
        code = cli_open(cli);
    if (!code)
        code = submit_run(&s);
    for (size_t i = 0; s.payloads && i < s.count; i++)
        buf_free(&s.payloads[i]);
    free(s.payloads);
    free(s.tasks);
    free(s.receipts);
    task_options_free(&s.task);
    return code;
}
