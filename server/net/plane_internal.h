/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the plane share: plane.c (life, actions), plane_open.c, lane.c, join.c,
 * peers.c, answers.c, speakers.c, socket.c. Nobody else includes it, but for their tests.
 */
#ifndef SERVER_NET_PLANE_INTERNAL_H
#define SERVER_NET_PLANE_INTERNAL_H

#include <zmq.h>

#include "common/list.h"
#include "common/map.h"
#include "common/unixsock.h"
#include "server/net/answer_parse.h"
#include "server/net/loop.h"
#include "server/net/monitor.h"
#include "server/net/peers.h"
#include "server/net/plane.h"
#include "server/net/ports.h"
#include "server/net/watch.h"
#include "server/net/zap.h"

struct lane;

#define SOCKET_HOST 64u /* of an address as a number, its NUL included */

/* A socket of the plane that is bound for as long as the plane lives. */
struct gate {
    void *socket;
    struct watch watch;
    struct monitor monitor;
    uint16_t port;
    char host[SOCKET_HOST];        /* the address as a number */
    char unix_name[UNIXSOCK_NAME]; /* "": none */
};

struct plane {
    struct loop *loop;          /* borrowed */
    struct plane_config config; /* with strings of its own */
    struct plane_events events;
    void *arg;
    void *context;
    struct zap *zap;
    struct gate join;    /* ROUTER */
    struct gate answers; /* PULL */
    struct ports ports;
    struct peers peers;
    struct idmap lanes;  /* worker -> struct lane * */
    struct list dirty;   /* lanes with something to flush */
    struct list loaded;  /* lanes with payloads that leave in pieces */
    int room_bell;       /* libzmq has room for another piece; -1: none */
    struct event *room;  /* ... and what listens to it */
    struct list parting; /* closed lanes whose last words are on their way, oldest first */
    size_t parting_count;
    struct crowd_places lane_places; /* of strangers, on all lanes together */
    struct strmap speakers;          /* user -> struct speaker * */
    struct list retired;             /* speakers whose lane is closed, the oldest first */
    size_t retired_count;
    bool join_rest; /* join: what comes next is more of a message that is dropped */
    bool reading;   /* answers: speakers must not be freed */
    bool unread;    /* answers: something is left of this message: */
    zmq_msg_t message;
    struct answer_frame frame;
    uint64_t last_lane; /* number of the last lane that was made */
    struct plane_stats stats;
};

/* plane_open.c; false: *error is a text for people that the caller frees. */
bool plane_open(struct plane *plane, char **error); /* context, ZAP, answers, join */
void gate_close(struct gate *gate);
bool lane_room_open(struct plane *plane);  /* lane_pieces.c; false: errno says why */
void lane_room_close(struct plane *plane); /* libzmq has none of the plane's pieces any more */
uint32_t plane_strangers(const struct plane_config *config);

/* socket.c: what all sockets have in common. */
/* The kernel's own question to a silent host, in seconds: the first, the next ones, how many. */
struct keepalive {
    int idle, interval, count;
};

struct socket_options {
    const char *domain; /* of ZAP */
    bool plain;         /* user and token are asked for; else anybody may come */
    int send_mark;      /* SNDHWM; 0: none */
    int receive_mark;   /* RCVHWM; 0: none */
    int64_t max_message;
    int backlog;
    struct keepalive keepalive; /* zero: for strangers, who are not waited for */
};

void *socket_make(void *context, int type, const struct socket_options *options);
/* `port` 0: any free one. The port, or 0 with errno. */
uint16_t socket_bind(void *socket, const char *listen, uint16_t port);
/* The port of a socket that was bound last, and the address as a number; 0: it is none of TCP. */
uint16_t socket_bound(void *socket, char host[SOCKET_HOST]);
/* At an abstract Unix socket as well; the name is made from its two parts, and "" without one. */
void socket_bind_unix(void *socket, const char *base, const char *what, char name[UNIXSOCK_NAME]);

/* join.c */
bool join_ready(void *plane);
void join_welcome(struct plane *plane, struct peer *peer, const struct lane *lane,
    const char *token, const struct join_action *action);
/* Tells the peer and forgets it. False: it is not there any more. */
bool join_refuse(struct plane *plane, struct peer *peer, int code, const char *text, bool retry);

/* answers.c */
bool answers_ready(void *plane);
/* The same, called by hand instead of by the watch. True: more is left, and the watch knows. */
bool answers_poll(struct plane *plane);
void answers_close(struct plane *plane); /* drops what is left of a message */

#endif
