/* SPDX-License-Identifier: Apache-2.0 */
/* The supervisor as a child of a server, told where to join through a pipe. */
#define _GNU_SOURCE
#include <assert.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <pushrod/error.h>
#include "common/clock.h"
#include "worker/supervise_impl.h"

/* A port, a connection or a lock that its owner closes would stay open with us. */
static void close_others(int control)
{
    DIR *all = opendir("/proc/self/fd");
    for (struct dirent *one; all && (one = readdir(all));) {
        int fd = isdigit((unsigned char)one->d_name[0]) ? atoi(one->d_name) : control;
        if (fd != control && fd != dirfd(all) && fcntl(fd, F_GETFD) & FD_CLOEXEC)
            close(fd);
    }
    if (all)
        closedir(all);
}

int supervisor_fork(struct supervisor *s, const struct supervise_config *config)
{
    int control[2];
    if (pipe2(control, O_CLOEXEC) != 0)
        return -PUSHROD_E_SYSTEM;
    fflush(NULL); /* nothing is printed twice */
    s->pid = fork();
    if (s->pid == 0) {
        close(control[1]);
        if (config->others)
            close_others(control[0]);
        signal(SIGINT, SIG_IGN); /* the server says when */
        _exit(supervise_loop(config, control[0]));
    }
    close(control[0]);
    if (s->pid < 0) {
        close(control[1]);
        *s = (struct supervisor){.control = -1};
        return -PUSHROD_E_SYSTEM;
    }
    s->control = control[1];
    /* A supervisor that hangs must not hang the server. */
    fcntl(s->control, F_SETFL, O_NONBLOCK);
    return 0;
}

int supervisor_tell(struct supervisor *s, const char *name, const char *value)
{
    char line[SUPERVISE_LINE + 1];
    int size = snprintf(line, sizeof line, "%s %s\n", name, value);
    if (s->pid <= 0)
        return -PUSHROD_E_SYSTEM;
    if (size > (int)SUPERVISE_LINE)
        return -PUSHROD_E_TOO_BIG;
    if (strchr(value, '\n'))
        return -PUSHROD_E_INVALID;
    /* No larger than PIPE_BUF: written whole or not at all. */
    bool written = write(s->control, line, (size_t)size) == size;
    explicit_bzero(line, sizeof line);
    return written ? 0 : -PUSHROD_E_SYSTEM;
}

int supervisor_join(struct supervisor *s, const char *join)
{
    if (s->pid <= 0 || !join[0] || strlen(join) >= SUPERVISE_JOIN)
        return -PUSHROD_E_INVALID;
    return supervisor_tell(s, "join", join);
}

int supervisor_replace(struct supervisor *s)
{
    if (s->pid <= 0)
        return -PUSHROD_E_WRONG_STATE;
    return kill(s->pid, SIGUSR2) == 0 ? 0 : -PUSHROD_E_SYSTEM;
}

void supervisor_stop(struct supervisor *s, bool now)
{
    if (s->pid > 0)
        kill(s->pid, now ? SIGQUIT : SIGTERM);
}

/* False: it has not ended yet. *code: its exit code. */
static bool supervisor_reap(struct supervisor *s, int options, int *code)
{
    int status;
    if (s->pid <= 0)
        return true;
    pid_t pid = waitpid(s->pid, &status, options);
    if (pid == 0 || (pid < 0 && errno == EINTR))
        return false;
    *code = pid > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : 1;
    close(s->control);
    *s = (struct supervisor){.control = -1};
    return true;
}

int supervisor_wait(struct supervisor *s, uint64_t ms)
{
    int code = 0;
    uint64_t end_ns = clock_mono_ns() + ms * NS_PER_MS;
    while (!supervisor_reap(s, WNOHANG, &code)) {
        if (clock_mono_ns() >= end_ns) {
            kill(s->pid, SIGKILL); /* its children follow it */
            while (!supervisor_reap(s, 0, &code))
                ;
            return 1;
        }
        struct timespec pause = {.tv_nsec = 5000000};
        nanosleep(&pause, NULL);
    }
    return code;
}
