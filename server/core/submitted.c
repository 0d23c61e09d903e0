/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A task as it was submitted, of memory or of the store: for who repairs a dead one. It may be a
 * payload of megabytes, so that all of them together are bounded as the rows of other lists are.
 */
#include <assert.h>
#include "server/core/verbs.h"

#define ROW_BYTES  1024u /* of a payload in memory: they count as a row more */
#define ASKED_ROWS 1000u /* of a payload in the store: nobody knows its size before it is there */

/* ---- what is told ---- */

/* How long it was from the submission, which is what the submitter had said; 0: not at all. */
static uint64_t duration(const struct record *r, uint64_t moment_ms)
{
    assert(r->id != 0);
    return moment_ms > r->submitted_ms ? moment_ms - r->submitted_ms : 0;
}

/* `first`: it waits for its first attempt, and not for another one. */
static struct slice options_message(struct core *c, const struct record *r, bool first)
{
    struct buf message = BUF_EMPTY;
    struct msg_options o = {.priority = r->priority,
        .eta_ms = first ? r->due_ms : 0,
        .timeout_ms = r->timeout_ms,
        .expires_ms = duration(r, r->expires_ms),
        .max_attempts = r->max_attempts,
        .backoff_ms = r->backoff_ms,
        .unique_key = r->unique,
        .unique_ms = duration(r, r->unique_ms),
        .worker = r->target,
        .keep_ms = r->keep_ms,
        .tag = r->tag,
        .headers = r->headers};
    assert(r->priority < PRIORITIES);
    msg_options_encode(&message, &o);
    struct slice copy = message.failed ? (struct slice){0} : arena_slice(c, buf_slice(&message));
    buf_free(&message);
    return copy;
}

/* A large one is lent, not copied; a small one may make room for a result in this same tick. */
static bool payload_lend(struct core *c, const struct record *r, struct submitted *s)
{
    assert(!r->body || r->body->size == r->payload.size);
    if (r->body) {
        s->body = r->body;
        s->row.payload = body_slice(r->body);
        return out_lend(c, r->body);
    }
    s->row.payload =
        arena_slice(c, r->payload.size ? r->payload : slice_of((const uint8_t *)"", 0));
    return s->row.payload.data;
}

static void submitted_tell(
    struct core *c, const struct request *r, const struct record *record, bool first)
{
    struct submitted *s = arena_alloc(c, sizeof *s);
    assert(r->id == record->id);
    if (!s)
        return;
    s->row = (struct msg_submitted){.request = r->request,
        .id = record->id,
        .queue = arena_slice(c, record->queue),
        .options = options_message(c, record, first)};
    if (!s->row.options.data || (!r->bare && !payload_lend(c, record, s))) {
        out_reject(c, r->conn, r->request, PUSHROD_E_NO_MEMORY, NULL);
        return;
    }
    out_conn(c, r->conn, r->request, MSG_SUBMITTED)->row = s;
    row_end(c, r->conn, r->request, 1);
}

static void refuse_ended(struct core *c, const struct request *r)
{
    assert(r->id != 0);
    out_reject(c, r->conn, r->request, PUSHROD_E_WRONG_STATE,
        "the task has ended: payload and options are kept of dead tasks only");
}

/* ---- in memory ---- */

static void submitted_here(struct core *c, const struct request *r, const struct task *t)
{
    struct record record;
    bool ended = task_ended(t);
    if (ended && !finish_is_dead_letter(t)) {
        refuse_ended(c, r);
        return;
    }
    task_record(t, &record);
    assert(record.payload.size == 0 || record.payload.data);
    if (!r->bare)
        c->listed += record.payload.size / ROW_BYTES;
    submitted_tell(c, r, &record, !ended && record.attempts == 0);
}

/* ---- in the store ---- */

static uint64_t rows_asked(const struct request *r)
{
    assert(r->conn != 0);
    return r->bare ? 1 : ASKED_ROWS;
}

/* Whoever asks may be gone when the store has answered: it is made known, so that this is seen. */
static bool submitted_ask(struct core *c, const struct request *asked)
{
    assert(!c->bypass);
    if (!conn_get(c, asked->conn) || !request_ask(c, STORE_LOOKUP, asked->id,
                                         (struct request){.kind = REQUEST_SUBMITTED,
                                             .conn = asked->conn,
                                             .request = asked->request,
                                             .bare = asked->bare}))
        return false;
    c->scanning += rows_asked(asked);
    return true;
}

void submitted_stored(struct core *c, struct request *r, const struct store_event *e)
{
    const struct record *record = e->outcome == OUTCOME_STORED ? e->records : NULL;
    assert(c->scanning >= rows_asked(r));
    c->scanning -= rows_asked(r);
    if (!conn_is_open(c, r->conn))
        return;
    if (e->outcome == OUTCOME_STORED && !record && e->finishes)
        refuse_ended(c, r);
    else if (!record)
        request_reject(c, r, e);
    else if (!r->bare && record->payload.size && !record->payload.data)
        out_reject(c, r->conn, r->request, PUSHROD_E_STORE_FAILED, NULL);
    else
        submitted_tell(c, r, record, e->record_count && record->attempts == 0);
}

/* ---- LIST ---- */

static void submitted_list(struct core *c, const struct request *r)
{
    struct task *t = ledger_find(&c->ledger, r->id);
    assert(r->conn != 0);
    if (t && !t->released && (task_only_here(t) || !task_ended(t)))
        submitted_here(c, r, t);
    else if (c->bypass || ids_unissued(c, r->id))
        out_reject(c, r->conn, r->request, PUSHROD_E_UNKNOWN_TASK, unknown_text(c, r->id));
    else if (c->scanning >= LIST_TICK)
        list_refuse(c, r->conn, r->request);
    else if (!submitted_ask(c, r))
        out_reject(c, r->conn, r->request, PUSHROD_E_NO_MEMORY, NULL);
}

void list_submitted(struct core *c, uint64_t conn, const struct msg_list *m)
{
    assert(m->limit > 0);
    submitted_list(c, &(struct request){.conn = conn, .request = m->request, .id = m->after});
}

void list_options(struct core *c, uint64_t conn, const struct msg_list *m)
{
    assert(m->limit > 0);
    submitted_list(
        c, &(struct request){.conn = conn, .request = m->request, .id = m->after, .bare = true});
}
