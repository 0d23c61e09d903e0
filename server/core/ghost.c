/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attempts that a worker was given, that are its no more, and that it has not answered: fenced ones
 * (ghosts, each of which still takes a slot), and answers that it said at JOIN it holds (claims). A
 * DONE counts from these and from the current attempt, and from nobody else. They outlive the
 * session for a while, as its answers do.
 */
#include <assert.h>
#include <stdlib.h>
#include "server/core/verbs.h"

#define DEPARTED_KEEP (10000 * MS) /* answers of a session that is over may come for so long */
#define DEPARTED_MOST (1u << 18)   /* attempts of all such sessions: whoever joins makes one */

/*
 * What was fenced may still lie on the lane, and its bytes with it: the task leaves them here. No
 * memory: its slot is free too early, and what it answers counts for nothing.
 */
void worker_ghost(const struct core *c, struct worker *w, const struct task *t)
{
    assert(t->worker == w && t->lease);
    if (!idmap_put(&w->ghosts, t->lease, t->record.id) || !t->in_flight)
        return;
    struct credit *credit = &w->credits[task_credit(c, t)];
    credit->bytes += t->record.payload.size;
    credit->ghosts += t->record.payload.size;
}

static void credit_read(struct credit *credit)
{
    assert(credit->bytes >= credit->ghosts);
    credit->bytes -= credit->ghosts;
    credit->ghosts = 0;
}

/* The last one was answered, and so its lane has been read behind them all. */
static void ghosts_read(struct core *c, struct worker *w)
{
    assert(w->ghosts.count == 0);
    for (int kind = 0; kind < CREDITS; kind++)
        credit_read(&w->credits[kind]);
    if (w->outstanding_count == 0)
        w->alone = false;
    if (w->room != ROOM_NONE)
        group_touch(c, w->group);
}

bool worker_owes(const struct worker *w, uint64_t lease, uint64_t id)
{
    uint64_t of;
    assert(w->id != 0);
    return (idmap_get(&w->ghosts, lease, &of) || idmap_get(&w->claims, lease, &of)) && of == id;
}

/* A fenced attempt has ended at last: its slot is free. */
void worker_answered(struct core *c, struct worker *w, uint64_t lease, uint64_t id)
{
    assert(w->state != WORKER_OVER);
    if (!worker_owes(w, lease, id))
        return;
    if (!idmap_remove(&w->ghosts, lease)) {
        idmap_remove(&w->claims, lease);
        return;
    }
    if (w->ghosts.count == 0)
        ghosts_read(c, w);
    worker_room(c, w);
}

/* ---- results of tasks that have gone to the store meanwhile ---- */

/* Its result, or the whole of which it is the last piece. False: there is none. */
static bool late_result(
    const struct core *c, struct worker *w, const struct answer *a, struct body **result)
{
    assert(a->kind == MSG_TASK_DONE);
    *result = NULL;
    if (pieces_came(w, a->lease))
        return pieces_take(w, a->lease, a->data, result) == 0;
    if (a->data.size == 0)
        return true;
    *result = a->data.size <= c->config.max_result ? body_copy(a->data.data, a->data.size) : NULL;
    return *result;
}

/* The task is looked up, for the first DONE wins (answer_looked_up()). No memory: it runs again. */
void worker_done_late(struct core *c, struct worker *w, const struct answer *a)
{
    assert(worker_owes(w, a->lease, a->id));
    struct body *result;
    if (c->bypass || !late_result(c, w, a, &result))
        return;
    request_ask(c, STORE_LOOKUP, a->id,
        (struct request){.kind = REQUEST_DONE, .result = result, .run_ns = a->run_ns});
}

/* ---- sessions that are over ---- */

/* Half of the answers of a killed worker with large results come after its connection went down. */
void worker_depart(struct core *c, struct worker *w)
{
    assert(w->state == WORKER_OVER);
    list_remove(&w->in_core);
    if (w->ghosts.count == 0) {
        worker_free(w);
        return;
    }
    idmap_free(&w->claims); /* only a process that lives has those, and it joins again */
    c->departed_ghosts += w->ghosts.count;
    w->deadline_ns = c->now.mono_ns + DEPARTED_KEEP;
    list_push_back(&c->departed, &w->in_core);
}

struct worker *worker_departed(const struct core *c, uint64_t id, uint64_t session)
{
    const struct list *lists[] = {&c->workers_over, &c->departed};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        for (struct list *it = lists[i]->next; it != lists[i]; it = it->next) {
            struct worker *w = container_of(it, struct worker, in_core);
            assert(w->state == WORKER_OVER);
            if (w->id == id && w->session == session)
                return w;
        }
    }
    return NULL;
}

void worker_forget(struct core *c)
{
    for (struct list *it; (it = list_first(&c->departed));) {
        struct worker *w = container_of(it, struct worker, in_core);
        assert(w->state == WORKER_OVER);
        if (w->deadline_ns > c->now.mono_ns && c->departed_ghosts <= DEPARTED_MOST)
            return;
        c->departed_ghosts -= w->ghosts.count;
        list_remove(it);
        worker_free(w);
    }
}
