/* SPDX-License-Identifier: Apache-2.0 */
/* api_post: what other threads want done on the server's thread, and which thread that is. */
#include <stdlib.h>
#include "server/api.h"

struct server_post {
    struct list node;
    void (*fn)(struct pushrod_server *server, void *arg);
    void *arg;
};

/* Those that are there now: a callback that posts again does not keep the loop from its work. */
void posts_run(void *arg)
{
    struct pushrod_server *s = arg;
    struct list now;
    list_init(&now);
    pthread_mutex_lock(&s->lock);
    list_splice_front(&now, &s->posts);
    pthread_mutex_unlock(&s->lock);
    list_foreach(node, next, &now)
    {
        struct server_post *post = container_of(node, struct server_post, node);
        post->fn(s, post->arg);
        free(post);
    }
}

/* The loop is told once for all that wait: the first one rings. */
static int post_put(struct pushrod_server *s, struct server_post *post)
{
    if (s->state == API_NEW || s->state == API_OVER)
        return -PUSHROD_E_WRONG_STATE;
    if (list_empty(&s->posts) && !loop_post(s->loop, posts_run, s))
        return -PUSHROD_E_NO_MEMORY;
    list_push_back(&s->posts, &post->node);
    return 0;
}

int pushrod_server_post(
    struct pushrod_server *s, void (*fn)(struct pushrod_server *server, void *arg), void *arg)
{
    if (!fn)
        return -PUSHROD_E_INVALID;
    struct server_post *post = malloc(sizeof *post);
    if (!post)
        return -PUSHROD_E_NO_MEMORY;
    *post = (struct server_post){.fn = fn, .arg = arg};
    list_init(&post->node);
    pthread_mutex_lock(&s->lock);
    int error = post_put(s, post);
    pthread_mutex_unlock(&s->lock);
    if (error)
        free(post);
    return error;
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
