/* SPDX-License-Identifier: Apache-2.0 */
#include "client/again.h"

#include <string.h>
#include <unistd.h>

#include "client/input.h"
#include "client/interrupt.h"

#define PLAIN "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./:@%+=,-"

/* ---------------------------------------------------------------------------------- flags */

/* As one word of a shell, and safe for a terminal. */
static void add_word(struct buf *out, const char *text, size_t size)
{
    struct buf word = BUF_EMPTY;
    text_clean(&word, text, size, SIZE_MAX);
    buf_append(&word, "", 1);
    const char *at = word.data ? (const char *)word.data : "";
    if (*at && strspn(at, PLAIN) == strlen(at)) {
        buf_printf(out, "%s", at);
    } else {
        buf_printf(out, "'");
        for (; *at; at++)
            buf_printf(out, *at == '\'' ? "'\\''" : "%c", *at);
        buf_printf(out, "'");
    }
    buf_free(&word);
}

static void add_text(struct buf *out, const char *flag, const char *text)
{
    if (!text)
        return;
    buf_printf(out, " --%s ", flag);
    add_word(out, text, strlen(text));
}

static void add_ms(struct buf *out, const char *flag, uint64_t ms)
{
    if (ms)
        buf_printf(out, ms % 1000 ? " --%s %llums" : " --%s %llus", flag,
            (unsigned long long)(ms % 1000 ? ms : ms / 1000));
}

static void add_headers(struct buf *out, const struct pushrod_options *o)
{
    for (size_t i = 0; i < o->header_count; i++) {
        struct buf header = BUF_EMPTY;
        buf_printf(&header, "%s=%s", o->headers[i].name, o->headers[i].value);
        buf_printf(out, " --header ");
        add_word(out, (const char *)header.data, header.size);
        buf_free(&header);
    }
}

void again_flags(struct buf *out, const struct pushrod_options *o)
{
    unsigned priority = o->priority_plus_1 ? o->priority_plus_1 - 1 : PUSHROD_DEFAULT_PRIORITY;
    unsigned attempts = o->max_attempts ? o->max_attempts : PUSHROD_DEFAULT_MAX_ATTEMPTS;
    if (priority != PUSHROD_DEFAULT_PRIORITY)
        buf_printf(out, " --priority %u", priority);
    if (attempts != PUSHROD_DEFAULT_MAX_ATTEMPTS)
        buf_printf(out, " --attempts %u", attempts);
    if (o->eta_ms)
        buf_printf(out, " --at @%llu", (unsigned long long)(o->eta_ms / 1000));
    add_ms(out, "timeout", o->timeout_ms);
    add_ms(out, "expires", o->expires_ms);
    add_ms(out, "backoff", o->backoff_ms == PUSHROD_DEFAULT_BACKOFF_MS ? 0 : o->backoff_ms);
    add_text(out, "unique", o->unique_key);
    add_ms(out, "unique-for", o->unique_ms);
    add_text(out, "worker", o->worker);
    add_ms(out, "keep", o->keep_ms);
    if (o->tag_size) {
        buf_printf(out, " --tag ");
        add_word(out, o->tag, o->tag_size);
    }
    add_headers(out, o);
}

/* ---------------------------------------------------------------------------------- replay */

int change_read(struct cli *cli, struct change *change, const char *path)
{
    size_t limit = (size_t)pushrod_client_server(cli->client)->max_payload;
    const char *name = strcmp(path, "-") == 0 ? "standard input" : path;
    if (strcmp(path, "-") == 0 && isatty(STDIN_FILENO))
        cli_say(cli, "the payload is what you type now, until ^D");
    int why = input_read(&change->payload, path, limit);
    if (interrupt_count())
        return EXIT_INTERRUPTED;
    if (why) {
        cli_say(cli, "cannot read %s: %s", name, strerror(why));
        return EXIT_USAGE;
    }
    /* Of a pipe whose first command has failed: that payload would be the end of the task. */
    if (!change->payload.size && strcmp(path, "-") == 0) {
        cli_say(
            cli, "standard input is empty, and nothing was done (--payload /dev/null: no payload)");
        return EXIT_USAGE;
    }
    change->has_payload = true;
    if (change->payload.size <= limit)
        return 0;
    cli_say(cli, "%s has more than %zu bytes, the max-payload of the server", name, limit);
    return cli_exit_code(-PUSHROD_E_TOO_BIG);
}

/*
 * Its key, if that is free, as the server's own replay does it. After a loss the library takes the
 * holder for what it had submitted: one that is not newer than the dead task is not, but that
 * itself, and nobody else has the payload.
 */
static int submit_again(struct cli *cli, const struct pushrod_submission *task, uint64_t id,
    struct pushrod_options *o, uint64_t *as)
{
    int error = pushrod_client_submit(cli->client, task, as);
    if (error == -PUSHROD_E_DUPLICATE || (!error && *as <= id)) {
        o->unique_key = NULL;
        o->unique_ms = 0;
        error = pushrod_client_submit(cli->client, task, as);
    }
    if (error)
        *as = 0;
    return error;
}

static int submit_changed(struct cli *cli, const struct change *change, uint64_t id, uint64_t *as)
{
    struct pushrod_submission task;
    int error = pushrod_client_submitted(cli->client, id, !change->has_payload, &task);
    if (error)
        return error;
    struct pushrod_options options = *task.options;
    options.expires_ms = 0; /* it is late already */
    task.options = &options;
    if (change->queue)
        task.queue = change->queue;
    if (change->has_payload) {
        task.data = change->payload.data;
        task.size = change->payload.size;
    }
    return submit_again(cli, &task, id, &options, as);
}

/* The new one first: what fails in between leaves two of them, and not none. */
int again_replay(
    struct cli *cli, const struct change *change, uint64_t id, uint64_t *as, const char **text)
{
    struct pushrod_task_info info;
    *as = 0;
    int64_t error = pushrod_client_status(cli->client, id, &info);
    if (!error && strcmp(info.state, "failed") != 0) {
        *text = "it is not dead: `pushrod status` says where it is";
        return -PUSHROD_E_WRONG_STATE;
    }
    if (!error)
        error = submit_changed(cli, change, id, as);
    if (!error)
        error = pushrod_client_control(cli->client, "drop", NULL, id);
    *text = pushrod_client_error_text(cli->client);
    return error < 0 ? (int)error : 0;
}
