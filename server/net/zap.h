/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zap: who may connect to lanes and answers (ZeroMQ RFC 27).
 *
 * Knows users, their tokens, and the one lane of each. A lane admits the first peer that knows its
 * secret, and nobody after it, the same peer included; answers admit a user as often as it comes,
 * for that connection is renewed when it breaks. On join everybody may speak, but no protocol
 * older than ZMTP 3, and nothing that is no ZMTP at all (without a handler libzmq takes an HTTP
 * request for a peer of version 1).
 *
 * A thread of its own answers the requests; the table is under a mutex, so that what zap_admit()
 * wrote counts from its return.
 */
#ifndef SERVER_NET_ZAP_H
#define SERVER_NET_ZAP_H

#include <stdbool.h>

#define ZAP_DOMAIN_JOIN    "join"
#define ZAP_DOMAIN_ANSWERS "answers"
#define ZAP_NAME_SIZE      48u /* of a user or domain, its NUL included */
#define ZAP_TOKEN_SIZE     65u /* 32 random bytes in hex, and a NUL */

struct zap;

struct zap *zap_new(void *context); /* before any other socket of the context; NULL: no memory */
void zap_stop(struct zap *zap);     /* after zmq_ctx_shutdown(), before zmq_ctx_term() */

/* Makes a token for a user that may connect to answers, and once to `lane`. False: no memory. */
bool zap_admit(struct zap *zap, const char *user, const char *lane, char token[ZAP_TOKEN_SIZE]);
void zap_forget(struct zap *zap, const char *user); /* connections that are there stay */

#endif
