/* SPDX-License-Identifier: Apache-2.0 */
/* What `pushrod map` makes of an input that cannot be read to its end. */
#include "tests/unit/unit.h"

#include <fcntl.h>

#include "client/map_input.c"

/* A pipe that has the text and becomes, once that is read, what no read() succeeds on. */
static struct input input_that_breaks(const char *text)
{
    int fds[2], directory = open("/", O_RDONLY | O_DIRECTORY);
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(write(fds[1], text, strlen(text)), strlen(text));
    struct input in = {.fd = fds[0], .delimiter = '\n', .limit = 10};
    input_fill(&in);
    assert_int_equal(dup2(directory, in.fd), in.fd);
    close(directory);
    close(fds[1]);
    return in;
}

static void expect_line(struct input *in, const char *wanted)
{
    struct slice line;
    assert_int_equal(input_next(in, &line), INPUT_ONE);
    assert_true(slice_equal(line, slice_str(wanted)));
}

/* Half a line would be taken for another input. */
static void what_was_read_in_part_is_no_input(void **state)
{
    static const char *const texts[] = {"one\ntwo\nthr", "one\ntwo\n", "one\ntwo\nlonger than ten"};
    struct slice line;
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct input in = input_that_breaks(texts[i]);
        expect_line(&in, "one");
        expect_line(&in, "two");
        enum input_result result = input_next(&in, &line);
        assert_int_equal(result, i == 2 ? INPUT_TOO_LONG : INPUT_AGAIN);
        input_fill(&in);
        assert_int_equal(input_next(&in, &line), INPUT_FAILED);
        assert_int_equal(in.why, EISDIR);
        assert_int_equal(input_next(&in, &line), INPUT_FAILED);
        close(in.fd);
        input_free(&in);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_read_in_part_is_no_input),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
