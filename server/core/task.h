/* SPDX-License-Identifier: Apache-2.0 */
/*
 * task: the noun that everything turns around, and its allowed transitions.
 *
 * One allocation holds the struct and every byte that its record points to (payload up to 4 KiB,
 * headers, tag, ...), but for the queue's name, which is the queue's. Larger payloads lie in a body
 * that is referenced.
 *
 * The world outside the core reads a task through the actions that name it, and only until the
 * next core_begin().
 */
#ifndef SERVER_CORE_TASK_H
#define SERVER_CORE_TASK_H

#include <stdbool.h>
#include <stdint.h>
#include "common/buf.h"
#include "common/heap.h"
#include "common/list.h"
#include "server/store/store.h"

#define TASK_INLINE_PAYLOAD 4096u /* bytes; above it the payload has a body of its own */

/* T(NAME, name) */
#define TASK_STATES(T)                                                                             \
    T(STORING, "storing") /* APPEND asked, not yet told to anybody */                              \
    T(DELAYED, "delayed") /* due_ms or a backoff lies ahead */                                     \
    T(HELD, "held")       /* after a restart, or beside a JOIN: a worker may still run it */       \
    T(READY, "ready")     /* waits for a slot */                                                   \
    T(LEASED, "leased")   /* a worker has it */                                                    \
    T(MOVING, "moving")   /* RESCHEDULE asked (retry, death): nobody has it until it is stored */  \
    T(FINISHING, "finishing") /* FINISH asked, not yet told to anybody */                          \
    T(FINISHED, "finished")   /* told; kept until acknowledged, or for its retention */            \
    T(GONE, "gone")           /* freed when this tick's actions are out */

enum task_state {
#define T(NAME, name) TASK_##NAME,
    TASK_STATES(T)
#undef T
        TASK_STATE_COUNT
};

struct queue;
struct worker;
struct follower;
struct rare;
struct target;
struct progress;

/*
 * The lasting part of a task as the core keeps it: struct record, but for what few tasks have.
 * That lies in struct rare; task_record() puts both together for the store.
 */
struct task_record {
    uint64_t id;
    struct slice payload; /* behind the struct, or borrowed from `body` */
    struct body *body;    /* NULL: payload is inline */
    uint64_t submitted_ms;
    uint64_t due_ms;     /* 0: ready; else not before; of a finished one: since when */
    uint64_t timeout_ms; /* duration of one attempt; 0: the worker's default */
    uint32_t backoff_ms; /* duration before the first retry */
    uint16_t attempts;   /* hand-overs that count */
    uint16_t max_attempts;
    uint16_t deaths;   /* workers that died while they ran it alone */
    uint8_t priority;  /* 0 to 9, 9 first */
    bool followed : 1; /* somebody waits or waited: the finish is kept until acknowledged */
    bool suspect : 1;  /* ran when a worker died: runs alone next time */
    bool windowed : 1;
};

struct task {
    struct task_record record;
    struct queue *queue;
    struct worker *worker; /* LEASED: that has it; FINISHING, MOVING: whose answer waits for it */
    uint64_t lease;        /* of the current or last attempt; 0: never handed out */
    union {                /* by state: */
        struct list node;  /* READY in order, LEASED, FINISHING, MOVING, HELD, FINISHED, GONE */
        struct heap_node place; /* READY out of order, DELAYED */
    };
    union {
        uint64_t leased_ns; /* LEASED: monotonic, of the hand-over or of STARTED */
        uint64_t sequence;  /* FINISHING, MOVING: of the answer that is not acknowledged yet */
        uint64_t kept_ns;   /* FINISHED: monotonic, since when it is kept */
    };
    union {
        uint64_t run_ns;  /* of the attempt that ended it */
        uint64_t lost_ns; /* if recovering: monotonic, when its worker was lost */
    };
    struct follower *followers;
    struct rare *rare;     /* NULL: it has nothing of the kind */
    struct body *result;   /* NULL: none, or short, and where the payload was */
    char *text;            /* error text, NUL-terminated, owned; NULL: none */
    uint32_t slot;         /* place in the ledger */
    uint16_t hand_overs;   /* or more: for people, attempts incl. those that cost nothing */
    uint16_t generation;   /* of its last lease; the slot's while nobody has that */
    uint32_t estimate_ns;  /* LEASED: what it adds to the expected time of its worker */
    uint16_t code;         /* enum pushrod_error; of the last attempt, or of the finish */
    uint16_t reserved_by;  /* LEASED: asked back for an idle slot of this group; 0: no */
    uint8_t state;         /* enum task_state */
    uint8_t status;        /* enum pushrod_status; FINISHING and FINISHED */
    uint8_t operations;    /* store operations on the way: it must stay in memory */
    uint8_t size_class;    /* of its allocation */
    bool started : 1;      /* LEASED: the worker said so */
    bool in_flight : 1;    /* LEASED: its bytes count in the lane's credit */
    bool alone : 1;        /* LEASED: as a suspect, with nothing beside it */
    bool ahead : 1;        /* LEASED: prefetched when no slot was idle */
    bool asked_back : 1;   /* LEASED: WITHDRAW was sent */
    bool cancelling : 1;   /* a client wants it gone */
    bool out_of_order : 1; /* READY: in the queue's heap, not in its list */
    bool recovering : 1;   /* its worker was lost, and no other has it yet */
    bool backing_off : 1;  /* DELAYED: by the monotonic clock */
    bool released : 1;     /* FINISHED: goes when the store has answered */
    bool refused : 1;      /* FINISHING, MOVING: the store could not; asked again later */
    bool unkept : 1;       /* FINISHING, FINISHED: it had a result, which nobody waited for */
    bool unstored : 1;     /* accepted at once, and then refused: it lives in memory only */
    bool fresh : 1;        /* it was in memory ever since it was submitted */
    uint16_t result_size;  /* bytes of a result that took the place of an inline payload */
};

/* What few tasks have; behind the struct task in the same allocation, or added later. */
struct rare {
    struct task *task;
    struct slice headers; /* encoded msgpack map, or absent */
    struct slice tag;
    struct slice unique; /* unique key, scoped to the queue; absent: none */
    struct slice target; /* worker name, or absent */
    struct buf history;  /* encoded DEATH messages, without the array's head; newest last */
    uint32_t history_count;
    uint64_t expires_ms;       /* Unix time; 0: never */
    uint64_t unique_ms;        /* Unix time; 0: the key holds until the task ends */
    uint64_t keep_ms;          /* duration */
    struct heap_node timer;    /* waiting: expiry, by the wall clock; LEASED: the server's fence;
                                  FINISHED: in core.kept */
    struct unique *holds;      /* the key that it holds; NULL: none, or the store has it */
    struct target *awaits;     /* READY: in its heap; NULL: in none */
    struct progress *progress; /* LEASED: as its handler has said last; NULL: nothing */
    bool by_wall;              /* the timer is in the heap of the wall clock */
    bool added;                /* allocated on its own */
};

/* What the world reads. Slices are borrowed for as long as the task is. */

/* Its queue's name: a struct queue begins with it. */
static inline struct slice task_queue(const struct task *t)
{
    return *(const struct slice *)t->queue;
}

static inline struct slice task_headers(const struct task *t)
{
    return t->rare ? t->rare->headers : (struct slice){0};
}

static inline struct slice task_tag(const struct task *t)
{
    return t->rare ? t->rare->tag : (struct slice){0};
}

/* The name of the only worker that may run it; absent: any may. */
static inline struct slice task_target(const struct task *t)
{
    return t->rare ? t->rare->target : (struct slice){0};
}

const char *task_state_name(enum task_state state);

static inline uint16_t hand_overs_of(uint32_t attempts)
{
    return attempts < UINT16_MAX ? (uint16_t)attempts : UINT16_MAX;
}

static inline struct slice task_result(const struct task *t)
{
    return t->result ? body_slice(t->result) : slice_of(t->record.payload.data, t->result_size);
}

#endif
