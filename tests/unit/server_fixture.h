/* SPDX-License-Identifier: Apache-2.0 */
/*
 * server_fixture: an embedded server with two task workers, any free ports and no store, driven by
 * step() from the test, and what its events said.
 */
#ifndef TESTS_SERVER_FIXTURE_H
#define TESTS_SERVER_FIXTURE_H

#include <poll.h>
#include <pushrod/server.h>
#include <pushrod/worker.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/unit/unit.h"

#define LIMIT_MS 20000

/* ---- handlers, in processes of their own ---- */

static int echo(struct pushrod_task *task, void *arg)
{
    size_t size;
    const void *data = pushrod_task_payload(task, &size);
    (void)arg;
    return pushrod_task_result(task, data, size);
}

static int refuse(struct pushrod_task *task, void *arg)
{
    (void)arg;
    return pushrod_task_fail(task, "never");
}

/* Ends when it is cancelled. */
static int hang(struct pushrod_task *task, void *arg)
{
    (void)arg;
    while (!pushrod_task_cancelled(task))
        poll(NULL, 0, 5);
    return pushrod_task_fail(task, "cancelled");
}

/* ---- a server, driven by step() ---- */

struct seen {
    unsigned started, stopped, joined, finishes, general, connects, closes, ticks, posts;
    struct pushrod_finish last;
    char result[64], error_text[64], tag[16], received[256];
    uint64_t conn;
    struct pushrod_group *group;
    size_t group_finished;
    bool group_done;
};

static struct seen seen;

static void copy_finish(const struct pushrod_finish *f)
{
    seen.last = *f;
    snprintf(seen.result, sizeof seen.result, "%.*s", (int)f->result_size, (const char *)f->result);
    snprintf(seen.error_text, sizeof seen.error_text, "%s", f->error_text);
    snprintf(seen.tag, sizeof seen.tag, "%.*s", (int)f->tag_size, (const char *)f->tag);
}

static inline void on_finish(struct pushrod_server *s, const struct pushrod_finish *f, void *arg)
{
    (void)s;
    assert_ptr_equal(arg, &seen);
    copy_finish(f);
    seen.finishes++;
}

static void on_general(struct pushrod_server *s, const struct pushrod_finish *f, void *arg)
{
    (void)s, (void)arg;
    copy_finish(f);
    seen.general++;
}

static void on_start(struct pushrod_server *s, void *arg)
{
    (void)s, (void)arg;
    seen.started++;
}

static void on_stop(struct pushrod_server *s, void *arg)
{
    (void)s, (void)arg;
    seen.stopped++;
}

static void on_join(struct pushrod_server *s, const struct pushrod_worker_note *note, void *arg)
{
    (void)s, (void)arg;
    assert_true(note->worker > 0 && note->name[0]);
    seen.joined++;
}

static void on_connect(struct pushrod_server *s, uint64_t conn, void *arg)
{
    (void)arg;
    seen.connects++;
    seen.conn = conn;
    assert_int_equal(pushrod_server_conn_set_data(s, conn, &seen), 0);
}

static void on_receive(
    struct pushrod_server *s, uint64_t conn, const void *data, size_t size, void *arg)
{
    size_t at = strlen(seen.received);
    (void)s, (void)conn, (void)arg;
    snprintf(
        seen.received + at, sizeof seen.received - at, "[%.*s]", (int)size, (const char *)data);
}

static void on_close(struct pushrod_server *s, uint64_t conn, int error, void *arg)
{
    (void)error, (void)arg;
    assert_ptr_equal(pushrod_server_conn_data(s, conn), &seen);
    seen.closes++;
}

static struct pushrod_server *server_new(void)
{
    const struct pushrod_server_events events = {
        .start = on_start,
        .stop = on_stop,
        .finish = on_general,
        .worker_join = on_join,
        .connect = on_connect,
        .receive = on_receive,
        .close = on_close,
    };
    memset(&seen, 0, sizeof seen);
    struct pushrod_server *s = pushrod_server_new();
    assert_non_null(s);
    pushrod_server_on(s, &events, NULL);
    assert_int_equal(pushrod_server_set(s, "task-workers", "2"), 0);
    assert_int_equal(pushrod_server_on_task(s, "echo", echo, NULL), 0);
    assert_int_equal(pushrod_server_on_task(s, "refuse", refuse, NULL), 0);
    assert_int_equal(pushrod_server_on_task(s, "hang", hang, NULL), 0);
    return s;
}

static void server_start(struct pushrod_server *s)
{
    int error = pushrod_server_start(s);
    if (error)
        fail_msg("start: %s", pushrod_server_error(s));
}

/* As a foreign loop does: waits for the descriptor, then steps. */
static int step(struct pushrod_server *s)
{
    struct pollfd poll_fd = {pushrod_server_fd(s), POLLIN, 0};
    assert_true(poll_fd.fd >= 0);
    assert_int_not_equal(poll(&poll_fd, 1, LIMIT_MS), 0);
    return pushrod_server_step(s);
}

#define STEP_UNTIL(s, condition)                                                                   \
    while (!(condition))                                                                           \
    assert_int_equal(step(s), 1)

static inline void server_stop(struct pushrod_server *s)
{
    pushrod_server_stop(s);
    while (step(s) == 1)
        continue;
    assert_int_equal(seen.stopped, 1);
    pushrod_server_free(s);
}

#endif
