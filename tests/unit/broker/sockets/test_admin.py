"""The admin connection over a real socket pair."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import pytest

from remo_broker.broker.loop import Loop
from remo_broker.broker.refusals import Refused
from remo_broker.broker.secrets.memory import Arena
from remo_broker.broker.sockets import admin
from remo_broker.broker.sockets.connection import Peer, Sweeper
from remo_broker.protocol.codes import Code
from remo_broker.protocol.shared_limits import MAX_MESSAGE

if TYPE_CHECKING:
    from remo_broker.broker.sockets.admin import AdminCall, Steps
    from remo_broker.protocol.ops import Request

CONSTANT = Refused(Code.PROJECT_UNKNOWN, None, "no such project")


def perform(_request: Request, _call: AdminCall) -> Steps:
    yield None
    raise CONSTANT


@pytest.mark.parametrize(
    ("line", "refusal"),
    [
        (b'{"op":"show","name":"x"}', CONSTANT),
        (b'{"op":"show","name":"%b"}' % (b"x" * MAX_MESSAGE), admin.TOO_LONG),
    ],
    ids=["of an op", "of the connection"],
)
def test_a_refusal_keeps_no_frame_alive(line: bytes, refusal: Refused) -> None:
    """The keys of a malformed push may be values, and a constant exception lives as long as the
    process."""
    bugs: list[BaseException] = []
    loop = Loop(bugs.append)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        server = admin.AdminServer(loop, Sweeper(loop), Arena(use_memfd_secret=False), perform, 4)
        server.accepted(ours, Peer(ours))
        theirs.setblocking(False)
        rest, answer = memoryview(line + b"\n"), b""
        while b"\n" not in answer:
            if rest:
                rest = rest[theirs.send(rest) :]
            loop.after(0, lambda: None)  # so that a turn does not wait
            loop.turn()
            try:
                answer += theirs.recv(65536)
            except BlockingIOError:
                continue
        assert json.loads(answer)["code"] == refusal.code
        assert refusal.__traceback__ is None
        for connection in list(server.connections):
            connection.close()
    loop.close()
    assert bugs == []
