/* SPDX-License-Identifier: Apache-2.0 */
/* native_input: what clients send, and what others send to the wrong port. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <pushrod/error.h>
#include <pushrod/task.h>
#include "common/log.h"
#include "proto/codec.h"
#include "proto/frame.h"
#include "server/net/native.h"

#define LARGE_PAYLOAD (64u << 10) /* bytes that are worth a read of their own */

/* A frame that is not whole: too large for the shared buffer, or its payload goes into a body. */
struct large {
    size_t tail;       /* bytes of it behind the body */
    struct body *body; /* the payload of a SUBMIT that begins the frame; NULL: all is in c->in */
};

struct native {
    struct host *host;
    struct conns *set;
    struct native_config config;
    struct buf out;
    struct loop *loop;
    struct deferral closings;
    struct buf closed; /* uint64_t: connections of whose end the core is still to hear */
    /* Submissions of one connection that wait to be handed to the core together. */
    struct submit batch[NATIVE_BATCH];
    struct msg_options options[NATIVE_BATCH];
    size_t count;
};

/* ------------------------------------------------------------------------------ submitting */

static void batch_flush(struct native *n, struct conn *c)
{
    if (n->count == 0)
        return;
    /* Of a connection that died meanwhile the core has been told the end already. */
    if (c->state != CONN_DEAD)
        core_submit(host_core(n->host), c->id, n->batch, n->count, NULL);
    /* The core took references of its own. */
    for (size_t i = 0; i < n->count; i++)
        body_unref(n->batch[i].body);
    n->count = 0;
}

/* What a SUBMIT says; false: it broke the protocol, or was refused here. */
static bool options_decode(struct slice raw, struct msg_options *options, const char **error)
{
    struct dec d = dec_of(raw);
    if (dec_message(&d) == MSG_OPTIONS && msg_options_decode(&d, options) && !dec_more(&d))
        return true;
    *error = dec_failed(&d) ? d.error : "the options of a SUBMIT are an OPTIONS message";
    return false;
}

/*
 * Adds to the batch. `body` (may be NULL) is the payload if it was read into one; the reference
 * becomes the batch's. Returns NULL, or what is wrong with the message.
 */
static const char *batch_add(
    struct native *n, struct conn *c, const struct msg_submit *m, struct body *body)
{
    struct msg_options *options = m->options.data ? &n->options[n->count] : NULL;
    const char *error = NULL;
    if (m->follow > FOLLOW_ALL)
        error = "follow is 0, 1 or 2";
    if (error || (options && !options_decode(m->options, options, &error))) {
        body_unref(body);
        return error;
    }
    if (!body && m->payload.size > TASK_INLINE_PAYLOAD) {
        /* One that is too large is refused by the core for its size; it need not be copied. */
        if (m->payload.size <= n->config.max_payload &&
            !(body = body_copy(m->payload.data, m->payload.size))) {
            native_say_rejected(
                c, m->request, PUSHROD_E_NO_MEMORY, pushrod_strerror(PUSHROD_E_NO_MEMORY));
            return NULL;
        }
    }
    n->batch[n->count++] = (struct submit){
        .request = m->request,
        .queue = m->queue,
        .payload = body ? body_slice(body) : m->payload,
        .body = body,
        .options = options,
        .follow = (enum follow)m->follow,
        .patient = m->patient,
    };
    if (n->count == NATIVE_BATCH)
        batch_flush(n, c);
    return NULL;
}

/* -------------------------------------------------------------------------------- requests */

static void on_hello(struct native *n, struct conn *c, const struct msg_hello *m)
{
    char text[160];
    if (c->greeted) {
        native_fail(c, PUSHROD_E_BAD_MESSAGE, "HELLO came twice");
    } else if (m->version != PROTOCOL_VERSION) {
        snprintf(text, sizeof text,
            "this server speaks version %d of the protocol, the client version %llu: "
            "update the older one",
            PROTOCOL_VERSION, (unsigned long long)m->version);
        native_fail(c, PUSHROD_E_BAD_VERSION, text);
    } else if (n->config.token[0] && !slice_equal_secret(m->token, slice_str(n->config.token))) {
        native_fail(c, PUSHROD_E_BAD_TOKEN,
            m->token.data ? "the token is wrong: give the client the server's, with --token-file "
                            "or PUSHROD_TOKEN"
                          : "the server asks for a token: give the client its own, with "
                            "--token-file or PUSHROD_TOKEN");
    } else {
        conn_greeted(c);
        native_say_greeting(
            c, n->config.max_payload, n->config.unix_name, loop_enter(conns_loop(n->set)).wall_ms);
    }
}

/* Decodes message `name` into m and runs the statement; the decoder keeps what is wrong. */
#define REQUEST(NAME, name, statement)                                                             \
    case MSG_##NAME: {                                                                             \
        struct msg_##name m;                                                                       \
        if (msg_##name##_decode(d, &m)) {                                                          \
            statement;                                                                             \
        }                                                                                          \
        break;                                                                                     \
    }

/* Any message but SUBMIT. */
static void request_handle(struct native *n, struct conn *c, unsigned number, struct dec *d)
{
    struct core *core = host_core(n->host);
    switch (number) {
        REQUEST(HELLO, hello, on_hello(n, c, &m))
        REQUEST(RECEIVED, received, core_received(core, c->id, m.count))
        REQUEST(CANCEL, cancel, core_cancel(core, c->id, m.request, m.id))
        REQUEST(STATUS, status, core_status(core, c->id, m.request, m.id))
        REQUEST(LIST, list, core_list(core, c->id, &m))
        REQUEST(CONTROL, control, core_control(core, c->id, &m))
        REQUEST(WATCH, watch, core_watch(core, c->id, m.request, m.on))
        REQUEST(ECHO, echo, native_say_ok(c, m.request, 0))
        REQUEST(WAIT, wait, if (m.follow > FOLLOW_ALL) dec_fail(d, "follow is 0, 1 or 2");
                else core_wait(core, c->id, m.request, m.id, (enum follow)m.follow))
    default:
        dec_fail(d, "the message is not one that a client sends");
    }
}

static void message_handle(struct native *n, struct conn *c, struct dec *d)
{
    unsigned number = dec_message(d);
    if (number == MSG_SUBMIT && c->greeted) {
        struct msg_submit m;
        const char *error = msg_submit_decode(d, &m) ? batch_add(n, c, &m, NULL) : d->error;
        if (error)
            dec_fail(d, error);
        return;
    }
    if (dec_failed(d))
        return;
    if (!c->greeted && number != MSG_HELLO) {
        dec_fail(d, "HELLO comes first");
        return;
    }
    /* In the order in which they were sent. */
    batch_flush(n, c);
    request_handle(n, c, number, d);
}

static void frame_handle(struct native *n, struct conn *c, struct slice frame)
{
    struct dec d = dec_of(frame);
    while (dec_more(&d) && c->state == CONN_OPEN)
        message_handle(n, c, &d);
    if (!dec_failed(&d) || c->state != CONN_OPEN)
        return;
    batch_flush(n, c);
    char text[200];
    snprintf(text, sizeof text, "%s: see proto/PROTOCOL.md", d.error);
    native_fail(c, PUSHROD_E_BAD_MESSAGE, text);
}

/* ----------------------------------------------------------------------------- large frames */

/*
 * The head of [41, request, queue, bin32 size ...] up to the payload's first byte, if it begins a
 * frame of `size` bytes; 0: something else does, or its payload is there already.
 */
static size_t large_submit_head(
    const struct native *n, struct slice start, size_t size, size_t *payload)
{
    struct dec d = dec_of(start);
    if (dec_message(&d) != MSG_SUBMIT)
        return 0;
    dec_u64(&d);
    dec_text(&d);
    if (dec_failed(&d) || d.end - d.at < 5 || d.at[0] != 0xc6)
        return 0;
    *payload = frame_size(d.at + 1);
    size_t head = (size_t)(d.at + 5 - start.data);
    bool large = *payload >= LARGE_PAYLOAD && *payload > start.size - head;
    return large && *payload <= n->config.max_payload && *payload <= size - head ? head : 0;
}

static void large_free(struct conn *c)
{
    struct large *l = c->data;
    c->data = NULL;
    if (!l)
        return;
    body_unref(l->body);
    free(l);
}

/* Where the rest of the frame goes: into c->in, as a whole or (with a body) its tail. */
static void large_read(struct conn *c, size_t rest)
{
    uint8_t *to = buf_reserve(&c->in, rest);
    if (!to) {
        conn_kill(c, PUSHROD_E_NO_MEMORY);
        return;
    }
    c->in.size += rest;
    conn_fill(c, to, rest);
}

/*
 * A frame of `size` bytes of which only `start` is there. If a SUBMIT with a large payload begins
 * it, its payload is read from the socket into the body that the lane will send it from. False: it
 * has none, and fits into the shared buffer.
 */
static bool large_begin(struct native *n, struct conn *c, struct slice start, size_t size)
{
    size_t payload = 0, head = large_submit_head(n, start, size, &payload);
    size_t there = start.size - head;
    if (!head && size + FRAME_HEAD <= CONN_READ)
        return false;
    struct large *l = c->data = calloc(1, sizeof *l);
    if (l && head)
        l->body = body_new(payload);
    buf_clear(&c->in);
    buf_append(&c->in, start.data, l && l->body ? head : start.size);
    if (!l || c->in.failed) {
        conn_kill(c, PUSHROD_E_NO_MEMORY);
    } else if (!l->body) {
        large_read(c, size - start.size);
    } else {
        memcpy(l->body->data, start.data + head, there);
        l->tail = size - head - payload;
        conn_fill(c, l->body->data + there, payload - there);
    }
    return true;
}

/* c->in is the head of the SUBMIT and the tail of the frame; what is between them is in body. */
static void large_submit(struct native *n, struct conn *c, struct large *l)
{
    struct msg_submit m = {0};
    struct dec d = dec_of(slice_of(c->in.data, c->in.size));
    unsigned number = dec_message(&d);
    assert(number == MSG_SUBMIT);
    (void)number;
    m.request = dec_u64(&d);
    m.queue = dec_text(&d);
    d.at += 5; /* the head of the payload: large_submit_head() has seen it */
    m.follow = dec_u64(&d);
    m.patient = dec_bool(&d);
    m.options = dec_list(&d);
    struct slice rest = {d.at, (size_t)(d.end - d.at)};
    const char *error = d.error;
    struct body *body = l->body;
    l->body = NULL;
    if (!error)
        error = batch_add(n, c, &m, body);
    else
        body_unref(body);
    if (error)
        native_fail(c, PUSHROD_E_BAD_MESSAGE, error);
    else if (rest.size)
        frame_handle(n, c, rest);
}

static void native_filled(struct conn *c)
{
    struct native *n = c->arg;
    struct large *l = c->data;
    if (l->body && l->tail) {
        size_t tail = l->tail;
        l->tail = 0;
        large_read(c, tail);
        return;
    }
    if (!l->body)
        frame_handle(n, c, buf_slice(&c->in));
    else if (!c->greeted)
        native_fail(c, PUSHROD_E_BAD_MESSAGE, "HELLO comes first");
    else
        large_submit(n, c, l);
    batch_flush(n, c);
    large_free(c);
    buf_free(&c->in);
}

/* ---------------------------------------------------------------------------------- frames */

/* Somebody who dialled the wrong port says something that looks like a huge frame. */
static bool stranger_hint(struct native *n, struct conn *c, const uint8_t head[FRAME_HEAD])
{
    static const char *const methods[] = {"GET ", "HEAD", "POST", "PUT ", "DELE", "OPTI", "PRI "};
    char text[256];
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        if (memcmp(head, methods[i], FRAME_HEAD) != 0)
            continue;
        int size = snprintf(text, sizeof text,
            "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n\r\n"
            "this is the port for Pushrod clients");
        if (n->config.http_port)
            size += snprintf(text + size, sizeof text - (size_t)size, "; HTTP is spoken at port %u",
                n->config.http_port);
        text[size++] = '\n';
        conn_write(c, text, (size_t)size);
        return true;
    }
    if (head[0] == 0xff && head[1] == 0 && head[2] == 0) {
        int size = snprintf(text, sizeof text,
            "this is the port for Pushrod clients; workers join at port %u\n", n->config.join_port);
        conn_write(c, text, (size_t)size);
        return true;
    }
    return false;
}

static void frame_refuse(struct native *n, struct conn *c, const uint8_t head[FRAME_HEAD])
{
    uint32_t size = frame_size(head);
    char text[160];
    if (!c->greeted && stranger_hint(n, c, head)) {
        conn_close(c, PUSHROD_E_WRONG_PORT);
        return;
    }
    if (!c->greeted && head[0] == 0x16 && head[1] == 0x03)
        snprintf(text, sizeof text, "TLS is not spoken at this port");
    else if (size == 0)
        snprintf(text, sizeof text, "a frame is empty");
    else
        snprintf(text, sizeof text, "a frame of %u bytes is larger than the limit of %zu%s", size,
            c->greeted ? n->config.max_payload + NATIVE_FRAME_SPARE : (size_t)NATIVE_FIRST_FRAME,
            c->greeted ? " (max-payload)" : " before GREETING");
    native_fail(c, PUSHROD_E_BAD_FRAME, text);
}

static bool frame_allowed(const struct native *n, const struct conn *c, size_t size)
{
    size_t limit = c->greeted ? n->config.max_payload + NATIVE_FRAME_SPARE : NATIVE_FIRST_FRAME;
    return size > 0 && size <= limit;
}

/* Takes whole frames; a frame that is not whole stays, or is read by large_begin(). */
static size_t frames_take(struct native *n, struct conn *c, const uint8_t *data, size_t size)
{
    size_t at = 0;
    while (size - at >= FRAME_HEAD && c->state == CONN_OPEN) {
        size_t frame = frame_size(data + at), there = size - at - FRAME_HEAD;
        if (!frame_allowed(n, c, frame)) {
            batch_flush(n, c);
            frame_refuse(n, c, data + at);
            return size;
        }
        if (there < frame) {
            if (!large_begin(n, c, slice_of(data + at + FRAME_HEAD, there), frame))
                break;
            return size;
        }
        frame_handle(n, c, slice_of(data + at + FRAME_HEAD, frame));
        at += FRAME_HEAD + frame;
    }
    return at;
}

static size_t native_take(struct conn *c, const uint8_t *data, size_t size)
{
    struct native *n = c->arg;
    assert(n->count == 0);
    size_t used = frames_take(n, c, data, size);
    batch_flush(n, c);
    return used;
}

/* -------------------------------------------------------------------------------- lifetime */

static void native_opened(struct conn *c)
{
    (void)c; /* it must say HELLO before the handshake's time is over */
}

static void closings_tell(void *arg)
{
    struct native *n = arg;
    const uint64_t *ids = (const uint64_t *)(const void *)n->closed.data;
    for (size_t i = 0; i < n->closed.size / sizeof *ids; i++)
        core_conn_closed(host_core(n->host), ids[i]);
    buf_clear(&n->closed);
}

/*
 * In the next round: many a connection ends while the core's actions are carried out, by what is
 * written to it. What the core asks for then, a task's cancelling, would be in nobody's tick.
 */
static void closing_note(struct native *n, uint64_t id)
{
    buf_append(&n->closed, &id, sizeof id);
    if (n->closed.failed)
        abort(); /* as without memory for actions: what was accepted is in the store */
    loop_defer(n->loop, &n->closings);
}

static void native_closed(struct conn *c, int code)
{
    struct native *n = c->arg;
    static struct log_limit limit;
    char more[LOG_MORE];
    char peer[CONN_PEER_TEXT];
    large_free(c);
    if (c->greeted)
        closing_note(n, c->id);
    if (code && code != PUSHROD_E_CLOSED && log_allowed(&limit, more))
        log_info("client %s: closed: %s%s", conn_peer(c, peer), pushrod_strerror(code), more);
}

static void native_turned_away(int fd, void *arg)
{
    (void)arg;
    struct buf out = BUF_EMPTY;
    size_t begin = frame_begin(&out);
    struct msg_error m = {PUSHROD_E_TOO_MANY,
        slice_str("the server has as many clients as it was allowed: raise max-clients")};
    msg_error_encode(&out, &m);
    frame_end(&out, begin);
    if (!out.failed)
        (void)!send(fd, out.data, out.size, MSG_NOSIGNAL | MSG_DONTWAIT);
    buf_free(&out);
}

const struct conn_ops native_ops = {
    .name = "native",
    .opened = native_opened,
    .input = native_take,
    .filled = native_filled,
    .closed = native_closed,
    .turned_away = native_turned_away,
};

struct native *native_new(struct conns *set, struct host *host, const struct native_config *config)
{
    struct native *n = calloc(1, sizeof *n);
    if (!n)
        return NULL;
    n->set = set;
    n->loop = conns_loop(set);
    n->host = host;
    deferral_init(&n->closings, closings_tell, n);
    n->config = *config;
    return n;
}

void native_free(struct native *n)
{
    if (!n)
        return;
    loop_undefer(&n->closings);
    buf_free(&n->closed);
    buf_free(&n->out);
    free(n);
}

void native_set_token(struct native *n, const char *token)
{
    n->config.token = token;
}

void native_set_unix(struct native *n, const char *name)
{
    n->config.unix_name = name;
}

struct buf *native_output(struct native *n)
{
    return &n->out;
}

struct conns *native_conns(struct native *n)
{
    return n->set;
}
