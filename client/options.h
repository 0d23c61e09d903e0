/* SPDX-License-Identifier: Apache-2.0 */
/* options: the rows of one command: its own, then those that all commands have. */
#ifndef CLIENT_OPTIONS_H
#define CLIENT_OPTIONS_H

#include "client/command.h"

/* NULL, of the command: only those that all have. NULL: no memory. Both are for options_free(). */
struct params *options_new(const struct command *command, struct param **rows);
void options_free(struct params *p, struct param *rows);
struct params *options_common(void); /* the table of all programs, for environment and file */

#endif
