/* SPDX-License-Identifier: Apache-2.0 */
/* The processes of an embedded server: what they have of it, and how it bears that they die. */
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/unit/server_fixture.h"

/* ThreadSanitizer, and AddressSanitizer of clang 14: a fork copies its allocator's locks as they
 * are.
 */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FORK_IS_BAD
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define FORK_IS_BAD
#endif

/* ---- two servers in one process ---- */

struct first {
    struct pushrod_server *server;
    char directory[32];
    unsigned port;
};

/* With all that a server can hold open: a store, ports, a connection. Port 0: any. */
static int first_start(struct first *f)
{
    char address[32];
    f->server = pushrod_server_new();
    assert_non_null(f->server);
    snprintf(address, sizeof address, "127.0.0.1:%u", f->port);
    assert_int_equal(pushrod_server_set(f->server, "join-port", "0"), 0);
    assert_int_equal(pushrod_server_set(f->server, "answers-port", "0"), 0);
    assert_int_equal(pushrod_server_set(f->server, "data", f->directory), 0);
    assert_int_equal(pushrod_server_listen(f->server, address, NULL), 0);
    pushrod_server_on(
        f->server, &(struct pushrod_server_events){.start = on_start, .connect = on_connect}, NULL);
    int error = pushrod_server_start(f->server);
    f->port = (unsigned)pushrod_server_port(f->server, "own", 0);
    return error;
}

static int dial(unsigned port)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
        .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    return fd;
}

static void nothing(struct pushrod_server *s, void *arg)
{
    (void)s, (void)arg;
}

static void remove_directory(const char *directory)
{
    static const char *const names[] = {"data.mdb", "lock"};
    char path[64];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", directory, names[i]);
        unlink(path);
    }
    assert_int_equal(rmdir(directory), 0);
}

/* One of the program's own, forked while the server runs: its mistakes do no harm to it. */
static void a_process_of_the_program_has_no_part(void **state)
{
    struct first f = {.directory = "/tmp/pushrod-two-XXXXXX"};
    int status;
    (void)state;
#ifdef FORK_IS_BAD
    skip();
#endif
    assert_non_null(mkdtemp(f.directory));
    assert_int_equal(first_start(&f), 0);
    STEP_UNTIL(f.server, seen.started == 1);
    pid_t child = fork();
    if (child == 0) {
        struct pushrod_job job = {"q", "x", 1, NULL};
        struct pushrod_finish *finish;
        alarm(LIMIT_MS / 1000);
        bool refused = pushrod_server_step(f.server) == -PUSHROD_E_WRONG_STATE &&
                       strstr(pushrod_server_error(f.server), "forked") &&
                       pushrod_server_run(f.server) == -PUSHROD_E_WRONG_STATE &&
                       pushrod_server_post(f.server, nothing, NULL) == -PUSHROD_E_WRONG_STATE &&
                       pushrod_server_taskwait(f.server, &job, -1, &finish) < 0;
        pushrod_server_free(f.server);
        _exit(refused ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    int fd = dial(f.port);
    STEP_UNTIL(f.server, seen.connects == 1);
    pushrod_server_free(f.server);
    close(fd);
    remove_directory(f.directory);
}

/* What the first one closes is closed, whoever was forked while it was open. */
static void processes_of_one_have_nothing_of_the_other(void **state)
{
    struct first f = {.directory = "/tmp/pushrod-two-XXXXXX"};
    char byte;
    (void)state;
#ifdef FORK_IS_BAD
    skip(); /* the sanitizer bears no threads in a process that was forked beside others */
#endif
    assert_non_null(mkdtemp(f.directory));
    assert_int_equal(first_start(&f), 0);
    int fd = dial(f.port);
    struct pollfd end = {fd, POLLIN, 0};
    STEP_UNTIL(f.server, seen.connects == 1);
    struct pushrod_server *second = server_new();
    server_start(second);
    STEP_UNTIL(second, seen.joined == 2);
    pushrod_server_free(f.server);
    assert_int_equal(poll(&end, 1, LIMIT_MS), 1);
    assert_int_equal(read(fd, &byte, 1), 0);
    if (first_start(&f))
        fail_msg("%s", pushrod_server_error(f.server));
    pushrod_server_free(f.server);
    server_stop(second);
    close(fd);
    remove_directory(f.directory);
}

/* ---- a supervisor that dies at once ---- */

static pid_t mortal; /* whose child dies; 0: nobody's */

/* It is the first that the child does, and something that its parent does before it tells it. */
ssize_t getrandom(void *to, size_t size, unsigned flags)
{
    siginfo_t info;
    if (mortal && mortal != getpid())
        _exit(1);
    if (mortal)
        waitid(P_ALL, 0, &info, WEXITED | WNOWAIT);
    return syscall(SYS_getrandom, to, size, flags);
}

/* The program is told; it does not die of it. */
static void a_supervisor_that_died_is_an_error_of_start(void **state)
{
    struct pushrod_server *s = server_new();
    (void)state;
    signal(SIGPIPE, SIG_DFL);
    mortal = getpid();
    assert_int_equal(pushrod_server_start(s), -PUSHROD_E_SYSTEM);
    mortal = 0;
    assert_non_null(strstr(pushrod_server_error(s), "cannot start local workers"));
    pushrod_server_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_process_of_the_program_has_no_part),
        cmocka_unit_test(processes_of_one_have_nothing_of_the_other),
        cmocka_unit_test(a_supervisor_that_died_is_an_error_of_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
