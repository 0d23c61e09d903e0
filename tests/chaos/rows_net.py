# SPDX-License-Identifier: Apache-2.0
"""Rows of the failure table that need a network: workers on hosts of their own (namespaces), and
between them and the server what networks do: loss, one-way cuts, partitions."""
import contextlib
import os
import subprocess

import lab as lib
from lab import Failure, Load, Skip, Worker, wait_for
from rows import chaos, row


def run(*command, text=None):
    """Skips the row where the command is missing, or may not do it."""
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Skip(f"there is no {command[0]} here") from None
    if done.returncode:
        raise Skip(f"`{' '.join(command)}`: {done.stderr.strip()[:200] or done.returncode}")


class Host:
    """A network namespace, joined to this one by a cable; skips where there can be none."""

    NET = f"10.{64 + os.getpid() % 64}"
    SERVER = f"{NET}.1.1"  # our end of the first one's cable; the others have a route to it

    def __init__(self, lab, number):
        if os.geteuid() != 0:
            raise Skip("network namespaces need root")
        self.name = f"pushrod{os.getpid()}.{number}"
        self.cable = f"pr{os.getpid() % 100000}.{number}"
        gate = f"{self.NET}.{number}.1"
        self.table = f"pushrod{os.getpid()}_{number}"
        lab.ends.append(self.remove)
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", self.cable, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        run("ip", "addr", "add", f"{gate}/24", "dev", self.cable)
        run("ip", "link", "set", self.cable, "up")
        run("ip", "-n", self.name, "addr", "add", f"{self.NET}.{number}.2/24", "dev", "eth0")
        run("ip", "-n", self.name, "link", "set", "eth0", "up")
        run("ip", "-n", self.name, "link", "set", "lo", "up")
        run("ip", "-n", self.name, "route", "add", "default", "via", gate)
        self.rules()

    def remove(self):
        for command in (["nft", "delete", "table", "inet", self.table], ["ip", "link", "del", self.cable],
                        ["ip", "netns", "del", self.name]):
            with contextlib.suppress(Skip):
                run(*command)

    def rules(self, to_server="accept", from_server="accept"):
        """What becomes of packets of each direction: accept, drop, or `LOSS drop`."""
        text = f"""
            table inet {self.table} {{}}
            delete table inet {self.table}
            table inet {self.table} {{
                chain there {{ type filter hook input priority 0; iifname "{self.cable}" {to_server}; }}
                chain back {{ type filter hook output priority 0; oifname "{self.cable}" {from_server}; }}
            }}"""
        run("nft", "-f", "-", text=text)

    def rate(self, rate, back=False):
        """What the line to there takes in a second, or the one back, in words of tc(8)."""
        where, device = (["-n", self.name], "eth0") if back else ([], self.cable)
        run("tc", *where, "qdisc", "replace", "dev", device, "root", "tbf", "rate", rate, "burst", "32kb",
            "latency", "100ms")

    def worker(self, lab, server, name, *options):
        """Started there; its processes are children of this one all the same."""
        worker = Worker(lab, name, server, *options, host=self.SERVER)
        worker.argv = ["ip", "netns", "exec", self.name, *worker.argv]
        lab.processes.append(worker)
        return worker.start()


WORKER_SILENT_MS = 13
LOSS = "numgen random mod 100 < 20 drop"


def hosts_and_workers(lab, *options):
    """Two hosts with a worker each, and one worker beside the server."""
    hosts = [Host(lab, number) for number in (1, 2)]
    server = lab.server("--worker-listen", Host.SERVER, "--heartbeat", "200ms", "--ping", "500ms", *options,
                        store=os.path.join(lab.path, "store"))
    for number, host in enumerate(hosts):
        host.worker(lab, server, f"far{number}", "--slots", "2")
    lab.worker("near", server, "--slots", "1", host=Host.SERVER)
    lab.wait_workers(server, 3)
    return hosts, server


def network_test(lab, scale, faults, every):
    hosts, server = hosts_and_workers(lab)
    load = Load(server.client_port, 400 * scale, window=50,
                payload=lambda n: b"ms=%d" % lab.random.choice((0, 1, 20, 50, 100)))

    def act():
        lab.random.choice(hosts).rules(*lab.random.choice(faults))
    chaos(lab, load, act, every, 90 + 30 * scale)
    for host in hosts:
        host.rules()
    lab.wait_workers(server, 3)
    load.total += 100  # and all of it works as before
    load.run(60)
    with lib.Connection(server.client_port) as connection:
        lab.judge(load, workers_lost=connection.stats()["workers_lost"])


@row
def network_parts(lab, scale):
    """hosts are cut off, in both directions or in one, and come back before they are fenced or after"""
    network_test(lab, scale, (("accept", "accept"), ("accept", "accept"), ("drop", "drop"),
                              ("drop", "accept"), ("accept", "drop")), 0.4)


@row
def network_loses(lab, scale):
    """a fifth of all packets is lost, in both directions or in one"""
    network_test(lab, scale, (("accept", "accept"), (LOSS, LOSS), (LOSS, "accept"), ("accept", LOSS)), 0.8)


@row
def server_parted(lab, scale):
    """the server is killed while its workers are cut off; what they have done by then is not done again"""
    hosts, server = hosts_and_workers(lab, "--rejoin-wait", "10s", "--missed-heartbeats", "100")
    # The others take so long that some are left when the hosts are cut off, however slow that is.
    load = Load(server.client_port, 40 * scale, payload=lambda n: b"ms=20" if n < 10 * scale else b"ms=500")
    load.run_until("some to be done", lambda: len(load.finished) >= 10 * scale)
    for host in hosts:
        host.rules("drop", "drop")
    done = len(lib.read_record(lab.record)[1])
    load.run_until("all there to run to their end", lambda: len(lib.read_record(lab.record)[1]) >= done + 3)
    server.restart()
    for host in hosts:
        host.rules()
    load.run(60)
    again = lab.judge(load)
    if again:
        raise Failure(f"{again} tasks ran again, although their workers came back in time")
    wait_for("all workers to be back", lambda: len(lib.Connection(server.client_port).workers()) == 3)


def quiet(server):
    """The workers that say nothing unasked: they had a PING, and the next one is some time away."""
    with lib.Connection(server.client_port) as connection:
        return [worker for worker in connection.workers() if worker[WORKER_SILENT_MS] > 1500]


@row
def idle_hosts_vanish(lab, scale):
    """hosts of idle workers vanish: TCP keepalive says so, long before a hundred heartbeats are missed"""
    hosts, server = hosts_and_workers(lab, "--heartbeat", "1s", "--ping", "2s", "--missed-heartbeats", "100")
    for _ in range(scale):
        wait_for("the workers to be quiet", lambda: len(quiet(server)) == 3)
        for host in hosts:
            host.rules("drop", "drop")
        wait_for("the workers there to be lost", lambda: len(lib.Connection(server.client_port).workers()) == 1)
        for host in hosts:
            host.rules()
        lab.wait_workers(server, 3)
    load = Load(server.client_port, 100)
    load.run(30)
    lab.judge(load)


def slow_line(lab, payload, back):
    """Two large ones take longer than a server or worker may be silent, and some small ones pass them."""
    host = Host(lab, 1)
    server = lab.server("--worker-listen", Host.SERVER, "--heartbeat", "200ms", "--ping", "300ms")
    host.rate("8mbit", back)
    host.worker(lab, server, "far", "--slots", "4")
    lab.wait_workers(server, 1)
    large = Load(server.client_port, 2, payload=payload, batch=1)
    large.run_until("both to be submitted", lambda: len(large.accepted) == 2)
    if back:
        wait_for("both results to be there", lambda: len(lib.read_record(lab.record)[1]) == 2)
    small = Load(server.client_port, 2, window=1, batch=1)
    small.run(30)
    with lib.Connection(server.client_port) as connection:
        if connection.stats()["done"] > 2:
            raise Failure("what was small waited for what was large")
        large.run(60)
        stats = connection.stats()
    if stats["workers_lost"] or large.open_tasks() or small.open_tasks():
        raise Failure(f"{stats['workers_lost']} times a worker was lost; {large.account()}, {small.account()}")


@row
def slow_line_there(lab, _scale):
    """payloads take longer to a worker than a server may be silent; what is small passes them"""
    slow_line(lab, b"size=1 " + b"x" * (6 << 20), back=False)


@row
def slow_line_back(lab, _scale):
    """results take longer from a worker than it may be silent; what is small passes them"""
    slow_line(lab, b"size=%d" % (6 << 20), back=True)
