/* SPDX-License-Identifier: Apache-2.0 */
/* input: whole files and standard input, with a limit. */
#ifndef CLIENT_INPUT_H
#define CLIENT_INPUT_H

#include "client/command.h"

/*
 * Appends what is in the file ("-": standard input), at most `limit` + 1 bytes, so that the caller
 * sees when it was too much. 0 or an errno.
 */
int input_read(struct buf *to, const char *path, size_t limit);

/* The payload of a task, if the server takes as much. Not 0: an exit code; it was reported. */
int payload_read(struct cli *cli, struct buf *to, const char *path); /* "-": as above */
int payload_fits(struct cli *cli, const char *name, size_t size);

#endif
