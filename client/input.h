/* SPDX-License-Identifier: Apache-2.0 */
/* input: whole files and standard input, with a limit. */
#ifndef CLIENT_INPUT_H
#define CLIENT_INPUT_H

#include "common/buf.h"

/*
 * Appends what is in the file ("-": standard input), at most `limit` + 1 bytes, so that the caller
 * sees when it was too much. 0 or an errno.
 */
int input_read(struct buf *to, const char *path, size_t limit);

#endif
