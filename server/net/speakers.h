/* SPDX-License-Identifier: Apache-2.0 */
/*
 * speakers: who may speak on the answers port. There is one for each session, known by the
 * User-Id that ZAP authenticated; it outlives its lane for a while, for half of the answers of a
 * worker that was killed arrive after its lane has gone. The oldest of those is forgotten first.
 */
#ifndef SERVER_NET_SPEAKERS_H
#define SERVER_NET_SPEAKERS_H

#include <stdbool.h>
#include <stdint.h>
#include "common/list.h"
#include "server/net/zap.h"

struct lane;
struct plane;

struct speaker {
    char user[ZAP_NAME_SIZE]; /* key in the map; the authenticated User-Id */
    uint64_t worker;
    uint64_t session;
    uint64_t taken;    /* sequence number of the last answer that was taken */
    bool cut;          /* it sent garbage: nothing is taken from it any more */
    struct lane *lane; /* NULL: closed */
    struct list node;  /* in `retired`, or alone */
};

/* Owned by the plane. NULL: no memory. */
struct speaker *speaker_add(struct plane *plane, uint64_t worker, uint64_t session);
void speaker_drop(struct plane *plane, struct speaker *speaker);
/* Its lane is closed: what still arrives is taken, and no new connection is. */
void speaker_retire(struct plane *plane, struct speaker *speaker);
void speakers_trim(struct plane *plane); /* not while answers are read: they name one */

#endif
