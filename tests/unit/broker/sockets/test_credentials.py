"""How the credentials socket handles bugs of the broker: no peer reads anything but a refusal."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from remo_broker.broker.audit.journal import StderrTransport
from remo_broker.broker.audit.trail import AuditTrail
from remo_broker.broker.credential_refusal import REFUSAL_BYTES
from remo_broker.broker.credentials import Credentials
from remo_broker.broker.loop import Loop
from remo_broker.broker.secrets.memory import Arena
from remo_broker.broker.secrets.store import Store
from remo_broker.broker.sockets import credential_connection
from remo_broker.broker.sockets.connection import Peer, Sweeper
from remo_broker.broker.sockets.credentials import CredentialServer
from remo_broker.broker.systemd import Manager
from remo_broker.protocol.credential_rules import parse_rules
from tests.support.broker import listen
from tests.support.credential_peer import own_unit
from tests.support.machine import unavailable

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator


class Bench:
    """A server without secrets, whose peers are in this process."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.bugs: list[BaseException] = []
        self.loop = Loop(self.bugs.append)
        self.arena = arena = Arena()
        self.store = Store(arena, 300)
        self.credentials = Credentials(parse_rules({own_unit(): {"password": "PASSWORD"}}), self.store)
        self.server = CredentialServer(
            self.loop,
            Sweeper(self.loop),
            arena,
            self.store,
            self.credentials,
            AuditTrail(StderrTransport(), clock_usec=lambda: 0),
            Manager(),
            wait_seconds=30,
            deny=False,
        )
        self._closing = contextlib.ExitStack()
        self._path = str(directory / "s")
        self._listening = self._closing.enter_context(listen(directory / "s"))
        self._number = 0

    def connect(self) -> socket.socket:
        self._number += 1
        client = self._closing.enter_context(socket.socket(socket.AF_UNIX))
        client.bind(b"\0%x%x/unit/%s/password" % (os.getpid(), self._number, own_unit().encode()))
        client.connect(self._path)
        descriptor, _ = self._listening._accept()  # type: ignore[attr-defined]
        connection = socket.socket(fileno=descriptor)
        self.server.accepted(connection, Peer(connection))
        return client

    def turn(self) -> None:
        self.loop.after(0, lambda: None)  # so that it does not wait
        self.loop.turn()

    def read(self, client: socket.socket) -> bytes:
        """Read to the end of the stream, as systemd does."""
        client.setblocking(False)
        client.shutdown(socket.SHUT_WR)
        data = b""
        while True:
            self.turn()
            try:
                part = client.recv(1 << 20)
            except BlockingIOError:
                continue
            if not part:
                return data
            data += part

    def close(self) -> None:
        self._closing.close()
        for connection in tuple(self.server.connections):
            connection.close()
        for unwatched in self.server._unwatched:
            unwatched.close()
        self.arena.SPARES = 0
        self.arena.give_back(self.arena.take())
        self.loop.close()


@pytest.fixture
def bench(directory: pathlib.Path) -> Iterator[Bench]:
    if os.geteuid() != 0:
        unavailable("systemd is root")
    with contextlib.closing(Bench(directory)) as bench:
        yield bench


def fail(*_: object) -> NoReturn:
    raise MemoryError


def is_refusal(answer: bytes) -> bool:
    return len(answer) >= REFUSAL_BYTES and b"internal error" in answer[:200]


def test_a_bug_while_reading_is_answered_with_a_refusal(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    client = bench.connect()
    monkeypatch.setattr(bench.loop, "change", fail)
    client.shutdown(socket.SHUT_WR)
    bench.turn()
    monkeypatch.undo()
    assert is_refusal(bench.read(client))
    assert set(map(type, bench.bugs)) == {MemoryError}


def test_a_bug_in_one_decision_keeps_no_other_unit_waiting(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = [bench.connect() for _ in range(3)]
    decide, calls = bench.credentials.verdict, []

    def verdict(unit: str, credential: str) -> object:
        calls.append(credential)
        return fail() if len(calls) == 1 else decide(unit, credential)

    monkeypatch.setattr(bench.credentials, "verdict", verdict)
    bench.server.stop()
    answers = [bench.read(client) for client in clients]
    assert list(map(len, answers)) == [REFUSAL_BYTES] * 3
    assert [is_refusal(answer) for answer in answers] == [True, False, False]
    assert bench.credentials.refused == 3


@pytest.mark.parametrize("part", ["decision and record", "record"])
def test_a_bug_in_a_record_is_answered_with_a_refusal(bench: Bench, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    """Even if the refusal cannot be recorded either."""
    client = bench.connect()
    if part != "record":
        monkeypatch.setattr(bench.credentials, "verdict", fail)
    monkeypatch.setattr("remo_broker.protocol.audit_records.credential_head", fail)
    bench.server.stop()
    assert is_refusal(bench.read(client))
    assert len(bench.bugs) == 2


class ShortOfMemory:
    """A socket whose every second send fails as if the kernel had no memory."""

    def __init__(self, real: socket.socket) -> None:
        self._real = real
        self.failed = 0

    def _fails(self) -> None:
        self.failed += 1
        if self.failed % 2:
            raise OSError((errno.ENOBUFS, errno.ENOMEM)[self.failed // 2 % 2], "no memory")

    def send(self, *arguments: Any) -> int:
        self._fails()
        return self._real.send(*arguments)

    def sendmsg(self, buffers: Any, *rest: Any) -> int:
        self._fails()
        part = bytes(buffers[0] or b"".join(buffers))[:100_000]
        return self._real.sendmsg([part], *rest)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@pytest.mark.parametrize("kind", ["value", "refusal"])
def test_an_answer_is_sent_whole_although_the_kernel_lacked_memory(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """systemd would take a part of a value, or of a refusal, for the credential."""
    monkeypatch.setattr(credential_connection, "MEMORY_SECONDS", 0.001)
    client = bench.connect()
    [asked] = bench.server.connections
    asked.socket = short = ShortOfMemory(asked.socket)  # type: ignore[assignment,arg-type]
    if kind == "value":
        asked.give(memoryview(b"v" * 300_000))
        assert bench.read(client) == b"v" * 300_000
    else:
        asked.refuse("of a test")
        answer = bench.read(client)
        assert len(answer) == REFUSAL_BYTES
        assert b"of a test" in answer[:200]
    assert short.failed > 2
    assert not bench.bugs


def test_a_connection_that_cannot_be_watched_is_not_closed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its unit would start with an empty credential; the next broker finds it in systemd's
    store."""
    monkeypatch.setattr(bench.loop, "watch", fail)
    client = bench.connect()
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(1)
    assert len(bench.bugs) == 1
