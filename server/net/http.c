/* SPDX-License-Identifier: Apache-2.0 */
#include "server/net/http.h"

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <pushrod/error.h>
#include "server/net/conn.h"

#define HTTP_TIMEOUT 10   /* seconds for a request, and of silence */
#define HTTP_HEAD    8192 /* bytes of a request's head */

struct http {
    struct evhttp *server;
    const struct http_pages *pages;
    void *arg;
};

static void reply(struct evhttp_request *request, int code, const char *reason, struct buf *body)
{
    struct evbuffer *out = evhttp_request_get_output_buffer(request);
    evhttp_add_header(evhttp_request_get_output_headers(request), "Content-Type",
        "text/plain; version=0.0.4; charset=utf-8");
    if (body->failed)
        evhttp_send_error(request, HTTP_INTERNAL, "out of memory");
    else if (evbuffer_add(out, body->data, body->size) == 0)
        evhttp_send_reply(request, code, reason, NULL);
    buf_free(body);
}

static void page_metrics(struct evhttp_request *request, void *arg)
{
    struct http *http = arg;
    struct buf out = BUF_EMPTY;
    http->pages->metrics(http->arg, &out);
    reply(request, HTTP_OK, "OK", &out);
}

/* That this is answered says all. */
static void page_health(struct evhttp_request *request, void *arg)
{
    (void)arg;
    struct buf out = BUF_EMPTY;
    buf_printf(&out, "ok\n");
    reply(request, HTTP_OK, "OK", &out);
}

static void page_ready(struct evhttp_request *request, void *arg)
{
    struct http *http = arg;
    struct buf out = BUF_EMPTY;
    bool ready = http->pages->ready(http->arg, &out);
    if (ready)
        buf_printf(&out, "ok\n");
    reply(request, ready ? HTTP_OK : HTTP_SERVUNAVAIL, ready ? "OK" : "Not ready", &out);
}

static void page_none(struct evhttp_request *request, void *arg)
{
    (void)arg;
    struct buf out = BUF_EMPTY;
    buf_printf(&out, "there is /metrics, /healthz and /readyz\n");
    reply(request, HTTP_NOTFOUND, "Not Found", &out);
}

struct http *http_new(struct loop *loop, const struct http_pages *pages, void *arg)
{
    struct http *http = calloc(1, sizeof *http);
    if (!http)
        return NULL;
    http->server = evhttp_new(loop_base(loop));
    if (!http->server) {
        free(http);
        return NULL;
    }
    http->pages = pages;
    http->arg = arg;
    evhttp_set_timeout(http->server, HTTP_TIMEOUT);
    evhttp_set_max_headers_size(http->server, HTTP_HEAD);
    evhttp_set_max_body_size(http->server, HTTP_HEAD);
    evhttp_set_allowed_methods(http->server, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD);
    evhttp_set_cb(http->server, "/metrics", page_metrics, http);
    evhttp_set_cb(http->server, "/healthz", page_health, http);
    evhttp_set_cb(http->server, "/readyz", page_ready, http);
    evhttp_set_gencb(http->server, page_none, http);
    return http;
}

void http_free(struct http *http)
{
    if (!http)
        return;
    evhttp_free(http->server);
    free(http);
}

int http_listen(struct http *http, const char *address, char **error)
{
    int port = 0, fd = listen_tcp(address, &port, error);
    if (fd < 0)
        return fd;
    if (evhttp_accept_socket(http->server, fd) == 0)
        return port;
    close(fd);
    *error = strdup("cannot listen for HTTP: out of memory");
    return -PUSHROD_E_NO_MEMORY;
}
