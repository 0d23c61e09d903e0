/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lane: the private PUSH from the server to one worker; it has one life.
 *
 *   WAITING  bound, nobody admitted yet
 *   UP       the admitted peer is there; LANE_HELLO was the first that it was sent
 *   LOST     its peer is gone, or it was cut; lane_cut and lane_down follow, from the event loop
 *
 * Whether the admitted peer is there is asked of the socket itself: a bound PUSH can be written to
 * exactly while it has a peer whose handshake succeeded. Monitor events do not tell its
 * disconnect from that of a port scan.
 */
#ifndef SERVER_NET_LANE_H
#define SERVER_NET_LANE_H

#include <stdbool.h>
#include <stdint.h>
#include "common/buf.h"
#include "common/list.h"
#include "common/unixsock.h"
#include "server/net/monitor.h"
#include "server/net/plane.h"
#include "server/net/speakers.h"
#include "server/net/watch.h"
#include "server/net/zap.h"

enum lane_state { LANE_WAITING, LANE_UP, LANE_LOST };

/* Payloads that leave as parts of one message. */
#define LANE_BODIES 32

struct lane {
    struct plane *plane;
    uint64_t worker;
    uint64_t session;
    uint64_t peer; /* handle of who joined */
    struct speaker *speaker;
    enum lane_state state;
    uint16_t port;
    char unix_name[UNIXSOCK_NAME]; /* "": none */
    bool farewell;                 /* the last words are worth waiting for */
    int code;                      /* LOST: why */
    void *socket;
    struct watch watch;
    struct monitor monitor;
    struct buf out;                   /* records of this tick */
    struct body *bodies[LANE_BODIES]; /* ... and the payloads that follow them, one part each */
    unsigned body_count;
    size_t body_bytes;
    struct list loads;       /* payloads that leave in pieces, one of each in turn */
    struct list loaded;      /* in the plane's list while there are any, or alone */
    struct afloat *afloat;   /* pieces that are libzmq's; NULL: there was none yet */
    struct list dirty;       /* in the plane's list, or among those that part, or alone */
    struct loop_timer grace; /* LOST: until lane_down; of a lane with last words, until its end */
    uint64_t lost_ns;        /* monotonic: since when it is LOST */
    uint64_t grace_end_ns;   /* monotonic: no answer puts it off any longer */
    bool cut, told;          /* LOST: lane_cut, lane_down was called */
    uint64_t heard;          /* frames of answers in this session */
};

/* NULL: *why is a text, *code the error. `token` is what the worker has to know. */
struct lane *lane_open(struct plane *plane, const struct join_action *action,
    char token[ZAP_TOKEN_SIZE], const char **why, int *code);
/* It is gone for the plane; if it has last words, its socket stays until they were read. */
void lane_close(struct lane *lane);
void lane_part_now(struct plane *plane); /* the oldest of those; there is one */
struct lane *lane_find(const struct plane *plane, uint64_t worker); /* NULL: none */

void lane_put(struct lane *lane, const struct lane_action *action);
void lane_flush(struct lane *lane);
/* Reads the state of the socket; after whatever may have changed it. */
void lane_look(struct lane *lane);
void lane_heard(struct lane *lane); /* a frame of answers came */
void lane_cut(struct lane *lane, int code);
/*
 * Adds a part to the message that is being made, with a reference of its own; the record that it
 * belongs to is put next. False: the lane is not up, or is lost now.
 */
bool lane_attach(struct lane *lane, struct body *body);

/* lane_pieces.c */
size_t lane_piece(const struct lane *lane); /* bytes: a larger payload leaves in pieces */
/* The payload of a task that was put without; false: no memory. */
bool lane_load(struct lane *lane, const struct task *task);
void lane_unload(struct lane *lane, uint64_t lease); /* what is left of it is not sent any more */
void lane_unload_all(struct lane *lane);
void lane_tell_unsent(struct lane *lane); /* LOST: whose payloads did not leave; drops them */
void lane_pump(struct lane *lane);        /* sends what there is room for */

#endif
