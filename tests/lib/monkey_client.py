# SPDX-License-Identifier: Apache-2.0
"""The clients of the monkey (tests/chaos/rows_monkey.py): they submit any kind of task, ask for
anything at any time, go away and come back, and know of each of their tasks how it may end, and with
which bytes. The handlers of their tasks, too."""
import contextlib
import json
import os
import random
import re
import subprocess
import sys
import time
import types

from lab import (ACCEPTED, BUILD, CANCEL, CANCELLED, CONTROL, DONE, EXPIRED, FAILED, FINISHED, LIST, OK, RECORDER,
                 REJECTED, RESULT_GONE, ROOT, STATUS, STORE_FAILED, SUBMIT, UNKNOWN_TASK, WAIT, Failure, Load, Process)

TASK_DATA, TASK_ROW, SUBMITTED, DUPLICATE, WRONG_STATE, HOUR_MS = 66, 70, 75, 5, 10, 3600 * 1000
KINDS, DURABILITIES = ("coproc", "exec", "plug"), ("sync", "async", "memory")
QUEUES = [f"{kind}.{durability}" for kind in KINDS for durability in DURABILITIES]
# The first line of a payload says what to do, as in recorder.py; the result is the payload, or with
# size=N so many bytes of it, again and again. Of what follows the first line no two tasks have the same.
SCRIPT = r"""IFS= read -r head || { printf %s "$head"; exit; }
for word in $head; do case $word in
ms=*) sleep "$(printf 0.%03d "${word#ms=}")" ;;
crash=*) [ -e "${word#crash=}" ] || { : >"${word#crash=}"; kill -9 $PPID; } ;;
tell=*) echo "progress 1 2 half" >&3 ;;
once=*) [ -e "${word#once=}" ] || { : >"${word#once=}"; exit 1; } ;;
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
    if ((at = word(head, " once=")) && open(at, O_CREAT | O_EXCL, 0600) >= 0)
        return 1;
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
#ifdef OWN
int main(int argc, char **argv)
{
    struct pushrod_worker *w = pushrod_worker_new();
    int error = pushrod_worker_handle(w, "plug.*", run, 0);
    for (int i = 1; i + 1 < argc && !error; i += 2)
        error = pushrod_worker_set(w, argv[i], argv[i + 1]);
    pushrod_worker_catch_signals(w, true);
    error = error ? error : pushrod_worker_run(w);
    pushrod_worker_free(w);
    return error ? 1 : 0;
}
#endif
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


def own_program(lab):
    """The same in a program of its own; None: the library is built with a sanitizer."""
    library, program = os.path.join(BUILD, "libpushrod.so.0"), file(lab, "own")
    with open(library, "rb") as f:
        if re.search(b"__[at]san_init", f.read()):
            return None
    subprocess.run([*os.environ.get("CC", "cc").split(), "-DOWN", f"-I{ROOT}/include", file(lab, "monkey.c"), "-o",
                    program, library, f"-Wl,-rpath,{BUILD}"], check=True)
    return program


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
        self.fate = rng.choices(("plain", "sleep", "tell", "fail", "once", "late", "crash", "large", "empty"),
                                (35, 25, 10, 6, 5, 1, 3, 8, 6))[0]
        self.size = rng.randrange(rng.choices((200, 20000, 70000, 1 << 20, 8 << 20), (60, 20, 10, 2, 0.3))[0])
        self.grown = rng.randrange(rng.choice((70000, 70000, 1 << 20, 4 << 20))) * (
            self.fate == "large" and kind != "exec")
        self.word = {"sleep": f" ms={rng.choice((1, 5, 20, 100))}", "tell": f" tell={name}", "fail": " fail",
                     "late": " ms=900", "crash": f" crash={world.lab.path}/{name}",
                     "once": f" once={world.lab.path}/{name}",
                     "large": f" size={self.grown}" if self.grown else ""}.get(self.fate, "")
        self.delay, self.expires = rng.choice((0, 0, 0, 0, 30, 300)), rng.choice((0,) * 20 + (1, 50, 500))
        self.key = rng.choice((None,) * 9 + ("hour", "end"))
        self.key = self.key and f"{self.key}.{name.partition('.')[0]}.{rng.randrange(6)}"
        self.target = rng.choice((None,) * 9 + (rng.choice([w.title for w in world.workers if kind in w.kinds]),))
        self.again = self.key is None and rng.random() < 0.2  # is submitted again after a loss, under a key
        self.key = f"again.{name}" if self.again else self.key
        self.keep = rng.choice((0, 0, 0, HOUR_MS))
        self.fit(world)
        self.attached = rng.random() < 0.03
        self.follow, self.priority = rng.choice((1, 1, 2)), rng.randrange(10)
        # One who is killed while he holds an attempt fails it, too: no number between is sure to be enough.
        self.attempts = rng.randrange(1, 4) if self.fate in ("fail", "late") else 1000
        self.attempts = rng.choice((1, 1000)) if self.fate == "once" else self.attempts
        self.tag, self.cancelled = rng.choice((None, name.encode())), ""
        self.life, self.began, self.accepted = world.life, time.monotonic(), 0
        # Of dead letters: it was dropped; somebody works on it; he may have, and it is not known what he did.
        self.dropped, self.busy, self.doubt = False, False, False
        self.lives, self.tries, self.untold = 1, 0, False  # nobody followed it from its beginning: untold
        self.key_freed = False  # by a purge of its queue, also if it had ended by then

    def fit(self, world):
        """What is kept, and what is dead, fills the store for good: little of it, no large ones."""
        size = max(self.size, self.grown)
        world.room -= size * (self.keep > 0 or self.fate in ("fail", "once", "late"))
        if world.room < 0 or size >= 20000:
            self.keep, self.size = 0, self.size if self.fate not in ("fail", "once", "late") else 0

    def may_fail(self):
        return self.fate in ("fail", "late") or self.fate == "once" and self.attempts == 1

    def payload(self):
        if self.fate == "empty":
            return b""
        body = random.Random(self.name).randbytes(251) * (self.size // 251 + 1)
        return f"{self.name}{self.word}\n".encode() + body[:self.size]

    def result(self):
        payload = self.payload()
        return (payload * (self.grown // len(payload) + 1))[:self.grown] if self.grown else payload

    def submit(self, request, patient):
        window = HOUR_MS if self.key and self.key.startswith(("hour", "again")) else 0
        options = [80, self.priority, self.delay, 0, 30 if self.fate == "late" else 0, self.expires, self.attempts,
                   20, self.key, window, self.target, self.keep,
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
        may = {FAILED: self.may_fail() and code in (60, 61, 62), EXPIRED: self.expires and self.lives == 1,
               CANCELLED: self.cancelled or self.attached}
        return None if may.get(status) else "may not end so"


class Client(Load):
    def __init__(self, world, name):
        super().__init__(world.server.client_port, 0, window=world.rng.choice((50, 200)))
        self.world, self.name, self.rng = world, name, random.Random(world.rng.random())
        self.tasks, self.asked, self.ends, self.silent_until = [], set(), {}, 0
        self.again, self.controls, self.lost_names = [], {}, set()

    def wrong(self, task, what):
        raise Failure(f"{task.name} {what}: {vars(task)}")

    def submit_one(self, place):
        """The task at that place of ours."""
        request, task = next(self.requests), self.tasks[place]
        task.tries += 1
        self.put(task.submit(request, self.rng.random() < 0.5))
        self.pending[request] = place

    def submit_some(self):
        while self.again and len(self.output) < 1 << 20:
            self.submit_one(self.again.pop())
        while not self.paused and len(self.output) < 1 << 20 and self.open_tasks() < self.window:
            self.tasks.append(Task(self.world, self.rng, f"{self.name}.{self.submitted}"))
            self.submit_one(len(self.tasks) - 1)
            self.submitted += 1

    def close(self):
        """What has no answer may have been done. Of a task with a key of its own that can be found out."""
        places = list(self.pending.values())
        again = [place for place in places if self.tasks[place].again]
        self.again += again
        self.lost_names |= {self.tasks[place].name for place in places if place not in again}
        self.unknown -= len(again)
        for verb, number in self.controls.values():
            self.doubt(number, verb == "replay")
        self.controls.clear()
        super().close()

    def open_tasks(self):
        return super().open_tasks() + len(self.again) + len(self.controls)

    def task(self, number):
        return self.tasks[self.accepted[number]]

    def open_ones(self):
        return [(number, vars(self.task(number))) for number in self.accepted if number not in self.finished]

    def take(self, message):
        kind, task = message[0], None
        if kind in (OK, REJECTED) and message[1] in self.controls:
            self.take_control(message, *self.controls.pop(message[1]))
            return
        if kind == ACCEPTED:
            self.take_accepted(message[2], self.tasks[self.pending[message[1]]])
        elif kind == REJECTED and message[1] in self.pending:
            if self.take_refusal(message[2], message[4], self.pending[message[1]]):
                del self.pending[message[1]]
                return
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
            if (other.key, other.queue) == (task.key or 0, task.queue) and not task.key.startswith("end") and not (
                    other.cancelled or other.key_freed or task.durability != "sync"):
                self.wrong(task, f"has the key of {other.name}, which was accepted")

    def take_refusal(self, code, holder, place):
        """Whether a task that was submitted again after a loss is there already: it had been accepted."""
        task = self.tasks[place]
        if not task.again:
            return False
        if code == DUPLICATE:
            if task.tries == 1:
                self.wrong(task, f"has a key of its own, which {holder} has")
            self.world.counts["again"] += 1
            task.untold = True
            self.adopt(holder, place)
            return True
        self.lost_names |= {task.name} if task.tries > 1 else set()
        self.unknown += task.tries > 1
        return False

    def adopt(self, number, place):
        """A task that somebody else has submitted, or we ourselves, unawares."""
        self.take_accepted(number, self.tasks[place])
        self.accepted[number] = place
        self.wait(number)

    def wait(self, number):
        if self.socket:  # else when there is one
            request = next(self.requests)
            self.waits[request] = number
            self.put([WAIT, request, number, 1])

    def may_be_gone(self, task):
        """Of memory with its server; of an async queue if it came 50 ms (here 3 s) before a crash, or if
        the store was full (docs/decisions.md: an async task that the store refused); by an operator's hand."""
        if any(repair.all and repair.queue == task.queue for repair in self.world.repairs):
            return True
        if task.durability == "async" and any(task.accepted > crash - 3 for crash in self.world.crashes):
            return True
        ended = task.life < self.world.life
        return task.cancelled == "purged" or task.doubt or ended and (task.durability == "memory" or (
            task.durability == "async" and "the store cannot write" in self.world.server.log()))

    def kept_in_memory(self):
        """How many of its tasks the server may still have, though all have ended: no store has these."""
        here = {"memory", "async" if "the store cannot write" in self.world.server.log() else "memory"}
        ends = [(self.task(number), status) for number, (status, _) in self.finished.items()]
        return self.unknown + sum(task.durability in here and (task.keep > 0 or status == FAILED or task.doubt)
                                  for task, status in ends)

    def take_rejected(self, request, code):
        number = self.waits.get(request)
        if request in self.asked:
            return
        if number is None or code not in (UNKNOWN_TASK, RESULT_GONE):
            super().take_rejected(request, code)
            return
        task, status = self.task(self.waits.pop(request)), self.finished.get(number, (None,))[0]
        dead = task.fate == "fail" and not (task.cancelled or task.expires or task.attached)
        must = task.keep or status == FAILED or status is None and (dead or not task.untold)
        if must and not self.may_be_gone(task):
            self.wrong(task, f"is not known any more ({code}; {status})")
        self.finished.setdefault(number, (0, code))

    def ask(self, kind, *fields):
        request = next(self.requests)
        self.asked.add(request)
        self.put([kind, request, *fields])
        return request

    def act(self):
        """Something that is not a submission."""
        if not self.socket or not self.accepted:
            return
        number = self.rng.choice(list(self.accepted)[-100:])
        deed = self.rng.choice(("cancel", "cancel", "status", "submitted", "list", "drop", "silent", "bury", "replay",
                                "replay"))
        if deed in ("bury", "replay"):
            self.operate(deed)
            return
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
            stays = task.durability == "sync" and (task.keep or self.finished[number][0] == FAILED)
            if not (task.dropped or task.doubt) and (
                    stays or (task.durability, task.life) == ("memory", self.world.life)):
                request = next(self.requests)
                self.waits[request] = number
                self.put([WAIT, request, number, 0])
                self.world.counts["kept"] += 1
        self.run_until("what was kept", lambda: self.socket and not self.waits and not self.output, self.world.LIMIT)

    # ---- dead letters: see also monkey_dead.py

    def dead_ones(self, most=200):
        """Numbers of dead letters of ours that nobody works on."""
        return [number for number in list(self.finished)[-most:] if self.finished[number][0] == FAILED and not (
            self.task(number).dropped or self.task(number).doubt or self.task(number).busy)]

    def operate(self, verb):
        if dead := self.dead_ones():
            number = self.rng.choice(dead)
            self.task(number).busy = True
            self.world.counts[verb] += 1
            self.forget_purge(self.task(number))
            self.controls[self.ask(CONTROL, "drop" if verb == "bury" else verb, None, number)] = (verb, number)

    @staticmethod
    def forget_purge(task):
        """A purge is no excuse for what happens to what is dead by now."""
        task.cancelled = "" if task.cancelled == "purged" else task.cancelled

    def take_control(self, message, verb, number):
        task = self.task(number)
        task.busy = False
        if message[0] == OK:
            if message[2] != 1:
                self.wrong(task, f"is one, and not {message[2]}, for {verb}")
            if verb == "bury":
                task.dropped = True
            else:
                self.revive(number)
        elif message[2] == STORE_FAILED:
            self.doubt(number, verb == "replay")
        elif message[2] in (UNKNOWN_TASK, WRONG_STATE) and not self.may_be_gone(task):
            self.wrong(task, f"cannot be told to {verb}: {message[1:]}")

    def revive(self, number):
        task = self.task(number)
        task.lives, task.untold = task.lives + 1, True
        if self.finished.pop(number, None):
            self.ends.pop(number)
            self.wait(number)

    def doubt(self, number, replayed):
        """Somebody may have dropped or replayed it."""
        task = self.task(number)
        task.doubt, task.busy = True, False
        if replayed and self.finished.get(number, (0,))[0] == FAILED:
            self.revive(number)
