"""journald's side of its native protocol, written from systemd's documentation, not from the
broker.
"""

from __future__ import annotations

import os
import pathlib
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def fields(data: bytes) -> Iterator[tuple[str, bytes] | None]:
    """The fields of a datagram in order; None for the empty line between two entries."""
    while data:
        newline = data.index(b"\n")
        line, data = data[:newline], data[newline + 1 :]
        if not line:
            yield None
            continue
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack_from("<Q", data)
            value = data[8 : 8 + length]
            assert data[8 + length : 9 + length] == b"\n"
            data = data[9 + length :]
        yield name.decode("ascii"), value


def entries(datagram: bytes) -> list[dict[str, str]]:
    """The entries of one datagram."""
    found: list[dict[str, str]] = [{}]
    for field in fields(datagram):
        if field is None:
            found.append({})
        else:
            found[-1][field[0]] = field[1].decode()
    return found


class Receiver:
    """A datagram socket at `path`, like journald's. It receives only on request."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = pathlib.Path(path)
        self.datagrams: list[bytes] = []
        self._socket: socket.socket | None = None
        self.listen()

    def listen(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self._socket.setblocking(False)

    def take(self, limit: int = -1) -> list[dict[str, str]]:
        """The entries since the last call, from at most `limit` datagrams."""
        assert self._socket is not None
        found = []
        while limit:
            try:
                self.datagrams.append(self._socket.recv(1 << 20))
            except BlockingIOError:
                break
            found += entries(self.datagrams[-1])
            limit -= 1
        return found

    def leave(self) -> None:
        """Close the socket as an exiting journald does: queued datagrams are lost."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self.path.unlink()
