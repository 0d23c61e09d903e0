/* SPDX-License-Identifier: Apache-2.0 */
/* Secrets in files, which are read again: those who have them change them while programs run. */
#include "tests/unit/unit.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/options.h"

static char path[64];

static void put(const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static int start(void **state)
{
    (void)state;
    strcpy(path, "/tmp/pushrod-secret-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    put("one\n");
    return 0;
}

static int stop(void **state)
{
    (void)state;
    unlink(path);
    return 0;
}

static struct params *fresh(void)
{
    struct params *p = params_new(option_rows, option_count, SCOPE_WORKER);
    assert_non_null(p);
    return p;
}

static int flags(struct params *p, const char *flag, const char *value)
{
    char *argv[] = {
        (char *)(uintptr_t) "test", (char *)(uintptr_t)flag, (char *)(uintptr_t)value, NULL};
    return params_read_flags(p, 3, argv, NULL, false);
}

static int variable(struct params *p)
{
    char text[128];
    char *environment[] = {text, NULL};
    snprintf(text, sizeof text, "PUSHROD_TOKEN_FILE=%s", path);
    return params_read_environment(p, environment, NULL, NULL);
}

static int file(struct params *p)
{
    char name[] = "/tmp/pushrod-conf-XXXXXX";
    int fd = mkstemp(name);
    assert_true(fd >= 0 && dprintf(fd, "token-file = %s\n", path) > 0);
    close(fd);
    int error = params_read_file(p, name);
    unlink(name);
    return error;
}

static void assert_renewed(struct params *p)
{
    assert_string_equal(params_text(p, "token"), "one");
    assert_int_equal(params_renew_secrets(p), 0);
    put("two\n");
    assert_int_equal(params_renew_secrets(p), 1);
    assert_string_equal(params_text(p, "token"), "two");
    assert_int_equal(params_renew_secrets(p), 0);
    put("one\n");
    params_free(p);
}

static void wherever_the_file_was_named(void **state)
{
    (void)state;
    struct params *p = fresh();
    assert_int_equal(flags(p, "--token-file", path), 0);
    assert_renewed(p);
    p = fresh();
    assert_int_equal(variable(p), 0);
    assert_renewed(p);
    p = fresh();
    assert_int_equal(file(p), 0);
    assert_renewed(p);
}

/* A file that a higher source has made meaningless stays so. */
static void only_what_is_in_use(void **state)
{
    (void)state;
    struct params *p = fresh();
    assert_int_equal(flags(p, "--token", "mine"), 0);
    assert_int_equal(variable(p), 0);
    put("two\n");
    assert_int_equal(params_renew_secrets(p), 0);
    assert_string_equal(params_text(p, "token"), "mine");
    params_free(p);
    p = fresh();
    assert_int_equal(variable(p), 0);
    assert_int_equal(flags(p, "--token", "mine"), 0);
    put("three\n");
    assert_int_equal(params_renew_secrets(p), 0);
    assert_string_equal(params_text(p, "token"), "mine");
    params_free(p);
}

/* Somebody writes it just now, or has removed it: better the old one than none. */
static void what_cannot_be_read_leaves_the_old_one(void **state)
{
    (void)state;
    struct params *p = fresh();
    assert_int_equal(flags(p, "--token-file", path), 0);
    put("");
    assert_true(params_renew_secrets(p) < 0);
    assert_non_null(strstr(params_error(p), path));
    unlink(path);
    assert_true(params_renew_secrets(p) < 0);
    assert_non_null(strstr(params_error(p), path));
    assert_string_equal(params_text(p, "token"), "one");
    put("two");
    assert_int_equal(params_renew_secrets(p), 1);
    params_free(p);
}

/* It can be read once: `--token-file <(pass show token)`. The second time would wait for ever. */
static void what_is_no_file_is_not_read_again(void **state)
{
    (void)state;
    struct params *p = fresh();
    assert_int_equal(flags(p, "--token-file", path), 0);
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(params_renew_secrets(p), 0);
    assert_string_equal(params_text(p, "token"), "one");
    params_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(wherever_the_file_was_named, start, stop),
        cmocka_unit_test_setup_teardown(only_what_is_in_use, start, stop),
        cmocka_unit_test_setup_teardown(what_cannot_be_read_leaves_the_old_one, start, stop),
        cmocka_unit_test_setup_teardown(what_is_no_file_is_not_read_again, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
