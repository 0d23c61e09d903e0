/* SPDX-License-Identifier: Apache-2.0 */
/* main: the program `pushrod`: finds the command, reads its options, runs it. The only file that
 * exits. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/command.h"
#include "client/interrupt.h"
#include "client/options.h"
#include "common/log.h"

extern char **environ;

static void print_buf(struct buf *b)
{
    if (b->size)
        fwrite(b->data, 1, b->size, stdout);
    buf_free(b);
}

/* Options before the command: only those that explain something. */
static int run_option(const char *option)
{
    struct buf out = BUF_EMPTY;
    if (strcmp(option, "--help") == 0 || strcmp(option, "-h") == 0)
        help_program(&out);
    else if (strcmp(option, "--version") == 0 || strcmp(option, "-V") == 0)
        buf_printf(&out, "pushrod %s\n", PUSHROD_VERSION);
    else if (strcmp(option, "--print-man") == 0)
        help_man(&out);
    else if (strcmp(option, "--print-completion") == 0)
        complete_commands(&out);
    else {
        fprintf(stderr,
            "pushrod: options come after the command, as in 'pushrod submit %s' (pushrod "
            "--help)\n",
            option);
        return EXIT_USAGE;
    }
    print_buf(&out);
    if (fflush(stdout) != EOF && !ferror(stdout))
        return EXIT_OK;
    fprintf(stderr, "pushrod: cannot write to standard output: %s\n", strerror(errno));
    return EXIT_TASK_FAILED;
}

static void warn(void *arg, const char *text)
{
    (void)arg;
    fprintf(stderr, "pushrod: %s\n", text);
}

/* Environment and file; --config is a flag, so the flags are read already. */
static int read_common(struct cli *cli)
{
    const char *file = params_text(cli->p, "config");
    cli->common = options_common();
    if (!cli->common)
        return cli_exit_code(PUSHROD_E_NO_MEMORY);
    int error = params_read_environment(cli->common, environ, warn, NULL);
    if (!error && !*file)
        file = params_text(cli->common, "config");
    if (!error && *file)
        error = params_read_file(cli->common, file);
    if (!error)
        return 0;
    cli_say(cli, "%s", params_error(cli->common));
    return EXIT_USAGE;
}

/* Options that end the command at once. True: *code is what to exit with. */
static bool explained(struct cli *cli, int *code)
{
    struct buf out = BUF_EMPTY;
    *code = EXIT_OK;
    if (params_bool(cli->p, "help"))
        help_command(cli->command, cli->p, &out);
    else if (params_bool(cli->p, "version"))
        buf_printf(&out, "pushrod %s\n", PUSHROD_VERSION);
    else if (params_bool(cli->p, "print-completion"))
        complete_word(cli, &out);
    else if (params_bool(cli->p, "print-config"))
        params_print_values(cli->common, &out);
    else
        return false;
    print_buf(&out);
    return true;
}

static int check_operands(struct cli *cli)
{
    if (cli->count < cli->command->least)
        return cli_usage(cli, "%s is missing", cli->command->operands);
    if (cli->command->most >= 0 && cli->count > cli->command->most)
        return cli_usage(cli, "'%s' is one operand too many", cli->operands[cli->command->most]);
    return 0;
}

/* Standard output may be a full disk: what was not written must not end in exit code 0. */
static int run_with(struct cli *cli, int argc, char **argv)
{
    int code;
    cli->last = argv[argc - 1]; /* reading moves the operands to the front */
    cli->before = argc > 1 ? argv[argc - 2] : "";
    if (params_read_flags(cli->p, argc, argv, &cli->count, false))
        return cli_usage(cli, "%s", params_error(cli->p));
    cli->operands = argv + 1;
    code = read_common(cli);
    if (code || explained(cli, &code))
        return code;
    code = check_operands(cli);
    if (!code)
        code = cli->command->run(cli);
    errno = 0; /* an earlier flush may have failed, and took its reason along */
    if ((fflush(stdout) == EOF || ferror(stdout)) && code == EXIT_OK) {
        cli_say(cli, "cannot write to standard output%s%s", errno ? ": " : "",
            errno ? strerror(errno) : "");
        code = EXIT_TASK_FAILED;
    }
    return code;
}

/* Everything is freed on the way out, so that leak checkers see only leaks. */
static int run_command(int argc, char **argv)
{
    struct cli cli = {.command = command_find(argv[0])};
    if (!cli.command)
        return command_unknown(argv[0]);
    struct param *rows;
    cli.p = options_new(cli.command, &rows);
    int code = cli.p ? run_with(&cli, argc, argv) : EXIT_REFUSED;
    interrupt_client(NULL);
    pushrod_client_free(cli.client);
    params_free(cli.common);
    options_free(cli.p, rows);
    return code;
}

int main(int argc, char **argv)
{
    log_open_standard();
    interrupt_setup();
    if (argc < 2) {
        struct buf out = BUF_EMPTY;
        help_program(&out);
        fwrite(out.data, 1, out.size, stderr);
        buf_free(&out);
        return EXIT_USAGE;
    }
    if (argv[1][0] == '-')
        return run_option(argv[1]);
    return run_command(argc - 1, argv + 1);
}
