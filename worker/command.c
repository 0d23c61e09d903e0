/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "worker/command.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define EXIT_NOT_RUN   126
#define EXIT_NOT_FOUND 127

/* What makes it more than one program. Where it is quoted, that is believed as well. */
#define MORE_THAN_ONE "|&;()`\n"
/* What a first word is made of that the shell takes as it stands. */
#define PLAIN "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+.,:@%/"

enum found { IS_THERE, IS_MISSING, IS_UNKNOWN };

static bool is_program(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0 && S_ISREG(s.st_mode) && access(path, X_OK) == 0;
}

/* An empty part of PATH is the working directory. */
static bool in_path(const char *name)
{
    char path[PATH_MAX];
    const char *at = getenv("PATH");
    while (at) {
        const char *end = strchrnul(at, ':');
        int size =
            snprintf(path, sizeof path, "%.*s%s%s", (int)(end - at), at, end > at ? "/" : "", name);
        if (size < PATH_MAX && is_program(path))
            return true;
        at = *end ? end + 1 : NULL;
    }
    return false;
}

/* The first word, but `exec`; "": it is none that we understand. */
static void program_of(const char *command, char name[PATH_MAX])
{
    size_t size;
    do {
        command += strspn(command, " \t");
        size = strspn(command, PLAIN);
        bool whole = size < PATH_MAX && strchr(" \t", command[size]);
        snprintf(name, PATH_MAX, "%.*s", whole ? (int)size : 0, command);
        command += size;
    } while (strcmp(name, "exec") == 0);
}

static enum found look_for(const char *command)
{
    char name[PATH_MAX];
    program_of(command, name);
    if (!name[0] || strpbrk(command, MORE_THAN_ONE))
        return IS_UNKNOWN;
    if (strchr(name, '/'))
        return is_program(name) ? IS_THERE : IS_MISSING;
    return in_path(name) ? IS_THERE : IS_UNKNOWN;
}

bool command_is_broken(const char *command, int exit_code, bool worked)
{
    if (exit_code != EXIT_NOT_RUN && exit_code != EXIT_NOT_FOUND)
        return false;
    enum found found = look_for(command);
    return found == IS_MISSING || (found == IS_UNKNOWN && !worked);
}
