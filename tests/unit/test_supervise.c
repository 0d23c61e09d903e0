/* SPDX-License-Identifier: Apache-2.0 */
/* The supervisor and its children, without a server: what they are given. */
#include <dirent.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "tests/unit/unit.h"
#include "worker/supervise.h"

#define CHILDREN 8u

static int tell; /* the end of a pipe: each child writes a byte, the number of its descriptors */

static uint8_t count_descriptors(void)
{
    uint8_t count = 0;
    DIR *all = opendir("/proc/self/fd");
    while (all && readdir(all))
        count++;
    closedir(all);
    return count;
}

static int count_main(void *arg, const struct supervise_child *child)
{
    uint8_t count = count_descriptors();
    (void)arg, (void)child;
    return write(tell, &count, 1) == 1 ? SUPERVISE_EXIT_DONE : SUPERVISE_EXIT_NEVER;
}

/* A supervisor in a process of its own, which has 20 s. */
static pid_t supervise_apart(const struct supervise_config *config)
{
    pid_t pid = fork();
    if (pid == 0) {
        alarm(20);
        _exit(supervise_run(config));
    }
    return pid;
}

static int code_of(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* The pipes on which its elder siblings speak are their business: a thousand would be too many. */
static void each_child_has_as_many_descriptors(void **state)
{
    const struct supervise_config config = {
        .processes = CHILDREN, .join = "127.0.0.1:1", .run = count_main};
    uint8_t counts[CHILDREN];
    int ends[2];
    (void)state;
    assert_int_equal(pipe(ends), 0);
    tell = ends[1];
    assert_int_equal(code_of(supervise_apart(&config)), 0);
    assert_int_equal(read(ends[0], counts, sizeof counts), CHILDREN);
    for (size_t i = 1; i < CHILDREN; i++)
        assert_int_equal(counts[i], counts[0]);
    close(ends[0]);
    close(ends[1]);
}

static int leave_main(void *arg, const struct supervise_child *child)
{
    (void)arg, (void)child;
    return SUPERVISE_EXIT_DONE;
}

/* Whoever started us may ignore it: some do, so that they need not wait for anybody. */
static void the_end_of_a_child_is_heard_where_sigchld_was_ignored(void **state)
{
    const struct supervise_config config = {
        .processes = 2, .join = "127.0.0.1:1", .run = leave_main};
    (void)state;
    signal(SIGCHLD, SIG_IGN);
    pid_t pid = supervise_apart(&config);
    signal(SIGCHLD, SIG_DFL);
    assert_int_equal(code_of(pid), 0);
}

/* In a process that had a child in a group of its own before. */
static int supervise_beside_stranger(void)
{
    const struct supervise_config config = {
        .processes = 1, .join = "127.0.0.1:1", .run = leave_main};
    pid_t stranger = fork();
    if (stranger == 0)
        for (;;)
            pause();
    setpgid(stranger, stranger);
    alarm(20);
    int code = supervise_run(&config);
    int status;
    kill(stranger, SIGTERM);
    bool killed = waitpid(stranger, &status, 0) != stranger || WTERMSIG(status) != SIGTERM;
    return code || killed;
}

/* A shell that has become the worker (`exec`) may have started something else before. */
static void who_was_there_before_is_no_orphan(void **state)
{
    (void)state;
    pid_t pid = fork();
    if (pid == 0)
        _exit(supervise_beside_stranger());
    assert_int_equal(code_of(pid), 0);
}

static int signalled_main(void *arg, const struct supervise_child *child)
{
    (void)arg, (void)child;
    kill(getpid(), SIGHUP);
    kill(getpid(), SIGUSR2);
    return SUPERVISE_EXIT_DONE;
}

/* A terminal that goes away, or `pkill`, reaches them as well. */
static void what_is_meant_for_the_supervisor_kills_no_child(void **state)
{
    const struct supervise_config config = {
        .processes = 1, .join = "127.0.0.1:1", .run = signalled_main};
    (void)state;
    assert_int_equal(code_of(supervise_apart(&config)), 0);
}

int main(void)
{
    log_setup("test", LOG_ERROR, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_child_has_as_many_descriptors),
        cmocka_unit_test(the_end_of_a_child_is_heard_where_sigchld_was_ignored),
        cmocka_unit_test(what_is_meant_for_the_supervisor_kills_no_child),
        cmocka_unit_test(who_was_there_before_is_no_orphan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
