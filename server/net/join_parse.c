/* SPDX-License-Identifier: Apache-2.0 */
#include "server/net/join_parse.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/name.h"
#include "server/net/peers.h"

#define HOST_SIZE 255u

bool join_peek(const struct dec *d, uint64_t *version, struct slice *nonce)
{
    struct dec ahead = *d;
    *nonce = (struct slice){0};
    dec_array(&ahead);
    if (dec_u64(&ahead) != MSG_JOIN)
        return false;
    *version = dec_u64(&ahead);
    if (dec_failed(&ahead))
        return false;
    dec_bytes(&ahead); /* instance */
    struct slice bytes = dec_bytes(&ahead);
    if (!dec_failed(&ahead) && bytes.size == NONCE_SIZE)
        *nonce = bytes;
    return true;
}

void join_version_text(char text[JOIN_MAX_TEXT], uint64_t version)
{
    snprintf(text, JOIN_MAX_TEXT,
        "the worker speaks protocol version %" PRIu64 ", the server version %u: "
        "install the same release on both",
        version, PROTOCOL_VERSION);
}

__attribute__((format(printf, 3, 4))) static int refuse(
    struct join_request *r, int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(r->text, sizeof r->text, format, args);
    va_end(args);
    return code;
}

static int check_identity(struct join_request *r)
{
    const struct msg_join *m = &r->message;
    if (m->instance.size != INSTANCE_SIZE || m->nonce.size != NONCE_SIZE)
        return refuse(r, PUSHROD_E_BAD_MESSAGE, "instance and nonce are 16 bytes each");
    if (!name_valid(m->name))
        return refuse(r, PUSHROD_E_BAD_OPTION,
            "the worker's name is not valid: 1 to 128 of A-Z a-z 0-9 . _ : / + -");
    if (m->host.size > HOST_SIZE)
        return refuse(r, PUSHROD_E_BAD_OPTION, "the worker's host name is longer than 255 bytes");
    for (size_t i = 0; i < m->host.size; i++)
        if (m->host.data[i] < 0x20 || m->host.data[i] == 0x7f)
            return refuse(r, PUSHROD_E_BAD_OPTION, "the worker's host name has control characters");
    return 0;
}

static int check_numbers(struct join_request *r)
{
    const struct msg_join *m = &r->message;
    if (m->slots < 1 || m->slots > WORKER_SLOTS_MAX)
        return refuse(r, PUSHROD_E_BAD_OPTION,
            "slots is %" PRIu64 ", and has to be 1 to %u: see --slots", m->slots, WORKER_SLOTS_MAX);
    return 0;
}

/* What a person can read of a name that is wrong: a few bytes, others than printable as '?'. */
static const char *readable(struct slice name, char text[40])
{
    size_t size = name.size < 36 ? name.size : 36;
    for (size_t i = 0; i < size; i++)
        text[i] = name.data[i] >= 0x20 && name.data[i] < 0x7f ? (char)name.data[i] : '?';
    strcpy(text + size, size < name.size ? "..." : "");
    return text;
}

static int read_queues(struct join_request *r)
{
    struct dec d = dec_of(r->message.queues);
    uint32_t count = dec_array(&d);
    char text[40];
    if (dec_failed(&d) || count == 0)
        return refuse(r, PUSHROD_E_BAD_QUEUE, "the worker serves no queue: give it at least one");
    if (count > JOIN_MAX_QUEUES)
        return refuse(r, PUSHROD_E_TOO_MANY, "the worker names %u queues, at most %u are allowed",
            count, JOIN_MAX_QUEUES);
    r->queues = calloc(count, sizeof *r->queues);
    if (!r->queues)
        return refuse(r, PUSHROD_E_NO_MEMORY, "the server is out of memory");
    for (uint32_t i = 0; i < count; i++) {
        struct slice queue = dec_text(&d);
        if (dec_failed(&d) || !name_pattern_valid(queue))
            return refuse(r, PUSHROD_E_BAD_QUEUE,
                "'%s' is no queue: 1 to 128 of A-Z a-z 0-9 . _ : / + -, and '*' at the end at most",
                readable(queue, text));
        r->queues[i] = queue;
    }
    r->join.queues = r->queues;
    r->join.queue_count = count;
    return dec_more(&d) ? refuse(r, PUSHROD_E_BAD_MESSAGE, "queues is not one array") : 0;
}

static bool held_read(struct dec *d, struct held *held)
{
    struct msg_held m;
    if (dec_message(d) != MSG_HELD || !msg_held_decode(d, &m))
        return false;
    *held = (struct held){m.id, m.lease, m.answered, m.started};
    return m.id != 0 && m.lease != 0;
}

static int read_held(struct join_request *r)
{
    if (!r->message.held.data)
        return 0;
    struct dec d = dec_of(r->message.held);
    uint32_t count = dec_array(&d);
    if (dec_failed(&d) || count > JOIN_MAX_HELD)
        return refuse(r, PUSHROD_E_BAD_MESSAGE, "held is no array, or has too many entries");
    /* Each takes five bytes at the least: no stranger makes us allocate far more than it sent. */
    if (count == 0)
        return dec_more(&d) ? refuse(r, PUSHROD_E_BAD_MESSAGE, "held is not one array") : 0;
    if ((size_t)(d.end - d.at) / 5 < count)
        return refuse(r, PUSHROD_E_BAD_MESSAGE, "held is not an array of HELD");
    r->held = calloc(count, sizeof *r->held);
    if (!r->held)
        return refuse(r, PUSHROD_E_NO_MEMORY, "the server is out of memory");
    for (uint32_t i = 0; i < count; i++)
        if (!held_read(&d, &r->held[i]))
            return refuse(r, PUSHROD_E_BAD_MESSAGE, "held is not an array of HELD");
    r->join.held = r->held;
    r->join.held_count = count;
    return dec_more(&d) ? refuse(r, PUSHROD_E_BAD_MESSAGE, "held is not one array") : 0;
}

static void fill_join(struct join_request *r)
{
    const struct msg_join *m = &r->message;
    memcpy(r->join.instance, m->instance.data, sizeof r->join.instance);
    r->join.name = m->name;
    r->join.host = m->host;
    r->join.pid = m->pid;
    r->join.slots = (uint32_t)m->slots;
    r->join.max_prefetch = m->max_prefetch > UINT32_MAX ? UINT32_MAX : (uint32_t)m->max_prefetch;
}

int join_request_read(struct join_request *r, struct dec *d)
{
    *r = (struct join_request){0};
    if (!msg_join_decode(d, &r->message))
        return refuse(r, PUSHROD_E_BAD_MESSAGE, "JOIN cannot be read: %s", d->error);
    int code = check_identity(r);
    if (code == 0)
        code = check_numbers(r);
    if (code == 0)
        code = read_queues(r);
    if (code == 0)
        code = read_held(r);
    if (code == 0)
        fill_join(r);
    return code;
}

void join_parsed_free(struct join_request *r)
{
    free(r->queues);
    free(r->held);
    r->queues = NULL;
    r->held = NULL;
}
