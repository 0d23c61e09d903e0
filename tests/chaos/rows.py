# SPDX-License-Identifier: Apache-2.0
"""One test for each row of the failure table in DESIGN.md; each takes a lab, and how much to do."""
import os
import signal
import socket
import subprocess
import time

import lab as lib
from lab import Failure, Load, Proxy, Skip, wait_for

ROWS = []


def row(test):
    ROWS.append(test)
    return test


def tick_payload(lab):
    """Mostly short tasks, some that are running when something breaks."""
    return lambda n: b"ms=%d" % (lab.random.choice((0, 0, 0, 1, 2, 20)))


def chaos(lab, load, act, every, limit):
    """Runs the load, and calls act() at random moments, on average `every` seconds."""
    end = time.monotonic() + limit
    following = time.monotonic() + lab.random.random() * every
    while load.submitted < load.total or load.open_tasks() > 0:
        load.pump(0.005)
        if time.monotonic() >= following and load.submitted < load.total:
            act()
            following = time.monotonic() + lab.random.random() * 2 * every
        if time.monotonic() > end:
            raise Failure(f"not all finished within {limit} s: {load.account()}")


@row
def worker_killed(lab, scale):
    """kill -9 of workers, and of the processes within them, while tasks run"""
    server = lab.server()
    workers = lab.workers(server, 3, "--slots", "2")
    load = Load(server.client_port, 1500 * scale, payload=tick_payload(lab))
    kills = 0

    def act():
        nonlocal kills
        victim = lab.random.choice(workers)
        kills += 1
        inner = victim.inner()
        if lab.random.random() < 0.5 and inner:
            os.kill(lab.random.choice(inner), signal.SIGKILL)
        else:
            victim.kill()
            victim.start()
    chaos(lab, load, act, 0.5, 60 + 30 * scale)
    lab.judge(load, kills=kills)


@row
def worker_stopped(lab, scale):
    """SIGSTOP of a worker: fenced after three heartbeats; its late answers are never doubled"""
    server = lab.server("--heartbeat", "200ms")
    workers = lab.workers(server, 3, "--slots", "2")
    load = Load(server.client_port, 1000 * scale, payload=tick_payload(lab))
    stopped = []

    def act():
        for worker in stopped:
            worker.signal(signal.SIGCONT)
        stopped.clear()
        if lab.random.random() < 0.7:
            stopped.append(lab.random.choice(workers))
            stopped[0].signal(signal.SIGSTOP)
    chaos(lab, load, act, 0.6, 60 + 30 * scale)
    for worker in workers:
        worker.signal(signal.SIGCONT)
    wait_for("all workers to be back", lambda: lib.Connection(server.client_port).stats()["workers"] >= 3)
    lab.judge(load)


def cut_test(lab, scale, kinds, heartbeat="200ms"):
    server = lab.server("--heartbeat", heartbeat, *Proxy.NEEDS)
    proxy = Proxy(lab, server)
    lab.workers(server, 3, "--slots", "2", host=proxy.address)
    load = Load(server.client_port, 1500 * scale, payload=tick_payload(lab))
    cuts = 0

    def act():
        nonlocal cuts
        cuts += proxy.cut(*kinds) > 0
    chaos(lab, load, act, 0.4, 60 + 30 * scale)
    if not cuts:
        raise Failure("nothing was cut")
    with lib.Connection(server.client_port) as connection:
        lost = connection.stats()["workers_lost"]
    return lab.judge(load, cuts=cuts, workers_lost=lost), lost


@row
def answers_cut(lab, scale):
    """the answers connections are cut again and again, both ends alive: nothing runs twice"""
    # A machine that stands still for 600 ms is no reason to fence here.
    again, lost = cut_test(lab, scale, ("answers",), heartbeat="2s")
    if again:
        raise Failure(f"{again} tasks ran again; {lost} workers were fenced or lost, and none should be")


@row
def lane_cut(lab, scale):
    """the lanes are cut again and again, both ends alive"""
    cut_test(lab, scale, ("lane",))


@row
def host_unreachable(lab, scale):
    """nothing from the workers' host passes for a while, and nobody is told"""
    server = lab.server("--heartbeat", "200ms", "--ping", "500ms", *Proxy.NEEDS)
    proxy = Proxy(lab, server)
    lab.workers(server, 2, "--slots", "2", host=proxy.address)
    lab.worker("near", server, "--slots", "1")
    lab.wait_workers(server, 3)
    load = Load(server.client_port, 1000 * scale, payload=tick_payload(lab))

    def act():
        proxy.silence(*(("lane", "answers", "join") if lab.random.random() < 0.6 else ()))
    chaos(lab, load, act, 0.8, 60 + 30 * scale)
    proxy.silence()
    lab.judge(load)


@row
def server_killed(lab, scale):
    """kill -9 of the server under load: accepted tasks are there, running ones are not run again"""
    server = lab.durable_server()
    lab.workers(server, 3, "--slots", "2")
    load = Load(server.client_port, 2000 * scale, payload=tick_payload(lab))
    restarts = []

    def act():
        if len(restarts) < 3 * scale:
            begin = time.monotonic()
            server.restart()
            restarts.append((time.monotonic() - begin) * 1000)
    chaos(lab, load, act, 0.8, 90 + 30 * scale)
    again = lab.judge(load, restarts=[round(ms) for ms in restarts])
    if again:
        raise Failure(f"{again} tasks ran again because the server was restarted")


@row
def server_stopped(lab, scale):
    """the server is stopped and started under load; its workers wait for it: nothing runs twice"""
    server = lab.durable_server()
    workers = lab.workers(server, 3, "--slots", "2")
    load = Load(server.client_port, 2000 * scale, payload=tick_payload(lab))
    restarts = 0

    def act():
        nonlocal restarts
        if restarts < 3 * scale:
            restarts += 1
            server.process.terminate()
            load.run_until("the server to stop", lambda: not server.alive(), 40)
            if server.process.returncode:
                raise Failure(f"the server stopped with {server.process.returncode}")
            server.start()
    chaos(lab, load, act, 0.8, 90 + 30 * scale)
    again = lab.judge(load, restarts=restarts)
    if again:
        raise Failure(f"{again} tasks ran again because the server was stopped")
    if not all(worker.alive() for worker in workers):
        raise Failure("a worker ended with its server")


@row
def all_killed(lab, scale):
    """the server and all workers are killed in the middle; all that was accepted finishes"""
    server = lab.durable_server()
    workers = lab.workers(server, 3, "--slots", "2")
    load = Load(server.client_port, 2000 * scale, payload=tick_payload(lab))
    load.run_until("half of it", lambda: len(load.finished) > load.total // 2)
    for process in [server, *workers]:
        process.signal(signal.SIGKILL)
    for process in [server, *workers]:
        process.kill()
        process.start()
    load.run(90 + 30 * scale)
    lab.judge(load)


@row
def both_killed(lab, scale):
    """kill -9 of workers and of the server in any order, again and again"""
    server = lab.durable_server()
    workers = lab.workers(server, 3, "--slots", "2")
    load = Load(server.client_port, 2000 * scale, payload=tick_payload(lab))
    restarts = 0

    def act():
        nonlocal restarts
        if lab.random.random() < 0.3 and restarts < 3 * scale:
            restarts += 1
            server.restart()
        else:
            victim = lab.random.choice(workers)
            victim.kill()
            victim.start()
    chaos(lab, load, act, 0.5, 120 + 30 * scale)
    lab.judge(load)


@row
def disk_full(lab, scale):
    """a full disk: submissions are refused with the reason, nothing accepted is lost, it recovers"""
    mount = os.path.join(lab.path, "small")
    os.mkdir(mount)
    if os.geteuid() != 0 or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=192m", "tmpfs", mount], capture_output=True,
            check=False).returncode != 0:
        raise Skip("a tmpfs cannot be mounted here")
    lab.ends.append(lambda: subprocess.run(["umount", "-l", mount], check=False))
    server = lab.durable_server("--max-disk", "128m", path=os.path.join(mount, "store"))
    ballast = os.path.join(mount, "ballast")

    def fill():
        with open(ballast, "wb", buffering=0) as f:
            try:
                while True:
                    f.write(bytes(1 << 20))
            except OSError:
                pass
    load = Load(server.client_port, 400, payload=b"ms=1 " + b"x" * 2000)
    load.run_until("the first to be accepted", lambda: len(load.accepted) >= 200)
    load.paused = True
    load.run_until("answers", lambda: not load.pending)
    fill()
    load.paused, load.total = False, load.total + 40000
    load.run_until("a refusal", lambda: load.refused[lib.STORE_FULL] or load.refused[lib.STORE_FAILED])
    load.paused = True
    load.run_until("answers", lambda: not load.pending)
    refused = dict(load.refused)
    lab.workers(server, 2)  # what they finish before there is room may have to wait
    os.unlink(ballast)
    end = time.monotonic() + 30
    load.total = load.submitted + 200
    load.paused = False
    before = len(load.accepted)
    while len(load.accepted) - before < 100:
        load.pump()
        if load.submitted >= load.total:
            load.total += 50  # refused until it has noticed that there is room
        if time.monotonic() > end:
            raise Failure(f"it did not recover: {load.account()}")
    load.paused = True
    load.run(120)
    lab.judge(load, refused=refused)


def garbage_into(port, data, limit=5):
    """Sends it, and reads what comes until the other side has had enough."""
    with socket.create_connection(("127.0.0.1", port), timeout=limit) as s:
        try:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            while s.recv(1 << 16):
                pass
        except OSError:
            pass


def open_still(sockets):
    """Those whose other side has not closed them yet."""
    for s in list(sockets):
        try:
            over = not s.recv(1 << 16)
        except BlockingIOError:
            over = False
        except OSError:
            over = True
        if over:
            s.close()
            sockets.remove(s)
    return sockets


@row
def garbage(lab, scale):
    """garbage, half a frame, floods and port scans on every port, under load"""
    server = lab.server("--heartbeat", "200ms", "--handshake-timeout", "2s")
    lab.workers(server, 2, "--slots", "2")
    load = Load(server.client_port, 1500 * scale, payload=tick_payload(lab))
    ports = [server.client_port, server.join_port, server.answers_port, server.http_port,
             *list(server.lane_ports)[:6]]
    kept, sent = [], 0

    def act():
        nonlocal sent
        port, sent = lab.random.choice(ports), sent + 1
        try:
            if lab.random.random() < 0.3:  # half-open, and never heard of again
                kept.append(socket.create_connection(("127.0.0.1", port), timeout=2))
                kept[-1].sendall(b"\0\0\0\x10half")
            else:
                size = lab.random.choice((0, 1, 4, 9, 64, 5000))
                head = lab.random.choice((b"", b"\xff\xff\xff\xff", b"\0\0\0\4", b"\xff\0\0\0\0\0\0\0\1\x7f",
                                          b"GET / HTTP/1.0\r\n\r\n"))
                garbage_into(port, head + lab.random.randbytes(size), 0.3)
        except OSError:
            pass  # a lane port that nobody holds
    chaos(lab, load, act, 0.03, 60 + 30 * scale)
    # Half of something and then nothing has an end, which the server makes; the load may go on.
    for s in kept:
        s.setblocking(False)
    wait_for("the half-open connections to be closed", lambda: not open_still(kept), 60)
    lost = lib.Connection(server.client_port).stats()["workers_lost"]
    again = lab.judge(load, garbage=sent, workers_lost=lost)
    if lost or again:
        raise Failure("healthy workers noticed the garbage")


@row
def poison(lab, scale):
    """a task that kills each worker: dead after 3, its neighbours finish, workers come back"""
    server = lab.server()
    lab.workers(server, 3, "--slots", "2")
    poisons = {100, 300}
    load = Load(server.client_port, 600 * scale,
                payload=lambda n: b"crash" if n in poisons else b"ms=1")
    load.run(120)
    failed = [load.accepted[task] for task, (status, _) in load.finished.items() if status == lib.FAILED]
    lab.wait_workers(server, 3)
    lab.judge(load, dead=len(failed))
    if sorted(failed) != sorted(poisons):
        raise Failure(f"dead are {failed}, and not only the poisonous {sorted(poisons)}")


@row
def no_worker(lab, scale):
    """no worker for a queue: tasks wait, can be seen, and run when one comes"""
    server = lab.server()
    load = Load(server.client_port, 100 * scale, payload=b"")
    load.run_until("all to be accepted", lambda: len(load.accepted) == load.total)
    with lib.Connection(server.client_port) as connection:
        rows = [r for r in connection.ask(lib.LIST, "queues", None, 0, 0) if r[0] == lib.QUEUE_ROW]
        if [(r[2], r[5], r[9]) for r in rows] != [("work", load.total, 0)]:
            raise Failure(f"the queue is not seen as waiting: {rows}")
        stats = connection.stats()
        if stats["ready"] != load.total or stats["unserved"] != load.total:
            raise Failure("the metric does not show it")
    lab.workers(server, 1)
    load.run(30)
    lab.judge(load)


@row
def worker_drained(lab, scale):
    """workers are stopped and started under load: nothing is lost, nothing runs twice"""
    server = lab.server()
    workers = lab.workers(server, 3, "--slots", "2")
    load = Load(server.client_port, 2000 * scale, payload=tick_payload(lab))

    def act():
        victim = lab.random.choice(workers)
        victim.process.terminate()
        end = time.monotonic() + 20
        while victim.alive():
            load.pump(0.005)
            if time.monotonic() > end:
                raise Failure(f"{victim.name} did not drain")
        victim.start()
    chaos(lab, load, act, 0.5, 60 + 30 * scale)
    if lab.judge(load):
        raise Failure("a drain made tasks run twice")
