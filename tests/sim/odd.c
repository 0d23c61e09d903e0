/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What clients ask for at odd times: any request, of any client, about any task, in any order, and
 * many in one tick. And what is promised of it: a WAIT that was granted is told the finish once.
 */
#include "tests/sim/sim.h"

#include <string.h>

#define NOBODY 0xffff /* number of a submission that there is not */

static const char *const verbs[] = {
    "cancel", "wait", "status", "list", "pause", "resume", "replay", "drop", "purge", "nonsense"};
enum { CANCEL, WAIT, STATUS, LIST, PAUSE, RESUME, REPLAY, DROP, PURGE, NONSENSE, VERBS };

/* ---- what is asked ---- */

static int some_client(struct sim *sim)
{
    int client = (int)sim_below(sim, sim->plan.clients);
    return sim->clients[client].conn ? client : -1;
}

static size_t some_sub(struct sim *sim)
{
    size_t number = sim_below(sim, sim->sub_count);
    return sim->sub_count && sim->subs[number].accepted && !sim_chance(sim, 3) ? number : NOBODY;
}

void odd_burst(struct sim *sim)
{
    uint64_t count = sim_between(sim, 1, 12);
    size_t number = some_sub(sim);
    for (; count; count--) {
        int client = some_client(sim);
        if (client < 0)
            continue;
        if (sim_chance(sim, 50)) /* else the same again */
            number = some_sub(sim);
        struct event *e = client_up(sim, client, server_on_odd);
        uint8_t verb = (uint8_t)sim_below(sim, VERBS);
        if (verb == PURGE && sim_chance(sim, 70))
            verb = WAIT;
        event_frame(e, &(struct buf){.data = &verb, .size = 1});
        e->a = number;
    }
}

/* A dead one if there is any: 8 are looked at. */
size_t odd_dead(struct sim *sim)
{
    size_t number = sim_below(sim, sim->sub_count);
    for (int i = 0; i < 8 && sim->sub_count; i++) {
        if (sim->subs[number].status == PUSHROD_FAILED)
            break;
        number = sim_below(sim, sim->sub_count);
    }
    return number;
}

/* ---- at the server, within a tick ---- */

static void ask_control(
    struct sim *sim, uint64_t conn, const char *verb, uint64_t number, uint64_t id)
{
    struct slice queue = slice_str(truth_queue((unsigned)sim_below(sim, SIM_QUEUES)));
    bool replay = strcmp(verb, "replay") == 0;
    bool of_task = replay || strcmp(verb, "drop") == 0;
    struct msg_control m = {.request = client_ask(sim, replay ? ASK_REPLAY : ASK_CONTROL, number),
        .verb = slice_str(verb),
        .name = sim_chance(sim, 3) ? slice_str("nobodys") : queue,
        .id = of_task ? id : 0};
    struct sub *sub = number == NOBODY ? NULL : &sim->subs[number];
    if (strcmp(verb, "purge") == 0)
        truth_purged(sim, m.name);
    if (sub && of_task)
        truth_asked(sub, verb);
    core_control(sim->server.core, conn, &m);
}

void server_on_odd(struct sim *sim, struct event *event)
{
    static const enum follow levels[] = {FOLLOW_NONE, FOLLOW_FINISH, FOLLOW_ALL};
    struct core *core = sim->server.core;
    uint8_t verb = event->frame[0];
    uint64_t conn = event->b, number = event->a, id = UINT64_C(1) << 60;
    struct sub *sub = number == NOBODY ? NULL : &sim->subs[number];
    if (sub)
        id = sub->id;
    sim_trace(sim, "server: %s id %llu, connection %llu", verbs[verb], (unsigned long long)id,
        (unsigned long long)conn);
    switch (verb) {
    case CANCEL:
        if (sub)
            sub->cancelled = true;
        core_cancel(core, conn, client_ask(sim, ASK_CANCEL, number), id);
        break;
    case WAIT:
        core_wait(core, conn, client_ask(sim, ASK_PEEK, number), id, levels[sim_below(sim, 3)]);
        break;
    case STATUS:
        core_status(core, conn, client_ask(sim, ASK_STATUS, number), id);
        break;
    case LIST:
        server_on_list(sim, event);
        break;
    default:
        ask_control(sim, conn, verbs[verb], number, id);
        break;
    }
}

/* ---- what is answered; as soon as the server says so ---- */

static struct sub *sub_of(struct sim *sim, uint64_t request)
{
    uint64_t number = request <= SIM_MAX_SUBS ? request - 1 : request >> 32 & 0xffff;
    return number == NOBODY ? NULL : &sim->subs[number];
}

void odd_ok(struct sim *sim, const struct conn_action *a)
{
    uint64_t kind = a->request >> 48;
    struct sub *sub = sub_of(sim, a->request);
    if (kind == ASK_CANCEL || kind == ASK_WAIT || kind == ASK_PEEK)
        SIM_CHECK(sim, sub, "a task that there is not was found");
    if (kind == ASK_CANCEL && a->number)
        truth_cancelled(sim, sub);
    if (kind == ASK_REPLAY && sub)
        truth_revived(sim, sub);
    if (kind == ASK_WAIT || kind == ASK_PEEK)
        idmap_put(&sim->waits, a->request, a->conn);
}

/* Whoever follows is told once, by the request that it asked with. */
void odd_finished(struct sim *sim, const struct conn_action *a)
{
    unsigned long long id = a->task->record.id, request = a->request;
    struct sub *sub = sub_of(sim, a->request);
    SIM_CHECK(sim, sub && sub->id == id, "request %llu is told of task %llu", request, id);
    SIM_CHECK(sim, !idmap_get(&sim->told, a->request, &(uint64_t){0}),
        "task %llu finished twice for request %llu", id, request);
    idmap_put(&sim->told, a->request, a->conn);
    idmap_remove(&sim->waits, a->request);
}

/* A WAIT that was granted, and not told, although its connection is open; 0: none. */
uint64_t odd_waits(const struct sim *sim)
{
    struct idmap_cell cell;
    for (size_t place = 0; idmap_next(&sim->waits, &place, &cell);)
        if (client_of(sim, cell.value) >= 0)
            return cell.key;
    return 0;
}
