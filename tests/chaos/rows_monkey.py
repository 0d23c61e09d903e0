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
from monkey_client import KINDS, QUEUES, Client, Map, handlers, listed_queues, own_program, processes_with
from monkey_dead import Repair, judge_dead
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
        self.counts, self.life, self.crashes, self.stopped, self.left = collections.Counter(), 0, [], [], None
        self.room, self.repairs, self.handlers = 6 << 20, [], handlers(lab)
        self.config, self.disk, self.own = os.path.join(lab.path, "server.conf"), "32m", rng.random() < 0.5
        self.line = rng.choice(("unix", "unix", "proxy", "hosts" if os.geteuid() == 0 else "proxy"))
        self.hosts = [Host(lab, 1)] if self.line == "hosts" else []
        self.server = lab.durable_server(
            *(f"--queue={queue}={queue.partition('.')[2]}" for queue in QUEUES), "--heartbeat", "200ms",
            "--ping", "500ms", "--rejoin-wait", "1s", "--poison-limit", "100",
            "--max-payload", "8m", "--window-tasks", rng.choice(("20", "50000")),
            "--lane-bytes", rng.choice(("64k", "1m")), "-c", self.configured(2), "--slots", "2", "--recycle-tasks",
            rng.choice(("0", "40")), *(self.own * self.handlers[rng.choice(KINDS)]),
            *(Proxy.NEEDS if self.line == "proxy" else ()), *(("--worker-listen", "0.0.0.0") if self.hosts else ()))
        self.server.title = "server"
        self.proxy = Proxy(lab, self.server) if self.line == "proxy" else None
        self.workers = [self.worker(number, kinds) for number, kinds in enumerate(
            (KINDS, ("coproc", "exec"), ("coproc", "plug")))]
        if program := rng.random() < 0.4 and own_program(lab):
            self.workers.append(self.own_worker(program))
        self.clients = [Client(self, f"c{number}") for number in range(3)]
        self.map = Map(lab, self.server.client_port).start()
        acts = (self.kill, self.kill, self.stop_some, self.end_worker, self.server_dies, self.server_waits,
                self.server_ends, self.cut, self.operate, self.operate, self.drain, self.fill,
                self.repair, self.repair, self.replace, *[self.reload, self.kill_own] * self.own)
        self.acts = [act for act in acts if rng.random() < 0.6] or acts

    def worker(self, number, kinds):
        several = "plug" in kinds or self.rng.random() < 0.5
        words = [word for kind in kinds for word in self.handlers[kind]] + [
            "--slots", str(self.rng.randrange(1, 4)), "--drain-timeout", "2s", *(["--processes", "2"] * several),
            *(["--max-tasks", "40"] * (self.rng.random() < 0.3))]
        if self.hosts and number:
            worker = self.hosts[0].worker(self.lab, self.server, f"w{number}", *words)
        else:
            worker = self.lab.worker(f"w{number}", self.server, *words,
                                     host=self.proxy.address if self.proxy and number else "127.0.0.1")
        worker.kinds, worker.title, worker.drained = kinds, worker.name + "-1" * several, False
        return worker

    def own_worker(self, program):
        """A program that runs a worker in its own process, with nobody above it."""
        worker = lib.Process(self.lab, "own", [program, "join", f"127.0.0.1:{self.server.join_port}", "name", "own"])
        self.lab.processes.append(worker)
        worker.kinds, worker.title, worker.drained = ("plug",), "own", False
        return worker.start()

    def configured(self, workers):
        with open(self.config, "w") as f:
            f.write(f"workers = {workers * self.own}\ndrain-timeout = 1s\nmax-disk = {self.disk}\n"
                    f"max-tasks = {self.rng.choice((0, 500))}\n")
        return self.config

    def questions(self, *asked):
        with lib.Connection(self.server.client_port) as connection:
            return connection.ask(*asked)

    def pump(self):
        self.resume(time.monotonic())
        self.repairs = [repair for repair in self.repairs if not repair.over()]
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
        self.stopped.append((time.monotonic() + self.rng.choice((0.05, 0.3, 1, 2)), process, pids))

    def resume(self, now=1e99):
        for stopped in [stopped for stopped in self.stopped if stopped[0] <= now]:
            self.stopped.remove(stopped)
            stopped[1].signal(signal.SIGCONT)
            send(stopped[2], signal.SIGCONT)  # the one above them may be gone

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
        if self.rng.random() < 0.5:  # its own workers are left to see that by themselves
            self.server.process.kill()
            self.server.process.wait()
            self.server.start(self.LIMIT)
        else:
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
            task.key_freed |= verb == "purge"
        self.resume()
        self.questions(CONTROL, verb, queue, 0)

    def repair(self):
        Repair(self)

    def replace(self):
        """The processes of a worker one by one, or those of the server."""
        process = self.rng.choice([self.server, *(w for w in self.workers if w.title != "own" and w.alive())])
        process.process.send_signal(signal.SIGUSR2)

    def reload(self):
        self.configured(self.rng.randrange(3))
        self.server.process.send_signal(signal.SIGHUP)

    def kill_own(self):
        """One of the processes below the server."""
        if below := self.server.tree()[1:]:
            pid = self.rng.choice(below)
            send([pid], self.rng.choice((signal.SIGKILL, signal.SIGTERM)))

    def fill(self):
        self.resume()  # with payloads that nobody takes, until the store is full
        with lib.Connection(self.server.client_port, self.LIMIT) as connection:
            for request in range(1, 6):
                connection.send([SUBMIT, request, "park", bytes((8 << 20) - 100), 0, False, None])
                if connection.receive()[0][0] == lib.REJECTED:
                    self.counts["full"] += 1
                    break

    def make_room(self):
        """Results that nobody has acknowledged may fill the store for minutes, and a large one that does not fit
        is tried once in a minute: an operator gives it more."""
        if self.healed and time.monotonic() > self.healed + 3:
            self.healed = 0
            metrics = self.server.metrics()
            if metrics["pushrod_store_used_bytes"] > metrics["pushrod_store_max_bytes"] / 3:
                self.counts["more room"] += 1
                self.server_ends(self.LIMIT)

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
        self.disk = "1g"
        self.configured(0)
        for verb, queue in [("purge", "park"), *(("resume", queue) for queue in QUEUES)]:
            self.questions(CONTROL, verb, queue, 0)
        for client in self.clients:
            client.paused = True
        self.healed = time.monotonic()
        self.wait_for_none("repairs to end", lambda: self.pump() or [repair.argv for repair in self.repairs])
        self.wait_for_none("all tasks to end", lambda: [client.open_ones() for client in self.clients if (
            self.make_room() or self.revive() or client.open_tasks() or not client.socket)])
        self.wait_for_none("the map to end", lambda: self.make_room() or self.map.alive())
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
        judge_dead(self, [row for row in self.questions(LIST, "queues", None, 0, 0) if row[0] == lib.QUEUE_ROW])
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
            if (code := process.stop(self.LIMIT)) and not (process.title == "own" and code in (-9, -15)):
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
