#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A mail server that keeps nothing: prints what it is sent. sink.py PORT [--busy N] [--refuse ADDRESS]

--busy N: the first N connections are told 451, try again. --refuse ADDRESS: 550 for it.
With port 0 any free one; the first line printed is the port.
"""
import argparse
import contextlib
import socketserver

args = argparse.ArgumentParser()
args.add_argument("port", type=int)
args.add_argument("--busy", type=int, default=0)
args.add_argument("--refuse", default="")
args = args.parse_args()


class Sink(socketserver.StreamRequestHandler):
    def say(self, text):
        self.wfile.write(text.encode() + b"\r\n")

    def mail(self):
        lines = []
        while (line := self.rfile.readline()) and line != b".\r\n":
            lines.append(line.decode().rstrip())
        subject = next((l for l in lines if l.startswith("Subject: ")), "")
        print("mail", self.to, subject, flush=True)

    def handle(self):
        self.to = ""
        if args.busy > 0:
            args.busy -= 1
            self.say("451 busy, try again")
            return
        self.say("220 sink")
        while line := self.rfile.readline().decode().strip():
            verb = line[:4].upper()
            if verb == "RCPT":
                self.to = line[line.find("<") + 1:line.find(">")]
            if verb == "RCPT" and self.to == args.refuse:
                self.say("550 no such user")
            elif verb == "DATA":
                self.say("354 go on")
                self.mail()
                self.say("250 taken")
            else:
                self.say("250 ok")


socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer.daemon_threads = True
with socketserver.ThreadingTCPServer(("127.0.0.1", args.port), Sink) as server:
    print(server.server_address[1], flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()
