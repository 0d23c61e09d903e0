/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_server: a server of the client protocol in a thread, for the tests of the client library.
 *
 * What it does with a task is said by the task's queue:
 *   echo      accepted, finished at once, the payload is the result
 *   fail      accepted, one failed attempt, then failed
 *   cut       accepted; then the connection is closed, and a WAIT is answered with FINISHED, twice
 *   hang-up   the connection is closed without an answer; a second SUBMIT is a DUPLICATE of task 77
 *   full      rejected with QUEUE_FULL
 *   nonsense  ERROR with BAD_MESSAGE, and the connection is closed without an answer
 *   never     accepted, never finished
 *   late      accepted, finished when the next ECHO comes
 *
 * A CONTROL of task 300 closes the connection the first time, and 404 is none.
 */
#ifndef TESTS_FAKE_SERVER_H
#define TESTS_FAKE_SERVER_H

#include <arpa/inet.h>
#include <assert.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <pushrod/client.h>
#include <pushrod/task.h>
#include "proto/codec.h"
#include "proto/frame.h"
#include "proto/messages.h"

#define FAKE_DEAD 2500 /* dead tasks, with the ids from 1 on */

struct fake_server {
    int listener;
    int stop[2]; /* a pipe: closing it ends the thread */
    pthread_t thread;
    char address[32];
    const char *greeting; /* bytes sent instead of the protocol, "": the end; NULL: the protocol */
    struct slice unix_name; /* told in the greeting */
    bool refuses;           /* says ERROR before the greeting, in the same frame */
    uint64_t max_payload;   /* 0: 1000 */
    pthread_mutex_t gate;   /* nothing is read while a test holds it */
    /* of the connection */
    int fd;
    struct buf in, out;
    bool close;
    /* counted over all connections; read by the test while the thread runs */
    atomic_uint connections, submits, patient, waits, controls;
    atomic_uint watched; /* the last connection on which WATCH was said, counted from 1 */
    atomic_ullong received;
    uint64_t next_id;
    uint64_t late; /* id of what the next ECHO finishes; 0: none */
    bool hung_up;
};

static void fake_ok(struct fake_server *s, uint64_t request)
{
    struct msg_ok m = {request, 1};
    msg_ok_encode(&s->out, &m);
}

static void fake_finish(struct fake_server *s, uint64_t id, int status, struct slice result)
{
    struct msg_finished m = {.id = id,
        .status = (uint64_t)status,
        .code = status == PUSHROD_DONE ? 0 : PUSHROD_E_TASK_FAILED,
        .attempts = 1,
        .run_ns = 1000,
        .result = result,
        .text = slice_str(status == PUSHROD_DONE ? NULL : "it failed")};
    msg_finished_encode(&s->out, &m);
}

/* Tasks from 100 on have ended. */
static void fake_cancel(struct fake_server *s, const struct msg_cancel *m)
{
    struct msg_ok ok = {m->request, m->id < 100};
    msg_ok_encode(&s->out, &ok);
}

static void fake_reject(struct fake_server *s, uint64_t request, int code, uint64_t id)
{
    struct msg_rejected m = {request, (uint64_t)code, slice_str("no"), id};
    msg_rejected_encode(&s->out, &m);
}

static void fake_attempt(struct fake_server *s, uint64_t id)
{
    struct msg_attempt m = {
        id, 1, PUSHROD_E_TASK_FAILED, slice_str("exit code 1"), slice_str("worker-1"), 250};
    msg_attempt_encode(&s->out, &m);
}

static void fake_submit(struct fake_server *s, const struct msg_submit *m)
{
    atomic_fetch_add(&s->submits, 1);
    atomic_fetch_add(&s->patient, m->patient);
    if (slice_equal(m->queue, slice_str("full"))) {
        fake_reject(s, m->request, PUSHROD_E_QUEUE_FULL, 0);
        return;
    }
    if (slice_equal(m->queue, slice_str("hang-up"))) {
        if (s->hung_up)
            fake_reject(s, m->request, PUSHROD_E_DUPLICATE, 77);
        s->close = !s->hung_up;
        s->hung_up = true;
        return;
    }
    if (slice_equal(m->queue, slice_str("nonsense"))) {
        struct msg_error error = {PUSHROD_E_BAD_MESSAGE, slice_str("nonsense")};
        msg_error_encode(&s->out, &error);
        s->close = true;
        return;
    }
    struct msg_accepted accepted = {m->request, ++s->next_id};
    msg_accepted_encode(&s->out, &accepted);
    s->close |= slice_equal(m->queue, slice_str("cut"));
    if (slice_equal(m->queue, slice_str("late")))
        s->late = s->next_id;
    if (slice_equal(m->queue, slice_str("fail"))) {
        if (m->follow == 2)
            fake_attempt(s, s->next_id);
        fake_finish(s, s->next_id, PUSHROD_FAILED, (struct slice){0});
    } else if (m->follow && slice_equal(m->queue, slice_str("echo"))) {
        fake_finish(s, s->next_id, PUSHROD_DONE, m->payload);
    }
}

static void fake_wait(struct fake_server *s, const struct msg_wait *m)
{
    atomic_fetch_add(&s->waits, 1);
    if (m->id > s->next_id && m->id != 77) {
        fake_reject(s, m->request, PUSHROD_E_UNKNOWN_TASK, 0);
        return;
    }
    fake_ok(s, m->request);
    fake_finish(s, m->id, PUSHROD_DONE, slice_str("waited"));
    fake_finish(s, m->id, PUSHROD_DONE, slice_str("waited again"));
}

/* Of the filter "many" there is one row more than a page has. */
static void fake_pages(struct fake_server *s, const struct msg_list *m)
{
    uint64_t count = m->after == 0 ? 1000 : m->after == 1000;
    struct msg_queue_row row = {.request = m->request,
        .name = slice_str("echo"),
        .durability = slice_str("memory"),
        .ready = 3};
    struct msg_end end = {m->request, count};
    for (uint64_t i = 0; i < count; i++)
        msg_queue_row_encode(&s->out, &row);
    msg_end_encode(&s->out, &end);
}

/* As a real one: 1000 rows at a time, whatever is asked for. */
static void fake_dead(struct fake_server *s, const struct msg_list *m)
{
    uint64_t left = FAKE_DEAD - m->after, limit = m->limit && m->limit < 1000 ? m->limit : 1000;
    struct msg_end end = {m->request, left < limit ? left : limit};
    for (uint64_t i = 1; i <= end.rows; i++) {
        struct msg_task_row row = {.request = m->request,
            .id = m->after + i,
            .queue = slice_str("fail"),
            .state = slice_str("failed")};
        msg_task_row_encode(&s->out, &row);
    }
    msg_end_encode(&s->out, &end);
}

/* Task 404 is none; 400 asks a server that knows of no such thing. */
static void fake_submitted(struct fake_server *s, const struct msg_list *m)
{
    static const uint8_t headers[] = {0x82, 0xa1, 'a', 0xa1, 'b', 0xa1, 'c', 0xa0};
    static const uint8_t payload[] = "\0\n\0payload";
    struct buf options = BUF_EMPTY;
    struct msg_options o = {.priority = m->after == 9 ? 0 : 10, /* which is none */
        .timeout_ms = 5,
        .max_attempts = 7,
        .unique_key = slice_str("key"),
        .tag = slice_of("t\0g", 3),
        .headers = slice_of(headers, sizeof headers)};
    msg_options_encode(&options, &o);
    struct msg_submitted row = {m->request, m->after, slice_str("echo"),
        slice_equal(m->what, slice_str("options")) ? (struct slice){0}
                                                   : slice_of(payload, sizeof payload),
        buf_slice(&options)};
    if (m->after >= 400)
        msg_rejected_encode(
            &s->out, &(struct msg_rejected){m->request,
                         m->after == 404 ? PUSHROD_E_UNKNOWN_TASK : PUSHROD_E_INVALID, {0}, 0});
    else
        msg_submitted_encode(&s->out, &row);
    msg_end_encode(&s->out, &(struct msg_end){m->request, 1});
    buf_free(&options);
}

static void fake_list(struct fake_server *s, const struct msg_list *m)
{
    if (slice_equal(m->what, slice_str("submitted")) ||
        slice_equal(m->what, slice_str("options"))) {
        fake_submitted(s, m);
        return;
    }
    if (slice_equal(m->what, slice_str("dead"))) {
        fake_dead(s, m);
        return;
    }
    if (slice_equal(m->filter, slice_str("many"))) {
        fake_pages(s, m);
        return;
    }
    struct msg_queue_row row = {.request = m->request,
        .name = slice_str("echo"),
        .durability = slice_str("memory"),
        .ready = 3};
    struct msg_end end = {m->request, 2};
    msg_queue_row_encode(&s->out, &row);
    row.name = slice_str("fail");
    msg_queue_row_encode(&s->out, &row);
    msg_end_encode(&s->out, &end);
}

static void fake_status(struct fake_server *s, const struct msg_status *m)
{
    struct buf history = BUF_EMPTY;
    struct msg_death death = {
        1, 1000, PUSHROD_E_TASK_CRASHED, slice_str("worker-1"), 11, 0, 2048, slice_str("killed")};
    struct msg_task_row row = {.request = m->request,
        .id = m->id,
        .queue = slice_str("echo"),
        .state = slice_str("failed"),
        .priority = 4,
        .head = slice_str("begins")};
    enc_array(&history, 2);
    msg_death_encode(&history, &death);
    msg_death_encode(&history, &death);
    row.history = buf_slice(&history);
    msg_task_row_encode(&s->out, &row);
    buf_free(&history);
}

static void fake_control(struct fake_server *s, const struct msg_control *m)
{
    atomic_fetch_add(&s->controls, 1);
    if (m->id == 300 && !s->hung_up)
        s->hung_up = s->close = true;
    else if (m->id == 404)
        fake_reject(s, m->request, PUSHROD_E_UNKNOWN_TASK, 0);
    else
        fake_ok(s, m->request);
}

static void fake_echo(struct fake_server *s, const struct msg_echo *m)
{
    if (s->late)
        fake_finish(s, s->late, PUSHROD_DONE, slice_str("late"));
    s->late = 0;
    fake_ok(s, m->request);
}

static void fake_watch(struct fake_server *s, const struct msg_watch *m)
{
    atomic_store(&s->watched, atomic_load(&s->connections));
    fake_ok(s, m->request);
}

/* A real one closes the connection for a larger frame, and that is final. */
static uint64_t fake_max_frame(const struct fake_server *s)
{
    return (s->max_payload ? s->max_payload : 1000) + (64u << 10);
}

static void fake_greet(struct fake_server *s)
{
    struct msg_greeting m = {PROTOCOL_VERSION, slice_str("fake 1.0"),
        s->max_payload ? s->max_payload : 1000, fake_max_frame(s), 0, s->unix_name};
    if (s->refuses)
        msg_error_encode(&s->out, &(struct msg_error){PUSHROD_E_TOO_MANY, slice_str("full")});
    msg_greeting_encode(&s->out, &m);
}

#define FAKE_CASE(NAME, name, call)                                                                \
    case MSG_##NAME: {                                                                             \
        struct msg_##name m;                                                                       \
        assert(msg_##name##_decode(in, &m));                                                       \
        call;                                                                                      \
        break;                                                                                     \
    }

static void fake_message(struct fake_server *s, struct dec *in)
{
    unsigned number = dec_message(in);
    switch (number) {
        FAKE_CASE(HELLO, hello, fake_greet(s))
        FAKE_CASE(SUBMIT, submit, fake_submit(s, &m))
        FAKE_CASE(WAIT, wait, fake_wait(s, &m))
        FAKE_CASE(LIST, list, fake_list(s, &m))
        FAKE_CASE(STATUS, status, fake_status(s, &m))
        FAKE_CASE(CANCEL, cancel, fake_cancel(s, &m))
        FAKE_CASE(CONTROL, control, fake_control(s, &m))
        FAKE_CASE(ECHO, echo, fake_echo(s, &m))
        FAKE_CASE(WATCH, watch, fake_watch(s, &m))
        FAKE_CASE(RECEIVED, received, atomic_store(&s->received, m.count))
    default:
        assert(number != 0);
        dec_skip_message(in, number);
    }
}

/* Every whole frame that was read is answered with one frame. */
static void fake_frames(struct fake_server *s)
{
    size_t at = 0;
    while (!s->close && s->in.size - at >= FRAME_HEAD) {
        size_t size = frame_size(s->in.data + at);
        assert(s->greeting || size <= fake_max_frame(s));
        if (s->in.size - at - FRAME_HEAD < size)
            break;
        struct dec in = dec_of(slice_of(s->in.data + at + FRAME_HEAD, size));
        size_t begin = frame_begin(&s->out);
        while (!s->close && dec_more(&in))
            fake_message(s, &in);
        if (s->out.size == begin + FRAME_HEAD)
            s->out.size = begin;
        else
            frame_end(&s->out, begin);
        at += FRAME_HEAD + size;
    }
    buf_consume(&s->in, at);
}

static bool fake_write(struct fake_server *s)
{
    for (size_t at = 0; at < s->out.size;) {
        ssize_t n = send(s->fd, s->out.data + at, s->out.size - at, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        at += (size_t)n;
    }
    buf_clear(&s->out);
    return true;
}

/* False: the test is over. */
static bool fake_readable(struct fake_server *s, int fd)
{
    struct pollfd fds[2] = {{.fd = fd, .events = POLLIN}, {.fd = s->stop[0], .events = POLLIN}};
    while (poll(fds, 2, -1) < 0)
        ;
    return !fds[1].revents;
}

static void fake_connection(struct fake_server *s)
{
    buf_clear(&s->in);
    buf_clear(&s->out);
    s->close = false;
    while (!s->close && fake_readable(s, s->fd)) {
        uint8_t *room = buf_reserve(&s->in, 65536);
        pthread_mutex_lock(&s->gate);
        ssize_t n = recv(s->fd, room, 65536, 0);
        pthread_mutex_unlock(&s->gate);
        if (n <= 0)
            break;
        s->in.size += (size_t)n;
        if (s->greeting) {
            buf_append(&s->out, s->greeting, strlen(s->greeting));
            s->in.size = 0;
            s->close = !*s->greeting;
        }
        fake_frames(s);
        if (!fake_write(s))
            break;
    }
    /* Orderly, so that what was sent arrives before the end. */
    shutdown(s->fd, SHUT_RDWR);
    close(s->fd);
}

static void *fake_thread(void *arg)
{
    struct fake_server *s = arg;
    while (fake_readable(s, s->listener)) {
        s->fd = accept(s->listener, NULL, NULL);
        if (s->fd < 0)
            continue;
        atomic_fetch_add(&s->connections, 1);
        fake_connection(s);
    }
    return NULL;
}

static void fake_listen(struct fake_server *s, int family, const void *at, socklen_t size)
{
    s->listener = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(s->listener, (const struct sockaddr *)at, size), 0);
    assert_int_equal(listen(s->listener, 16), 0);
    assert_int_equal(pipe(s->stop), 0);
    pthread_mutex_init(&s->gate, NULL);
    assert_int_equal(pthread_create(&s->thread, NULL, fake_thread, s), 0);
}

static void fake_start(struct fake_server *s)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    fake_listen(s, AF_INET, &at, size);
    assert_int_equal(getsockname(s->listener, (struct sockaddr *)&at, &size), 0);
    snprintf(s->address, sizeof s->address, "127.0.0.1:%u", ntohs(at.sin_port));
}

/* A client of its own, not connected yet. */
static struct pushrod_client *fake_client(const struct fake_server *s)
{
    struct pushrod_client *c = pushrod_client_new();
    assert_non_null(c);
    assert_int_equal(pushrod_client_set(c, "server", s->address), 0);
    return c;
}

static void fake_stop(struct fake_server *s)
{
    close(s->stop[1]);
    pthread_join(s->thread, NULL);
    close(s->stop[0]);
    close(s->listener);
    pthread_mutex_destroy(&s->gate);
    buf_free(&s->in);
    buf_free(&s->out);
}

#endif
