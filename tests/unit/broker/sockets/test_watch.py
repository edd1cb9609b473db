"""What a watcher receives while nothing changes."""

from __future__ import annotations

import gc
import json
import select
import socket
import weakref

import pytest

from remo_broker.broker.decisions import Decisions
from remo_broker.broker.loop import Loop
from remo_broker.broker.secrets.memory import Arena
from remo_broker.broker.secrets.store import Store
from remo_broker.broker.sockets import watch
from remo_broker.broker.sockets.connection import Connection, Sweeper
from remo_broker.protocol.config import Config


def test_a_watcher_gets_an_empty_object_as_a_keep_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "KEEP_ALIVE_SECONDS", 0.05)
    bugs: list[BaseException] = []
    loop = Loop(bugs.append)
    ours, theirs = socket.socketpair()
    theirs.settimeout(20)
    with ours, theirs, theirs.makefile("rb") as lines:
        connection = Connection(loop, Sweeper(loop), ours)
        decisions = Decisions(Config({}), Store(Arena(), 900))
        connection.begin(watch.StoreStream(watch.Watchers(loop, decisions), connection))
        while not select.select([theirs], [], [], 0)[0] or theirs.recv(65536, socket.MSG_PEEK).count(b"\n") < 2:
            loop.turn()
        assert json.loads(lines.readline())["ok"]
        assert json.loads(lines.readline()) == {}
        connection.close()
    loop.close()
    assert bugs == []


class KnownConnection(Connection):
    """One that can be referred to weakly."""

    __slots__ = ("__weakref__",)


def test_a_watcher_that_is_gone_is_not_kept() -> None:
    """Not until its next keep-alive would be due: clients can begin hundreds a second."""
    bugs: list[BaseException] = []
    loop = Loop(bugs.append)
    watchers = watch.Watchers(loop, Decisions(Config({}), Store(Arena(), 900)))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = KnownConnection(loop, Sweeper(loop), ours)
        connection.begin(watch.StoreStream(watchers, connection))
        connection.close()
        known = weakref.ref(connection)
        del connection
        gc.collect()
        assert known() is None
    loop.close()
    assert bugs == []
