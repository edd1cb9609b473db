"""A hostile client: `python attacker.py KIND SOCKET`, until it is killed.

Prints a line once it has begun. A standalone script with only the standard library, because it runs
as other users and under other limits than the tests.
"""

from __future__ import annotations

import array
import contextlib
import itertools
import os
import select
import socket
import sys
import time

# More than a project may have; see `max_connections_per_project`.
MANY = 1000
LONGEST = 64 * 1024
GET = b'{"op":"get","name":"ALLOWED"}\n'
# The most expensive to read: the most values in the fewest bytes.
NUMBERS = b'{"op":"ping","x":[' + b"1," * (LONGEST // 2 - 20) + b"1]}\n"


class Flood:
    """Many connections that never wait, reopened when the broker closes them."""

    def __init__(
        self, path: str, size: int, sends: bytes, *, reads: bool, piece: int = 1 << 20, pause: float = 0
    ) -> None:
        self._path = path
        self._size = size
        self._sends = sends
        self._reads = reads
        self._piece = piece
        self._pause = pause
        self._poll = select.epoll()
        self._members: dict[int, tuple[socket.socket, int]] = {}

    def run(self) -> None:
        began = False
        while True:
            for _ in range(min(64, self._size - len(self._members))):
                self._join()
            for descriptor, events in self._poll.poll(0.05, 256):
                member, sent = self._members[descriptor]
                try:
                    if events & select.EPOLLIN and not member.recv(1 << 20):
                        raise ConnectionError
                    if events & select.EPOLLHUP:
                        raise ConnectionError
                    if events & select.EPOLLOUT:
                        sent += member.send(self._sends[sent : sent + self._piece])
                        self._members[descriptor] = member, sent % len(self._sends)
                except BlockingIOError:
                    pass
                except OSError:
                    self._leave(descriptor)
            if not began and len(self._members) >= self._size // 4:
                began = True
                print("begun", flush=True)
            time.sleep(self._pause)

    def _join(self) -> None:
        member = socket.socket(socket.AF_UNIX)
        member.setblocking(False)
        try:
            member.connect(self._path)
        except OSError:
            member.close()
            return
        self._members[member.fileno()] = member, 0
        events = select.EPOLLOUT if self._sends else 0
        self._poll.register(member, events | (select.EPOLLIN if self._reads else 0))

    def _leave(self, descriptor: int) -> None:
        member, _ = self._members.pop(descriptor)
        member.close()


def slow_writers(path: str) -> None:
    """Each request a byte at a time."""
    Flood(path, MANY, GET, reads=True, piece=1, pause=0.01).run()


def partial_lines(path: str) -> None:
    """The maximum length of a line, without its end."""
    Flood(path, MANY, b'{"x":"' + b"x" * (LONGEST - 100), reads=False, pause=0.01).run()


def long_lines(path: str) -> None:
    """The lines that are most expensive to read."""
    Flood(path, 64, NUMBERS, reads=True).run()


def middling_lines(path: str) -> None:
    """The same, just below the length that counts as long."""
    Flood(path, MANY, (b'{"op":"x","x":[' + b"1," * 110 + b"1]}\n") * 1000, reads=True).run()


def non_readers(path: str) -> None:
    """Ten thousand gets each, without reading a reply."""
    Flood(path, 256, GET * 10_000, reads=False, pause=0.01).run()


def pipeliners(path: str) -> None:
    """The same, reading every reply."""
    Flood(path, 64, GET * 10_000, reads=True).run()


def denied_names(path: str) -> None:
    """Unknown names, each a different one."""
    lines = b"".join(b'{"op":"get","name":"%s%d"}\n' % (b"N" * 100, number) for number in range(5000))
    Flood(path, 64, lines, reads=True).run()


def garbage(path: str) -> None:
    Flood(path, 64, b'{"op":"get","name":}\n[]\n\xff\n{"op":"info"}\n' * 1000, reads=True).run()


def infos(path: str) -> None:
    """Requests for the longest reply, which is not read."""
    Flood(path, 256, b'{"op":"info"}\n' * 10_000, reads=False, pause=0.01).run()


def bindings(path: str) -> None:
    """Another long answer, asked for and not read."""
    Flood(path, 256, b'{"op":"bindings"}\n' * 10_000, reads=False, pause=0.01).run()


def watches(path: str) -> None:
    """The longest line of a watch, begun again and again; and 256 that every push has to tell."""
    Flood(path, 256, b'{"op":"watch"}\n' * 10_000, reads=True, pause=0.01).run()


def hoard(path: str) -> None:
    """Silent connections."""
    Flood(path, MANY, b"", reads=True, pause=0.01).run()


def storm(path: str) -> None:
    """Connect and disconnect as fast as possible."""
    print("begun", flush=True)
    while True:
        members = [socket.socket(socket.AF_UNIX) for _ in range(64)]
        for member in members:
            member.setblocking(False)
            with contextlib.suppress(OSError):
                member.connect(path)
        for member in members:
            member.close()


def descriptors(path: str) -> None:
    """The maximum number of descriptors with every message."""
    passed = array.array("i", [os.open("/dev/null", os.O_RDONLY) for _ in range(253)])
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)]
    for number in itertools.count():
        with socket.socket(socket.AF_UNIX) as member, contextlib.suppress(OSError):
            member.settimeout(5)
            member.connect(path)
            for _ in range(50):
                member.sendmsg([GET], ancillary)
                member.recv(4096)
                member.sendmsg([GET[:10]], ancillary)
                member.sendmsg([GET[10:]], ancillary)
                member.recv(4096)
        if number == 0:
            print("begun", flush=True)


def refused(path: str) -> None:
    """Connections that are refused at once and send as much as they can."""
    Flood(path, 64, NUMBERS, reads=True).run()


KINDS = {
    function.__name__: function
    for function in (
        slow_writers,
        partial_lines,
        long_lines,
        middling_lines,
        non_readers,
        pipeliners,
        denied_names,
        garbage,
        infos,
        bindings,
        watches,
        hoard,
        storm,
        descriptors,
        refused,
    )
}

if __name__ == "__main__":
    KINDS[sys.argv[1]](sys.argv[2])
