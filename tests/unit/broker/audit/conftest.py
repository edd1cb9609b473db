"""An audit trail with a receiver of its records."""

from __future__ import annotations

import contextlib
import os
import pathlib
from typing import TYPE_CHECKING

import pytest

from remo_broker.broker.audit.journal import JournalTransport
from remo_broker.broker.audit.trail import AuditTrail
from remo_broker.protocol import audit_records
from tests.support.native import Receiver

if TYPE_CHECKING:
    from collections.abc import Iterator

# As long as real records, so that a thousand take several datagrams.
TEXT = "x\n" * 100


class TrailSetup:
    """A trail, the receiver of its records, and a clock that advances by a second whenever it is
    read."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.now = 1
        self.receiver = Receiver(directory / "socket")
        self.libraries = directory / "systemd"
        self.libraries.mkdir()
        self.install_systemd("252")
        nowhere = str(directory / "none")
        self.transport = JournalTransport(str(directory / "socket"), nowhere, nowhere, [nowhere, str(self.libraries)])
        self.trail = AuditTrail(self.transport, clock_usec=self.tick)

    def install_systemd(self, version: str) -> None:
        for library in self.libraries.iterdir():
            library.unlink()
        (self.libraries / f"libsystemd-shared-{version}.so").touch()
        os.utime(self.libraries, ns=(self.now, self.now))  # file times have a resolution of milliseconds

    def tick(self) -> int:
        self.now += 1_000_000
        return self.now

    def write(self, *numbers: int) -> int:
        """Write records, keep those that were not accepted, and return how many were."""
        entries = [audit_records.field("N", number) + audit_records.field("MESSAGE", TEXT) for number in numbers]
        taken = self.trail.write(entries)
        self.trail.keep(entries[taken:])
        return taken

    def fill(self) -> int:
        """Write one by one until one is not accepted; return the number of the next."""
        number = 0
        while self.write(number):
            number += 1
        return number + 1

    def close(self) -> None:
        self.receiver.leave()
        if self.transport._socket is not None:
            self.transport._socket.close()


@pytest.fixture
def bench(directory: pathlib.Path) -> Iterator[TrailSetup]:
    with contextlib.closing(TrailSetup(directory)) as bench:
        yield bench
