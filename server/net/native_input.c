/* SPDX-License-Identifier: Apache-2.0 */
/* native_input: what clients send, and what others send to the wrong port. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <pushrod/error.h>
#include <pushrod/task.h>
#include "common/log.h"
#include "common/name.h"
#include "proto/codec.h"
#include "proto/frame.h"
#include "server/net/native.h"
#include "server/net/native_parts.h"

struct native {
    struct host *host;
    struct conns *set;
    struct native_config config;
    struct buf out;
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
    /* One that is too large is refused by the core for its size. */
    bool large = m->payload.size > TASK_INLINE_PAYLOAD && m->payload.size <= n->config.max_payload;
    if (!body && large && !(body = conn_body(c, m->payload.data, m->payload.size))) {
        native_say_rejected(
            c, m->request, PUSHROD_E_NO_MEMORY, pushrod_strerror(PUSHROD_E_NO_MEMORY));
        return NULL;
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
            c, n->config.max_payload, n->config.unix_name, loop_now(conns_loop(n->set)).wall_ms);
    }
}

/* NULL: no such verb. Each has a limit of its own: who drops a thousand dead tasks hides no purge.
 */
static struct log_limit *verb_limit(struct slice verb)
{
    static struct {
        const char *verb;
        struct log_limit limit;
    } verbs[] = {{.verb = "pause"}, {.verb = "resume"}, {.verb = "purge"}, {.verb = "drain"},
        {.verb = "replay"}, {.verb = "drop"}};
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        if (slice_equal(verb, slice_str(verbs[i].verb)))
            return &verbs[i].limit;
    return NULL;
}

/* Who paused or purged what is asked for afterwards. A name that is none could be any bytes. */
static void control_log(struct conn *c, const struct msg_control *m)
{
    struct log_limit *limit = verb_limit(m->verb);
    char more[LOG_MORE], peer[CONN_PEER_TEXT], what[PUSHROD_MAX_QUEUE_NAME + 1] = "";
    if (!limit || !log_allowed(limit, more))
        return;
    if (name_valid(m->name))
        snprintf(what, sizeof what, "%.*s", (int)m->name.size, (const char *)m->name.data);
    else if (m->id)
        snprintf(what, sizeof what, "%llu", (unsigned long long)m->id);
    log_info("client %s asks: %.*s %s%s", conn_peer(c, peer), (int)m->verb.size,
        (const char *)m->verb.data, what, more);
}

static void on_control(struct native *n, struct conn *c, const struct msg_control *m)
{
    control_log(c, m);
    core_control(host_core(n->host), c->id, m);
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
        REQUEST(CONTROL, control, on_control(n, c, &m))
        REQUEST(WATCH, watch, core_watch(core, c->id, m.request, m.on))
        REQUEST(ECHO, echo, native_say_ok(c, m.request, 0))
        REQUEST(WAIT, wait, if (m.follow > FOLLOW_ALL) dec_fail(d, "follow is 0, 1 or 2");
                else core_wait(core, c->id, m.request, m.id, (enum follow)m.follow))
    default:
        dec_fail(d, "the message is not one that a client sends");
    }
}

/* One that begins at `begin`, of a frame that came in `parts` (or NULL). */
static void on_submit(
    struct native *n, struct conn *c, struct dec *d, const uint8_t *begin, struct parts *parts)
{
    struct msg_submit m;
    if (!msg_submit_decode(d, &m))
        return;
    struct body *body = parts ? parts_payload(parts, begin) : NULL;
    const char *error = batch_add(n, c, &m, body);
    if (error)
        dec_fail(d, error);
}

static void message_handle(struct native *n, struct conn *c, struct dec *d, struct parts *parts)
{
    const uint8_t *begin = d->at;
    unsigned number = dec_message(d);
    if (number == MSG_SUBMIT && c->greeted) {
        on_submit(n, c, d, begin, parts);
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

/* The messages of a frame, or as many as have `most` bytes. */
static void frame_handle(
    struct native *n, struct conn *c, struct dec *d, struct parts *parts, size_t most)
{
    const uint8_t *begin = d->at;
    while (dec_more(d) && c->state == CONN_OPEN && (size_t)(d->at - begin) < most)
        message_handle(n, c, d, parts);
    if (!dec_failed(d) || c->state != CONN_OPEN)
        return;
    batch_flush(n, c);
    char text[200];
    snprintf(text, sizeof text, "%s: see proto/PROTOCOL.md", d->error);
    native_fail(c, PUSHROD_E_BAD_MESSAGE, text);
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

/* What comes in parts goes on with `in`. */
static void parts_go_on(struct native *n, struct conn *c, struct slice *in)
{
    struct parts *p = c->data;
    enum parts_state state = parts_read(p, c, in);
    if (state == PARTS_NO_MEMORY)
        conn_kill(c, PUSHROD_E_NO_MEMORY);
    if (state != PARTS_WHOLE)
        return;
    /* Not the connection's meanwhile: it may end. */
    c->data = NULL;
    frame_handle(n, c, parts_left(p), p, CONN_READ);
    batch_flush(n, c);
    if (c->state != CONN_OPEN || !dec_more(parts_left(p))) {
        parts_free(p);
        return;
    }
    /* Others wait no longer for it than for any that sends as fast as it is read. */
    c->data = p;
    conn_again(c);
}

/* A frame's head and more. False: what is there is left to be read again, with more behind it. */
static bool frame_take(struct native *n, struct conn *c, struct slice *in)
{
    size_t size = frame_size(in->data), there = in->size - FRAME_HEAD;
    if (!frame_allowed(n, c, size)) {
        batch_flush(n, c);
        frame_refuse(n, c, in->data);
        return false;
    }
    if (there >= size) {
        struct dec d = dec_of(slice_of(in->data + FRAME_HEAD, size));
        frame_handle(n, c, &d, NULL, size);
        slice_skip(in, FRAME_HEAD + size);
        return true;
    }
    /* No large payload is in it. */
    if (size <= CONN_LARGE)
        return false;
    slice_skip(in, FRAME_HEAD);
    c->data = parts_new(size);
    if (c->data)
        parts_go_on(n, c, in);
    else
        conn_kill(c, PUSHROD_E_NO_MEMORY);
    return true;
}

static size_t native_take(struct conn *c, const uint8_t *data, size_t size)
{
    struct native *n = c->arg;
    struct slice in = slice_of(data, size);
    assert(n->count == 0);
    if (c->data)
        parts_go_on(n, c, &in);
    while (!c->data && in.size >= FRAME_HEAD && c->state == CONN_OPEN && frame_take(n, c, &in))
        continue;
    batch_flush(n, c);
    return size - in.size;
}

/* -------------------------------------------------------------------------------- lifetime */

static void native_closed(struct conn *c, int code)
{
    struct native *n = c->arg;
    static struct log_limit limit;
    char more[LOG_MORE];
    char peer[CONN_PEER_TEXT];
    parts_free(c->data);
    c->data = NULL;
    if (c->greeted)
        host_conn_closed(n->host, c->id);
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
    .input = native_take,
    .closed = native_closed,
    .turned_away = native_turned_away,
};

struct native *native_new(struct conns *set, struct host *host, const struct native_config *config)
{
    struct native *n = calloc(1, sizeof *n);
    if (!n)
        return NULL;
    n->set = set;
    n->host = host;
    n->config = *config;
    return n;
}

void native_free(struct native *n)
{
    if (!n)
        return;
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
