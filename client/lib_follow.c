/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lib_follow: the tasks that this client follows.
 *
 * A record lives from ACCEPTED (or follow) until its finish was delivered, so a finish that is told
 * twice, by two connections, finds no record the second time: once for each id.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib.h"

#define AHEAD 4u /* finishes: how far ahead records are fetched into the cache */

struct task_record *followed_find(struct pushrod_client *c, uint64_t id)
{
    uint32_t place = idindex_get(&c->tasks.places, id);
    return place ? &c->tasks.records[place - 1] : NULL;
}

/* Records move, so a pointer to one lives until the next follow. */
static bool records_grow(struct task_table *t)
{
    uint32_t capacity = t->capacity ? t->capacity * 2 : 256;
    struct task_record *records = realloc(t->records, capacity * sizeof *records);
    if (!records)
        return false;
    t->records = records;
    t->capacity = capacity;
    return true;
}

/* A place for a record, or UINT32_MAX. */
static uint32_t record_place(struct task_table *t)
{
    if (t->free) {
        uint32_t place = t->free - 1;
        t->free = t->records[place].next;
        if (t->free)
            __builtin_prefetch(&t->records[t->free - 1], 1);
        return place;
    }
    if (t->count == t->capacity && !records_grow(t))
        return UINT32_MAX;
    return t->count++;
}

static void record_give(struct task_table *t, struct task_record *r)
{
    *r = (struct task_record){.next = t->free};
    t->free = (uint32_t)(r - t->records) + 1;
}

/* Following twice is one record: the later argument and the wider interest win. */
struct task_record *followed_add(struct pushrod_client *c, uint64_t id, unsigned follow, void *arg)
{
    struct task_table *t = &c->tasks;
    struct task_record *old = followed_find(c, id);
    if (old) {
        old->arg = arg ? arg : old->arg;
        old->follow = (uint8_t)(follow > old->follow ? follow : old->follow);
        return old;
    }
    uint32_t place = record_place(t);
    if (place == UINT32_MAX)
        return NULL;
    struct task_record *r = &t->records[place];
    *r = (struct task_record){.id = id, .arg = arg, .follow = (uint8_t)follow};
    if (!idindex_put(&t->places, id, place + 1)) {
        record_give(t, r);
        return NULL;
    }
    t->open++;
    return r;
}

void followed_forget(struct pushrod_client *c, struct task_record *r, bool free_kept)
{
    struct task_table *t = &c->tasks;
    if (!r->kept)
        t->open--;
    else if (free_kept)
        kept_free(r->kept);
    idindex_remove(&t->places, r->id);
    r->id = 0;
    r->kept = NULL;
    if (!r->unasked) /* else its place is free when its turn has come */
        record_give(t, r);
}

void kept_free(struct kept *list)
{
    while (list) {
        struct kept *next = list->next;
        free(list);
        list = next;
    }
}

void followed_free(struct pushrod_client *c)
{
    struct task_table *t = &c->tasks;
    for (uint32_t i = 0; i < t->count; i++)
        if (t->records[i].id)
            kept_free(t->records[i].kept);
    free(t->records);
    idindex_free(&t->places);
    *t = (struct task_table){0};
}

/* ---------------------------------------------------------------------------------- waits */

/*
 * What has finished is told at once, so whoever asks for many large results in one go is sent them
 * all in one go, and the server closes a connection with too much unsent (max-unsent): for ever, if
 * the next one asks for the same. So WAITs have a window: narrow at first and after a large result,
 * wider with each answer.
 */
#define WAITS_FIRST  8u
#define WAITS_MOST   1024u
#define LARGE_RESULT (64u << 10)

static void unasked_add(struct task_table *t, struct task_record *r)
{
    uint32_t place = (uint32_t)(r - t->records) + 1;
    if (r->unasked)
        return;
    r->unasked = true;
    r->next = 0;
    if (t->ask_last)
        t->records[t->ask_last - 1].next = place;
    else
        t->ask_first = place;
    t->ask_last = place;
}

/* Those that were forgotten meanwhile, or have finished, are passed over. NULL: there is none. */
static struct task_record *unasked_take(struct task_table *t)
{
    while (t->ask_first) {
        struct task_record *r = &t->records[t->ask_first - 1];
        t->ask_first = r->next;
        if (!t->ask_first)
            t->ask_last = 0;
        r->unasked = false;
        if (!r->id)
            record_give(t, r);
        else if (!r->kept)
            return r;
    }
    return NULL;
}

static int wait_send(struct pushrod_client *c, const struct task_record *r)
{
    struct msg_wait m = {.id = r->id, .follow = r->follow};
    struct pending *p = pending_add(c, &m.request);
    if (!p)
        return client_no_memory(c);
    p->kind = PENDING_WAIT;
    p->id = r->id;
    c->tasks.waits++;
    msg_wait_encode(stream_out(c), &m);
    if (stream_added(c))
        return 0;
    pending_remove(c, m.request);
    return client_no_memory(c);
}

static int waits_send(struct pushrod_client *c)
{
    struct task_table *t = &c->tasks;
    int error = 0;
    while (!error && t->waits < t->waits_most) {
        struct task_record *r = unasked_take(t);
        if (!r)
            break;
        error = wait_send(c, r);
        if (error)
            unasked_add(t, r);
    }
    return error;
}

/* Not connected is no error: client_ready() asks for every record. */
int followed_ask(struct pushrod_client *c, uint64_t id)
{
    struct task_record *r = followed_find(c, id);
    if (!r || c->state != CLIENT_UP)
        return 0; /* sent when it is */
    unasked_add(&c->tasks, r);
    return waits_send(c);
}

/* What cannot be sent now would not be asked for any more: the next connection does. */
void followed_answered(struct pushrod_client *c)
{
    struct task_table *t = &c->tasks;
    if (t->waits_most < WAITS_MOST)
        t->waits_most++;
    if (waits_send(c))
        c->broken = true;
}

int followed_wait_again(struct pushrod_client *c)
{
    struct task_table *t = &c->tasks;
    assert(t->waits == 0);
    t->waits_most = WAITS_FIRST;
    for (uint32_t i = 0; i < t->count; i++)
        if (t->records[i].id && !t->records[i].kept)
            unasked_add(t, &t->records[i]);
    return waits_send(c);
}

/* ---------------------------------------------------------------------------------- finishes */

/* A copy of the finish with all that it points to, in one allocation. */
static struct kept *kept_new(const struct pushrod_finish *f)
{
    size_t text = strlen(f->error_text) + 1;
    struct kept *k = malloc(sizeof *k + f->result_size + f->tag_size + text + 1);
    if (!k)
        return NULL;
    k->next = NULL;
    k->finish = *f;
    char *at = k->bytes;
    if (f->result_size)
        memcpy(at, f->result, f->result_size);
    /* A result ends with a NUL that is not counted, so that text can be printed as it is. */
    at[f->result_size] = '\0';
    k->finish.result = f->result ? at : NULL;
    at += f->result_size + 1;
    if (f->tag_size)
        memcpy(at, f->tag, f->tag_size);
    k->finish.tag = f->tag_size ? at : NULL;
    at += f->tag_size;
    k->finish.error_text = memcpy(at, f->error_text, text);
    return k;
}

static void finish_keep(
    struct pushrod_client *c, struct task_record *r, const struct pushrod_finish *f)
{
    struct kept *k = kept_new(f);
    if (!k) {
        client_no_memory(c);
        followed_forget(c, r, true);
        return;
    }
    r->kept = k;
    c->tasks.open--;
}

/*
 * Only a hint: what was submitted later mostly ends later. With a hundred thousand in flight no
 * record is in the cache, and waiting for it was a fifth of what the client costs.
 */
static void followed_expect(const struct pushrod_client *c, uint64_t id)
{
    uint32_t place = idindex_get(&c->tasks.places, id);
    if (place)
        __builtin_prefetch(&c->tasks.records[place - 1], 1);
}

/* Kept for wait(), if it waits or there is no callback; else to the callback. */
static void finish_deliver(struct pushrod_client *c, const struct pushrod_finish *f)
{
    struct task_record *r = followed_find(c, f->id);
    if (!r || r->kept)
        return;
    if (r->waited || !c->events.finish) {
        finish_keep(c, r, f);
        return;
    }
    void *arg = r->arg;
    followed_forget(c, r, true);
    c->events.finish(c, f, arg);
}

/* Counted before anything else: RECEIVED says how many were taken, wanted or not. */
void followed_finished(struct pushrod_client *c, const struct msg_finished *m)
{
    c->received++;
    if (m->result.size > LARGE_RESULT)
        c->tasks.waits_most = WAITS_FIRST;
    text_begin(c, m->text.size + 1);
    struct pushrod_finish f = {
        .id = m->id,
        .status = (enum pushrod_status)m->status,
        .error = (int)m->code,
        .attempts = (unsigned)m->attempts,
        .result = m->result.data,
        .result_size = m->result.size,
        .error_text = text_of(c, m->text),
        .tag = m->tag.data,
        .tag_size = m->tag.size,
        .run_ns = m->run_ns,
    };
    followed_expect(c, m->id + AHEAD);
    finish_deliver(c, &f);
}

/* The server cannot tell how it ended; whoever waits must not wait for ever. */
void followed_unknown(struct pushrod_client *c, uint64_t id, int error, const char *text)
{
    struct pushrod_finish f = {.id = id, .error = error, .error_text = text};
    finish_deliver(c, &f);
}
