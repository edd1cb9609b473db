"""Where audit records go: journald's own datagram socket, or standard error outside systemd.

`sd_journal_send` reports success where the socket is missing and blocks where its queue is full, so the broker speaks
the native protocol itself. One datagram may carry several entries, an empty line between them: a turn of the loop
hands over all its records with one call, and journald takes them in faster than one by one.

Rules:
- a record is handed over before the reply it belongs to is sent;
- a full queue is waited for, for `PATIENCE_SECONDS` at most; journald is then taken for gone until it takes a record
  again, and nobody waits any more;
- meanwhile the last `WAITING_RECORDS` wait in memory with their own time, the oldest dropped first and counted.
"""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import time
from collections import deque

from remo_broker import audit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Transport(Protocol):
        """Takes whole records, all of a call or none, or raises OSError."""

        name: str
        max_batch: int

        def send(self, records: list[bytes], patience_seconds: float) -> None: ...


SOCKET_PATH = "/run/systemd/journal/socket"

# A healthy journald empties its queue in well under a millisecond, but a rotation or a sync may take it some tens.
# Everybody waits meanwhile, so the patience must end well below the 200 ms in which a status has to be answered.
PATIENCE_SECONDS = 0.1
# What the audit may lose is bounded by what may wait: some 600 KiB of memory at the most.
WAITING_RECORDS = 1000
# How often an ailing journald is tried while records wait.
RETRY_SECONDS = 0.25


class JournalTransport:
    """The datagram socket of journald."""

    name = "journal"
    # One datagram must fit the socket's send buffer (212,992 bytes by default, half of it bookkeeping).
    max_batch = 64 * 1024

    def __init__(self, path: str = SOCKET_PATH) -> None:
        self._path = path
        self._socket: socket.socket | None = None

    def send(self, records: list[bytes], patience_seconds: float) -> None:
        """Hand over `records` as one datagram. Raises OSError when journald did not take it within the patience."""
        data = b"\n".join(records)
        if self._socket is None:
            self._connect()
        assert self._socket is not None
        try:
            self._socket.send(data)
        except BlockingIOError:
            if patience_seconds <= 0:
                raise
            self._send_when_writable(data, patience_seconds)
        except OSError:
            # journald's socket was made anew; the descriptor points at the dead one.
            self._connect()
            self._socket.send(data)

    def _send_when_writable(self, data: bytes, patience_seconds: float) -> None:
        assert self._socket is not None
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        deadline = time.monotonic() + patience_seconds
        while (left := deadline - time.monotonic()) > 0:
            poll.poll(left * 1000)
            try:
                self._socket.send(data)
                return
            except BlockingIOError:
                continue
        raise BlockingIOError(errno.EAGAIN, "journald does not take records")

    def _connect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        fresh = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        fresh.setblocking(False)
        try:
            fresh.connect(self._path)
        except OSError:
            fresh.close()
            raise
        self._socket = fresh


class StderrTransport:
    """The same records as JSON lines on standard error, for containers and laptops."""

    name = "stderr"
    # A pipe takes so much at once or nothing; a record is shorter, two may not be.
    max_batch = 0
    _DESCRIPTOR = 2

    def send(self, records: list[bytes], patience_seconds: float) -> None:
        data = b"".join(json.dumps(fields_of(record)).encode("ascii") + b"\n" for record in records)
        poll = select.poll()
        poll.register(self._DESCRIPTOR, select.POLLOUT)
        while data:
            # A pipe nobody reads must not stop the broker; it is left blocking because others share it.
            if not poll.poll(patience_seconds * 1000):
                raise BlockingIOError(errno.EAGAIN, "standard error does not take records")
            data = data[os.write(self._DESCRIPTOR, data[: select.PIPE_BUF]) :]


def fields_of(record: bytes) -> dict[str, str]:
    """The fields of one record in native format, as a dict. The inverse of `audit.field`."""
    fields = {}
    while record:
        line, _, rest = record.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            length = int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + length], rest[9 + length :]
        fields[name.decode("ascii")] = value.decode("utf-8")
        record = rest
    return fields


class AuditTrail:
    """Hands records over in order, keeps them while nobody takes them, and knows how it is doing."""

    def __init__(self, transport: Transport, *, clock_usec: Callable[[], int]) -> None:
        self._transport = transport
        self._clock_usec = clock_usec
        self._waiting: deque[bytes] = deque(maxlen=WAITING_RECORDS)
        self.healthy = True
        self.dropped = 0
        """Records lost for good since the broker started."""
        self._dropped_since_degraded = 0

    @property
    def sink(self) -> str:
        return self._transport.name

    @property
    def queued(self) -> int:
        return len(self._waiting)

    def write(self, records: list[bytes]) -> int:
        """Hand `records` over now; how many of them were taken. `keep` the others, or take back what they allow."""
        if self._waiting and not self.retry():
            return 0
        patience = PATIENCE_SECONDS if self.healthy else 0.0
        taken = 0
        try:
            for batch in self._batches(records):
                self._transport.send(batch, patience)
                taken += len(batch)
        except OSError:
            if self.healthy:
                self.healthy = False
                self._dropped_since_degraded = 0
                self.keep([audit.record(audit.Event.DEGRADED, "The audit trail is not taken; records wait in memory.")])
        else:
            if not self.healthy:
                self._recover()
        return taken

    def keep(self, records: list[bytes]) -> None:
        """Let records wait for journald to come back, each with the time it has now."""
        stamp = audit.field(audit.EVENT_TIME_FIELD, self._clock_usec())
        for record in records:
            if len(self._waiting) == WAITING_RECORDS:
                self.dropped += 1
                self._dropped_since_degraded += 1
            self._waiting.append(record + stamp)

    def write_or_keep(self, record: bytes) -> None:
        if not self.write([record]):
            self.keep([record])

    def retry(self) -> bool:
        """Try to hand over what waits. True when nothing waits any more."""
        patience = 0.0
        try:
            for batch in self._batches(list(self._waiting)):
                self._transport.send(batch, patience)
                for _ in batch:
                    self._waiting.popleft()
                # It is back: a queue that is full for a moment is no reason to give up again.
                patience = PATIENCE_SECONDS
        except OSError:
            return False
        if not self.healthy:
            self._recover()
        return True

    def _recover(self) -> None:
        self.healthy = True
        self.write_or_keep(
            audit.record(
                audit.Event.RECOVERED,
                f"The audit trail is taken again; {self._dropped_since_degraded} records were lost meanwhile.",
                dropped=self._dropped_since_degraded,
            )
        )

    def _batches(self, records: list[bytes]) -> list[list[bytes]]:
        """`records` in order, cut into what the transport takes at once. A record alone is always short enough."""
        if len(records) == 1:
            return [records]
        batches: list[list[bytes]] = []
        size = limit = self._transport.max_batch
        for record in records:
            size += len(record) + 1
            if size > limit:
                batches.append([])
                size = len(record) + 1
            batches[-1].append(record)
        return batches
