"""Which waiting records are dropped when there are too many."""

from __future__ import annotations

from remo_broker.broker.audit.waiting import WAITING_RECORDS, Waiting
from remo_broker.protocol import audit_records
from remo_broker.protocol.audit_records import Decision, Event, Outcome


def grant(project: str, secret: str) -> bytes:
    return audit_records.fetch_head(project, secret, Decision.ALLOW, Outcome.OK, audit_records.IN_MANIFEST, 1)


def denial(project: str, secret: str) -> bytes:
    return audit_records.fetch_head(project, secret, Decision.DENY, Outcome.DENIED, "not_in_manifest", 1)


def miss(project: str, secret: str) -> bytes:
    return audit_records.fetch_head(project, secret, Decision.ALLOW, Outcome.NOT_FOUND, "not_in_snapshot", 1)


def over_the_limit(project: str, count: int) -> bytes:
    return audit_records.record(Event.RATE_LIMITED, "Over the limit.", project=project, count=count)


def control(number: int) -> bytes:
    return audit_records.record(Event.REGISTERED, f"Project p{number} was registered.", project=f"p{number}")


def refused(project: str) -> bytes:
    return audit_records.record(Event.PEER_REFUSED, "A peer was refused.", project=project)


def drained(waiting: Waiting) -> list[bytes]:
    found = []
    while waiting:
        batch = waiting.batch(4096)
        waiting.done(len(batch))
        found += batch
    return found


def test_denials_displace_no_grant() -> None:
    waiting = Waiting()
    grants = [grant(project, f"G{number}") for project in ("a", "b") for number in range(100)]
    lost = sum(waiting.add(one) for one in grants)
    lost += sum(waiting.add(denial("a", f"D{number}")) for number in range(5000))
    later = [grant("b", f"L{number}") for number in range(300)]
    lost += sum(waiting.add(one) for one in later)
    kept = drained(waiting)
    assert [one for one in kept if audit_records.GRANT_LINE in one] == grants + later
    assert len(kept) == WAITING_RECORDS
    assert waiting.denied == {"a": lost} == {"a": 5500 - WAITING_RECORDS}


def test_nothing_that_a_project_gets_no_secret_for_displaces_a_grant_of_its_own() -> None:
    """A program can ask for one that the broker does not hold, or too often, as easily as for one
    that it is denied."""
    waiting = Waiting()
    grants = [grant("a", f"G{number}") for number in range(10)]
    for one in grants:
        waiting.add(one)
    for number in range(WAITING_RECORDS):
        waiting.add(miss("a", f"M{number}"))
    for _ in range(WAITING_RECORDS):
        waiting.add(over_the_limit("a", 7))
    for _ in range(WAITING_RECORDS):
        waiting.add(refused("a"))
    assert drained(waiting)[:10] == grants
    assert waiting.missed == {"a": WAITING_RECORDS}
    assert waiting.denied == {"a": 7 * WAITING_RECORDS + 10}


def test_no_reading_of_a_manifest_and_no_unit_without_its_credential_displaces_a_grant() -> None:
    """Nor does either count as a denial of the project."""
    waiting = Waiting()
    invalid = audit_records.record(Event.MANIFEST_INVALID, "It was refused.", project="a", reason="manifest_invalid")
    refusal = audit_records.credential_head(
        "x.service", "password", "P", Decision.ALLOW, Outcome.NOT_FOUND, "not_in_snapshot", 1
    )
    loaded = audit_records.credential_head(
        "x.service", "password", "P", Decision.ALLOW, Outcome.OK, audit_records.IN_MANIFEST, 1
    )
    grants = [*(grant("b", f"G{number}") for number in range(10)), loaded, control(1)]
    for one in grants:
        waiting.add(one)
    for _ in range(WAITING_RECORDS):
        waiting.add(invalid)
        waiting.add(refusal)
    assert drained(waiting)[: len(grants)] == grants
    assert waiting.denied == {}
    assert waiting.missed == {}


def test_a_project_displaces_no_denial_of_another_project() -> None:
    waiting = Waiting()
    quiet = [denial("quiet", f"D{number}") for number in range(50)]
    for one in quiet:
        waiting.add(one)
    for number in range(5000):
        waiting.add(denial("loud", f"D{number}"))
        waiting.add(refused("loud"))
    kept = drained(waiting)
    assert kept[:50] == quiet
    assert kept[-2:] == [denial("loud", "D4999"), refused("loud")]
    assert set(waiting.denied) == {"loud"}


def test_if_only_grants_wait_the_longest_queue_loses_its_oldest() -> None:
    waiting = Waiting()
    few = [grant("few", f"G{number}") for number in range(50)]
    steps = [control(number) for number in range(50)]
    for one in few + steps:
        waiting.add(one)
    many = [grant("many", f"G{number}") for number in range(2000)]
    for one in many:
        waiting.add(one)
    assert drained(waiting) == few + steps + many[-(WAITING_RECORDS - 100) :]
    assert waiting.denied == waiting.missed == {}


def test_fetching_one_secret_over_and_over_hides_no_other_fetch() -> None:
    waiting = Waiting()
    precious = [grant("a", f"PRECIOUS{number}") for number in range(20)]
    for one in precious:
        waiting.add(one)
    for _ in range(5000):
        waiting.add(grant("a", "HARMLESS"))
    kept = drained(waiting)
    assert kept == precious + [grant("a", "HARMLESS")] * (WAITING_RECORDS - 20)


def test_records_of_operators_are_dropped_last() -> None:
    waiting = Waiting()
    steps = [control(number) for number in range(WAITING_RECORDS - 10)]
    for one in steps:
        waiting.add(one)
    for number in range(100):
        waiting.add(grant("p", f"G{number}"))
    assert drained(waiting)[: len(steps)] == steps


def test_a_denial_without_room_is_counted_at_once() -> None:
    waiting = Waiting()
    for number in range(WAITING_RECORDS):
        assert waiting.add(grant("a", f"G{number}")) == 0
    assert waiting.add(denial("b", "D")) == 1
    assert waiting.denied == {"b": 1}
    assert denial("b", "D") not in drained(waiting)


def test_a_batch_has_the_oldest_records_that_fit() -> None:
    waiting = Waiting()
    several = [grant("a", f"G{number}") for number in range(30)]
    for one in several:
        waiting.add(one)
    size = len(several[0]) + 1
    assert waiting.batch(5 * size) == several[:5]
    assert waiting.batch(1) == several[:1]
    waiting.done(3)
    assert waiting.batch(1) == several[3:4]
    assert len(waiting) == 27
