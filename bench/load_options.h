/* SPDX-License-Identifier: Apache-2.0 */
/* load_options: the command line of the load programs, a table. */
#ifndef BENCH_LOAD_OPTIONS_H
#define BENCH_LOAD_OPTIONS_H

#include "bench/load.h"

/* argv[2] and after: --NAME=VALUE. Ends the program with what is allowed if one is unknown. */
void load_options_read(struct load_options *o, int argc, char **argv);

#endif
