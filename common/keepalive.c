/* SPDX-License-Identifier: Apache-2.0 */
#include "common/keepalive.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

/* Seconds. Nobody is woken up for it, but the network has a packet each minute. */
#define IDLE     60
#define INTERVAL 15
#define COUNT    4

static void set_int(int fd, int level, int option, int value)
{
    setsockopt(fd, level, option, &value, sizeof value);
}

void keepalive_on(int fd)
{
    set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, IDLE);
    set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, INTERVAL);
    set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, COUNT);
}
