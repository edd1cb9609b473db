"""One accepted connection: writing, deadlines and closing. Subclasses handle the requests."""

from __future__ import annotations

# The C module under `socket`, which takes a tenth of the broker's imports, and whose constants are
# members of enums: each use costs a lookup.
import _socket
import select
import struct

from remo_broker.broker.loop import READ, READ_ONCE, WRITE
from remo_broker.broker.refusals import BUG
from remo_broker.protocol.codes import Reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as Accepted  # noqa: N812 - what accept returns

    from remo_broker.broker.decisions import Reply
    from remo_broker.broker.loop import Loop
    from remo_broker.broker.refusals import Refused
    from remo_broker.broker.secrets.store import Snapshot

# The deadline for a peer that has begun a request or does not read its replies. It also limits how
# long a replaced snapshot stays in memory for a slow reader.
PEER_SECONDS = 5.0
# After a fatal error, the broker discards the peer's input for this long, so that the peer can read
# the error line.
LINGER_SECONDS = 1.0
# How many bytes to discard per read.
DISCARD_SIZE = 65536
# How often to check deadlines.
SWEEP_SECONDS = 0.5
# The most buffers to send with one call (the kernel's UIO_MAXIOV is 1024).
MAX_BUFFERS = 512

# A flag for each send and receive, so that an accepted socket can stay in blocking mode.
DONTWAIT = _socket.MSG_DONTWAIT

# How a connection is registered with epoll. A new connection is served at once, then registered for
# one event at the end of the turn. For most connections that event is the peer's close, which saves
# two calls.
NEW, ONCE, INERT, WATCHED = range(4)

_SOL_SOCKET, _SO_PEERCRED = _socket.SOL_SOCKET, _socket.SO_PEERCRED
_UCRED = struct.Struct("3i")
_UCRED_SIZE = _UCRED.size


def accept(listening: Accepted) -> Accepted:
    """The next connection in the queue. Raises OSError, without one BlockingIOError."""
    descriptor, _ = listening._accept()  # type: ignore[attr-defined]
    return _socket.socket(fileno=descriptor)


def discard(connection: Accepted) -> int:
    """Read and discard some input. Returns the number of bytes; 0 at the end of the stream."""
    return len(connection.recv(DISCARD_SIZE, DONTWAIT))


class Peer:
    """The peer's credentials, as the kernel recorded them at connect time."""

    __slots__ = ("fields", "gid", "pid", "since", "uid")

    def __init__(self, connection: Accepted, since: int = -1) -> None:
        self.fields = b""
        """The peer's fields in an operator's audit records."""
        self.since = since
        """A turn of the loop before which it had not connected; -1 if none is known. A process
        with its pid that ran before that turn and still runs is the peer: no two have one pid at a
        time."""
        credentials = connection.getsockopt(_SOL_SOCKET, _SO_PEERCRED, _UCRED_SIZE)
        self.pid, self.uid, self.gid = _UCRED.unpack(credentials)


class Sweeper:
    """Closes connections whose deadline has passed. One timer serves all, because most deadlines
    are met."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.due: dict[Connection, float] = {}
        self._armed = False

    def set(self, connection: Connection, seconds: float) -> None:
        self._arm()
        self.due[connection] = self._loop.now + seconds

    def lift(self, connection: Connection) -> None:
        self.due.pop(connection, None)

    def has(self, connection: Connection) -> bool:
        return connection in self.due

    def _arm(self) -> None:
        if not self._armed:
            self._armed = True
            self._loop.after(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        self._armed = False
        try:
            for connection in [one for one, due in self.due.items() if due <= self._loop.now]:
                self.lift(connection)
                connection.timed_out()
        finally:
            if self.due:
                self._arm()


class Stream:
    """A long-lived reply: lines that are sent as state changes. See `Connection.stream`."""

    def send_new(self) -> None:
        """Send what is new until the socket is full (`pending` is not empty). The connection calls
        this when the stream begins and whenever the socket accepts more; the stream itself must
        arrange a call when something changes."""
        raise NotImplementedError

    def closed(self) -> None:
        """The connection is closed."""


class Connection:
    """A non-blocking stream socket on the loop. It reads only while nothing is pending, so a peer
    that does not read its replies is not read from either."""

    __slots__ = (
        "_dismissed",
        "_snapshot",
        "closed",
        "ending",
        "fd",
        "loop",
        "pending",
        "registered",
        "socket",
        "stream",
        "sweeper",
    )

    def __init__(self, loop: Loop, sweeper: Sweeper, connection: Accepted, *, at_once: bool = False) -> None:
        """`at_once`: the caller calls `ready` to read what the peer has already sent, and
        `register` at the end of the turn."""
        self.loop = loop
        self.sweeper = sweeper
        self.socket = connection
        self.fd = connection.fileno()
        self.pending: list[bytes | memoryview] = []
        self.ending = False
        """Close once nothing is pending; handle no further requests."""
        self.closed = False
        self._dismissed = False
        """The broker, not the peer, ended the input stream."""
        self._snapshot: Snapshot | None = None
        self.stream: Stream | None = None
        """Sent in addition to the replies, once the peer has requested it."""
        self.registered = NEW
        if not at_once:
            connection.setblocking(False)
            self.want(READ)

    # --- the loop

    def want(self, events: int) -> None:
        """Watch for `events` from now on."""
        if self.registered == NEW:
            self.loop.watch(self.fd, events, self.ready)
        else:
            self.loop.change(self.fd, events)
        self.registered = WATCHED

    def register(self) -> None:
        """Register with epoll, at the end of the turn in which the connection was accepted."""
        if self.registered == NEW and not self.closed:
            self.loop.watch(self.fd, READ_ONCE, self.ready)
            self.registered = ONCE

    # --- for subclasses

    def readable(self) -> None:
        """The socket has input or is at the end of the stream."""
        raise NotImplementedError

    def drained(self) -> None:
        """All pending output has been written; go on with input that was read earlier."""

    def discard(self) -> int:
        """Read and discard some input after the last reply. Returns the number of bytes; 0 at the
        end of the stream."""
        return discard(self.socket)

    def timed_out(self) -> None:
        """A deadline has passed."""
        self.close()

    def send_failed(self, _error: OSError) -> None:
        """The kernel did not accept output, and not because the peer is slow. A client whose
        connection is lost asks again."""
        self.close()

    # --- writing

    def send(self, reply: Reply, snapshot: Snapshot | None = None) -> None:
        """Send a reply: as much as the kernel accepts now, the rest later. `snapshot` contains the
        secret of a reply that has one."""
        if self.closed:
            return
        if self.pending:
            self._append(reply, snapshot)
            return
        try:
            if isinstance(reply, bytes):
                sent = self.socket.send(reply, DONTWAIT)
                if sent == len(reply):
                    return
            else:
                sent = self.socket.sendmsg(reply, (), DONTWAIT)
                head, value, tail = reply
                if sent == len(head) + len(value) + len(tail):
                    return
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.send_failed(error)
            if not self.closed:
                self._append(reply, snapshot)
            return
        self._append(reply, snapshot)
        self._advance(sent)
        self.want(WRITE)
        self.sweeper.set(self, PEER_SECONDS)

    def _append(self, reply: Reply, snapshot: Snapshot | None) -> None:
        if isinstance(reply, bytes):
            self.pending.append(reply)
            return
        self.pending += reply
        if snapshot is not None and self._snapshot is None:
            self._snapshot = snapshot
            snapshot.readers += 1

    def _advance(self, sent: int) -> None:
        pending = self.pending
        done = 0
        while done < len(pending) and sent >= len(pending[done]):
            sent -= len(pending[done])
            done += 1
        if sent:
            pending[done] = memoryview(pending[done])[sent:]
        del pending[:done]

    def ready(self) -> None:
        if self.registered == ONCE:
            self.registered = INERT
        if not self.pending:
            try:
                self.readable()
            except Exception as error:
                self.loop.on_bug(error)
                self.end_with(BUG.line())
            return
        try:
            self._advance(self.socket.sendmsg(self.pending[:MAX_BUFFERS], (), DONTWAIT))
        except BlockingIOError:
            return
        except OSError as error:
            self.send_failed(error)
            return
        if self.pending:
            return
        self._finished_sending()
        if self.ending:
            self.linger()
            return
        self.want(READ)
        self.sweeper.lift(self)
        if self.stream is not None:
            self.stream.send_new()
            if self.pending or self.closed:
                return
        self.drained()

    def begin(self, stream: Stream) -> None:
        """Start sending `stream`. A connection has one stream; a second replaces the first."""
        if self.stream is not None:
            self.stream.closed()
        self.stream = stream
        if not self.pending:
            stream.send_new()

    def _finished_sending(self) -> None:
        if self._snapshot is not None:
            snapshot, self._snapshot = self._snapshot, None
            snapshot.finished_reading()

    # --- the end

    def take_no_more(self) -> None:
        """Accept no further input: the stream ends after what has already arrived, as if the peer
        had ended it."""
        self._dismissed = True
        if self.stream is not None:
            self.end()
            return
        try:
            self.socket.shutdown(_socket.SHUT_RD)
        except OSError:
            self.close()

    def was_cut_short(self, refusal: Refused, *, whole: bool) -> bool:
        """Whether a line is refused only because `take_no_more` cut it in half. The peer did
        nothing wrong and would misread a refusal, so the line gets no reply."""
        return self._dismissed and not whole and refusal.reason is Reason.INVALID_JSON

    def end_of_requests(self) -> None:
        """The peer has sent its last request: close, unless it still reads a stream."""
        if self.stream is None or self._dismissed or hung_up(self.fd):
            self.end()
        elif not self.pending:
            self.want(0)

    def end(self) -> None:
        """Close once all pending output has been written."""
        self.ending = True
        if not self.pending:
            self.close()

    def end_with(self, reply: bytes) -> None:
        """Send a last reply, then close. Meanwhile, discard the peer's input."""
        self.ending = True
        self.send(reply)
        if not self.closed and not self.pending:
            self.linger()

    def linger(self) -> None:
        """Shut down the sending side and keep reading for a while: after an immediate close, the
        peer's writes would fail before it has read the error."""
        try:
            self.socket.shutdown(_socket.SHUT_WR)
        except OSError:
            self.close()
            return
        self.loop.forget(self.fd)
        self.loop.watch(self.fd, READ, self._discard)
        self.registered = WATCHED
        self.sweeper.set(self, LINGER_SECONDS)

    def _discard(self) -> None:
        try:
            if self.discard():
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self.close()

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self.sweeper.due.pop(self, None)
        if self.registered == INERT:
            self.loop.forget_inert(self.fd)
        else:
            self.loop.forget(self.fd)
        self.socket.close()
        self.pending.clear()
        if self._snapshot is not None:
            self._finished_sending()
        if self.stream is not None:
            self.stream.closed()


def hung_up(descriptor: int) -> bool:
    """Whether both directions are shut down: the peer does not read either, or gets no more. epoll
    would report that in every turn."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return bool(poll.poll(0))
