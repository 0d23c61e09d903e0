/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wire: a TCP connection with a buffer each way, for the peers whose protocols we speak ourselves.
 *
 * Non-blocking; what is to be sent gathers until wire_flush(), so a pipelined client writes once
 * for many requests. It knows nothing of any protocol. Errors end the program: a benchmark whose
 * server went away has no figure.
 */
#ifndef BENCH_WIRE_H
#define BENCH_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct wire {
    int fd;
    char *in; /* bytes in_at..in_end were read and not taken */
    size_t in_at, in_end, in_cap;
    char *out; /* bytes out_at..out_end wait to be sent */
    size_t out_at, out_end, out_cap;
};

/* Dials host:port, for up to 10 s while nobody listens there; the program ends if that fails. */
void wire_open(struct wire *w, const char *address);
void wire_close(struct wire *w);

void wire_put(struct wire *w, const void *data, size_t size);
__attribute__((format(printf, 2, 3))) void wire_printf(struct wire *w, const char *format, ...);

void wire_flush(struct wire *w);         /* sends what the socket takes now */
bool wire_pending(const struct wire *w); /* some of it waits */
bool wire_fill(struct wire *w);          /* reads what is there; false: nothing was */
void wire_block(struct wire *w); /* sends, and waits until something can be read, and reads it */
/* The same for at most `ms`; false: nothing came. */
bool wire_block_for(struct wire *w, int ms);

/* Takes a line that ends in CR LF, without them, NUL-terminated in place; NULL: not all there. */
char *wire_line(struct wire *w, size_t *size);
/* Takes `size` bytes; NULL: not all there. Valid until the next fill. */
char *wire_take(struct wire *w, size_t size);
size_t wire_left(const struct wire *w);      /* bytes that can be taken */
const char *wire_peek(const struct wire *w); /* the first of them */

#endif
