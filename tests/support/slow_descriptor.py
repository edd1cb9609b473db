"""A descriptor that takes the process that closes it last two minutes: a TCP socket with SO_LINGER,
with more to send than its peer reads.

Also a standalone script with only the standard library, for other users in a test machine:

    python slow_descriptor.py SOCKET LINE

connects, sends such a descriptor and the line, prints `sent` or the error, and ends with its
standard input.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

# Twice as long as the tests' clients wait.
LINGER_SECONDS = 120
SO_PASSRIGHTS = 83


class SlowDescriptor:
    """Closing it is slow until the block ends."""

    def __enter__(self) -> Self:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self._slow = socket.create_connection(listening.getsockname())
            self._peer, _ = listening.accept()
        self._slow.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._slow.send(bytes(65_536))
        return self

    def send(self, client: socket.socket, data: bytes) -> None:
        """Send it, and keep none. Raises OSError."""
        socket.send_fds(client, [data], [self._slow.fileno()])
        self._slow.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, LINGER_SECONDS))
        self._slow.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._peer.close()  # with bytes unread, which resets the connection
        self._slow.close()


def require_refusal() -> None:
    """Skip the test where the kernel cannot refuse descriptors."""
    from tests.support.machine import unavailable

    with socket.socket(socket.AF_UNIX) as one:
        try:
            one.getsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS)
        except OSError:
            unavailable("refusing descriptors takes Linux 6.16")


def main(path: str, line: str) -> None:
    with SlowDescriptor() as slow, socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        try:
            slow.send(client, line.encode() + b"\n")
            print("sent", flush=True)
        except OSError as error:
            print(error, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
