/* SPDX-License-Identifier: Apache-2.0 */
/*
 * task: the noun that everything turns around, and its allowed transitions.
 *
 * One allocation holds the struct and every byte that its record points to (queue, payload up to
 * 4 KiB, headers, tag, ...). Larger payloads lie in a body that is referenced.
 *
 * The world outside the core reads a task through the actions that name it, and only until the
 * next core_begin().
 */
#ifndef SERVER_CORE_TASK_H
#define SERVER_CORE_TASK_H

#include <stdint.h>
#include "common/heap.h"
#include "common/list.h"
#include "server/store/store.h"

#define TASK_INLINE_PAYLOAD 4096u /* bytes; above it the payload has a body of its own */

/* T(NAME, name) */
#define TASK_STATES(T)                                                                             \
    T(STORING, "storing")     /* APPEND asked, not yet told to anybody */                          \
    T(DELAYED, "delayed")     /* due_ms or a backoff lies ahead */                                 \
    T(HELD, "held")           /* after a restart: a worker may still run it */                     \
    T(READY, "ready")         /* waits for a slot */                                               \
    T(LEASED, "leased")       /* a worker has it */                                                \
    T(MOVING, "moving")       /* RESCHEDULE asked (retry, death): nobody has it until it is stored */ \
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

struct task {
    struct record record;
    struct queue *queue;
    struct worker *worker;    /* that has it; NULL unless LEASED */
    uint64_t lease;           /* of the current or last attempt; 0: never handed out */
    uint32_t slot;            /* place in the ledger */
    uint8_t state;            /* enum task_state */
    bool started;             /* LEASED: the worker said so */
    bool withdrawing;         /* LEASED: WITHDRAW was sent */
    bool cancelling;          /* a client wants it gone */
    uint32_t hand_overs;      /* lease generations, for people: attempts incl. those that cost nothing */
    struct list node;         /* in the queue's ready list, or in the worker's outstanding list */
    struct heap_node timer;   /* due, expiry, retention: whatever comes first in its state */
    struct follower *followers;
    uint64_t leased_ns;       /* monotonic, of the hand-over */
    /* the finish; valid in FINISHING and FINISHED, and in the actions that tell it */
    uint32_t status;          /* enum pushrod_status */
    uint32_t code;            /* enum pushrod_error; of the last attempt before that */
    uint64_t run_ns;
    struct body *result;      /* NULL: none */
    char *text;               /* error text, NUL-terminated, owned; NULL: none */
};

const char *task_state_name(enum task_state state);

static inline struct slice task_result(const struct task *t)
{
    return body_slice(t->result);
}

#endif
