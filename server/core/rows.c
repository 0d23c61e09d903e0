/* SPDX-License-Identifier: Apache-2.0 */
/* Answers that are lists: queues, workers, what they run, dead letters, counters; and one task. */
#include <assert.h>
#include <stdlib.h>
#include "common/name.h"
#include "server/core/verbs.h"

#define LIST_LIMIT 1000u
#define HEAD_BYTES 1024u /* of a payload */

_Static_assert(LIST_LIMIT <= STORE_PART, "only a FETCH comes in parts");

/* ---- a task ---- */

static const char *task_state_shown(const struct task *t)
{
    assert(t->state < TASK_GONE);
    if (t->state == TASK_FINISHED)
        return pushrod_status_name(t->status);
    return t->state == TASK_MOVING ? "delayed" : task_state_name((enum task_state)t->state);
}

/* Unix time; a backoff without a store behind it goes by the monotonic clock. */
static uint64_t due_ms(const struct core *c, const struct task *t)
{
    if (t->state != TASK_DELAYED || !t->backing_off)
        return t->record.due_ms;
    assert(heap_holds(&t->place));
    bool over = t->place.key <= c->now.mono_ns;
    return c->now.wall_ms + (over ? 0 : (t->place.key - c->now.mono_ns) / MS);
}

/* Unix time, by the monotonic clock: a clock that was set is no reason to have it for longer. */
static uint64_t since_ms(const struct core *c, const struct task *t)
{
    assert(t->state != TASK_LEASED || t->leased_ns <= c->now.mono_ns);
    return t->state == TASK_LEASED ? c->now.wall_ms - (c->now.mono_ns - t->leased_ns) / MS : 0;
}

/* Enough to see what it is. A large one that the store has stays there. */
static struct slice payload_head(struct core *c, struct slice payload, const struct body *body)
{
    const uint8_t *data = body ? body->data : payload.data;
    size_t size = payload.size < HEAD_BYTES ? payload.size : HEAD_BYTES;
    assert(!body || body->size == payload.size);
    return data ? arena_slice(c, slice_of(data, size)) : (struct slice){0};
}

void row_task(struct core *c, uint64_t conn, uint64_t request, const struct task *t)
{
    assert(t->state != TASK_GONE);
    struct msg_task_row row = {.request = request,
        .id = t->record.id,
        .queue = t->queue->name,
        .state = slice_str(task_state_shown(t)),
        .priority = t->record.priority,
        .attempts = t->hand_overs,
        .deaths = t->record.deaths,
        .submitted_ms = t->record.submitted_ms,
        .due_ms = due_ms(c, t),
        .since_ms = since_ms(c, t),
        .size = t->record.payload.size,
        .code = t->code,
        .text = arena_slice(c, slice_str(t->text)),
        .tag = arena_slice(c, task_tag(t)),
        .history = history_array(c, t)};
    progress_show(c, t, &row);
    if (!t->result_size) /* of the result that has taken its place */
        row.head = payload_head(c, t->record.payload, t->record.body);
    if (t->worker)
        row.worker = arena_slice(c, t->worker->name);
    else if (!task_ended(t))
        row.worker = arena_slice(c, task_target(t));
    out_row(c, conn, request, MSG_TASK_ROW, &row, sizeof row);
}

/* Of what the store has: `record` is the task, `finish` how it ended; of a dead letter both. */
void row_record(struct core *c, const struct request *r, const struct record *record,
    const struct finish *finish)
{
    struct msg_task_row row = {.request = r->request, .id = r->id};
    assert(record || finish);
    if (record) {
        row.id = record->id;
        row.queue = arena_slice(c, record->queue);
        row.state = slice_str(record->due_ms > c->now.wall_ms ? "delayed" : "ready");
        row.priority = record->priority;
        row.attempts = record->attempts;
        row.deaths = record->deaths;
        row.submitted_ms = record->submitted_ms;
        row.due_ms = record->due_ms;
        row.size = record->payload.size;
        row.history = arena_slice(c, record->history);
        row.worker = arena_slice(c, record->target);
        row.head = payload_head(c, record->payload, record->body);
        row.tag = arena_slice(c, record->tag);
    }
    if (finish) {
        row.state = slice_str(pushrod_status_name((int)finish->status));
        row.attempts = finish->attempts;
        row.due_ms = finish->finished_ms;
        row.code = finish->code;
        row.text = arena_slice(c, finish->text);
        row.tag = record ? row.tag : arena_slice(c, finish->tag);
        if (finish->history.data)
            row.history = arena_slice(c, finish->history);
        /* The last death came with the finish. */
        row.deaths += finish->code == PUSHROD_E_TASK_POISON;
    }
    out_row(c, r->conn, r->request, MSG_TASK_ROW, &row, sizeof row);
}

/* After the last row of a list. */
void row_end(struct core *c, uint64_t conn, uint64_t request, uint64_t rows)
{
    struct msg_end end = {.request = request, .rows = rows};
    assert(conn != 0);
    out_row(c, conn, request, MSG_END, &end, sizeof end);
}

/* ---- queues ---- */

static void row_queue(struct core *c, uint64_t conn, uint64_t request, const struct queue *q)
{
    static const char *const names[] = {"sync", "async", "memory"};
    struct core_queue_stats s;
    assert(q->durability < 3);
    queue_stats(c, q, &s);
    struct msg_queue_row row = {.request = request,
        .name = s.name,
        .durability = slice_str(c->bypass ? "memory" : names[q->durability]),
        .paused = q->paused,
        .ready = s.ready,
        .delayed = s.delayed,
        .leased = s.running,
        .dead = s.dead,
        .workers = s.workers,
        .slots = s.slots,
        .submitted = s.submitted,
        .finished = s.done,
        .failed = s.attempts_failed,
        .redelivered = s.redelivered,
        .oldest_ms = s.oldest_ms,
        .service_ns = q->service.p95_ns};
    out_row(c, conn, request, MSG_QUEUE_ROW, &row, sizeof row);
}

static bool listed(const struct msg_list *m, struct slice name)
{
    assert(name.size > 0);
    return !m->filter.data || name_matches(m->filter, name);
}

/* None is forgotten, and a new one comes last: a page begins behind a number of them. */
static void list_queues(struct core *c, uint64_t conn, const struct msg_list *m)
{
    size_t rows = 0;
    uint64_t before = m->after;
    assert(m->limit > 0);
    for (const struct queue *q = c->first_queue; q && rows < m->limit; q = q->next) {
        if (!listed(m, q->name))
            continue;
        if (before) {
            before--;
            continue;
        }
        row_queue(c, conn, m->request, q);
        rows++;
    }
    row_end(c, conn, m->request, rows);
}

/* ---- workers ---- */

/* `mark`: '!' asks for "!pattern", 0 for the pattern itself. */
static bool group_has(const struct group *g, char mark, struct slice pattern)
{
    assert(pattern.size > 0);
    for (size_t i = 0; i < g->pattern_count; i++) {
        struct slice p = g->patterns[i];
        if (mark && p.data[0] != '!')
            continue;
        if (slice_equal(mark ? slice_of(p.data + 1, p.size - 1) : p, pattern))
            return true;
    }
    return false;
}

/* "digest,mail.*,!mail.x": a queue that was given up is left out, or denied if a pattern has it. */
static struct slice served(struct core *c, const struct group *g)
{
    size_t size = 0;
    for (size_t i = 0; i < g->pattern_count; i++)
        size += g->patterns[i].size + 1;
    uint8_t *text = arena_alloc(c, size), *at = text;
    assert(g->pattern_count > 0);
    for (size_t i = 0; text && i < g->pattern_count; i++) {
        struct slice p = g->patterns[i];
        if (p.data[0] == '!' ? group_has(g, 0, slice_of(p.data + 1, p.size - 1))
                             : group_has(g, '!', p))
            continue;
        if (at != text)
            *at++ = ',';
        memcpy(at, p.data, p.size);
        at += p.size;
    }
    return text ? slice_of(text, (size_t)(at - text)) : (struct slice){0};
}

static void row_worker(struct core *c, uint64_t conn, uint64_t request, const struct worker *w)
{
#define W(NAME, name) [WORKER_##NAME] = name,
    static const char *const names[] = {WORKER_STATES(W)};
#undef W
    uint64_t started = 0;
    assert(w->state < WORKER_OVER);
    list_foreach(it, next, &w->outstanding) started += container_of(it, struct task, node)->started;
    struct msg_worker_row row = {.request = request,
        .id = w->id,
        .name = arena_slice(c, w->name),
        .host = arena_slice(c, w->host),
        .pid = w->pid,
        .state = slice_str(names[w->state]),
        .slots = w->slots,
        .outstanding = w->outstanding_count,
        .started = started,
        .queues = served(c, w->group),
        .done = w->done,
        .failed = w->failed,
        .silent_ms = (c->now.mono_ns - w->heard_ns) / MS,
        .joined_ms = w->joined_ms};
    out_row(c, conn, request, MSG_WORKER_ROW, &row, sizeof row);
}

/* By id, for they came in that order. */
static void list_workers(struct core *c, uint64_t conn, const struct msg_list *m)
{
    size_t rows = 0;
    assert(m->limit > 0);
    for (const struct list *it = c->workers.next; it != &c->workers && rows < m->limit;
         it = it->next) {
        const struct worker *w = container_of(it, struct worker, in_core);
        if (w->id <= m->after || !listed(m, w->name))
            continue;
        row_worker(c, conn, m->request, w);
        rows++;
    }
    row_end(c, conn, m->request, rows);
}

/* ---- what workers have ---- */

static int compare_tasks(const void *a, const void *b)
{
    const struct task *x = *(struct task *const *)a, *y = *(struct task *const *)b;
    assert(x && y);
    return x->record.id < y->record.id ? -1 : x->record.id > y->record.id;
}

static size_t running_count(const struct core *c)
{
    size_t count = 0;
    for (const struct list *it = c->workers.next; it != &c->workers; it = it->next)
        count += container_of(it, struct worker, in_core)->outstanding_count;
    assert(count <= c->ledger.by_id.count);
    return count;
}

/* Those that are asked for, by id; NULL: no memory. */
static struct task **running_find(struct core *c, const struct msg_list *m, size_t *count)
{
    struct task **found = arena_alloc(c, (running_count(c) + 1) * sizeof *found);
    *count = 0;
    if (!found)
        return NULL;
    list_foreach(it, next, &c->workers)
    {
        struct worker *w = container_of(it, struct worker, in_core);
        list_foreach(at, after, &w->outstanding)
        {
            struct task *t = container_of(at, struct task, node);
            if (t->record.id > m->after && listed(m, t->queue->name))
                found[(*count)++] = t;
        }
    }
    assert(*count <= c->ledger.by_id.count);
    qsort(found, *count, sizeof *found, compare_tasks);
    return found;
}

/* Looking for a page costs a tick as all of its rows do. */
static void list_running(struct core *c, uint64_t conn, const struct msg_list *m)
{
    size_t count;
    struct task **found = running_find(c, m, &count);
    assert(m->limit > 0);
    if (!found) {
        out_reject(c, conn, m->request, PUSHROD_E_NO_MEMORY, NULL);
        return;
    }
    size_t rows = count < m->limit ? count : (size_t)m->limit;
    for (size_t i = 0; i < rows; i++)
        row_task(c, conn, m->request, found[i]);
    row_end(c, conn, m->request, rows);
    c->listed += running_count(c) / 16;
}

/* ---- counters ---- */

static void list_stats(struct core *c, uint64_t conn, const struct msg_list *m)
{
    const struct core_stats *stats = core_stats(c);
    size_t rows = 0;
    assert(conn != 0);
#define S(name_, kind, text)                                                                       \
    {                                                                                              \
        struct msg_stat_row row = {                                                                \
            .request = m->request, .name = slice_str(#name_), .value = stats->name_};              \
        out_row(c, conn, m->request, MSG_STAT_ROW, &row, sizeof row);                              \
        rows++;                                                                                    \
    }
    CORE_STATS(S)
#undef S
    row_end(c, conn, m->request, rows);
}

/* ---- dead letters ---- */

static bool dead_listed(const struct task *t, const struct msg_list *m)
{
    assert(m->limit > 0);
    return finish_is_dead_letter(t) && t->record.id > m->after && listed(m, t->queue->name);
}

/* Those of queues without a store behind them, by id. */
static struct task **dead_here(struct core *c, const struct msg_list *m, size_t *count)
{
    struct task **found = arena_alloc(c, (c->kept.count + 1) * sizeof *found);
    *count = 0;
    for (size_t i = 0; found && i < c->kept.count; i++) {
        struct task *t = container_of(c->kept.nodes[i], struct rare, timer)->task;
        if (dead_listed(t, m))
            found[(*count)++] = t;
    }
    assert(*count <= c->kept.count);
    if (*count)
        qsort(found, *count, sizeof *found, compare_tasks);
    return found;
}

/* By id over both, or the next page would begin behind some that this one left out. */
size_t rows_dead(struct core *c, const struct request *r, const struct msg_list *m,
    const struct record *records, const struct finish *finishes, size_t count)
{
    size_t here, task = 0, stored = 0;
    struct task **tasks = dead_here(c, m, &here);
    assert(count <= m->limit);
    while (task + stored < m->limit && (task < here || stored < count)) {
        bool first =
            stored == count || (task < here && tasks[task]->record.id < records[stored].id);
        if (first) {
            row_task(c, r->conn, r->request, tasks[task++]);
        } else {
            row_record(c, r, &records[stored], &finishes[stored]);
            stored++;
        }
    }
    return task + stored;
}

/* The request keeps what was asked until the store has answered. */
static bool scan_dead(struct core *c, uint64_t conn, const struct msg_list *m)
{
    struct msg_list *list = malloc(sizeof *list + m->filter.size);
    assert(!c->bypass);
    if (!list)
        return false;
    *list = *m;
    list->what = (struct slice){0};
    if (m->filter.data) {
        memcpy(list + 1, m->filter.data, m->filter.size);
        list->filter.data = (const uint8_t *)(list + 1);
    }
    struct store_op *op = request_ask(c, STORE_SCAN, 0,
        (struct request){.kind = REQUEST_DEAD, .conn = conn, .request = m->request, .list = list});
    if (!op)
        return false;
    op->queue = list->filter;
    op->id = m->after;
    op->limit = (uint32_t)m->limit;
    c->scanning += m->limit;
    return true;
}

/* 13 bytes ask for 1000 rows, and one read has 20,000 of those. */
void list_refuse(struct core *c, uint64_t conn, uint64_t request)
{
    assert(c->listed >= LIST_TICK || c->scanning >= LIST_TICK);
    out_reject(c, conn, request, PUSHROD_E_OVERLOADED,
        "too much is listed at once: ask for the next page when this one is there");
}

static void list_dead(struct core *c, uint64_t conn, const struct msg_list *m)
{
    assert(m->limit > 0);
    if (c->bypass) {
        const struct request now = {.conn = conn, .request = m->request};
        row_end(c, conn, m->request, rows_dead(c, &now, m, NULL, NULL, 0));
    } else if (c->scanning >= LIST_TICK) {
        list_refuse(c, conn, m->request);
    } else if (!scan_dead(c, conn, m)) {
        out_reject(c, conn, m->request, PUSHROD_E_NO_MEMORY, NULL);
    }
}

typedef void list_fn(struct core *, uint64_t conn, const struct msg_list *);

static const struct {
    const char *what;
    list_fn *list;
} list_table[] = {
    {"queues", list_queues},
    {"workers", list_workers},
    {"running", list_running},
    {"stats", list_stats},
    {"dead", list_dead},
    {"submitted", list_submitted},
    {"options", list_options},
};

void core_list(struct core *c, uint64_t conn, const struct msg_list *given)
{
    struct msg_list m = *given;
    assert(conn != 0);
    if (m.limit == 0 || m.limit > LIST_LIMIT)
        m.limit = LIST_LIMIT;
    if (c->listed >= LIST_TICK) {
        list_refuse(c, conn, m.request);
        return;
    }
    for (size_t i = 0; i < sizeof list_table / sizeof *list_table; i++) {
        if (!slice_equal(m.what, slice_str(list_table[i].what)))
            continue;
        size_t before = c->out.count;
        list_table[i].list(c, conn, &m);
        c->listed += c->out.count - before;
        return;
    }
    out_reject(c, conn, m.request, PUSHROD_E_INVALID,
        "what can be listed: queues, workers, running, dead, stats; submitted, options of a task");
}
