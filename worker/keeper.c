/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "worker/keeper.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/log.h"
#include "common/retry.h"

/* What is killed may fork before it dies: it is looked for until nothing is found. The number
 * bounds that where a process cannot die, since its disk is gone. */
#define SWEEPS    100
#define PAUSE_MS  10
#define MARK_SIZE (sizeof KEEPER_VARIABLE + 33) /* NAME=128 bits in hex, and a NUL */

/* ------------------------------------------------------------------------- the end of all */

/* What a process was started with; a zombie has none. */
static bool has_mark(pid_t pid, const char *mark)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/environ", (int)pid);
    FILE *file = fopen(path, "re");
    char *variable = NULL;
    size_t room = 0;
    bool found = false;
    while (file && !found && getdelim(&variable, &room, '\0', file) > 0)
        found = strcmp(variable, mark) == 0;
    free(variable);
    if (file)
        fclose(file);
    return found;
}

/* The descriptor is there before the look: so what is killed is what was looked at. */
static bool kill_marked(pid_t pid, const char *mark)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    bool old = fd < 0 && (errno == ENOSYS || errno == EPERM); /* as in spawn.c */
    bool marked = has_mark(pid, mark);
    if (marked && fd >= 0)
        syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
    else if (marked && old)
        kill(pid, SIGKILL);
    if (fd >= 0)
        close(fd);
    return marked;
}

static unsigned sweep(const char *mark)
{
    unsigned count = 0;
    DIR *all = opendir("/proc");
    for (struct dirent *one; all && (one = readdir(all));)
        if (one->d_name[0] >= '1' && one->d_name[0] <= '9')
            count += kill_marked((pid_t)strtol(one->d_name, NULL, 10), mark);
    if (all)
        closedir(all);
    return count;
}

static void keeper_main(int end, const char *mark)
{
    char byte;
    RETRY(read(end, &byte, 1));
    unsigned count = sweep(mark);
    if (count)
        log_warning(
            "the supervisor and its workers are gone: killed %u processes of their tasks", count);
    for (int i = 1; i < SWEEPS && count; i++) {
        poll(NULL, 0, PAUSE_MS);
        count = sweep(mark);
    }
}

/* --------------------------------------------------------------------------- its beginning */

/* Nothing of ours is kept open but standard error; no signal that is meant for us ends it. */
static int keeper_prepare(int end)
{
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    setsid();
    prctl(PR_SET_NAME, "pushrod-keeper");
    dup2(end, STDIN_FILENO);
    close(STDOUT_FILENO);
    closefrom(STDERR_FILENO + 1);
    return STDIN_FILENO;
}

static bool mark_make(char mark[MARK_SIZE])
{
    uint64_t random[2];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        return false;
    snprintf(mark, MARK_SIZE, KEEPER_VARIABLE "=%016" PRIx64 "%016" PRIx64, random[0], random[1]);
    return setenv(KEEPER_VARIABLE, strchr(mark, '=') + 1, 1) == 0;
}

/* The end that is written to is closed by nobody: so it lasts as long as the last of us. */
pid_t keeper_start(void)
{
    int ends[2];
    char mark[MARK_SIZE];
    if (!mark_make(mark) || pipe2(ends, O_CLOEXEC) != 0)
        return 0;
    pid_t pid = fork();
    if (pid == 0) {
        keeper_main(keeper_prepare(ends[0]), mark);
        _exit(0);
    }
    close(ends[0]);
    if (pid < 0)
        close(ends[1]);
    return pid > 0 ? pid : 0;
}
