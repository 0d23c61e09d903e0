/* SPDX-License-Identifier: Apache-2.0 */
/*
 * options: every option of the server, the worker and the clients, once.
 *
 * Flags, environment, configuration file, `set(name, value)`, --help, the manual pages and the
 * sample configuration all come from this table. Who adds an option adds a row; what it does is
 * known only where it is asked for. Options of one subcommand of `pushrod` are in client/.
 */
#ifndef COMMON_OPTIONS_H
#define COMMON_OPTIONS_H

#include "common/params.h"

extern const struct param option_rows[];
extern const size_t option_count;

#endif
