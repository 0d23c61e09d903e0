/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/obituary.h"

#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>
#include <zmq.h>

#include "common/buf.h"
#include "common/log.h"
#include "common/retry.h"
#include "proto/messages.h"
#include "worker/address.h"

#define OBITUARY_WAIT_MS 2000

static void send_frame(void *socket, const struct obituary *o)
{
    struct msg_obituary m = {
        .instance = slice_of(o->instance, sizeof o->instance),
        .pid = o->pid,
        .signal = o->signal,
        .exit_code = o->exit_code,
        .peak_kib = o->peak_kib,
    };
    struct buf frame = BUF_EMPTY;
    msg_obituary_encode(&frame, &m);
    if (!frame.failed)
        RETRY(zmq_send(socket, frame.data, frame.size, 0));
    buf_free(&frame);
}

/* LINGER keeps the context alive until the message is out, or the time is over. */
static void obituary_send(const char *join, size_t which, const struct obituary *o)
{
    struct address_list list;
    char endpoint[ADDRESS_ENDPOINT];
    if (address_resolve(&list, join, which) != 0)
        return;
    void *context = zmq_ctx_new();
    void *socket = zmq_socket(context, ZMQ_DEALER);
    int wait = OBITUARY_WAIT_MS;
    int ipv6 = 1;
    zmq_setsockopt(socket, ZMQ_LINGER, &wait, sizeof wait);
    zmq_setsockopt(socket, ZMQ_SNDTIMEO, &wait, sizeof wait);
    zmq_setsockopt(socket, ZMQ_IPV6, &ipv6, sizeof ipv6);
    address_endpoint(address_reachable(&list, 0), list.port, endpoint);
    if (RETRY(zmq_connect(socket, endpoint)) == 0)
        send_frame(socket, o);
    zmq_close(socket);
    RETRY(zmq_ctx_term(context));
}

static void post_to(const char *join, size_t which, const struct obituary *o, const sigset_t *mask)
{
    pid_t pid = fork();
    if (pid < 0)
        log_warning(
            "cannot tell the server how worker process %llu died", (unsigned long long)o->pid);
    if (pid != 0)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigprocmask(SIG_SETMASK, mask, NULL);
    signal(SIGTERM, SIG_DFL);
    obituary_send(join, which, o);
    _exit(0);
}

/* A process for each server: one whose name takes long to resolve is not waited for by the rest. */
void obituary_post(const char *join, const struct obituary *o, const sigset_t *mask)
{
    size_t count = 1;
    for (const char *at = join; *at; at++)
        count += *at == ',';
    for (size_t i = 0; i < count; i++)
        post_to(join, i, o, mask);
}
