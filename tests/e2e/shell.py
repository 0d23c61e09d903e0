# SPDX-License-Identifier: Apache-2.0
"""shell: the command `pushrod` as the end-to-end tests use it."""
import json
import os
import socket
import struct
import subprocess
import sys
import threading

import msgpack

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
from lab import (BUILD, GREETING, HELLO, OK, STATUS, WAIT, Failure, Lab, ROOT, Skip,  # noqa: E402,F401
                 take_frame, wait_for)

PUSHROD = os.path.join(BUILD, "pushrod")
HANDLERS = ["--exec", "cat=cat", "--exec", "digest=sha256sum", "--exec", "bad=echo no luck >&2; exit 1",
            "--exec", "gate=read f; echo progress 1 2 reading >&3; while [ ! -e \"$f\" ]; do sleep 0.01; done; cat \"$f\"",
            "--exec", "odd=read n; [ $((n % 2)) = 1 ] && echo $n || { echo even $n >&2; exit 1; }",
            "--exec", "head=printf %s \"$PUSHROD_HEADER_COLOUR\"; cat"]


class Shell:
    """The command, with the server of a lab."""

    def __init__(self, lab, server):
        self.lab, self.server = lab, server
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("PUSHROD_")}
        self.env["PUSHROD_SERVER"] = f"127.0.0.1:{server.client_port}"

    def path(self, name):
        return os.path.join(self.lab.path, name)

    def start(self, *arguments, env=None, **options):
        return subprocess.Popen([PUSHROD, *arguments], env={**self.env, **(env or {})}, stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)

    def run(self, *arguments, given=b"", code=0, limit=300, env=None):
        """(stdout, stderr as text); fails if the exit code is another."""
        done = subprocess.run([PUSHROD, *arguments], env={**self.env, **(env or {})}, input=given,
                              capture_output=True, timeout=limit)
        err = done.stderr.decode(errors="replace")
        if done.returncode != code:
            raise Failure(f"pushrod {' '.join(arguments)}: exit code {done.returncode}, not {code}\n"
                          f"{done.stdout[-500:]}\n{err[-1500:]}")
        return done.stdout, err

    def rows(self, *arguments):
        return [json.loads(line) for line in self.run(*arguments, "--json")[0].splitlines()]

    def queue(self, name):
        return next((row for row in self.rows("queues") if row["queue"] == name), None)


class Mute:
    """A server that answers nothing but HELLO and WAIT."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.env = {"PUSHROD_SERVER": "127.0.0.1:%d" % self.listener.getsockname()[1]}
        self.peer, self.data = None, bytearray()

    def until(self, number):
        """Takes what comes from one client, up to a message of this number: that one."""
        if not self.peer:
            self.peer, _ = self.listener.accept()
            self.peer.settimeout(60)
        wanted = []
        while not wanted:
            self.data += self.peer.recv(65536)
            while (messages := take_frame(self.data)) is not None:
                wanted += [m for m in messages if m[0] == number]
                for m in messages:
                    if m[0] == HELLO:
                        self.say([GREETING, 1, "mute", 1000, 70000, 0, None])
                    elif m[0] == WAIT != number:
                        self.say([OK, m[1], 1])
        return wanted[0]

    def say(self, message):
        frame = msgpack.packb(message)
        self.peer.sendall(struct.pack(">I", len(frame)) + frame)

    def lose(self):
        """The connection; the next one may come."""
        self.peer.close()
        self.peer, self.data = None, bytearray()

    def close(self):
        self.listener.close()
        self.peer.close()


class Lossy:
    """A way to a server. What that says over the first connection is lost, but for its greeting."""

    def __init__(self, port):
        self.port, self.first = port, None
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.env = {"PUSHROD_SERVER": "127.0.0.1:%d" % self.listener.getsockname()[1]}
        self.begin(self.accept)

    @staticmethod
    def begin(what, *arguments):
        threading.Thread(target=what, args=arguments, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(("127.0.0.1", self.port))
            self.begin(self.carry, client, server, False)
            self.begin(self.carry, server, client, self.first is None)
            self.first = self.first or client

    @staticmethod
    def carry(source, target, loses):
        said = False
        try:
            while data := source.recv(65536):
                if not (loses and said):
                    target.sendall(data)
                said = True
            target.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def cut(self):
        self.first.shutdown(socket.SHUT_RDWR)


def same(what, found, wanted):
    if found != wanted:
        raise Failure(f"{what}: {found!r}, not {wanted!r}")


def says(text, *parts):
    for part in parts:
        if part not in text:
            raise Failure(f"{text!r} does not say {part!r}")


def main(run):
    """Runs the test as tests/run wants it: exit code 77 is a skip."""
    try:
        run()
    except Skip as skip:
        print(skip)
        sys.exit(77)
    except Failure as failure:
        print(f"FAILED: {failure}")
        sys.exit(1)
