# SPDX-License-Identifier: Apache-2.0
"""The monkey: what the other rows do one by one, all together and at random; and at the end an account
of every task (tests/lib/monkey_client.py), of all that is counted, and of all that was started."""
import collections
import contextlib
import os
import re
import signal
import time

import lab as lib
from lab import CONTROL, LIST, SUBMIT, Failure, Proxy, wait_for
from monkey_client import KINDS, QUEUES, Client, Map, handlers, listed_queues, processes_with
from rows import row
from rows_net import LOSS, Host

NO_LOG_HAS = re.compile(r".*(Assertion|Sanitizer|runtime error|killed by signal (?!9 |15 )).*")


def send(pids, number):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class World:
    """A server, its workers and clients, and what may happen to them."""
    LIMIT = 60 * float(os.environ.get("PATIENCE") or 1)

    def __init__(self, lab):
        self.lab, self.rng, rng = lab, lab.random, lab.random
        self.counts, self.life, self.crashes, self.stopped, self.left = collections.Counter(), 0, [], {}, None
        self.line = rng.choice(("unix", "unix", "proxy", "hosts" if os.geteuid() == 0 else "proxy"))
        self.hosts = [Host(lab, 1)] if self.line == "hosts" else []
        self.server = lab.durable_server(
            *(f"--queue={queue}={queue.partition('.')[2]}" for queue in QUEUES), "--heartbeat", "200ms",
            "--ping", "500ms", "--rejoin-wait", "1s", "--drain-timeout", "1s", "--poison-limit", "100",
            "--max-disk", "32m", "--max-payload", "8m", "--window-tasks", rng.choice(("20", "50000")),
            "--lane-bytes", rng.choice(("64k", "1m")), *(Proxy.NEEDS if self.line == "proxy" else ()),
            *(("--worker-listen", "0.0.0.0") if self.hosts else ()))
        self.proxy = Proxy(lab, self.server) if self.line == "proxy" else None
        self.handlers = handlers(lab)
        self.workers = [self.worker(number, kinds) for number, kinds in enumerate(
            (KINDS, ("coproc", "exec"), ("coproc", "plug")))]
        self.clients = [Client(self, f"c{number}") for number in range(3)]
        self.map = Map(lab, self.server.client_port).start()
        acts = (self.kill, self.kill, self.stop_some, self.end_worker, self.server_dies, self.server_waits,
                self.server_ends, self.cut, self.operate, self.operate, self.drain, self.fill)
        self.acts = [act for act in acts if rng.random() < 0.6] or acts

    def worker(self, number, kinds):
        several = "plug" in kinds or self.rng.random() < 0.5
        words = [word for kind in kinds for word in self.handlers[kind]] + [
            "--slots", str(self.rng.randrange(1, 4)), "--drain-timeout", "2s", *(["--processes", "2"] * several)]
        if self.hosts and number:
            worker = self.hosts[0].worker(self.lab, self.server, f"w{number}", *words)
        else:
            worker = self.lab.worker(f"w{number}", self.server, *words,
                                     host=self.proxy.address if self.proxy and number else "127.0.0.1")
        worker.kinds, worker.title, worker.drained = kinds, worker.name + "-1" * several, False
        return worker

    def questions(self, *asked):
        with lib.Connection(self.server.client_port) as connection:
            return connection.ask(*asked)

    def pump(self):
        self.resume(time.monotonic())
        for client in self.clients:
            if client.silent_until < time.monotonic():
                client.pump(0.002)
            if self.rng.random() < 0.05:
                client.act()

    def act(self):
        if self.rng.random() < 0.5:
            self.revive()
        act = self.rng.choice(self.acts)
        self.counts[act.__name__] += 1
        act()

    def revive(self):
        for worker in self.workers:
            if not worker.alive():
                worker.start()
                worker.drained = False

    def stop(self, process, pids):
        send(pids, signal.SIGSTOP)
        self.stopped.setdefault(process, time.monotonic() + self.rng.choice((0.05, 0.3, 1, 2)))

    def resume(self, now=1e99):
        for process in [process for process, until in self.stopped.items() if until <= now]:
            process.signal(signal.SIGCONT)
            del self.stopped[process]

    def some(self):
        """A worker, and all its processes or one of them."""
        worker = self.rng.choice(self.workers)
        tree = worker.tree()
        return worker, [self.rng.choice(tree)] if tree and self.rng.random() < 0.5 else tree

    def kill(self):
        send(self.some()[1], signal.SIGKILL)

    def stop_some(self):
        self.stop(*self.some())

    def end_worker(self):
        if (worker := self.rng.choice(self.workers)).alive():
            worker.process.terminate()

    def drain(self):
        worker = self.rng.choice(self.workers)
        worker.drained = True  # that process of it is not started again
        self.resume()
        self.questions(CONTROL, "drain", worker.title, 0)

    def server_dies(self):
        self.resume()  # what it has accepted before it stopped is older than it seems
        self.crashes.append(time.monotonic())
        self.life += 1
        self.server.restart(self.LIMIT)

    def server_waits(self):
        self.stop(self.server, self.server.tree())

    def server_ends(self, patience=None):
        self.resume()
        self.server.process.terminate()
        patience = patience or self.rng.choice((self.LIMIT, self.LIMIT, self.rng.random()))
        end = time.monotonic() + patience
        while self.server.alive():
            self.pump()
            if time.monotonic() > end and patience < self.LIMIT:
                self.server_dies()
                return
            if time.monotonic() > end:
                raise Failure("the server does not stop")
        if self.server.process.returncode:
            raise Failure(f"the server stopped with {self.server.process.returncode}")
        self.life += 1
        self.server.start(self.LIMIT)

    def cut(self):
        if self.proxy:
            self.proxy.silence(*self.rng.choice(((), (), ("lane",), ("lane", "answers", "join"))))
            self.proxy.cut(self.rng.choice(("join", "answers", "lane")))
        for host in self.hosts:
            host.rules(*self.rng.choice((("accept", "accept"), ("drop", "drop"), ("drop", "accept"), (LOSS, LOSS))))
            host.rate(self.rng.choice(("1gbit", "8mbit")), self.rng.random() < 0.5)

    def operate(self):
        verb, queue = self.rng.choice(("pause", "resume", "resume", "purge")), self.rng.choice(QUEUES)
        self.counts[verb] += 1
        for task in (task for client in self.clients for task in client.tasks if task.queue == queue):
            task.cancelled = "purged" if verb == "purge" else task.cancelled
        self.resume()
        self.questions(CONTROL, verb, queue, 0)

    def fill(self):
        self.resume()  # with payloads that nobody takes, until the store is full
        with lib.Connection(self.server.client_port, self.LIMIT) as connection:
            for request in range(1, 6):
                connection.send([SUBMIT, request, "park", bytes((8 << 20) - 100), 0, False, None])
                if connection.receive()[0][0] == lib.REJECTED:
                    self.counts["full"] += 1
                    break

    def heal(self):
        self.resume()
        for host in self.hosts:
            host.rules()
            host.rate("1gbit")
            host.rate("1gbit", True)
        if self.proxy:
            self.proxy.silence()
        for worker in (worker for worker in self.workers if worker.drained):
            worker.stop(self.LIMIT)
        for verb, queue in [("purge", "park"), *(("resume", queue) for queue in QUEUES)]:
            self.questions(CONTROL, verb, queue, 0)
        for client in self.clients:
            client.paused = True
        self.wait_for_none("all tasks to end", lambda: [client.open_ones() for client in self.clients if (
            self.revive() or client.open_tasks() or not client.socket)])
        if bad := [client.account() for client in self.clients if client.lost or client.twice]:
            raise Failure(f"lost, or told twice: {bad}")
        self.map.judge(self.LIMIT)

    def wait_for_none(self, what, left):
        def none():
            for client in self.clients:
                client.pump(0.002)  # also: it may have to say yet that it has what it was told
            self.left = left()
            return not self.left
        try:
            wait_for(what, none, self.LIMIT)
        except Failure as why:
            raise Failure(f"{why}: {self.left}") from None

    def nothing_left(self):
        """By all accounts of the server; its ledger has what a memory queue keeps, or nobody knows of."""
        for client in self.clients:
            client.wait_again()
        kept = sum(client.kept_in_memory() for client in self.clients)

        def rows():
            return [row for row in self.questions(LIST, "queues", None, 0, 0) if any(row[5:8])] + [
                row for row in self.questions(LIST, "workers", None, 0, 0) if any(row[8:10])]

        def levels():
            return {name: value for name, value in self.server.metrics().items() if value >= 1 << 62 or value > (
                kept if name == "pushrod_ledger" else 0) and re.search(
                    "_(ready|backlog|delayed|running|unserved|unsettled_bytes|ledger)$", name)}
        self.wait_for_none("queues and workers to be empty", rows)
        self.wait_for_none(f"the metrics to say so, but for {kept} in the ledger", levels)
        queues = listed_queues(self.server.client_port)
        if any(queue[level] for queue in queues for level in ("ready", "delayed", "running")):
            raise Failure(f"pushrod queues says something else: {queues}")

    def over(self):
        for process in (self.server, *self.workers):
            if code := process.stop(self.LIMIT):
                raise Failure(f"{process.name} stopped with {code}")
        for process in self.lab.processes:
            if bad := NO_LOG_HAS.search(process.log()):
                raise Failure(f"{process.name} says: {bad[0]}")
        self.wait_for_none("all that was started to end", lambda: processes_with(self.lab.path))


@row
def monkey(lab, scale):
    """everything at once, at random: all that was accepted ends once, as it should, and nothing is left"""
    world = World(lab)
    lab.wait_workers(world.server, 3, World.LIMIT)
    rate = world.rng.choice((2, 5, 10))
    for _ in range(8 * scale):
        following = time.monotonic() + world.rng.expovariate(rate)
        while time.monotonic() < following:
            world.pump()
        world.act()
    world.heal()
    world.nothing_left()
    world.server_ends(patience=World.LIMIT)
    world.nothing_left()
    world.over()
    ends = collections.Counter(status for client in world.clients for status, _ in client.finished.values())
    print(f"  {world.line}: {ends.total()} accepted, ended as {dict(ends)} (0: gone with the server), "
          f"{sum(client.unknown for client in world.clients)} unknown; {dict(world.counts)}")
