# SPDX-License-Identifier: Apache-2.0
"""The load of bench/load.c for Celery and RQ, whose clients are Python.

python_load.py client|worker --system=celery|rq --address=HOST:PORT [--OPTION=VALUE]...
A task gives back its number and the monotonic time at which a worker began it, so the wait of a task is
known without asking for its result in time."""
import ctypes
import json
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness.arrivals import arrivals  # noqa: E402

options = dict(word[2:].split("=", 1) for word in sys.argv[2:])
SYSTEM, ADDRESS = options["system"], options["address"]
HOST, PORT = ADDRESS.rsplit(":", 1)


def option(name, default):
    return type(default)(options.get(name, default))


def run_task(number, work_us, _payload):
    began = time.monotonic()
    if work_us:
        time.sleep(work_us / 1e6)
    return [number, began]


if SYSTEM == "celery":
    import celery
    app = celery.Celery("bench", broker="redis://%s/0" % ADDRESS, backend="redis://%s/1" % ADDRESS)
    app.conf.update(worker_prefetch_multiplier=4, task_serializer="json", result_expires=60,
                    worker_hijack_root_logger=False, broker_connection_retry_on_startup=True)
    celery_task = app.task(name="bench.run")(run_task)
else:
    import redis
    import rq
    connection = redis.Redis(HOST, int(PORT))
    queue = rq.Queue("bench", connection=connection)


def work():
    ctypes.CDLL(None).prctl(29, 1)  # PR_SET_TIMERSLACK: sleeps as exact as in bench/load.c
    if SYSTEM == "celery":
        app.worker_main(["worker", "-c", str(option("workers", 4)), "-P", "prefork", "-l", "ERROR",
                         "--without-gossip", "--without-mingle", "--without-heartbeat"])
    else:
        rq.SimpleWorker([queue], connection=connection).work(logging_level="ERROR")


def submit(number, work_us):
    payload = "x" * max(0, option("size", 64) - 16)
    if SYSTEM == "celery":
        return celery_task.apply_async((number, work_us, payload))
    # The module's name, for the worker imports it: python_load.run_task.
    return queue.enqueue("python_load.run_task", number, work_us, payload, result_ttl=60)


def result(handle):
    if SYSTEM == "celery":
        return handle.get(timeout=60)
    while True:
        value = handle.result
        if value is not None:
            return value
        time.sleep(0.001)


class Usage:
    """CPU time by group, as bench/usage.c."""

    def __init__(self):
        self.groups = {"client": [os.getpid()]}
        for group in filter(None, option("pids", "").split(",")):
            name, pids = group.split(":")
            self.groups[name] = [int(p) for p in pids.split("+")]
        self.before = self.now()

    def now(self):
        return {name: sum(self.cpu_ns(p) for p in pids) for name, pids in self.groups.items()}

    @staticmethod
    def cpu_ns(pid):
        total = 0
        try:
            for task in os.listdir("/proc/%d/task" % pid):
                with open("/proc/%d/task/%s/schedstat" % (pid, task)) as f:
                    total += int(f.read().split()[0])
        except OSError:
            pass
        return total

    def each(self, tasks):
        after = self.now()
        return {name: round((after[name] - self.before[name]) / 1e3 / max(1, tasks), 3) for name in after}


def report(tasks, seconds, waits, usage, **more):
    waits.sort()
    at = lambda q: round(waits[min(len(waits) - 1, int(q * len(waits)))] * 1e6, 1) if waits else 0
    print(json.dumps({"tasks": tasks, "seconds": seconds, "rate": tasks / seconds, "latency_us": {
        "count": len(waits), "mean": sum(waits) / max(1, len(waits)) * 1e6, "p50": at(0.5), "p90": at(0.9),
        "p99": at(0.99), "p999": at(0.999), "max": at(1)}, "cpu_us": usage.each(tasks), "rss_kib": {},
        "duplicates": 0, **more}))


def closed(count, window, seconds):
    """`window` in flight; results are taken in order, as a client of these systems would."""
    begin, usage, waits, flying, done, sent = time.monotonic(), Usage(), [], [], 0, 0
    while done < count if count else time.monotonic() < begin + seconds:
        while len(flying) < window and (not count or sent < count):
            flying.append((time.monotonic(), submit(sent, option("short-us", 0))))
            sent += 1
        started, handle = flying.pop(0)
        result(handle)
        waits.append(time.monotonic() - started)
        done += 1
    report(done, time.monotonic() - begin, waits, usage)
    for _, handle in flying:
        result(handle)


def submit_only(count, seconds):
    begin, usage, sent = time.monotonic(), Usage(), 0
    while sent < count if count else time.monotonic() < begin + seconds:
        submit(sent, 0)
        sent += 1
    report(sent, time.monotonic() - begin, [], usage)


def open_loop(seconds, warmup, rate):
    """Poisson arrivals; the figure is the wait until a worker begins, of the short tasks."""
    share, long_us, short_us = option("long-share", 0.0), option("long-us", 0), option("short-us", 0)
    usage, flying, begin = Usage(), [], time.monotonic() + 0.01
    for at, is_long in arrivals(option("seed", 1), rate, warmup + seconds, share):
        pause = begin + at - time.monotonic()
        if pause > 0:
            time.sleep(pause)
        flying.append((at, is_long, submit(len(flying), long_us if is_long else short_us)))
    waits = []
    for at, is_long, handle in flying:
        began = result(handle)[1]
        if not is_long and at > warmup:
            waits.append(max(0.0, began - begin - at))
    report(len(flying), time.monotonic() - begin, waits, usage, sent=len(flying),
           sent_long=sum(is_long for _, is_long, _ in flying))


def main():
    if sys.argv[1] == "worker":
        return work()
    mode, count, seconds = option("mode", "run"), option("count", 0), option("seconds", 1.0)
    if mode == "open":
        return open_loop(seconds, option("warmup", 0.2), option("rate", 10.0))
    if mode == "submit":
        return submit_only(count, seconds)
    return closed(count, option("window", 100), seconds)


if __name__ == "__main__":
    main()
