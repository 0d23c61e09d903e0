/* SPDX-License-Identifier: Apache-2.0 */
/*
 * messages: every message of both protocols, once.
 *
 * From these lists come the structs (struct msg_task), the encoders, the strict decoders, the
 * names for logs, and the tables of proto/PROTOCOL.md (`make protocol-doc`; a test compares them).
 *
 * On the wire a message is a msgpack array [number, field, field, ...] with exactly the fields of
 * its list, in order. A frame (a ZeroMQ message part, or what follows the 4-byte length on a
 * client connection) is one or more messages back to back: so what one tick has to say to one peer
 * leaves in one piece.
 *
 * Field kinds
 *   U64    unsigned integer, below 2^63
 *   BOOL   true or false
 *   TEXT   str; nil if absent. Decoded: struct slice, borrowed from the frame, no NUL
 *   BYTES  bin; nil if absent. Decoded likewise
 *   RAW    one msgpack value kept encoded (a map, or an array of messages); nil if absent
 *
 * Numbers are never reused. A new field or a new meaning is a new PROTOCOL_VERSION. A new word in
 * LIST or CONTROL is not: who does not know it refuses that request, and nothing else; and so a new
 * message may be the answer to one.
 */
#ifndef PROTO_MESSAGES_H
#define PROTO_MESSAGES_H

#include <stdbool.h>
#include <stdint.h>
#include "common/buf.h"
#include "common/slice.h"
#include "proto/nested.h"

#define PROTOCOL_VERSION 1

/* Who says it to whom, on which socket. */
enum msg_plane {
    PLANE_JOIN_UP,   /* worker or supervisor -> server, DEALER -> ROUTER */
    PLANE_JOIN_DOWN, /* server -> worker, ROUTER -> DEALER */
    PLANE_LANE,      /* server -> worker, the worker's private PUSH */
    PLANE_ANSWERS,   /* worker -> server, PUSH -> PULL */
    PLANE_CLIENT_UP, /* client -> server, TCP */
    PLANE_CLIENT_DOWN,
    PLANE_NESTED /* only inside another message's RAW field */
};

/* ---------------------------------------------------------------- join, up */

#define FIELDS_JOIN(F)                                                                             \
    F(U64, version, "PROTOCOL_VERSION")                                                            \
    F(BYTES, instance, "16 random bytes, drawn when the worker process starts")                    \
    F(BYTES, nonce, "16 random bytes, drawn for each try; the same nonce gets the same WELCOME")   \
    F(TEXT, name, "for people and for targeted tasks; host-pid if the user gave none")             \
    F(TEXT, host, "host name of the worker")                                                       \
    F(U64, pid, "process id on that host")                                                         \
    F(U64, slots, "tasks that it runs at the same time, 1 to 4096")                                \
    F(U64, max_prefetch, "tasks that it accepts beyond its slots at the most")                     \
    F(RAW, queues, "array of TEXT: queue names and patterns")                                      \
    F(RAW, held, "array of HELD: what it runs, and answers that were not acknowledged; or nil")    \
    F(TEXT, token, "the secret that the server asks for (its --token), or nil")

#define FIELDS_OBITUARY(F)                                                                         \
    F(BYTES, instance, "of the process that died")                                                 \
    F(U64, pid, "its process id")                                                                  \
    F(U64, signal, "that killed it; 0: it exited")                                                 \
    F(U64, exit_code, "if it exited")                                                              \
    F(U64, peak_kib, "its peak resident memory")

/* -------------------------------------------------------------- join, down */

#define FIELDS_WELCOME(F)                                                                          \
    F(BYTES, nonce, "of the JOIN")                                                                 \
    F(U64, worker, "worker id; also the first word of each ANSWERS frame")                         \
    F(U64, session, "drawn for this lane; fences answers of an earlier one")                       \
    F(TEXT, host, "advertised host for lane and answers; nil: the one that was dialled")           \
    F(U64, lane_port, "connect a PULL here, once, and never again")                                \
    F(U64, answers_port, "connect a PUSH here")                                                    \
    F(TEXT, user, "PLAIN user name for lane and answers")                                          \
    F(TEXT, token, "PLAIN password for lane and answers")                                          \
    F(U64, heartbeat_ms, "say HEARTBEAT when silent for this long")                                \
    F(U64, ping_ms, "the server says PING when silent for this long")                              \
    F(U64, max_result, "bytes")                                                                    \
    F(RAW, verdicts, "array of VERDICT, one for each HELD, in order; or nil")                      \
    F(TEXT, unix_lane, "the lane as an abstract Unix socket, for this host; nil: TCP only")        \
    F(TEXT, unix_answers, "the answers port as one; if it can be reached, use both")

#define FIELDS_REFUSED(F)                                                                          \
    F(BYTES, nonce, "of the JOIN")                                                                 \
    F(U64, code, "an error code")                                                                  \
    F(TEXT, text, "what is wrong and what to do, for people")                                      \
    F(BOOL, retry, "trying again later may help")

/* -------------------------------------------------------------------- lane */

#define FIELDS_LANE_HELLO(F)                                                                       \
    F(U64, worker, "worker id")                                                                    \
    F(U64, session, "of the WELCOME; everything before this message is to be ignored")

#define FIELDS_TASK(F)                                                                             \
    F(U64, id, "task id")                                                                          \
    F(U64, lease, "names this attempt; every answer repeats it")                                   \
    F(TEXT, queue, "which handler")                                                                \
    F(U64, attempt, "hand-overs to a worker so far, this one included")                            \
    F(U64, timeout_ms, "of this attempt; 0: the worker's own default")                             \
    F(RAW, headers, "map of TEXT to TEXT, or nil")                                                 \
    F(BYTES, payload,                                                                              \
        "nil: it is the next part of this ZeroMQ message that no message before has taken")        \
    F(U64, rest, "bytes of the payload behind these, which PAYLOAD messages bring; 0: none")

#define FIELDS_PAYLOAD(F)                                                                          \
    F(U64, lease, "of the TASK")                                                                   \
    F(BYTES, data, "the next of its payload's bytes; nil: the next part, as in TASK")

#define FIELDS_CANCEL_TASK(F)                                                                      \
    F(U64, id, "task id")                                                                          \
    F(U64, lease, "stop it if it runs, drop it if it waits: TASK_FAILED with TASK_CANCELLED")

#define FIELDS_WITHDRAW(F)                                                                         \
    F(U64, id, "task id")                                                                          \
    F(U64, lease, "RETURNED if it has not started, STARTED if it runs, nothing if it has ended")

#define FIELDS_ACK(F)                                                                              \
    F(U64, sequence, "all answers of this session up to this one are stored; forget them")

#define FIELDS_PING(F)                                                                             \
    F(U64, sequence, "as in ACK")                                                                  \
    F(BOOL, beat, "say HEARTBEAT as `heartbeat_ms` says; false: once now, then only when PINGed")  \
    F(U64, next_ms, "the server says something again within this time")

#define FIELDS_DRAIN(F)                                                                            \
    F(U64, limit_ms, "finish what runs, return the rest, then BYE")                                \
    F(BOOL, again, "the server stops: join again, for the next one")

#define FIELDS_FENCED(F)                                                                           \
    F(U64, code, "why this session is over: join again, or stop if it was SUPERSEDED")

/* ----------------------------------------------------------------- answers */

#define FIELDS_FROM(F)                                                                             \
    F(U64, worker, "worker id; first message of every frame on the answers socket")                \
    F(U64, session, "of the WELCOME")                                                              \
    F(U64, sequence, "number of the next message in this frame; the rest count on, but HEARTBEAT")

#define FIELDS_READY(F) F(U64, session, "of the LANE_HELLO: tasks may come")

#define FIELDS_STARTED(F)                                                                          \
    F(U64, id, "task id")                                                                          \
    F(U64, lease, "sent if it still runs when answers are next sent, so short tasks need none")

#define FIELDS_PROGRESS(F)                                                                         \
    F(U64, id, "task id")                                                                          \
    F(U64, lease, "of the attempt")                                                                \
    F(U64, done, "in the handler's own unit")                                                      \
    F(U64, total, "0: unknown")                                                                    \
    F(TEXT, text, "or nil")

#define FIELDS_DATA(F)                                                                             \
    F(U64, id, "task id")                                                                          \
    F(U64, lease, "of the attempt")                                                                \
    F(BYTES, data, "a chunk for whoever follows the task; not part of the result")

#define FIELDS_PART(F)                                                                             \
    F(U64, id, "task id")                                                                          \
    F(U64, lease, "of the attempt")                                                                \
    F(U64, total, "bytes of the whole result; the same in each part")                              \
    F(BYTES, data, "the next 64 KiB at most of a large result; TASK_DONE carries the rest")

#define FIELDS_TASK_DONE(F)                                                                        \
    F(U64, id, "task id")                                                                          \
    F(U64, lease, "of the attempt")                                                                \
    F(U64, run_ns, "time in the handler; 0: not measured")                                         \
    F(BYTES, result, "the last 64 KiB at most; nil: none")

#define FIELDS_TASK_FAILED(F)                                                                      \
    F(U64, id, "task id")                                                                          \
    F(U64, lease, "of the attempt")                                                                \
    F(U64, run_ns, "time in the handler; 0: not measured")                                         \
    F(U64, code, "TASK_FAILED, TASK_TIMEOUT, TASK_CRASHED, TASK_CANCELLED, RESULT_TOO_BIG")        \
    F(BOOL, permanent, "no attempt will help")                                                     \
    F(U64, retry_ms, "not before this long from now; 0: the task's own backoff")                   \
    F(TEXT, text, "what went wrong, 4 KiB at most")

#define FIELDS_RETURNED(F)                                                                         \
    F(U64, id, "task id")                                                                          \
    F(U64, lease, "it was not run, and costs no attempt")                                          \
    F(U64, code,                                                                                   \
        "0: withdrawn; DRAINING: send no more; HANDLER_BROKEN: it serves this queue no more")

#define FIELDS_HEARTBEAT(F) F(U64, running, "tasks that run right now")

#define FIELDS_BYE(F) F(U64, returned, "tasks that it gave back; nothing follows")

/* -------------------------------------------------------------- client, up */

#define FIELDS_HELLO(F)                                                                            \
    F(U64, version, "PROTOCOL_VERSION")                                                            \
    F(TEXT, token, "or nil")                                                                       \
    F(TEXT, name, "of the client program, for people; or nil")

#define FIELDS_SUBMIT(F)                                                                           \
    F(U64, request, "echoed in ACCEPTED or REJECTED")                                              \
    F(TEXT, queue, "queue name")                                                                   \
    F(BYTES, payload, "the task's input")                                                          \
    F(U64, follow, "0: nothing more; 1: FINISHED; 2: TASK_PROGRESS, TASK_DATA, ATTEMPT as well")   \
    F(BOOL, patient, "ACCEPTED may come 1 ms later, so that it and FINISHED leave in one write")   \
    F(RAW, options, "an OPTIONS message; nil: the defaults, all of them")

#define FIELDS_WAIT(F)                                                                             \
    F(U64, request, "echoed in OK or REJECTED")                                                    \
    F(U64, id, "task id; FINISHED comes after OK, now or later")                                   \
    F(U64, follow, "1 or 2, as in SUBMIT; 0: FINISHED now, or REJECTED with WRONG_STATE")

#define FIELDS_RECEIVED(F)                                                                         \
    F(U64, count, "FINISHED messages taken from this connection so far; their results may go")

#define FIELDS_CANCEL(F)                                                                           \
    F(U64, request, "echoed in OK or REJECTED")                                                    \
    F(U64, id, "task id")

#define FIELDS_STATUS(F)                                                                           \
    F(U64, request, "echoed in TASK_ROW or REJECTED")                                              \
    F(U64, id, "task id")

#define FIELDS_LIST(F)                                                                             \
    F(U64, request, "echoed in each row and in END")                                               \
    F(TEXT, what, "queues, workers, running, dead, stats; submitted or options of one task")       \
    F(TEXT, filter, "name or pattern of workers or queues, of tasks by their queue; nil: all")     \
    F(U64, after,                                                                                  \
        "workers, running, dead: ids above this one; queues: rows that came before; "              \
        "submitted, options: the task's id")                                                       \
    F(U64, limit, "rows, 1,000 at most; 0: 1,000")

#define FIELDS_CONTROL(F)                                                                          \
    F(U64, request, "echoed in OK or REJECTED")                                                    \
    F(TEXT, verb, "pause, resume, purge, drain, replay, drop")                                     \
    F(TEXT, name, "of the queue (pause, resume, purge) or worker (drain); nil: none")              \
    F(U64, id, "of the dead task (replay, drop)")

#define FIELDS_WATCH(F)                                                                            \
    F(U64, request, "echoed in OK and in each EVENT")                                              \
    F(BOOL, on, "start or stop")

#define FIELDS_ECHO(F) F(U64, request, "echoed in OK")

/* ------------------------------------------------------------ client, down */

#define FIELDS_GREETING(F)                                                                         \
    F(U64, version, "PROTOCOL_VERSION")                                                            \
    F(TEXT, software, "pushrod-server and its version")                                            \
    F(U64, max_payload, "bytes")                                                                   \
    F(U64, max_frame, "bytes after the length")                                                    \
    F(U64, now_ms, "Unix time of the server")                                                      \
    F(TEXT, unix_name, "of an abstract Unix socket with the same protocol, for this host; or nil")

#define FIELDS_ACCEPTED(F)                                                                         \
    F(U64, request, "of the SUBMIT")                                                               \
    F(U64, id, "the task is stored as its queue's durability says")

#define FIELDS_REJECTED(F)                                                                         \
    F(U64, request, "of the request that is refused")                                              \
    F(U64, code, "an error code")                                                                  \
    F(TEXT, text, "what is wrong and what to do, for people")                                      \
    F(U64, id, "DUPLICATE: the task that holds the key; else 0")

#define FIELDS_OK(F)                                                                               \
    F(U64, request, "of the request that was done")                                                \
    F(U64, count, "how many tasks, workers or queues it touched")

#define FIELDS_FINISHED(F)                                                                         \
    F(U64, id, "task id")                                                                          \
    F(U64, status, "1 done, 2 failed, 3 cancelled, 4 expired")                                     \
    F(U64, code, "an error code; 0 when done")                                                     \
    F(U64, attempts, "hand-overs to a worker")                                                     \
    F(U64, run_ns, "time in the handler, of the last attempt")                                     \
    F(BYTES, result, "or nil")                                                                     \
    F(TEXT, text, "the error's text, or nil")                                                      \
    F(BYTES, tag, "of the submission, or nil")

#define FIELDS_TASK_PROGRESS(F)                                                                    \
    F(U64, id, "task id")                                                                          \
    F(U64, done, "in the handler's own unit")                                                      \
    F(U64, total, "0: unknown")                                                                    \
    F(TEXT, text, "or nil")

#define FIELDS_TASK_DATA(F)                                                                        \
    F(U64, id, "task id")                                                                          \
    F(BYTES, data, "a chunk that the handler emitted; may repeat after a retry")

#define FIELDS_ATTEMPT(F)                                                                          \
    F(U64, id, "task id")                                                                          \
    F(U64, attempt, "that ended")                                                                  \
    F(U64, code, "an error code")                                                                  \
    F(TEXT, text, "what went wrong")                                                               \
    F(TEXT, worker, "name of the worker")                                                          \
    F(U64, retry_ms, "until the next attempt")

#define FIELDS_QUEUE_ROW(F)                                                                        \
    F(U64, request, "of the LIST")                                                                 \
    F(TEXT, name, "queue name")                                                                    \
    F(TEXT, durability, "sync, async or memory")                                                   \
    F(BOOL, paused, "nothing is handed out")                                                       \
    F(U64, ready, "tasks that wait for a worker, in memory or not")                                \
    F(U64, delayed, "tasks that wait for their time, retries included")                            \
    F(U64, leased, "tasks that a worker has")                                                      \
    F(U64, dead, "dead letters")                                                                   \
    F(U64, workers, "that serve it")                                                               \
    F(U64, slots, "of those workers")                                                              \
    F(U64, submitted, "since the server started")                                                  \
    F(U64, finished, "done, since the server started")                                             \
    F(U64, failed, "attempts that failed, since the server started")                               \
    F(U64, redelivered, "taken from lost workers, since the server started")                       \
    F(U64, oldest_ms, "age of the most urgent waiting task")                                       \
    F(U64, service_ns, "95 % of recent attempts took less")

#define FIELDS_WORKER_ROW(F)                                                                       \
    F(U64, request, "of the LIST")                                                                 \
    F(U64, id, "worker id")                                                                        \
    F(TEXT, name, "of the worker")                                                                 \
    F(TEXT, host, "where it runs")                                                                 \
    F(U64, pid, "on that host")                                                                    \
    F(TEXT, state, "joining, ready, draining")                                                     \
    F(U64, slots, "tasks at the same time")                                                        \
    F(U64, outstanding, "tasks that it has")                                                       \
    F(U64, started, "of those, known to run")                                                      \
    F(TEXT, queues, "patterns, separated by a comma")                                              \
    F(U64, done, "tasks, in this session")                                                         \
    F(U64, failed, "attempts, in this session")                                                    \
    F(U64, silent_ms, "since it was last heard of")                                                \
    F(U64, joined_ms, "Unix time of its joining")

#define FIELDS_TASK_ROW(F)                                                                         \
    F(U64, request, "of the STATUS or LIST")                                                       \
    F(U64, id, "task id")                                                                          \
    F(TEXT, queue, "queue name; nil: it has ended, and is not in memory")                          \
    F(TEXT, state, "storing, delayed, ready, held, leased, finishing, or how it ended")            \
    F(U64, priority, "0 to 9")                                                                     \
    F(U64, attempts, "hand-overs so far")                                                          \
    F(U64, deaths, "workers that died while they ran it alone")                                    \
    F(U64, submitted_ms, "Unix time")                                                              \
    F(U64, due_ms, "Unix time of the next attempt, of the finish if there is one; or 0")           \
    F(U64, since_ms, "Unix time from which on its worker has it; or 0")                            \
    F(U64, size, "of the payload, bytes")                                                          \
    F(TEXT, worker, "that has it, or the only one that may; or nil")                               \
    F(U64, code, "the error code of the last attempt")                                             \
    F(TEXT, text, "of the last error, or nil")                                                     \
    F(RAW, history, "array of DEATH: the attempts of a dead task that failed; or nil")             \
    F(BYTES, head, "the payload's first 1,024 bytes; nil: not at hand")                            \
    F(BYTES, tag, "as in SUBMIT; or nil")                                                          \
    F(U64, done, "as its handler has said last, in its own unit")                                  \
    F(U64, total, "the same; 0: not known, or nothing was said")                                   \
    F(TEXT, progress, "the same in words, 200 bytes at the most; or nil")

#define FIELDS_STAT_ROW(F)                                                                         \
    F(U64, request, "of the LIST")                                                                 \
    F(TEXT, name, "as in /metrics")                                                                \
    F(U64, value, "a count, or a level")

#define FIELDS_EVENT(F)                                                                            \
    F(U64, request, "of the WATCH")                                                                \
    F(U64, at_ms, "Unix time")                                                                     \
    F(TEXT, kind,                                                                                  \
        "worker-join, worker-lost, worker-bye, worker-broken, attempt-failed, task-dead, "         \
        "queue-new, store-failed, store-ok, control (the verb is the text)")                       \
    F(U64, id, "of the task, or 0")                                                                \
    F(TEXT, worker, "name, or nil")                                                                \
    F(TEXT, queue, "name, or nil")                                                                 \
    F(TEXT, text, "for people, or nil")

#define FIELDS_SUBMITTED(F)                                                                        \
    F(U64, request, "of the LIST")                                                                 \
    F(U64, id, "task id")                                                                          \
    F(TEXT, queue, "queue name")                                                                   \
    F(BYTES, payload, "as in SUBMIT; nil: LIST asked for `options`")                               \
    F(RAW, options, "the same, an OPTIONS message; eta_ms only while the task waits for it")

#define FIELDS_END(F)                                                                              \
    F(U64, request, "of the LIST; no more rows")                                                   \
    F(U64, rows, "how many were sent")

#define FIELDS_ERROR(F)                                                                            \
    F(U64, code, "an error code; the connection is closed after it")                               \
    F(TEXT, text, "what is wrong and what to do, for people")

/* M(number, NAME, name, plane, text) */
#define MESSAGES(M)                                                                                \
    M(1, JOIN, join, JOIN_UP, "a worker asks for a lane")                                          \
    M(2, OBITUARY, obituary, JOIN_UP, "a supervisor tells how a worker process died")              \
    M(3, WELCOME, welcome, JOIN_DOWN, "the lane, and what to do with what the worker still holds") \
    M(4, REFUSED, refused, JOIN_DOWN, "no lane, or the lane was given up; the text says why")      \
    M(10, LANE_HELLO, lane_hello, LANE, "first message of a lane")                                 \
    M(11, TASK, task, LANE, "run this")                                                            \
    M(12, CANCEL_TASK, cancel_task, LANE, "stop this")                                             \
    M(13, WITHDRAW, withdraw, LANE, "give this back if it has not started")                        \
    M(14, ACK, ack, LANE, "answers that are stored")                                               \
    M(15, PING, ping, LANE, "the server is alive")                                                 \
    M(16, DRAIN, drain, LANE, "finish and leave")                                                  \
    M(17, FENCED, fenced, LANE, "the session is over")                                             \
    M(18, PAYLOAD, payload, LANE, "more of a large payload")                                       \
    M(20, FROM, from, ANSWERS, "who speaks; first in each frame, has no sequence number itself")   \
    M(21, READY, ready, ANSWERS, "the lane works; tasks may come")                                 \
    M(22, STARTED, started, ANSWERS, "the attempt runs")                                           \
    M(23, PROGRESS, progress, ANSWERS, "how far the attempt is")                                   \
    M(24, DATA, data, ANSWERS, "a chunk for followers")                                            \
    M(25, PART, part, ANSWERS, "a piece of a large result")                                        \
    M(26, TASK_DONE, task_done, ANSWERS, "the attempt succeeded")                                  \
    M(27, TASK_FAILED, task_failed, ANSWERS, "the attempt failed")                                 \
    M(28, RETURNED, returned, ANSWERS, "the task was not run")                                     \
    M(29, HEARTBEAT, heartbeat, ANSWERS, "the worker is alive; has no sequence number itself")     \
    M(30, BYE, bye, ANSWERS, "the worker leaves")                                                  \
    M(40, HELLO, hello, CLIENT_UP, "first message of a client")                                    \
    M(41, SUBMIT, submit, CLIENT_UP, "take this task")                                             \
    M(42, WAIT, wait, CLIENT_UP, "tell me how this task finishes")                                 \
    M(43, RECEIVED, received, CLIENT_UP, "finishes that arrived")                                  \
    M(44, CANCEL, cancel, CLIENT_UP, "stop this task")                                             \
    M(45, STATUS, status, CLIENT_UP, "where is this task")                                         \
    M(46, LIST, list, CLIENT_UP, "what is there")                                                  \
    M(47, CONTROL, control, CLIENT_UP, "an operator's request")                                    \
    M(48, WATCH, watch, CLIENT_UP, "push events")                                                  \
    M(49, ECHO, echo, CLIENT_UP, "are you there")                                                  \
    M(60, GREETING, greeting, CLIENT_DOWN, "answer to HELLO")                                      \
    M(61, ACCEPTED, accepted, CLIENT_DOWN, "the task is taken")                                    \
    M(62, REJECTED, rejected, CLIENT_DOWN, "the request is refused")                               \
    M(63, OK, ok, CLIENT_DOWN, "the request was done")                                             \
    M(64, FINISHED, finished, CLIENT_DOWN, "how a task finished")                                  \
    M(65, TASK_PROGRESS, task_progress, CLIENT_DOWN, "how far a followed task is")                 \
    M(66, TASK_DATA, task_data, CLIENT_DOWN, "a chunk of a followed task")                         \
    M(67, ATTEMPT, attempt, CLIENT_DOWN, "an attempt of a followed task failed")                   \
    M(68, QUEUE_ROW, queue_row, CLIENT_DOWN, "a queue")                                            \
    M(69, WORKER_ROW, worker_row, CLIENT_DOWN, "a worker")                                         \
    M(70, TASK_ROW, task_row, CLIENT_DOWN, "a task")                                               \
    M(71, STAT_ROW, stat_row, CLIENT_DOWN, "a counter")                                            \
    M(72, EVENT, event, CLIENT_DOWN, "something happened")                                         \
    M(73, END, end, CLIENT_DOWN, "the last of the rows")                                           \
    M(74, ERROR, error, CLIENT_DOWN, "the connection is over")                                     \
    M(75, SUBMITTED, submitted, CLIENT_DOWN, "a task as it was submitted")                         \
    M(80, OPTIONS, options, NESTED, "options of a task, in SUBMIT")                                \
    M(81, HELD, held, NESTED, "a task that a worker has, in JOIN")                                 \
    M(82, VERDICT, verdict, NESTED, "what to do with it, in WELCOME")                              \
    M(83, DEATH, death, NESTED, "how an attempt ended, in TASK_ROW")

/* enum msg { MSG_JOIN = 1, ... } */
enum msg {
#define M(number, NAME, name, plane, text) MSG_##NAME = (number),
    MESSAGES(M)
#undef M
};

/* struct msg_join { ... } ...: what the encoders take and the decoders give. */
#define FIELD_U64(name)     uint64_t name;
#define FIELD_BOOL(name)    bool name;
#define FIELD_TEXT(name)    struct slice name;
#define FIELD_BYTES(name)   struct slice name;
#define FIELD_RAW(name)     struct slice name;
#define F(kind, name, text) FIELD_##kind(name)
#define M(number, NAME, name, plane, text)                                                         \
    struct msg_##name {                                                                            \
        FIELDS_##NAME(F)                                                                           \
    };
MESSAGES(M)
#undef M
#undef F

/*
 * void msg_task_encode(struct buf *, const struct msg_task *): appends one message.
 * bool msg_task_decode(struct dec *, struct msg_task *): after dec_message() gave MSG_TASK; slices
 * borrow from the frame. False: the decoder has its sticky error.
 */
struct dec;
#define M(number, NAME, name, plane, text)                                                         \
    void msg_##name##_encode(struct buf *out, const struct msg_##name *m);                         \
    bool msg_##name##_decode(struct dec *in, struct msg_##name *m);
MESSAGES(M)
#undef M

const char *msg_name(unsigned number); /* "TASK"; "?" for an unknown number */
bool msg_known(unsigned number, enum msg_plane *plane);
unsigned msg_fields(unsigned number); /* how many, of one that is known */

#endif
