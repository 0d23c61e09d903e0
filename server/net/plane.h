/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plane: the worker side of the server's sockets: join (ROUTER), answers (PULL), one lane (PUSH)
 * for each worker with its monitor, and the ZAP handler that guards them.
 *
 * Knows ZeroMQ and the messages; decides nothing: what arrives is handed to the core through the
 * callbacks, what the core decides comes back as actions. Nothing else in the server touches
 * ZeroMQ. Narrow, so that another carrier can stand behind it.
 *
 * One thread, that of the loop; libzmq's I/O threads and that of ZAP are its own business.
 */
#ifndef SERVER_NET_PLANE_H
#define SERVER_NET_PLANE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "server/core/core.h"

struct loop;
struct plane;

#define PLANE_STRANGERS 256u

struct plane_config {
    const char *listen;    /* address to bind join, answers and lanes to: "127.0.0.1", "0.0.0.0" */
    const char *advertise; /* host told to workers; NULL: the one that they dialled */
    const char *token;     /* what JOIN must carry; NULL or "": nothing */
    const char *unix_base; /* of the names of Unix sockets for workers of this host; NULL: none */
    uint16_t join_port;    /* 5571; 0: any free one (tests) */
    uint16_t answers_port; /* 5572; 0: any free one */
    uint16_t lane_port_first; /* 22500; 0 with last 0: any free ones */
    uint16_t lane_port_last;  /* 23523 */
    uint32_t max_lanes;       /* 1024 */
    uint32_t strangers;       /* PLANE_STRANGERS: to each of join, answers, all lanes together */
    uint32_t io_threads;      /* 2 */
    uint64_t heartbeat_ms;    /* told to workers */
    uint64_t ping_ms;
    size_t max_result;
    size_t max_message; /* bytes of one message from a worker; larger ones cut its connection */
};

/*
 * What arrives; all is borrowed until the callback returns. The callee calls into the core.
 * None of them may free the plane; all else of this header may be called from them.
 * answers() with count 0 says only that the worker is alive: what it sent had been taken before,
 * or lies behind a gap and will be sent again.
 */
struct plane_events {
    void (*join)(void *arg, const struct join *join);
    void (*obituary)(void *arg, const struct msg_obituary *obituary);
    void (*answers)(
        void *arg, uint64_t worker, uint64_t session, const struct answer *, size_t count);
    /* Its admitted peer is gone, and has what it will ever have; what it said may still come. */
    void (*lane_cut)(void *arg, uint64_t worker);
    /* ... and not all of an attempt's payload had left. */
    void (*lane_unsent)(void *arg, uint64_t worker, uint64_t id, uint64_t lease);
    /* Nothing more comes of it: since when it is gone, by the monotonic clock. */
    void (*lane_down)(void *arg, uint64_t worker, int code, uint64_t since_ns);
};

/* Descriptors that such a plane may have at the most. The loop and its caller have others. Who
 * makes one sees to it that so many are allowed: at the limit libzmq aborts instead of failing. */
uint64_t plane_descriptors(const struct plane_config *config);

/* NULL: *error is a text for people that the caller frees ("port 5571 is taken: ..."). */
struct plane *plane_new(struct loop *loop, const struct plane_config *config,
    const struct plane_events *events, void *arg, char **error);
/* Closes the lanes that are left. A REFUSED on its way out gets 100 ms, nothing else waits. */
void plane_free(struct plane *plane);

/* For those who join from now on. Copied; false: no memory, the old one stays. */
bool plane_set_token(struct plane *plane, const char *token);

/* The address of all its ports as a number; NULL: every one of this host. */
const char *plane_address(const struct plane *plane);
uint16_t plane_join_port(const struct plane *plane);
uint16_t plane_answers_port(const struct plane *plane);

/* Binds a lane and sends WELCOME. Not 0: nothing was bound, the peer was told REFUSED. */
int plane_welcome(struct plane *plane, const struct join_action *action);
void plane_refuse(struct plane *plane, const struct join_action *action);
/* Destroys the lane and what is queued on it; tells the peer why if action->code is not 0. */
void plane_close(struct plane *plane, const struct join_action *action);

/* Appends to the lane's message of this tick; an unknown worker is ignored (it was just lost). */
void plane_put(struct plane *plane, const struct lane_action *action);
/* Sends what was put, one message for each lane. */
void plane_flush(struct plane *plane);

/* Reads every socket without waiting, before deadlines are judged after a long pause. */
void plane_drain_input(struct plane *plane);

/* P(name, kind, text): counters for /metrics. */
#define PLANE_STATS(P)                                                                             \
    P(joins, counter, "JOIN messages taken")                                                       \
    P(strangers, counter, "connections that a lane or the answers port did not admit")             \
    P(garbage, counter, "messages from workers that could not be decoded")                         \
    P(bad_tokens, counter, "JOIN messages with a wrong token, or none")                            \
    P(lane_messages, counter, "messages sent on lanes")                                            \
    P(lane_bytes, counter, "bytes sent on lanes")                                                  \
    P(answer_messages, counter, "messages read from workers")                                      \
    P(answer_bytes, counter, "bytes read from workers")                                            \
    P(repeated, counter, "answers that had been taken before")                                     \
    P(gaps, counter, "answers not taken because one before them was lost; they come again")        \
    P(stale, counter, "messages of a session that was forgotten long ago")                         \
    P(lanes, gauge, "lanes that are open")

struct plane_stats {
#define P(name, kind, text) uint64_t name;
    PLANE_STATS(P)
#undef P
};

const struct plane_stats *plane_stats(const struct plane *plane);

#endif
