/* SPDX-License-Identifier: Apache-2.0 */
/* Unique keys: one holder at a time, and no key that is held by what has ended. */
#include "tests/sim/sim.h"

/* The key of a task without a window is held until it ends, else until its time has come. */
static uint64_t window_end(const struct sub *sub)
{
    return sub->options.unique_ms ? sub->sent_ms + sub->options.unique_ms : 0;
}

static bool same_key(const struct sub *a, const struct sub *b)
{
    return a->queue == b->queue && a->key[0] &&
           slice_equal(a->options.unique_key, b->options.unique_key);
}

static bool holds_now(const struct sim *sim, const struct sub *sub)
{
    if (sub->revived)
        return false;           /* it has it if it was free */
    if (sub->options.unique_ms) /* a purge frees the key of what has ended, too */
        return !sim->plan.clock && !sub->purging && window_end(sub) > sim->now.wall_ms;
    /* What ended in memory only, and was told to nobody, leaves no trace. */
    return sim->plan.durability[sub->queue] == DURABILITY_SYNC && !sub->status &&
           !truth_was_purged(sim, sub) && !disk_ended(&sim->disk, sub->id);
}

void keys_accepted(struct sim *sim, const struct sub *sub)
{
    if (!sub->key[0] || sim->plan.durability[sub->queue] == DURABILITY_ASYNC || sub->excused)
        return;
    for (size_t i = 0; i < sim->sub_count; i++) {
        const struct sub *other = &sim->subs[i];
        if (other == sub || !other->accepted || other->excused || !same_key(sub, other))
            continue;
        SIM_CHECK(sim, !holds_now(sim, other),
            "task %llu was accepted, although task %llu has its key", (unsigned long long)sub->id,
            (unsigned long long)other->id);
    }
}

/* Whoever was named as the holder was it when the submission came. */
void keys_refused(struct sim *sim, const struct sub *sub, uint64_t holder)
{
    const struct sub *other = truth_by_id(sim, holder);
    SIM_CHECK(sim, other && same_key(sub, other), "a key is held by task %llu, which never had it",
        (unsigned long long)holder);
    /* A finish of an async queue is told before the store has it, and the key. */
    if (other->excused || other->revived || sim->plan.durability[other->queue] == DURABILITY_ASYNC)
        return;
    bool over = other->options.unique_ms ? !sim->plan.clock && window_end(other) < sub->sent_ms
                                         : other->status && other->ended_ns < sub->sent_ns;
    SIM_CHECK(sim, !over, "a key is still held by task %llu, which has ended",
        (unsigned long long)holder);
}
