"""Sends a request to a helper process that systemd starts through a socket. One line each for
request and reply; the reply may carry descriptors.

A helper's reply is untrusted: the caller checks it.
"""

from __future__ import annotations

import _socket
import array
import errno
import os

from remo_broker.broker.loop import READ
from remo_broker.broker.sockets.passed_descriptors import refuse_descriptors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from remo_broker.broker.loop import Later, Loop

    Answer: TypeAlias = tuple[bytes, list[int]]

# The most descriptors in one reply: a listening socket for each kind that a project has.
MAX_DESCRIPTORS = 2
# Bytes per read.
CHUNK = 65_536


class HelperUnreachable(Exception):
    """The helper did not answer. The text says why."""


class HelperTimedOut(HelperUnreachable):
    """The helper did not answer in time."""


def connect(path: str, *, descriptors: bool = True) -> _socket.socket:
    """`descriptors`: whether the helper may send some. Raises `HelperUnreachable`."""
    try:
        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    except OSError as error:
        raise HelperUnreachable(os.strerror(error.errno or 0)) from None
    if not descriptors:
        refuse_descriptors(connection)
    try:
        connection.setblocking(False)  # a full queue is an error; do not wait for it
        connection.connect(path)
    except OSError as error:
        connection.close()
        raise HelperUnreachable(f"{path}: {os.strerror(error.errno or 0)}") from None
    return connection


def receive(connection: _socket.socket) -> Answer:
    """Some bytes and the descriptors that came with them; no bytes at end of stream. Raises
    OSError."""
    descriptors = array.array("i")
    data, ancillary, _, _ = connection.recvmsg(
        CHUNK, _socket.CMSG_SPACE(MAX_DESCRIPTORS * descriptors.itemsize), _socket.MSG_CMSG_CLOEXEC
    )
    for level, kind, content in ancillary:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    return data, list(descriptors)


def ask_now(connection: _socket.socket, request: bytes, seconds: float) -> Answer:
    """Send a request and block until the reply. For use before the loop runs. Raises
    `HelperUnreachable`."""
    connection.settimeout(seconds)
    line, descriptors = b"", []
    try:
        connection.sendall(request)
        while not line.endswith(b"\n"):
            data, received = receive(connection)
            descriptors += received
            if not data:
                raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
            line += data
    except OSError as error:
        close_all(descriptors)
        raise HelperUnreachable(os.strerror(error.errno) if error.errno else "no reply in time") from None
    return line, descriptors


def close_all(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


class HelperNotStarted(HelperTimedOut):
    """Nor did anything of its reply come."""


class Call:
    """One request on its own non-blocking connection, while the loop goes on. `later` gets the
    reply as `Answer`, or `HelperUnreachable`."""

    def __init__(
        self,
        loop: Loop,
        connection: _socket.socket,
        request: bytes,
        seconds: float,
        longest: int,
        start_seconds: float | None = None,
    ) -> None:
        """`longest` is the maximum reply length in bytes. With `start_seconds`, the reply's first byte may
        take that long, and `seconds` are for the rest. Closes the connection at the end. Raises
        `HelperUnreachable`."""
        self.later: Later = loop.later()
        self._loop = loop
        self._longest = longest
        self._line = b""
        self._descriptors: list[int] = []
        self._connection = connection
        try:
            connection.send(request)  # far shorter than a new connection's buffer
        except OSError as error:
            connection.close()
            raise HelperUnreachable(os.strerror(error.errno or 0)) from None
        self._seconds = seconds
        self._starts = start_seconds is not None
        self._timer = loop.after(seconds if start_seconds is None else start_seconds, self._too_late)
        loop.watch(self._connection.fileno(), READ, self._readable)

    def _readable(self) -> None:
        try:
            data, received = receive(self._connection)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(os.strerror(error.errno or 0))
            return
        self._descriptors += received
        self._line += data
        if self._starts and data:
            self._starts = False
            self._timer.cancel()
            self._timer = self._loop.after(self._seconds, self._too_late)
        if self._line.endswith(b"\n"):
            descriptors, self._descriptors = self._descriptors, []
            self._end((self._line, descriptors))
        elif not data or len(self._line) > self._longest or len(self._descriptors) > MAX_DESCRIPTORS:
            self._fail("it ended without a reply" if not data else "malformed reply")

    def _too_late(self) -> None:
        self._end((HelperNotStarted if self._starts else HelperTimedOut)("no reply in time"))

    def _fail(self, why: str) -> None:
        self._end(HelperUnreachable(why))

    def _end(self, result: Answer | HelperUnreachable) -> None:
        if self._connection.fileno() >= 0:
            self._timer.cancel()
            self._loop.forget(self._connection.fileno())
            self._connection.close()
            close_all(self._descriptors)
            self._descriptors = []
            self.later.set(result)
