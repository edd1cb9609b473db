"""The service manager's side of sd_notify(3), with its descriptor store."""

from __future__ import annotations

import array
import contextlib
import os
import select
import socket
import threading
from typing import TYPE_CHECKING

from tests.support.machine import poll

if TYPE_CHECKING:
    import pathlib


class NotifySocket:
    """The service manager's side of sd_notify(3)."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.messages: list[dict[str, str]] = []
        """The messages so far, oldest first; each datagram as its assignments."""
        self.stored: dict[str, list[int]] = {}
        """Descriptors in the descriptor store, by name."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self._handed_over: list[socket.socket] = []
        self._lock = threading.RLock()
        self._reader: threading.Thread | None = None
        self._stop = -1
        """Closed to end the thread."""

    def attend(self) -> None:
        """Read what arrives at once, as a manager does that is not busy."""
        read_end, self._stop = os.pipe()
        self._reader = threading.Thread(target=self._read_until, args=(read_end,))
        self._reader.start()

    def _read_until(self, end: int) -> None:
        while end not in select.select([self._socket.fileno(), end], [], [])[0]:
            self.read()
        os.close(end)

    def neglect(self) -> None:
        """Read only when told to."""
        if self._reader is not None:
            os.close(self._stop)
            self._reader.join()
            self._reader = None

    def fill(self) -> None:
        """Fill the queue, as with a busy manager: it accepts nothing until `read`."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, contextlib.suppress(BlockingIOError):
            sender.setblocking(False)
            while True:
                sender.sendto(b"FULL=1", str(self.path))

    def read(self) -> list[dict[str, str]]:
        """Receive pending messages; return all messages so far."""
        with self._lock:
            return self._read()

    def _read(self) -> list[dict[str, str]]:
        room = socket.CMSG_SPACE(16 * 4)
        while True:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(65536, room)
            except BlockingIOError:
                return self.messages
            message = dict(line.split("=", 1) for line in data.decode().splitlines())
            descriptors = array.array("i")
            for level, kind, content in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
            self.messages.append(message)
            if "FDSTORE" in message:
                self.stored.setdefault(message["FDNAME"], []).extend(descriptors)
            elif "FDSTOREREMOVE" in message:
                for descriptor in self.stored.pop(message["FDNAME"], []):
                    os.close(descriptor)

    def wait_for(self, **wanted: str) -> dict[str, str]:
        """Wait for the first message that has all of `wanted`."""

        def find() -> dict[str, str] | None:
            return next((one for one in self.read() if wanted.items() <= one.items()), None)

        found = poll(f"a notification with {wanted}", find)
        assert found is not None
        return found

    def listeners(self) -> list[tuple[str, socket.socket]]:
        """The stored descriptors, as passed at a start."""
        with self._lock:
            self.read()
            found = [
                (name, socket.socket(fileno=os.dup(one))) for name, stored in self.stored.items() for one in stored
            ]
            self._handed_over += [one for _, one in found]
            return found

    def close(self) -> None:
        self.neglect()
        self._socket.close()
        for listening in self._handed_over:
            listening.close()
        for descriptors in self.stored.values():
            for descriptor in descriptors:
                os.close(descriptor)
        self.stored.clear()
