/* SPDX-License-Identifier: Apache-2.0 */
/* What breaks, when; and how it is mended. */
#include "tests/sim/sim.h"

#include <string.h>

#define CLOCK_MOST_MS 60000 /* how far the wall clock may be off */

static int some_node(struct sim *sim)
{
    int node = sim->aim ? sim->aim - 1 : (int)sim_below(sim, sim->plan.workers);
    return sim->nodes[node].session ? node : -1;
}

static void fault_death(struct sim *sim)
{
    int node = some_node(sim);
    if (node >= 0)
        node_kill(sim, node);
}

static void fault_pause(struct sim *sim)
{
    int node = some_node(sim);
    if (node < 0)
        return;
    uint64_t ms = sim_chance(sim, 50) ? sim_between(sim, 1, 500) : sim_between(sim, 500, 15000);
    sim_trace(sim, "%s: stopped for %llu ms", sim->nodes[node].name, (unsigned long long)ms);
    truth_worker_faulty(sim, node);
    sim->nodes[node].paused_until = sim->now.mono_ns + ms * MS;
}

static void silence(struct node *n, bool on)
{
    n->lane.silent = n->answers_up.silent = n->join.silent = on;
}

/* When a host can be reached again, its old connections are found broken. */
static void on_silence_over(struct sim *sim, struct event *event)
{
    struct node *n = &sim->nodes[event->a];
    silence(n, false);
    if (!n->session || n->life != event->b)
        return;
    truth_worker_faulty(sim, (int)event->a);
    node_lane_down(sim, (int)event->a);
    link_cut(&n->answers_up);
    sim_send(sim, (int)event->a, NULL, sim_below(sim, MS), node_on_answers_renewed);
}

static void fault_silence(struct sim *sim)
{
    int node = some_node(sim);
    if (node < 0 || sim->nodes[node].lane.silent)
        return;
    struct node *n = &sim->nodes[node];
    uint64_t ms = sim_between(sim, 100, 12000);
    sim_trace(sim, "%s: unreachable for %llu ms", n->name, (unsigned long long)ms);
    truth_worker_faulty(sim, node);
    silence(n, true);
    sim_after(sim, ms * MS, on_silence_over, (uint64_t)node, n->life);
}

static void fault_lane_cut(struct sim *sim)
{
    int node = some_node(sim);
    if (node < 0)
        return;
    sim_trace(sim, "%s: its lane is cut", sim->nodes[node].name);
    truth_worker_faulty(sim, node);
    node_lane_down(sim, node);
}

static void fault_answers_cut(struct sim *sim)
{
    int node = some_node(sim);
    if (node < 0 || !sim->nodes[node].port)
        return;
    sim_trace(sim, "%s: its answers are cut", sim->nodes[node].name);
    if (sim_chance(sim, 50))
        link_cut(&sim->nodes[node].answers_up);
    else
        link_leave(sim, &sim->nodes[node].answers_up);
    /* libzmq connects again by itself; nobody may have noticed, then a stalled ACK tells. */
    if (sim_chance(sim, 70))
        sim_send(sim, node, NULL, sim_below(sim, 200 * MS), node_on_answers_renewed);
}

/* What it says comes late, and all of it in order. */
static void fault_stall(struct sim *sim)
{
    int node = some_node(sim);
    if (node < 0 || !sim->nodes[node].port)
        return;
    uint64_t ms = sim_chance(sim, 50) ? sim_between(sim, 1, 500) : sim_between(sim, 500, 6000);
    sim_trace(
        sim, "%s: its answers are late by %llu ms", sim->nodes[node].name, (unsigned long long)ms);
    sim->nodes[node].answers_up.last = sim->now.mono_ns + ms * MS;
}

static void on_server_restart(struct sim *sim, struct event *event)
{
    (void)event;
    if (!sim->server.up)
        server_start(sim);
}

static void fault_restart(struct sim *sim)
{
    if (!sim->server.up)
        return;
    server_kill(sim);
    sim_after(sim, sim_between(sim, 1, 2000) * MS, on_server_restart, 0, 0);
}

static void fault_server_pause(struct sim *sim)
{
    uint64_t ms = sim_chance(sim, 50) ? sim_between(sim, 1, 500) : sim_between(sim, 500, 10000);
    sim_trace(sim, "server: stopped for %llu ms", (unsigned long long)ms);
    sim->server.paused_until = sim->now.mono_ns + ms * MS;
}

static void on_disk_mended(struct sim *sim, struct event *event)
{
    (void)event;
    disk_trouble(sim, DISK_FINE);
}

static void disk_fault(struct sim *sim, enum disk_trouble trouble)
{
    if (sim->disk.trouble != DISK_FINE || !sim->server.up)
        return;
    sim_trace(sim, "disk: trouble %d", trouble);
    disk_trouble(sim, trouble);
    sim_after(sim, sim_between(sim, 1, 1500) * MS, on_disk_mended, 0, 0);
}

static void fault_store_full(struct sim *sim)
{
    disk_fault(sim, DISK_FULL);
}

static void fault_store_down(struct sim *sim)
{
    disk_fault(sim, DISK_ERROR);
}

static void fault_store_doubt(struct sim *sim)
{
    disk_fault(sim, DISK_DOUBT);
}

static void fault_client_cut(struct sim *sim)
{
    client_cut(sim, (int)sim_below(sim, sim->plan.clients));
}

static void fault_cancel(struct sim *sim)
{
    client_cancel_some(sim);
}

static void fault_purge(struct sim *sim)
{
    client_control(sim, "purge", truth_queue((unsigned)sim_below(sim, SIM_QUEUES)), 0);
}

static void fault_drain(struct sim *sim)
{
    int node = some_node(sim);
    if (node < 0)
        return;
    if (sim_chance(sim, 50))
        client_control(sim, "drain", sim->nodes[node].name, 0);
    else
        sim_send(sim, node, NULL, 0, node_on_drain)->a = sim_between(sim, 1, 2000);
}

static void on_resume(struct sim *sim, struct event *event)
{
    client_control(sim, "resume", truth_queue((unsigned)event->a), 0);
}

static void fault_queue_pause(struct sim *sim)
{
    unsigned queue = (unsigned)sim_below(sim, SIM_QUEUES);
    client_control(sim, "pause", truth_queue(queue), 0);
    sim_after(sim, sim_between(sim, 10, 1000) * MS, on_resume, queue, 0);
}

static void fault_replay(struct sim *sim)
{
    struct sub *sub = &sim->subs[odd_dead(sim)];
    if (sub->id)
        client_control(sim, "replay", NULL, sub->id);
}

static void fault_drop(struct sim *sim)
{
    struct sub *sub = &sim->subs[odd_dead(sim)];
    if (sub->id)
        client_control(sim, "drop", NULL, sub->id);
}

static void fault_odd(struct sim *sim)
{
    odd_burst(sim);
}

/* Somebody else has the disk. */
static void fault_store_slow(struct sim *sim)
{
    sim->disk.slow_until = sim->now.mono_ns + sim_between(sim, 10, 2000) * MS;
}

static void fault_look(struct sim *sim)
{
    client_look(sim);
}

/* Somebody sets the clock, or it is found to be wrong. */
static void fault_clock(struct sim *sim)
{
    uint64_t ms =
        sim_chance(sim, 50) ? sim_below(sim, 2 * 1000) : sim_below(sim, 2 * CLOCK_MOST_MS);
    int64_t most = sim_chance(sim, 50) ? 1000 : CLOCK_MOST_MS;
    sim->wall_offset = (int64_t)ms % (2 * most) - most;
    sim_trace(sim, "the wall clock is off by %lld ms", (long long)sim->wall_offset);
}

/* False: this seed has none. */
static bool fault_draw(struct sim *sim)
{
    const struct plan *p = &sim->plan;
    unsigned sum = 0;
#define X(name) sum += p->name;
    SIM_FAULTS(X)
#undef X
    uint64_t draw = sim_below(sim, sum);
#define X(name)                                                                                    \
    if (draw < p->name) {                                                                          \
        fault_##name(sim);                                                                         \
        draw = UINT64_MAX;                                                                         \
    } else if (draw != UINT64_MAX) {                                                               \
        draw -= p->name;                                                                           \
    }
    SIM_FAULTS(X)
#undef X
    return sum;
}

static void on_fault(struct sim *sim, struct event *event)
{
    (void)event;
    if (sim->over || !fault_draw(sim))
        return;
    uint64_t most = (uint64_t)sim->plan.fault_every_ms * 2 * MS;
    sim_after(sim, sim_below(sim, most), on_fault, 0, 0);
}

static void on_torn(struct sim *sim, struct event *event)
{
    if (sim->over)
        return;
    sim->aim = (int)event->a + 1;
    sim->totals.torn += fault_draw(sim);
    sim->aim = 0;
}

/* Its next pieces are on their way, or are not sent yet. */
void faults_torn(struct sim *sim, int node)
{
    sim_after(sim, sim_below(sim, 2 * sim->plan.delay_ns), on_torn, (uint64_t)node, 0);
}

void faults_start(struct sim *sim)
{
    sim_after(sim, sim_below(sim, (uint64_t)sim->plan.fault_every_ms * 2 * MS), on_fault, 0, 0);
}

/* Operators do what they would: what was paused is resumed, what limps is started anew. */
static void mend_queues(struct sim *sim, struct event *event)
{
    bool connected = false;
    for (int i = 0; i < SIM_MAX_CLIENTS; i++)
        connected = connected || sim->clients[i].conn;
    for (unsigned i = 0; connected && i < SIM_QUEUES; i++)
        client_control(sim, "resume", truth_queue(i), 0);
    if (!connected || event->a < 3)
        sim_after(sim, 100 * MS, mend_queues, event->a + connected, 0);
}

/* It runs what has no end. */
static bool is_stuck(const struct node *n)
{
    for (size_t i = 0; i < n->run_count; i++)
        if (n->runs[i].endless)
            return true;
    return false;
}

void faults_end(struct sim *sim)
{
    sim_trace(sim, "faults end");
    sim->over = true;
    if (sim->wall_offset)
        sim->wall_offset = CLOCK_MOST_MS; /* what waits for a time that was a while ago */
    if (!sim->server.up)
        server_start(sim);
    sim->server.paused_until = 0;
    server_wake(sim, sim->now.mono_ns);
    disk_trouble(sim, DISK_FINE);
    sim->disk.slow_until = 0;
    for (int i = 0; i < (int)sim->plan.workers; i++) {
        struct node *n = &sim->nodes[i];
        n->paused_until = 0;
        if (n->session)
            node_wake(sim, i, sim->now.mono_ns);
        if (n->session && (n->lame || n->liar || is_stuck(n)))
            node_kill(sim, i);
    }
    mend_queues(sim, &(struct event){0});
}
