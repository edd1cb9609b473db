"""Refused peers on real sockets."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import pytest

from remo_broker.broker.audit.journal import StderrTransport
from remo_broker.broker.audit.trail import AuditTrail
from remo_broker.broker.loop import Loop
from remo_broker.broker.sockets import refused_peers
from remo_broker.broker.sockets.connection import Sweeper
from remo_broker.broker.sockets.refused_peers import (
    LONG_LINE,
    MAX_REFUSED_UIDS,
    LineReader,
    RefusedConnection,
    RefusedPeers,
)

if TYPE_CHECKING:
    from collections.abc import Generator

ANSWER = b"no\n"


def breaks(_line: bytes) -> Generator[None, None, bytes | None]:
    yield
    raise ZeroDivisionError


def is_fine(_line: bytes) -> Generator[None, None, bytes | None]:
    yield
    return None


def test_a_bug_in_one_refusal_does_not_affect_the_others() -> None:
    bugs: list[BaseException] = []
    gone: list[None] = []
    with contextlib.ExitStack() as stack:
        loop = Loop(bugs.append)
        stack.callback(loop.close)
        sweeper, reader = Sweeper(loop), LineReader(loop)
        trail = AuditTrail(StderrTransport(), clock_usec=lambda: 0)
        for record_of, answer in ((breaks, b""), (is_fine, ANSWER)):
            here, there = socket.socketpair()
            stack.enter_context(there)
            here.setblocking(False)
            refused = RefusedConnection(
                loop, sweeper, trail, reader, here, ANSWER, record_of, lambda: gone.append(None)
            )
            stack.callback(refused.close)
            there.sendall(b"x" * (LONG_LINE + 1) + b"\n")
            there.settimeout(20)
            for _ in range(5):
                loop.after(0, lambda: None)
                loop.turn()
            assert there.recv(100) == answer
    assert [type(bug) for bug in bugs] == [ZeroDivisionError]
    assert len(gone) == 2


def test_a_user_with_many_uids_hides_no_refusal_and_takes_no_other_peer_s_name(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refused_peers, "REFUSED_PEERS_SECONDS", 0.01)
    records: list[dict[str, str]] = []

    class Trail:
        def write_or_keep(self, record: bytes) -> None:
            records.append(dict(line.split("=", 1) for line in record.decode().splitlines()))

    refused = RefusedPeers(loop, Trail())  # type: ignore[arg-type]
    many = MAX_REFUSED_UIDS + 100
    for uid in range(many):
        refused.add("flooded", uid, b"REMO_PEER_UID=%d\n" % uid)
    refused.add("quiet", 7, b"REMO_PEER_UID=7\n")
    assert [one.get("REMO_PEER_UID") for one in records if one["REMO_PROJECT"] == "quiet"] == ["7"]
    del records[:]
    while not records:
        loop.turn()
    assert [(one["REMO_COUNT"], one.get("REMO_PEER_UID")) for one in records] == [("100", None)]
    del records[:]
    refused.add("flooded", 7000, b"REMO_PEER_UID=7000\n")
    assert [one["REMO_PEER_UID"] for one in records] == ["7000"], "they are no longer counted"
