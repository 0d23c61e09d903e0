# SPDX-License-Identifier: Apache-2.0
"""What is measured. Each part takes a Run and adds rows to its results; none of them judges a time."""
import contextlib
import os
import re
import subprocess
import time

from . import procs, systems
from .hol import hol
from .procs import BENCH, BUILD, Failed

MEMORY = ["pushrod-embedded", "pushrod", "gearmand", "gearmand-lib", "beanstalkd", "redis-list", "redis-stream", "nats",
          "rabbitmq", "celery", "rq", "swoole", "echo", "echo-unix", "echo-16"]
DURABLE = ["pushrod-embedded-sync", "pushrod-sync", "pushrod-async", "beanstalkd-f50", "beanstalkd-sync",
           "redis-stream-1s", "redis-stream-sync", "nats", "rabbitmq"]
OURS_AND_ECHO = ["pushrod-embedded", "pushrod", "echo"]
SLOW = ("celery", "rq")


def rounds(run, part, names, workers=4, **options):
    """The same load for each system, in turn, `run.rounds` times; the order turns with each round."""
    up = systems.started(systems.available(run.choose(names), run.say), workers, run.say)
    try:
        for number in range(run.rounds):
            turn = number % max(1, len(up))
            for system in up[turn:] + up[:turn]:
                run.measure(part, system, round=number, workers=workers, options=dict(options))
    finally:
        for system in up:
            system.stop()


def throughput(run):
    """N no-op tasks of 64 bytes, with their results back at the submitter."""
    rounds(run, "throughput", MEMORY, seconds=run.seconds)


def durable(run):
    """The same, with what the system promises about a power cut."""
    rounds(run, "durable", DURABLE, seconds=run.seconds)


def submit(run):
    """Only submitting, until the system has said that it has the task; nobody works."""
    # Nor do Swoole's task() and a set of libgearman end with a task that is only taken.
    names = [n for n in MEMORY if not n.startswith(("echo", "swoole", "gearmand-lib"))] + DURABLE
    # In an embedded server the program has the task as soon as the call returns: nothing to measure.
    for name in dict.fromkeys(n for n in names if "embedded" not in n):
        for system in systems.available(run.choose([name]), run.say):
            # A new server for each round: the tasks of the last would be in the way.
            for number in range(run.rounds):
                for s in systems.started([systems.BY_NAME[system.name]()], 0, run.say):
                    run.measure("submit", s, round=number, options={"mode": "submit", "seconds": run.seconds})
                    s.stop()


def latency(run):
    """Round trips: one at a time, then open loop at 1, 10, 50 and 90 % of each one's own maximum."""
    names = [n for n in MEMORY if n not in (*SLOW, "echo-16", "gearmand-lib")] + ["pushrod-sync"]
    up = systems.started(systems.available(run.choose(names), run.say), 4, run.say)
    try:
        for number in range(run.rounds):
            for system in up:
                run.measure("idle-round-trip", system, round=number,
                            options={"window": 1, "count": run.scale(1000, 3000)})
        for system in (s for s in up if s.name != "echo-unix"):
            top = run.measure("latency-maximum", system, options={"seconds": run.seconds})
            for percent in (1, 10, 50, 90) if top else ():
                rate = top["rate"] * percent / 100
                run.measure("latency", system, percent=percent,
                            # A cold start leaves a backlog behind that 90 % of the maximum does not work off.
                            options={"mode": "open", "rate": rate, "seconds": run.seconds, "warmup": 1})
    finally:
        for system in up:
            system.stop()


def payload(run):
    """64 bytes to 1 MiB."""
    sizes = run.scale([64, 1024, 16384, 262144, 1048576], [64, 256, 1024, 4096, 16384, 65536, 262144, 1048576])
    names = ["pushrod-embedded", "pushrod", "gearmand", "beanstalkd", "redis-list", "nats", "rabbitmq", "echo",
             "echo-unix"]
    up = systems.started(systems.available(run.choose(names), run.say), 4, run.say)
    try:
        for number in range(3):
            for system in up:
                for size in sizes:
                    window = max(16, min(system.window, (32 << 20) // size))
                    run.measure("payload", system, size=size, round=number,
                                options={"size": size, "window": window, "seconds": run.seconds / 3})
    finally:
        for system in up:
            system.stop()


def mixed(run):
    """Tasks of 64 bytes beside some of 1 MiB: as many as go, and a fifth of that; in the same server, and in another."""
    for system in systems.available(run.choose(["pushrod", "gearmand", "nats", "rabbitmq"]), run.say):
        for s in systems.started([system], 4, run.say):
            # What is left of the delay with this one is the machine's, not the server's.
            for other in systems.started([systems.BY_NAME[s.name]()], 4, run.say):
                with run.guard("mixed", s):
                    for number in range(run.scale(1, 3)):
                        mixed_round(run, s, other, number)
                other.stop()
            s.stop()


def mixed_round(run, system, other, number):
    def case(large, place, where, options):
        run.add("mixed", system, round=number, large=large, place=place, **small_beside(run, system, where, options))
        return run.rows[-1]["large_per_s"]

    case("none", "", None, {})
    full = {"mode": "run", "window": 4}
    some = {"mode": "open", "rate": case("as many as go", "the same", system, full) / 5}
    case("as many as go", "another", other, full)
    case("a fifth of that", "the same", system, some)
    case("a fifth of that", "another", other, some)


def small_beside(run, system, other, large):
    """2,000 small tasks a second through `system`, while `other` has large ones: what was seen of both."""
    seconds = run.scale(2, 4)
    client = other and procs.start(other.client_command(size=1 << 20, seconds=seconds + 1.5, **large), other.directory,
                                   "large.log")
    found = system.client(mode="open", rate=2000, size=64, seconds=seconds)["latency_us"]
    rate = 0
    if client:
        client.wait(60)
        rate = procs.json.loads(procs.read(client.log_path).strip().splitlines()[-1])["rate"]
    return {"p50_us": found["p50"], "p99_us": found["p99"], "large_per_s": rate}


def workers(run):
    """1 to 64 workers, of one slot each."""
    names = ["pushrod-embedded", "pushrod", "gearmand", "beanstalkd", "redis-list", "nats", "rabbitmq"]
    for count in run.scale([1, 4, 16, 64], [1, 2, 4, 8, 16, 32, 64]):
        for system in systems.available(run.choose(names), run.say):
            for s in systems.started([system], count, run.say):
                run.measure("workers", s, workers=count, options={"seconds": run.seconds})
                s.stop()


def queues(run):
    """1 to 100,000 queues, in turn."""
    names = ["pushrod-embedded", "pushrod", "pushrod-sync", "gearmand", "beanstalkd", "nats"]
    for count in run.scale([1, 100, 10000], [1, 10, 100, 1000, 10000, 100000]):
        for system in systems.available(run.choose(names), run.say):
            if count > 10000 and not system.name.startswith("pushrod"):
                continue
            system.queues = count
            for s in systems.started([system], 4, run.say):
                # Queues are made while it warms up.
                run.measure("queues", s, queues=count, options={"seconds": run.seconds, "warmup": 0.2 if count <= 1000 else 1.5})
                s.stop()


def connections(run):
    """1 to 10,000 connections: all of them submit, one task or 16 at a time; or one does, and all others are there."""
    names = ["pushrod", "gearmand", "beanstalkd", "redis-list", "nats"]
    for count in run.scale([1, 100, 1000, 4000, 10000], [1, 10, 100, 1000, 2000, 4000, 10000]):
        for system in systems.available(run.choose(names), run.say):
            # A client of the library has four descriptors: 20,000 allow some 4,000 of them.
            most = 4000 if system.name == "pushrod" else 1000
            if count > most and system.name != "pushrod":
                continue
            for s in systems.started([system], 4, run.say):
                if count <= most:
                    connections_busy(run, s, count)
                if s.name == "pushrod" and count > 1:
                    run.measure("connections-idle", s, connections=count,
                                options={"idle": count - 1, "seconds": run.seconds})
                s.stop()


def connections_busy(run, system, count):
    """One task at a time from each shows what a connection costs; 16 what is left of it when it gathers."""
    for burst, part in ((1, "connections"), (16, "connections-16")):
        options = {"conns": count, "burst": burst, "window": max(system.window, count * burst)}
        facts = {}
        if system.name == "pushrod":
            with run.guard(part, system):
                facts["syscalls"] = system_calls(system, max(20000, 4 * options["window"]), options["window"],
                                                 conns=count, burst=burst)
        run.measure(part, system, connections=count, **facts,
                    options={**options, **({"seconds": run.seconds} if count <= 100 else
                                           {"seconds": max(1.5, run.seconds), "warmup": 1.0})})


def fill(system, count, limit=600, **options):
    """Submits `count` tasks that nobody serves; gives the running client and what it said."""
    command = system.client_command(mode="backlog", count=count, **options)
    client = procs.start(command, system.directory, "client.log", stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE)
    end = time.monotonic() + limit
    os.set_blocking(client.stdout.fileno(), False)
    line = b""
    while not line.endswith(b"\n"):
        with contextlib.suppress(BlockingIOError):
            line += client.stdout.read(4096) or b""
        if client.poll() is not None or time.monotonic() > end:
            procs.stop(client)
            raise Failed("filling %d: %s" % (count, procs.read(client.log_path)[-300:]))
        time.sleep(0.01)
    return client, procs.json.loads(line)


def empty(client, limit=600):
    """Lets the client of fill() take its results back, now that there are workers."""
    client.stdin.write(b"go\n")
    client.stdin.flush()
    os.set_blocking(client.stdout.fileno(), True)
    out = client.stdout.read()
    client.wait(limit)
    if client.returncode != 0 or not out.strip():
        raise Failed("emptying: %s" % procs.read(client.log_path)[-300:])
    return procs.json.loads(out.strip().splitlines()[-1])


def backlog(run):
    """0 to 10 M tasks that wait: how fast they come in, go out, and what each costs in memory."""
    # Fewer would be gone before the clock of the way out begins, which is when the workers were started.
    sizes = run.scale([100000, 1000000], [100000, 300000, 1000000, 3000000, 10000000])
    for name in ["pushrod", "pushrod-sync", "gearmand", "beanstalkd", "redis-list", "nats"]:
        for size in sizes:
            if name in ("gearmand", "beanstalkd", "nats") and size > run.scale(100000, 1000000):
                continue
            for system in systems.available(run.choose([name]), run.say):
                with run.guard("backlog", system):
                    backlog_of(run, system, size)


def backlog_of(run, system, size):
    system.start()
    try:
        before, cpu = procs.rss_kib(system.server_pids()), [procs.cpu_seconds(system.server_pids())]
        client, filled = fill(system, size, no_result=1 if system.name.startswith("pushrod") else 0)
        after = procs.rss_kib(system.server_pids())
        cpu.append(procs.cpu_seconds(system.server_pids()))
        workers_of(system, 4)
        drained = empty(client)
        cpu.append(procs.cpu_seconds(system.server_pids()))
        procs.stop(client)
        run.add("backlog", system, tasks=size, rate_in=filled["rate"], rate=drained["rate"],
                cpu_us={"in": round((cpu[1] - cpu[0]) * 1e6 / size, 3), "out": round((cpu[2] - cpu[1]) * 1e6 / size, 3)},
                rss_kib=after, bytes_per_task=round((after - before) * 1024 / size - 64, 1))
    finally:
        system.stop()


def workers_of(system, count, slots=1):
    """Starts workers without waiting for a task there and back: the queue is full already."""
    if isinstance(system, systems.Native):
        real = system.client
        system.client = lambda **_: None
        system.start_workers(count, slots)
        system.client = real
    else:
        system.await_workers = lambda: None
        system.start_workers(count)


# ---- cost ----

def cost(run):
    """What one task costs: CPU, instructions, allocations, system calls, bytes, memory."""
    cost_counted(run)
    cost_instructions(run)
    memory(run)


def cost_counted(run):
    names = ["pushrod", "pushrod-sync", "gearmand", "beanstalkd", "redis-list", "nats", "rabbitmq", "pushrod-embedded"]
    for system in systems.available(run.choose(names), run.say):
        for window, load in ((system.window, "busy"), (1, "idle")):
            for s in systems.started([systems.BY_NAME[system.name]()], 4, run.say):
                with run.guard("cost", s):
                    count = run.scale(20000, 200000) if window > 1 else run.scale(500, 5000)
                    plain = s.client(count=count, window=window)
                    run.add("cost", s, load=load, cpu_us=plain["cpu_us"], wire_bytes=wire_bytes(run, s, count, window),
                            syscalls=system_calls(s, count, window), allocations=allocations(s, count, window))
                s.stop()


def wire_bytes(run, system, count, window):
    """Over TCP, for all: nothing counts the bytes of a Unix socket."""
    twin = type(system)()
    twin.unix = False
    for s in systems.started([twin], 4, run.say):
        before = procs.loopback_bytes()
        s.client(count=count, window=window)
        wire = procs.loopback_bytes() - before
        s.stop()
        return round(wire / count, 1)
    return None


def system_calls(system, count, window, **more):
    """System calls for each task, by group, counted by the kernel (perf) or else by strace."""
    groups = {"server": system.server_pids(), "worker": system.worker_pids()}
    counters, found = {}, {}
    for name, pids in groups.items():
        if pids:
            counters[name] = procs.start(
                ["perf", "stat", "-x,", "-e", "raw_syscalls:sys_enter", "-p", ",".join(map(str, pids))],
                system.directory, "perf-%s.log" % name)
    time.sleep(0.2)
    client = ["perf", "stat", "-x,", "-o", "perf-client.log", "-e", "raw_syscalls:sys_enter"]
    try:
        subprocess.run(client + system.client_command(count=count, window=window, **more), cwd=system.directory,
                       check=True, capture_output=True, timeout=120)
    except (OSError, subprocess.SubprocessError):
        return {}
    finally:
        for process in counters.values():
            process.send_signal(2)
            process.wait(10)
            procs.stop(process)
    for name in ["client", *counters]:
        for line in procs.read(os.path.join(system.directory, "perf-%s.log" % name)).splitlines():
            match = re.match(r"(\d+),,raw_syscalls", line)
            if match:
                found[name] = round(int(match.group(1)) / count, 3)
    return found


def allocations(system, count, window):
    """malloc() and its like for each task in the client and, for our own programs, in the server."""
    shim, found = os.path.join(BENCH, "allocations.so"), {}

    def counted(name, measure):
        path = os.path.join(system.directory, "allocations-" + name)
        with open(path, "wb") as f:
            f.write(bytes(8))
        env = {"LD_PRELOAD": shim, "BENCH_ALLOCATIONS": path}
        read = lambda: int.from_bytes(open(path, "rb").read(8), "little")
        measure(env, read, name)

    def client(env, read, name):
        # Twice, so that what a start costs cancels out.
        system.client(count=count, window=window, env=env)
        once = read()
        system.client(count=2 * count, window=window, env=env)
        found[name] = round((read() - 2 * once) / count, 3)

    counted("client", client)
    if isinstance(system, systems.Native):
        def server(env, read, name):
            twin = type(system)()
            twin.server_env = lambda: env
            for s in systems.started([twin], 4, lambda text: None):
                s.client(count=count, window=window)
                before = read()
                s.client(count=count, window=window)
                found[name] = round((read() - before) / count, 3)
                s.stop()
        counted("server", server)
    return found


def cost_instructions(run):
    """Instructions for each task under callgrind, where the machine has no counters: N and 2 N tasks."""
    if run.only and "pushrod" not in run.only or not os.path.exists(os.path.join(BUILD, "pushrod-server")):
        return
    for part in ("client", "server", "worker"):
        with run.guard("instructions", systems.Native()):
            once, twice = (instructions_of(part, n) for n in (5000, 15000))
            run.add("instructions", systems.Native(), process=part, instructions=round((twice - once) / 10000))


def instructions_of(part, count):
    system = systems.Native()
    grind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=callgrind.out.%p", "--trace-children=no"]
    if part == "server":
        plain = system.server_command
        system.server_command = lambda: grind + plain()
    try:
        system.start()
        if part == "worker": # one process of the worker library, without a supervisor
            system.workers = [procs.start(grind + [
                os.path.join(BENCH, "native"), "worker", "--address=127.0.0.1:%d" % (system.port + 1),
                "--workers=4"], system.directory, "grind.log")]
        else:
            system.start_workers(4)
        command = system.client_command(count=count, window=1000)
        done = subprocess.run(grind + command if part == "client" else command, cwd=system.directory,
                              capture_output=True, text=True, timeout=300)
        if done.returncode != 0:
            raise Failed(done.stderr[-300:])
        if part == "client":
            return collected(done.stderr)
        process = system.server if part == "server" else system.workers[0]
        process.send_signal(15)
        process.wait(60)
        return collected(procs.read(process.log_path))
    finally:
        system.stop()


def collected(text):
    found = re.findall(r"Collected : (\d+)", text)
    if not found:
        raise Failed("callgrind said nothing: " + text[-200:])
    return max(map(int, found))


def memory(run):
    """Server memory for each queued, delayed, running and finished task, beside its payload."""
    count = run.scale(100000, 1000000)
    for name in ["pushrod", "pushrod-sync", "gearmand", "beanstalkd", "redis-list", "nats"]:
        for system in systems.available(run.choose([name]), run.say):
            with run.guard("memory", system):
                memory_queued(run, system, "queued", count)
            if name in ("pushrod", "pushrod-sync", "beanstalkd"):
                with run.guard("memory", system):
                    memory_queued(run, system, "delayed", count, delay_ms=3600000)
            if name.startswith("pushrod"):
                with run.guard("memory", system):
                    memory_finished(run, system, count)
    if not run.only or "pushrod" in run.only:
        with run.guard("memory", systems.Native()):
            memory_running(run)


def memory_queued(run, system, state, count, **options):
    system.start()
    try:
        system.client(mode="submit", count=1000, **options)  # buffers and pools are there
        before = procs.rss_kib(system.server_pids())
        system.client(mode="submit", count=count, limit=600, **options)
        after = procs.rss_kib(system.server_pids())
        run.add("memory", system, state=state, tasks=count, bytes_per_task=round((after - before) * 1024 / count - 64, 1))
    finally:
        system.stop()


def memory_finished(run, system, count):
    system.start()
    try:
        system.start_workers(4)
        system.client(count=20000)
        before = procs.rss_kib(system.server_pids())
        system.client(count=count, keep_ms=3600000, limit=600)
        after = procs.rss_kib(system.server_pids())
        run.add("memory", system, state="finished, kept", tasks=count,
                bytes_per_task=round((after - before) * 1024 / count - 8, 1))
    finally:
        system.stop()


def memory_running(run):
    """2,000 slots in 4 processes, all busy for 2 s."""
    system = systems.Native()
    system.start()
    try:
        system.start_workers(4, slots=500)
        before = procs.rss_kib(system.server_pids())
        client = procs.start(system.client_command(count=2000, window=2000, short_us=4000000),
                             system.directory, "client.log")
        time.sleep(2)
        after = procs.rss_kib(system.server_pids())
        client.wait(60)
        run.add("memory", system, state="running", tasks=2000,
                bytes_per_task=round((after - before) * 1024 / 2000 - 64, 1))
    finally:
        system.stop()


def idle(run):
    """What it costs to have nothing to do: memory, wake-ups, CPU; of the server, of its workers, of all."""
    seconds = run.scale(5, 12)
    if not run.only or "pushrod" in run.only:
        for system in systems.available(["pushrod"], run.say):
            for many in ((1000, 10000), (1000, 0), (0, 10000)):
                with run.guard("idle", system):
                    # An idle worker is asked every 20 s whether it is there.
                    idle_many(run, system, run.scale(20, 40) if many[0] else seconds, *many)
    names = ["pushrod", "pushrod-sync", "gearmand", "beanstalkd", "redis-list", "nats", "rabbitmq"]
    for system in systems.available(run.choose(names), run.say):
        for count in (0, 4):
            for s in systems.started([systems.BY_NAME[system.name]()], count, run.say):
                with run.guard("idle", s):
                    idle_of(run, s, "%d workers" % count, seconds)
                s.stop()


def idle_of(run, system, load, seconds, clients=(), settle=2):
    """Server, workers and clients apart, and their sum."""
    groups = {"server": system.server_pids(), "workers": system.worker_pids(), "clients": list(clients)}
    time.sleep(settle)
    cpu = {name: procs.cpu_seconds(pids) for name, pids in groups.items()}
    wakes = {name: procs.wakeups(pids) for name, pids in groups.items()}
    time.sleep(seconds)
    figures = {"rss_kib": procs.rss_kib(groups["server"])}
    for name, pids in groups.items():
        figures["cpu_percent" if name == "server" else name + "_cpu_percent"] = round(
            (procs.cpu_seconds(pids) - cpu[name]) / seconds * 100, 3)
        figures["wakeups_per_s" if name == "server" else name + "_wakeups_per_s"] = round(
            (procs.wakeups(pids) - wakes[name]) / seconds, 1)
    figures["sum_cpu_percent"] = round(sum(figures[n] for n in (
        "cpu_percent", "workers_cpu_percent", "clients_cpu_percent")), 3)
    run.add("idle", system, load=load, **figures)


def idle_many(run, system, seconds, workers_wanted, clients):
    """Workers are processes of one slot; connections have been greeted, and do nothing."""
    system.start()
    client = None
    try:
        if workers_wanted:
            workers_of(system, workers_wanted)
            await_joined(system, workers_wanted)
        if clients:
            client, _ = fill(system, 1, idle=clients, no_result=1)
        idle_of(run, system, "{:,} workers, {:,} connections".format(workers_wanted, clients), seconds,
                [client.pid] if client else [], settle=12)
    finally:
        if client:
            procs.stop(client)
        system.stop()


def await_joined(system, count, limit=120):
    """Until the server counts that many workers."""
    end = time.monotonic() + limit
    while True:
        text = procs.fetch("http://127.0.0.1:%d/metrics" % (system.port + 3))
        joined = re.search(r"^pushrod_workers (\d+)", text, re.M)
        if joined and int(joined.group(1)) >= count:
            return
        if time.monotonic() > end:
            raise Failed("%s of %d workers joined in %d s" % (joined.group(1) if joined else "?", count, limit))
        time.sleep(0.2)


PARTS = {"throughput": throughput, "durable": durable, "submit": submit, "latency": latency, "payload": payload, "mixed": mixed,
         "workers": workers, "queues": queues, "connections": connections, "backlog": backlog, "hol": hol, "cost": cost, "idle": idle}
# What share of the whole each may take, in parts of some hundred; full, each needs less than that.
SHARES = {"throughput": 7, "durable": 5, "submit": 11, "latency": 10, "payload": 8, "mixed": 10, "workers": 11, "queues": 8, "connections": 11,
          "backlog": 11, "hol": 12, "cost": 13, "idle": 22}
