/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nested: the messages that stand only inside another message's RAW field. A part of
 * proto/messages.h, which says what the lists are made of and what is made from them.
 */
#ifndef PROTO_NESTED_H
#define PROTO_NESTED_H

#define FIELDS_OPTIONS(F)                                                                          \
    F(U64, priority, "0 to 9, 9 first; 0 is the last, not the default, which is 4")                \
    F(U64, delay_ms, "from now; 0: none")                                                          \
    F(U64, eta_ms, "Unix time; 0: none; wins over delay_ms")                                       \
    F(U64, timeout_ms, "of one attempt; 0: the worker's default")                                  \
    F(U64, expires_ms, "from now; 0: never")                                                       \
    F(U64, max_attempts, "attempts that may fail, 1 to 1,000; 0: 3")                               \
    F(U64, backoff_ms, "before the first retry, doubled for each further one; 0: 1,000")           \
    F(TEXT, unique_key, "or nil")                                                                  \
    F(U64, unique_ms, "how long the key holds; 0: until the task ends")                            \
    F(TEXT, worker, "only this one, by name; or nil")                                              \
    F(U64, keep_ms, "keep the finish this long; 0: only for who waits")                            \
    F(BOOL, attached, "cancel the task when this connection closes")                               \
    F(BYTES, tag, "256 bytes at most, or nil")                                                     \
    F(RAW, headers, "map of TEXT to TEXT, 8 KiB at most, or nil")

#define FIELDS_HELD(F)                                                                             \
    F(U64, id, "task id")                                                                          \
    F(U64, lease, "that it was handed over with")                                                  \
    F(BOOL, answered, "it has ended, its answer is not acknowledged; else it runs or waits")       \
    F(BOOL, started, "it runs or has ended")

#define FIELDS_VERDICT(F)                                                                          \
    F(U64, id, "task id")                                                                          \
    F(U64, lease, "of the HELD")                                                                   \
    F(U64, verdict, "1 KEEP, 2 CANCEL, 3 SEND, 4 FORGET")

#define FIELDS_DEATH(F)                                                                            \
    F(U64, attempt, "hand-over number")                                                            \
    F(U64, at_ms, "Unix time of its end")                                                          \
    F(U64, code, "an error code")                                                                  \
    F(TEXT, worker, "name")                                                                        \
    F(U64, signal, "that killed the worker's process; 0: none")                                    \
    F(U64, exit_code, "of the worker's process")                                                   \
    F(U64, peak_kib, "peak resident memory of the worker's process; 0: unknown")                   \
    F(TEXT, text, "what went wrong")

enum verdict { VERDICT_KEEP = 1, VERDICT_CANCEL = 2, VERDICT_SEND = 3, VERDICT_FORGET = 4 };

#endif
