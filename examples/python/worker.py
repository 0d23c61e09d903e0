#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A Pushrod worker, written from proto/PROTOCOL.md alone: one slot, serves the queue "upper".

    worker.py [HOST[:PORT]]     the server's join address (PUSHROD_JOIN, or 127.0.0.1:5571)
"""
import concurrent.futures
import io
import os
import signal
import socket
import sys
import time
import msgpack
import zmq

JOIN, WELCOME, LANE_HELLO, TASK, CANCEL, WITHDRAW, ACK, PING, DRAIN, FENCED = 1, 3, *range(10, 18)
FROM, READY, DONE, FAILED, HEARTBEAT, BYE, HELD = 20, 21, 26, 27, 29, 30, 81
TASK_FAILED, SUPERSEDED, KEEP, SEND = 60, 47, 1, 3


def handle(queue, payload):  # the work; what it raises fails the attempt
    return payload.upper()


class Worker:
    def __init__(self, address, queues):
        self.host, _, self.port = address.partition(":")
        self.queues, self.instance, self.context = queues, os.urandom(16), zmq.Context()
        self.pool = concurrent.futures.ThreadPoolExecutor(1)  # heartbeats go on while it works
        self.wake, self.woken = socket.socketpair()
        self.task, self.draining = None, False  # (id, lease, future) of what runs
        self.kept, self.last = [], 0  # what was not acknowledged; the last one's number

    def connect(self, kind, port, **options):
        made = self.context.socket(kind)
        for name, value in {"linger": 0, **options}.items():
            setattr(made, name, value)
        made.connect(f"tcp://{self.host}:{port}")
        return made

    def join(self):
        """Asks until there is a WELCOME: its fields, and the socket that it came through."""
        held, wait = [[HELD, *m[1:3], True, True] for m in self.kept if m[0] in (DONE, FAILED)], 0.05
        held += [[HELD, *self.task[:2], False, True]] if self.task else []
        while held or not self.draining:
            dealer = self.connect(zmq.DEALER, self.port or 5571)
            dealer.send(msgpack.packb([JOIN, 1, self.instance, os.urandom(16), f"python-{os.getpid()}",
                                       socket.gethostname(), os.getpid(), 1, 0, self.queues, held]))
            number, *fields = msgpack.unpackb(dealer.recv()) if dealer.poll(2000) else [0]
            if number == WELCOME:
                return dealer, fields
            if fields and not fields[3]:  # REFUSED for good
                sys.exit(f"worker.py: {fields[2]}")
            dealer.close()
            time.sleep(wait * (0.5 + os.urandom(1)[0] / 512))
            wait = min(2 * wait, 1)
        sys.exit(0)

    def answer(self, *messages):
        self.kept, self.last = self.kept + list(messages), self.last + len(messages)
        self.send(messages)

    def send(self, messages):
        head = [FROM, self.worker, self.session, self.last - len(messages) + 1]
        self.answers.send(b"".join(msgpack.packb(m) for m in [head, *messages]))
        self.spoke = time.monotonic()

    def hear(self, number, *fields, parts):  # CANCEL, WITHDRAW: without prefetch everything runs already
        if number == LANE_HELLO and fields[1] == self.session:
            again, self.kept = self.kept, []
            self.answer([READY, self.session], *again)
        elif number == TASK:
            future = self.pool.submit(handle, fields[2], parts[0] if fields[6] is None else fields[6])
            self.task = (*fields[:2], future)
            future.add_done_callback(lambda _: self.wake.send(b"."))
        elif number in (ACK, PING):
            self.kept = self.kept[len(self.kept) - max(self.last - fields[0], 0):]
        self.draining |= number == DRAIN or (number == FENCED and fields[0] == SUPERSEDED)
        return number != FENCED

    def finish(self, task, lease, future):
        self.task, error = None, future.exception()
        self.answer([FAILED, task, lease, 0, TASK_FAILED, False, 0, str(error)] if error
                    else [DONE, task, lease, 0, future.result()])

    def serve(self):
        """One session, from the JOIN to its end."""
        dealer, (_, self.worker, self.session, host, lane_port, port, user, token, beat, ping, _, verdicts) = self.join()
        self.host, plain = host or self.host, {"plain_username": user.encode(), "plain_password": token.encode()}
        forget = [v[2] for v in verdicts or [] if v[3] not in (KEEP, SEND)]
        self.last = self.spoke = 0
        self.kept = [m for m in self.kept if m[0] in (DONE, FAILED) and m[2] not in forget]
        self.task = None if self.task and self.task[1] in forget else self.task
        lane = self.connect(zmq.PULL, lane_port, rcvhwm=0, reconnect_ivl=-1, **plain)
        self.answers = self.connect(zmq.PUSH, port, **plain)
        alive, heard = True, time.monotonic()
        while alive and time.monotonic() - heard < 3 * ping / 1000:
            events = zmq.select([lane, dealer, self.woken.fileno()], [], [], beat / 1000)[0]
            if lane in events:
                (frame, *parts), heard = lane.recv_multipart(), time.monotonic()
                alive = all([self.hear(*m, parts=parts) for m in msgpack.Unpacker(io.BytesIO(frame))])
            if dealer in events:  # REFUSED: the lane could not be reached
                alive = print("worker.py:", msgpack.unpackb(dealer.recv())[3], file=sys.stderr)
            if self.last and self.woken.fileno() in events and self.woken.recv(9) and self.task and self.task[2].done():
                self.finish(*self.task)
            if self.last and time.monotonic() - self.spoke >= beat / 1000:
                self.send(self.kept) if self.kept else self.answer([HEARTBEAT, int(self.task is not None)])
            if self.draining and not self.task and not self.kept:
                alive = self.answer([BYE, 0])
        _ = [made.close(linger=1000) for made in (dealer, lane, self.answers)]


if __name__ == "__main__":
    worker = Worker(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("PUSHROD_JOIN", "127.0.0.1"), ["upper"])
    signal.signal(signal.SIGTERM, lambda *_: setattr(worker, "draining", True))
    while True:
        worker.serve()
