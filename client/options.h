/* SPDX-License-Identifier: Apache-2.0 */
/* options: the rows of one command: its own, then those that all commands have. */
#ifndef CLIENT_OPTIONS_H
#define CLIENT_OPTIONS_H

#include "client/command.h"

/* The caller frees it, after the params that were made of it. NULL: no memory. */
struct param *options_rows(const struct command *command);
size_t options_count(const struct command *command);
struct params *options_common(void);

#endif
