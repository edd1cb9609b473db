"""A fake bus for one connection, scripted message by message."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from remo_broker.bus import wire
from remo_broker.bus.connection import Answer, BusConnection, connect
from tests.support.bus import MANAGER, ROOT, unix_address

if TYPE_CHECKING:
    import pathlib
    from collections.abc import AsyncIterator, Callable


class PlayedBus:
    """The bus's end of one connection."""

    def __init__(self) -> None:
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter
        self.arrived = asyncio.Event()

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        await reader.readline()
        writer.write(b"OK 0123456789abcdef0123456789abcdef\r\n")
        await reader.readline()
        hello = await self.message()
        body = wire.encode_body("s", [":1.7"])
        writer.write(wire.encode(wire.METHOD_RETURN, 1, "s", body, reply_serial=hello.serial))
        self.arrived.set()

    async def message(self) -> wire.Incoming:
        """The next message from the connection."""
        head = await self.reader.readexactly(wire.FIXED_HEADER)
        return wire.decode(head + await self.reader.readexactly(wire.frame_length(head) - len(head)))

    def call(self, serial: int, member: str = "ListProjects", signature: str = "", *values: object) -> None:
        self.writer.write(call(serial, member, signature, *values))


def call(
    serial: int,
    member: str = "ListProjects",
    signature: str = "",
    *values: object,
    path: str = ROOT,
    sender: str = ":1.3",
    flags: int = 0,
) -> bytes:
    """A call, as the bus forwards it."""
    body = wire.encode_body(signature, values)
    fields = {"path": path, "interface": MANAGER, "member": member, "destination": ":1.7"}
    frame = _sent_by(sender, wire.encode(wire.METHOD_CALL, serial, signature, body, **fields))
    return frame[:2] + bytes([flags]) + frame[3:]


def _sent_by(sender: str, frame: bytes) -> bytes:
    """Add the sender after the other header fields, as the bus does."""
    body = wire.header_length(frame)
    others = frame[wire.FIXED_HEADER : body]
    added = b"\7\1s\0" + len(sender).to_bytes(4, "little") + sender.encode() + b"\0"
    fields = others + added
    padded = fields.ljust((len(fields) + 7) // 8 * 8, b"\0")
    return frame[:12] + len(fields).to_bytes(4, "little") + padded + frame[body:]


@contextlib.asynccontextmanager
async def connected(
    path: pathlib.Path, answer: Callable[[wire.Incoming], Answer]
) -> AsyncIterator[tuple[PlayedBus, BusConnection]]:
    played = PlayedBus()
    server = await asyncio.start_unix_server(played.take, path)
    async with server:
        opened = await connect(unix_address(path), answer, lambda _signal: None)
        await played.arrived.wait()
        assert opened.name == ":1.7"
        try:
            yield played, opened
        finally:
            opened.close()
            played.writer.close()
            await asyncio.wait([opened.closed])
