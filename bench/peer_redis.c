/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Redis as a queue, pipelined, workers in batches of 16 (hiredis reads the answers):
 *   list     LPUSH; BLMPOP takes a batch; results go to a second list (a worker that dies loses its
 * batch) stream   XADD; XREADGROUP takes a batch, XACK after it, XDEL keeps the stream short;
 * results in a list The submitter takes results with BLMPOP of 128 on a second connection.
 */
#include <err.h>
#include <hiredis/hiredis.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>
#include "bench/load.h"
#include "bench/wire.h"

enum { BATCH = 16, RESULT_BATCH = 128 };

struct connection {
    struct wire wire;
    redisReader *reader;
};

static void connection_open(struct connection *c, const struct load_options *o)
{
    wire_open(&c->wire, o->address);
    c->reader = redisReaderCreate();
    if (!c->reader)
        errx(1, "redisReaderCreate");
}

static void connection_close(struct connection *c)
{
    wire_close(&c->wire);
    redisReaderFree(c->reader);
}

/* A command of `count` words. */
static void put_command(struct wire *w, size_t count, const char *const *words, const size_t *sizes)
{
    wire_printf(w, "*%zu\r\n", count);
    for (size_t i = 0; i < count; i++) {
        wire_printf(w, "$%zu\r\n", sizes[i]);
        wire_put(w, words[i], sizes[i]);
        wire_put(w, "\r\n", 2);
    }
}

/* The same for words that are texts; a NULL ends them. */
static void put_words(struct wire *w, const char *const *words)
{
    size_t sizes[16], count = 0;
    for (; words[count]; count++)
        sizes[count] = strlen(words[count]);
    put_command(w, count, words, sizes);
}

/* The next answer, to be freed with freeReplyObject(); NULL: not all there. */
static redisReply *take_reply(struct connection *c)
{
    void *reply = NULL;
    size_t left = wire_left(&c->wire);
    if (left)
        redisReaderFeed(c->reader, wire_take(&c->wire, left), left);
    if (redisReaderGetReply(c->reader, &reply) != REDIS_OK)
        errx(1, "redis: %s", c->reader->errstr);
    redisReply *r = reply;
    if (r && r->type == REDIS_REPLY_ERROR)
        errx(1, "redis: %s", r->str);
    return r;
}

static redisReply *block_reply(struct connection *c)
{
    redisReply *r;
    while (!(r = take_reply(c)))
        wire_block(&c->wire);
    return r;
}

static bool is_stream(const struct load_options *o)
{
    return strcmp(o->variant, "stream") == 0;
}

struct client {
    struct connection put, take;
    const struct load_options *o;
    int poller;
    char results[160];
};

static void ask_results(struct client *c)
{
    put_words(&c->take.wire,
        (const char *const[]){"BLMPOP", "0", "1", c->results, "RIGHT", "COUNT", "128", NULL});
}

static void *client_open(const struct load_options *o)
{
    struct client *c = calloc(1, sizeof *c);
    if (!c)
        err(1, "calloc");
    c->o = o;
    snprintf(c->results, sizeof c->results, "%s-results", o->queue);
    c->poller = epoll_create1(EPOLL_CLOEXEC);
    connection_open(&c->put, o);
    connection_open(&c->take, o);
    for (int i = 0; i < 2; i++) {
        int fd = i ? c->take.wire.fd : c->put.wire.fd;
        struct epoll_event e = {.events = EPOLLIN};
        if (epoll_ctl(c->poller, EPOLL_CTL_ADD, fd, &e) != 0)
            err(1, "epoll_ctl");
    }
    if (!o->no_result)
        ask_results(c);
    return c;
}

static bool client_submit(void *handle, const struct load_task *task)
{
    struct client *c = handle;
    const char *list[] = {"LPUSH", c->o->queue, task->payload};
    const char *stream[] = {"XADD", c->o->queue, "*", "p", task->payload};
    bool streaming = is_stream(c->o);
    const char **words = streaming ? stream : list;
    size_t sizes[5], count = streaming ? 5 : 3;
    for (size_t i = 0; i + 1 < count; i++)
        sizes[i] = strlen(words[i]);
    sizes[count - 1] = task->size;
    put_command(&c->put.wire, count, words, sizes);
    return true;
}

static void take_results(struct client *c)
{
    for (redisReply *r; (r = take_reply(&c->take)); freeReplyObject(r)) {
        if (r->type != REDIS_REPLY_ARRAY || r->elements != 2)
            errx(1, "redis: an answer of another kind");
        for (size_t i = 0; i < r->element[1]->elements; i++)
            load_finished(r->element[1]->element[i]->str, r->element[1]->element[i]->len);
        ask_results(c);
    }
}

static void client_process(void *handle)
{
    struct client *c = handle;
    wire_flush(&c->put.wire);
    while (wire_fill(&c->put.wire))
        for (redisReply *r; (r = take_reply(&c->put)); freeReplyObject(r))
            load_accepted(1);
    wire_flush(&c->take.wire);
    while (wire_fill(&c->take.wire))
        take_results(c);
    wire_flush(&c->take.wire);
    struct epoll_event e = {.events = EPOLLIN};
    if (wire_pending(&c->put.wire))
        e.events |= EPOLLOUT;
    epoll_ctl(c->poller, EPOLL_CTL_MOD, c->put.wire.fd, &e);
}

static int client_fd(void *handle)
{
    return ((struct client *)handle)->poller;
}

static void client_close(void *handle)
{
    struct client *c = handle;
    connection_close(&c->put);
    connection_close(&c->take);
    close(c->poller);
    free(c);
}

/* ---- workers ---- */

/* The results of a batch, in one LPUSH. */
struct results {
    char data[BATCH][LOAD_RESULT];
    size_t count;
};

static void add_result(struct results *r, const redisReply *payload)
{
    if (r->count == BATCH)
        errx(1, "redis: more than it was asked for");
    load_work(payload->str, payload->len, r->data[r->count++]);
}

static void put_results(struct connection *c, const char *name, const struct results *r)
{
    const char *words[BATCH + 2] = {"LPUSH", name};
    size_t sizes[BATCH + 2] = {5, strlen(name)};
    for (size_t i = 0; i < r->count; i++) {
        words[i + 2] = r->data[i];
        sizes[i + 2] = LOAD_RESULT;
    }
    put_command(&c->wire, r->count + 2, words, sizes);
}

static void drop_replies(struct connection *c, unsigned count)
{
    while (count--)
        freeReplyObject(block_reply(c));
}

static void work_list(struct connection *c, const struct load_options *o, const char *results)
{
    const char *take[] = {"BLMPOP", "0", "1", o->queue, "RIGHT", "COUNT", "16", NULL};
    put_words(&c->wire, take);
    for (;;) {
        redisReply *r = block_reply(c);
        struct results done = {.count = 0};
        size_t count = r->elements == 2 ? r->element[1]->elements : 0;
        for (size_t i = 0; i < count; i++)
            add_result(&done, r->element[1]->element[i]);
        freeReplyObject(r);
        if (count)
            put_results(c, results, &done);
        put_words(&c->wire, take); /* in the same write */
        drop_replies(c, count ? 1 : 0);
    }
}

/* [[stream, [[id, [field, value]], ...]]] */
static void work_stream_batch(
    struct connection *c, const struct load_options *o, const char *results, const redisReply *r)
{
    const char *ack[BATCH + 3] = {"XACK", o->queue, "workers"},
                            *del[BATCH + 2] = {"XDEL", o->queue};
    size_t ack_sizes[BATCH + 3] = {4, strlen(o->queue), 7},
                             del_sizes[BATCH + 2] = {4, strlen(o->queue)};
    const redisReply *entries = r->element[0]->element[1];
    struct results done = {.count = 0};
    size_t n = entries->elements;
    for (size_t i = 0; i < n; i++) {
        const redisReply *entry = entries->element[i];
        add_result(&done, entry->element[1]->element[1]);
        ack[i + 3] = del[i + 2] = entry->element[0]->str;
        ack_sizes[i + 3] = del_sizes[i + 2] = entry->element[0]->len;
    }
    put_results(c, results, &done);
    put_command(&c->wire, n + 3, ack, ack_sizes);
    put_command(&c->wire, n + 2, del, del_sizes);
}

static void work_stream(struct connection *c, const struct load_options *o, const char *results)
{
    char name[32];
    snprintf(name, sizeof name, "w%d", (int)getpid());
    const char *take[] = {"XREADGROUP", "GROUP", "workers", name, "COUNT", "16", "BLOCK", "0",
        "STREAMS", o->queue, ">", NULL};
    put_words(&c->wire, take);
    for (;;) {
        redisReply *r = block_reply(c);
        bool some = r->type == REDIS_REPLY_ARRAY && r->elements;
        if (some)
            work_stream_batch(c, o, results, r);
        freeReplyObject(r);
        put_words(&c->wire, take); /* in the same write */
        drop_replies(c, some ? 3 : 0);
    }
}

static void work(const struct load_options *o)
{
    struct connection c;
    char results[160];
    snprintf(results, sizeof results, "%s-results", o->queue);
    connection_open(&c, o);
    if (is_stream(o))
        work_stream(&c, o, results);
    else
        work_list(&c, o, results);
}

int main(int argc, char **argv)
{
    static const struct driver driver = {.name = "redis",
        .open = client_open,
        .submit = client_submit,
        .process = client_process,
        .fd = client_fd,
        .close = client_close,
        .work = work};
    return load_main(argc, argv, &driver);
}
