/* SPDX-License-Identifier: Apache-2.0 */
/* The operations of the memory store that change tasks. */
#include <assert.h>
#include <stdlib.h>
#include <pushrod/error.h>
#include "common/list.h"
#include "server/store/mem.h"

static void item_insert(struct mem *m, struct mem_item *item)
{
    if (!idmap_put(&m->items, item->record.id, (uintptr_t)item))
        abort();
    mem_item_place(m, item);
}

static bool refused_full(const struct mem *m, const struct record *r, struct store_event *e)
{
    if (!m->max_bytes || m->bytes + record_packed_size(r) + r->payload.size <= m->max_bytes)
        return false;
    e->outcome = OUTCOME_REFUSED;
    e->code = PUSHROD_E_STORE_FULL;
    e->text = "the store's share of memory is full";
    return true;
}

/* Who holds the record's key, if it has one; NULL: nobody, or its window is over by now. */
static const struct mem_unique *unique_holder(
    struct mem *m, const struct record *r, uint64_t now_ms)
{
    struct mem_unique *u = r->unique.data ? mem_unique_get(m, r->queue, r->unique) : NULL;
    if (!u || !u->until_ms || u->until_ms > now_ms)
        return u;
    mem_unique_drop(m, u);
    return NULL;
}

/* The key is held, or the id is there already: then the task itself is the holder. */
static bool refused_held(
    struct mem *m, const struct record *r, struct store_event *e, uint64_t now_ms)
{
    const struct mem_unique *u = unique_holder(m, r, now_ms);
    if (!u && !mem_item_get(m, r->id))
        return false;
    e->outcome = OUTCOME_HELD;
    e->id = u ? u->id : r->id;
    return true;
}

void mem_append(struct mem *m, const struct store_op *op, struct store_event *e, uint64_t now_ms)
{
    const struct record *r = op->record;
    if (refused_held(m, r, e, now_ms) || refused_full(m, r, e))
        return;
    struct mem_item *item = store_alloc(sizeof(*item));
    item->queue = mem_queue_get(m, r->queue);
    item->state.boot = (uint8_t)m->boot;
    item->body = body_ref(r->body);
    m->bytes += item->body ? item->body->size : 0;
    mem_item_pack(m, item, r);
    item_insert(m, item);
    if (r->unique.data && (r->unique_ms == 0 || r->unique_ms > now_ms))
        mem_unique_take(m, &item->record);
}

static void item_bury(struct mem *m, struct mem_item *item, const struct finish *f)
{
    struct record r = item->record;
    if (f->history.data)
        r.history = f->history;
    mem_item_pack(m, item, &r);
    item->finish = mem_finish_new(m, f);
    tree_insert(&m->dead, &item->place, 0, r.id);
    item->queue->dead++;
}

void mem_finish_task(struct mem *m, const struct store_op *op, struct store_event *e)
{
    const struct finish *f = op->finish;
    struct mem_item *item = mem_item_get(m, f->id);
    e->id = f->id;
    if (!item) {
        e->outcome = OUTCOME_GONE;
        return;
    }
    mem_item_leave(m, item);
    idmap_remove(&m->items, f->id);
    mem_unique_release(m, &item->record);
    if (f->keep_until_ms)
        mem_finish_keep(m, f);
    if (f->dead)
        item_bury(m, item, f);
    else
        mem_item_free(m, item);
}

void mem_reschedule(struct mem *m, const struct store_op *op, struct store_event *e)
{
    struct mem_item *item = mem_item_get(m, op->record->id);
    e->id = op->record->id;
    if (!item) {
        e->outcome = OUTCOME_GONE;
        return;
    }
    mem_item_leave(m, item);
    struct record r = item->record;
    record_reschedule(&r, op->record);
    item->state.boot = (uint8_t)m->boot;
    mem_item_pack(m, item, &r);
    mem_item_place(m, item);
}

void mem_forget(struct mem *m, const struct store_op *op, struct store_event *e)
{
    if (!idmap_get(&m->finishes, op->id, NULL))
        e->outcome = OUTCOME_GONE;
    mem_finish_drop(m, op->id);
}

void mem_revive(struct mem *m, const struct store_op *op, struct store_event *e,
    struct reply *reply, uint64_t now_ms)
{
    struct mem_item *item = mem_dead_get(m, op->id);
    if (!item) {
        e->outcome = OUTCOME_GONE;
        return;
    }
    tree_remove(&m->dead, &item->place);
    item->queue->dead--;
    mem_finish_free(m, item->finish);
    item->finish = NULL;
    mem_finish_drop(m, op->id);
    struct record r = item->record;
    record_revive(&r);
    if (unique_holder(m, &r, now_ms))
        r.unique = (struct slice){0};
    item->state = (struct packed_state){.boot = (uint8_t)m->boot};
    mem_item_pack(m, item, &r);
    item_insert(m, item);
    if (r.unique.data)
        mem_unique_take(m, &item->record);
    struct reply_records list = {.reply = reply};
    reply_record(&list, item->bytes, item->size, item->body);
    reply_set_records(&list, e);
}

void mem_drop(struct mem *m, const struct store_op *op, struct store_event *e, struct reply *reply)
{
    struct reply_records list = {.reply = reply};
    struct mem_item *item = mem_dead_get(m, op->id);
    if (!item) {
        e->outcome = OUTCOME_GONE;
        return;
    }
    reply_record(&list, item->bytes, item->size, NULL);
    reply_set_records(&list, e);
    tree_remove(&m->dead, &item->place);
    item->queue->dead--;
    mem_item_free(m, item);
}

static uint64_t purge_tree(struct mem *m, struct tree *tree, const struct store_op *op)
{
    uint64_t count = 0;
    for (struct tree_node *n = tree_first(tree), *next; n; n = next) {
        next = tree_next(tree, n);
        if (purge_keeps(op->keep, op->keep_count, n->lo))
            continue;
        struct mem_item *item = container_of(n, struct mem_item, place);
        mem_item_leave(m, item);
        idmap_remove(&m->items, item->record.id);
        mem_item_free(m, item);
        count++;
    }
    return count;
}

void mem_purge(struct mem *m, const struct store_op *op, struct store_event *e)
{
    struct mem_queue *queue = strmap_get(&m->queues, op->queue);
    if (!queue)
        return;
    e->count = purge_tree(m, &queue->ready, op) + purge_tree(m, &queue->delayed, op);
    mem_unique_purge(m, queue);
}
