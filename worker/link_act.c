/* SPDX-License-Identifier: Apache-2.0 */
/* What the runner reports, and what the session wants done. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "common/bell.h"
#include "common/log.h"
#include "common/retry.h"
#include "worker/link_impl.h"
#include "worker/supervise.h"

/* A frame for which others have to wait, on its way to another host. */
#define LARGE_FRAME (16u << 10)

/* ----------------------------------------------------------------------- reports */

static void take_report(struct link *l, const struct report *r)
{
    struct session *s = l->session;
    const struct pushrod_task *task = r->task;
    switch (r->kind) {
    case REPORT_DONE:
        session_done(s, r->lease, task->run_ns, buf_slice(&task->result));
        break;
    case REPORT_FAILED:
        session_failed(s, r->lease, task->run_ns, &task->failure);
        break;
    case REPORT_BROKEN:
        log_error("%.*s", (int)task->failure.text.size, (const char *)task->failure.text.data);
        session_broken(s, r->lease, task->failure.text);
        break;
    case REPORT_PROGRESS: {
        struct slice text = r->size ? slice_of(r->data, r->size) : (struct slice){0};
        session_progress(s, r->lease, r->done, r->total, text);
        break;
    }
    case REPORT_DATA:
        session_data(s, r->lease, slice_of(r->data, r->size));
        break;
    }
}

void link_take_reports(struct link *l)
{
    for (size_t i = 0; i < l->revoked_count; i++)
        session_revoked(l->session, l->revoked[i].lease, l->revoked[i].given_back);
    l->revoked_count = 0;
    if (l->full)
        return;
    for (struct report *r = run_take(l->run), *next; r; r = next) {
        next = r->next;
        take_report(l, r);
        run_release(l->run, r);
    }
}

/* -------------------------------------------------------------------------- runs */

static bool reserve(void **array, size_t *capacity, size_t count, size_t size)
{
    if (count <= *capacity)
        return true;
    void *fresh = realloc(*array, count * size);
    if (!fresh)
        return false;
    *array = fresh;
    *capacity = count;
    return true;
}

static void out_of_memory(struct link *l)
{
    log_error("out of memory");
    l->end->code = PUSHROD_E_NO_MEMORY;
}

/* The runner is asked now; the session hears of it in the next tick, which comes at once. */
static void ask_back(struct link *l, uint64_t lease)
{
    bool given_back = run_revoke(l->run, lease);
    if (!reserve(
            (void **)&l->revoked, &l->revoked_capacity, l->revoked_count + 1, sizeof *l->revoked)) {
        out_of_memory(l);
        return;
    }
    l->revoked[l->revoked_count++] = (struct revoked){lease, given_back};
}

static void act_runs(struct link *l, const struct session_actions *a)
{
    size_t starts = 0;
    if (!reserve((void **)&l->starts, &l->start_capacity, a->run_count, sizeof *l->starts)) {
        out_of_memory(l);
        return;
    }
    for (size_t i = 0; i < a->run_count; i++) {
        const struct run_action *r = &a->run[i];
        if (r->kind == RUN_START)
            l->starts[starts++] = r->attempt;
        else if (r->kind == RUN_CANCEL)
            run_cancel(l->run, r->attempt->lease);
        else
            ask_back(l, r->attempt->lease);
    }
    run_start(l->run, l->starts, starts);
}

/* ----------------------------------------------------------------------- messages */

static void act_join(struct link *l, const struct msg_join *join)
{
    int error = link_dial_join(l);
    if (error == -PUSHROD_E_BAD_OPTION) {
        l->end->code = PUSHROD_E_BAD_OPTION;
        snprintf(l->end->text, sizeof l->end->text, "join: \"%s\": host[:port] is expected",
            l->config->join);
    }
    if (error)
        return; /* the session tries again */
    struct buf frame = BUF_EMPTY;
    msg_join_encode(&frame, join);
    if (!frame.failed)
        RETRY(zmq_send(l->join, frame.data, frame.size, ZMQ_DONTWAIT));
    buf_free(&frame);
}

/* On an I/O thread: libzmq has done with it. */
static void frame_left(void *data, void *hint)
{
    struct link *l = hint;
    free(data);
    atomic_fetch_sub(&l->afloat, 1);
    bell_ring(l->room_fd);
}

/* Counted until the kernel has it. Without memory it is sent again, as what is lost. */
static void send_large(struct link *l, struct slice frame)
{
    zmq_msg_t message;
    void *data = malloc(frame.size);
    if (!data || zmq_msg_init_data(&message, data, frame.size, frame_left, l) != 0) {
        free(data);
        return;
    }
    memcpy(data, frame.data, frame.size);
    atomic_fetch_add(&l->afloat, 1);
    if (RETRY(zmq_msg_send(&message, l->answers, ZMQ_DONTWAIT)) < 0)
        zmq_msg_close(&message);
}

/* It never blocks: there is no high-water mark, and what is lost is sent again. */
static void act_answers(struct link *l, struct slice frame)
{
    if (!l->answers || frame.size == 0)
        return;
    if (l->near || frame.size < LARGE_FRAME)
        RETRY(zmq_send(l->answers, frame.data, frame.size, ZMQ_DONTWAIT));
    else
        send_large(l, frame);
}

static void tell_ready(struct link *l)
{
    if (l->told_ready || l->config->ready_fd < 0)
        return;
    supervise_ready(l->config->ready_fd);
    l->told_ready = true;
}

static void act_connect(struct link *l, const struct msg_welcome *m)
{
    if (link_connect(l, m) != 0)
        link_disconnect(l);
    session_near(l->session, l->near);
}

void link_act(struct link *l, const struct session_actions *a)
{
    if (a->text)
        log_write(a->warning ? LOG_WARNING : LOG_INFO, "%s", a->text);
    if (a->disconnect) {
        link_disconnect(l);
        if (l->lane_up) /* the server was there until now, however silent */
            l->contact_ns = l->now.mono_ns;
    } else {
        act_answers(l, a->answers);
    }
    if (a->connect)
        act_connect(l, a->connect);
    if (a->join)
        act_join(l, a->join);
    if (a->settled) {
        tell_ready(l);
        link_close_join(l);
    }
    act_runs(l, a);
}
