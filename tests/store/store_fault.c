/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/store/store_fault.h"

#include <assert.h>
#include <poll.h>
#include <stdlib.h>
#include <pushrod/error.h>
#include "server/store/arena.h"
#include "server/store/reply.h"
#include "server/store/store_mem.h"

/* What one submit() gave, copied, until it is committed. */
struct pending {
    struct pending *next;
    struct arena arena;
    struct store_op *ops;
    size_t count;
    uint64_t now_ms;
    uint64_t polls; /* polls until the commit */
};

struct fault {
    const struct store_ops *ops; /* first: what store_*() find */
    struct store *inner;
    struct fault_plan plan;
    uint64_t random;
    uint64_t plan_writes; /* since the plan was set */
    uint64_t writes;
    bool down;
    struct pending *first;
    struct pending *last;
    struct reply_queue replies;
};

const struct store_ops *store_ops_of(const struct store *s)
{
    return *(const struct store_ops *const *)s;
}

static uint64_t next_random(struct fault *f)
{
    uint64_t x = f->random += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* ---- copies: of operations on the way in, of events on the way out ---- */

static void copy_slice(struct arena *a, struct slice *s)
{
    if (s->data)
        s->data = arena_copy(a, s->data, s->size);
}

static void copy_record(struct arena *a, struct record *r)
{
    if (r->body) {
        arena_body(a, body_ref(r->body));
        r->payload = body_slice(r->body);
    } else {
        copy_slice(a, &r->payload);
    }
    copy_slice(a, &r->queue);
    copy_slice(a, &r->headers);
    copy_slice(a, &r->tag);
    copy_slice(a, &r->unique);
    copy_slice(a, &r->target);
    copy_slice(a, &r->history);
}

static void copy_finish(struct arena *a, struct finish *f)
{
    if (f->body) {
        arena_body(a, body_ref(f->body));
        f->result = body_slice(f->body);
    } else {
        copy_slice(a, &f->result);
    }
    copy_slice(a, &f->text);
    copy_slice(a, &f->tag);
    copy_slice(a, &f->history);
}

static void copy_op(struct arena *a, struct store_op *op)
{
    if (op->record) {
        struct record *r = arena_copy(a, op->record, sizeof(*r));
        copy_record(a, r);
        op->record = r;
    }
    if (op->finish) {
        struct finish *f = arena_copy(a, op->finish, sizeof(*f));
        copy_finish(a, f);
        op->finish = f;
    }
    copy_slice(a, &op->queue);
    copy_slice(a, &op->instance);
    if (op->keep_count)
        op->keep = arena_copy(a, op->keep, op->keep_count * sizeof(*op->keep));
}

static void copy_event(struct reply *reply, const struct store_event *from)
{
    struct arena *a = &reply->arena;
    struct store_event *e = reply_event(reply, from->kind, from->token, from->id);
    *e = *from;
    if (e->text)
        e->text = arena_copy(a, e->text, strlen(e->text) + 1);
    struct record *records = arena_copy(a, e->records, e->record_count * sizeof(*records));
    for (size_t i = 0; i < e->record_count; i++)
        copy_record(a, &records[i]);
    e->records = records;
    if (e->finishes) {
        size_t count = e->record_count || e->kind == STORE_SCAN ? e->record_count : 1;
        struct finish *finishes = arena_copy(a, e->finishes, count * sizeof(*finishes));
        for (size_t i = 0; i < count; i++)
            copy_finish(a, &finishes[i]);
        e->finishes = finishes;
    }
}

/* ---- commit ---- */

static void forward(struct fault *f, const struct store_op *op, uint64_t now_ms, struct reply *into)
{
    const struct store_ops *inner = store_ops_of(f->inner);
    inner->submit(f->inner, op, 1, now_ms);
    for (bool answered = false; !answered;) {
        const struct store_event *events;
        size_t count = inner->poll(f->inner, &events, 16);
        for (size_t i = 0; i < count; i++) {
            answered |= events[i].event == EVENT_OP;
            if (into)
                copy_event(into, &events[i]);
        }
        struct pollfd wait = {.fd = inner->event_fd(f->inner), .events = POLLIN};
        if (!count && wait.fd >= 0)
            poll(&wait, 1, -1);
    }
}

static bool hit(uint64_t n, uint64_t at, uint64_t count)
{
    return at && n >= at && n < at + (count ? count : 1);
}

static bool can_fail(enum store_op_kind kind)
{
    return kind != STORE_LOOKUP && kind != STORE_SCAN;
}

static void announce(struct fault *f, bool down, struct reply *reply)
{
    if (!f->plan.announce || f->down == down)
        return;
    f->down = down;
    struct store_event *e = reply_event(reply, STORE_APPEND, 0, 0);
    e->event = down ? EVENT_STORE_DOWN : EVENT_STORE_UP;
    e->code = down ? PUSHROD_E_STORE_FAILED : 0;
    e->text = down ? "injected" : NULL;
}

static void fail(struct reply *reply, const struct store_op *op, uint32_t code)
{
    uint64_t id = op->record ? op->record->id : op->finish ? op->finish->id : op->id;
    struct store_event *e = reply_event(reply, op->kind, op->token, id);
    e->outcome = OUTCOME_REFUSED;
    e->code = code;
    e->text = "injected";
}

static void commit_op(
    struct fault *f, const struct store_op *op, uint64_t now_ms, struct reply *reply)
{
    const struct fault_plan *plan = &f->plan;
    uint64_t n = can_fail(op->kind) ? ++f->plan_writes : 0;
    f->writes += n != 0;
    bool refused = n && hit(n, plan->refuse_at, plan->refuse_count);
    if (n)
        announce(f, refused, reply);
    if (refused)
        fail(reply, op, plan->refuse_code ? plan->refuse_code : PUSHROD_E_STORE_FULL);
    else
        forward(f, op, now_ms, reply);
}

static void pending_free(struct pending *p)
{
    store_arena_free(&p->arena);
    free(p);
}

static void commit_first(struct fault *f)
{
    struct pending *p = f->first;
    struct reply *reply = reply_new();
    for (size_t i = 0; i < p->count; i++)
        commit_op(f, &p->ops[i], p->now_ms, reply);
    reply_push(&f->replies, reply);
    f->first = p->next;
    if (!f->first)
        f->last = NULL;
    pending_free(p);
}

void store_fault_commit(struct store *s)
{
    struct fault *f = (struct fault *)s;
    while (f->first)
        commit_first(f);
}

/* ---- the table of operations ---- */

static void fault_submit(struct store *s, const struct store_op *ops, size_t count, uint64_t now_ms)
{
    struct fault *f = (struct fault *)s;
    struct pending *p = store_alloc(sizeof(*p));
    p->ops = arena_copy(&p->arena, ops, count * sizeof(*ops));
    p->count = count;
    p->now_ms = now_ms;
    p->polls = f->plan.max_delay ? next_random(f) % (f->plan.max_delay + UINT64_C(1)) : 0;
    for (size_t i = 0; i < count; i++)
        copy_op(&p->arena, &p->ops[i]);
    if (f->last)
        f->last->next = p;
    else
        f->first = p;
    f->last = p;
}

static size_t fault_poll(struct store *s, const struct store_event **events, size_t limit)
{
    struct fault *f = (struct fault *)s;
    while (!f->plan.manual && f->first && f->first->polls == 0)
        commit_first(f);
    if (f->first && f->first->polls)
        f->first->polls--;
    return reply_poll(&f->replies, events, limit);
}

static int fault_event_fd(const struct store *s)
{
    (void)s;
    return -1; /* poll() is what lets time pass */
}

static struct store_usage fault_usage(const struct store *s)
{
    const struct fault *f = (const struct fault *)s;
    struct store_usage usage = {0};
    for (const struct pending *p = f->first; p; p = p->next)
        for (size_t i = 0; i < p->count; i++)
            usage.unsettled += p->ops[i].record ? p->ops[i].record->payload.size : 0;
    return usage;
}

static struct store_capabilities fault_capabilities(const struct store *s)
{
    const struct fault *f = (const struct fault *)s;
    return store_ops_of(f->inner)->capabilities(f->inner);
}

static void fault_close(struct store *s)
{
    struct fault *f = (struct fault *)s;
    store_fault_commit(s);
    store_ops_of(f->inner)->close(f->inner);
    reply_queue_free(&f->replies);
    free(f);
}

const struct store_ops store_fault_ops = {
    .name = "fault",
    .capabilities = fault_capabilities,
    .submit = fault_submit,
    .poll = fault_poll,
    .event_fd = fault_event_fd,
    .usage = fault_usage,
    .close = fault_close,
};

struct store *store_fault_open(const struct store_ops *inner, const struct store_config *config,
    const struct fault_plan *plan, struct store_opened *opened, char **error)
{
    struct store *opened_inner = inner->open(config, opened, error);
    if (!opened_inner)
        return NULL;
    struct fault *f = store_alloc(sizeof(*f));
    f->ops = &store_fault_ops;
    f->inner = opened_inner;
    store_fault_plan((struct store *)f, plan);
    return (struct store *)f;
}

void store_fault_plan(struct store *s, const struct fault_plan *plan)
{
    struct fault *f = (struct fault *)s;
    f->plan = *plan;
    f->random = plan->seed;
    f->plan_writes = 0;
}

uint64_t store_fault_writes(const struct store *s)
{
    return ((const struct fault *)s)->writes;
}

uint64_t store_fault_pending(const struct store *s)
{
    const struct fault *f = (const struct fault *)s;
    uint64_t count = 0;
    for (const struct pending *p = f->first; p; p = p->next)
        count += p->count;
    return count;
}

void store_fault_crash(struct store *s, uint64_t now_ms, struct store_opened *opened)
{
    struct fault *f = (struct fault *)s;
    assert(store_ops_of(f->inner) == &store_mem_plain);
    while (f->first) {
        struct pending *p = f->first;
        f->first = p->next;
        pending_free(p);
    }
    f->last = NULL;
    f->down = false;
    reply_queue_free(&f->replies);
    store_mem_restart(f->inner, now_ms, opened);
}
