/* SPDX-License-Identifier: Apache-2.0 */
/*
 * native_play: a server in this process, and connections to it whose bytes arrive in pieces of the
 * test's choice. A header of static functions, because fuzzers link to nothing but the library.
 *
 * Each piece is read by the server before the next one is written: a read of its own.
 */
#ifndef TESTS_NATIVE_PLAY_H
#define TESTS_NATIVE_PLAY_H

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "proto/codec.h"
#include "proto/frame.h"
#include "proto/messages.h"
#include "server/api.h"
#include "server/net/conn_impl.h"

#define NATIVE_PLAY_PAYLOAD (512u << 10) /* max-payload: larger than what is read in one piece */

struct native_play {
    struct pushrod_server *server;
};

/* The client's end, and all that the server has said. */
struct native_peer {
    int fd;
    struct buf heard;
    bool closed; /* by the server */
};

#define NATIVE_MUST(truth)                                                                         \
    do {                                                                                           \
        if (!(truth)) {                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #truth);                            \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static inline void native_play_start(struct native_play *p)
{
    static const char *const options[][2] = {{"join-port", "0"}, {"answers-port", "0"},
        {"max-workers", "4"}, {"max-clients", "16"}, {"max-payload", "512k"}, {"max-tasks", "2000"},
        {"max-bytes", "64m"}, {"log-level", "error"}};
    p->server = pushrod_server_new();
    NATIVE_MUST(p->server);
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        NATIVE_MUST(pushrod_server_set(p->server, options[i][0], options[i][1]) == 0);
    if (pushrod_server_start(p->server) != 0) {
        fprintf(stderr, "start: %s\n", pushrod_server_error(p->server));
        abort();
    }
}

static inline void native_play_stop(struct native_play *p)
{
    pushrod_server_free(p->server);
    p->server = NULL;
}

static inline void native_play_turn(struct native_play *p)
{
    NATIVE_MUST(pushrod_server_step(p->server) == 1);
}

static inline void native_peer_open(struct native_play *p, struct native_peer *peer)
{
    int ends[2], size = 4 << 20;
    struct sockaddr_storage address = {.ss_family = AF_UNIX};
    NATIVE_MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
    setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    loop_enter(p->server->loop);
    conn_accept(p->server->conns, ends[0], &native_ops, p->server->native, &address);
    *peer = (struct native_peer){.fd = ends[1]};
    native_play_turn(p);
}

/* Reads what the server has said. */
static inline void native_peer_hear(struct native_peer *peer)
{
    for (;;) {
        uint8_t *room = buf_reserve(&peer->heard, 65536);
        NATIVE_MUST(room);
        ssize_t got = recv(peer->fd, room, 65536, 0);
        peer->closed |= got == 0 || (got < 0 && errno == ECONNRESET);
        if (got <= 0)
            return;
        peer->heard.size += (size_t)got;
    }
}

/* Writes one piece, and lets the server read it: as often as it takes for what is written. */
static inline void native_peer_say(
    struct native_play *p, struct native_peer *peer, const void *data, size_t size)
{
    const uint8_t *at = data;
    while (size && !peer->closed) {
        ssize_t sent = send(peer->fd, at, size, MSG_NOSIGNAL);
        if (sent > 0) {
            at += sent;
            size -= (size_t)sent;
        } else if (sent < 0 && errno != EAGAIN) {
            peer->closed = true;
        }
        native_play_turn(p);
        native_peer_hear(peer);
    }
    /* Whatever it answers is said two rounds later at the latest: the store is polled between. */
    for (unsigned i = 0; i < 3; i++)
        native_play_turn(p);
    native_peer_hear(peer);
}

/* Every byte that was written has been read. */
static inline void native_peer_settle(struct native_play *p, struct native_peer *peer, size_t size)
{
    for (size_t i = 0; i < 4 + size / 65536 * 2; i++) {
        native_play_turn(p);
        native_peer_hear(peer);
    }
}

static inline void native_peer_close(struct native_play *p, struct native_peer *peer)
{
    close(peer->fd);
    for (unsigned i = 0; i < 3; i++)
        native_play_turn(p);
    buf_free(&peer->heard);
}

/* ---- what was heard ---- */

/* Who dialled the wrong port is told so in plain text, before anything else and instead of it. */
static inline bool native_peer_hinted(const struct native_peer *peer)
{
    const uint8_t *heard = peer->heard.data;
    return peer->heard.size >= 4 && (!memcmp(heard, "HTTP", 4) || !memcmp(heard, "this", 4));
}

/* Calls fn for each message. Aborts if it is not whole frames of messages of the server. */
static inline void native_peer_each(
    const struct native_peer *peer, void (*fn)(void *arg, unsigned number, struct dec d), void *arg)
{
    const uint8_t *at = peer->heard.data, *end = at + peer->heard.size;
    while (at < end && !native_peer_hinted(peer)) {
        NATIVE_MUST(end - at >= (ptrdiff_t)FRAME_HEAD);
        size_t size = frame_size(at);
        NATIVE_MUST((size_t)(end - at) >= FRAME_HEAD + size);
        struct dec d = dec_of(slice_of(at + FRAME_HEAD, size));
        while (dec_more(&d)) {
            enum msg_plane plane = PLANE_NESTED;
            struct dec skipping = d;
            unsigned number = dec_message(&skipping);
            NATIVE_MUST(msg_known(number, &plane) && plane == PLANE_CLIENT_DOWN);
            fn(arg, number, skipping);
            dec_skip_message(&skipping, number);
            NATIVE_MUST(!dec_failed(&skipping));
            d = skipping;
        }
        at += FRAME_HEAD + size;
    }
}

struct native_heard {
    size_t counts[128];
    unsigned error;        /* code of the ERROR; 0: none */
    unsigned rejected;     /* code of the last REJECTED */
    uint64_t last_request; /* of the last ACCEPTED */
    bool in_order;         /* requests of ACCEPTED rose */
};

static inline void native_heard_add(void *arg, unsigned number, struct dec d)
{
    struct native_heard *h = arg;
    struct msg_error error;
    struct msg_rejected rejected;
    struct msg_accepted accepted;
    if (number < 128)
        h->counts[number]++;
    if (number == MSG_ERROR && msg_error_decode(&d, &error))
        h->error = (unsigned)error.code;
    if (number == MSG_REJECTED && msg_rejected_decode(&d, &rejected))
        h->rejected = (unsigned)rejected.code;
    if (number == MSG_ACCEPTED && msg_accepted_decode(&d, &accepted)) {
        h->in_order &= accepted.request > h->last_request;
        h->last_request = accepted.request;
    }
}

static inline struct native_heard native_peer_heard(const struct native_peer *peer)
{
    struct native_heard h = {.in_order = true};
    native_peer_each(peer, native_heard_add, &h);
    return h;
}

#endif
