"""Leases."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from remo_broker.broker.leases import Leases


def test_a_lease_ends_when_its_time_is_over() -> None:
    leases = Leases(10, 4)
    assert leases.begin("A", 100.0) == 10
    assert leases.until == {"A": 110.0}
    assert leases.live(109.9) == 1
    assert leases.live(110.0) == 0
    assert leases.until == {}


def test_the_oldest_lease_is_dropped_first() -> None:
    leases = Leases(10, 2)
    for number, name in enumerate("ABC"):
        leases.begin(name, float(number))
    assert list(leases.until) == ["B", "C"]


def test_a_renewed_lease_counts_as_the_youngest() -> None:
    leases = Leases(10, 3)
    leases.begin("A", 0.0)
    leases.begin("B", 1.0)
    leases.begin("A", 20.0)
    leases.begin("C", 21.0)
    leases.begin("D", 22.0)
    assert list(leases.until) == ["A", "C", "D"]


def test_new_limits_do_not_change_running_leases() -> None:
    leases = Leases(10, 4)
    for name in "ABCD":
        leases.begin(name, 0.0)
    leases.resize(5, 2)
    assert leases.until == {"C": 10.0, "D": 10.0}
    assert leases.begin("E", 1.0) == 5
    assert list(leases.until) == ["D", "E"]


def test_leases_are_undone_and_cleared() -> None:
    leases = Leases(10, 4)
    leases.begin("A", 0.0)
    leases.begin("B", 0.0)
    leases.end("A")
    leases.end("never begun")
    assert list(leases.until) == ["B"]
    leases.clear()
    assert leases.live(0.0) == 0


@given(st.lists(st.tuples(st.sampled_from("ABCDEF"), st.floats(0, 5)), max_size=40), st.integers(1, 4))
def test_never_more_than_allowed_and_never_longer(begun: list[tuple[str, float]], max_entries: int) -> None:
    leases = Leases(7, max_entries)
    now = 0.0
    for name, pause in begun:
        now += pause
        if leases.until.get(name, 0.0) <= now:
            assert leases.begin(name, now) == 7
        assert len(leases.until) <= max_entries
        assert all(end <= now + 7 for end in leases.until.values())
        assert name in leases.until
