/* SPDX-License-Identifier: Apache-2.0 */
/*
 * join_parse: what a stranger sent to the join port, checked.
 *
 * Knows the form of JOIN and what is allowed in it; decides nothing else. What comes out borrows
 * from the frame, but for the arrays, which belong to the struct join_request.
 */
#ifndef SERVER_NET_JOIN_PARSE_H
#define SERVER_NET_JOIN_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include "proto/codec.h"
#include "server/core/core.h"

#define JOIN_MAX_QUEUES 1024u
#define JOIN_MAX_HELD   (1u << 20)
#define JOIN_MAX_TEXT   256u

struct join_request {
    struct msg_join message;
    struct join join; /* complete but for the peer */
    struct slice *queues;
    struct held *held;
    char text[JOIN_MAX_TEXT]; /* why it is refused */
};

/*
 * Looks ahead, reads nothing: a JOIN of whatever version begins alike. False: it is no JOIN.
 * `nonce` stays absent if it cannot be read.
 */
bool join_peek(const struct dec *d, uint64_t *version, struct slice *nonce);

/* After dec_message() gave MSG_JOIN. 0, or an error whose text is in the request. */
int join_request_read(struct join_request *r, struct dec *d);
void join_parsed_free(struct join_request *r);

/* The text of BAD_VERSION. */
void join_version_text(char text[JOIN_MAX_TEXT], uint64_t version);

#endif
