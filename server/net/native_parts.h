/* SPDX-License-Identifier: Apache-2.0 */
/*
 * native_parts: a frame of the client protocol that comes in more than one read.
 *
 * Nothing in a frame counts before all of it is there: a client whose connection ends in the middle
 * of one sends it again. So its values are kept as they come, but for large payloads of SUBMITs:
 * those go into bodies, not copied if that can be helped, and a nil keeps the place of each. From
 * the first value on that makes no sense, or is longer than one read, nothing is put aside, and
 * whoever decodes the frame finds the error.
 */
#ifndef SERVER_NET_NATIVE_PARTS_H
#define SERVER_NET_NATIVE_PARTS_H

#include "proto/codec.h"
#include "server/net/conn.h"

struct parts;

enum parts_state { PARTS_MORE, PARTS_WHOLE, PARTS_NO_MEMORY };

struct parts *parts_new(size_t size); /* of a frame of so many bytes; NULL: no memory */
/* In input(): takes what is there of the frame off `in`, but for the beginning of a value. */
enum parts_state parts_read(struct parts *p, struct conn *c, struct slice *in);
struct dec *parts_left(struct parts *p); /* of the whole frame: what was not decoded yet */
/*
 * The payload of the SUBMIT that begins at `message` of the frame, if it has a body; else NULL. The
 * reference becomes the caller's. Asked for in the order of the frame.
 */
struct body *parts_payload(struct parts *p, const uint8_t *message);
void parts_free(struct parts *p); /* NULL is fine */

#endif
