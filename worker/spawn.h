/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spawn: a command with pipes to it, in a session and so a process group of its own.
 *
 * Knows processes; knows nothing of tasks. Its ends of the pipes do not block and are closed at
 * exec; the child has 0, 1, 2, 3 and nothing else.
 */
#ifndef WORKER_SPAWN_H
#define WORKER_SPAWN_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "common/slice.h"

struct child {
    pid_t pid; /* and process group; 0: none */
    int exit;  /* pidfd: readable when it has ended; -1: the kernel gives none */
    int in;    /* its standard input; -1: closed; so the others */
    int out;
    int error;
    int notes; /* its descriptor 3 */
};

/* Runs /bin/sh -c `command`. 0, or errno. */
int child_spawn(struct child *c, const char *command, char *const *environment);

void child_close(int *fd); /* one of its ends, if it is open: -1 then */
/* Writes to its input what that takes, from bytes[*written] on. False: it takes no more, ever. */
bool child_write(const struct child *c, struct slice bytes, size_t *written);
void child_signal(const struct child *c, int number); /* the whole group, which it cannot leave */
bool child_ended(const struct child *c);              /* it is there to be reaped */

bool child_ends_within(const struct child *c, int ms);

/* poll(), where fds[0] is the child's `exit`; without a pidfd it is as if there were one. */
int child_poll(const struct child *c, struct pollfd *fds, nfds_t count, int wait_ms);

/* In place of a wait status, and no exit: somebody else reaped it, as the kernel does where a
 * program ignores SIGCHLD. */
#define CHILD_UNKNOWN (-1)

/* Kills what is left of the group, reaps it, closes everything. Gives the wait status. */
int child_end(struct child *c);

/* "exited with 3", "was killed by signal 11 (Segmentation fault)" */
void child_describe(int status, char *text, size_t size);

#endif
