# SPDX-License-Identifier: Apache-2.0
"""The clients of the monkey (tests/chaos/rows_monkey.py): they submit any kind of task, ask for
anything at any time, go away and come back, and know of each of their tasks how it may end, and with
which bytes. The handlers of their tasks, too."""
import contextlib
import json
import os
import random
import subprocess
import sys
import time
import types

from lab import (ACCEPTED, BUILD, CANCEL, CANCELLED, DONE, EXPIRED, FAILED, FINISHED, LIST, RECORDER, RESULT_GONE,
                 ROOT, STATUS, SUBMIT, UNKNOWN_TASK, WAIT, Failure, Load, Process)

TASK_DATA, TASK_ROW, SUBMITTED, HOUR_MS = 66, 70, 75, 3600 * 1000
KINDS, DURABILITIES = ("coproc", "exec", "plug"), ("sync", "async", "memory")
QUEUES = [f"{kind}.{durability}" for kind in KINDS for durability in DURABILITIES]
# The first line of a payload says what to do, as in recorder.py; the result is the payload, or with
# size=N so many bytes of it, again and again. Of what follows the first line no two tasks have the same.
SCRIPT = r"""IFS= read -r head || { printf %s "$head"; exit; }
for word in $head; do case $word in
ms=*) sleep "$(printf 0.%03d "${word#ms=}")" ;;
crash=*) [ -e "${word#crash=}" ] || { : >"${word#crash=}"; kill -9 $PPID; } ;;
tell=*) echo "progress 1 2 half" >&3 ;;
fail) exit 1 ;;
esac; done; printf '%s\n' "$head"; exec cat"""
PLUGIN = r"""#include <fcntl.h>
#include <poll.h>
#include <pushrod/worker.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static char *word(char *head, const char *name)
{
    char *at = strstr(head, name);
    return at ? at + strlen(name) : NULL;
}
static int run(struct pushrod_task *task, void *arg)
{
    size_t size, n;
    const char *data = pushrod_task_payload(task, &size);
    char head[500] = "", *at;
    (void)arg;
    if (size)
        memcpy(head, data, size < sizeof head ? size : sizeof head - 1);
    head[strcspn(head, "\n")] = 0;
    if ((at = word(head, " ms=")))
        poll(NULL, 0, atoi(at));
    if ((at = word(head, " crash=")) && open(at, O_CREAT | O_EXCL, 0600) >= 0)
        kill(getpid(), SIGKILL);
    if ((at = word(head, " tell=")) && pushrod_task_progress(task, 1, 2, "half") == 0)
        pushrod_task_emit(task, at, strcspn(at, " "));
    if (strstr(head, " fail"))
        return pushrod_task_fail(task, "as asked");
    at = word(head, " size=");
    n = at ? (size_t)atol(at) : size;
    char *out = malloc(n + 1);
    for (size_t i = 0; i < n; i++)
        out[i] = data[i % size];
    int error = pushrod_task_result(task, out, n);
    free(out);
    return error;
}
static int open_plugin(struct pushrod_worker *w) { return pushrod_worker_handle(w, "plug.*", run, 0); }
const struct pushrod_plugin pushrod_plugin = {.abi = PUSHROD_PLUGIN_ABI, .name = "monkey", .open = open_plugin};
"""


def file(lab, name, text=None):
    path = os.path.join(lab.path, name)
    if text:
        with open(path, "w") as f:
            f.write(text)
    return path


def handlers(lab):
    """Options of a worker, for each kind of handler."""
    plugin = file(lab, "monkey.so")
    subprocess.run([*os.environ.get("CC", "cc").split(), "-shared", "-fPIC", f"-I{ROOT}/include",
                    file(lab, "monkey.c", PLUGIN), "-o", plugin], check=True)
    return {"coproc": ("--coproc", f"coproc.*={sys.executable} -IS {RECORDER} {lab.record}"),
            "exec": ("--exec", f"exec.*=exec sh {file(lab, 'monkey.sh', SCRIPT)}"), "plug": ("--plugin", plugin)}


def processes_with(word):
    """Those with the word in their command line."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as f:
            if word.encode() in f.read():
                found.append(int(pid))
    return found


def listed_queues(port):
    listed = subprocess.run([f"{BUILD}/pushrod", "queues", "--json", "--server", f"127.0.0.1:{port}"],
                            capture_output=True, check=True).stdout
    return [json.loads(line) for line in listed.splitlines()]


class Map(Process):
    """The command, and with it the client library: each line comes back, in order."""

    def __init__(self, lab, port):
        given = file(lab, "in", "".join(f"map.{n} ms={n % 7}\n" for n in range(lab.random.choice((100, 1000)))))
        super().__init__(lab, "map", ["sh", "-c", f"exec {BUILD}/pushrod map coproc.map --server 127.0.0.1:{port} "
                         f"--retries 1000 --backoff 20ms --connect-timeout 60s -j {lab.random.choice((3, 50))} "
                         f"<{given} >{given}.out"])
        lab.processes.append(self)

    def judge(self, limit):
        """All of it, in order."""
        code = self.process.wait(limit)
        with open(file(self.lab, "in")) as given, open(file(self.lab, "in.out")) as taken:
            if code or taken.read() != given.read():
                raise Failure(f"pushrod map ended with {code}, or with other results")


class Task(types.SimpleNamespace):
    """What one SUBMIT asks for, and what was done to it since."""

    def __init__(self, world, rng, name):
        kind, self.durability = rng.choice(KINDS), rng.choice(DURABILITIES)
        self.queue, self.name = f"{kind}.{self.durability}", name
        self.fate = rng.choices(("plain", "sleep", "tell", "fail", "late", "crash", "large", "empty"),
                                (40, 25, 10, 6, 1, 3, 8, 6))[0]
        self.size = rng.randrange(rng.choices((200, 20000, 70000, 1 << 20, 8 << 20), (60, 20, 10, 2, 0.3))[0])
        self.grown = rng.randrange(rng.choice((70000, 70000, 1 << 20, 4 << 20))) * (
            self.fate == "large" and kind != "exec")
        self.word = {"sleep": f" ms={rng.choice((1, 5, 20, 100))}", "tell": f" tell={name}", "fail": " fail",
                     "late": " ms=900", "crash": f" crash={world.lab.path}/{name}",
                     "large": f" size={self.grown}" if self.grown else ""}.get(self.fate, "")
        self.delay, self.expires = rng.choice((0, 0, 0, 0, 30, 300)), rng.choice((0,) * 20 + (1, 50, 500))
        self.key = rng.choice((None,) * 9 + ("hour", "end"))
        self.key = self.key and f"{self.key}.{name.partition('.')[0]}.{rng.randrange(6)}"
        self.target = rng.choice((None,) * 9 + (rng.choice([w.title for w in world.workers if kind in w.kinds]),))
        # What is kept fills the store for good: no large ones.
        self.keep = rng.choice((0, 0, 0, HOUR_MS)) * (max(self.size, self.grown) < 20000)
        self.attached = rng.random() < 0.03
        self.follow, self.priority = rng.choice((1, 1, 2)), rng.randrange(10)
        self.attempts = rng.randrange(1, 4) if self.fate in ("fail", "late") else 1000
        self.tag, self.cancelled = rng.choice((None, name.encode())), ""
        self.life, self.began, self.accepted = world.life, time.monotonic(), 0

    def payload(self):
        if self.fate == "empty":
            return b""
        body = random.Random(self.name).randbytes(251) * (self.size // 251 + 1)
        return f"{self.name}{self.word}\n".encode() + body[:self.size]

    def result(self):
        payload = self.payload()
        return (payload * (self.grown // len(payload) + 1))[:self.grown] if self.grown else payload

    def submit(self, request, patient):
        options = [80, self.priority, self.delay, 0, 30 if self.fate == "late" else 0, self.expires, self.attempts,
                   20, self.key, HOUR_MS if self.key and self.key.startswith("hour") else 0, self.target, self.keep,
                   self.attached, self.tag, {"Task": self.name}]
        return [SUBMIT, request, self.queue, self.payload(), self.follow, patient, options]

    def judge(self, status, code, result, tag):
        """What is wrong with this end; None: nothing. What was purged in the store has no tag."""
        if tag != self.tag and (tag or self.cancelled != "purged"):
            return f"has the tag {tag}"
        if status == DONE:
            if self.fate == "fail" or time.monotonic() < self.began + self.delay / 1000:
                return "is done, and cannot be"
            return None if result == self.result() else f"has a wrong result of {len(result)}, {result[:60]}"
        may = {FAILED: self.fate in ("fail", "late") and code in (60, 61, 62), EXPIRED: self.expires,
               CANCELLED: self.cancelled or self.attached}
        return None if may.get(status) else "may not end so"


class Client(Load):
    def __init__(self, world, name):
        super().__init__(world.server.client_port, 0, window=world.rng.choice((50, 200)))
        self.world, self.name, self.rng = world, name, random.Random(world.rng.random())
        self.tasks, self.asked, self.ends, self.silent_until = [], set(), {}, 0

    def wrong(self, task, what):
        raise Failure(f"{task.name} {what}: {vars(task)}")

    def submit_some(self):
        while not self.paused and len(self.output) < 1 << 20 and self.open_tasks() < self.window:
            request = next(self.requests)
            self.tasks.append(Task(self.world, self.rng, f"{self.name}.{self.submitted}"))
            self.put(self.tasks[-1].submit(request, self.rng.random() < 0.5))
            self.pending[request] = self.submitted
            self.submitted += 1

    def task(self, number):
        return self.tasks[self.accepted[number]]

    def open_ones(self):
        return [(number, vars(self.task(number))) for number in self.accepted if number not in self.finished]

    def take(self, message):
        kind, task = message[0], None
        if kind == ACCEPTED:
            self.take_accepted(message[2], self.tasks[self.pending[message[1]]])
        elif kind in (TASK_ROW, SUBMITTED) and message[2] in self.accepted:
            task = self.task(message[2])
            if message[3] not in (task.queue, None) or kind == SUBMITTED and message[4] != task.payload():
                self.wrong(task, f"is shown as another one, of {message[3]}")
        elif kind == TASK_DATA and message[2].strip() != self.task(message[1]).name.encode():
            self.wrong(self.task(message[1]), f"has told {message[2]}")
        elif kind == FINISHED:
            task, end = self.task(message[1]), (message[2], message[3], message[6] or b"", message[8])
            if wrong := task.judge(*end):
                self.wrong(task, f"{wrong} ({end[:2]}, {message[7]})")
            if self.ends.setdefault(message[1], end) != end:
                self.wrong(task, f"has ended twice, as {self.ends[message[1]][:2]} and as {end[:2]}")
        super().take(message)

    def take_accepted(self, number, task):
        task.accepted = time.monotonic()
        if number in self.accepted:
            self.wrong(task, f"has the id of {self.task(number).name}")
        for other in (self.tasks[n] for n in self.accepted.values()):
            if (other.key, other.queue) == (task.key or 0, task.queue) and task.key.startswith("hour") and not (
                    other.cancelled or task.durability != "sync"):
                self.wrong(task, f"has the key of {other.name}, which was accepted")

    def may_be_gone(self, task):
        """Of memory with its server; of an async queue if it came 50 ms (here 3 s) before a crash, or if
        the store was full (docs/decisions.md: an async task that the store refused)."""
        if task.durability == "async" and any(task.accepted > crash - 3 for crash in self.world.crashes):
            return True
        ended = task.life < self.world.life
        return task.cancelled == "purged" or ended and (task.durability == "memory" or (
            task.durability == "async" and "the store cannot write" in self.world.server.log()))

    def kept_in_memory(self):
        """How many of its tasks the server may still have, though all have ended: no store has these."""
        here = {"memory", "async" if "the store cannot write" in self.world.server.log() else "memory"}
        ends = [(self.task(number), status) for number, (status, _) in self.finished.items()]
        return self.unknown + sum(task.durability in here and (task.keep > 0 or status == FAILED)
                                  for task, status in ends)

    def take_rejected(self, request, code):
        number = self.waits.get(request)
        if request in self.asked:
            return
        if number is None or code not in (UNKNOWN_TASK, RESULT_GONE):
            super().take_rejected(request, code)
            return
        task = self.task(self.waits.pop(request))
        if not self.may_be_gone(task) and (task.keep or number not in self.finished):
            self.wrong(task, f"is not known any more ({code})")
        self.finished.setdefault(number, (0, code))

    def ask(self, kind, *fields):
        request = next(self.requests)
        self.asked.add(request)
        self.put([kind, request, *fields])

    def act(self):
        """Something that is not a submission."""
        if not self.socket or not self.accepted:
            return
        number = self.rng.choice(list(self.accepted)[-100:])
        deed = self.rng.choice(("cancel", "cancel", "status", "submitted", "list", "drop", "silent"))
        self.world.counts[deed] += 1
        if deed == "cancel":
            self.task(number).cancelled = self.task(number).cancelled or deed
            self.ask(CANCEL, number)
        elif deed == "status":
            self.ask(STATUS, number)
        elif deed == "submitted":
            self.ask(LIST, deed, None, number, 0)
        elif deed == "list":
            self.ask(LIST, self.rng.choice(("queues", "workers", "running", "dead", "stats")), None, 0, 0)
        elif deed == "drop":
            self.close()
        else:
            self.silent_until = time.monotonic() + self.rng.random()

    def wait_again(self):
        """For what was kept, if the world still has it: it must be as it was told."""
        self.close()
        self.run_until("a connection", lambda: self.socket, self.world.LIMIT)
        for number, task in [(number, self.task(number)) for number, (status, _) in self.finished.items() if status]:
            if task.keep and task.durability == "sync" or (task.durability, task.life) == ("memory", self.world.life):
                request = next(self.requests)
                self.waits[request] = number
                self.put([WAIT, request, number, 0])
                self.world.counts["kept"] += 1
        self.run_until("what was kept", lambda: self.socket and not self.waits and not self.output, self.world.LIMIT)
