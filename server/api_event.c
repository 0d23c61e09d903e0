/* SPDX-License-Identifier: Apache-2.0 */
/* api_event: what the core notices, for the log and the embedding program's worker events. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "common/log.h"
#include "server/api.h"

/* A worker event that is to be told; owns what it points to. */
struct worker_event {
    bool lost;
    struct pushrod_worker_note note;
    char *name;
    uint64_t *tasks;
};

static void event_free(struct worker_event *e)
{
    free(e->name);
    free(e->tasks);
}

static void event_keep(struct pushrod_server *s, const struct notice *n, bool lost)
{
    struct worker_event e = {.lost = lost};
    size_t size = n->count * sizeof *e.tasks;
    e.name = strdup(n->name ? n->name : "");
    e.tasks = size ? malloc(size) : NULL;
    if (e.tasks)
        memcpy(e.tasks, n->ids, size);
    e.note = (struct pushrod_worker_note){
        .worker = n->worker,
        .name = e.name,
        .error = n->code,
        .tasks = e.tasks,
        .task_count = e.tasks ? n->count : 0,
    };
    if (e.name)
        buf_append(&s->notes, &e, sizeof e);
    if (!e.name || s->notes.failed)
        event_free(&e);
    /* If this one is lost for want of memory, those that come after it are not. */
    loop_defer(s->loop, &s->note_tell);
}

static void events_tell(void *arg)
{
    struct pushrod_server *s = arg;
    struct buf notes = s->notes;
    s->notes = BUF_EMPTY;
    struct worker_event *e = (struct worker_event *)(void *)notes.data;
    for (size_t i = 0; i < notes.size / sizeof *e; i++) {
        if (e[i].lost && s->events.worker_lost)
            s->events.worker_lost(s, &e[i].note, s->events_arg);
        if (!e[i].lost && s->events.worker_join)
            s->events.worker_join(s, &e[i].note, s->events_arg);
        event_free(&e[i]);
    }
    buf_free(&notes);
}

static void start_tell(void *arg)
{
    struct pushrod_server *s = arg;
    if (s->events.start)
        s->events.start(s, s->events_arg);
}

void events_init(struct pushrod_server *s)
{
    deferral_init(&s->note_tell, events_tell, s);
    deferral_init(&s->start_tell, start_tell, s);
}

void events_free(struct pushrod_server *s)
{
    struct worker_event *e = (struct worker_event *)(void *)s->notes.data;
    for (size_t i = 0; i < s->notes.size / sizeof *e; i++)
        event_free(&e[i]);
    buf_free(&s->notes);
}

/* A stream of these must not drown the log. */
static void dead_log(const struct notice *n)
{
    static struct log_limit limit;
    char more[LOG_MORE];
    if (n->task && log_allowed(&limit, more))
        log_warning("task %" PRIu64 " of queue %.*s is dead: %s%s", n->task->record.id,
            (int)task_queue(n->task).size, (const char *)task_queue(n->task).data,
            n->task->text ? n->task->text : pushrod_strerror(n->task->code), more);
}

void events_notice(struct pushrod_server *s, const struct notice *n)
{
    const char *why = n->text ? n->text : pushrod_strerror(n->code);
    switch (n->kind) {
    case NOTICE_WORKER_JOIN:
        log_debug("worker %s joins", n->name);
        break;
    case NOTICE_WORKER_READY:
        log_info("worker %s is ready", n->name);
        if (s->events.worker_join)
            event_keep(s, n, false);
        break;
    case NOTICE_WORKER_LOST:
        if (s->state >= API_FLUSHING)
            break; /* after the stop event: it was told to leave at once */
        log_warning("worker %s is lost: %s; %zu %s to others", n->name, why, n->count,
            n->count == 1 ? "task goes" : "tasks go");
        if (s->events.worker_lost)
            event_keep(s, n, true);
        break;
    case NOTICE_WORKER_UNREADY:
        /* The plane knows whether the lane could not be reached, or the worker had gone. */
        if (n->code != PUSHROD_E_LANE_UNREACHABLE)
            log_info("worker %s left before it was ready", n->name);
        break;
    case NOTICE_WORKER_BYE:
        log_info("worker %s has left", n->name);
        break;
    case NOTICE_WORKER_BROKEN:
        log_error("worker %s does not serve queue %s any more: its handler is broken, its log says "
                  "how",
            n->name, why);
        break;
    case NOTICE_TASK_DEAD:
        dead_log(n);
        break;
    case NOTICE_STORE_DOWN:
        log_error("the store cannot write: %s; submissions are refused", why);
        break;
    case NOTICE_STORE_UP:
        log_warning("the store can write again");
        break;
    case NOTICE_ORPHAN_FINISH:
        api_task_orphan(s, n->task);
        break;
    case NOTICE_DRAINED:
        s->phase_over = true;
        break;
    }
}
