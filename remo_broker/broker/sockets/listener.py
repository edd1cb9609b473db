"""Listening sockets: handed over by systemd or bound here; and those who connect without getting anywhere."""

from __future__ import annotations

import errno
import os
import socket
import stat
from enum import StrEnum

from remo_broker.broker.loop import READ
from remo_broker.broker.refusals import Refused
from remo_broker.broker.sockets.connection import Connection, Peer, discard
from remo_broker.protocol.ops import Code, Reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from remo_broker.broker.loop import Loop
    from remo_broker.broker.sockets.connection import Sweeper


# As systemd has it: what does not fit waits in connect(), so that a restart under load refuses nobody.
BACKLOG = 4096
# Connections taken from one listener in one turn.
ACCEPTS_PER_TURN = 16
# Out of descriptors: let the queue be for so long, lest the loop spins on it.
EXHAUSTED_SECONDS = 0.2
# Connections of one plane that are told, at one time, that there are too many. What is beyond is closed without a word:
# each holds a descriptor until its peer has read why, and those are what is short.
MAX_TURNED_AWAY = 16
# Mode of a socket that the broker binds itself: its user and its group, as `remo-broker-client@.socket` has it.
SOCKET_MODE = 0o660
# Of a control socket that it binds itself: its group is that of all projects' users, who shall not push.
CONTROL_MODE = 0o600

TOO_MANY_CONNECTIONS = Refused(
    Code.RATE_LIMITED,
    Reason.TOO_MANY_CONNECTIONS,
    "too many open connections; close some, or have the limit raised",
    retry_after_seconds=1,
)


class Origin(StrEnum):
    """Who made a listening socket: what follows from it is that only a unit's starts the broker again, and only the broker's own
    is unlinked."""

    UNIT = "unit"
    """Whoever started the broker, and holds it still."""
    BROKER = "broker"
    """This one, or one before it whose socket has come back from the descriptor store."""
    UNKNOWN = "unknown"


class Listener:
    """A listening socket on the loop. `on_accept` gets each connection with its peer."""

    def __init__(
        self,
        loop: Loop,
        listening: socket.socket,
        on_accept: Callable[[socket.socket, Peer], None],
        origin: Origin,
    ) -> None:
        self.socket = listening
        self.path = str(listening.getsockname())
        self.origin = origin
        self.on_accept = on_accept
        self._loop = loop
        loop.watch(listening.fileno(), READ, self._ready)

    def _ready(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                connection, _ = self.socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._loop.change(self.socket.fileno(), 0)
                    self._loop.after(EXHAUSTED_SECONDS, self._resume)
                    return
                continue  # this one is gone already
            connection.setblocking(False)
            self.on_accept(connection, Peer(connection))

    def _resume(self) -> None:
        if self.socket.fileno() >= 0:
            self._loop.change(self.socket.fileno(), READ)

    def close(self) -> None:
        if self.socket.fileno() >= 0:
            self._loop.forget(self.socket.fileno())
            self.socket.close()


def origin_of(listening: socket.socket, *, store: bool) -> Origin:
    """Where a socket comes from that was handed over, by who called listen(2): on a listening socket that is whom SO_PEERCRED
    tells. `store`: there is a manager that may have kept it for the broker.

    What the broker bound itself and stored has a former broker's pid, and that one is gone. A launcher in between may have
    any pid, this process's own as well if it has executed the broker: that is nobody's to unlink.
    """
    maker = Peer(listening)
    if maker.pid and maker.pid == os.getppid():
        return Origin.UNIT
    if store and maker.uid == os.geteuid() and maker.pid and not _lives(maker.pid):
        return Origin.BROKER
    return Origin.UNKNOWN


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def leads_to(path: str, listening: socket.socket) -> bool:
    """Whether who connects to `path` comes to `listening`, and not to a socket that somebody has put in its place: the
    connection tells who called listen(2) as well."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except OSError:
            return False
        there, here = Peer(probe), Peer(listening)
        return (there.pid, there.uid) == (here.pid, here.uid)


def bind(path: str, mode: int = SOCKET_MODE) -> socket.socket:
    """A listening socket at `path`. A dead one that is in the way is removed. Raises `Refused`."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.setblocking(False)
    before = os.umask(0o777 & ~mode)
    try:
        try:
            listening.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_dead(path):
                raise
            os.unlink(path)
            listening.bind(path)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise Refused(
            Code.INTERNAL_ERROR,
            Reason.SOCKET_UNAVAILABLE,
            # A path that is too long is no error of the system's, so it has no number.
            f"cannot listen on {path}: {error.strerror or error}; look at the path, and at who owns it and its directory",
        ) from None
    finally:
        os.umask(before)
    return listening


def _is_dead(path: str) -> bool:
    """Whether `path` is a socket that nobody listens on."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(path) == errno.ECONNREFUSED


def unlink(path: str) -> None:
    try:  # noqa: SIM105 - importing contextlib costs the start a millisecond
        os.unlink(path)
    except OSError:
        pass  # whoever removed it has done what was wanted


class Door:
    """Tells those who are too many, as long as these are not too many."""

    def __init__(
        self,
        loop: Loop,
        sweeper: Sweeper,
        refusal: Refused = TOO_MANY_CONNECTIONS,
        discard: Callable[[socket.socket], int] = discard,
    ) -> None:
        self.turned_away = 0
        self.discard = discard
        self._loop = loop
        self._sweeper = sweeper
        self._line = refusal.line()

    def turn_away(self, connection: socket.socket) -> None:
        if self.turned_away >= MAX_TURNED_AWAY:
            connection.close()
        else:
            _TurnedAway(self._loop, self._sweeper, connection, self).end_with(self._line)


class _TurnedAway(Connection):
    __slots__ = ("_door",)

    def __init__(self, loop: Loop, sweeper: Sweeper, connection: socket.socket, door: Door) -> None:
        super().__init__(loop, sweeper, connection)
        self._door = door
        door.turned_away += 1

    def discard(self) -> int:
        return self._door.discard(self.socket)

    def close(self) -> None:
        if not self.closed:
            self._door.turned_away -= 1
        super().close()
