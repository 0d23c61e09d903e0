# SPDX-License-Identifier: Apache-2.0
"""Rows of the failure table that are about the disk, and about the clock: what a real server does
on a disk that fails, is slow, tiny or gone (tests/lib/faults.c), and when its wall clock jumps."""
import errno
import os
import subprocess
import time

import lab as lib
from lab import Failure, Faults, Load, Skip, wait_for
from rows import chaos, row, tick_payload

HOUR_MS = 3600 * 1000


def stats(server):
    with lib.Connection(server.client_port) as connection:
        return connection.stats()


def tmpfs(lab, size):
    """A disk of its own, of so many bytes; skips where nothing can be mounted."""
    mount = os.path.join(lab.path, "disk")
    os.mkdir(mount)
    if os.geteuid() != 0 or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", mount], capture_output=True,
            check=False).returncode != 0:
        raise Skip("a tmpfs cannot be mounted here")
    lab.ends.append(lambda: subprocess.run(["umount", "-l", mount], check=False))
    return mount


class Trickle:
    """One batch after the other, refused or not: a client that comes again in 2 ms."""

    def __init__(self, load):
        self.load, self.following = load, 0

    def more(self):
        load, now = self.load, time.monotonic()
        if load.submitted >= load.total and not load.pending and now >= self.following:
            load.total = load.submitted + load.batch
            self.following = now + 0.002


def submit_until(load, what, condition, limit=30.0):
    trickle = Trickle(load)

    def more():
        trickle.more()
        return condition()
    load.run_until(what, more, limit)


def accept_all(load, count, act, every, rng, limit=120.0):
    """Submits until so many were accepted, however many are refused; act() at random moments."""
    end = time.monotonic() + limit
    following, trickle = time.monotonic() + rng.random() * every, Trickle(load)
    while len(load.accepted) < count:
        load.pump(0.005)
        trickle.more()
        if time.monotonic() >= following:
            act()
            following = time.monotonic() + rng.random() * 2 * every
        if time.monotonic() > end:
            raise Failure(f"not {count} were accepted within {limit} s: {load.account()}")


def wait_accepts(load):
    """The store takes submissions again."""
    before = len(load.accepted)
    submit_until(load, "a submission to be accepted again", lambda: len(load.accepted) > before)


def all_again(lab, server, load, **facts):
    """What was accepted has ended, and no later life of the server knows better."""
    load.run(120)
    server.restart()
    wait_for("nothing to be left", lambda: not any(
        stats(server)[name] for name in ("ready", "backlog", "delayed", "running")))
    return lab.judge(load, **facts)


@row
def disk_errors(lab, scale):
    """write errors and failed fsyncs under load: what is refused says why, nothing runs twice"""
    faults = Faults(lab)
    server = lab.durable_server(env=faults.env)
    lab.workers(server, 3, "--slots", "2")
    load = Load(server.client_port, 0, payload=tick_payload(lab), window=100, batch=10)

    def act():
        faults.disk(lab.random.choice(("writes", "syncs", "metas")), lab.random.randrange(1, 4),
                    lab.random.choice((errno.EIO, errno.EIO, errno.EROFS, errno.ENOSPC)),
                    lab.random.randrange(0, 30))
    accept_all(load, 1000 * scale, act, 0.2, lab.random)
    faults.mend()
    wait_accepts(load)
    if not faults["hits"]:
        raise Failure("nothing failed")
    again = all_again(lab, server, load, failed=faults["hits"], refused=dict(load.refused))
    if again:
        raise Failure(f"{again} tasks ran again because the disk failed")


@row
def disk_errors_and_death(lab, scale):
    """the server is killed, and its workers, while the disk fails: doubt is settled by the next life"""
    faults = Faults(lab)
    server = lab.durable_server(env=faults.env)
    workers = lab.workers(server, 3, "--slots", "2")
    load = Load(server.client_port, 1500 * scale, payload=tick_payload(lab))

    def act():
        faults.disk(lab.random.choice(("writes", "syncs", "metas")), lab.random.randrange(1, 1000))
        hits = faults["hits"]
        load.run_until("the disk to fail", lambda: faults["hits"] > hits or not load.open_tasks())
        for process in lab.random.sample([server, *workers], lab.random.randrange(1, 3)):
            process.kill()
            faults.mend()
            process.start()
    chaos(lab, load, act, 0.8, 120 + 30 * scale)
    faults.mend()
    wait_accepts(load)
    all_again(lab, server, load, failed=faults["hits"], refused=dict(load.refused))


@row
def disk_read_only(lab, scale):
    """nothing can be written any more: refused with the reason, what runs is finished when it can"""
    faults = Faults(lab)
    server = lab.durable_server(env=faults.env)
    load = Load(server.client_port, 100 * scale, payload=b"", window=5000)
    load.run_until("all to be accepted", lambda: len(load.accepted) == load.total)
    faults.disk("writes", 1 << 40, errno.EROFS)
    submit_until(load, "a refusal", lambda: load.refused[lib.STORE_FAILED])
    lab.workers(server, 2)
    submit_until(load, "more refusals", lambda: load.refused[lib.STORE_FAILED] > 200)
    faults.mend()
    wait_accepts(load)
    if all_again(lab, server, load, refused=dict(load.refused)):
        raise Failure("a disk that could not be written to made tasks run twice")


@row
def disk_slow(lab, scale):
    """each fsync takes a second for a while: all is slow, and nobody is taken for dead"""
    faults = Faults(lab)
    server = lab.durable_server(env=faults.env)
    lab.workers(server, 3, "--slots", "2")
    load = Load(server.client_port, 800 * scale, payload=tick_payload(lab), window=100)
    faults["sync_ms"] = 1000

    def act():
        faults["sync_ms"] = lab.random.choice((0, 0, 100, 1000))
    chaos(lab, load, act, 0.5, 120 + 60 * scale)
    faults.mend()
    lost = stats(server)["workers_lost"]
    if all_again(lab, server, load, workers_lost=lost) or lost:
        raise Failure("a slow disk looked like a dead worker")


@row
def disk_vanished(lab, scale):
    """the data directory is moved away, an empty one in its place: no second store begins there"""
    faults = Faults(lab)
    path = os.path.join(lab.path, "store")
    server = lab.durable_server(path=path, env=faults.env)
    load = Load(server.client_port, 100 * scale, payload=b"", window=5000)
    load.run_until("all to be accepted", lambda: len(load.accepted) == load.total)
    os.rename(path, path + ".away")
    if lab.random.random() < 0.7:
        os.mkdir(path)
    faults.disk("syncs", 1)  # it opens its store again
    submit_until(load, "refusals", lambda: sum(load.refused.values()) > 100)
    if os.path.exists(os.path.join(path, "data.mdb")):
        raise Failure("it began another store in place of the one that it has lost")
    if os.path.exists(path):
        os.rmdir(path)
    os.rename(path + ".away", path)
    wait_accepts(load)
    lab.workers(server, 2)
    all_again(lab, server, load, refused=dict(load.refused))


@row
def disk_tiny(lab, scale):
    """a disk of 16 MiB, filled by the tasks themselves again and again: it goes on when they end"""
    disk = tmpfs(lab, "16m")
    server = lab.durable_server("--max-disk", "64m", path=os.path.join(disk, "store"))
    load = Load(server.client_port, 0, payload=b"ms=1 " + b"x" * 20000, batch=10, window=5000)
    workers = []
    for _ in range(scale):
        submit_until(load, "the disk to be full", lambda: load.refused[lib.STORE_FULL], 60)
        for worker in workers:
            worker.start()
        workers = workers or lab.workers(server, 2)
        load.paused = True
        load.run(120)
        load.paused = False
        for worker in workers:
            worker.stop()
        wait_accepts(load)
        load.refused.clear()
    for worker in workers:
        worker.start()
    if all_again(lab, server, load):
        raise Failure("tasks ran twice because the disk was full")


@row
def clock_jumps(lab, scale):
    """the wall clock jumps back and forth: delayed tasks start, expired ones end, nothing is lost"""
    faults = Faults(lab)
    server = lab.durable_server(env=faults.env)
    lab.workers(server, 3, "--slots", "2")

    def options():  # a delay in half of them; a time to expire in some
        delay = lab.random.choice((0, 0, 50, 1000))
        expires = lab.random.choice((0, 0, 0, 20, 5000, HOUR_MS))
        return [80, 4, delay, 0, 0, expires, 3, 1000, None, 0, None, 0, False, None, None]
    load = Load(server.client_port, 0, payload=tick_payload(lab), options=options, window=1000, batch=10)

    def act():
        faults["wall_ms"] = lab.random.choice((1, -1)) * lab.random.choice((0, 500, 5000, HOUR_MS))
        load.window += 100  # what has a long time to wait now
    accept_all(load, 1000 * scale, act, 0.1, lab.random)
    faults["wall_ms"] = 3 * HOUR_MS  # what was submitted in the future
    load.run(60)
    lost = stats(server)["workers_lost"]
    ended = {name: sum(1 for status, _ in load.finished.values() if status == number)
             for name, number in (("done", lib.DONE), ("expired", lib.EXPIRED))}
    if lab.judge(load, workers_lost=lost, **ended) or lost:
        raise Failure("the wall clock made tasks run twice")
    if sum(ended.values()) != len(load.finished):
        raise Failure("tasks ended that neither ran nor expired")
