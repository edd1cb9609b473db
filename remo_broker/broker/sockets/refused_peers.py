"""Refused peers: on a socket without a registered project, or with a uid that the project does not
allow."""

from __future__ import annotations

from collections import deque

from remo_broker.broker.loop import READ
from remo_broker.broker.refusals import Refused
from remo_broker.broker.requests import decode
from remo_broker.broker.secrets.strict_json import finish, scan
from remo_broker.broker.sockets.connection import PEER_SECONDS, Connection
from remo_broker.protocol import audit_records
from remo_broker.protocol.codes import Reason
from remo_broker.protocol.lines import LineBuffer
from remo_broker.protocol.names import counted
from remo_broker.protocol.ops import PROJECT_REQUESTS, Get
from remo_broker.protocol.shared_limits import MAX_MESSAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as Accepted  # noqa: N812 - what accept returns
    from collections.abc import Callable, Generator
    from typing import TypeAlias

    from remo_broker.broker.audit.floods import LongNames
    from remo_broker.broker.audit.trail import AuditTrail
    from remo_broker.broker.loop import Job, Loop
    from remo_broker.broker.sockets.connection import Sweeper

    Steps: TypeAlias = Generator[None, None, bytes | None]
    RecordOf: TypeAlias = Callable[[bytes], Steps]

# How often to record a uid that a project does not allow.
REFUSED_PEERS_SECONDS = 1.0
# The most uids to count separately at one time for a project; further ones are recorded together, in
# a record that names no peer, unless it is one.
MAX_REFUSED_UIDS = 64
MANY_UIDS = -1
# Longer lines are parsed in steps, with other work in between.
LONG_LINE = 256


class LineReader:
    """Parses the long lines of all refused peers, one line at a time and one step per turn, so that
    they do not delay clients."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._waiting: deque[RefusedConnection] = deque()
        self._running = False

    def add(self, refused: RefusedConnection) -> None:
        self._waiting.append(refused)
        if not self._running:
            self._running = True
            self._loop.start(self._run())

    def remove(self, refused: RefusedConnection) -> None:
        if refused in self._waiting:
            self._waiting.remove(refused)

    def _run(self) -> Job:
        try:
            while self._waiting:
                yield from self._read(self._waiting.popleft())
        finally:
            self._running = False

    def _read(self, refused: RefusedConnection) -> Job:
        steps = refused.steps()
        try:
            while not refused.closed:
                try:
                    next(steps)
                except StopIteration as end:
                    refused.answer(end.value)
                    return
                yield None
        except Exception as error:
            self._loop.on_bug(error)
            refused.close()


class RefusedConnection(Connection):
    """A connection that gets the same reply to any request and is then closed."""

    __slots__ = ("_answered", "_line", "_lines", "_on_close", "_reader", "_record_of", "_trail")

    def __init__(
        self,
        loop: Loop,
        sweeper: Sweeper,
        trail: AuditTrail,
        reader: LineReader,
        connection: Accepted,
        answer: bytes,
        record_of: RecordOf | None,
        on_close: Callable[[], None],
    ) -> None:
        """`record_of` creates the audit record of the request, if it gets one, in steps."""
        super().__init__(loop, sweeper, connection)
        self._trail = trail
        self._reader = reader
        self._answered = answer
        self._record_of = record_of
        self._on_close = on_close
        self._lines = LineBuffer()
        self._line: bytes | None = None
        """The request, once it is whole."""
        sweeper.set(self, PEER_SECONDS)

    def readable(self) -> None:
        try:
            data = self.socket.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._lines.feed(data)
        line = self._lines.next_line()
        if line is None:
            if data and len(self._lines) < MAX_MESSAGE:
                return
            line = self._lines.last_line()
            if line is None:
                self.close()
                return
        self._line = line
        self.loop.forget(self.fd)
        if self._record_of is None:
            self.answer(None)
        elif len(line) > LONG_LINE:
            self._reader.add(self)
        else:
            self.answer(finish(self.steps()))

    def steps(self) -> Steps:
        """Create the audit record of the request, in steps."""
        assert self._record_of is not None
        assert self._line is not None
        return self._record_of(self._line)

    def answer(self, record: bytes | None) -> None:
        if record is not None:
            self._trail.write_or_keep(record)
        self.loop.watch(self.fd, READ, self.ready)
        self.end_with(self._answered)

    def close(self) -> None:
        if not self.closed:
            self._reader.remove(self)
            self._on_close()
        super().close()


def unregistered_record(project: str, peer_fields: bytes, generation: int, long_names: LongNames) -> RecordOf:
    """Audit records for a socket without a registered project: each get is recorded as denied, or
    counted by `long_names`."""

    def record_of(line: bytes) -> Steps:
        try:
            request = decode(line, (yield from scan(line, 0, len(line))), PROJECT_REQUESTS)
        except Refused:
            return None
        if not isinstance(request, Get) or not long_names.recorded(project, request.name, peer_fields):
            return None
        head = audit_records.fetch_head(
            project,
            request.name,
            audit_records.Decision.DENY,
            audit_records.Outcome.DENIED,
            Reason.NOT_REGISTERED.value,
            generation,
        )
        return head + peer_fields + audit_records.latency_field(0)

    return record_of


class RefusedPeers:
    """Records each uid that a project does not allow: its first connection at once, then
    periodically the number of further ones.

    Peers are counted by uid, so that one uid's connections neither hide another's nor are recorded
    under its name. One user may have thousands of uids, such as a range for containers: they hide
    no connection to another project.
    """

    def __init__(self, loop: Loop, trail: AuditTrail) -> None:
        self._loop = loop
        self._trail = trail
        self._counts: dict[tuple[str, int], tuple[int, bytes]] = {}
        """By project and uid: how many connections are not recorded yet, and the last peer's
        fields."""
        self._uids: dict[str, int] = {}
        """By project, how many uids are counted separately."""

    def add(self, project: str, uid: int, fields: bytes) -> None:
        """`fields` are the peer's record fields."""
        key = project, uid
        if key in self._counts:
            self._counts[key] = self._counts[key][0] + 1, fields
        elif self._uids.get(project, 0) >= MAX_REFUSED_UIDS:
            key = project, MANY_UIDS
            if key not in self._counts:
                self._loop.after(REFUSED_PEERS_SECONDS, lambda: self._report(key))
            count, earlier = self._counts.get(key, (0, fields))
            self._counts[key] = count + 1, fields if fields == earlier else b""
        else:
            self._record(project, 1, fields)
            self._uids[project] = self._uids.get(project, 0) + 1
            self._count(key, fields)

    def _count(self, key: tuple[str, int], fields: bytes) -> None:
        self._counts[key] = 0, fields
        self._loop.after(REFUSED_PEERS_SECONDS, lambda: self._report(key))

    def report_all(self) -> None:
        """Do not wait for the time to pass, because the process ends."""
        for key, (count, fields) in self._counts.items():
            if count:
                self._record(key[0], count, fields)
                self._counts[key] = 0, fields

    def _report(self, key: tuple[str, int]) -> None:
        count, fields = self._counts.pop(key)
        project, uid = key
        if count:
            self._record(project, count, fields)
        if uid == MANY_UIDS:
            return
        if count:
            self._count(key, fields)
            return
        self._uids[project] -= 1
        if not self._uids[project]:
            del self._uids[project]

    def _record(self, project: str, count: int, fields: bytes) -> None:
        record = audit_records.record(
            audit_records.Event.PEER_REFUSED,
            f"{counted(count, 'connection')} to the socket of project {project} refused: the peer's uid is not allowed.",
            project=project,
            reason=Reason.UID_NOT_ALLOWED.value,
            count=count,
        )
        self._trail.write_or_keep(record + fields)
