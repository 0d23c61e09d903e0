/* SPDX-License-Identifier: Apache-2.0 */
/* Nouns of the memory store: queues, records, unique keys, kept finishes. */
#include <stdlib.h>
#include "common/list.h"
#include "server/store/mem.h"

/* ---- queues ---- */

struct mem_queue *mem_queue_get(struct mem *m, struct slice name)
{
    struct mem_queue *q = strmap_get(&m->queues, name);
    if (q)
        return q;
    q = store_alloc(sizeof(*q));
    uint8_t *copy = store_alloc(name.size);
    memcpy(copy, name.data, name.size);
    q->name = slice_of(copy, name.size);
    if (!strmap_put(&m->queues, q->name, q))
        abort();
    return q;
}

/* ---- records ---- */

struct mem_item *mem_item_get(const struct mem *m, uint64_t id)
{
    return idmap_pointer(&m->items, id);
}

struct mem_item *mem_dead_get(const struct mem *m, uint64_t id)
{
    struct tree_node *n = tree_after(&m->dead, 0, id - 1);
    return n && n->lo == id ? container_of(n, struct mem_item, place) : NULL;
}

void mem_item_pack(struct mem *m, struct mem_item *item, const struct record *r)
{
    struct record packed = *r;
    packed.body = item->body;
    size_t size = record_packed_size(&packed);
    uint8_t *bytes = store_alloc(size);
    record_pack(bytes, &packed, item->state);
    m->bytes += size;
    m->bytes -= item->size;
    free(item->bytes);
    item->bytes = bytes;
    item->size = size;
    record_load(bytes, size, &item->record, NULL);
    if (item->body) {
        item->record.body = item->body;
        item->record.payload = body_slice(item->body);
    }
}

void mem_item_place(struct mem *m, struct mem_item *item)
{
    const struct record *r = &item->record;
    struct tree *tree = r->due_ms ? &item->queue->delayed : &item->queue->ready;
    tree_insert(tree, &item->place, 9u - r->priority, r->id);
    if (r->due_ms)
        tree_insert(&m->agenda, &item->due, agenda_moment(r->due_ms, AGENDA_DUE), r->id);
    if (r->expires_ms && !item->state.expiry_told)
        tree_insert(&m->agenda, &item->expiry, agenda_moment(r->expires_ms, AGENDA_EXPIRE), r->id);
}

void mem_item_leave(struct mem *m, struct mem_item *item)
{
    tree_remove(item->record.due_ms ? &item->queue->delayed : &item->queue->ready, &item->place);
    tree_remove(&m->agenda, &item->due);
    tree_remove(&m->agenda, &item->expiry);
}

void mem_item_free(struct mem *m, struct mem_item *item)
{
    m->bytes -= item->size + (item->body ? item->body->size : 0);
    if (item->finish)
        mem_finish_free(m, item->finish);
    body_unref(item->body);
    free(item->bytes);
    free(item);
}

bool mem_maybe_running(const struct mem *m, const struct mem_item *item)
{
    return record_maybe_running(&item->record, item->state, m->boot, item->queue->edge_at_open);
}

/* ---- unique keys ---- */

static struct slice unique_key(struct slice queue, struct slice key, uint8_t *buffer)
{
    memcpy(buffer, queue.data, queue.size);
    buffer[queue.size] = 0;
    if (key.size)
        memcpy(buffer + queue.size + 1, key.data, key.size);
    return slice_of(buffer, queue.size + 1 + key.size);
}

struct mem_unique *mem_unique_get(struct mem *m, struct slice queue, struct slice key)
{
    uint8_t *buffer = store_alloc(queue.size + key.size + 1);
    struct mem_unique *u = strmap_get(&m->uniques, unique_key(queue, key, buffer));
    free(buffer);
    return u;
}

void mem_unique_drop(struct mem *m, struct mem_unique *u)
{
    strmap_remove(&m->uniques, u->key);
    tree_remove(&m->agenda, &u->end);
    free((void *)(uintptr_t)u->key.data);
    free(u);
}

void mem_unique_take(struct mem *m, const struct record *r)
{
    struct mem_unique *u = store_alloc(sizeof(*u));
    uint8_t *bytes = store_alloc(r->queue.size + r->unique.size + 1);
    u->key = unique_key(r->queue, r->unique, bytes);
    u->id = r->id;
    u->until_ms = r->unique_ms;
    if (!strmap_put(&m->uniques, u->key, u))
        abort();
    if (u->until_ms)
        tree_insert(&m->agenda, &u->end, agenda_moment(u->until_ms, AGENDA_UNIQUE), r->id);
}

void mem_unique_release(struct mem *m, const struct record *r)
{
    if (!r->unique.data)
        return;
    struct mem_unique *u = mem_unique_get(m, r->queue, r->unique);
    if (u && u->id == r->id && u->until_ms == 0)
        mem_unique_drop(m, u);
}

/* Of the queue, those go whose holder is not there any more, or was revived without its key. */
void mem_unique_purge(struct mem *m, struct mem_queue *queue)
{
    size_t place = 0;
    size_t count = 0;
    struct strmap_cell cell;
    struct mem_unique **gone = store_alloc((m->uniques.count + 1) * sizeof(struct mem_unique *));
    while (strmap_next(&m->uniques, &place, &cell)) {
        struct mem_unique *u = cell.value;
        bool ours = u->key.size > queue->name.size && u->key.data[queue->name.size] == 0 &&
                    memcmp(u->key.data, queue->name.data, queue->name.size) == 0;
        const struct mem_item *holder = mem_item_get(m, u->id);
        if (ours && !(holder && holder->record.unique.data))
            gone[count++] = u;
    }
    for (size_t i = 0; i < count; i++)
        mem_unique_drop(m, gone[i]);
    free(gone);
}

/* ---- kept finishes ---- */

struct mem_finish *mem_finish_new(struct mem *m, const struct finish *f)
{
    struct mem_finish *kept = store_alloc(sizeof(*kept));
    kept->size = finish_packed_size(f);
    kept->bytes = store_alloc(kept->size);
    finish_pack(kept->bytes, f);
    finish_load(kept->bytes, kept->size, &kept->finish);
    kept->body = body_ref(f->body);
    m->bytes += kept->size + (kept->body ? kept->body->size : 0);
    return kept;
}

void mem_finish_free(struct mem *m, struct mem_finish *f)
{
    m->bytes -= f->size + (f->body ? f->body->size : 0);
    body_unref(f->body);
    free(f->bytes);
    free(f);
}

void mem_finish_keep(struct mem *m, const struct finish *f)
{
    struct mem_finish *kept = mem_finish_new(m, f);
    if (!idmap_put(&m->finishes, f->id, (uintptr_t)kept))
        abort();
    tree_insert(&m->kept, &kept->expiry, f->keep_until_ms, f->id);
}

void mem_finish_drop(struct mem *m, uint64_t id)
{
    struct mem_finish *f = idmap_pointer(&m->finishes, id);
    if (!f)
        return;
    idmap_remove(&m->finishes, id);
    tree_remove(&m->kept, &f->expiry);
    mem_finish_free(m, f);
}

void mem_finish_expire(struct mem *m, uint64_t now_ms)
{
    for (struct tree_node *n; (n = tree_first(&m->kept)) && n->hi <= now_ms;)
        mem_finish_drop(m, n->lo);
}
