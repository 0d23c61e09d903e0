/* SPDX-License-Identifier: Apache-2.0 */
/* Which operation is which, and the small ones: IDS, QUEUE, WORKER. */
#include "server/store/lmdb.h"

static void op_ids(struct lmdb *l, const struct item *item, struct store_event *e)
{
    e->count = item->op->limit ? item->op->limit : l->id_block;
    e->id = l->id_ceiling;
    l->id_ceiling += e->count;
    meta_put(l, "ids", l->id_ceiling);
}

static void op_queue(struct lmdb *l, const struct item *item)
{
    struct lmdb_queue *q = lmdb_queue_get(l, item->op->queue);
    q->durability = item->op->durability;
    q->paused = item->op->paused;
    lmdb_queue_touch(l, q);
}

static void op_worker(struct lmdb *l, const struct item *item)
{
    struct slice instance = item->op->instance;
    if (item->op->gone)
        table_delete(l, TABLE_WORKERS, instance.data, instance.size);
    else
        table_put(l, TABLE_WORKERS, instance.data, instance.size, (struct slice){0});
}

void op_run(struct lmdb *l, struct item *item, struct reply *r)
{
    struct store_event *e = reply_event(r, item->kind, item->token, item->id);
    switch (item->kind) {
    case STORE_APPEND:
        op_append(l, item, r, e);
        break;
    case STORE_FINISH:
        op_finish(l, item, e);
        break;
    case STORE_RESCHEDULE:
        op_reschedule(l, item, e);
        break;
    case STORE_FORGET:
        op_forget(l, item, e);
        break;
    case STORE_FETCH:
        op_fetch(l, item, r, e);
        break;
    case STORE_DUE:
        op_due(l, item, r, e);
        break;
    case STORE_LOOKUP:
        op_lookup(l, item, r, e);
        break;
    case STORE_SCAN:
        op_scan(l, item, r, e);
        break;
    case STORE_REVIVE:
        op_revive(l, item, r, e);
        break;
    case STORE_DROP:
        op_drop(l, item, r, e);
        break;
    case STORE_PURGE:
        op_purge(l, item, e);
        break;
    case STORE_IDS:
        op_ids(l, item, e);
        break;
    case STORE_QUEUE:
        op_queue(l, item);
        break;
    case STORE_WORKER:
        op_worker(l, item);
        break;
    }
}
