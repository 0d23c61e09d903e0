/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Swarm: most runs switch most things off, so that the rest meets each other more often. */
static void draw_faults(struct sim *sim)
{
    struct plan *p = &sim->plan;
    unsigned on = (unsigned)sim_below(sim, 60);
#define X(name) p->name = sim_chance(sim, on) ? (unsigned)sim_between(sim, 1, 100) : 0;
    SIM_FAULTS(X)
#undef X
    p->fault_every_ms = (unsigned)sim_between(sim, 5, 1500);
}

static void draw_chances(struct sim *sim)
{
    struct plan *p = &sim->plan;
    unsigned on = (unsigned)sim_below(sim, 60);
#define X(name) p->name = sim_chance(sim, on) ? (unsigned)sim_between(sim, 1, 40) : 0;
    SIM_CHANCES(X)
#undef X
    p->poison = p->poison ? 1 + p->poison / 8 : 0;
    p->big = p->big ? 1 + p->big / 4 : 0;
    p->torn = p->torn ? 1 + p->torn / 8 : 0; /* drawn at each frame that ends between two */
}

/* Now and then results in pieces are what it is about: many, slow ones, and what cuts them. */
static void draw_pieces(struct sim *sim)
{
    struct plan *p = &sim->plan;
    if (sim_chance(sim, 15)) {
        p->pieces = (unsigned)sim_between(sim, 20, 100);
        p->torn = (unsigned)sim_between(sim, 5, 40);
        p->slow_ns = sim_between(sim, 1, 20000) * US;
        unsigned *cuts[] = {
            &p->stall, &p->lane_cut, &p->answers_cut, &p->death, &p->silence, &p->restart};
        for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++)
            *cuts[i] = sim_chance(sim, 50) ? 100 : *cuts[i];
    }
    p->part_bytes = p->pieces ? sim_between(sim, 16, 1000) : 0;
}

/* Now and then it is about workers that are not what they should be. */
static void draw_workers(struct sim *sim)
{
    struct plan *p = &sim->plan;
    if (sim_chance(sim, 8))
        p->lies = (unsigned)sim_between(sim, 5, 60);
    if (sim_chance(sim, 8))
        p->endless = (unsigned)sim_between(sim, 10, 60);
}

/* Or about what is asked for meanwhile: of what fails, and of a store that has its own troubles. */
static void draw_odd(struct sim *sim)
{
    struct plan *p = &sim->plan;
    if (!sim_chance(sim, 10))
        return;
    p->odd = 100;
    p->fails = p->fails ? p->fails : (unsigned)sim_between(sim, 0, 60);
    unsigned *more[] = {&p->replay, &p->drop, &p->store_full, &p->store_slow, &p->store_down,
        &p->store_doubt, &p->client_cut, &p->restart};
    for (size_t i = 0; i < sizeof more / sizeof *more; i++)
        *more[i] = sim_chance(sim, 25) ? 40 : *more[i];
}

static void draw_sizes(struct sim *sim)
{
    struct plan *p = &sim->plan;
    p->workers = (unsigned)sim_between(sim, 1, SIM_MAX_WORKERS - 1);
    p->clients = (unsigned)sim_between(sim, 1, SIM_MAX_CLIENTS);
    p->subs = (unsigned)sim_between(sim, 5, sim_chance(sim, 10) ? SIM_MAX_SUBS : 80);
    p->active_ms = (unsigned)sim_between(sim, 50, sim_chance(sim, 20) ? 20000 : 3000);
    p->delay_ns = sim_between(sim, 20, 2000) * US;
    p->commit_ns = sim_between(sim, 50, sim_chance(sim, 20) ? 100000 : 3000) * US;
    p->run_ns = sim_between(sim, 1, sim_chance(sim, 30) ? 500000 : 5000) * US;
    p->window = sim_chance(sim, 50) ? (uint32_t)sim_between(sim, 2, 30) : 0;
    p->lane_bytes = sim_chance(sim, 30) ? sim_between(sim, 100, 20000) : 0;
    p->max_prefetch = sim_chance(sim, 50) ? (uint32_t)sim_between(sim, 1, 10) : 1000;
    for (unsigned i = 0; i < SIM_QUEUES; i++) {
        p->durability[i] = DURABILITY_SYNC;
        if (sim_chance(sim, 25))
            p->durability[i] = sim_chance(sim, 60) ? DURABILITY_ASYNC : DURABILITY_MEMORY;
    }
}

/* What may let a task run twice, although nobody is at fault. */
static bool may_repeat(const struct plan *p)
{
    return p->death || p->pause || p->silence || p->lane_cut || p->server_pause || p->join_lost ||
           p->join_repeated || p->poison || p->hangs || p->timeout || p->drain || p->stall;
}

static bool is_listed(const char *list, const char *name)
{
    size_t size = strlen(name);
    for (const char *at = list; (at = strstr(at, name)); at++) {
        if ((at == list || at[-1] == ' ') && (at[size] == ' ' || at[size] == '\0'))
            return true;
    }
    return strcmp(list, "all") == 0;
}

/* WITHOUT="death purge ...": switched off, to find out what a failure depends on. */
static void switch_off(struct plan *p)
{
    const char *without = getenv("WITHOUT");
    if (!without)
        return;
#define X(name)                                                                                    \
    if (is_listed(without, #name))                                                                 \
        p->name = 0;
    SIM_FAULTS(X)
    SIM_CHANCES(X)
#undef X
}

void plan_draw(struct sim *sim)
{
    struct plan *p = &sim->plan;
    *p = (struct plan){0};
    draw_sizes(sim);
    p->raw = sim_chance(sim, 50);
    p->calm = sim_chance(sim, 10);
    if (!p->calm) {
        draw_faults(sim);
        draw_chances(sim);
        draw_pieces(sim);
        draw_workers(sim);
        draw_odd(sim);
    } else {
        p->priority = sim_chance(sim, 50) ? 50 : 0;
        p->big = sim_chance(sim, 20) ? 3 : 0;
    }
    switch_off(p);
    p->strict = !may_repeat(p);
}

void plan_print(const struct sim *sim)
{
    const struct plan *p = &sim->plan;
    fprintf(stderr, "sim: plan: %u workers, %u clients, %u tasks in %u ms, a fault each %u ms\n",
        p->workers, p->clients, p->subs, p->active_ms, p->fault_every_ms);
    fprintf(stderr,
        "sim: plan: delay %.3f ms, commit %.3f ms, run %.3f ms, window %u, "
        "lane bytes %zu, prefetch %u, durability %d %d %d %d%s%s%s\n",
        (double)p->delay_ns / 1e6, (double)p->commit_ns / 1e6, (double)p->run_ns / 1e6, p->window,
        p->lane_bytes, p->max_prefetch, p->durability[0], p->durability[1], p->durability[2],
        p->durability[3], p->calm ? ", calm" : "", p->strict ? ", strict" : "",
        p->raw ? ", raw" : "");
    fprintf(stderr, "sim: plan:");
#define X(name)                                                                                    \
    if (p->name)                                                                                   \
        fprintf(stderr, " " #name " %u", p->name);
    SIM_FAULTS(X)
    SIM_CHANCES(X)
#undef X
    fprintf(stderr, "\n");
}
