/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulation: SEEDS=n runs seeds FIRST (1) to FIRST+n-1; SEED=n replays one with its trace.
 * WITHOUT="fault ..." (or all) switches faults off.
 */
#include "tests/sim/sim.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* After the faults have ended, everything must end within this (retries and backoff included). */
#define PATIENCE_NS (UINT64_C(900000) * MS)
/* A run that takes more steps than this goes round in circles. */
#define STEP_LIMIT 3000000

static struct sim *current; /* for the handler of SIGABRT: an assertion in the core failed */

static void on_abort(int signal)
{
    (void)signal;
    if (current)
        sim_report(current);
    current = NULL;
    _exit(1);
}

static void draw_worker(struct sim *sim, int node)
{
    static const char *const patterns[][2] = {
        {"*", NULL}, {"mail.*", NULL}, {"mail.in", "digest"}, {"mail.in", "slow"}};
    struct node *n = &sim->nodes[node];
    size_t which = node ? sim_below(sim, 4) : 0; /* the first one serves all */
    snprintf(n->name, sizeof n->name, "w%u", (unsigned)node % 1000);
    n->queues[0] = patterns[which][0];
    n->queues[1] = patterns[which][1];
    n->queue_count = n->queues[1] ? 2 : 1;
    n->slots = (uint32_t)sim_between(sim, 1, 4);
    n->max_prefetch = sim->plan.max_prefetch;
    n->liar = sim->plan.lies && sim_chance(sim, 50);
    n->ahead = sim_chance(sim, 30) ? (uint32_t)sim_between(sim, 1, 6) : 0;
    sim_after(sim, sim_below(sim, 100 * MS), node_on_restart, (uint64_t)node, 0);
}

static void run_until_settled(struct sim *sim)
{
    uint64_t active = sim->now.mono_ns + (uint64_t)sim->plan.active_ms * MS;
    while (sim->now.mono_ns < active && sim_run_next(sim))
        SIM_CHECK(sim, sim->step < STEP_LIMIT, "no end of steps");
    faults_end(sim);
    uint64_t end = sim->now.mono_ns + PATIENCE_NS;
    uint64_t look = 0;
    while (sim->now.mono_ns < end && sim_run_next(sim)) {
        SIM_CHECK(sim, sim->step < STEP_LIMIT, "no end of steps");
        if (sim->step >= look && sim->now.mono_ns - active > 300 * MS) {
            if (truth_settled(sim) && !server_left(sim))
                break;
            look = sim->step + 50;
        }
    }
    truth_final(sim);
    const char *left = server_left(sim);
    SIM_CHECK(sim, !left, "all has ended, but for %s", left);
}

static void sim_run(struct sim *sim, uint64_t seed)
{
    *sim = (struct sim){.seed = seed, .random = seed, .verbose = sim->verbose};
    sim->next_number = 1;
    plan_draw(sim);
    if (sim->verbose)
        plan_print(sim);
    sim->now = (struct now){1000 * MS, UINT64_C(1700000001000)};
    disk_init(sim);
    server_start(sim);
    for (int i = 0; i < (int)sim->plan.workers; i++)
        draw_worker(sim, i);
    for (int i = 0; i < (int)sim->plan.clients; i++)
        client_start(sim, i);
    faults_start(sim);
    run_until_settled(sim);
    sim->totals.steps = sim->step;
    agenda_free(sim);
    for (int i = 0; i < SIM_MAX_WORKERS; i++)
        node_free(sim, i);
    server_free(sim);
    disk_free(sim);
    idmap_free(&sim->by_id);
    idmap_free(&sim->waits);
    idmap_free(&sim->told);
}

static uint64_t number_from(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void add_totals(struct totals *all, const struct sim *sim)
{
    const struct totals *t = &sim->totals;
    all->steps += t->steps;
    all->ticks += t->ticks;
    all->accepted += t->accepted;
    all->executed += t->executed;
    all->repeated += t->repeated;
    all->told += t->told;
    all->restarts += t->restarts;
    all->deaths += t->deaths;
    all->pieced += t->pieced;
    all->torn += t->torn;
    all->met += t->met;
    all->lies += t->lies;
    all->endless += t->endless;
    all->calm += sim->plan.calm;
    all->seeds++;
}

int main(void)
{
    static struct sim sim;
    struct totals all = {0};
    uint64_t one = number_from("SEED", 0);
    uint64_t first = one ? one : number_from("FIRST", 1);
    uint64_t count = one ? 1 : number_from("SEEDS", 200);
    sim.verbose = one != 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    double begin = seconds();
    signal(SIGABRT, on_abort);

    for (uint64_t seed = first; seed < first + count; seed++) {
        current = &sim;
        sim_run(&sim, seed);
        add_totals(&all, &sim);
    }
    current = NULL;
    printf("sim: %llu seeds (%llu calm), %llu steps, %llu server ticks, %.1f s\n",
        (unsigned long long)all.seeds, (unsigned long long)all.calm, (unsigned long long)all.steps,
        (unsigned long long)all.ticks, seconds() - begin);
    printf("sim: %llu tasks accepted, 0 lost, %llu finishes told, 0 twice; %llu executions, "
           "%llu repeated; %llu worker deaths, %llu server starts\n",
        (unsigned long long)all.accepted, (unsigned long long)all.told,
        (unsigned long long)all.executed, (unsigned long long)all.repeated,
        (unsigned long long)all.deaths, (unsigned long long)all.restarts);
    printf("sim: %llu results in pieces, %llu faults between two, %llu times two results met\n",
        (unsigned long long)all.pieced, (unsigned long long)all.torn, (unsigned long long)all.met);
    printf("sim: %llu lies, %llu handlers without an end\n", (unsigned long long)all.lies,
        (unsigned long long)all.endless);
    return 0;
}
