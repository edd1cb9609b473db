"""Splits a stream of bytes into lines.

Everything that reads lines from a socket uses this, except where a line is read in another way for
a reason: the project sockets look up each read as a whole before they split it, the admin socket's
bytes stay in secret memory, and `client/quick.py` avoids the import."""

from __future__ import annotations


class LineBuffer:
    """`feed` each read, then take lines with `next_line` until it returns None. `len` is the number
    of bytes left over."""

    __slots__ = ("_data", "_searched")

    def __init__(self) -> None:
        self._data = bytearray()
        self._searched = 0
        """There is no newline before this offset."""

    def feed(self, data: bytes) -> None:
        self._data += data

    def next_line(self) -> bytes | None:
        """The next complete line, without its newline."""
        newline = self._data.find(b"\n", self._searched)
        if newline < 0:
            self._searched = len(self._data)
            return None
        line = bytes(self._data[:newline])
        del self._data[: newline + 1]
        self._searched = 0
        return line

    def last_line(self) -> bytes | None:
        """At end of stream: the rest that has no newline, if any."""
        line = bytes(self._data)
        self.clear()
        return line or None

    def clear(self) -> None:
        self._data.clear()
        self._searched = 0

    def __len__(self) -> int:
        return len(self._data)
