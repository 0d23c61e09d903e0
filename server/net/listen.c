/* SPDX-License-Identifier: Apache-2.0 */
/* listen: addresses, listening sockets and accepting, for conn. */
#define _GNU_SOURCE /* accept4(), asprintf() */
#include "server/net/conn_impl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <pushrod/error.h>
#include "common/sockopt.h"
#include "common/log.h"
#include "common/params.h"
#include "common/unixsock.h"
#include "server/net/ports.h"

#define BACKLOG      4096
#define ACCEPT_BATCH 64 /* of one listener in one tick */
#define SILENT_MS    100

struct listener {
    struct list node;
    struct conns *set;
    const struct conn_ops *ops;
    void *arg;
    int fd;
    int spare; /* a descriptor to give up when there is none left, so that accept() can refuse */
    bool tcp;
    char path[108];   /* of a Unix socket that is removed at the end; "" */
    struct stat file; /* what lay there then: another server's is not removed */
    struct event *event;
};

static int listen_error(char **error, int code, const char *address, const char *why)
{
    if (asprintf(error, "cannot listen on %s: %s", address, why) < 0)
        *error = NULL;
    return -code;
}

/* ------------------------------------------------------------------------------- accepting */

/* Above max-clients, or out of descriptors: it is told why before it is closed. */
static void turn_away(struct conns *set, const struct conn_ops *ops, void *arg, int fd)
{
    static struct log_limit limit;
    char more[LOG_MORE];
    set->stats.turned_away++;
    if (log_allowed(&limit, more))
        log_warning("a connection was turned away (%s): its limit (max-clients), or that of "
                    "descriptors, is reached%s",
            ops->name, more);
    if (ops->turned_away)
        ops->turned_away(fd, arg);
}

static void listener_turn_away(struct listener *l, int fd)
{
    turn_away(l->set, l->ops, l->arg, fd);
    close(fd);
}

/* Above max-clients: whoever is silent for longest goes. Who has just come may have said something
 * that was not read yet, and of many that come at once the first ones are as good as the last. */
static bool conns_make_room(struct conns *set)
{
    struct list *first = list_first(&set->silent);
    struct conn *c = first ? container_of(first, struct conn, silent) : NULL;
    if (!c || loop_enter(set->loop).mono_ns - c->since_ns < SILENT_MS * NS_PER_MS)
        return false;
    turn_away(set, c->ops, c->arg, c->fd);
    conn_kill(c, PUSHROD_E_TOO_MANY);
    return true;
}

static int spare_open(void)
{
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* EMFILE: a connection that nobody accepts would wake the loop for ever. */
static bool listener_out_of_fds(struct listener *l)
{
    if (l->spare < 0)
        return false;
    close(l->spare);
    int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0)
        listener_turn_away(l, fd);
    l->spare = spare_open();
    return fd >= 0;
}

static bool listener_accept(struct listener *l)
{
    struct sockaddr_storage peer = {0};
    socklen_t size = sizeof peer;
    int fd = accept4(l->fd, (struct sockaddr *)&peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 && (errno == EMFILE || errno == ENFILE))
        return listener_out_of_fds(l);
    if (fd < 0)
        return errno == ECONNABORTED || errno == EINTR;
    if (l->set->stats.connections >= l->set->config.max_clients && !conns_make_room(l->set)) {
        listener_turn_away(l, fd);
        return true;
    }
    int one = 1;
    if (l->tcp)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    else
        unixsock_widen(fd);
    conn_accept(l->set, fd, l->ops, l->arg, &peer);
    return true;
}

static void listener_ready(int fd, short what, void *arg)
{
    struct listener *l = arg;
    (void)fd, (void)what;
    loop_enter(l->set->loop);
    if (l->spare < 0)
        l->spare = spare_open(); /* another thread was faster the last time */
    for (int i = 0; i < ACCEPT_BATCH && listener_accept(l); i++)
        continue;
}

/* ------------------------------------------------------------------------------- addresses */

/* Of "unix:PATH"; NULL: it is an address of TCP. */
static const char *unix_path(const char *address)
{
    return strncmp(address, "unix:", 5) == 0 ? address + 5 : NULL;
}

/* "HOST:PORT" into its parts; "[V6]:PORT"; an empty host or "*" means every address. */
static bool address_split(const char *address, char host[256], char port[16])
{
    char full[300];
    uint16_t number = 0;
    const char *colon = strrchr(address, ':');
    if (!colon || strchr(colon, ']'))
        return false; /* there is no port */
    int size = snprintf(full, sizeof full, "%s%s", colon == address ? "*" : "", address);
    if (size >= (int)sizeof full || !params_split_host(full, host, 256, &number))
        return false;
    snprintf(port, 16, "%u", number);
    if (strcmp(host, "*") == 0)
        host[0] = '\0';
    return true;
}

static int bind_tcp(const struct addrinfo *info)
{
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    int one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    sockopt_keepalive(fd);
    if (bind(fd, info->ai_addr, info->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

static bool is_elsewhere(int code)
{
    return code == EADDRNOTAVAIL || code == EAFNOSUPPORT;
}

static const char *bind_reason(int code)
{
    if (code == EADDRINUSE)
        return "the port is taken (another server may be running; choose another port)";
    if (code == EACCES)
        return "not allowed (ports below 1024 need root)";
    if (code == EADDRNOTAVAIL)
        return "this machine does not have that address";
    return strerror(code);
}

static int open_tcp(const char *address, char **error)
{
    char host[256], port[16];
    if (!address_split(address, host, port))
        return listen_error(error, PUSHROD_E_BAD_OPTION, address,
            "an address is HOST:PORT, [IPV6]:PORT or unix:PATH");
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list;
    /* Every address: one IPv4 socket, as everything else here uses by default. */
    if (!host[0])
        hints.ai_family = AF_INET;
    int failed = getaddrinfo(host[0] ? host : NULL, port, &hints, &list);
    if (failed)
        return listen_error(error, PUSHROD_E_BAD_OPTION, address, gai_strerror(failed));
    /* A name may have addresses that this machine does not: localhost where IPv6 is off. */
    int fd = bind_tcp(list);
    for (const struct addrinfo *it = list->ai_next; it && fd < 0 && is_elsewhere(errno);
         it = it->ai_next)
        fd = bind_tcp(it);
    int saved = errno;
    freeaddrinfo(list);
    return fd >= 0 ? fd : listen_error(error, PUSHROD_E_SYSTEM, address, bind_reason(saved));
}

static bool is_socket(const char *path)
{
    struct stat there;
    return lstat(path, &there) == 0 && S_ISSOCK(there.st_mode);
}

/* A server that died left a socket there. One that is of another kind or user, or whose server is
 * too busy to accept, does not refuse. */
static bool unix_left(const struct sockaddr_un *at)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bool refused = fd >= 0 && connect(fd, (const struct sockaddr *)at, sizeof *at) != 0 &&
                   errno == ECONNREFUSED;
    if (fd >= 0)
        close(fd);
    return refused && is_socket(at->sun_path);
}

/* A listening descriptor, or -1 and errno. */
static int bind_unix(const struct sockaddr_un *at, socklen_t size)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && bind(fd, (const struct sockaddr *)at, size) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    int saved = errno;
    if (fd >= 0)
        close(fd);
    errno = saved;
    return -1;
}

static int open_abstract(const char *name, char **error)
{
    struct sockaddr_un at;
    socklen_t size = unixsock_address(&at, slice_str(name));
    if (!size)
        return listen_error(error, PUSHROD_E_BAD_OPTION, name, "a name has 1 to 107 bytes");
    int fd = bind_unix(&at, size);
    return fd >= 0 ? fd
                   : listen_error(error, PUSHROD_E_SYSTEM, name,
                         errno == EADDRINUSE ? "another server listens there" : strerror(errno));
}

static int open_unix(const char *path, char **error)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    if (path[0] == '@')
        return open_abstract(path + 1, error);
    if (!*path || strlen(path) >= sizeof at.sun_path)
        return listen_error(error, PUSHROD_E_BAD_OPTION, path, "a path has 1 to 107 bytes");
    memcpy(at.sun_path, path, strlen(path) + 1);
    if (unix_left(&at))
        unlink(path);
    int fd = bind_unix(&at, sizeof at);
    if (fd >= 0)
        return fd;
    const char *why = errno != EADDRINUSE ? strerror(errno)
                      : is_socket(path)   ? "another server listens there"
                                          : "something that is no socket lies there";
    return listen_error(error, PUSHROD_E_SYSTEM, path, why);
}

/* -------------------------------------------------------------------------------- lifetime */

static void path_remove(const struct listener *l)
{
    struct stat there;
    if (l->path[0] && lstat(l->path, &there) == 0 && there.st_ino == l->file.st_ino &&
        there.st_dev == l->file.st_dev)
        unlink(l->path);
}

static void listener_free(struct listener *l)
{
    if (l->event)
        event_free(l->event);
    path_remove(l); /* the number of its file cannot be another's while it is open */
    if (l->fd >= 0)
        close(l->fd);
    if (l->spare >= 0)
        close(l->spare);
    list_remove(&l->node);
    free(l);
}

static struct listener *listener_new(struct conns *set, int fd)
{
    struct listener *l = calloc(1, sizeof *l);
    if (!l) {
        close(fd);
        return NULL;
    }
    list_init(&l->node);
    l->set = set;
    l->fd = fd;
    l->spare = spare_open();
    l->event = event_new(loop_base(set->loop), fd, EV_READ | EV_PERSIST, listener_ready, l);
    if (l->event && event_add(l->event, NULL) == 0)
        return l;
    listener_free(l);
    return NULL;
}

bool listen_address_valid(const char *address)
{
    char host[256], port[16];
    const char *path = unix_path(address);
    return path ? path[0] != '\0' : address_split(address, host, port);
}

/* A port that is free now is most probably free when it is listened at. */
int conns_probe(const char *address, char **error)
{
    if (unix_path(address))
        return 0;
    int fd = open_tcp(address, error);
    if (fd < 0)
        return fd;
    close(fd);
    return 0;
}

int conns_listen(
    struct conns *set, const char *address, const struct conn_ops *ops, void *arg, char **error)
{
    *error = NULL;
    const char *path = unix_path(address);
    int fd = path ? open_unix(path, error) : open_tcp(address, error);
    if (fd < 0)
        return fd;
    struct listener *l = listener_new(set, fd);
    if (!l)
        return listen_error(error, PUSHROD_E_NO_MEMORY, address, strerror(ENOMEM));
    l->ops = ops;
    l->arg = arg;
    l->tcp = !path;
    if (path && path[0] != '@' && lstat(path, &l->file) == 0)
        memcpy(l->path, path, strlen(path) + 1);
    list_push_back(&set->listeners, &l->node);
    return ports_bound(fd);
}

void conns_deafen(struct conns *set)
{
    list_foreach(node, next, &set->listeners)
        listener_free(container_of(node, struct listener, node));
}

const char *conn_peer(const struct conn *c, char text[CONN_PEER_TEXT])
{
    char host[INET6_ADDRSTRLEN] = "?";
    const struct sockaddr_in *four = (const struct sockaddr_in *)&c->peer;
    const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)&c->peer;
    int family = c->peer.ss_family;
    if (family != AF_INET && family != AF_INET6)
        return strcpy(text, "local");
    inet_ntop(family, family == AF_INET ? (const void *)&four->sin_addr : &six->sin6_addr, host,
        sizeof host);
    params_join_host(
        text, CONN_PEER_TEXT, host, ntohs(family == AF_INET ? four->sin_port : six->sin6_port));
    return text;
}
