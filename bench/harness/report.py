# SPDX-License-Identifier: Apache-2.0
"""Results: rows of JSON, tables for the terminal, docs/benchmarks.md and its plots. Ratios first."""
import collections
import datetime
import os
import platform
import re
import statistics
import subprocess

from .procs import ROOT, read

BASE = "pushrod"  # ratios are to this system, of the same round
PROMISE = {"fsync": "on disk", "late": "on disk later", "": "memory"}


def number(value):
    if value is None:
        return ""
    if abs(value) >= 1000:
        return "{:,.0f}".format(value)
    return "%.3g" % value if abs(value) < 100 else "%.0f" % value


def spread(values, unit=""):
    """median (min-max)"""
    if not values:
        return ""
    if len(values) == 1:
        return number(values[0]) + unit
    return "%s%s (%s-%s)" % (number(statistics.median(values)), unit, number(min(values)), number(max(values)))


class Table:
    def __init__(self, title, head, note=""):
        self.title, self.head, self.note, self.rows = title, head, note, []

    def add(self, *cells):
        self.rows.append([cell if isinstance(cell, str) else number(cell) for cell in cells])

    def markdown(self):
        lines = ["### " + self.title, ""] + ([self.note, ""] if self.note else [])
        lines += ["| " + " | ".join(self.head) + " |", "|" + " --- |" + " ---: |" * (len(self.head) - 1)]
        return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in self.rows]) + "\n"

    def text(self):
        widths = [max(len(row[i]) for row in [self.head, *self.rows]) for i in range(len(self.head))]
        line = lambda row: "  ".join(c.ljust(w) if i == 0 else c.rjust(w)
                                     for i, (c, w) in enumerate(zip(row, widths))).rstrip()
        return "\n".join(["", self.title, line(self.head), line(["-" * w for w in widths]),
                          *map(line, self.rows)])


def by_system(rows):
    grouped = collections.OrderedDict()
    for row in rows:
        grouped.setdefault(row["system"], []).append(row)
    return grouped


def medians(rows, key, value):
    """step: the median of its rounds"""
    return {step: statistics.median(value(r) for r in rows if r[key] == step) for step in {r[key] for r in rows}}


def ratios(rows, base_rows, value, upside_down=False):
    """For each round both have: value / value of the base."""
    base = {row.get("round", 0): value(row) for row in base_rows}
    found = []
    for row in rows:
        other = base.get(row.get("round", 0))
        if other and value(row):
            found.append(other / value(row) if upside_down else value(row) / other)
    return found


def promise(row):
    from .systems import BY_NAME
    system = BY_NAME.get(row["system"])
    return PROMISE[system.durable] if system else ""


def cpu(rows, group):
    values = [row["cpu_us"][group] for row in rows if group in row.get("cpu_us", {})]
    return statistics.median(values) if values else None


def rate_table(rows, title, base, note):
    table = Table(title, ["system", "of " + base, "tasks/s: median (min-max)", "accepted is", "CPU us/task: client",
                          "server", "workers"], note)
    grouped = by_system(rows)
    order = sorted(grouped, key=lambda name: -statistics.median(r["rate"] for r in grouped[name]))
    for name in order:
        mine = grouped[name]
        table.add(mine[0]["title"], spread(ratios(mine, grouped.get(base, []), lambda r: r["rate"]), " x"),
                  spread([r["rate"] for r in mine]), promise(mine[0]),
                  *(cpu(mine, g) for g in ("client", "server", "worker")))
    return table


def latency_table(rows):
    table = Table("Round trip of one task, idle", ["system", "of the echo", "p50 us", "p99 us", "max us"],
                  "One task at a time, 64 bytes, the next when the last is back.")
    grouped = by_system(rows)
    p50 = lambda r: r["latency_us"]["p50"]
    for name in sorted(grouped, key=lambda n: statistics.median(map(p50, grouped[n]))):
        mine = grouped[name]
        table.add(mine[0]["title"], spread(ratios(mine, grouped.get("echo", []), p50), " x"),
                  spread([p50(r) for r in mine]), spread([r["latency_us"]["p99"] for r in mine]),
                  max(r["latency_us"]["max"] for r in mine))
    return table


def open_table(rows):
    table = Table("Latency at 1, 10, 50 and 90 % of each one's own maximum",
                  ["system", "load", "tasks/s", "p50 us", "p99 us", "p99.9 us", "max us"],
                  "Open loop: Poisson arrivals, latency from the intended start.")
    for row in rows:
        lat = row["latency_us"]
        table.add(row["title"], "%d %%" % row["percent"], row["rate"], lat["p50"], lat["p99"], lat["p999"], lat["max"])
    return table


def pivot_table(rows, title, key, note="", value=lambda r: r["rate"], ratio=True):
    """A column for each step; in a cell the ratio to Pushrod's of the same step, and the figure: the median of its rounds."""
    keys = sorted({row[key] for row in rows})
    note = " ".join(filter(None, [note, "Of Pushrod's at the same step, and the figure." if ratio else ""]))
    table = Table(title, ["system", *("{:,}".format(k) for k in keys)], note)
    base = medians([row for row in rows if row["system"] == BASE], key, value)
    for name, mine in by_system(rows).items():
        at = medians(mine, key, value)
        table.add(mine[0]["title"], *(
            "" if k not in at else number(at[k]) if not ratio or not base.get(k) else
            "%s x (%s)" % (number(at[k] / base[k]), number(at[k])) for k in keys))
    return table


def connection_cost_table(rows):
    """Why the rate falls with the connections: what each side pays for a task."""
    table = Table("Connections that submit: what one task costs Pushrod", [
        "tasks in a row", "connections", "CPU us: client", "server", "workers", "system calls: client", "server", "workers"],
        "The client side is the load program with the client library, one socket for each connection.")
    for r in rows:
        if r["system"] == BASE:
            calls = r.get("syscalls", {})
            table.add("16" if r["part"].endswith("-16") else "1", "{:,}".format(r["connections"]),
                      *(r["cpu_us"].get(g) for g in ("client", "server", "worker")),
                      *(calls.get(g) for g in ("client", "server", "worker")))
    return table


def hol_table(rows):
    table = Table("Head-of-line blocking: the wait of short tasks", ["system", "p99 of the ideal's", "p50 ms", "p90 ms", "p99 ms", "max ms"],
                  "4 workers, 1 % tasks of 1 s among tasks of 1 ms, 70 % load, open loop: the time from the intended "
                  "start to the result, less the 1 ms of work (Celery: until a worker began it). All get the same tasks at "
                  "the same moments; the computed rows, too.")
    ideal = next((row["latency_us"]["p99"] for row in rows if row["system"] == "ideal"), 0)
    for row in sorted(rows, key=lambda r: r["latency_us"]["p99"]):
        table.add(row["title"], number(row["latency_us"]["p99"] / ideal) + " x" if ideal else "",
                  *(row["latency_us"][q] / 1000 for q in ("p50", "p90", "p99", "max")))
    return table


def turnaround_table(rows):
    table = Table("A slot between two tasks of 1 ms", ["system", "us lost between two: median (min-max)",
                  "tasks/s: median (min-max)"],
                  "4 workers, 100 tasks in flight: the time of a slot for each task, beside the task's own; in every "
                  "figure is what a sleep of 1 ms takes too long. Behind long tasks it adds up: see the computed rows above.")
    lost = lambda r: r["workers"] * 1e6 / r["rate"] - r["work_us"]
    grouped = by_system(rows)
    for name in sorted(grouped, key=lambda n: statistics.median(map(lost, grouped[n]))):
        mine = grouped[name]
        table.add(mine[0]["title"], spread([lost(r) for r in mine]), spread([r["rate"] for r in mine]))
    return table


def cost_table(rows):
    table = Table("What one task costs", ["system", "load", "CPU us: client", "server", "workers", "system calls: client",
                                          "server", "workers", "allocations: client", "server", "bytes on the wire"],
                  "Pipelined (busy) and one at a time (idle). System calls are counted by the kernel, allocations in a "
                  "preloaded malloc(), bytes with TCP/IP headers on the loopback device.")
    for r in rows:
        table.add(r["title"], r["load"], *(r["cpu_us"].get(g) for g in ("client", "server", "worker")),
                  *(r["syscalls"].get(g) for g in ("client", "server", "worker")),
                  *(r["allocations"].get(g) for g in ("client", "server")), r["wire_bytes"])
    return table


def plain_table(rows, title, columns, note=""):
    table = Table(title, ["system", *columns.values()], note)
    for r in rows:
        table.add(r["title"], *(r.get(c) if isinstance(r.get(c), str) else number(r.get(c)) for c in columns))
    return table


def mixed_table(rows):
    table = Table("Small tasks beside large ones", ["system", "large ones", "in which server", "small ones: p50 us",
                                                    "p99 us", "large ones: MB/s"],
                  "2,000 tasks of 64 bytes a second, open loop, from one client, 4 workers. Another client has four of "
                  "1 MiB on their way all the time (as many as go), which leaves no core idle, or a fifth of that "
                  "rate, open loop. In another server they have workers of their own, too: the delay that is left then is the machine's.")
    for own in by_system(rows).values():
        for case in dict.fromkeys((r["large"], r["place"]) for r in own):
            found = [r for r in own if (r["large"], r["place"]) == case]
            table.add(found[0]["title"], *case, *(spread([r[q] for r in found]) for q in ("p50_us", "p99_us")),
                      spread([r["large_per_s"] * (1 << 20) / 1e6 for r in found if r["large_per_s"]]))
    return table


def tables(rows):
    """(part, table) for all that was measured."""
    part = collections.defaultdict(list)
    for row in rows:
        part[row["part"]].append(row)
    made = []

    def make(name, builder, *args, **kwargs):
        if part[name]:
            made.append((name, builder(part[name], *args, **kwargs)))

    make("throughput", rate_table, "No-op tasks, results back at the submitter, 4 workers", BASE,
         "64-byte payloads, each system pipelined with its best client; rounds of all systems in turn.")
    make("durable", rate_table, "The same, with a store", "pushrod-sync",
         "What each promises when it has accepted a task stands in the table: compare like with like.")
    make("submit", rate_table, "Submitting only", BASE, "Until the system has said that it has the task.")
    make("idle-round-trip", latency_table)
    make("latency", open_table)
    make("payload", pivot_table, "Payload, bytes: MB/s", "size", "Payload bytes moved to the workers.",
         lambda r: r["rate"] * r["size"] / 1e6)
    make("mixed", mixed_table)
    make("workers", pivot_table, "Workers: tasks/s", "workers", "Processes of one slot each, on the same cores.")
    make("queues", pivot_table, "Queues: tasks/s", "queues", "Tasks go to so many queues in turn; each of the 4 workers serves all.")
    make("connections", pivot_table, "Connections that submit, one task at a time from each: tasks/s", "connections",
         "So many connections, used in turn, that none can gather tasks.")
    make("connections-16", pivot_table, "Connections that submit, 16 tasks at a time from each: tasks/s", "connections")
    if part["connections"] + part["connections-16"]:
        made.append(("connections", connection_cost_table(part["connections"] + part["connections-16"])))
    make("connections-idle", pivot_table, "Connections that only are there: tasks/s of one", "connections", "", ratio=False)
    make("backlog", pivot_table, "Backlog, tasks waiting: tasks/s in", "tasks", "", lambda r: r["rate_in"])
    make("backlog", pivot_table, "Backlog, tasks waiting: tasks/s out", "tasks", "")
    make("backlog", pivot_table, "Backlog, tasks waiting: server bytes for each, beside the payload", "tasks", "",
         lambda r: r["bytes_per_task"], ratio=False)
    make("backlog", pivot_table, "Backlog: CPU us of the server for each task, in and out", "tasks", "",
         lambda r: sum(r["cpu_us"].values()))
    make("hol", hol_table)
    make("turnaround", turnaround_table)
    make("cost", cost_table)
    make("instructions", plain_table, "Instructions for each task (callgrind)", {"process": "process", "instructions":
         "instructions"}, "User space only; pipelined, results back.")
    make("memory", plain_table, "Server memory for each task", {"state": "state", "tasks": "tasks",
         "bytes_per_task": "bytes beside its payload"}, "Growth of the resident size; kept results: beside the result.")
    make("idle", plain_table, "Doing nothing", {"load": "with", "rss_kib": "server RSS KiB", "wakeups_per_s":
         "server wake-ups/s", "cpu_percent": "server alone, CPU %", "workers_cpu_percent": "all workers, CPU %",
         "clients_cpu_percent": "all clients, CPU %", "sum_cpu_percent": "the sum, CPU %",
         "workers_wakeups_per_s": "all workers, wake-ups/s"}, "In % of one core. The server alone is one process; workers "
         "are processes of their own; the connections' other ends are one process.")
    return made


# ---- plots ----

def cpu_of(group):
    return lambda r: r["cpu_us"].get(group)


COST = "cost-"  # a plot of what a task costs: bench/explained.md says why where it bends upward

PLOTS = {  # part: (key, x label, value, y label)
    "latency": ("percent", "load, % of its own maximum", lambda r: r["latency_us"]["p99"], "p99 latency, us"),
    "payload": ("size", "payload, bytes", lambda r: r["rate"] * r["size"] / 1e6, "MB/s"),
    "workers": ("workers", "workers", lambda r: r["rate"], "tasks/s"),
    "connections": ("connections", "connections that submit", lambda r: r["rate"], "tasks/s"),
    "backlog": ("tasks", "tasks waiting", lambda r: r["rate"], "tasks/s out"),
    "backlog-memory": ("tasks", "tasks waiting", lambda r: r["rss_kib"] / 1024, "server RSS, MiB"),
    "queues": ("queues", "queues", lambda r: r["rate"], "tasks/s"),
    "cost-queues": ("queues", "queues", cpu_of("server"), "server CPU us/task"),
    "cost-workers": ("workers", "workers", cpu_of("server"), "server CPU us/task"),
    "cost-workers-workers": ("workers", "workers", cpu_of("worker"), "workers CPU us/task"),
    "cost-connections": ("connections", "connections that submit, one task each", cpu_of("server"), "server CPU us/task"),
    "cost-connections-client": ("connections", "connections that submit, one task each", cpu_of("client"),
                                "client CPU us/task"),
    "cost-connections-16": ("connections", "connections that submit, 16 tasks each", cpu_of("server"),
                            "server CPU us/task"),
    "cost-connections-calls": ("connections", "connections that submit, one task each",
                               lambda r: r.get("syscalls", {}).get("server"), "server system calls/task"),
    "cost-connections-idle": ("connections", "connections that only are there", cpu_of("server"), "server CPU us/task"),
    "cost-backlog-in": ("tasks", "tasks waiting", cpu_of("in"), "server CPU us/task in"),
    "cost-backlog-out": ("tasks", "tasks waiting", cpu_of("out"), "server CPU us/task out"),
    "cost-backlog-memory": ("tasks", "tasks waiting", lambda r: max(1, r["bytes_per_task"]), "server bytes/task"),
}
NAMES = ("connections-16", "connections-idle")  # parts with a "-" of their own


def part_of(plot_name):
    """The part whose rows a plot shows."""
    name = plot_name[len(COST):] if plot_name.startswith(COST) else plot_name
    return name if name in NAMES else name.split("-")[0]


def bends(rows, name):
    """Of Pushrod's lines in a plot of costs: those that end more than a quarter above where they were lowest."""
    key, _, value, _ = PLOTS[name]
    found = []
    for system, mine in by_system([r for r in rows if r["part"] == part_of(name)]).items():
        points = [value(r) for r in sorted(mine, key=lambda r: r[key]) if value(r)]
        if system.startswith(BASE) and len(points) > 1 and points[-1] > 1.25 * min(points):
            found.append("%s: %.3g to %.3g, %.2g x" % (mine[0]["title"], min(points), points[-1], points[-1] / min(points)))
    return found


def explained():
    """The sections of bench/explained.md, by the name of their plot."""
    found = re.split(r"^## (\S+)\n", read(os.path.join(ROOT, "bench", "explained.md")), flags=re.M)[1:]
    return dict(zip(found[::2], (text.strip() for text in found[1::2])))


def plot_lines(rows, name):
    """The plot, what bends upward in it, and why."""
    lines = ["![%s](plots/%s.svg)" % (name, name), ""]
    bent = bends(rows, name) if name.startswith(COST) else []
    why = explained().get(name)
    if bent:
        lines += ["Rises (%s): %s" % ("; ".join(bent), why or "**not explained yet: add `## %s` to bench/explained.md.**" % name), ""]
    elif why and not name.startswith(COST):
        lines += [why, ""]
    return lines


def plot(rows, directory):
    """Writes the SVG files; gives the names of those that could be made."""
    names = []
    for name, (key, x, value, y) in PLOTS.items():
        mine = [r for r in rows if r["part"] == part_of(name) and value(r) is not None]
        if mine:
            lines = {rs[0]["title"]: sorted(medians(rs, key, value).items()) for rs in by_system(mine).values()}
            if gnuplot(os.path.join(directory, name + ".svg"), x, y, lines):
                names.append(name)
    return names


def gnuplot(path, x, y, lines):
    script = ["set terminal svg size 800,480 font 'sans,12' background 'white'", "set output '%s'" % path,
              "set logscale xy", "set format x '%.0s%c'", "set format y '%.0s%c'", "set grid", "set key outside right",
              "set xlabel '%s'" % x, "set ylabel '%s'" % y,
              "plot " + ", ".join("'-' using 1:2 with linespoints lw 2 title \"%s\"" % title for title in lines)]
    for points in lines.values():
        script += ["%g %g" % (a, max(b, 1e-9)) for a, b in points] + ["e"]
    try:
        return subprocess.run(["gnuplot"], input="\n".join(script) + "\n", text=True, capture_output=True,
                              check=False, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


# ---- the machine ----

VERSIONS = {"gearmand": "gearman-job-server", "libgearman": "libgearman8", "librabbitmq": "librabbitmq4",
            "hiredis": "libhiredis0.14", "beanstalkd": "beanstalkd", "Redis": "redis-server", "NATS": "nats-server",
            "RabbitMQ": "rabbitmq-server", "Celery": "python3-celery", "RQ": "python3-rq", "libzmq": "libzmq5",
            "LMDB": "liblmdb0"}


def machine():
    """What the figures depend on."""
    cpu_names = set(re.findall(r"model name\s*: (.*)", read("/proc/cpuinfo")))
    memory = re.search(r"MemTotal:\s*(\d+)", read("/proc/meminfo"))
    commit = said(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"])
    return {"date": datetime.date.today().isoformat(), "cpu": ", ".join(sorted(cpu_names)) or platform.machine(),
            "cores": len(os.sched_getaffinity(0)), "memory_mib": int(memory.group(1)) // 1024 if memory else 0,
            "kernel": platform.release(), "compiler": said(["gcc", "--version"]).splitlines()[0] if said(["gcc", "--version"]) else "",
            "commit": commit, "load_before": os.getloadavg()[0],
            "versions": {name: v for name, p in VERSIONS.items()
                         if (v := said(["dpkg-query", "-W", "-f", "${Version}", p]))}}


def said(command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def document(facts, rows, left_out, plots):
    versions = ", ".join("%s %s" % item for item in facts["versions"].items())
    lines = ["# Benchmarks", "",
             "Written by `make bench` (%s); do not edit. What it does and how to read it stands at the end." % facts["how"], "",
             "| | |", "| --- | --- |",
             "| date, commit | %s, %s |" % (facts["date"], facts["commit"]),
             "| machine | %d cores of %s, %d MiB; Linux %s |" % (facts["cores"], facts["cpu"], facts["memory_mib"], facts["kernel"]),
             "| compiler | %s |" % facts["compiler"],
             "| versions | %s |" % versions,
             "| load of the machine before and after | %.2f, %.2f |" % (facts["load_before"], facts["load_after"]), ""]
    if facts["load_before"] > 0.5:
        lines += ["**The load average was %.2f when this run began: if others were at work on the machine, the absolute figures "
                  "are too low. Ratios of the same round suffer less.**" % facts["load_before"], ""]
    shown = set()
    for part, table in tables(rows):
        lines.append(table.markdown())
        for name in plots:
            if part_of(name) == part and name not in shown:
                shown.add(name)
                lines += plot_lines(rows, name)
    if left_out:
        lines += ["## Left out", ""] + ["- " + text for text in left_out] + [""]
    with open(os.path.join(ROOT, "bench", "method.md")) as f:
        lines.append(f.read())
    return "\n".join(lines)
