/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Large payloads, which leave in pieces: what is small passes between two of them, and a worker
 * behind a slow line hears something. Only so many pieces are libzmq's at a time, for nothing can
 * pass what it has. It lets go of a piece when the kernel has it, on an I/O thread.
 *
 * The worker has to copy pieces together, so on a fast lane they are large. A piece is as large as
 * what leaves in a few milliseconds, as far as the last ones told.
 */
#include <assert.h>
#include <event2/event.h>
#include <stdlib.h>

#include "common/bell.h"
#include "common/clock.h"
#include "server/net/lane.h"
#include "server/net/plane_internal.h"

#define PIECES_AFLOAT 2u               /* one that leaves, and the next */
#define PIECE_LEAST   (64u << 10)      /* bytes */
#define PIECE_FIRST   (256u << 10)     /* on a lane that has had none */
#define PIECE_MOST    (8u << 20)       /* a Unix socket takes so much in less than 3 ms */
#define QUICK_NS      (4 * NS_PER_MS)  /* gone so soon, both of them: the next may be larger */
#define SLOW_NS       (16 * NS_PER_MS) /* ... and not before: smaller */

/* A payload on its way. */
struct load {
    struct list node;
    uint64_t id;
    uint64_t lease;
    struct body *body;
    size_t at; /* bytes that were sent */
};

/* Freed by the last of them, for libzmq may have pieces of a lane that is gone. */
struct afloat {
    atomic_uint count;  /* pieces that libzmq has, and one for the lane */
    atomic_size_t size; /* of the next piece, bytes */
    int bell;           /* of the plane: there is room for another */
};

struct piece {
    struct body body;
    struct body *whole;
    struct afloat *afloat;
    uint64_t since_ns; /* monotonic: libzmq has it */
};

/* --------------------------------------------------------------------- what is afloat */

static bool afloat_full(struct afloat *a)
{
    return atomic_load(&a->count) > PIECES_AFLOAT;
}

static void afloat_leave(struct afloat *a)
{
    int bell = a->bell;
    unsigned before = atomic_fetch_sub(&a->count, 1);
    assert(before > 0);
    if (before == 1)
        free(a);
    else if (before > PIECES_AFLOAT)
        bell_ring(bell);
}

static struct afloat *afloat_of(struct lane *lane)
{
    if (lane->afloat)
        return lane->afloat;
    struct afloat *a = malloc(sizeof *a);
    if (!a)
        return NULL;
    atomic_init(&a->count, 1);
    atomic_init(&a->size, PIECE_FIRST);
    a->bell = lane->plane->room_bell;
    return lane->afloat = a;
}

/* Any thread: of two that learn at the same time one is forgotten, which the next makes good. */
static void afloat_learn(struct afloat *a, size_t size, uint64_t took_ns)
{
    size_t now = atomic_load(&a->size);
    if (size != now)
        return;
    if (took_ns < QUICK_NS && now < PIECE_MOST)
        atomic_store(&a->size, 2 * now);
    else if (took_ns > SLOW_NS && now > PIECE_LEAST)
        atomic_store(&a->size, now / 2);
}

/* Any thread. */
static void piece_release(struct body *body)
{
    struct piece *p = container_of(body, struct piece, body);
    afloat_learn(p->afloat, body->size, clock_mono_ns() - p->since_ns);
    body_unref(p->whole);
    afloat_leave(p->afloat);
    free(p);
}

static struct body *piece_new(struct afloat *afloat, struct load *load)
{
    struct piece *p = malloc(sizeof *p);
    if (!p)
        return NULL;
    size_t left = load->body->size - load->at, most = atomic_load(&afloat->size);
    size_t size = left < most ? left : most;
    *p = (struct piece){
        .whole = body_ref(load->body), .afloat = afloat, .since_ns = clock_mono_ns()};
    body_init(&p->body, load->body->data + load->at, size, piece_release);
    atomic_fetch_add(&afloat->count, 1);
    load->at += size;
    return &p->body;
}

size_t lane_piece(const struct lane *lane)
{
    return lane->afloat ? atomic_load(&lane->afloat->size) : PIECE_FIRST;
}

/* ------------------------------------------------------------------- what is to be sent */

static void load_end(struct lane *lane, struct load *load)
{
    list_remove(&load->node);
    body_unref(load->body);
    free(load);
    if (list_empty(&lane->loads))
        list_remove(&lane->loaded);
}

bool lane_load(struct lane *lane, const struct task *task)
{
    struct load *load = malloc(sizeof *load);
    if (!load || !afloat_of(lane)) {
        free(load);
        return false;
    }
    *load = (struct load){
        .id = task->record.id, .lease = task->lease, .body = body_ref(task->record.body)};
    list_push_back(&lane->loads, &load->node);
    if (list_empty(&lane->loaded))
        list_push_back(&lane->plane->loaded, &lane->loaded);
    return true;
}

void lane_unload(struct lane *lane, uint64_t lease)
{
    list_foreach(node, next, &lane->loads)
    {
        struct load *load = container_of(node, struct load, node);
        if (load->lease == lease)
            load_end(lane, load);
    }
}

void lane_unload_all(struct lane *lane)
{
    for (struct list *node; (node = list_first(&lane->loads));)
        load_end(lane, container_of(node, struct load, node));
    if (lane->afloat)
        afloat_leave(lane->afloat);
    lane->afloat = NULL;
}

void lane_tell_unsent(struct lane *lane)
{
    struct plane *plane = lane->plane;
    assert(lane->state == LANE_LOST);
    list_foreach(node, next, &lane->loads)
    {
        struct load *load = container_of(node, struct load, node);
        plane->events.lane_unsent(plane->arg, lane->worker, load->id, load->lease);
    }
    lane_unload_all(lane);
}

/* False: there is none, or no room for it, or the lane is lost. */
static bool send_piece(struct lane *lane)
{
    struct list *first = list_first(&lane->loads);
    if (!first || lane->state != LANE_UP || afloat_full(lane->afloat))
        return false;
    struct load *load = container_of(first, struct load, node);
    struct msg_payload m = {.lease = load->lease};
    struct body *piece = piece_new(lane->afloat, load);
    if (!piece) {
        lane_cut(lane, PUSHROD_E_NO_MEMORY);
        return false;
    }
    /* One of each in turn: a payload of two pieces does not wait for one of a hundred. */
    list_remove(&load->node);
    list_push_back(&lane->loads, &load->node);
    if (lane_attach(lane, piece)) {
        msg_payload_encode(&lane->out, &m);
        if (load->at == load->body->size)
            load_end(lane, load);
    }
    body_unref(piece);
    lane_flush(lane);
    return true;
}

void lane_pump(struct lane *lane)
{
    while (send_piece(lane))
        ;
}

/* ---------------------------------------------------------------------------- the bell */

static void room_ready(evutil_socket_t fd, short what, void *arg)
{
    struct plane *plane = arg;
    (void)what;
    bell_quiet(fd);
    list_foreach(node, next, &plane->loaded)
    {
        lane_pump(container_of(node, struct lane, loaded));
    }
}

bool lane_room_open(struct plane *plane)
{
    plane->room_bell = bell_new();
    if (plane->room_bell < 0)
        return false;
    plane->room = event_new(
        loop_base(plane->loop), plane->room_bell, EV_READ | EV_PERSIST, room_ready, plane);
    return plane->room && event_add(plane->room, NULL) == 0;
}

void lane_room_close(struct plane *plane)
{
    if (plane->room)
        event_free(plane->room);
    if (plane->room_bell >= 0)
        close(plane->room_bell);
}
