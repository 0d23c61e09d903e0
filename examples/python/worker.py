#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A Pushrod worker, written from proto/PROTOCOL.md alone: one slot, serves the queue "upper".

    worker.py [HOST[:PORT]]     the server's join address (PUSHROD_JOIN, or 127.0.0.1:5571)

Needs python3-zmq and python3-msgpack.
"""
import concurrent.futures
import os
import random
import signal
import socket
import sys
import time
import msgpack
import zmq

JOIN, WELCOME, LANE_HELLO, TASK, CANCEL, WITHDRAW, ACK, PING, DRAIN, FENCED = 1, 3, *range(10, 18)
FROM, READY, DONE, FAILED, HEARTBEAT, BYE, HELD = 20, 21, 26, 27, 29, 30, 81
KEEP, DROP, SEND, FORGET = 1, 2, 3, 4
TASK_FAILED, SUPERSEDED = 60, 47


def handle(queue, payload):  # the work; what it raises fails the attempt
    return payload.upper()


def unpack(frame):
    unpacker = msgpack.Unpacker()
    unpacker.feed(frame)
    return list(unpacker)


class Worker:
    def __init__(self, address, queues):
        self.host, _, self.port = address.partition(":")
        self.queues, self.instance, self.context = queues, os.urandom(16), zmq.Context()
        self.pool = concurrent.futures.ThreadPoolExecutor(1)  # so that heartbeats go on meanwhile
        self.wake, self.woken = socket.socketpair()
        self.task = None        # (id, lease, future) that runs
        self.kept = []          # answers that were not acknowledged; the last has number self.last
        self.last, self.draining = 0, False

    def connect(self, kind, port, **options):
        made = self.context.socket(kind)
        for name, value in {"linger": 0, **options}.items():
            setattr(made, name, value)
        made.connect(f"tcp://{self.host}:{port}")
        return made

    def join(self):
        """Asks until there is a WELCOME; gives its fields and the socket that it came through."""
        held, wait = [[HELD, *m[1:3], True, True] for m in self.kept if m[0] in (DONE, FAILED)], 0.05
        if self.task:
            held.append([HELD, *self.task[:2], False, True])
        while True:
            dealer = self.connect(zmq.DEALER, self.port or 5571)
            dealer.send(msgpack.packb([JOIN, 1, self.instance, os.urandom(16), f"python-{os.getpid()}",
                                       socket.gethostname(), os.getpid(), 1, 0, self.queues, held]))
            if dealer.poll(2000):
                number, *fields = unpack(dealer.recv())[0]
                if number == WELCOME:
                    return dealer, fields
                print(f"worker.py: refused: {fields[2]}", file=sys.stderr)
                if not fields[3]:
                    sys.exit(1)
            dealer.close()
            time.sleep(wait * random.uniform(0.5, 1))
            wait = min(2 * wait, 1)

    def answer(self, *messages):
        self.kept += messages
        self.last += len(messages)
        self.send(messages)

    def send(self, messages):
        first = [FROM, self.worker, self.session, self.last - len(messages) + 1]
        self.answers.send(b"".join(msgpack.packb(m) for m in [first, *messages]))
        self.spoke = time.monotonic()

    def hear(self, message, parts):
        """One message of the lane. False: the session is over."""
        number, *fields = message
        if number == LANE_HELLO and fields[1] == self.session:
            again, self.kept, self.last = [m for m in self.kept if m[0] in (DONE, FAILED)], [], 0
            self.answer([READY, self.session], *again)
        elif number == TASK:
            payload = parts.pop() if fields[6] is None else fields[6]
            future = self.pool.submit(handle, fields[2], payload)
            self.task = (*fields[:2], future)
            future.add_done_callback(lambda _: self.wake.send(b"."))
        elif number in (ACK, PING):
            kept = self.last - fields[0]  # CANCEL, WITHDRAW: with no prefetch it runs already
            self.kept = self.kept[-kept:] if kept > 0 else []
        elif number == DRAIN:
            self.draining = True
        elif number == FENCED and fields[0] == SUPERSEDED:
            sys.exit("worker.py: the same worker joined again")
        return number != FENCED

    def finish(self):
        """Answers for the task that ended."""
        task, lease, future = self.task
        self.woken.recv(1)
        self.task, error = None, future.exception()
        self.answer([FAILED, task, lease, 0, TASK_FAILED, False, 0, str(error)] if error
                    else [DONE, task, lease, 0, future.result()])

    def serve(self):
        """One session, from the JOIN to its end."""
        dealer, welcome = self.join()
        _, self.worker, self.session, host, lane_port, port, user, token, beat, ping, _, verdicts = welcome
        self.host, plain = host or self.host, {"plain_username": user.encode(), "plain_password": token.encode()}
        forget = [v[2] for v in verdicts or [] if v[3] in (DROP, FORGET)]
        self.kept = [m for m in self.kept if m[0] in (DONE, FAILED) and m[2] not in forget]
        lane = self.connect(zmq.PULL, lane_port, rcvhwm=0, reconnect_ivl=-1, **plain)
        self.answers = self.connect(zmq.PUSH, port, **plain)
        poller, alive, self.spoke = zmq.Poller(), True, time.monotonic()
        heard = acked = self.spoke
        for source in (lane, dealer, self.woken):
            poller.register(source, zmq.POLLIN)
        while alive and time.monotonic() - heard < 3 * ping / 1000:
            events = dict(poller.poll(beat))
            if lane in events:
                parts, heard, before = lane.recv_multipart(), time.monotonic(), len(self.kept)
                alive = all([self.hear(message, parts) for message in unpack(parts.pop(0))])
                acked = heard if len(self.kept) < before else acked
            if dealer in events:
                alive = print("worker.py:", unpack(dealer.recv())[0][3], file=sys.stderr)
            if self.woken.fileno() in events and self.task:
                self.finish()
            if self.kept and time.monotonic() - max(acked, self.spoke) > 1:
                self.send(self.kept)
            elif time.monotonic() - self.spoke >= beat / 1000 and self.last:
                self.answer([HEARTBEAT, int(self.task is not None)])
            if self.draining and not self.task and not self.kept:
                alive = self.answer([BYE, 0])
        for made, linger in (dealer, 0), (lane, 0), (self.answers, 1000):
            made.close(linger)


if __name__ == "__main__":
    worker = Worker(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("PUSHROD_JOIN", "127.0.0.1"), ["upper"])
    signal.signal(signal.SIGTERM, lambda *_: setattr(worker, "draining", True))
    while not worker.draining:
        worker.serve()
