/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session_impl: what the files of the session share. Private to worker/session*.c.
 *
 *   session.c        joining, life signs; session_begin() and session_end()
 *   session_leave.c  draining, BYE, the end
 *   session_join.c   JOIN with what is held, WELCOME with its verdicts
 *   session_task.c   tasks from the lane to the runner
 *   session_answer.c and back
 *   session_log.c    answers: numbered, kept until acknowledged, sent and sent again
 */
#ifndef WORKER_SESSION_IMPL_H
#define WORKER_SESSION_IMPL_H

#include <pushrod/task.h>
#include "common/buf.h"
#include "common/list.h"
#include "common/map.h"
#include "worker/session.h"

/* ------------------------------------------------------------------ answers */

/* In parts (session_config.part_bytes): */
#define LOG_NEAR   4u   /* of a frame, beyond which the rest waits for the next; 1 to other hosts */
#define LOG_BULK   4u   /* of a result to another host, or of what is kept: more is passed */
#define LOG_WINDOW 64u  /* sent and not acknowledged; on one host a result begun is ended */
#define LOG_FULL   128u /* that wait to be sent, beyond which the runner has to wait */

/* One encoded message. Those of a large result form a group, which is forgotten as a whole: the
 * server stores it with its DONE, and until then may lose what it has of it. */
struct kept {
    uint64_t id;
    uint64_t lease; /* 0: of the session itself (READY, BYE) */
    uint32_t size;  /* encoded bytes */
    uint32_t tail;  /* messages that follow in the same group */
    uint16_t kind;  /* enum msg */
    bool scattered; /* others may lie between it and those of its group */
};

/*
 * The kept messages in order: a ring of records, and their bytes back to back.
 *
 *    forgotten | head ... acknowledged | in flight | to be sent
 *                         ^ acked        ^ sent      ^ count      (records, counted from head)
 */
struct answer_log {
    struct kept *ring;
    size_t capacity; /* a power of two, or 0 */
    size_t first;    /* place of the head in the ring */
    size_t count;
    size_t acked;
    size_t sent;
    uint64_t head_sequence; /* of the head */
    struct buf bytes;
    size_t data;     /* bytes of DATA among them */
    size_t head_at;  /* in bytes.data: the head's first byte, ... */
    size_t acked_at; /* ... that of the first not acknowledged, ... */
    size_t sent_at;  /* ... and that of the first to be sent */
    size_t part;     /* bytes: the measure of the window */
    size_t frame;    /* bytes of a frame, beyond which the rest waits for the next */
    bool failed;     /* out of memory; sticky */
};

void answer_log_free(struct answer_log *l);
/* Appends bytes.data[from..size) as a record. `from`: what answer_log_open() gave before encoding.
 */
size_t answer_log_open(struct answer_log *l);
void answer_log_close(
    struct answer_log *l, size_t from, uint16_t kind, uint64_t id, uint64_t lease);
/* The last `messages` records form one group. */
void answer_log_group(struct answer_log *l, uint32_t messages);
/* Takes the first records of the other log, a frame of them; what is put into this one next comes
 * behind them, and ahead of the rest of their group. */
void answer_log_move(struct answer_log *l, struct answer_log *from);
/* All up to `sequence` are stored by the server. True if that is news. */
bool answer_log_ack(struct answer_log *l, uint64_t sequence);
void answer_log_rewind(struct answer_log *l); /* send again all that is not acknowledged */
/* Adds the next messages to a frame; false: none, nothing added. *sequence: of the first. */
bool answer_log_take(struct answer_log *l, struct buf *frame, uint64_t *sequence);
/* Adds the first message that is not acknowledged, once more; false: none was sent. */
bool answer_log_again(const struct answer_log *l, struct buf *frame);
bool answer_log_pending(const struct answer_log *l);  /* answer_log_take() would give something */
bool answer_log_drained(const struct answer_log *l);  /* it would give more if there were more */
size_t answer_log_bytes(const struct answer_log *l);  /* kept */
size_t answer_log_unsent(const struct answer_log *l); /* bytes that were not sent yet */
/* An empty one of the same measures. */
struct answer_log answer_log_like(const struct answer_log *l);
/* Of the log those records that `keep` does not refuse (NULL: all) come behind what is in `fresh`,
 * which takes its place: so a new session begins. */
typedef bool answer_log_filter(const void *arg, const struct kept *record);
void answer_log_restart(
    struct answer_log *l, struct answer_log fresh, answer_log_filter *keep, const void *arg);
/* The records from the oldest; NULL at the end. */
const struct kept *answer_log_at(const struct answer_log *l, size_t i);

/* -------------------------------------------------------------------- tasks */

/* A task that the server gave us and that has no answer yet. */
struct item {
    struct attempt attempt; /* borrows from bytes and body */
    struct list node;       /* in waiting, handed, gone, or spare */
    struct buf bytes;  /* queue, headers, small payload; its memory serves the next item, too */
    struct body *body; /* large payload; NULL: none */
    size_t missing;    /* bytes at its end that have not come yet: it only keeps its place */
    struct buf note;   /* text of the progress that was not told yet */
    uint64_t progress_done;
    uint64_t progress_total;
    uint64_t progress_ns; /* when it may be told; 0: nothing was told yet */
    bool progressing;     /* there is something to tell */
    uint64_t seen_ns;     /* when it was first seen to run; 0: not yet */
    bool handed;          /* the runner has it */
    bool told;            /* STARTED was sent */
    bool cancelled;       /* the runner was told to stop it */
    bool bulk;            /* what it said last went to session.bulk: the next comes behind it */
    bool revoking;        /* the runner was asked to give it back */
    bool dropped;         /* nobody waits for its answer */
};

/* Queues that we serve, or did: what a broken handler leaves is nobody else's here. */
struct pattern {
    struct slice text;
    bool broken;
};

struct session {
    struct session_config config;
    struct buf identity; /* name, host and queue patterns, which config points into */
    struct pattern *patterns;
    size_t pattern_count;
    size_t served_count; /* of them, those that are not broken */
    struct now now;
    uint64_t random; /* state of the generator */

    enum session_state state;
    uint64_t tries; /* JOINs since the last session worked */
    uint64_t
        deadline_ns;   /* of the state: next JOIN, no WELCOME, no LANE_HELLO, give up after BYE */
    uint64_t heard_ns; /* last sign of life on the lane */
    uint64_t said_ns;  /* last frame of answers */
    uint64_t progress_ns; /* last time that ACK moved, or that there was nothing to wait for */
    uint64_t resend_ms;   /* since then, before something is sent again */
    bool probing;         /* it is time to */
    uint64_t probe;       /* sequence of what was sent again, and is not acknowledged; 0: none */
    bool settled;         /* something was acknowledged in this session */
    bool near;            /* it is on this host */
    enum { BEAT_ALWAYS, BEAT_ONCE, BEAT_NEVER } beat; /* as the last PING said; ONCE: answer it */

    uint8_t nonce[16];
    uint64_t worker; /* of the WELCOME, as all until the gap */
    uint64_t session;
    uint64_t heartbeat_ms;
    uint64_t ping_ms;
    uint64_t next_ms; /* the server says something within this time, as its last PING said */
    uint64_t max_result;

    struct list waiting; /* items that were not handed to the runner, in order of arrival */
    struct list handed;  /* items that were; the first `slots` of them run */
    struct list gone;    /* items that ended in this tick */
    struct list lost;    /* items that a handler may use for ever */
    struct list spare;   /* items to be used again */
    size_t waiting_count;
    size_t handed_count;
    size_t revoking_count;
    size_t progressing_count;
    struct idmap items; /* lease -> item */
    uint64_t begun;     /* attempts that were handed to the runner, and not given back by it */
    uint64_t ended;     /* attempts that it answered */
    uint64_t returned;  /* tasks given back in this session */

    struct answer_log log;
    struct answer_log bulk; /* large results and much DATA, of which nothing is numbered or sent:
                               what is small passes them */
    bool room;              /* for more of them on the way */

    bool draining;
    bool quitting;     /* what runs is not waited for */
    bool leaving;      /* BYE is on its way */
    bool coming_back;  /* it is the server that stops: its next one is joined */
    bool recycle;      /* draining because of max_tasks or session_recycle() */
    int code;          /* why it will be over */
    uint64_t drain_ns; /* when draining ends, whatever runs */

    /* the actions of this tick, and what they point to */
    struct session_actions actions;
    struct msg_join join;
    struct buf join_bytes;
    struct msg_welcome welcome;
    struct buf welcome_bytes;
    struct buf frame;
    struct run_action *runs;
    size_t run_capacity;
    char text[512];
};

/* session.c */
void session_over(struct session *s, int code); /* the end; code: enum pushrod_error */
void session_say(struct session *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
void session_rejoin(struct session *s, const char *why); /* the session is gone; try for another */
bool session_active(const struct session *s);            /* answers can be sent */
/* The lane has said something, which is a sign of life. False: it is not for this session. */
bool session_heard(struct session *s);
size_t session_running(const struct session *s); /* attempts that run now */
/* A copy in `to`, which has the room; what is absent stays so. */
struct slice session_keep(struct buf *to, struct slice text);
uint64_t session_random(struct session *s);
uint64_t session_in_ms(const struct session *s, uint64_t ms); /* monotonic ns, from now */
uint64_t session_bound_ms(uint64_t told, uint64_t otherwise); /* a period that the server says */

/* session_leave.c */
void leave_judge(struct session *s); /* each tick: BYE, or the end, if it is time */

/* session_join.c */
void joining_start(struct session *s);          /* the JOIN of a new try */
void joining_forget_session(struct session *s); /* drop answers that mean nothing to the next one */
void joining_ready(struct session *s);          /* number the kept answers, READY first */

/* session_task.c */
void item_start_some(struct session *s);        /* hand over what there is room for */
void item_tell_started(struct session *s);      /* STARTED for those that run for a while */
void item_tell_progress(struct session *s);     /* PROGRESS that was held back */
uint64_t item_wake_ns(const struct session *s); /* when one of these two has something */
void item_return_unstarted(struct session *s);  /* draining: all that has not begun */
void item_lose_partial(struct session *s);      /* the lane is gone, and the rest of them with it */
void item_drop(struct session *s, struct item *it); /* the server does not want it any more */
void item_sweep(struct session *s);                 /* a new tick: nothing names what ended */
void item_free_all(struct session *s);
struct item *item_find(const struct session *s, uint64_t lease);
void item_end(struct session *s, struct item *it); /* it has its answer, or needs none */

/* session_answer.c */
size_t answers_kept(const struct session *s); /* bytes */
/* All that is kept of answers, from the oldest; NULL at the end. */
const struct kept *answers_at(const struct session *s, size_t i);
/* More of large results may come to the log: nothing that could pass them waits there. */
bool answers_may_fill(const struct session *s);
void item_say_started(struct session *s, struct item *it);
void item_say_progress(struct session *s, struct item *it); /* if there is something to tell */
void item_say_returned(struct session *s, uint64_t id, uint64_t lease, uint32_t code);
/* The handler of this queue is known to be broken. */
bool item_is_broken(const struct session *s, struct slice queue);
void item_say_failed(
    struct session *s, struct item *it, uint64_t run_ns, const struct attempt_failure *f);

#endif
