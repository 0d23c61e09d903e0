# SPDX-License-Identifier: Apache-2.0
"""Real processes for the tests: a server, workers, a load that counts, and a network that cuts.

Everything waits for conditions, with a limit; nothing sleeps for luck. Only what a lab started is
ended, by process id. Accounts are kept outside of Pushrod: by the client (what it submitted, what
was accepted, what was told to finish) and by the handlers, who append to a record file.
"""
import collections
import errno
import itertools
import mmap
import os
import random
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import msgpack

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD = os.path.abspath(os.path.join(ROOT, os.environ.get("BUILD", "build")))
RECORDER = os.path.join(HERE, "recorder.py")
LANES = 24

HELLO, SUBMIT, WAIT, RECEIVED, CANCEL, STATUS, LIST, CONTROL = range(40, 48)
GREETING, ACCEPTED, REJECTED, OK, FINISHED = range(60, 65)
QUEUE_ROW, WORKER_ROW, TASK_ROW, STAT_ROW, EVENT, END, ERROR = range(68, 75)
DONE, FAILED, CANCELLED, EXPIRED = 1, 2, 3, 4
UNKNOWN_TASK, RESULT_GONE, STORE_FAILED, STORE_FULL, DRAINING = 6, 67, 22, 23, 24


class Failure(Exception):
    """What a test found wrong."""


class Skip(Exception):
    """What this machine, or this build, cannot do."""


def wait_for(what, condition, limit=30.0, pause=0.005):
    """Waits until condition() is true, and returns what it gave."""
    end = time.monotonic() + limit
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise Failure(f"waited {limit} s in vain for {what}")
        select.select([], [], [], pause)


def is_free(port, address="127.0.0.1"):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((address, port))
        except OSError:
            return False
        return True


def port_block(count):
    """So many free ports in a row, below the range that the kernel hands out by itself."""
    for _ in range(200):
        base = random.SystemRandom().randrange(12000, 32000 - count)
        if not 22500 - count <= base <= 23523 and all(is_free(base + i) for i in range(count)):
            return base
    raise Failure("no free ports")


def descendants(pid):
    """The process and all that it started, parents first."""
    children = collections.defaultdict(list)
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", "rb") as f:
                    children[int(f.read().rsplit(b")", 1)[1].split()[1])].append(int(entry))
            except (OSError, IndexError):
                pass
    found, at = [pid], 0
    while at < len(found):
        found += children[found[at]]
        at += 1
    return found


class Process:
    """One program that the lab started; its output goes to a log file."""

    def __init__(self, lab, name, argv, env=None):
        self.lab, self.name, self.argv, self.env = lab, name, argv, env
        self.log_path = os.path.join(lab.path, name + ".log")
        self.process = None

    def start(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **(self.env or {})}, start_new_session=True)
        return self

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def tree(self):
        return descendants(self.process.pid) if self.alive() else []

    def workers(self):
        """Those below the supervisor of a server: its local workers, not its keeper."""
        found = []
        supervisor, *below = self.tree()[1:]
        for pid in below:
            try:
                with open(f"/proc/{pid}/stat", "rb") as f:
                    head, tail = f.read().rsplit(b")", 1)
            except OSError:
                continue
            if int(tail.split()[1]) == supervisor and not head.endswith(b"(pushrod-keeper"):
                found.append(pid)
        return set(found)

    def signal(self, number):
        """To the process and all that it started."""
        for pid in self.tree():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def kill(self):
        self.signal(signal.SIGKILL)
        if self.process:
            self.process.wait()

    def stop(self, limit=30):
        """SIGTERM, as an operator would; the exit code."""
        if self.alive():
            self.process.terminate()
            try:
                self.process.wait(limit)
            except subprocess.TimeoutExpired:
                self.kill()
                raise Failure(f"{self.name} did not stop within {limit} s") from None
        return self.process.returncode


class Server(Process):
    def __init__(self, lab, *options, store=None, env=None):
        self.base = port_block(4 + LANES)
        self.client_port, self.join_port, self.answers_port, self.http_port = (
            self.base + i for i in range(4))
        self.lane_ports = range(self.base + 4, self.base + 4 + LANES)
        argv = [os.path.join(BUILD, "pushrod-server"),
                "--listen", f"127.0.0.1:{self.client_port}",
                "--join-port", str(self.join_port), "--answers-port", str(self.answers_port),
                "--http", f"127.0.0.1:{self.http_port}",
                "--lane-ports", f"{self.lane_ports[0]}-{self.lane_ports[-1]}", *options]
        if store:
            argv += ["--data", store]
        super().__init__(lab, "server", argv, env)

    def start(self, limit=20):
        super().start()

        def ready():
            if not self.alive():
                raise Failure("the server did not start:\n" + self.log()[-2000:])
            try:
                with Connection(self.client_port, 2):
                    return True
            except (OSError, Failure):
                return False
        wait_for("the server to listen", ready, limit)
        return self

    def restart(self, limit=20):
        self.kill()
        return self.start(limit)

    def metrics(self):
        """What /metrics says: {'pushrod_ready': 0, 'pushrod_queue_ready{queue="work"}': 0, ...}."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/metrics", timeout=10) as page:
            lines = page.read().decode().splitlines()
        return {name: int(value) for name, value in (line.split() for line in lines if not line.startswith("#"))}


class Worker(Process):
    def __init__(self, lab, name, server, *options, host="127.0.0.1", record=None):
        self.record = record or lab.record
        argv = [os.path.join(BUILD, "pushrod-worker"), "--join", f"{host}:{server.join_port}",
                "--name", name, "--coproc",
                f"work={sys.executable} {RECORDER} {self.record}", *options]
        super().__init__(lab, name, argv)

    def inner(self):
        """The processes that run handlers: those below the supervisor."""
        found = []
        for pid in self.tree()[1:]:
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    if f.read().startswith(self.argv[0].encode()):
                        found.append(pid)
            except OSError:
                pass
        return found


class Faults:
    """A bad disk and a bad clock for the processes that get `env` (tests/lib/faults.c)."""

    LIBRARY = os.path.join(BUILD, "tests", "lib", "faults.so")
    NAMES = ("code", "passing", "writes", "syncs", "metas", "sync_ms", "wall_ms", "hits")

    def __init__(self, lab):
        if not os.path.exists(self.LIBRARY):
            raise Skip(f"{self.LIBRARY} is not built")
        with open(os.path.join(BUILD, "pushrod-server"), "rb") as program:
            text = program.read()
        if b"__asan_init" in text or b"__tsan_init" in text:
            raise Skip("a sanitizer stands where the bad disk would")
        path = os.path.join(lab.path, "faults")
        with open(path, "w+b") as f:
            f.truncate(8 * len(self.NAMES))
            self.map = mmap.mmap(f.fileno(), 0)
        self.env = {"LD_PRELOAD": self.LIBRARY, "FAULTS": path}

    def __getitem__(self, name):
        return struct.unpack_from("q", self.map, 8 * self.NAMES.index(name))[0]

    def __setitem__(self, name, value):
        struct.pack_into("q", self.map, 8 * self.NAMES.index(name), value)

    def disk(self, kind, count, code=errno.EIO, passing=0):
        """After `passing` more, the next `count` of that kind fail: writes, syncs or metas."""
        self["code"], self["passing"] = code, passing
        self[kind] = count

    def mend(self):
        for name in ("writes", "syncs", "metas", "passing", "sync_ms"):
            self[name] = 0


class Connection:
    """A client connection, blocking, for questions; the load below has its own."""

    def __init__(self, port, limit=30.0):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=limit)
        self.input = bytearray()
        self.requests = itertools.count(1)
        self.send([HELLO, 1, None, "lab"])
        first = self.receive()
        if not first or first[0][0] != GREETING:
            raise Failure(f"no greeting but {first}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, *messages):
        frame = b"".join(msgpack.packb(m) for m in messages)
        self.socket.sendall(struct.pack(">I", len(frame)) + frame)

    def receive(self):
        while True:
            messages = take_frame(self.input)
            if messages is not None:
                return messages
            data = self.socket.recv(1 << 18)
            if not data:
                raise Failure("the server closed the connection")
            self.input += data

    def ask(self, number, *fields):
        """One request; all messages that answer it."""
        request, rows = next(self.requests), []
        self.send([number, request, *fields])
        while True:
            for message in self.receive():
                if message[1] == request:
                    rows.append(message)
                    if message[0] in (OK, REJECTED, END, TASK_ROW) and (
                            number != LIST or message[0] in (END, REJECTED)):
                        return rows

    def stats(self):
        return {row[2]: row[3] for row in self.ask(LIST, "stats", None, 0, 0) if row[0] == STAT_ROW}

    def workers(self):
        return [row for row in self.ask(LIST, "workers", None, 0, 0) if row[0] == WORKER_ROW]


def take_frame(data):
    """The messages of the first whole frame in `data`, which is consumed; None: not all there."""
    if len(data) < 4:
        return None
    size = 4 + struct.unpack_from(">I", data)[0]
    if len(data) < size:
        return None
    unpacker = msgpack.Unpacker(max_buffer_size=0)
    unpacker.feed(memoryview(data)[4:size])
    messages = list(unpacker)
    del data[:size]
    return messages


def options(priority=4, max_attempts=3, worker=None):
    """The options of a task, as an OPTIONS message."""
    return [80, priority, 0, 0, 0, 0, max_attempts, 1000, None, 0, worker, 0, False, None, None]


class Load:
    """Submits, follows, reconnects and waits again by id; counts by id what it was told.

    Single-threaded: pump() does what can be done now. A SUBMIT whose answer was lost is counted as
    unknown: it may or may not have been accepted.
    """

    def __init__(self, port, total, window=500, payload=b"", options=None, batch=50):
        self.port, self.total, self.window, self.batch = port, total, window, batch
        self.payload = payload if callable(payload) else lambda n: payload
        self.options = options if callable(options) else lambda: options
        self.submitted = 0
        self.pending = {}                       # request -> number of the task
        self.accepted = {}                      # id -> number
        self.refused = collections.Counter()    # code -> how often
        self.refused_numbers = []
        self.unknown = 0
        self.finished = {}                      # id -> (status, code)
        self.twice = 0
        self.lost = []                          # ids that the server said it does not know
        self.finish_times = collections.deque(maxlen=10)
        self.reconnects = 0
        self.waits = {}
        self.requests = itertools.count(1)
        self.on_finish = None
        self.paused = False
        self.drop()

    def drop(self):
        self.socket, self.input, self.output, self.taken, self.greeted = None, bytearray(), bytearray(), 0, False

    def open(self):
        try:
            self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=2)
        except OSError:
            select.select([], [], [], 0.01)
            return
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reconnects += 1
        self.put([HELLO, 1, None, "load"])
        open_ids = [task for task in self.accepted if task not in self.finished]
        for at in range(0, len(open_ids), 200):
            messages = []
            for task in open_ids[at:at + 200]:
                request = next(self.requests)
                self.waits[request] = task
                messages.append([WAIT, request, task, 1])
            self.put(*messages)

    def close(self):
        if self.socket:
            self.socket.close()
        self.unknown += len(self.pending)
        self.pending.clear()
        self.waits.clear()
        self.drop()

    def put(self, *messages):
        frame = b"".join(msgpack.packb(m) for m in messages)
        self.output += struct.pack(">I", len(frame)) + frame

    def open_tasks(self):
        return len(self.pending) + len(self.accepted) - len(self.finished) - len(self.lost)

    def submit_some(self):
        while (self.submitted < self.total and not self.paused and len(self.output) < 1 << 18
               and self.open_tasks() + self.batch <= self.window):
            messages = []
            for _ in range(min(self.batch, self.total - self.submitted)):
                request = next(self.requests)
                self.pending[request] = self.submitted
                messages.append([SUBMIT, request, "work", self.payload(self.submitted), 1,
                                 request % 2 == 0, self.options()])
                self.submitted += 1
            self.put(*messages)

    def take(self, message):
        kind = message[0]
        if kind == ACCEPTED:
            self.accepted[message[2]] = self.pending.pop(message[1])
        elif kind == REJECTED:
            self.take_rejected(message[1], message[2])
        elif kind == FINISHED:
            self.taken += 1
            if message[1] in self.finished:
                self.twice += 1
            self.finished[message[1]] = (message[2], message[3])
            if self.on_finish:
                self.on_finish(message[1])
        elif kind == OK:
            self.waits.pop(message[1], None)
        elif kind == ERROR:
            raise Failure(f"the server says {message[1:]}")

    def take_rejected(self, request, code):
        task = self.waits.pop(request, None)
        if task is None:
            self.refused[code] += 1
            self.refused_numbers.append(self.pending.pop(request))
        elif code in (UNKNOWN_TASK, RESULT_GONE):
            self.lost.append(task)
        else:  # the server cannot say now: ask again
            request = next(self.requests)
            self.waits[request] = task
            self.put([WAIT, request, task, 1])

    def read(self):
        try:
            data = self.socket.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self.input += data
        before = self.taken
        while (messages := take_frame(self.input)) is not None:
            for message in messages:
                self.take(message)
        if self.taken > before:
            self.put([RECEIVED, self.taken])

    def write(self):
        try:
            del self.output[:self.socket.send(memoryview(self.output)[:1 << 20].tobytes())]
        except BlockingIOError:
            pass
        except OSError:
            self.close()

    def pump(self, wait=0.01):
        """What can be done within `wait` seconds."""
        if not self.socket:
            self.open()
        if not self.socket:
            return
        self.submit_some()
        can_read, can_write, _ = select.select(
            [self.socket], [self.socket] if self.output else [], [], wait)
        if can_write:
            self.write()
        if can_read and self.socket:
            self.read()

    def complete(self):
        return (self.submitted >= self.total or self.paused) and not self.pending and all(
            task in self.finished for task in self.accepted)

    def run_until(self, what, condition, limit=60.0):
        end = time.monotonic() + limit
        while not condition():
            self.pump()
            if time.monotonic() > end:
                raise Failure(f"waited {limit} s in vain for {what}: {self.account()}")

    def run(self, limit=120.0):
        """To the end of all that was accepted."""
        end = time.monotonic() + limit
        while self.submitted < self.total and not self.paused or self.open_tasks() > 0:
            self.pump()
            if time.monotonic() > end:
                raise Failure(f"not all finished within {limit} s: {self.account()}")

    def account(self):
        return (f"{self.submitted} submitted, {len(self.accepted)} accepted, {self.unknown} unknown, "
                f"{sum(self.refused.values())} refused, {len(self.finished)} finished, "
                f"{self.open_tasks()} open, {len(self.lost)} lost, {self.twice} finished twice")


def read_record(path):
    """Executions by task: how often begun, how often ended."""
    begun, ended = collections.Counter(), collections.Counter()
    try:
        with open(path, "rb") as f:
            for line in f:
                words = line.split()
                if len(words) == 5:
                    (begun if words[0] == b"S" else ended)[int(words[1])] += 1
    except FileNotFoundError:
        pass
    return begun, ended


class Lab:
    """A directory, and the processes started in it; all is ended and removed at the end."""

    def __init__(self, seed=None):
        self.seed = seed if seed is not None else random.SystemRandom().randrange(1, 1 << 31)
        self.random = random.Random(self.seed)
        self.path = tempfile.mkdtemp(prefix="pushrod-lab-")
        self.record = os.path.join(self.path, "record")
        self.processes, self.ends = [], []

    def __enter__(self):
        for name in ("pushrod-server", "pushrod-worker"):
            if not os.path.exists(os.path.join(BUILD, name)):
                raise Skip(f"{name} is not built in {BUILD}")
        return self

    def __exit__(self, kind, *_):
        for end in reversed(self.ends):
            end()
        for process in self.processes:
            process.signal(signal.SIGCONT)
            process.kill()
        if kind is not None and kind is not Skip:
            for process in self.processes:
                print(f"---- end of {process.name}'s log\n{process.log()[-1500:]}")
        shutil.rmtree(self.path, ignore_errors=True)

    def server(self, *options, store=None, limit=20, env=None):
        server = Server(self, *options, store=store, env=env)
        self.processes.append(server)
        return server.start(limit)

    def durable_server(self, *options, path=None, env=None):
        """A server whose tasks outlive it; skips where this build has no such store."""
        try:
            return self.server(*options, store=path or os.path.join(self.path, "store"), env=env)
        except Failure as failure:
            text = str(failure)
            if "not built" in text or "not supported" in text or "no durable store" in text:
                raise Skip("this build has no durable store") from failure
            raise

    def worker(self, name, server, *options, host="127.0.0.1"):
        worker = Worker(self, name, server, *options, host=host)
        self.processes.append(worker)
        return worker.start()

    def workers(self, server, count, *options, host="127.0.0.1"):
        started = [self.worker(f"w{i}", server, *options, host=host) for i in range(count)]
        self.wait_workers(server, count)
        return started

    def wait_workers(self, server, count, limit=30):
        def joined():
            try:
                with Connection(server.client_port) as connection:
                    return sum(1 for row in connection.workers() if row[6] == "ready") >= count
            except (OSError, Failure):
                return False
        wait_for(f"{count} workers to join", joined, limit, 0.02)

    def judge(self, load, **facts):
        """Prints the account, and fails on what must never be."""
        begun, _ = read_record(self.record)
        again = sum(1 for task in load.accepted if begun[task] > 1)
        never = [task for task, (status, _) in load.finished.items()
                 if status == DONE and not begun[task]]
        print(f"  {load.account()}; executed {sum(begun.values())}, {again} tasks more than once"
              + "".join(f", {name} {value}" for name, value in facts.items()))
        if load.lost or len(load.finished) < len(load.accepted):
            raise Failure(f"accepted tasks were lost: {load.lost[:10]}")
        if load.twice:
            raise Failure(f"{load.twice} tasks finished twice")
        if never:
            raise Failure(f"done without having run: {never[:10]}")
        return again


class Proxy:
    """Stands between workers and a server at another loopback address, on the same ports."""
    NEEDS = ("--no-unix-sockets",)  # of the server: on one host they would meet without us

    def __init__(self, lab, server, address="127.0.0.2", kinds=("join", "answers", "lane")):
        self.address, self.pairs, self.silent, self.over = address, [], set(), False
        self.lock = threading.Lock()
        self.kinds = {server.join_port: "join", server.answers_port: "answers",
                      **{port: "lane" for port in server.lane_ports}}
        self.listeners = {}
        for port in (port for port, kind in self.kinds.items() if kind in kinds):
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, port))
            listener.listen(64)
            self.listeners[listener] = port
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        lab.ends.append(self.stop)

    def stop(self):
        self.over = True
        self.thread.join()
        for listener in self.listeners:
            listener.close()
        self.cut("join", "answers", "lane")

    def accept(self, listener):
        port = self.listeners[listener]
        inner, _ = listener.accept()
        try:
            outer = socket.create_connection(("127.0.0.1", port), timeout=2)
        except OSError:
            inner.close()
            return
        with self.lock:
            self.pairs.append((inner, outer, self.kinds[port]))

    def pass_on(self, source, pair):
        target = pair[1] if source is pair[0] else pair[0]
        try:
            data = source.recv(1 << 16)
            if data:
                target.sendall(data)
                return
        except OSError:
            pass
        self.close(pair)

    def close(self, pair):
        with self.lock:
            if pair in self.pairs:
                self.pairs.remove(pair)
        for s in pair[:2]:
            s.close()

    def run(self):
        while not self.over:
            with self.lock:
                pairs = [pair for pair in self.pairs if pair[2] not in self.silent]
            sources = {s: pair for pair in pairs for s in pair[:2]}
            try:
                ready, _, _ = select.select([*self.listeners, *sources], [], [], 0.02)
            except (OSError, ValueError):
                continue  # one of them was cut meanwhile
            for s in ready:
                if s in self.listeners:
                    self.accept(s)
                elif s in sources and s.fileno() >= 0:
                    self.pass_on(s, sources[s])

    def cut(self, *kinds):
        """Resets what is open; new connections work. Returns how many."""
        with self.lock:
            victims = [pair for pair in self.pairs if pair[2] in kinds]
            self.pairs = [pair for pair in self.pairs if pair not in victims]
        for pair in victims:
            for s in pair[:2]:
                try:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    s.close()
                except OSError:
                    pass
        return len(victims)

    def silence(self, *kinds):
        """From now on nothing of these kinds passes, and nobody is told; silence() ends it."""
        self.silent = set(kinds)
