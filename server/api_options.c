/* SPDX-License-Identifier: Apache-2.0 */
/* api_options: struct pushrod_options, as programs write it, into OPTIONS, as the core reads it. */
#include <string.h>
#include "proto/codec.h"
#include "server/api.h"

static int headers_encode(
    struct pushrod_server *s, const struct pushrod_options *from, struct buf *out)
{
    enc_map(out, (uint32_t)from->header_count);
    for (size_t i = 0; i < from->header_count; i++) {
        const struct pushrod_header *h = &from->headers[i];
        if (!h->name || !h->value)
            return api_fail(s, PUSHROD_E_BAD_OPTION, "a header has no name or no value");
        enc_text(out, slice_str(h->name));
        enc_text(out, slice_str(h->value));
    }
    if (out->failed)
        return api_fail(s, PUSHROD_E_NO_MEMORY, "out of memory");
    if (out->size > PUSHROD_MAX_HEADERS)
        return api_fail(s, PUSHROD_E_TOO_BIG, "headers take %zu bytes, %u are allowed", out->size,
            PUSHROD_MAX_HEADERS);
    if (!headers_valid(buf_slice(out)))
        return api_fail(s, PUSHROD_E_BAD_OPTION, "a header's name is 1 to 64 of A-Z a-z 0-9 _ -");
    return 0;
}

static int options_check(struct pushrod_server *s, const struct pushrod_options *from)
{
    if (from->priority_plus_1 > PUSHROD_MAX_PRIORITY + 1)
        return api_fail(s, PUSHROD_E_BAD_OPTION, "the priority is %u, 0 to 9 are allowed",
            from->priority_plus_1 - 1);
    if (from->max_attempts > 1000)
        return api_fail(s, PUSHROD_E_BAD_OPTION, "max_attempts is %u, 1 to 1000 are allowed",
            from->max_attempts);
    if (from->tag_size && !from->tag)
        return api_fail(s, PUSHROD_E_INVALID, "the tag is NULL, but its size is not 0");
    if (from->header_count && !from->headers)
        return api_fail(s, PUSHROD_E_INVALID, "headers is NULL, but header_count is not 0");
    if (from->tag_size > PUSHROD_MAX_TAG)
        return api_fail(s, PUSHROD_E_TOO_BIG, "the tag has %zu bytes, %u are allowed",
            from->tag_size, PUSHROD_MAX_TAG);
    if (from->unique_key && strlen(from->unique_key) > PUSHROD_MAX_UNIQUE_KEY)
        return api_fail(s, PUSHROD_E_TOO_BIG, "the unique key has %zu bytes, %u are allowed",
            strlen(from->unique_key), PUSHROD_MAX_UNIQUE_KEY);
    return 0;
}

int options_convert(struct pushrod_server *s, const struct pushrod_options *from,
    struct msg_options *to, struct buf *headers)
{
    int error = options_check(s, from);
    if (error == 0 && from->header_count)
        error = headers_encode(s, from, headers);
    if (error)
        return error;
    *to = (struct msg_options){
        .priority = from->priority_plus_1 ? from->priority_plus_1 - 1 : PUSHROD_DEFAULT_PRIORITY,
        .delay_ms = from->delay_ms,
        .eta_ms = from->eta_ms,
        .timeout_ms = from->timeout_ms,
        .expires_ms = from->expires_ms,
        .max_attempts = from->max_attempts ? from->max_attempts : PUSHROD_DEFAULT_MAX_ATTEMPTS,
        .backoff_ms = from->backoff_ms ? from->backoff_ms : PUSHROD_DEFAULT_BACKOFF_MS,
        .unique_key = slice_str(from->unique_key),
        .unique_ms = from->unique_ms,
        .worker = slice_str(from->worker),
        .keep_ms = from->keep_ms,
        .tag = slice_of(from->tag_size ? from->tag : NULL, from->tag_size),
        .headers = from->header_count ? buf_slice(headers) : (struct slice){0},
    };
    return 0;
}
