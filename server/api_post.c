/* SPDX-License-Identifier: Apache-2.0 */
/* api_post: what other threads want done on the server's thread, and which thread that is. */
#include <stdlib.h>
#include <unistd.h>
#include "server/api.h"

struct server_post {
    struct post post;
    struct pushrod_server *server;
    void (*fn)(struct pushrod_server *server, void *arg);
    void *arg;
};

static void post_call(void *arg)
{
    struct server_post *post = arg;
    post->fn(post->server, post->arg);
    free(post);
}

int pushrod_server_post(
    struct pushrod_server *s, void (*fn)(struct pushrod_server *server, void *arg), void *arg)
{
    if (!fn)
        return -PUSHROD_E_INVALID;
    if (!server_is_here(s))
        return -PUSHROD_E_WRONG_STATE;
    struct server_post *post = malloc(sizeof *post);
    if (!post)
        return -PUSHROD_E_NO_MEMORY;
    *post = (struct server_post){
        .post = {.fn = post_call, .arg = post}, .server = s, .fn = fn, .arg = arg};
    pthread_mutex_lock(&s->lock);
    bool runs = s->state != API_NEW && s->state != API_OVER;
    if (runs)
        loop_post(s->loop, &post->post);
    pthread_mutex_unlock(&s->lock);
    if (runs)
        return 0;
    free(post);
    return -PUSHROD_E_WRONG_STATE;
}

bool server_is_here(const struct pushrod_server *s)
{
    return s->process == 0 || s->process == getpid();
}

int thread_take(struct pushrod_server *s)
{
    if (!server_is_here(s))
        return api_fail(s, PUSHROD_E_WRONG_STATE,
            "this process was forked after the server had started: start it in this one");
    /* Only its own thread changes it, so that it may look without the lock. */
    if (pthread_equal(s->thread, pthread_self()))
        return 0;
    pthread_mutex_lock(&s->lock);
    s->thread = pthread_self();
    pthread_mutex_unlock(&s->lock);
    return 0;
}
