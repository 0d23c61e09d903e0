/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rig: a store of any backend for a test, with operations that wait for their events.
 */
#ifndef TESTS_STORE_RIG_H
#define TESTS_STORE_RIG_H

#include <pushrod/error.h>
#include <pushrod/task.h>
#include "common/body.h"
#include "server/store/store.h"

struct backend {
    const char *name;
    const struct store_ops *ops;
    bool on_disk;
    uint32_t settle_ms; /* lmdb: 1 brings everything to the tables at once */
};

/* memory; lmdb, mostly in its journal; lmdb, mostly in its tables */
extern const struct backend backends[3];

struct rig {
    const struct backend *backend;
    struct store *store;
    struct store_opened opened;
    struct store_config config;
    char directory[64];
    uint64_t now_ms;
    const struct store_event *events; /* of the last rig_wait() */
    size_t count;
    bool down;    /* as the last DOWN or UP said */
    size_t downs; /* DOWN events so far */
};

void rig_open(struct rig *r, const struct backend *b); /* a new, empty store */
void rig_start(struct rig *r);                         /* open the directory that is there */
void rig_stop(struct rig *r);
void rig_reopen(struct rig *r);
void rig_close(struct rig *r); /* and remove the directory */
void rig_remove(struct rig *r);

/* The event of one operation; valid until the next call. Fails the test after 20 s. */
const struct store_event *rig_do(struct rig *r, const struct store_op *op);
/* The next event of any kind. */
const struct store_event *rig_next(struct rig *r);
void rig_wait_up(struct rig *r); /* until the store takes writes */

/* Shorthands; each gives the event. */
struct record rig_record(uint64_t id, const char *queue, unsigned priority);
const struct store_event *rig_append(struct rig *r, const struct record *record);
const struct store_event *rig_finish(struct rig *r, uint64_t id);
const struct store_event *rig_finish_kept(
    struct rig *r, uint64_t id, const char *result, uint64_t ms);
const struct store_event *rig_kill(
    struct rig *r, uint64_t id, const char *text); /* a dead letter */
const struct store_event *rig_fetch(
    struct rig *r, const char *queue, struct order_key after, uint32_t limit);
const struct store_event *rig_due(struct rig *r, uint64_t until_ms, uint32_t limit);
const struct store_event *rig_id(struct rig *r, enum store_op_kind kind, uint64_t id);
const struct store_event *rig_scan(
    struct rig *r, const char *queue, uint64_t after, uint32_t limit);
const struct store_event *rig_purge(
    struct rig *r, const char *queue, const uint64_t *keep, size_t count);

/* Fills a payload that tells its id. */
struct body *rig_body(uint64_t id, size_t size);

#endif
