"""The moment at which a trail recovers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from remo_broker.broker.audit.journal import fields_of
from remo_broker.broker.audit.trail import AuditTrail
from remo_broker.protocol import audit_records

if TYPE_CHECKING:
    from collections.abc import Callable


class Replaced:
    """A transport whose socket is found replaced while a record is sent, which then fails or not."""

    name = "journal"
    namespace: str | None = None
    max_batch = 0

    def __init__(self, *, fails: bool) -> None:
        self.fails = fails
        self.down = self.replaced = False
        self.sent: list[bytes] = []
        self.on_loss: Callable[[], None] = lambda: None

    def send(self, datagram: bytes, timeout_seconds: float) -> None:
        if self.down:
            raise BlockingIOError
        if self.replaced and b"REMO_EVENT=audit.recovered" in datagram:
            self.replaced = False
            self.on_loss()
            if self.fails:
                raise BlockingIOError
        self.sent.append(datagram)

    def received(self, timeout_seconds: float) -> bool:
        return True

    def can_write(self) -> bool:
        return True


@pytest.mark.parametrize("fails", [False, True])
def test_a_loss_that_is_noticed_while_it_recovers_is_recorded_once(fails: bool) -> None:
    """Each serial is in one record, and none is missing; records wait until the end of that."""
    transport = Replaced(fails=fails)
    trail = AuditTrail(transport, clock_usec=lambda: 1)
    waits: list[int] = []
    trail.waits = waits.append
    trail.write_or_keep(audit_records.field("N", 1))
    transport.down = True
    trail.write_or_keep(audit_records.field("N", 2))
    transport.down, transport.replaced = False, True
    assert not trail.retry()
    assert waits == [3]
    assert trail.retry()
    assert trail.healthy
    assert waits == [3, 0]
    trail.write_or_keep(audit_records.field("N", 3))
    serials = sorted(int(fields_of(one)["REMO_SERIAL"]) for one in transport.sent)
    assert serials == list(range(1, trail.serial + 1))
