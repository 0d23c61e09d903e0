/* SPDX-License-Identifier: Apache-2.0 */
/* The memory store: its table of operations, opening and closing. */
#include "server/store/store_mem.h"

#include <assert.h>
#include <stdlib.h>
#include "common/list.h"
#include "server/store/mem.h"

static void lease_ids(struct mem *m, const struct store_op *op, struct store_event *e)
{
    e->count = op->limit ? op->limit : m->id_block;
    e->id = m->next_id;
    m->next_id += e->count;
}

static void set_worker(struct mem *m, const struct store_op *op)
{
    assert(op->instance.size == 16);
    size_t i = 0;
    while (i < m->worker_count && memcmp(m->worker_ids[i], op->instance.data, 16) != 0)
        i++;
    if (op->gone) {
        if (i < m->worker_count)
            memmove(m->worker_ids[i], m->worker_ids[--m->worker_count], 16);
        return;
    }
    if (i < m->worker_count)
        return;
    if (m->worker_count == m->worker_capacity)
        m->worker_ids = store_grow(m->worker_ids, &m->worker_capacity, 16);
    memcpy(m->worker_ids[m->worker_count++], op->instance.data, 16);
}

static void set_queue(struct mem *m, const struct store_op *op)
{
    struct mem_queue *q = mem_queue_get(m, op->queue);
    q->paused = op->paused;
    q->durability = op->durability;
}

static void execute(struct mem *m, const struct store_op *op, struct reply *reply, uint64_t now_ms)
{
    struct store_event *e = reply_event(reply, op->kind, op->token, op->id);
    switch (op->kind) {
    case STORE_APPEND:
        e->id = op->record->id;
        mem_append(m, op, e, now_ms);
        break;
    case STORE_FINISH:
        mem_finish_task(m, op, e);
        break;
    case STORE_RESCHEDULE:
        mem_reschedule(m, op, e);
        break;
    case STORE_FETCH:
        mem_fetch(m, op, e, reply);
        break;
    case STORE_DUE:
        mem_due(m, op, e, reply);
        break;
    case STORE_LOOKUP:
        mem_lookup(m, op, e, reply, now_ms);
        break;
    case STORE_FORGET:
        mem_forget(m, op, e);
        break;
    case STORE_SCAN:
        mem_scan(m, op, e, reply);
        break;
    case STORE_REVIVE:
        mem_revive(m, op, e, reply, now_ms);
        break;
    case STORE_DROP:
        mem_drop(m, op, e, reply);
        break;
    case STORE_PURGE:
        mem_purge(m, op, e);
        break;
    case STORE_IDS:
        lease_ids(m, op, e);
        break;
    case STORE_QUEUE:
        set_queue(m, op);
        break;
    case STORE_WORKER:
        set_worker(m, op);
        break;
    }
}

static void mem_submit(struct store *s, const struct store_op *ops, size_t count, uint64_t now_ms)
{
    struct mem *m = (struct mem *)s;
    struct reply *reply = reply_new();
    mem_finish_expire(m, now_ms);
    for (size_t i = 0; i < count; i++)
        execute(m, &ops[i], reply, now_ms);
    reply_push(&m->replies, reply);
}

static size_t mem_poll(struct store *s, const struct store_event **events, size_t limit)
{
    struct mem *m = (struct mem *)s;
    store_arena_free(&m->opened);
    return reply_poll(&m->replies, events, limit);
}

static int mem_event_fd(const struct store *s)
{
    (void)s;
    return -1;
}

static struct store_usage mem_usage(const struct store *s)
{
    (void)s;
    return (struct store_usage){0}; /* everything is done within submit() */
}

static struct store_capabilities mem_capabilities(const struct store *s)
{
    const struct mem *m = (const struct mem *)s;
    return (struct store_capabilities){.bypass = m->ops == &store_mem};
}

/* ---- opening ---- */

static void tell_opened(struct mem *m, struct store_opened *opened)
{
    size_t place = 0;
    struct strmap_cell cell;
    struct store_queue *queues =
        store_arena_alloc(&m->opened, (m->queues.count + 1) * sizeof(struct store_queue));
    *opened = (struct store_opened){.boot = m->boot, .queues = queues};
    while (strmap_next(&m->queues, &place, &cell)) {
        struct mem_queue *q = cell.value;
        queues[opened->queue_count++] = (struct store_queue){
            q->name, q->durability, q->paused, q->ready.count, q->delayed.count, q->dead};
        if (q->ready.count + q->delayed.count == 0)
            q->edge = (struct order_key){0}; /* nothing is left that it could be about */
        q->edge_at_open = q->edge;
    }
    opened->workers = arena_copy(&m->opened, m->worker_ids, m->worker_count * 16);
    opened->worker_count = m->worker_count;
    opened->next_due_ms = mem_agenda_next(m);
    opened->first_id = m->next_id;
    opened->id_count = m->id_block;
    m->next_id += m->id_block;
}

static struct store *mem_new(
    const struct store_ops *ops, const struct store_config *config, struct store_opened *opened)
{
    struct mem *m = store_alloc(sizeof(*m));
    m->ops = ops;
    m->max_bytes = config->max_bytes;
    m->id_block = config->id_block ? config->id_block : STORE_ID_BLOCK;
    m->boot = 1;
    m->next_id = 1;
    tell_opened(m, opened);
    return (struct store *)m;
}

#define BOOT_MS 8u     /* nobody starts, works and starts again so fast */
#define BOOTS   32767u /* that leases can tell apart */

static struct store *mem_open(
    const struct store_config *config, struct store_opened *opened, char **error)
{
    (void)error;
    struct store *s = mem_new(&store_mem, config, opened);
    /* Nothing is persisted; but leases of its last life should not be taken for those of this. */
    struct mem *m = (struct mem *)s;
    m->boot += config->now_ms / BOOT_MS % BOOTS;
    opened->boot = m->boot;
    return s;
}

static struct store *mem_open_plain(
    const struct store_config *config, struct store_opened *opened, char **error)
{
    (void)error;
    return mem_new(&store_mem_plain, config, opened);
}

void store_mem_restart(struct store *s, uint64_t now_ms, struct store_opened *opened)
{
    struct mem *m = (struct mem *)s;
    assert(m->ops == &store_mem_plain);
    mem_finish_expire(m, now_ms);
    reply_queue_free(&m->replies);
    store_arena_free(&m->opened);
    m->boot++;
    tell_opened(m, opened);
}

/* ---- closing ---- */

static void free_tasks(struct mem *m)
{
    size_t place = 0;
    struct idmap_cell cell;
    while (idmap_next(&m->items, &place, &cell))
        mem_item_free(m, (struct mem_item *)(uintptr_t)cell.value);
    for (struct tree_node *n; (n = tree_first(&m->dead));) {
        tree_remove(&m->dead, n);
        mem_item_free(m, container_of(n, struct mem_item, place));
    }
    mem_finish_expire(m, UINT64_MAX);
    assert(m->bytes == 0);
}

static void mem_close(struct store *s)
{
    struct mem *m = (struct mem *)s;
    size_t place = 0;
    struct strmap_cell cell;
    free_tasks(m);
    while (strmap_next(&m->uniques, &place, &cell)) {
        free((void *)(uintptr_t)((struct mem_unique *)cell.value)->key.data);
        free(cell.value);
    }
    for (place = 0; strmap_next(&m->queues, &place, &cell);) {
        free((void *)(uintptr_t)((struct mem_queue *)cell.value)->name.data);
        free(cell.value);
    }
    idmap_free(&m->items);
    idmap_free(&m->finishes);
    strmap_free(&m->queues);
    strmap_free(&m->uniques);
    free(m->worker_ids);
    reply_queue_free(&m->replies);
    store_arena_free(&m->opened);
    free(m);
}

const struct store_ops store_mem = {
    .name = "memory",
    .open = mem_open,
    .capabilities = mem_capabilities,
    .submit = mem_submit,
    .poll = mem_poll,
    .event_fd = mem_event_fd,
    .usage = mem_usage,
    .close = mem_close,
};

const struct store_ops store_mem_plain = {
    .name = "memory, plain",
    .open = mem_open_plain,
    .capabilities = mem_capabilities,
    .submit = mem_submit,
    .poll = mem_poll,
    .event_fd = mem_event_fd,
    .usage = mem_usage,
    .close = mem_close,
};
