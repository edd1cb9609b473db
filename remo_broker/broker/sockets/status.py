"""The status socket: `status` as on the admin socket, and `watch`, a stream of changes for `remo-broker-bus`.

A watcher is told states, not history: what changed since it was last told is worked out when its socket takes more, so
one that does not read costs nothing and misses nothing but intermediate counts.
"""

from __future__ import annotations

import select

from remo_broker.broker.loop import READ
from remo_broker.broker.refusals import Refused, protocol_error
from remo_broker.broker.requests import decode
from remo_broker.broker.secrets.json_spans import finish, scan
from remo_broker.broker.sockets.connection import PEER_SECONDS, Connection, Peer
from remo_broker.broker.sockets.listener import Door
from remo_broker.protocol.message import encode
from remo_broker.protocol.ops import (
    STATUS_REQUESTS,
    ProjectEvent,
    Reason,
    RemovedEvent,
    Status,
    StoppingEvent,
    SyncedEvent,
    Watch,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

    from remo_broker.broker.loop import Job, Loop
    from remo_broker.broker.sockets.connection import Sweeper
    from remo_broker.broker.status import StatusReport

# The bus service has one connection; a few more for whoever looks on.
MAX_CONNECTIONS = 8
# How often counters are told, if nothing else changes.
COUNTERS_SECONDS = 1.0
# Requests on this socket are short.
MAX_REQUEST = 4096

TOO_LONG = protocol_error(
    Reason.TOO_LONG, f"a request on the status socket may have {MAX_REQUEST} bytes", fatal=True
).line()


class Onlooker(Connection):
    """A connection on the status socket; a watcher once it has asked to `watch`."""

    __slots__ = (
        "_at_end",
        "_counters_due",
        "_plane",
        "_queued",
        "_told",
        "_told_broker",
        "_told_standing",
        "_told_synced",
        "_unread",
        "watching",
    )

    def __init__(self, plane: StatusPlane, connection: socket.socket) -> None:
        super().__init__(plane.loop, plane.sweeper, connection)
        self.watching = False
        self._plane = plane
        self._unread = b""
        self._at_end = False
        self._queued = False
        """A line was answered and the next turn goes on."""
        self._counters_due = True
        """Not all counters were told since it was their time."""
        self._told: dict[str, tuple[int, ...]] = {}
        self._told_broker = b""
        self._told_standing: tuple[int, ...] = ()
        self._told_synced = False

    def readable(self) -> None:
        try:
            data = self.socket.recv(MAX_REQUEST)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._unread += data
        self._at_end = not data
        self._answer_lines()

    def _answer_lines(self) -> None:
        """Answer one line of what was read, and the others in turns to come: a status page costs some milliseconds."""
        if self.pending or self.closed or self.ending or self._queued:
            return
        line, newline, rest = self._unread.partition(b"\n")
        if newline or (self._at_end and line):  # the last line may have none
            self._unread = rest
            self._answer(line)
            if not self.closed:
                self._queue()
            return
        if self._at_end:
            # A watcher that says no more than `watch` may half-close and listen.
            if self.watching and not _hung_up(self.fd):
                self.loop.change(self.fd, 0)
            else:
                self.end()
        elif len(self._unread) > MAX_REQUEST:
            self.end_with(TOO_LONG)
        elif self._unread and not self.watching:
            self.sweeper.set(self, PEER_SECONDS)

    def _queue(self) -> None:
        """Go on in the next turn; nothing is read meanwhile."""
        self._queued = True
        if not self.pending:
            self.loop.change(self.fd, 0)
        self.loop.start(self._go_on())

    def _go_on(self) -> Job:
        yield None
        self._queued = False
        if not (self.pending or self.closed or self.ending):
            self.loop.change(self.fd, READ)
            self._answer_lines()

    def _answer(self, line: bytes) -> None:
        if self.closed or self.ending:
            return
        try:
            request = decode(line, finish(scan(line, 0, len(line))), STATUS_REQUESTS)
        except Refused as refusal:
            self.send(refusal.line())
            return
        self.sweeper.lift(self)
        if isinstance(request, Watch):
            self.watching = True
            self.tell()
        else:
            assert isinstance(request, Status)
            self.send(encode(self._plane.report.page(request.after).to_json()))

    def drained(self) -> None:
        if self.watching:
            self.tell()
        self._answer_lines()

    def tell(self, *, counters: bool = False) -> None:
        """Write what changed since the last time, as far as the socket takes it. A line tells all of the broker or of a
        project; `counters` says that it is time for those lines too in which nothing but counters has changed."""
        self._counters_due = self._counters_due or counters
        report = self._plane.report
        for name in [name for name in self._told if not report.has(name)]:
            if self.pending or self.closed:
                return
            del self._told[name]
            self.send(encode(RemovedEvent(name=name).to_json()))
        if self.pending or self.closed:
            return
        standing = report.standing()
        if self._counters_due or standing != self._told_standing:
            self._told_standing = standing
            line = encode(report.event().to_json())
            if line != self._told_broker:
                self._told_broker = line
                self.send(line)
        for name, serial in report.serials():
            if self.pending or self.closed:
                return
            told = self._told.get(name)
            if self._counters_due or told is None or told[0] != serial:
                mark = serial, *report.counters(name)
                if told != mark:
                    self._told[name] = mark
                    self.send(encode(ProjectEvent(**report.project(name).__dict__).to_json()))
        self._counters_due = False
        if not self._told_synced and not self.pending and not self.closed:
            self._told_synced = True
            self.send(encode(SyncedEvent().to_json()))

    def close(self) -> None:
        self._plane.onlookers.discard(self)
        super().close()


def _hung_up(descriptor: int) -> bool:
    """Whether the peer does not read either: epoll would tell so in every turn."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return bool(poll.poll(0))


class StatusPlane:
    """All connections on the status socket. They do not keep the broker awake."""

    def __init__(self, loop: Loop, sweeper: Sweeper, report: StatusReport) -> None:
        self.loop = loop
        self.sweeper = sweeper
        self.report = report
        self.onlookers: set[Onlooker] = set()
        self._ticking = False
        self._door = Door(loop, sweeper)

    def accepted(self, connection: socket.socket, _peer: Peer) -> None:
        if len(self.onlookers) >= MAX_CONNECTIONS:
            self._door.turn_away(connection)
            return
        self.onlookers.add(Onlooker(self, connection))
        if not self._ticking:
            self._ticking = True
            self.loop.after(COUNTERS_SECONDS, self._tick)

    def changed(self, *, counters: bool = False) -> None:
        """Something other than a counter has changed, or it is time for `counters`."""
        for onlooker in list(self.onlookers):
            if onlooker.watching:
                onlooker.tell(counters=counters)

    def _tick(self) -> None:
        self._ticking = bool(self.onlookers)
        if self._ticking:
            self.changed(counters=True)
            self.loop.after(COUNTERS_SECONDS, self._tick)

    def stopping(self, *, idle: bool) -> None:
        """The broker ends; say so and close."""
        for onlooker in list(self.onlookers):
            if onlooker.watching and not onlooker.pending:
                onlooker.tell()
                onlooker.send(encode(StoppingEvent(idle=idle).to_json()))
            onlooker.end()
