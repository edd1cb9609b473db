"""Clients that load the broker in a test machine while a test disturbs it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from tests.support.machine import Machine


class ConnectionLoad:
    """Clients that repeatedly connect, send a request and disconnect."""

    def __init__(self, machine: Machine, path: str) -> None:
        self.refused: list[str] = []
        self.answers = 0
        self._machine = machine
        self._path = path
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in range(2)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while not self._over.is_set():
            try:
                client = self._machine.connect(self._path)
            except OSError as error:
                self.refused.append(repr(error))
                continue
            with client:
                try:
                    client.sendall(b'{"op":"ping"}\n')
                    if b'"ok"' in client.recv(4096):
                        self.answers += 1
                except ConnectionError:
                    pass  # a client may see a closed connection
                except TimeoutError as error:
                    self.refused.append(repr(error))
            time.sleep(0.01)  # enough load, but leaves time for the rest of the test
