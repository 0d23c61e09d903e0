/* SPDX-License-Identifier: Apache-2.0 */
/* The operations of the memory store that give tasks: in order, by time, by id, dead ones. */
#include <stdlib.h>
#include "common/list.h"
#include "common/name.h"
#include "server/store/mem.h"

static void give(struct mem *m, struct reply_records *list, const struct mem_item *item)
{
    bool maybe_running = mem_maybe_running(m, item);
    reply_record(list, item->bytes, item->size, item->body)->maybe_running = maybe_running;
}

void mem_fetch(struct mem *m, const struct store_op *op, struct store_event *e, struct reply *reply)
{
    struct mem_queue *queue = strmap_get(&m->queues, op->queue);
    struct reply_records list = {.reply = reply};
    struct tree_node *n = queue ? tree_after(&queue->ready, op->after.rank, op->after.id) : NULL;
    for (; n && list.count < op->limit; n = tree_next(&queue->ready, n)) {
        const struct mem_item *item = container_of(n, struct mem_item, place);
        bool fits = !op->limit_bytes || list.bytes + item->record.payload.size <= op->limit_bytes;
        if (list.count && !fits)
            break;
        give(m, &list, item);
        struct order_key key = {(uint8_t)n->hi, n->lo};
        if (order_key_less(queue->edge, key))
            queue->edge = key;
    }
    e->exhausted = !n;
    reply_set_records(&list, e);
}

/* Ready from now on; it may be running soon, so it counts as windowed. */
static void promote(struct mem *m, struct mem_item *item, uint64_t until_ms)
{
    mem_item_leave(m, item);
    struct record r = item->record;
    r.due_ms = 0;
    r.windowed = true;
    item->state.boot = (uint8_t)m->boot;
    item->state.expiry_told |= r.expires_ms && r.expires_ms <= until_ms;
    mem_item_pack(m, item, &r);
    mem_item_place(m, item);
}

static void agenda_step(
    struct mem *m, struct tree_node *n, uint64_t until_ms, struct reply_records *list)
{
    enum agenda_kind kind = agenda_kind(n->hi);
    if (kind == AGENDA_UNIQUE) {
        mem_unique_drop(m, container_of(n, struct mem_unique, end));
        return;
    }
    struct mem_item *item = kind == AGENDA_DUE ? container_of(n, struct mem_item, due)
                                               : container_of(n, struct mem_item, expiry);
    bool maybe_running = mem_maybe_running(m, item);
    uint64_t due_ms = item->record.due_ms;
    promote(m, item, until_ms);
    struct record *r = reply_record(list, item->bytes, item->size, item->body);
    r->maybe_running = maybe_running;
    r->due_ms = due_ms;
}

uint64_t mem_agenda_next(const struct mem *m)
{
    struct tree_node *n = tree_first(&m->agenda);
    return n ? agenda_ms(n->hi) : 0;
}

void mem_due(struct mem *m, const struct store_op *op, struct store_event *e, struct reply *reply)
{
    struct reply_records list = {.reply = reply};
    struct tree_node *n = tree_first(&m->agenda);
    for (uint32_t i = 0; i < op->limit && n && agenda_ms(n->hi) <= op->until_ms; i++) {
        agenda_step(m, n, op->until_ms, &list);
        n = tree_first(&m->agenda);
    }
    e->exhausted = !n || agenda_ms(n->hi) > op->until_ms;
    e->next_ms = mem_agenda_next(m);
    reply_set_records(&list, e);
}

void mem_lookup(struct mem *m, const struct store_op *op, struct store_event *e,
    struct reply *reply, uint64_t now_ms)
{
    struct mem_item *item = mem_item_get(m, op->id);
    if (item) {
        struct reply_records list = {.reply = reply};
        give(m, &list, item);
        reply_set_records(&list, e);
        return;
    }
    struct mem_item *dead = mem_dead_get(m, op->id);
    struct mem_finish *f = idmap_pointer(&m->finishes, op->id);
    if (!f && dead)
        f = dead->finish;
    if (!f || (f->finish.keep_until_ms <= now_ms && !dead)) {
        e->outcome = OUTCOME_GONE;
        return;
    }
    e->finishes = reply_finish(reply, f->bytes, f->size, f->body);
    if (dead) {
        struct reply_records list = {.reply = reply};
        reply_record(&list, dead->bytes, dead->size, op->payload ? dead->body : NULL);
        reply_set_records(&list, e);
        e->record_count = 0; /* it does not live */
    }
}

void mem_scan(struct mem *m, const struct store_op *op, struct store_event *e, struct reply *reply)
{
    struct reply_records list = {.reply = reply};
    struct finish *finishes = store_arena_alloc(&reply->arena, op->limit * sizeof(*finishes));
    struct tree_node *n = tree_after(&m->dead, 0, op->id);
    for (; n; n = tree_next(&m->dead, n)) {
        const struct mem_item *item = container_of(n, struct mem_item, place);
        if (op->queue.data && !name_matches(op->queue, item->record.queue))
            continue;
        if (list.count == op->limit)
            break;
        finishes[list.count] = *reply_finish(reply, item->finish->bytes, item->finish->size, NULL);
        reply_record(&list, item->bytes, item->size, NULL);
    }
    e->exhausted = !n;
    e->finishes = finishes;
    reply_set_records(&list, e);
}
