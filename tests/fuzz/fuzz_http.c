/* SPDX-License-Identifier: Apache-2.0 */
/* Requests for the HTTP port: any bytes, whole and in pieces, get one answer and the same one. */
#include <string.h>

#include "tests/fuzz/check.h"
/* With connections of our own, so that nothing but the parser runs. */
#include "server/net/http.c"

static struct buf said;
static bool closed;

struct conns *conns_new(struct loop *loop, const struct conns_config *config)
{
    (void)loop, (void)config;
    return NULL;
}

void conns_free(struct conns *set)
{
    (void)set;
}

void conns_flush(struct conns *set)
{
    (void)set;
}

int conns_listen(
    struct conns *set, const char *address, const struct conn_ops *ops, void *arg, char **error)
{
    (void)set, (void)address, (void)ops, (void)arg, (void)error;
    return 0;
}

void conn_write(struct conn *c, const void *data, size_t size)
{
    (void)c;
    FUZZ_CHECK(!closed);
    buf_append(&said, data, size);
}

void conn_close(struct conn *c, int code)
{
    (void)c;
    FUZZ_CHECK(!closed && code == 0);
    closed = true;
}

static void page(void *arg, struct buf *out)
{
    (void)arg;
    buf_printf(out, "page\n");
}

static bool page_good(void *arg, struct buf *out)
{
    (void)arg, (void)out;
    return true;
}

/* As a connection does: what was not taken comes again, in front of the next piece. */
static struct buf hear(const uint8_t *data, size_t size, size_t piece)
{
    static const struct http_pages pages = {.metrics = page, .ready = page_good, .ports = page};
    struct http http = {.pages = &pages};
    struct conn c = {.arg = &http};
    said = BUF_EMPTY;
    closed = false;
    for (size_t at = 0, end = 0; end < size && !closed;) {
        end = size - end < piece ? size : end + piece;
        uint8_t *exact = malloc(end - at);
        memcpy(exact, data + at, end - at);
        size_t taken = http_input(&c, exact, end - at);
        FUZZ_CHECK(taken <= end - at && (taken == 0 || closed));
        at += taken;
        free(exact);
    }
    FUZZ_CHECK(closed == (said.size > 0));
    FUZZ_CHECK(!closed || (said.size > 9 && memcmp(said.data, "HTTP/1.1 ", 9) == 0));
    return said;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    struct buf whole = hear(data + 1, size - 1, size);
    struct buf pieces = hear(data + 1, size - 1, 1u + data[0]);
    FUZZ_CHECK(size >= HTTP_HEAD || slice_equal(buf_slice(&whole), buf_slice(&pieces)));
    buf_free(&whole);
    buf_free(&pieces);
    return 0;
}
