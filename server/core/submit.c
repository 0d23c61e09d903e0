/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Submissions: what is wrong with them, the task that is made of them, and when its life begins.
 * "ACCEPTED is told when the store has the task at the queue's durability, not before": with `sync`
 * the submitter is a follower that waits for that; with `async` and `memory` it is told at once.
 */
#include <assert.h>
#include <inttypes.h>
#include "common/name.h"
#include "server/core/verbs.h"

#define MAX_ATTEMPTS 1000u

/* ---- ids: from blocks that the store leases, so that none costs a write ---- */

void ids_begin(struct core *c, const struct store_opened *opened)
{
    c->first_id = c->next_id = opened->first_id ? opened->first_id : 1;
    c->last_id = c->next_id + opened->id_count - 1;
    assert(c->next_id > 0);
}

static void ids_ask(struct core *c)
{
    assert(c->spare_count == 0);
    struct store_op *op = c->ids_asked ? NULL : out_store(c, STORE_IDS, 0);
    if (!op)
        return;
    op->limit = STORE_ID_BLOCK;
    c->ids_asked = true;
}

/* Asks for more while half of them are left: a stream of submissions never waits for ids. */
static bool ids_take(struct core *c, uint64_t *id)
{
    assert(c->next_id > 0);
    if (c->next_id > c->last_id && c->spare_count) {
        c->next_id = c->spare_id;
        c->last_id = c->spare_id + c->spare_count - 1;
        c->spare_count = 0;
    }
    if (c->spare_count == 0 && c->last_id - c->next_id + 1 < STORE_ID_BLOCK / 2)
        ids_ask(c);
    if (c->next_id > c->last_id)
        return false;
    *id = c->next_id++;
    return true;
}

void ids_stored(struct core *c, const struct store_event *e)
{
    assert(c->ids_asked);
    c->ids_asked = false;
    if (e->outcome != OUTCOME_STORED || e->count == 0)
        return;
    assert(e->id > c->last_id);
    c->spare_id = e->id;
    c->spare_count = e->count;
}

/* What is left of the block of ids that is leased to us, and from the one after it on all. */
bool ids_unissued(const struct core *c, uint64_t id)
{
    uint64_t above = c->spare_count ? c->spare_id : c->last_id + 1;
    assert(above > c->last_id && c->next_id <= above);
    return id == 0 || id >= above || (id >= c->next_id && id <= c->last_id);
}

/* ---- what is wrong with a submission ---- */

struct refusal {
    int code;
    const char *text;
    uint64_t holder;
};

static bool refuse(struct refusal *r, int code, const char *text)
{
    assert(code > 0);
    r->code = code;
    r->text = text;
    return false;
}

static bool options_check(const struct msg_options *o, struct refusal *why)
{
    assert(o && why);
    if (o->priority > PUSHROD_MAX_PRIORITY)
        return refuse(why, PUSHROD_E_BAD_OPTION, "priority is 0 to 9");
    if (o->max_attempts > MAX_ATTEMPTS)
        return refuse(why, PUSHROD_E_BAD_OPTION, "max_attempts is 1 to 1000");
    if (o->unique_key.data &&
        (o->unique_key.size == 0 || o->unique_key.size > PUSHROD_MAX_UNIQUE_KEY))
        return refuse(why, PUSHROD_E_BAD_OPTION, "a unique key has 1 to 256 bytes");
    if (o->tag.size > PUSHROD_MAX_TAG)
        return refuse(why, PUSHROD_E_BAD_OPTION, "a tag has at most 256 bytes");
    if (o->worker.data && !name_valid(o->worker))
        return refuse(why, PUSHROD_E_BAD_OPTION,
            "a worker's name has 1 to 128 characters of A-Z a-z 0-9 . _ : / + -");
    if (o->headers.size > PUSHROD_MAX_HEADERS || (o->headers.data && !headers_valid(o->headers)))
        return refuse(why, PUSHROD_E_BAD_OPTION,
            "headers are a map of text to text of at most 8 KiB, names are A-Z a-z 0-9 _ -");
    return true;
}

static size_t payload_size(const struct submit *s)
{
    assert(s);
    return s->body ? s->body->size : s->payload.size;
}

/* What is wrong with it wherever it goes. */
static bool submission_check(struct core *c, const struct submit *s, struct refusal *why)
{
    size_t size = payload_size(s);
    assert(s->follow <= FOLLOW_ALL);
    if (c->draining)
        return refuse(why, PUSHROD_E_DRAINING, NULL);
    if (size > c->config.max_payload)
        return refuse(why, PUSHROD_E_TOO_BIG,
            arena_text(
                c, "the payload has %zu bytes, the limit is %zu", size, c->config.max_payload));
    return !s->options || options_check(s->options, why);
}

/* The queue, made if it was not there. */
static bool submit_queue(
    struct core *c, const struct submit *s, struct queue **queue, struct refusal *why)
{
    int code = PUSHROD_E_OK;
    const char *text = NULL;
    *queue = queue_open(c, s->queue, &code, &text);
    assert(!*queue || (*queue)->name.size > 0);
    return *queue || refuse(why, code, text);
}

/*
 * What only one worker may run gathers in memory, where it is found when that worker comes: the
 * window moves past it, or it would hide what others could run. So no more of it may wait, wherever
 * it lies now, than fits into a window.
 */
static bool target_full(const struct core *c, const struct queue *q, const struct submit *s)
{
    if (!s->options || !s->options->worker.data)
        return false;
    assert(q->targeted <= q->targeted_here);
    return q->targeted_here + q->targeted_stored >= c->config.window_tasks;
}

/* What the queue, and what stands behind it, cannot take now. */
static bool queue_check(
    struct core *c, const struct queue *q, const struct submit *s, struct refusal *why)
{
    assert(q);
    if (q->max_tasks && queue_unfinished(q) >= q->max_tasks)
        return refuse(why, PUSHROD_E_QUEUE_FULL,
            "the queue has as many unfinished tasks as max-tasks of the server allows");
    if (q->bypass && c->bypass_bytes + payload_size(s) > c->config.max_bytes)
        return refuse(why, PUSHROD_E_OVERLOADED, NULL);
    if (!q->bypass && c->store_code)
        return refuse(why, c->store_code, NULL);
    if (q->durability == DURABILITY_ASYNC && c->unstored_bytes > c->config.max_unsettled)
        return refuse(why, PUSHROD_E_STORE_FULL, NULL);
    if (target_full(c, q, s))
        return refuse(why, PUSHROD_E_QUEUE_FULL,
            arena_text(c,
                "%" PRIu64
                " tasks of the queue wait for workers by name already: start those workers",
                q->targeted_here + q->targeted_stored));
    return true;
}

/* With a store behind the queue only that one knows who holds the key. */
static bool unique_check(
    struct core *c, const struct queue *q, const struct submit *s, struct refusal *why)
{
    struct slice key = s->options ? s->options->unique_key : (struct slice){0};
    struct unique *u = key.data && q->bypass ? unique_find(c, q, key) : NULL;
    assert(!u || u->id > 0);
    if (!u)
        return true;
    why->holder = u->id;
    return refuse(why, PUSHROD_E_DUPLICATE, NULL);
}

/* ---- the task ---- */

/* Unix ms; a duration as long as one likes is far away, and not in the past. */
static uint64_t moment(const struct core *c, uint64_t duration_ms)
{
    assert(c->now.wall_ms < STORE_LATEST_MS);
    return c->now.wall_ms + earlier(duration_ms, STORE_LATEST_MS - c->now.wall_ms);
}

static void options_apply(const struct core *c, struct record *r, const struct msg_options *o)
{
    assert(o->priority < PRIORITIES);
    r->priority = (uint8_t)o->priority;
    r->max_attempts = o->max_attempts ? (uint32_t)o->max_attempts : PUSHROD_DEFAULT_MAX_ATTEMPTS;
    r->backoff_ms = o->backoff_ms ? o->backoff_ms : PUSHROD_DEFAULT_BACKOFF_MS;
    if (r->backoff_ms > BACKOFF_CAP_MS)
        r->backoff_ms = BACKOFF_CAP_MS;
    uint64_t due = o->eta_ms ? o->eta_ms : o->delay_ms ? moment(c, o->delay_ms) : 0;
    r->due_ms = due > c->now.wall_ms ? earlier(due, STORE_LATEST_MS) : 0;
    r->expires_ms = o->expires_ms ? moment(c, o->expires_ms) : 0;
    r->timeout_ms = earlier(o->timeout_ms, FAR_MS);
    r->keep_ms = earlier(o->keep_ms, FAR_MS);
    r->headers = o->headers;
    r->tag = o->tag;
    r->unique = o->unique_key;
    r->unique_ms = o->unique_key.data && o->unique_ms ? moment(c, o->unique_ms) : 0;
    r->target = o->worker;
}

static struct task *submit_task(struct core *c, struct queue *q, const struct submit *s)
{
    struct record r = {.payload = s->body ? body_slice(s->body) : s->payload,
        .body = s->body,
        .queue = q->name,
        .priority = PUSHROD_DEFAULT_PRIORITY,
        .max_attempts = PUSHROD_DEFAULT_MAX_ATTEMPTS,
        .backoff_ms = PUSHROD_DEFAULT_BACKOFF_MS,
        .submitted_ms = c->now.wall_ms,
        .followed = s->follow != FOLLOW_NONE};
    if (s->options)
        options_apply(c, &r, s->options);
    if (!ids_take(c, &r.id))
        return NULL;
    struct task *t = task_new(c, q, &r);
    if (!t)
        return NULL;
    assert(t->state == TASK_STORING);
    t->fresh = true;
    if (q->bypass && r.unique.data && !unique_hold(c, t)) {
        task_drop(c, t);
        return NULL;
    }
    return t;
}

/* ACCEPTED waits for the store; always with a unique key, for only the store knows who holds it. */
bool submit_waits(const struct task *t)
{
    assert(t->queue);
    if (t->queue->bypass)
        return false;
    return t->queue->durability == DURABILITY_SYNC || (t->rare && t->rare->unique.data);
}

/* Who follows it, or is to be told ACCEPTED later, or takes it along when it leaves. */
static bool submit_follow(struct core *c, uint64_t conn, struct task *t, const struct submit *s)
{
    bool attached = s->options && s->options->attached;
    bool later = submit_waits(t);
    if (s->follow == FOLLOW_NONE && !attached && !later)
        return true;
    struct follower *f = follower_new(c, conn, s->request, (uint8_t)s->follow);
    if (!f)
        return false;
    f->attached = attached;
    f->submitter = later;
    f->patient = s->patient;
    follower_attach(t, f);
    assert(t->followers == f);
    return true;
}

static void tell_rejected(
    struct core *c, uint64_t conn, uint64_t request, const struct refusal *why)
{
    assert(why->code > 0);
    c->stats.rejected++;
    out_reject(c, conn, request, why->code, why->text)->id = why->holder;
}

static void submit_count(struct core *c, struct task *t)
{
    assert(t->record.id > 0);
    c->stats.submitted++;
    t->queue->submitted++;
}

static void tell_accepted(
    struct core *c, uint64_t conn, uint64_t request, uint64_t id, bool patient)
{
    assert(id > 0);
    struct conn_action *a = out_conn(c, conn, request, MSG_ACCEPTED);
    a->patient = patient;
    a->id = id;
}

static bool submit_store(struct core *c, struct task *t)
{
    assert(!t->queue->bypass);
    struct record *r = arena_alloc(c, sizeof *r);
    struct store_op *op = r ? out_store(c, STORE_APPEND, t->slot) : NULL;
    if (!op)
        return false;
    t->record.windowed = !t->record.due_ms && window_takes(c, t->queue, task_key(t));
    task_record(t, r);
    op->record = r;
    op->async = !submit_waits(t);
    t->operations++;
    c->stats.unsettled_bytes += t->record.payload.size + sizeof *t;
    return true;
}

/* Its life begins: by what is due, and by the window. */
static void submit_start(struct core *c, struct task *t)
{
    assert(t->state == TASK_STORING);
    bool stored = !task_only_here(t);
    if (t->record.due_ms && stored) {
        window_delay(c, t);
    } else if (t->record.due_ms) {
        task_delay(c, t, 0);
    } else if (stored && !t->record.windowed) {
        window_skip(c, t);
    } else {
        window_enter(c, t);
    }
}

/* As if it had never come. */
static void submit_undo(struct core *c, struct task *t)
{
    assert(t->state == TASK_STORING);
    followers_drop(c, t);
    task_drop(c, t);
}

static bool submit_one(
    struct core *c, uint64_t conn, const struct submit *s, uint64_t *id, struct refusal *why)
{
    struct queue *q = NULL;
    if (!out_reserve(c, 4))
        return refuse(why, PUSHROD_E_NO_MEMORY, NULL);
    if (!submission_check(c, s, why) || !submit_queue(c, s, &q, why) ||
        !queue_check(c, q, s, why) || !unique_check(c, q, s, why))
        return false;
    struct task *t = submit_task(c, q, s);
    if (!t)
        return refuse(
            why, c->next_id > c->last_id ? PUSHROD_E_STORE_FAILED : PUSHROD_E_NO_MEMORY, NULL);
    if (!submit_follow(c, conn, t, s) || (!q->bypass && !submit_store(c, t))) {
        submit_undo(c, t);
        return refuse(why, PUSHROD_E_NO_MEMORY, NULL);
    }
    *id = t->record.id;
    assert(*id > 0);
    if (submit_waits(t))
        return true;
    submit_count(c, t);
    tell_accepted(c, conn, s->request, *id, s->patient);
    if (q->bypass || t->record.windowed)
        submit_start(c, t);
    else if (!t->record.due_ms)
        window_announce(c, t);
    return true;
}

void core_submit(struct core *c, uint64_t conn, const struct submit *s, size_t count, uint64_t *ids)
{
    assert(conn != 0 && (count == 0 || s));
    for (size_t i = 0; i < count; i++) {
        struct refusal why = {0};
        uint64_t id = 0;
        if (!submit_one(c, conn, &s[i], &id, &why)) {
            c->refusal = why.code;
            tell_rejected(c, conn, s[i].request, &why);
        }
        if (ids)
            ids[i] = id;
    }
}

int core_refusal(const struct core *c)
{
    assert(c->refusal > 0);
    return c->refusal;
}

/* ---- the store has answered ---- */

/* The store has it, or could not: then it lives as long as this process. */
void submit_settled(struct core *c, struct task *t)
{
    assert(t->state == TASK_STORING && t->operations == 0);
    if (t->cancelling)
        task_requeue(c, t); /* which ends it */
    else
        submit_start(c, t);
}

/* The submitter is told; it stays a follower only if it asked for that. */
void submit_accepted(struct core *c, struct task *t)
{
    assert(t->state == TASK_STORING);
    submit_count(c, t);
    for (struct follower *f = t->followers, *next; f; f = next) {
        next = f->next;
        if (!f->submitter)
            continue;
        f->submitter = false;
        tell_accepted(c, follower_conn(f), f->request, t->record.id, f->patient);
        if (f->level == FOLLOW_NONE && !f->attached) {
            follower_detach(t, f);
            follower_free(c, f);
        }
    }
    submit_settled(c, t);
}

void submit_refused(struct core *c, struct task *t, int code, const char *text, uint64_t holder)
{
    struct refusal why = {code, text, holder ? holder : t->record.id};
    assert(t->state == TASK_STORING);
    for (const struct follower *f = t->followers; f; f = f->next)
        if (f->submitter)
            tell_rejected(c, follower_conn(f), f->request, &why);
    submit_undo(c, t);
}
