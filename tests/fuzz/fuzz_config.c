/* SPDX-License-Identifier: Apache-2.0 */
/* Options: any text as a flag, a variable, a file, and a value of each row of the real table. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/options.h"
#include "common/params_value.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_file(struct params *p, const uint8_t *data, size_t size)
{
    char path[40];
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (fd >= 0 && write(fd, data, size) == (ssize_t)size)
        params_read_file(p, path);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 3);
    if (!text)
        return 0;
    memcpy(text, "--", 2);
    memcpy(text + 2, data, size);
    text[size + 2] = '\0';
    struct params *p = params_new(option_rows, option_count, SCOPE_SERVER);
    char *argv[] = {"fuzz", text, text + 2, NULL}, *environment[] = {text + 2, NULL};
    int operands;
    struct buf out = BUF_EMPTY;
    if (p) {
        params_read_flags(p, 3, argv, &operands, false);
        params_read_environment(p, environment, NULL, NULL);
        read_file(p, data, size);
        for (size_t i = 0; i < option_count; i++)
            if (param_in_scope(p, &option_rows[i])) /* else it looks for a name that is meant */
                params_set(p, option_rows[i].name, text + 2);
        params_print_values(p, &out);
    }
    buf_free(&out);
    params_free(p);
    free(text);
    return 0;
}
