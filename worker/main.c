/* SPDX-License-Identifier: Apache-2.0 */
/* pushrod-worker: runs the tasks of a server with commands, coprocesses and plug-ins. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/program.h"
#include "worker/worker.h"

#define EXIT_USAGE 2

static int usage_error(const char *text)
{
    fprintf(stderr, "pushrod-worker: %s (pushrod-worker --help)\n", text);
    return EXIT_USAGE;
}

static const struct program program = {
    .name = "pushrod-worker",
    .usage = "usage: pushrod-worker [--join HOST[:PORT]] --exec QUEUE=COMMAND ...\n\n"
             "Runs the tasks of a Pushrod server. The payload comes on standard input,\n"
             "standard output is the result:\n\n"
             "    pushrod-worker --join server.example --exec digest=sha256sum\n",
    .notes = "\nEach option can also be set in the environment, as PUSHROD_NAME or by the name\n"
             "that stands beside it, or as a line \"name = value\" in the --config file. SIGTERM\n"
             "drains and leaves, the second one at once; SIGUSR2 replaces the processes one by\n"
             "one.\n",
};

static void setup_log(const struct params *p)
{
    log_setup(program.name, log_level_named(params_text(p, "log-level")),
        strcmp(params_text(p, "log-format"), "json") == 0);
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

/* Whoever changes the server's secret changes the file as well, and expects no more to be needed.
 */
static bool child_renew(void *arg)
{
    struct pushrod_worker *w = arg;
    int changed = params_renew_secrets(w->params);
    if (changed < 0)
        log_warning("%s; the last one that was read is used", params_error(w->params));
    return changed > 0;
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
        .renew = child_renew,
        .arg = w,
    };
    if (!worker_join(w, join))
        return usage_error("join: the address is too long");
    return supervise_run(&config);
}

static int worker_main(struct pushrod_worker *w, int argc, char **argv)
{
    struct buf unknown = BUF_EMPTY;
    int code, error = program_options(w->params, argc, argv, &unknown);
    setup_log(w->params);
    program_warn(&unknown);
    if (error)
        return usage_error(params_error(w->params));
    if (program_print(&program, w->params, &code))
        return code;
    /* A file of options may leave it to the command line what is to run. */
    if (params_bool(w->params, "check-config") && !handlers_named(w->params)) {
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
    program_hear_children();
    struct pushrod_worker *w = pushrod_worker_new();
    if (!w) {
        fputs("pushrod-worker: out of memory\n", stderr);
        return 1;
    }
    int code = worker_main(w, argc, argv);
    pushrod_worker_free(w);
    return code;
}
