/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"

/* What log_write() puts on standard error for the message, in `line`. */
static size_t logged(char line[8192], enum log_level level, const char *message)
{
    int ends[2], saved = dup(STDERR_FILENO);
    assert_int_equal(pipe(ends), 0);
    assert_true(dup2(ends[1], STDERR_FILENO) >= 0);
    log_write(level, "%s", message);
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(ends[1]);
    ssize_t size = read(ends[0], line, 8191);
    assert_true(size >= 0);
    line[size] = '\0';
    close(ends[0]);
    return (size_t)size;
}

/* A library is not the program that people have started. */
static void the_name_is_the_programs(void **state)
{
    (void)state;
    char line[8192];
    assert_true(logged(line, LOG_WARNING, "before any setup") > 0);
    assert_non_null(strstr(line, " test_log["));
    log_setup(NULL, LOG_DEBUG, false);
    assert_true(logged(line, LOG_DEBUG, "x") > 0);
    assert_non_null(strstr(line, " test_log["));
}

static void text_lines_are_whole_and_harmless(void **state)
{
    (void)state;
    char line[8192];
    log_setup("tester", LOG_INFO, false);
    assert_true(logged(line, LOG_WARNING, "a\nb\x1b[2J") > 0);
    assert_non_null(strstr(line, "tester["));
    assert_non_null(strstr(line, "] warning: a\\x0ab\\x1b[2J\n"));
    logged(line, LOG_WARNING, "\xc3\xa4 \xff \xc2\x9b");
    assert_non_null(strstr(line, "\xc3\xa4 \\xff \\xc2\\x9b\n"));
    assert_int_equal(line[10], 'T');
    assert_int_equal(logged(line, LOG_DEBUG, "x"), 0);
    assert_false(log_enabled(LOG_DEBUG));
}

static void long_messages_are_cut(void **state)
{
    (void)state;
    char line[8192], message[6000];
    memset(message, 'm', sizeof message - 1);
    message[sizeof message - 1] = '\0';
    log_setup("tester", LOG_DEBUG, false);
    size_t size = logged(line, LOG_DEBUG, message);
    assert_in_range(size, 1000, 4096);
    assert_string_equal(line + size - 4, "...\n");
    memset(message, 1, sizeof message - 1);
    log_setup("tester", LOG_DEBUG, true);
    size = logged(line, LOG_ERROR, message);
    assert_in_range(size, 1000, 4096);
    assert_string_equal(line + size - 3, "\"}\n");
}

static void json_lines_are_json(void **state)
{
    (void)state;
    char line[8192];
    log_setup("tester", LOG_INFO, true);
    logged(line, LOG_ERROR, "say \"x\\y\"\tnow");
    json_t *json = json_loads(line, 0, NULL);
    assert_non_null(json);
    assert_string_equal(json_string_value(json_object_get(json, "text")), "say \"x\\y\"\tnow");
    assert_string_equal(json_string_value(json_object_get(json, "level")), "error");
    json_decref(json);
}

/* A task's error text is whatever its command said; a message that is cut may end within a
 * character. */
static void json_lines_are_text_whatever_they_quote(void **state)
{
    (void)state;
    char line[8192], message[3000];
    log_setup("tester", LOG_INFO, true);
    logged(line, LOG_ERROR,
        "\xc3\xa4 \xff \xe2\x82 \xc2\x9b"
        "2J \xed\xa0\x80");
    json_t *json = json_loads(line, 0, NULL);
    assert_non_null(json);
    const char *text = json_string_value(json_object_get(json, "text"));
    assert_memory_equal(text, "\xc3\xa4 \xef\xbf\xbd ", 7);
    assert_null(strstr(text, "\xc2\x9b"));
    json_decref(json);
    for (size_t shift = 0; shift < 3; shift++) {
        memset(message, 'm', sizeof message);
        for (size_t i = shift; i + 3 < sizeof message; i += 3)
            memcpy(message + i, "\xe2\x82\xac", 3);
        message[sizeof message - 1] = '\0';
        logged(line, LOG_ERROR, message);
        json = json_loads(line, 0, NULL);
        assert_non_null(json);
        json_decref(json);
    }
}

/* The clock is not waited for: the limit's own mark is put into the past. */
static void limit_lets_one_a_second(void **state)
{
    (void)state;
    struct log_limit limit = {0};
    unsigned allowed = 0;
    char more[LOG_MORE] = "?";
    assert_true(log_allowed(&limit, more));
    assert_string_equal(more, "");
    for (int i = 0; i < 100; i++)
        allowed += log_allowed(&limit, more);
    assert_in_range(allowed, 0, 1); /* the second may have ended meanwhile */
    limit.suppressed = 7;
    limit.second -= 10;
    assert_true(log_allowed(&limit, more));
    assert_string_equal(more, " (and 7 more before)");
}

/* As of a pipe to a program that has ended: nobody dies for a line that nobody reads. */
static void who_logs_to_nobody_lives(void **state)
{
    int ends[2], saved = dup(STDERR_FILENO);
    sigset_t pending;
    (void)state;
    signal(SIGPIPE, SIG_DFL);
    assert_int_equal(pipe(ends), 0);
    close(ends[0]);
    assert_true(dup2(ends[1], STDERR_FILENO) >= 0);
    log_setup("tester", LOG_INFO, false);
    log_write(LOG_WARNING, "nobody");
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(ends[1]);
    assert_int_equal(sigpending(&pending), 0);
    assert_false(sigismember(&pending, SIGPIPE));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_name_is_the_programs),
        cmocka_unit_test(text_lines_are_whole_and_harmless),
        cmocka_unit_test(long_messages_are_cut),
        cmocka_unit_test(json_lines_are_json),
        cmocka_unit_test(json_lines_are_text_whatever_they_quote),
        cmocka_unit_test(limit_lets_one_a_second),
        cmocka_unit_test(who_logs_to_nobody_lives),
    };
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
