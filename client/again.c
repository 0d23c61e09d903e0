/* SPDX-License-Identifier: Apache-2.0 */
#include "client/again.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "client/input.h"
#include "common/clock.h"

#define AGAIN_BYTES (4u << 20) /* of tasks that are read before they are submitted */
#define LAST_MS     5000       /* after ^C, for the answers to what is under way, ... */
#define LAST_TEXT   "5000"     /* ... and then for those to the drops */
#define PLAIN       "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./:@%+=,-"

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
    int code = payload_read(cli, &change->payload, path);
    if (code)
        return code;
    /* Of a pipe whose first command has failed: that payload would be the end of the task. */
    if (!change->payload.size && strcmp(path, "-") == 0) {
        cli_say(
            cli, "standard input is empty, and nothing was done (--payload /dev/null: no payload)");
        return EXIT_USAGE;
    }
    change->has_payload = true;
    return 0;
}

/* The dead task as it is to be submitted now. What is pointed to is the library's, and *options. */
static int read_changed(struct cli *cli, const struct change *change, uint64_t id,
    struct pushrod_submission *task, struct pushrod_options *options)
{
    int error = pushrod_client_submitted(cli->client, id, !change->has_payload, task);
    if (error)
        return error;
    *options = *task->options;
    options->expires_ms = 0; /* it is late already */
    task->options = options;
    if (change->queue)
        task->queue = change->queue;
    if (change->has_payload) {
        task->data = change->payload.data;
        task->size = change->payload.size;
    }
    return 0;
}

/* A task that the library has forgotten by then. */
struct copy {
    struct pushrod_submission task; /* queue NULL: there is none */
    struct pushrod_options options;
    struct pushrod_header *headers;
    struct buf texts; /* and the payload */
};

/* There is room for it. */
static const char *copy_text(struct copy *to, const char *text, size_t size)
{
    if (!text)
        return NULL;
    const char *at = (const char *)to->texts.data + to->texts.size;
    buf_append(&to->texts, text, size);
    buf_append(&to->texts, "", 1);
    return at;
}

static const char *copy_string(struct copy *to, const char *text)
{
    return copy_text(to, text, text ? strlen(text) : 0);
}

static size_t string_size(const char *text)
{
    return text ? strlen(text) + 1 : 0;
}

/* With what the options point to. */
static size_t copy_size(const struct pushrod_submission *from)
{
    const struct pushrod_options *o = from->options;
    size_t size = string_size(from->queue) + from->size + 1 + string_size(o->unique_key) +
                  string_size(o->worker) + o->tag_size + 1;
    for (size_t i = 0; i < o->header_count; i++)
        size += string_size(o->headers[i].name) + string_size(o->headers[i].value);
    return size;
}

static void copy_free(struct copy *c)
{
    free(c->headers);
    buf_free(&c->texts);
    *c = (struct copy){0};
}

static bool copy_make(struct copy *to, const struct pushrod_submission *from)
{
    const struct pushrod_options *o = from->options;
    *to = (struct copy){.task = *from, .options = *o};
    to->headers = calloc(o->header_count + 1, sizeof *to->headers);
    if (!to->headers || !buf_reserve(&to->texts, copy_size(from))) {
        copy_free(to);
        return false;
    }
    to->task.queue = copy_string(to, from->queue);
    to->task.data = copy_text(to, from->data, from->size);
    to->task.options = &to->options;
    to->options.unique_key = copy_string(to, o->unique_key);
    to->options.worker = copy_string(to, o->worker);
    to->options.tag = copy_text(to, o->tag, o->tag_size);
    to->options.headers = to->headers;
    for (size_t i = 0; i < o->header_count; i++)
        to->headers[i] = (struct pushrod_header){
            copy_string(to, o->headers[i].name), copy_string(to, o->headers[i].value)};
    return true;
}

/*
 * After a loss the library takes the task that holds the key for what it had submitted. It may be
 * somebody else's: then nobody has the payload of the dead one. 1: it is what was submitted; 0: it
 * is not; negative: that cannot be told.
 */
static int is_replay(struct cli *cli, const struct change *change, uint64_t id, uint64_t as)
{
    struct pushrod_submission task, held;
    struct pushrod_options options;
    struct copy copy;
    if (as <= id) /* the dead one itself */
        return 0;
    int error = read_changed(cli, change, id, &task, &options);
    if (error)
        return error;
    if (!copy_make(&copy, &task))
        return -PUSHROD_E_NO_MEMORY;
    error = pushrod_client_submitted(cli->client, as, true, &held);
    bool same =
        !error && strcmp(held.queue, copy.task.queue) == 0 &&
        slice_equal(slice_of(held.data, held.size), slice_of(copy.task.data, copy.task.size));
    copy_free(&copy);
    return error ? error : same;
}

static int submit_changed(
    struct cli *cli, const struct change *change, uint64_t id, bool keyed, uint64_t *as)
{
    struct pushrod_submission task;
    struct pushrod_options options;
    int error = read_changed(cli, change, id, &task, &options);
    if (error)
        return error;
    if (!keyed) {
        options.unique_key = NULL;
        options.unique_ms = 0;
    }
    return pushrod_client_submit(cli->client, &task, as);
}

/* With its key, if that is free, as the server's own replay does it. *as with an error: it may be
 * there. */
static int submit_again(struct cli *cli, const struct change *change, uint64_t id, uint64_t *as)
{
    unsigned losses = cli->losses;
    int error = submit_changed(cli, change, id, true, as);
    bool held = error == -PUSHROD_E_DUPLICATE;
    if (!error && cli->losses != losses) {
        int ours = is_replay(cli, change, id, *as);
        if (ours < 0)
            return ours;
        held = !ours;
    }
    if (held)
        error = submit_changed(cli, change, id, false, as);
    if (error)
        *as = 0;
    return error;
}

/* WRONG_STATE: it is not. */
static int check_dead(struct cli *cli, uint64_t id)
{
    struct pushrod_task_info info;
    int error = pushrod_client_status(cli->client, id, &info);
    return !error && strcmp(info.state, "failed") != 0 ? -PUSHROD_E_WRONG_STATE : error;
}

/* The new one first: what fails in between leaves two of them, and not none. */
int again_replay(
    struct cli *cli, const struct change *change, uint64_t id, uint64_t *as, const char **text)
{
    static const struct pushrod_client_events events = {.connection = cli_connection};
    *as = 0;
    pushrod_client_on(cli->client, &events);
    int64_t error = check_dead(cli, id);
    if (error == -PUSHROD_E_WRONG_STATE) {
        *text = "it is not dead: `pushrod status` says where it is";
        return (int)error;
    }
    if (!error)
        error = submit_again(cli, change, id, as);
    if (!error)
        error = pushrod_client_control(cli->client, "drop", NULL, id);
    *text = pushrod_client_error_text(cli->client);
    return error < 0 ? (int)error : 0;
}

/* ---------------------------------------------------------------------------------- many */

struct many {
    struct cli *cli;
    const struct change *change;
    struct json_act *acts;
    struct copy copies[AGAIN_MOST];
    size_t count;              /* of these */
    bool doubtful[AGAIN_MOST]; /* accepted after a loss: see is_replay() */
    unsigned losses;           /* before the first was submitted */
    int error;                 /* that ends it; 0: none yet */
    struct buf *why;
};

static void many_end(struct many *m, int error, const char *text)
{
    if (m->error)
        return;
    m->error = error;
    buf_printf(m->why, "%s", text);
}

/* One that somebody else has replayed or dropped meanwhile is no reason to end. */
static void many_read(struct many *m, struct json_act *act, struct copy *to)
{
    struct pushrod_submission task;
    struct pushrod_options options;
    act->error = check_dead(m->cli, act->id);
    if (!act->error)
        act->error = read_changed(m->cli, m->change, act->id, &task, &options);
    if (act->error == -PUSHROD_E_UNKNOWN_TASK || act->error == -PUSHROD_E_WRONG_STATE)
        return;
    if (act->error)
        many_end(m, act->error, pushrod_client_error_text(m->cli->client));
    else if (!copy_make(to, &task))
        many_end(m, -PUSHROD_E_NO_MEMORY, pushrod_strerror(PUSHROD_E_NO_MEMORY));
}

/* All are read before the first is submitted: each look at the store would wait for its commit. */
static void read_many(struct many *m, size_t count)
{
    size_t bytes = 0;
    for (; !m->error && m->count < count && bytes < AGAIN_BYTES; m->count++) {
        many_read(m, &m->acts[m->count], &m->copies[m->count]);
        bytes += m->copies[m->count].texts.size;
    }
}

/* A key that another holds is left out, as in submit_again(): alone, for the task is not here. */
static void on_accepted(
    struct pushrod_client *c, uint64_t id, int error, const char *text, void *arg)
{
    const struct cli *cli = pushrod_client_data(c);
    struct many *m = cli->state;
    struct json_act *act = arg;
    act->as = error ? 0 : id;
    act->error = error;
    m->doubtful[act - m->acts] = cli->losses != m->losses;
    if (error && error != -PUSHROD_E_DUPLICATE)
        many_end(m, error, text);
}

static void submit_many(struct many *m)
{
    for (size_t i = 0; i < m->count; i++) {
        struct json_act *act = &m->acts[i];
        struct copy *copy = &m->copies[i];
        copy->task.arg = act;
        if (copy->task.queue && !m->error) {
            act->error = pushrod_client_submit_async(m->cli->client, &copy->task);
            if (act->error)
                many_end(m, act->error, pushrod_client_error_text(m->cli->client));
        }
        copy_free(copy);
    }
}

/* After ^C as well: what the server accepts would be there beside the dead one. */
static void await_answers(struct many *m)
{
    struct pushrod_client *c = m->cli->client;
    uint64_t until = UINT64_MAX, now = clock_mono_ns();
    while (pushrod_client_unanswered(c) && now < until) {
        if (m->error == -PUSHROD_E_INTERRUPTED && until == UINT64_MAX)
            until = clock_after_ms(now, LAST_MS);
        int error = pushrod_client_process(c, clock_wait_ms(now, until));
        if (error)
            many_end(m, error, pushrod_client_error_text(c));
        if (error && error != -PUSHROD_E_INTERRUPTED)
            return;
        now = clock_mono_ns();
    }
    /* One that came with the last answer would end the drops. */
    if (pushrod_client_process(c, 0) == -PUSHROD_E_INTERRUPTED)
        many_end(m, -PUSHROD_E_INTERRUPTED, pushrod_client_error_text(c));
}

/* What is not known to be ours keeps its dead one. */
static void resolve_doubts(struct many *m)
{
    for (size_t i = 0; i < m->count; i++) {
        struct json_act *act = &m->acts[i];
        int ours = act->as && m->doubtful[i] ? is_replay(m->cli, m->change, act->id, act->as) : 1;
        if (ours > 0)
            continue;
        act->error = ours ? ours : -PUSHROD_E_DUPLICATE;
        act->as = 0;
        if (ours)
            many_end(m, ours, pushrod_client_error_text(m->cli->client));
    }
}

/* Those whose new one is there, and only those. */
static void drop_replayed(struct many *m)
{
    uint64_t ids[AGAIN_MOST];
    int64_t counts[AGAIN_MOST];
    size_t n = 0;
    for (size_t i = 0; i < m->count; i++)
        if (m->acts[i].as)
            ids[n++] = m->acts[i].id;
    int64_t dropped = pushrod_client_control_many(m->cli->client, "drop", ids, n, counts);
    if (dropped < 0)
        many_end(m, (int)dropped, pushrod_client_error_text(m->cli->client));
    for (size_t i = m->count; i-- > 0;) {
        int64_t done = m->acts[i].as ? counts[--n] : 0;
        m->acts[i].tasks = done > 0;
        m->acts[i].error = done < 0 ? (int)done : m->acts[i].error;
    }
}

int again_replay_many(struct cli *cli, const struct change *change, struct json_act *acts,
    size_t *count, struct buf *why)
{
    static const struct pushrod_client_events events = {
        .accepted = on_accepted, .connection = cli_connection};
    struct many m = {.cli = cli, .change = change, .acts = acts, .why = why};
    assert(*count <= AGAIN_MOST);
    cli->state = &m;
    pushrod_client_on(cli->client, &events);
    read_many(&m, *count);
    m.losses = cli->losses;
    submit_many(&m);
    await_answers(&m);
    if (m.error == -PUSHROD_E_INTERRUPTED)
        pushrod_client_set(cli->client, "answer-timeout", LAST_TEXT);
    resolve_doubts(&m);
    pushrod_client_on(cli->client, NULL);
    cli->state = NULL;
    drop_replayed(&m);
    *count = m.count;
    return m.error;
}
