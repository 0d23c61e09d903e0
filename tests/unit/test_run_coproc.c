/* SPDX-License-Identifier: Apache-2.0 */
/* Coprocesses: real ones that stay, die, hang, talk nonsense, and are replaced. */
#include <malloc.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "tests/lib/run_play.h"
#include "worker/talk.h"

static struct run_play p;

static void begin_with(const char *command, struct run_config config)
{
    run_play_start(&p, run_play_command(&handler_coproc, command), config);
}

/* Reads a line, takes the payload as shell code, which answers as it likes. */
#define SHELL                                                                                      \
    "say() { printf '{\"type\":\"%s\",\"size\":%d}\\n%s' \"$1\" ${#2} \"$2\"; }\n"                 \
    "while read -r line; do\n"                                                                     \
    "  size=${line##*\"size\\\":\"}; size=${size##*:}; size=${size%\\}}\n"                         \
    "  code=$(dd bs=1 count=$size 2>/dev/null); eval \"$code\"\n"                                  \
    "done"

static void begin(void)
{
    begin_with(SHELL, (struct run_config){0});
}

static void one_process_for_many_tasks(void **state)
{
    (void)state;
    begin();
    char pid[32];
    struct outcome *o = run_play_do(&p, "say done $$");
    assert_int_equal(o->kind, REPORT_DONE);
    snprintf(pid, sizeof pid, "%s", (char *)o->result.data);
    for (int i = 0; i < 5; i++)
        assert_string_equal((char *)run_play_do(&p, "say done $$")->result.data, pid);
    run_play_stop(&p);
}

static void it_is_told_what_the_task_is(void **state)
{
    (void)state;
    begin();
    uint64_t lease = run_play_give_like(&p, (struct attempt){.id = UINT64_C(9223372036854775807),
                                                .number = 3,
                                                .queue = slice_str("mail.x"),
                                                .payload = slice_str("say done \"$line\"")});
    struct outcome *o = run_play_wait(&p, lease);
    assert_string_equal((char *)o->result.data,
        "{\"id\":\"9223372036854775807\",\"queue\":\"mail.x\",\"attempt\":3,\"headers\":{},"
        "\"size\":16}");
    run_play_stop(&p);
}

static void data_and_progress_come_before_the_answer(void **state)
{
    (void)state;
    begin();
    struct outcome *o = run_play_do(&p,
        "say data one; echo '{\"type\":\"progress\",\"done\":1,\"total\":3}'; say data two; "
        "say done x");
    assert_int_equal(o->kind, REPORT_DONE);
    assert_int_equal(o->progress, 1);
    assert_int_equal(o->total, 3);
    assert_int_equal(o->data.size, 6);
    assert_memory_equal(o->data.data, "onetwo", 6);
    run_play_stop(&p);
}

static void it_fails_for_good_or_asks_for_another_time(void **state)
{
    (void)state;
    begin();
    struct outcome *o = run_play_do(&p, "say fail bad");
    assert_true(o->permanent);
    assert_string_equal(o->text, "bad");
    o = run_play_do(&p, "printf '{\"type\":\"retry\",\"size\":4,\"after\":2.5}\\nbusy'");
    assert_false(o->permanent);
    assert_int_equal(o->retry_ms, 2500);
    assert_string_equal(o->text, "busy");
    run_play_stop(&p);
}

/* As people write it first: there is no body, so nothing else could be the text. */
static void a_text_in_the_line_is_the_errors(void **state)
{
    (void)state;
    begin();
    struct outcome *o = run_play_do(&p, "echo '{\"type\":\"fail\",\"text\":\"no JPEG\"}'");
    assert_true(o->permanent);
    assert_string_equal(o->text, "no JPEG");
    o = run_play_do(&p, "echo '{\"type\":\"retry\",\"text\":\"busy\",\"after\":1}'");
    assert_int_equal(o->retry_ms, 1000);
    assert_string_equal(o->text, "busy");
    o = run_play_do(&p, "printf '{\"type\":\"fail\",\"text\":\"line\",\"size\":4}\\nbody'");
    assert_string_equal(o->text, "body");
    /* JSON can say what no C string holds. */
    o = run_play_do(&p, "echo '{\"type\":\"fail\",\"text\":\"int(7\\u0000)\"}'");
    assert_true(o->permanent);
    assert_string_equal(o->text, "int(7?)");
    run_play_stop(&p);
}

static void a_crash_fails_its_task_and_not_the_next(void **state)
{
    (void)state;
    begin();
    struct outcome *o = run_play_do(&p, "echo last words >&2; kill -SEGV $$");
    assert_int_equal(o->kind, REPORT_FAILED);
    assert_int_equal(o->code, PUSHROD_E_TASK_CRASHED);
    assert_non_null(strstr(o->text, "the handler's process (`say()"));
    assert_non_null(strstr(o->text, ") was killed by signal 11 (Segmentation fault)"));
    assert_non_null(strstr(o->text, " without an answer: last words"));
    assert_string_equal((char *)run_play_do(&p, "say done well")->result.data, "well");
    run_play_stop(&p);
}

/* A long one, and shells that write it a line at a time: its end says why. */
#define LONG_COMPLAINT "seq 1 5000 >&2; echo the reason >&2; "

static void of_a_long_complaint_the_end_is_told(void **state)
{
    (void)state;
    begin();
    struct outcome *o = run_play_do(&p, LONG_COMPLAINT "exit 3");
    assert_int_equal(o->code, PUSHROD_E_TASK_CRASHED);
    assert_non_null(strstr(o->text, "exited with 3 without an answer: "));
    assert_non_null(strstr(o->text, "\n5000\nthe reason"));
    run_play_stop(&p);
}

static void what_one_task_complains_of_is_not_the_next_ones(void **state)
{
    (void)state;
    begin();
    for (int i = 0; i < 5; i++) {
        assert_int_equal(run_play_do(&p, LONG_COMPLAINT "say done well")->kind, REPORT_DONE);
        struct outcome *o = run_play_do(&p, "exit 3");
        assert_int_equal(o->code, PUSHROD_E_TASK_CRASHED);
        assert_null(strstr(o->text, "reason"));
    }
    run_play_stop(&p);
}

static void an_answer_just_before_the_end_counts(void **state)
{
    (void)state;
    begin();
    assert_string_equal((char *)run_play_do(&p, "say done bye; exit 0")->result.data, "bye");
    assert_string_equal((char *)run_play_do(&p, "say done again")->result.data, "again");
    run_play_stop(&p);
}

static void nonsense_is_answered_with_a_new_process(void **state)
{
    (void)state;
    begin();
    static const char *const nonsense[] = {"echo hello; sleep 100", "echo '{}'; sleep 100",
        "echo '[1]'; sleep 100", "echo '{\"type\":\"done\",\"size\":-1}'; sleep 100",
        "echo '{\"type\":\"dance\"}'; sleep 100", "yes | tr -d '\\n'"};
    for (size_t i = 0; i < sizeof nonsense / sizeof nonsense[0]; i++) {
        struct outcome *o = run_play_do(&p, nonsense[i]);
        assert_int_equal(o->code, PUSHROD_E_TASK_CRASHED);
        assert_non_null(strstr(o->text, "not the protocol"));
    }
    assert_string_equal((char *)run_play_do(&p, "say done well")->result.data, "well");
    run_play_stop(&p);
}

/* What the error says behind the handler's command, if the process has so long to end by itself. */
static void crashes_with(const char *const crashes[][2], size_t count, uint64_t exit_ms)
{
    begin_with(SHELL, (struct run_config){.exit_ms = exit_ms});
    for (size_t i = 0; i < count; i++) {
        struct outcome *o = run_play_do(&p, crashes[i][0]);
        assert_int_equal(o->code, PUSHROD_E_TASK_CRASHED);
        assert_false(o->permanent);
        if (!strstr(o->text, crashes[i][1]))
            fail_msg("%s: %s", crashes[i][0], o->text);
    }
    run_play_stop(&p);
}

static void what_it_printed_and_its_status_are_told(void **state)
{
    (void)state;
    static const char *const ends[][2] = {
        {"echo 'Warning: x'; exit 255",
            ") exited with 255; what it printed is not the protocol: Warning: x"},
        {"printf half; echo why >&2; exit 3",
            ") exited with 3; what it printed is not the protocol: half; its last words: why"},
        {"printf '{\"type\":\"done\",\"size\":9}\\nhalf'; exit 0",
            ") exited with 0 in the middle of its answer"},
        {"exec 1>&-; exit 4", ") exited with 4 without an answer"},
    };
    static const char *const stays[][2] = {
        {"exec 1>&-; exec sleep 1000", ") closed its output without an answer"},
        {"echo no; exec sleep 1000", ") was ended; what it printed is not the protocol: no"},
        {"echo '{\"type\":\"done\",\"id\":\"77\"}'; exec sleep 1000",
            "is not the protocol (\"id\" is that of another task): {"},
    };
    crashes_with(ends, sizeof ends / sizeof ends[0], 20000);
    crashes_with(stays, sizeof stays / sizeof stays[0], 1);
}

/* A field that is ignored looks as if it worked. */
static void a_field_of_another_type_is_named(void **state)
{
    (void)state;
    static const char *const lines[][2] = {
        {"{\"type\":\"retry\",\"after\":\"2\"}\n", "\"after\" is no number of seconds"},
        {"{\"type\":\"retry\",\"after\":-1}\n", "\"after\" is no number of seconds"},
        {"{\"type\":\"done\",\"size\":\"5\"}\n", "\"size\" is no whole number"},
        {"{\"type\":\"progress\",\"done\":0.5}\n", "\"done\" is no whole number"},
        {"{\"type\":\"progress\",\"total\":-1}\n", "\"total\" is no whole number"},
        {"{\"type\":\"fail\",\"text\":7}\n", "\"text\" is no string"},
        {"{\"type\":\"ok\"}\n", "\"type\" is none of progress, data, done, fail, retry"},
        {"{\"type\":\"done\",\"id\":true}\n", "\"id\" is none"},
        {"[]\n", ""},
        {"PHP Warning: x\n", ""},
    };
    struct talk_message m;
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        assert_int_equal(talk_parse(slice_str(lines[i][0]), &m), -1);
        assert_string_equal(m.wrong, lines[i][1]);
    }
    assert_int_equal(talk_parse(slice_str("{\"type\":\"retry\",\"after\":null}\n"), &m), 1);
}

static void what_nobody_asked_for_replaces_it_quietly(void **state)
{
    (void)state;
    begin();
    struct outcome *o = run_play_do(
        &p, "printf '{\"type\":\"done\",\"size\":3}\\none{\"type\":\"done\",\"size\":3}\\ntwo'");
    assert_string_equal((char *)o->result.data, "one");
    assert_string_equal((char *)run_play_do(&p, "say done three")->result.data, "three");
    run_play_stop(&p);
}

/* The first task of each process leaves its input where it is, or answers before it reads. */
static void an_answer_before_the_input_was_read_counts(void **state)
{
    (void)state;
    static const char *const ways[] = {
        "sleep 1000", "cat /dev/zero", "exec 0<&- 1>&-; sleep 1000", "exit 3"};
    char *large = calloc(1, 1 << 20);
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        char command[300];
        snprintf(command, sizeof command,
            "read -r line; printf '{\"type\":\"done\",\"size\":3}\\none'; %s", ways[i]);
        begin_with(command, (struct run_config){.grace_ms = 50});
        for (int n = 0; n < 2; n++) {
            struct outcome *o = run_play_wait(&p, run_play_give(&p, large, 1 << 20));
            assert_int_equal(o->kind, REPORT_DONE);
            assert_string_equal((char *)o->result.data, "one");
        }
        run_play_stop(&p);
    }
    free(large);
}

static void an_answer_to_another_task_is_none(void **state)
{
    (void)state;
    begin();
    struct outcome *o = run_play_do(&p, "echo '{\"type\":\"done\",\"id\":\"77\"}'; sleep 100");
    assert_int_equal(o->code, PUSHROD_E_TASK_CRASHED);
    run_play_stop(&p);
}

static void a_hang_ends_at_the_timeout(void **state)
{
    (void)state;
    /* The first one's own limit: the new process of the second may start slowly. */
    begin_with(SHELL, (struct run_config){.grace_ms = 100});
    struct attempt hangs = {.id = 1,
        .number = 1,
        .queue = slice_str("q"),
        .payload = slice_str("trap '' TERM; while :; do sleep 0.01; done"),
        .timeout_ms = 1000};
    struct outcome *o = run_play_wait(&p, run_play_give_like(&p, hangs));
    assert_int_equal(o->code, PUSHROD_E_TASK_TIMEOUT);
    assert_string_equal(o->text, "the attempt took longer than its timeout of 1000 ms; its process "
                                 "has said nothing: does it flush what it prints?");
    assert_string_equal((char *)run_play_do(&p, "say done well")->result.data, "well");
    /* This one flushes. */
    hangs.payload = slice_str("echo '{\"type\":\"progress\",\"done\":1}'; sleep 1000");
    hangs.timeout_ms = 3000;
    o = run_play_wait(&p, run_play_give_like(&p, hangs));
    assert_int_equal(o->code, PUSHROD_E_TASK_TIMEOUT);
    assert_string_equal(o->text, "the attempt took longer than its timeout of 3000 ms");
    run_play_stop(&p);
}

static bool saw_progress(void *arg)
{
    return ((struct outcome *)arg)->progress > 0;
}

static void cancel_ends_it(void **state)
{
    (void)state;
    begin();
    const char *code = "echo '{\"type\":\"progress\",\"done\":1}'; sleep 1000";
    uint64_t lease = run_play_give(&p, code, strlen(code));
    run_play_until(&p, saw_progress, &p.outcomes[lease - 1]);
    run_cancel(p.run, lease);
    assert_int_equal(run_play_wait(&p, lease)->code, PUSHROD_E_TASK_CANCELLED);
    run_play_stop(&p);
}

static void too_large_a_result_is_not_read(void **state)
{
    (void)state;
    begin();
    struct outcome *o =
        run_play_do(&p, "echo '{\"type\":\"done\",\"size\":1000000000}'; cat /dev/zero");
    assert_int_equal(o->code, PUSHROD_E_RESULT_TOO_BIG);
    run_play_stop(&p);
}

static void a_command_that_is_not_there_is_broken(void **state)
{
    (void)state;
    begin_with("exec /no/such/program", (struct run_config){0});
    assert_int_equal(run_play_do(&p, "x")->kind, REPORT_BROKEN);
    run_play_stop(&p);
}

/* What a process has written to $SAID until the end of the runner; it and the file are gone then.
 */
static void ends_with(const char *command, const char *word)
{
    char path[] = "/tmp/pushrod-coproc-XXXXXX", said[32] = "";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    setenv("SAID", path, 1);
    begin_with(command, (struct run_config){.grace_ms = 1000});
    assert_int_equal(run_play_do(&p, "say done ok")->kind, REPORT_DONE);
    run_play_stop(&p);
    assert_true(read(fd, said, sizeof said - 1) >= 0);
    assert_string_equal(said, word);
    unsetenv("SAID");
    close(fd);
    unlink(path);
}

/* The end of its input: it writes what it has to write, however much of it nobody reads. */
static void the_end_of_its_input_comes_first(void **state)
{
    (void)state;
    ends_with(SHELL "\nhead -c 300000 /dev/zero; head -c 300000 /dev/zero >&2; echo bye > $SAID",
        "bye\n");
}

static void who_goes_on_without_input_is_told_to_end(void **state)
{
    (void)state;
    ends_with(
        "trap 'echo term > $SAID; exit' TERM\n" SHELL "\nwhile :; do sleep 0.01; done", "term\n");
}

static void who_will_not_end_is_killed(void **state)
{
    (void)state;
    ends_with("trap 'echo term > $SAID' TERM\n" SHELL "\nwhile :; do sleep 0.01; done", "term\n");
}

static void closed_output_is_a_crash(void **state)
{
    (void)state;
    begin();
    struct outcome *o = run_play_do(&p, "exec 1>&-; sleep 1000");
    assert_int_equal(o->code, PUSHROD_E_TASK_CRASHED);
    run_play_stop(&p);
}

static void the_samples_do_what_they_say(void **state)
{
    (void)state;
    static const char *const samples[] = {"python3 examples/coproc/worker.py",
        "php examples/coproc/worker.php", "ruby examples/coproc/worker.rb"};
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        char probe[100];
        snprintf(probe, sizeof probe, "command -v %.*s >/dev/null 2>&1",
            (int)strcspn(samples[i], " "), samples[i]);
        if (system(probe) != 0) {
            print_message("left out: %s\n", samples[i]);
            continue;
        }
        begin_with(samples[i], (struct run_config){.slots = 2});
        for (int n = 0; n < 50; n++)
            run_play_give(&p, "hello", (size_t)(n % 6));
        run_play_wait_all(&p);
        for (int n = 0; n < 50; n++) {
            assert_int_equal(p.outcomes[n].kind, REPORT_DONE);
            assert_memory_equal(p.outcomes[n].result.data, "HELLO", (size_t)(n % 6));
            assert_int_equal(p.outcomes[n].progress, 1);
        }
        run_play_stop(&p);
    }
}

static void lines_are_parsed_one_at_a_time(void **state)
{
    (void)state;
    struct talk_message m;
    assert_int_equal(talk_parse(slice_str(""), &m), 0);
    assert_int_equal(talk_parse(slice_str("{\"type\":\"done\""), &m), 0);
    assert_int_equal(talk_parse(slice_str("{\"type\":\"done\"}\nrest"), &m), 1);
    assert_int_equal(m.head, 16);
    assert_int_equal(m.size, 0);
    assert_int_equal(talk_parse(slice_str("{\"type\":\"data\",\"size\":3}\n"), &m), 1);
    assert_int_equal(m.size, 3);
    assert_int_equal(talk_parse(slice_str("\n"), &m), -1);
}

static size_t memory_in_use(void)
{
    struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}

/* A slot does not keep what its largest task needed. */
static void what_was_large_is_given_back(void **state)
{
    (void)state;
    static char large[8 << 20];
    begin_with("while read -r line; do\n"
               "  size=${line##*\"size\\\":\"}; size=${size##*:}; size=${size%\\}}\n"
               "  head -c $size >/dev/null\n"
               "  echo '{\"type\":\"data\",\"size\":4000000}'; head -c 4000000 /dev/zero\n"
               "  echo '{\"type\":\"done\",\"size\":0}'\n"
               "done",
        (struct run_config){.max_result = 8 << 20});
    size_t before = memory_in_use();
    struct outcome *o = run_play_wait(&p, run_play_give(&p, large, sizeof large));
    assert_int_equal(o->kind, REPORT_DONE);
    assert_int_equal(o->data.size, 4000000);
    buf_free(&o->data);
    assert_true(memory_in_use() < before + (1 << 20));
    run_play_stop(&p);
}

int main(void)
{
    log_setup("test", LOG_ERROR, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_process_for_many_tasks),
        cmocka_unit_test(it_is_told_what_the_task_is),
        cmocka_unit_test(data_and_progress_come_before_the_answer),
        cmocka_unit_test(it_fails_for_good_or_asks_for_another_time),
        cmocka_unit_test(a_text_in_the_line_is_the_errors),
        cmocka_unit_test(a_crash_fails_its_task_and_not_the_next),
        cmocka_unit_test(of_a_long_complaint_the_end_is_told),
        cmocka_unit_test(what_one_task_complains_of_is_not_the_next_ones),
        cmocka_unit_test(an_answer_just_before_the_end_counts),
        cmocka_unit_test(nonsense_is_answered_with_a_new_process),
        cmocka_unit_test(what_it_printed_and_its_status_are_told),
        cmocka_unit_test(a_field_of_another_type_is_named),
        cmocka_unit_test(what_nobody_asked_for_replaces_it_quietly),
        cmocka_unit_test(an_answer_before_the_input_was_read_counts),
        cmocka_unit_test(an_answer_to_another_task_is_none),
        cmocka_unit_test(a_hang_ends_at_the_timeout),
        cmocka_unit_test(cancel_ends_it),
        cmocka_unit_test(too_large_a_result_is_not_read),
        cmocka_unit_test(a_command_that_is_not_there_is_broken),
        cmocka_unit_test(the_end_of_its_input_comes_first),
        cmocka_unit_test(who_goes_on_without_input_is_told_to_end),
        cmocka_unit_test(who_will_not_end_is_killed),
        cmocka_unit_test(closed_output_is_a_crash),
        cmocka_unit_test(the_samples_do_what_they_say),
        cmocka_unit_test(lines_are_parsed_one_at_a_time),
        cmocka_unit_test(what_was_large_is_given_back),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (run_play_forbid_pidfd())
        failed += cmocka_run_group_tests_name("without pidfd", tests, NULL, NULL);
    return failed;
}
