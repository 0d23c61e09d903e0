/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_dead: pushrod dead ls|show|replay|drop. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "client/again.h"
#include "client/rows.h"

#define PAGE 1000u /* dead tasks that are listed, and operated on, at a time */

/* ---------------------------------------------------------------------------------- ls */

static const char *const dead_titles[] = {
    "-ID", "QUEUE", "-ATTEMPTS", "-DEATHS", "-SIZE", "-ENDED", "ERROR"};

static void on_dead(const struct pushrod_task_info *t, void *arg)
{
    struct listing *l = arg;
    char text[TEXT_SIZE];
    if (l->json) {
        json_print_row(JSON_TASK, t);
        return;
    }
    table_cell(&l->table, "%" PRIu64, t->id);
    table_cell(&l->table, "%s", t->queue);
    table_cell(&l->table, "%" PRIu64, t->attempts);
    table_cell(&l->table, "%" PRIu64, t->deaths);
    table_cell(&l->table, "%s", text_bytes(text, t->size));
    table_cell(&l->table, "%s", text_age(text, task_ended_ms(t)));
    char error[64];
    snprintf(error, sizeof error, "%s%s", t->error ? pushrod_error_name(t->error) : "",
        t->error && *t->text ? ": " : "");
    table_reason(&l->table, error, t->text);
}

static int dead_ls(struct cli *cli)
{
    struct listing l = {.json = params_bool(cli->p, "json")};
    if (cli->count > 2)
        return cli_usage(cli, "ls takes one queue at the most");
    int code = cli_open(cli);
    if (code)
        return code;
    table_begin(&l.table, dead_titles, sizeof dead_titles / sizeof dead_titles[0]);
    uint64_t limit = params_number(cli->p, "limit");
    int64_t rows = pushrod_client_dead(cli->client, cli->count > 1 ? cli->operands[1] : NULL,
        params_number(cli->p, "after"), limit, on_dead, &l);
    code = listing_end(
        cli, &l, rows, cli->count > 1 ? "no dead tasks of this queue" : "no dead tasks");
    /* A list that ends at its limit looks like a whole one. */
    if (rows > 0 && (uint64_t)rows == limit)
        cli_say(cli, "there may be more: --limit N, or --after with the last id");
    return code;
}

/* ---------------------------------------------------------------------------------- show */

/* The lines as somebody wrote them, each made safe for a terminal. */
static void print_bytes(const char *indent, const char *text, size_t size)
{
    const char *end = text + size;
    while (text < end) {
        struct buf line = BUF_EMPTY;
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        text_clean(&line, text, (size_t)((stop ? stop : end) - text), 4096);
        printf("%s%s\n", indent, buf_text(&line));
        buf_free(&line);
        text = stop ? stop + 1 : end;
    }
}

static void print_text(const char *indent, const char *text)
{
    print_bytes(indent, text, strlen(text));
}

/* As they are given to submit. */
static void print_options(const struct pushrod_options *options)
{
    struct buf flags = BUF_EMPTY;
    again_flags(&flags, options);
    if (flags.size)
        printf("  options   %.*s\n", (int)flags.size, (const char *)flags.data);
    buf_free(&flags);
}

static void print_payload(const struct pushrod_task_info *t)
{
    char size[TEXT_SIZE];
    printf("  payload    %s%s\n", text_bytes(size, t->size),
        t->head_size < t->size ? t->head ? ", which begins:" : ", not shown" : "");
    if (t->head)
        print_bytes("      ", t->head, t->head_size);
}

/* How a worker died is what no other task queue tells: signal, exit code, peak memory. */
static void print_death(const struct pushrod_death *d)
{
    char when[TEXT_SIZE], memory[TEXT_SIZE];
    printf("  attempt %" PRIu64 "  %s  on %s  %s", d->attempt, text_time(when, d->at_ms),
        *d->worker ? d->worker : "?", pushrod_strerror(d->error));
    if (d->signal)
        printf("; killed by signal %" PRIu64 " (%s)", d->signal, strsignal((int)d->signal));
    else if (d->exit_code)
        printf("; its process left with exit code %" PRIu64, d->exit_code);
    if (d->peak_kib)
        printf("; peak memory %s", text_bytes(memory, d->peak_kib * 1024));
    putchar('\n');
    if (strcmp(d->text, pushrod_strerror(d->error)) != 0)
        print_text("      ", d->text);
}

/* `show` takes any id, also of a task that waits or runs. */
static void print_dead(const struct pushrod_task_info *t, const struct pushrod_options *options)
{
    char text[TEXT_SIZE];
    printf("task %" PRIu64 "\n  queue      %s\n  state      %s\n", t->id, t->queue,
        text_state(t->state));
    printf("  submitted  %s\n", text_time(text, t->submitted_ms));
    if (task_due_ms(t))
        printf("  due        %s\n", text_time(text, task_due_ms(t)));
    if (task_ended_ms(t))
        printf("  ended      %s\n", text_time(text, task_ended_ms(t)));
    if (t->tag) {
        printf("  tag\n");
        print_bytes("      ", t->tag, t->tag_size);
    }
    print_payload(t);
    if (options)
        print_options(options);
    printf("  priority   %u\n  attempts   %" PRIu64 "\n  deaths     %" PRIu64 "\n", t->priority,
        t->attempts, t->deaths);
    printf("  error      %s\n", t->error ? pushrod_strerror(t->error) : "none");
    print_text("             ", t->text);
    for (size_t i = 0; i < t->history_count; i++)
        print_death(&t->history[i]);
}

static int show_one(struct cli *cli, const char *operand)
{
    bool json = params_bool(cli->p, "json");
    struct pushrod_task_info info;
    struct pushrod_submission task;
    uint64_t id = cli_id(cli, operand);
    /* An older server does not tell the options, and none does of a task that is done. */
    int untold = json ? 0 : pushrod_client_submitted(cli->client, id, false, &task);
    int error =
        cli_goes_on(cli_exit_code(untold)) ? pushrod_client_status(cli->client, id, &info) : untold;
    if (error)
        return cli_task_failed(cli, id, error);
    if (untold && untold != -PUSHROD_E_INVALID && untold != -PUSHROD_E_WRONG_STATE)
        cli_say(cli, "task %" PRIu64 ": its options are not shown: %s", id,
            pushrod_client_error_text(cli->client));
    if (json)
        json_print_row(JSON_TASK, &info);
    else
        print_dead(&info, untold ? NULL : task.options);
    return EXIT_OK;
}

/* All operands are ids, or nothing is done. */
static int check_ids(struct cli *cli, const char *verb)
{
    for (int i = 1; i < cli->count; i++) {
        if (cli_id(cli, cli->operands[i]))
            continue;
        if (verb)
            cli_say(cli, "for all of a queue: pushrod dead %s --all %s", verb, cli->operands[i]);
        return EXIT_USAGE;
    }
    return EXIT_OK;
}

static int dead_show(struct cli *cli)
{
    int code = cli->count < 2 ? cli_usage(cli, "show which? ID is missing") : check_ids(cli, NULL);
    return code ? code : cli_each(cli, 1, show_one);
}

/* ---------------------------------------------------------------------------------- replay, drop
 */

/* What is done to dead tasks. */
struct control {
    const char *verb;
    struct change change; /* replay: of what it is submitted again as */
    bool changes;
    /* --all */
    uint64_t touched;
    int error;      /* what ended it; 0: nothing has */
    struct buf why; /* its text */
};

/* Fills in the act; negative: an error, of which that has the text. */
static int64_t control_run(struct cli *cli, const struct control *what, struct json_act *act)
{
    if (what->changes) {
        int error = again_replay(cli, &what->change, act->id, &act->as, &act->text);
        act->error = error;
        act->tasks = !error;
        return error ? error : 1;
    }
    int64_t count = pushrod_client_control(cli->client, what->verb, NULL, act->id);
    act->error = count < 0 ? (int)count : 0;
    act->tasks = count < 0 ? 0 : (uint64_t)count;
    act->text = count < 0 ? pushrod_client_error_text(cli->client) : NULL;
    return count;
}

/* What was done to one. */
static void control_tell(struct cli *cli, struct json_act *act)
{
    if (!act->error)
        act->text = NULL;
    if (params_bool(cli->p, "json"))
        json_print_row(JSON_ACT, act);
    else if (act->as)
        printf("%" PRIu64 "\n", act->as);
    if (act->error && act->as)
        cli_say(cli, "task %" PRIu64 " is there, but task %" PRIu64 " cannot be dropped: %s",
            act->as, act->id, act->text);
    else if (act->error)
        cli_say(cli, "cannot %s task %" PRIu64 ": %s", act->action, act->id, act->text);
}

static int control_one(struct cli *cli, const struct control *what, uint64_t id)
{
    struct json_act act = {.action = what->verb, .id = id};
    control_run(cli, what, &act);
    control_tell(cli, &act);
    return cli_exit_code(act.error);
}

static bool is_passed_over(int error)
{
    return error == -PUSHROD_E_UNKNOWN_TASK || error == -PUSHROD_E_WRONG_STATE;
}

static void control_end(struct control *what, int error, const char *text)
{
    if (what->error)
        return;
    what->error = error;
    buf_printf(&what->why, "%s", text);
}

/* Those of one list. */
struct page {
    struct json_act acts[PAGE];
    size_t count, limit;
    const char *verb;
    uint64_t after; /* the last one that was listed */
    uint64_t end;   /* what a replay has made has this id or a larger one */
    bool cut;       /* not all of them were seen to */
};

static void collect(const struct pushrod_task_info *t, void *arg)
{
    struct page *p = arg;
    if (p->count == p->limit)
        return;
    p->after = t->id;
    if (t->id < p->end)
        p->acts[p->count++] = (struct json_act){.action = p->verb, .id = t->id};
}

/* All of them together, as far as that goes. */
static void page_together(struct cli *cli, struct control *what, struct page *p)
{
    uint64_t ids[PAGE];
    int64_t counts[PAGE];
    for (size_t i = 0; i < p->count; i++)
        ids[i] = p->acts[i].id;
    int64_t touched = pushrod_client_control_many(cli->client, what->verb, ids, p->count, counts);
    if (touched < 0)
        control_end(what, (int)touched, pushrod_client_error_text(cli->client));
    for (size_t i = 0; i < p->count; i++) {
        p->acts[i].tasks = counts[i] > 0;
        p->acts[i].error = counts[i] < 0 ? (int)counts[i] : 0;
    }
}

/* What was refused among the others is asked for once more alone, and has its own words then. */
static void control_alone(struct cli *cli, const struct control *what, struct json_act *act)
{
    static const struct control drop = {.verb = "drop"};
    control_run(cli, act->as ? &drop : what, act);
}

static void page_tell(struct cli *cli, struct control *what, struct page *p)
{
    for (size_t i = 0; i < p->count; i++) {
        struct json_act *act = &p->acts[i];
        act->text = buf_text(&what->why);
        if (act->error && !what->error && (act->as || !is_passed_over(act->error)))
            control_alone(cli, what, act);
        if (act->error && !is_passed_over(act->error))
            control_end(what, act->error, act->text);
        if (act->as) /* nothing else tells its id */
            control_tell(cli, act);
        p->end = act->as && act->as < p->end ? act->as : p->end;
        what->touched += act->tasks > 0;
    }
}

static void page_again(struct cli *cli, struct control *what, struct page *p)
{
    size_t count = p->count;
    what->error = again_replay_many(cli, &what->change, p->acts, &p->count, &what->why);
    p->cut = p->count < count;
    if (p->cut && p->count)
        p->after = p->acts[p->count - 1].id;
}

/*
 * Page by page: ids only grow, so what was replayed and died again meanwhile is not met twice; and
 * what a replay has made has an id behind `end`.
 */
static void control_pages(struct cli *cli, struct control *what, const char *queue, struct page *p)
{
    int64_t rows;
    p->limit = what->changes ? AGAIN_MOST : PAGE;
    p->verb = what->verb;
    p->end = UINT64_MAX;
    do {
        p->count = 0;
        rows = pushrod_client_dead(cli->client, queue, p->after, p->limit, collect, p);
        if (rows < 0)
            control_end(what, (int)rows, pushrod_client_error_text(cli->client));
        else if (what->changes)
            page_again(cli, what, p);
        else
            page_together(cli, what, p);
        page_tell(cli, what, p);
    } while (!what->error && (p->cut || (rows == (int64_t)p->limit && p->after < p->end)));
}

static int control_all(struct cli *cli, struct control *what)
{
    char text[2 * TEXT_SIZE], number[TEXT_SIZE];
    const char *verb = what->verb, *queue = cli->count > 1 ? cli->operands[1] : NULL;
    struct page *p = calloc(1, sizeof *p);
    if (!p)
        return EXIT_REFUSED;
    control_pages(cli, what, queue, p);
    free(p);
    bool any = !what->error || what->touched;
    struct json_act act = {.action = verb,
        .queue = queue,
        .tasks = what->touched,
        .error = what->error,
        .text = buf_text(&what->why)};
    snprintf(text, sizeof text, "%s task%s %s", text_count(number, what->touched),
        what->touched == 1 ? "" : "s", strcmp(verb, "drop") == 0 ? "dropped" : "replayed");
    /* What ended it may have been behind some of them. Beside ids a sum would be one more. */
    if (params_bool(cli->p, "json"))
        json_print_row(JSON_ACT, &act);
    else if (what->changes && any)
        cli_say(cli, "%s", text);
    else if (any)
        printf("%s\n", text);
    int code = cli_exit_code(what->error);
    if (code && code != EXIT_INTERRUPTED)
        cli_say(cli, "%s", act.text);
    return code;
}

static int control_ids(struct cli *cli, const struct control *what)
{
    int code = EXIT_OK;
    bool on = true;
    for (int i = 1; on && i < cli->count; i++) {
        int ended = control_one(cli, what, cli_id(cli, cli->operands[i]));
        code = code ? code : ended;
        on = cli_goes_on(ended);
    }
    return code;
}

/*
 * Ids are named, or --all is said: dropping everything must not be what a forgotten operand does.
 */
static int check_control(struct cli *cli, const char *verb)
{
    bool all = params_bool(cli->p, "all");
    if (!all && cli->count < 2)
        return cli_usage(cli, "%s which? give ids, or --all [QUEUE]", verb);
    if (all && cli->count > 2)
        return cli_usage(cli, "--all takes one queue at the most");
    if (params_given(cli->p, "payload") && (all || cli->count > 2))
        return cli_usage(cli, "--payload is that of one task: give one id");
    return all ? EXIT_OK : check_ids(cli, verb);
}

static int dead_control(struct cli *cli, const char *verb)
{
    struct control what = {.verb = verb};
    bool reads = params_given(cli->p, "payload");
    int code = check_control(cli, verb);
    code = code ? code : cli_open(cli);
    what.changes = reads || params_given(cli->p, "to");
    if (params_given(cli->p, "to"))
        what.change.queue = params_text(cli->p, "to");
    if (!code && reads)
        code = change_read(cli, &what.change, params_text(cli->p, "payload"));
    if (!code)
        code = params_bool(cli->p, "all") ? control_all(cli, &what) : control_ids(cli, &what);
    buf_free(&what.change.payload);
    buf_free(&what.why);
    return code;
}

/* `dead drop --all --to QUEUE` would drop what is in all the others. */
static int check_change(struct cli *cli, const char *verb)
{
    bool changes = params_given(cli->p, "to") || params_given(cli->p, "payload");
    if (changes && strcmp(verb, "replay") != 0)
        return cli_usage(cli, "--to and --payload are for replay, not for %s", verb);
    return 0;
}

int cmd_dead(struct cli *cli)
{
    const char *verb = cli->operands[0];
    if (check_change(cli, verb))
        return EXIT_USAGE;
    if (strcmp(verb, "ls") == 0)
        return dead_ls(cli);
    if (strcmp(verb, "show") == 0)
        return dead_show(cli);
    if (strcmp(verb, "replay") == 0 || strcmp(verb, "drop") == 0)
        return dead_control(cli, verb);
    return cli_usage(cli, "'%s' must be ls, show, replay or drop", verb);
}
