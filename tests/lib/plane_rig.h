/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plane_rig: a plane in an event loop, and workers that are not ours, for tests.
 *
 * The rig records what the plane says, and answers nothing by itself. A fake worker speaks the
 * protocol through plain ZeroMQ sockets that never wait; a test turns the loop until what it waits
 * for is there.
 */
#ifndef TESTS_LIB_PLANE_RIG_H
#define TESTS_LIB_PLANE_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <event2/event.h>
#include "proto/codec.h"
#include "server/net/loop.h"
#include "server/core/task.h"
#include "server/net/plane.h"

#define RIG_SEEN 64u

struct rig {
    struct loop *loop;
    struct event_base *base; /* of the loop, whose ticks have no hooks */
    struct event *tick;      /* so that conditions outside the loop are looked at */
    struct plane *plane;
    struct plane_config config;
    size_t joins;
    struct join join; /* the last one; its slices are gone */
    char name[130];
    size_t queue_count;
    struct held held[8];
    size_t obituaries;
    size_t calls;                 /* of answers() */
    size_t answers;               /* all together */
    uint64_t sum;                 /* of their ids, where they have one */
    struct answer seen[RIG_SEEN]; /* the last ones, by sequence number; data is gone */
    uint64_t last_sequence;
    uint64_t beats; /* HEARTBEATs, which have no number */
    uint64_t from_worker, from_session;
    bool out_of_order;
    size_t cuts;
    uint64_t unsent; /* the sum of their ids */
    size_t lost;
    size_t answers_at_loss;
    uint64_t lost_worker;
    int lost_code;
    uint64_t lost_since_ns;
};

/* Any free ports on loopback, unless `change` changes that. */
void plane_rig_start(struct rig *rig, void (*change)(struct plane_config *));
void plane_rig_stop(struct rig *rig);
void plane_rig_turn(struct rig *rig); /* whatever is there, without waiting */

/* One round; aborts when the time is over, naming what was waited for. */
void plane_rig_wait(struct rig *rig, uint64_t begun_ns, const char *what);
uint64_t plane_rig_now(void);
#define RIG_UNTIL(rig, expression)                                                                 \
    for (uint64_t begun_ns = plane_rig_now(); !(expression);)                                      \
    plane_rig_wait((rig), begun_ns, #expression)

/* What the core would do. */
int plane_rig_welcome(struct rig *rig, uint64_t worker, uint64_t session);
void plane_rig_close(struct rig *rig, uint64_t worker, int code);
/* A task of the queue "digest", with what a lane reads of it. */
struct task plane_rig_task_of(uint64_t id, struct slice payload, struct body *body);
void plane_rig_task(struct rig *rig, uint64_t worker, const struct task *task); /* put, as well */
void plane_rig_ack(struct rig *rig, uint64_t worker, uint64_t sequence); /* put, not flushed */

struct fake {
    struct rig *rig;
    void *context;
    void *dealer;
    void *lane;
    void *answers;
    uint8_t instance[16];
    uint8_t nonce[16];
    /* of the WELCOME */
    bool welcomed;
    struct msg_welcome welcome; /* text is in the fields below */
    char user[64];
    char token[80];
    size_t verdicts;
    /* of the REFUSED */
    bool refused;
    uint64_t code;
    bool retry;
    char text[512];
    /* of the lane */
    size_t frames;
    size_t hellos, tasks, acks, pings, fences;
    bool hello_first;
    uint64_t last_ack;
    struct msg_task task;    /* the last one; its slices are gone */
    size_t payload;          /* bytes of its payload */
    bool payload_alone;      /* it came as a part of its own */
    uint8_t payload_sum;     /* exclusive or of its bytes */
    uint64_t payload_chain;  /* of the sums of all payloads, in their order */
    size_t passed;           /* tasks that came between two pieces */
    size_t missing;          /* bytes of the payload that comes in pieces */
    struct msg_task partial; /* ... and its task: those that count are whole */
    size_t partial_size;
    uint8_t partial_sum;
};

void fake_start(struct fake *fake, struct rig *rig);
void fake_stop(struct fake *fake);
void fake_again(struct fake *fake); /* a fresh nonce, and nothing known */
/* A JOIN that is right; change what you like before fake_send(). */
struct msg_join fake_join_message(struct fake *fake, struct buf *scratch);
void fake_join(struct fake *fake);
void fake_send(struct fake *fake, const struct msg_join *join);
void fake_send_raw(struct fake *fake, const void *data, size_t size);
bool fake_is_welcome(void *fake); /* these read, too */
bool fake_is_refused(void *fake);
bool fake_has_hello(void *fake);
bool fake_has_task(void *fake); /* waits for the next one: clear `tasks` before */

void *fake_plain(void *context, int type, const char *user, const char *token);
void fake_connect(void *socket, uint64_t port);
void fake_connect_lane(struct fake *fake);
void fake_connect_answers(struct fake *fake, uint16_t port); /* 0: the real one */
void fake_read_lane(struct fake *fake);
/* Joins, is welcomed as this worker, connects both, has LANE_HELLO. */
void fake_up(struct fake *fake, uint64_t worker, uint64_t session);

/* Begins a frame of answers. */
void fake_from(struct fake *fake, struct buf *frame, uint64_t sequence);
void fake_push(struct fake *fake, struct buf *frame); /* sends, waiting if it must; empties it */
/* TASK_DONE of ids sequence ... sequence + count - 1, in one frame. */
void fake_done(struct fake *fake, uint64_t sequence, size_t count, struct slice result);

#endif
