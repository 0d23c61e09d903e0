/* SPDX-License-Identifier: Apache-2.0 */
#include "common/sockopt.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

/* Seconds. Nobody is woken up for it, but the network has a packet each minute. */
#define IDLE     60
#define INTERVAL 15
#define COUNT    4

#define UNSENT (128 << 10) /* bytes */

static void set_int(int fd, int level, int option, int value)
{
    setsockopt(fd, level, option, &value, sizeof value);
}

void sockopt_keepalive(int fd)
{
    set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, IDLE);
    set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, INTERVAL);
    set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, COUNT);
}

void sockopt_unsent(int fd)
{
    set_int(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT);
}
