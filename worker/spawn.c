/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "worker/spawn.h"
#include "common/retry.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* EXIT_LOOK_MS: how often the process is looked after where there is no pidfd. */
enum { PIPES = 4, EXIT_LOOK_MS = 10 };

void child_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* ours[i] is our end, theirs[i] the one that becomes descriptor i of the child. */
static bool make_pipe(int i, int *ours, int *theirs)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return false;
    *ours = i == 0 ? ends[1] : ends[0];
    *theirs = i == 0 ? ends[0] : ends[1];
    /* dup2 of a descriptor onto itself would leave it to be closed at exec: keep clear of 0..3. */
    if (*theirs < PIPES) {
        int higher = fcntl(*theirs, F_DUPFD_CLOEXEC, PIPES);
        close(*theirs);
        *theirs = higher;
    }
    return *theirs >= 0 && fcntl(*ours, F_SETFL, O_NONBLOCK) == 0;
}

/* A session of its own, no signal blocked, ignored or caught. What asks for a password at our
 * terminal would be stopped for that in ours, and nobody would know; so there is none. */
static int attributes_init(posix_spawnattr_t *a)
{
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    int error = posix_spawnattr_init(a);
    if (error)
        return error;
    posix_spawnattr_setsigmask(a, &none);
    posix_spawnattr_setsigdefault(a, &all);
    posix_spawnattr_setflags(
        a, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    return 0;
}

static int spawn_shell(
    pid_t *pid, const int theirs[PIPES], const char *command, char *const *environment)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    int error = posix_spawn_file_actions_init(&files);
    if (error)
        return error;
    for (int i = 0; i < PIPES && !error; i++)
        error = posix_spawn_file_actions_adddup2(&files, theirs[i], i);
    if (!error)
        error = posix_spawn_file_actions_addclosefrom_np(&files, PIPES);
    if (!error)
        error = attributes_init(&attributes);
    if (!error) {
        char *argv[] = {"sh", "-c", (char *)(uintptr_t)command, NULL};
        error = posix_spawn(pid, "/bin/sh", &files, &attributes, argv, environment);
        posix_spawnattr_destroy(&attributes);
    }
    posix_spawn_file_actions_destroy(&files);
    return error;
}

static void close_all(struct child *c)
{
    child_close(&c->exit);
    child_close(&c->in);
    child_close(&c->out);
    child_close(&c->error);
    child_close(&c->notes);
}

int child_spawn(struct child *c, const char *command, char *const *environment)
{
    *c = (struct child){.exit = -1, .in = -1, .out = -1, .error = -1, .notes = -1};
    int *ours[PIPES] = {&c->in, &c->out, &c->error, &c->notes};
    int theirs[PIPES] = {-1, -1, -1, -1};
    int error = 0;
    for (int i = 0; i < PIPES && !error; i++)
        error = make_pipe(i, ours[i], &theirs[i]) ? 0 : errno;
    if (!error)
        error = spawn_shell(&c->pid, theirs, command, environment);
    for (int i = 0; i < PIPES; i++)
        child_close(&theirs[i]);
    if (!error) {
        c->exit = (int)syscall(SYS_pidfd_open, c->pid, 0);
        /* Linux before 5.3 and valgrind do not know it, old sandboxes forbid it: child_poll(). */
        error = c->exit >= 0 || errno == ENOSYS || errno == EPERM ? 0 : errno;
    }
    if (error && c->pid > 0)
        child_end(c);
    else if (error)
        close_all(c);
    return error;
}

bool child_write(const struct child *c, struct slice bytes, size_t *written)
{
    while (*written < bytes.size) {
        ssize_t size = write(c->in, bytes.data + *written, bytes.size - *written);
        if (size < 0 && errno == EAGAIN)
            return true;
        if (size < 0 && errno != EINTR)
            return false;
        *written += size < 0 ? 0 : (size_t)size;
    }
    return true;
}

void child_signal(const struct child *c, int number)
{
    if (c->pid > 0)
        kill(-c->pid, number);
}

/* ECHILD: the kernel or somebody else has reaped it. */
bool child_ended(const struct child *c)
{
    siginfo_t info = {0};
    if (waitid(P_PID, (id_t)c->pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0)
        return errno == ECHILD;
    return info.si_pid == c->pid;
}

int child_poll(const struct child *c, struct pollfd *fds, nfds_t count, int wait_ms)
{
    if (c->exit >= 0)
        return poll(fds, count, wait_ms);
    /* Asked before poll(), so that what it wrote before its end is seen together with the end. */
    bool ended = child_ended(c);
    if (ended)
        wait_ms = 0;
    else if (wait_ms < 0 || wait_ms > EXIT_LOOK_MS)
        wait_ms = EXIT_LOOK_MS;
    int ready = poll(fds, count, wait_ms);
    if (ready >= 0 && ended)
        fds[0].revents = POLLIN;
    return ready;
}

bool child_ends_within(const struct child *c, int ms)
{
    struct pollfd f = {.fd = c->exit, .events = POLLIN};
    int step = c->exit >= 0 ? ms : EXIT_LOOK_MS;
    for (int left = ms; left > 0 && !f.revents; left -= step)
        child_poll(c, &f, 1, step);
    return child_ended(c);
}

/* Never 0 by accident: that would be a success. */
static int child_reap(pid_t pid)
{
    int status;
    pid_t reaped = RETRY(waitpid(pid, &status, 0));
    return reaped == pid ? status : CHILD_UNKNOWN;
}

/* The group is killed before its leader is reaped: until then nobody else can have its number. */
int child_end(struct child *c)
{
    child_signal(c, SIGKILL);
    int status = c->pid > 0 ? child_reap(c->pid) : CHILD_UNKNOWN;
    close_all(c);
    c->pid = 0;
    return status;
}

void child_describe(int status, char *text, size_t size)
{
    if (status == CHILD_UNKNOWN)
        snprintf(text, size, "ended, and how was not to be learned: is SIGCHLD ignored?");
    else if (WIFSIGNALED(status))
        snprintf(text, size, "was killed by signal %d (%s)", WTERMSIG(status),
            strsignal(WTERMSIG(status)));
    else
        snprintf(text, size, "exited with %d", WEXITSTATUS(status));
}
