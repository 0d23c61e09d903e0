/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commit thread: takes batches, decides when a group is committed, and what is done between:
 * the journal goes to the tables, expired results and resident pages go, a failed store comes up.
 */
#include <errno.h>
#include <malloc.h>
#include <pushrod/error.h>
#include "common/clock.h"
#include "server/store/lmdb.h"

#define MS            UINT64_C(1000000)
#define GROUP_NS      (MS / 2)   /* between commits, while more comes */
#define SETTLE_NS     (4 * MS)   /* without a group: nobody waits for rows that go to the tables */
#define QUIET_NS      (MS / 20)  /* company that has not come for so long does not come */
#define ASYNC_NS      (20 * MS)  /* an async operation waits this long; 50 is promised */
#define ROOM_NS       (200 * MS) /* between looks at the disk */
#define ROOM_BYTES    (8u << 20) /* the same; of a large disk 64 MiB are kept back */
#define TRIM_KEEP     (4u << 20) /* bytes of free memory that stay at hand */
#define SWEEP_NS      (50 * MS)  /* between looks at expired results and resident pages */
#define IDLE_NS       (60000 * MS) /* the longest sleep: results expire meanwhile */
#define MISFIT_NS     (60000 * MS) /* until what did not fit is tried again, whatever is left */
#define STOP_TRIES    3            /* commits that may fail before a store is closed anyhow */
#define BUSY_OPS      64           /* a group of more makes the next one wait for company */
#define GROUP_BYTES   ((uint64_t)4 << 20) /* more do not wait */
#define APPLY_BUSY    500                 /* entries with a group's commit */
#define APPLY_IDLE    2000                /* entries with a commit of their own */
#define APPLY_PRESSED 20000               /* the index is too large */

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* A store that is only full goes on with all that makes room. */
static bool broken(const struct lmdb *l)
{
    return l->down && l->down != PUSHROD_E_STORE_FULL;
}

/* When the pending group is to be committed. */
static uint64_t commit_due(const struct lmdb *l)
{
    if (!group_waits(l))
        return LMDB_NEVER;
    if (l->down && !l->pending_sync)
        return l->room_ns + ROOM_NS; /* what was answered waits for better times */
    if (l->group_bytes > GROUP_BYTES || l->error)
        return 0;
    if (!l->pending_sync)
        return l->pending_since_ns + ASYNC_NS;
    return l->busy ? least(l->commit_ns + GROUP_NS, l->heard_ns + QUIET_NS) : 0;
}

/* When rows go to the tables without company: not while a group is likely to come and take some. */
static uint64_t settle_due(const struct lmdb *l)
{
    if (broken(l) || group_waits(l) || !(l->index.applying || l->garbage_count))
        return LMDB_NEVER;
    if (l->down)
        return l->failed_ns + ROOM_NS; /* it may fail again, and makes room if it does not */
    return l->busy ? l->commit_ns + SETTLE_NS : 0;
}

/* When what is fresh begins to age. What ended makes room only once the tables know: a full store
 * does not wait for long. */
static uint64_t rotate_due(const struct lmdb *l)
{
    const struct index *x = &l->index;
    if (x->applying || x->fresh_since_ns == LMDB_NEVER || group_waits(l))
        return LMDB_NEVER;
    uint64_t settle_ns = l->down ? least(l->settle_ns, ROOM_NS) : l->settle_ns;
    return x->bytes > l->index_bound ? 0 : x->fresh_since_ns + settle_ns;
}

/* When expired results and resident pages are looked at, if there was a commit since. */
static uint64_t sweep_due(const struct lmdb *l)
{
    if (broken(l) || group_waits(l))
        return LMDB_NEVER;
    return l->swept_ns + SWEEP_NS;
}

/* Until when there is nothing to do, if nobody asks for anything. What is overdue, but has to wait
 * for something else, is no reason to wake up. */
static uint64_t sleep_until(const struct lmdb *l, uint64_t now_ns)
{
    uint64_t until = least(now_ns + IDLE_NS, least(commit_due(l), settle_due(l)));
    until = least(until, rotate_due(l));
    if (l->down && !group_waits(l))
        until = least(until, l->room_ns + ROOM_NS);
    if (l->commits != l->swept_commits)
        until = least(until, sweep_due(l));
    return until;
}

static struct batch *take(struct lmdb *l, uint64_t until_ns, bool *stop)
{
    struct timespec at = clock_timespec(until_ns);
    pthread_mutex_lock(&l->lock);
    int rc = 0;
    while (!l->incoming && !l->stop && rc != ETIMEDOUT)
        rc = pthread_cond_timedwait(&l->wake, &l->lock, &at);
    struct batch *taken = l->incoming;
    l->incoming = l->incoming_last = NULL;
    *stop = l->stop;
    pthread_mutex_unlock(&l->lock);
    return taken;
}

static size_t apply_share(const struct lmdb *l)
{
    if (l->index.bytes > 2 * l->index_bound)
        return APPLY_PRESSED;
    return group_waits(l) ? APPLY_BUSY : APPLY_IDLE;
}

/* What did not fit may, once there is a good part of it more. */
static void look_for_misfits(struct lmdb *l, uint64_t now_ns)
{
    if (l->misfit == UINT64_MAX)
        return;
    if (now_ns >= l->failed_ns + MISFIT_NS || lmdb_left(l) >= l->misfit_left + l->misfit / 4)
        l->misfit = UINT64_MAX;
}

/* Is there room (again)? A store that was down proves itself with a commit. */
static void look_for_room(struct lmdb *l, uint64_t now_ns)
{
    /* A part of the reserve, whatever is smaller: the store's or the disk's. */
    uint64_t part = l->max_bytes / 128 < ROOM_BYTES ? l->max_bytes / 128 : ROOM_BYTES;
    bool much = l->unlooked_bytes > least(part, l->spare / 2);
    if ((now_ns < l->room_ns + ROOM_NS && !much) || group_waits(l))
        return;
    l->room_ns = now_ns;
    l->unlooked_bytes = 0;
    if (!l->env && !group_reopen(l))
        return;
    if (!lmdb_begin(l))
        return;
    look_for_misfits(l, now_ns);
    if (lmdb_is_away(l) || !lmdb_room(l)) { /* what is accepted still runs */
        group_announce(l, PUSHROD_E_STORE_FULL);
        return;
    }
    if (l->down) {
        uint64_t commits = l->commits;
        meta_put(l, "probe", commits);
        group_commit(l, now_ns, 0);
        if (l->commits == commits)
            return; /* it failed: the store was opened again, and waits for the next try */
    }
    group_announce(l, 0);
}

static void sweep(struct lmdb *l, uint64_t now_ns)
{
    if (now_ns < sweep_due(l))
        return;
    l->swept_ns = now_ns;
    l->swept_commits = l->commits;
    if (!lmdb_begin(l))
        return;
    /* The asker's clock, and what went by since it was heard. */
    results_sweep(l, l->now_ms + (now_ns - l->heard_ns) / MS);
    if (l->dirty)
        group_commit(l, now_ns, 0);
    l->swept_commits = l->commits;
    lmdb_measure(l);
    lmdb_release_pages(l);
    if (l->index.fresh_since_ns == LMDB_NEVER && !l->index.applying) {
        index_rest(l);
        malloc_trim(TRIM_KEEP);
    }
}

static void step(struct lmdb *l, bool stop)
{
    uint64_t now_ns = clock_mono_ns();
    if (group_waits(l) && (stop || now_ns >= commit_due(l))) {
        l->busy = l->group_ops > BUSY_OPS;
        group_commit(l, now_ns, apply_share(l));
    } else if (now_ns >= settle_due(l)) {
        l->busy = false;
        group_commit(l, now_ns, apply_share(l));
    }
    look_for_room(l, now_ns);
    sweep(l, now_ns);
    if (now_ns >= rotate_due(l))
        journal_rotate(l);
}

void *lmdb_thread(void *store)
{
    struct lmdb *l = store;
    bool stop = false;
    unsigned tries = 0;
    while (!stop || group_waits(l)) {
        struct batch *taken = take(l, sleep_until(l, clock_mono_ns()), &stop);
        if (taken)
            group_run(l, taken);
        step(l, stop);
        if (stop && l->down && ++tries > STOP_TRIES)
            break; /* what could not be written by now never will be */
    }
    return NULL;
}
