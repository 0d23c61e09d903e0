/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RabbitMQ through librabbitmq: a quorum queue with publisher confirms, workers with a prefetch of
 * 64 that acknowledge up to 32 tasks at once (and all before they wait), results through direct
 * reply-to, its fastest way back.
 */
#include <err.h>
#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "bench/load.h"

enum { PREFETCH = 64, ACK_EVERY = 32, CHANNEL = 1, FRAME = 128 << 10 };

static void check_reply(amqp_rpc_reply_t r, const char *what)
{
    if (r.reply_type == AMQP_RESPONSE_NORMAL)
        return;
    if (r.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION)
        errx(1, "rabbitmq: %s: %s", what, amqp_error_string2(r.library_error));
    errx(1, "rabbitmq: %s: the server refused", what);
}

static void check(amqp_connection_state_t c, const char *what)
{
    check_reply(amqp_get_rpc_reply(c), what);
}

static amqp_connection_state_t open_connection(const struct load_options *o)
{
    char host[256];
    int port;
    if (sscanf(o->address, "%255[^:]:%d", host, &port) != 2)
        errx(2, "address must be HOST:PORT: %s", o->address);
    amqp_connection_state_t c = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(c);
    if (!socket || amqp_socket_open(socket, host, port) != AMQP_STATUS_OK)
        errx(1, "nobody listens at %s", o->address);
    check_reply(amqp_login(c, "/", 0, FRAME, 0, AMQP_SASL_METHOD_PLAIN, "guest", "guest"), "login");
    amqp_channel_open(c, CHANNEL);
    check(c, "channel");
    amqp_table_entry_t entry = {.key = amqp_cstring_bytes("x-queue-type"),
        .value = {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = amqp_cstring_bytes("quorum")}};
    amqp_table_t arguments = {1, &entry};
    amqp_queue_declare(c, CHANNEL, amqp_cstring_bytes(o->queue), 0, 1, 0, 0, arguments);
    check(c, "queue");
    return c;
}

struct client {
    amqp_connection_state_t connection;
    const struct load_options *o;
    uint64_t confirmed; /* delivery tags up to this one */
    bool in_delivery;   /* header or body frames of a delivery follow */
    size_t body_left;
};

static void *client_open(const struct load_options *o)
{
    struct client *c = calloc(1, sizeof *c);
    if (!c)
        err(1, "calloc");
    c->o = o;
    c->connection = open_connection(o);
    amqp_confirm_select(c->connection, CHANNEL);
    check(c->connection, "confirm");
    amqp_basic_consume(c->connection, CHANNEL, amqp_cstring_bytes("amq.rabbitmq.reply-to"),
        amqp_empty_bytes, 0, 1, 0, amqp_empty_table);
    check(c->connection, "consume");
    return c;
}

static bool client_submit(void *handle, const struct load_task *task)
{
    struct client *c = handle;
    amqp_basic_properties_t p = {._flags = AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_REPLY_TO_FLAG,
        .delivery_mode = 2,
        .reply_to = amqp_cstring_bytes("amq.rabbitmq.reply-to")};
    amqp_bytes_t body = {task->size, (void *)(uintptr_t)task->payload};
    int error = amqp_basic_publish(
        c->connection, CHANNEL, amqp_empty_bytes, amqp_cstring_bytes(c->o->queue), 0, 0, &p, body);
    if (error != AMQP_STATUS_OK)
        errx(1, "rabbitmq: publish: %s", amqp_error_string2(error));
    return true;
}

static void take_method(struct client *c, const amqp_method_t *method)
{
    if (method->id == AMQP_BASIC_DELIVER_METHOD) {
        c->in_delivery = true;
    } else if (method->id == AMQP_BASIC_ACK_METHOD) {
        const amqp_basic_ack_t *ack = method->decoded;
        /* Not multiple: one more; multiple: all up to the tag, of which single ones were counted.
         */
        uint64_t more = ack->multiple ? ack->delivery_tag - c->confirmed : 1;
        c->confirmed += more;
        load_accepted(more);
    } else if (method->id == AMQP_BASIC_NACK_METHOD || method->id == AMQP_CHANNEL_CLOSE_METHOD) {
        errx(1, "rabbitmq: a task was refused");
    }
}

/* Results are of 8 bytes: always one body frame. */
static void take_frame(struct client *c, const amqp_frame_t *frame)
{
    if (frame->frame_type == AMQP_FRAME_METHOD)
        take_method(c, &frame->payload.method);
    else if (frame->frame_type == AMQP_FRAME_BODY && c->in_delivery) {
        load_finished(frame->payload.body_fragment.bytes, frame->payload.body_fragment.len);
        c->in_delivery = false;
    }
}

static void client_process(void *handle)
{
    struct client *c = handle;
    amqp_frame_t frame;
    struct timeval none = {0, 0};
    int error;
    while ((error = amqp_simple_wait_frame_noblock(c->connection, &frame, &none)) == AMQP_STATUS_OK)
        take_frame(c, &frame);
    if (error != AMQP_STATUS_TIMEOUT)
        errx(1, "rabbitmq: %s", amqp_error_string2(error));
    amqp_maybe_release_buffers(c->connection);
}

static int client_fd(void *handle)
{
    return amqp_get_sockfd(((struct client *)handle)->connection);
}

static void client_close(void *handle)
{
    struct client *c = handle;
    amqp_connection_close(c->connection, AMQP_REPLY_SUCCESS);
    amqp_destroy_connection(c->connection);
    free(c);
}

static void answer(amqp_connection_state_t c, const amqp_envelope_t *e)
{
    char result[LOAD_RESULT];
    load_work(e->message.body.bytes, e->message.body.len, result);
    amqp_basic_publish(c, CHANNEL, amqp_empty_bytes, e->message.properties.reply_to, 0, 0, NULL,
        (amqp_bytes_t){sizeof result, result});
}

static void work(const struct load_options *o)
{
    amqp_connection_state_t c = open_connection(o);
    amqp_basic_qos(c, CHANNEL, 0, (uint16_t)(o->batch ? o->batch : PREFETCH), 0);
    amqp_basic_consume(
        c, CHANNEL, amqp_cstring_bytes(o->queue), amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
    check(c, "consume");
    for (uint64_t acked = 0;;) {
        amqp_envelope_t e;
        amqp_maybe_release_buffers(c);
        if (amqp_consume_message(c, &e, NULL, 0).reply_type != AMQP_RESPONSE_NORMAL)
            errx(1, "rabbitmq: the server closed the connection");
        answer(c, &e);
        if (e.delivery_tag - acked >= ACK_EVERY ||
            !(amqp_data_in_buffer(c) || amqp_frames_enqueued(c))) {
            amqp_basic_ack(c, CHANNEL, e.delivery_tag, 1);
            acked = e.delivery_tag;
        }
        amqp_destroy_envelope(&e);
    }
}

int main(int argc, char **argv)
{
    static const struct driver driver = {.name = "rabbitmq",
        .open = client_open,
        .submit = client_submit,
        .process = client_process,
        .fd = client_fd,
        .close = client_close,
        .work = work};
    return load_main(argc, argv, &driver);
}
