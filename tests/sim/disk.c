/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>

static void disk_on_commit(struct sim *, struct event *);

void disk_init(struct sim *sim)
{
    struct disk *d = &sim->disk;
    d->kept.next_id = 1;
    state_copy(&d->seen, &d->kept);
}

static void ops_free(struct disk_op ***ops, size_t *count, size_t *room)
{
    for (size_t i = 0; i < *count; i++)
        op_free((*ops)[i]);
    free(*ops);
    *ops = NULL;
    *count = *room = 0;
}

void disk_free(struct sim *sim)
{
    struct disk *d = &sim->disk;
    ops_free(&d->waiting, &d->waiting_count, &d->waiting_room);
    ops_free(&d->tail, &d->tail_count, &d->tail_room);
    state_free(&d->seen);
    state_free(&d->kept);
    free(d->opened_queues);
}

static void count_records(const struct disk_state *s, struct store_queue *q)
{
    for (size_t i = 0; i < s->count; i++) {
        const struct entry *e = s->entries[i];
        if (e->state == ENTRY_KEPT || !slice_equal(e->record.queue, q->name))
            continue;
        if (e->state == ENTRY_DEAD)
            q->dead++;
        else if (e->delayed)
            q->delayed++;
        else
            q->ready++;
    }
}

static uint64_t next_due(const struct disk_state *s)
{
    uint64_t next = 0;
    for (size_t i = 0; i < s->count; i++) {
        const struct entry *e = s->entries[i];
        uint64_t due = e->state == ENTRY_LIVE && e->delayed ? e->record.due_ms : 0;
        uint64_t end = e->state == ENTRY_LIVE && e->expiring ? e->record.expires_ms : 0;
        next = due && (!next || due < next) ? due : next;
        next = end && (!next || end < next) ? end : next;
    }
    return next;
}

const struct store_opened *disk_open(struct sim *sim)
{
    struct disk *d = &sim->disk;
    state_opened(&d->kept);
    uint64_t first = d->kept.next_id;
    uint64_t block = sim_between(sim, 8, 300); /* small, so that blocks run out */
    d->kept.next_id += block;
    state_free(&d->seen);
    state_copy(&d->seen, &d->kept);
    free(d->opened_queues);
    d->opened_queues = calloc(d->seen.queue_count + 1, sizeof *d->opened_queues);
    for (size_t i = 0; i < d->seen.queue_count; i++) {
        const struct disk_queue *q = &d->seen.queues[i];
        d->opened_queues[i] =
            (struct store_queue){.name = q->name, .durability = q->durability, .paused = q->paused};
        count_records(&d->seen, &d->opened_queues[i]);
    }
    d->opened = (struct store_opened){.boot = d->seen.boot,
        .first_id = first,
        .id_count = block,
        .queues = d->opened_queues,
        .queue_count = d->seen.queue_count,
        .workers = (const uint8_t(*)[16])d->seen.workers,
        .worker_count = d->seen.worker_count,
        .next_due_ms = next_due(&d->seen)};
    return &d->opened;
}

static void keep_tail(struct disk *d, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        state_apply(&d->kept, d->tail[i], NULL);
        op_free(d->tail[i]);
    }
    d->tail_count -= count;
    if (d->tail_count)
        memmove(d->tail, d->tail + count, d->tail_count * sizeof *d->tail);
}

/* All that was written is on disk at the latest 50 ms after an async operation was answered. */
static void disk_on_sync(struct sim *sim, struct event *event)
{
    if (event->a == sim->server.life)
        keep_tail(&sim->disk, sim->disk.tail_count);
}

static void plan_commit(struct sim *sim)
{
    struct disk *d = &sim->disk;
    if (d->committing || !d->waiting_count)
        return;
    d->committing = true;
    uint64_t most = sim->plan.commit_ns;
    if (d->slow_until > sim->now.mono_ns)
        most += d->slow_until - sim->now.mono_ns;
    sim_after(sim, sim_between(sim, 20 * US, most), disk_on_commit, sim->server.life, 0);
}

void disk_submit(struct sim *sim, const struct store_op *ops, size_t count)
{
    struct disk *d = &sim->disk;
    for (size_t i = 0; i < count; i++) {
        struct disk_op **place =
            array_add((void **)&d->waiting, &d->waiting_count, &d->waiting_room, sizeof *place);
        *place = op_copy(&ops[i], sim->now.wall_ms);
    }
    plan_commit(sim);
}

static bool refuses(enum disk_trouble trouble, const struct store_op *op)
{
    if (trouble == DISK_FULL)
        return op->kind == STORE_APPEND;
    return trouble == DISK_ERROR && op_writes(op);
}

static void answer(
    struct disk_events *out, const struct disk_op *op, enum store_outcome outcome, uint32_t code)
{
    struct store_event *e = array_add((void **)&out->events, &out->count, &out->room, sizeof *e);
    e->kind = op->op.kind;
    e->outcome = outcome;
    e->code = code;
    e->token = op->op.token;
}

static void say(struct disk_events *out, enum store_event_kind kind, uint32_t code)
{
    struct store_event *e = array_add((void **)&out->events, &out->count, &out->room, sizeof *e);
    e->event = kind;
    e->code = code;
    e->text = kind == EVENT_STORE_DOWN ? "the simulated disk is in trouble" : NULL;
}

static void give(struct sim *sim, struct disk_events *out)
{
    struct event *e =
        sim_send(sim, NODE_SERVER, &sim->store_link, sim_below(sim, 200 * US), server_on_stored);
    e->more = out;
    e->drop = disk_events_free;
}

/* The fsync failed; the file, once it is open again, has all that the commit was to write, or none.
 */
static void commit_fails(struct sim *sim, struct disk_events *out, size_t count)
{
    struct disk *d = &sim->disk;
    bool written = sim_chance(sim, 50);
    say(out, EVENT_STORE_DOWN, PUSHROD_E_STORE_FAILED);
    for (size_t i = 0; i < count; i++) {
        struct disk_op *op = d->waiting[i];
        if (written || !op_writes(&op->op)) {
            state_apply(&d->seen, op, out);
            state_apply(&d->kept, op, NULL);
        } else {
            answer(out, op, OUTCOME_REFUSED, PUSHROD_E_STORE_FAILED);
            truth_unstored(sim, &op->op);
        }
        op_free(op);
    }
    d->trouble = DISK_ERROR;
}

static void commit_some(struct sim *sim, struct disk_events *out, size_t count)
{
    struct disk *d = &sim->disk;
    bool sync = false;
    for (size_t i = 0; i < count; i++) {
        struct disk_op *op = d->waiting[i];
        if (refuses(d->trouble, &op->op)) {
            truth_unstored(sim, &op->op);
            answer(out, op, OUTCOME_REFUSED,
                d->trouble == DISK_FULL ? PUSHROD_E_STORE_FULL : PUSHROD_E_STORE_FAILED);
            op_free(op);
            continue;
        }
        state_apply(&d->seen, op, out);
        sync = sync || (op_writes(&op->op) && !op->op.async);
        struct disk_op **place =
            array_add((void **)&d->tail, &d->tail_count, &d->tail_room, sizeof *place);
        *place = op;
    }
    if (sync)
        keep_tail(d, d->tail_count);
    else if (d->tail_count)
        sim_after(sim, sim_below(sim, 50 * MS), disk_on_sync, sim->server.life, 0);
}

static void disk_on_commit(struct sim *sim, struct event *event)
{
    struct disk *d = &sim->disk;
    if (event->a != sim->server.life || !sim->server.up)
        return; /* of a process that died */
    d->committing = false;
    struct disk_events *out = calloc(1, sizeof *out);
    size_t count = sim_chance(sim, 80) ? d->waiting_count : 1 + sim_below(sim, d->waiting_count);
    sim_trace(sim, "disk: commit of %zu operations", count);
    if (d->trouble == DISK_DOUBT) {
        keep_tail(d, d->tail_count);
        commit_fails(sim, out, count);
    } else {
        commit_some(sim, out, count);
    }
    memmove(d->waiting, d->waiting + count, (d->waiting_count - count) * sizeof *d->waiting);
    d->waiting_count -= count;
    give(sim, out);
    plan_commit(sim);
}

void disk_trouble(struct sim *sim, enum disk_trouble trouble)
{
    struct disk *d = &sim->disk;
    bool was_down = d->trouble != DISK_FINE && d->trouble != DISK_DOUBT;
    d->trouble = trouble;
    if (!sim->server.up || trouble == DISK_DOUBT || (trouble == DISK_FINE) != was_down)
        return;
    struct disk_events *out = calloc(1, sizeof *out);
    if (trouble == DISK_FINE)
        say(out, EVENT_STORE_UP, 0);
    else
        say(out, EVENT_STORE_DOWN,
            trouble == DISK_FULL ? PUSHROD_E_STORE_FULL : PUSHROD_E_STORE_FAILED);
    give(sim, out);
}

/* A commit may have reached the disk although nobody heard of it. */
void disk_crash(struct sim *sim)
{
    struct disk *d = &sim->disk;
    size_t written = d->trouble != DISK_FINE ? 0 : sim_below(sim, d->waiting_count + 1);
    if (sim_chance(sim, 50))
        written = 0;
    if (written)
        keep_tail(d, d->tail_count);
    for (size_t i = 0; i < written; i++)
        state_apply(&d->kept, d->waiting[i], NULL);
    link_cut(&sim->store_link);
    ops_free(&d->waiting, &d->waiting_count, &d->waiting_room);
    ops_free(&d->tail, &d->tail_count, &d->tail_room);
    d->committing = false;
    d->trouble = DISK_FINE;
}

void disk_events_free(void *more)
{
    struct disk_events *out = more;
    for (size_t i = 0; i < out->copy_count; i++)
        entry_free(out->copies[i]);
    for (size_t i = 0; i < out->list_count; i++) {
        free(out->records[i]);
        free(out->finishes[i]);
    }
    free(out->records);
    free(out->finishes);
    free(out->copies);
    free(out->events);
    free(out);
}

bool disk_keeps(const struct disk *d, uint64_t id)
{
    const struct entry *e = state_find(&d->kept, id);
    return e && e->state == ENTRY_LIVE;
}

static uint32_t state_ended(const struct disk_state *s, uint64_t id)
{
    uint64_t status = 0;
    return idmap_get(&s->ended, id, &status) ? (uint32_t)status : 0;
}

uint32_t disk_ended(const struct disk *d, uint64_t id)
{
    return state_ended(&d->kept, id);
}

uint32_t disk_saw_end(const struct disk *d, uint64_t id)
{
    return state_ended(&d->seen, id);
}

bool disk_purged(const struct disk *d, uint64_t id)
{
    uint64_t value;
    return idmap_get(&d->seen.purged, id, &value) || idmap_get(&d->kept.purged, id, &value);
}
