/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log: lines on standard error, as text (default) or JSON. Safe from any thread; never blocks on
 * more than the write itself. Never called from server/core or worker/session.
 */
#ifndef COMMON_LOG_H
#define COMMON_LOG_H

#include <stdbool.h>

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG };

/*
 * First thing in a program: where descriptor 0, 1 or 2 is closed, it becomes /dev/null. Else a
 * socket would get its number, and our lines with it. What was to be read or printed there is
 * still an error: results that nobody gets are no success.
 */
void log_open_standard(void);
/* `program` is borrowed for ever; NULL, and before any setup: the name of the process. */
void log_setup(const char *program, enum log_level level, bool json);
enum log_level log_level_named(const char *name); /* "warning"; LOG_INFO if there is none */
bool log_enabled(enum log_level level);
void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...)   log_write(LOG_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_WARNING, __VA_ARGS__)
#define log_info(...)    log_write(LOG_INFO, __VA_ARGS__)
#define log_debug(...)   (log_enabled(LOG_DEBUG) ? log_write(LOG_DEBUG, __VA_ARGS__) : (void)0)

/*
 * At most one line a second for each place in the code. `more` is for the end of the line: how many
 * were left out before it, or nothing.
 */
#define LOG_MORE 32
struct log_limit {
    long long second;
    unsigned suppressed;
};
bool log_allowed(struct log_limit *limit, char more[LOG_MORE]);

#endif
