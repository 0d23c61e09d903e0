/* SPDX-License-Identifier: Apache-2.0 */
/* Whose fault 126 and 127 are: the command's, or what it was given. */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/unit.h"
#include "worker/command.h"

static bool broken(const char *command)
{
    return command_is_broken(command, 127, false);
}

static bool broken_though_it_worked(const char *command)
{
    return command_is_broken(command, 127, true);
}

static void a_program_that_is_there_is_not_broken(void **state)
{
    (void)state;
    static const char *const commands[] = {"sh", "  sh -c \"$x\"", "/bin/sh -s", "exec sh",
        "xargs -n1", "exec  env FOO=1 sh", "sh <in >out"};
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        assert_false(broken(commands[i]));
}

static void a_path_to_nothing_is_broken_whatever_was(void **state)
{
    (void)state;
    assert_true(broken_though_it_worked("/no/such/program --now"));
    assert_true(broken_though_it_worked("exec ./none"));
    assert_true(broken_though_it_worked("/etc/passwd")); /* not to be executed */
    assert_true(broken_though_it_worked("/tmp"));
    assert_true(broken_though_it_worked("/bin/sh/"));
}

/* Nothing is known of these: they are believed once they have ended well. */
static void what_only_the_shell_understands_is_broken_until_it_has_worked(void **state)
{
    (void)state;
    static const char *const commands[] = {"no-such-program", "cat | no-such-program", "cd / && sh",
        "sleep 0; exit 127", "A=1 sh", "'sh'", "$SHELL", "(sh)", "read x; sh", "sh -c 'a; b'", "",
        "exec", "if", "sh\nno-such-program", "~/sh"};
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        assert_true(broken(commands[i]));
        assert_false(broken_though_it_worked(commands[i]));
    }
}

static void any_other_exit_is_an_attempt_that_failed(void **state)
{
    (void)state;
    assert_true(command_is_broken("/no/such/program", 126, false));
    assert_false(command_is_broken("/no/such/program", 1, false));
    assert_false(command_is_broken("/no/such/program", 128, false));
    assert_false(command_is_broken("/no/such/program", -1, false)); /* a signal */
}

static void an_empty_part_of_path_is_here(void **state)
{
    (void)state;
    char here[] = "/tmp/pushrod-command-XXXXXX", old[4096], *path = strdup(getenv("PATH"));
    assert_non_null(getcwd(old, sizeof old));
    assert_non_null(mkdtemp(here));
    assert_int_equal(chdir(here), 0);
    FILE *file = fopen("tool", "w");
    assert_non_null(file);
    assert_int_equal(fchmod(fileno(file), 0700), 0);
    fclose(file);
    setenv("PATH", "/no/such:", 1);
    assert_false(broken("tool"));
    setenv("PATH", "/no/such", 1);
    assert_true(broken("tool"));
    setenv("PATH", path, 1);
    free(path);
    assert_int_equal(unlink("tool"), 0);
    assert_int_equal(chdir(old), 0);
    assert_int_equal(rmdir(here), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_program_that_is_there_is_not_broken),
        cmocka_unit_test(a_path_to_nothing_is_broken_whatever_was),
        cmocka_unit_test(what_only_the_shell_understands_is_broken_until_it_has_worked),
        cmocka_unit_test(any_other_exit_is_an_attempt_that_failed),
        cmocka_unit_test(an_empty_part_of_path_is_here),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
