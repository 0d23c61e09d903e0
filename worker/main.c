/* SPDX-License-Identifier: Apache-2.0 */
/* pushrod-worker: runs the tasks of a server with commands, coprocesses and plug-ins. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "worker/worker.h"

extern char **environ;

#define EXIT_USAGE 2

static void unknown_variable(void *arg, const char *text)
{
    (void)arg;
    fprintf(stderr, "pushrod-worker: %s\n", text);
}

static int usage_error(const char *text)
{
    fprintf(stderr, "pushrod-worker: %s (pushrod-worker --help)\n", text);
    return EXIT_USAGE;
}

static const char help_head[] =
    "usage: pushrod-worker [--join HOST[:PORT]] --exec QUEUE=COMMAND ...\n"
    "\n"
    "Runs the tasks of a Pushrod server. The payload comes on standard input,\n"
    "standard output is the result:\n"
    "\n"
    "    pushrod-worker --join server.example --exec digest=sha256sum\n"
    "\n";

/* Prints what was asked for instead of working. False: nothing was. */
static bool print_instead(const struct params *p)
{
    static const struct {
        const char *name;
        void (*print)(const struct params *p, struct buf *out);
        const char *head;
    } actions[] = {
        {"help", params_print_help, help_head},
        {"print-config", params_print_values, ""},
        {"print-sample", params_print_sample, ""},
        {"print-man", params_print_man, ""},
        {"print-completion", params_print_completion, ""},
    };
    for (size_t i = 0; i < sizeof actions / sizeof actions[0]; i++) {
        if (!params_bool(p, actions[i].name))
            continue;
        struct buf out = BUF_EMPTY;
        actions[i].print(p, &out);
        fputs(actions[i].head, stdout);
        fwrite(out.data, 1, out.size, stdout);
        buf_free(&out);
        return true;
    }
    if (params_bool(p, "version"))
        puts("pushrod-worker " PUSHROD_VERSION);
    return params_bool(p, "version");
}

/* Flags first: they may name the file. */
static int read_options(struct params *p, int argc, char **argv)
{
    int operands = 0;
    int error = params_read_flags(p, argc, argv, &operands, false);
    if (!error)
        error = params_read_environment(p, environ, unknown_variable, NULL);
    if (!error && params_text(p, "config")[0])
        error = params_read_file(p, params_text(p, "config"));
    if (error)
        return usage_error(params_error(p));
    if (operands) {
        char text[300];
        snprintf(text, sizeof text, "\"%s\" is not an option", argv[1]);
        return usage_error(text);
    }
    return 0;
}

static void setup_log(const struct params *p)
{
    static const char *const levels[] = {"error", "warning", "info", "debug"};
    enum log_level level = LOG_INFO;
    for (unsigned i = 0; i < sizeof levels / sizeof levels[0]; i++) {
        if (strcmp(params_text(p, "log-level"), levels[i]) == 0)
            level = (enum log_level)i;
    }
    log_setup("pushrod-worker", level, strcmp(params_text(p, "log-format"), "json") == 0);
}

static int child_main(void *arg, const struct supervise_child *child)
{
    struct pushrod_worker *w = arg;
    int code = worker_child(w, child);
    if (w->stuck) {
        supervise_leave(child->ready_fd);
        _exit(code); /* a handler still runs, and uses what exit() would tear down */
    }
    pushrod_worker_free(w);
    return code;
}

/* A plug-in that is not thread-safe uses the machine through several processes. */
static unsigned process_count(const struct pushrod_worker *w)
{
    if (w->serial && !params_given(w->params, "processes")) {
        unsigned slots = (unsigned)params_number(w->params, "slots");
        return slots ? slots : cpus_usable();
    }
    return (unsigned)params_number(w->params, "processes");
}

static int supervise(struct pushrod_worker *w)
{
    char join[SUPERVISE_JOIN];
    struct supervise_config config = {
        .processes = process_count(w),
        .join = join,
        .drain_ms = params_number(w->params, "drain-timeout"),
        .run = child_main,
        .arg = w,
    };
    if (!worker_join(w, join))
        return usage_error("join: the address is too long");
    return supervise_run(&config);
}

static int worker_main(struct pushrod_worker *w, int argc, char **argv)
{
    int error = read_options(w->params, argc, argv);
    if (error || print_instead(w->params))
        return error;
    setup_log(w->params);
    /* A file of options may leave it to the command line what is to run. */
    if (params_bool(w->params, "check-config") && handlers_none(w)) {
        puts("pushrod-worker: the options are good, but nothing is to run: --exec, --coproc or "
             "--plugin says what");
        return 0;
    }
    if (worker_check(w) != 0 || plugins_probe(w, &w->serial) != 0)
        return usage_error(w->error);
    if (params_bool(w->params, "check-config")) {
        puts("pushrod-worker: the options are good");
        return 0;
    }
    return supervise(w);
}

int main(int argc, char **argv)
{
    log_open_standard();
    struct pushrod_worker *w = pushrod_worker_new();
    if (!w) {
        fputs("pushrod-worker: out of memory\n", stderr);
        return 1;
    }
    int code = worker_main(w, argc, argv);
    pushrod_worker_free(w);
    return code;
}
