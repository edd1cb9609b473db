"""A fast client of a project's socket, for commands that run often and make few requests.

Importing `json` and `enum` takes as long as the rest of a `remo-secret get`. This module parses a
usual reply itself, with the C scanner under `json`. For any other reply and for every error it
imports `Exchange` and `Client` and passes them the same lines, so both clients accept and report
the same. `_json` exists in CPython only; without it, `open_project` returns a `Client`.
"""

from __future__ import annotations

# The C module under `socket`, see `connection`.
import _socket
import os
import sys

from remo_broker import PROTOCOL_VERSION
from remo_broker.client.scanner import NOT_JSON, is_too_deep, scan
from remo_broker.client.sockets import send_at_once, wait_readable
from remo_broker.client.value import SecretValue
from remo_broker.protocol.clock import monotonic
from remo_broker.protocol.names import is_project_name, is_secret_name
from remo_broker.protocol.shared_limits import MAX_MESSAGE, REPLY_SECONDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self

    from remo_broker.client.project import Client
    from remo_broker.protocol.ops import Request
    from remo_broker.protocol.replies import BoundSecrets, ProjectInfo

# struct ucred: pid, uid and gid, 32 bits each.
_UCRED_BYTES = 12
_PING = b'{"op":"ping"}\n'


class QuickInfo:
    """The part of `ProjectInfo` that `remo-secret` uses."""

    __slots__ = ("allowlist", "hosts", "manifest_path", "manifest_sha256", "project")

    def __init__(
        self, project: str, allowlist: list[str], hosts: dict[str, str] | None, manifest: tuple[str | None, str | None]
    ) -> None:
        self.project = project
        self.allowlist = allowlist
        self.hosts = hosts
        self.manifest_path, self.manifest_sha256 = manifest


class QuickBindings:
    """`BoundSecrets`, its tables unchecked."""

    __slots__ = ("bindings",)

    def __init__(self, bindings: dict[str, Any]) -> None:
        self.bindings = bindings


def open_project(path: str) -> QuickClient | Client:
    """A client for a project's socket, connected if that succeeds at once.

    Otherwise its first request reports the reason.
    """
    connection = _connect(path) if scan is not None else None
    if connection is not None:
        return QuickClient(path, connection)
    from remo_broker.client.project import Client

    return Client(path)


def _connect(path: str) -> _socket.socket | None:
    """A connection to a listener that is root or this user (see `trust`), otherwise None."""
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK)
    try:
        connection.connect(path)
        peer = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _UCRED_BYTES)
        uid = int.from_bytes(peer[4:8], sys.byteorder)
        if uid == 0 or uid == os.geteuid():  # usually it is root, which saves a system call
            return connection
    except OSError:
        pass
    connection.close()
    return None


class QuickClient:
    """`get`, `info` and `bindings` of `Client`, on one connection that is never reopened."""

    def __init__(self, path: str, connection: _socket.socket) -> None:
        self.path = path
        self._connection = connection
        self._pending = b""
        self._greeted = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def get(self, name: str) -> SecretValue:
        def request() -> Request:
            from remo_broker.protocol.ops import Get

            return Get(name=name)

        if is_secret_name(name):
            line = b'{"op":"get","name":"%b"}\n' % name.encode("ascii")
        else:
            from remo_broker.client.exchange import encode

            line = encode(request())
        fields = self._ask_or_none(line, request)
        if fields is None:
            with self._again() as again:
                return again.get(name)
        value, expires = fields.get("value"), fields.get("expires_at")
        ttl, generation = fields.get("ttl_seconds"), fields.get("generation")
        plain = type(value) is str and type(ttl) is int and type(generation) is int
        plain = plain and "value_b64" not in fields and (expires is None or type(expires) is str)
        if plain and _is_unicode(value) and _is_unicode(expires or ""):
            return SecretValue(name, value, ttl, generation, expires)  # type: ignore[arg-type]
        from remo_broker.client.exchange import Exchange
        from remo_broker.client.project import secret_value

        exchange = Exchange(self.path, request(), greet=False)
        exchange.reply = fields
        return secret_value(name, exchange)

    def info(self) -> QuickInfo | ProjectInfo:
        def request() -> Request:
            from remo_broker.protocol.ops import Info

            return Info()

        fields = self._ask(b'{"op":"info"}\n', request)
        names: Any = fields.get("allowlist")
        hosts: Any = fields.get("hosts", {})
        usual = type(names) is list and type(hosts) is dict and type(fields.get("schema_version")) is int
        manifest: tuple[Any, Any] = fields.get("manifest_path"), fields.get("manifest_sha256")
        usual = usual and all(one is None or type(one) is str for one in manifest)
        if usual and all(type(name) is str and is_secret_name(name) for name in (*names, *hosts.values())):
            project = fields.get("project")
            if type(project) is str and is_project_name(project):
                return QuickInfo(project, names, hosts, manifest)
        from remo_broker.client.exchange import build
        from remo_broker.client.project import checked_info
        from remo_broker.protocol.replies import ProjectInfo

        return checked_info(self.path, build(self.path, ProjectInfo, fields))

    def bindings(self) -> QuickBindings | BoundSecrets:
        def request() -> Request:
            from remo_broker.protocol.ops import Bindings

            return Bindings()

        fields = self._ask_or_none(b'{"op":"bindings"}\n', request)
        if fields is None:
            with self._again() as again:
                return again.bindings()
        tables: Any = fields.get("bindings")
        if type(tables) is dict and all(
            type(own) is list and all(type(table) is dict for table in own) for own in tables.values()
        ):
            return QuickBindings(tables)
        from remo_broker.client.exchange import build
        from remo_broker.protocol.replies import BoundSecrets

        return build(self.path, BoundSecrets, fields)

    def _again(self) -> Client:
        from remo_broker.client.project import Client

        return Client(self.path)

    def _ask_or_none(self, line: bytes, request: Callable[[], Request]) -> dict[str, Any] | None:
        """The reply's fields; None if the broker has restarted since an earlier request."""
        reused = self._greeted
        try:
            return self._ask(line, request)
        except Exception as error:
            from remo_broker.client.errors import ConnectionLost

            if not (reused and isinstance(error, ConnectionLost)):
                raise
            return None

    def _ask(self, line: bytes, request: Callable[[], Request]) -> dict[str, Any]:
        """Send `line`, the encoded `request`; return the reply's fields. Raises `ClientError`."""
        exchange = None
        deadline = monotonic() + REPLY_SECONDS
        try:
            self._send(line if self._greeted else _PING + line)
            if not self._greeted:
                self._greeted = True
                pong = self._line(deadline)
                if not _is_pong(_fields(pong)):
                    from remo_broker.client.exchange import Exchange

                    exchange = Exchange(self.path, request(), greet=True)
                    exchange.feed(pong)
            reply = self._line(deadline)
        except TimeoutError:
            from remo_broker.client.errors import TimedOut

            raise TimedOut(self.path, REPLY_SECONDS) from None
        fields = _fields(reply)
        if exchange is None and fields is not None and fields.get("ok") is True:
            return fields
        from remo_broker.client.exchange import Exchange

        exchange = exchange or Exchange(self.path, request(), greet=False)
        exchange.feed(reply)
        return exchange.reply

    def _send(self, data: bytes) -> None:
        try:
            sent = send_at_once(self._connection, data)
            if sent < len(data):
                self._connection.settimeout(REPLY_SECONDS)
                self._connection.sendall(data[sent:])
                self._connection.setblocking(False)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it may have replied first

    def _line(self, deadline: float) -> bytes:
        """The next line without its newline. Raises `ClientError` and TimeoutError."""
        while b"\n" not in self._pending and len(self._pending) < MAX_MESSAGE:
            try:
                wait_readable(self._connection, max(0.0, deadline - monotonic()))
                chunk = self._connection.recv(MAX_MESSAGE)
            except ConnectionResetError:
                chunk = b""
            if not chunk:
                from remo_broker.client.errors import ConnectionLost

                raise ConnectionLost(self.path)
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        if len(line) >= MAX_MESSAGE:
            from remo_broker.client.errors import BadReply

            raise BadReply(self.path, f"it is longer than {MAX_MESSAGE // 1024} KiB")
        return line


def _is_unicode(text: Any) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _fields(line: bytes) -> dict[str, Any] | None:
    """The line's JSON object; None for anything that `Exchange` must parse."""
    if not line.startswith(b"{"):
        return None
    try:
        text = line.decode("utf-8")
        if is_too_deep(text):
            return None
        found, end = scan(text, 0)
    except (*NOT_JSON, RecursionError):
        return None
    return found if end == len(text) and type(found) is dict else None


def _is_pong(fields: dict[str, Any] | None) -> bool:
    if fields is None or fields.get("ok") is not True:
        return False
    version = fields.get("protocol_version")
    return type(version) is int and version == PROTOCOL_VERSION
