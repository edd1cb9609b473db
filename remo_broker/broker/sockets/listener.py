"""Listening sockets, passed by systemd or bound here, and error replies to excess connections."""

from __future__ import annotations

import _socket
import errno
import os
import select
import stat
from _socket import socket as Accepted  # noqa: N812 - distinct from listening sockets

from remo_broker.broker.loop import READ
from remo_broker.broker.refusals import Refused
from remo_broker.broker.sockets.connection import Connection, Peer, accept, discard
from remo_broker.broker.sockets.passed_descriptors import refuse_descriptors, take_out
from remo_broker.protocol.codes import Code, Reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from remo_broker.broker.loop import Loop
    from remo_broker.broker.sockets.connection import Sweeper


# Connections to accept from one listener in one turn if its queue is busy, i.e. was not empty for
# `BUSY_TURNS` turns in a row. Otherwise one is accepted: the attempt that finds the queue empty
# would cost each connection a system call.
ACCEPTS_PER_TURN = 16
# The most connections that can wait in a listener's queue.
MAX_WAITING = 4096
BUSY_TURNS = 16
# How long to ignore a listener after descriptors have run out; the loop would spin otherwise.
EXHAUSTED_SECONDS = 0.2
# The same while it may not accept, which systemd changes within milliseconds, and a project's own
# peers sooner: most of them leave after one reply.
NOT_PERMITTED_SECONDS = 0.02
FULL_SECONDS = 0.002
# Excess connections of one plane that get an error reply, at one time. Further ones are closed
# without a reply: each holds a descriptor until its peer has read the error, and descriptors are
# scarce.
MAX_OVERFLOW = 16
# Mode of a control socket that the broker binds itself: its group contains the users of all
# projects, who must not push.
CONTROL_MODE = 0o600

TOO_MANY_CONNECTIONS = Refused(
    Code.RATE_LIMITED,
    Reason.TOO_MANY_CONNECTIONS,
    "too many open connections; close some, or have the limit raised",
    retry_after_seconds=1,
)


_FAMILY, _KIND = _socket.AF_UNIX, _socket.SOCK_STREAM


class Listener:
    """A listening socket on the loop. `on_accept` receives each connection with its peer."""

    def __init__(
        self,
        loop: Loop,
        listening: _socket.socket,
        on_accept: Callable[[Accepted, Peer], None],
        *,
        held_by_unit: bool = False,
        has_file: bool = True,
        may_accept: Callable[[], bool] | None = None,
        pause_seconds: float = NOT_PERMITTED_SECONDS,
    ) -> None:
        """`has_file`: whether the file at its path is known to be its own. `may_accept`: asked
        before each connection is accepted; if it may not be, it waits in the queue, and is asked
        for again after `pause_seconds`."""
        self.socket = listening
        self.path = str(listening.getsockname())
        self.held_by_unit = held_by_unit
        """A connect starts the broker if it is not running."""
        self.on_accept = on_accept
        self.may_accept = may_accept
        self._pause_seconds = pause_seconds
        # Not `accept`, which creates an object of Python's own class, looks up two enums and checks
        # timeouts.
        self._accept: Callable[[], tuple[int, object]] = listening._accept  # type: ignore[attr-defined]
        self._turn = loop.turns
        """The turn in which a connection was last accepted."""
        self._empty = -1
        """The last turn in which its queue was seen empty."""
        self._busy = 0
        """How many consecutive turns up to then accepted connections."""
        self._early = refuse_descriptors(listening)
        """Connections made before the listener refused descriptors may be in its queue."""
        self._file = _identity(self.path) if has_file else None
        self._rests = False
        self._loop = loop
        loop.watch(listening.fileno(), READ, self._ready)

    def _ready(self) -> None:
        turn = self._loop.turns
        if turn == self._turn + 1:
            self._busy += 1
        else:
            self._busy = 0
            if self._loop.full_turn != turn - 1:
                self._empty = turn - 1
        self._turn = turn
        self._take(ACCEPTS_PER_TURN if self._busy >= BUSY_TURNS else 1)

    def take_waiting(self) -> None:
        """Accept all waiting connections before closing a listener that no other process holds: the
        kernel would reset them."""
        if self.socket.fileno() >= 0:
            self._take(MAX_WAITING)

    def _take(self, at_most: int) -> None:
        for _ in range(at_most):
            if self.may_accept is not None and not self.may_accept():
                self._pause(self._pause_seconds)
                return
            try:
                descriptor, _ = self._accept()
            except BlockingIOError:
                self._busy = 0
                self._empty = self._loop.turns
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._pause(EXHAUSTED_SECONDS)
                    return
                continue  # this connection is already closed
            connection = Accepted(_FAMILY, _KIND, 0, descriptor)
            if self._early and self._is_taken_out(connection):
                continue
            self.on_accept(connection, Peer(connection, self._empty))

    def _is_taken_out(self, connection: Accepted) -> bool:
        """For a connection that may be older than the listener's refusal: whether its peer has sent
        descriptors, and it is no longer served."""
        queue = select.poll()
        queue.register(self.socket, select.POLLIN)
        self._early = bool(queue.poll(0))
        return take_out(connection)

    def _pause(self, seconds: float) -> None:
        self._loop.change(self.socket.fileno(), 0)
        self._loop.after(seconds, self._resume)

    def _resume(self) -> None:
        if self.socket.fileno() >= 0 and not self._rests:
            self._loop.change(self.socket.fileno(), READ)
            self._turn = self._loop.turns  # that it was not ready meanwhile says nothing of its queue

    @property
    def is_at_its_path(self) -> bool:
        """Whether the path still names the socket file that it named when the broker got the
        listener."""
        return self._file is not None and self._file == _identity(self.path)

    def rest(self) -> None:
        """Accept no more connections: they wait for the next broker, unless it is revoked before."""
        self._rests = True
        self._loop.forget(self.socket.fileno())

    def revoke(self) -> None:
        """Shut it down for all its holders, and close it here."""
        if self.socket.fileno() >= 0:
            self._loop.forget(self.socket.fileno())
            revoke(self.socket)
            self.socket.close()

    def close(self) -> None:
        if self.socket.fileno() >= 0:
            self._loop.forget(self.socket.fileno())
            self.socket.close()


def is_bound(path: str) -> bool:
    """Whether a process holds the socket of this file. Without a connection that somebody would
    have to accept: the kernel looks for the socket first, then at its type."""
    probe = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
    try:
        probe.connect(path)
    except OSError as error:
        return error.errno not in (errno.ECONNREFUSED, errno.ENOENT)
    finally:
        probe.close()
    return True


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISSOCK(found.st_mode) else None


def is_held_by_unit(listening: _socket.socket) -> bool:
    """Whether a passed listener comes from a socket unit: systemd then holds it while the unit is
    active, and starts the broker on a connect. SO_PEERCRED of a listening socket identifies the
    process that called listen(2)."""
    maker: int = Peer(listening).pid
    return maker > 0 and maker == os.getppid()


def is_revoked(listening: _socket.socket) -> bool:
    """Whether a broker has revoked this listener; other holders are not notified."""
    poll = select.poll()
    poll.register(listening, 0)
    return any(events & select.POLLHUP for _, events in poll.poll(0))


def revoke(listening: _socket.socket) -> None:
    """Shut a listener down for all its holders, wherever its file is mounted: no client can connect
    to it any more, and no process can make it listen again. Connections in its queue are closed.
    The caller closes the listener."""
    listening.shutdown(_socket.SHUT_RDWR)
    while True:
        try:
            waiting = accept(listening)
        except OSError:
            return
        if not take_out(waiting):
            waiting.close()


def unlink(path: str) -> None:
    try:  # noqa: SIM105 - importing contextlib costs the start a millisecond
        os.unlink(path)
    except OSError:
        pass  # it has already been removed


class Overflow:
    """Sends an error reply to excess connections, up to `MAX_OVERFLOW` at a time."""

    def __init__(
        self,
        loop: Loop,
        sweeper: Sweeper,
        refusal: Refused = TOO_MANY_CONNECTIONS,
        discard: Callable[[Accepted], int] = discard,
    ) -> None:
        self.open = 0
        self.discard = discard
        self._loop = loop
        self._sweeper = sweeper
        self._line = refusal.line()

    def refuse(self, connection: Accepted) -> None:
        if self.open >= MAX_OVERFLOW:
            connection.close()
        else:
            _OverflowConnection(self._loop, self._sweeper, connection, self).end_with(self._line)


class _OverflowConnection(Connection):
    __slots__ = ("_overflow",)

    def __init__(self, loop: Loop, sweeper: Sweeper, connection: Accepted, overflow: Overflow) -> None:
        super().__init__(loop, sweeper, connection)
        self._overflow = overflow
        overflow.open += 1

    def discard(self) -> int:
        return self._overflow.discard(self.socket)

    def close(self) -> None:
        if not self.closed:
            self._overflow.open -= 1
        super().close()
