"""The least server in Python that hands journald a record before each reply: what an interpreter takes by itself.

usage: python3 least.py SOCKET REPLY_BYTES JOURNAL_SOCKET RECORD_FILE

It looks nothing up, counts nothing and has no limits; record and reply are always the same.
"""

from __future__ import annotations

import select
import sys
from _socket import AF_UNIX, MSG_DONTWAIT, SOCK_DGRAM, SOCK_STREAM, socket

BACKLOG = 128
EVENTS = 64
LONGEST_REQUEST = 512


def serve(path: str, reply: bytes, journal: str, record: bytes) -> None:
    listening = socket(AF_UNIX, SOCK_STREAM)
    listening.bind(path)
    listening.listen(BACKLOG)
    records = socket(AF_UNIX, SOCK_DGRAM)
    records.connect(journal)
    epoll = select.epoll()
    epoll.register(listening.fileno(), select.EPOLLIN)
    connections: dict[int, socket] = {}
    while True:
        for descriptor, _ in epoll.poll(-1, EVENTS):
            connection = connections.get(descriptor)
            if connection is None:
                accepted, _ = listening._accept()  # type: ignore[attr-defined]
                connections[accepted] = socket(AF_UNIX, SOCK_STREAM, 0, accepted)
                epoll.register(accepted, select.EPOLLIN)
            elif connection.recv(LONGEST_REQUEST, MSG_DONTWAIT):
                records.send(record)
                connection.send(reply, MSG_DONTWAIT)
            else:
                epoll.unregister(descriptor)
                del connections[descriptor]
                connection.close()


if __name__ == "__main__":
    path, size, journal, file = sys.argv[1:]
    with open(file, "rb") as record:
        serve(path, b"." * (int(size) - 1) + b"\n", journal, record.read())
