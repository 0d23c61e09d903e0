/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keeper: a process that kills what is left when a supervisor and all its workers were killed.
 *
 * Commands are in process groups of their own, so that one can be ended without its worker; the
 * worker ends them, or its supervisor does, or nobody, if both are gone at once (`killall -9
 * pushrod-worker`). A death signal of the parent would reach the shell and not what it started, and
 * cgroups are not always ours. So each command finds a mark in its environment, which all that it
 * starts inherits; and the keeper, which waits for the end of a pipe that the supervisor and its
 * workers hold open, kills whatever has that mark.
 *
 * What has cleared its environment, or runs as another user, is not found.
 */
#ifndef WORKER_KEEPER_H
#define WORKER_KEEPER_H

#include <sys/types.h>

/* The mark: random, in the environment of the supervisor and of all that it starts from then on. */
#define KEEPER_VARIABLE "PUSHROD_SUPERVISOR"

/*
 * Forks it; the caller has one thread. It is in a session of its own, with another name, and hears
 * no signal but SIGKILL. 0: there is none, and errno says why; all else goes on without it.
 */
pid_t keeper_start(void);

#endif
