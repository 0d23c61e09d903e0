/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interrupts: signals of the program that arrive in libzmq, which then fails with EINTR, also where
 * it does not wait. For one file of a test, which defines _GNU_SOURCE and interrupted().
 */
#ifndef TESTS_UNIT_INTERRUPTS_H
#define TESTS_UNIT_INTERRUPTS_H

#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <zmq.h>

#define REAL(name) ((__typeof__(&(name)))dlsym(RTLD_NEXT, #name)) /* needs _GNU_SOURCE */

/* Does this call fail, with errno set? Of a socket or context. */
static bool interrupted(const void *of);

/* Every second time: so each call fails once, and is then done. */
static inline bool interrupt(void)
{
    static bool now;
    now = !now;
    errno = now ? EINTR : errno;
    return now;
}

int zmq_msg_recv(zmq_msg_t *message, void *socket, int flags)
{
    return interrupted(socket) ? -1 : REAL(zmq_msg_recv)(message, socket, flags);
}

int zmq_recv(void *socket, void *data, size_t size, int flags)
{
    return interrupted(socket) ? -1 : REAL(zmq_recv)(socket, data, size, flags);
}

int zmq_msg_send(zmq_msg_t *message, void *socket, int flags)
{
    return interrupted(socket) ? -1 : REAL(zmq_msg_send)(message, socket, flags);
}

int zmq_send(void *socket, const void *data, size_t size, int flags)
{
    return interrupted(socket) ? -1 : REAL(zmq_send)(socket, data, size, flags);
}

#endif
