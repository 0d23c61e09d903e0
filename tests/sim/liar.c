/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Workers that lie. Their sessions are the real ones; between those and the core somebody says what
 * is not true: of what the worker has, of what others have, and of what nobody has. What it was
 * ever given, or said at JOIN that it has, may suffer (sub.lied). Nothing else may, and what
 * suffered ends all the same. The numbers of what the session says move by the lies that were put
 * in.
 */
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>

void liar_had(struct sim *sim, uint64_t id)
{
    struct sub *sub = truth_by_id(sim, id);
    if (sub)
        sub->lied = sub->may_repeat = true;
}

bool liar_lies(const struct sim *sim, const struct lane *lane)
{
    return sim->nodes[lane->node].liar;
}

/* ---- what is said ---- */

static const struct held_task *some_task(struct sim *sim, const struct lane *lane)
{
    return lane->task_count ? &lane->tasks[sim_below(sim, lane->task_count)] : NULL;
}

/* A lease that somebody has, or that nobody has. */
static uint64_t some_lease(struct sim *sim)
{
    const struct server *s = &sim->server;
    size_t other = sim_below(sim, s->lane_count);
    const struct held_task *task = s->lane_count ? some_task(sim, &s->lanes[other]) : NULL;
    if (task && sim_chance(sim, 80))
        return task->lease + (sim_chance(sim, 10) ? UINT64_C(1) << 24 : 0);
    return sim_chance(sim, 10) ? 0 : sim_random(sim) >> 1;
}

static uint64_t some_id(struct sim *sim)
{
    const struct sub *sub = &sim->subs[sim_below(sim, sim->sub_count)];
    return sim->sub_count && sub->id && sim_chance(sim, 95) ? sub->id : 1 + (sim_random(sim) >> 1);
}

/* An attempt of its own, of another worker, or a mixture. */
static void draw_attempt(struct sim *sim, const struct lane *lane, uint64_t *id, uint64_t *lease)
{
    const struct server *s = &sim->server;
    const struct lane *of = sim_chance(sim, 50) ? lane : &s->lanes[sim_below(sim, s->lane_count)];
    const struct held_task *task = some_task(sim, of);
    *id = task && sim_chance(sim, 80) ? task->id : some_id(sim);
    *lease = task && sim_chance(sim, 80) ? task->lease : some_lease(sim);
}

static void draw_kind(struct sim *sim, struct answer *a)
{
    static const uint16_t kinds[] = {MSG_TASK_DONE, MSG_TASK_FAILED, MSG_RETURNED, MSG_STARTED,
        MSG_PROGRESS, MSG_DATA, MSG_PART, MSG_TASK_DONE, MSG_RETURNED, MSG_PART, MSG_READY};
    a->kind = kinds[sim_below(sim, sizeof kinds / sizeof *kinds)];
    if (sim_chance(sim, 2))
        a->kind = MSG_BYE;
    if (a->kind == MSG_READY || a->kind == MSG_BYE)
        a->id = a->lease = 0;
}

static void draw_numbers(struct sim *sim, struct answer *a)
{
    static const uint32_t codes[] = {
        0, PUSHROD_E_DRAINING, PUSHROD_E_HANDLER_BROKEN, PUSHROD_E_TASK_CANCELLED, UINT16_MAX};
    static const uint64_t totals[] = {0, 1, 50, 1000, UINT64_MAX >> 1};
    a->number = a->kind == MSG_TASK_FAILED ? sim_below(sim, 500) : totals[sim_below(sim, 5)];
    a->total = sim_random(sim) >> 1;
    a->run_ns = sim_chance(sim, 50) ? sim_below(sim, 1000) : sim_random(sim) >> sim_below(sim, 64);
    a->permanent = sim_chance(sim, 30);
    a->code = sim_chance(sim, 90) ? PUSHROD_E_TASK_FAILED : codes[sim_below(sim, 5)];
    if (a->kind == MSG_RETURNED)
        a->code = sim_chance(sim, 90) ? 0 : codes[sim_below(sim, 5)];
}

static struct answer draw_lie(struct sim *sim, const struct lane *lane)
{
    static const uint8_t garbage[200] = "this is not what came of it";
    struct answer a = {0};
    draw_attempt(sim, lane, &a.id, &a.lease);
    draw_kind(sim, &a);
    draw_numbers(sim, &a);
    a.data = slice_of(garbage, sim_below(sim, sizeof garbage));
    return a;
}

static void say(struct sim *sim, struct lane *lane, struct answer a)
{
    a.sequence = ++lane->said;
    server_note(sim, lane, &a);
    sim_trace(sim, "server: worker %llu lies or not, %s #%llu id %llu lease %llx",
        (unsigned long long)lane->worker, msg_name(a.kind), (unsigned long long)a.sequence,
        (unsigned long long)a.id, (unsigned long long)a.lease);
    core_answers(sim->server.core, lane->worker, lane->session, &a, 1);
}

static void say_lie(struct sim *sim, struct lane *lane, struct answer a)
{
    uint64_t *place =
        array_add((void **)&lane->lies, &lane->lie_count, &lane->lie_room, sizeof *place);
    *place = lane->said + 1;
    sim->totals.lies++;
    say(sim, lane, a);
}

/* Out of sequence: the core takes it for what came before, or behind something that is missing. */
static void say_jump(struct sim *sim, struct lane *lane, struct answer a)
{
    a.sequence = sim_chance(sim, 50) ? sim_below(sim, lane->said + 1) : lane->said + 2;
    core_answers(sim->server.core, lane->worker, lane->session, &a, 1);
}

void liar_says(struct sim *sim, struct lane *lane, const struct answer *answers, size_t count)
{
    unsigned lies = sim->over ? 0 : sim->plan.lies;
    for (size_t i = 0; i < count; i++) {
        bool instead = sim_chance(sim, lies);
        while (sim_chance(sim, lies))
            say_lie(sim, lane, draw_lie(sim, lane));
        if (sim_chance(sim, lies))
            say_jump(sim, lane, sim_chance(sim, 50) ? answers[i] : draw_lie(sim, lane));
        say(sim, lane, instead && answers[i].kind != MSG_READY ? draw_lie(sim, lane) : answers[i]);
        while (sim_chance(sim, lies))
            say_lie(sim, lane, answers[i]); /* once more */
    }
}

/* Of an ACK: the number that its session gave to what has this number. */
uint64_t liar_number(const struct lane *lane, uint64_t number)
{
    uint64_t before = 0;
    while (before < lane->lie_count && lane->lies[before] <= number)
        before++;
    return number - before;
}

/* ---- what is said at JOIN: behind what is true, and up to `room` in all ---- */

size_t liar_holds(struct sim *sim, int node, struct held *held, size_t count, size_t room)
{
    unsigned lies = sim->over || !sim->nodes[node].liar ? 0 : 20 + sim->plan.lies;
    while (sim->sub_count && count < room && sim_chance(sim, lies)) {
        bool twice = count && sim_chance(sim, 10);
        struct held lie = {.id = some_id(sim),
            .lease = 1 | some_lease(sim),
            .answered = sim_chance(sim, 40),
            .started = sim_chance(sim, 50)};
        const struct server *s = &sim->server;
        const struct held_task *task =
            s->lane_count ? some_task(sim, &s->lanes[sim_below(sim, s->lane_count)]) : NULL;
        if (task && sim_chance(sim, 50)) {
            lie.id = task->id;
            lie.lease = task->lease;
        }
        held[count] = twice ? held[sim_below(sim, count)] : lie;
        count++;
        sim->totals.lies++;
    }
    return count;
}
