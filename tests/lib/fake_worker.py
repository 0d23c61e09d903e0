# SPDX-License-Identifier: Apache-2.0
"""A worker as the protocol asks for, up to READY; what it says then is up to the test."""
import contextlib
import io
import os
import sys

import msgpack

import lab as t
from lab import SUBMIT

try:
    import zmq
except ImportError:
    print("there is no python3-zmq here")
    sys.exit(77)

JOIN, WELCOME, LANE_HELLO, TASK, FENCED = 1, 3, 10, 11, 17
FROM, READY, HEARTBEAT = 20, 21, 29
HELD = 81


def pack(*messages):
    return b"".join(msgpack.packb(m) for m in messages)


class FakeWorker:
    """What it was given is in `tasks`, as (id, lease); `fenced` is the code that ended its session."""

    def __init__(self, server, queues=("lies",), instance=None, held=()):
        self.context, self.made = zmq.Context.instance(), []
        self.join = self.connect(zmq.DEALER, server.join_port)
        self.wants = [f"fake-{os.urandom(4).hex()}", "h", 1, 2, 100, list(queues), [[HELD, *h] for h in held], None]
        self.instance = instance or os.urandom(16)
        self.sequence, self.tasks, self.up, self.fenced = 1, [], False, None

    def connect(self, kind, port, **options):
        made = self.context.socket(kind)
        self.made.append(made)
        for name, value in {"linger": 0, **options}.items():
            setattr(made, name, value)
        made.connect(f"tcp://127.0.0.1:{port}")
        return made

    def welcomed(self):
        self.join.send(pack([JOIN, 1, self.instance, os.urandom(16), *self.wants]))
        if not self.join.poll(5000):
            raise t.Failure("a JOIN was not answered")
        number, *fields = msgpack.unpackb(self.join.recv())
        if number != WELCOME:
            return False
        _, self.worker, self.session, _, lane, answers, user, token = fields[:8]
        plain = {"plain_username": user.encode(), "plain_password": token.encode()}
        self.lane = self.connect(zmq.PULL, lane, rcvhwm=0, reconnect_ivl=86400000, **plain)
        self.answers = self.connect(zmq.PUSH, answers, sndhwm=0, **plain)
        return True

    def ready(self):
        t.wait_for("a lane port that has rested", self.welcomed)
        t.wait_for("HELLO", lambda: self.read(10) or self.up)
        self.answers.poll(5000, zmq.POLLOUT)
        self.say([READY, self.session])
        return self

    def read(self, ms=0):
        while self.lane.poll(ms):
            frame = self.lane.recv_multipart()[0]
            for message in msgpack.Unpacker(io.BytesIO(frame)):
                self.up |= message[0] == LANE_HELLO
                if message[0] == FENCED:
                    self.fenced = message[1]
                if message[0] == TASK:
                    self.tasks.append(message[1:3])
            ms = 0

    def say(self, *messages, at=None, raw=b""):
        frame = pack([FROM, self.worker, self.session, self.sequence if at is None else at], *messages) + raw
        with contextlib.suppress(zmq.Again):
            self.answers.send(frame, zmq.DONTWAIT)
        if at is None:
            self.sequence += sum(m[0] != HEARTBEAT for m in messages)

    def task(self, server):
        with t.Connection(server.client_port) as c:
            c.send([SUBMIT, 1, "lies", b"x", 0, False, None])
            c.receive()
        t.wait_for("a task for the liar", lambda: self.read(10) or self.tasks)
        return self.tasks[-1]

    def close(self):
        for made in self.made:
            made.close()
