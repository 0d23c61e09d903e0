/* SPDX-License-Identifier: Apache-2.0 */
/*
 * complete: what may come next on a command line, for the shells in deploy/completion.
 *
 * Lines of a word, a tab and what it means. The table of commands says what an operand is; names
 * are those that the server has, if it answers at once. Nothing is ever said on standard error.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "client/command.h"

#define CONNECT_MS "300" /* somebody has pressed a key, and waits */
#define MAX_DEAD   100u  /* ids that are offered */

static void offer(struct buf *out, const char *word, const char *meaning)
{
    buf_printf(out, "%s\t", word);
    text_clean(out, meaning, strlen(meaning), 70);
    buf_append(out, "\n", 1);
}

void complete_commands(struct buf *out)
{
    for (size_t i = 0; i < command_count; i++)
        offer(out, commands[i].name, commands[i].summary);
}

/* ---------------------------------------------------------------------------------- names */

static void on_queue(const struct pushrod_queue_info *q, void *arg)
{
    char text[TEXT_SIZE], meaning[2 * TEXT_SIZE];
    snprintf(meaning, sizeof meaning, "%s ready%s", text_count(text, q->ready),
        q->paused ? ", paused" : "");
    offer(arg, q->name, meaning);
}

static void on_dead_queue(const struct pushrod_queue_info *q, void *arg)
{
    char text[TEXT_SIZE], meaning[2 * TEXT_SIZE];
    snprintf(meaning, sizeof meaning, "%s dead", text_count(text, q->dead));
    if (q->dead)
        offer(arg, q->name, meaning);
}

/* Names that a worker would serve, though no task has come yet; not patterns. */
static void on_served(const struct pushrod_worker_info *w, void *arg)
{
    char name[PUSHROD_MAX_QUEUE_NAME + 1], meaning[PUSHROD_MAX_QUEUE_NAME];
    snprintf(meaning, sizeof meaning, "served by %s", w->name);
    for (const char *at = w->queues; *at;) {
        size_t size = strcspn(at, ",");
        if (size && size < sizeof name && !memchr(at, '*', size) && *at != '!') {
            memcpy(name, at, size);
            name[size] = '\0';
            offer(arg, name, meaning);
        }
        at += size + (at[size] == ',');
    }
}

static void on_worker(const struct pushrod_worker_info *w, void *arg)
{
    offer(arg, w->name, w->queues);
}

static void on_dead(const struct pushrod_task_info *t, void *arg)
{
    char id[24];
    struct buf meaning = BUF_EMPTY;
    snprintf(id, sizeof id, "%" PRIu64, t->id);
    const char *why = *t->text ? t->text : pushrod_strerror(t->error);
    buf_printf(&meaning, "%s: ", t->queue);
    text_reason(&meaning, why, strlen(why), 50);
    offer(arg, id, buf_text(&meaning));
    buf_free(&meaning);
}

static bool connect_quickly(struct cli *cli)
{
    return cli_client(cli) == 0 &&
           pushrod_client_set(cli->client, "connect-timeout", CONNECT_MS) == 0 &&
           pushrod_client_connect(cli->client) == 0;
}

/* ---------------------------------------------------------------------------------- operands */

/* "ls|show" */
static void offer_choices(struct buf *out, const char *choices, size_t size)
{
    for (const char *at = choices, *end = choices + size; at < end;) {
        size_t n = strcspn(at, "| ");
        buf_printf(out, "%.*s\t\n", (int)n, at);
        at += n + 1;
    }
}

/* `dead`: the first operand says which the others are. */
static void offer_dead(struct cli *cli, struct buf *out)
{
    if (strcmp(cli->operands[0], "ls") == 0 || params_bool(cli->p, "all"))
        pushrod_client_queues(cli->client, NULL, on_dead_queue, out);
    else
        pushrod_client_dead(cli->client, NULL, 0, MAX_DEAD, on_dead, out);
}

/* "QUEUE", "[WORKER...]": what stands for the operand in the table of commands. */
static void offer_operand(struct cli *cli, struct buf *out, const char *kind)
{
    kind += *kind == '[';
    if (*kind >= 'a' && *kind <= 'z') {
        offer_choices(out, kind, strcspn(kind, " "));
    } else if (strncmp(kind, "COMMAND", 7) == 0) {
        complete_commands(out);
    } else if (strncmp(kind, "QUEUE|ID", 8) == 0) {
        if (connect_quickly(cli))
            offer_dead(cli, out);
    } else if (strcmp(kind, "ID") == 0) { /* of `payload`, which is for the dead above all */
        if (connect_quickly(cli))
            pushrod_client_dead(cli->client, NULL, 0, MAX_DEAD, on_dead, out);
    } else if (strncmp(kind, "QUEUE", 5) == 0) {
        if (connect_quickly(cli) && pushrod_client_queues(cli->client, NULL, on_queue, out) >= 0)
            pushrod_client_workers(cli->client, NULL, on_served, out);
    } else if (strncmp(kind, "WORKER", 6) == 0 && connect_quickly(cli)) {
        pushrod_client_workers(cli->client, NULL, on_worker, out);
    }
}

/* The last one of the table stands for all that come after it. */
static void complete_operand(struct cli *cli, struct buf *out)
{
    const char *kind = cli->command->operands;
    for (int i = 1; i < cli->count; i++) {
        const char *next = strchr(kind, ' ');
        if (!next && !strstr(kind, "..."))
            return;
        kind = next ? next + 1 : kind;
    }
    offer_operand(cli, out, kind);
}

static void complete_value(struct cli *cli, struct buf *out, const char *option)
{
    if (strcmp(option, "--worker") == 0)
        offer_operand(cli, out, "WORKER");
    else if (strcmp(option, "--queue") == 0 || strcmp(option, "-q") == 0 ||
             strcmp(option, "--to") == 0)
        offer_operand(cli, out, "QUEUE");
}

void complete_word(struct cli *cli, struct buf *out)
{
    if (strcmp(cli->last, "--print-completion") == 0)
        params_print_completion(cli->p, out);
    else if (cli->count && cli->operands[cli->count - 1] == cli->last)
        complete_operand(cli, out);
    else
        complete_value(cli, out, cli->before);
}
