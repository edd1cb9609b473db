"""A connection to the bus: authentication, framing, calls and replies.

Everything that other users send has a limit.

Rules:
- any failure closes the connection, with one line that says why (`closed`); no retries here;
- an exception while answering a call is a bug: it is logged, and the caller gets a fixed text;
- while the bus does not read replies, no more calls are read.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from remo_broker.bus import wire
from remo_broker.bus.log import warning

# For connecting, authenticating and the bus's first reply. These take milliseconds on a healthy
# bus.
CONNECT_SECONDS = 5.0
# For a reply of the bus or systemd to one of our calls.
CALL_SECONDS = 10.0
# The longest line during authentication is an error's text.
MAX_AUTHENTICATION_LINE = 1024
# A longer message is hostile: skip it without storing it. If a call's header is short enough, reply
# with an error. The longest legal call names an interface and a property, 255 bytes each; the
# longest signal is systemd's, with all the changed properties of a unit; the longest reply to our
# own calls lists every name on the bus.
MAX_CALL = 8 * 1024
MAX_SIGNAL = 64 * 1024
MAX_ANSWER = 4 * 1024 * 1024
# The most unsent data, about ten thousand signals. A bus that falls this far behind has failed.
MAX_UNSENT = 16 * 1024 * 1024

DRIVER = "org.freedesktop.DBus"
DRIVER_PATH = "/org/freedesktop/DBus"
SYSTEM_BUS = "unix:path=/run/dbus/system_bus_socket"

HUNG_UP = "the bus closed the connection"
_LONGEST = {wire.SIGNAL: MAX_SIGNAL, wire.METHOD_RETURN: MAX_ANSWER, wire.ERROR: MAX_ANSWER}

FAILED = "org.freedesktop.DBus.Error.Failed"
LIMITS_EXCEEDED = "org.freedesktop.DBus.Error.LimitsExceeded"
FAULT = "internal error; see `journalctl -u remo-broker-bus` and report it"


class BusError(Exception):
    """The connection to the bus failed. The text is one line for the log that says what to do."""


class CallError(Exception):
    """The reply to one of our calls was an error, or did not come. The text is the error's name."""


@dataclass(frozen=True)
class Return:
    """A successful reply; `body` is from `wire.encode_body`."""

    signature: str = ""
    body: bytes = b""


@dataclass(frozen=True)
class Error:
    """An error reply."""

    name: str
    text: str


Answer = Return | Error

TOO_LONG = Error(LIMITS_EXCEEDED, f"A call may have {MAX_CALL} bytes; no method here needs more.")


class BusConnection(asyncio.Protocol):
    """Made by `connect`.

    `closed` is done when the connection has ended; raises BusError unless one side closed it.
    """

    def __init__(
        self, answer: Callable[[wire.Incoming], Answer | None], heard: Callable[[wire.Incoming], None]
    ) -> None:
        loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.name = ""
        """The unique name from the bus."""
        self._answer = answer
        self._heard = heard
        self._transport: asyncio.Transport
        self._authenticated: asyncio.Future[None] = loop.create_future()
        self._buffer = bytearray()
        self._skip = 0
        self._full = False
        self._serial = 0
        self._waiting: dict[int, asyncio.Future[wire.Incoming]] = {}

    async def begin(self) -> None:
        """Authenticate and call Hello. Raises BusError, CallError."""
        try:
            await self._authenticated
            (self.name,) = await self.ask_driver("Hello", gives="s")
        except BaseException:
            self._transport.abort()
            raise

    # --- our own calls and signals ----------------------------------------------------------------

    async def call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        *values: object,
        gives: str = "",
    ) -> list[Any]:
        """Call a method and return its reply, of signature `gives`. Raises CallError."""
        if self.closed.done():
            raise CallError(self._why_closed())
        future: asyncio.Future[wire.Incoming] = asyncio.get_running_loop().create_future()
        body = wire.encode_body(signature, values)
        fields = {"path": path, "interface": interface, "member": member, "destination": destination}
        serial = self._send(wire.METHOD_CALL, signature, body, **fields)
        self._waiting[serial] = future
        try:
            async with asyncio.timeout(CALL_SECONDS):
                answer = await future
            if answer.kind == wire.ERROR:
                raise CallError(answer.error_name)
            if answer.signature != gives:
                raise wire.BadMessage
            return answer.body()
        except TimeoutError:
            raise CallError(f"no answer from {destination} in {CALL_SECONDS:g} s") from None
        except wire.BadMessage:
            raise CallError(f"a malformed answer from {destination}") from None
        finally:
            self._waiting.pop(serial, None)

    async def ask_driver(self, member: str, signature: str = "", *values: object, gives: str = "") -> list[Any]:
        """Call a method of the bus itself. Raises CallError."""
        return await self.call(DRIVER, DRIVER_PATH, DRIVER, member, signature, *values, gives=gives)

    def signal(self, path: str, interface: str, member: str, signature: str, *values: object) -> None:
        """Broadcast a signal."""
        if not self.closed.done():
            body = wire.encode_body(signature, values)
            self._send(wire.SIGNAL, signature, body, path=path, interface=interface, member=member)

    def close(self) -> None:
        """Close after sending everything."""
        self._transport.close()

    def _send(self, kind: int, signature: str, body: bytes, **fields: str | int) -> int:
        self._serial += 1
        if self._transport.get_write_buffer_size() > MAX_UNSENT:
            self._end(BusError("the bus does not read what we send"))
        elif not self._transport.is_closing():
            self._transport.write(wire.encode(kind, self._serial, signature, body, **fields))
        return self._serial

    # --- receiving --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        uid = str(os.geteuid()).encode().hex()
        transport.write(f"\0AUTH EXTERNAL {uid}\r\n".encode())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            if not self._authenticated.done() and not self._authenticate():
                return
            self._messages()
        except wire.BadMessage as error:
            self._end(BusError(str(error)))

    def eof_received(self) -> None:
        """The transport closes itself; `connection_lost` follows."""

    def connection_lost(self, exc: Exception | None) -> None:
        hung_up = exc is None or isinstance(exc, ConnectionError)
        self._end(None if hung_up else BusError(f"the connection to the bus broke: {exc}"))

    def pause_writing(self) -> None:
        self._full = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._full = False
        self.data_received(b"")  # what remains buffered
        if not self._full:
            self._transport.resume_reading()

    def _end(self, error: BusError | None) -> None:
        if not self._authenticated.done():
            self._authenticated.set_exception(error or BusError(HUNG_UP))
        if not self.closed.done() and error is not None:
            self.closed.set_exception(error)
            self.closed.exception()  # retrieved: otherwise asyncio may warn
        elif not self.closed.done():
            self.closed.set_result(None)
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(CallError(self._why_closed()))
        self._transport.abort()

    def _why_closed(self) -> str:
        return str(self.closed.exception() or HUNG_UP)

    def _authenticate(self) -> bool:
        line, end, _rest = self._buffer.partition(b"\r\n")
        if not end:
            if len(line) > MAX_AUTHENTICATION_LINE:
                raise wire.BadMessage("the bus sent something that is not D-Bus")
            return False
        if not line.startswith(b"OK "):
            raise wire.BadMessage(f"the bus refuses user {os.geteuid()}")
        del self._buffer[: len(line) + 2]
        self._transport.write(b"BEGIN\r\n")
        self._authenticated.set_result(None)
        return True

    def _messages(self) -> None:
        at = 0
        buffer = self._buffer
        while not self._full:
            skipped = min(self._skip, len(buffer) - at)
            self._skip -= skipped
            at += skipped
            if len(buffer) - at < wire.FIXED_HEADER:
                break
            head = buffer[at : at + wire.FIXED_HEADER]
            length = wire.frame_length(head)
            if length > _LONGEST.get(head[1], MAX_CALL):
                refused = wire.header_length(head) if head[1] == wire.METHOD_CALL else 0
                if 0 < refused <= MAX_CALL:
                    if len(buffer) - at < refused:
                        break
                    self._refuse(bytes(buffer[at : at + refused]))
                self._skip = length
                continue
            if len(buffer) - at < length:
                break
            self._message(bytes(buffer[at : at + length]))
            at += length
        del buffer[:at]

    def _message(self, frame: bytes) -> None:
        try:
            message = wire.decode(frame)
        except wire.BadMessage:
            return  # there is no sender to reply to
        if message.kind == wire.METHOD_CALL:
            answer = self._guarded(lambda: self._answer(message))
            if answer is not None:
                self.reply(message, answer)
        elif message.kind == wire.SIGNAL:
            self._guarded(lambda: self._heard(message))
        else:
            future = self._waiting.get(message.reply_serial)
            if future is not None and not future.done():
                future.set_result(message)

    def _refuse(self, header: bytes) -> None:
        with contextlib.suppress(wire.BadMessage):
            self.reply(wire.decode(header), TOO_LONG)

    def reply(self, message: wire.Incoming, answer: Answer) -> None:
        """Reply to a call."""
        if message.flags & wire.NO_REPLY_EXPECTED:
            return
        to: dict[str, str | int] = {"destination": message.sender, "reply_serial": message.serial}
        if isinstance(answer, Error):
            self._send(wire.ERROR, "s", wire.encode_body("s", [answer.text]), error_name=answer.name, **to)
        else:
            self._send(wire.METHOD_RETURN, answer.signature, answer.body, **to)

    @staticmethod
    def _guarded(handle: Callable[[], Answer | None]) -> Answer | None:
        """What `handle` returns.

        An exception is a bug: log it, and send the caller a fixed text.
        """
        try:
            return handle()
        except Exception:  # noqa: BLE001
            warning(f"internal error, please report it: {traceback.format_exc()}")
            return Error(FAILED, FAULT)


async def connect(
    address: str, answer: Callable[[wire.Incoming], Answer | None], heard: Callable[[wire.Incoming], None]
) -> BusConnection:
    """Connect to the bus at `address`, in D-Bus syntax.

    `answer` gets every call and returns None if it replies later with `BusConnection.reply`;
    `heard` gets every signal. Raises BusError."""
    refusals = []
    for path in socket_paths(address):
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _transport, connection = await asyncio.get_running_loop().create_unix_connection(
                    lambda: BusConnection(answer, heard), path
                )
                await connection.begin()
        except TimeoutError:
            refusals.append(f"{path}: no answer in {CONNECT_SECONDS:g} s")
        except (OSError, BusError, CallError) as error:
            refusals.append(f"{path}: {error}")
        else:
            return connection
    raise BusError(
        f"cannot connect to the bus ({'; '.join(refusals) or f'no Unix socket in the address {address}'}); "
        "is it running? See `systemctl status dbus.service`"
    )


def socket_paths(address: str) -> list[str]:
    """The Unix sockets of an address, in order; an abstract one begins with NUL."""
    found = []
    for one in address.split(";"):
        transport, _, options = one.partition(":")
        values = dict(option.partition("=")[::2] for option in options.split(","))
        if transport == "unix" and "path" in values:
            found.append(unquote(values["path"]))
        elif transport == "unix" and "abstract" in values:
            found.append(f"\0{unquote(values['abstract'])}")
    return found
