/* SPDX-License-Identifier: Apache-2.0 */
/* What is made of texts for people, above all of errors: in one line the reason must survive. */
#define _GNU_SOURCE /* as the file under test */
#include "tests/unit/unit.h"

#include <string.h>

#include "client/text.c"

#define PYTHON                                                                                     \
    "Traceback (most recent call last):\n  File \"/srv/h.py\", line 9, in <module>\n"              \
    "    main()\n    ~~~~^^\n  File \"/srv/h.py\", line 7, in main\n    find(key)\n"               \
    "KeyError: 'the important reason'\n"
#define PHP                                                                                        \
    "PHP Fatal error:  Uncaught RuntimeException: the important reason in /srv/h.php:3\n"          \
    "Stack trace:\n#0 /srv/h.php(7): find()\n#1 {main}\n  thrown in /srv/h.php on line 3\n"
#define JAVA                                                                                       \
    "Exception in thread \"main\" java.lang.IllegalStateException: the important reason\n"         \
    "\tat H.find(H.java:3)\n\tat H.main(H.java:7)\n"

static void is_reason(const char *text, size_t width, const char *wanted)
{
    struct buf line = BUF_EMPTY;
    text_reason(&line, text, strlen(text), width);
    buf_append(&line, "", 1);
    assert_string_equal(line.data, wanted);
    assert_true(shown_width((const char *)line.data) <= width);
    buf_free(&line);
}

static void what_fits_is_told_whole(void **state)
{
    (void)state;
    is_reason("", 80, "");
    is_reason("\n \n", 80, "");
    is_reason("no luck\n", 80, "no luck");
    is_reason("one\n\n   two \r\n\33[2Jthree", 80, "one two  [2Jthree");
    is_reason(PYTHON, SIZE_MAX,
        "Traceback (most recent call last): File \"/srv/h.py\", line 9, in <module> main() ~~~~^^ "
        "File \"/srv/h.py\", line 7, in main find(key) KeyError: 'the important reason'");
}

static void the_reason_survives(void **state)
{
    (void)state;
    is_reason(
        PYTHON, 80, "Traceback (most recent call last): ... KeyError: 'the important reason'");
    is_reason(PYTHON, 50, "Traceback (mo ... KeyError: 'the important reason'");
    is_reason(PYTHON, 40, "KeyError: 'the important reason'");
    is_reason(PYTHON, 20, "KeyError: 'the im...");
    is_reason(PHP, 80,
        "PHP Fatal error:  Uncaught RuntimeException: the important reason in /srv/h.p...");
    is_reason(JAVA, 90,
        "Exception in thread \"main\" java.lang.IllegalStateException: the important reason");
    is_reason("read 17 rows\nread 4 rows\nh.c:12: main: Assertion `rows > 9' failed.\n", 60,
        "read 17 rows ... h.c:12: main: Assertion `rows > 9' failed.");
    is_reason("+ cd /srv\n+ make all\nmake: *** No rule to make target 'all'.  Stop.\n", 64,
        "+ cd /srv ... make: *** No rule to make target 'all'.  Stop.");
    is_reason("sh: 1: foo:\n  it is nowhere to be found", 30, "it is nowhere to be found");
    is_reason("\303\244\303\244\303\244\303\244\n\303\266\303\266", 5, "\303\266\303\266");
}

/* A log that ends in a long line, and one that begins with it. */
static void no_width_is_exceeded(void **state)
{
    (void)state;
    char text[600];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    for (size_t at = 1; at < sizeof text - 1; at += 97) {
        text[at] = '\n';
        for (size_t width = 0; width < sizeof text; width += width < 3 ? 1 : 13) {
            struct buf line = BUF_EMPTY;
            text_reason(&line, text, strlen(text), width);
            assert_true(line.size <= width && !line.size == !width);
            buf_free(&line);
        }
    }
}

static void a_table_cuts_its_errors_where_they_say_least(void **state)
{
    (void)state;
    static const char *const titles[] = {"-ID", "ERROR"};
    static const struct {
        unsigned width;
        const char *text;
    } wanted[] = {{60, "ID  ERROR\n 7  TASK_FAILED: Traceb ... KeyError: 'the important reason'\n"},
        {40, "ID  ERROR\n 7  KeyError: 'the important reason'\n"},
        {0, "ID  ERROR\n 7  TASK_FAILED: Traceback: f() KeyError: 'the important reason'\n"}};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        struct table t;
        struct buf out = BUF_EMPTY;
        table_begin(&t, titles, 2);
        table_cell(&t, "%d", 7);
        table_reason(&t, "TASK_FAILED: ", "Traceback:\n  f()\nKeyError: 'the important reason'");
        table_end(&t, &out, wanted[i].width);
        buf_append(&out, "", 1);
        assert_string_equal(out.data, wanted[i].text);
        buf_free(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_fits_is_told_whole),
        cmocka_unit_test(the_reason_survives),
        cmocka_unit_test(no_width_is_exceeded),
        cmocka_unit_test(a_table_cuts_its_errors_where_they_say_least),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
