/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NATS JetStream (one replica, work-queue stream in a file), over its text protocol, pipelined: PUB
 * with a reply subject gives the publish acknowledgement; a durable pull consumer in batches of 64,
 * an explicit ACK for each; the result goes to a plain subject that the submitter listens to.
 */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "bench/load.h"
#include "bench/wire.h"

enum { BATCH = 64 };

/* One message as it came; the texts lie in the wire's buffer. */
struct message {
    char subject[256];
    char reply[256]; /* "" if none */
    unsigned sid;
    bool status; /* it has a header: a pull request ended */
    char *data;
    size_t size;
};

/* MSG subject sid [reply] size, or HMSG subject sid [reply] header-size size. */
static bool parse_head(char *line, struct message *m)
{
    char *words[6] = {0}, *save;
    size_t count = 0;
    for (char *w = strtok_r(line, " ", &save); w && count < 6; w = strtok_r(NULL, " ", &save))
        words[count++] = w;
    m->status = count && strcmp(words[0], "HMSG") == 0;
    size_t plain = m->status ? 5 : 4; /* words without a reply subject */
    if (count < plain)
        return false;
    snprintf(m->subject, sizeof m->subject, "%s", words[1]);
    snprintf(m->reply, sizeof m->reply, "%s", count > plain ? words[3] : "");
    m->sid = (unsigned)atoi(words[2]);
    m->size = strtoull(words[count - 1], NULL, 10);
    return true;
}

/* The next message, answering PING on the way; false: not all there. */
static bool take_message(struct wire *w, struct message *m)
{
    for (;;) {
        size_t start = w->in_at, size;
        const char *end = wire_left(w) ? memchr(wire_peek(w), '\n', wire_left(w)) : NULL;
        char line[1024];
        if (!end)
            return false;
        size = (size_t)(end - wire_peek(w)) + 1;
        char *text = wire_take(w, size);
        if (strncmp(text, "PING", 4) == 0)
            wire_printf(w, "PONG\r\n");
        if (strncmp(text, "-ERR", 4) == 0)
            errx(1, "nats: %.*s", (int)size, text);
        if (strncmp(text, "MSG", 3) && strncmp(text, "HMSG", 4))
            continue;
        if (size < 3 || size >= sizeof line)
            errx(1, "nats: a head of %zu bytes", size);
        memcpy(line, text, size - 2);
        line[size - 2] = 0;
        if (!parse_head(line, m))
            errx(1, "nats: %s", line);
        m->data = wire_take(w, m->size + 2);
        if (m->data)
            return true;
        w->in_at = start; /* the head is read again when the rest is there */
        return false;
    }
}

static void put_message(
    struct wire *w, const char *subject, const char *reply, const void *data, size_t size)
{
    wire_printf(w, "PUB %s %s%s%zu\r\n", subject, reply, *reply ? " " : "", size);
    wire_put(w, data, size);
    wire_put(w, "\r\n", 2);
}

/* A request of JetStream's API; its answer must not be an error. */
static void request(struct wire *w, const char *subject, const char *json)
{
    struct message m;
    char inbox[64];
    snprintf(inbox, sizeof inbox, "_B.api.%d", (int)getpid());
    put_message(w, subject, inbox, json, strlen(json));
    while (!take_message(w, &m))
        wire_block(w);
    if (memmem(m.data, m.size, "\"error\"", 7))
        errx(1, "nats: %s: %.*s", subject, (int)m.size, m.data);
}

/* The first connection of a program makes the stream and the consumer, or finds them made. */
static void open_wire(struct wire *w, const struct load_options *o)
{
    static bool made;
    char json[512];
    wire_open(w, o->address);
    wire_printf(w, "CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"c\",\"version\":\"1\","
                   "\"protocol\":1,\"headers\":true,\"no_responders\":true}\r\n");
    if (made)
        return;
    made = true;
    wire_printf(w, "SUB _B.api.%d 1\r\n", (int)getpid());
    snprintf(json, sizeof json,
        "{\"name\":\"BENCH\",\"subjects\":[\"%s\",\"%s.*\"],\"retention\":\"workqueue\","
        "\"storage\":\"%s\",\"num_replicas\":1}",
        o->queue, o->queue, *o->variant ? o->variant : "file");
    request(w, "$JS.API.STREAM.CREATE.BENCH", json);
    request(w, "$JS.API.CONSUMER.DURABLE.CREATE.BENCH.W",
        "{\"stream_name\":\"BENCH\",\"config\":{\"durable_name\":\"W\",\"ack_policy\":\"explicit\","
        "\"deliver_policy\":\"all\",\"ack_wait\":60000000000,\"max_ack_pending\":20000}}");
    wire_printf(w, "UNSUB 1\r\n");
}

/* Until the server has taken all that was sent: INFO, and then PONG. */
static void await_pong(struct wire *w)
{
    wire_printf(w, "PING\r\n");
    while (!memmem(wire_peek(w), wire_left(w), "PONG\r\n", 6))
        wire_block(w);
}

struct client {
    struct wire wire;
    const struct load_options *o;
    char acks[64]; /* the subject of this connection's publish acknowledgements */
};

enum { SID_ACKS = 2, SID_RESULTS = 3 };

static void *client_open(const struct load_options *o)
{
    static unsigned connections;
    struct client *c = calloc(1, sizeof *c);
    if (!c)
        err(1, "calloc");
    c->o = o;
    open_wire(&c->wire, o);
    snprintf(c->acks, sizeof c->acks, "_B.acks.%d.%u", (int)getpid(), connections++);
    wire_printf(&c->wire, "SUB %s %d\r\n", c->acks, SID_ACKS);
    if (connections == 1) /* one connection of a load takes the results of all */
        wire_printf(&c->wire, "SUB results.%s %d\r\n", o->queue, SID_RESULTS);
    await_pong(&c->wire);
    return c;
}

static bool client_submit(void *handle, const struct load_task *task)
{
    struct client *c = handle;
    put_message(&c->wire, task->queue, c->acks, task->payload, task->size);
    return true;
}

static void client_process(void *handle)
{
    struct client *c = handle;
    struct message m;
    wire_flush(&c->wire);
    while (wire_fill(&c->wire))
        while (take_message(&c->wire, &m)) {
            if (m.sid == SID_RESULTS)
                load_finished(m.data, m.size);
            else if (memmem(m.data, m.size, "\"error\"", 7))
                errx(1, "nats: %.*s", (int)m.size, m.data);
            else
                load_accepted(1);
        }
    wire_flush(&c->wire);
}

static int client_fd(void *handle)
{
    return ((struct client *)handle)->wire.fd;
}

static bool client_writing(void *handle)
{
    return wire_pending(&((struct client *)handle)->wire);
}

static void client_close(void *handle)
{
    wire_close(&((struct client *)handle)->wire);
    free(handle);
}

static void pull(struct wire *w, const char *inbox, unsigned batch)
{
    char json[64];
    int size = snprintf(json, sizeof json, "{\"batch\":%u}", batch);
    put_message(w, "$JS.API.CONSUMER.MSG.NEXT.BENCH.W", inbox, json, (size_t)size);
}

static void work(const struct load_options *o)
{
    struct wire w;
    struct message m;
    char inbox[64], results[160], result[LOAD_RESULT];
    unsigned taken = 0, batch = o->batch ? o->batch : BATCH;
    open_wire(&w, o);
    snprintf(inbox, sizeof inbox, "_B.work.%d", (int)getpid());
    snprintf(results, sizeof results, "results.%s", o->queue);
    wire_printf(&w, "SUB %s 2\r\n", inbox);
    pull(&w, inbox, batch);
    for (;;) {
        wire_block(&w);
        while (take_message(&w, &m)) {
            if (m.status) {
                pull(&w, inbox, batch);
                taken = 0;
                continue;
            }
            load_work(m.data, m.size, result);
            put_message(&w, results, "", result, sizeof result);
            put_message(&w, m.reply, "", "+ACK", 4);
            if (++taken >=
                (batch + 1) / 2) { /* the next ones are asked for before these are done */
                pull(&w, inbox, taken);
                taken = 0;
            }
        }
    }
}

int main(int argc, char **argv)
{
    static const struct driver driver = {.name = "nats",
        .open = client_open,
        .submit = client_submit,
        .process = client_process,
        .fd = client_fd,
        .writing = client_writing,
        .close = client_close,
        .work = work};
    return load_main(argc, argv, &driver);
}
