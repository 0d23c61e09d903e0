/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lib_stream: the bytes of the connection.
 *
 * Messages are encoded straight into `out`, into a frame that stays open until it is large or has
 * to leave; so a million small submissions are a few thousand writes. What the socket does not take
 * stays where it was encoded: a full buffer waits as a block, and what follows gets another one.
 */
#define _GNU_SOURCE
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "client/lib.h"
#include "proto/frame.h"

#define SPARE_BYTES (4u << 20) /* a larger buffer is not kept for the next block */

/* Whole frames. */
struct out_block {
    struct out_block *next;
    struct buf bytes;
};

struct buf *stream_out(struct pushrod_client *c)
{
    if (c->open_frame == SIZE_MAX) {
        size_t begin = frame_begin(&c->out);
        /* Without memory for the head there is no frame; the caller sees `failed`. */
        if (!c->out.failed)
            c->open_frame = begin;
    }
    c->out_message = c->out.size;
    return &c->out;
}

/* A frame that is empty now goes as well: the server would take it for an error. */
static void take_back(struct pushrod_client *c)
{
    c->out.failed = false;
    if (c->open_frame == SIZE_MAX)
        return;
    c->out.size = c->out_message;
    if (c->out.size > c->open_frame + FRAME_HEAD)
        return;
    c->out.size = c->open_frame;
    c->open_frame = SIZE_MAX;
}

/* A frame is closed when it is large enough to be worth a write, or when it has to leave. */
static void frame_close(struct pushrod_client *c)
{
    if (c->open_frame == SIZE_MAX)
        return;
    frame_end(&c->out, c->open_frame);
    c->open_frame = SIZE_MAX;
}

/*
 * A server takes a message with the largest payload, or many small ones, but not all of that in one
 * frame. False: no memory.
 */
static bool frame_split(struct pushrod_client *c)
{
    size_t limit = c->max_frame ? (size_t)c->max_frame : CLIENT_FRAME;
    size_t size = c->out.size - c->out_message;
    if (c->out.size - c->open_frame - FRAME_HEAD <= limit ||
        c->out_message == c->open_frame + FRAME_HEAD)
        return true;
    if (!buf_reserve(&c->out, FRAME_HEAD))
        return false;
    uint8_t *message = c->out.data + c->out_message;
    memmove(message + FRAME_HEAD, message, size);
    c->out.size = c->out_message;
    frame_close(c);
    c->open_frame = frame_begin(&c->out);
    c->out_message = c->out.size;
    c->out.size += size;
    return true;
}

/* `out` becomes a block once it is full. Without memory for one it only grows on. */
static void out_seal(struct pushrod_client *c)
{
    assert(c->open_frame == SIZE_MAX);
    struct out_block *block = c->out.size < CLIENT_FRAME ? NULL : malloc(sizeof *block);
    if (!block)
        return;
    *block = (struct out_block){.bytes = c->out};
    if (c->blocks)
        c->last_block->next = block;
    else
        c->blocks = block;
    c->last_block = block;
    c->block_bytes += block->bytes.size;
    c->out = c->spare;
    c->spare = BUF_EMPTY;
}

/* The one that is written next; all of it may be written already. */
static struct buf *out_first(struct pushrod_client *c)
{
    return c->blocks ? &c->blocks->bytes : &c->out;
}

/* The first one is done with. The buffer that left last is warm: the next block gets it. */
static void out_shift(struct pushrod_client *c)
{
    struct out_block *block = c->blocks;
    c->out_at = c->out_frame = 0;
    if (!block) {
        buf_clear(&c->out);
        return;
    }
    c->blocks = block->next;
    c->block_bytes -= block->bytes.size;
    buf_free(&c->spare);
    c->spare = block->bytes;
    buf_recycle(&c->spare, SPARE_BYTES);
    free(block);
}

bool stream_added(struct pushrod_client *c)
{
    bool large = !c->out.failed && c->out.size - c->open_frame >= CLIENT_FRAME;
    if (c->out.failed || (large && !frame_split(c))) {
        take_back(c);
        return false;
    }
    if (!large)
        return true;
    frame_close(c);
    if (c->state == CLIENT_UP)
        stream_write(c);
    out_seal(c);
    return true;
}

size_t stream_waiting(const struct pushrod_client *c)
{
    return c->block_bytes + c->out.size - c->out_at + c->hello.size - c->hello_at;
}

/* ---------------------------------------------------------------------------------- out */

/* Tells the loop whether a writable socket is of interest. */
static void want_write(struct pushrod_client *c, bool wants)
{
    if (c->wants_write == wants || c->fd < 0)
        return;
    struct epoll_event event = {.events = EPOLLIN | (wants ? EPOLLOUT : 0u), .data.fd = c->fd};
    epoll_ctl(c->epoll, EPOLL_CTL_MOD, c->fd, &event);
    c->wants_write = wants;
}

/* True: all of it is written. */
static bool write_buf(struct pushrod_client *c, const struct buf *from, size_t *at)
{
    while (*at < from->size) {
        ssize_t n = send(c->fd, from->data + *at, from->size - *at, MSG_NOSIGNAL);
        if (n > 0) {
            *at += (size_t)n;
        } else if (errno != EINTR) {
            c->broken |= errno != EAGAIN && errno != EWOULDBLOCK;
            return false;
        }
    }
    return true;
}

/* True: nothing is left. */
static bool write_out(struct pushrod_client *c)
{
    while (stream_waiting(c)) {
        const struct buf *first = out_first(c);
        bool all = write_buf(c, first, &c->out_at);
        while (c->out_frame < c->out_at) {
            size_t size = FRAME_HEAD + frame_size(first->data + c->out_frame);
            if (c->out_frame + size > c->out_at)
                break;
            c->out_frame += size;
        }
        if (!all)
            return false;
        out_shift(c);
    }
    return true;
}

/* HELLO has a buffer of its own: `out` may hold requests from before the connection. */
void stream_write(struct pushrod_client *c)
{
    if (c->fd < 0 || c->broken || (c->state != CLIENT_UP && c->state != CLIENT_GREETING))
        return;
    bool all = write_buf(c, &c->hello, &c->hello_at);
    if (all && c->state == CLIENT_UP) {
        frame_close(c);
        all = write_out(c);
        if (!all)
            out_seal(c);
    }
    want_write(c, !all && !c->broken);
}

/* ---------------------------------------------------------------------------------- in */

/* What a Pushrod server says at its HTTP port to us; NULL: something else, or not all of it yet. */
static const char *port_told(struct pushrod_client *c)
{
    static const char begin[] = "this is the port";
    const char *data = (const char *)c->in.data + c->in_at;
    size_t size = c->in.size - c->in_at;
    const char *told = memmem(data, size, begin, sizeof begin - 1);
    return told && memchr(told, '\n', (size_t)(data + size - told)) ? told : NULL;
}

/*
 * What a port of another kind says first. A ZeroMQ greeting is ff 00 00 00 00 00 00 00 01 7f.
 * 0: it may be ours.
 */
static int wrong_port(struct pushrod_client *c, const uint8_t *head)
{
    const char *what = NULL;
    if (head[0] == 0xff && head[1] == 0)
        what = "a ZeroMQ port, where workers join";
    else if (memcmp(head, "HTTP", 4) == 0)
        what = "an HTTP port";
    else if (head[0] >= 0x20 && head[0] < 0x7f)
        what = "not a Pushrod server";
    if (!what)
        return 0;
    const char *told = port_told(c);
    if (told)
        client_lost(c, PUSHROD_E_WRONG_PORT, "%s: %.*s (--server, PUSHROD_SERVER)", c->info.address,
            (int)strcspn(told, "\n"), told);
    else
        client_lost(c, PUSHROD_E_WRONG_PORT,
            "%s is %s: clients connect to the server's client port, 5570 by default (--server, "
            "PUSHROD_SERVER)",
            c->info.address, what);
    return PUSHROD_E_WRONG_PORT;
}

/* Hands over the whole frames that are there. False: the connection is gone. */
static bool take_frames(struct pushrod_client *c)
{
    while (c->in.size - c->in_at >= FRAME_HEAD) {
        const uint8_t *head = c->in.data + c->in_at;
        if (c->state == CLIENT_GREETING && wrong_port(c, head))
            return false;
        size_t size = frame_size(head);
        if (size == 0 || size > CLIENT_MAX_FRAME) {
            client_lost(
                c, PUSHROD_E_BAD_FRAME, "%s sent a frame of %zu bytes", c->info.address, size);
            return false;
        }
        if (c->in.size - c->in_at - FRAME_HEAD < size) {
            /* Large results: make the room at once, instead of doubling towards it. */
            buf_reserve(&c->in, size + FRAME_HEAD);
            break;
        }
        c->in_at += FRAME_HEAD + size;
        receive_frame(c, slice_of(c->in.data + c->in_at - size, size));
        if (c->fd < 0)
            return false;
    }
    buf_consume(&c->in, c->in_at);
    c->in_at = 0;
    return true;
}

/* One acknowledgement for each batch that was read. */
static void tell_received(struct pushrod_client *c)
{
    if (c->received == c->received_told || c->state != CLIENT_UP)
        return;
    struct msg_received m = {.count = c->received};
    msg_received_encode(stream_out(c), &m);
    if (stream_added(c))
        c->received_told = c->received;
}

/* Before the greeting an end means another kind of server; after it, a loss. */
static void read_failed(struct pushrod_client *c, int why)
{
    if (c->state == CLIENT_GREETING)
        client_lost(c, PUSHROD_E_UNREACHABLE,
            "%s closed the connection without a greeting: is it the server's client port, 5570 by "
            "default? (--server, PUSHROD_SERVER)",
            c->info.address);
    else
        client_lost(c, PUSHROD_E_CLOSED, "%s closed the connection%s%s", c->info.address,
            why ? ": " : "", why ? strerror(why) : "");
}

void stream_read(struct pushrod_client *c)
{
    /* A few reads, then a look at everything else: a flood must not starve the caller. */
    for (unsigned i = 0; i < 8 && c->fd >= 0; i++) {
        uint8_t *room = buf_reserve(&c->in, CLIENT_READ);
        if (!room) {
            client_lost(c, PUSHROD_E_NO_MEMORY, "out of memory");
            return;
        }
        ssize_t n = recv(c->fd, room, c->in.capacity - c->in.size, 0);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
            break;
        if (n <= 0) {
            read_failed(c, n < 0 ? errno : 0);
            return;
        }
        bool full = c->in.size + (size_t)n == c->in.capacity;
        c->in.size += (size_t)n;
        if (!take_frames(c) || !full)
            break;
    }
    tell_received(c);
}

/* ---------------------------------------------------------------------------------- loss */

/* Copies the SUBMITs of one unsent frame into `to`; all else is asked anew by whoever needs it. */
static void salvage_frame(struct pushrod_client *c, struct slice frame, struct buf *to)
{
    struct dec in = dec_of(frame);
    while (dec_more(&in)) {
        unsigned number = dec_message(&in);
        struct msg_submit m;
        if (number != MSG_SUBMIT) {
            if (number)
                dec_skip_message(&in, number);
            continue;
        }
        if (!msg_submit_decode(&in, &m))
            break;
        struct pending *p = pending_get(c, m.request);
        if (!p)
            continue;
        size_t begin = frame_begin(to);
        msg_submit_encode(to, &m);
        frame_end(to, begin);
        p->unsent = !to->failed;
        if (p->unsent)
            continue;
        to->size = begin; /* without memory it counts as lost, and nothing of it is sent */
        to->failed = false;
    }
    assert(!dec_failed(&in));
}

/*
 * Frames that were written in part are whole again in what is kept: the server never saw their end.
 */
void stream_reset(struct pushrod_client *c)
{
    frame_close(c);
    struct buf kept = BUF_EMPTY;
    for (bool more = true; more; out_shift(c)) {
        more = c->blocks != NULL;
        const struct buf *first = out_first(c);
        for (size_t at = c->out_frame; at < first->size;) {
            size_t size = frame_size(first->data + at);
            salvage_frame(c, slice_of(first->data + at + FRAME_HEAD, size), &kept);
            at += FRAME_HEAD + size;
        }
    }
    buf_free(&c->out);
    c->out = kept;
    buf_clear(&c->in);
    buf_clear(&c->hello);
    c->in_at = c->hello_at = 0;
    c->received = c->received_told = 0;
    c->wants_write = false;
}

void stream_forget(struct pushrod_client *c)
{
    while (c->blocks)
        out_shift(c);
    out_shift(c);
    c->open_frame = SIZE_MAX;
}

void stream_free(struct pushrod_client *c)
{
    stream_forget(c);
    buf_free(&c->in);
    buf_free(&c->out);
    buf_free(&c->spare);
    buf_free(&c->hello);
}
