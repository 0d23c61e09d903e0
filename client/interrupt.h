/* SPDX-License-Identifier: Apache-2.0 */
/* interrupt: SIGINT, SIGTERM and SIGHUP, as a count and as an interrupt of the client that waits.
 */
#ifndef CLIENT_INTERRUPT_H
#define CLIENT_INTERRUPT_H

#include <pushrod/client.h>

void interrupt_setup(void);
/* The client whose waiting an interrupt ends; NULL: none. */
void interrupt_client(struct pushrod_client *c);
unsigned interrupt_count(void); /* how many came */

#endif
