/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/coproc.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "worker/environment.h"
#include "worker/run.h"

struct coproc *coproc_new(void)
{
    struct coproc *p = calloc(1, sizeof *p);
    if (p)
        p->child = (struct child){.exit = -1, .in = -1, .out = -1, .error = -1, .notes = -1};
    return p;
}

int coproc_end(struct coproc *p)
{
    int status = p->child.pid ? child_end(&p->child) : 0;
    said_end(&p->said);
    buf_recycle(&p->out, COPROC_KEEP);
    p->used = p->deaf = false;
    return status;
}

/* Something that nobody asked for: a second answer, a banner. It would be taken for the next one.
 */
static bool said_more(const struct coproc *p)
{
    struct pollfd f = {.fd = p->child.out, .events = POLLIN};
    return p->out.size > 0 || poll(&f, 1, 0) > 0;
}

/* A process that died, or said something unasked, between two tasks is replaced without a word. */
int coproc_ready(struct coproc *p, const char *command)
{
    if (p->child.pid && (child_ended(&p->child) || p->deaf || (p->used && said_more(p))))
        coproc_end(p);
    if (p->child.pid)
        return 0;
    struct environment env;
    if (!environment_make(&env, NULL))
        return ENOMEM;
    int error = child_spawn(&p->child, command, env.variables);
    environment_free(&env);
    child_close(&p->child.notes); /* it talks through its output */
    return error;
}

void coproc_feed(struct coproc *p)
{
    if (child_write(&p->child, buf_slice(&p->in), &p->written))
        return;
    p->deaf = true; /* whether it answers is seen at its output */
    p->written = p->in.size;
}

/* It has ended with 0: some do so after a number of tasks. Then it is gone from here as well. */
bool coproc_left_well(struct coproc *p, int exit_ms)
{
    siginfo_t info = {0};
    if (!child_ends_within(&p->child, exit_ms) ||
        waitid(P_PID, (id_t)p->child.pid, &info, WEXITED | WNOWAIT) != 0 ||
        info.si_code != CLD_EXITED || info.si_status != 0)
        return false;
    coproc_end(p);
    return true;
}

/* Nothing of what it still says to us is for anybody, but it may wait for us to take it. */
static void skip_output(struct coproc *p)
{
    char bytes[4096];
    if (read(p->child.out, bytes, sizeof bytes) == 0)
        child_close(&p->child.out);
}

static bool ends_by(struct coproc *p, uint64_t until_ns)
{
    while (!child_ended(&p->child)) {
        uint64_t now_ns = clock_mono_ns();
        if (now_ns >= until_ns)
            return false;
        struct pollfd f[] = {{.fd = p->child.exit, .events = POLLIN},
            {.fd = p->child.out, .events = POLLIN}, {.fd = p->child.error, .events = POLLIN}};
        child_poll(&p->child, f, sizeof f / sizeof f[0], attempt_wait_ms(until_ns));
        if (f[1].revents)
            skip_output(p);
        if (f[2].revents)
            said_read(&p->said, &p->child.error);
    }
    return true;
}

/* The end of its input is the end of its tasks: it may have something to save. */
void coproc_leave(void *state)
{
    struct coproc *p = state;
    child_close(&p->child.in);
}

/* Half of the time it has for itself, half after SIGTERM. */
void coproc_close(void *state, uint64_t until_ns)
{
    struct coproc *p = state;
    uint64_t now_ns = clock_mono_ns();
    uint64_t left_ns = until_ns > now_ns ? until_ns - now_ns : 0;
    said_begin(&p->said, 0);
    if (p->child.pid && !ends_by(p, now_ns + left_ns / 2)) {
        child_signal(&p->child, SIGTERM);
        ends_by(p, until_ns);
    }
    coproc_end(p);
    buf_free(&p->in);
    buf_free(&p->out);
    free(p);
}
