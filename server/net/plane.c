/* SPDX-License-Identifier: Apache-2.0 */
#include "server/net/plane.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>
#include <zmq.h>

#include "common/log.h"
#include "common/retry.h"
#include "server/net/lane.h"
#include "server/net/plane_internal.h"

#define JOIN_WAITING     256u /* JOINs without an answer, beyond one for each lane */
#define JOIN_FAREWELL_MS 100  /* for a REFUSED on its way out */

/* ---------------------------------------------------------------------------------- life */

static bool plane_copy_config(struct plane *plane, const struct plane_config *config)
{
    struct plane_config *c = &plane->config;
    *c = *config;
    c->listen = strdup(config->listen ? config->listen : "127.0.0.1");
    c->advertise = config->advertise ? strdup(config->advertise) : NULL;
    c->token = strdup(config->token ? config->token : "");
    c->unix_base = config->unix_base ? strdup(config->unix_base) : NULL;
    c->strangers = plane_strangers(config);
    plane->lane_places.most = c->strangers;
    if (c->io_threads == 0)
        c->io_threads = 2;
    if (c->max_message == 0)
        c->max_message = PUSHROD_MAX_PAYLOAD;
    return c->listen && c->token && (c->advertise || !config->advertise) &&
           (c->unix_base || !config->unix_base) &&
           ports_init(&plane->ports, c->lane_port_first, c->lane_port_last);
}

static void plane_init(struct plane *plane)
{
    uint64_t seed = 0;
    /* It only makes collisions hard to aim for; without it all works. */
    ssize_t drawn = getrandom(&seed, sizeof seed, 0);
    (void)drawn;
    list_init(&plane->dirty);
    list_init(&plane->loaded);
    plane->room_bell = -1;
    list_init(&plane->retired);
    list_init(&plane->parting);
    plane->speakers.seed = seed;
    peers_init(&plane->peers, plane->config.max_lanes + JOIN_WAITING, seed);
}

struct plane *plane_new(struct loop *loop, const struct plane_config *config,
    const struct plane_events *events, void *arg, char **error)
{
    *error = NULL;
    struct plane *plane = calloc(1, sizeof *plane);
    if (!plane) {
        *error = strdup("out of memory");
        return NULL;
    }
    plane->loop = loop;
    plane->events = *events;
    plane->arg = arg;
    bool copied = plane_copy_config(plane, config);
    plane_init(plane);
    if (!copied)
        *error = strdup("out of memory");
    else if (plane_open(plane, error))
        return plane;
    plane_free(plane);
    return NULL;
}

static void plane_close_lanes(struct plane *plane)
{
    struct idmap_cell cell;
    for (size_t place = 0; idmap_next(&plane->lanes, &place, &cell); place = 0)
        lane_close((struct lane *)(uintptr_t)cell.value);
    while (plane->parting_count)
        lane_part_now(plane);
    idmap_free(&plane->lanes);
}

static void plane_free_speakers(struct plane *plane)
{
    struct strmap_cell cell;
    for (size_t place = 0; strmap_next(&plane->speakers, &place, &cell);)
        free(cell.value);
    strmap_free(&plane->speakers);
}

static void plane_free_context(struct plane *plane)
{
    if (!plane->context)
        return;
    zmq_ctx_shutdown(plane->context);
    if (plane->zap)
        zap_stop(plane->zap);
    RETRY(zmq_ctx_term(plane->context));
}

void plane_free(struct plane *plane)
{
    int linger = JOIN_FAREWELL_MS;
    assert(!plane->reading);
    plane_close_lanes(plane);
    if (plane->join.socket)
        zmq_setsockopt(plane->join.socket, ZMQ_LINGER, &linger, sizeof linger);
    gate_close(&plane->join);
    gate_close(&plane->answers);
    answers_close(plane);
    plane_free_speakers(plane);
    plane_free_context(plane);
    lane_room_close(plane);
    peers_free(&plane->peers);
    ports_free(&plane->ports);
    free((char *)plane->config.listen);
    free((char *)plane->config.advertise);
    free((char *)plane->config.unix_base);
    free((char *)plane->config.token);
    free(plane);
}

bool plane_set_token(struct plane *plane, const char *token)
{
    char *copy = strdup(token);
    if (!copy)
        return false;
    free((char *)plane->config.token);
    plane->config.token = copy;
    return true;
}

const char *plane_address(const struct plane *plane)
{
    const char *host = plane->join.host;
    return strcmp(host, "0.0.0.0") != 0 && strcmp(host, "::") != 0 ? host : NULL;
}

uint16_t plane_join_port(const struct plane *plane)
{
    return plane->join.port;
}

uint16_t plane_answers_port(const struct plane *plane)
{
    return plane->answers.port;
}

const struct plane_stats *plane_stats(const struct plane *plane)
{
    return &plane->stats;
}

/* ------------------------------------------------------------------------------- actions */

static int plane_refused(
    struct plane *plane, struct peer *peer, int code, const char *text, bool retry)
{
    join_refuse(plane, peer, code, text, retry);
    return -code;
}

int plane_welcome(struct plane *plane, const struct join_action *action)
{
    char token[ZAP_TOKEN_SIZE];
    const char *why = NULL;
    int code = 0;
    struct peer *peer = peers_get(&plane->peers, action->peer);
    if (!peer)
        return -PUSHROD_E_UNKNOWN_CONNECTION;
    /* The core closes it first; were it not so, this one would be unreachable. */
    struct lane *old = lane_find(plane, action->worker);
    if (old)
        lane_close(old);
    if (plane->lanes.count >= plane->config.max_lanes)
        return plane_refused(plane, peer, PUSHROD_E_TOO_MANY,
            "the server has as many workers as it may: see its --max-workers", true);
    if (plane->parting_count &&
        plane->lanes.count + plane->parting_count >= plane->config.max_lanes)
        lane_part_now(plane);
    struct lane *lane = lane_open(plane, action, token, &why, &code);
    if (!lane)
        return plane_refused(plane, peer, code, why, true);
    join_welcome(plane, peer, lane, token, action);
    return 0;
}

void plane_refuse(struct plane *plane, const struct join_action *action)
{
    struct peer *peer = peers_get(&plane->peers, action->peer);
    if (peer)
        join_refuse(plane, peer, action->code, action->text, action->retry);
}

/* The name under which a person knows this server, as well as we can tell. */
static const char *plane_host(const struct plane *plane, char *name, size_t size)
{
    const char *address = plane_address(plane);
    if (plane->config.advertise || address)
        return plane->config.advertise ? plane->config.advertise : address;
    if (gethostname(name, size) != 0)
        return "the server";
    name[size - 1] = '\0';
    return name;
}

/* The first error that most users meet. With the lane up it is its answers that do not come. */
static void unreachable_text(
    const struct plane *plane, const struct lane *lane, char *text, size_t size)
{
    char name[64];
    const struct plane_config *c = &plane->config;
    const char *host = plane_host(plane, name, sizeof name);
    unsigned port = lane->port;
    if (lane->state == LANE_UP)
        snprintf(text, size, "cannot reach answers port %u of %s: open it",
            (unsigned)plane_answers_port(plane), host);
    else if (c->lane_port_first)
        snprintf(text, size, "cannot reach lane port %u of %s: open %u-%u", port, host,
            c->lane_port_first, c->lane_port_last);
    else
        snprintf(text, size,
            "cannot reach lane port %u of %s: give the server a range of --lane-ports, and open it",
            port, host);
}

/* Whoever went before it was ready has nothing to do with a port that cannot be reached. */
static void close_tell(struct plane *plane, const struct lane *lane, struct peer *peer,
    const struct join_action *action)
{
    char text[256];
    bool unreachable = action->code == PUSHROD_E_LANE_UNREACHABLE;
    if (unreachable)
        unreachable_text(plane, lane, text, sizeof text);
    bool told = join_refuse(
        plane, peer, action->code, unreachable ? text : NULL, action->code != PUSHROD_E_SUPERSEDED);
    const char *name = action->text ? action->text : "";
    if (unreachable && told)
        log_warning("worker %s: %s", name, text);
    else if (unreachable)
        log_info("worker %s left before it was ready", name);
}

void plane_close(struct plane *plane, const struct join_action *action)
{
    struct lane *lane = lane_find(plane, action->worker);
    if (!lane)
        return;
    struct peer *peer = peers_get(&plane->peers, lane->peer);
    if (peer && action->code)
        close_tell(plane, lane, peer, action);
    else if (peer)
        peer_drop(&plane->peers, peer);
    lane_close(lane);
}

void plane_put(struct plane *plane, const struct lane_action *action)
{
    struct lane *lane = lane_find(plane, action->worker);
    if (lane)
        lane_put(lane, action);
}

void plane_flush(struct plane *plane)
{
    while (!list_empty(&plane->dirty))
        lane_flush(container_of(list_first(&plane->dirty), struct lane, dirty));
}

/* ----------------------------------------------------------------------------- all input */

/* Workers that send all the time must not keep us here: so many budgets at the most. */
#define DRAIN_ROUNDS 64u

void plane_drain_input(struct plane *plane)
{
    struct idmap_cell cell;
    for (unsigned i = 0; i < DRAIN_ROUNDS && answers_poll(plane); i++)
        ;
    for (unsigned i = 0; i < DRAIN_ROUNDS && join_ready(plane); i++)
        ;
    monitor_read(&plane->join.monitor);
    monitor_read(&plane->answers.monitor);
    for (size_t place = 0; idmap_next(&plane->lanes, &place, &cell);) {
        struct lane *lane = (struct lane *)(uintptr_t)cell.value;
        monitor_read(&lane->monitor);
        lane_look(lane);
    }
    /* What is left when the rounds are over gives no signal any more. */
    watch_sent(&plane->join.watch);
}
