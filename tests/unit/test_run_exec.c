/* SPDX-License-Identifier: Apache-2.0 */
/* Commands as handlers: real processes that behave, and all the ways in which they do not. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "proto/codec.h"
#include "tests/lib/run_play.h"
#include "worker/said.h"
#include "worker/worker.h"

static struct run_play p;

static void begin_with(const char *command, struct run_config config)
{
    run_play_start(&p, run_play_command(&handler_exec, command), config);
}

static void begin(const char *command)
{
    begin_with(command, (struct run_config){0});
}

static void payload_in_result_out(void **state)
{
    (void)state;
    begin("tr a-z A-Z");
    struct outcome *o = run_play_do(&p, "hello");
    assert_int_equal(o->kind, REPORT_DONE);
    assert_string_equal((char *)o->result.data, "HELLO");
    assert_true(o->run_ns > 0);
    run_play_stop(&p);
}

static void an_empty_payload_is_an_empty_input(void **state)
{
    (void)state;
    begin("wc -c");
    assert_string_equal((char *)run_play_do(&p, "")->result.data, "0\n");
    run_play_stop(&p);
}

static void large_payloads_go_both_ways_at_once(void **state)
{
    (void)state;
    size_t size = 4 << 20;
    uint8_t *bytes = malloc(size);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(i * 7);
    begin_with("cat", (struct run_config){.max_result = 8 << 20});
    struct outcome *o = run_play_wait(&p, run_play_give(&p, bytes, size));
    assert_int_equal(o->kind, REPORT_DONE);
    assert_int_equal(o->result.size, size);
    assert_memory_equal(o->result.data, bytes, size);
    free(bytes);
    run_play_stop(&p);
}

static void a_command_need_not_read(void **state)
{
    (void)state;
    static const uint8_t bytes[1 << 20];
    begin("echo fine");
    struct outcome *o = run_play_wait(&p, run_play_give(&p, bytes, sizeof bytes));
    assert_int_equal(o->kind, REPORT_DONE);
    assert_string_equal((char *)o->result.data, "fine\n");
    run_play_stop(&p);
}

static void exit_codes_mean_what_they_mean(void **state)
{
    (void)state;
    begin("read code; echo said so >&2; exit $code");
    struct outcome *o = run_play_do(&p, "75\n");
    assert_int_equal(o->kind, REPORT_FAILED);
    assert_int_equal(o->code, PUSHROD_E_TASK_FAILED);
    assert_false(o->permanent);
    assert_string_equal(o->text, "said so");
    assert_true(run_play_do(&p, "65\n")->permanent);
    assert_false(run_play_do(&p, "1\n")->permanent);
    assert_int_equal(run_play_do(&p, "126\n")->kind, REPORT_BROKEN);
    o = run_play_do(&p, "127\n");
    assert_int_equal(o->kind, REPORT_BROKEN);
    assert_non_null(strstr(o->text, "exited with 127: said so"));
    /* It can be run: so it says that of something else. */
    assert_int_equal(run_play_do(&p, "0\n")->kind, REPORT_DONE);
    o = run_play_do(&p, "127\n");
    assert_int_equal(o->kind, REPORT_FAILED);
    assert_string_equal(o->text, "said so");
    run_play_stop(&p);
}

static void what_is_no_text_is_made_one(void **state)
{
    (void)state;
    begin("read -r what; eval \"$what\"");
    struct outcome *o =
        run_play_do(&p, "printf 'a\\377\\0b\\303\\251\\355\\240\\200' >&2; exit 1\n");
    assert_string_equal(o->text, "a??b\303\251???");
    o = run_play_do(&p, "printf 'fail \\300\\0no\\n' >&3\n");
    assert_string_equal(o->text, "??no");
    run_play_stop(&p);
    /* And a line of our log has its end. */
    struct said said;
    said_begin(&said, 0);
    said_take(&said, "a\0b", 3);
    assert_int_equal(said.line_size, 3);
    assert_memory_equal(said.line, "a?b", 3);
}

static void a_silent_failure_is_described(void **state)
{
    (void)state;
    begin("read what; eval \"$what\"");
    assert_string_equal(run_play_do(&p, "exit 3\n")->text, "the command exited with 3");
    struct outcome *o = run_play_do(&p, "kill -SEGV $$\n");
    assert_int_equal(o->kind, REPORT_FAILED);
    assert_non_null(strstr(o->text, "killed by signal 11"));
    signal(SIGHUP, SIG_IGN); /* as a worker process does: not the commands */
    o = run_play_do(&p, "kill -HUP $$\n");
    signal(SIGHUP, SIG_DFL);
    assert_non_null(strstr(o->text, "killed by signal 1 "));
    run_play_stop(&p);
}

/* A program that ignores SIGCHLD has its children reaped by the kernel. */
static void what_nobody_saw_is_no_success(void **state)
{
    (void)state;
    signal(SIGCHLD, SIG_IGN);
    begin("read what; exit 3");
    struct outcome *o = run_play_do(&p, "x\n");
    assert_int_equal(o->kind, REPORT_FAILED);
    assert_non_null(strstr(o->text, "SIGCHLD"));
    run_play_stop(&p);
    signal(SIGCHLD, SIG_DFL);
}

static void the_environment_tells_about_the_task(void **state)
{
    (void)state;
    struct buf headers = BUF_EMPTY;
    enc_map(&headers, 1);
    enc_text(&headers, slice_str("trace-id"));
    enc_text(&headers, slice_str("a b; $HOME"));
    setenv("PUSHROD_TOKEN", "secret", 1);
    setenv("PUSHROD_HEADER_FORGED", "x", 1);
    begin("echo $PUSHROD_TASK_ID $PUSHROD_TASK_ATTEMPT $PUSHROD_TASK_QUEUE "
          "\"$PUSHROD_HEADER_TRACE_ID\" [$PUSHROD_TOKEN$PUSHROD_HEADER_FORGED]");
    uint64_t lease = run_play_give_like(&p,
        (struct attempt){
            .id = 42, .number = 2, .queue = slice_str("mail.x"), .headers = buf_slice(&headers)});
    struct outcome *o = run_play_wait(&p, lease);
    assert_string_equal((char *)o->result.data, "42 2 mail.x a b; $HOME []\n");
    unsetenv("PUSHROD_TOKEN");
    unsetenv("PUSHROD_HEADER_FORGED");
    run_play_stop(&p);
    buf_free(&headers);
}

static void notes_on_descriptor_3(void **state)
{
    (void)state;
    begin("cat >&3; exit 1");
    struct outcome *o = run_play_do(&p, "progress 3 10 resizing it\nretry-after 1.5");
    assert_int_equal(o->progress, 1);
    assert_int_equal(o->done, 3);
    assert_int_equal(o->total, 10);
    assert_int_equal(o->retry_ms, 1500);
    o = run_play_do(&p, "nonsense\nfail not a JPEG\n");
    assert_true(o->permanent);
    assert_string_equal(o->text, "not a JPEG");
    run_play_stop(&p);
}

static void a_note_that_it_failed_wins_over_exit_0(void **state)
{
    (void)state;
    begin("echo fail by note >&3");
    struct outcome *o = run_play_do(&p, "");
    assert_int_equal(o->kind, REPORT_FAILED);
    assert_string_equal(o->text, "by note");
    run_play_stop(&p);
}

static void endless_output_is_cut_short(void **state)
{
    (void)state;
    begin("exec cat /dev/zero"); /* without end: who does not cut it short never sees one */
    struct outcome *o = run_play_do(&p, "");
    assert_int_equal(o->code, PUSHROD_E_RESULT_TOO_BIG);
    assert_true(o->permanent);
    run_play_stop(&p);
}

/* The linker puts it before the C library's: larger ones fail while it is not 0. */
static atomic_size_t most_memory;
void *__real_realloc(void *data, size_t size);
void *__wrap_realloc(void *data, size_t size);

void *__wrap_realloc(void *data, size_t size)
{
    size_t most = atomic_load(&most_memory);
    return most && size > most ? NULL : __real_realloc(data, size);
}

/* Another worker may have more: it is this attempt that failed, not the task. */
static void a_result_without_memory_fails_the_attempt(void **state)
{
    (void)state;
    begin_with("exec cat /dev/zero", (struct run_config){.max_result = (size_t)1 << 30});
    atomic_store(&most_memory, 4u << 20);
    struct outcome *o = run_play_do(&p, "");
    atomic_store(&most_memory, 0);
    assert_int_equal(o->code, PUSHROD_E_NO_MEMORY);
    assert_false(o->permanent);
    assert_non_null(strstr(o->text, "memory"));
    run_play_stop(&p);
}

/* Half of the headers are none, however often it asks. */
static int look_twice(struct pushrod_task *task, void *arg)
{
    (void)arg;
    atomic_store(&most_memory, 512);
    bool none = !pushrod_task_header(task, "large") && !pushrod_task_header(task, "large");
    atomic_store(&most_memory, 0);
    return none ? 0 : 1;
}

static void a_function_without_memory_has_no_headers(void **state)
{
    static const uint8_t large[1024] = {[0 ... 1023] = 'x'};
    struct handler h = {.ops = &handler_function, .function = look_twice};
    struct buf headers = BUF_EMPTY;
    (void)state;
    enc_map(&headers, 1);
    enc_text(&headers, slice_str("large"));
    enc_text(&headers, slice_of(large, sizeof large));
    run_play_start(&p, h, (struct run_config){0});
    uint64_t lease = run_play_give_like(&p, (struct attempt){.headers = buf_slice(&headers)});
    assert_int_equal(run_play_wait(&p, lease)->kind, REPORT_DONE);
    buf_free(&headers);
    run_play_stop(&p);
}

static void much_to_say_on_standard_error(void **state)
{
    (void)state;
    begin("yes complaint | head -c 3000000 >&2; echo the last word >&2; exit 1");
    struct outcome *o = run_play_do(&p, "");
    assert_int_equal(o->kind, REPORT_FAILED);
    assert_true(strlen(o->text) <= 4096);
    assert_non_null(strstr(o->text, "the last word"));
    run_play_stop(&p);
}

static void a_hang_ends_at_the_timeout(void **state)
{
    (void)state;
    begin_with("exec sleep 1000", (struct run_config){.timeout_ms = 100});
    struct outcome *o = run_play_do(&p, "");
    assert_int_equal(o->code, PUSHROD_E_TASK_TIMEOUT);
    assert_non_null(strstr(o->text, "100 ms"));
    run_play_stop(&p);
}

static void the_tasks_own_timeout_wins(void **state)
{
    (void)state;
    begin("exec sleep 1000");
    uint64_t lease = run_play_give_like(&p, (struct attempt){.timeout_ms = 50});
    assert_int_equal(run_play_wait(&p, lease)->code, PUSHROD_E_TASK_TIMEOUT);
    run_play_stop(&p);
}

static void who_ignores_sigterm_is_killed(void **state)
{
    (void)state;
    begin_with("trap '' TERM; while :; do sleep 0.01; done",
        (struct run_config){.timeout_ms = 50, .grace_ms = 100});
    assert_int_equal(run_play_do(&p, "")->code, PUSHROD_E_TASK_TIMEOUT);
    run_play_stop(&p);
}

static bool saw_progress(void *arg)
{
    return ((struct outcome *)arg)->progress > 0;
}

/* It leads a session: so whoever kills the group kills it. */
static void a_command_cannot_leave_its_group(void **state)
{
    (void)state;
    begin_with("exec python3 -c 'import os, signal\n"
               "try: os.setpgid(0, os.getpgid(os.getppid()))\n"
               "except PermissionError: os.write(3, b\"progress 1 1\\n\")\n"
               "signal.pause()'",
        (struct run_config){.grace_ms = 100});
    uint64_t lease = run_play_give(&p, "", 0);
    run_play_until(&p, saw_progress, &p.outcomes[lease - 1]);
    run_cancel(p.run, lease);
    assert_int_equal(run_play_wait(&p, lease)->code, PUSHROD_E_TASK_CANCELLED);
    run_play_stop(&p);
}

static void cancel_ends_what_runs(void **state)
{
    (void)state;
    begin("echo progress 1 2 >&3; exec sleep 1000");
    uint64_t lease = run_play_give(&p, "", 0);
    run_play_until(&p, saw_progress, &p.outcomes[lease - 1]);
    run_cancel(p.run, lease);
    assert_int_equal(run_play_wait(&p, lease)->code, PUSHROD_E_TASK_CANCELLED);
    run_play_stop(&p);
}

static bool pid_is_gone(void *arg)
{
    pid_t pid = *(pid_t *)arg;
    char path[64], state = 'X';
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return true;
    if (fscanf(file, "%*d (%*[^)]) %c", &state) != 1)
        state = 'X';
    fclose(file);
    return state == 'Z' || state == 'X';
}

static void what_it_leaves_behind_is_killed_and_not_waited_for(void **state)
{
    (void)state;
    begin("sleep 1000 & echo $!");
    uint64_t begin_ns = clock_now().mono_ns;
    struct outcome *o = run_play_do(&p, "");
    assert_int_equal(o->kind, REPORT_DONE);
    assert_true(clock_now().mono_ns - begin_ns < UINT64_C(5000000000));
    pid_t pid = (pid_t)atoi((char *)o->result.data);
    assert_true(pid > 1);
    run_play_until(&p, pid_is_gone, &pid);
    run_play_stop(&p);
}

/* It leaves the group, and keeps the pipes open: nobody waits for it. */
static void inherited_pipes_hold_nothing_open(void **state)
{
    (void)state;
    begin("setsid sleep 2 & echo here");
    uint64_t begin_ns = clock_now().mono_ns;
    struct outcome *o = run_play_do(&p, "");
    assert_string_equal((char *)o->result.data, "here\n");
    assert_true(clock_now().mono_ns - begin_ns < UINT64_C(1500000000));
    run_play_stop(&p);
}

static void closed_streams_are_no_end(void **state)
{
    (void)state;
    begin("exec 0<&- 1>&- 2>&- 3>&-; sleep 0.05; exit 7");
    struct outcome *o = run_play_do(&p, "");
    assert_int_equal(o->kind, REPORT_FAILED);
    assert_string_equal(o->text, "the command exited with 7");
    run_play_stop(&p);
}

static void nothing_of_ours_is_inherited(void **state)
{
    (void)state;
    int fd = open("/dev/null", O_RDONLY); /* without O_CLOEXEC, as a library might */
    begin("ls /proc/self/fd | tr '\\n' ' '");
    /* ls has one of its own: the directory. */
    assert_string_equal((char *)run_play_do(&p, "")->result.data, "0 1 2 3 4 ");
    close(fd);
    run_play_stop(&p);
}

static void slots_run_side_by_side(void **state)
{
    (void)state;
    char path[] = "/tmp/pushrod-test-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    char command[300];
    /* Each waits until all four are there. */
    snprintf(command, sizeof command,
        "echo >> %s; while [ $(wc -l < %s) -lt 4 ]; do sleep 0.01; done; echo ok", path, path);
    begin_with(command, (struct run_config){.slots = 4});
    for (int i = 0; i < 4; i++)
        run_play_give(&p, "", 0);
    run_play_wait_all(&p);
    for (int i = 0; i < 4; i++)
        assert_int_equal(p.outcomes[i].kind, REPORT_DONE);
    run_play_stop(&p);
    close(fd);
    unlink(path);
}

static void the_end_of_the_runner_ends_its_commands(void **state)
{
    (void)state;
    begin("echo progress $$ 0 >&3; exec sleep 1000");
    uint64_t lease = run_play_give(&p, "", 0);
    run_play_until(&p, saw_progress, &p.outcomes[lease - 1]);
    pid_t pid = (pid_t)p.outcomes[lease - 1].done;
    run_play_stop(&p);
    assert_true(pid_is_gone(&pid));
}

/* Descriptors, of the first ones, that a program which we become would have. */
static unsigned passed_on(void)
{
    unsigned count = 0;
    for (int fd = 0; fd < 64; fd++) {
        int flags = fcntl(fd, F_GETFD);
        count += flags >= 0 && !(flags & FD_CLOEXEC);
    }
    return count;
}

/* The same for fork(). */
static bool no_process;
static unsigned passed_on_then;
pid_t __real_fork(void);
pid_t __wrap_fork(void);

pid_t __wrap_fork(void)
{
    passed_on_then = passed_on();
    errno = EAGAIN;
    return no_process ? -1 : __real_fork();
}

/* No plug-in is to blame when there is no process to look at it. */
static void a_probe_needs_a_process(void **state)
{
    bool serial;
    struct pushrod_worker *w = pushrod_worker_new();
    (void)state;
    assert_int_equal(pushrod_worker_set(w, "plugin", "./none.so"), 0);
    unsigned before = passed_on();
    no_process = true;
    int error = plugins_probe(w, &serial);
    no_process = false;
    assert_int_equal(passed_on_then, before); /* a plug-in may start programs */
    assert_int_equal(error, -PUSHROD_E_SYSTEM);
    assert_null(strstr(pushrod_worker_error(w), "plug-in"));
    assert_non_null(strstr(pushrod_worker_error(w), strerror(EAGAIN)));
    pushrod_worker_free(w);
}

int main(void)
{
    log_setup("test", LOG_ERROR, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(payload_in_result_out),
        cmocka_unit_test(an_empty_payload_is_an_empty_input),
        cmocka_unit_test(large_payloads_go_both_ways_at_once),
        cmocka_unit_test(a_command_need_not_read),
        cmocka_unit_test(exit_codes_mean_what_they_mean),
        cmocka_unit_test(a_silent_failure_is_described),
        cmocka_unit_test(what_nobody_saw_is_no_success),
        cmocka_unit_test(the_environment_tells_about_the_task),
        cmocka_unit_test(notes_on_descriptor_3),
        cmocka_unit_test(what_is_no_text_is_made_one),
        cmocka_unit_test(a_command_cannot_leave_its_group),
        cmocka_unit_test(a_note_that_it_failed_wins_over_exit_0),
        cmocka_unit_test(endless_output_is_cut_short),
        cmocka_unit_test(a_result_without_memory_fails_the_attempt),
        cmocka_unit_test(a_function_without_memory_has_no_headers),
        cmocka_unit_test(much_to_say_on_standard_error),
        cmocka_unit_test(a_hang_ends_at_the_timeout),
        cmocka_unit_test(the_tasks_own_timeout_wins),
        cmocka_unit_test(who_ignores_sigterm_is_killed),
        cmocka_unit_test(cancel_ends_what_runs),
        cmocka_unit_test(what_it_leaves_behind_is_killed_and_not_waited_for),
        cmocka_unit_test(inherited_pipes_hold_nothing_open),
        cmocka_unit_test(closed_streams_are_no_end),
        cmocka_unit_test(nothing_of_ours_is_inherited),
        cmocka_unit_test(slots_run_side_by_side),
        cmocka_unit_test(the_end_of_the_runner_ends_its_commands),
        cmocka_unit_test(a_probe_needs_a_process),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (run_play_forbid_pidfd())
        failed += cmocka_run_group_tests_name("without pidfd", tests, NULL, NULL);
    return failed;
}
