"""The broker's helpers, played: the test answers on the sockets on which systemd would start them."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from typing import TYPE_CHECKING, Any

from remo_broker.binder.__main__ import MAX_LINE, serve

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable

SHOWN = {"ok": True, "source": "/p/app/.remo/broker.toml", "sha256": "0" * 64, "ttl_seconds": 60, "max_entries": 16}
SHOWN |= {"allowlist": ["A", "B"], "hosts": {"h": "A"}, "bindings": {"A": [{"env_var": "X"}]}}


class Helpers:
    """`says` is the reader's next reply. The next reply of the binder waits until `go_on` is set,
    if `hold` has been called; that of the reader, which then sets `reads`, if `hold_reader` has."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.says: dict[str, Any] = SHOWN
        self.go_on = threading.Event()
        self.reads = threading.Event()
        self._holds = self._holds_reader = False
        self._sockets = str(directory)
        self._listening = []
        (directory / "internal").mkdir(parents=True)
        for name, answer in (("bind", self._bind), ("manifest", self._read)):
            listening = socket.socket(socket.AF_UNIX)
            listening.bind(str(directory / f"internal/{name}.sock"))
            listening.listen()
            self._listening.append(listening)
            threading.Thread(target=self._accept, args=(listening, answer), daemon=True).start()

    def hold(self) -> None:
        self._holds = True

    def hold_reader(self) -> None:
        self._holds_reader = True

    def _accept(self, listening: socket.socket, answer: Callable[[socket.socket], None]) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                threading.Thread(target=self._answer, args=(connection, answer), daemon=True).start()

    def _answer(self, connection: socket.socket, answer: Callable[[socket.socket], None]) -> None:
        with connection, contextlib.suppress(OSError):
            answer(connection)

    def _bind(self, connection: socket.socket) -> None:
        if not self._holds:
            serve(connection, self._sockets)
            return
        self._holds = False
        ours, theirs = socket.socketpair()
        threading.Thread(target=self._answer, args=(theirs, lambda one: serve(one, self._sockets)), daemon=True).start()
        with ours:
            ours.sendall(connection.recv(MAX_LINE))
            data, descriptors, _, _ = socket.recv_fds(ours, MAX_LINE, 2)
            self.go_on.wait()
            socket.send_fds(connection, [data], descriptors)
            for descriptor in descriptors:
                socket.close(descriptor)

    def _read(self, connection: socket.socket) -> None:
        connection.recv(65_536)
        if self._holds_reader:
            self._holds_reader = False
            self.reads.set()
            self.go_on.wait()
        connection.sendall(json.dumps(self.says).encode() + b"\n")

    def close(self) -> None:
        self.go_on.set()
        for listening in self._listening:
            listening.shutdown(socket.SHUT_RDWR)
            listening.close()
