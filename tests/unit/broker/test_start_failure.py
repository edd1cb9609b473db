"""The refusal of a broker that cannot start, while the kernel lacks memory."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest

from remo_broker.broker.credential_refusal import REFUSAL_BYTES
from remo_broker.broker.start_failure import _Refusal


class ShortOfMemory:
    """A socket whose first sends fail."""

    def __init__(self, real: socket.socket, *numbers: int) -> None:
        self._real = real
        self._numbers = list(numbers)

    def send(self, data: Any) -> int:
        if self._numbers:
            raise OSError(self._numbers.pop(), "not now")
        return self._real.send(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def test_a_refusal_continues_after_the_kernel_lacked_memory() -> None:
    """systemd would take a truncated refusal for the credential."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        refusal = _Refusal(ours, "1")
        refusal.connection = ShortOfMemory(ours, errno.ENOMEM, errno.ENOBUFS)  # type: ignore[assignment]
        assert [refusal.advance(), refusal.advance()] == [False, False]
        theirs.setblocking(False)
        got = 0
        while not refusal.advance():
            got += len(theirs.recv(1 << 20))
        while part := theirs.recv(1 << 20):
            got += len(part)
        assert got == REFUSAL_BYTES


def test_a_refusal_ends_when_its_peer_disconnects() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        refusal = _Refusal(ours, "1")
        theirs.close()
        with pytest.raises(OSError, match="Broken pipe"):
            refusal.advance()
