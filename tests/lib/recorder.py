#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""recorder.py RECORD: a --coproc handler that writes down what it runs.

Each execution appends "S id attempt pid ns" when it begins and "E ..." when it ends, in one write
each, so that the file is whole whoever is killed. The payload says what to do, words of
    ms=N      take N milliseconds        fail      fail the task
    crash     kill the worker process    size=N    give N bytes back, of the payload again and again
    crash=F   the same, but only if there is no file F yet
    until=F   run until the file F is there
    tell=T    before that send T as a chunk, and say that half is done
    once=F    fail the attempt, not for good, but only if there is no file F yet
The result is the payload, unless size is given.
"""
import json
import os
import select
import signal
import sys
import time


def note(record, letter, task, attempt):
    os.write(record, b"%s %d %d %d %d\n" % (letter, task, attempt, os.getpid(), time.monotonic_ns()))


def made(path):
    """Whether it is made now, and was not there before; no name: yes."""
    try:
        return not path or not os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False


def worker_above():
    """The process that runs handlers: the nearest ancestor that is a worker, or a server's own."""
    pid = os.getppid()
    while pid > 1:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            if os.path.basename(f.read().split(b"\0")[0]) in (b"pushrod-worker", b"pushrod-server"):
                return pid
        with open(f"/proc/{pid}/stat", "rb") as f:
            pid = int(f.read().rsplit(b")", 1)[1].split()[1])
    raise ProcessLookupError("no worker above")


def answer(out, kind, data, **more):
    out.write(json.dumps({"type": kind, "size": len(data), **more}).encode() + b"\n" + data)
    out.flush()


def main():
    record = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    source, out = sys.stdin.buffer, sys.stdout.buffer
    while line := source.readline():
        head = json.loads(line)
        task, attempt = int(head["id"]), int(head["attempt"])
        payload = source.read(head["size"])
        words = dict(w.partition("=")[::2] for w in payload.partition(b"\n")[0].decode("ascii", "replace").split())
        note(record, b"S", task, attempt)
        if "crash" in words and made(words["crash"]):
            os.kill(worker_above(), signal.SIGKILL)
            signal.pause()  # until the process group is killed, too
        if "ms" in words:
            select.select([], [], [], int(words["ms"]) / 1000)
        if "tell" in words:
            answer(out, "progress", b"", done=1, total=2, text="half")
            answer(out, "data", words["tell"].encode() + b"\n")
        while "until" in words and not os.path.exists(words["until"]):
            select.select([], [], [], 0.005)
        note(record, b"E", task, attempt)
        if "fail" in words:
            answer(out, "fail", b"as asked")
        elif "once" in words and made(words["once"]):
            answer(out, "retry", b"the first time")
        else:
            size = int(words.get("size", len(payload)))
            answer(out, "done", (payload * (size // max(len(payload), 1) + 1))[:size])


if __name__ == "__main__":
    main()
