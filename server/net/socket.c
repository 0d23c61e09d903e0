/* SPDX-License-Identifier: Apache-2.0 */
/* socket: options that every ZeroMQ socket of the plane gets, and binding to an address. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <zmq.h>

#include "common/params.h"
#include "common/retry.h"
#include "server/net/plane_internal.h"

#define HANDSHAKE_MS 10000 /* a stranger that connects and says nothing holds a descriptor */

static const struct keepalive for_strangers = {.idle = 60, .interval = 15, .count = 9};

static bool set_int(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof value) == 0;
}

static bool set_keepalive(void *socket, const struct keepalive *k)
{
    return set_int(socket, ZMQ_TCP_KEEPALIVE, 1) &&
           set_int(socket, ZMQ_TCP_KEEPALIVE_IDLE, k->idle) &&
           set_int(socket, ZMQ_TCP_KEEPALIVE_INTVL, k->interval) &&
           set_int(socket, ZMQ_TCP_KEEPALIVE_CNT, k->count);
}

/* ZMTP heartbeats stay off: with them, libzmq cuts healthy connections and may abort (DESIGN). */
static bool set_all(void *socket, const struct socket_options *o)
{
    return set_int(socket, ZMQ_LINGER, 0) && set_int(socket, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS) &&
           set_int(socket, ZMQ_SNDHWM, o->send_mark) &&
           set_int(socket, ZMQ_RCVHWM, o->receive_mark) &&
           set_int(socket, ZMQ_BACKLOG, o->backlog) &&
           set_keepalive(socket, o->keepalive.count ? &o->keepalive : &for_strangers) &&
           (!o->plain || set_int(socket, ZMQ_PLAIN_SERVER, 1)) &&
           zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &o->max_message, sizeof o->max_message) == 0 &&
           zmq_setsockopt(socket, ZMQ_ZAP_DOMAIN, o->domain, strlen(o->domain)) == 0;
}

/*
 * libzmq numbers the peers of a ROUTER, from a rand() on, which is the same in every process. Who
 * knows the next number can have it for a name of its own, and libzmq aborts when it is given to
 * somebody else. So it is drawn; the program's own rand() goes on as if nothing had been.
 */
static void *socket_new(void *context, int type)
{
    static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
    char ours[64]; /* a state of random(3), and of rand() with it */
    unsigned seed;
    if (type != ZMQ_ROUTER)
        return zmq_socket(context, type);
    if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed)
        return NULL;
    pthread_mutex_lock(&one_at_a_time);
    char *programs = initstate(seed, ours, sizeof ours);
    void *socket = zmq_socket(context, type);
    setstate(programs);
    pthread_mutex_unlock(&one_at_a_time);
    return socket;
}

void *socket_make(void *context, int type, const struct socket_options *options)
{
    void *socket = socket_new(context, type);
    if (!socket || set_all(socket, options))
        return socket;
    zmq_close(socket);
    return NULL;
}

uint16_t socket_bound(void *socket, char host[SOCKET_HOST])
{
    char endpoint[256];
    size_t size = sizeof endpoint;
    uint16_t port = 0;
    if (zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, endpoint, &size) != 0 ||
        !params_split_host(endpoint + strlen("tcp://"), host, SOCKET_HOST, &port))
        return 0;
    return port;
}

uint16_t socket_bind(void *socket, const char *listen, uint16_t port)
{
    char endpoint[256];
    char number[8] = "*", host[SOCKET_HOST];
    bool six = strchr(listen, ':') != NULL, bare = six && listen[0] != '[';
    if (port)
        snprintf(number, sizeof number, "%u", port);
    int size =
        snprintf(endpoint, sizeof endpoint, bare ? "tcp://[%s]:%s" : "tcp://%s:%s", listen, number);
    if (size >= (int)sizeof endpoint) {
        errno = EINVAL;
        return 0;
    }
    if (six && !set_int(socket, ZMQ_IPV6, 1))
        return 0;
    if (RETRY(zmq_bind(socket, endpoint)) != 0)
        return 0;
    return socket_bound(socket, host);
}

void socket_bind_unix(void *socket, const char *base, const char *what, char name[UNIXSOCK_NAME])
{
    char endpoint[UNIXSOCK_NAME + 8];
    name[0] = '\0';
    if (!base)
        return;
    snprintf(name, UNIXSOCK_NAME, "%s-%s", base, what);
    snprintf(endpoint, sizeof endpoint, "ipc://@%s", name);
    if (RETRY(zmq_bind(socket, endpoint)) != 0)
        name[0] = '\0'; /* not allowed here: workers come over TCP */
}
