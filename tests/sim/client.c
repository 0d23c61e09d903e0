/* SPDX-License-Identifier: Apache-2.0 */
/* Clients: they submit, follow, acknowledge, cancel, vanish and come back to wait by id. */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/codec.h"

uint64_t client_ask(struct sim *sim, unsigned kind, size_t number)
{
    return (uint64_t)kind << 48 | (uint64_t)number << 32 | (sim->next_number++ & 0xffffffff);
}

struct heard { /* what a connection carries down */
    uint64_t request, id;
    uint32_t kind, code;
};

struct event *client_up(struct sim *sim, int client, apply_fn *apply)
{
    struct client *c = &sim->clients[client];
    struct event *e = sim_send(sim, NODE_SERVER, &c->up, sim_below(sim, sim->plan.delay_ns), apply);
    e->b = c->conn;
    return e;
}

int client_of(const struct sim *sim, uint64_t conn)
{
    for (int i = 0; i < SIM_MAX_CLIENTS; i++) {
        if (sim->clients[i].conn == conn && conn)
            return i;
    }
    return -1;
}

/* ---- at the server, within a tick ---- */

void server_on_submit(struct sim *sim, struct event *event)
{
    struct sub *sub = &sim->subs[event->a];
    uint8_t *bytes = calloc(1, sub->size);
    uint64_t id = 0;
    memcpy(bytes, &event->a, 8);
    struct submit in = {.request = sub->request,
        .queue = slice_str(truth_queue(sub->queue)),
        .options = &sub->options,
        .follow = sub->follow};
    if (sub->size > TASK_INLINE_PAYLOAD)
        in.body = body_copy(bytes, sub->size);
    else
        in.payload = slice_of(bytes, sub->size);
    sub->sent = true;
    sub->life = sim->server.life;
    sub->sent_ms = sim->now.wall_ms;
    sub->sent_ns = sim->now.mono_ns;
    if (sub->options.delay_ms)
        sub->eta_ms = sim->now.wall_ms + sub->options.delay_ms;
    core_submit(sim->server.core, event->b, &in, 1, &id);
    sim_trace(sim, "server: SUBMIT request %llu queue %s id %llu priority %u delay %llu",
        (unsigned long long)sub->request, truth_queue(sub->queue), (unsigned long long)id,
        (unsigned)sub->options.priority, (unsigned long long)sub->options.delay_ms);
    if (id)
        truth_name(sim, sub, id);
    body_unref(in.body);
    free(bytes);
}

void server_on_wait(struct sim *sim, struct event *event)
{
    struct sub *sub = &sim->subs[event->a];
    core_wait(
        sim->server.core, event->b, client_ask(sim, ASK_WAIT, event->a), sub->id, sub->follow);
}

void server_on_received(struct sim *sim, struct event *event)
{
    core_received(sim->server.core, event->b, event->a);
}

void server_on_cancel(struct sim *sim, struct event *event)
{
    struct sub *sub = &sim->subs[event->a];
    sim_trace(sim, "server: CANCEL id %llu", (unsigned long long)sub->id);
    sub->cancelled = true;
    core_cancel(sim->server.core, event->b, client_ask(sim, ASK_CANCEL, event->a), sub->id);
}

void server_on_control(struct sim *sim, struct event *event)
{
    const char *verb = (const char *)event->frame, *name = verb + strlen(verb) + 1;
    struct sub *sub = event->a ? truth_by_id(sim, event->a) : NULL;
    size_t number = sub ? (size_t)(sub - sim->subs) : 0;
    bool replay = strcmp(verb, "replay") == 0;
    struct msg_control m = {.request = client_ask(sim, replay ? ASK_REPLAY : ASK_CONTROL, number),
        .verb = slice_str(verb),
        .name = *name ? slice_str(name) : (struct slice){0},
        .id = event->a};
    if (strcmp(verb, "purge") == 0)
        truth_purged(sim, slice_str(name));
    if (sub)
        truth_asked(sub, verb);
    sim_trace(sim, "server: CONTROL %s %s %llu", verb, name, (unsigned long long)event->a);
    core_control(sim->server.core, event->b, &m);
}

void server_on_status(struct sim *sim, struct event *event)
{
    struct sub *sub = &sim->subs[event->a];
    core_status(sim->server.core, event->b, client_ask(sim, ASK_STATUS, event->a), sub->id);
    struct msg_list m = {.request = client_ask(sim, ASK_LIST, event->a),
        .what = slice_str(event->a % 4 ? "submitted" : "options"),
        .after = sub->id};
    core_list(sim->server.core, event->b, &m);
}

/* Wherever it was, and whatever became of it meanwhile: it is what was submitted. */
void client_submitted(struct sim *sim, const struct conn_action *a)
{
    const struct msg_submitted *m = &((const struct submitted *)a->row)->row;
    struct sub *sub = &sim->subs[a->request >> 32 & 0xffff];
    struct msg_options o;
    struct dec in = dec_of(m->options);
    bool whole = dec_message(&in) == MSG_OPTIONS && msg_options_decode(&in, &o);
    SIM_CHECK(sim, whole && m->id == sub->id, "SUBMITTED of %llu, not of %llu",
        (unsigned long long)m->id, (unsigned long long)sub->id);
    SIM_CHECK(sim, slice_equal(o.tag, sub->options.tag) && o.keep_ms == sub->options.keep_ms,
        "task %llu came with the options of another", (unsigned long long)sub->id);
    SIM_CHECK(sim, slice_equal(m->queue, slice_str(truth_queue(sub->queue))),
        "task %llu came with the queue of another", (unsigned long long)sub->id);
    if (m->payload.data)
        SIM_CHECK(sim, truth_sub(sim, m->payload) == sub,
            "task %llu came with the payload of another", (unsigned long long)sub->id);
}

void server_on_list(struct sim *sim, struct event *event)
{
    static const char *const what[] = {"queues", "workers", "dead", "stats", "running", "nonsense"};
    struct msg_list m = {.request = client_ask(sim, ASK_LIST, 0),
        .what = slice_str(what[event->a % 6]),
        .limit = event->a / 4 % 3};
    core_list(sim->server.core, event->b, &m);
    core_watch(sim->server.core, event->b, client_ask(sim, ASK_LIST, 0), event->a % 5 == 0);
}

void server_on_conn_closed(struct sim *sim, struct event *event)
{
    sim_trace(sim, "server: connection %llu closed", (unsigned long long)event->b);
    for (size_t i = 0; i < sim->sub_count; i++) {
        if (sim->subs[i].conn == event->b && sim->subs[i].options.attached)
            sim->subs[i].cancelled = true;
    }
    core_conn_closed(sim->server.core, event->b);
}

/* ---- at the client ---- */

static void hear_finished(struct sim *sim, int client, struct sub *sub)
{
    struct client *c = &sim->clients[client];
    sub->received = true;
    c->received++;
    if (sim_chance(sim, 70))
        client_up(sim, client, server_on_received)->a = c->received;
}

static void wait_again(struct sim *sim, struct event *event)
{
    struct sub *sub = &sim->subs[event->a];
    if (sim->clients[sub->client].conn == event->b && truth_wanted(sub))
        client_up(sim, sub->client, server_on_wait)->a = event->a;
}

/* A task that was accepted, and followed or kept, is known until its finish was acknowledged. */
static void hear_rejected(struct sim *sim, int client, const struct heard *heard)
{
    size_t number = heard->request >> 32 & 0xffff;
    if (number >= sim->sub_count)
        return; /* it was about nobody's task */
    struct sub *sub = &sim->subs[number];
    bool unknown = heard->code == PUSHROD_E_UNKNOWN_TASK || heard->code == PUSHROD_E_RESULT_GONE;
    uint64_t kind = heard->request >> 48;
    if (heard->code == PUSHROD_E_RESULT_GONE) {
        SIM_CHECK(sim, sub->follow == FOLLOW_NONE && !sub->options.keep_ms,
            "the result of task %llu was not kept", (unsigned long long)sub->id);
        return;
    }
    if ((kind == ASK_STATUS || kind == ASK_PEEK) && unknown)
        truth_unknown(sim, sub);
    if (kind != ASK_WAIT)
        return;
    if (unknown && truth_gone(sim, sub)) {
        sub->received = true; /* there is nothing to wait for */
        return;
    }
    SIM_CHECK(sim, !unknown, "LOST: a WAIT for task %llu was refused with %s",
        (unsigned long long)sub->id, pushrod_error_name((int)heard->code));
    sim_after(sim, sim_between(sim, 10, 100) * MS, wait_again, number, sim->clients[client].conn);
}

static void client_on_message(struct sim *sim, struct event *event)
{
    int client = (int)event->a;
    const struct heard *heard = (const void *)event->frame;
    if (sim->clients[client].conn != event->b)
        return; /* the connection is gone, and this with it */
    if (heard->kind == MSG_ACCEPTED)
        sim->subs[heard->request - 1].known = true;
    else if (heard->kind == MSG_FINISHED)
        hear_finished(sim, client, truth_by_id(sim, heard->id));
    else if (heard->kind == MSG_REJECTED && heard->request > SIM_MAX_SUBS)
        hear_rejected(sim, client, heard);
}

void client_tell(struct sim *sim, const struct conn_action *a)
{
    int client = client_of(sim, a->conn);
    if (client < 0)
        return;
    struct client *c = &sim->clients[client];
    struct heard heard = {a->request, a->id, a->kind, a->code};
    if (a->kind == MSG_FINISHED)
        heard.id = a->task->record.id;
    uint64_t at = sim->now.mono_ns + sim_below(sim, sim->plan.delay_ns);
    c->down.last = at < c->down.last ? c->down.last : at;
    struct event *e = sim_after(
        sim, c->down.last - sim->now.mono_ns, client_on_message, (uint64_t)client, a->conn);
    struct buf bytes = {.data = (uint8_t *)&heard, .size = sizeof heard};
    event_frame(e, &bytes);
}

/* ---- submissions ---- */

static void draw_options(struct sim *sim, struct sub *sub)
{
    const struct plan *p = &sim->plan;
    struct msg_options *o = &sub->options;
    *o = (struct msg_options){.priority = 4, .max_attempts = 3, .backoff_ms = 1};
    o->max_attempts = sim_between(sim, 1, 5);
    o->backoff_ms = sim_between(sim, 1, 200);
    if (sim_chance(sim, p->priority))
        o->priority = sim_below(sim, 10);
    if (sim_chance(sim, p->delay))
        o->delay_ms = sim_between(sim, 1, 3000);
    if (sim_chance(sim, p->timeout))
        o->timeout_ms = sim_between(sim, 1, 2000);
    if (sim_chance(sim, p->expires))
        o->expires_ms = sim_between(sim, 1, 5000);
    if (sim_chance(sim, p->keep))
        o->keep_ms = sim_between(sim, 1, 600000);
    o->attached = sim_chance(sim, p->attached);
}

static void draw_names(struct sim *sim, struct sub *sub)
{
    const struct plan *p = &sim->plan;
    struct msg_options *o = &sub->options;
    snprintf(sub->tag, sizeof sub->tag, "tag %llu", (unsigned long long)sub->request);
    o->tag = slice_str(sub->tag);
    if (sim_chance(sim, p->unique)) {
        snprintf(sub->key, sizeof sub->key, "key %u", (unsigned)sim_below(sim, 6));
        o->unique_key = slice_str(sub->key);
        o->unique_ms = sim_chance(sim, 30) ? sim_between(sim, 1, 2000) : 0;
    }
    if (sim_chance(sim, p->target)) {
        snprintf(sub->target, sizeof sub->target, "w%u", (unsigned)sim_below(sim, p->workers));
        o->worker = slice_str(sub->target);
    }
}

static void submit(struct sim *sim, int client)
{
    const struct plan *p = &sim->plan;
    struct sub *sub = &sim->subs[sim->sub_count];
    *sub = (struct sub){.request = ++sim->sub_count,
        .client = client,
        .conn = sim->clients[client].conn,
        .queue = (unsigned)sim_below(sim, SIM_QUEUES),
        .size = (uint32_t)sim_between(sim, 8, 100),
        .follow = sim_chance(sim, 30) ? FOLLOW_ALL : FOLLOW_FINISH,
        .poison = sim_chance(sim, p->poison)};
    if (sim_chance(sim, p->unfollowed))
        sub->follow = FOLLOW_NONE;
    if (sim_chance(sim, p->big))
        sub->size = (uint32_t)sim_between(sim, 1000, 200000);
    draw_options(sim, sub);
    draw_names(sim, sub);
    if (sub->target[0])
        sub->queue = 0; /* which every worker serves */
    client_up(sim, client, server_on_submit)->a = sub->request - 1;
}

void client_on_act(struct sim *sim, struct event *event)
{
    int client = (int)event->a;
    const struct plan *p = &sim->plan;
    if (sim->over || sim->sub_count >= p->subs)
        return;
    uint64_t burst = sim_chance(sim, 10) ? sim_between(sim, 1, 20) : 1;
    for (; burst && sim->clients[client].conn && sim->sub_count < p->subs; burst--) {
        if (!sim->server.pause_clients)
            submit(sim, client);
    }
    uint64_t mean = (uint64_t)p->active_ms * MS * p->clients / (p->subs + 1);
    sim_after(sim, sim_below(sim, mean * 2 + 1), client_on_act, event->a, 0);
}

/* ---- connections ---- */

static void client_on_connect(struct sim *sim, struct event *event)
{
    int client = (int)event->a;
    struct client *c = &sim->clients[client];
    if (c->conn)
        return;
    if (!sim->server.up) {
        sim_after(sim, sim_between(sim, 10, 100) * MS, client_on_connect, event->a, 0);
        return;
    }
    c->conn = 10 + sim->next_number++;
    c->received = 0;
    sim_trace(sim, "client %d: connection %llu", client, (unsigned long long)c->conn);
    for (size_t i = 0; i < sim->sub_count; i++) {
        if (sim->subs[i].client == client && truth_wanted(&sim->subs[i]))
            client_up(sim, client, server_on_wait)->a = i;
    }
}

void client_start(struct sim *sim, int client)
{
    sim_after(sim, 0, client_on_connect, (uint64_t)client, 0);
    sim_after(sim, sim_below(sim, 50 * MS), client_on_act, (uint64_t)client, 0);
}

void client_cut(struct sim *sim, int client)
{
    struct client *c = &sim->clients[client];
    if (!c->conn)
        return;
    sim_send(sim, NODE_SERVER, NULL, sim_below(sim, 100 * MS), server_on_conn_closed)->b = c->conn;
    link_cut(&c->up);
    link_cut(&c->down);
    c->conn = 0;
    sim_after(sim, sim_between(sim, 1, 3000) * MS, client_on_connect, (uint64_t)client, 0);
}

void client_cancel_some(struct sim *sim)
{
    size_t number = sim_below(sim, sim->sub_count);
    struct sub *sub = &sim->subs[number];
    if (number < sim->sub_count && sub->known && sim->clients[sub->client].conn)
        client_up(sim, sub->client, server_on_cancel)->a = number;
}

void client_look(struct sim *sim)
{
    size_t number = sim_below(sim, sim->sub_count);
    struct sub *sub = &sim->subs[number];
    if (number >= sim->sub_count || !sub->known || !sim->clients[sub->client].conn)
        return;
    if (sim_chance(sim, 60))
        client_up(sim, sub->client, server_on_status)->a = number;
    else
        client_up(sim, sub->client, server_on_list)->a = sim_below(sim, 60);
}

void client_control(struct sim *sim, const char *verb, const char *name, uint64_t id)
{
    int client = 0;
    while (client < SIM_MAX_CLIENTS && !sim->clients[client].conn)
        client++;
    if (client == SIM_MAX_CLIENTS)
        return;
    char text[64] = {0};
    int size = snprintf(text, sizeof text, "%s%c%s", verb, 0, name ? name : "");
    struct buf bytes = {.data = (uint8_t *)text, .size = (size_t)size + 1};
    struct event *e = client_up(sim, client, server_on_control);
    event_frame(e, &bytes);
    e->a = id;
}
