/* SPDX-License-Identifier: Apache-2.0 */
/* api_config: options as the rooms of the server want them; and the limit of descriptors. */
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include "common/log.h"
#include "common/name.h"
#include "server/api.h"

#define FDS_RESERVE   64u  /* of the loop, the listeners, the store and the log */
#define FDS_LEAST     512u /* with fewer there is no server that is worth the name */
#define STRANGER_PART 16u  /* of few descriptors one in so many is for strangers of each kind */
#define DISK_UNIT     (64u << 10)
#define RESULTS       16u /* of the largest: so many may be unsent, and held */

static uint64_t number(const struct pushrod_server *s, const char *name)
{
    return params_number(s->params, name);
}

static bool durability_of(struct slice text, enum durability *out)
{
    static const char *const names[] = {"sync", "async", "memory"};
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (!slice_equal(text, slice_str(names[i])))
            continue;
        *out = (enum durability)i;
        return true;
    }
    return false;
}

uint64_t settings_drain_ms(const struct pushrod_server *s)
{
    uint64_t ms = number(s, "drain-timeout");
    return ms ? ms : 1; /* 0 would mean the default */
}

/* A bound of which a result is to be a small part, as by default, unless it was said. */
static uint64_t results_bound(const struct pushrod_server *s, const char *name)
{
    uint64_t some = RESULTS * number(s, "max-result");
    return params_given(s->params, name) || number(s, name) > some ? number(s, name) : some;
}

/* Nobody waits for it but a worker's memory; the worker asks again after a second. */
#define ACK_MS 5u

static void core_settings(const struct pushrod_server *s, struct core_config *c)
{
    c->heartbeat_ms = number(s, "heartbeat");
    c->missed_heartbeats = (uint32_t)number(s, "missed-heartbeats");
    c->ping_ms = number(s, "ping");
    c->ack_ms = ACK_MS;
    c->ready_wait_ms = number(s, "ready-wait");
    /* Zero would mean the default. */
    c->rejoin_wait_ms = number(s, "rejoin-wait") ? number(s, "rejoin-wait") : 1;
    c->window_tasks = (uint32_t)number(s, "window-tasks");
    c->window_bytes = number(s, "window-bytes");
    c->max_tasks = number(s, "max-tasks");
    c->max_queues = (uint32_t)number(s, "max-queues");
    c->max_bytes = number(s, "max-bytes");
    c->max_unsettled = number(s, "max-unsettled");
    c->max_prefetch = (uint32_t)number(s, "max-prefetch");
    c->lane_bytes = number(s, "lane-bytes");
    c->flight_bytes = number(s, "flight-bytes");
    c->max_workers = (uint32_t)number(s, "max-workers");
    c->poison_limit = (uint32_t)number(s, "poison-limit");
    c->max_payload = number(s, "max-payload");
    c->max_result = number(s, "max-result");
    c->drain_ms = settings_drain_ms(s);
    c->hold_ms = number(s, "hold-time");
    c->hold_count = (uint32_t)number(s, "hold-tasks");
    c->hold_bytes = results_bound(s, "hold-bytes");
    durability_of(slice_str(params_text(s->params, "durability")), &c->durability);
}

/* With handlers of its own the program need not care for ports, unless it wants others to join. */
static bool local_ports(const struct pushrod_server *s)
{
    return !s->program && s->handler_count && !params_given(s->params, "join-port");
}

static void plane_settings(const struct pushrod_server *s, struct plane_config *p)
{
    const char *advertise = params_text(s->params, "advertise");
    bool any = local_ports(s);
    p->listen = params_text(s->params, "worker-listen");
    p->token = params_text(s->params, "token");
    p->advertise = advertise[0] ? advertise : NULL;
    p->unix_base = s->unix_base[0] ? s->unix_base : NULL;
    p->join_port = any ? 0 : (uint16_t)number(s, "join-port");
    p->answers_port =
        any && !params_given(s->params, "answers-port") ? 0 : (uint16_t)number(s, "answers-port");
    params_ports(s->params, "lane-ports", &p->lane_port_first, &p->lane_port_last);
    if (any && !params_given(s->params, "lane-ports"))
        p->lane_port_first = p->lane_port_last = 0;
    p->max_lanes = (uint32_t)number(s, "max-workers");
    p->io_threads = (uint32_t)number(s, "io-threads");
    p->heartbeat_ms = number(s, "heartbeat");
    p->ping_ms = number(s, "ping");
    p->max_result = number(s, "max-result");
    /* A frame of answers: parts of 64 KiB, and as many as a worker has at a time. */
    p->max_message = p->max_result + (64u << 20);
}

/* An embedded server is quiet unless its program asks. */
void settings_log(const struct pushrod_server *s)
{
    bool asked = s->program || params_given(s->params, "log-level");
    log_setup(s->program ? "pushrod-server" : NULL,
        asked ? log_level_named(params_text(s->params, "log-level")) : LOG_WARNING,
        strcmp(params_text(s->params, "log-format"), "json") == 0);
}

/* ------------------------------------------------------------------------------- durability */

static bool has_disk(const struct pushrod_server *s)
{
    return params_text(s->params, "data")[0];
}

/* The default means memory where there is no disk; who asks for more must not get that in silence.
 */
static int durability_check(struct pushrod_server *s)
{
    const char *text = params_text(s->params, "durability");
    if (has_disk(s) || !params_given(s->params, "durability") || strcmp(text, "memory") == 0)
        return 0;
    return api_fail(s, PUSHROD_E_BAD_OPTION,
        "durability is %s, but there is no disk to keep tasks on: add data, or say memory", text);
}

/* ---------------------------------------------------------------------------- --queue P=S,... */

static int queue_refuse(struct pushrod_server *s, const char *text)
{
    return api_fail(s, PUSHROD_E_BAD_OPTION,
        "queue \"%s\": PATTERN=SETTING,... is expected; a setting is sync, async, memory or "
        "max-tasks:NUMBER",
        text);
}

static bool queue_word(struct slice word, struct queue_setting *q)
{
    static const char limit[] = "max-tasks:";
    size_t prefix = sizeof limit - 1;
    if (durability_of(word, &q->durability))
        return true;
    if (word.size <= prefix || word.size > prefix + 18 || memcmp(word.data, limit, prefix) != 0)
        return false;
    uint64_t value = 0;
    for (size_t i = prefix; i < word.size; i++) {
        if (word.data[i] < '0' || word.data[i] > '9')
            return false;
        value = value * 10 + (uint64_t)(word.data[i] - '0');
    }
    q->max_tasks = value;
    return true;
}

static int queue_parse(struct pushrod_server *s, const char *text, struct queue_setting *q)
{
    const char *equals = strchr(text, '=');
    if (!equals)
        return queue_refuse(s, text);
    q->pattern = slice_of(text, (size_t)(equals - text));
    durability_of(slice_str(params_text(s->params, "durability")), &q->durability);
    if (!name_pattern_valid(q->pattern))
        return queue_refuse(s, text);
    for (const char *at = equals + 1;; at++) {
        size_t size = strcspn(at, ",");
        enum durability asked = DURABILITY_MEMORY;
        if (!queue_word(slice_of(at, size), q))
            return queue_refuse(s, text);
        durability_of(slice_of(at, size), &asked);
        if (asked != DURABILITY_MEMORY && !has_disk(s))
            return api_fail(s, PUSHROD_E_BAD_OPTION,
                "queue \"%s\": there is no disk to keep tasks on: add data, or say memory", text);
        at += size;
        if (!*at)
            return 0;
    }
}

static int queue_settings(struct pushrod_server *s, struct host_settings *out)
{
    size_t count;
    const char *const *items = params_list(s->params, "queue", &count);
    out->queues = calloc(count + 1, sizeof *out->queues);
    if (!out->queues)
        return api_fail(s, PUSHROD_E_NO_MEMORY, "out of memory");
    out->host.queues = out->queues;
    for (size_t i = 0; i < count; i++) {
        int error = queue_parse(s, items[i], &out->queues[i]);
        if (error)
            return error;
        out->host.queue_count++;
    }
    return 0;
}

/* ----------------------------------------------------------------------------- descriptors */

static uint64_t descriptors(const struct host_settings *out)
{
    return out->conns.max_clients + HTTP_CONNECTIONS + FDS_RESERVE +
           plane_descriptors(&out->host.plane);
}

/* To what is allowed, for the program may have some, too. The limit. */
static uint64_t descriptors_raise(const struct rlimit *limit)
{
    struct rlimit most = {limit->rlim_max, limit->rlim_max};
    return setrlimit(RLIMIT_NOFILE, &most) == 0 ? most.rlim_cur : limit->rlim_cur;
}

/* Half of what is left for workers, and the rest for clients. */
static void descriptors_share(struct host_settings *out, uint64_t limit)
{
    uint64_t clients = out->conns.max_clients, lanes = out->host.plane.max_lanes;
    out->conns.max_clients = 0;
    out->host.plane.max_lanes = 0;
    uint64_t none = descriptors(out), room = limit - none;
    out->host.plane.max_lanes = 1;
    uint64_t lane = descriptors(out) - none;
    lanes = room / 2 / lane < lanes ? room / 2 / lane : lanes;
    clients = room - lanes * lane < clients ? room - lanes * lane : clients;
    out->host.plane.max_lanes = out->host.core.max_workers = (uint32_t)lanes;
    out->conns.max_clients = (uint32_t)clients;
    log_warning("only %llu file descriptors are allowed: max-clients is lowered to %llu, "
                "max-workers to %llu",
        (unsigned long long)limit, (unsigned long long)clients, (unsigned long long)lanes);
}

/* libzmq aborts when descriptors run out, so the worst case is looked at before it can happen. */
static int descriptors_check(struct pushrod_server *s, struct host_settings *out)
{
    struct rlimit most;
    if (getrlimit(RLIMIT_NOFILE, &most))
        return 0;
    if (most.rlim_max / STRANGER_PART < PLANE_STRANGERS)
        out->host.plane.strangers = (uint32_t)(most.rlim_max / STRANGER_PART);
    uint64_t wanted = descriptors(out), limit = descriptors_raise(&most);
    if (limit >= wanted)
        return 0;
    bool asked = params_given(s->params, "max-clients") || params_given(s->params, "max-workers");
    if (!asked && limit >= FDS_LEAST) {
        descriptors_share(out, limit);
        return 0;
    }
    return api_fail(s, PUSHROD_E_BAD_OPTION,
        "max-clients %u and max-workers %u need %llu file descriptors, the limit is %llu: "
        "raise it (ulimit -n) or lower them",
        out->conns.max_clients, out->host.plane.max_lanes, (unsigned long long)wanted,
        (unsigned long long)limit);
}

static int addresses_check(struct pushrod_server *s)
{
    static const char *const names[] = {"listen", "http"};
    for (size_t i = 0, count; i < sizeof names / sizeof names[0]; i++) {
        params_list(s->params, names[i], &count);
        if (count > SERVER_PORTS)
            return api_fail(s, PUSHROD_E_BAD_OPTION, "%s: there are %zu addresses, %u are allowed",
                names[i], count, SERVER_PORTS);
    }
    return 0;
}

/* Of a store on disk. Above the limit of files a write fails, or raises SIGXFSZ, while the store
 * thinks that there is room, and has kept none for those tasks to end. */
static uint64_t disk_bytes(const struct pushrod_server *s)
{
    struct rlimit file;
    uint64_t wanted = number(s, "max-disk");
    if (getrlimit(RLIMIT_FSIZE, &file) || file.rlim_cur >= wanted)
        return wanted;
    log_warning("only files of %llu KiB are allowed (ulimit -f): max-disk is lowered to that",
        (unsigned long long)file.rlim_cur / 1024);
    return file.rlim_cur / DISK_UNIT * DISK_UNIT;
}

int settings_read(struct pushrod_server *s, struct host_settings *out)
{
    bool memory = !has_disk(s);
    *out = (struct host_settings){0};
    core_settings(s, &out->host.core);
    plane_settings(s, &out->host.plane);
    out->host.store = memory ? &store_mem : &store_lmdb;
    out->host.store_config = (struct store_config){
        .path = memory ? NULL : params_text(s->params, "data"),
        .max_bytes = memory ? number(s, "max-bytes") : disk_bytes(s),
    };
    out->conns = (struct conns_config){
        .max_clients = (uint32_t)number(s, "max-clients"),
        .handshake_ms = number(s, "handshake-timeout"),
        .slow_ms = number(s, "slow-client"),
        .max_unsent = results_bound(s, "max-unsent"),
    };
    int error = addresses_check(s);
    if (error == 0)
        error = durability_check(s);
    if (error == 0)
        error = queue_settings(s, out);
    if (error == 0)
        error = descriptors_check(s, out);
    if (error)
        settings_free(out);
    return error;
}

void settings_free(struct host_settings *settings)
{
    free(settings->queues);
    settings->queues = NULL;
}
