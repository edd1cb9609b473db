"""A compromised reader: another program answers in its place, over the socket on which systemd
would start the reader."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from remo_broker.binder.__main__ import serve
from tests.support.broker import registration

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Iterator

    from tests.conftest import StartBroker

SHOWN = {"ok": True, "source": "/p/app/.remo/broker.toml", "sha256": "0" * 64, "ttl_seconds": 60, "max_entries": 16}
SHOWN |= {"allowlist": ["A", "B"], "hosts": {"h": "A"}, "bindings": {"A": [{"env_var": "X"}]}}


class Helpers:
    """`says` is the reader's next reply."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.says: dict[str, Any] = SHOWN
        self._sockets = str(directory)
        self._listening = []
        (directory / "internal").mkdir(parents=True)
        for name, answer in (("bind", self._bind), ("manifest", self._read)):
            listening = socket.socket(socket.AF_UNIX)
            listening.bind(str(directory / f"internal/{name}.sock"))
            listening.listen()
            self._listening.append(listening)
            threading.Thread(target=self._accept, args=(listening, answer), daemon=True).start()

    def _accept(self, listening: socket.socket, answer: Callable[[socket.socket], None]) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with connection, contextlib.suppress(OSError):
                    answer(connection)

    def _bind(self, connection: socket.socket) -> None:
        serve(connection, self._sockets)

    def _read(self, connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(json.dumps(self.says).encode() + b"\n")

    def close(self) -> None:
        for listening in self._listening:
            listening.shutdown(socket.SHUT_RDWR)
            listening.close()


@pytest.fixture
def helpers(directory: pathlib.Path) -> Iterator[Helpers]:
    with contextlib.closing(Helpers(directory / "s")) as helpers:
        yield helpers


@pytest.mark.parametrize(
    "lie",
    [
        {"allowlist": ["A", "B", "PRECIOUS"]},
        {"hosts": {"h": "A", "attacker.example": "B"}},
        {"bindings": {"A": [{"env_var": "LD_PRELOAD"}]}},
        {"ttl_seconds": 900},
    ],
    ids=lambda lie: next(iter(lie)),
)
def test_content_under_an_approved_hash_must_be_what_was_shown(
    start_broker: StartBroker, helpers: Helpers, lie: dict[str, Any]
) -> None:
    """Even if another reading comes in between."""
    broker = start_broker(projects=[registration("app", "A")])
    shown = broker.ask({"op": "preview", "name": "app"})
    assert (shown["added"], shown["sha256"]) == (["B"], "0" * 64)
    helpers.says = SHOWN | lie | {"sha256": "1" * 64}
    assert broker.ask({"op": "preview", "name": "app"})["ok"]
    helpers.says = SHOWN | lie
    reply = broker.ask({"op": "reload", "name": "app", "sha256": "0" * 64})
    assert (reply["code"], reply["reason"]) == ("manifest_invalid", "manifest_changed")
    assert broker.ask({"op": "show", "name": "app"})["allowlist"] == ["A"]
    helpers.says = SHOWN
    assert broker.ask({"op": "reload", "name": "app", "sha256": "0" * 64})["allowlist"] == ["A", "B"]
