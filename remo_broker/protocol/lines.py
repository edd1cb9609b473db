"""Lines out of a stream of bytes. Every reader of the protocol uses this, but for two: the project sockets, which look a
read up whole before they look for lines in it, and the admin socket, whose bytes stay in secret memory."""

from __future__ import annotations


class LineBuffer:
    """`feed` what was read, then take lines with `next_line` until it returns None. `len` is what is left over."""

    __slots__ = ("_data", "_searched")

    def __init__(self) -> None:
        self._data = bytearray()
        self._searched = 0
        """Up to here there is no newline."""

    def feed(self, data: bytes) -> None:
        self._data += data

    def next_line(self) -> bytes | None:
        """The next whole line, without its newline."""
        newline = self._data.find(b"\n", self._searched)
        if newline < 0:
            self._searched = len(self._data)
            return None
        line = bytes(self._data[:newline])
        del self._data[: newline + 1]
        self._searched = 0
        return line

    def last_line(self) -> bytes | None:
        """At the end of the stream: what came without a newline, if anything did."""
        line = bytes(self._data)
        self.clear()
        return line or None

    def clear(self) -> None:
        self._data.clear()
        self._searched = 0

    def __len__(self) -> int:
        return len(self._data)
