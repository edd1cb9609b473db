"""The audit trail over a real datagram socket, which the test reads."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from remo_broker.broker.audit.trail import SEND_SECONDS, AuditTrail
from remo_broker.broker.audit.waiting import WAITING_RECORDS
from remo_broker.protocol import audit_records
from tests.unit.broker.audit.conftest import TEXT

if TYPE_CHECKING:
    from tests.unit.broker.audit.conftest import TrailSetup


def numbers(entries: list[dict[str, str]]) -> list[int]:
    return [int(one["N"]) for one in entries if "N" in one]


def events(entries: list[dict[str, str]]) -> list[str]:
    return [one["REMO_EVENT"] for one in entries if "REMO_EVENT" in one]


def test_a_call_is_one_datagram(bench: TrailSetup) -> None:
    assert bench.write(1, 2, 3) == 3
    entries = bench.receiver.take()
    assert entries == [{"N": str(number), "MESSAGE": TEXT} for number in (1, 2, 3)]
    assert len(bench.receiver.datagrams) == 1
    assert (bench.trail.healthy, bench.trail.queued, bench.trail.dropped) == (True, 0, 0)


def test_records_that_exceed_one_datagram_are_sent_in_several(bench: TrailSetup) -> None:
    entries = [audit_records.field("N", number) + audit_records.field("MESSAGE", "x" * 1000) for number in range(200)]
    assert bench.trail.write(entries) == 200
    assert numbers(bench.receiver.take()) == list(range(200))
    assert len(bench.receiver.datagrams) == 4
    assert all(len(one) <= bench.transport.max_batch for one in bench.receiver.datagrams)


@pytest.mark.parametrize("version", ["253", "255.4-1ubuntu8", "257", "262", "300", "next"])
def test_since_systemd_253_each_record_is_a_datagram(bench: TrailSetup, version: str) -> None:
    """That journald keeps only the first record of a datagram. This includes an upgrade of systemd
    while the broker runs."""
    assert bench.write(1, 2) == 2
    bench.receiver.take()
    bench.now += 1
    bench.install_systemd(version)
    assert bench.write(3, 4, 5) == 3
    assert numbers(bench.receiver.take()) == [3, 4, 5]
    assert len(bench.receiver.datagrams) == 1 + 3
    bench.receiver.leave()
    assert bench.write(6, 7) == 0
    bench.receiver.listen()
    before = len(bench.receiver.datagrams)
    assert bench.trail.retry()
    entries = bench.receiver.take()
    assert numbers(entries) == [6, 7]
    assert len(bench.receiver.datagrams) - before == len(entries)


def test_an_unknown_systemd_version_counts_as_new(bench: TrailSetup) -> None:
    for library in bench.libraries.iterdir():
        library.unlink()
    assert bench.write(1, 2) == 2
    bench.receiver.take()
    assert len(bench.receiver.datagrams) == 2


def test_records_are_delivered_once_journald_is_there(bench: TrailSetup) -> None:
    bench.receiver.leave()
    assert bench.write(1, 2) == 0
    assert bench.write(3) == 0
    assert (bench.trail.healthy, bench.trail.queued) == (False, 3)
    assert not bench.trail.retry()
    bench.receiver.listen()
    assert bench.trail.retry()
    entries = bench.receiver.take()
    assert numbers(entries) == [1, 2, 3]
    assert [events(entries[:1]), events(entries[-1:])] == [["audit.degraded"], ["audit.recovered"]]
    # Each has the time of its event, not that of its delivery.
    times = [int(one["REMO_EVENT_USEC"]) for one in entries[:-1]]
    assert times == sorted(times)
    assert len(set(times)) >= 3
    assert entries[-1]["REMO_DROPPED"] == "0"
    assert (bench.trail.healthy, bench.trail.queued, bench.trail.dropped) == (True, 0, 0)
    assert bench.write(4) == 1
    assert "REMO_EVENT_USEC" not in bench.receiver.take()[0]


def test_a_new_record_delivers_the_waiting_ones_first(bench: TrailSetup) -> None:
    """So records stay in order."""
    bench.receiver.leave()
    bench.write(1, 2)
    bench.receiver.listen()
    assert bench.write(3) == 1
    assert numbers(bench.receiver.take()) == [1, 2, 3]


def test_a_full_queue_is_waited_for_once(bench: TrailSetup, monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic()
    following = bench.fill()
    assert time.monotonic() - began >= SEND_SECONDS
    assert not bench.trail.healthy
    waits: list[float] = []
    send = bench.transport.send

    def counted(datagram: bytes, timeout_seconds: float) -> None:
        waits.append(timeout_seconds)
        send(datagram, timeout_seconds)

    with monkeypatch.context() as counting:
        counting.setattr(bench.transport, "send", counted)
        for number in range(following, following + 50):
            assert bench.write(number) == 0
    assert set(waits) == {0.0}
    entries: list[dict[str, str]] = []
    while not bench.trail.retry():
        entries += bench.receiver.take()
    entries += bench.receiver.take()
    assert numbers(entries) == list(range(following + 50))
    assert bench.trail.dropped == 0


def test_a_queue_that_is_full_for_a_moment_does_not_degrade_the_audit(bench: TrailSetup) -> None:
    """As happens under load with a healthy journald: the record waits, and so does the reply."""
    entries: list[dict[str, str]] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            time.sleep(0.001)
            entries.extend(bench.receiver.take(2))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert [bench.write(number) for number in range(1000)] == [1] * 1000
    finally:
        done.set()
        reader.join()
    entries += bench.receiver.take()
    assert numbers(entries) == list(range(1000))
    assert events(entries) == []
    assert bench.trail.healthy


def test_the_last_thousand_records_are_kept_and_the_others_counted(bench: TrailSetup) -> None:
    bench.receiver.leave()
    for number in range(WAITING_RECORDS + 500):
        bench.write(number)
    assert (bench.trail.queued, bench.trail.dropped) == (WAITING_RECORDS, 500)
    bench.receiver.listen()
    entries: list[dict[str, str]] = []
    while not bench.trail.retry():
        entries += bench.receiver.take()
    entries += bench.receiver.take()
    assert numbers(entries) == list(range(500, WAITING_RECORDS + 500))
    assert events(entries) == ["audit.degraded", "audit.recovered"]
    assert entries[-1]["REMO_DROPPED"] == "500"
    bench.receiver.leave()
    bench.write(1)
    bench.receiver.listen()
    assert bench.trail.retry()
    assert "REMO_DROPPED" in (last := bench.receiver.take()[-1])
    assert int(last["REMO_DROPPED"]) == bench.trail.dropped - 500  # counted again each time
    assert bench.trail.dropped >= 500  # for good


def test_a_recreated_socket_is_found(bench: TrailSetup) -> None:
    bench.write(1)
    bench.receiver.take()
    bench.receiver.leave()
    bench.receiver.listen()
    bench.write(2)
    bench.trail.retry()
    assert numbers(bench.receiver.take()) == [2]
    assert bench.trail.healthy


def test_only_records_that_journald_has_read_count_as_received(bench: TrailSetup) -> None:
    """Not those in its queue, nor those in the queue of a removed socket."""
    assert bench.write(1) == 1
    assert not bench.transport.received(0.0)
    bench.receiver.take()
    assert bench.transport.received(0.0)
    assert bench.write(2) == 1
    bench.receiver.leave()
    assert not bench.transport.received(0.0)


def test_a_second_failure_during_recovery_loses_and_repeats_nothing(bench: TrailSetup) -> None:
    """The receiver accepts some of the waiting records and hangs again."""
    bench.receiver.leave()
    for number in range(900):
        bench.write(number)
    bench.receiver.listen()
    entries: list[dict[str, str]] = []
    number = 900
    for _ in range(2000):
        if bench.write(number):
            break
        number += 1
        entries += bench.receiver.take(1)
    while not bench.trail.retry():
        entries += bench.receiver.take()
    entries += bench.receiver.take()
    assert bench.trail.dropped == 0
    assert numbers(entries) == list(range(number + 1))


def fetch(bench: TrailSetup, project: str, secret: str, *, denied: bool) -> None:
    head = audit_records.fetch_head(
        project,
        secret,
        audit_records.Decision.DENY if denied else audit_records.Decision.ALLOW,
        audit_records.Outcome.DENIED if denied else audit_records.Outcome.OK,
        "reason",
        1,
    )
    [record] = bench.trail.numbered([head], audit_records.peer_fields(1, 2, 3) + audit_records.latency_field(4))
    if not bench.trail.write([record]):
        bench.trail.keep([record])


def test_serials_have_a_gap_for_each_lost_record_and_no_other(bench: TrailSetup) -> None:
    fetch(bench, "a", "FIRST", denied=False)
    entries = bench.receiver.take()
    for _ in range(2):
        bench.trail.check_storage()
    bench.receiver.leave()
    for number in range(3000):
        fetch(bench, "a", f"D{number}", denied=True)
    fetch(bench, "b", "GRANT", denied=False)
    for _ in range(3):
        assert not bench.trail.retry()  # a record that is discarded takes no serial
    bench.receiver.listen()
    while not bench.trail.retry():
        entries += bench.receiver.take()
    fetch(bench, "a", "LAST", denied=False)
    entries += bench.receiver.take()
    serials = [int(one["REMO_SERIAL"]) for one in entries]
    assert len(set(serials)) == len(serials)
    assert max(serials) == bench.trail.serial
    assert bench.trail.serial - len(serials) == bench.trail.dropped > 2000
    assert {one["REMO_START_ID"] for one in entries} == {bench.trail.start_id}
    [counted] = [one for one in entries if one["REMO_EVENT"] == "fetch.denials_counted"]
    assert (counted["REMO_PROJECT"], counted["REMO_DECISION"]) == ("a", "deny")
    assert int(counted["REMO_COUNT"]) == bench.trail.dropped
    assert [one["REMO_SECRET"] for one in entries if one.get("REMO_DECISION") == "allow"] == ["FIRST", "GRANT", "LAST"]


def test_misses_that_are_dropped_are_counted_as_such(bench: TrailSetup) -> None:
    for _ in range(2):
        bench.trail.check_storage()
    bench.receiver.leave()
    miss = audit_records.fetch_head(
        "a", "M", audit_records.Decision.ALLOW, audit_records.Outcome.NOT_FOUND, "no_snapshot", 1
    )
    for _ in range(2000):
        bench.trail.write_or_keep(miss)
    bench.receiver.listen()
    entries = []
    while not bench.trail.retry():
        entries += bench.receiver.take()
    entries += bench.receiver.take()
    [counted] = [one for one in entries if one["REMO_EVENT"] == "fetch.denials_counted"]
    assert (counted["REMO_DECISION"], counted["REMO_OUTCOME"]) == ("allow", "not_found")
    assert int(counted["REMO_COUNT"]) == bench.trail.dropped == 1000


def test_each_start_has_an_id_of_its_own(bench: TrailSetup) -> None:
    other = AuditTrail(bench.transport, clock_usec=bench.tick)
    assert other.start_id != bench.trail.start_id
    assert len(other.start_id) == 32


def test_a_log_line_takes_no_serial(bench: TrailSetup) -> None:
    bench.trail.log(audit_records.PRIORITY_CONTROL, "Said.")
    assert bench.receiver.take() == [{"MESSAGE": "Said.", "PRIORITY": "5", "SYSLOG_IDENTIFIER": "remo-broker"}]
    assert bench.trail.serial == 0


def test_records_in_the_queue_of_a_removed_socket_count_as_lost(bench: TrailSetup) -> None:
    """Whether they were read cannot be known: the counter is an upper bound, and includes only
    records that were not seen to be read."""
    assert bench.write(1, 2, 3) == 3
    bench.receiver.leave()
    bench.receiver.listen()
    assert bench.write(4) == 1
    assert bench.trail.dropped == 3
    while not bench.trail.retry():
        pass
    assert events(bench.receiver.take()) == ["audit.degraded", "audit.recovered"]
    for _ in range(2):
        bench.trail.check_storage()
    bench.receiver.leave()
    bench.receiver.listen()
    bench.write(5)
    assert bench.trail.dropped == 3


def test_records_accepted_before_a_full_disk_count_even_if_journald_first_hangs(
    bench: TrailSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A journald without room is slow before it is known to have none."""
    assert bench.write(1, 2, 3) == 3
    assert not bench.trail.received()
    bench.receiver.take()
    assert not bench.trail.healthy
    monkeypatch.setattr(bench.transport, "can_write", lambda: False)
    for _ in range(4):
        bench.trail.check_storage()
        assert not bench.trail.retry()
    assert bench.trail.dropped == 3
    monkeypatch.undo()
    bench.receiver.take()
    while not bench.trail.retry():
        pass
    entries = bench.receiver.take()
    assert events(entries) == ["audit.degraded", "audit.recovered"]
    assert entries[-1]["REMO_DROPPED"] == "3"


def test_a_record_discarded_during_recovery_takes_no_serial(bench: TrailSetup, monkeypatch: pytest.MonkeyPatch) -> None:
    """The receiver accepts the waiting records, and hangs before the record of the recovery."""
    fetch(bench, "a", "FIRST", denied=False)
    bench.receiver.take()
    bench.receiver.leave()
    fetch(bench, "a", "WAITS", denied=False)
    bench.receiver.listen()
    send = bench.transport.send
    sent: list[bytes] = []

    def hangs(datagram: bytes, timeout_seconds: float) -> None:
        if b"audit.recovered" in datagram and len(sent) < 3:
            sent.append(datagram)
            raise BlockingIOError
        send(datagram, timeout_seconds)

    monkeypatch.setattr(bench.transport, "send", hangs)
    for _ in range(3):
        assert not bench.trail.retry()
    assert bench.trail.retry()
    serials = [int(one["REMO_SERIAL"]) for one in bench.receiver.take()]
    assert sorted(serials) == list(range(2, bench.trail.serial + 1))
