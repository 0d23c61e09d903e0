/* SPDX-License-Identifier: Apache-2.0 */
#include "server/net/conn_impl.h"

#include <assert.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>
#include <pushrod/error.h>

#define CLOSING_MS  2000u       /* for the peer to close, when all is sent */
#define LARGE_READS 16u         /* after a large body, with room for another one of its size */
#define CONN_PART   (64u << 10) /* bytes of a body in one read: all that others have to wait for */

struct conn *conn_find(struct conns *set, uint64_t id)
{
    struct conn *c = idmap_pointer(&set->by_id, id);
    return c && c->state == CONN_OPEN ? c : NULL;
}

void conns_each(
    struct conns *set, const struct conn_ops *ops, bool (*fn)(struct conn *c, void *arg), void *arg)
{
    struct idmap_cell cell;
    for (size_t place = 0; idmap_next(&set->by_id, &place, &cell);) {
        struct conn *c = (struct conn *)(uintptr_t)cell.value;
        if (c->ops == ops && c->state == CONN_OPEN && !fn(c, arg))
            return;
    }
}

/* --------------------------------------------------------------------------------- closing */

uint64_t conn_after_ms(struct conn *c, uint64_t ms)
{
    return loop_enter(c->set->loop).mono_ns + ms * NS_PER_MS;
}

void conn_read_stop(struct conn *c)
{
    if (c->reading)
        event_del(&c->read_event);
    c->reading = false;
}

void conn_read_start(struct conn *c)
{
    if (c->reading || c->state == CONN_DEAD)
        return;
    if (c->again)
        loop_postpone(c->set->loop, &c->part);
    else
        c->reading = event_add(&c->read_event, NULL) == 0;
}

void conn_write_stop(struct conn *c)
{
    if (c->writing)
        event_del(&c->write_event);
    c->writing = false;
}

void conn_kill(struct conn *c, int code)
{
    if (c->state == CONN_DEAD)
        return;
    if (c->state == CONN_OPEN)
        c->code = code;
    c->state = CONN_DEAD;
    struct conns *set = c->set;
    conn_read_stop(c);
    conn_write_stop(c);
    loop_timer_clear(set->loop, &c->timer);
    loop_undefer(&c->part);
    list_remove(&c->silent);
    list_remove(&c->node);
    list_push_back(&set->dead, &c->node);
    if (c->unsent > 0)
        set->busy--;
    c->unsent = 0;
    set->stats.connections--;
    set->stats.slow_readers += c->code == PUSHROD_E_SLOW_READER;
    set->stats.protocol_errors +=
        c->code >= PUSHROD_E_BAD_VERSION && c->code <= PUSHROD_E_WRONG_PORT;
    if (c->ops->closed)
        c->ops->closed(c, c->code);
    close(c->fd);
    c->fd = -1;
}

void conn_free(struct conn *c)
{
    loop_timer_clear(c->set->loop, &c->timer);
    idmap_remove(&c->set->by_id, c->id);
    list_remove(&c->node);
    if (c->out)
        evbuffer_free(c->out);
    buf_free(&c->in);
    free(c);
}

/* All is sent: end our half; the peer's close, or the timer, ends the rest. */
void conn_flushed(struct conn *c)
{
    loop_timer_set(c->set->loop, &c->timer, conn_after_ms(c, CLOSING_MS));
    shutdown(c->fd, SHUT_WR);
    conn_read_start(c);
}

void conn_close(struct conn *c, int code)
{
    if (c->state != CONN_OPEN)
        return;
    c->state = CONN_CLOSING;
    c->code = code;
    c->fill_to = NULL;
    c->again = false;
    if (!loop_timer_set(c->set->loop, &c->timer, conn_after_ms(c, c->set->config.slow_ms))) {
        conn_kill(c, code);
        return;
    }
    /* The end of the tick flushes it, and then sees that it is closing. */
    list_remove(&c->node);
    list_push_back(&c->set->dirty, &c->node);
}

void conn_greeted(struct conn *c)
{
    c->greeted = true;
    list_remove(&c->silent);
    if (c->unsent == 0)
        loop_timer_clear(c->set->loop, &c->timer);
}

/* --------------------------------------------------------------------------------- reading */

struct body *conn_body_begun(struct conn *c, const uint8_t *data, size_t there, size_t size)
{
    assert(there <= size && !c->fill_to);
    c->large = size;
    c->large_reads = LARGE_READS;
    struct body *body = inbuf_take(&c->set->input, data, size);
    if (!body) {
        body = body_new(size);
        if (!body)
            return NULL;
        memcpy(body->data, data, there);
    }
    c->fill_left = size - there;
    c->fill_to = c->fill_left > 0 ? body->data + there : NULL;
    return body;
}

struct body *conn_body(struct conn *c, const uint8_t *data, size_t size)
{
    return size < CONN_LARGE ? body_copy(data, size) : conn_body_begun(c, data, size, size);
}

/* Hands `size` bytes to the protocol, and keeps what it leaves. */
static void input_offer(struct conn *c, const uint8_t *data, size_t size)
{
    size_t used = c->ops->input(c, data, size);
    if (c->state != CONN_OPEN)
        return;
    assert(used <= size && size - used <= CONN_READ);
    if (used < size)
        buf_append(&c->in, data + used, size - used);
    if (c->in.failed)
        conn_kill(c, PUSHROD_E_NO_MEMORY);
    /* Connections that send whole frames keep no buffer. */
    else if (c->in.size == 0)
        buf_free(&c->in);
}

void conn_again(struct conn *c)
{
    c->again = true;
    conn_read_stop(c);
    conn_read_start(c);
}

static void input_again(struct conn *c)
{
    struct buf left = c->in;
    c->in = BUF_EMPTY;
    c->again = false;
    loop_enter(c->set->loop);
    input_offer(c, left.data, left.size);
    buf_free(&left);
    if (!c->choked)
        conn_read_start(c);
}

/* There is more to come before the protocol hears of it. */
static bool fill_goes_on(const struct conn *c)
{
    return c->fill_to && c->fill_left > CONN_PART;
}

/* Of `got` bytes that were read those that the body lacked are in it. Gives how many. */
static size_t fill_advance(struct conn *c, size_t got)
{
    size_t part = got < c->fill_left ? got : c->fill_left;
    c->fill_left -= part;
    c->fill_to = c->fill_left > 0 ? c->fill_to + part : NULL;
    return part;
}

static ssize_t read_part(struct conn *c)
{
    ssize_t got = read(c->fd, c->fill_to, CONN_PART);
    if (got > 0)
        fill_advance(c, (size_t)got);
    return got;
}

/* What lacks of a body, and `size` bytes behind it; both in one read. */
static ssize_t read_around(struct conn *c, uint8_t *behind, size_t size)
{
    struct iovec parts[2] = {{c->fill_to, c->fill_left}, {behind, size}};
    return c->fill_to ? readv(c->fd, parts, 2) : read(c->fd, behind, size);
}

/* With room for a payload as large as the last one to go on in, if that can be had. */
static uint8_t *input_room(struct conn *c, size_t size)
{
    if (c->large_reads > 0) {
        c->large_reads--;
        uint8_t *room = inbuf_room(&c->set->input, size + c->large);
        if (room)
            return room;
    }
    return inbuf_room(&c->set->input, size);
}

static ssize_t read_input(struct conn *c)
{
    size_t left = c->in.size;
    size_t size = c->eager ? CONN_READ : CONN_FIRST;
    assert(left <= CONN_READ);
    uint8_t *input = input_room(c, left + size);
    if (!input) {
        errno = ENOMEM;
        return -1;
    }
    ssize_t got = read_around(c, input + left, size);
    if (got <= 0)
        return got;
    c->eager |= (size_t)got >= size;
    size_t behind = (size_t)got - fill_advance(c, (size_t)got);
    if (c->fill_to)
        return got;
    if (left > 0) {
        memcpy(input, c->in.data, left);
        buf_clear(&c->in);
    }
    input_offer(c, input, left + behind);
    return got;
}

/* After conn_close(): what still comes is thrown away, until the peer closes. */
static ssize_t read_nothing(struct conn *c)
{
    uint8_t nothing[16u << 10];
    return read(c->fd, nothing, sizeof nothing);
}

/* The peer has said all; that it does not listen any more is known only when a write fails. */
static void conn_ended(struct conn *c)
{
    if (c->unsent > 0)
        conn_close(c, 0);
    else
        conn_kill(c, 0);
    conn_read_stop(c);
}

static void read_failed(struct conn *c, int error)
{
    loop_enter(c->set->loop);
    if (!error)
        conn_ended(c);
    else if (error != EAGAIN && error != EINTR)
        conn_kill(c, error == ENOMEM ? PUSHROD_E_NO_MEMORY : PUSHROD_E_CLOSED);
}

/* Gives how many bytes were read. */
static size_t conn_read(struct conn *c)
{
    ssize_t got = c->state == CONN_CLOSING ? read_nothing(c)
                  : fill_goes_on(c)        ? read_part(c)
                                           : read_input(c);
    if (got > 0)
        c->set->stats.bytes_in += (uint64_t)got;
    else
        read_failed(c, got ? errno : 0);
    return got > 0 ? (size_t)got : 0;
}

/* True: clients are not read at the moment, and this one comes back then. */
static bool pause_holds(struct conn *c)
{
    if (!c->set->paused || c->state != CONN_OPEN)
        return false;
    conn_read_stop(c);
    if (list_empty(&c->node))
        list_push_back(&c->set->paused_conns, &c->node);
    return true;
}

/* It is not watched while there is more to be read than its turn allows: see conn_readable(). */
static void part_read(void *arg)
{
    struct conn *c = arg;
    if (c->again) {
        if (!c->choked && !pause_holds(c))
            input_again(c);
        return;
    }
    bool more = fill_goes_on(c) && conn_read(c) == CONN_PART && fill_goes_on(c);
    if (more && !c->choked && !c->set->paused)
        loop_postpone(c->set->loop, &c->part);
    else if (!c->choked)
        conn_read_start(c);
}

static void conn_readable(int fd, short what, void *arg)
{
    struct conn *c = arg;
    (void)fd, (void)what;
    if (c->state == CONN_DEAD)
        return;
    if (pause_holds(c))
        return;
    /* A part of a large payload, of which nobody is told: one at a time, and no tick begins. All
     * that wait for their turn would be found readable in each round, so they are not asked. */
    if (fill_goes_on(c)) {
        conn_read_stop(c);
        loop_postpone(c->set->loop, &c->part);
        return;
    }
    loop_enter(c->set->loop);
    conn_read(c);
}

void conns_pause(struct conns *set, bool paused)
{
    if (set->paused == paused)
        return;
    set->paused = paused;
    while (!paused && !list_empty(&set->paused_conns)) {
        struct conn *c = container_of(list_first(&set->paused_conns), struct conn, node);
        list_remove(&c->node);
        if (!c->choked)
            conn_read_start(c);
    }
}

/* -------------------------------------------------------------------------------- lifetime */

static struct conn *conn_new(struct conns *set, int fd, const struct conn_ops *ops, void *arg)
{
    struct conn *c = calloc(1, sizeof *c);
    if (!c || !idmap_put(&set->by_id, set->last_id + 1, (uintptr_t)c)) {
        free(c);
        return NULL;
    }
    c->id = ++set->last_id;
    c->set = set;
    c->ops = ops;
    c->arg = arg;
    c->fd = fd;
    c->timer.fn = conn_timed_out;
    c->timer.arg = c;
    list_init(&c->node);
    list_init(&c->silent);
    deferral_init(&c->part, part_read, c);
    struct event_base *base = loop_base(set->loop);
    event_assign(&c->read_event, base, fd, EV_READ | EV_PERSIST, conn_readable, c);
    event_assign(&c->write_event, base, fd, EV_WRITE | EV_PERSIST, conn_writable, c);
    /* Without memory for its timer a silent stranger would stay for ever. */
    if (loop_timer_set(set->loop, &c->timer, conn_after_ms(c, set->config.handshake_ms)))
        conn_read_start(c);
    return c;
}

void conn_accept(struct conns *set, int fd, const struct conn_ops *ops, void *arg,
    const struct sockaddr_storage *peer)
{
    struct conn *c = conn_new(set, fd, ops, arg);
    if (!c || !c->reading) {
        if (c)
            conn_free(c);
        close(fd);
        return;
    }
    c->peer = *peer;
    c->since_ns = loop_enter(set->loop).mono_ns;
    list_push_back(&set->silent, &c->silent);
    set->stats.connections++;
    set->stats.accepted++;
    if (ops->opened)
        ops->opened(c);
}

struct conns *conns_new(struct loop *loop, const struct conns_config *config)
{
    struct conns *set = calloc(1, sizeof *set);
    if (!set)
        return NULL;
    set->loop = loop;
    set->config = *config;
    set->last_id = 1; /* CONN_SELF */
    list_init(&set->paused_conns);
    list_init(&set->dirty);
    list_init(&set->later);
    set->later_timer = (struct loop_timer){.fn = conns_hurry, .arg = set};
    list_init(&set->dead);
    list_init(&set->silent);
    list_init(&set->listeners);
    return set;
}

void conns_free(struct conns *set)
{
    if (!set)
        return;
    conns_deafen(set);
    conns_hurry(set);
    conns_flush(set);
    struct idmap_cell cell;
    for (size_t place = 0; idmap_next(&set->by_id, &place, &cell);)
        conn_kill((struct conn *)(uintptr_t)cell.value, PUSHROD_E_CLOSED);
    conns_flush(set);
    loop_timer_clear(set->loop, &set->later_timer);
    inbuf_free(&set->input);
    idmap_free(&set->by_id);
    free(set);
}

struct conn_stats *conns_stats(struct conns *set)
{
    return &set->stats;
}

struct loop *conns_loop(struct conns *set)
{
    return set->loop;
}
