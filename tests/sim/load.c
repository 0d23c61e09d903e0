/* SPDX-License-Identifier: Apache-2.0 */
/* Payloads that leave in pieces, while others and other messages pass them. */
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>
#include "proto/codec.h"

struct load {
    uint64_t id;
    uint64_t lease;
    struct body *body;
    size_t at; /* bytes that were sent */
};

static void load_drop(struct lane *lane, size_t i)
{
    body_unref(lane->loads[i].body);
    lane->load_count--;
    memmove(&lane->loads[i], &lane->loads[i + 1], (lane->load_count - i) * sizeof *lane->loads);
}

void load_free(struct lane *lane)
{
    while (lane->load_count)
        load_drop(lane, 0);
    free(lane->loads);
    lane->loads = NULL;
    lane->load_room = 0;
}

void load_unsent(struct sim *sim, struct lane *lane)
{
    for (; lane->load_count; load_drop(lane, 0)) {
        uint64_t id = lane->loads[0].id, lease = lane->loads[0].lease;
        lane_remove(lane, id, lease);
        core_unsent(sim->server.core, lane->worker, id, lease);
    }
}

void load_end(struct lane *lane, uint64_t lease)
{
    for (size_t i = lane->load_count; i-- > 0;)
        if (lane->loads[i].lease == lease)
            load_drop(lane, i);
}

static void send_next(struct sim *sim, struct lane *lane)
{
    size_t i = sim_below(sim, lane->load_count);
    struct load *load = &lane->loads[i];
    struct buf frame = BUF_EMPTY;
    size_t size = 1 + sim_below(sim, load->body->size - load->at);
    struct msg_payload m = {
        .lease = load->lease, .data = slice_of(load->body->data + load->at, size)};
    msg_payload_encode(&frame, &m);
    lane_send(sim, lane, &frame, NULL);
    buf_free(&frame);
    load->at += size;
    if (load->at == load->body->size)
        load_drop(lane, i);
}

static void load_later(struct sim *sim, const struct lane *lane);

static void load_on_time(struct sim *sim, struct event *event)
{
    struct server *s = &sim->server;
    struct lane *lane = s->up && s->life == event->b ? server_lane(sim, event->a) : NULL;
    if (!lane || !lane->open || !lane->load_count)
        return;
    send_next(sim, lane);
    load_later(sim, lane);
}

static void load_later(struct sim *sim, const struct lane *lane)
{
    sim_after(
        sim, sim_below(sim, sim->plan.delay_ns), load_on_time, lane->worker, sim->server.life);
}

void load_put(struct sim *sim, struct lane *lane, const struct task *task)
{
    struct load *load =
        array_add((void **)&lane->loads, &lane->load_count, &lane->load_room, sizeof *load);
    *load = (struct load){
        .id = task->record.id, .lease = task->lease, .body = body_ref(task->record.body)};
    load_later(sim, lane);
}
