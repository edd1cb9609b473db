"""One interface to both forms of the library, so that each test covers both, and brokers to talk
to."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from remo_broker import client
from tests.support.broker import Broker, listen, registration, short_directory

if TYPE_CHECKING:
    import os
    import pathlib
    from collections.abc import Iterator

ALLOWED = ("GITHUB_TOKEN", "aws", "KEYSTORE", "MISSING")
SECRETS = {"GITHUB_TOKEN": "ghp_zq8Kexample", "aws": {"id": "AKIA", "key": 'wJ\n"é'}}


class Face:
    """A client of either form; results of asynchronous methods are awaited."""

    def __init__(self, inner: Any, loop: asyncio.AbstractEventLoop | None) -> None:
        self.inner = inner
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)
        if self._loop is None or not callable(method):
            return method
        loop = self._loop

        def call(*arguments: Any, **options: Any) -> Any:
            result = method(*arguments, **options)
            return loop.run_until_complete(result) if inspect.iscoroutine(result) else result

        return call


class Open(Protocol):
    def __call__(self, kind: str, path: str | os.PathLike[str], **options: Any) -> Any: ...


@pytest.fixture(params=["sync", "async"])
def open_client(request: pytest.FixtureRequest) -> Iterator[Open]:
    """`open_client("Client", path)`: a client of the form under test, closed at the end."""
    loop = asyncio.new_event_loop() if request.param == "async" else None
    with contextlib.ExitStack() as stack:
        if loop is not None:
            stack.callback(loop.close)

        def open_(kind: str, path: str | os.PathLike[str], **options: Any) -> Face:
            name = kind if loop is None else f"Async{kind}"
            face = Face(getattr(client, name)(path, **options), loop)
            stack.callback(face.inner.close)
            return face

        yield open_


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """A broker with the project `myrepo` and secrets of each kind."""
    with short_directory() as directory:
        broker = Broker(directory, projects=[registration("myrepo", *ALLOWED)], rate_limit_per_second=0)
        with contextlib.closing(broker):
            broker.start()
            broker.push(SECRETS, KEYSTORE="3q2+7w==")
            yield broker


class CannedServer:
    """A listener that is not a broker of this version: it replies to each connection with given
    bytes and closes it. The last of `answers` also serves all further connections. With `hold`, it
    closes connections only at the end; with `slow`, it sends a few bytes at a time."""

    def __init__(self, path: pathlib.Path, *answers: bytes, hold: bool = False, slow: bool = False) -> None:
        self.path = path
        self._answers = list(answers)
        self._hold = hold
        self._slow = slow
        self._held: list[socket.socket] = []
        self._listening = listen(path)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
            with contextlib.suppress(OSError):
                connection.recv(1000)
                step = 10 if self._slow else len(answer) + 1
                for begin in range(0, len(answer), step):
                    connection.sendall(answer[begin : begin + step])
                    time.sleep(0.002 if self._slow else 0)
            if self._hold:
                self._held.append(connection)
            else:
                connection.close()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()
        for connection in self._held:
            connection.close()


class Serve(Protocol):
    def __call__(self, *answers: bytes, hold: bool = False, slow: bool = False) -> CannedServer: ...


@pytest.fixture
def serve(directory: pathlib.Path) -> Iterator[Serve]:
    """`serve(bytes)`: a listener at `.path` that is not a broker."""
    with contextlib.ExitStack() as stack:

        def start(*answers: bytes, hold: bool = False, slow: bool = False) -> CannedServer:
            found = CannedServer(directory / "other.sock", *answers, hold=hold, slow=slow)
            stack.callback(found.close)
            return found

        yield start
