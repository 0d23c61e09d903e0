/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inbuf: the buffer that connections read into, of which large payloads are taken as they lie.
 *
 * Who takes bytes of it holds the whole buffer by reference, and the next read gets another one. So
 * a payload is not copied between its socket and its lane; but a small one could keep a large
 * buffer. So what is taken is at least an eighth of its buffer, and nothing more is while those of
 * the process that something was taken of are together more than twice what was, and INBUF_SPARE
 * bytes. Whoever asks in vain has to copy.
 *
 * The loop's thread, but for the end of what was taken: that may come on any.
 */
#ifndef SERVER_NET_INBUF_H
#define SERVER_NET_INBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/body.h"

#define INBUF_SPARE (16u << 20) /* bytes */
#define INBUF_PARTS 8u          /* of a buffer: a smaller part of it is not given away */

struct inbuf_block;

/* All zero is an empty one. */
struct inbuf {
    struct inbuf_block *block; /* NULL: none */
    bool unfit;                /* something could not be taken: the next block is made to measure */
};

/*
 * `size` bytes to read into. They are valid until the next call, what is taken of them for longer.
 * NULL: no memory.
 */
uint8_t *inbuf_room(struct inbuf *in, size_t size);
/*
 * The `size` bytes from `data` on as a body with one reference. The last ones need not be there
 * yet: the caller reads them into it. NULL: they begin outside of the last room's block or do not
 * fit into it, are too small for it, too much is held already, or there is no memory.
 */
struct body *inbuf_take(struct inbuf *in, const uint8_t *data, size_t size);
void inbuf_free(struct inbuf *in); /* what was taken stays */

#endif
