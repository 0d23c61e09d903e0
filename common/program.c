/* SPDX-License-Identifier: Apache-2.0 */
#include "common/program.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

extern char **environ;

static void unknown_variable(void *arg, const char *text)
{
    buf_append(arg, text, strlen(text) + 1);
}

void program_hear_children(void)
{
    signal(SIGCHLD, SIG_DFL);
}

int program_options(struct params *p, int argc, char **argv, struct buf *unknown)
{
    int error = params_read_flags(p, argc, argv, NULL, false);
    if (error == 0)
        error = params_read_environment(p, environ, unknown_variable, unknown);
    const char *file = error ? "" : params_text(p, "config");
    return file[0] ? params_read_file(p, file) : error;
}

void program_warn(struct buf *unknown)
{
    const char *text = (const char *)unknown->data;
    for (size_t at = 0; at < unknown->size; at += strlen(text + at) + 1)
        log_warning("%s", text + at);
    buf_free(unknown);
}

/* Options that print something, in the order in which they are looked for. */
static const struct {
    const char *name;
    void (*print)(const struct params *p, struct buf *out);
} print_actions[] = {
    {"print-sample", params_print_sample},
    {"print-man", params_print_man},
    {"print-completion", params_print_completion},
    {"print-config", params_print_values},
};

static bool print_asked(const struct program *program, const struct params *p, struct buf *out)
{
    if (params_bool(p, "help")) {
        buf_printf(out, "%s", program->usage);
        params_print_help(p, out);
        buf_printf(out, "%s", program->notes);
        return true;
    }
    if (params_bool(p, "version")) {
        buf_printf(out, "%s " PUSHROD_VERSION "\n", program->name);
        return true;
    }
    for (size_t i = 0; i < sizeof print_actions / sizeof print_actions[0]; i++) {
        if (!params_bool(p, print_actions[i].name))
            continue;
        print_actions[i].print(p, out);
        return true;
    }
    return false;
}

bool program_print(const struct program *program, const struct params *p, int *code)
{
    struct buf out = BUF_EMPTY;
    if (!print_asked(program, p, &out))
        return false;
    errno = out.failed ? ENOMEM : 0;
    bool done = !out.failed && fwrite(out.data, 1, out.size, stdout) == out.size;
    done = done && fflush(stdout) == 0;
    if (!done)
        fprintf(stderr, "%s: cannot print: %s\n", program->name, strerror(errno));
    buf_free(&out);
    *code = done ? EXIT_SUCCESS : EXIT_FAILURE;
    return true;
}
