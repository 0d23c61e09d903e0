/* SPDX-License-Identifier: Apache-2.0 */
/* What the core wants done, and the checks of the lanes' credit and of what is told. */
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>
#include "proto/codec.h"

void lane_send(struct sim *sim, struct lane *lane, const struct buf *frame, struct body *body)
{
    struct node *n = &sim->nodes[lane->node];
    if (!lane->admitted || !n->session || n->life != lane->life)
        return;
    struct event *e =
        sim_send(sim, lane->node, &n->lane, sim_below(sim, sim->plan.delay_ns), node_on_lane_frame);
    event_frame(e, frame);
    e->a = lane->port;
    if (body) {
        e->more = body_ref(body);
        e->drop = (void (*)(void *))body_unref;
    }
}

static void lane_flush(struct sim *sim, struct lane *lane, struct body *body)
{
    if (lane->out.size)
        lane_send(sim, lane, &lane->out, body);
    buf_clear(&lane->out);
}

/* ---- joins ---- */

static void encode_verdicts(struct buf *out, const struct join_action *a, size_t count)
{
    if (!count)
        return;
    enc_array(out, (uint32_t)count);
    for (size_t i = 0; i < count; i++) {
        struct msg_verdict v = {a->held[i].id, a->held[i].lease, a->verdicts[i]};
        msg_verdict_encode(out, &v);
    }
}

static void reply_to(struct sim *sim, struct peer *peer)
{
    struct node *n = &sim->nodes[peer->node];
    if (!n->session || n->life != peer->life || sim_chance(sim, sim->plan.join_lost))
        return;
    event_frame(
        sim_send(sim, peer->node, &n->join, sim_below(sim, sim->plan.delay_ns), node_on_welcome),
        &peer->reply);
}

/* A liar may say so twice. */
static void lane_keeps(struct lane *lane, const struct held *held)
{
    for (size_t i = 0; i < lane->task_count; i++)
        if (lane->tasks[i].id == held->id && lane->tasks[i].lease == held->lease)
            return;
    struct held_task *t =
        array_add((void **)&lane->tasks, &lane->task_count, &lane->task_room, sizeof *t);
    *t = (struct held_task){.id = held->id, .lease = held->lease, .begun = held->started};
}

static void do_welcome(struct sim *sim, const struct join_action *a)
{
    struct server *s = &sim->server;
    struct peer *peer = &s->peers[a->peer - 1];
    struct buf verdicts = BUF_EMPTY;
    SIM_CHECK(sim, !server_lane(sim, a->worker), "a worker id was used twice");
    struct lane *lane = array_add((void **)&s->lanes, &s->lane_count, &s->lane_room, sizeof *lane);
    *lane = (struct lane){.worker = a->worker,
        .session = a->session,
        .node = peer->node,
        .life = peer->life,
        .port = 1 + sim->next_number++,
        .open = true,
        .expected = 1,
        .slots = peer->slots,
        .max_prefetch = peer->max_prefetch};
    encode_verdicts(&verdicts, a, peer->held_count);
    struct msg_welcome w = {.nonce = slice_of(peer->nonce, 16),
        .worker = a->worker,
        .session = a->session,
        .host = {0},
        .lane_port = lane->port,
        .answers_port = 5572,
        .user = slice_str("w"),
        .token = slice_str("t"),
        .heartbeat_ms = 1000,
        .ping_ms = 5000,
        .max_result = PUSHROD_MAX_PAYLOAD,
        .verdicts = verdicts.size ? buf_slice(&verdicts) : (struct slice){0}};
    buf_clear(&peer->reply);
    msg_welcome_encode(&peer->reply, &w);
    buf_free(&verdicts);
    /* What it keeps counts on its lane. */
    for (size_t i = 0; i < a->held_count; i++) {
        bool kept = a->verdicts[i] == VERDICT_KEEP;
        truth_verdict(sim, sim->nodes[peer->node].liar, &a->held[i], a->verdicts[i]);
        if (sim->nodes[peer->node].liar && (kept || a->verdicts[i] == VERDICT_SEND))
            liar_had(sim, a->held[i].id);
        if (!kept)
            continue;
        lane_keeps(lane, &a->held[i]);
    }
    sim_trace(sim, "server: WELCOME worker %llu (%s)", (unsigned long long)a->worker,
        sim->nodes[peer->node].name);
    reply_to(sim, peer);
}

static void do_refuse(struct sim *sim, const struct join_action *a)
{
    struct peer *peer = &sim->server.peers[a->peer - 1];
    struct msg_refused r = {
        slice_of(peer->nonce, 16), (uint64_t)a->code, slice_str(a->text ? a->text : ""), a->retry};
    sim_trace(sim, "server: REFUSED %d", a->code);
    buf_clear(&peer->reply);
    msg_refused_encode(&peer->reply, &r);
    reply_to(sim, peer);
}

static void do_close(struct sim *sim, const struct join_action *a)
{
    struct lane *lane = server_lane(sim, a->worker);
    SIM_CHECK(sim, lane && lane->open, "CLOSE of a lane that is not open");
    sim_trace(sim, "server: CLOSE worker %llu, code %d", (unsigned long long)a->worker, a->code);
    lane->open = false;
    lane->task_count = 0;
    load_free(lane);
    struct node *n = &sim->nodes[lane->node];
    if (n->life != lane->life || n->port != lane->port || !n->session)
        return;
    /* What was late comes when others have its tasks. */
    if (n->answers_up.last > sim->now.mono_ns && sim_chance(sim, 50))
        link_hurry(sim, &n->answers_up, sim_below(sim, 20 * MS));
    /* Destroying the socket discards what is queued on it; some of it may have left. */
    if (sim_chance(sim, 50))
        link_cut(&n->lane);
    sim_send(sim, lane->node, &n->lane, sim_below(sim, 2 * MS), node_on_lane_down)->a = lane->port;
}

/* ---- lanes ---- */

/*
 * Bytes count until the worker has begun with them: a lane carries its limit, or one task, of what
 * is small, and of what is large, unless that is for an idle slot.
 */
static void check_credit(struct sim *sim, const struct lane *lane)
{
    size_t bytes[2] = {0}, counted[2] = {0}, suspects = 0;
    size_t prefetch = lane->max_prefetch < 1000 ? lane->max_prefetch : 1000;
    size_t limit = sim->plan.lane_bytes ? sim->plan.lane_bytes : 1u << 20;
    for (size_t i = 0; i < lane->task_count; i++) {
        bool large = lane->tasks[i].bytes > limit / 4;
        bytes[large] += lane->tasks[i].bytes;
        counted[large] += lane->tasks[i].bytes > 0;
        suspects += lane->tasks[i].suspect;
    }
    SIM_CHECK(sim, lane->task_count <= lane->slots + prefetch,
        "worker %llu: %zu tasks on a lane with %u slots and a prefetch of %zu",
        (unsigned long long)lane->worker, lane->task_count, lane->slots, prefetch);
    /* What came last: others may be ahead of a slot since. */
    bool large = lane->tasks[lane->task_count - 1].bytes > limit / 4;
    SIM_CHECK(sim,
        bytes[large] <= limit || counted[large] <= 1 || (large && lane->task_count <= lane->slots),
        "worker %llu: %zu bytes in %zu tasks on a lane, the limit is %zu",
        (unsigned long long)lane->worker, bytes[large], counted[large], limit);
    SIM_CHECK(sim, !suspects || lane->task_count == 1,
        "worker %llu: a suspect is not alone, %zu tasks are outstanding",
        (unsigned long long)lane->worker, lane->task_count);
}

static void put_task(struct sim *sim, struct lane *lane, const struct lane_action *a)
{
    const struct task_record *r = &a->task->record;
    SIM_CHECK(sim, !lane->quiet, "task %llu is for a worker that may be silent",
        (unsigned long long)r->id);
    struct held_task *t =
        array_add((void **)&lane->tasks, &lane->task_count, &lane->task_room, sizeof *t);
    *t = (struct held_task){
        .id = r->id, .lease = a->task->lease, .bytes = r->payload.size, .suspect = r->suspect};
    if (liar_lies(sim, lane))
        liar_had(sim, r->id);
    truth_dispatch(sim, a);
    check_credit(sim, lane);
    struct msg_task m = {.id = r->id,
        .lease = a->task->lease,
        .queue = task_queue(a->task),
        .attempt = r->attempts,
        .timeout_ms = r->timeout_ms,
        .headers = task_headers(a->task),
        .payload = r->body ? (struct slice){0} : r->payload};
    bool pieces = r->body && r->body->size && sim_chance(sim, 50);
    if (pieces) {
        m.payload = slice_str("");
        m.rest = r->body->size;
        load_put(sim, lane, a->task);
    }
    msg_task_encode(&lane->out, &m);
    if (r->body && !pieces)
        lane_flush(sim, lane, r->body);
}

/* Its session goes on, or the process that had it does: that joins again, with its answers. */
static bool lane_lives(const struct sim *sim, const struct lane *lane)
{
    const struct node *n = &sim->nodes[lane->node];
    return lane->open || (n->session && n->life == lane->life);
}

/* Of a task that was ended twice, the answer that is stored is kept; if by this worker, later. */
static bool kept_elsewhere(
    const struct sim *sim, const struct lane *lane, uint64_t id, uint64_t number)
{
    for (size_t i = 0; i < sim->server.lane_count; i++) {
        const struct lane *other = &sim->server.lanes[i];
        for (size_t k = 0; lane_lives(sim, other) && k < other->done_count; k++)
            if (other->dones[k].id == id && (other != lane || other->dones[k].sequence > number))
                return true;
    }
    return false;
}

/* The promise behind ACK: whatever the worker now forgets is on disk. */
static void check_ack(struct sim *sim, struct lane *lane, uint64_t number)
{
    SIM_CHECK(sim, number < lane->expected || (liar_lies(sim, lane) && number <= lane->said),
        "ACK %llu of worker %llu is ahead of its answers", (unsigned long long)number,
        (unsigned long long)lane->worker);
    SIM_CHECK(sim, number >= lane->acked, "ACK goes back");
    lane->acked = number;
    for (size_t i = 0; i < lane->done_count; i++) {
        if (lane->dones[i].sequence > number)
            continue;
        struct sub *sub = truth_by_id(sim, lane->dones[i].id);
        bool sync = sub && !liar_lies(sim, lane) &&
                    sim->plan.durability[sub->queue] == DURABILITY_SYNC && !sub->excused &&
                    !sub->lied && !lane->dones[i].failed;
        /* It is looked up first: a server that dies in between runs it again. */
        bool late = lane->dones[i].stored;
        SIM_CHECK(sim,
            !sync || !disk_keeps(&sim->disk, sub->id) || late ||
                kept_elsewhere(sim, lane, sub->id, number),
            "ACK of the DONE of task %llu, whose finish is not settled",
            (unsigned long long)lane->dones[i].id);
        lane->dones[i--] = lane->dones[--lane->done_count];
    }
}

/* An attempt that was told to stop still has its slot and its bytes, but nothing else depends on
 * it. */
static void tell_to_stop(struct lane *lane, uint64_t lease)
{
    for (size_t i = 0; i < lane->task_count; i++) {
        struct held_task *t = &lane->tasks[i];
        if (t->lease == lease)
            t->suspect = false;
    }
}

static void do_lane(struct sim *sim, const struct lane_action *a)
{
    struct lane *lane = server_lane(sim, a->worker);
    SIM_CHECK(sim, lane, "lane action for a worker that never was");
    struct buf *out = &lane->out;
    SIM_CHECK(sim, lane->open, "lane action %d for a lane that was closed", a->kind);
    switch (a->kind) {
    case LANE_TASK:
        SIM_CHECK(sim, lane->ready, "a task before READY");
        SIM_CHECK(sim, !lane->cut, "a task for a worker that is gone");
        put_task(sim, lane, a);
        return;
    case LANE_CANCEL:
        load_end(lane, a->lease);
        tell_to_stop(lane, a->lease);
        msg_cancel_task_encode(out, &(struct msg_cancel_task){a->id, a->lease});
        break;
    case LANE_WITHDRAW:
        load_end(lane, a->lease);
        msg_withdraw_encode(out, &(struct msg_withdraw){a->id, a->lease});
        break;
    case LANE_ACK:
        check_ack(sim, lane, a->number);
        msg_ack_encode(out, &(struct msg_ack){liar_number(lane, a->number)});
        break;
    case LANE_PING:
        check_ack(sim, lane, a->number);
        lane->quiet = !a->beat;
        msg_ping_encode(out, &(struct msg_ping){liar_number(lane, a->number), a->beat, a->next_ms});
        break;
    case LANE_DRAIN:
        msg_drain_encode(out, &(struct msg_drain){a->number, a->again});
        break;
    case LANE_FENCED:
        msg_fenced_encode(out, &(struct msg_fenced){a->number});
        break;
    }
    sim_trace(sim, "server: lane %llu kind %d id %llu number %llu", (unsigned long long)a->worker,
        a->kind, (unsigned long long)a->id, (unsigned long long)a->number);
}

/* ---- connections ---- */

static void do_conn(struct sim *sim, const struct conn_action *a)
{
    sim_trace(sim, "server: conn %llu gets %s request %llu id %llu code %u",
        (unsigned long long)a->conn, msg_name(a->kind), (unsigned long long)a->request,
        (unsigned long long)(a->kind == MSG_FINISHED ? a->task->record.id : a->id), a->code);
    if (a->kind == MSG_ACCEPTED)
        truth_accepted(sim, a);
    else if (a->kind == MSG_REJECTED)
        truth_rejected(sim, a);
    else if (a->kind == MSG_FINISHED)
        truth_finished(sim, a);
    else if (a->kind == MSG_OK)
        odd_ok(sim, a);
    else if (a->kind == MSG_SUBMITTED)
        client_submitted(sim, a);
    client_tell(sim, a);
}

static void note_stores(struct sim *sim, const struct actions *actions)
{
    for (size_t i = 0; i < actions->store_count; i++) {
        const struct store_op *op = &actions->store[i];
        sim_trace(sim, "server: store op %d id %llu", op->kind,
            (unsigned long long)(op->record   ? op->record->id
                                 : op->finish ? op->finish->id
                                              : op->id));
        if (op->kind == STORE_PURGE)
            truth_purged(sim, op->queue);
    }
}

void server_out(struct sim *sim, const struct actions *actions)
{
    struct server *s = &sim->server;
    s->pause_clients = actions->pause_clients;
    note_stores(sim, actions);
    disk_submit(sim, actions->store, actions->store_count);
    for (size_t i = 0; i < actions->join_count; i++) {
        if (actions->join[i].kind == JOIN_WELCOME)
            do_welcome(sim, &actions->join[i]);
        else if (actions->join[i].kind == JOIN_REFUSE)
            do_refuse(sim, &actions->join[i]);
    }
    for (size_t i = 0; i < actions->lane_count; i++)
        do_lane(sim, &actions->lane[i]);
    for (size_t i = 0; i < s->lane_count; i++)
        lane_flush(sim, &s->lanes[i], NULL);
    for (size_t i = 0; i < actions->join_count; i++) {
        if (actions->join[i].kind == JOIN_CLOSE)
            do_close(sim, &actions->join[i]);
    }
    for (size_t i = 0; i < actions->conn_count; i++)
        do_conn(sim, &actions->conn[i]);
    /* A loop wakes when it must, or a little later. */
    if (actions->wake_ns != UINT64_MAX) {
        uint64_t at = actions->wake_ns < sim->now.mono_ns ? sim->now.mono_ns : actions->wake_ns;
        server_wake(sim, at + sim_between(sim, US, 300 * US));
    }
}
