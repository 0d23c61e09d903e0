/* SPDX-License-Identifier: Apache-2.0 */
/* lib_wait: waiting for finishes by id. */
#include <string.h>

#include "client/lib.h"

int pushrod_client_follow(
    struct pushrod_client *c, uint64_t id, enum pushrod_follow follow, void *arg)
{
    if (id == 0 || id > INT64_MAX ||
        (follow != PUSHROD_FOLLOW_FINISH && follow != PUSHROD_FOLLOW_ALL))
        return client_fail(c, PUSHROD_E_INVALID, "follow: not a task id, or not a way to follow");
    const struct task_record *r = task_find(c, id);
    if (r && (r->kept || r->follow >= follow)) {
        task_follow(c, id, follow, arg);
        return 0;
    }
    if (!task_follow(c, id, follow, arg))
        return client_no_memory(c);
    return task_send_wait(c, id, follow);
}

/* Takes the finish if it is here; else makes it come to *slot. */
static int wait_begin(struct pushrod_client *c, uint64_t id, struct pushrod_finish *slot)
{
    *slot = (struct pushrod_finish){.id = id, .error_text = ""};
    struct task_record *r = task_find(c, id);
    if (!r) {
        int error = pushrod_client_follow(c, id, PUSHROD_FOLLOW_FINISH, NULL);
        if (error)
            return error;
        r = task_find(c, id);
    }
    if (!r->kept) {
        r->slot = slot;
        return 0;
    }
    *slot = r->kept->finish;
    r->kept->next = c->handed;
    c->handed = r->kept;
    r->kept = NULL;
    c->tasks.open++; /* task_forget() counts a record without a finish as open */
    task_forget(c, r);
    return 0;
}

static bool settled(const struct pushrod_finish *f)
{
    return f->status != 0 || f->error != 0;
}

/* The slots belong to the caller: they are not written to any more. */
static void wait_end(struct pushrod_client *c, const uint64_t *ids, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct task_record *r = task_find(c, ids[i]);
        if (r)
            r->slot = NULL;
    }
}

/* An id that is named twice has one record: its finish is copied to the other places. */
static void copy_repeated(const uint64_t *ids, size_t count, struct pushrod_finish *finishes)
{
    for (size_t i = 0; i < count; i++) {
        if (settled(&finishes[i]))
            continue;
        for (size_t k = 0; k < count && !settled(&finishes[i]); k++)
            if (ids[k] == ids[i] && settled(&finishes[k]))
                finishes[i] = finishes[k];
    }
}

int pushrod_client_wait(struct pushrod_client *c, const uint64_t *ids, size_t count,
    struct pushrod_finish *finishes, int64_t timeout_ms)
{
    uint64_t until = client_deadline(timeout_ms);
    int error = client_may_wait(c);
    if (error)
        return error;
    kept_free(c->handed);
    c->handed = NULL;
    for (size_t i = 0; i < count && !error; i++)
        error = wait_begin(c, ids[i], &finishes[i]);
    for (size_t first = 0; !error && first < count;) {
        /* Slots fill in any order; what is before `first` is settled or waits behind a repeat. */
        if (settled(&finishes[first]) || !task_find(c, ids[first])) {
            first++;
            continue;
        }
        error = client_turn(c, until);
        if (!error && !settled(&finishes[first]) && client_now_ns() >= until)
            error = client_fail(c, PUSHROD_E_TIMED_OUT, "the task did not finish in time");
    }
    wait_end(c, ids, count);
    if (!error)
        copy_repeated(ids, count, finishes);
    return error;
}

static int call_result(struct pushrod_client *c, const struct pushrod_finish *f)
{
    if (f->status == PUSHROD_DONE)
        return 0;
    int why = f->error ? f->error : PUSHROD_E_TASK_FAILED;
    return client_fail(
        c, why, "%s", f->error_text && *f->error_text ? f->error_text : pushrod_strerror(why));
}

int pushrod_client_call(struct pushrod_client *c, const char *queue, const void *data, size_t size,
    const struct pushrod_options *options, int64_t timeout_ms, struct pushrod_finish *finish)
{
    struct pushrod_submission s = {.queue = queue,
        .data = data,
        .size = size,
        .options = options,
        .follow = PUSHROD_FOLLOW_FINISH};
    uint64_t id = 0;
    *finish = (struct pushrod_finish){.error_text = ""};
    int error = pushrod_client_submit(c, &s, &id);
    if (error)
        return error;
    error = pushrod_client_wait(c, &id, 1, finish, timeout_ms);
    return error ? error : call_result(c, finish);
}
