"""The admin socket. Connections receive every byte directly into secret memory.

Any line may turn out to be a push, so a connection holds a region while it has unhandled bytes. The
line is scanned in place; an accepted push hands the region over to the store. Jobs handle the
lines, one at a time per connection.
"""

from __future__ import annotations

import gc
import re

from remo_broker.broker.audit import identity
from remo_broker.broker.loop import READ
from remo_broker.broker.refusals import BUG, Refused, protocol_error
from remo_broker.broker.requests import decode
from remo_broker.broker.secrets.memory import RegionHolder, trim
from remo_broker.broker.secrets.strict_json import OBJECT, STRING, forget, scan, text
from remo_broker.broker.sockets.connection import PEER_SECONDS, Connection, Stream
from remo_broker.broker.sockets.listener import TOO_MANY_CONNECTIONS, Overflow
from remo_broker.protocol.codes import Code, Reason
from remo_broker.protocol.message import encode
from remo_broker.protocol.ops import ADMIN_REQUESTS, PushCreds
from remo_broker.protocol.shared_limits import MAX_MESSAGE, MAX_PUSH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as Accepted  # noqa: N812 - what accept returns
    from collections.abc import Callable, Generator
    from typing import Any, TypeAlias

    from remo_broker.broker.loop import Job, Later, Loop
    from remo_broker.broker.secrets.memory import Arena, Region
    from remo_broker.broker.secrets.strict_json import Node
    from remo_broker.broker.sockets.connection import Peer, Sweeper
    from remo_broker.protocol.ops import Request
    from remo_broker.protocol.replies import Reply

    Steps: TypeAlias = Generator[Later | None, Any, Reply | Stream]
    Perform: TypeAlias = Callable[[Request, "AdminCall"], Steps]

# The most bytes to receive in one turn. The first touch of a secret page costs about 5 µs.
READ_SIZE = 256 * 1024

_PUSH_BEGINS = rb'[ \t\r]*\{[ \t\r]*"op"[ \t\r]*:[ \t\r]*"push-creds"'

PUSH_TOO_LONG = Refused(
    Code.PAYLOAD_TOO_LARGE,
    Reason.TOO_LONG,
    f"a push-creds request may have {MAX_PUSH} bytes, its newline included; push fewer or smaller secrets",
    fatal=True,
)
TOO_LONG = protocol_error(
    Reason.TOO_LONG, f"a request other than push-creds may have {MAX_MESSAGE} bytes, its newline included", fatal=True
)
TOO_SLOW = protocol_error(
    Reason.TOO_SLOW,
    f"nothing came for {PEER_SECONDS:g} seconds in the middle of a request; send it in one piece",
    fatal=True,
)


class AdminCall:
    """The origin of a request: its scanned line, and the region that contains the line."""

    __slots__ = ("connection", "members", "memory", "peer")

    def __init__(self, connection: AdminConnection, memory: RegionHolder, members: dict[str, Node]) -> None:
        self.connection = connection
        self.memory = memory
        """`hand_over` takes ownership of the region with the line's secrets. If the handler does
        not call it, the connection overwrites the line."""
        self.members = members
        self.peer = connection.peer


class AdminConnection(Connection):
    """A connection on the admin socket."""

    __slots__ = ("_at_end", "_busy", "_end", "_memory", "_searched", "_server", "_start", "peer")

    def __init__(self, server: AdminServer, connection: Accepted, peer: Peer) -> None:
        super().__init__(server.loop, server.sweeper, connection)
        self.peer = peer
        peer.fields = identity.peer_fields(connection, peer, server.loop.turns)
        self._server = server
        self._memory = RegionHolder(server.arena)
        # region[start:end] holds the bytes that were received but not handled; there is no newline
        # before `searched`.
        self._start = self._end = self._searched = 0
        self._at_end = False
        self._busy = False
        """A job is handling a line; the connection does not read meanwhile."""

    def readable(self) -> None:
        try:
            region = self._memory.fill()
        except Refused as refusal:
            self.end_with(refusal.line())
            return
        try:
            count = self.socket.recv_into(region.view[self._end : self._end + READ_SIZE])
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if count:
            self._end += count
            region.used = max(region.used, self._end)
            self.sweeper.set(self, PEER_SECONDS)
        else:
            self._at_end = True
        self._next_line()

    def drained(self) -> None:
        self._next_line()

    def _next_line(self) -> None:
        """Start a job for the next whole line, if there is one."""
        region = self._memory.region
        if region is None or self._busy or self.pending or self.ending:
            return
        newline = region.map.find(b"\n", self._searched, self._end)
        if newline < 0:
            self._searched = self._end
            if self._end - self._start > MAX_PUSH:
                self._fail(PUSH_TOO_LONG)
            elif self._at_end and self._end > self._start:
                self._handle(self._end, self._end)
            elif self._at_end:
                self._release()
                self.end_of_requests()
            elif self._end == self._start:
                self._release()
                self.sweeper.lift(self)
            else:
                if self._start:
                    self._compact(region)
                if not self.sweeper.has(self):  # what follows an answered line has a deadline too
                    self.sweeper.set(self, PEER_SECONDS)
        elif newline + 1 - self._start > MAX_PUSH:
            self._fail(PUSH_TOO_LONG)
        else:
            self._handle(newline, newline + 1)

    def _handle(self, line_end: int, after: int) -> None:
        self._busy = True
        self.sweeper.lift(self)
        self.loop.forget(self.fd)
        self.loop.start(self._job(line_end, after))

    def _job(self, line_end: int, after: int) -> Job:
        if after - self._start <= MAX_MESSAGE:
            yield from self._answer(line_end, after)
            return
        self._server.long_line_begins()
        try:
            yield from self._answer(line_end, after)
        finally:
            self._server.long_line_ends()

    def _answer(self, line_end: int, after: int) -> Job:
        region = self._memory.region
        assert region is not None
        fatal = False
        line = b""
        length = after - self._start
        node: Node | None = None
        try:
            try:
                node = yield from scan(region.view, self._start, line_end)
            except Refused as refusal:
                # An unreadable line counts as a push only if it begins like one; the lower size
                # limit applies to all others.
                refusal.fatal = length > MAX_MESSAGE and not _begins_like_a_push(region.view, self._start, line_end)
                raise
            if length > MAX_MESSAGE and not _is_push(region.view, node):
                raise TOO_LONG
            request = decode(region.view, node, ADMIN_REQUESTS)
            reply = yield from self._server.perform(request, AdminCall(self, self._memory, node[3]))
            if isinstance(reply, Stream):
                if self.stream is not None:
                    self.stream.closed()
                self.stream = reply  # it starts when the connection resumes
            else:
                line = encode(reply.to_json())
            if len(line) > MAX_MESSAGE:
                raise Refused(Code.INTERNAL_ERROR, Reason.TOO_LONG, "the answer is longer than a message may be")
        except Refused as refusal:
            line, fatal = refusal.line(), refusal.fatal
            if self.was_cut_short(refusal, whole=after > line_end):
                line = b""
            # If a refusal is a constant or is referenced by a frame that it passed through, its
            # traceback would keep all these frames alive, and with them the keys of the line. In a
            # malformed push, keys may be secret values.
            refusal.__traceback__ = None
        except Exception as error:
            self.loop.on_bug(error)
            line, fatal = BUG.line(), True
        finally:
            # Also on GeneratorExit: the line must not stay in memory.
            no_room = self._consume(region, after)
        self._busy = False
        self._go_on(line, no_room, fatal=fatal)
        if node is not None and node[0] == OBJECT:
            yield from forget(node[3])

    def _go_on(self, line: bytes, no_room: Refused | None, *, fatal: bool) -> None:
        """Send the reply to the line that a job has handled, then go on with the next line."""
        if self.closed:
            self._release()
            return
        self.loop.watch(self.fd, READ, self.ready)
        if fatal:
            self._fail_with(line)
            return
        if line:
            self.send(line)
        if self.stream is not None and not self.pending:
            self.stream.send_new()
        if no_room is not None:
            self._fail(no_room)
        else:
            self._next_line()

    def _consume(self, region: Region, after: int) -> Refused | None:
        """Discard the line up to `after`. If its region was handed over, move the bytes after the
        line to a new region.

        Returns the refusal if there is no new region; the bytes after the line are then lost.
        """
        if self._memory.region is region:
            region.blank(self._start, after)
            self._start = self._searched = after
            return None
        refusal = None
        rest = self._end - after
        if rest:
            try:
                fresh = self._memory.fill()
                fresh.used = rest
                fresh.view[:rest] = region.view[after : self._end]
            except Refused as no_room:
                refusal, rest = no_room, 0
            region.blank(after, self._end)
        self._start, self._end, self._searched = 0, rest, 0
        return refusal

    def _compact(self, region: Region) -> None:
        """Move an unfinished line to the front of the region, to make room for the longest line."""
        length = self._end - self._start
        region.view[:length] = region.view[self._start : self._end]
        region.blank(length, self._end)
        self._start, self._end, self._searched = 0, length, length

    def _fail(self, refusal: Refused) -> None:
        self._fail_with(refusal.line())

    def _fail_with(self, line: bytes) -> None:
        self._release()
        self.end_with(line)

    def _release(self) -> None:
        """Overwrite the region and return it to the arena."""
        if not self._busy:
            self._start = self._end = self._searched = 0
            self._memory.release()

    def discard(self) -> int:
        return self._server.arena.discard(self.socket)

    def timed_out(self) -> None:
        if self.ending or self.pending:
            self.close()
        else:
            self._fail(TOO_SLOW)

    def close(self) -> None:
        if not self.closed:
            self._release()
            self._server.connections.discard(self)
        super().close()


def _begins_like_a_push(data: memoryview, start: int, end: int) -> bool:
    """Whether an unreadable line begins with the push op, as every client sends a push."""
    return re.compile(_PUSH_BEGINS).match(data, start, end) is not None


def _is_push(data: memoryview, node: Node) -> bool:
    op = node[3].get("op") if node[0] == OBJECT else None
    return op is not None and op[0] == STRING and text(data, op[1], op[2]) == PushCreds.OP


class AdminServer:
    """All connections on the admin socket."""

    def __init__(
        self,
        loop: Loop,
        sweeper: Sweeper,
        arena: Arena,
        perform: Perform,
        max_connections: int,
    ) -> None:
        """`perform` executes a request; it raises `Refused`."""
        self.loop = loop
        self.sweeper = sweeper
        self.arena = arena
        self.perform = perform
        self.connections: set[AdminConnection] = set()
        self.last_activity = loop.now
        """When a client last connected, on the loop's clock."""
        self._max_connections = max_connections
        self._long_lines = 0
        # The admin protocol does not have `RATE_LIMITED`.
        self._overflow = Overflow(
            loop,
            sweeper,
            Refused(
                Code.INTERNAL_ERROR,
                TOO_MANY_CONNECTIONS.reason,
                TOO_MANY_CONNECTIONS.message,
                retry_after_seconds=TOO_MANY_CONNECTIONS.retry_after_seconds,
            ),
            arena.discard,
        )

    def accepted(self, connection: Accepted, peer: Peer) -> None:
        self.last_activity = self.loop.now
        if len(self.connections) >= self._max_connections:
            self._overflow.refuse(connection)
        else:
            self.connections.add(AdminConnection(self, connection, peer))

    def dismiss(self) -> None:
        """Answer the lines already received, then close."""
        for connection in list(self.connections):
            connection.take_no_more()

    def long_line_begins(self) -> None:
        """Pause Python's cycle collector. A long line can have a hundred thousand nodes, none of
        them in a cycle; the collector would scan them repeatedly and, in the worst case, delay all
        clients by half a second."""
        self._long_lines += 1
        gc.disable()

    def long_line_ends(self) -> None:
        trim()
        self._long_lines -= 1
        if not self._long_lines:
            gc.enable()
