/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keepalive: the kernel asks whether the other end of a silent TCP connection is still there. A
 * host that lost its power says no goodbye, and neither does a link that forgot the connection.
 */
#ifndef COMMON_KEEPALIVE_H
#define COMMON_KEEPALIVE_H

/* Of a listening socket: all that it accepts. The connection ends, as by a reset, some two minutes
 * after the last that came; the system's own time is two hours. */
void keepalive_on(int fd);

#endif
