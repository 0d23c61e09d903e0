/* SPDX-License-Identifier: Apache-2.0 */
#include "common/options.h"

#define KIB    *UINT64_C(1024)
#define MIB    *UINT64_C(1048576)
#define GIB    *UINT64_C(1073741824)
#define SECOND *UINT64_C(1000)
#define HOUR   *UINT64_C(3600000)

#define TITLE(text)                                                                                \
    {                                                                                              \
        .name = (text), .type = PARAM_TITLE                                                        \
    }
/* Numbers have bounds; everything else has none. The rest of a row follows as designated fields. */
#define NUMBER(name_, kind, scope_, initial_, min_, max_, help_, ...)                              \
    {                                                                                              \
        .name = (name_), .type = PARAM_##kind, .scope = (scope_), .initial = (initial_),           \
        .min = (min_), .max = (max_), .help = (help_), __VA_ARGS__                                 \
    }
#define OPTION(name_, kind, scope_, initial_, help_, ...)                                          \
    {                                                                                              \
        .name = (name_), .type = PARAM_##kind, .scope = (scope_), .initial = (initial_),           \
        .help = (help_), __VA_ARGS__                                                               \
    }
#define ACTION(name_, scope_, letter_, help_)                                                      \
    {                                                                                              \
        .name = (name_), .type = PARAM_BOOL, .scope = (scope_), .letter = (letter_),               \
        .help = (help_), .flags = PARAM_ACTION                                                     \
    }

#define SERVER SCOPE_SERVER
#define WORKER SCOPE_WORKER
#define CLIENT SCOPE_CLIENT
#define RELOAD .flags = PARAM_RELOADABLE
#define NONE   .flags = 0

/* clang-format off */
const struct param option_rows[] = {
    TITLE("Addresses"),
    OPTION("listen", HOST_PORTS, SERVER, "127.0.0.1:5570", "where clients connect", NONE),
    OPTION("worker-listen", STRING, SERVER, "127.0.0.1", "address for workers: join, answers and lanes",
        .value_name = "ADDRESS"),
    OPTION("join-port", PORT, SERVER, "5571", "where workers join", .variable = "PUSHROD_JOIN_ON"),
    OPTION("answers-port", PORT, SERVER, "5572", "where workers answer", .variable = "PUSHROD_ANSWERS_ON"),
    OPTION("lane-ports", PORTS, SERVER, "22500-23523", "one for each worker", .variable = "PUSHROD_LANES_ON"),
    OPTION("http", HOST_PORTS, SERVER, "127.0.0.1:5573", "where /metrics, /healthz and /readyz are; none: nowhere", NONE),
    OPTION("advertise", STRING, SERVER, NULL, "host told to workers instead of the one that they dialled",
        .value_name = "NAME"),
    OPTION("unix-sockets", BOOL, SERVER, "yes", "let clients and workers on this host change to Unix sockets, which are faster", NONE),
    OPTION("join", HOST_PORTS, WORKER, "127.0.0.1:5571", "the server to work for; several are tried in turn", NONE),
    OPTION("server", HOST_PORT, CLIENT, "127.0.0.1:5570", "the server to talk to", NONE),
    OPTION("token", STRING, SCOPE_ALL, NULL, "secret that clients and workers must know; better --token-file FILE", .flags = PARAM_SECRET | PARAM_RELOADABLE),

    TITLE("Limits"),
    NUMBER("max-payload", SIZE, SERVER, "16m", 1 KIB, 1 GIB, "largest payload of a task", NONE),
    NUMBER("max-result", SIZE, SERVER | WORKER, "16m", 1 KIB, 1 GIB, "largest result of a task", NONE),
    NUMBER("max-tasks", UNSIGNED, SERVER, "0", 0, 0, "unfinished tasks in a queue, 0 for no bound", RELOAD),
    NUMBER("metrics-queues", UNSIGNED, SERVER, "1000", 0, 10000, "queues that /metrics shows one by one, those that came first; a thousand take some ms", NONE),
    NUMBER("max-queues", UNSIGNED, SERVER, "100000", 1, 10000000, "queues that submissions may make", NONE),
    NUMBER("max-bytes", SIZE, SERVER, "1g", 1 MIB, 0, "payloads of all tasks that are only in memory", RELOAD),
    NUMBER("max-unsettled", SIZE, SERVER, "16m", 64 KIB, 0, "submissions that wait for their commit", NONE),
    NUMBER("max-clients", UNSIGNED, SERVER, "10000", 1, 1000000, "connections of clients", NONE),
    NUMBER("max-unsent", SIZE, SERVER, "256m", 2 MIB, 0, "what may wait for a client that does not read; not set: 16 of max-result at least", NONE),
    NUMBER("max-workers", UNSIGNED, SERVER, "1024", 1, 4096, "workers, each with a lane", NONE),
    NUMBER("max-prefetch", UNSIGNED, SERVER | WORKER, "1000", 0, 1000000, "tasks beyond the slots of a worker", NONE),
    NUMBER("window-tasks", UNSIGNED, SERVER, "50000", 16, 100000000, "tasks of a queue in memory, the rest is in the store", NONE),
    NUMBER("window-bytes", SIZE, SERVER, "64m", 1 MIB, 0, "payloads of that window", NONE),
    NUMBER("lane-bytes", SIZE, SERVER, "1m", 64 KIB, 0, "outstanding on one lane, or one task", NONE),
    NUMBER("flight-bytes", SIZE, SERVER, "4m", 64 KIB, 0, "outstanding on all lanes ahead of idle slots", NONE),
    NUMBER("hold-time", DURATION, SERVER, "10m", 1 SECOND, 24 HOUR, "keep finishes that a client has not acknowledged", NONE),
    NUMBER("hold-tasks", UNSIGNED, SERVER, "100000", 1, UINT32_MAX, "kept finishes in memory; the oldest go first", NONE),
    NUMBER("hold-bytes", SIZE, SERVER, "256m", 64 KIB, 0, "results of those; not set: 16 of max-result at least", NONE),
    NUMBER("poison-limit", UNSIGNED, SERVER, "3", 1, 100, "deaths of workers alone with a task until it is dead", NONE),

    TITLE("Time"),
    NUMBER("heartbeat", DURATION, SERVER, "1s", 100, 60 SECOND, "a worker that has tasks says something at least this often", NONE),
    NUMBER("missed-heartbeats", UNSIGNED, SERVER, "3", 2, 100, "until a silent worker is fenced", NONE),
    NUMBER("ping", DURATION, SERVER, "5s", 100, 60 SECOND, "the server says something to a worker at least this often, to an idle one a fourth as often", NONE),
    NUMBER("ready-wait", DURATION, SERVER, "5s", 100, 60 SECOND, "for a worker that was given a lane", NONE),
    NUMBER("rejoin-wait", DURATION, SERVER, "3s", 0, 600 SECOND, "for workers to come back after a restart; what they may be running is held for so long", NONE),
    NUMBER("drain-timeout", DURATION, SERVER | WORKER, "25s", 0, 24 HOUR, "for running tasks, on SIGTERM", RELOAD),
    NUMBER("handshake-timeout", DURATION, SERVER, "10s", 100, 600 SECOND, "for a client to say HELLO", NONE),
    NUMBER("slow-client", DURATION, SERVER, "30s", 100, 24 HOUR, "for a client that does not read what is sent to it", NONE),
    NUMBER("timeout", DURATION, SERVER | WORKER, "1h", 0, 0, "of an attempt of --exec or --coproc, if its task has none; 0 for none", NONE),
    NUMBER("connect-timeout", DURATION, CLIENT, "10s", 1, 24 HOUR, "for a server that cannot be reached", NONE),

    TITLE("Store"),
    OPTION("data", STRING, SERVER, NULL, "where tasks are kept; without it they are in memory only", .value_name = "DIR"),
    OPTION("durability", ENUM, SERVER, "sync", "of queues not named by --queue; sync, async: needs --data", .allowed = "sync|async|memory"),
    OPTION("queue", LIST, SERVER, NULL, "PATTERN=SETTING,...: sync, async, memory, max-tasks:NUMBER; mail.*=async,max-tasks:1000", .value_name = "PATTERN=..."),
    NUMBER("max-disk", SIZE, SERVER, "16g", 16 MIB, 0, "how large the store may become on disk", NONE),

    TITLE("Handlers"),
    OPTION("exec", LIST, SERVER | WORKER, NULL, "run COMMAND for each task of QUEUE", .value_name = "QUEUE=COMMAND"),
    OPTION("coproc", LIST, SERVER | WORKER, NULL, "keep COMMAND running for QUEUE, one for each slot", .value_name = "QUEUE=COMMAND"),
    OPTION("plugin", LIST, SERVER | WORKER, NULL, "load handlers from a shared object", .value_name = "FILE"),
    NUMBER("workers", UNSIGNED, SERVER, "0", 0, 1024, "local worker processes, started and watched by the server; not set: 1 if there are handlers", RELOAD),
    NUMBER("task-workers", UNSIGNED, SERVER, "4", 1, 1024, "local processes for on_task() handlers", NONE),
    NUMBER("slots", UNSIGNED, SERVER | WORKER, "0", 0, 4096, "tasks at the same time, 0 for one for each CPU", NONE),
    NUMBER("processes", UNSIGNED, WORKER, "1", 1, 1024, "worker processes, restarted when they die", NONE),
    NUMBER("recycle-tasks", UNSIGNED, SERVER, "0", 0, 0, "local workers leave after so many tasks, 0 for never", NONE),
    NUMBER("max-tasks", UNSIGNED, WORKER, "0", 0, 0, "leave after so many tasks, 0 for never",
        .variable = "PUSHROD_LEAVE_AFTER"), /* PUSHROD_MAX_TASKS is the server's */
    NUMBER("max-memory", SIZE, SERVER | WORKER, "0", 0, 0, "leave when a process is larger, 0 for no bound", NONE),
    OPTION("name", STRING, WORKER, NULL, "of the worker, for people and for targeted tasks", .value_name = "NAME"),

    TITLE("General"),
    OPTION("config", STRING, SCOPE_ALL, NULL, "read options from FILE: lines of name = value", .value_name = "FILE", .letter = 'c'),
    OPTION("log-level", ENUM, SERVER | WORKER, "info", "what is logged", .allowed = "error|warning|info|debug", RELOAD),
    OPTION("log-format", ENUM, SERVER | WORKER, "text", "of the lines on standard error", .allowed = "text|json", NONE),
    NUMBER("io-threads", UNSIGNED, SERVER, "2", 1, 16, "of ZeroMQ: with more than one, what is small waits less for what is large", NONE),
    NUMBER("io-threads", UNSIGNED, WORKER, "1", 1, 16, "of ZeroMQ", NONE),
    ACTION("check-config", SERVER | WORKER, 0, "check the options and exit"),
    ACTION("print-config", SCOPE_ALL, 0, "print the options in use and where they came from, and exit"),
    ACTION("print-sample", SERVER | WORKER, 0, "print a sample configuration file, and exit"),
    ACTION("print-man", SERVER | WORKER, 0, "print the options as a part of a manual page, and exit"),
    ACTION("print-completion", SCOPE_ALL, 0, "print the options as words for a shell, and exit"),
    ACTION("version", SCOPE_ALL, 'V', "print the version and exit"),
    ACTION("help", SCOPE_ALL, 'h', "print this and exit"),
};
/* clang-format on */

const size_t option_count = sizeof option_rows / sizeof option_rows[0];
