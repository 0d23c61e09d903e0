/* SPDX-License-Identifier: Apache-2.0 */
/*
 * packed: records and finishes as bytes, as they lie in a journal, a table or in memory.
 *
 * Knows the layout (little-endian, as every host that we run on) and nothing of who keeps it.
 * A body is not part of the bytes: a record whose payload has one is packed with its size only,
 * and unpacks with payload.data NULL and payload.size set; its keeper puts the body back.
 */
#ifndef SERVER_STORE_PACKED_H
#define SERVER_STORE_PACKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "server/store/store.h"

/* What the store knows of a record and the core does not. */
struct packed_state {
    uint8_t boot;     /* low byte of the boot in which the record entered a window */
    bool expiry_told; /* DUE has given it as expired: it is in no agenda for that any more */
};

size_t record_packed_size(const struct record *r);
void record_pack(uint8_t *to, const struct record *r, struct packed_state state);
/* Borrows from the bytes; false: they are not a record. state may be NULL. */
bool record_unpack(const uint8_t *from, size_t size, struct record *r, struct packed_state *state);
/* The same of bytes that are known to be one. */
void record_load(const uint8_t *from, size_t size, struct record *r, struct packed_state *state);

/* A finish that nobody wants is its id only. */
size_t finish_packed_size(const struct finish *f);
void finish_pack(uint8_t *to, const struct finish *f);
bool finish_unpack(const uint8_t *from, size_t size, struct finish *f);
void finish_load(const uint8_t *from, size_t size, struct finish *f);

/* Of a payload or result, its size alone: the bytes lie in a body. */
static inline bool slice_detached(struct slice s)
{
    return !s.data && s.size;
}

/* What a RESCHEDULE changes, laid over the record that is there. */
void record_reschedule(struct record *r, const struct record *change);
/* What a REVIVE changes: as new, in a window, without the deadline that it missed. */
void record_revive(struct record *r);

/* Why a moment is in the agenda; in this order when moments are equal. */
enum agenda_kind { AGENDA_DUE = 0, AGENDA_EXPIRE = 1, AGENDA_UNIQUE = 2 };

/* Both as one number: see STORE_LATEST_MS. */
static inline uint64_t agenda_moment(uint64_t when_ms, enum agenda_kind kind)
{
    return when_ms * 4 + kind;
}

static inline uint64_t agenda_ms(uint64_t moment)
{
    return moment / 4;
}

static inline enum agenda_kind agenda_kind(uint64_t moment)
{
    return (enum agenda_kind)(moment & 3);
}

static inline bool order_key_less(struct order_key a, struct order_key b)
{
    return a.rank < b.rank || (a.rank == b.rank && a.id < b.id);
}

/*
 * May it have been handed out before this life of the store? It was in a window of an earlier one,
 * or is at or before the edge that this one began with. An edge with id 0 has never been anywhere.
 */
static inline bool record_maybe_running(
    const struct record *r, struct packed_state state, uint64_t boot, struct order_key edge)
{
    struct order_key key = {(uint8_t)(9 - r->priority), r->id};
    bool windowed = r->windowed && state.boot != (uint8_t)boot;
    return windowed || (edge.id && !order_key_less(edge, key));
}

/* PURGE: does the id stay? Those that do are sorted. */
bool purge_keeps(const uint64_t *keep, size_t count, uint64_t id);

#endif
