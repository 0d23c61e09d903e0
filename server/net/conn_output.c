/* SPDX-License-Identifier: Apache-2.0 */
/* conn_output: what is written in a tick leaves at its end; who does not take it is watched. */
#include <errno.h>
#include <event2/buffer.h>
#include <event2/event.h>
#include <linux/sockios.h>
#include <pushrod/error.h>
#include <sys/ioctl.h>
#include "server/net/conn_impl.h"

/* --------------------------------------------------------------------------------- writing */

static void conn_dirty(struct conn *c)
{
    if (!c->writing) {
        list_remove(&c->node);
        list_push_back(&c->set->dirty, &c->node);
    }
}

/* Called with every change of what is unsent: who does not read is not read either. */
static void unsent_set(struct conn *c, size_t unsent)
{
    struct conns *set = c->set;
    set->busy += (size_t)(unsent > 0) - (size_t)(c->unsent > 0);
    c->unsent = unsent;
    if (c->state != CONN_OPEN)
        return;
    if (!c->choked && unsent > CONN_PAUSE) {
        c->choked = true;
        conn_read_stop(c);
    } else if (c->choked && unsent < CONN_RESUME) {
        c->choked = false;
        conn_read_start(c);
    }
    if (unsent > set->config.max_unsent)
        conn_kill(c, PUSHROD_E_SLOW_READER);
}

static bool out_ready(struct conn *c)
{
    if (c->state != CONN_OPEN)
        return false;
    if (!c->out && !(c->out = evbuffer_new())) {
        conn_kill(c, PUSHROD_E_NO_MEMORY);
        return false;
    }
    return true;
}

/* False: there is nothing to send, or nobody to send it to. */
static bool out_add(struct conn *c, const void *data, size_t size)
{
    if (size == 0 || !out_ready(c))
        return false;
    if (evbuffer_add(c->out, data, size))
        conn_kill(c, PUSHROD_E_NO_MEMORY);
    else
        unsent_set(c, c->unsent + size);
    return c->state == CONN_OPEN;
}

void conn_write(struct conn *c, const void *data, size_t size)
{
    if (out_add(c, data, size))
        conn_dirty(c);
}

static void body_release(const void *data, size_t size, void *arg)
{
    (void)data, (void)size;
    body_unref(arg);
}

void conn_write_body(struct conn *c, struct body *body)
{
    if (!body || body->size == 0 || !out_ready(c))
        return;
    if (evbuffer_add_reference(c->out, body->data, body->size, body_release, body_ref(body))) {
        body_unref(body);
        conn_kill(c, PUSHROD_E_NO_MEMORY);
        return;
    }
    conn_dirty(c);
    unsent_set(c, c->unsent + body->size);
}

void conn_send(struct conn *c, const void *data, size_t size)
{
    size_t sent = 0;
    if (c->state == CONN_OPEN && c->unsent == 0) {
        ssize_t put = send(c->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (put < 0 && errno != EAGAIN && errno != EINTR) {
            conn_kill(c, PUSHROD_E_CLOSED);
            return;
        }
        sent = put > 0 ? (size_t)put : 0;
        c->set->stats.bytes_out += sent;
    }
    conn_write(c, (const uint8_t *)data + sent, size - sent);
}

/* One clock for all: it begins with the first that waits, and runs out though that one has left. */
static bool later_clock(struct conns *set, uint64_t until)
{
    return heap_holds(&set->later_timer.node) ||
           loop_timer_set(set->loop, &set->later_timer, until);
}

void conn_send_later(struct conn *c, const void *data, size_t size)
{
    bool alone = c->unsent == 0;
    if (c->unsent + size > CONN_LATER || !later_clock(c->set, conn_after_ms(c, CONN_LATER_MS))) {
        conn_send(c, data, size);
    } else if (out_add(c, data, size) && alone) {
        list_remove(&c->node);
        list_push_back(&c->set->later, &c->node);
    }
}

void conns_hurry(void *arg)
{
    struct conns *set = arg;
    list_splice_front(&set->dirty, &set->later);
}

static int queued_in(int fd)
{
    int queued = 0;
    return ioctl(fd, SIOCOUTQ, &queued) == 0 ? queued : 0;
}

static void slow_clock(struct conn *c, int queued)
{
    c->queued = queued;
    loop_timer_set(c->set->loop, &c->timer, conn_after_ms(c, c->set->config.slow_ms));
}

/* The socket says that there is room when a third of it is empty: that may be MiB, and over a slow
 * link take minutes. */
static bool conn_drains(struct conn *c)
{
    int queued = c->unsent > 0 ? queued_in(c->fd) : c->queued;
    if (queued >= c->queued)
        return false;
    slow_clock(c, queued);
    return true;
}

void conn_timed_out(void *arg)
{
    struct conn *c = arg;
    if (c->state == CONN_OPEN && c->unsent == 0 && c->greeted)
        return;
    if (conn_drains(c))
        return;
    conn_kill(c, c->unsent > 0 ? PUSHROD_E_SLOW_READER : PUSHROD_E_TIMED_OUT);
}

/* The socket is full: the time in which it must take something begins anew with each progress. */
static void flush_waits(struct conn *c, bool progress)
{
    if (!c->writing)
        c->writing = event_add(&c->write_event, NULL) == 0;
    bool timed = c->state == CONN_CLOSING || c->greeted;
    if (timed && (progress || !heap_holds(&c->timer.node)))
        slow_clock(c, queued_in(c->fd));
}

static void flush_done(struct conn *c)
{
    conn_write_stop(c);
    if (c->state == CONN_CLOSING)
        conn_flushed(c);
    else if (c->greeted)
        loop_timer_clear(c->set->loop, &c->timer);
}

/* As much as the socket takes, but who reads as fast as we write gets no more than its share. */
static void conn_flush(struct conn *c)
{
    size_t sent = 0;
    while (c->unsent > 0 && sent < CONN_TURN) {
        int put = evbuffer_write(c->out, c->fd);
        if (put < 0 && errno != EAGAIN && errno != EINTR) {
            conn_kill(c, PUSHROD_E_CLOSED);
            return;
        }
        if (put <= 0)
            break;
        c->set->stats.bytes_out += (uint64_t)put;
        unsent_set(c, c->unsent - (size_t)put);
        sent += (size_t)put;
    }
    if (c->unsent > 0)
        flush_waits(c, sent > 0);
    else
        flush_done(c);
}

void conn_writable(int fd, short what, void *arg)
{
    struct conn *c = arg;
    (void)fd, (void)what;
    loop_enter(c->set->loop);
    if (c->state != CONN_DEAD)
        conn_flush(c);
}

void conns_flush(struct conns *set)
{
    while (!list_empty(&set->dirty)) {
        struct conn *c = container_of(list_first(&set->dirty), struct conn, node);
        list_remove(&c->node);
        /* Those whose socket is full wait for it to say that it is not. */
        if (!c->writing || c->state == CONN_CLOSING)
            conn_flush(c);
        /* It may have been taken off the list of those that pause_clients stopped. */
        if (c->state == CONN_OPEN && !c->choked)
            conn_read_start(c);
    }
    while (!list_empty(&set->dead))
        conn_free(container_of(list_first(&set->dead), struct conn, node));
}

bool conns_busy(const struct conns *set)
{
    return set->busy > 0;
}
