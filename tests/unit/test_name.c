/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <string.h>

#include "common/name.h"

static bool valid(const char *name)
{
    return name_valid(slice_str(name));
}

static void names_are_of_the_alphabet(void **state)
{
    (void)state;
    char text[130];
    memset(text, 'a', sizeof text);
    assert_true(valid("mail.send:v2/high+low-1_X"));
    assert_false(valid(""));
    assert_false(name_valid((struct slice){0}));
    assert_true(name_valid(slice_of(text, 128)));
    assert_false(name_valid(slice_of(text, 129)));
    for (int c = 0; c < 256; c++) {
        char one = (char)c;
        bool good =
            c && strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:/+-", c);
        assert_int_equal(name_valid(slice_of(&one, 1)), good);
    }
}

static void patterns_end_in_a_star(void **state)
{
    (void)state;
    char text[130];
    memset(text, 'a', sizeof text);
    text[127] = '*';
    assert_true(name_pattern_valid(slice_of(text, 128)));
    text[127] = 'a';
    text[128] = '*';
    assert_false(name_pattern_valid(slice_of(text, 129)));
    assert_true(name_pattern_valid(slice_str("*")));
    assert_true(name_pattern_valid(slice_str("mail.*")));
    assert_true(name_pattern_valid(slice_str("mail")));
    assert_false(name_pattern_valid(slice_str("")));
    assert_false(name_pattern_valid(slice_str("a*b")));
    assert_false(name_pattern_valid(slice_str("**")));
    assert_false(valid("mail.*"));
}

static bool matches(const char *pattern, const char *name)
{
    return name_matches(slice_str(pattern), slice_str(name));
}

static void patterns_match_beginnings(void **state)
{
    (void)state;
    assert_true(matches("*", "anything"));
    assert_true(matches("mail.*", "mail.send"));
    assert_true(matches("mail.*", "mail."));
    assert_false(matches("mail.*", "mail"));
    assert_true(matches("mail", "mail"));
    assert_false(matches("mail", "mails"));
}

static unsigned specificity(const char *pattern)
{
    return name_specificity(slice_str(pattern));
}

static void specific_patterns_win(void **state)
{
    (void)state;
    char text[128];
    memset(text, 'a', sizeof text);
    text[127] = '*';
    assert_true(specificity("a") > name_specificity(slice_of(text, 128)));
    assert_true(specificity("mail.send.*") > specificity("mail.*"));
    assert_true(specificity("mail.*") > specificity("*"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_of_the_alphabet),
        cmocka_unit_test(patterns_end_in_a_star),
        cmocka_unit_test(patterns_match_beginnings),
        cmocka_unit_test(specific_patterns_win),
    };
    return cmocka_run_group_tests_name("name", tests, NULL, NULL);
}
