/* SPDX-License-Identifier: Apache-2.0 */
#include "client/input.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "client/interrupt.h"

/* One byte over the limit is read on purpose: it is how too much is noticed. */
static int read_all(struct buf *to, int fd, size_t limit)
{
    size_t begin = to->size;
    while (to->size - begin <= limit) {
        size_t want = limit + 1 - (to->size - begin);
        uint8_t *room = buf_reserve(to, want < 65536 ? want : 65536);
        if (!room)
            return ENOMEM;
        ssize_t n = read(fd, room, want < 65536 ? want : 65536);
        if (n == 0)
            return 0;
        if (n > 0)
            to->size += (size_t)n;
        else if (errno != EINTR || interrupt_count())
            return errno;
    }
    return 0;
}

int input_read(struct buf *to, const char *path, size_t limit)
{
    if (strcmp(path, "-") == 0)
        return read_all(to, STDIN_FILENO, limit);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    int why = read_all(to, fd, limit);
    close(fd);
    return why;
}

int payload_fits(struct cli *cli, const char *name, size_t size)
{
    size_t limit = (size_t)pushrod_client_server(cli->client)->max_payload;
    if (size <= limit)
        return 0;
    cli_say(cli, "%s has more than %zu bytes, the max-payload of the server", name, limit);
    return cli_exit_code(-PUSHROD_E_TOO_BIG);
}

int payload_read(struct cli *cli, struct buf *to, const char *path)
{
    size_t limit = (size_t)pushrod_client_server(cli->client)->max_payload;
    bool standard = strcmp(path, "-") == 0;
    const char *name = standard ? "standard input" : path;
    if (standard && isatty(STDIN_FILENO))
        cli_say(cli, "the payload is what you type now, until ^D");
    int why = input_read(to, path, limit);
    if (interrupt_count())
        return EXIT_INTERRUPTED;
    if (!why)
        return payload_fits(cli, name, to->size);
    cli_say(cli, "cannot read %s: %s", name, strerror(why));
    return EXIT_USAGE;
}
