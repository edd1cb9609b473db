"""A server that follows a script instead of the protocol: what it sends, when, and how it ends."""

from __future__ import annotations

import contextlib
import json
import pathlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

WAIT_SECONDS = 60.0


class Next:
    """Wait for one more request line before continuing."""


class Slowly:
    """Send `data` in pieces of `size` bytes, with a pause before each."""

    def __init__(self, data: bytes, *, size: int = 1, pause: float = 0.001) -> None:
        self.data = data
        self.size = size
        self.pause = pause


class Hold:
    """Send nothing more until the client closes the connection."""


Step = bytes | Next | Slowly | Hold
NEXT, HOLD = Next(), Hold()


def line(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"


PONG = line(ok=True, broker_version="2.0.0", protocol_version=2, project="myrepo")


def value(text: str, **more: object) -> bytes:
    return line(ok=True, value=text, ttl_seconds=900, generation=1, **more)


def raw_value(text: bytes) -> bytes:
    """A value as it appears in the JSON, without its quotes."""
    return b'{"ok":true,"value":"' + text + b'","ttl_seconds":900,"generation":1}\n'


def binary(base64: str, **more: object) -> bytes:
    return line(ok=True, value_b64=base64, ttl_seconds=900, generation=1, **more)


def allowlist(*names: str) -> bytes:
    return line(ok=True, project="myrepo", allowlist=list(names), schema_version=1)


def ready(ready: bool = True) -> bytes:
    return line(ok=True, ready=ready, generation=1)


def failure(code: str, message: str = "refused", **more: Any) -> bytes:
    return line(ok=False, code=code, message=message, **more)


class ScriptedPeer:
    """Listens at `path` and plays one script per connection; repeats the last one."""

    def __init__(self, path: pathlib.Path, *scripts: Sequence[Step]) -> None:
        self.path = path
        self.scripts = [list(script) for script in scripts]
        self.requests: list[bytes] = []
        """What each connection sent."""
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._listening.bind(str(self.path))
        self._listening.listen()
        self._listening.settimeout(WAIT_SECONDS)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Any accepted connection wakes the thread, which then ends.
        self.scripts = []
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as last:
            last.connect(str(self.path))
        self._thread.join(WAIT_SECONDS)
        self._listening.close()
        self.path.unlink()

    def _serve(self) -> None:
        while self.scripts:
            connection, _ = self._listening.accept()
            with connection:
                if not self.scripts:
                    return
                script = self.scripts[0] if len(self.scripts) == 1 else self.scripts.pop(0)
                connection.settimeout(WAIT_SECONDS)
                place = len(self.requests)
                self.requests.append(b"")
                with contextlib.suppress(OSError):
                    self._play(connection, script, place)

    def _play(self, connection: socket.socket, script: list[Step], place: int) -> None:
        for step in script:
            if isinstance(step, Next):
                before = self.requests[place].count(b"\n")
                while self.requests[place].count(b"\n") == before and (data := connection.recv(65536)):
                    self.requests[place] += data
            elif isinstance(step, Slowly):
                for at in range(0, len(step.data), step.size):
                    time.sleep(step.pause)
                    connection.sendall(step.data[at : at + step.size])
            elif isinstance(step, Hold):
                while connection.recv(65536):
                    pass
            else:
                connection.sendall(step)
