/* SPDX-License-Identifier: Apache-2.0 */
#include "server/net/http.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <pushrod/error.h>
#include "server/net/conn.h"

#define HTTP_MS   10000u       /* for a request and its answer: nobody stays */
#define HTTP_HEAD 8192u        /* bytes of a request's head */
#define HTTP_SENT (256u << 20) /* unsent bytes of one answer */

struct http {
    struct conns *set;
    const struct http_pages *pages;
    void *arg;
};

/* What a request asks for; the text is the connection's. */
struct request {
    struct slice method;
    struct slice path; /* without the query */
};

/* ------------------------------------------------------------------------------- answering */

/* One answer for each connection: a scraper comes every few seconds, and keeps none of ours. */
static void reply(struct conn *c, const char *status, struct slice body, bool body_too)
{
    char head[256];
    int size = snprintf(head, sizeof head,
        "HTTP/1.1 %s\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
        "Content-Length: %zu\r\n%sConnection: close\r\n\r\n",
        status, body.size, strncmp(status, "405", 3) == 0 ? "Allow: GET, HEAD\r\n" : "");
    conn_write(c, head, (size_t)size);
    if (body_too)
        conn_write(c, body.data, body.size);
    conn_close(c, 0);
}

static void reply_text(struct conn *c, const char *status, const char *text)
{
    reply(c, status, slice_str(text), true);
}

static void reply_page(struct conn *c, const char *status, struct buf *page, bool body_too)
{
    if (page->failed)
        reply_text(c, "500 Internal Server Error", "out of memory\n");
    else
        reply(c, status, buf_slice(page), body_too);
    buf_free(page);
}

static void page_ready(const struct http *http, struct conn *c, bool body_too)
{
    struct buf out = BUF_EMPTY;
    bool ready = http->pages->ready(http->arg, &out);
    if (ready)
        buf_printf(&out, "ok\n");
    reply_page(c, ready ? "200 OK" : "503 Service Unavailable", &out, body_too);
}

static void page_metrics(const struct http *http, struct conn *c, bool body_too)
{
    struct buf out = BUF_EMPTY;
    http->pages->metrics(http->arg, &out);
    reply_page(c, "200 OK", &out, body_too);
}

static bool is_text(struct slice s, const char *text)
{
    return slice_equal(s, slice_str(text));
}

static void answer(const struct http *http, struct conn *c, const struct request *r)
{
    bool head = is_text(r->method, "HEAD");
    if (!head && !is_text(r->method, "GET"))
        reply_text(c, "405 Method Not Allowed", "only GET and HEAD\n");
    else if (is_text(r->path, "/metrics"))
        page_metrics(http, c, !head);
    else if (is_text(r->path, "/readyz"))
        page_ready(http, c, !head);
    else if (is_text(r->path, "/healthz")) /* that this is answered says all */
        reply(c, "200 OK", slice_str("ok\n"), !head);
    else
        reply(c, "404 Not Found", slice_str("there is /metrics, /healthz and /readyz\n"), !head);
}

/* --------------------------------------------------------------------------------- reading */

/* The bytes up to `end`, which is left out and passed by. False: it is not there. */
static bool word_take(struct slice *from, char end, struct slice *word)
{
    const uint8_t *at = from->size ? memchr(from->data, end, from->size) : NULL;
    if (!at)
        return false;
    *word = slice_of(from->data, (size_t)(at - from->data));
    *from = slice_of(at + 1, from->size - word->size - 1);
    return true;
}

/* "METHOD PATH HTTP/1.x"; what a proxy puts before the path is passed over. */
static bool request_read(struct slice line, struct request *r)
{
    static const char scheme[] = "http://";
    struct slice target, rest;
    if (!word_take(&line, ' ', &r->method) || !word_take(&line, ' ', &target) || line.size < 8 ||
        memcmp(line.data, "HTTP/1.", 7) != 0)
        return false;
    rest = target;
    if (target.size > 7 && memcmp(target.data, scheme, 7) == 0) {
        rest = slice_of(target.data + 7, target.size - 7);
        const uint8_t *path = memchr(rest.data, '/', rest.size);
        target = path ? slice_of(path, (size_t)(rest.data + rest.size - path)) : slice_str("/");
    }
    rest = target;
    r->path = target;
    word_take(&rest, '?', &r->path);
    return r->method.size > 0 && r->path.size > 0 && r->path.data[0] == '/';
}

/* Bytes up to the empty line that ends a head, 0: not there yet. A line may end without CR. */
static size_t head_size(const uint8_t *data, size_t size)
{
    const uint8_t *at = data, *end = data + size;
    while (at < end && (at = memchr(at, '\n', (size_t)(end - at)))) {
        at++;
        if (at < end && *at == '\n')
            return (size_t)(at + 1 - data);
        if (end - at >= 2 && at[0] == '\r' && at[1] == '\n')
            return (size_t)(at + 2 - data);
    }
    return 0;
}

/* Clients and workers of ours begin with a byte that no text has, and wait for an answer. */
static bool is_binary(uint8_t first)
{
    return (first < 0x20 && first != '\r' && first != '\n') || first == 0xff;
}

static void page_stranger(const struct http *http, struct conn *c)
{
    struct buf out = BUF_EMPTY;
    http->pages->ports(http->arg, &out);
    reply_page(c, "400 Bad Request", &out, true);
}

static size_t http_input(struct conn *c, const uint8_t *data, size_t size)
{
    struct slice line, from = slice_of(data, size);
    struct request r;
    if (size && is_binary(data[0])) {
        page_stranger(c->arg, c);
        return size;
    }
    size_t head = head_size(data, size < HTTP_HEAD ? size : HTTP_HEAD);
    if (head == 0 && size >= HTTP_HEAD)
        reply_text(
            c, "431 Request Header Fields Too Large", "the head of a request is too large\n");
    if (head == 0)
        return 0;
    if (word_take(&from, '\n', &line) && request_read(line, &r))
        answer(c->arg, c, &r);
    else
        reply_text(c, "400 Bad Request", "this is not HTTP/1\n");
    return size;
}

static const struct conn_ops http_ops = {.name = "http", .input = http_input};

/* -------------------------------------------------------------------------------- lifetime */

struct http *http_new(struct loop *loop, const struct http_pages *pages, void *arg)
{
    struct http *http = calloc(1, sizeof *http);
    if (!http)
        return NULL;
    http->set = conns_new(loop, &(struct conns_config){.max_clients = HTTP_CONNECTIONS,
                                    .handshake_ms = HTTP_MS,
                                    .slow_ms = HTTP_MS,
                                    .max_unsent = HTTP_SENT});
    if (!http->set) {
        free(http);
        return NULL;
    }
    http->pages = pages;
    http->arg = arg;
    return http;
}

void http_free(struct http *http)
{
    if (!http)
        return;
    conns_free(http->set);
    free(http);
}

void http_flush(struct http *http)
{
    if (http)
        conns_flush(http->set);
}

int http_listen(struct http *http, const char *address, char **error)
{
    return conns_listen(http->set, address, &http_ops, http, error);
}
