"""The same three clients for asyncio; they share `Exchange` and the errors."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING, Any, Self, TypeVar

from remo_broker.client.admin import AdminClient, StatusClient, StatusPages, push_request, register_request
from remo_broker.client.connection import BACKLOG_RETRY_SECONDS, check_listener
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
from remo_broker.client.project import checked_info, secret_value
from remo_broker.client.unreachable import unreachable
from remo_broker.protocol import ops, replies
from remo_broker.protocol.lines import LineBuffer
from remo_broker.protocol.message import Message
from remo_broker.protocol.shared_limits import MAX_MESSAGE, REPLY_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
    from types import TracebackType

    from remo_broker.client.value import SecretValue

M = TypeVar("M", bound=Message)


class AsyncBaseClient:
    """One connection, opened at the first request.

    Tasks may share it: requests are sent one at a time.

    Uses the loop's socket calls, not its streams: a `StreamWriter` that fails discards a reply that
    has already arrived, and the broker replies to an oversized push before it has read all of it.
    """

    GREETS = False
    SOCKET = ""

    def __init__(self, path: str | os.PathLike[str], *, timeout: float = REPLY_SECONDS) -> None:
        self.path = os.fspath(path)
        self.timeout = timeout
        self._socket: socket.socket | None = None
        self._lines = LineBuffer()
        self._turn = asyncio.Lock()

    async def ask(self, request: ops.Request, reply: type[M]) -> M:
        """Send one request and return its reply. Raises `ClientError`."""
        try:
            return (await self._exchange(request)).result(reply)
        except ClientError as error:
            if not self.GREETS and not isinstance(request, ops.Status) and wants_version(error):
                await self._ask_version()
            raise

    def close(self) -> None:
        """Close the connection; a later request opens it again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._lines.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r})"

    async def _exchange(self, request: ops.Request) -> Exchange:
        async with self._turn:
            reused = self._socket is not None
            try:
                return await self._once(request)
            except ConnectionLost:
                if not (reused and Exchange(self.path, request, greet=False).repeatable):
                    raise
                return await self._once(request)

    async def _once(self, request: ops.Request) -> Exchange:
        exchange = Exchange(self.path, request, greet=self.GREETS and self._socket is None)
        whole = False
        try:
            async with asyncio.timeout(self.timeout):
                await self._send(exchange.data)
                while not exchange.feed(await self._read_line()):
                    pass
            whole = True
        except TimeoutError:
            raise TimedOut(self.path, self.timeout) from None
        except ClientError as error:
            whole = exchange.answered and not isinstance(error, BadReply)
            raise
        finally:
            if not whole:
                self.close()
        return exchange

    async def _send(self, data: bytes) -> None:
        if self._socket is None:
            self._socket = await connect(self.path, self.SOCKET)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may have replied first
            await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def _read_line(self) -> bytes:
        assert self._socket is not None
        while (line := reply_line(self.path, self._lines)) is None:
            try:
                chunk = await asyncio.get_running_loop().sock_recv(self._socket, MAX_MESSAGE)
            except ConnectionResetError:
                chunk = b""
            if not chunk:
                raise ConnectionLost(self.path)
            self._lines.feed(chunk)
        return line

    async def _ask_version(self) -> None:
        self.close()
        try:
            check_version(self.path, (await self._exchange(ops.Status())).reply)
        except (BadReply, ConnectionLost, TimedOut):
            return


class AsyncClient(AsyncBaseClient):
    """A project's socket: see `Client`."""

    GREETS = True

    async def get(self, name: str) -> SecretValue:
        return secret_value(name, await self._exchange(ops.Get(name=name)))

    async def ping(self) -> replies.Pong:
        return await self.ask(ops.Ping(), replies.Pong)

    async def info(self) -> replies.ProjectInfo:
        return checked_info(self.path, await self.ask(ops.Info(), replies.ProjectInfo))

    async def peek(self, name: str) -> replies.Explanation:
        return await self.ask(ops.Peek(name=name), replies.Explanation)

    async def bindings(self) -> replies.BoundSecrets:
        return await self.ask(ops.Bindings(), replies.BoundSecrets)

    async def ready(self) -> replies.Readiness:
        return await self.ask(ops.Ready(), replies.Readiness)

    def watch(self) -> AsyncIterator[replies.ProjectState]:
        return watch(self, ops.WatchProject(), replies.ProjectState)


class AsyncStatusClient(AsyncBaseClient):
    """The status socket: see `StatusClient`."""

    SOCKET = StatusClient.SOCKET

    async def status(self) -> replies.BrokerStatus:
        pages = StatusPages(self.path)
        while pages.incomplete:
            pages.add(await self._status_page(pages.after))
        return pages.status()

    async def _status_page(self, after: str | None) -> replies.BrokerStatus:
        exchange = await self._exchange(ops.Status(after=after))
        check_version(self.path, exchange.reply)
        return exchange.result(replies.BrokerStatus)

    async def watch(self) -> AsyncIterator[Message]:
        async with contextlib.aclosing(_watched(self, ops.Watch())) as lines:
            async for fields in lines:
                if "ok" in fields:
                    raise refusal_in(self.path, fields)
                kind = replies.EVENTS.get(str(fields.get("event", "")))
                if kind is not None:
                    yield build(self.path, kind, fields)


class AsyncAdminClient(AsyncStatusClient):
    """The admin socket: see `AdminClient`."""

    SOCKET = AdminClient.SOCKET

    def watch(self) -> AsyncIterator[replies.StoreState]:
        return watch(self, ops.WatchStore(), replies.StoreState)

    async def register(
        self,
        name: str,
        project_path: str,
        allowed_uids: Sequence[int] = (),
        *,
        replace: bool = False,
        any_name: bool = False,
    ) -> str:
        request = register_request(name, project_path, allowed_uids, replace, any_name)
        return (await self.ask(request, replies.Registered)).socket_path

    async def unregister(self, name: str) -> None:
        await self.ask(ops.Unregister(name=name), replies.Done)

    async def reload(self, name: str, sha256: str | None = None) -> list[str]:
        return (await self.ask(ops.Reload(name=name, sha256=sha256), replies.Reloaded)).allowlist

    async def preview(self, name: str, *, adopt_narrower: bool = False) -> replies.Difference:
        return await self.ask(ops.Preview(name=name, adopt_narrower=adopt_narrower), replies.Difference)

    async def push_creds(
        self,
        secrets: Mapping[str, str | Mapping[str, str]],
        binaries: Mapping[str, bytes] | None = None,
        expires: Mapping[str, str] | None = None,
    ) -> replies.Pushed:
        return await self.ask(push_request(secrets, binaries or {}, expires or {}), replies.Pushed)

    async def clear_creds(self) -> None:
        await self.ask(ops.ClearCreds(), replies.Done)

    async def show(self, name: str) -> replies.ProjectDetail:
        return await self.ask(ops.Show(name=name), replies.ProjectDetail)

    async def explain(self, name: str, secret: str, uid: int | None = None) -> replies.Explanation:
        return await self.ask(ops.Explain(name=name, secret=secret, uid=uid), replies.Explanation)

    async def explain_unit(self, unit: str) -> replies.UnitCredentials:
        return await self.ask(ops.ExplainUnit(unit=unit), replies.UnitCredentials)


async def watch(client: AsyncBaseClient, request: ops.Request, kind: type[M]) -> AsyncIterator[M]:
    """Yield a watch's states, on a new connection, until the broker ends it.

    Raises `ClientError`.
    """
    async with contextlib.aclosing(_watched(client, request)) as lines:
        async for fields in lines:
            if fields.get("ok") is True:
                yield build(client.path, kind, fields)
            elif fields:  # an empty object is a keep-alive
                raise refusal_in(client.path, fields)


async def _watched(client: AsyncBaseClient, request: ops.Request) -> AsyncGenerator[dict[str, Any], None]:
    watcher = type(client)(client.path, timeout=client.timeout)
    try:
        try:
            async with asyncio.timeout(client.timeout):
                await watcher._send(encode(request))
        except TimeoutError:
            raise TimedOut(client.path, client.timeout) from None
        while True:
            try:
                line = await watcher._read_line()
            except ConnectionLost:
                return
            yield parse_object(client.path, line)
    finally:
        watcher.close()


async def connect(path: str, kind: str) -> socket.socket:
    """Connect a socket; retry while the backlog is full.

    (asyncio's connect takes EAGAIN for success.)
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    connection.setblocking(False)
    try:
        while True:
            try:
                connection.connect(path)
                check_listener(connection, path, kind)
                return connection
            except BlockingIOError:
                await asyncio.sleep(BACKLOG_RETRY_SECONDS)
    except OSError as error:
        connection.close()
        raise unreachable(path, kind, error) from None
    except BaseException:
        connection.close()
        raise
