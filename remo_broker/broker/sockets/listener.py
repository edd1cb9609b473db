"""Listening sockets: handed over by systemd or bound here; and those who connect without getting anywhere."""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
from _socket import socket as Accepted  # noqa: N812 - told from what listens

from remo_broker.broker.loop import READ
from remo_broker.broker.refusals import Refused
from remo_broker.broker.sockets.connection import Connection, Peer, discard
from remo_broker.protocol.ops import Code, Reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from remo_broker.broker.loop import Loop
    from remo_broker.broker.sockets.connection import Sweeper


# Connections taken from one listener in one turn, if its queue is busy: it was never empty in so many turns. Otherwise one
# is taken, because the try that finds the queue empty would cost every connection a system call.
ACCEPTS_PER_TURN = 16
# As many as can wait in the queue of a listener.
MAX_WAITING = 4096
BUSY_TURNS = 16
# How long a listener is not looked at when descriptors have run out: the loop would spin on it.
EXHAUSTED_SECONDS = 0.2
# Connections of one plane that are told, at one time, that there are too many. What is beyond is closed without a word:
# each holds a descriptor until its peer has read why, and those are what is short.
MAX_TURNED_AWAY = 16
# Mode of a control socket that the broker binds itself: its group is that of all projects' users, who must not push.
CONTROL_MODE = 0o600

TOO_MANY_CONNECTIONS = Refused(
    Code.RATE_LIMITED,
    Reason.TOO_MANY_CONNECTIONS,
    "too many open connections; close some, or have the limit raised",
    retry_after_seconds=1,
)


# As numbers: the members of the enums cost a look-up each.
_FAMILY, _KIND = int(socket.AF_UNIX), int(socket.SOCK_STREAM)


class Listener:
    """A listening socket on the loop. `on_accept` gets each connection with its peer."""

    def __init__(
        self,
        loop: Loop,
        listening: socket.socket,
        on_accept: Callable[[Accepted, Peer], None],
        *,
        held_by_unit: bool = False,
    ) -> None:
        self.socket = listening
        self.path = str(listening.getsockname())
        self.held_by_unit = held_by_unit
        """A connect starts the broker when it does not run."""
        self.on_accept = on_accept
        # Not `accept`, which makes an object of Python's own class, looks up two enums and sets the socket non-blocking.
        self._accept: Callable[[], tuple[int, object]] = listening._accept  # type: ignore[attr-defined]
        self._turn = 0
        """When a connection was last taken."""
        self._busy = 0
        """In how many turns up to then, one after the other."""
        self._file = _identity(self.path)
        self._loop = loop
        loop.watch(listening.fileno(), READ, self._ready)

    def _ready(self) -> None:
        turn = self._loop.turns
        self._busy = self._busy + 1 if turn == self._turn + 1 else 0
        self._turn = turn
        self._take(ACCEPTS_PER_TURN if self._busy >= BUSY_TURNS else 1)

    def take_waiting(self) -> None:
        """Take everybody who waits, before the listener is closed and nobody else holds it: they would be reset."""
        if self.socket.fileno() >= 0:
            self._take(MAX_WAITING)

    def _take(self, at_most: int) -> None:
        for _ in range(at_most):
            try:
                descriptor, _ = self._accept()
            except BlockingIOError:
                self._busy = 0
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._loop.change(self.socket.fileno(), 0)
                    self._loop.after(EXHAUSTED_SECONDS, self._resume)
                    return
                continue  # this one is gone already
            connection = Accepted(_FAMILY, _KIND, 0, descriptor)
            self.on_accept(connection, Peer(connection))

    def _resume(self) -> None:
        if self.socket.fileno() >= 0:
            self._loop.change(self.socket.fileno(), READ)

    @property
    def is_at_its_path(self) -> bool:
        """Whether the socket's file is still where it was when the broker got the listener."""
        return self._file is not None and self._file == _identity(self.path)

    def revoke(self) -> None:
        """End it for all its holders, and close it here."""
        if self.socket.fileno() >= 0:
            self._loop.forget(self.socket.fileno())
            revoke(self.socket)
            self.socket.close()

    def close(self) -> None:
        if self.socket.fileno() >= 0:
            self._loop.forget(self.socket.fileno())
            self.socket.close()


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISSOCK(found.st_mode) else None


def is_held_by_unit(listening: socket.socket) -> bool:
    """Whether a socket unit made a listener that was handed over: systemd then holds it for as long as the unit is active,
    and starts the broker when somebody connects. SO_PEERCRED of a listening socket tells who called listen(2)."""
    maker: int = Peer(listening).pid
    return maker > 0 and maker == os.getppid()


def is_revoked(listening: socket.socket) -> bool:
    """Whether a broker has revoked this listener; other holders of it do not notice."""
    poll = select.poll()
    poll.register(listening, 0)
    return any(events & select.POLLHUP for _, events in poll.poll(0))


def revoke(listening: socket.socket) -> None:
    """End a listener for everybody who holds it, wherever its file is mounted: nobody can connect to it any more, nor make
    it listen again. Who waits in its queue is turned away. The caller closes it."""
    listening.shutdown(socket.SHUT_RDWR)
    while True:
        try:
            waiting, _ = listening.accept()
        except OSError:
            return
        waiting.close()


def unlink(path: str) -> None:
    try:  # noqa: SIM105 - importing contextlib costs the start a millisecond
        os.unlink(path)
    except OSError:
        pass  # it is gone already


class Door:
    """Tells those who are too many, as long as these are not too many."""

    def __init__(
        self,
        loop: Loop,
        sweeper: Sweeper,
        refusal: Refused = TOO_MANY_CONNECTIONS,
        discard: Callable[[Accepted], int] = discard,
    ) -> None:
        self.turned_away = 0
        self.discard = discard
        self._loop = loop
        self._sweeper = sweeper
        self._line = refusal.line()

    def turn_away(self, connection: Accepted) -> None:
        if self.turned_away >= MAX_TURNED_AWAY:
            connection.close()
        else:
            _TurnedAway(self._loop, self._sweeper, connection, self).end_with(self._line)


class _TurnedAway(Connection):
    __slots__ = ("_door",)

    def __init__(self, loop: Loop, sweeper: Sweeper, connection: Accepted, door: Door) -> None:
        super().__init__(loop, sweeper, connection)
        self._door = door
        door.turned_away += 1

    def discard(self) -> int:
        return self._door.discard(self.socket)

    def close(self) -> None:
        if not self.closed:
            self._door.turned_away -= 1
        super().close()
