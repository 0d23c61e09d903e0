/* SPDX-License-Identifier: Apache-2.0 */
/*
 * api: the inside of the server library, shared by server/api_X.c and server/main.c.
 *
 * Knows every room of the server and puts them together; holds what belongs to the embedding
 * program: its events, listeners, callbacks, timers and local processes.
 *
 * How callbacks are called: never while the core's actions are being carried out. What they are
 * told is kept (struct told, struct close_note, ...) and told at the start of the next round,
 * within its tick; so a callback may submit, send and cancel as it likes.
 */
#ifndef SERVER_API_H
#define SERVER_API_H

#include <pthread.h>
#include <pushrod/server.h>
#include <stdatomic.h>
#include <sys/types.h>
#include "common/buf.h"
#include "common/list.h"
#include "common/map.h"
#include "common/params.h"
#include "common/unixsock.h"
#include "server/net/conn.h"
#include "server/net/host.h"
#include "server/net/http.h"
#include "server/net/loop.h"
#include "server/net/native.h"
#include "worker/supervise.h"

#define SERVER_PORTS   16u /* addresses of one option */
#define SERVER_SIGNALS 4u

enum api_state { API_NEW, API_RUNNING, API_DRAINING, API_FLUSHING, API_OVER };

/* What the addresses of an option came to. */
struct api_ports {
    int port[SERVER_PORTS];
    unsigned count;
};

/* One pushrod_server_listen(). */
struct api_listener {
    struct pushrod_server *server;
    char *address;
    struct pushrod_framing framing;
    char eof[9];
    size_t eof_size;
    unsigned number;
    int port;
};

/* One on_task(). */
struct api_handler {
    char *queue;
    int (*handler)(struct pushrod_task *task, void *arg);
    void *arg;
};

/* Who wants the finish of a task; found by its place, which is the core's `request`. */
struct call {
    pushrod_finish_fn *fn; /* NULL: the finish event */
    void *arg;
    uint32_t generation; /* of the place; an answer with another one is late */
    uint32_t next_free;  /* place + 1 while it is free; 0: the last one */
    uint64_t id;
};

/* A finish that is to be told in the next round. */
struct told {
    uint64_t request; /* 0: to the finish event */
    struct pushrod_finish finish;
    struct body *body; /* of a long result; NULL: there is none */
    size_t result;     /* offsets in `told_bytes`; SIZE_MAX: none */
    size_t text;
    size_t tag;
};

struct pushrod_server {
    struct params *params;
    void *data;
    char error[600];
    struct pushrod_server_events events;
    void *events_arg;
    size_t max_payload; /* the parameter, once it has started */
    bool program;       /* it is pushrod-server: native clients and HTTP by default */
    bool catch_signals;

    struct api_listener **listeners;
    size_t listener_count;
    struct api_handler *handlers;
    size_t handler_count;

    /* from start() on */
    _Atomic(struct loop *) loop; /* set once; stop() rings it from anywhere, without a lock */
    struct conns *conns;
    struct host *host;
    struct native *native;
    struct http *http;
    struct supervisor supervisor;
    bool supervised;
    struct event *local_event; /* the supervisor has ended */
    char *token;               /* the one that native borrows */
    struct api_ports native_ports, http_ports;
    char unix_base[UNIXSOCK_BASE];   /* of the names of its Unix sockets; "": none */
    char unix_client[UNIXSOCK_NAME]; /* the clients'; native borrows it */
    pid_t process;                   /* that started it; 0: none yet */
    pthread_t thread;                /* that of the loop */
    uint64_t started_ns;
    enum api_state state;
    atomic_uint stops; /* how often stop() was called */
    unsigned stops_seen;
    bool phase_over; /* of DRAINING, FLUSHING: nothing more is waited for */
    struct loop_timer phase_timer;
    struct event *signals[SERVER_SIGNALS];

    /* callbacks */
    struct call *calls;
    uint32_t call_count;
    uint32_t call_free; /* place + 1; 0: none */
    struct buf told;    /* struct told */
    struct buf told_bytes;
    uint64_t told_total; /* finishes taken, for core_received() */
    struct deferral tell;
    struct buf closes; /* struct close_note */
    struct deferral close_tell;
    uint64_t closing; /* the connection whose close event is being told; 0: none */
    void *closing_data;
    struct buf notes; /* struct worker_event */
    struct deferral note_tell;
    struct deferral start_tell;
    struct idmap timers; /* id -> struct api_timer */
    uint64_t timer_ids;
    struct list groups;   /* those that are waited for */
    pthread_mutex_t lock; /* guards `waits`, and changes of `state` and `thread` */
    struct list waits;    /* other threads in taskwait(); see api_wait.c */

    /* for pushrod-server */
    void (*reload)(struct pushrod_server *server);
};

/* Sets the error text; returns -code. */
int api_fail(struct pushrod_server *s, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- api_config.c: from params to what the rooms want ---- */
struct host_settings {
    struct host_config host;
    struct conns_config conns;
    struct queue_setting *queues;
};
/* 0, or an error with its text. The settings borrow from params; free with settings_free(). */
int settings_read(struct pushrod_server *s, struct host_settings *out);
void settings_free(struct host_settings *settings);
void settings_log(const struct pushrod_server *s);
uint64_t settings_drain_ms(const struct pushrod_server *s);

/* ---- api_start.c ---- */
extern atomic_uint servers_open;              /* servers of this process that have descriptors */
void signals_leave(struct pushrod_server *s); /* to who had them before */

/* ---- api_run.c ---- */
void state_set(struct pushrod_server *s, enum api_state state);
void server_end(struct pushrod_server *s); /* also of a start that failed */

/* ---- api_reload.c: takes over the reloadable options of `fresh`, while the server runs ---- */
void reload_apply(struct pushrod_server *s, const struct params *fresh);

/* ---- api_local.c: local workers ---- */
int local_check(struct pushrod_server *s);   /* are its handlers valid? */
int local_fork(struct pushrod_server *s);    /* before any thread or socket; 0 if there are none */
int local_join(struct pushrod_server *s);    /* the join port is bound */
void local_reload(struct pushrod_server *s); /* says what has changed */
void local_stop(struct pushrod_server *s, bool now);
void local_wait(struct pushrod_server *s);
bool local_wanted(const struct pushrod_server *s);

/* ---- api_task.c ---- */
void api_task_init(struct pushrod_server *s);
void api_task_free(struct pushrod_server *s);
void api_task_self(struct pushrod_server *s, const struct conn_action *action);
void api_task_orphan(struct pushrod_server *s, const struct task *task);
/* The same as pushrod_server_task() with the job's fields; the slot's fn gets `arg`. */
int64_t api_task_submit(
    struct pushrod_server *s, const struct pushrod_job *job, pushrod_finish_fn *fn, void *arg);
/* A copy in one allocation; NULL: no memory. */
struct pushrod_finish *finish_copy(const struct pushrod_finish *finish);

/* ---- api_post.c ---- */
/* This thread is the server's from now on; 0, or WRONG_STATE: it cannot be, see server_is_here().
 */
int thread_take(struct pushrod_server *s);
/* False in a process that was forked after start(): no thread of the server is there, and what is
 * open is the other's. */
bool server_is_here(const struct pushrod_server *s);

/* ---- api_options.c: struct pushrod_options as the core wants it ---- */
/* 0 or a negative error with the text set; headers are encoded into `headers`. */
int options_convert(struct pushrod_server *s, const struct pushrod_options *from,
    struct msg_options *to, struct buf *headers);

/* ---- api_conn.c ---- */
extern const struct conn_ops api_conn_ops;
void closes_init(struct pushrod_server *s);
void closes_tell_last(struct pushrod_server *s);
void closes_free(struct pushrod_server *s);

/* ---- api_group.c, api_timer.c, api_stats.c, api_event.c ---- */
void groups_free(struct pushrod_server *s);
void waits_abort(struct pushrod_server *s); /* the server ends: nobody waits any more */
void timers_free(struct pushrod_server *s);
void stats_metrics(void *arg, struct buf *out);
void events_init(struct pushrod_server *s);
void events_free(struct pushrod_server *s);
void events_notice(struct pushrod_server *s, const struct notice *notice);

#endif
