/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plug-ins. Loading one runs its code, so the supervisor never does: it lets a process of its own
 * look (plugins_probe), and each worker process loads for itself.
 */
#define _GNU_SOURCE /* pipe2() */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/retry.h"
#include "worker/worker.h"

static int check_entry(
    struct pushrod_worker *w, const char *path, const struct pushrod_plugin *entry)
{
    if (!entry)
        return worker_error(w, PUSHROD_E_BAD_OPTION,
            "plug-in %s has no entry point: it must define `const struct pushrod_plugin "
            "pushrod_plugin`",
            path);
    if (entry->abi != PUSHROD_PLUGIN_ABI)
        return worker_error(w, PUSHROD_E_BAD_OPTION,
            "plug-in %s was built for ABI %u, this worker has %u: build it again", path, entry->abi,
            PUSHROD_PLUGIN_ABI);
    if (!entry->open)
        return worker_error(w, PUSHROD_E_BAD_OPTION, "plug-in %s has no open function", path);
    return 0;
}

static int keep_plugin(struct pushrod_worker *w, void *library, const struct pushrod_plugin *entry)
{
    struct plugin *all = realloc(w->plugins, (w->plugin_count + 1) * sizeof *all);
    if (!all)
        return worker_error(w, PUSHROD_E_NO_MEMORY, "out of memory");
    w->plugins = all;
    all[w->plugin_count++] = (struct plugin){.library = library, .entry = entry};
    return 0;
}

static int plugin_load(struct pushrod_worker *w, const char *path)
{
    /* Without a slash dlopen would search the system's libraries; users mean the file. */
    char here[4096];
    snprintf(here, sizeof here, "%s%s", strchr(path, '/') ? "" : "./", path);
    void *library = dlopen(here, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return worker_error(
            w, PUSHROD_E_BAD_OPTION, "plug-in %s cannot be loaded: %s", path, dlerror());
    const struct pushrod_plugin *entry = dlsym(library, "pushrod_plugin");
    int error = check_entry(w, path, entry);
    if (!error)
        error = keep_plugin(w, library, entry);
    if (error) {
        dlclose(library);
        return error;
    }
    w->serial |= !(entry->flags & PUSHROD_PLUGIN_THREAD_SAFE);
    w->error[0] = '\0';
    error = entry->open(w);
    if (error && !w->error[0])
        return worker_error(w, PUSHROD_E_BAD_OPTION, "plug-in %s did not open: %d", path, error);
    return error;
}

int plugins_load(struct pushrod_worker *w)
{
    size_t count;
    const char *const *paths = params_list(w->params, "plugin", &count);
    int error = 0;
    for (size_t i = 0; i < count && !error; i++)
        error = plugin_load(w, paths[i]);
    return error;
}

void plugins_close(struct pushrod_worker *w)
{
    while (w->plugin_count) {
        struct plugin *p = &w->plugins[--w->plugin_count];
        if (p->entry->close)
            p->entry->close();
        dlclose(p->library);
    }
    free(w->plugins);
    w->plugins = NULL;
}

/* What the probe says through its pipe. */
struct probe_answer {
    int error;
    bool serial;
    char text[600];
};

static void probe_child(struct pushrod_worker *w, int out)
{
    struct probe_answer a = {.error = plugins_load(w)};
    a.serial = w->serial;
    snprintf(a.text, sizeof a.text, "%s", w->error);
    ssize_t written = write(out, &a, sizeof a);
    _exit(written == (ssize_t)sizeof a ? 0 : 1);
}

int plugins_probe(struct pushrod_worker *w, bool *serial)
{
    int ends[2];
    size_t count;
    params_list(w->params, "plugin", &count);
    *serial = false;
    if (count == 0)
        return 0;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return worker_error(w, PUSHROD_E_SYSTEM, "pipe: %s", strerror(errno));
    pid_t pid = fork();
    int why = errno;
    if (pid == 0)
        probe_child(w, ends[1]);
    close(ends[1]);
    struct probe_answer a;
    ssize_t size = pid > 0 ? RETRY(read(ends[0], &a, sizeof a)) : -1;
    close(ends[0]);
    if (pid < 0)
        return worker_error(w, PUSHROD_E_SYSTEM, "fork: %s", strerror(why));
    RETRY(waitpid(pid, NULL, 0));
    if (size != (ssize_t)sizeof a)
        return worker_error(w, PUSHROD_E_BAD_OPTION, "a plug-in ended the process that loaded it");
    *serial = a.serial;
    return a.error ? worker_error(w, abs(a.error), "%s", a.text) : 0;
}
