#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A Pushrod worker, written from proto/PROTOCOL.md alone: one slot, serves the queue "upper". Needs python3-zmq and
python3-msgpack. worker.py [HOST[:PORT]]: the server's join address (or PUSHROD_JOIN, or 127.0.0.1:5571)."""
import concurrent.futures
import io
import os
import signal
import socket
import sys
import time
import msgpack
import zmq

JOIN, WELCOME, LANE_HELLO, TASK, CANCEL, WITHDRAW, ACK, PING, DRAIN, FENCED, PAYLOAD = 1, 3, *range(10, 19)
FROM, READY, PART, DONE, FAILED, RETURNED, HEARTBEAT, BYE, HELD = 20, 21, *range(25, 31), 81
DRAINING, SUPERSEDED, TASK_FAILED, TASK_CANCELLED, KEEP, SEND, CHUNK = 24, 47, 60, 64, 1, 3, 65536


def handle(queue, payload):  # the work; what it raises fails the attempt
    return payload.upper()


class Worker:
    def __init__(self, address, queues):
        self.host, _, self.port = address.partition(":")
        self.queues, self.instance, self.context = queues, os.urandom(16), zmq.Context()
        self.pool, (self.wake, self.woken) = concurrent.futures.ThreadPoolExecutor(1), socket.socketpair()  # it beats while it works
        self.said, self.task, self.draining, self.pausing = "", None, False, False  # (id, lease, future) of what runs
        self.partial = None  # [id, lease, queue, payload so far, bytes that are missing] of what is still coming
        self.kept, self.last = [], 0  # not acknowledged: (number of the last, messages); the last number

    def connect(self, kind, port, **options):
        made = self.context.socket(kind)
        for name, value in {"linger": 0, **options}.items():
            setattr(made, name, value)
        made.connect(f"tcp://{self.host}:{port}")
        return made

    def join(self):  # asks until there is a WELCOME; gives its fields, and the socket that it came through
        held, wait, patience = [[HELD, *m[-1][1:3], True, True] for _, m in self.kept], 0.05, 500
        held += [[HELD, *self.task[:2], False, True]] if self.task else []
        while held or not self.draining:
            dealer = self.connect(zmq.DEALER, self.port or 5571)
            dealer.send(msgpack.packb([JOIN, 1, self.instance, os.urandom(16), f"python-{os.getpid()}", socket.gethostname(),
                                       os.getpid(), 1, 0, self.queues, held, os.environ.get("PUSHROD_TOKEN")]))
            number, *fields = msgpack.unpackb(dealer.recv()) if dealer.poll(patience := min(2 * patience, 8000)) else [0]
            if number == WELCOME:
                self.said = ""
                return dealer, fields
            self.say(fields[2] if fields else f"no answer from {self.host}:{self.port or 5571}")
            if fields and not fields[3]:  # REFUSED for good
                sys.exit(1)
            dealer.close()
            time.sleep((wait := min(2 * wait, 1)) * os.urandom(1)[0] / 255)
        sys.exit(0)

    def say(self, text):  # once, however often it is tried
        _ = text == self.said or print("worker.py:", text, file=sys.stderr)
        self.said = text

    def answer(self, *messages):  # those of one task stay together until the last is acknowledged
        self.last += len(messages)
        self.kept.append((self.last, messages))
        self.send(self.last, messages)

    def send(self, last, messages):  # a frame for each: over a slow link a large one would be a long silence
        for number, message in enumerate(messages, last - len(messages) + 1):
            frame = msgpack.packb([FROM, self.worker, self.session, number]) + msgpack.packb(message)
            _ = self.answers.poll(0, zmq.POLLOUT) and self.answers.send(frame)  # a new server refuses old sessions
        self.spoke = time.monotonic()

    def hear(self, number, *fields, parts):  # CANCEL, WITHDRAW: without prefetch everything runs already, or is still coming
        if number == LANE_HELLO and fields[1] == self.session:
            again, self.kept = self.kept, []
            _ = [self.answer(*m) for m in [([READY, self.session],), *(m for _, m in again)]]
        elif number == TASK and (self.draining or self.pausing):
            self.answer([RETURNED, *fields[:2], DRAINING])
        elif number in (TASK, PAYLOAD):
            lease, data = (fields[1], fields[6]) if number == TASK else fields
            data = parts.pop(0) if data is None else data
            if number == TASK:
                self.partial = [*fields[:3], b"", fields[7] + len(data)]
            if self.partial and self.partial[1] == lease:
                self.partial[3:] = self.partial[3] + data, self.partial[4] - len(data)
            if self.partial and not self.partial[4]:  # its payload is whole
                (*names, queue, payload, _), self.partial = self.partial, None
                self.task = (*names, self.pool.submit(handle, queue, payload))
                self.task[2].add_done_callback(lambda _: self.wake.send(b"."))
        elif number in (CANCEL, WITHDRAW) and self.partial and self.partial[1] == fields[1]:
            self.partial = self.answer([RETURNED, *fields, 0] if number == WITHDRAW
                                       else [FAILED, *fields, 0, TASK_CANCELLED, True, 0, "cancelled"])
        elif number in (ACK, PING):
            self.kept = [k for k in self.kept if k[0] > fields[0]]
            _, self.beats, self.next, self.spoke = (*fields[:3], 0) if number == PING else (0, self.beats, self.next, self.spoke)
        self.pausing |= number == DRAIN  # for good, or until the next server is there:
        self.draining |= (number == DRAIN and not fields[1]) or (number == FENCED and fields[0] == SUPERSEDED)
        return number != FENCED

    def finish(self, task, lease, future):
        self.task, error = None, future.exception()
        result = b"" if error else future.result()
        cut = max(len(result) - 1, 0) // CHUNK * CHUNK  # where the last chunk begins
        parts = [[PART, task, lease, len(result), result[at:at + CHUNK]] for at in range(0, cut, CHUNK)]
        self.answer(*parts, [FAILED, task, lease, 0, TASK_FAILED, False, 0, str(error)[:1000]] if error
                    else [DONE, task, lease, 0, result[cut:]])

    def serve(self):  # one session, from the JOIN to its end
        self.kept = [k for k in self.kept if k[1][-1][0] in (DONE, FAILED)]  # all else was for the old session
        dealer, (_, self.worker, self.session, host, lane_port, port, user, token, beat, ping, _, verdicts, *_) = self.join()
        self.host, plain = host or self.host, {"plain_username": user.encode(), "plain_password": token.encode()}
        forget = [v[2] for v in verdicts or [] if v[3] not in (KEEP, SEND)]
        self.last, self.beats, self.next, self.pausing, self.kept = 0, True, ping, False, [k for k in self.kept if k[1][-1][2] not in forget]
        self.task, self.partial = None if self.task and self.task[1] in forget else self.task, None
        lane = self.connect(zmq.PULL, lane_port, rcvhwm=0, reconnect_ivl=86400000, **plain)
        gone = lane.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self.answers, events, alive, heard = self.connect(zmq.PUSH, port, sndhwm=0, **plain), [], True, time.monotonic()
        while alive and gone not in events and time.monotonic() - heard < (self.next + 2 * ping) / 1000:
            events = zmq.select([lane, gone, dealer, self.woken.fileno()], [], [], beat / 2000)[0]
            if lane in events:
                (frame, *parts), heard = lane.recv_multipart(), time.monotonic()
                alive = all([self.hear(*m, parts=parts) for m in msgpack.Unpacker(io.BytesIO(frame))])
            if dealer in events:  # REFUSED: the lane could not be reached
                alive = self.say(msgpack.unpackb(dealer.recv())[3])
            if self.last and self.woken.fileno() in events and self.woken.recv(9) and self.task and self.task[2].done():
                self.finish(*self.task)
            if self.last and (self.beats or self.kept or not self.spoke) and time.monotonic() - self.spoke >= beat / 1000:
                _ = [self.send(*k) for k in self.kept] or self.send(self.last + 1, [[HEARTBEAT, int(self.task is not None)]])
            if (self.draining or self.pausing) and not self.task and not self.partial and not self.kept:
                alive = self.answer([BYE, 0])
        _ = lane.disable_monitor(), [made.close(linger=1000) for made in (dealer, lane, self.answers)]


if __name__ == "__main__":
    worker = Worker((sys.argv[1:] or [os.environ.get("PUSHROD_JOIN", "127.0.0.1")])[0], ["upper"])
    signal.signal(signal.SIGTERM, lambda *_: setattr(worker, "draining", True))
    while True:
        worker.serve()
