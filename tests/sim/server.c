/* SPDX-License-Identifier: Apache-2.0 */
/* The server: the real core, and a model of the plane that carries its messages. */
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>
#include "proto/codec.h"
#include "tests/lib/core_look.h"

#define ANSWERS_MAX 512

static void server_config(const struct sim *sim, struct core_config *c)
{
    const struct plan *p = &sim->plan;
    *c = (struct core_config){.seed = sim->seed ^ sim->server.life,
        .ack_ms = sim->seed % 3 * 5,
        .window_tasks = p->window,
        .lane_bytes = p->lane_bytes,
        .max_prefetch = 1000,
        .store = {.bypass = false}};
}

void server_start(struct sim *sim)
{
    struct server *s = &sim->server;
    struct core_config config;
    struct queue_setting settings[SIM_QUEUES];
    for (unsigned i = 0; i < SIM_QUEUES; i++)
        settings[i] = (struct queue_setting){slice_str(truth_queue(i)), sim->plan.durability[i], 0};
    s->life++;
    server_config(sim, &config);
    s->core = core_new(&config, settings, SIM_QUEUES, disk_open(sim));
    s->up = true;
    s->paused_until = 0;
    s->tick_at = UINT64_MAX;
    s->pause_clients = false;
    sim->totals.restarts++;
    sim_trace(sim, "server: started, boot %llu", (unsigned long long)sim->disk.opened.boot);
    server_wake(sim, sim->now.mono_ns);
}

static void server_forget(struct sim *sim)
{
    struct server *s = &sim->server;
    for (size_t i = 0; i < s->inbox_count; i++)
        event_free(s->inbox[i]);
    for (size_t i = 0; i < s->lane_count; i++) {
        buf_free(&s->lanes[i].out);
        free(s->lanes[i].tasks);
        free(s->lanes[i].dones);
        free(s->lanes[i].lies);
        load_free(&s->lanes[i]);
    }
    for (size_t i = 0; i < s->peer_count; i++)
        buf_free(&s->peers[i].reply);
    s->inbox_count = s->lane_count = s->peer_count = 0;
    core_free(s->core);
    s->core = NULL;
    s->up = false;
}

void server_free(struct sim *sim)
{
    if (sim->server.up)
        server_forget(sim);
    free(sim->server.inbox);
    free(sim->server.lanes);
    free(sim->server.peers);
}

const char *server_left(struct sim *sim)
{
    const struct plan *p = &sim->plan;
    /* What a store that is down refuses to end, and then purges, counts twice. */
    bool twice = p->purge && (p->store_down || p->store_doubt), again = p->replay || p->odd;
    bool exact = sim->server.life == 1 && !again && !twice;
    return sim->server.up ? core_left(sim->server.core, exact) : "the server";
}

/* A worker whose lane broke hears of it a little later, unless nothing reaches it at all. */
static void tell_lane_down(struct sim *sim, int node, uint64_t port)
{
    struct node *n = &sim->nodes[node];
    link_cut(&n->lane);
    if (n->session && n->port == port)
        sim_send(sim, node, &n->lane, sim_below(sim, 2 * MS), node_on_lane_down)->a = port;
}

void server_kill(struct sim *sim)
{
    struct server *s = &sim->server;
    sim_trace(sim, "server: killed");
    truth_server_died(sim);
    disk_crash(sim);
    for (size_t i = 0; i < s->lane_count; i++) {
        if (s->lanes[i].open && sim->nodes[s->lanes[i].node].port == s->lanes[i].port)
            tell_lane_down(sim, s->lanes[i].node, s->lanes[i].port);
    }
    for (int i = 0; i < SIM_MAX_WORKERS; i++)
        link_cut(&sim->nodes[i].answers_up);
    server_forget(sim);
    for (int i = 0; i < SIM_MAX_CLIENTS; i++) {
        if (sim->clients[i].conn)
            client_cut(sim, i);
    }
}

struct lane *server_lane(struct sim *sim, uint64_t worker)
{
    for (size_t i = sim->server.lane_count; i-- > 0;) {
        if (sim->server.lanes[i].worker == worker)
            return &sim->server.lanes[i];
    }
    return NULL;
}

/* ---- the loop ---- */

static void server_on_tick(struct sim *sim, struct event *event)
{
    struct server *s = &sim->server;
    if (!s->up || event->a != s->life || event->b != s->tick_at)
        return;
    s->tick_at = UINT64_MAX;
    if (s->paused_until > sim->now.mono_ns) {
        server_wake(sim, s->paused_until);
        return;
    }
    core_begin(s->core, sim->now);
    for (size_t i = 0; i < s->inbox_count; i++) {
        s->inbox[i]->apply(sim, s->inbox[i]);
        event_free(s->inbox[i]);
    }
    s->inbox_count = 0;
    const struct actions *actions = core_end(s->core);
    sim->totals.ticks++;
    server_out(sim, actions);
    core_check(s->core);
    truth_idle(sim);
}

void server_wake(struct sim *sim, uint64_t at_ns)
{
    struct server *s = &sim->server;
    if (at_ns < sim->now.mono_ns)
        at_ns = sim->now.mono_ns;
    if (at_ns >= s->tick_at)
        return;
    s->tick_at = at_ns;
    sim_after(sim, at_ns - sim->now.mono_ns, server_on_tick, s->life, at_ns);
}

void server_take(struct sim *sim, struct event *event)
{
    struct server *s = &sim->server;
    struct event **place =
        array_add((void **)&s->inbox, &s->inbox_count, &s->inbox_room, sizeof *place);
    *place = event;
    server_wake(sim, sim->now.mono_ns + sim_below(sim, 50 * US));
}

/* ---- what arrives; within a tick ---- */

static size_t decode_queues(struct slice raw, struct slice *queues, size_t room)
{
    struct dec d = dec_of(raw);
    size_t count = dec_array(&d);
    for (size_t i = 0; i < count && i < room; i++)
        queues[i] = dec_text(&d);
    return dec_failed(&d) ? 0 : count;
}

static size_t decode_held(struct sim *sim, struct slice raw, struct held *held, size_t room)
{
    if (!raw.data)
        return 0;
    struct dec d = dec_of(raw);
    size_t count = dec_array(&d);
    SIM_CHECK(sim, count <= room, "%zu held tasks in one JOIN", count);
    for (size_t i = 0; i < count; i++) {
        struct msg_held m;
        SIM_CHECK(sim, dec_message(&d) == MSG_HELD && msg_held_decode(&d, &m), "JOIN: bad HELD");
        held[i] = (struct held){m.id, m.lease, m.answered, m.started};
    }
    return count;
}

static struct peer *peer_known(struct sim *sim, const struct msg_join *join)
{
    for (size_t i = 0; i < sim->server.peer_count; i++) {
        if (memcmp(sim->server.peers[i].nonce, join->nonce.data, 16) == 0)
            return &sim->server.peers[i];
    }
    return NULL;
}

static void join_new(struct sim *sim, struct event *event, const struct msg_join *join)
{
    struct server *s = &sim->server;
    struct slice queues[8];
    static struct held held[2000];
    struct peer *peer = array_add((void **)&s->peers, &s->peer_count, &s->peer_room, sizeof *peer);
    *peer = (struct peer){.node = (int)event->a,
        .life = event->b,
        .slots = (uint32_t)join->slots,
        .max_prefetch = (uint32_t)join->max_prefetch};
    memcpy(peer->nonce, join->nonce.data, 16);
    struct join in = {.peer = s->peer_count,
        .name = join->name,
        .host = join->host,
        .pid = join->pid,
        .slots = peer->slots,
        .max_prefetch = peer->max_prefetch,
        .queues = queues,
        .queue_count = decode_queues(join->queues, queues, 8),
        .held = held,
        .held_count = decode_held(sim, join->held, held, 2000)};
    peer->held_count = in.held_count;
    in.held_count = liar_holds(sim, peer->node, held, in.held_count, 2000);
    memcpy(in.instance, join->instance.data, 16);
    sim_trace(
        sim, "server: JOIN of %.*s, %zu held", (int)in.name.size, in.name.data, in.held_count);
    core_join(s->core, &in);
}

void server_on_join(struct sim *sim, struct event *event)
{
    struct dec d = dec_of(slice_of(event->frame, event->frame_size));
    struct msg_join join;
    bool good = dec_message(&d) == MSG_JOIN && msg_join_decode(&d, &join) && !dec_more(&d);
    SIM_CHECK(sim, good && join.nonce.size == 16 && join.instance.size == 16, "bad JOIN");
    struct peer *peer = peer_known(sim, &join);
    if (!peer) {
        join_new(sim, event, &join);
    } else if (peer->reply.size && sim->nodes[peer->node].session) {
        struct node *n = &sim->nodes[peer->node];
        struct event *e = sim_send(
            sim, peer->node, &n->join, sim_below(sim, sim->plan.delay_ns), node_on_welcome);
        event_frame(e, &peer->reply);
    }
}

void server_on_obituary(struct sim *sim, struct event *event)
{
    struct msg_obituary o = {.instance = slice_of(event->frame, event->frame_size),
        .pid = event->a,
        .signal = 9,
        .peak_kib = 1000};
    core_obituary(sim->server.core, &o);
}

/* The lane's one admitted peer: it gets HELLO, and from now on its going away counts. */
void server_on_lane_connect(struct sim *sim, struct event *event)
{
    struct lane *lane = sim->server.up ? server_lane(sim, event->a) : NULL;
    struct node *n = &sim->nodes[event->b];
    if (!lane || !lane->open || lane->admitted || lane->port != n->port) {
        tell_lane_down(sim, (int)event->b, n->port);
        return;
    }
    lane->admitted = true;
    struct buf out = BUF_EMPTY;
    struct msg_lane_hello hello = {.worker = lane->worker, .session = lane->session};
    msg_lane_hello_encode(&out, &hello);
    event_frame(
        sim_send(sim, lane->node, &n->lane, sim_below(sim, sim->plan.delay_ns), node_on_lane_frame),
        &out);
    buf_free(&out);
}

void server_on_lane_cut(struct sim *sim, struct event *event)
{
    struct lane *lane = server_lane(sim, event->a);
    if (!lane || !lane->open || lane->cut)
        return;
    sim_trace(sim, "server: lane of worker %llu is cut", (unsigned long long)lane->worker);
    lane->cut = lane->ready;
    core_worker_cut(sim->server.core, lane->worker);
    load_unsent(sim, lane);
    sim_send(sim, NODE_SERVER, NULL, sim_below(sim, 20 * MS), server_on_lane_lost)->a =
        lane->worker;
}

void server_on_lane_lost(struct sim *sim, struct event *event)
{
    struct lane *lane = server_lane(sim, event->a);
    if (!lane || !lane->open)
        return;
    sim_trace(sim, "server: lane of worker %llu is down", (unsigned long long)lane->worker);
    truth_lost(sim, lane);
    core_worker_lost(sim->server.core, lane->worker, PUSHROD_E_CLOSED, sim->now.mono_ns);
}

void lane_remove(struct lane *lane, uint64_t id, uint64_t lease)
{
    for (size_t i = 0; i < lane->task_count; i++) {
        if (lane->tasks[i].id == id && lane->tasks[i].lease == lease) {
            size_t behind = --lane->task_count - i;
            memmove(&lane->tasks[i], &lane->tasks[i + 1], behind * sizeof *lane->tasks);
            return;
        }
    }
}

/* It has begun with it, so its bytes are no longer on the lane. */
static void lane_begun(struct lane *lane, const struct answer *a)
{
    for (size_t i = 0; i < lane->task_count; i++) {
        if (lane->tasks[i].id != a->id || lane->tasks[i].lease != a->lease)
            continue;
        lane->tasks[i].bytes = 0;
        lane->tasks[i].begun = true;
    }
}

void server_note(struct sim *sim, struct lane *lane, const struct answer *a)
{
    if (a->kind == MSG_READY) {
        lane->ready = true;
        lane->ready_ns = sim->now.mono_ns;
    }
    if (a->kind == MSG_STARTED || a->kind == MSG_PROGRESS || a->kind == MSG_DATA ||
        a->kind == MSG_PART)
        lane_begun(lane, a);
    if (a->kind != MSG_TASK_DONE && a->kind != MSG_TASK_FAILED && a->kind != MSG_RETURNED)
        return;
    lane_remove(lane, a->id, a->lease);
    if (a->kind == MSG_RETURNED)
        return;
    lane->done_count++;
    if (lane->done_count > lane->done_room) {
        lane->done_room = lane->done_room ? lane->done_room * 2 : 16;
        lane->dones = realloc(lane->dones, lane->done_room * sizeof *lane->dones);
    }
    lane->dones[lane->done_count - 1].sequence = a->sequence;
    lane->dones[lane->done_count - 1].id = a->id;
    lane->dones[lane->done_count - 1].failed = a->kind == MSG_TASK_FAILED;
    lane->dones[lane->done_count - 1].stored = !core_has(sim->server.core, a->id);
}

static bool answer_decode(struct dec *d, unsigned kind, struct answer *a)
{
#define CASE(NAME, name, ...)                                                                      \
    case MSG_##NAME: {                                                                             \
        struct msg_##name m;                                                                       \
        if (!msg_##name##_decode(d, &m))                                                           \
            return false;                                                                          \
        __VA_ARGS__;                                                                               \
        return true;                                                                               \
    }
    a->kind = (uint16_t)kind;
    switch (kind) {
        CASE(READY, ready, a->number = m.session)
        CASE(STARTED, started, a->id = m.id, a->lease = m.lease)
        CASE(PROGRESS, progress, a->id = m.id, a->lease = m.lease, a->number = m.done,
            a->total = m.total, a->data = m.text)
        CASE(DATA, data, a->id = m.id, a->lease = m.lease, a->data = m.data)
        CASE(PART, part, a->id = m.id, a->lease = m.lease, a->number = m.total, a->data = m.data)
        CASE(TASK_DONE, task_done, a->id = m.id, a->lease = m.lease, a->run_ns = m.run_ns,
            a->data = m.result)
        CASE(TASK_FAILED, task_failed, a->id = m.id, a->lease = m.lease, a->run_ns = m.run_ns,
            a->code = (uint32_t)m.code, a->permanent = m.permanent, a->number = m.retry_ms,
            a->data = m.text)
        CASE(RETURNED, returned, a->id = m.id, a->lease = m.lease, a->code = (uint32_t)m.code)
        CASE(HEARTBEAT, heartbeat, a->number = m.running)
        CASE(BYE, bye, a->number = m.returned)
    default:
        return false;
    }
#undef CASE
}

/* How often results come in pieces, and those of one between those of another. */
static void note_piece(struct sim *sim, const struct lane *lane, const struct answer *a)
{
    bool ends = a->kind == MSG_TASK_DONE;
    struct sub *sub = ends || a->kind == MSG_PART ? truth_by_id(sim, a->id) : NULL;
    if (!sub)
        return;
    bool first = sub->piece_of != lane->worker;
    sim->totals.pieced += ends && !first;
    sim->totals.met += first && sub->piece_before == lane->worker;
    if (!first || ends)
        return;
    sub->piece_before = sub->piece_of;
    sub->piece_of = lane->worker;
}

/* Takes each answer once, in order: what was taken is dropped, what follows a gap comes again.
 * `raw`: leaves that to the core. */
void server_on_answers(struct sim *sim, struct event *event)
{
    struct dec d = dec_of(slice_of(event->frame, event->frame_size));
    struct msg_from from;
    struct answer answers[ANSWERS_MAX], beat = {0};
    size_t count = 0;
    bool good = dec_message(&d) == MSG_FROM && msg_from_decode(&d, &from);
    SIM_CHECK(sim, good, "answers without FROM");
    struct lane *lane = server_lane(sim, from.worker);
    if (!lane || lane->session != from.session)
        return; /* its password was of another server: not admitted */
    bool liar = liar_lies(sim, lane);
    for (uint64_t sequence = from.sequence - 1; dec_more(&d);) {
        struct answer a = {0};
        unsigned kind = dec_message(&d);
        SIM_CHECK(sim, answer_decode(&d, kind, &a), "bad answer %s", msg_name(kind));
        if (kind == MSG_HEARTBEAT) {
            beat = a;
            continue;
        }
        a.sequence = ++sequence;
        bool next = sequence == lane->expected;
        if (!next && (liar || !sim->plan.raw))
            continue;
        note_piece(sim, lane, &a);
        SIM_CHECK(sim, count < ANSWERS_MAX, "more than %d answers in a frame", ANSWERS_MAX);
        answers[count++] = a;
        if (!next)
            continue; /* the core has to see that itself */
        lane->expected++;
        if (liar)
            continue;
        server_note(sim, lane, &a);
        sim_trace(sim, "server: worker %llu says %s #%llu id %llu", (unsigned long long)from.worker,
            msg_name(kind), (unsigned long long)sequence, (unsigned long long)a.id);
    }
    SIM_CHECK(sim, !dec_failed(&d), "answers: %s", d.error);
    if (count && answers[count - 1].kind == MSG_PART && sim_chance(sim, sim->plan.torn))
        faults_torn(sim, lane->node);
    if (liar)
        liar_says(sim, lane, answers, count);
    else if (count)
        core_answers(sim->server.core, from.worker, from.session, answers, count);
    if (beat.kind)
        core_answers(sim->server.core, from.worker, from.session, &beat, 1);
}

/* The first `count` records of a fetch come as a part of their own. */
static void stored_part(struct sim *sim, struct store_event *e, size_t count)
{
    struct store_event part = *e;
    part.record_count = count;
    part.more = true;
    core_stored(sim->server.core, &part, 1);
    e->records += count;
    e->record_count -= count;
}

void server_on_stored(struct sim *sim, struct event *event)
{
    const struct disk_events *in = event->more;
    for (size_t i = 0; i < in->count; i++) {
        struct store_event e = in->events[i];
        while (e.kind == STORE_FETCH && e.record_count > 1 && sim_chance(sim, 30))
            stored_part(sim, &e, 1 + sim_below(sim, e.record_count - 1));
        core_stored(sim->server.core, &e, 1);
    }
}
