/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* splitmix64: small, good enough, the same everywhere. */
uint64_t sim_random(struct sim *sim)
{
    uint64_t z = (sim->random += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t sim_below(struct sim *sim, uint64_t bound)
{
    return bound ? sim_random(sim) % bound : 0;
}

bool sim_chance(struct sim *sim, unsigned percent)
{
    return percent && sim_below(sim, 100) < percent;
}

uint64_t sim_between(struct sim *sim, uint64_t low, uint64_t high)
{
    return low + sim_below(sim, high - low + 1);
}

static bool earlier(const struct event *a, const struct event *b)
{
    return a->at != b->at ? a->at < b->at : a->tie < b->tie;
}

static void heap_add(struct sim *sim, struct event *e)
{
    if (sim->heap_count == sim->heap_room) {
        sim->heap_room = sim->heap_room ? sim->heap_room * 2 : 256;
        sim->heap = realloc(sim->heap, sim->heap_room * sizeof *sim->heap);
    }
    size_t at = sim->heap_count++;
    while (at && earlier(e, sim->heap[(at - 1) / 2])) {
        sim->heap[at] = sim->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    sim->heap[at] = e;
}

static struct event *heap_take(struct sim *sim)
{
    struct event *first = sim->heap[0], *last = sim->heap[--sim->heap_count];
    size_t at = 0, child;
    while ((child = 2 * at + 1) < sim->heap_count) {
        if (child + 1 < sim->heap_count && earlier(sim->heap[child + 1], sim->heap[child]))
            child++;
        if (!earlier(sim->heap[child], last))
            break;
        sim->heap[at] = sim->heap[child];
        at = child;
    }
    sim->heap[at] = last;
    return first;
}

static struct event *event_new(struct sim *sim, uint64_t at, int node, apply_fn *apply)
{
    struct event *e = calloc(1, sizeof *e);
    if (!e)
        abort();
    e->at = at;
    e->tie = ++sim->tie;
    e->node = node;
    e->apply = apply;
    return e;
}

struct event *sim_after(struct sim *sim, uint64_t delay, apply_fn *apply, uint64_t a, uint64_t b)
{
    struct event *e = event_new(sim, sim->now.mono_ns + delay, NODE_WORLD, apply);
    e->a = a;
    e->b = b;
    heap_add(sim, e);
    return e;
}

struct event *sim_send(
    struct sim *sim, int node, struct link *link, uint64_t delay, apply_fn *apply)
{
    uint64_t at = sim->now.mono_ns + delay;
    if (link) {
        at = at < link->last ? link->last : at;
        link->last = at;
    }
    struct event *e = event_new(sim, at, node, apply);
    e->life = node == NODE_SERVER ? sim->server.life : sim->nodes[node].life;
    e->link = link;
    e->epoch = link ? link->epoch : 0;
    heap_add(sim, e);
    return e;
}

void event_frame(struct event *e, const struct buf *bytes)
{
    e->frame = malloc(bytes->size + 1);
    memcpy(e->frame, bytes->data, bytes->size);
    e->frame_size = bytes->size;
}

void event_free(struct event *e)
{
    if (e->more && e->drop)
        e->drop(e->more);
    free(e->frame);
    free(e);
}

void agenda_free(struct sim *sim)
{
    for (size_t i = 0; i < sim->heap_count; i++)
        event_free(sim->heap[i]);
    free(sim->heap);
}

void link_cut(struct link *link)
{
    link->epoch++;
    link->last = 0;
}

static bool on_link(const struct event *e, const struct link *link)
{
    return e->link == link && e->epoch == link->epoch;
}

static int by_time(const void *a, const void *b)
{
    return earlier(*(struct event *const *)a, *(struct event *const *)b) ? -1 : 1;
}

void link_hurry(struct sim *sim, struct link *link, uint64_t gap)
{
    struct event **heap = sim->heap;
    size_t count = sim->heap_count, moved = 0;
    struct event **events = malloc((count + 1) * sizeof(struct event *));
    if (!events)
        abort();
    sim->heap_count = 0; /* the heap is built anew, in its own place */
    for (size_t i = 0; i < count; i++) {
        if (on_link(heap[i], link))
            events[moved++] = heap[i];
        else
            heap_add(sim, heap[i]);
    }
    qsort(events, moved, sizeof(struct event *), by_time);
    for (size_t i = 0; i < moved; i++) {
        uint64_t from = i ? link->last : sim->now.mono_ns;
        link->last = events[i]->at = from + sim_below(sim, gap);
        events[i]->tie = ++sim->tie;
        heap_add(sim, events[i]);
    }
    free(events);
}

void link_leave(struct sim *sim, struct link *link)
{
    if (sim_chance(sim, 50))
        link_hurry(sim, link, sim_below(sim, 20 * MS));
    for (size_t i = 0; i < sim->heap_count && !link->silent; i++) {
        if (on_link(sim->heap[i], link))
            sim->heap[i]->link = NULL;
    }
    link_cut(link);
}

static bool arrives(const struct sim *sim, const struct event *e)
{
    if (e->link && (e->link->epoch != e->epoch || e->link->silent))
        return false;
    if (e->node == NODE_SERVER)
        return sim->server.up && sim->server.life == e->life;
    return sim->nodes[e->node].session && sim->nodes[e->node].life == e->life;
}

bool sim_run_next(struct sim *sim)
{
    if (!sim->heap_count)
        return false;
    struct event *e = heap_take(sim);
    sim->step++;
    sim->now.mono_ns = e->at;
    sim->now.wall_ms =
        (uint64_t)((int64_t)(UINT64_C(1700000000000) + e->at / MS) + sim->wall_offset);
    if (sim->now.wall_ms > sim->wall_most)
        sim->wall_most = sim->now.wall_ms;
    if (e->node == NODE_WORLD) {
        e->apply(sim, e);
        event_free(e);
    } else if (!arrives(sim, e)) {
        event_free(e);
    } else if (e->node == NODE_SERVER) {
        server_take(sim, e);
    } else {
        node_take(sim, e);
    }
    return true;
}

/* ---- the trace ---- */

void sim_trace(struct sim *sim, const char *format, ...)
{
    char *line = sim->ring[sim->ring_at++ % 50];
    size_t room = sizeof sim->ring[0];
    va_list args;
    unsigned long long us = sim->now.mono_ns / US;
    int used = snprintf(line, room, "%8llu %5llu.%06llu  ", (unsigned long long)sim->step,
        us / 1000000, us % 1000000);
    va_start(args, format);
    vsnprintf(line + used, room - (size_t)used, format, args);
    va_end(args);
    if (sim->verbose)
        puts(line);
}

void sim_report(struct sim *sim)
{
    if (!sim->verbose) {
        for (uint64_t i = sim->ring_at > 50 ? sim->ring_at - 50 : 0; i < sim->ring_at; i++)
            fprintf(stderr, "%s\n", sim->ring[i % 50]);
    }
    plan_print(sim);
    fprintf(stderr, "sim: seed %llu failed at step %llu; replay: make sim SEED=%llu\n",
        (unsigned long long)sim->seed, (unsigned long long)sim->step,
        (unsigned long long)sim->seed);
}

void sim_fail(struct sim *sim, const char *format, ...)
{
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    sim_trace(sim, "CHECK FAILED: %s", text);
    fprintf(stderr, "sim: %s\n", text);
    abort();
}
