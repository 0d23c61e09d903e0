/* SPDX-License-Identifier: Apache-2.0 */
/*
 * address: from "host[:port]" to an address that can be reached, and what is wrong if none can.
 *
 * The worker pins the address that it reached: lane and answers are dialled there, not at whatever
 * the name resolves to next. Blocks (DNS, a connect that is tried): only for threads that may.
 */
#ifndef WORKER_ADDRESS_H
#define WORKER_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ADDRESS_TEXT     64u
#define ADDRESS_ENDPOINT 320u /* bytes of an endpoint: a host name has up to 255 */
#define ADDRESS_MAX      8u
#define JOIN_PORT        5571u

struct address_list {
    char host[256];                            /* as given */
    uint16_t port;                             /* as given, or JOIN_PORT */
    char addresses[ADDRESS_MAX][ADDRESS_TEXT]; /* numeric */
    size_t count;
};

/*
 * `text`: host[:port], or several with commas between them: the one number `which`, counted round.
 * 0, or a negative enum pushrod_error: BAD_OPTION: not host[:port]; UNREACHABLE: no such host.
 */
int address_resolve(struct address_list *list, const char *text, size_t which);

/* The numeric address to use: the first that takes a connection (each is tried for 250 ms at
 * most), beginning with `first`; if there is only one, or none answers, that of `first`. */
const char *address_reachable(const struct address_list *list, size_t first);

/* "tcp://1.2.3.4:5571", "tcp://[::1]:5571", "tcp://server.example:5571" */
void address_endpoint(const char *host, uint64_t port, char out[ADDRESS_ENDPOINT]);

/* True if that numeric address is one of this host: unixsock_near(). */
bool address_near(const char *address);

/*
 * Looks what listens at a port that does not answer a JOIN, and says it in words. False: nobody
 * takes the connection. Takes 1.25 s at most.
 */
bool address_diagnose(const char *address, uint16_t port, char *text, size_t size);

#endif
