"""A blocking connection to one of the broker's sockets."""

from __future__ import annotations

# The C module under `socket`. Importing `socket` takes 2.5 ms, a tenth of a `remo-secret get`.
import _socket
import os
import sys
import time

from remo_broker.client.errors import BadReply, ClientError, ConnectionLost, TimedOut
from remo_broker.client.exchange import (
    Exchange,
    build,
    check_version,
    encode,
    parse_object,
    refusal_in,
    reply_line,
    wants_version,
)
from remo_broker.client.sockets import send_at_once, wait_readable
from remo_broker.protocol.clock import monotonic
from remo_broker.protocol.lines import LineBuffer
from remo_broker.protocol.ops import Request, Status
from remo_broker.protocol.shared_limits import MAX_MESSAGE, REPLY_SECONDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Any, Self, TypeVar

    from remo_broker.protocol.message import Message

    M = TypeVar("M", bound=Message)

# A non-blocking connect fails with EAGAIN while the backlog is full; the pause before the next
# attempt.
BACKLOG_RETRY_SECONDS = 0.01
# struct ucred: pid, uid and gid, 32 bits each.
_UCRED_BYTES = 12


class BaseClient:
    """Opened at the first request, kept open, and reopened when lost. Not thread-safe.

    `path` is the socket's path, `timeout` the seconds that each request may take, including the
    connect.
    """

    # Whether the socket knows `ping`, so that the version is checked before the first reply.
    GREETS = False
    # The name of the host's socket; empty for a project's socket, which is named after the project.
    SOCKET = ""

    def __init__(self, path: str | os.PathLike[str], *, timeout: float = REPLY_SECONDS) -> None:
        self.path = os.fspath(path)
        self.timeout = timeout
        self._connection: _socket.socket | None = None
        self._lines = LineBuffer()

    def ask(self, request: Request, reply: type[M]) -> M:
        """Send one request and return its reply. Raises `ClientError`."""
        try:
            return self._exchange(request).result(reply)
        except ClientError as error:
            if not self.GREETS and not isinstance(request, Status) and wants_version(error):
                self._ask_version()
            raise

    def close(self) -> None:
        """Close the connection; a later request opens it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._lines.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r})"

    def _exchange(self, request: Request) -> Exchange:
        reused = self._connection is not None
        try:
            return self._once(request)
        except ConnectionLost:
            # The broker has restarted since the last request.
            exchange = Exchange(self.path, request, greet=self.GREETS)
            if not (reused and exchange.repeatable):
                raise
            return self._once(request)

    def _once(self, request: Request) -> Exchange:
        deadline = monotonic() + self.timeout
        exchange = Exchange(self.path, request, greet=self.GREETS and self._connection is None)
        whole = False
        try:
            self._send(exchange.data, deadline)
            while not exchange.feed(self._read_line(deadline)):
                pass
            whole = True
        except ClientError as error:
            # A refusal leaves the connection usable, unless the ping was refused: then a second
            # reply follows.
            whole = exchange.answered and not isinstance(error, BadReply)
            raise
        finally:
            if not whole:
                self.close()
        return exchange

    def _connected(self, deadline: float) -> _socket.socket:
        if self._connection is None:
            self._connection = connect(self.path, self.SOCKET, deadline, self.timeout)
        return self._connection

    def _send(self, data: bytes, deadline: float) -> None:
        connection = self._connected(deadline)
        try:
            sent = send_at_once(connection, data)
            if sent < len(data):
                connection.settimeout(self._left(deadline))
                connection.sendall(memoryview(data)[sent:])
                connection.setblocking(False)
        except TimeoutError:
            raise TimedOut(self.path, self.timeout) from None
        except (BrokenPipeError, ConnectionResetError):
            # There may still be a reply: the broker refuses an oversized push before it has read
            # all of it.
            pass

    def _read_line(self, deadline: float | None) -> bytes:
        """One line without its newline.

        Raises `ConnectionLost` at the end of the stream. No deadline: wait forever.
        """
        assert self._connection is not None
        while (line := reply_line(self.path, self._lines)) is None:
            try:
                wait_readable(self._connection, None if deadline is None else self._left(deadline))
                chunk = self._connection.recv(MAX_MESSAGE)
            except TimeoutError:
                raise TimedOut(self.path, self.timeout) from None
            except ConnectionResetError:
                chunk = b""
            if not chunk:
                raise ConnectionLost(self.path)
            self._lines.feed(chunk)
        return line

    def _left(self, deadline: float) -> float:
        left = deadline - monotonic()
        if left <= 0:
            raise TimedOut(self.path, self.timeout)
        return left

    def _ask_version(self) -> None:
        """Raise `WrongVersion` if that explains an unexpected reply; otherwise return."""
        self.close()
        try:
            fields: dict[str, Any] = self._once(Status()).reply
            check_version(self.path, fields)
        except (BadReply, ConnectionLost, TimedOut):
            return


def watch(client: BaseClient, request: Request, kind: type[M]) -> Iterator[M]:
    """Yield a watch's states, on a new connection, until the broker ends it.

    Raises `ClientError`.
    """
    watcher = type(client)(client.path, timeout=client.timeout)
    try:
        watcher._send(encode(request), monotonic() + client.timeout)
        while True:
            try:
                line = watcher._read_line(None)
            except ConnectionLost:
                return
            fields = parse_object(client.path, line)
            if fields.get("ok") is True:
                yield build(client.path, kind, fields)
            elif fields:  # an empty object is a keep-alive
                raise refusal_in(client.path, fields)
    finally:
        watcher.close()


def connect(path: str, kind: str, deadline: float, timeout: float) -> _socket.socket:
    """A connected, non-blocking socket. `kind` is the client's `SOCKET`; `deadline` is monotonic.

    Raises `Unreachable`, `Untrusted` or `TimedOut`.
    """
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK)
    try:
        while True:
            try:
                connection.connect(path)
                check_listener(connection, path, kind)
                return connection
            except BlockingIOError:
                if monotonic() > deadline:
                    raise TimedOut(path, timeout) from None
                time.sleep(BACKLOG_RETRY_SECONDS)
    except OSError as error:
        connection.close()
        from remo_broker.client.unreachable import unreachable

        raise unreachable(path, kind, error) from None
    except BaseException:
        connection.close()
        raise


def check_listener(connection: _socket.socket, path: str, kind: str) -> None:
    """Raise `Untrusted` unless the listener is the broker or systemd.

    Only they may receive a push or hand out names.
    """
    peer = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _UCRED_BYTES)
    uid = int.from_bytes(peer[4:8], sys.byteorder)
    if uid == 0 or uid == os.geteuid():  # usually it is root, which saves a system call
        return
    from remo_broker.client.errors import Untrusted
    from remo_broker.client.trust import is_broker
    from remo_broker.client.unreachable import user_name

    if not is_broker(uid, admin=bool(kind)):
        raise Untrusted(path, uid, user_name(uid))
