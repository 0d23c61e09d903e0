/* SPDX-License-Identifier: Apache-2.0 */
/*
 * retry: calls that a signal of the program interrupts (EINTR) are made again.
 *
 * Those of libzmq that do not wait are among them: they look for commands of its threads, and that
 * look is interrupted. Nothing is done then, and the socket gives no signal for what it had.
 */
#ifndef COMMON_RETRY_H
#define COMMON_RETRY_H

#include <errno.h>

/* What the call returned in the end; glibc's TEMP_FAILURE_RETRY(), which wants _GNU_SOURCE. */
#define RETRY(call)                                                                                \
    __extension__({                                                                                \
        __typeof__(call) result_;                                                                  \
        do                                                                                         \
            result_ = (call);                                                                      \
        while (result_ < 0 && errno == EINTR);                                                     \
        result_;                                                                                   \
    })

#endif
