/* SPDX-License-Identifier: Apache-2.0 */
/*
 * conn: connections that were accepted, of TCP and Unix sockets: reading, writing, closing, and
 * their limits.
 *
 * Knows descriptors, the loop and how much may lie unsent. What the bytes mean is the business of
 * a protocol (struct conn_ops): the native one, or the framings of an embedded server.
 *
 * Reading: all connections read into one shared buffer, so an idle connection owns none; what a
 * protocol leaves of it (the beginning of a frame) is kept with the connection, and large payloads
 * are taken of it as they lie (inbuf.h). Writing: what is written in a tick leaves in one piece at
 * its end. A connection with more than CONN_PAUSE bytes unsent is not read any more; one that takes
 * nothing for `slow_ms`, or lets more than `max_unsent` bytes pile up, is dropped as a SLOW_READER.
 *
 * Who has not greeted yet has its place only until another one comes that would find none: else
 * strangers that say nothing could keep everybody out.
 *
 * Closing never frees at once: a struct conn stays valid until the end of the tick.
 * Everything here belongs to the loop's thread and is called within a tick.
 */
#ifndef SERVER_NET_CONN_H
#define SERVER_NET_CONN_H

#include <event2/event_struct.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include "common/body.h"
#include "common/buf.h"
#include "common/list.h"
#include "server/net/loop.h"

#define CONN_READ     (256u << 10) /* bytes of one read into the shared buffer */
#define CONN_FIRST    (16u << 10)  /* ... until one was full */
#define CONN_LARGE    (64u << 10)  /* bytes of a body that is not copied, if that can be helped */
#define CONN_PAUSE    (1u << 20)   /* unsent bytes above which a connection is not read */
#define CONN_RESUME   (256u << 10) /* ... until it is below this */
#define CONN_TURN     (4u << 20)   /* bytes that leave in one turn, however fast they are read */
#define CONN_LATER    (4u << 10)   /* bytes that are worth a write of their own */
#define CONN_LATER_MS 1            /* that fewer may wait for company */

struct conn;
struct conns;

/* A protocol. All are called within a tick; what is passed is borrowed. NULL, but for input(): it
 * has nothing to do then. */
struct conn_ops {
    const char *name;
    /* Accepted. */
    void (*opened)(struct conn *c);
    /*
     * Bytes arrived. Returns how many were taken; the rest comes again, with more behind it. At
     * most CONN_READ bytes may be left over; for a large payload, see conn_body().
     */
    size_t (*input)(struct conn *c, const uint8_t *data, size_t size);
    /* It is over; the last call. code: enum pushrod_error, 0: the peer closed it. */
    void (*closed)(struct conn *c, int code);
    /* Above max_clients, or silent when others wait for its place: says so on `fd`, which is
     * closed after it. */
    void (*turned_away)(int fd, void *arg);
};

enum conn_state { CONN_OPEN, CONN_CLOSING /* flushes, then waits for the peer */, CONN_DEAD };

struct conn {
    uint64_t id; /* never used again */
    struct conns *set;
    const struct conn_ops *ops;
    void *arg;  /* of the listener */
    void *data; /* the protocol's own */
    int fd;
    uint8_t state;
    bool reading;         /* the read event is added */
    bool writing;         /* the write event is added */
    bool choked;          /* not read: too much unsent */
    bool greeted;         /* the protocol's handshake is done */
    bool eager;           /* a read was full: they are of CONN_READ from now on */
    bool again;           /* input() has its turn before anything is read */
    uint8_t large_reads;  /* that get room for another body of `large` bytes */
    int code;             /* why it closes */
    size_t unsent;        /* bytes in `out` */
    int queued;           /* bytes in its socket, when `timer` was set for them */
    struct evbuffer *out; /* NULL: nothing was ever left over */
    struct buf in;        /* what the protocol left */
    uint8_t *fill_to;     /* where the next bytes go; NULL: to input() */
    size_t fill_left;
    size_t large;            /* bytes of its last large body */
    struct deferral part;    /* the next part of what is filled, or input() again */
    struct list node;        /* paused, later, dirty or dead */
    struct list silent;      /* until `greeted`; or alone */
    uint64_t since_ns;       /* monotonic: accepted */
    struct loop_timer timer; /* handshake, slow reader, or the end of CLOSING */
    struct event read_event;
    struct event write_event;
    struct sockaddr_storage peer;
};

struct conns_config {
    uint32_t max_clients;  /* 10000 */
    uint64_t handshake_ms; /* 10000: until `greeted` */
    uint64_t slow_ms;      /* 30000 without a byte taken */
    size_t max_unsent;     /* 256 MiB */
};

/* N(name, kind, text): for /metrics. */
#define CONN_STATS(N)                                                                              \
    N(connections, gauge, "client connections")                                                    \
    N(accepted, counter, "client connections accepted")                                            \
    N(turned_away, counter, "client connections above max-clients")                                \
    N(protocol_errors, counter, "client connections closed for what they sent")                    \
    N(slow_readers, counter, "client connections closed because they did not read")                \
    N(bytes_in, counter, "bytes read from clients")                                                \
    N(bytes_out, counter, "bytes written to clients")

struct conn_stats {
#define N(name, kind, text) uint64_t name;
    CONN_STATS(N)
#undef N
};

struct conns *conns_new(struct loop *loop, const struct conns_config *config); /* NULL: no memory */
/* Closes what is open, without telling anybody; what their sockets take at once still leaves. */
void conns_free(struct conns *set);
struct conn_stats *conns_stats(struct conns *set);
struct loop *conns_loop(struct conns *set);

/*
 * Listens on "HOST:PORT", ":PORT", "[V6]:PORT", "unix:PATH" or "unix:@NAME" (abstract, without a
 * file); port 0: any free one. Returns the port (0 for a Unix socket), or a negative enum
 * pushrod_error with a text for people that the caller frees.
 */
int conns_listen(
    struct conns *set, const char *address, const struct conn_ops *ops, void *arg, char **error);
int conns_probe(const char *address, char **error); /* could it? 0, or as conns_listen() */
bool listen_address_valid(const char *address);     /* of that form; names are not resolved */
void conns_deafen(struct conns *set);               /* closes the listeners: nobody new */

struct conn *conn_find(struct conns *set, uint64_t id); /* NULL: gone */
/* Each open connection with these ops, until fn returns false. */
void conns_each(struct conns *set, const struct conn_ops *ops,
    bool (*fn)(struct conn *c, void *arg), void *arg);
/* Stops or starts reading from everybody; costs something only for those who send. */
void conns_pause(struct conns *set, bool paused);
/* Sends what was written in this tick; frees what died in it. */
void conns_flush(struct conns *set);
/* True while a connection has bytes that were not sent yet. */
bool conns_busy(const struct conns *set);

/* Appends to what leaves at the end of the tick; copied. Nothing if it is closing. */
void conn_write(struct conn *c, const void *data, size_t size);
/* The same by reference: takes a reference of its own. */
void conn_write_body(struct conn *c, struct body *body);
/* Writes now if nothing waits before it; the rest as conn_write(). For the end of a tick. */
void conn_send(struct conn *c, const void *data, size_t size);
/*
 * As conn_send(), for what nobody waits for: a little leaves with what is written next, or after
 * CONN_LATER_MS. A wake-up costs the peer more than reading does.
 */
void conn_send_later(struct conn *c, const void *data, size_t size);

/*
 * `size` bytes as a body. From CONN_LARGE on they are not copied, if they lie in what input() was
 * given and can be had as they lie. NULL: no memory.
 */
struct body *conn_body(struct conn *c, const uint8_t *data, size_t size);
/*
 * The same for a large one of which only the first bytes are `there`, and nothing behind them. The
 * others are read into it, in parts between which the other connections have their turn, and then
 * input() is called again, with what lay behind the body. The caller holds it until then.
 */
struct body *conn_body_begun(struct conn *c, const uint8_t *data, size_t there, size_t size);
/*
 * In input(): what was taken is more than one turn's work. It is called again when the others have
 * had theirs, with what it leaves, before anything is read.
 */
void conn_again(struct conn *c);
void conn_greeted(struct conn *c); /* the handshake is done: it may be silent now */
/* Sends what was written, as ever `slow_ms` without a byte taken, then ends its half; the peer has
 * 2 s to close. Input is thrown away. */
void conn_close(struct conn *c, int code);
/* Closes at once. */
void conn_kill(struct conn *c, int code);
/* "127.0.0.1:4711" into `text`, for people. Returns text. */
#define CONN_PEER_TEXT 80u
const char *conn_peer(const struct conn *c, char text[CONN_PEER_TEXT]);

#endif
