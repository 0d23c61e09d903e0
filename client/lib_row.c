/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lib_row: texts of messages as C strings, and the rows of lists as public structs.
 *
 * Slices on the wire have no NUL; the copies of one message live together in `scratch`, whose room
 * is made before the first of them, so that their addresses hold.
 */
#include <assert.h>
#include <stdlib.h>

#include "client/lib.h"

#define LIST_PAGE 1000 /* rows, as many as a server gives at a time */

void text_begin(struct pushrod_client *c, size_t bytes)
{
    buf_clear(&c->scratch);
    buf_reserve(&c->scratch, bytes);
}

const char *text_of(struct pushrod_client *c, struct slice text)
{
    struct buf *b = &c->scratch;
    if (!text.size || b->failed)
        return "";
    assert(b->size + text.size < b->capacity);
    char *at = (char *)b->data + b->size;
    memcpy(at, text.data, text.size);
    at[text.size] = '\0';
    b->size += text.size + 1;
    return at;
}

/* ---------------------------------------------------------------------------------- tasks */

/* The count comes from the wire; dec_array() has held it against the bytes that are there. */
static size_t history_count(struct slice history)
{
    struct dec in = dec_of(history);
    return history.data ? dec_array(&in) : 0;
}

/* An array of DEATH. The texts go to scratch, the array to the caller. False: nonsense. */
static bool history_decode(
    struct pushrod_client *c, struct slice history, struct pushrod_death *to, size_t count)
{
    struct dec in = dec_of(history);
    dec_array(&in);
    for (size_t i = 0; i < count; i++) {
        struct msg_death m;
        if (dec_message(&in) != MSG_DEATH || !msg_death_decode(&in, &m))
            return false;
        to[i] = (struct pushrod_death){m.attempt, m.at_ms, (int)m.code, text_of(c, m.worker),
            m.signal, m.exit_code, m.peak_kib, text_of(c, m.text)};
    }
    return true;
}

/* One allocation for the texts, one for the history; the caller of the row frees both. */
static bool task_info(struct pushrod_client *c, const struct msg_task_row *m,
    struct pushrod_task_info *info, struct pushrod_death **history)
{
    size_t count = history_count(m->history);
    *history = count ? calloc(count, sizeof **history) : NULL;
    if (count && !*history)
        return false;
    text_begin(c, m->queue.size + m->state.size + m->worker.size + m->text.size + m->history.size +
                      m->head.size + m->tag.size + m->progress.size + 2 * count + 7);
    *info = (struct pushrod_task_info){m->id, text_of(c, m->queue), text_of(c, m->state),
        (unsigned)m->priority, m->attempts, m->deaths, m->submitted_ms, m->due_ms, m->since_ms,
        m->size, text_of(c, m->worker), (int)m->code, text_of(c, m->text), *history, count,
        m->head.data ? text_of(c, m->head) : NULL, m->head.size,
        m->tag.data ? text_of(c, m->tag) : NULL, m->tag.size, m->done, m->total,
        text_of(c, m->progress)};
    return history_decode(c, m->history, *history, count);
}

static void row_task(struct pushrod_client *c, struct dec *in, struct call *call)
{
    struct msg_task_row m;
    struct pushrod_task_info info;
    struct pushrod_death *history;
    if (!msg_task_row_decode(in, &m))
        return;
    call->after = m.id;
    pushrod_task_fn *fn = (pushrod_task_fn *)call->fn;
    if (task_info(c, &m, &info, &history))
        fn(&info, call->arg);
    free(history);
}

/* ---------------------------------------------------------------------------------- others */

static void row_queue(struct pushrod_client *c, struct dec *in, struct call *call)
{
    struct msg_queue_row m;
    if (!msg_queue_row_decode(in, &m))
        return;
    call->after++;
    text_begin(c, m.name.size + m.durability.size + 2);
    struct pushrod_queue_info info = {text_of(c, m.name), text_of(c, m.durability), m.paused,
        m.ready, m.delayed, m.leased, m.dead, m.workers, m.slots, m.submitted, m.finished, m.failed,
        m.redelivered, m.oldest_ms, m.service_ns};
    pushrod_queue_fn *fn = (pushrod_queue_fn *)call->fn;
    fn(&info, call->arg);
}

static void row_worker(struct pushrod_client *c, struct dec *in, struct call *call)
{
    struct msg_worker_row m;
    if (!msg_worker_row_decode(in, &m))
        return;
    call->after = m.id;
    text_begin(c, m.name.size + m.host.size + m.state.size + m.queues.size + 4);
    struct pushrod_worker_info info = {m.id, text_of(c, m.name), text_of(c, m.host), m.pid,
        text_of(c, m.state), m.slots, m.outstanding, m.started, text_of(c, m.queues), m.done,
        m.failed, m.silent_ms, m.joined_ms};
    pushrod_worker_fn *fn = (pushrod_worker_fn *)call->fn;
    fn(&info, call->arg);
}

static void row_stat(struct pushrod_client *c, struct dec *in, struct call *call)
{
    struct msg_stat_row m;
    if (!msg_stat_row_decode(in, &m))
        return;
    text_begin(c, m.name.size + 1);
    pushrod_stat_fn *fn = (pushrod_stat_fn *)call->fn;
    fn(text_of(c, m.name), m.value, call->arg);
}

/* ---------------------------------------------------------------------------------- lists */

/* All lists: the message is encoded once, and the rows go to the user as they come. */
static int64_t list_run(struct pushrod_client *c, struct msg_list *m, struct call *call)
{
    m->request = call->request = ++c->calls;
    msg_list_encode(&call->message, m);
    int64_t rows = call_run(c, call);
    return rows < 0 ? rows : (int64_t)call->rows;
}

/* Page by page, up to one that is not full, or to `limit` rows. */
static int64_t list_pages(
    struct pushrod_client *c, struct msg_list *m, const struct call *call, uint64_t limit)
{
    int64_t rows;
    uint64_t all = 0;
    do {
        struct call page = *call;
        page.after = m->after;
        m->limit = limit - all < LIST_PAGE ? limit - all : LIST_PAGE;
        rows = list_run(c, m, &page);
        m->after = page.after;
        all += rows > 0 ? (uint64_t)rows : 0;
    } while (rows == LIST_PAGE && all < limit);
    return rows < 0 ? rows : (int64_t)all;
}

int64_t pushrod_client_queues(
    struct pushrod_client *c, const char *filter, pushrod_queue_fn *fn, void *arg)
{
    struct msg_list m = {.what = slice_str("queues"), .filter = slice_str(filter)};
    struct call call = {
        .row_kind = MSG_QUEUE_ROW, .row = row_queue, .fn = (void (*)(void))fn, .arg = arg};
    return list_pages(c, &m, &call, UINT64_MAX);
}

int64_t pushrod_client_workers(
    struct pushrod_client *c, const char *filter, pushrod_worker_fn *fn, void *arg)
{
    struct msg_list m = {.what = slice_str("workers"), .filter = slice_str(filter)};
    struct call call = {
        .row_kind = MSG_WORKER_ROW, .row = row_worker, .fn = (void (*)(void))fn, .arg = arg};
    return list_pages(c, &m, &call, UINT64_MAX);
}

int64_t pushrod_client_running(
    struct pushrod_client *c, const char *filter, pushrod_task_fn *fn, void *arg)
{
    struct msg_list m = {.what = slice_str("running"), .filter = slice_str(filter)};
    struct call call = {
        .row_kind = MSG_TASK_ROW, .row = row_task, .fn = (void (*)(void))fn, .arg = arg};
    return list_pages(c, &m, &call, UINT64_MAX);
}

int64_t pushrod_client_dead(struct pushrod_client *c, const char *filter, uint64_t after,
    uint64_t limit, pushrod_task_fn *fn, void *arg)
{
    struct msg_list m = {.what = slice_str("dead"), .filter = slice_str(filter), .after = after};
    struct call call = {
        .row_kind = MSG_TASK_ROW, .row = row_task, .fn = (void (*)(void))fn, .arg = arg};
    return list_pages(c, &m, &call, limit ? limit : LIST_PAGE);
}

int64_t pushrod_client_stats(struct pushrod_client *c, pushrod_stat_fn *fn, void *arg)
{
    struct msg_list m = {.what = slice_str("stats")};
    struct call call = {
        .row_kind = MSG_STAT_ROW, .row = row_stat, .fn = (void (*)(void))fn, .arg = arg};
    return list_run(c, &m, &call);
}

/* ---------------------------------------------------------------------------------- status */

/* The row outlives the message: its bytes stay in row_texts, and its texts move there too. */
static void status_row(struct pushrod_client *c, struct dec *in, struct call *call)
{
    struct msg_task_row m;
    struct pushrod_death *history;
    if (!msg_task_row_decode(in, &m))
        return;
    call->done = true;
    free((void *)c->row.history);
    bool good = task_info(c, &m, &c->row, &history);
    c->row.history = history;
    if (!good) {
        c->row.history_count = 0;
        call->error = client_fail(c, PUSHROD_E_BAD_MESSAGE, "the server's task row is not valid");
    }
    /* The texts now belong to the row: scratch starts anew. */
    buf_free(&c->row_texts);
    c->row_texts = c->scratch;
    c->scratch = BUF_EMPTY;
}

int pushrod_client_status(struct pushrod_client *c, uint64_t id, struct pushrod_task_info *info)
{
    struct call call = {.request = ++c->calls, .row_kind = MSG_TASK_ROW, .row = status_row};
    struct msg_status m = {.request = call.request, .id = id};
    msg_status_encode(&call.message, &m);
    int64_t error = call_run(c, &call);
    if (error < 0)
        return (int)error;
    *info = c->row;
    return 0;
}
