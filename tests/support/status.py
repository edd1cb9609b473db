"""A fake broker on a real status socket: sends valid or invalid events for a test, and counts
connections.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from typing import TYPE_CHECKING, Any

from remo_broker.protocol.message import Message
from remo_broker.protocol.replies import BrokerEvent, ProjectEvent, RemovedEvent, StoppingEvent, SyncedEvent

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator, Sequence

WAIT_SECONDS = 60


def broker_event(**changes: Any) -> BrokerEvent:
    """An event of a broker with three secrets, modified by `changes`."""
    values: dict[str, Any] = {
        "broker_version": "2.0.0",
        "protocol_version": 2,
        "start_usec": 1_760_000_000_000_000,
        "secrets_loaded_usec": 1_760_000_100_000_000,
        "secret_count": 3,
        "generation": 7,
        "memory_protection": "memfd_secret",
        "audit_healthy": True,
        "audit_dropped": 0,
        "fetches_allowed": 41,
        "fetches_denied": 2,
    }
    return BrokerEvent(**values | changes)


def project_event(name: str = "myrepo", **changes: Any) -> ProjectEvent:
    values: dict[str, Any] = {
        "name": name,
        "socket_path": f"/run/remo-broker/{name}.sock",
        "allowlist_size": 2,
        "cache_entries": 1,
        "connections": 1,
        "fetches_allowed": 40,
        "fetches_denied": 1,
        "last_fetch_usec": 1_760_000_200_000_000,
    }
    return ProjectEvent(**values | changes)


REMOVED = RemovedEvent
IDLE = StoppingEvent(idle=True)
STOPPING = StoppingEvent(idle=False)


class StatusPeer:
    """Listens on `path`. Sends each watcher `greeting`, then what `tell` is given."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.greeting: Sequence[Message] = (broker_event(), project_event(), SyncedEvent())
        self.answers = True
        """Whether a connection gets the greeting; otherwise it gets nothing."""
        self.connects = 0
        self.asked = 0
        """The number of bytes that watchers have sent."""
        self._watchers: list[socket.socket] = []
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._listener: socket.socket | None = None
        self.listen()

    def listen(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(16)
        threading.Thread(target=self._accept, args=[self._listener], daemon=True).start()

    def leave(self) -> None:
        """Act as if the process had exited: stop listening, close connections."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
            self.path.unlink(missing_ok=True)
        self.hang_up()

    def hang_up(self) -> None:
        """Close the connections but keep listening."""
        with self._lock:
            for watcher in self._watchers:
                with contextlib.suppress(OSError):
                    watcher.shutdown(socket.SHUT_RDWR)
                watcher.close()
            self._watchers.clear()

    def tell(self, *events: Message | bytes) -> None:
        """Send events, or raw bytes, to every watcher in one write."""
        data = b"".join(_line(event) for event in events)
        with self._lock:
            for watcher in self._watchers:
                watcher.sendall(data)

    def wait_for_connects(self, count: int) -> None:
        """Wait until there have been `count` connects since the beginning."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: self.connects >= count, WAIT_SECONDS), self.connects

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                watcher, _ = listener.accept()
            except OSError:
                return
            with self._arrived:
                self.connects += 1
                self._watchers.append(watcher)
                if self.answers:
                    with contextlib.suppress(OSError):  # a watcher that is idle may exit at any moment
                        watcher.sendall(b"".join(_line(event) for event in self.greeting))
                self._arrived.notify_all()
            threading.Thread(target=self._read, args=[watcher], daemon=True).start()

    def _read(self, watcher: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := watcher.recv(4096):
                self.asked += len(data)


def _line(event: Message | bytes) -> bytes:
    return event if isinstance(event, bytes) else json.dumps(event.to_json()).encode() + b"\n"


@contextlib.contextmanager
def status_peer(path: pathlib.Path) -> Iterator[StatusPeer]:
    peer = StatusPeer(path)
    try:
        yield peer
    finally:
        peer.leave()
