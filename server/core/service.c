/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long attempts at a queue's tasks take, in powers of two: what prefetch puts ahead of a slot,
 * and what is packed, goes by it. A group has the same of what is new to it.
 */
#include <assert.h>
#include "server/core/verbs.h"

#define SERVICE_ENOUGH  20u   /* attempts before prefetch is computed */
#define SERVICE_SURE    200u  /* attempts before the 99th percentile means anything */
#define SERVICE_DECAY   1024u /* attempts after which the old ones count half */
#define SERVICE_REFRESH 64u   /* attempts between two looks at the quantile */
#define SERVICE_UNKNOWN UINT32_C(1000000000) /* ns: nothing is put behind such a task */

/* The upper bound of the bucket in which the percentile lies. */
static uint64_t service_percentile(const struct service *s, unsigned percent)
{
    uint64_t below = 0, wanted = ((uint64_t)s->seen * percent + 99) / 100;
    unsigned bucket = 0;
    assert(s->seen > 0);
    for (; bucket < SERVICE_BUCKETS - 1; bucket++) {
        below += s->buckets[bucket];
        if (below >= wanted)
            break;
    }
    return (UINT64_C(1) << (bucket + 1)) - 1;
}

static void service_refresh(struct service *s)
{
    s->p95_ns = service_percentile(s, 95);
    s->p99_ns = service_percentile(s, 99);
    s->fresh = 0;
    assert(s->p95_ns > 0 && s->p95_ns <= s->p99_ns);
}

static void service_count(struct service *s, uint64_t run_ns)
{
    assert(run_ns > 0);
    unsigned bucket = 63u - (unsigned)__builtin_clzll(run_ns);
    s->buckets[bucket < SERVICE_BUCKETS ? bucket : SERVICE_BUCKETS - 1]++;
    if (++s->seen >= SERVICE_DECAY) {
        s->seen = 0;
        for (unsigned i = 0; i < SERVICE_BUCKETS; i++)
            s->seen += s->buckets[i] /= 2;
    }
    assert(s->seen < SERVICE_DECAY);
    if (++s->fresh >= SERVICE_REFRESH || s->seen <= 2 * SERVICE_ENOUGH)
        service_refresh(s);
}

/* 0: the worker does not measure. To take that for fast would send it what it cannot start. */
void service_add(struct group *g, struct queue *q, uint64_t run_ns)
{
    if (!run_ns)
        return;
    if (g && q->service.seen < SERVICE_ENOUGH)
        service_count(&g->newcomers, run_ns);
    service_count(&q->service, run_ns);
    assert(q->service.seen > 0);
}

static uint32_t bounded(uint64_t ns)
{
    assert(ns > 0);
    return ns > SERVICE_UNKNOWN ? SERVICE_UNKNOWN : (uint32_t)ns;
}

/*
 * ns that another task of the queue will take: what prefetch puts behind others is that. Of a queue
 * that is new it is what next to no task of a new queue took longer than: where each user has a
 * queue, nearly all are new.
 */
uint32_t service_estimate(const struct group *g, const struct queue *q)
{
    assert(q->service.seen < SERVICE_DECAY);
    if (q->service.seen >= SERVICE_ENOUGH)
        return bounded(q->service.p95_ns);
    return g->newcomers.seen >= SERVICE_SURE ? bounded(g->newcomers.p99_ns) : SERVICE_UNKNOWN;
}

/* True: next to none took longer than it takes to wake somebody up for it. */
bool service_short(const struct service *s)
{
    assert(s->p99_ns >= s->p95_ns);
    return s->seen >= SERVICE_SURE && s->p99_ns <= PACK_NS;
}
