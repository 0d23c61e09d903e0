/* SPDX-License-Identifier: Apache-2.0 */
/* api_post: what other threads want done on the server's thread, and which thread that is. */
#include <stdlib.h>
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

void thread_take(struct pushrod_server *s)
{
    /* Only its own thread changes it, so that it may look without the lock. */
    if (pthread_equal(s->thread, pthread_self()))
        return;
    pthread_mutex_lock(&s->lock);
    s->thread = pthread_self();
    pthread_mutex_unlock(&s->lock);
}
