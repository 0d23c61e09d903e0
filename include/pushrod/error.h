/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors: the one enum and the one table of texts that all of Pushrod uses, on the wire too.
 *
 * A number is never given a second meaning: add at the end of a group, leave gaps alone.
 * Functions that can fail return 0 or one of these as a negative number, unless they say otherwise.
 */
#ifndef PUSHROD_ERROR_H
#define PUSHROD_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

/* X(name, number, text): the text completes the sentence "cannot ...: TEXT". */
#define PUSHROD_ERRORS(X)                                                                          \
    X(OK, 0, "no error")                                                                           \
    /* what the caller got wrong */                                                                \
    X(INVALID, 1, "invalid argument")                                                              \
    X(BAD_QUEUE, 2, "a queue name is 1 to 128 of A-Z a-z 0-9 . _ : / + -")                         \
    X(TOO_BIG, 3, "larger than the limit")                                                         \
    X(BAD_OPTION, 4, "an option has a value that is not allowed")                                  \
    X(DUPLICATE, 5, "a task with this unique key is there already")                                \
    X(UNKNOWN_TASK, 6, "no such task: it finished and was forgotten, or its id was never issued")  \
    X(UNKNOWN_WORKER, 7, "no such worker")                                                         \
    X(UNKNOWN_QUEUE, 8, "no such queue")                                                           \
    X(UNKNOWN_CONNECTION, 9, "no such connection: it was closed")                                  \
    X(WRONG_STATE, 10, "not possible in this state")                                               \
    X(NOT_ALLOWED, 11, "not allowed")                                                              \
    /* what the server cannot do right now */                                                      \
    X(QUEUE_FULL, 20, "the queue is full")                                                         \
    X(OVERLOADED, 21, "the server has more unfinished work than it was allowed")                   \
    X(STORE_FAILED, 22, "the store cannot write")                                                  \
    X(STORE_FULL, 23, "the server's disk, or its share of it (--max-disk), is full")               \
    X(DRAINING, 24, "the server is stopping")                                                      \
    X(TOO_MANY, 25, "too many connections, workers or lanes")                                      \
    X(NO_MEMORY, 26, "out of memory")                                                              \
    /* protocol */                                                                                 \
    X(BAD_VERSION, 40, "the protocol version is not spoken here")                                  \
    X(BAD_TOKEN, 41, "the token is missing or wrong")                                              \
    X(BAD_MESSAGE, 42, "the message is not one of this protocol")                                  \
    X(BAD_FRAME, 43, "the frame is empty, truncated or too large")                                 \
    X(WRONG_PORT, 44, "this port speaks another protocol")                                         \
    X(LANE_UNREACHABLE, 45, "the lane port cannot be reached")                                     \
    X(SLOW_READER, 46, "the connection did not read what was sent to it")                          \
    X(SUPERSEDED, 47, "the same worker joined again")                                              \
    /* how an attempt or a task ended */                                                           \
    X(TASK_FAILED, 60, "the handler failed")                                                       \
    X(TASK_TIMEOUT, 61, "the attempt took longer than its timeout")                                \
    X(TASK_CRASHED, 62, "the process that ran the task ended without an answer")                   \
    X(TASK_POISON, 63, "every worker that ran the task died")                                      \
    X(TASK_CANCELLED, 64, "cancelled")                                                             \
    X(TASK_EXPIRED, 65, "expired before it was started")                                           \
    X(RESULT_TOO_BIG, 66, "the result is larger than the limit")                                   \
    X(RESULT_GONE, 67, "the result was not kept")                                                  \
    X(HANDLER_BROKEN, 68, "the worker cannot run its handler")                                     \
    /* the caller's side of a connection */                                                        \
    X(UNREACHABLE, 80, "cannot reach the server")                                                  \
    X(TIMED_OUT, 81, "the time is over")                                                           \
    X(INTERRUPTED, 82, "interrupted")                                                              \
    X(CLOSED, 83, "the connection was closed")                                                     \
    X(SYSTEM, 84, "a system call failed")

enum pushrod_error {
#define X(name, number, text) PUSHROD_E_##name = (number),
    PUSHROD_ERRORS(X)
#undef X
};

/* The text of an error; takes the number with either sign, and never returns NULL. Any thread. */
const char *pushrod_strerror(int error);

/* The symbolic name ("QUEUE_FULL"), for logs and scripts. Never NULL. Any thread. */
const char *pushrod_error_name(int error);

#ifdef __cplusplus
}
#endif
#endif
