/* SPDX-License-Identifier: Apache-2.0 */
/* lib_wait: waiting for finishes by id. */
#include <string.h>

#include "client/lib.h"

/* Somebody asks for it by its id: from now on it is as any other. */
static void late_is_wanted(struct pushrod_client *c, uint64_t id)
{
    if (c->late == id)
        c->late = 0;
}

/* Nobody has asked for it until the next call(). With a callback it goes there, and is not kept. */
static void late_drop(struct pushrod_client *c)
{
    struct task_record *r = c->late ? followed_find(c, c->late) : NULL;
    if (r && !c->events.finish)
        followed_forget(c, r, true);
    c->late = 0;
}

int pushrod_client_follow(
    struct pushrod_client *c, uint64_t id, enum pushrod_follow follow, void *arg)
{
    if (id == 0 || id > INT64_MAX ||
        (follow != PUSHROD_FOLLOW_FINISH && follow != PUSHROD_FOLLOW_ALL))
        return client_fail(c, PUSHROD_E_INVALID, "follow: not a task id, or not a way to follow");
    late_is_wanted(c, id);
    const struct task_record *r = followed_find(c, id);
    if (r && (r->kept || r->follow >= follow)) {
        followed_add(c, id, follow, arg);
        return 0;
    }
    if (!followed_add(c, id, follow, arg))
        return client_no_memory(c);
    return followed_ask(c, id);
}

/* From now on the finish is kept for us, whoever would get it otherwise. */
static int wait_begin(struct pushrod_client *c, uint64_t id)
{
    late_is_wanted(c, id);
    if (!followed_find(c, id)) {
        int error = pushrod_client_follow(c, id, PUSHROD_FOLLOW_FINISH, NULL);
        if (error)
            return error;
    }
    followed_find(c, id)->waited = true;
    return 0;
}

/* Waits for the finishes in order: the last to come decides, whichever it is. */
static int wait_all(struct pushrod_client *c, const uint64_t *ids, size_t count, uint64_t until)
{
    for (size_t i = 0; i < count;) {
        const struct task_record *r = followed_find(c, ids[i]);
        if (!r)
            return client_no_memory(c); /* it came and could not be kept */
        if (r->kept) {
            i++;
            continue;
        }
        int error = client_turn(c, until);
        if (error)
            return error;
        r = followed_find(c, ids[i]);
        if (r && !r->kept && clock_mono_ns() >= until)
            return client_fail(c, PUSHROD_E_TIMED_OUT, "task %llu has not finished yet",
                (unsigned long long)ids[i]);
    }
    return 0;
}

/* Tells what has come; an id may be named twice, so nothing is forgotten before all are told. */
static void wait_end(
    struct pushrod_client *c, const uint64_t *ids, size_t count, struct pushrod_finish *finishes)
{
    for (size_t i = 0; i < count; i++) {
        struct task_record *r = followed_find(c, ids[i]);
        finishes[i] = (struct pushrod_finish){.id = ids[i], .error_text = ""};
        if (r && r->kept)
            finishes[i] = r->kept->finish;
        if (r)
            r->waited = false;
    }
    for (size_t i = 0; i < count; i++) {
        struct task_record *r = followed_find(c, ids[i]);
        if (!r || !r->kept)
            continue;
        struct kept *k = r->kept;
        k->next = c->handed;
        c->handed = k;
        followed_forget(c, r, false);
    }
}

static int wait_until(struct pushrod_client *c, const uint64_t *ids, size_t count,
    struct pushrod_finish *finishes, uint64_t until)
{
    int error = client_may_wait(c);
    if (error)
        return error;
    kept_free(c->handed);
    c->handed = NULL;
    for (size_t i = 0; i < count && !error; i++)
        error = wait_begin(c, ids[i]);
    if (!error)
        error = wait_all(c, ids, count, until);
    wait_end(c, ids, count, finishes);
    return error;
}

int pushrod_client_wait(struct pushrod_client *c, const uint64_t *ids, size_t count,
    struct pushrod_finish *finishes, int64_t timeout_ms)
{
    return wait_until(c, ids, count, finishes, client_deadline(timeout_ms));
}

/* The task's own text is what the caller wants to read; the code says only which kind it is. */
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
    uint64_t id = 0, until = client_deadline(timeout_ms);
    *finish = (struct pushrod_finish){.error_text = ""};
    int error = client_may_wait(c);
    if (error)
        return error;
    late_drop(c);
    error = client_submit(c, &s, &id, true, until);
    if (error)
        return error;
    error = wait_until(c, &id, 1, finish, until);
    c->late = error ? id : 0;
    return error ? error : call_result(c, finish);
}
