/* SPDX-License-Identifier: Apache-2.0 */
#include "server/net/zap.h"

#include <assert.h>
#include <czmq.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <zmq.h>

#include "common/map.h"
#include "common/retry.h"
#include "server/net/watch.h"

struct zap_user {
    char name[ZAP_NAME_SIZE]; /* the key in the map */
    char lane[ZAP_NAME_SIZE]; /* its ZAP domain */
    char token[ZAP_TOKEN_SIZE];
    bool lane_taken; /* somebody came with the secret: nobody else gets in */
};

struct zap {
    void *socket; /* REP, of the thread */
    pthread_t thread;
    pthread_mutex_t mutex; /* guards the map and what it leads to */
    struct strmap users;
};

/* The frames of a request that are looked at; owned. */
struct zap_request {
    char *version;
    char *id;
    char *domain;
    char *mechanism;
    char *user;
    char *token;
};

static bool user_may(struct zap_user *user, const char *domain, const char *token)
{
    if (!slice_equal_secret(slice_str(token), slice_str(user->token)))
        return false;
    if (strcmp(domain, ZAP_DOMAIN_ANSWERS) == 0)
        return true;
    if (strcmp(domain, user->lane) != 0 || user->lane_taken)
        return false;
    user->lane_taken = true;
    return true;
}

static bool zap_allows(struct zap *zap, const struct zap_request *r)
{
    if (!r->mechanism || strcmp(r->version, "1.0") != 0)
        return false;
    if (strcmp(r->domain, ZAP_DOMAIN_JOIN) == 0)
        return true;
    if (strcmp(r->mechanism, "PLAIN") != 0 || !r->user || !r->token)
        return false;
    pthread_mutex_lock(&zap->mutex);
    struct zap_user *user = strmap_get(&zap->users, slice_str(r->user));
    bool allowed = user && user_may(user, r->domain, r->token);
    pthread_mutex_unlock(&zap->mutex);
    return allowed;
}

static struct zap_request request_read(zmsg_t *message)
{
    struct zap_request r = {0};
    r.version = zmsg_popstr(message);
    r.id = zmsg_popstr(message);
    r.domain = zmsg_popstr(message);
    free(zmsg_popstr(message)); /* address */
    free(zmsg_popstr(message)); /* identity */
    r.mechanism = zmsg_popstr(message);
    r.user = zmsg_popstr(message);
    r.token = zmsg_popstr(message);
    return r;
}

static void request_free(struct zap_request *r)
{
    free(r->version);
    free(r->id);
    free(r->domain);
    free(r->mechanism);
    free(r->user);
    free(r->token);
}

static void zap_answer(struct zap *zap, zmsg_t *message)
{
    struct zap_request r = request_read(message);
    bool allowed = zap_allows(zap, &r);
    zmsg_t *answer = zmsg_new();
    zmsg_addstr(answer, "1.0");
    zmsg_addstr(answer, r.id ? r.id : "");
    zmsg_addstr(answer, allowed ? "200" : "400");
    zmsg_addstr(answer, allowed ? "OK" : "not admitted");
    zmsg_addstr(answer, allowed && r.user ? r.user : "");
    zmsg_addstr(answer, "");
    zmsg_send(&answer, zap->socket);
    zmsg_destroy(&answer); /* only if it could not be sent */
    request_free(&r);
}

static void *zap_run(void *arg)
{
    struct zap *zap = arg;
    zmsg_t *message;
    while ((message = zmsg_recv(zap->socket))) {
        zap_answer(zap, message);
        zmsg_destroy(&message);
    }
    /* The context is shutting down. */
    zmq_close(zap->socket);
    return NULL;
}

/* Signals belong to the program's own threads. */
static bool zap_start(struct zap *zap)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    bool started = pthread_create(&zap->thread, NULL, zap_run, zap) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}

struct zap *zap_new(void *context)
{
    struct zap *zap = calloc(1, sizeof *zap);
    if (!zap)
        return NULL;
    pthread_mutex_init(&zap->mutex, NULL);
    zap->socket = zmq_socket(context, ZMQ_REP);
    int linger = 0;
    if (zap->socket && zmq_setsockopt(zap->socket, ZMQ_LINGER, &linger, sizeof linger) == 0 &&
        RETRY(zmq_bind(zap->socket, "inproc://zeromq.zap.01")) == 0 && zap_start(zap))
        return zap;
    if (zap->socket)
        zmq_close(zap->socket);
    pthread_mutex_destroy(&zap->mutex);
    free(zap);
    return NULL;
}

void zap_stop(struct zap *zap)
{
    pthread_join(zap->thread, NULL);
    struct strmap_cell cell;
    for (size_t place = 0; strmap_next(&zap->users, &place, &cell);)
        free(cell.value);
    strmap_free(&zap->users);
    pthread_mutex_destroy(&zap->mutex);
    free(zap);
}

static bool token_draw(char token[ZAP_TOKEN_SIZE])
{
    static const char digits[] = "0123456789abcdef";
    uint8_t bytes[(ZAP_TOKEN_SIZE - 1) / 2];
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        return false;
    for (size_t i = 0; i < sizeof bytes; i++) {
        token[2 * i] = digits[bytes[i] >> 4];
        token[2 * i + 1] = digits[bytes[i] & 15];
    }
    token[ZAP_TOKEN_SIZE - 1] = '\0';
    return true;
}

bool zap_admit(struct zap *zap, const char *name, const char *lane, char token[ZAP_TOKEN_SIZE])
{
    assert(strlen(name) < ZAP_NAME_SIZE && strlen(lane) < ZAP_NAME_SIZE);
    struct zap_user *user = calloc(1, sizeof *user);
    if (!user || !token_draw(user->token)) {
        free(user);
        return false;
    }
    strcpy(user->name, name);
    strcpy(user->lane, lane);
    strcpy(token, user->token);
    zap_forget(zap, name);
    pthread_mutex_lock(&zap->mutex);
    bool kept = strmap_put(&zap->users, slice_str(user->name), user);
    pthread_mutex_unlock(&zap->mutex);
    if (!kept)
        free(user);
    return kept;
}

void zap_forget(struct zap *zap, const char *name)
{
    pthread_mutex_lock(&zap->mutex);
    struct zap_user *user = strmap_remove(&zap->users, slice_str(name));
    pthread_mutex_unlock(&zap->mutex);
    free(user);
}
