/* SPDX-License-Identifier: Apache-2.0 */
/* pushrod-server: the server library with every option of the table, and nothing else. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/log.h"
#include "common/memory.h"
#include "common/options.h"
#include "common/program.h"
#include "server/api.h"

#define EXIT_USAGE 2

/* What SIGHUP reads again. */
static int main_argc;
static char **main_argv;

/* ---------------------------------------------------------------------------------- options */

/* A file that is just being written is short, and has no token yet. */
static bool token_lost(const struct pushrod_server *s, const struct params *fresh)
{
    return params_text(s->params, "token")[0] && !params_text(fresh, "token")[0];
}

/* The flags were permuted by the first reading, which changes nothing for the second. */
static void options_reload(struct pushrod_server *s)
{
    const char *once = params_read_once(s->params);
    struct params *fresh = once ? NULL : params_new(option_rows, option_count, SCOPE_SERVER);
    struct buf unknown = BUF_EMPTY;
    if (once)
        log_error("reload: '%s' is no file that can be read again; nothing was changed", once);
    if (!fresh)
        return;
    if (program_options(fresh, main_argc, main_argv, &unknown))
        log_error("reload: %s; nothing was changed", params_error(fresh));
    else if (token_lost(s, fresh))
        log_error("reload: the token is gone, and without one anybody may come: restart the "
                  "server if that is meant; nothing was changed");
    else
        reload_apply(s, fresh);
    program_warn(&unknown);
    params_free(fresh);
}

static const struct program program = {
    .name = "pushrod-server",
    .usage = "usage: pushrod-server [OPTION]...\n\n"
             "Takes tasks from clients and hands them to workers, which may run on any host.\n"
             "Everything listens on loopback until it is told otherwise.\n\n"
             "  pushrod-server                                      then start workers\n"
             "  pushrod-server --workers 4 --exec digest=sha256sum  a whole system at once\n"
             "  pushrod-server --data /var/lib/pushrod              tasks survive everything\n",
    .notes = "\nEach option can also be set in the environment, as PUSHROD_NAME or by the name\n"
             "that stands beside it, or as a line \"name = value\" in the --config file. SIGTERM\n"
             "drains and stops, the second one at once; SIGHUP reads the file again;\n"
             "SIGUSR2 replaces the local workers one by one.\n",
};

/* ----------------------------------------------------------------------------------- running */

static void say_address(const char *what, const char *scheme, const char *host, int port)
{
    char address[300];
    params_join_host(address, sizeof address, host, (unsigned)port);
    printf("  %-8s %s%s", what, scheme, address);
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

/* A command that works, if there is one for every host. */
static void say_worker(struct pushrod_server *s, int join)
{
    const char *host = plane_address(host_plane(s->host));
    const char *token = params_text(s->params, "token");
    char address[300];
    params_join_host(address, sizeof address, host ? host : "HOST", (unsigned)join);
    printf("next: pushrod-worker --join %s%s --exec digest=sha256sum\n", address,
        token[0] ? " --token-file FILE" : "");
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
        say_worker(s, join);
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
    program_hear_children();
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
    int code = EXIT_USAGE, error = program_options(s->params, argc, argv, &unknown);
    settings_log(s);
    program_warn(&unknown);
    if (error)
        fprintf(stderr, "pushrod-server: %s (pushrod-server --help)\n", params_error(s->params));
    else if (!program_print(&program, s->params, &code))
        code = params_bool(s->params, "check-config") ? check_config(s) : serve(s);
    pushrod_server_free(s);
    return code;
}
