/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/disk.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <pushrod/task.h>
#include "common/name.h"

void state_free(struct disk_state *s)
{
    for (size_t i = 0; i < s->count; i++)
        entry_free(s->entries[i]);
    for (size_t i = 0; i < s->queue_count; i++)
        slice_free(s->queues[i].name);
    for (size_t i = 0; i < s->key_count; i++) {
        slice_free(s->keys[i].queue);
        slice_free(s->keys[i].key);
    }
    free(s->entries);
    free(s->queues);
    free(s->keys);
    free(s->workers);
    idmap_free(&s->by_id);
    idmap_free(&s->ended);
    idmap_free(&s->purged);
    memset(s, 0, sizeof *s);
}

static void *copy_array(const void *from, size_t count, size_t size)
{
    void *to = calloc(count + 1, size);
    if (count)
        memcpy(to, from, count * size);
    return to;
}

static struct entry *state_add(struct disk_state *s, struct entry *e, uint64_t id)
{
    struct entry **place = array_add((void **)&s->entries, &s->count, &s->room, sizeof *place);
    *place = e;
    idmap_put(&s->by_id, id, (uintptr_t)e);
    return e;
}

static uint64_t entry_id(const struct entry *e)
{
    return e->state == ENTRY_KEPT ? e->finish.id : e->record.id;
}

void state_copy(struct disk_state *to, const struct disk_state *from)
{
    size_t place = 0;
    struct idmap_cell cell;
    memset(to, 0, sizeof *to);
    for (size_t i = 0; i < from->count; i++)
        state_add(to, entry_copy(from->entries[i]), entry_id(from->entries[i]));
    while (idmap_next(&from->ended, &place, &cell))
        idmap_put(&to->ended, cell.key, cell.value);
    for (place = 0; idmap_next(&from->purged, &place, &cell);)
        idmap_put(&to->purged, cell.key, cell.value);
    to->queues = copy_array(from->queues, from->queue_count, sizeof *from->queues);
    to->queue_count = from->queue_count;
    for (size_t i = 0; i < to->queue_count; i++)
        to->queues[i].name = slice_copy(from->queues[i].name);
    to->keys = copy_array(from->keys, from->key_count, sizeof *from->keys);
    to->key_count = from->key_count;
    for (size_t i = 0; i < to->key_count; i++) {
        to->keys[i].queue = slice_copy(from->keys[i].queue);
        to->keys[i].key = slice_copy(from->keys[i].key);
    }
    to->workers = copy_array(from->workers, from->worker_count, sizeof *from->workers);
    to->worker_count = from->worker_count;
    to->next_id = from->next_id;
    to->boot = from->boot;
}

struct entry *state_find(const struct disk_state *s, uint64_t id)
{
    uint64_t value = 0;
    return idmap_get(&s->by_id, id, &value) ? (struct entry *)(uintptr_t)value : NULL;
}

static void state_remove(struct disk_state *s, uint64_t id)
{
    struct entry *e = state_find(s, id);
    for (size_t i = 0; i < s->count; i++) {
        if (s->entries[i] == e) {
            memmove(&s->entries[i], &s->entries[i + 1], (--s->count - i) * sizeof(void *));
            break;
        }
    }
    idmap_remove(&s->by_id, id);
    entry_free(e);
}

static struct disk_queue *state_queue(struct disk_state *s, struct slice name)
{
    for (size_t i = 0; i < s->queue_count; i++) {
        if (slice_equal(s->queues[i].name, name))
            return &s->queues[i];
    }
    s->queues = realloc(s->queues, (s->queue_count + 1) * sizeof *s->queues);
    struct disk_queue *q = &s->queues[s->queue_count++];
    *q = (struct disk_queue){.name = slice_copy(name)};
    return q;
}

static struct order_key key_of(const struct record *r)
{
    return (struct order_key){(uint8_t)(9 - r->priority), r->id};
}

static bool key_after(struct order_key a, struct order_key b)
{
    return a.rank != b.rank ? a.rank > b.rank : a.id > b.id;
}

/* What had been in a window may still run somewhere: its own bit, or a key up to the edge. */
void state_opened(struct disk_state *s)
{
    s->boot++;
    for (size_t i = 0; i < s->count; i++) {
        struct entry *e = s->entries[i];
        if (e->state == ENTRY_LIVE)
            e->may_run = e->record.windowed ||
                         !key_after(key_of(&e->record), state_queue(s, e->record.queue)->edge);
    }
}

/* ---- events ---- */

static struct store_event *event_add(struct disk_events *out, const struct disk_op *op)
{
    struct store_event *e = array_add((void **)&out->events, &out->count, &out->room, sizeof *e);
    e->event = EVENT_OP;
    e->kind = op->op.kind;
    e->outcome = OUTCOME_STORED;
    e->token = op->op.token;
    return e;
}

static int by_key(const void *a, const void *b)
{
    const struct entry *const *x = a, *const *y = b;
    return key_after(key_of(&(*x)->record), key_of(&(*y)->record)) ? 1 : -1;
}

/* Gives copies of the entries to the event; they live until the event is freed. */
static void event_list(struct disk_events *out, struct store_event *event, struct entry **entries,
    size_t count, bool finishes)
{
    struct record *records = calloc(count + 1, sizeof *records);
    struct finish *ends = calloc(count + 1, sizeof *ends);
    for (size_t i = 0; i < count; i++) {
        struct entry **copy =
            array_add((void **)&out->copies, &out->copy_count, &out->copy_room, sizeof *copy);
        *copy = entry_copy(entries[i]);
        records[i] = (*copy)->record;
        records[i].maybe_running = entries[i]->may_run;
        ends[i] = (*copy)->finish;
    }
    out->records = realloc(out->records, (out->list_count + 1) * sizeof *out->records);
    out->finishes = realloc(out->finishes, (out->list_count + 1) * sizeof *out->finishes);
    out->records[out->list_count] = records;
    out->finishes[out->list_count++] = ends;
    event->records = records;
    event->record_count = count;
    event->finishes = finishes ? ends : NULL;
}

/* ---- operations ---- */

static uint64_t unique_holder(struct disk_state *s, const struct record *r, uint64_t now_ms)
{
    for (size_t i = 0; i < s->key_count; i++) {
        struct unique_key *k = &s->keys[i];
        struct entry *e = state_find(s, k->id);
        bool holds = k->until_ms ? now_ms < k->until_ms : e && e->state == ENTRY_LIVE;
        if (holds && slice_equal(k->queue, r->queue) && slice_equal(k->key, r->unique))
            return k->id;
    }
    return 0;
}

static void apply_append(struct disk_state *s, const struct disk_op *op, struct store_event *event)
{
    const struct record *r = &op->record;
    assert(!state_find(s, r->id) && "an id is used once");
    uint64_t holder = r->unique.data ? unique_holder(s, r, op->now_ms) : 0;
    if (holder) {
        if (event) {
            event->outcome = OUTCOME_HELD;
            event->id = holder;
        }
        return;
    }
    struct entry *e = calloc(1, sizeof *e);
    record_copy(&e->record, r);
    e->record.maybe_running = false;
    e->delayed = r->due_ms != 0;
    e->expiring = r->expires_ms != 0;
    state_add(s, e, r->id);
    state_queue(s, r->queue);
    if (!r->unique.data)
        return;
    s->keys = realloc(s->keys, (s->key_count + 1) * sizeof *s->keys);
    s->keys[s->key_count++] =
        (struct unique_key){slice_copy(r->queue), slice_copy(r->unique), r->id, r->unique_ms};
}

static bool apply_finish(struct disk_state *s, const struct disk_op *op)
{
    const struct finish *f = &op->finish;
    struct entry *e = state_find(s, f->id);
    if (!e || e->state != ENTRY_LIVE)
        return false;
    idmap_put(&s->ended, f->id, f->status);
    if (!f->keep_until_ms && !f->dead) {
        state_remove(s, f->id);
        return true;
    }
    finish_free(&e->finish);
    finish_copy(&e->finish, f);
    e->state = f->dead ? ENTRY_DEAD : ENTRY_KEPT;
    return true;
}

static bool apply_reschedule(struct disk_state *s, const struct disk_op *op)
{
    const struct record *r = &op->record;
    struct entry *e = state_find(s, r->id);
    if (!e || e->state != ENTRY_LIVE)
        return false;
    e->record.due_ms = r->due_ms;
    e->record.attempts = r->attempts;
    e->record.deaths = r->deaths;
    e->record.suspect = r->suspect;
    e->record.windowed = r->windowed;
    slice_free(e->record.history);
    e->record.history = slice_copy(r->history);
    e->delayed = r->due_ms != 0;
    e->may_run = false; /* whoever reschedules knows that nobody runs it */
    return true;
}

static void apply_fetch(struct disk_state *s, const struct disk_op *op, struct disk_events *out)
{
    struct entry **found = malloc((s->count + 1) * sizeof *found);
    size_t count = 0, give = 0, bytes = 0;
    for (size_t i = 0; i < s->count; i++) {
        struct entry *e = s->entries[i];
        if (e->state == ENTRY_LIVE && !e->delayed && slice_equal(e->record.queue, op->op.queue) &&
            key_after(key_of(&e->record), op->op.after))
            found[count++] = e;
    }
    qsort(found, count, sizeof *found, by_key);
    while (give < count && give < op->op.limit &&
           (!give || bytes + found[give]->record.payload.size <= op->op.limit_bytes))
        bytes += found[give++]->record.payload.size;
    struct disk_queue *q = state_queue(s, op->op.queue);
    if (give && key_after(key_of(&found[give - 1]->record), q->edge))
        q->edge = key_of(&found[give - 1]->record);
    if (out) {
        struct store_event *event = event_add(out, op);
        event->exhausted = give == count;
        event_list(out, event, found, give, false);
    }
    free(found);
}

static uint64_t entry_next(const struct entry *e)
{
    uint64_t next = e->delayed ? e->record.due_ms : 0;
    if (e->expiring && (!next || e->record.expires_ms < next))
        next = e->record.expires_ms;
    return e->state == ENTRY_LIVE ? next : 0;
}

static void apply_due(struct disk_state *s, const struct disk_op *op, struct disk_events *out)
{
    struct entry **found = malloc((s->count + 1) * sizeof *found);
    uint64_t *due_ms = malloc((s->count + 1) * sizeof *due_ms); /* until now */
    size_t count = 0;
    uint64_t next = 0;
    bool more = false;
    for (size_t i = 0; i < s->count; i++) {
        struct entry *e = s->entries[i];
        uint64_t at = entry_next(e);
        if (at && at <= op->op.until_ms && count < op->op.limit) {
            due_ms[count] = e->record.due_ms;
            if (e->delayed && e->record.due_ms <= op->op.until_ms) {
                e->delayed = false;
                e->record.due_ms = 0;
                e->record.windowed = true; /* as store.h says: it may run from now on */
            }
            if (e->expiring && e->record.expires_ms <= op->op.until_ms)
                e->expiring = false;
            found[count++] = e;
        }
        more = more || ((at = entry_next(e)) && at <= op->op.until_ms);
        next = at && (!next || at < next) ? at : next;
    }
    if (out) {
        struct store_event *event = event_add(out, op);
        event->exhausted = !more;
        event->next_ms = next;
        event_list(out, event, found, count, false);
        for (size_t i = 0; i < count; i++)
            out->records[out->list_count - 1][i].due_ms = due_ms[i];
    }
    free(due_ms);
    free(found);
}

static void apply_lookup(struct disk_state *s, const struct disk_op *op, struct disk_events *out)
{
    struct entry *e = state_find(s, op->op.id);
    if (!out)
        return;
    struct store_event *event = event_add(out, op);
    if (!e) {
        event->outcome = OUTCOME_GONE;
        return;
    }
    event_list(out, event, &e, 1, true);
    if (e->state == ENTRY_LIVE)
        event->finishes = NULL;
    else
        event->record_count = 0;
}

static void apply_scan(struct disk_state *s, const struct disk_op *op, struct disk_events *out)
{
    struct entry **found = malloc((s->count + 1) * sizeof *found);
    size_t count = 0;
    for (size_t i = 0; i < s->count && count < op->op.limit; i++) {
        struct entry *e = s->entries[i];
        if (e->state == ENTRY_DEAD && e->record.id > op->op.id &&
            (!op->op.queue.data || name_matches(op->op.queue, e->record.queue)))
            found[count++] = e;
    }
    if (out)
        event_list(out, event_add(out, op), found, count, true);
    free(found);
}

/* It is taken again if it is free, until the task ends. */
static void revive_key(struct disk_state *s, const struct entry *e, uint64_t now_ms)
{
    for (size_t i = 0; i < s->key_count; i++) {
        struct unique_key *k = &s->keys[i];
        if (k->id != e->record.id)
            continue;
        k->id = k->until_ms = 0;
        k->id = unique_holder(s, &e->record, now_ms) ? 0 : e->record.id;
    }
}

static void apply_dead(struct disk_state *s, const struct disk_op *op, struct disk_events *out)
{
    struct entry *e = state_find(s, op->op.id);
    struct store_event *event = out ? event_add(out, op) : NULL;
    if (!e || e->state != ENTRY_DEAD) {
        if (event)
            event->outcome = OUTCOME_GONE;
        return;
    }
    if (op->op.kind == STORE_DROP) {
        if (event)
            event_list(out, event, &e, 1, false);
        state_remove(s, op->op.id);
        return;
    }
    idmap_remove(&s->ended, op->op.id);
    finish_free(&e->finish);
    e->state = ENTRY_LIVE;
    e->delayed = e->expiring = e->may_run = e->record.suspect = false;
    e->record.attempts = 0;
    e->record.deaths = 0;
    e->record.due_ms = e->record.expires_ms = e->record.unique_ms = 0;
    e->record.windowed = true;
    revive_key(s, e, op->now_ms);
    if (event)
        event_list(out, event, &e, 1, false);
}

static bool keeps_id(const struct store_op *op, uint64_t id)
{
    for (size_t i = 0; i < op->keep_count; i++) {
        if (op->keep[i] == id)
            return true;
    }
    return false;
}

static uint64_t apply_purge(struct disk_state *s, const struct disk_op *op)
{
    uint64_t count = 0;
    for (size_t i = s->count; i-- > 0;) {
        struct entry *e = s->entries[i];
        if (e->state == ENTRY_LIVE && slice_equal(e->record.queue, op->op.queue) &&
            !keeps_id(&op->op, e->record.id)) {
            idmap_put(&s->purged, e->record.id, 1);
            state_remove(s, e->record.id);
            count++;
        }
    }
    for (size_t i = 0; i < s->key_count; i++) {
        struct unique_key *k = &s->keys[i];
        if (slice_equal(k->queue, op->op.queue) && !keeps_id(&op->op, k->id))
            k->id = k->until_ms = 0;
    }
    return count;
}

static void apply_worker(struct disk_state *s, const struct disk_op *op)
{
    size_t at = 0;
    assert(op->op.instance.size == 16);
    while (at < s->worker_count && memcmp(s->workers[at], op->op.instance.data, 16) != 0)
        at++;
    if (op->op.gone && at < s->worker_count)
        memmove(s->workers[at], s->workers[at + 1], (--s->worker_count - at) * 16);
    if (op->op.gone || at < s->worker_count)
        return;
    s->workers = realloc(s->workers, (s->worker_count + 2) * 16);
    memcpy(s->workers[s->worker_count++], op->op.instance.data, 16);
}

/* Those that answer with no more than an outcome and a number. */
static void apply_plain(struct disk_state *s, const struct disk_op *op, struct disk_events *out)
{
    struct store_event none = {0}, *event = out ? event_add(out, op) : &none;
    bool there = true;
    switch (op->op.kind) {
    case STORE_APPEND:
        apply_append(s, op, event);
        break;
    case STORE_FINISH:
        there = apply_finish(s, op);
        break;
    case STORE_RESCHEDULE:
        there = apply_reschedule(s, op);
        break;
    case STORE_FORGET: {
        struct entry *e = state_find(s, op->op.id);
        there = e && e->state == ENTRY_KEPT;
        if (there)
            state_remove(s, op->op.id);
        break;
    }
    case STORE_PURGE:
        event->count = apply_purge(s, op);
        break;
    case STORE_IDS:
        event->id = s->next_id;
        event->count = op->op.limit;
        s->next_id += op->op.limit;
        break;
    case STORE_QUEUE:
        state_queue(s, op->op.queue)->paused = op->op.paused;
        state_queue(s, op->op.queue)->durability = op->op.durability;
        break;
    case STORE_WORKER:
        apply_worker(s, op);
        break;
    default:
        abort(); /* a kind of operation that this disk does not know */
    }
    if (!there)
        event->outcome = OUTCOME_GONE;
}

void state_apply(struct disk_state *s, const struct disk_op *op, struct disk_events *out)
{
    static void (*const lists[])(struct disk_state *, const struct disk_op *,
        struct disk_events *) = {[STORE_FETCH] = apply_fetch,
        [STORE_DUE] = apply_due,
        [STORE_LOOKUP] = apply_lookup,
        [STORE_SCAN] = apply_scan,
        [STORE_REVIVE] = apply_dead,
        [STORE_DROP] = apply_dead,
        [STORE_WORKER] = NULL};
    if (lists[op->op.kind])
        lists[op->op.kind](s, op, out);
    else
        apply_plain(s, op, out);
}
