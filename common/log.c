/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/utf8.h"

/* A line is one write() of at most PIPE_BUF (4096) bytes, so lines of several threads never mix. */
#define LOG_LINE 4096u
#define LOG_TEXT 1800u /* bytes of a message before escaping, which may double it */

/* Set once by log_setup(), before there are threads. */
static const char *log_program; /* NULL: the name that the process was started by */
static enum log_level log_highest = LOG_INFO;
static bool log_json;

static const char *const log_level_names[] = {
    [LOG_ERROR] = "error",
    [LOG_WARNING] = "warning",
    [LOG_INFO] = "info",
    [LOG_DEBUG] = "debug",
};

struct line {
    char text[LOG_LINE];
    size_t size;
};

void log_open_standard(void)
{
    static const int modes[] = {
        [STDIN_FILENO] = O_WRONLY, [STDOUT_FILENO] = O_RDONLY, [STDERR_FILENO] = O_RDWR};
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", modes[fd]) < 0)
            return;
}

void log_setup(const char *program, enum log_level level, bool json)
{
    log_program = program;
    log_highest = level;
    log_json = json;
}

enum log_level log_level_named(const char *name)
{
    for (unsigned i = 0; i < sizeof log_level_names / sizeof log_level_names[0]; i++)
        if (strcmp(name, log_level_names[i]) == 0)
            return (enum log_level)i;
    return LOG_INFO;
}

bool log_enabled(enum log_level level)
{
    return level <= log_highest;
}

__attribute__((format(printf, 2, 3))) static void line_add(struct line *l, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    size_t room = sizeof l->text - l->size;
    int size = vsnprintf(l->text + l->size, room, format, args);
    va_end(args);
    if (size > 0)
        l->size += (size_t)size < room ? (size_t)size : room - 1;
}

/* JSON has no bytes, only characters: one that is none is told by the character for that. */
static void line_escape(struct line *l, unsigned char byte)
{
    if (log_json && byte >= 0x80)
        line_add(l, "\\ufffd");
    else
        line_add(l, "\\%s%02x", log_json ? "u00" : "x", byte);
}

/* A message may quote what a stranger sent: no control character reaches the terminal or the file,
 * and a line of JSON is valid whatever it quotes. */
static void line_escaped(struct line *l, const char *text)
{
    const unsigned char *at = (const unsigned char *)text, *end = at + strlen(text);
    /* Room is kept for what closes the line. */
    while (at < end && l->size <= sizeof l->text - 16) {
        size_t size = utf8_size(at, (size_t)(end - at));
        size = utf8_control(at, size) ? 0 : size; /* then each byte is escaped for itself */
        if (size == 0)
            line_escape(l, *at);
        else if (log_json && (*at == '"' || *at == '\\'))
            line_add(l, "\\%c", *at);
        else
            line_add(l, "%.*s", (int)size, (const char *)at);
        at += size ? size : 1;
    }
}

static void line_stamp(struct line *l)
{
    uint64_t wall_ms = clock_now().wall_ms;
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    char text[32];
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
    line_add(l, "%s.%03uZ", text, (unsigned)(wall_ms % 1000));
}

static void line_make(struct line *l, enum log_level level, const char *message)
{
    const char *name = log_level_names[level];
    const char *program = log_program ? log_program : program_invocation_short_name;
    long pid = (long)getpid();
    if (log_json)
        line_add(l, "{\"time\":\"");
    line_stamp(l);
    if (log_json)
        line_add(l, "\",\"level\":\"%s\",\"program\":\"%s\",\"pid\":%ld,\"text\":\"", name, program,
            pid);
    else
        line_add(l, " %s[%ld] %s: ", program, pid, name);
    line_escaped(l, message);
    line_add(l, "%s", log_json ? "\"}\n" : "\n");
}

/*
 * There is nobody to tell that standard error cannot be written, and a program whose log was piped
 * to one that has ended does not die of it: a SIGPIPE of ours is taken before anybody else is.
 */
static void line_write(const struct line *l)
{
    static const struct timespec now = {0};
    sigset_t pipe, old, pending;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    sigpending(&pending);
    pthread_sigmask(SIG_BLOCK, &pipe, &old);
    if (write(STDERR_FILENO, l->text, l->size) < 0 && errno == EPIPE &&
        !sigismember(&pending, SIGPIPE))
        sigtimedwait(&pipe, NULL, &now);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

void log_write(enum log_level level, const char *format, ...)
{
    if (!log_enabled(level))
        return;
    int saved = errno;
    char message[LOG_TEXT];
    va_list args;
    va_start(args, format);
    int size = vsnprintf(message, sizeof message, format, args);
    va_end(args);
    if (size >= (int)sizeof message)
        memcpy(message + sizeof message - 4, "...", 4);
    struct line l = {.size = 0};
    line_make(&l, level, message);
    line_write(&l);
    errno = saved;
}

bool log_allowed(struct log_limit *limit, char more[LOG_MORE])
{
    long long second = (long long)(clock_mono_ns() / 1000000000u) + 1;
    long long last = __atomic_load_n(&limit->second, __ATOMIC_RELAXED);
    /* Of several threads in the same second, the one that moves the mark may write. */
    if (last != second && __atomic_compare_exchange_n(&limit->second, &last, second, false,
                              __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
        unsigned left_out = __atomic_exchange_n(&limit->suppressed, 0, __ATOMIC_RELAXED);
        more[0] = '\0';
        if (left_out)
            snprintf(more, LOG_MORE, " (and %u more before)", left_out);
        return true;
    }
    __atomic_fetch_add(&limit->suppressed, 1, __ATOMIC_RELAXED);
    return false;
}
