/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <string.h>
#include <unistd.h>

#include <pushrod/error.h>
#include "common/options.h"

static const struct param rows[] = {
    {.name = "General", .type = PARAM_TITLE},
    {.name = "color", .type = PARAM_BOOL, .scope = SCOPE_ALL, .help = "use colours", .letter = 'k'},
    {.name = "depth",
        .type = PARAM_UNSIGNED,
        .scope = SCOPE_ALL,
        .initial = "5",
        .min = 1,
        .max = 9,
        .help = "how deep",
        .letter = 'd',
        .flags = PARAM_RELOADABLE},
    {.name = "max-bytes",
        .type = PARAM_SIZE,
        .scope = SCOPE_ALL,
        .initial = "64k",
        .min = 1024,
        .max = 1u << 20,
        .help = "how large"},
    {.name = "wait",
        .type = PARAM_DURATION,
        .scope = SCOPE_ALL,
        .initial = "3s",
        .help = "how long"},
    {.name = "dir", .type = PARAM_STRING, .scope = SCOPE_ALL, .help = "where"},
    {.name = "token",
        .type = PARAM_STRING,
        .scope = SCOPE_ALL,
        .help = "secret",
        .flags = PARAM_SECRET},
    {.name = "first-port",
        .type = PARAM_PORT,
        .scope = SCOPE_ALL,
        .initial = "5570",
        .help = "port",
        .variable = "PUSHROD_FIRST"},
    {.name = "range", .type = PARAM_PORTS, .scope = SCOPE_ALL, .initial = "10-20", .help = "ports"},
    {.name = "join",
        .type = PARAM_HOST_PORTS,
        .scope = SCOPE_ALL,
        .initial = "localhost:5571",
        .help = "server"},
    {.name = "format",
        .type = PARAM_ENUM,
        .scope = SCOPE_ALL,
        .initial = "text",
        .allowed = "text|json",
        .help = "format"},
    {.name = "exec", .type = PARAM_LIST, .scope = SCOPE_ALL, .help = "command"},
    {.name = "Of servers", .type = PARAM_TITLE},
    {.name = "slots",
        .type = PARAM_UNSIGNED,
        .scope = SCOPE_SERVER,
        .initial = "1",
        .help = "slots"},
    {.name = "help", .type = PARAM_BOOL, .scope = SCOPE_ALL, .help = "help", .flags = PARAM_ACTION},
};

static struct params *fresh(void)
{
    struct params *p = params_new(rows, sizeof rows / sizeof *rows, SCOPE_WORKER);
    assert_non_null(p);
    return p;
}

/* Reads flags given as one string for each argument; the operands are not looked at. */
static int flags(struct params *p, const char *a, const char *b)
{
    char *argv[] = {"program", (char *)a, (char *)b, NULL};
    int operands;
    return params_read_flags(p, b ? 3 : 2, argv, &operands, false);
}

static int variable(struct params *p, const char *text)
{
    char *environment[] = {(char *)text, NULL};
    return params_read_environment(p, environment, NULL, NULL);
}

static void file_make(char path[], const char *text, size_t size)
{
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, size), size);
    close(fd);
}

static int file_of(struct params *p, const char *text, size_t size)
{
    char path[] = "/tmp/pushrod-params-XXXXXX";
    file_make(path, text, size);
    int error = params_read_file(p, path);
    unlink(path);
    return error;
}

static int file(struct params *p, const char *text)
{
    return file_of(p, text, strlen(text));
}

#define assert_bad(p, call, wanted)                                                                \
    do {                                                                                           \
        assert_int_equal((call), -PUSHROD_E_BAD_OPTION);                                           \
        if (!strstr(params_error(p), (wanted)))                                                    \
            fail_msg("'%s' does not say '%s'", params_error(p), (wanted));                         \
    } while (0)

static void defaults_hold(void **state)
{
    (void)state;
    struct params *p = fresh();
    size_t count;
    uint16_t first, last;
    assert_false(params_bool(p, "color"));
    assert_int_equal(params_number(p, "depth"), 5);
    assert_int_equal(params_number(p, "max-bytes"), 65536);
    assert_int_equal(params_number(p, "wait"), 3000);
    assert_string_equal(params_text(p, "dir"), "");
    params_ports(p, "range", &first, &last);
    assert_int_equal(first, 10);
    assert_int_equal(last, 20);
    assert_string_equal(params_list(p, "join", &count)[0], "localhost:5571");
    assert_int_equal(count, 1);
    params_list(p, "exec", &count);
    assert_int_equal(count, 0);
    assert_false(params_given(p, "depth"));
    params_free(p);
}

static void higher_sources_win_in_any_order(void **state)
{
    (void)state;
    struct params *p = fresh();
    assert_int_equal(flags(p, "--depth=7", NULL), 0);
    assert_int_equal(variable(p, "PUSHROD_DEPTH=6"), 0);
    assert_int_equal(file(p, "depth = 4\nwait = 9s\n"), 0);
    assert_int_equal(variable(p, "PUSHROD_WAIT=8s"), 0);
    assert_int_equal(params_number(p, "depth"), 7);
    assert_int_equal(params_number(p, "wait"), 8000);
    assert_int_equal(params_set(p, "depth", "2"), 0);
    assert_int_equal(params_number(p, "depth"), 2);
    assert_true(params_given(p, "depth"));
    params_free(p);
}

static void flags_have_many_forms(void **state)
{
    (void)state;
    struct params *p = fresh();
    char *argv[] = {"program", "one", "-kd8", "--max_bytes", "2k", "two", "--format=json", "--exec",
        "a=b", "-", "--exec=c=d;e", "--", "--depth=1", NULL};
    int operands;
    size_t count;
    assert_int_equal(params_read_flags(p, 13, argv, &operands, false), 0);
    assert_int_equal(operands, 4);
    assert_string_equal(argv[1], "one");
    assert_string_equal(argv[3], "-");
    assert_string_equal(argv[4], "--depth=1");
    assert_true(params_bool(p, "color"));
    assert_int_equal(params_number(p, "depth"), 8);
    assert_int_equal(params_number(p, "max-bytes"), 2048);
    assert_int_equal(params_number(p, "format"), 1);
    assert_string_equal(params_list(p, "exec", &count)[1], "c=d;e");
    assert_int_equal(count, 2);
    assert_int_equal(flags(p, "--no-color", NULL), 0);
    assert_false(params_bool(p, "color"));
    params_free(p);
}

static void flags_stop_at_a_command(void **state)
{
    (void)state;
    struct params *p = fresh();
    char *argv[] = {"program", "-k", "submit", "--wait", "-x", NULL};
    int operands;
    assert_int_equal(params_read_flags(p, 5, argv, &operands, true), 0);
    assert_int_equal(operands, 3);
    assert_string_equal(argv[2], "--wait");
    params_free(p);
}

static void wrong_values_say_what_is_allowed(void **state)
{
    (void)state;
    struct params *p = fresh();
    assert_bad(p, flags(p, "--depth", "12"),
        "depth: '12' (from the command line, --depth) is not a number from 1 to 9");
    assert_bad(p, flags(p, "--depth", ""), "''");
    assert_bad(p, flags(p, "--depth", "-1"), "'-1'");
    assert_bad(p, flags(p, "--depth", NULL), "--depth needs a value");
    assert_bad(p, variable(p, "PUSHROD_MAX_BYTES=12x"),
        "(from the environment, PUSHROD_MAX_BYTES) is not a size");
    assert_bad(p, variable(p, "PUSHROD_MAX_BYTES=2m"), "from 1k to 1m");
    assert_bad(p, params_set(p, "wait", "3"), "(from the program) is not a time (250ms");
    assert_bad(p, params_set(p, "wait", "99999999999999999999s"), "time");
    assert_bad(p, params_set(p, "max-bytes", "99999999999999g"), "size");
    assert_bad(p, params_set(p, "format", "tex"), "one of text|json");
    assert_bad(p, params_set(p, "format", ""), "one of text|json");
    assert_bad(p, params_set(p, "format", "text|json"), "one of text|json");
    assert_bad(p, params_set(p, "color", "maybe"), "yes or no");
    assert_bad(p, params_set(p, "first-port", "65536"), "a port");
    assert_bad(p, params_set(p, "range", "9-8"), "a range of ports");
    assert_bad(p, params_set(p, "join", "good:1, bad:x"), "'bad:x'");
    assert_bad(p, params_set(p, "exec", ""), "exec");
    assert_bad(p, file(p, "\n\ndepth = 0\n"), ":3) is not");
    assert_bad(p, file(p, "depth\n"), ":1: expected 'name = value'");
    /* What stands behind it would be left out without a word. */
    assert_bad(p, file_of(p, "depth = 5\nexec = a=b\0c\nx", 24), ":2: the line has a NUL byte");
    assert_bad(p, file_of(p, "\0", 1), ":1: the line has a NUL byte");
    assert_bad(p, params_read_file(p, "/does/not/exist"), "No such file");
    assert_int_equal(params_number(p, "depth"), 5);
    params_free(p);
}

static void unknown_names_suggest_the_nearest(void **state)
{
    (void)state;
    struct params *p = fresh();
    assert_bad(p, flags(p, "--dept=1", NULL), "there is no option --dept; did you mean --depth?");
    assert_bad(p, file(p, "max-byte = 1\n"), "did you mean max-bytes?");
    assert_bad(p, flags(p, "--quite-another", NULL), "there is no option --quite-another");
    assert_null(strstr(params_error(p), "mean"));
    assert_bad(p, flags(p, "-z", NULL), "-z");
    assert_bad(p, flags(p, "--no-depth", NULL), "--no-depth");
    assert_bad(p, flags(p, "--slots=2", NULL), "--slots");
    assert_bad(p, params_set(p, "help", "yes"), "help");
    assert_bad(p, file(p, "help = yes\n"), "help");
    params_free(p);
}

static void count_warning(void *arg, const char *text)
{
    assert_non_null(strstr(text, "PUSHROD_DEPHT"));
    ++*(int *)arg;
}

static void strange_variables_warn(void **state)
{
    (void)state;
    struct params *p = fresh();
    int warnings = 0;
    char *environment[] = {"HOME=/", "PUSHROD_DEPHT=1", "PUSHROD_SERVICE_HOST=10.0.0.1",
        "PUSHROD_PORT_5570_TCP=tcp", "PUSHROD_SERVER_SERVICE_PORT=1", "PUSHROD_TASK_ID=7",
        "PUSHROD_SLOTS=x", "PUSHROD_HEADER_NAME=x", "PUSHROD_DEPTH=", "PUSHROD_HELP=yes", NULL};
    environment[9] = NULL;
    assert_int_equal(params_read_environment(p, environment, count_warning, &warnings), 0);
    assert_int_equal(warnings, 1);
    assert_int_equal(params_number(p, "depth"), 5);
    params_free(p);
}

static void secrets_come_from_files_and_are_hidden(void **state)
{
    (void)state;
    char path[] = "/tmp/pushrod-token-XXXXXX", text[64];
    struct params *p = fresh();
    struct buf out = BUF_EMPTY;
    file_make(path, "s3cret\n", 7);
    snprintf(text, sizeof text, "PUSHROD_TOKEN_FILE=%s", path);
    assert_int_equal(variable(p, text), 0);
    assert_string_equal(params_text(p, "token"), "s3cret");
    params_print_values(p, &out);
    buf_append(&out, "", 1);
    assert_null(strstr((char *)out.data, "s3cret"));
    assert_non_null(strstr((char *)out.data, "(hidden)"));
    assert_int_equal(flags(p, "--token", "other"), 0);
    assert_int_equal(flags(p, "--token-file", path), 0);
    assert_string_equal(params_text(p, "token"), "s3cret");
    assert_bad(p, flags(p, "--token-file", NULL), "--token-file needs a value");
    assert_bad(p, flags(p, "--depth-file", path), "there is no option --depth-file");
    unlink(path);
    assert_bad(p, variable(p, text), "cannot read");
    assert_bad(p, variable(p, "PUSHROD_TOKEN_FILE=/dev/zero"), "no file of under");
    assert_bad(p, flags(p, "--token-file=/dev/zero", NULL), "no file of under");
    buf_free(&out);
    params_free(p);
}

/* A server must not be open to everybody because its secret was not where it should be. */
static void a_secret_is_one_line_of_text(void **state)
{
    (void)state;
    static const char *const wrong[] = {"", "\n", "\r\n\r\n", "one\ntwo\n"};
    struct params *p = fresh();
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        char path[] = "/tmp/pushrod-token-XXXXXX";
        file_make(path, wrong[i], strlen(wrong[i]));
        assert_bad(p, flags(p, "--token-file", path), path);
        unlink(path);
    }
    assert_bad(p, flags(p, "--token-file", "/dev/null"), "/dev/null");
    char path[] = "/tmp/pushrod-token-XXXXXX", text[64];
    file_make(path, "s3cret\r\n", 8);
    snprintf(text, sizeof text, "token_file = %s\n", path);
    assert_int_equal(file(p, text), 0);
    assert_string_equal(params_text(p, "token"), "s3cret");
    unlink(path);
    params_free(p);
}

static void files_take_long_commands(void **state)
{
    (void)state;
    struct params *p = fresh();
    struct buf text = BUF_EMPTY;
    size_t count;
    buf_printf(&text,
        "; a comment\n[any section]\nexec = a=cd / ; echo %0500d\nexec = b=x=y:z\nslots = 3\n%c", 1,
        0);
    assert_int_equal(file(p, (char *)text.data), 0);
    const char *const *exec = params_list(p, "exec", &count);
    assert_int_equal(count, 2);
    assert_int_equal(strlen(exec[0]), 500 + strlen("a=cd / ; echo "));
    assert_string_equal(exec[1], "b=x=y:z");
    /* Flags replace the file's list, and do not add to it. */
    assert_int_equal(flags(p, "--exec=only", NULL), 0);
    params_list(p, "exec", &count);
    assert_int_equal(count, 1);
    assert_int_equal(params_set(p, "exec", NULL), 0);
    params_list(p, "exec", &count);
    assert_int_equal(count, 0);
    buf_free(&text);
    params_free(p);
}

/* As editors on other systems write them. */
static void files_may_have_a_mark_and_blanks_and_end_without_a_newline(void **state)
{
    (void)state;
    struct params *p = fresh();
    assert_int_equal(file(p, "\xef\xbb\xbf"
                             "max-bytes = 64k\r\ndepth = 7"),
        0);
    assert_int_equal(params_number(p, "max-bytes"), 65536);
    assert_int_equal(params_number(p, "depth"), 7);
    assert_bad(p, file(p, "max-bytes = 1k\ndepth = x"), ":2)");
    /* An INI reader may take a line that is indented for more of the value before it. */
    assert_int_equal(file(p, "dir = /here\n\t depth = 8\n  ; wait = 4s\n \r\n wait = 9s\n  "), 0);
    assert_string_equal(params_text(p, "dir"), "/here");
    assert_int_equal(params_number(p, "depth") + params_number(p, "wait"), 9008);
    params_free(p);
}

/* A line that is cut would be a command that nobody wrote. */
static void a_line_that_is_too_long_is_refused(void **state)
{
    (void)state;
    for (int more = 0; more < 2; more++) {
        struct params *p = fresh();
        struct buf text = BUF_EMPTY;
        size_t count;
        buf_printf(&text, "max-bytes = 64k\nexec = a=%0*d", 65535 - 9 + more, 1);
        buf_append(&text, "", 1);
        int error = file(p, (char *)text.data);
        params_list(p, "exec", &count);
        assert_int_equal(count, !more);
        if (more)
            assert_bad(p, error, ":2: the line has more than 65535 bytes");
        else
            assert_int_equal(error, 0);
        buf_free(&text);
        params_free(p);
    }
}

static void hosts_are_split(void **state)
{
    (void)state;
    char host[32];
    uint16_t port = 1;
    assert_true(params_split_host("example.org", host, sizeof host, &port));
    assert_int_equal(port, 1);
    assert_true(params_split_host("[::1]:5571", host, sizeof host, &port));
    assert_string_equal(host, "::1");
    assert_int_equal(port, 5571);
    assert_true(params_split_host("10.0.0.1:0", host, sizeof host, &port));
    assert_int_equal(port, 0);
    const char *const wrong[] = {"", ":1", "[::1", "[]:1", "a:", "a:b", "a:1x", "a:65536", "::1",
        "5570", "--json", "a/b:1", "a,b", "a = b", "a-name-that-is-longer-than-thirty-one-bytes"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_false(params_split_host(wrong[i], host, sizeof host, &port));
}

static void reload_takes_what_can_be_reloaded(void **state)
{
    (void)state;
    struct params *p = fresh(), *next = fresh();
    struct buf report = BUF_EMPTY;
    assert_int_equal(params_set(next, "depth", "9"), 0);
    assert_int_equal(params_set(next, "exec", "x"), 0);
    assert_int_equal(params_reload(p, next, &report), 1);
    assert_int_equal(params_number(p, "depth"), 9);
    size_t count;
    params_list(p, "exec", &count);
    assert_int_equal(count, 0);
    buf_append(&report, "", 1);
    assert_string_equal((char *)report.data, "depth changed\nexec changed, but needs a restart\n");
    buf_free(&report);
    params_free(p);
    params_free(next);
}

/* On a terminal of the usual width. */
static void assert_lines_fit(struct buf *text)
{
    buf_append(text, "", 1);
    text->size--;
    for (const char *line = (const char *)text->data; *line;) {
        size_t size = strcspn(line, "\n");
        if (size > 80)
            fail_msg("%zu columns: %.*s", size, (int)size, line);
        line += size + (line[size] == '\n');
    }
}

/* The real table: well-formed for each program; what is printed can be read again. */
static void real_table_prints_what_can_be_read(void **state)
{
    (void)state;
    for (unsigned scope = 1; scope < SCOPE_ALL; scope <<= 1) {
        struct params *p = params_new(option_rows, option_count, scope);
        assert_non_null(p);
        struct buf out = BUF_EMPTY;
        params_print_sample(p, &out);
        buf_append(&out, "", 1);
        assert_int_equal(file(p, (char *)out.data), 0);
        /* Uncommented, the sample sets every option that has a default to it. */
        for (char *c = (char *)out.data; (c = strstr(c, "\n;")); c++)
            if (c[2] >= 'a' && c[2] <= 'z' && strcspn(c, "=") + 2 < strcspn(c + 1, "\n"))
                memmove(c + 1, c + 2, strlen(c + 1));
        if (file(p, (char *)out.data) != 0)
            fail_msg("%s", params_error(p));
        buf_clear(&out);
        params_print_values(p, &out);
        buf_append(&out, "", 1);
        if (file(p, (char *)out.data) != 0)
            fail_msg("%s", params_error(p));
        buf_clear(&out);
        params_print_help(p, &out);
        assert_lines_fit(&out);
        params_print_man(p, &out);
        params_print_completion(p, &out);
        buf_append(&out, "", 1);
        assert_non_null(strstr((char *)out.data, "--config FILE"));
        assert_non_null(strstr((char *)out.data, ".B \\-c, \\-\\-config FILE"));
        assert_non_null(strstr((char *)out.data, "\n--config\t"));
        buf_free(&out);
        params_free(p);
    }
}

/* --max-tasks bounds the queues of a server; a worker leaves after so many. */
static void one_name_is_another_option_in_another_program(void **state)
{
    (void)state;
    struct params *server = params_new(option_rows, option_count, SCOPE_SERVER);
    struct params *worker = params_new(option_rows, option_count, SCOPE_WORKER);
    static char *const both[] = {"PUSHROD_MAX_TASKS=7", "PUSHROD_IO_THREADS=3", NULL};
    assert_int_equal(params_read_environment(server, both, NULL, NULL), 0);
    assert_int_equal(params_read_environment(worker, both, NULL, NULL), 0);
    assert_int_equal(params_number(worker, "io-threads"), 3);
    assert_int_equal(params_number(server, "max-tasks"), 7);
    assert_int_equal(params_number(worker, "max-tasks"), 0);
    assert_true(!flags(worker, "--max-tasks", "3") && params_number(worker, "max-tasks") == 3);
    params_free(server);
    params_free(worker);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_hold),
        cmocka_unit_test(higher_sources_win_in_any_order),
        cmocka_unit_test(flags_have_many_forms),
        cmocka_unit_test(flags_stop_at_a_command),
        cmocka_unit_test(wrong_values_say_what_is_allowed),
        cmocka_unit_test(unknown_names_suggest_the_nearest),
        cmocka_unit_test(strange_variables_warn),
        cmocka_unit_test(secrets_come_from_files_and_are_hidden),
        cmocka_unit_test(a_secret_is_one_line_of_text),
        cmocka_unit_test(files_take_long_commands),
        cmocka_unit_test(files_may_have_a_mark_and_blanks_and_end_without_a_newline),
        cmocka_unit_test(a_line_that_is_too_long_is_refused),
        cmocka_unit_test(hosts_are_split),
        cmocka_unit_test(reload_takes_what_can_be_reloaded),
        cmocka_unit_test(one_name_is_another_option_in_another_program),
        cmocka_unit_test(real_table_prints_what_can_be_read),
    };
    return cmocka_run_group_tests_name("params", tests, NULL, NULL);
}
