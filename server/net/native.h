/* SPDX-License-Identifier: Apache-2.0 */
/*
 * native: the client protocol (proto/PROTOCOL.md) on TCP connections.
 *
 * Knows frames, messages and what a stranger may send instead; turns requests into calls of the
 * core, and the core's actions into messages. What a request means is the core's business.
 *
 * The loop's thread; native_input.c reads, native_output.c writes.
 */
#ifndef SERVER_NET_NATIVE_H
#define SERVER_NET_NATIVE_H

#include <stddef.h>
#include <stdint.h>
#include "common/buf.h"
#include "server/net/conn.h"
#include "server/net/host.h"

#define NATIVE_FRAME_SPARE (64u << 10) /* bytes of a frame beyond the largest payload */
#define NATIVE_FIRST_FRAME (64u << 10) /* the largest frame before GREETING */
#define NATIVE_BATCH       512u        /* submissions handed to the core in one call */

struct native_config {
    const char *token;  /* what HELLO must carry; "": nothing. Borrowed for ever */
    size_t max_payload; /* bytes */
    uint16_t http_port; /* named to those who dialled the wrong port; 0: none */
    uint16_t join_port;
    const char *unix_name; /* told to clients: they may come there instead; NULL: none. Borrowed */
};

struct native;

struct native *native_new(
    struct conns *set, struct host *host, const struct native_config *config); /* NULL: no memory */
void native_free(struct native *native); /* after the connections are closed */
void native_set_token(
    struct native *native, const char *token); /* for those who come from now on */

void native_set_unix(struct native *native, const char *name); /* the same, for unix_name */

/* For conns_listen(), with the struct native as `arg`. */
extern const struct conn_ops native_ops;

/* Actions of the core for one connection, which may be gone. At the end of a tick. */
void native_actions(struct native *native, const struct conn_action *actions, size_t count);

/* Between the two halves: an ERROR, and the end. */
void native_fail(struct conn *c, int code, const char *text);
void native_say_greeting(
    struct conn *c, uint64_t max_payload, const char *unix_name, uint64_t now_ms);
void native_say_rejected(struct conn *c, uint64_t request, int code, const char *text);
void native_say_ok(struct conn *c, uint64_t request, uint64_t count);
struct buf *native_output(struct native *native);
struct conns *native_conns(struct native *native);

#endif
