/* SPDX-License-Identifier: Apache-2.0 */
/* sockopt: what is set on connections that leave this host, or may. Any thread; others ignore it.
 */
#ifndef COMMON_SOCKOPT_H
#define COMMON_SOCKOPT_H

/*
 * The kernel asks whether the other end of a silent TCP connection is still there: a host that lost
 * its power says no goodbye, and neither does a link that forgot the connection. Of a listening
 * socket: all that it accepts. The connection ends, as by a reset, some two minutes after the last
 * that came; the system's own time is two hours.
 */
void sockopt_keepalive(int fd);

/*
 * The kernel takes no more than 128 KiB that it cannot send yet: nothing can pass what it has, and
 * it would take megabytes, which are seconds of a slow link.
 */
void sockopt_unsent(int fd);

#endif
