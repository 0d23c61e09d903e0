/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unixsock: Unix sockets between processes of one host, in Linux's abstract namespace.
 *
 * They cost about two thirds of TCP over loopback. A name belongs to a network namespace, as a
 * loopback port does, and vanishes with its socket; it leaves no file (unix(7), "abstract"). Names
 * are drawn, and told over TCP. Whoever is on the server's host can read them (/proc/net/unix), and
 * take them on another host: they are looked for only if the server's address is one of this host.
 *
 * Any thread.
 */
#ifndef COMMON_UNIXSOCK_H
#define COMMON_UNIXSOCK_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "common/slice.h"

#define UNIXSOCK_BASE 48 /* bytes of what unixsock_draw() makes, with its end */
#define UNIXSOCK_NAME 96 /* ... and with something behind it */

/* A name that nobody else has or can guess, to be told apart by what is put behind it. False: the
 * system has no random bytes. */
bool unixsock_draw(char base[UNIXSOCK_BASE]);

/* The address of an abstract name, and its size; 0: the name is empty or longer than 107 bytes. */
socklen_t unixsock_address(struct sockaddr_un *address, struct slice name);

/* True if that address of TCP or UDP is one of this host, in this network namespace. */
bool unixsock_near(const struct sockaddr *server, socklen_t size);

/* A connected, non-blocking descriptor; -1: nobody listens there, or not on this host. */
int unixsock_dial(struct slice name);

/* True if somebody has that name on this host, in this network namespace. It is found out by trying
 * to take it, which whoever has it does not notice: ask for names of your own only. */
bool unixsock_taken(struct slice name);

/* True if the descriptor is a Unix socket bound to that abstract name, or was accepted there. */
bool unixsock_is(int fd, const char *name);

/*
 * More room for what is on its way, if it is a Unix socket: the kernel starts with 208 KiB, and
 * both ends of a large payload wait for each other. Bounded by net.core.wmem_max.
 */
void unixsock_widen(int fd);

#endif
