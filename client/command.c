/* SPDX-License-Identifier: Apache-2.0 */
/* command: the table of commands. Help, completion and the manual page come from it. */
#include "client/command.h"

#include <string.h>

#define JSON_ROW ROW("json", BOOL, "one JSON object a line (man pushrod, JSON)")

#define STREAM_ROW                                                                                 \
    ROW("stream", BOOL, "wait, and print the chunks that the handler sends as they come")

static const struct param list_rows[] = {JSON_ROW};
static const ROWS(list_rows);

static const struct param submit_rows[] = {
    ROW_TITLE("Submitting"),
    ROW("wait", BOOL, "wait for the result and print it", .letter = 'w'),
    ROW("wait-for", DURATION, "wait this long at the most; exit code 124 if it ends", .min = 1),
    STREAM_ROW,
    ROW("unique", STRING, "a second task with this key is refused while it holds",
        .value_name = "KEY"),
    ROW("unique-for", DURATION, "how long that key holds; else until the task ends"),
    ROW("tag", STRING, "stored with the task and told with its finish", .value_name = "TEXT"),
    ROW("attempts", UNSIGNED, "until the task is dead", .initial = "3", .min = 1, .max = 1000),
    ROW("attached", BOOL, "with --wait: cancel the task when this command ends"),
    JSON_ROW,
    TASK_ROWS,
};
static const ROWS(submit_rows);

static const struct param map_rows[] = {
    ROW_TITLE("Input"),
    ROW("null", BOOL, "inputs end in a NUL byte, as of find -print0", .letter = '0'),
    ROW("delimiter", STRING, "inputs end in this character (\\n, \\t, \\0 and \\xHH are known)",
        .letter = 'd', .value_name = "C"),
    ROW("files", BOOL, "inputs are names of files; their contents are the payloads"),
    ROW_TITLE("Running"),
    ROW("jobs", UNSIGNED, "tasks in flight; 0: as many as go", .letter = 'j', .initial = "1000",
        .max = 100000),
    ROW("retries", UNSIGNED, "try a failing task so many times", .initial = "1", .min = 1,
        .max = 1000),
    ROW("detach", BOOL, "tasks go on when this command vanishes"),
    ROW("halt", STRING, "never, or now|soon,fail|success|done=N or N%", .initial = "never",
        .value_name = "WHEN"),
    ROW_TITLE("Output"),
    ROW("unordered", BOOL, "print each result as it comes, and chunks as well", .letter = 'u'),
    ROW("tag", BOOL, "put the input and a tab before each line"),
    ROW("json", BOOL, "one JSON object for each input, with its result or its error"),
    ROW("results", STRING, "write each input, result and error to DIR/NUMBER/ as well",
        .value_name = "DIR"),
    ROW("joblog", STRING,
        "write a line for each task, in the columns of GNU parallel (man pushrod, JOBLOG)",
        .value_name = "FILE"),
    ROW("resume", BOOL, "leave out what the joblog has"),
    ROW("resume-failed", BOOL, "leave out what the joblog has as successful"),
    ROW("progress", BOOL,
        "draw a progress bar; on a terminal, without a pipe behind, that is the default"),
    TASK_ROWS,
};
static const ROWS(map_rows);

static const struct param wait_rows[] = {
    ROW("wait-for", DURATION, "wait this long at the most; exit code 124 if it ends", .min = 1),
    STREAM_ROW,
    JSON_ROW,
};
static const ROWS(wait_rows);

static const struct param drain_rows[] = {
    ROW("all", BOOL, "every worker"),
    JSON_ROW,
};
static const ROWS(drain_rows);

static const struct param dead_rows[] = {
    ROW("all", BOOL, "replay, drop: every dead task (of the queue)"),
    ROW("to", STRING, "replay: as new tasks of this queue", .value_name = "QUEUE"),
    ROW("payload", STRING, "replay: as a new task with what is in this file (-: standard input)",
        .value_name = "FILE"),
    ROW("limit", UNSIGNED, "ls: rows", .initial = "1000", .min = 1, .max = 1000000),
    ROW("after", UNSIGNED, "ls: only ids above this one", .value_name = "ID"),
    JSON_ROW,
};
static const ROWS(dead_rows);

static const struct param top_rows[] = {
    ROW("interval", DURATION, "between two looks", .initial = "1s", .min = 100),
    ROW("count", UNSIGNED, "looks, then leave; 0: until you stop it", .letter = 'n'),
    JSON_ROW,
};
static const ROWS(top_rows);

static const struct param ping_rows[] = {
    ROW("count", UNSIGNED, "round trips", .letter = 'n', .initial = "1", .min = 1, .max = 1000000),
    ROW("wait", STRING, "wait this long for the server to be there (seconds, or 500ms, 1m)",
        .value_name = "TIME"),
    ROW("quiet", BOOL, "only the exit code", .letter = 'q'),
    JSON_ROW,
};
static const ROWS(ping_rows);

static const struct param bench_rows[] = {
    ROW("queue", STRING, "that a worker serves", .initial = "bench", .value_name = "NAME",
        .letter = 'q'),
    ROW("count", UNSIGNED, "tasks", .letter = 'n', .initial = "100000", .min = 1, .max = 100000000),
    ROW("size", SIZE, "of a payload", .letter = 's', .initial = "64", .max = 16777216),
    ROW("in-flight", UNSIGNED, "tasks at the same time", .initial = "10000", .min = 1,
        .max = 1000000),
    ROW("round-trips", UNSIGNED, "tasks one at a time, for the latency", .initial = "1000",
        .max = 1000000),
    JSON_ROW,
};
static const ROWS(bench_rows);

#define NARROW     "A terminal too narrow for all columns is shown fewer of them; a pipe gets them all."
#define OWN(rows_) .rows = rows_, .row_count = &rows_##_count

const struct command commands[] = {
    {"submit", "QUEUE [PAYLOAD...]", "submit a task, and print its id",
        "PAYLOAD is the text itself, @FILE for a file's contents, - for standard input, or @@TEXT "
        "for a text that begins with @. Without one, standard input is the payload. Several "
        "payloads are several tasks.\n"
        "With --wait the result goes to standard output, as it is. With --stream the chunks that "
        "the handler sends go there before it, as they come: of several tasks in any order, and "
        "once more if an attempt fails.\n"
        "If the connection is lost before the answer came, a task with a key is sent again. One "
        "that had ended by then runs twice, unless --unique-for still holds its key.",
        cmd_submit, OWN(submit_rows), 1, -1},
    {"map", "QUEUE [INPUT...]", "a task for each line of standard input, results in their order",
        "An xargs over many machines: the payload is the line without its end. Inputs may be given "
        "as arguments instead. A result without a newline at its end gets one. ^C cancels what is "
        "left, a second ^C exits at once.\nExit code 1 if a task failed. What failed is also a "
        "dead "
        "letter on the server, each time: pushrod dead drop --all QUEUE.",
        cmd_map, OWN(map_rows), 1, -1},
    {"wait", "ID...", "wait for tasks, and print their results",
        "Results are printed in the order of the ids. On a terminal the progress that handlers "
        "tell "
        "is shown meanwhile.",
        cmd_wait, OWN(wait_rows), 1, -1},
    {"status", "ID...", "where tasks are", "", cmd_status, OWN(list_rows), 1, -1},
    {"payload", "ID", "the payload of a task, byte for byte",
        "Of one that waits or runs, and of a dead one. With --json its options as well. To correct "
        "a dead task:\n"
        "pushrod payload ID > file\n"
        "pushrod dead replay ID --payload file",
        cmd_payload, OWN(list_rows), 1, 1},
    {"cancel", "ID...", "stop tasks",
        "One that has ended already is said, and is no error: with --json its tasks are 0.",
        cmd_cancel, OWN(list_rows), 1, -1},
    {"queues", "[QUEUE|PATTERN]", "what waits, runs and failed in each queue", NARROW, cmd_queues,
        OWN(list_rows), 0, 1},
    {"workers", "[WORKER|PATTERN]", "who is there, and what they serve", NARROW, cmd_workers,
        OWN(list_rows), 0, 1},
    {"running", "[QUEUE|PATTERN]", "what workers have, and for how long",
        "By id. What waits at a worker for its turn is shown as well. " NARROW, cmd_running,
        OWN(list_rows), 0, 1},
    {"top", "", "queues and workers, looked at every second",
        "q leaves. What the terminal has no room for is counted; arrows, page keys, home and end "
        "scroll, tab changes between queues and workers. Not on a terminal: plain text. " NARROW,
        cmd_top, OWN(top_rows), 0, 0},
    {"events", "", "workers that come and go, tasks that fail, as it happens",
        "Standard error says when it begins to watch; what happened before is not told.",
        cmd_events, OWN(list_rows), 0, 0},
    {"pause", "QUEUE...", "hand out nothing of a queue",
        "A queue can be paused before its first task.", cmd_pause, OWN(list_rows), 1, -1},
    {"resume", "QUEUE...", "hand out again", "", cmd_resume, OWN(list_rows), 1, -1},
    {"purge", "QUEUE...", "cancel everything that waits in a queue", "", cmd_purge, OWN(list_rows),
        1, -1},
    {"drain", "[WORKER|PATTERN...]", "let workers finish what they run, and leave",
        "A pattern is the beginning of names and a *; each worker that leaves is named.", cmd_drain,
        OWN(drain_rows), 0, -1},
    {"dead", "ls|show|replay|drop [QUEUE|ID...]", "tasks that failed for good",
        "dead ls [QUEUE]        list them\n"
        "dead show ID...        its options, how its payload begins, and each attempt\n"
        "dead replay ID...      run them again, with all their attempts\n"
        "dead drop ID...        forget them\n"
        "replay and drop take --all [QUEUE] instead of ids. With --to or --payload a new "
        "task, whose id is printed, has the place of the dead one, and its options.",
        cmd_dead, OWN(dead_rows), 1, -1},
    {"ping", "", "is the server there, and how far away", "", cmd_ping, OWN(ping_rows), 0, 0},
    {"bench", "", "how fast is this installation",
        "Needs a worker that serves the queue, such as: pushrod-worker --exec bench=cat", cmd_bench,
        OWN(bench_rows), 0, 0},
    {"help", "[COMMAND]", "explain a command", "", cmd_help, NULL, NULL, 0, 1},
    {"version", "", "print the version of this program", "", cmd_version, OWN(list_rows), 0, 0},
};

const size_t command_count = sizeof commands / sizeof commands[0];

const struct command *command_find(const char *name)
{
    for (size_t i = 0; i < command_count; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}
