"""The status socket: `status` as on the admin socket, and `watch`, a stream of changes for
`remo-broker-bus`.

The stream carries states, not history. The broker computes the difference to the last state sent
when the socket accepts more, so a watcher that does not read costs nothing and misses only
intermediate counts.
"""

from __future__ import annotations

from remo_broker.broker.handlers import table
from remo_broker.broker.loop import READ
from remo_broker.broker.refusals import Refused, protocol_error
from remo_broker.broker.requests import decode
from remo_broker.broker.secrets.strict_json import finish, scan
from remo_broker.broker.sockets.connection import PEER_SECONDS, Connection, Stream
from remo_broker.broker.sockets.listener import Overflow
from remo_broker.protocol.codes import STATUS, Reason
from remo_broker.protocol.lines import LineBuffer
from remo_broker.protocol.message import encode
from remo_broker.protocol.ops import STATUS_REQUESTS, Status, Watch
from remo_broker.protocol.replies import ProjectEvent, RemovedEvent, StoppingEvent, SyncedEvent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as Accepted  # noqa: N812 - what accept returns
    from collections.abc import Callable
    from typing import Any

    from remo_broker.broker.loop import Job, Loop
    from remo_broker.broker.sockets.connection import Peer, Sweeper
    from remo_broker.broker.status import StatusReport
    from remo_broker.protocol.ops import Request

# The bus service uses one connection; the others are for interactive use.
MAX_CONNECTIONS = 8
# How often to send counters if nothing else changes.
COUNTERS_SECONDS = 1.0
# Requests on this socket are short.
MAX_REQUEST = 4096

TOO_LONG = protocol_error(
    Reason.TOO_LONG, f"a request on the status socket may have {MAX_REQUEST} bytes", fatal=True
).line()


class StatusConnection(Connection):
    """A connection on the status socket."""

    __slots__ = ("_at_end", "_lines", "_queued", "_server", "report")

    def __init__(self, server: StatusServer, connection: Accepted) -> None:
        super().__init__(server.loop, server.sweeper, connection)
        self.report = server.report
        self._server = server
        self._lines = LineBuffer()
        self._at_end = False
        self._queued = False
        """A line was answered; the next turn continues."""

    def readable(self) -> None:
        try:
            data = self.socket.recv(MAX_REQUEST)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._lines.feed(data)
        self._at_end = not data
        self._answer_lines()

    def _answer_lines(self) -> None:
        """Answer one of the lines that were read, and the others in later turns: a status page
        takes a few milliseconds."""
        if self.pending or self.closed or self.ending or self._queued:
            return
        line = self._lines.next_line()
        if line is None and self._at_end:
            line = self._lines.last_line()
        if line is not None:
            self._answer(line)
            if not self.closed:
                self._queue()
            return
        if self._at_end:
            self.end_of_requests()
        elif len(self._lines) > MAX_REQUEST:
            self.end_with(TOO_LONG)
        elif self._lines and self.stream is None:
            self.sweeper.set(self, PEER_SECONDS)

    def _queue(self) -> None:
        """Go on in the next turn; do not read meanwhile."""
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
        HANDLERS[type(request)](self, request)

    def drained(self) -> None:
        self._answer_lines()

    def close(self) -> None:
        self._server.connections.discard(self)
        super().close()


def _status(connection: StatusConnection, request: Status) -> None:
    connection.send(encode(connection.report.page(request.after).to_json()))


def _watch(connection: StatusConnection, _request: Watch) -> None:
    connection.begin(StatusStream(connection, connection.report))


HANDLERS: dict[type[Request], Callable[[StatusConnection, Any], None]] = table(STATUS, {Status: _status, Watch: _watch})


class StatusStream(Stream):
    """The state of the broker and its projects: first all of it, then changes."""

    def __init__(self, connection: Connection, report: StatusReport) -> None:
        self._connection = connection
        self._report = report
        self._counters_due = True
        """Counters are due and not all have been sent."""
        self._sent: dict[str, tuple[int, ...]] = {}
        """By project: a fingerprint of the state that was last sent."""
        self._sent_broker = b""
        self._sent_standing: tuple[int, ...] = ()
        self._sent_synced = False

    def counters_are_due(self) -> None:
        """From now on, also send lines in which only counters have changed."""
        self._counters_due = True

    def send_new(self) -> None:
        connection, report = self._connection, self._report
        for name in [name for name in self._sent if not report.has(name)]:
            if connection.pending or connection.closed:
                return
            del self._sent[name]
            connection.send(encode(RemovedEvent(name=name).to_json()))
        if connection.pending or connection.closed:
            return
        standing = report.standing()
        if self._counters_due or standing != self._sent_standing:
            self._sent_standing = standing
            line = encode(report.event().to_json())
            if line != self._sent_broker:
                self._sent_broker = line
                connection.send(line)
        for name, serial in report.serials():
            if connection.pending or connection.closed:
                return
            sent = self._sent.get(name)
            if self._counters_due or sent is None or sent[0] != serial:
                mark = serial, *report.counters(name)
                if sent != mark:
                    self._sent[name] = mark
                    connection.send(encode(ProjectEvent(**report.project(name).__dict__).to_json()))
        self._counters_due = False
        if not self._sent_synced and not connection.pending and not connection.closed:
            self._sent_synced = True
            connection.send(encode(SyncedEvent().to_json()))

    def stopping(self, *, idle: bool) -> None:
        """The broker is stopping: send the last changes and a stopping event."""
        if not self._connection.pending:
            self.send_new()
            self._connection.send(encode(StoppingEvent(idle=idle).to_json()))


class StatusServer:
    """All connections on the status socket. They do not keep the broker from exiting when idle."""

    def __init__(self, loop: Loop, sweeper: Sweeper, report: StatusReport) -> None:
        self.loop = loop
        self.sweeper = sweeper
        self.report = report
        self.connections: set[StatusConnection] = set()
        self._ticking = False
        self._overflow = Overflow(loop, sweeper)

    def accepted(self, connection: Accepted, _peer: Peer) -> None:
        if len(self.connections) >= MAX_CONNECTIONS:
            self._overflow.refuse(connection)
            return
        self.connections.add(StatusConnection(self, connection))
        if not self._ticking:
            self._ticking = True
            self.loop.after(COUNTERS_SECONDS, self._tick)

    def changed(self) -> None:
        """Something other than a counter has changed."""
        for stream in self._streams():
            stream.send_new()

    def _streams(self) -> list[StatusStream]:
        return [one.stream for one in self.connections if isinstance(one.stream, StatusStream)]

    def _tick(self) -> None:
        self._ticking = bool(self.connections)
        if self._ticking:
            for stream in self._streams():
                stream.counters_are_due()
            self.changed()
            self.loop.after(COUNTERS_SECONDS, self._tick)

    def stopping(self, *, idle: bool) -> None:
        """The broker is stopping: tell the watchers and close all connections."""
        for stream in self._streams():
            stream.stopping(idle=idle)
        for connection in list(self.connections):
            connection.end()
