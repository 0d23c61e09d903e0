/* SPDX-License-Identifier: Apache-2.0 */
/* The handlers of a worker: from options and from calls; and how many run at the same time. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/log.h"
#include "common/name.h"
#include "worker/cgroup.h"
#include "worker/worker.h"

static const struct handler *handler_with(const struct pushrod_worker *w, struct slice pattern)
{
    for (size_t i = 0; i < w->handler_count; i++) {
        if (slice_equal(slice_str(w->handlers[i].pattern), pattern))
            return &w->handlers[i];
    }
    return NULL;
}

int handlers_add(struct pushrod_worker *w, const struct handler_ops *ops, struct slice pattern,
    const char *command, pushrod_handler function, void *arg)
{
    int size = (int)(pattern.size < 200 ? pattern.size : 200);
    const char *text = (const char *)pattern.data;
    if (!name_pattern_valid(pattern))
        return worker_error(w, PUSHROD_E_BAD_QUEUE, "\"%.*s\" is no queue: %s", size, text,
            pushrod_strerror(PUSHROD_E_BAD_QUEUE));
    if (handler_with(w, pattern))
        return worker_error(w, PUSHROD_E_DUPLICATE, "queue %.*s has two handlers: %s and %s", size,
            text, handler_with(w, pattern)->ops->kind, ops->kind);
    struct handler *all = realloc(w->handlers, (w->handler_count + 1) * sizeof *all);
    if (!all)
        return worker_error(w, PUSHROD_E_NO_MEMORY, "out of memory");
    w->handlers = all;
    struct handler *h = &all[w->handler_count];
    *h = (struct handler){.ops = ops, .function = function, .arg = arg};
    h->pattern = strndup(text, pattern.size);
    h->command = command ? strdup(command) : NULL;
    w->handler_count++; /* what there is of it is freed with the others */
    if (!h->pattern || (command && !h->command))
        return worker_error(w, PUSHROD_E_NO_MEMORY, "out of memory");
    return 0;
}

/* QUEUE=COMMAND of --exec or --coproc. */
static int add_command(struct pushrod_worker *w, const struct handler_ops *ops, const char *value)
{
    const char *equals = strchr(value, '=');
    if (!equals || !equals[1])
        return worker_error(w, PUSHROD_E_BAD_OPTION,
            "--%s \"%s\": QUEUE=COMMAND is expected, like digest='sha256sum'", ops->kind, value);
    return handlers_add(w, ops, slice_of(value, (size_t)(equals - value)), equals + 1, NULL, NULL);
}

static int add_all(struct pushrod_worker *w, const struct handler_ops *ops)
{
    size_t count;
    const char *const *values = params_list(w->params, ops->kind, &count);
    for (size_t i = 0; i < count; i++) {
        int error = add_command(w, ops, values[i]);
        if (error)
            return error;
    }
    return 0;
}

int handlers_from_options(struct pushrod_worker *w)
{
    int error = add_all(w, &handler_exec);
    return error ? error : add_all(w, &handler_coproc);
}

const char *const handler_options[HANDLER_OPTIONS] = {"exec", "coproc", "plugin"};

bool handlers_named(const struct params *params)
{
    size_t all = 0, count;
    for (size_t i = 0; i < HANDLER_OPTIONS; i++) {
        params_list(params, handler_options[i], &count);
        all += count;
    }
    return all > 0;
}

void handlers_free(struct pushrod_worker *w)
{
    for (size_t i = 0; i < w->handler_count; i++) {
        free(w->handlers[i].pattern);
        free(w->handlers[i].command);
    }
    free(w->handlers);
    w->handlers = NULL;
    w->handler_count = 0;
}

/* --------------------------------------------------------------------------- slots */

unsigned cpus_usable(void)
{
    cpu_set_t set;
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned cpus = online > 0 ? (unsigned)online : 1;
    if (sched_getaffinity(0, sizeof set, &set) == 0) /* it fails where there are over 1024 */
        cpus = (unsigned)CPU_COUNT(&set);
    unsigned limit = cgroup_cpus("/proc/self/cgroup", "/sys/fs/cgroup");
    if (limit && limit < cpus)
        cpus = limit;
    return cpus ? cpus : 1;
}

/* As asked for; else one in somebody's program, whose handlers may bear no more, and in programs of
 * ours the CPUs shared among the processes. */
unsigned worker_slots(const struct pushrod_worker *w)
{
    unsigned slots = (unsigned)params_number(w->params, "slots");
    unsigned processes = w->named ? w->child.processes : 1;
    if (w->serial || (!w->named && !params_given(w->params, "slots")))
        return 1;
    if (slots)
        return slots;
    slots = cpus_usable() / (processes ? processes : 1);
    return slots ? slots : 1;
}

/* ---------------------------------------------------------------------- descriptors */

#define DESCRIPTORS_SPARE   64u /* libzmq's, the log, what a program has open itself */
#define DESCRIPTORS_COMMAND 9u  /* a command that begins: both ends of its pipes, and itself */
#define DESCRIPTORS_COPROC  4u  /* one that stays */

static rlim_t descriptors_wanted(const struct pushrod_worker *w, unsigned slots)
{
    rlim_t coprocs = 0, one = 1; /* its bell */
    for (size_t i = 0; i < w->handler_count; i++) {
        one = w->handlers[i].command ? 1 + DESCRIPTORS_COMMAND : one;
        coprocs += w->handlers[i].ops == &handler_coproc;
    }
    return DESCRIPTORS_SPARE + slots * (one + coprocs * DESCRIPTORS_COPROC);
}

static int too_few(struct pushrod_worker *w, unsigned slots, rlim_t wanted, rlim_t limit)
{
    return worker_error(w, PUSHROD_E_BAD_OPTION,
        "%u slots need %llu file descriptors, the limit is %llu: raise it (ulimit -n), or lower "
        "--slots",
        slots, (unsigned long long)wanted, (unsigned long long)limit);
}

/* Without one an attempt fails, and libzmq ends the process. What commands inherit is raised no
 * further than is needed. */
int worker_descriptors(struct pushrod_worker *w, unsigned *slots)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return 0;
    rlim_t wanted = descriptors_wanted(w, *slots), most = limit.rlim_max;
    if (wanted > most && params_given(w->params, "slots"))
        return too_few(w, *slots, wanted, most);
    if (wanted > most) {
        while (*slots > 1 && descriptors_wanted(w, *slots) > most)
            --*slots;
        log_warning("only %llu file descriptors are allowed: slots are lowered to %u",
            (unsigned long long)most, *slots);
    }
    if (wanted > limit.rlim_cur) {
        limit.rlim_cur = wanted < most ? wanted : most;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    return 0;
}
