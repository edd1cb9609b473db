"""The broker as the commands reach it: an admin client that detects when waiting is pointless."""

from __future__ import annotations

import select

from remo_broker.client.admin import AdminClient
from remo_broker.client.errors import ClientError, ConnectionLost, Unreachable
from remo_broker.ctl import units
from remo_broker.protocol.clock import monotonic

# A broker starts in a tenth of a second. After this long, ask systemctl.
CHECK_SECONDS = 1.0


class CannotStart(ClientError):
    """systemd tries to start the broker, but the start fails."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"the broker cannot start: {why or 'it gave no reason'}",
            hint=f"fix that; 'journalctl -u {units.SERVICE}' has the details",
        )


class HostBroker(AdminClient):
    """The broker that this host's systemd starts.

    systemd accepts connections for a broker that fails to start, so an unchecked request would wait
    until its timeout.
    """

    def _read_line(self, deadline: float | None) -> bytes:
        self._wait(deadline)
        try:
            return super()._read_line(deadline)
        except ConnectionLost:
            self._check()
            raise

    def _send(self, data: bytes, deadline: float) -> None:
        try:
            super()._send(data, deadline)
        except Unreachable as error:
            if error.temporary:
                self._check()
            raise

    def _wait(self, deadline: float | None) -> None:
        """Return when there is data to read, or at the deadline. Raises `CannotStart`."""
        if self._connection is None or len(self._lines):
            return
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        while not poll.poll(CHECK_SECONDS * 1000):
            self._check()
            if deadline is not None and monotonic() >= deadline:
                return

    def _check(self) -> None:
        try:
            found = units.states()
        except (OSError, ValueError):
            return
        if found.cannot_start:
            raise CannotStart(found.why)
