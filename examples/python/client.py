#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A Pushrod client, written from proto/PROTOCOL.md alone.

    client.py QUEUE PAYLOAD...      submits each payload, prints each result in the order given

Needs python3-msgpack. PUSHROD_SERVER names the server (127.0.0.1:5570), PUSHROD_TOKEN has its token.
"""
import os
import socket
import struct
import sys

import msgpack

HELLO, SUBMIT, WAIT, RECEIVED, CANCEL = 40, 41, 42, 43, 44
GREETING, ACCEPTED, REJECTED, OK, FINISHED, ERROR = 60, 61, 62, 63, 64, 74
STATUS = {1: "done", 2: "failed", 3: "cancelled", 4: "expired"}


class PushrodError(Exception):
    pass


class Client:
    """One connection. submit() pipelines; wait() blocks until the tasks named have finished."""

    def __init__(self, address=None, token=None):
        host, _, port = (address or os.environ.get("PUSHROD_SERVER", "127.0.0.1")).partition(":")
        self.socket = socket.create_connection((host, int(port or 5570)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.requests = 0
        self.ids = {}       # request -> task id, of what was accepted
        self.refused = {}   # request -> text
        self.finished = {}  # task id -> (status, result, error text)
        self.count = 0      # FINISHED messages taken from this connection
        self.input = bytearray()
        self.send([HELLO, 1, token or os.environ.get("PUSHROD_TOKEN"), "client.py"])
        number, *fields = self.receive()[0]
        if number != GREETING:
            raise PushrodError(fields[1] if number == ERROR else "no greeting")

    def send(self, *messages):
        frame = b"".join(msgpack.packb(m) for m in messages)
        self.socket.sendall(struct.pack(">I", len(frame)) + frame)

    def receive(self):
        """The messages of the next frame, unpacked one after the other."""
        while len(self.input) < 4 or len(self.input) < 4 + struct.unpack_from(">I", self.input)[0]:
            data = self.socket.recv(1 << 18)
            if not data:
                raise PushrodError("the server closed the connection")
            self.input += data
        size = 4 + struct.unpack_from(">I", self.input)[0]
        unpacker = msgpack.Unpacker(max_buffer_size=0)
        unpacker.feed(self.input[4:size])
        del self.input[:size]
        return list(unpacker)

    def submit(self, queue, payloads):
        """Submits all at once; returns their ids once each is accepted."""
        first = self.requests + 1
        self.requests += len(payloads)
        for at in range(0, len(payloads), 100):  # a frame has a limit; not patient: this waits for ACCEPTED
            self.send(*([SUBMIT, first + n, queue, payload, 1, False, None]
                        for n, payload in enumerate(payloads[at:at + 100], at)))
        wanted = range(first, self.requests + 1)
        while len(self.ids) + len(self.refused) < self.requests:
            self.step()
        for request in wanted:
            if request in self.refused:
                raise PushrodError(self.refused[request])
        return [self.ids[request] for request in wanted]

    def step(self):
        """Takes one frame, and acknowledges the finishes that it brought."""
        before = self.count
        for number, *fields in self.receive():
            if number == ACCEPTED:
                self.ids[fields[0]] = fields[1]
            elif number == REJECTED:
                self.refused[fields[0]] = fields[2]
            elif number == FINISHED:
                task, status, _code, _attempts, _run_ns, result, text, _tag = fields
                self.finished[task] = (STATUS[status], result or b"", text or "")
                self.count += 1
            elif number == ERROR:
                raise PushrodError(fields[1])
        if self.count > before:
            self.send([RECEIVED, self.count])

    def wait(self, ids):
        """(status, result, error text) of each, in order."""
        while any(task not in self.finished for task in ids):
            self.step()
        return [self.finished.pop(task) for task in ids]


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    client = Client()
    ids = client.submit(sys.argv[1], [payload.encode() for payload in sys.argv[2:]])
    failed = 0
    for task, (status, result, text) in zip(ids, client.wait(ids)):
        if status == "done":
            sys.stdout.buffer.write(result.rstrip(b"\n") + b"\n")
        else:
            print(f"client.py: task {task} {status}: {text}", file=sys.stderr)
            failed = 1
    sys.exit(failed)


if __name__ == "__main__":
    try:
        main()
    except (PushrodError, OSError) as error:
        sys.exit(f"client.py: {error}")
