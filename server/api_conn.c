/* SPDX-License-Identifier: Apache-2.0 */
/* api_conn: connections of the embedding program's own listeners, and their framings. */
#define _GNU_SOURCE /* memmem() */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "server/api.h"

/* The program's side of a connection. */
struct api_conn {
    void *data;
    uint64_t connected_ms;
    struct buf message; /* EOF, LENGTH: the beginning of one that is longer than a read */
    size_t searched;    /* EOF: bytes of it that hold no end mark */
};

/* A close event that is to be told. */
struct close_note {
    uint64_t conn;
    void *data;
    int code;
};

static const struct api_listener *listener_of(const struct conn *c)
{
    return c->arg;
}

static void receive(struct conn *c, const uint8_t *data, size_t size)
{
    struct pushrod_server *s = listener_of(c)->server;
    if (s->events.receive)
        s->events.receive(s, c->id, data, size, s->events_arg);
}

/* -------------------------------------------------------------------------------- messages */

/* Bytes of the first message with its end, or 0: it is not whole. *body: where its content is. */
static size_t message_eof(
    const struct api_listener *l, struct slice in, size_t *searched, struct slice *body)
{
    const uint8_t *end = memmem(in.data + *searched, in.size - *searched, l->eof, l->eof_size);
    if (!end) {
        /* The mark may have begun. */
        *searched = in.size < l->eof_size ? 0 : in.size - l->eof_size + 1;
        return 0;
    }
    *searched = 0;
    *body = slice_of(in.data, (size_t)(end - in.data));
    return body->size + l->eof_size;
}

static size_t message_length(const struct api_listener *l, struct slice in, struct slice *body)
{
    size_t head = l->framing.length_size;
    if (in.size < head)
        return 0;
    uint64_t size = 0;
    for (size_t i = 0; i < head; i++)
        size = size << 8 | in.data[i];
    if (size > l->framing.max_message)
        return SIZE_MAX;
    if (in.size - head < size)
        return 0;
    *body = slice_of(in.data + head, (size_t)size);
    return head + (size_t)size;
}

/* Hands over the whole messages in `in`; gives how many bytes they took, SIZE_MAX: too large. */
static size_t messages_take(struct conn *c, struct slice in)
{
    const struct api_listener *l = listener_of(c);
    struct api_conn *a = c->data;
    size_t at = 0;
    while (at < in.size && c->state == CONN_OPEN) {
        struct slice rest = {in.data + at, in.size - at}, body = {0};
        size_t took = l->framing.kind == PUSHROD_FRAMING_EOF
                          ? message_eof(l, rest, &a->searched, &body)
                          : message_length(l, rest, &body);
        if (took == SIZE_MAX || (took == 0 && rest.size > l->framing.max_message + 8) ||
            body.size > l->framing.max_message)
            return SIZE_MAX;
        if (took == 0)
            break;
        receive(c, body.data, body.size);
        at += took;
    }
    return at;
}

/* Hands over what is whole of `message` and the bytes behind it; the rest stays. An error or 0. */
static int message_goes_on(struct conn *c, struct buf *message, const uint8_t *data, size_t size)
{
    struct slice in = {data, size};
    bool begun = message->size > 0;
    if (begun) {
        buf_append(message, data, size);
        in = buf_slice(message);
    }
    size_t took = message->failed ? 0 : messages_take(c, in);
    if (took == SIZE_MAX)
        return PUSHROD_E_BAD_FRAME;
    if (begun)
        buf_consume(message, took);
    else
        buf_append(message, data + took, size - took);
    return message->failed ? PUSHROD_E_NO_MEMORY : 0;
}

/*
 * What is not whole is kept here, since it may be larger than conn would keep. A callback whose
 * answer was too much ends the connection, and what is kept with it; but it has been given a part
 * of the message, which therefore is nobody's meanwhile.
 */
static size_t api_input(struct conn *c, const uint8_t *data, size_t size)
{
    struct api_conn *a = c->data;
    if (listener_of(c)->framing.kind == PUSHROD_FRAMING_RAW) {
        receive(c, data, size);
        return size;
    }
    struct buf message = a->message;
    a->message = BUF_EMPTY;
    int error = message_goes_on(c, &message, data, size);
    if (c->state == CONN_DEAD || message.size == 0)
        buf_free(&message);
    if (c->state == CONN_DEAD)
        return size;
    a->message = message;
    if (error)
        conn_close(c, error);
    return size;
}

/* --------------------------------------------------------------------------- coming and going */

static void api_opened(struct conn *c)
{
    struct pushrod_server *s = listener_of(c)->server;
    struct api_conn *a = c->data = calloc(1, sizeof *a);
    if (!a) {
        conn_kill(c, PUSHROD_E_NO_MEMORY);
        return;
    }
    conn_greeted(c); /* a raw connection may be silent as long as it likes */
    a->connected_ms = loop_enter(s->loop).wall_ms;
    if (s->events.connect)
        s->events.connect(s, c->id, s->events_arg);
}

static void api_closed(struct conn *c, int code)
{
    struct pushrod_server *s = listener_of(c)->server;
    struct api_conn *a = c->data;
    if (!a)
        return;
    struct close_note note = {c->id, a->data, code == PUSHROD_E_CLOSED ? 0 : code};
    c->data = NULL;
    buf_free(&a->message);
    free(a);
    if (!s->events.close)
        return;
    buf_append(&s->closes, &note, sizeof note);
    loop_defer(s->loop, &s->close_tell);
}

/* A callback may close others, which come to a new list. */
static void closes_tell(void *arg)
{
    struct pushrod_server *s = arg;
    struct buf notes = s->closes;
    s->closes = BUF_EMPTY;
    const struct close_note *note = (const struct close_note *)(const void *)notes.data;
    for (size_t i = 0; i < notes.size / sizeof *note; i++) {
        s->closing = note[i].conn;
        s->closing_data = note[i].data;
        s->events.close(s, note[i].conn, note[i].code, s->events_arg);
    }
    s->closing = 0;
    buf_free(&notes);
}

const struct conn_ops api_conn_ops = {
    .name = "own",
    .opened = api_opened,
    .input = api_input,
    .closed = api_closed,
};

/* The server ends, and what was open with it: the connections are gone, their events remain. */
void closes_tell_last(struct pushrod_server *s)
{
    loop_undefer(&s->close_tell);
    if (s->closes.size)
        closes_tell(s);
}

void closes_init(struct pushrod_server *s)
{
    deferral_init(&s->close_tell, closes_tell, s);
}

void closes_free(struct pushrod_server *s)
{
    buf_free(&s->closes);
}

/* ------------------------------------------------------------------------------ the program */

static struct conn *conn_own(struct pushrod_server *s, uint64_t id)
{
    struct conn *c = s->conns ? conn_find(s->conns, id) : NULL;
    return c && c->ops == &api_conn_ops && c->data ? c : NULL;
}

static int gone(struct pushrod_server *s)
{
    return api_fail(
        s, PUSHROD_E_UNKNOWN_CONNECTION, "%s", pushrod_strerror(PUSHROD_E_UNKNOWN_CONNECTION));
}

/* Can the length in front of a message say it? */
static bool length_fits(const struct conn *c, size_t size)
{
    const struct pushrod_framing *f = &listener_of(c)->framing;
    return f->kind != PUSHROD_FRAMING_LENGTH || f->length_size >= sizeof(uint64_t) ||
           (uint64_t)size >> (8 * f->length_size) == 0;
}

static void send_framed(struct conn *c, const void *data, size_t size)
{
    const struct api_listener *l = listener_of(c);
    uint8_t head[8];
    unsigned length = l->framing.kind == PUSHROD_FRAMING_LENGTH ? l->framing.length_size : 0;
    for (unsigned i = 0; i < length; i++)
        head[i] = (uint8_t)((uint64_t)size >> (8 * (length - 1 - i)));
    conn_write(c, head, length);
    conn_write(c, data, size);
    if (l->framing.kind == PUSHROD_FRAMING_EOF)
        conn_write(c, l->eof, l->eof_size);
}

int pushrod_server_send(struct pushrod_server *s, uint64_t conn, const void *data, size_t size)
{
    struct conn *c = conn_own(s, conn);
    if (!c)
        return gone(s);
    if (size && !data)
        return api_fail(s, PUSHROD_E_INVALID, "data is NULL, but its size is not 0");
    if (!length_fits(c, size))
        return api_fail(s, PUSHROD_E_TOO_BIG, "a length of %u bytes cannot say %zu",
            listener_of(c)->framing.length_size, size);
    loop_enter(s->loop);
    send_framed(c, data, size);
    return 0;
}

int pushrod_server_close(struct pushrod_server *s, uint64_t conn)
{
    struct conn *c = conn_own(s, conn);
    if (!c)
        return gone(s);
    loop_enter(s->loop);
    conn_close(c, 0);
    return 0;
}

struct broadcast {
    const void *data;
    size_t size;
    uint64_t except;
    size_t count;
};

static bool broadcast_one(struct conn *c, void *arg)
{
    struct broadcast *b = arg;
    if (c->id == b->except || !c->data || !length_fits(c, b->size))
        return true;
    send_framed(c, b->data, b->size);
    b->count++;
    return true;
}

size_t pushrod_server_broadcast(
    struct pushrod_server *s, const void *data, size_t size, uint64_t except)
{
    struct broadcast b = {data, size, except, 0};
    if (!s->conns)
        return 0;
    loop_enter(s->loop);
    conns_each(s->conns, &api_conn_ops, broadcast_one, &b);
    return b.count;
}

int pushrod_server_conn_info(
    struct pushrod_server *s, uint64_t conn, struct pushrod_conn_info *info)
{
    struct conn *c = conn_own(s, conn);
    if (!c)
        return gone(s);
    const struct api_conn *a = c->data;
    *info = (struct pushrod_conn_info){
        .listener = listener_of(c)->number,
        .connected_ms = a->connected_ms,
        .unsent = c->unsent,
    };
    conn_peer(c, info->peer);
    return 0;
}

int pushrod_server_conn_set_data(struct pushrod_server *s, uint64_t conn, void *data)
{
    struct conn *c = conn_own(s, conn);
    if (!c)
        return gone(s);
    ((struct api_conn *)c->data)->data = data;
    return 0;
}

void *pushrod_server_conn_data(struct pushrod_server *s, uint64_t conn)
{
    if (conn && conn == s->closing)
        return s->closing_data;
    struct conn *c = conn_own(s, conn);
    return c ? ((struct api_conn *)c->data)->data : NULL;
}
