/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sends e-mail in the background: a line "ADDRESS SUBJECT" is answered at once, and a task process
 * speaks SMTP. What the mail server says decides: 2xx is done, 4xx is tried again, 5xx is over.
 *
 *     examples/mail/sink.py 2525 &
 *     build/examples/mail/mail
 *     nc 127.0.0.1 9503           and type: ann@example.com good news
 *
 * MAIL_SMTP=HOST:PORT names another mail server than 127.0.0.1:2525.
 */
#include <inttypes.h>
#include <netdb.h>
#include <pushrod/server.h>
#include <pushrod/worker.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINE 512

/* ------------------------------------------------------------------ in the task processes */

static FILE *smtp_dial(void)
{
    const char *where = getenv("MAIL_SMTP");
    char host[256];
    snprintf(host, sizeof host, "%s", where ? where : "127.0.0.1:2525");
    char *port = strrchr(host, ':');
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list;
    if (port)
        *port++ = 0;
    if (getaddrinfo(host, port ? port : "25", &hints, &list))
        return NULL;
    int fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int failed = fd < 0 || connect(fd, list->ai_addr, list->ai_addrlen);
    freeaddrinfo(list);
    if (!failed)
        return fdopen(fd, "r");
    if (fd >= 0)
        close(fd);
    return NULL;
}

/* Sends a line (NULL: none) and reads the answer into `reply`; its code, 0: the line is dead. */
static int smtp_say(FILE *smtp, char reply[LINE], const char *format, ...)
{
    va_list list;
    va_start(list, format);
    if (format) {
        vdprintf(fileno(smtp), format, list);
        dprintf(fileno(smtp), "\r\n");
    }
    va_end(list);
    do {
        if (!fgets(reply, LINE, smtp))
            return 0;
    } while (strlen(reply) > 3 && reply[3] == '-');
    reply[strcspn(reply, "\r\n")] = 0;
    return atoi(reply);
}

/* The code of the first answer that is no success, or 250. */
static int smtp_deliver(FILE *smtp, const char *to, const char *subject, char reply[LINE])
{
    int code = smtp_say(smtp, reply, NULL);
    if (code == 220)
        code = smtp_say(smtp, reply, "HELO localhost");
    if (code == 250)
        code = smtp_say(smtp, reply, "MAIL FROM:<pushrod@localhost>");
    if (code == 250)
        code = smtp_say(smtp, reply, "RCPT TO:<%s>", to);
    if (code == 250)
        code = smtp_say(smtp, reply, "DATA");
    if (code == 354)
        code = smtp_say(
            smtp, reply, "To: %s\r\nSubject: %s\r\n\r\nSent by a Pushrod task.\r\n.", to, subject);
    return code;
}

static int on_mail(struct pushrod_task *task, void *arg)
{
    char line[LINE], reply[LINE] = "no answer";
    size_t size;
    const void *data = pushrod_task_payload(task, &size);
    (void)arg;
    snprintf(line, sizeof line, "%.*s", (int)size, (const char *)data);
    line[strcspn(line, "\r\n")] = 0;
    char *subject = strchr(line, ' ');
    if (!subject)
        return pushrod_task_fail(task, "ADDRESS SUBJECT is expected");
    *subject++ = 0;
    FILE *smtp = smtp_dial();
    if (!smtp)
        return pushrod_task_retry_after(task, 500, "the mail server cannot be reached");
    int code = smtp_deliver(smtp, line, subject, reply);
    fclose(smtp);
    if (code == 250)
        return pushrod_task_result(task, reply, strlen(reply));
    /* 4xx, or a connection that broke: it may work later. */
    return code >= 500 ? pushrod_task_fail(task, reply)
                       : pushrod_task_retry_after(task, 500, reply);
}

/* ---------------------------------------------------------------------------- in the server */

static void tell(struct pushrod_server *server, uint64_t conn, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void tell(struct pushrod_server *server, uint64_t conn, const char *format, ...)
{
    char line[LINE + 64];
    va_list list;
    va_start(list, format);
    int size = vsnprintf(line, sizeof line, format, list);
    va_end(list);
    if ((size_t)size >= sizeof line)
        size = sizeof line - 1;
    /* The client may have hung up meanwhile; that is an error here, not a crash. */
    pushrod_server_send(server, conn, line, (size_t)size);
}

static void on_finish(struct pushrod_server *server, const struct pushrod_finish *finish, void *arg)
{
    uint64_t conn = (uint64_t)(uintptr_t)arg;
    if (finish->status == PUSHROD_DONE)
        tell(server, conn, "sent %" PRIu64, finish->id);
    else
        tell(server, conn, "failed %" PRIu64 " %s", finish->id, finish->error_text);
}

static void on_receive(
    struct pushrod_server *server, uint64_t conn, const void *data, size_t size, void *arg)
{
    const struct pushrod_options options = {.max_attempts = 10, .timeout_ms = 30000};
    (void)arg;
    int64_t id = pushrod_server_task(
        server, "mail", data, size, &options, on_finish, (void *)(uintptr_t)conn);
    if (id > 0)
        tell(server, conn, "queued %" PRId64, id);
    else
        tell(server, conn, "refused %s", pushrod_server_error(server));
}

int main(int argc, char **argv)
{
    const char *address = argc > 1 ? argv[1] : "127.0.0.1:9503";
    const struct pushrod_framing lines = {.kind = PUSHROD_FRAMING_EOF, .eof = "\n"};
    const struct pushrod_server_events events = {.receive = on_receive};
    struct pushrod_server *server = pushrod_server_new();
    if (!server)
        return 1;
    pushrod_server_on(server, &events, NULL);
    pushrod_server_on_task(server, "mail", on_mail, NULL);
    pushrod_server_listen(server, address, &lines);
    pushrod_server_catch_signals(server, true);
    int error = pushrod_server_run(server);
    if (error)
        fprintf(stderr, "mail: %s\n", pushrod_server_error(server));
    pushrod_server_free(server);
    return error ? 1 : 0;
}
