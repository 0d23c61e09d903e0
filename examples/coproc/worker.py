#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# pushrod-worker --coproc upper='examples/coproc/worker.py'
# What goes in and out: PROCESSES THAT STAY in pushrod-worker(8). Standard output is the protocol's:
# print() with file=sys.stderr goes to the worker's log.
import json
import sys

inp, out = sys.stdin.buffer, sys.stdout.buffer


def say(message, data=b""):
    message["size"] = len(data)
    out.write(json.dumps(message).encode() + b"\n" + data)
    out.flush()


for line in iter(inp.readline, b""):
    task = json.loads(line)
    payload = inp.read(task["size"])
    try:
        say({"type": "progress", "done": 1, "total": 2, "text": "half way"})
        say({"type": "done"}, payload.upper())
    except Exception as error:  # the attempt fails; the next one may do better
        say({"type": "retry", "after": 1}, repr(error).encode())
