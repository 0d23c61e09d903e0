# SPDX-License-Identifier: Apache-2.0
"""The part on head-of-line blocking: who waits behind long tasks, and what a slot loses between two short ones."""
from . import systems
from .arrivals import arrivals, summary, wait_in_one_queue, wait_in_turn

# First those that the question is about.
NAMES = ["pushrod", "gearmand", "beanstalkd", "celery", "echo", "pushrod-embedded"]
WORKERS = 4
LONG_SHARE, LONG_US, SHORT_US = 0.01, 1000000, 1000
MEAN_SECONDS = (LONG_SHARE * LONG_US + (1 - LONG_SHARE) * SHORT_US) / 1e6
LOAD = {"rate": 0.7 * WORKERS / MEAN_SECONDS, "warmup": 0.5, "long_share": LONG_SHARE, "seed": 7}


def hol(run):
    """Head-of-line: 4 workers, 1 % tasks of 1 s among tasks of 1 ms, at 70 % load."""
    tasks = list(arrivals(LOAD["seed"], LOAD["rate"], LOAD["warmup"] + run.hol_seconds, LONG_SHARE))
    for name, title, waits, lost_us in (
            ("ideal", "one queue, handing over costs nothing (computed)", wait_in_one_queue, 0),
            ("ideal-100", "one queue, a slot loses 0.1 ms with each task (computed)", wait_in_one_queue, 100),
            ("ideal-300", "one queue, a slot loses 0.3 ms with each task (computed)", wait_in_one_queue, 300),
            ("ideal-turn", "in turn, handing over costs nothing (computed)", wait_in_turn, 0)):
        run.add_row({"part": "hol", "system": name, "title": title, "latency_us": of_short_ones(tasks, waits, lost_us)})
    for system in systems.available(run.choose(NAMES), run.say):
        for s in systems.started([system], WORKERS, run.say):
            measure(run, s, tasks)
            s.stop()
    turnaround(run)


def of_short_ones(tasks, wait, lost_us):
    """A computed row, of the tasks that a run measures."""
    waits = wait(tasks, WORKERS, lambda is_long: ((LONG_US if is_long else SHORT_US) + lost_us) / 1e6)
    return summary([w for w, (at, is_long) in zip(waits, tasks) if at > LOAD["warmup"] and not is_long])


def measure(run, system, tasks):
    """All get the same tasks at the same moments; one that did not is no row of the table."""
    options = {"mode": "open", "seconds": run.hol_seconds, "long_us": LONG_US, "short_us": SHORT_US, **LOAD}
    with run.guard("hol", system):
        figures = system.client(limit=60 + 4 * run.hol_seconds, **options)
        expected = {"sent": len(tasks), "sent_long": sum(is_long for _, is_long in tasks)}
        got = {name: figures.pop(name) for name in expected}
        if got != expected:
            raise systems.Failed("it was sent %s, and not %s" % (got, expected))
        run.add("hol", system, **figures)


def turnaround(run):
    """Tasks of 1 ms, always some waiting: what a slot does with its time beside them. In turns."""
    names = [n for n in NAMES if n != "celery"]  # cannot fill 4 slots with such tasks
    up = systems.started(systems.available(run.choose(names), run.say), WORKERS, run.say)
    for number in range(run.rounds):
        for system in up:
            run.measure("turnaround", system, round=number, workers=WORKERS, work_us=SHORT_US,
                        options={"seconds": min(1.5, run.seconds), "short_us": SHORT_US, "window": 100})
    for system in up:
        system.stop()
