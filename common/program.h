/* SPDX-License-Identifier: Apache-2.0 */
/*
 * program: how pushrod-server and pushrod-worker begin: with options from all sources, a log, and
 * what they print when they are asked for that instead of working. Exits for nobody.
 */
#ifndef COMMON_PROGRAM_H
#define COMMON_PROGRAM_H

#include <stdbool.h>
#include "common/buf.h"
#include "common/params.h"

struct program {
    const char *name;
    const char *usage; /* --help, before the options and behind them */
    const char *notes;
};

/* First thing in a program that forks: whoever starts us may ignore SIGCHLD, and so would we. Then
 * nobody could learn how a child has ended. */
void program_hear_children(void);

/*
 * Flags, environment, and the file that --config names. `unknown` gets a warning for each variable
 * that means nothing, each with its NUL. 0, or a negative error that params_error() tells. The same
 * arguments may be read again.
 */
int program_options(struct params *p, int argc, char **argv, struct buf *unknown);

/* Logs the warnings and frees them: after log_setup(), whose form the options may say. */
void program_warn(struct buf *unknown);

/*
 * Prints what an option of the table asks for on standard output. False: nothing was asked for.
 * *code: the exit code.
 */
bool program_print(const struct program *program, const struct params *p, int *code);

#endif
