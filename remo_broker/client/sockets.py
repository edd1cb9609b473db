"""Send and wait on a non-blocking socket with the fewest possible system calls."""

from __future__ import annotations

import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket


def send_at_once(connection: socket, data: bytes) -> int:
    """Send what the socket has room for, all of it unless `data` is long; return how much.

    With a timeout set, the socket would be made non-blocking again and polled first.
    """
    try:
        return connection.send(data)
    except BlockingIOError:
        return 0


def wait_readable(connection: socket, seconds: float | None) -> None:
    """Return once a read does not block; None waits forever. Raises TimeoutError."""
    poller = select.poll()
    poller.register(connection, select.POLLIN)
    if not poller.poll(None if seconds is None else seconds * 1000):
        raise TimeoutError
