"""Connections on the projects' sockets: from bytes to requests and handlers.

The hot path begins in `ProjectConnection.readable`: one receive, one lookup of the line by its
bytes.
"""

from __future__ import annotations

from remo_broker.broker.audit import identity
from remo_broker.broker.audit.floods import LongNames, RateLimitRecords
from remo_broker.broker.handlers import table
from remo_broker.broker.loop import READ
from remo_broker.broker.projects import LONGEST_KNOWN_LINE
from remo_broker.broker.refusals import Refused, protocol_error
from remo_broker.broker.requests import decode
from remo_broker.broker.secrets.strict_json import finish, scan
from remo_broker.broker.sockets.connection import DONTWAIT, INERT, PEER_SECONDS
from remo_broker.broker.sockets.fair_queue import FairQueue, QueuedConnection
from remo_broker.broker.sockets.outbox import Outbox
from remo_broker.broker.sockets.watch import ProjectStream, Watchers
from remo_broker.protocol.codes import PROJECT, Code, Reason
from remo_broker.protocol.message import encode
from remo_broker.protocol.ops import PROJECT_REQUESTS, Bindings, Get, Info, Peek, Ping, Ready, WatchProject
from remo_broker.protocol.shared_limits import MAX_MESSAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as Accepted  # noqa: N812 - what accept returns
    from collections.abc import Callable, Generator
    from typing import Any

    from remo_broker.broker.audit.trail import AuditTrail
    from remo_broker.broker.decisions import Decisions
    from remo_broker.broker.loop import Loop
    from remo_broker.broker.projects import Grant, Project
    from remo_broker.broker.secrets.strict_json import Node
    from remo_broker.broker.sockets.connection import Peer, Sweeper
    from remo_broker.protocol.ops import Request

# Read sizes. A get has about 40 bytes, so most reads contain one request; a longer request takes
# several. The first read is small: its memory is filled on allocation and again when freed, which
# costs 1 µs for 4 KiB.
FIRST_READ_SIZE = 512
READ_SIZE = 4096
# The most bytes of unfinished requests for all connections of a project together: sixteen of the
# longest. Above that, no connection may keep more than one read.
MAX_UNREAD = 16 * MAX_MESSAGE
# A line costs 1 unit of its project's share, and 1 more for each 2^5 bytes. Numbers are the slowest
# to parse, 0.6 µs a byte.
BYTES_PER_UNIT_SHIFT = 5
# Longer lines are parsed in steps, with other work in between: 64 KiB of numbers take 40 ms.
LONG_LINE = LONGEST_KNOWN_LINE
# The cost of such a step: about 0.5 ms, see `strict_json`.
STEP_COST = 32

TOO_LONG = protocol_error(
    Reason.TOO_LONG, f"a request may have {MAX_MESSAGE} bytes, its newline included", fatal=True
).line()
TOO_SLOW = protocol_error(
    Reason.TOO_SLOW, f"the request was not finished within {PEER_SECONDS:g} seconds; send it in one piece", fatal=True
).line()
TOO_MUCH_UNREAD = Refused(
    Code.RATE_LIMITED,
    Reason.TOO_MANY_REQUESTS,
    "the project's connections hold too many unfinished requests; send each in one piece",
    retry_after_seconds=1,
).line()


class ProjectConnection(QueuedConnection):
    """A connection on a registered project's socket."""

    __slots__ = (
        "_at_end",
        "_long",
        "_queued",
        "_steps",
        "_unread",
        "outbox",
        "peer",
        "peer_fields",
        "project",
        "server",
    )

    def __init__(self, server: ProjectServer, project: Project, connection: Accepted, peer: Peer) -> None:
        super().__init__(server.loop, server.sweeper, connection, at_once=True)
        self.server = server
        self.outbox = server.outbox
        self.project = project
        self.peer = peer
        self.peer_fields = identity.peer_fields(connection, peer, server.loop.turns)
        self._unread = b""
        self._at_end = False
        self._queued = False
        """Complete lines are left for the next turn."""
        self._long = 0
        """The length in bytes of the long line at the start of `_unread`; 0 if there is none."""
        self._steps: Generator[None, None, Node] | None = None
        """Parses the long line."""
        project.connections += 1
        server.connections.add(self)
        server.accepted.append(self)
        self.ready()

    def readable(self) -> None:
        if self._queued:  # the peer has hung up, which epoll always reports
            return
        try:
            data = self.socket.recv(READ_SIZE if self._unread else FIRST_READ_SIZE, DONTWAIT)
        except BlockingIOError:
            if self.registered == INERT:
                self.want(READ)
            return
        except OSError:
            self.close()
            return
        if not data and not self._unread and self.stream is None:
            self.close()  # the usual end: all requests were answered in earlier turns
            return
        if self.registered == INERT:
            self.want(READ)
        # A read that is exactly one known line needs no parsing, which saves 9 µs.
        grant = self.project.lines.get(data)
        if grant is not None and not self._unread:
            self._fetch(grant)
            return
        if data:
            self._keep(self._unread + data)
            if self.project.unread_bytes > MAX_UNREAD and len(self._unread) > READ_SIZE:
                self._fail(TOO_MUCH_UNREAD)
                return
        else:
            self._at_end = True
        self._answer_lines()

    def drained(self) -> None:
        if not self._queued:
            self.go_on()

    # --- lines

    def _keep(self, unread: bytes) -> None:
        self.project.unread_bytes += len(unread) - len(self._unread)
        self._unread = unread

    def _queue(self) -> None:
        """Go on in the next turn. Do not read meanwhile, so that no peer can make the broker buffer
        all that it sends."""
        self._queued = True
        self.want(0)
        self.sweeper.lift(self)
        self.server.queue.add(self)

    def go_on(self) -> None:
        self._queued = False
        if self.closed or self.ending or self.pending:
            return
        self.want(READ)
        if not self._long or self._read_long_line():
            self._answer_lines()

    @property
    def has_to_wait(self) -> bool:
        project = self.project
        return not self.closed and (project.share <= 0 or (self._long > 0 and project.reader not in (None, self)))

    def _answer_lines(self) -> None:
        """Answer the complete lines that were read and, at the end of the stream, a last line
        without a newline."""
        unread = self._unread
        start = 0
        while True:
            newline = unread.find(b"\n", start)
            after = newline + 1 if newline >= 0 else len(unread)
            length = after - start
            if length > MAX_MESSAGE:
                self._keep(unread[start:])
                self._fail(TOO_LONG)
                return
            if newline < 0 and not (self._at_end and length):
                break
            if self.project.share <= 0:
                self._keep(unread[start:])
                self._queue()
                return
            if length > LONG_LINE:
                self._keep(unread[start:])
                self._begin_long_line(length)
                return
            self.server.queue.draw(self.project, 1 + (length >> BYTES_PER_UNIT_SHIFT))
            self._answer_line(unread[start:after])
            start = after
            if self.closed or self.ending:
                return
        self._keep(unread[start:])
        if self._at_end and self.stream is not None:
            self.outbox.flush()
            self.end_of_requests()
        elif self._at_end:
            self.outbox.end(self)
        elif not self._unread:
            self.sweeper.lift(self)
        elif start or not self.sweeper.has(self):
            self.sweeper.set(self, PEER_SECONDS)

    def _answer_line(self, line: bytes) -> None:
        project = self.project
        grant = project.lines.get(line)
        if grant is not None:
            self._fetch(grant)
            return
        if not project.bucket.take(self.loop.now):
            self._refuse_rate()
            return
        try:
            request = decode(line, finish(scan(line, 0, len(line))), PROJECT_REQUESTS)
        except Refused as refusal:
            self._refuse(refusal, line)
            return
        if isinstance(request, Get):
            known = project.grants.get(request.name)
            if known is not None and line.endswith(b"\n"):
                project.remember_line(line, known)
        HANDLERS[type(request)](self, request)

    def _fetch(self, grant: Grant) -> None:
        """A get whose line is known: the hot path."""
        now = self.loop.now
        bucket = self.project.bucket
        if bucket.per_second and not bucket.take(now):
            self._refuse_rate()
            return
        reply, head = self.server.broker.fetch(grant, now)
        self.outbox.entries.append((self, reply, head, self.peer_fields, grant))  # as `Outbox.add` does

    def _refuse(self, refusal: Refused, line: bytes) -> None:
        if not self.was_cut_short(refusal, whole=line.endswith(b"\n")):
            self.outbox.reply(self, refusal.line())

    def _refuse_rate(self) -> None:
        self.outbox.reply(self, self.server.broker.rate_limited(self.project))
        self.server.rate_limited.add(self.project.name, self.peer_fields)

    # --- long lines

    def _begin_long_line(self, length: int) -> None:
        self.server.queue.draw(self.project, 1)
        if self.project.bucket.take(self.loop.now):
            self._long = length
        else:
            self._refuse_rate()
            self._keep(self._unread[length:])
        self._queue()

    def _read_long_line(self) -> bool:
        """Parse one step of the long line. Returns whether the line has been answered."""
        if self.has_to_wait:
            self._queue()
            return False
        if self._steps is None:
            self.project.reader = self
            self._steps = scan(self._unread, 0, self._long)
        self.server.queue.draw(self.project, STEP_COST)
        try:
            next(self._steps)
        except StopIteration as end:
            try:
                request = decode(self._unread, end.value, PROJECT_REQUESTS)
                HANDLERS[type(request)](self, request)
            except Refused as refusal:
                self.outbox.reply(self, refusal.line())
        except Refused as refusal:
            self._refuse(refusal, self._unread[: self._long])
        else:
            self._queue()
            return False
        self._keep(self._unread[self._long :])
        self._end_long_line()
        return True

    def _end_long_line(self) -> None:
        self._steps = None
        self._long = 0
        if self.project.reader is self:
            self.project.reader = None

    # --- the end

    def _fail(self, line: bytes) -> None:
        """Send a final error, after the replies to earlier requests."""
        self.outbox.flush()
        self._keep(b"")  # at once, so that reaching the project's limit ends only a few connections
        self.end_with(line)

    def timed_out(self) -> None:
        if self.ending or self.pending or not self._unread:
            self.close()
        else:
            self._fail(TOO_SLOW)

    def close(self) -> None:
        if not self.closed:
            if self._unread:
                self._keep(b"")
                self._end_long_line()
            self.project.connections -= 1
            self.server.connections.discard(self)
        super().close()


def _get(connection: ProjectConnection, request: Get) -> None:
    broker, project = connection.server.broker, connection.project
    grant = project.grants.get(request.name)
    reply, head = broker.get(project, request.name, connection.loop.now)
    if grant is None and not connection.server.long_names.recorded(project.name, request.name, connection.peer_fields):
        assert isinstance(reply, bytes)
        connection.outbox.reply(connection, reply)
    else:
        connection.outbox.add(connection, reply, head, connection.peer_fields, grant)


def _ping(connection: ProjectConnection, _request: Ping) -> None:
    connection.outbox.reply(connection, connection.server.broker.ping(connection.project))


def _info(connection: ProjectConnection, _request: Info) -> None:
    connection.outbox.reply(connection, connection.server.broker.info(connection.project))


def _peek(connection: ProjectConnection, request: Peek) -> None:
    explanation = connection.server.broker.explain(connection.project, request.name, None)
    connection.outbox.reply(connection, encode(explanation.to_json()))


def _bindings(connection: ProjectConnection, _request: Bindings) -> None:
    connection.outbox.reply(connection, connection.server.broker.bindings(connection.project))


def _ready(connection: ProjectConnection, _request: Ready) -> None:
    connection.outbox.reply(connection, connection.server.broker.ready())


def _watch(connection: ProjectConnection, _request: WatchProject) -> None:
    connection.outbox.flush()  # earlier requests are answered first
    if not connection.closed:
        connection.begin(ProjectStream(connection.server.watchers, connection, connection.project))


# A handler replies through the connection's outbox, which keeps the order of the requests, or
# begins a stream.
HANDLERS: dict[type[Request], Callable[[ProjectConnection, Any], None]] = table(
    PROJECT,
    {Get: _get, Ping: _ping, Info: _info, Bindings: _bindings, Peek: _peek, Ready: _ready, WatchProject: _watch},
)


class ProjectServer:
    """All connections on the projects' sockets."""

    def __init__(self, loop: Loop, sweeper: Sweeper, broker: Decisions, trail: AuditTrail, *, deny: bool) -> None:
        self.loop = loop
        self.sweeper = sweeper
        self.broker = broker
        self.trail = trail
        self.outbox = Outbox(loop, broker, trail, deny=deny)
        self.queue = FairQueue(loop, self.outbox)
        self.long_names = LongNames(loop, trail)
        self.rate_limited = RateLimitRecords(loop, trail)
        self.watchers = Watchers(loop, broker)
        self.connections: set[ProjectConnection] = set()
        self.accepted: list[ProjectConnection] = []
        """Connections accepted in this turn, not yet registered with epoll."""
        loop.turn_ends.append(self._end_turn)

    def _end_turn(self) -> None:
        if self.outbox.entries or self.outbox.ends:
            self.outbox.flush()
        if self.accepted:
            for connection in self.accepted:
                connection.register()
            self.accepted.clear()
        if self.queue.drawn or self.queue.waiting:
            self.queue.end_turn()

    def dismiss(self, project: Project | None = None) -> None:
        """Answer what the peers of `project` (None: of all projects) have already sent, then close,
        within `PEER_SECONDS`. It gets nothing that is pushed meanwhile."""
        if project is not None and not project.dismissed:
            project.last_generation = self.broker.store.generation
        connections = [one for one in self.connections if project is None or one.project is project]
        for connection in connections:
            connection.take_no_more()

        def close() -> None:
            for connection in connections:
                connection.close()

        self.loop.after(PEER_SECONDS, close)
