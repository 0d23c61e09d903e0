/* SPDX-License-Identifier: Apache-2.0 */
/*
 * command: whose fault it is that a command exited with 126 or 127. The shell means a program that
 * it cannot run; but an interpreter, or `xargs`, says it of what the payload names, and another
 * worker would fare no better.
 *
 * Knows the text of a command and what PATH has; runs nothing.
 */
#ifndef WORKER_COMMAND_H
#define WORKER_COMMAND_H

#include <stdbool.h>

/*
 * True: it is the command itself that cannot be run. `worked`: it has ended well before. One that
 * is more than a program and its arguments (a pipe, a list, a variable in front) counts as broken
 * until it has worked; so does a first word that is no program, for the shell may know it.
 */
bool command_is_broken(const char *command, int exit_code, bool worked);

#endif
