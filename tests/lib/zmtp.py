# SPDX-License-Identifier: Apache-2.0
"""As much of ZMTP 3.0 as a stranger needs who does not mean well: what libzmq would never send."""
import socket
import struct


def need(s, size):
    data = b""
    while len(data) < size:
        part = s.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def command(name, body=b""):
    data = bytes([len(name)]) + name + body
    return b"\x04" + bytes([len(data)]) + data


def read_command(s):
    large = need(s, 1)[0] & 2
    return need(s, struct.unpack(">Q", need(s, 8))[0] if large else need(s, 1)[0])


def properties(**values):
    out = b""
    for name, value in values.items():
        name = name.replace("_", "-").encode()
        out += bytes([len(name)]) + name + struct.pack(">I", len(value)) + value
    return out


def greet(s, kind=b"DEALER", user=None, token=b""):
    """The handshake, with PLAIN if a user is given. What the other side said last."""
    mechanism = b"NULL" if user is None else b"PLAIN"
    s.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + mechanism.ljust(20, b"\0") + bytes(32))
    need(s, 64)
    mine = properties(Socket_Type=kind, Identity=b"")
    if user is None:
        s.sendall(command(b"READY", mine))
        return read_command(s)
    s.sendall(command(b"HELLO", bytes([len(user)]) + user + bytes([len(token)]) + token))
    read_command(s)
    s.sendall(command(b"INITIATE", mine))
    return read_command(s)


def frame(data, more=False, size=None):
    """One part; `size`: what its head says instead of the truth."""
    return bytes([2 | more]) + struct.pack(">Q", len(data) if size is None else size) + data


def dial(port, kind=b"DEALER", user=None, token=b"", limit=20):
    s = socket.create_connection(("127.0.0.1", port), timeout=limit)
    greet(s, kind, user, token)
    return s
