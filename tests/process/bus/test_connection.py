"""The connection, against a peer that plays the bus: limits on what others send, and bugs that do
not spread."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from remo_broker.bus import connection, wire
from remo_broker.bus.connection import HUNG_UP, Answer, CallError, Return
from remo_broker.bus.paths import ROOT
from tests.support.bus import MANAGER
from tests.support.played_bus import call, connected

if TYPE_CHECKING:
    import pathlib


def nothing(_call: wire.Incoming) -> Answer:
    return Return()


def test_a_bug_is_reported_only_in_the_log(directory: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    def broken(_call: wire.Incoming) -> Answer:
        raise RuntimeError("SENTINEL of an exception")

    async def use() -> wire.Incoming:
        async with connected(directory / "bus", broken) as (played, _):
            played.call(5)
            return await played.message()

    answer = asyncio.run(use())
    assert (answer.kind, answer.error_name, answer.reply_serial) == (wire.ERROR, connection.FAILED, 5)
    assert answer.body() == [connection.FAULT]
    log = capfd.readouterr().err
    assert "internal error, please report it" in log
    assert "SENTINEL" in log


def test_a_call_beyond_the_limit_is_refused_unread_and_the_next_is_answered(directory: pathlib.Path) -> None:
    seen = []

    def count(call: wire.Incoming) -> Answer:
        seen.append(call.serial)
        return Return()

    async def use() -> list[wire.Incoming]:
        async with connected(directory / "bus", count) as (played, opened):
            played.call(5, "GetProject", "s", "x" * 10_000_000)
            await played.writer.drain()
            assert len(opened._buffer) < 1024 * 1024
            played.writer.write(call(6, "GetProject", "s", "x" * 10_000, flags=wire.NO_REPLY_EXPECTED))
            played.writer.write(call(7, path="/x" * 10_000))  # its header alone is too long
            played.call(8)
            return [await played.message(), await played.message()]

    refusal, answer = asyncio.run(use())
    assert (refusal.kind, refusal.error_name, refusal.reply_serial) == (wire.ERROR, connection.LIMITS_EXCEEDED, 5)
    assert refusal.body() == ["A call may have 8192 bytes; no method here needs more."]
    assert (answer.kind, answer.reply_serial) == (wire.METHOD_RETURN, 8)
    assert seen == [8]


@pytest.mark.parametrize("size", [1, 15, 17, 100, 9000])
def test_a_message_may_come_in_pieces(directory: pathlib.Path, size: int) -> None:
    stream = b"".join(
        [
            call(5),
            call(6, "GetProject", "s", "x" * 20_000),
            call(7, "GetProject", "s", "x" * 20_000, flags=wire.NO_REPLY_EXPECTED),
            call(8, path="/x" * 10_000),
            call(9, "GetProject", "s", "myrepo"),
        ]
    )

    async def use() -> list[tuple[int, int]]:
        async with connected(directory / "bus", nothing) as (played, opened):
            for at in range(0, len(stream), size):
                opened.data_received(stream[at : at + size])
            answers = [await played.message() for _ in range(3)]
            assert not opened._buffer
            return [(answer.reply_serial, answer.kind) for answer in answers]

    assert asyncio.run(use()) == [(5, wire.METHOD_RETURN), (6, wire.ERROR), (9, wire.METHOD_RETURN)]


def test_while_the_bus_does_not_read_no_calls_are_read(directory: pathlib.Path) -> None:
    answered = 0

    def much(_call: wire.Incoming) -> Answer:
        nonlocal answered
        answered += 1
        return Return("s", wire.encode_body("s", ["x" * 100_000]))

    async def use() -> int:
        async with connected(directory / "bus", much) as (played, opened):
            for serial in range(5, 1005):
                played.call(serial)
            await played.writer.drain()
            await asyncio.sleep(0.2)  # time in which it could wrongly reply
            early = answered
            assert opened._transport.get_write_buffer_size() < 1024 * 1024
            for serial in range(5, 1005):
                assert (await played.message()).reply_serial == serial
            return early

    assert asyncio.run(use()) < 100
    assert answered == 1000


def test_a_bus_that_does_not_read_is_disconnected(directory: pathlib.Path) -> None:
    async def use() -> None:
        async with connected(directory / "bus", nothing) as (_, opened):
            while not opened.closed.done():
                opened.signal(ROOT, MANAGER, "ProjectAdded", "so", "x" * 100_000, ROOT)
                await asyncio.sleep(0)
            with pytest.raises(connection.BusError, match="does not read what we send"):
                opened.closed.result()
            with pytest.raises(CallError):
                await opened.ask_driver("ListNames")
            opened.signal(ROOT, MANAGER, "ProjectAdded", "so", "after the end", ROOT)

    asyncio.run(use())


def test_our_own_calls_time_out(directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CALL_SECONDS", 0.2)

    async def use() -> None:
        async with connected(directory / "bus", nothing) as (played, opened):
            with pytest.raises(CallError, match=r"no answer from org\.freedesktop\.DBus"):
                await opened.ask_driver("ListNames")
            ours = asyncio.create_task(opened.ask_driver("ListNames"))
            await played.message()
            serial = (await played.message()).serial
            played.writer.write(wire.encode(wire.ERROR, 2, error_name="org.example.No", reply_serial=serial))
            with pytest.raises(CallError, match=r"org\.example\.No"):
                await ours
            ours = asyncio.create_task(opened.ask_driver("ListNames", gives="as"))
            serial = (await played.message()).serial
            body = wire.encode_body("u", [7])
            played.writer.write(wire.encode(wire.METHOD_RETURN, 3, "u", body, reply_serial=serial))
            with pytest.raises(CallError, match="malformed answer"):
                await ours
            cut = asyncio.create_task(opened.ask_driver("ListNames"))
            await played.message()
            played.writer.close()
            with pytest.raises(CallError, match=HUNG_UP):
                await cut
            assert not opened._waiting

    asyncio.run(use())


@pytest.mark.parametrize(
    ("address", "paths"),
    [
        ("unix:path=/run/dbus/system_bus_socket", ["/run/dbus/system_bus_socket"]),
        ("unix:path=/a%20b,guid=00;tcp:host=x;unix:abstract=y", ["/a b", "\0y"]),
        ("unix:tmpdir=/tmp", []),
        ("", []),
    ],
)
def test_addresses(address: str, paths: list[str]) -> None:
    assert connection.socket_paths(address) == paths
