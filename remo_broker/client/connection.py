"""A blocking connection to one of the broker's sockets."""

from __future__ import annotations

# The C module beneath `socket`: the 2.5 ms that `socket` itself takes to import are a tenth of a `remo-secret get`.
import _socket
import os
import time

from remo_broker.client.errors import BadReply, ClientError, ConnectionLost, TimedOut
from remo_broker.client.exchange import Exchange, check_version, wants_version
from remo_broker.protocol.ops import MAX_MESSAGE, Request, Status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self, TypeVar

    from remo_broker.protocol.message import Message

    M = TypeVar("M", bound=Message)

# The slowest thing that a broker does before it answers is to wait 5 s for the requests of a project that is
# unregistered; a first connect may have to wait for its start besides.
DEFAULT_TIMEOUT_SECONDS = 30.0
# A full backlog is reported as EAGAIN to who does not block for it; how long until it is tried again.
BACKLOG_RETRY_SECONDS = 0.01


class Connection:
    """Opened at the first request, kept for the next ones, opened again after it was lost. Not for several threads.

    `path` is a socket's path, `timeout` seconds that each request may take, connecting included.
    """

    # Whether the socket answers `ping`, so that the version is asked before anything else.
    GREETS = False
    # What the socket is called on a host; empty for a project's, which has the project's name.
    SOCKET = ""

    def __init__(self, path: str | os.PathLike[str], *, timeout: float = DEFAULT_TIMEOUT_SECONDS) -> None:
        self.path = os.fspath(path)
        self.timeout = timeout
        self._connection: _socket.socket | None = None
        self._pending = b""

    def ask(self, request: Request, reply: type[M]) -> M:
        """Send one request and return its answer. Raises `ClientError`."""
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
        self._pending = b""

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
            # A broker that restarted has closed what was open; asking it anew is what anybody would do by hand.
            exchange = Exchange(self.path, request, greet=self.GREETS)
            if not (reused and exchange.repeatable):
                raise
            return self._once(request)

    def _once(self, request: Request) -> Exchange:
        deadline = time.monotonic() + self.timeout
        exchange = Exchange(self.path, request, greet=self.GREETS and self._connection is None)
        whole = False
        try:
            self._send(exchange.data, deadline)
            while not exchange.feed(self._read_line(deadline)):
                pass
            whole = True
        except ClientError as error:
            # A refusal leaves the connection usable, unless it was the greeting's: then another answer is under way.
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
        connection.settimeout(self._left(deadline))
        try:
            connection.sendall(data)
        except TimeoutError:
            raise TimedOut(self.path, self.timeout) from None
        except (BrokenPipeError, ConnectionResetError):
            # It may have answered before it closed: a push that is too large is refused before it is read whole.
            pass

    def _read_line(self, deadline: float | None) -> bytes:
        """One line without its newline; raises `ConnectionLost` at the end of the stream. No deadline: wait for ever."""
        assert self._connection is not None
        chunks = [self._pending]
        size = len(self._pending)
        while b"\n" not in chunks[-1]:
            if size > MAX_MESSAGE:
                raise BadReply(self.path, "the answer is longer than 64 KiB")
            self._connection.settimeout(None if deadline is None else self._left(deadline))
            try:
                chunk = self._connection.recv(MAX_MESSAGE)
            except TimeoutError:
                raise TimedOut(self.path, self.timeout) from None
            except ConnectionResetError:
                chunk = b""
            if not chunk:
                raise ConnectionLost(self.path)
            chunks.append(chunk)
            size += len(chunk)
        line, _, self._pending = b"".join(chunks).partition(b"\n")
        return line

    def _left(self, deadline: float) -> float:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimedOut(self.path, self.timeout)
        return left

    def _ask_version(self) -> None:
        """Raise `WrongVersion` if that is what explains an odd answer. The caller goes on with its own error if not."""
        self.close()
        try:
            fields: dict[str, Any] = self._once(Status()).reply
            check_version(self.path, fields)
        except (BadReply, ConnectionLost, TimedOut):
            return


def connect(path: str, kind: str, deadline: float, timeout: float) -> _socket.socket:
    """A connected socket. `kind` is the client's `SOCKET`, `deadline` on the monotonic clock.

    Raises `Unreachable` or `TimedOut`.
    """
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    connection.setblocking(False)
    try:
        while True:
            try:
                connection.connect(path)
                return connection
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimedOut(path, timeout) from None
                time.sleep(BACKLOG_RETRY_SECONDS)
    except OSError as error:
        connection.close()
        from remo_broker.client.unreachable import unreachable

        raise unreachable(path, kind, error) from None
    except BaseException:
        connection.close()
        raise
