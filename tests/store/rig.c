/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* nftw() */
#include "tests/store/rig.h"

#include <ftw.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "server/store/store_mem.h"
#include "tests/unit/unit.h"

#define START_MS UINT64_C(1700000000000)
#define WAIT_MS  20000

const struct backend backends[3] = {{"memory", &store_mem_plain, false, 0},
    {"lmdb, journal", &store_lmdb, true, 60000}, {"lmdb, tables", &store_lmdb, true, 1}};

void rig_start(struct rig *r)
{
    char *error = NULL;
    r->config.now_ms = r->now_ms;
    r->store = r->backend->ops->open(&r->config, &r->opened, &error);
    if (!r->store)
        fail_msg("%s", error);
}

void rig_open(struct rig *r, const struct backend *b)
{
    *r = (struct rig){.backend = b, .now_ms = START_MS};
    if (b->on_disk) {
        snprintf(r->directory, sizeof(r->directory), "%s/pushrod-store-XXXXXX",
            access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
        assert_non_null(mkdtemp(r->directory));
        r->config.path = r->directory;
        r->config.max_bytes = (uint64_t)1 << 30;
        r->config.settle_ms = b->settle_ms;
    }
    rig_start(r);
}

void rig_stop(struct rig *r)
{
    r->backend->ops->close(r->store);
    r->store = NULL;
    r->events = NULL;
    r->count = 0;
}

void rig_reopen(struct rig *r)
{
    if (r->backend->on_disk) {
        rig_stop(r);
        rig_start(r);
    } else {
        store_mem_restart(r->store, r->now_ms, &r->opened);
    }
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *walk)
{
    (void)info;
    (void)kind;
    (void)walk;
    return remove(path);
}

void rig_remove(struct rig *r)
{
    if (r->directory[0])
        nftw(r->directory, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

void rig_close(struct rig *r)
{
    rig_stop(r);
    rig_remove(r);
}

const struct store_event *rig_next(struct rig *r)
{
    while (!r->count) {
        r->count = r->backend->ops->poll(r->store, &r->events, 1);
        struct pollfd wait = {.fd = r->backend->ops->event_fd(r->store), .events = POLLIN};
        if (!r->count)
            assert_int_equal(wait.fd >= 0 ? poll(&wait, 1, WAIT_MS) : 0, 1);
    }
    r->count--;
    if (r->events->event != EVENT_OP)
        r->down = r->events->event == EVENT_STORE_DOWN;
    r->downs += r->events->event == EVENT_STORE_DOWN;
    return r->events++;
}

void rig_wait_up(struct rig *r)
{
    while (r->down)
        rig_next(r);
}

const struct store_event *rig_do(struct rig *r, const struct store_op *op)
{
    const struct store_event *e;
    r->backend->ops->submit(r->store, op, 1, r->now_ms);
    while ((e = rig_next(r))->event != EVENT_OP)
        ;
    assert_int_equal(e->kind, op->kind);
    assert_int_equal(e->token, op->token);
    return e;
}

struct record rig_record(uint64_t id, const char *queue, unsigned priority)
{
    return (struct record){.id = id,
        .queue = slice_str(queue),
        .payload = slice_str("payload"),
        .priority = (uint8_t)priority,
        .max_attempts = 3,
        .submitted_ms = START_MS};
}

const struct store_event *rig_append(struct rig *r, const struct record *record)
{
    return rig_do(r, &(struct store_op){.kind = STORE_APPEND, .token = 7, .record = record});
}

const struct store_event *rig_finish(struct rig *r, uint64_t id)
{
    struct finish f = {.id = id, .status = PUSHROD_DONE};
    return rig_do(r, &(struct store_op){.kind = STORE_FINISH, .finish = &f});
}

const struct store_event *rig_finish_kept(
    struct rig *r, uint64_t id, const char *result, uint64_t ms)
{
    struct finish f = {.id = id,
        .status = PUSHROD_DONE,
        .finished_ms = r->now_ms,
        .keep_until_ms = r->now_ms + ms,
        .result = slice_str(result),
        .attempts = 1};
    return rig_do(r, &(struct store_op){.kind = STORE_FINISH, .finish = &f});
}

const struct store_event *rig_kill(struct rig *r, uint64_t id, const char *text)
{
    struct finish f = {.id = id,
        .status = PUSHROD_FAILED,
        .code = PUSHROD_E_TASK_FAILED,
        .finished_ms = r->now_ms,
        .text = slice_str(text),
        .history = slice_str("how it died"),
        .dead = true};
    return rig_do(r, &(struct store_op){.kind = STORE_FINISH, .finish = &f});
}

const struct store_event *rig_fetch(
    struct rig *r, const char *queue, struct order_key after, uint32_t limit)
{
    return rig_do(
        r, &(struct store_op){
               .kind = STORE_FETCH, .queue = slice_str(queue), .after = after, .limit = limit});
}

const struct store_event *rig_due(struct rig *r, uint64_t until_ms, uint32_t limit)
{
    return rig_do(r, &(struct store_op){.kind = STORE_DUE, .until_ms = until_ms, .limit = limit});
}

const struct store_event *rig_id(struct rig *r, enum store_op_kind kind, uint64_t id)
{
    return rig_do(r, &(struct store_op){.kind = kind, .id = id, .token = id});
}

const struct store_event *rig_scan(struct rig *r, const char *queue, uint64_t after, uint32_t limit)
{
    return rig_do(
        r, &(struct store_op){
               .kind = STORE_SCAN, .queue = slice_str(queue), .id = after, .limit = limit});
}

const struct store_event *rig_purge(
    struct rig *r, const char *queue, const uint64_t *keep, size_t count)
{
    return rig_do(
        r, &(struct store_op){
               .kind = STORE_PURGE, .queue = slice_str(queue), .keep = keep, .keep_count = count});
}

struct body *rig_body(uint64_t id, size_t size)
{
    struct body *b = body_new(size);
    for (size_t i = 0; i < size; i++)
        b->data[i] = (uint8_t)(id * 31 + i * 7 + (i >> 13));
    return b;
}
