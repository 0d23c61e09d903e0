/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http: /metrics, /healthz and /readyz.
 *
 * Knows as much of HTTP/1 as three pages need; what they say is asked from whoever made it. Its
 * connections are few, short and none of the clients': strangers here take nothing away from them.
 * The loop's thread.
 */
#ifndef SERVER_NET_HTTP_H
#define SERVER_NET_HTTP_H

#include <stdbool.h>
#include "common/buf.h"
#include "server/net/loop.h"

#define HTTP_CONNECTIONS 64u /* at the same time; more are closed */

struct http;

struct http_pages {
    void (*metrics)(void *arg, struct buf *out); /* the text format of Prometheus */
    bool (*ready)(void *arg, struct buf *out);   /* may work be sent here? `out`: why not */
    void (*ports)(void *arg, struct buf *out);   /* for strangers: who else listens, and where */
};

struct http *http_new(struct loop *loop, const struct http_pages *pages, void *arg);
void http_free(struct http *http);
void http_flush(struct http *http); /* sends what was written in this tick; NULL: nothing */
/* Returns the port, or a negative enum pushrod_error with a text that the caller frees. */
int http_listen(struct http *http, const char *address, char **error);

#endif
