/* SPDX-License-Identifier: Apache-2.0 */
/* A worker process: the real session, and a model of its sockets. (runner.c: of its runner.) */
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>
#include "proto/codec.h"

static void node_instance(struct sim *sim, struct node *n)
{
    uint64_t words[2] = {sim_random(sim), sim_random(sim)};
    memcpy(n->instance, words, sizeof n->instance);
}

void node_start(struct sim *sim, int node)
{
    struct node *n = &sim->nodes[node];
    struct slice queues[2];
    for (size_t i = 0; i < n->queue_count; i++)
        queues[i] = slice_str(n->queues[i]);
    node_instance(sim, n);
    struct session_config config = {.seed = sim_random(sim),
        .name = slice_str(n->name),
        .host = slice_str("here"),
        .pid = 100 + n->life,
        .slots = n->slots,
        .max_prefetch = n->max_prefetch,
        .ahead = n->ahead,
        .part_bytes = sim->plan.part_bytes,
        .queues = queues,
        .queue_count = n->queue_count};
    memcpy(config.instance, n->instance, sizeof n->instance);
    n->session = session_new(&config);
    session_near(n->session, sim_chance(sim, 30));
    n->life++;
    n->paused_until = 0;
    n->tick_at = UINT64_MAX;
    n->lame = false;
    sim_trace(sim, "%s: started", n->name);
    node_wake(sim, node, sim->now.mono_ns);
}

void node_on_restart(struct sim *sim, struct event *event)
{
    struct node *n = &sim->nodes[event->a];
    if (!n->session)
        node_start(sim, (int)event->a);
}

static void lane_lost(struct sim *sim, struct node *n, uint64_t delay)
{
    if (n->port)
        sim_send(sim, NODE_SERVER, NULL, delay, server_on_lane_cut)->a = n->worker;
}

/* The process is no more: its sockets close, what it ran ends without an answer. */
static void node_forget(struct sim *sim, int node)
{
    struct node *n = &sim->nodes[node];
    for (size_t i = 0; i < n->inbox_count; i++)
        event_free(n->inbox[i]);
    for (size_t i = 0; i < n->run_count; i++)
        n->runs[i].sub->running -= n->runs[i].begun_ns != 0;
    n->inbox_count = n->run_count = 0;
    session_free(n->session);
    n->session = NULL;
    n->port = 0;
    link_cut(&n->lane);
    link_cut(&n->join);
}

static void on_obituary_sent(struct sim *sim, struct event *event)
{
    struct event *e = sim_send(sim, NODE_SERVER, NULL, 0, server_on_obituary);
    struct buf instance = {.data = event->frame, .size = event->frame_size};
    event_frame(e, &instance);
    e->a = event->a;
}

void node_kill(struct sim *sim, int node)
{
    struct node *n = &sim->nodes[node];
    sim_trace(sim, "%s: killed", n->name);
    sim->totals.deaths++;
    truth_worker_faulty(sim, node);
    lane_lost(sim, n, sim_below(sim, 5 * MS));
    if (sim_chance(sim, 50)) /* what is in its buffers goes with it, or gets out */
        link_cut(&n->answers_up);
    else
        link_leave(sim, &n->answers_up);
    /* A poisonous task ends only if deaths are told. */
    if (!sim_chance(sim, sim->plan.poison || sim->over ? 0 : sim->plan.no_obituary)) {
        struct buf instance = {.data = n->instance, .size = sizeof n->instance};
        struct event *e =
            sim_after(sim, sim_below(sim, 20 * MS), on_obituary_sent, 100 + n->life - 1, 0);
        event_frame(e, &instance);
    }
    node_forget(sim, node);
    sim_after(sim, sim_between(sim, 5 * MS, 1000 * MS), node_on_restart, (uint64_t)node, 0);
}

void node_free(struct sim *sim, int node)
{
    struct node *n = &sim->nodes[node];
    if (n->session)
        node_forget(sim, node);
    free(n->inbox);
    free(n->runs);
}

/* The lane's connection breaks; each end hears of it in its own time. */
void node_lane_down(struct sim *sim, int node)
{
    struct node *n = &sim->nodes[node];
    if (!n->port)
        return;
    link_cut(&n->lane);
    lane_lost(sim, n, sim_below(sim, 20 * MS));
    sim_send(sim, node, &n->lane, sim_below(sim, 20 * MS), node_on_lane_down)->a = n->port;
}

/* ---- what the session wants ---- */

static void do_join(struct sim *sim, int node, const struct msg_join *join)
{
    struct node *n = &sim->nodes[node];
    struct buf out = BUF_EMPTY;
    msg_join_encode(&out, join);
    link_cut(&n->join); /* a fresh socket for each try */
    sim_trace(sim, "%s: JOIN", n->name);
    for (int i = sim_chance(sim, sim->plan.join_repeated) ? 2 : 1; i > 0; i--) {
        if (sim_chance(sim, sim->plan.join_lost) || n->join.silent)
            continue;
        struct event *e =
            sim_send(sim, NODE_SERVER, NULL, sim_below(sim, sim->plan.delay_ns), server_on_join);
        event_frame(e, &out);
        e->a = (uint64_t)node;
        e->b = n->life;
    }
    buf_free(&out);
}

static void do_disconnect(struct sim *sim, struct node *n)
{
    lane_lost(sim, n, sim_below(sim, 5 * MS));
    link_cut(&n->lane);
    if (sim_chance(sim, 30))
        link_cut(&n->answers_up);
    else
        link_leave(sim, &n->answers_up);
    n->port = 0;
}

static void do_connect(struct sim *sim, int node, const struct msg_welcome *w)
{
    struct node *n = &sim->nodes[node];
    link_cut(&n->answers_up);
    n->port = w->lane_port;
    n->worker = w->worker;
    /* Its host answers in any case, if only that nobody listens there. */
    sim_after(
        sim, sim_below(sim, sim->plan.delay_ns), server_on_lane_connect, w->worker, (uint64_t)node);
}

static void do_over(struct sim *sim, int node, const struct session_actions *actions)
{
    sim_trace(sim, "%s: over, code %d", sim->nodes[node].name, actions->code);
    truth_worker_faulty(sim, node);
    node_forget(sim, node);
    sim_after(sim, sim_between(sim, 5 * MS, 500 * MS), node_on_restart, (uint64_t)node, 0);
}

static void node_out(struct sim *sim, int node, const struct session_actions *actions)
{
    struct node *n = &sim->nodes[node];
    if (actions->text)
        sim_trace(sim, "%s: %s", n->name, actions->text);
    if (actions->answers.size && n->port) {
        struct buf out = {
            .data = (uint8_t *)(uintptr_t)actions->answers.data, .size = actions->answers.size};
        bool slow = sim->plan.part_bytes && out.size > sim->plan.part_bytes;
        uint64_t delay = sim_below(sim, sim->plan.delay_ns + (slow ? sim->plan.slow_ns : 0));
        event_frame(sim_send(sim, NODE_SERVER, &n->answers_up, delay, server_on_answers), &out);
    }
    if (actions->disconnect)
        do_disconnect(sim, n);
    if (actions->connect)
        do_connect(sim, node, actions->connect);
    if (actions->join)
        do_join(sim, node, actions->join);
    for (size_t i = 0; i < actions->run_count; i++)
        runner_take(sim, node, &actions->run[i]);
    if (actions->wake_ns != UINT64_MAX)
        node_wake(sim, node, actions->wake_ns + sim_between(sim, US, 300 * US));
    if (actions->state == SESSION_OVER)
        do_over(sim, node, actions);
    else
        runner_begin(sim, node);
}

/* ---- the loop ---- */

static void node_on_tick(struct sim *sim, struct event *event)
{
    int node = (int)event->a;
    struct node *n = &sim->nodes[node];
    if (!n->session || event->b != n->tick_at)
        return;
    n->tick_at = UINT64_MAX;
    if (n->paused_until > sim->now.mono_ns) {
        node_wake(sim, node, n->paused_until);
        return;
    }
    session_begin(n->session, sim->now);
    for (size_t i = 0; i < n->inbox_count; i++) {
        n->inbox[i]->apply(sim, n->inbox[i]);
        event_free(n->inbox[i]);
    }
    n->inbox_count = 0;
    bool room = !sim->plan.part_bytes || sim_chance(sim, 80);
    session_room(n->session, room);
    node_out(sim, node, session_end(n->session));
    if (!room) /* what is on its way leaves some time */
        node_wake(sim, node, sim->now.mono_ns + sim_below(sim, sim->plan.delay_ns));
    if (n->crash && n->session)
        node_kill(sim, node);
    n->crash = false;
}

void node_wake(struct sim *sim, int node, uint64_t at_ns)
{
    struct node *n = &sim->nodes[node];
    if (at_ns < sim->now.mono_ns)
        at_ns = sim->now.mono_ns;
    if (at_ns >= n->tick_at)
        return;
    n->tick_at = at_ns;
    sim_after(sim, at_ns - sim->now.mono_ns, node_on_tick, (uint64_t)node, at_ns);
}

void node_take(struct sim *sim, struct event *event)
{
    struct node *n = &sim->nodes[event->node];
    struct event **place =
        array_add((void **)&n->inbox, &n->inbox_count, &n->inbox_room, sizeof *place);
    *place = event;
    node_wake(sim, event->node, sim->now.mono_ns + sim_below(sim, 50 * US));
}

/* ---- what arrives; within a tick ---- */

void node_on_welcome(struct sim *sim, struct event *event)
{
    struct session *s = sim->nodes[event->node].session;
    struct dec d = dec_of(slice_of(event->frame, event->frame_size));
    struct msg_welcome welcome;
    struct msg_refused refused;
    unsigned kind = dec_message(&d);
    if (kind == MSG_WELCOME && msg_welcome_decode(&d, &welcome))
        session_welcome(s, &welcome);
    else if (kind == MSG_REFUSED && msg_refused_decode(&d, &refused))
        session_refused(s, &refused);
    else
        sim_fail(sim, "a bad answer to JOIN");
}

static bool lane_message(struct session *s, struct dec *d, unsigned kind, struct body *body)
{
#define CASE(NAME, name, call)                                                                     \
    case MSG_##NAME: {                                                                             \
        struct msg_##name m;                                                                       \
        if (!msg_##name##_decode(d, &m))                                                           \
            return false;                                                                          \
        call;                                                                                      \
        return true;                                                                               \
    }
    switch (kind) {
        CASE(LANE_HELLO, lane_hello, session_lane_hello(s, &m))
        CASE(TASK, task, session_task(s, &m, m.payload.data ? NULL : body))
        CASE(PAYLOAD, payload, session_payload(s, m.lease, m.data))
        CASE(CANCEL_TASK, cancel_task, session_cancel(s, &m))
        CASE(WITHDRAW, withdraw, session_withdraw(s, &m))
        CASE(ACK, ack, session_ack(s, m.sequence))
        CASE(PING, ping, session_ping(s, m.sequence, m.beat, m.next_ms))
        CASE(DRAIN, drain, session_told_to_drain(s, &m))
        CASE(FENCED, fenced, session_fenced(s, m.code))
    default:
        return false;
    }
#undef CASE
}

void node_on_lane_frame(struct sim *sim, struct event *event)
{
    struct dec d = dec_of(slice_of(event->frame, event->frame_size));
    while (dec_more(&d)) {
        unsigned kind = dec_message(&d);
        SIM_CHECK(sim, lane_message(sim->nodes[event->node].session, &d, kind, event->more),
            "bad message on a lane: %s", msg_name(kind));
    }
    SIM_CHECK(sim, !dec_failed(&d), "lane: %s", d.error);
}

void node_on_lane_down(struct sim *sim, struct event *event)
{
    struct node *n = &sim->nodes[event->node];
    if (n->port != event->a)
        return; /* of a lane that it has left */
    n->port = 0;
    session_lane_down(n->session);
}

void node_on_answers_renewed(struct sim *sim, struct event *event)
{
    session_answers_renewed(sim->nodes[event->node].session);
}

void node_on_drain(struct sim *sim, struct event *event)
{
    session_drain(sim->nodes[event->node].session, event->a);
}
