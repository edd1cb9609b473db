"""Requests that are only counted, separately for each peer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from remo_broker.broker.audit import floods
from remo_broker.broker.audit.floods import LONG_NAMES_BURST, MAX_PEERS, LongNames, RateLimitRecords
from remo_broker.broker.loop import Loop

if TYPE_CHECKING:
    pass

LONG = "N" * 100


class Records:
    """Stands in for the audit trail: `counts` has what it was given, by uid; None is no peer."""

    def __init__(self) -> None:
        self.counts: dict[str | None, int] = {}
        self.number = 0

    def write_or_keep(self, record: bytes) -> None:
        fields = dict(line.split("=", 1) for line in record.decode().splitlines())
        uid = fields.get("REMO_PEER_UID")
        self.counts[uid] = self.counts.get(uid, 0) + int(fields["REMO_COUNT"])
        self.number += 1


def peer(uid: int) -> bytes:
    return b"REMO_PEER_UID=%d\n" % uid


@pytest.fixture(autouse=True)
def _early_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floods, "REPORT_SECONDS", 0.01)


def test_a_flood_over_the_rate_limit_is_recorded_for_its_own_peer(loop: Loop) -> None:
    """Whether it is refused first or last."""
    records = Records()
    limited = RateLimitRecords(loop, records)  # type: ignore[arg-type]
    for uid in (1, *[2] * 500, 3):
        limited.add("app", peer(uid))
    assert records.counts == {"1": 1}
    loop.turn()
    assert records.counts == {"1": 1, "2": 500, "3": 1}
    limited.add("app", peer(2))
    assert records.number == 3, "not at once, so soon after the last"


def test_a_flood_of_long_names_is_recorded_for_its_own_peer(loop: Loop) -> None:
    records = Records()
    names = LongNames(loop, records)  # type: ignore[arg-type]
    recorded = [names.recorded("app", LONG, peer(uid)) for uid in (*[2] * LONG_NAMES_BURST, 1, *[2] * 500, 3)]
    assert recorded.count(True) == LONG_NAMES_BURST
    loop.turn()
    assert records.counts == {"1": 1, "2": 500, "3": 1}


def test_peers_beyond_the_limit_are_counted_together(loop: Loop) -> None:
    """Their record names no peer."""
    records = Records()
    limited = RateLimitRecords(loop, records)  # type: ignore[arg-type]
    for uid in range(10 * MAX_PEERS):
        limited.add("app", peer(uid))
    loop.turn()
    assert sum(records.counts.values()) == 10 * MAX_PEERS
    assert records.counts[None] == 9 * MAX_PEERS - 1
