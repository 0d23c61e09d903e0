/* SPDX-License-Identifier: Apache-2.0 */
/* pushrod-server: the server library with every option of the table, and nothing else. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/log.h"
#include "common/memory.h"
#include "common/options.h"
#include "server/api.h"

#define EXIT_USAGE 2

extern char **environ;

/* What SIGHUP reads again. */
static int main_argc;
static char **main_argv;

/* ---------------------------------------------------------------------------------- options */

static void unknown_variable(void *arg, const char *text)
{
    buf_append(arg, text, strlen(text) + 1);
}

/* In the form that log-format asks for, which is known when everything is read. */
static void unknown_log(const struct buf *unknown)
{
    const char *text = (const char *)unknown->data;
    for (size_t at = 0; at < unknown->size; at += strlen(text + at) + 1)
        log_warning("%s", text + at);
}

/*
 * Flags, environment, file; 0, or an error that params_error() tells. `unknown`: warnings, each
 * with its NUL.
 */
static int options_read(struct params *p, int argc, char **argv, struct buf *unknown)
{
    int operands = 0;
    int error = params_read_flags(p, argc, argv, &operands, false);
    if (error)
        return error;
    if (operands) {
        fprintf(stderr, "pushrod-server: '%s' is no option (pushrod-server --help)\n", argv[1]);
        exit(EXIT_USAGE);
    }
    error = params_read_environment(p, environ, unknown_variable, unknown);
    const char *file = error ? "" : params_text(p, "config");
    return file[0] ? params_read_file(p, file) : error;
}

/* The flags were permuted by the first reading, which changes nothing for the second. */
static void options_reload(struct pushrod_server *s)
{
    struct params *fresh = params_new(option_rows, option_count, SCOPE_SERVER);
    struct buf unknown = BUF_EMPTY;
    if (!fresh)
        return;
    if (options_read(fresh, main_argc, main_argv, &unknown))
        log_error("reload: %s; nothing was changed", params_error(fresh));
    else
        reload_apply(s, fresh);
    unknown_log(&unknown);
    buf_free(&unknown);
    params_free(fresh);
}

/* ---------------------------------------------------------------------------------- actions */

static void print_usage(const struct params *p, struct buf *out)
{
    buf_printf(out,
        "usage: pushrod-server [OPTION]...\n\n"
        "Takes tasks from clients and hands them to workers, which may run on any host.\n"
        "Everything listens on loopback until it is told otherwise.\n\n"
        "  pushrod-server                                      then start workers\n"
        "  pushrod-server --workers 4 --exec digest=sha256sum  a whole system at once\n"
        "  pushrod-server --data /var/lib/pushrod              tasks survive everything\n");
    params_print_help(p, out);
    buf_printf(out,
        "\nEach option can also be set as PUSHROD_NAME in the environment, or as a line\n"
        "\"name = value\" in the --config file. SIGTERM drains and stops, the second one at\n"
        "once; SIGHUP reads the options again; SIGUSR2 replaces the local workers one by\n"
        "one.\n");
}

static void print_version(const struct params *p, struct buf *out)
{
    (void)p;
    buf_printf(out, "pushrod-server " PUSHROD_VERSION "\n");
}

/* Options that print something and exit, in the order in which they are looked for. */
static const struct {
    const char *name;
    void (*print)(const struct params *p, struct buf *out);
} print_actions[] = {
    {"help", print_usage},
    {"version", print_version},
    {"print-sample", params_print_sample},
    {"print-man", params_print_man},
    {"print-completion", params_print_completion},
    {"print-config", params_print_values},
};

/* False: nothing was asked for. *code: the exit code. */
static bool print_asked(const struct params *p, int *code)
{
    for (size_t i = 0; i < sizeof print_actions / sizeof print_actions[0]; i++) {
        if (!params_bool(p, print_actions[i].name))
            continue;
        struct buf out = BUF_EMPTY;
        print_actions[i].print(p, &out);
        bool done = fwrite(out.data, 1, out.size, stdout) == out.size && fflush(stdout) == 0;
        if (!done)
            fprintf(stderr, "pushrod-server: cannot print: %s\n", strerror(errno));
        buf_free(&out);
        *code = done ? EXIT_SUCCESS : EXIT_FAILURE;
        return true;
    }
    return false;
}

/* ----------------------------------------------------------------------------------- running */

/* As others have to write it: IPv6 addresses in brackets. */
static void say_address(const char *what, const char *scheme, const char *host, int port)
{
    bool v6 = strchr(host, ':') != NULL;
    printf(v6 ? "  %-8s %s[%s]:%d" : "  %-8s %s%s:%d", what, scheme, host, port);
}

static void say_addresses(
    struct pushrod_server *s, const char *what, const char *option, const char *scheme)
{
    size_t count;
    const char *const *items = params_list(s->params, option, &count);
    for (unsigned i = 0; i < count; i++) {
        char host[256];
        uint16_t port = 0;
        int bound = pushrod_server_port(s, option, i);
        if (bound < 0 || !params_split_host(items[i], host, sizeof host, &port))
            continue;
        say_address(what, scheme, host, bound);
        printf("\n");
    }
}

static void say_started(struct pushrod_server *s)
{
    uint16_t first, last;
    int join = pushrod_server_port(s, "join", 0);
    params_ports(s->params, "lane-ports", &first, &last);
    const char *data = params_text(s->params, "data");
    bool durable = data && data[0];
    printf("pushrod-server " PUSHROD_VERSION ", %s%s\n", durable ? "data: " : "tasks are in memory",
        durable ? data : " only");
    say_addresses(s, "clients", "listen", "");
    say_address("workers", "", params_text(s->params, "worker-listen"), join);
    printf(" (answers %d, lanes %u-%u)\n", pushrod_server_port(s, "answers", 0), first, last);
    say_addresses(s, "http", "http", "http://");
    if (local_wanted(s))
        printf("next: pushrod workers; pushrod submit QUEUE --wait <<< hello\n");
    else
        printf("next: pushrod-worker --join HOST:%d --exec digest=sha256sum\n", join);
    fflush(stdout);
}

static int fail(const struct pushrod_server *s, int code)
{
    fprintf(stderr, "pushrod-server: %s\n", pushrod_server_error(s));
    return code == -PUSHROD_E_BAD_OPTION ? EXIT_USAGE : EXIT_FAILURE;
}

static int check_config(struct pushrod_server *s)
{
    struct host_settings settings;
    int error = settings_read(s, &settings);
    if (error)
        return fail(s, error);
    settings_free(&settings);
    error = local_check(s);
    if (error)
        return fail(s, error);
    printf("the options are valid\n");
    return EXIT_SUCCESS;
}

static int serve(struct pushrod_server *s)
{
    s->reload = options_reload;
    pushrod_server_catch_signals(s, true);
    int error = pushrod_server_start(s);
    if (error)
        return fail(s, error);
    say_started(s);
    error = pushrod_server_run(s);
    if (error)
        return fail(s, error);
    log_info("stopped");
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    log_open_standard();
    memory_keep_large();
    struct pushrod_server *s = pushrod_server_new();
    if (!s) {
        fprintf(stderr, "pushrod-server: out of memory\n");
        return EXIT_FAILURE;
    }
    s->program = true;
    main_argc = argc;
    main_argv = argv;
    struct buf unknown = BUF_EMPTY;
    int code = EXIT_USAGE, error = options_read(s->params, argc, argv, &unknown);
    settings_log(s);
    unknown_log(&unknown);
    buf_free(&unknown);
    if (error)
        fprintf(stderr, "pushrod-server: %s (pushrod-server --help)\n", params_error(s->params));
    else if (!print_asked(s->params, &code))
        code = params_bool(s->params, "check-config") ? check_config(s) : serve(s);
    pushrod_server_free(s);
    return code;
}
