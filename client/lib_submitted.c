/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lib_submitted: a task as it was submitted, as something that can be submitted again.
 *
 * What comes is copied once, out of the buffer that the next frame needs, and belongs to the client
 * until the next one is asked for.
 */
#include <stdlib.h>

#include "client/lib.h"

static void submitted_forget(struct submitted *s)
{
    free(s->headers);
    buf_free(&s->texts);
    *s = (struct submitted){0};
}

void submitted_free(struct pushrod_client *c)
{
    submitted_forget(&c->submitted);
}

/* False: no memory, or nonsense. The texts go to scratch. */
static bool headers_read(struct pushrod_client *c, struct slice map, struct submitted *s)
{
    struct dec in = dec_of(map);
    size_t count = map.data ? dec_map(&in) : 0;
    if (!count)
        return true;
    s->headers = calloc(count, sizeof *s->headers);
    if (!s->headers)
        return false;
    for (size_t i = 0; i < count; i++) {
        s->headers[i].name = text_of(c, dec_text(&in));
        s->headers[i].value = text_of(c, dec_text(&in));
    }
    s->options.headers = s->headers;
    s->options.header_count = count;
    return !dec_failed(&in);
}

static bool options_read(struct pushrod_client *c, const struct msg_options *m, struct submitted *s)
{
    s->options = (struct pushrod_options){.priority_plus_1 = (unsigned)m->priority + 1,
        .delay_ms = m->delay_ms,
        .eta_ms = m->eta_ms,
        .timeout_ms = m->timeout_ms,
        .expires_ms = m->expires_ms,
        .max_attempts = (unsigned)m->max_attempts,
        .backoff_ms = m->backoff_ms,
        .unique_key = m->unique_key.data ? text_of(c, m->unique_key) : NULL,
        .unique_ms = m->unique_ms,
        .worker = m->worker.data ? text_of(c, m->worker) : NULL,
        .keep_ms = m->keep_ms,
        .tag = m->tag.size ? text_of(c, m->tag) : NULL,
        .tag_size = m->tag.size};
    return headers_read(c, m->headers, s);
}

static bool options_decode(struct slice message, struct msg_options *m)
{
    struct dec in = dec_of(message);
    return message.data && dec_message(&in) == MSG_OPTIONS && msg_options_decode(&in, m) &&
           m->priority <= PUSHROD_MAX_PRIORITY && (!m->headers.data || headers_valid(m->headers));
}

/* Each text has its bytes in the message, and a NUL more here. */
static int submitted_copy(struct pushrod_client *c, const struct msg_submitted *m)
{
    struct submitted *s = &c->submitted;
    struct msg_options o;
    submitted_forget(s);
    if (!options_decode(m->options, &o))
        return client_fail(
            c, PUSHROD_E_BAD_MESSAGE, "what the server says of the task is not valid");
    text_begin(c, m->queue.size + m->payload.size + 2 * m->options.size + 5);
    s->task = (struct pushrod_submission){.queue = text_of(c, m->queue),
        .data = m->payload.data ? text_of(c, m->payload) : NULL,
        .size = m->payload.size,
        .options = &s->options};
    if (!options_read(c, &o, s) || c->scratch.failed) {
        submitted_forget(s);
        return client_no_memory(c);
    }
    s->texts = c->scratch;
    c->scratch = BUF_EMPTY;
    return 0;
}

static void submitted_row(struct pushrod_client *c, struct dec *in, struct call *call)
{
    struct msg_submitted m;
    if (!msg_submitted_decode(in, &m))
        return;
    call->done = true;
    call->error = submitted_copy(c, &m);
}

/* A list of one, for a server that does not know it yet says so, and goes on. */
int pushrod_client_submitted(
    struct pushrod_client *c, uint64_t id, bool payload, struct pushrod_submission *task)
{
    struct call call = {.request = ++c->calls, .row_kind = MSG_SUBMITTED, .row = submitted_row};
    struct msg_list m = {.request = call.request,
        .what = slice_str(payload ? "submitted" : "options"),
        .after = id,
        .limit = 1};
    msg_list_encode(&call.message, &m);
    int64_t error = call_run(c, &call);
    if (error == 0 && !call.rows)
        error = client_fail(c, PUSHROD_E_BAD_MESSAGE, "the server has not said what the task is");
    if (error == -PUSHROD_E_INVALID)
        return client_fail(c, PUSHROD_E_INVALID,
            "server %s is %s, which is older than this program and gives no task back",
            c->info.address, c->info.software);
    if (error < 0)
        return (int)error;
    *task = c->submitted.task;
    return 0;
}
