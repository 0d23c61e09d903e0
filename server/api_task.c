/* SPDX-License-Identifier: Apache-2.0 */
/* api_task: tasks of the embedding program, and the calls that their finishes lead to. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/log.h"
#include "common/name.h"
#include "server/api.h"

#define NOTHING    SIZE_MAX /* an offset: there is no such text */
#define TOLD_AHEAD 4u       /* finishes whose callbacks are fetched into the cache meanwhile */
#define TOLD_ALIGN 16u      /* a result may be read as whatever the program put there */

/* ------------------------------------------------------------------------- who is called */

/*
 * `request` is generation << 32 | place + 1: a place is found without a search, and an answer that
 * comes after it was given to another is known.
 */
static uint64_t call_request(const struct pushrod_server *s, uint32_t place)
{
    return (uint64_t)(s->calls[place].generation & 0x7fffffffu) << 32 | (place + 1);
}

/* Only a hint: it will be looked for soon. */
static void call_expect(const struct pushrod_server *s, uint64_t request)
{
    uint32_t place = (uint32_t)request - 1;
    if (place < s->call_count)
        __builtin_prefetch(&s->calls[place], 1);
}

static bool calls_grow(struct pushrod_server *s)
{
    uint32_t count = s->call_count ? s->call_count * 2 : 256;
    struct call *calls = count > s->call_count ? realloc(s->calls, count * sizeof *calls) : NULL;
    if (!calls)
        return false;
    s->calls = calls;
    for (uint32_t i = count; i-- > s->call_count;) {
        calls[i] = (struct call){.next_free = s->call_free};
        s->call_free = i + 1;
    }
    s->call_count = count;
    return true;
}

/* The place of a new call; false: no memory. */
static bool call_take(struct pushrod_server *s, pushrod_finish_fn *fn, void *arg, uint32_t *place)
{
    if (s->call_free == 0 && !calls_grow(s))
        return false;
    *place = s->call_free - 1;
    struct call *call = &s->calls[*place];
    s->call_free = call->next_free;
    call_expect(s, call->next_free);
    call->fn = fn;
    call->arg = arg;
    call->id = 0;
    return true;
}

static void call_give(struct pushrod_server *s, uint32_t place)
{
    struct call *call = &s->calls[place];
    call->generation++;
    call->next_free = s->call_free;
    s->call_free = place + 1;
}

/* NULL: nobody waits for it any more. */
static struct call *call_find(struct pushrod_server *s, uint64_t request)
{
    uint32_t place = (uint32_t)request - 1;
    if ((uint32_t)request == 0 || place >= s->call_count || call_request(s, place) != request)
        return NULL;
    return &s->calls[place];
}

/* -------------------------------------------------------------------------------- submitting */

/* What can be refused without the core, and is said in words. */
static int job_check(struct pushrod_server *s, const struct pushrod_job *job)
{
    if (s->state == API_NEW || s->state >= API_FLUSHING)
        return api_fail(s, PUSHROD_E_WRONG_STATE, "the server does not run");
    if (!pthread_equal(s->thread, pthread_self()))
        return api_fail(s, PUSHROD_E_WRONG_STATE,
            "this is not the server's thread: use pushrod_server_taskwait() or _post()");
    if (!job->queue || !name_valid(slice_str(job->queue)))
        return api_fail(s, PUSHROD_E_BAD_QUEUE, "%s", pushrod_strerror(PUSHROD_E_BAD_QUEUE));
    if (job->size && !job->data)
        return api_fail(s, PUSHROD_E_INVALID, "the payload is NULL, but its size is not 0");
    size_t limit = s->max_payload;
    if (job->size > limit)
        return api_fail(s, PUSHROD_E_TOO_BIG,
            "the payload has %zu bytes, %zu are allowed (max-payload)", job->size, limit);
    return 0;
}

/* Payloads above the inline limit need a body; the core takes a reference of its own. */
static int submit_one(struct pushrod_server *s, struct submit *submit, uint64_t *id)
{
    if (submit->payload.size > TASK_INLINE_PAYLOAD) {
        submit->body = body_copy(submit->payload.data, submit->payload.size);
        if (!submit->body)
            return api_fail(s, PUSHROD_E_NO_MEMORY, "out of memory");
        submit->payload = body_slice(submit->body);
    }
    struct core *core = host_core(s->host);
    core_submit(core, CONN_SELF, submit, 1, id);
    body_unref(submit->body);
    if (*id)
        return 0;
    int code = core_refusal(core);
    return api_fail(s, code, "the task was refused: %s", pushrod_strerror(code));
}

int64_t api_task_submit(
    struct pushrod_server *s, const struct pushrod_job *job, pushrod_finish_fn *fn, void *arg)
{
    struct msg_options options;
    struct buf headers = BUF_EMPTY;
    struct submit submit = {
        .queue = slice_str(job->queue),
        .payload = slice_of(job->data ? job->data : "", job->size),
    };
    uint32_t place = 0;
    uint64_t id = 0;
    int error = job_check(s, job);
    if (error == 0 && job->options)
        error = options_convert(s, job->options, &options, &headers);
    bool called = fn || s->events.finish;
    if (error == 0 && called && !call_take(s, fn, arg, &place))
        error = api_fail(s, PUSHROD_E_NO_MEMORY, "out of memory");
    if (error) {
        buf_free(&headers);
        return error;
    }
    submit.options = job->options ? &options : NULL;
    submit.request = called ? call_request(s, place) : 0;
    submit.follow = called ? FOLLOW_FINISH : FOLLOW_NONE;
    error = submit_one(s, &submit, &id);
    buf_free(&headers);
    if (called && error)
        call_give(s, place);
    else if (called)
        s->calls[place].id = id;
    return error ? error : (int64_t)id;
}

int64_t pushrod_server_task(struct pushrod_server *s, const char *queue, const void *data,
    size_t size, const struct pushrod_options *options, pushrod_finish_fn *on_finish, void *arg)
{
    struct pushrod_job job = {queue, data, size, options};
    return api_task_submit(s, &job, on_finish, arg);
}

int pushrod_server_cancel(struct pushrod_server *s, uint64_t id)
{
    if (id == 0 || id > INT64_MAX)
        return api_fail(s, PUSHROD_E_INVALID, "there is no task 0, nor one above 2^63");
    if (s->state == API_NEW || s->state >= API_FLUSHING)
        return api_fail(s, PUSHROD_E_WRONG_STATE, "the server does not run");
    core_cancel(host_core(s->host), CONN_SELF, 0, id);
    return 0;
}

/* ---------------------------------------------------------------------------------- telling */

static size_t bytes_keep(struct pushrod_server *s, const void *data, size_t size)
{
    static const uint8_t zero[TOLD_ALIGN];
    if (!data)
        return NOTHING;
    buf_append(&s->told_bytes, zero, -s->told_bytes.size % TOLD_ALIGN);
    size_t at = s->told_bytes.size;
    buf_append(&s->told_bytes, data, size);
    buf_append(&s->told_bytes, "", 1);
    return s->told_bytes.failed ? NOTHING : at;
}

/* A finish cannot be taken back: without memory to tell it the process ends as the core's would. */
static void told_add(struct pushrod_server *s, const struct told *told)
{
    buf_append(&s->told, told, sizeof *told);
    if (s->told.failed || s->told_bytes.failed) {
        log_error("out of memory: the server ends as a crash would");
        abort();
    }
    loop_defer(s->loop, &s->tell);
}

static void told_task(struct pushrod_server *s, uint64_t request, const struct task *t)
{
    struct slice tag = task_tag(t), result = task_result(t);
    told_add(s, &(struct told){
                    .request = request,
                    .finish =
                        {
                            .id = t->record.id,
                            .status = (enum pushrod_status)t->status,
                            .error = t->code,
                            .attempts = t->hand_overs,
                            .run_ns = t->run_ns,
                            .result_size = result.size,
                            .tag_size = tag.size,
                        },
                    .body = body_ref(t->result),
                    .result = t->result ? NOTHING : bytes_keep(s, result.data, result.size),
                    .text = bytes_keep(s, t->text, t->text ? strlen(t->text) : 0),
                    .tag = bytes_keep(s, tag.data, tag.size),
                });
}

/* The store failed after task() had returned the id. What task() itself refused has no call. */
static void told_refused(struct pushrod_server *s, const struct conn_action *a)
{
    struct call *call = call_find(s, a->request);
    if (!call)
        return;
    const char *text = a->text ? a->text : pushrod_strerror((int)a->code);
    told_add(s, &(struct told){
                    .request = a->request,
                    .finish = {.id = call->id, .status = PUSHROD_REFUSED, .error = (int)a->code},
                    .result = NOTHING,
                    .text = bytes_keep(s, text, strlen(text)),
                    .tag = NOTHING,
                });
}

void api_task_self(struct pushrod_server *s, const struct conn_action *a)
{
    if (a->kind == MSG_FINISHED) {
        s->told_total++;
        told_task(s, a->request, a->task);
    } else if (a->kind == MSG_REJECTED) {
        told_refused(s, a);
    }
}

void api_task_orphan(struct pushrod_server *s, const struct task *task)
{
    if (s->events.finish)
        told_task(s, 0, task);
}

static void told_call(struct pushrod_server *s, struct told *t)
{
    struct pushrod_finish *f = &t->finish;
    const char *bytes = (const char *)s->told_bytes.data;
    f->result = t->result == NOTHING ? body_slice(t->body).data : (const void *)(bytes + t->result);
    f->error_text = t->text == NOTHING ? "" : bytes + t->text;
    f->tag = t->tag == NOTHING ? NULL : bytes + t->tag;
    struct call *call = t->request ? call_find(s, t->request) : NULL;
    pushrod_finish_fn *fn = call ? call->fn : NULL;
    void *arg = call ? call->arg : NULL;
    /* Before the callback, which may submit, and move the array. */
    if (call)
        call_give(s, (uint32_t)t->request - 1);
    if (fn)
        fn(s, f, arg);
    else if (s->events.finish)
        s->events.finish(s, f, s->events_arg);
    body_unref(t->body);
}

/* The arrays do not grow meanwhile: the core speaks only at the end of a tick. */
static void told_tell(void *arg)
{
    struct pushrod_server *s = arg;
    struct told *told = (struct told *)(void *)s->told.data;
    size_t count = s->told.size / sizeof *told;
    for (size_t i = 0; i < count; i++) {
        if (i + TOLD_AHEAD < count)
            call_expect(s, told[i + TOLD_AHEAD].request);
        told_call(s, &told[i]);
    }
    buf_clear(&s->told);
    buf_clear(&s->told_bytes);
    core_received(host_core(s->host), CONN_SELF, s->told_total);
}

void api_task_init(struct pushrod_server *s)
{
    deferral_init(&s->tell, told_tell, s);
}

void api_task_free(struct pushrod_server *s)
{
    struct told *told = (struct told *)(void *)s->told.data;
    for (size_t i = 0; i < s->told.size / sizeof *told; i++)
        body_unref(told[i].body);
    buf_free(&s->told);
    buf_free(&s->told_bytes);
    free(s->calls);
    s->calls = NULL;
}

/* --------------------------------------------------------------------------- owned finishes */

/* One allocation: the struct, then the result, aligned as the one that is told, and the texts. */
struct pushrod_finish *finish_copy(const struct pushrod_finish *from)
{
    size_t text = strlen(from->error_text) + 1;
    size_t head = (sizeof *from + TOLD_ALIGN - 1) / TOLD_ALIGN * TOLD_ALIGN;
    struct pushrod_finish *f = malloc(head + from->result_size + text + from->tag_size);
    if (!f)
        return NULL;
    *f = *from;
    char *at = (char *)f + head;
    if (from->result)
        f->result = memcpy(at, from->result, from->result_size);
    f->error_text = memcpy(at + from->result_size, from->error_text, text);
    if (from->tag)
        f->tag = memcpy(at + from->result_size + text, from->tag, from->tag_size);
    return f;
}

void pushrod_server_finish_free(struct pushrod_finish *finish)
{
    free(finish);
}
