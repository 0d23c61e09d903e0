/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lib: the inside of the client library.
 *
 * Knows the client plane of the protocol and one socket; must not know what the tasks are for, and
 * never prints or exits. One thread.
 *
 *   lib.c           settings, errors, new and free
 *   lib_connect.c   dial, greet, lose, dial again: the only writer of `state`
 *   lib_stream.c    the socket's bytes: frames out, frames in
 *   lib_receive.c   what each message of the server does
 *   lib_pending.c   submissions and waits that the server has not answered
 *   lib_follow.c    tasks that are followed, and their finishes
 *   lib_submit.c, lib_wait.c, lib_request.c, lib_row.c, lib_submitted.c: the public functions
 */
#ifndef CLIENT_LIB_H
#define CLIENT_LIB_H

#include <netdb.h>
#include <stdarg.h>
#include <pushrod/client.h>
#include "common/buf.h"
#include "common/clock.h"
#include "common/idindex.h"
#include "proto/codec.h"
#include "proto/messages.h"

#define CLIENT_FRAME     (64u << 10)   /* bytes: an open frame is closed and written beyond this */
#define CLIENT_READ      (256u << 10)  /* bytes asked for in one read */
#define CLIENT_OUT_LIMIT (64u << 20)   /* bytes that may wait to be sent */
#define CLIENT_MAX_FRAME (1088u << 20) /* bytes of a frame from a server: max-result is 1 GiB */
#define CLIENT_IN_FLIGHT 65536u        /* unanswered submissions of submit_many */

/* Request numbers. Those below are of the ring of pending requests, counted from 1. */
#define REQUEST_CALL    (UINT64_C(1) << 40) /* of the calls that wait now, counted on */
#define REQUEST_IGNORED (UINT64_C(1) << 41) /* nobody waits for the answer */

enum client_state {
    CLIENT_IDLE,     /* no connection, none wanted until a call needs one */
    CLIENT_WAITING,  /* lost; dials again at `deadline_ns` */
    CLIENT_DIALLING, /* connect() is under way, until `deadline_ns` */
    CLIENT_GREETING, /* HELLO is sent, until `deadline_ns` */
    CLIENT_UP
};

enum pending_kind { PENDING_FREE, PENDING_SUBMIT, PENDING_WAIT };

/* A SUBMIT or WAIT that is not answered. */
struct pending {
    uint8_t kind;
    uint8_t follow;
    bool unsent; /* SUBMIT: found in the unsent bytes of a lost connection, and kept there */
    bool resent; /* SUBMIT: sent again, so DUPLICATE may mean ourselves */
    bool waited; /* SUBMIT: of call(), which has the finish for itself */
    void *arg;   /* SUBMIT: of the submission */
    struct pushrod_receipt *receipt; /* SUBMIT: of submit_many; NULL: the accepted callback */
    uint64_t id;                     /* WAIT */
    struct buf *copy;                /* SUBMIT with a unique key: the message, owned; else NULL */
};

/* Ring by request number: [base, next). */
struct pending_ring {
    struct pending *cells;
    size_t mask; /* cells - 1; 0: none */
    uint64_t base;
    uint64_t next;
    size_t count; /* SUBMITs in it */
};

/* A finish that came before somebody asked for it, with what it points to. */
struct kept {
    struct kept *next;
    struct pushrod_finish finish;
    char bytes[];
};

/* A followed task. */
struct task_record {
    uint64_t id;
    void *arg;
    struct kept *kept; /* its finish, owned; NULL: it has not come */
    uint32_t next;     /* place + 1 of the next that is free, or unasked; 0: none */
    uint8_t follow;
    bool waited;  /* wait() wants it: not for the callback */
    bool unasked; /* in the list of those whose WAIT is still to be sent on this connection */
};

struct task_table {
    struct idindex places; /* id -> place in records, + 1 */
    struct task_record *records;
    uint32_t count; /* records ever used */
    uint32_t capacity;
    uint32_t free;      /* first unused record + 1; 0: none */
    size_t open;        /* records without a finish */
    uint32_t ask_first; /* place + 1 of the unasked ones, in this order; 0: none */
    uint32_t ask_last;
    size_t waits; /* WAITs without an answer */
    size_t waits_most;
};

/* A request that a function waits for now, alone or among others. */
struct call {
    uint64_t request; /* ++calls */
    bool done;
    int error;         /* negative enum pushrod_error */
    uint64_t count;    /* of OK or END */
    uint64_t rows;     /* that came */
    uint64_t after;    /* LIST: where the next page begins; by row() */
    unsigned row_kind; /* enum msg; rows of another kind are nonsense */
    void (*row)(struct pushrod_client *c, struct dec *in, struct call *call);
    void (*fn)(void); /* the user's callback, cast back by row() */
    void *arg;
    struct buf message; /* to be sent again on a new connection; call_run() frees it */
};

/* A task that was asked for, with all that it points to. */
struct submitted {
    struct pushrod_submission task;
    struct pushrod_options options;
    struct pushrod_header *headers; /* NULL: none */
    struct buf texts;               /* and the payload */
};

struct pushrod_client {
    /* settings */
    char *server, *token, *name;
    uint64_t connect_ms, wait_ms, reconnect_ms, answer_ms;
    struct pushrod_client_events events;
    void *data;
    /* connection */
    enum client_state state;
    int fd;    /* socket, or -1 */
    int tcp;   /* GREETING on a Unix socket: the connection that told of it; or -1 */
    int epoll; /* fd, timer and bell */
    int timer; /* rings at deadline_ns, for other loops */
    int bell;  /* of pushrod_client_interrupt() */
    bool wants_write;
    bool broken;   /* a write failed; the next turn drops the connection */
    bool resuming; /* it was up before: `reconnect` counts, not `connect-wait` */
    bool interrupted;
    bool watching;
    bool turning; /* client_turn() is on the stack; whoever calls meanwhile is a callback */
    unsigned tries;
    uint64_t lost_ns;     /* when the first of these tries began */
    uint64_t deadline_ns; /* of the state; UINT64_MAX: none */
    uint64_t jitter;      /* state of a small random generator */
    struct addrinfo *addresses, *address;
    struct pushrod_server_info info;
    /* stream */
    struct buf in;
    size_t in_at;     /* bytes of `in` that are done with */
    struct buf hello; /* goes before `out` on a new connection */
    size_t hello_at;
    struct buf out;                   /* what is encoded next goes here, behind all blocks */
    struct out_block *blocks;         /* full, first to last; they leave before `out` */
    struct out_block *last_block;     /* if there is one */
    size_t block_bytes;               /* in all blocks */
    struct buf spare;                 /* of a block that left: the next one's */
    size_t out_at;                    /* bytes that are written of the first block, or of `out` */
    size_t out_frame;                 /* the first frame there that is not written completely */
    size_t open_frame;                /* the frame that is being filled; SIZE_MAX: none */
    size_t out_message;               /* where the last message begins */
    uint64_t max_frame;               /* of the server, bytes; 0: it has not said it yet */
    uint64_t received, received_told; /* FINISHED on this connection */
    /* what is under way */
    struct pending_ring pending;
    struct task_table tasks;
    struct kept *handed; /* finishes that wait() gave to the user */
    uint64_t late;       /* task of the last call(), which returned without its finish; 0: none */
    struct call *call;   /* those that a function waits for, in the order of their numbers */
    size_t call_count;
    uint64_t calls;               /* number of the last one */
    struct buf scratch;           /* texts of rows and finishes, with their NULs */
    struct buf encoded;           /* options and headers while a SUBMIT is made */
    struct pushrod_task_info row; /* of status() */
    struct buf row_texts;
    struct submitted submitted;
    /* errors */
    int error;
    char error_text[1024];
};

/* ---- lib.c ---- */
int client_fail(struct pushrod_client *c, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4))); /* sets the text; returns -error */
int client_vfail(struct pushrod_client *c, int error, const char *format, va_list args)
    __attribute__((format(printf, 3, 0)));
int client_no_memory(struct pushrod_client *c);
/* `now` + `timeout_ms`; negative timeout: UINT64_MAX */
uint64_t client_deadline(int64_t timeout_ms);
/* When an answer to what is asked now is late: answer-timeout. */
uint64_t client_answer_deadline(const struct pushrod_client *c);

/* ---- lib_connect.c ---- */
/* Connects if needed; waits until it is up, or until the monotonic time: TIMED_OUT, without a text.
 */
int client_up(struct pushrod_client *c, uint64_t until_ns);
/* One step of everything, waiting until the monotonic time `until_ns` at the most. All callbacks
 * are called from here. */
int client_turn(struct pushrod_client *c, uint64_t until_ns);
/* The same, unless that time is over: TIMED_OUT, without a text. */
int client_turn_before(struct pushrod_client *c, uint64_t until_ns);
void client_close(struct pushrod_client *c); /* without a reconnect */
/* Drops the connection; it is dialled again unless the error says that this cannot help. */
void client_lost(struct pushrod_client *c, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void client_greeted(struct pushrod_client *c, const struct msg_greeting *m);
/* Refuses to wait inside a callback. */
int client_may_wait(struct pushrod_client *c);

/* ---- lib_stream.c ---- */
/* Where the next message is to be encoded; call stream_added() after it, which is false if there
 * was no memory for it: then it is as if there had been no message. */
struct buf *stream_out(struct pushrod_client *c);
bool stream_added(struct pushrod_client *c);
size_t stream_waiting(const struct pushrod_client *c); /* bytes not yet written */
void stream_write(struct pushrod_client *c);           /* sets `broken` on errors */
void stream_read(struct pushrod_client *c);            /* reads, and hands over whole frames */
void stream_reset(struct pushrod_client *c);  /* after a loss: `out` keeps the unsent SUBMITs */
void stream_forget(struct pushrod_client *c); /* what was to be written is given up */
void stream_free(struct pushrod_client *c);

/* ---- lib_receive.c ---- */
void receive_frame(struct pushrod_client *c, struct slice frame);

/* ---- lib_pending.c ---- */
struct pending *pending_add(struct pushrod_client *c, uint64_t *request); /* NULL: no memory */
struct pending *pending_get(struct pushrod_client *c, uint64_t request);  /* NULL: none */
void pending_remove(struct pushrod_client *c, uint64_t request);
/* The answer to a SUBMIT; removes it. */
void pending_settle(
    struct pushrod_client *c, uint64_t request, uint64_t id, int error, const char *text);
/* After a loss: what is sent again, and what is reported as CLOSED. */
void pending_reconnect(struct pushrod_client *c);
/* Nothing is dialled again: every submission is answered with the error. */
void pending_give_up(struct pushrod_client *c, int error, const char *text);
/* submit_many() leaves: its receipts are no longer written to. */
void pending_forget_receipts(struct pushrod_client *c);
void pending_free(struct pushrod_client *c);

/* ---- lib_submit.c ---- */
/* patient: whoever asks waits for more than ACCEPTED. TIMED_OUT at that monotonic time; UINT64_MAX:
 * as answer-timeout says. */
int client_submit(struct pushrod_client *c, const struct pushrod_submission *task, uint64_t *id,
    bool patient, uint64_t until_ns);

/* ---- lib_follow.c ---- */
struct task_record *followed_find(struct pushrod_client *c, uint64_t id); /* NULL: not followed */
struct task_record *followed_add(struct pushrod_client *c, uint64_t id, unsigned follow, void *arg);
/* free_kept: its kept finish goes too; else somebody else has it now. */
void followed_forget(struct pushrod_client *c, struct task_record *record, bool free_kept);
int followed_ask(struct pushrod_client *c, uint64_t id); /* sends a WAIT, at once or in its turn */
void followed_answered(struct pushrod_client *c);        /* a WAIT was: the next ones may go */
void followed_finished(struct pushrod_client *c, const struct msg_finished *m);
/* A WAIT was rejected, with this text. */
void followed_unknown(struct pushrod_client *c, uint64_t id, int error, const char *text);
/* A WAIT for each record, after a loss. NO_MEMORY: not for all of them. */
int followed_wait_again(struct pushrod_client *c);
void followed_free(struct pushrod_client *c);
void kept_free(struct kept *list);

/* ---- lib_row.c ---- */
/* The slice as a text that lives until the scratch buffer is cleared; see text_begin(). */
void text_begin(struct pushrod_client *c, size_t bytes);
const char *text_of(struct pushrod_client *c, struct slice text);

/* ---- lib_submitted.c ---- */
void submitted_free(struct pushrod_client *c);

/* ---- lib_request.c ---- */
struct call *call_find(struct pushrod_client *c, uint64_t request); /* NULL: none waits for it */
void calls_restart(struct pushrod_client *c);                       /* after a reconnect */
int64_t call_run(struct pushrod_client *c, struct call *call);

#endif
