/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A chat that keeps answering while slow tasks run. Every line goes to everybody else; a line that
 * begins with /slow is worked on by a task process, and the result goes to everybody.
 *
 *     build/examples/chat/chat
 *     nc 127.0.0.1 9502        (several times)
 *
 * Lines: text            says it to the others
 *        /name NAME      how the others see you
 *        /slow TEXT      a task of two seconds (or CHAT_SLOW_MS) that shouts the text
 *        /quit
 */
#include <inttypes.h>
#include <pushrod/server.h>
#include <pushrod/worker.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LINE 1024

/* Who is who: kept with the connection. */
struct guest {
    char name[32];
};

static const char *name_of(struct pushrod_server *server, uint64_t conn)
{
    const struct guest *guest = pushrod_server_conn_data(server, conn);
    return guest ? guest->name : "somebody";
}

static void on_connect(struct pushrod_server *server, uint64_t conn, void *arg)
{
    static const char hello[] = "welcome; /name NAME, /slow TEXT, /quit";
    static unsigned count;
    struct guest *guest = calloc(1, sizeof *guest);
    (void)arg;
    if (guest)
        snprintf(guest->name, sizeof guest->name, "guest%u", ++count);
    pushrod_server_conn_set_data(server, conn, guest);
    pushrod_server_send(server, conn, hello, sizeof hello - 1);
}

static void on_close(struct pushrod_server *server, uint64_t conn, int error, void *arg)
{
    char line[LINE];
    (void)error, (void)arg;
    int size = snprintf(line, sizeof line, "* %s has left", name_of(server, conn));
    pushrod_server_broadcast(server, line, (size_t)size, 0);
    free(pushrod_server_conn_data(server, conn));
}

/* The tag says who asked; nothing needs to be kept here meanwhile. */
static void on_finish(struct pushrod_server *server, const struct pushrod_finish *finish, void *arg)
{
    char line[LINE];
    (void)arg;
    int size =
        finish->status == PUSHROD_DONE
            ? snprintf(line, sizeof line, "* done for %.*s: %.*s", (int)finish->tag_size,
                  (const char *)finish->tag, (int)finish->result_size, (const char *)finish->result)
            : snprintf(line, sizeof line, "* failed for %.*s: %s", (int)finish->tag_size,
                  (const char *)finish->tag, finish->error_text);
    if (size >= LINE)
        size = LINE - 1;
    pushrod_server_broadcast(server, line, (size_t)size, 0);
}

static void command(struct pushrod_server *server, uint64_t conn, const char *text)
{
    struct guest *guest = pushrod_server_conn_data(server, conn);
    const char *name = name_of(server, conn);
    char line[LINE];
    int size = 0;
    if (strncmp(text, "/name ", 6) == 0 && guest) {
        snprintf(guest->name, sizeof guest->name, "%.31s", text + 6);
        size = snprintf(line, sizeof line, "you are %s", guest->name);
    } else if (strncmp(text, "/slow ", 6) == 0) {
        struct pushrod_options options = {.tag = name, .tag_size = strlen(name)};
        int64_t id = pushrod_server_task(
            server, "slow", text + 6, strlen(text + 6), &options, on_finish, NULL);
        size = id > 0 ? snprintf(line, sizeof line, "task %" PRId64 " has begun", id)
                      : snprintf(line, sizeof line, "no: %s", pushrod_server_error(server));
    } else if (strcmp(text, "/quit") == 0) {
        pushrod_server_close(server, conn);
        return;
    } else {
        size = snprintf(line, sizeof line, "/name NAME, /slow TEXT, /quit");
    }
    pushrod_server_send(server, conn, line, (size_t)size);
}

static void on_receive(
    struct pushrod_server *server, uint64_t conn, const void *data, size_t size, void *arg)
{
    char text[LINE / 2], line[LINE];
    (void)arg;
    if (size >= sizeof text)
        size = sizeof text - 1;
    memcpy(text, data, size);
    text[size] = 0;
    text[strcspn(text, "\r")] = 0;
    if (text[0] == '/') {
        command(server, conn, text);
        return;
    }
    int length = snprintf(line, sizeof line, "%s: %s", name_of(server, conn), text);
    pushrod_server_broadcast(server, line, (size_t)length, conn);
}

/* In a process of its own: nobody else waits for it. */
static int on_slow(struct pushrod_task *task, void *arg)
{
    const char *ms_text = getenv("CHAT_SLOW_MS");
    long ms = ms_text ? atol(ms_text) : 2000;
    struct timespec pause = {ms / 1000, ms % 1000 * 1000000};
    char shout[LINE / 2];
    size_t size;
    const char *data = pushrod_task_payload(task, &size);
    (void)arg;
    nanosleep(&pause, NULL);
    if (size > sizeof shout)
        size = sizeof shout;
    for (size_t i = 0; i < size; i++)
        shout[i] = (char)toupper((unsigned char)data[i]);
    return pushrod_task_result(task, shout, size);
}

int main(int argc, char **argv)
{
    const char *address = argc > 1 ? argv[1] : "127.0.0.1:9502";
    const struct pushrod_framing lines = {.kind = PUSHROD_FRAMING_EOF, .eof = "\n"};
    const struct pushrod_server_events events = {
        .connect = on_connect,
        .receive = on_receive,
        .close = on_close,
    };
    struct pushrod_server *server = pushrod_server_new();
    if (!server)
        return 1;
    pushrod_server_on(server, &events, NULL);
    pushrod_server_on_task(server, "slow", on_slow, NULL);
    pushrod_server_listen(server, address, &lines);
    pushrod_server_catch_signals(server, true);
    int error = pushrod_server_run(server);
    if (error)
        fprintf(stderr, "chat: %s\n", pushrod_server_error(server));
    pushrod_server_free(server);
    return error ? 1 : 0;
}
